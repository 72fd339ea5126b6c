//! Observes afresh in each round, and remembers only what takes time. At rest it sends one request a second; it looks
//! at everything else only when something is wrong.

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use tokio::time::Instant;

use super::decide::{CopyState, HANGS_BELOW, Observed, Role, SILENT_GRACE, Server, Stands};
use crate::base::error::Result;
use crate::base::probe::Answer;
use crate::desired::config::{API_PORT, Etcd};
use crate::desired::secrets::Tls;
use crate::etcd::alarms;
use crate::node::etcd_data::Data;
use crate::node::host::Host;
use crate::node::lock;
use crate::node::processes::{self, Process};
use crate::node::world::Ask;
use crate::plane::bridge::Bridge;
use crate::plane::kept_copy::Copy;

/// How long one question to an API server may take.
pub(super) const ASK_LIMIT: Duration = Duration::from_secs(2);
/// What an API server answers that waits for an etcd which does not answer itself: that one does not hang.
pub(super) const WITHOUT_ETCD: &str = "/version";
/// For how long a silent process is watched at least: since the first question that it did not answer was given up.
const WATCHED: Duration = SILENT_GRACE.saturating_sub(ASK_LIMIT);
/// etcd is on this machine.
const ETCD_LIMIT: Duration = Duration::from_millis(500);
/// How long it may take to say that it serves: it asks the others.
const QUORUM_LIMIT: Duration = Duration::from_secs(1);
/// An API server that has been silent or not ready for so long may be so because etcd does not serve: that is asked before guard
/// would act.
const ASK_ETCD: Duration = Duration::from_secs(4);
/// How far back raises count.
const LATELY: Duration = Duration::from_secs(3600);

/// Who is asked, and where: what the copy of the bridge says.
pub struct Addresses {
    /// This controller's.
    pub node_ip: SocketAddr,
    /// The self-hosted API server of this controller, and it alone.
    pub loopback: SocketAddr,
    /// etcd's clients' port, where etcd is on this controller.
    pub etcd: Option<SocketAddr>,
    /// Its data directory.
    pub etcd_data: Option<String>,
    /// What it lets in.
    tls: Tls,
}

impl Addresses {
    /// Those of the controller and cluster that `copy` is of.
    ///
    /// # Errors
    /// A copy that cannot be used.
    pub fn of(copy: &Copy) -> Result<Self> {
        let (cluster, controller) = copy.cluster()?;
        let loopback = cluster.loopback();
        let etcd_data = match &cluster.etcd {
            Etcd::Local { data_dir, .. } => Some(data_dir.clone()),
            Etcd::External { .. } => None,
        };
        Ok(Self {
            node_ip: SocketAddr::new(controller.address, API_PORT),
            loopback: SocketAddr::new(loopback, API_PORT),
            etcd: etcd_data.as_ref().map(|_| SocketAddr::new(loopback, alarms::PORT)),
            etcd_data,
            tls: copy.assets.tls(),
        })
    }

    /// Where to ask for the self-hosted one while there is no copy that says so.
    pub fn unknown() -> Self {
        let loopback = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), API_PORT);
        Self { node_ip: loopback, loopback, etcd: None, etcd_data: None, tls: Tls::new() }
    }
}

/// What only time can tell. All of it can be lost: guard begins anew without.
pub struct Observer {
    begun: Instant,
    server: Option<(Server, Instant)>,
    /// The process of one that is silent, when that was first noticed.
    silent: Option<(Process, Instant)>,
    silent_since: Option<Instant>,
    /// When etcd was last seen not to serve.
    without_etcd: Option<Instant>,
    raises: VecDeque<Instant>,
    is_made_anew: bool,
    not_controller_since: Option<Instant>,
    leaderless_for: Duration,
    /// When this controller was made, if its API server has never served since.
    made: Option<Instant>,
    /// The last words of the self-hosted API server, and of NODE_IP, for people.
    pub said: String,
    /// NODE_IP answered: with the bridge lowered, that is the self-hosted one.
    pub api_answers: bool,
}

impl Observer {
    /// Nothing is known yet.
    pub fn new(now: Instant) -> Self {
        Self {
            begun: now,
            server: None,
            silent: None,
            silent_since: None,
            without_etcd: None,
            raises: VecDeque::new(),
            is_made_anew: false,
            not_controller_since: None,
            leaderless_for: Duration::ZERO,
            made: None,
            said: String::new(),
            api_answers: false,
        }
    }

    /// The bridge was raised.
    pub fn raised(&mut self, now: Instant) {
        self.raises.push_back(now);
        self.silent_since = None;
        self.leaderless_for = Duration::ZERO;
    }

    /// This controller was made just now: its first API server is to come.
    pub fn made(&mut self, now: Instant) {
        self.made = Some(now);
    }

    /// The API showed for how long a Lease of the control plane has not been renewed.
    pub fn leaderless(&mut self, leaderless_for: Duration) {
        self.leaderless_for = leaderless_for;
    }

    /// The API said what this controller's Node says of it.
    pub fn role(&mut self, role: Role, now: Instant) {
        self.is_made_anew = role == Role::MadeAnew;
        let since = self.not_controller_since;
        self.not_controller_since = if role == Role::TakenOff { since.or(Some(now)) } else { None };
    }

    /// The Node was given its label again, or that was tried: the API says what came of it.
    pub fn adopted(&mut self) {
        self.is_made_anew = false;
    }

    /// Looks. `now` is asked again after each wait.
    pub async fn observe(&mut self, host: &Host, probe: &dyn Ask, at: &Addresses, copy: CopyState) -> Observed {
        let standing = Bridge::new(host).standing();
        let stands = match (standing.api_server, standing.controllers) {
            _ if standing.is_all() => Stands::All,
            (true, _) => Stands::ApiServer,
            (false, 0) => Stands::Nothing,
            (false, _) => Stands::Begun,
        };
        let was_silent = matches!(self.server, Some((Server::Silent, _)));
        let asked = Instant::now();
        let (answer, is_there) = tokio::join!(probe.get(at.loopback, "/readyz", ASK_LIMIT), async {
            was_silent && !probe.get(at.loopback, WITHOUT_ETCD, ASK_LIMIT).await.is_missed()
        });
        let now = Instant::now();
        // A machine that stood still meanwhile was not asked for longer.
        let asked = asked.max(now.checked_sub(ASK_LIMIT).unwrap_or(asked));
        let server = server(&answer);
        let since = match self.server {
            Some((before, since)) if before == server => since,
            _ => asked,
        };
        self.server = Some((server, since));
        let is_well = server == Server::Ready;
        let proc = host.path("/proc");
        // Whoever has the port is the one; what is no API server of this cluster is never ended for it.
        let is_silent = server == Server::Silent && !is_there;
        let silent = is_silent.then(|| processes::only_listener(&proc, at.loopback)).flatten();
        let silent = silent.filter(|process| processes::is_own_api_server(&proc, process));
        let hangs = self.hangs(silent, now);
        self.said = answer.to_string();
        self.api_answers = is_well;
        if is_well {
            self.made = None;
        }
        if stands == Stands::Nothing {
            self.silent_since = None;
        } else {
            let answer = probe.get(at.node_ip, "/readyz", ASK_LIMIT).await;
            self.api_answers = answer.is_ready();
            self.silent_since = match answer {
                // Neither an answer nor a miss.
                Answer::NotAsked(_) => self.silent_since,
                answer if answer.is_answered() => None,
                _ => self.silent_since.or(Some(Instant::now())),
            };
        }
        let etcd = match at.etcd {
            Some(address) if !is_well => host.world().accepts(address, ETCD_LIMIT).await,
            _ => true,
        };
        let serves = match at.etcd {
            Some(address) if etcd && matches!(server, Server::Silent | Server::Unready) && now - since >= ASK_ETCD => {
                host.world().etcd_serves(address, &at.tls, QUORUM_LIMIT).await
            }
            _ => etcd,
        };
        if !serves {
            self.without_etcd = Some(Instant::now());
        }
        let data = at.etcd_data.as_deref().filter(|_| !etcd).map(|dir| Data::at(host, dir));
        let lacks_data = data.filter(|data| data.is_seen() && !data.is_there()).map(|data| data.name().to_owned());
        let now = Instant::now();
        while self.raises.front().is_some_and(|at| now.duration_since(*at) > LATELY) {
            self.raises.pop_front();
        }
        Observed {
            server,
            server_for: now - self.with_etcd(since),
            has_process: !is_well && processes::running(&proc).others.contains("kube-apiserver"),
            hangs,
            stands,
            has_leftovers: is_well && stands == Stands::Nothing && host.bridge().exists(),
            silent_for: self.silent_since.map_or(Duration::ZERO, |since| now - self.with_etcd(since)),
            etcd,
            etcd_serves: serves,
            lacks_data,
            up_for: now - self.begun,
            raises: u32::try_from(self.raises.len()).unwrap_or(u32::MAX),
            copy,
            leaderless_for: self.leaderless_for,
            new_for: self.made.map(|made| now - made),
            is_made_anew: self.is_made_anew,
            not_controller_for: self.not_controller_since.map(|since| now - since),
            another_serves: None,
            busy: lock::holder(host),
        }
    }

    /// Since when what has been seen since `since` has lasted beside an etcd that serves: what came of one that did not says
    /// nothing of the API server once etcd is back, and was seen before etcd was.
    fn with_etcd(&self, since: Instant) -> Instant {
        self.without_etcd.map_or(since, |at| since.max(at))
    }

    /// The process of a silent API server, if it has done nothing since it was first seen silent.
    fn hangs(&mut self, silent: Option<Process>, now: Instant) -> Option<Process> {
        match (silent, self.silent) {
            (Some(is), Some((was, since))) if is.is(&was) => {
                let (used, watched) = (is.used.saturating_sub(was.used), now - since);
                (watched >= WATCHED && used <= watched.mul_f64(HANGS_BELOW)).then_some(is)
            }
            _ => {
                self.silent = silent.map(|process| (process, now));
                None
            }
        }
    }
}

/// What an answer to /readyz says of the server that gave it.
fn server(answer: &Answer) -> Server {
    match answer {
        answer if answer.is_ready() => Server::Ready,
        answer if answer.is_shutting_down() => Server::Ending,
        // A certificate that has expired, say: the bridge would show the same.
        Answer::Http { .. } | Answer::Tls(_) => Server::Unready,
        Answer::Refused => Server::Gone,
        Answer::TimedOut | Answer::Broken(_) | Answer::Unreachable(_) => Server::Silent,
        Answer::NotAsked(_) => Server::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_that_is_silent_and_works_does_not_hang() {
        let begun = Instant::now();
        let mut observer = Observer::new(begun);
        let mut of = |began, seconds, used: Option<u64>| {
            let age = Duration::from_secs(60);
            let process = |used| Process { pid: 7, began, age, used: Duration::from_millis(used) };
            let hangs = observer.hangs(used.map(process), begun + Duration::from_secs(seconds));
            hangs.map(|process| process.pid)
        };
        let mut at = |seconds, used| of(100, seconds, used);
        assert_eq!(at(0, None), None);
        assert_eq!(at(2, Some(1000)), None, "seen for the first time");
        assert_eq!(at(6, Some(1030)), Some(7), "0.03 s of 4");
        assert_eq!(at(6, Some(1050)), None, "0.05 s of 4");
        // It has answered meanwhile.
        assert_eq!(at(7, None), None);
        assert_eq!(at(8, Some(1050)), None);
        assert_eq!(at(11, Some(1050)), None, "not watched for long enough");
        assert_eq!(at(12, Some(1050)), Some(7));
        assert_eq!(of(101, 12, Some(1050)), None, "another process, of the same number");
    }

    #[test]
    fn what_came_of_an_etcd_that_did_not_serve_is_not_counted() {
        let begun = Instant::now();
        let at = |seconds| begun + Duration::from_secs(seconds);
        let mut observer = Observer::new(begun);
        assert_eq!(observer.with_etcd(at(3)), at(3));
        observer.without_etcd = Some(at(12));
        assert_eq!(observer.with_etcd(at(3)), at(12), "silent since 3, and etcd served from 12 on");
        assert_eq!(observer.with_etcd(at(20)), at(20));
    }

    #[test]
    fn an_answer_tells_what_the_server_is() {
        let http = |status, body: &str| Answer::Http { status, body: body.into() };
        assert_eq!(server(&http(200, "ok")), Server::Ready);
        assert_eq!(
            server(&http(500, "[+]ping ok\n[-]shutdown failed: reason withheld\nreadyz check failed")),
            Server::Ending
        );
        assert_eq!(server(&http(500, "[-]etcd failed: reason withheld\n[+]shutdown ok\n")), Server::Unready);
        assert_eq!(server(&http(403, "forbidden")), Server::Unready);
        assert_eq!(server(&Answer::Tls("expired".into())), Server::Unready);
        assert_eq!(server(&Answer::Refused), Server::Gone);
        assert_eq!(server(&Answer::TimedOut), Server::Silent);
        assert_eq!(server(&Answer::Broken("reset".into())), Server::Silent);
        assert_eq!(server(&Answer::NotAsked("Too many open files".into())), Server::Unknown);
    }
}
