//! Another version of a node's kubelet, in place: no pod is evicted, and no container is touched.
//!
//! ```text
//! program ─► look: what stands in the way ─► loop { observe ─► decide ─► act } ─► which containers were touched
//! ```
//!
//! The state is the disk's: the old program waits beside the new one until that has proved itself.

mod decide;
mod look;

use std::collections::BTreeSet;
use std::fmt;
use std::path::Path;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::{Way, only_root};
use crate::api::skew;
use crate::base::error::{Error, Result, Severity};
use crate::base::report::Reporter;
use crate::desired::config::Version;
use crate::node::cri::pods::Runs;
use crate::node::host::Host;
use crate::node::kubelet::package::Source;
use crate::node::kubelet::{self, program};
use crate::node::lock::{self, Exchange};

use decide::{Act, Decision, Observed, decide, unproved};
use look::Scene;

/// Between two rounds.
const INTERVAL: Duration = Duration::from_millis(250);
/// Among so many of the kubelet's last lines an error is looked for.
const LINES: usize = 20;
const STEP: &str = "kubelet";

/// What `hoist upgrade node` was told.
#[derive(Debug, Clone)]
pub struct Options<'a> {
    /// The new kubelet's program, or a package that has it.
    pub file: &'a Path,
    /// How long it may take until the Node says that it is ready with it.
    pub timeout: Duration,
    /// Whether it only says what stands in the way.
    pub is_dry_run: bool,
}

/// What was done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Done {
    /// The Node.
    pub node: String,
    /// The version of before.
    pub from: Version,
    /// The version now, or the one that it would be.
    pub to: Version,
    /// How many containers go on.
    pub containers: usize,
}

impl fmt::Display for Done {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}: the kubelet is {} (was {}), and {} containers go on",
            self.node, self.to, self.from, self.containers
        )
    }
}

/// Exchanges the kubelet of this node. When `stop` completes, with the number of a signal, it ends between two acts.
///
/// # Errors
/// What stands in the way; a new kubelet that does not prove itself, once the old one runs again; containers that were touched.
/// Running it again goes on.
pub async fn run(
    host: &Host,
    options: &Options<'_>,
    reporter: &Reporter,
    stop: impl Future<Output = u8>,
) -> Result<Done> {
    only_root(host, "hoist upgrade node")?;
    let _exclusive = lock::exclusively(host, Exchange::Kubelet)?;
    let source = Source::open(host, options.file).await?;
    let scene = Scene::look(host, source.program()).await?;
    let (findings, anew) = scene.judge().await?;
    let (in_the_way, warnings): (Vec<_>, Vec<_>) =
        findings.into_iter().partition(|finding| finding.severity == Severity::Error);
    if !in_the_way.is_empty() {
        return Err(Error::Input(in_the_way));
    }
    warnings.iter().for_each(|warning| reporter.note(&warning.to_string()));
    let before = scene.containers().await?;
    let done = Done { node: scene.node.clone(), from: scene.old, to: scene.new, containers: before.len() };
    if options.is_dry_run {
        return Ok(done);
    }
    let mut stop = std::pin::pin!(stop);
    tokio::select! {
        biased;
        signal = &mut stop => Err(Error::Interrupted {
            signal,
            state: "the node's pods run on; the same command continues".into(),
        }),
        ended = exchange(&scene, options, reporter) => ended,
    }?;
    let touched = touched(&before, &scene.containers().await?, &anew);
    if !touched.is_empty() {
        return Err(touched_containers(&scene, &touched));
    }
    source.registers.iter().for_each(|left| reporter.note(left));
    Ok(done)
}

async fn exchange(scene: &Scene<'_>, options: &Options<'_>, reporter: &Reporter) -> Result<()> {
    reporter.start(STEP, &format!("the kubelet of {} is {}", scene.node, scene.new));
    let gave_up = match go(scene, Way::Forth, options, reporter).await? {
        None => {
            scene.place.settle()?;
            reporter.done(STEP);
            return Ok(());
        }
        Some(why) => why,
    };
    let lines = kubelet::last_lines(scene.host, LINES).await;
    let words = last_words(&lines).map_or_else(String::new, |line| format!("; its last words: {line}"));
    let cause = format!("{gave_up}{words}");
    reporter.fail(STEP, &gave_up);
    if !scene.place.has_way_back() {
        return Err(failed(
            scene,
            &cause,
            "there is no program of before to go back to: `journalctl -u kubelet -n 50` says more",
        ));
    }
    reporter.start("kubelet-back", &format!("the kubelet of {} is {} again", scene.node, scene.old));
    match go(scene, Way::Back, options, reporter).await? {
        None => {
            reporter.done("kubelet-back");
            Err(failed(scene, &cause, &format!("the node has its kubelet of {} again, which is ready", scene.old)))
        }
        Some(why) => {
            reporter.fail("kubelet-back", &why);
            let cause = format!("{cause}; and the one of before: {why}");
            Err(failed(scene, &cause, "its program is back; `journalctl -u kubelet -n 50` says more"))
        }
    }
}

/// Of the last lines of the kubelet's journal, the last one that names an error, or else the last one that is not systemd's.
fn last_words(lines: &[String]) -> Option<&str> {
    const OF_SYSTEMD: [&str; 5] = ["kubelet.service:", "Started ", "Starting ", "Stopped ", "Stopping "];
    let own = || {
        lines.iter().rev().map(|line| line.trim()).filter(|line| !OF_SYSTEMD.iter().any(|text| line.starts_with(text)))
    };
    own().find(|line| line.contains("command failed") || line.starts_with("Error:")).or_else(|| own().next())
}

fn failed(scene: &Scene<'_>, cause: &str, next: &str) -> Error {
    Error::Failed {
        action: format!("bring the kubelet of {} to {}", scene.node, scene.new),
        cause: cause.to_owned(),
        next: Some(next.to_owned()),
    }
}

fn touched_containers(scene: &Scene<'_>, touched: &[&Runs]) -> Error {
    let names: Vec<_> = touched.iter().map(|runs| format!("{} of {}", runs.name, runs.pod)).collect();
    Error::Failed {
        action: format!("leave the containers of {} alone", scene.node),
        cause: format!("the kubelet of {} is ready, and these were started anew meanwhile: {}", scene.new, names.join(", ")),
        next: Some(
            "the new kubelet stays: going back would start them once more. `kubectl describe pod` says why one was started anew".into(),
        ),
    }
}

/// The containers that ran before and do not now, while their pods go on with others; but for those of `anew`.
fn touched<'a>(before: &'a [Runs], after: &[Runs], anew: &BTreeSet<String>) -> Vec<&'a Runs> {
    let is_gone = |runs: &&Runs| !after.iter().any(|now| now.id == runs.id);
    let goes_on = |runs: &&Runs| after.iter().any(|now| (&now.pod, &now.name) == (&runs.pod, &runs.name));
    before.iter().filter(|runs| is_gone(runs) && goes_on(runs) && !anew.contains(&runs.pod)).collect()
}

/// Goes `way` to its end: why not, where the kubelet does not prove itself.
async fn go(scene: &Scene<'_>, way: Way, options: &Options<'_>, reporter: &Reporter) -> Result<Option<String>> {
    let step = if way == Way::Forth { STEP } else { "kubelet-back" };
    let mut memory = Memory::new();
    loop {
        let seen = observe(scene, way, options.timeout, &mut memory).await?;
        match decide(way, &seen) {
            Decision::Done => return Ok(None),
            Decision::GiveUp(why) => return Ok(Some(why)),
            Decision::Wait(what) => reporter.waiting(step, &what),
            Decision::Do(act) => {
                let _lock = lock::take(scene.host)?;
                match act {
                    Act::Put => scene.place.put(&scene.program)?,
                    Act::PutBack => scene.place.put_back()?,
                    Act::Restart => program::start_anew(scene.host).await?,
                }
                memory = Memory::new();
                if act == Act::Restart {
                    // systemd counts on where it was about to start it again.
                    memory.restarts = Some(program::restarts(scene.host).await?);
                }
            }
        }
        sleep(INTERVAL).await;
    }
}

/// What a run remembers since it did something.
struct Memory {
    since: Instant,
    proved: Option<Instant>,
    /// It has started the kubelet anew, and systemd had done so this often by itself then.
    restarts: Option<usize>,
    /// The comparison of two large files, until one of them changes.
    is_in_place: Option<bool>,
}

impl Memory {
    fn new() -> Self {
        Self { since: Instant::now(), proved: None, restarts: None, is_in_place: None }
    }
}

async fn observe(scene: &Scene<'_>, way: Way, limit: Duration, memory: &mut Memory) -> Result<Observed> {
    let is_in_place = match memory.is_in_place {
        Some(is_in_place) => is_in_place,
        None => *memory.is_in_place.insert(scene.place.is(&scene.program)?),
    };
    let running = program::running(scene.host).await?.filter(|running| running.is_of(scene.host, scene.place.path()));
    let node = match running.is_some() {
        true => skew::kubelet_of(&scene.client, &scene.node).await.map_err(|error| error.to_string()),
        false => Ok(None),
    };
    let mut seen = Observed {
        is_in_place,
        has_way_back: scene.place.has_way_back(),
        began: running.map(|running| running.began),
        begun: match memory.restarts {
            Some(before) => 1 + program::restarts(scene.host).await?.saturating_sub(before),
            None => 0,
        },
        wanted: if way == Way::Forth { scene.new } else { scene.old },
        node: node.and_then(|node| node.ok_or_else(|| format!("there is no Node {}", scene.node))),
        proved_for: Duration::ZERO,
        tried_for: memory.since.elapsed(),
        limit,
    };
    let proved = unproved(&seen).is_none().then(|| memory.proved.unwrap_or_else(Instant::now));
    memory.proved = proved;
    seen.proved_for = proved.map(|since| since.elapsed()).unwrap_or_default();
    Ok(seen)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn its_last_words_are_the_kubelets_own() {
        let of_systemd =
            ["kubelet.service: Main process exited, code=exited, status=1/FAILURE", "Started kubelet.service."];
        let lines = |own: &[&str]| own.iter().chain(&of_systemd).map(|line| (*line).to_owned()).collect::<Vec<_>>();
        assert_eq!(last_words(&lines(&["a", "b"])), Some("b"));
        assert_eq!(
            last_words(&lines(&["E1 \"command failed\" err=\"x\"", "I1 b"])),
            Some("E1 \"command failed\" err=\"x\"")
        );
        assert_eq!(last_words(&lines(&[])), None);
    }

    #[test]
    fn a_container_that_its_pod_has_anew_was_touched() {
        let runs = |pod: &str, id: &str| Runs { pod: pod.into(), name: "c".into(), id: id.into() };
        let before = [runs("a/stays", "1"), runs("a/anew", "2"), runs("a/ended", "3"), runs("k/static-n", "4")];
        let after = [runs("a/stays", "1"), runs("a/anew", "5"), runs("a/other", "6"), runs("k/static-n", "7")];
        let names = |anew: &[&str]| {
            let anew = anew.iter().map(|pod| (*pod).to_owned()).collect();
            touched(&before, &after, &anew).iter().map(|runs| runs.pod.clone()).collect::<Vec<_>>()
        };
        assert_eq!(names(&[]), ["a/anew", "k/static-n"]);
        assert_eq!(names(&["k/static-n"]), ["a/anew"], "what was foretold is no surprise");
        assert!(touched(&before, &before, &BTreeSet::new()).is_empty());
    }
}
