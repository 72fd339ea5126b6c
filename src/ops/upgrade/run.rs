//! The loop of an upgrade: observe, decide, act, until all is as it should be. Until the commit it turns round by itself when the
//! new version does not serve.

use std::time::Duration;

use time::OffsetDateTime;
use tokio::time::{Instant, sleep};

use crate::api::guard;
use crate::api::rollout::last_lines;
use crate::api::turn::{LASTS, Turn};
use crate::base::backoff::Backoff;
use crate::base::error::{Error, Result};
use crate::base::progress::{Limits, Sights};
use crate::base::report::{Reporter, without_numbers};

use super::act::act;
use super::decide::{Act, Decision, Observed, Pod, Pulled, Step, Way, decide};
use super::observe::{Memory, Wants, observe};
use super::releases::{Releases, Subject};

/// Between two rounds.
const INTERVAL: Duration = Duration::from_millis(500);
/// The longest pause, but for chance, before what has failed is tried again.
const LONG_INTERVAL: Duration = Duration::from_secs(5);
/// The Lease of the upgrade is renewed so often.
const RENEW: Duration = Duration::from_secs(4);
/// A pod that cannot start is given so long: what it lacks may come.
const PATIENCE: Duration = Duration::from_secs(20);
/// What a kubelet says of a container that does not start, or has ended again and again.
const HOPELESS: [&str; 8] = [
    "CrashLoopBackOff",
    "ErrImagePull",
    "ImagePullBackOff",
    "ErrImageNeverPull",
    "InvalidImageName",
    "CreateContainerConfigError",
    "CreateContainerError",
    "RunContainerError",
];

/// What `hoist upgrade` was told.
#[derive(Debug, Clone)]
pub struct Options {
    /// For how long the new version serves on trial before it is committed.
    pub soak: Duration,
    /// The step after which it stops, and goes on when it is run again.
    pub pause_after: Option<Step>,
    /// Whether etcd follows.
    pub etcd: bool,
    /// Whether it turns round by itself.
    pub turns_round: bool,
    /// How long it may go without any progress.
    pub progress_timeout: Duration,
    /// How long the whole may take.
    pub timeout: Duration,
    /// The machine that it runs on.
    pub hostname: String,
}

/// How a run has ended well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ended {
    /// The control plane has the wanted version.
    Done,
    /// After this step, as was asked for.
    Paused(Step),
}

/// Goes `way` to its end. When `stop` completes, with the number of a signal, it ends between two acts.
///
/// # Errors
/// Another upgrade; what the API server refuses; a new version that does not serve, after the way back; a limit that is over.
/// Running it again goes on.
pub async fn run(
    subject: &Subject,
    way: Way,
    options: &Options,
    reporter: &Reporter,
    stop: impl Future<Output = u8>,
) -> Result<Ended> {
    let mut turn = Turn::of_upgrade(&options.hostname, OffsetDateTime::now_utc());
    let begun = Instant::now();
    while !turn.take(&subject.client, Instant::now(), OffsetDateTime::now_utc()).await? {
        // One that was killed has left its Lease.
        if begun.elapsed() > LASTS + RENEW {
            return Err(Error::Locked {
                holder: "it upgrades this cluster; the Lease kube-system/hoist-upgrade names its machine".into(),
            });
        }
        sleep(INTERVAL).await;
    }
    let upgrade = async {
        match go(subject, way, options, reporter, &mut turn).await {
            Err(Stopped::Fault(why)) if options.turns_round => {
                reporter.note(&format!("{why}: back to the old version"));
                let back = go(subject, Way::Back, options, reporter, &mut turn).await;
                Err(match back {
                    Ok(_) => failed(subject, &why, "the control plane runs the old version again, and serves"),
                    Err(stopped) => failed(
                        subject,
                        &format!("{why}; and the way back: {}", stopped.into_error(subject)),
                        "`hoist upgrade rollback` tries again",
                    ),
                })
            }
            other => other.map_err(|stopped| stopped.into_error(subject)),
        }
    };
    let mut stop = std::pin::pin!(stop);
    let ended = tokio::select! {
        biased;
        signal = &mut stop => Err(Error::Interrupted {
            signal,
            state: "all that serves goes on; the same command continues, `hoist upgrade rollback` goes back until the commit".into(),
        }),
        ended = upgrade => ended,
    };
    // It would expire by itself.
    let _ = turn.give_back(&subject.client).await;
    ended
}

fn failed(subject: &Subject, cause: &str, next: &str) -> Error {
    Error::Failed {
        action: format!("upgrade to {}", subject.input.cluster().kubernetes_version),
        cause: cause.to_owned(),
        next: Some(next.to_owned()),
    }
}

/// Why a way was not gone to its end.
enum Stopped {
    /// The new version does not serve.
    Fault(String),
    Other(Error),
}

impl Stopped {
    fn into_error(self, subject: &Subject) -> Error {
        match self {
            Self::Fault(why) => failed(subject, &why, "`hoist upgrade rollback` goes back to the old version"),
            Self::Other(error) => error,
        }
    }
}

impl From<Error> for Stopped {
    fn from(error: Error) -> Self {
        Self::Other(error)
    }
}

async fn go(
    subject: &Subject,
    way: Way,
    options: &Options,
    reporter: &Reporter,
    turn: &mut Turn,
) -> Result<Ended, Stopped> {
    let limits = Limits { begun: Instant::now(), total: options.timeout, progress: options.progress_timeout };
    let mut backoff = Backoff::new(INTERVAL, LONG_INTERVAL, u64::from(std::process::id()));
    let (mut memory, mut sights) = (Memory::default(), Sights::new(Instant::now()));
    let (mut current, mut renewed): (Option<Step>, _) = (None, Instant::now());
    let mut releases = Releases::read(subject).await?;
    let mut hopeless: Option<(String, Instant)> = None;
    let mut last = None;
    loop {
        let now = Instant::now();
        let round = async {
            if now - renewed >= RENEW {
                let is_own = turn.take(&subject.client, now, OffsetDateTime::now_utc()).await?;
                if !is_own {
                    return Ok(None);
                }
            }
            if guard::copy_sum(&subject.client).await? != releases.sum {
                releases = Releases::read(subject).await?;
            }
            observe(subject, &releases, Wants { soak: options.soak, etcd: options.etcd }, &mut memory).await.map(Some)
        };
        let seen = match round.await {
            Ok(Some(seen)) => seen,
            Ok(None) => return Err(Error::Locked { holder: "another upgrade has begun".into() }.into()),
            Err(error) if error.is_passing() && !limits.are_over(sights.note([], now)) => {
                if let Some(step) = current {
                    reporter.waiting(step.id(way), &error.to_string());
                }
                sleep(backoff.failed(error.after())).await;
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        if now - renewed >= RENEW {
            renewed = now;
        }
        if way == Way::Back && seen.is_committed {
            return Err(Stopped::Other(failed(
                subject,
                "it is committed: guard's copy is of the new version, and data may have been written that the old one cannot read",
                "a way back is `hoist recover` with a backup that was made before",
            )));
        }
        if let Some(why) = etcd_refused(&seen) {
            act(subject, &releases, &Act::EndEtcd).await?;
            return Err(Stopped::Other(failed(
                subject,
                &why,
                "the control plane has the new version; the same command tries etcd again, and with --etcd-upgrade=false leaves it",
            )));
        }
        let decision = decide(way, &seen);
        let step = match &decision {
            Decision::Do(step, _) | Decision::Wait(step, _) => Some(*step),
            Decision::Done => None,
        };
        if let Some(ended) = show(reporter, way, &mut current, step, options) {
            return Ok(ended);
        }
        let minutes = limits.begun.elapsed().as_secs() / 60;
        let stuck_for = sights.note(sights_of(&decision, &seen, minutes), now);
        if way == Way::Forth && !seen.is_committed {
            match seen_hopeless(&seen) {
                Some(pod) => {
                    let since = hopeless.take().filter(|(name, _)| *name == pod.0).map_or(now, |(_, since)| since);
                    if now - since >= PATIENCE {
                        return Err(Stopped::Fault(cause(subject, &pod).await));
                    }
                    hopeless = Some((pod.0, since));
                }
                // Between two tries it runs for a moment.
                None => hopeless = hopeless.filter(|(name, _)| is_awaited(&seen, name)),
            }
        }
        match decision {
            Decision::Done => return Ok(Ended::Done),
            Decision::Wait(step, what) => {
                reporter.waiting(step.id(way), &what);
                if limits.are_over(stuck_for) {
                    return Err(match way == Way::Forth && !seen.is_committed && step != Step::Soak {
                        true => Stopped::Fault(format!("waited in vain for {what}")),
                        false => Stopped::Other(Error::TimedOut {
                            waiting_for: what,
                            api_served: true,
                            details: Vec::new(),
                            next: "the same command continues; `hoist status` on a controller says more".into(),
                        }),
                    });
                }
            }
            Decision::Do(_, what) => {
                // The same again and again would be somebody else's doing.
                if last.as_ref() == Some(&what) && limits.are_over(stuck_for) {
                    return Err(Stopped::Fault(format!("{what:?} changes nothing")));
                }
                match act(subject, &releases, &what).await {
                    Ok(()) => backoff.succeeded(),
                    Err(error) if error.is_passing() && !limits.are_over(stuck_for) => {
                        sleep(backoff.failed(error.after())).await;
                    }
                    Err(error) => return Err(error.into()),
                }
                last = Some(what);
            }
        }
        sleep(INTERVAL).await;
    }
}

/// Says which step is under way; that it ends here, if it was to pause.
fn show(
    reporter: &Reporter,
    way: Way,
    current: &mut Option<Step>,
    step: Option<Step>,
    options: &Options,
) -> Option<Ended> {
    if *current == step {
        return None;
    }
    if let Some(before) = *current {
        reporter.done(before.id(way));
    }
    *current = step;
    let paused = options.pause_after.filter(|_| way == Way::Forth);
    if let Some(pause) = paused.filter(|pause| step.is_some_and(|step| step > *pause)) {
        return Some(Ended::Paused(pause));
    }
    if let Some(step) = step {
        reporter.start(step.id(way), step.title(way));
    }
    None
}

/// Why etcd is not exchanged, where a guard has said so of its own.
fn etcd_refused(seen: &Observed) -> Option<String> {
    let etcd = seen.etcd.as_ref()?;
    Some(format!("etcd on {}: {}", etcd.ordered.as_ref()?, etcd.refused.as_ref()?))
}

fn sights_of(decision: &Decision, seen: &Observed, minutes: u64) -> Vec<String> {
    let pods = seen.api_servers.pods.iter().map(|pod| format!("{} {} {}", pod.name, pod.ready, pod.is_current));
    let decided = match decision {
        Decision::Wait(_, what) => without_numbers(what),
        other => format!("{other:?}"),
    };
    // guard holds a bridge for up to 10 minutes where it has raised several within an hour: docs/guard.md.
    let is_held = !seen.bridges.is_empty() && seen.api_servers.pods.iter().all(|pod| pod.ready);
    let held = is_held.then(|| format!("guard holds the bridge in minute {minutes}"));
    // A soak goes on by itself.
    pods.chain([decided, format!("served for {} s", seen.served_for.as_secs())]).chain(held).collect()
}

/// The pod of the new version that will not start, by its name, with its component and what the kubelet says.
fn seen_hopeless(seen: &Observed) -> Option<(String, String, String)> {
    if let Pulled::Waits(what) = &seen.pulled
        && HOPELESS.iter().any(|word| what.contains(word))
    {
        return Some(("images".into(), String::new(), what.clone()));
    }
    seen.parts().flat_map(|part| part.pods.iter().map(move |pod| (part.component, pod))).find_map(
        |(component, pod): (_, &Pod)| {
            let is_it = pod.is_current && !pod.ready && HOPELESS.iter().any(|word| pod.reason.contains(word));
            is_it.then(|| {
                (pod.name.clone(), component.to_owned(), format!("{} on {}: {}", pod.name, pod.node, pod.reason))
            })
        },
    )
}

/// Whether this pod is there and not ready.
fn is_awaited(seen: &Observed, name: &str) -> bool {
    seen.parts().flat_map(|part| &part.pods).any(|pod| pod.name == name && !pod.ready)
}

/// What a pod that will not start says, with its last words.
async fn cause(subject: &Subject, (pod, component, what): &(String, String, String)) -> String {
    if component.is_empty() {
        return what.clone();
    }
    let lines = last_lines(&subject.client, pod, component).await;
    // A program that does not take its flags says so in one line, and how it is used in hundreds.
    let telling = lines.iter().rev().find(|line| line.to_lowercase().contains("error") || line.starts_with('E'));
    telling.or(lines.last()).map_or(what.clone(), |line| format!("{what}; its last words: {}", line.trim()))
}
