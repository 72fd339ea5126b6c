//! What keepalived asks on each controller, once a second: whether this machine may have the virtual address, and whether an
//! API server serves here. Each run looks for as long as it takes until the next one, so that what happens in between is
//! noticed at once. It asks loopback and the disk alone.
//!
//! Where this machine is about to be no controller any more and has the address, requests that are under way are answered before
//! the check fails and keepalived takes the address away. Guard could not see to that: in its pod it has no capabilities.
//!
//! ```text
//! controller ─► begins let-go ─► waits until requests have ended ─► fails ─► keepalived: the address moves
//!                   new connections wait ··········································└─► let-go ends
//! ```

use std::net::{IpAddr, SocketAddr};
use std::process::Stdio;
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::process::Command;
use tokio::time::{Instant, sleep, timeout};

use crate::base::error::{Error, Result};
use crate::base::files;
use crate::base::probe::Answer;
use crate::base::report::{Output, Reporter};
use crate::desired::config::API_PORT;
use crate::desired::secrets::BRIDGE_PORT;
use crate::endpoint::quiet::{Quiet, is_here};
use crate::node::host::Host;
use crate::node::processes;
use crate::node::world::Ask;
use crate::plane::{leaving, serving};

/// How long a run looks: keepalived begins one every second, unless the one before still runs.
const SPAN: Duration = Duration::from_millis(700);
/// Between two looks at the disk.
const LOOK: Duration = Duration::from_millis(50);
/// Between two looks for the address, once keepalived takes it away.
const AGAIN: Duration = Duration::from_millis(5);
/// Between two questions to API servers.
const ASK: Duration = Duration::from_millis(250);
/// The same where nobody listens: the next one decides.
const ASK_AGAIN: Duration = Duration::from_millis(100);
/// For so long an API server may answer late, or that it is not ready, before another one has the address. Without a leader of
/// etcd's all of them do, for a second or two, and the address would go round.
const DOUBT: Duration = Duration::from_secs(3);
/// How long a question may take. Whoever is asked is on this machine, which may be busy: to move the address away from one that
/// is only slow cuts its connections, and the next one may be as slow.
const LIMIT: Duration = Duration::from_secs(1);
/// Requests have ended when no connection has ended for so long: those that are left are watches.
const SETTLED: Duration = Duration::from_millis(600);
/// However many still end.
const SETTLED_LIMIT: Duration = Duration::from_secs(5);
/// How long new connections may wait: until they have settled, and keepalived has done its part.
const LET_GO_LIMIT: Duration = Duration::from_secs(10);
/// How long it may take until they do.
const LET_GO_BEGINS: Duration = Duration::from_secs(2);

/// What is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Question {
    /// This machine is a controller, and not about to be none any more
    Controller,
    /// Its API server serves, or the bridge in its place
    Api,
    /// New connections to the virtual address wait until it is gone: what `controller` begins before it fails
    LetGo,
}

/// Where to look.
#[derive(Debug, Clone, PartialEq, Eq, clap::Args)]
pub struct Place {
    /// Where API servers of this machine are asked
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1")]
    pub loopback: IpAddr,
    /// The virtual address
    #[arg(long, value_name = "ADDRESS")]
    pub address: Option<IpAddr>,
}

/// Answers.
///
/// # Errors
/// That it is not so.
pub async fn check(host: &Host, question: Question, place: &Place) -> Result<()> {
    let end = Instant::now() + SPAN;
    match question {
        Question::Controller => watch_disk(host, place.address, end).await,
        Question::Api => watch_api(host, place.loopback, end).await,
        Question::LetGo => match place.address {
            Some(address) => let_go(address).await,
            None => Err(Error::failed("let go of the virtual address", "--address says which it is")),
        },
    }
}

async fn watch_disk(host: &Host, address: Option<IpAddr>, end: Instant) -> Result<()> {
    loop {
        let why = match (serving::is_there(host), leaving::is_so(host)) {
            (false, _) => "it is no controller",
            (true, true) => {
                if let Some(address) = address.filter(|address| is_here(*address)) {
                    answer_what_was_asked(host, address).await;
                }
                "it is about to be no controller any more"
            }
            (true, false) if Instant::now() + LOOK >= end => return Ok(()),
            (true, false) => {
                sleep(LOOK).await;
                continue;
            }
        };
        return Err(Error::failed("have the virtual address on this machine", why));
    }
}

/// As far as it can: without it, the address moves all the same.
async fn answer_what_was_asked(host: &Host, address: IpAddr) {
    let Ok(program) = std::env::current_exe() else { return };
    let mut command = Command::new(program);
    command.args(["guard", "check", "let-go", "--address", &address.to_string()]);
    let Ok(mut child) = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn() else {
        return;
    };
    // It says something once they wait, and ends at once where it cannot have them wait.
    let Some(mut said) = child.stdout.take() else { return };
    if !matches!(timeout(LET_GO_BEGINS, said.read_u8()).await, Ok(Ok(_))) {
        return;
    }
    let begun = Instant::now();
    let open = || processes::connections(&host.path("/proc"), SocketAddr::new(address, API_PORT));
    let (mut before, mut since) = (open(), begun);
    while since.elapsed() < SETTLED && begun.elapsed() < SETTLED_LIMIT {
        sleep(LOOK).await;
        let now = open();
        if now != before {
            (before, since) = (now, Instant::now());
        }
    }
}

/// Keeps new connections waiting until the address is gone.
async fn let_go(address: IpAddr) -> Result<()> {
    let quiet = Quiet::begin(SocketAddr::new(address, API_PORT));
    let _quiet = quiet.map_err(|error| Error::failed("let new connections to the virtual address wait", error))?;
    Reporter::stdout(Output::Text, false).note("new connections wait");
    let begun = Instant::now();
    while is_here(address) && begun.elapsed() < LET_GO_LIMIT {
        sleep(AGAIN).await;
    }
    Ok(())
}

async fn watch_api(host: &Host, loopback: IpAddr, end: Instant) -> Result<()> {
    let path = host.path("/etc/kubernetes/pki/ca.crt");
    let ca = files::read_if_there(&path)?;
    let ca = ca.ok_or_else(|| Error::failed("ask the API server", format!("{} is not there", path.display())))?;
    let probe = host.world().probe(&ca)?;
    let mut bad_since = None;
    loop {
        let asked = Instant::now();
        let [own, bridge] = ask(&*probe, loopback).await;
        let (patience, pause) = match judge(&own, &bridge) {
            Serves::Yes if Instant::now() + ASK >= end => return Ok(()),
            Serves::Yes => {
                bad_since = None;
                sleep(ASK).await;
                continue;
            }
            Serves::Perhaps => (DOUBT, ASK),
            Serves::No => (ASK_AGAIN, ASK_AGAIN),
        };
        if *bad_since.get_or_insert(asked) + patience <= Instant::now() {
            return Err(Error::failed("be served here", format!("{API_PORT}: {own}; {BRIDGE_PORT}: {bridge}")));
        }
        sleep(pause).await;
    }
}

async fn ask(probe: &dyn Ask, loopback: IpAddr) -> [Answer; 2] {
    let ask = |port| probe.get(SocketAddr::new(loopback, port), "/readyz", LIMIT);
    let (own, bridge) = tokio::join!(ask(API_PORT), ask(BRIDGE_PORT));
    [own, bridge]
}

/// Whether clients are served here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Serves {
    Yes,
    Perhaps,
    No,
}

/// By what the self-hosted API server and the bridge's say. One that is shutting down serves on until the bridge does, and to
/// move the address away would cut its connections.
fn judge(own: &Answer, bridge: &Answer) -> Serves {
    match (own, bridge) {
        (own, bridge) if own.is_ready() || own.is_shutting_down() || bridge.is_ready() => Serves::Yes,
        (Answer::Refused, Answer::Refused) => Serves::No,
        _ => Serves::Perhaps,
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::base::files::File;
    use crate::node::system;

    fn http(status: u16, body: &str) -> Answer {
        Answer::Http { status, body: body.into() }
    }

    #[test]
    fn a_ready_one_serves_and_so_does_one_that_ends_in_good_order() {
        let (ready, unready) = (http(200, "ok"), http(500, "[+]ping ok\n[-]etcd failed: reason withheld\n"));
        let ends = http(500, "[+]ping ok\n[-]shutdown failed: reason withheld\n");
        for (own, bridge, expected) in [
            (&ready, &Answer::Refused, Serves::Yes),
            (&ends, &Answer::Refused, Serves::Yes),
            (&Answer::Refused, &ready, Serves::Yes),
            (&Answer::TimedOut, &ready, Serves::Yes),
            (&unready, &Answer::Refused, Serves::Perhaps),
            (&Answer::TimedOut, &Answer::Refused, Serves::Perhaps),
            (&Answer::Refused, &unready, Serves::Perhaps),
            (&Answer::Refused, &Answer::Refused, Serves::No),
        ] {
            assert_eq!(judge(own, bridge), expected, "{own}, {bridge}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn only_a_controller_that_stays_may_have_the_address() {
        let root = tempfile::tempdir().unwrap();
        let host = system::host(root.path(), Path::new("/etc/kubernetes/manifests"));
        let place = Place { loopback: [127, 0, 0, 1].into(), address: None };
        let ask = || check(&host, Question::Controller, &place);
        assert!(ask().await.unwrap_err().to_string().contains("no controller"));
        for path in serving::footprint(&host) {
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            files::write(&path, &File::private("x")).unwrap();
        }
        ask().await.unwrap();
        leaving::begin(&host, leaving::Why::Label).unwrap();
        assert!(ask().await.unwrap_err().to_string().contains("about to be no controller"));
        leaving::end(&host, leaving::Why::Label).unwrap();
        ask().await.unwrap();
    }
}
