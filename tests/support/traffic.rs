//! A client that never pauses: from the first moment at which the API is ready it reads and writes on a schedule, whatever is
//! still under way, each time on a new connection and without a retry, and remembers what came of each request.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fmt;
use std::fs::File;
use std::ops::Range;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::task::LocalSet;
use tokio::time::{MissedTickBehavior, interval};

use super::beside::{Beside, StopSignal};
use super::http::{Client, runtime};
use super::node::enter;

/// How often it asks.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// Between two reads.
    every: Duration,
    /// So many reads to a write.
    reads: u64,
}

impl Pace {
    /// A read every 20 ms, and a write every 100 ms.
    pub const READS: Self = Self { every: Duration::from_millis(20), reads: 5 };
    /// Both every 50 ms.
    pub const BOTH: Self = Self { every: Duration::from_millis(50), reads: 1 };
    /// The same for a client beside others.
    pub const BESIDE: Self = Self { every: Duration::from_millis(150), reads: 1 };
}

/// Small, and present in every namespace whatever else is.
const READ: &str = "/api/v1/namespaces/default/configmaps?limit=1";
const WRITE: &str = "/api/v1/namespaces/default/configmaps";
/// How many failures are shown: the first ones tell most.
const SHOWN: usize = 5;
/// What the names of all written ConfigMaps begin with.
pub const PREFIX: &str = "traffic-";

/// One request.
#[derive(Debug, Clone)]
pub struct Exchange {
    /// When it was begun, from the API's first readiness on.
    pub at: Duration,
    pub took: Duration,
    /// The ConfigMap that it was to make, if it was a write.
    pub writes: Option<String>,
    /// Why it failed, if it did.
    pub failure: Option<String>,
}

/// All requests of a client, in the order in which they were answered.
pub struct Record {
    /// When the API was ready for the first time.
    pub ready: Instant,
    pub exchanges: Vec<Exchange>,
    pub lasted: Duration,
}

/// What etcd says of a write that it took in while leadership moved.
const DROPPED: [&str; 2] = ["etcdserver: request timed out", "raft proposal dropped"];

impl Record {
    pub fn failures(&self) -> impl Iterator<Item = &Exchange> {
        self.exchanges.iter().filter(|exchange| exchange.failure.is_some())
    }

    /// Whether nothing failed but what etcd itself drops where leadership moves, while a write is on its way to the leader: one of
    /// the client's.
    pub fn fails_by_etcd_alone(&self) -> bool {
        let is_dropped = |why: &str| DROPPED.iter().any(|dropped| why.contains(dropped));
        let (dropped, failed): (Vec<_>, Vec<_>) =
            self.failures().partition(|one| one.failure.as_deref().is_some_and(is_dropped));
        failed.is_empty() && dropped.len() <= 1 && dropped.iter().all(|one| one.writes.is_some())
    }

    /// How long after `event` the last request was sent that failed; zero if none was sent later.
    pub fn fails_until(&self, event: Duration) -> Duration {
        self.failures().map(|exchange| exchange.at.saturating_sub(event)).max().unwrap_or_default()
    }

    /// The names of the ConfigMaps that the API server said it has made.
    pub fn acknowledged(&self) -> BTreeSet<&str> {
        let made = self.exchanges.iter().filter(|exchange| exchange.failure.is_none());
        made.filter_map(|exchange| exchange.writes.as_deref()).collect()
    }

    /// The longest time without a success, and when it ended.
    pub fn longest_gap(&self) -> (Duration, Duration) {
        self.longest_gap_within(Duration::ZERO..self.lasted)
    }

    /// The same of a part of the time.
    pub fn longest_gap_within(&self, part: Range<Duration>) -> (Duration, Duration) {
        let done = self.exchanges.iter().filter(|exchange| exchange.failure.is_none()).map(|e| e.at + e.took);
        let mut before = part.start;
        let mut longest = (Duration::ZERO, part.start);
        for at in done.filter(|at| part.contains(at)).chain([part.end]) {
            longest = longest.max((at - before, at));
            before = at;
        }
        longest
    }

    /// The longest time in which no request was begun: for so long, this machine had no time for the client itself.
    pub fn longest_pause(&self) -> Duration {
        let mut begun: Vec<_> = self.exchanges.iter().map(|exchange| exchange.at).collect();
        begun.sort();
        begun.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or_default()
    }

    /// The times in which requests failed, each from the last success before to the first one after: when it began, and
    /// how long it lasted.
    pub fn outages(&self) -> Vec<(Duration, Duration)> {
        let mut ends: Vec<_> = self.exchanges.iter().map(|e| (e.at + e.took, e.failure.is_some())).collect();
        ends.sort();
        let (mut outages, mut before, mut since) = (Vec::new(), Duration::ZERO, None);
        for (at, failed) in ends.into_iter().chain([(self.lasted, false)]) {
            if failed {
                since = since.or(Some(before));
            } else {
                outages.extend(since.take().map(|since| (since, at.saturating_sub(since))));
                before = at;
            }
        }
        outages
    }

    fn latency(&self, of_hundred: usize) -> Duration {
        let mut all: Vec<_> = self.exchanges.iter().map(|exchange| exchange.took).collect();
        all.sort();
        all.get((all.len() * of_hundred / 100).min(all.len().saturating_sub(1))).copied().unwrap_or_default()
    }

    /// What came of it, in a line.
    pub fn summary(&self) -> String {
        let writes = self.exchanges.iter().filter(|exchange| exchange.writes.is_some()).count();
        let (gap, end) = self.longest_gap();
        format!(
            "{} reads and {writes} writes in {:.1?}, {} failed; longest gap between successes {gap:.2?}, ended at {end:.1?}, between requests {:.2?}; latency median {:.1?}, 99 of 100 {:.1?}, longest {:.1?}",
            self.exchanges.len() - writes,
            self.lasted,
            self.failures().count(),
            self.longest_pause(),
            self.latency(50),
            self.latency(99),
            self.latency(100),
        )
    }
}

impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.summary())?;
        for Exchange { at, took, writes, failure } in self.failures().take(SHOWN) {
            let kind = if writes.is_some() { "write" } else { "read" };
            write!(f, "\n  {kind} begun at {at:.3?}, after {took:.3?}: {}", failure.as_deref().unwrap_or_default())?;
        }
        Ok(())
    }
}

/// A client at work in a thread of its own.
pub struct Traffic(Beside<Option<Record>>);

impl Traffic {
    pub fn begin(client: Client) -> Self {
        Self(Beside::begin(|stop| runtime().block_on(LocalSet::new().run_until(work(client, Pace::READS, stop)))))
    }

    /// The same from inside of another network than this machine's.
    pub fn begin_in(network: File, client: Client) -> Self {
        Self::paced_in(network, client, Pace::READS)
    }

    /// The same at another pace.
    pub fn paced_in(network: File, client: Client, pace: Pace) -> Self {
        Self(Beside::begin(move |stop| {
            enter(network);
            runtime().block_on(LocalSet::new().run_until(work(client, pace, stop)))
        }))
    }

    /// Ends it, with what is under way, and tells what it saw; `None` if the API was never ready.
    pub fn end(self) -> Option<Record> {
        self.0.end()
    }
}

async fn work(client: Client, pace: Pace, stop: StopSignal) -> Option<Record> {
    let mut ticks = interval(pace.every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while !matches!(client.get("/readyz").await, Ok((200, _))) {
        if stop.to_stop() {
            return None;
        }
        ticks.tick().await;
    }
    let ready = Instant::now();
    let exchanges: Rc<RefCell<Vec<Exchange>>> = Rc::default();
    let mut under_way = Vec::new();
    // Another client of the same cluster writes others.
    static CLIENTS: AtomicUsize = AtomicUsize::new(0);
    let name = format!("{PREFIX}{}", CLIENTS.fetch_add(1, Ordering::Relaxed));
    let mut number = 0;
    while !stop.to_stop() {
        ticks.tick().await;
        number += 1;
        // Not awaited here: a request that hangs must not keep the next ones from being made.
        let mut begin = |writes| {
            let (client, exchanges) = (client.clone(), exchanges.clone());
            under_way.push(tokio::task::spawn_local(async move {
                let exchange = exchange(&client, ready, writes).await;
                exchanges.borrow_mut().push(exchange);
            }));
        };
        begin(None);
        if number % pace.reads == 0 {
            begin(Some(format!("{name}-{number}")));
        }
    }
    let lasted = ready.elapsed();
    for task in under_way {
        task.await.unwrap();
    }
    Some(Record { ready, exchanges: exchanges.take(), lasted })
}

async fn exchange(client: &Client, ready: Instant, writes: Option<String>) -> Exchange {
    let begun = Instant::now();
    let (wanted, answer) = match &writes {
        None => (200, client.get(READ).await),
        Some(name) => {
            let object = serde_json::json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}});
            (201, client.post(WRITE, object.to_string()).await)
        }
    };
    let failure = match answer {
        Ok((status, _)) if status == wanted => None,
        Ok((status, body)) => Some(format!("{status}: {}", String::from_utf8_lossy(&body))),
        Err(reason) => Some(reason),
    };
    Exchange { at: begun - ready, took: begun.elapsed(), writes, failure }
}
