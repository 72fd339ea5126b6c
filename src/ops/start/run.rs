//! The loop of `start`, and how it ends.

use std::collections::BTreeSet;
use std::pin::{Pin, pin};
use std::time::Duration;

use tokio::time::Instant;

use super::decide::{Act, Decision, Step, decide};
use super::input::{Checked, Input, Options, check};
use super::memory::{Fixed, Mode, Run};
use super::observer::Observer;
use super::progress::Progress;
use crate::api::observe::Required;
use crate::base::backoff::{Backoff, Repeated, Retries};
use crate::base::error::{Error, Result};
use crate::base::progress::Limits;
use crate::base::report::Reporter;
use crate::desired::assets::Manifest;
use crate::node::host::Host;
use crate::node::kubelet;
use crate::node::lock;
use crate::node::lock::Lock;
use crate::node::pulls::pulled;
use crate::ops::explain::Explanation;
use crate::plane::addons;
use crate::plane::hand_over::{Observed, Target};

/// Between two rounds of the loop.
pub(super) const INTERVAL: Duration = Duration::from_millis(150);
/// The longest pause, but for chance, before what has failed is tried again.
pub(super) const LONG_INTERVAL: Duration = Duration::from_secs(5);
/// So many times in a row the same may be done before it is taken for something that changes nothing.
const REPEATED: u32 = 5;
/// Before it is done once more then.
const REPEATED_PAUSE: Duration = Duration::from_secs(1);
/// Without any progress for so long, whoever waits is told the likely cause, if it is recognised.
const HINT_AFTER: Duration = Duration::from_secs(10);
/// How many of the last words of a kubelet that does not answer are shown.
const KUBELET_LINES: usize = 5;
/// How long a bridge that is raised again may take to serve.
const RAISE_LIMIT: Duration = Duration::from_secs(60);

/// Brings the cluster up on this controller, or goes on where an earlier run stopped. When `stop` completes, with the
/// number of a signal, it ends at the next safe point: between two acts.
///
/// # Errors
/// See [`Error`]; whatever it is, an API that was served still is.
pub async fn start(host: &Host, options: &Options, reporter: &Reporter, stop: impl Future<Output = u8>) -> Result<()> {
    start_with(host, &Input::load(&options.asset_dir)?, options, reporter, stop).await
}

/// [`start`] with an asset directory that is read already.
///
/// # Errors
/// The same.
pub async fn start_with(
    host: &Host,
    input: &Input,
    options: &Options,
    reporter: &Reporter,
    stop: impl Future<Output = u8>,
) -> Result<()> {
    let checked = check(host, input, options, reporter).await?;
    let lock = lock::take(host)?;
    checked.run(lock, reporter, stop).await
}

impl Checked<'_> {
    /// Runs, and gives the lock back once the cluster serves itself.
    ///
    /// # Errors
    /// See [`start`].
    pub(crate) async fn run(&self, lock: Lock, reporter: &Reporter, stop: impl Future<Output = u8>) -> Result<()> {
        drive(self, lock, reporter, stop).await
    }
}

async fn drive(checked: &Checked<'_>, lock: Lock, reporter: &Reporter, stop: impl Future<Output = u8>) -> Result<()> {
    let Checked { host, input, options, controller, asset_dir, may_begin } = checked;
    let Input { assets, cluster, manifests, addons } = input;
    let mut stop = pin!(stop);
    let begun = Instant::now();
    let ca = assets.tls().remove("ca.crt").unwrap_or_default();
    let kubeconfig = assets.text("auth/kubeconfig")?;
    let mut run = Run::new(Fixed {
        host,
        cluster,
        controller,
        required: &options.required_pods,
        kubeconfig: &kubeconfig,
        asset_dir,
        assets,
        manifests,
        binary: &options.binary,
        mode: options.mode,
        target: Target::SelfHosted,
        may_begin: *may_begin,
    });
    run.lock = Some(lock);
    run.sweep()?;
    let mut observer = Observer::new(host, &ca)?;
    reporter.note(&format!("this is the controller {} at {}", controller.name, controller.address));
    for warning in assets.exposed(asset_dir) {
        reporter.note(&warning.to_string());
    }
    for required in
        run.fixed.required.iter().filter(|required| !manifests.iter().any(|manifest| makes(manifest, required)))
    {
        reporter.note(&format!("no manifest makes {required}: the cluster must have it, or get it, by other means"));
    }
    let limits = Limits { begun, total: options.timeout, progress: options.progress_timeout };
    run.bring_endpoint(reporter)?;
    see_through(&mut run, &mut observer, limits, reporter, stop.as_mut()).await?;
    if let Some(client) = observer.client() {
        run.remember_cluster(client, reporter).await;
        run.lead_to_endpoint(client, &ca, reporter).await?;
    }
    // Whatever comes to harm from now on is guard's to mend, however long users' objects take.
    run.lock = None;
    if addons.is_empty() {
        return run.outcome();
    }
    let applied = tokio::select! {
        biased;
        signal = &mut stop => {
            let state = format!("{}; run the same command again, or `hoist apply`, to go on with its add-ons", observer.served(&run).await);
            Err(Error::Interrupted { signal, state })
        }
        applied = apply_addons(addons, manifests, &observer, options, limits, reporter) => applied,
    };
    // What held when they began need not hold now.
    let applied = match applied {
        Ok(()) => see_through(&mut run, &mut observer, limits, reporter, stop).await,
        failed => failed,
    };
    both(run.outcome(), applied)
}

/// Applies the add-ons to a cluster that serves itself.
async fn apply_addons(
    manifests: &[Manifest],
    others: &[Manifest],
    observer: &Observer,
    options: &Options,
    limits: Limits,
    reporter: &Reporter,
) -> Result<()> {
    let Some(client) = observer.client().filter(|_| !manifests.is_empty()) else { return Ok(()) };
    let options = addons::Options {
        force_conflicts: options.mode == Mode::Recover { force_manifests: true },
        prune: false,
        wait: false,
        tell_each: false,
        progress_timeout: limits.progress,
        timeout: limits.total.saturating_sub(limits.begun.elapsed()),
    };
    addons::apply(client, &addons::Order::of(manifests)?, others, &options, reporter).await.map(drop)
}

/// The result of two parts of a run, with all that was refused in either.
fn both(first: Result<()>, second: Result<()>) -> Result<()> {
    match (first, second) {
        (Err(Error::Refused(first)), Err(Error::Refused(second))) => Err(Error::Refused([first, second].concat())),
        (first, second) => first.and(second),
    }
}

/// The loop: until all is as it should be.
pub(super) async fn see_through(
    run: &mut Run<'_>,
    observer: &mut Observer,
    limits: Limits,
    reporter: &Reporter,
    mut stop: Pin<&mut impl Future<Output = u8>>,
) -> Result<()> {
    let target = run.fixed.target;
    let mut progress = Progress::new(Instant::now());
    let mut hints = BTreeSet::new();
    let mut hint_at = HINT_AFTER;
    let mut retries = Retries::new(Backoff::new(INTERVAL, LONG_INTERVAL, run.seed()));
    let mut repeated = Repeated::new(REPEATED);
    loop {
        let observed = tokio::select! {
            biased;
            signal = &mut stop => return Err(run.interrupted(signal)),
            observed = observer.observe(run, Instant::now()) => observed?,
        };
        let decision = decide(&observed, &run.memory(observer.lowered_for()));
        let stuck_for = progress.note(&observed, &decision, pulled(run.fixed.host), Instant::now());
        if limits.are_over(stuck_for) {
            return Err(timed_out(run, observer, &observed, &decision).await);
        }
        run.keep_logs(observed.view.as_ref());
        if stuck_for < HINT_AFTER {
            hint_at = HINT_AFTER;
        } else if stuck_for > hint_at {
            hint_at = stuck_for * 2;
            let explanation = tokio::select! {
                biased;
                signal = &mut stop => return Err(run.interrupted(signal)),
                explanation = run.explain(observer, &observed) => explanation,
            };
            if let Some(hint) = explanation.hint()
                && hints.insert(hint.clone())
            {
                reporter.note(&hint);
            }
        }
        match decision {
            // What was read a moment ago is enough to wait by, and for nothing else.
            Decision::Done | Decision::Do(..) if observer.is_stale() => observer.forget(),
            Decision::Done => {
                for step in Step::ALL {
                    reporter.done_if_started(step.id(target));
                }
                return Ok(());
            }
            Decision::Wait(step, what) => {
                let what = match &observer.trouble {
                    Some(trouble) => format!("{what} ({trouble})"),
                    None => what,
                };
                report(reporter, step, target);
                reporter.waiting(step.id(target), &what);
                if target == Target::SelfHosted && observed.serves_itself() {
                    run.lock = None;
                }
                tokio::time::sleep(INTERVAL).await;
            }
            Decision::Do(step, acts) => {
                report(reporter, step, target);
                let later = match (retries.waits(&acts, Instant::now()), run.may_act()) {
                    (Some(why), _) => Some(why.to_owned()),
                    (None, Ok(true)) => None,
                    (None, Ok(false)) => continue,
                    (None, Err(error @ Error::Locked { .. })) => Some(error.to_string()),
                    (None, Err(error)) => return Err(error),
                };
                if let Some(why) = later {
                    reporter.waiting(step.id(target), &why);
                    tokio::time::sleep(INTERVAL).await;
                    continue;
                }
                if acts.contains(&Act::RaiseAndFail) {
                    return Err(give_up(run, observer, reporter).await?);
                }
                let mut outcome = Ok(());
                for act in &acts {
                    run.trouble = None;
                    outcome = run.act(act, observer.client(), reporter).await.map_err(|error| (act, error));
                    // What follows may build on it.
                    if let Err((_, error)) = &outcome {
                        run.trouble = Some(error.to_string());
                        break;
                    }
                }
                match outcome {
                    Ok(()) => {
                        retries.succeeded();
                        if let Some(what) = repeated.note(acts) {
                            tracing::warn!("{what}");
                            reporter.waiting(step.id(target), &what);
                            tokio::time::sleep(REPEATED_PAUSE).await;
                        }
                    }
                    Err((act, error)) if observer.client().is_none() || is_final(act, &error) => {
                        reporter.fail(step.id(target), &error.to_string());
                        return Err(error);
                    }
                    // What the API could not do now it may do the next time round.
                    Err((_, error)) => {
                        reporter.waiting(step.id(target), &error.to_string());
                        retries.failed(acts, &error, Instant::now());
                        tokio::time::sleep(INTERVAL).await;
                    }
                }
            }
        }
    }
}

/// Whether a run ends by `error`, with which `act` has failed. What the API server refuses for good before the hand-over
/// stays refused; later the bridge is being lowered, and to go on is better than to stop half way.
fn is_final(act: &Act, error: &Error) -> bool {
    let is_early = matches!(act, Act::Apply | Act::BootstrapToken | Act::AdoptNode);
    !error.is_passing() && (is_early || !matches!(error, Error::Refused(_)))
}

/// Whether `manifest` is the workload that must be ready.
fn makes(manifest: &Manifest, required: &Required) -> bool {
    let text = |pointer| manifest.object.pointer(pointer).and_then(serde_json::Value::as_str).unwrap_or("default");
    text("/metadata/name") == required.name && text("/metadata/namespace") == required.namespace
}

/// Shows that `step` is under way and those before it are done.
fn report(reporter: &Reporter, step: Step, target: Target) {
    for earlier in Step::ALL.into_iter().take_while(|earlier| *earlier < step) {
        reporter.done_if_started(earlier.id(target));
    }
    reporter.start(step.id(target), step.title(target));
}

/// Raises the bridge again, and tells what the self-hosted control plane failed at: the error to end with.
async fn give_up(run: &mut Run<'_>, observer: &mut Observer, reporter: &Reporter) -> Result<Error> {
    run.act(&Act::RaiseAndFail, None, reporter).await?;
    let begun = Instant::now();
    let mut observed = observer.observe(run, begun).await?;
    let was_away = !observed.api_ready;
    while !observed.api_ready && begun.elapsed() < RAISE_LIMIT {
        let what = format!("the bridge, which is raised again: {}", observed.api_said);
        reporter.waiting(Step::Prove.id(run.fixed.target), &what);
        tokio::time::sleep(INTERVAL).await;
        observed = observer.observe(run, Instant::now()).await?;
    }
    let mut details = vec![format!("the bridge is raised again; {} answers {}", observed.node_ip, observed.api_said)];
    if was_away && observed.api_ready && kubelet::is_systemd(run.fixed.host) {
        // It would go on asking in ever longer intervals, and whatever is mended now would wait for it.
        details.extend(run.act(&Act::RestartKubelet, None, reporter).await.err().map(|error| error.to_string()));
    }
    let explanation = run.explain(observer, &observed).await;
    let again = format!("then run `{}` again", run.command());
    let next = remedy(&explanation, &again).unwrap_or_else(|| format!("{}; {again}", run.logs_of("kube-apiserver")));
    details.extend(explanation.lines);
    Ok(Error::TimedOut {
        waiting_for: format!(
            "the {} control plane to prove itself in time, with a part of the bridge lowered",
            run.fixed.target
        ),
        api_served: observer.asks(run).await.is_ready(),
        details,
        next,
    })
}

/// What to do about the cause, if one was recognised.
fn remedy(explanation: &Explanation, again: &str) -> Option<String> {
    let (_, cause) = explanation.cause.as_ref()?;
    Some(format!("{}; {again}", cause.next))
}

/// The error of a run whose time is up, with all that explains it.
pub(super) async fn timed_out(run: &Run<'_>, observer: &Observer, observed: &Observed, decision: &Decision) -> Error {
    let waiting_for = match decision {
        Decision::Wait(_, what) => what.clone(),
        Decision::Do(step, _) => match &run.trouble {
            Some(trouble) => format!("{}: {trouble}", step.title(run.fixed.target)),
            None => step.title(run.fixed.target).to_owned(),
        },
        Decision::Done => "nothing".into(),
    };
    let explanation = run.explain(observer, observed).await;
    let again = format!("then run `{}` again", run.command());
    let recognised = remedy(&explanation, &again);
    let mut details = explanation.lines;
    details.extend(observer.trouble.clone());
    let next = if let Some(next) = recognised {
        next
    } else if observed.api_ready {
        format!("{}; {again}", run.logs_of("kube-apiserver"))
    } else if kubelet::answers(run.fixed.host).await {
        "`crictl ps -a` and the logs below /var/log/pods show the bridge's containers; `journalctl -u kubelet` the kubelet's view".into()
    } else {
        details.push("no kubelet answers on this machine (http://127.0.0.1:10248/healthz); its last words:".into());
        details.extend(
            kubelet::last_lines(run.fixed.host, KUBELET_LINES).await.into_iter().map(|line| format!("    {line}")),
        );
        // Only where nothing has come of it yet: what serves, or may be looked into, stays.
        if observed.bridge.processes.is_empty() && !observer.seen_api {
            details.push(match run.restore().await {
                Ok(()) => "the disk is as it was before".into(),
                Err(error) => format!("the disk could not be put back as it was: {error}"),
            });
        }
        format!("make the kubelet run (`journalctl -u kubelet -n 50` says more), {again}")
    };
    // To explain has taken a while.
    let api_served = observer.asks(run).await.is_ready();
    Error::TimedOut { waiting_for, api_served, details, next }
}
