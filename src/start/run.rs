//! The loop of `start`, and its acts.

use std::fs;
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::time::{Duration, Instant};

use time::OffsetDateTime;

use super::decide::{Act, Decision, Observed, PROVE_LIMIT, Step, decide};
use super::observer::Observer;
use super::progress::{Progress, pulled};
use crate::api::apply::{Refusal, apply};
use crate::api::observe::{Required, explain_pods, hopeless};
use crate::api::write;
use crate::assets::{self, AssetSet, Manifest};
use crate::bridge::Bridge;
use crate::config::{Cluster, Controller};
use crate::error::{Error, Result};
use crate::host::Host;
use crate::kubelet::UnitState;
use crate::report::Reporter;
use crate::undo::Before;
use crate::{files, kubelet, preflight};

/// Between two rounds of the loop.
const INTERVAL: Duration = Duration::from_millis(150);

/// What `hoist start` was told.
#[derive(Debug, Clone)]
pub struct Options {
    /// The asset directory.
    pub asset_dir: PathBuf,
    /// Which controller this is, where its addresses do not tell.
    pub node_name: Option<String>,
    /// The workloads whose pods must be ready before the bridge is lowered.
    pub required_pods: Vec<Required>,
    /// How long it may go without any progress.
    pub progress_timeout: Duration,
    /// How long the whole may take.
    pub timeout: Duration,
    /// hoist's own binary, for the bridge's pods.
    pub binary: PathBuf,
}

/// One run: what is fixed, and the little that it knows of its own doings.
pub(super) struct Run<'a> {
    pub(super) host: &'a Host,
    pub(super) cluster: &'a Cluster,
    pub(super) controller: &'a Controller,
    pub(super) required: &'a [Required],
    pub(super) kubeconfig: &'a str,
    assets: &'a AssetSet,
    manifests: &'a [Manifest],
    binary: &'a Path,
    pub(super) applied: bool,
    pub(super) made_token: bool,
    /// Whether the kubelet had its certificate when this run last started it anew for the API's sake.
    pub(super) kubelet_knows: Option<bool>,
    pub(super) has_raised: bool,
    pub(super) has_lowered: bool,
    refused: Vec<Refusal>,
    /// How the disk and the kubelet's unit stood before this run's first raise.
    before: Option<(Before, Option<UnitState>)>,
}

impl Step {
    const ALL: [Self; 9] = [
        Self::Install,
        Self::Api,
        Self::Apply,
        Self::Node,
        Self::HandOver,
        Self::SelfHosted,
        Self::Required,
        Self::Lower,
        Self::Prove,
    ];

    fn id(self) -> &'static str {
        match self {
            Self::Install => "install",
            Self::Api => "api",
            Self::Apply => "apply",
            Self::Node => "node",
            Self::SelfHosted => "self-hosted",
            Self::Required => "required-pods",
            Self::HandOver => "hand-over",
            Self::Lower => "lower",
            Self::Prove => "prove",
        }
    }

    fn title(self) -> &'static str {
        match self {
            Self::Install => "raise the bridge",
            Self::Api => "the bridge serves the API",
            Self::Apply => "apply the self-hosted control plane",
            Self::Node => "the kubelet joins as a controller",
            Self::SelfHosted => "the self-hosted API server serves",
            Self::Required => "the required pods are ready",
            Self::HandOver => "hand over to the self-hosted controllers",
            Self::Lower => "lower the bridge",
            Self::Prove => "prove that the cluster serves itself",
        }
    }
}

/// Brings the cluster up on this controller, or goes on where an earlier run stopped. When `stop` completes, with the
/// number of a signal, it ends at the next safe point: between two acts.
///
/// # Errors
/// See [`Error`]; whatever it is, an API that was served still is.
pub async fn start(host: &Host, options: &Options, reporter: &Reporter, stop: impl Future<Output = u8>) -> Result<()> {
    let mut stop = pin!(stop);
    let begun = Instant::now();
    let asset_dir = assets::absolute(&options.asset_dir)?;
    let assets = AssetSet::load(&asset_dir)?;
    let cluster = assets.cluster(&asset_dir)?;
    let manifests = assets.manifests(&asset_dir)?;
    let controller = preflight::controller(&cluster, options.node_name.as_deref(), &preflight::own_addresses()?)?;
    preflight::check(host, &assets, &cluster, controller).await?;
    let _lock = lock(host)?;
    let ca = assets.tls().remove("ca.crt").unwrap_or_default();
    let kubeconfig = assets.text("auth/kubeconfig")?;
    let mut run = Run {
        host,
        cluster: &cluster,
        controller,
        required: &options.required_pods,
        kubeconfig: &kubeconfig,
        assets: &assets,
        manifests: &manifests,
        binary: &options.binary,
        applied: false,
        made_token: false,
        kubelet_knows: None,
        has_raised: false,
        has_lowered: false,
        refused: Vec::new(),
        before: None,
    };
    let mut observer = Observer::new(&ca)?;
    let mut progress = Progress::new(Instant::now());
    reporter.note(&format!("this is the controller {} at {}", controller.name, controller.address));
    for required in run.required.iter().filter(|required| !manifests.iter().any(|manifest| makes(manifest, required))) {
        reporter.note(&format!("no manifest makes {required}: it must be in the cluster, or come into it, by itself"));
    }
    loop {
        let observed = tokio::select! {
            biased;
            signal = &mut stop => return Err(run.interrupted(signal)),
            observed = observer.observe(&run, Instant::now()) => observed?,
        };
        let decision = decide(&observed);
        let stuck_for = progress.note(&observed, &decision, pulled(host), Instant::now());
        if begun.elapsed() > options.timeout || stuck_for > options.progress_timeout {
            return Err(timed_out(&run, &observer, &observed, &decision).await);
        }
        match decision {
            Decision::Done => {
                for step in Step::ALL {
                    reporter.done_if_started(step.id());
                }
                return run.outcome();
            }
            Decision::Wait(step, what) => {
                let what = match &observer.trouble {
                    Some(trouble) => format!("{what} ({trouble})"),
                    None => what,
                };
                report(reporter, step);
                reporter.waiting(step.id(), &what);
                tokio::time::sleep(INTERVAL).await;
            }
            Decision::Do(step, acts) => {
                report(reporter, step);
                for act in &acts {
                    if let Err(error) = run.act(act, &observer, reporter).await {
                        // What the API could not do now it may do the next time round; all else is final.
                        if !matches!(error, Error::Failed { .. }) || observer.client().is_none() {
                            reporter.fail(step.id(), &error.to_string());
                            return Err(error);
                        }
                        reporter.waiting(step.id(), &error.to_string());
                        tokio::time::sleep(INTERVAL).await;
                    }
                }
            }
        }
    }
}

/// Whether `manifest` is the workload that must be ready.
fn makes(manifest: &Manifest, required: &Required) -> bool {
    let text = |pointer| manifest.object.pointer(pointer).and_then(serde_json::Value::as_str).unwrap_or("default");
    text("/metadata/name") == required.name && text("/metadata/namespace") == required.namespace
}

/// Shows that `step` is under way and those before it are done.
fn report(reporter: &Reporter, step: Step) {
    for earlier in Step::ALL.into_iter().take_while(|earlier| *earlier < step) {
        reporter.done_if_started(earlier.id());
    }
    reporter.start(step.id(), step.title());
}

impl Run<'_> {
    async fn act(&mut self, act: &Act, observer: &Observer, reporter: &Reporter) -> Result<()> {
        tracing::debug!(?act, "acting");
        let bridge = Bridge::new(self.host);
        let client = || observer.client().ok_or_else(|| Error::failed("reach the API", "there is no connection"));
        match act {
            Act::Raise => {
                let plan = bridge.plan(self.assets, self.cluster, self.controller)?;
                let files = kubelet::plan(self.host, self.assets, self.cluster, self.controller)?;
                if self.before.is_none() {
                    let footprint = bridge.footprint(&plan).into_iter().chain(kubelet::footprint(self.host, &files));
                    self.before = Some((Before::take(footprint)?, kubelet::unit_state(self.host).await?));
                }
                bridge.raise(&plan, self.binary)?;
                self.has_raised = true;
                let changed = kubelet::install_files(self.host, &files)?;
                if kubelet::is_systemd(self.host) {
                    kubelet::run_by_systemd(self.host, self.assets, changed).await?;
                } else {
                    reporter.note("systemd does not run here: run the kubelet as kubelet/kubelet.service of the asset directory says");
                }
            }
            Act::BootstrapToken => {
                let token = kubelet::bootstrap_token(self.assets)?;
                let expiration = rfc3339(OffsetDateTime::now_utc() + self.cluster.pki.bootstrap_token_ttl);
                write::bootstrap_token(client()?, &token, &expiration).await?;
                self.made_token = true;
            }
            Act::Apply => {
                let outcome = apply(client()?, self.manifests).await?;
                for refusal in &outcome.refused {
                    reporter.note(&format!("refused: {}", refusal.finding));
                }
                let hopeless = hopeless(&outcome.refused, self.required);
                if !hopeless.is_empty() {
                    return Err(Error::Refused(hopeless));
                }
                reporter.note(&format!("{} objects applied", outcome.applied));
                self.refused = outcome.refused;
                self.applied = true;
            }
            Act::RestartKubelet => {
                self.kubelet_knows = Some(kubelet::has_certificate(self.host));
                kubelet::restart().await?;
            }
            Act::PublishEndpoint => write::publish_endpoint(client()?, self.controller.address).await?,
            Act::AdoptNode => write::adopt_node(client()?, &self.controller.name, &self.controller.taints).await?,
            Act::LowerControllers => bridge.lower_controllers()?,
            Act::DeleteLease { name, resource_version } => {
                write::delete_lease(client()?, name, resource_version).await?
            }
            Act::DeleteMirrorPods(names) => write::delete_mirror_pods(client()?, names).await?,
            Act::LowerApiServer => {
                bridge.lower_api_server()?;
                self.has_lowered = true;
            }
            Act::CleanUp => {
                bridge.clean_up()?;
                files::remove(&self.host.bootstrap_kubeconfig())?;
            }
            Act::RaiseAndFail => {
                bridge.raise(&bridge.plan(self.assets, self.cluster, self.controller)?, self.binary)?;
                return Err(Error::TimedOut {
                    waiting_for: format!(
                        "the self-hosted control plane to prove itself within {} s of lowering the bridge",
                        PROVE_LIMIT.as_secs()
                    ),
                    api_served: true,
                    details: vec!["the bridge is raised again and serves the API".into()],
                    next: format!("{}; then run `hoist start` again", self.logs_of("kube-apiserver")),
                });
            }
        }
        Ok(())
    }

    /// Puts the disk and the kubelet's unit back as they were: nothing ever ran of what this run installed.
    async fn restore(&self) -> Result<()> {
        let Some((files, unit)) = &self.before else { return Ok(()) };
        files.restore()?;
        match unit {
            Some(unit) => kubelet::restore_unit(*unit).await,
            None => Ok(()),
        }
    }

    /// The error of a run that a signal has ended: what stands, how to go on, how to undo.
    fn interrupted(&self, signal: u8) -> Error {
        let bridge = Bridge::new(self.host).state();
        let manifests = self.host.manifests().display();
        let state = if bridge.is_lowered() {
            "the bridge is not raised; run the same command again to see the cluster through".to_owned()
        } else {
            format!(
                "the bridge stands and goes on serving, or coming up; run the same command again to go on\n  \
                 to undo: remove {manifests}/bridge-*.yaml and then, if no cluster shall come of it, {manifests}/etcd.yaml"
            )
        };
        Error::Interrupted { signal, state }
    }

    /// The result of a run that has reached its end.
    fn outcome(&mut self) -> Result<()> {
        let refused: Vec<_> = self.refused.drain(..).map(|refusal| refusal.finding).collect();
        if refused.is_empty() { Ok(()) } else { Err(Error::Refused(refused)) }
    }

    fn logs_of(&self, component: &str) -> String {
        let ip = self.controller.address;
        format!(
            "`kubectl --server https://{} -n kube-system logs -l component={component}` shows why",
            std::net::SocketAddr::new(ip, 6443)
        )
    }
}

/// The error of a run whose time is up, with all that explains it.
async fn timed_out(run: &Run<'_>, observer: &Observer, observed: &Observed, decision: &Decision) -> Error {
    let waiting_for = match decision {
        Decision::Wait(_, what) => what.clone(),
        Decision::Do(step, _) => step.title().to_owned(),
        Decision::Done => "nothing".into(),
    };
    let mut details = Vec::new();
    if let (Some(client), Some(view)) = (observer.client(), &observed.view) {
        details = explain_pods(client, view, &run.controller.name, run.required).await;
    }
    details.extend(observer.trouble.clone());
    let next = if observed.api_ready {
        run.logs_of("kube-apiserver")
    } else if kubelet::answers().await {
        "`crictl ps -a` and the logs below /var/log/pods show the bridge's containers; `journalctl -u kubelet` the kubelet's view".into()
    } else {
        details.push("no kubelet answers on this machine (http://127.0.0.1:10248/healthz); its last words:".into());
        details.extend(kubelet::last_lines().await.into_iter().map(|line| format!("    {line}")));
        // Only where nothing has come of it yet: what serves, or may be looked into, stays.
        if observed.bridge.processes.is_empty() && !observer.seen_api {
            details.push(match run.restore().await {
                Ok(()) => "the disk is as it was before".into(),
                Err(error) => format!("the disk could not be put back as it was: {error}"),
            });
        }
        "make the kubelet run (`journalctl -u kubelet -n 50` says more), then run `hoist start` again".into()
    };
    Error::TimedOut { waiting_for, api_served: observed.api_ready, details, next }
}

/// A moment as the API and people write it, to the second.
fn rfc3339(time: OffsetDateTime) -> String {
    let whole = time.replace_nanosecond(0).unwrap_or(time);
    whole.format(&time::format_description::well_known::Rfc3339).unwrap_or_default()
}

/// Takes the lock that keeps a second hoist from this node, until it is dropped.
fn lock(host: &Host) -> Result<fs::File> {
    let path = host.path("/run/hoist.lock");
    let open = fs::OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
    let mut file = open.map_err(|error| Error::io("lock", &path, error))?;
    match file.try_lock() {
        Ok(()) => {
            let now = rfc3339(OffsetDateTime::now_utc());
            let text = format!("pid {}, since {now}\n", std::process::id());
            let wrote = file.set_len(0).and_then(|()| file.rewind()).and_then(|()| file.write_all(text.as_bytes()));
            wrote.map_err(|error| Error::io("lock", &path, error))?;
            Ok(file)
        }
        Err(fs::TryLockError::WouldBlock) => {
            let mut holder = String::new();
            file.read_to_string(&mut holder).map_err(|error| Error::io("read", &path, error))?;
            Err(Error::Locked { holder: holder.trim().to_owned() })
        }
        Err(fs::TryLockError::Error(error)) => Err(Error::io("lock", &path, error)),
    }
}
