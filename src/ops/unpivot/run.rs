//! One run of `unpivot`.

use std::collections::BTreeSet;
use std::pin::{Pin, pin};
use std::time::Duration;

use kube::Client;

use super::convert::{self, Workload, convert};
use super::decide::{Act, Decision, Objects, Seen, Step, decide};
use crate::api::self_hosted;
use crate::api::write;
use crate::base::backoff::Backoff;
use crate::base::error::{Error, Finding, Result};
use crate::base::report::Reporter;
use crate::desired::assets;
use crate::desired::secrets::COMPONENTS;
use crate::node::host::Host;
use crate::node::lock;
use crate::node::own_unit::{self, UNIT};
use crate::node::processes;
use crate::ops::start::{Ending, Input, Options, Session};
use crate::plane::bridge::Bridge;
use crate::plane::guard_pod;
use crate::plane::hand_over::{Observed, Target, dead_leases};
use crate::plane::static_plane::{Permanent, StaticPod};

const TIDY: &str = "tidy";

impl Step {
    fn id(self) -> &'static str {
        match self {
            Self::Prepare => "prepare",
            Self::Bridge => "bridge",
            Self::Delete => "delete",
            Self::Install => "install",
        }
    }

    fn title(self) -> &'static str {
        match self {
            Self::Prepare => "prepare the static control plane, as the self-hosted one is now",
            Self::Bridge => "the bridge serves the API",
            Self::Delete => "remove the self-hosted control plane",
            Self::Install => "install the static control plane",
        }
    }

    fn report(self, reporter: &Reporter) {
        let all = [Self::Prepare, Self::Bridge, Self::Delete, Self::Install];
        all.into_iter().filter(|step| *step < self).for_each(|step| reporter.done_if_started(step.id()));
        reporter.start(self.id(), self.title());
    }
}

/// What a run knows of its own doings.
struct Unpivot<'a> {
    host: &'a Host,
    session: Session<'a>,
    node: &'a str,
    /// What hoist's own unit was, once this run has seen to it.
    unit: Option<own_unit::Was>,
    guard_is_away: bool,
    /// Something was taken away, or may have been.
    has_taken: bool,
    /// The pods that were told to end.
    told: BTreeSet<String>,
    /// The workloads as they were last seen, and what they become.
    converted: Option<(Vec<Workload>, Vec<StaticPod>)>,
}

/// Makes the control plane of this controller static pods for good, or goes on where an earlier run stopped. When `stop`
/// completes, with the number of a signal, it ends at the next safe point.
///
/// # Errors
/// See [`Error`]; whatever it is, an API that was served still is.
pub async fn unpivot(
    host: &Host,
    options: &Options,
    reporter: &Reporter,
    stop: impl Future<Output = u8>,
) -> Result<()> {
    let mut stop = pin!(stop);
    let input = Input::load(&options.asset_dir)?;
    let asset_dir = assets::absolute(&options.asset_dir)?;
    let controller = input.check(host, options, reporter).await?;
    if input.cluster().controllers.len() > 1 {
        let finding =
            Finding::new(asset_dir.join("cluster.yaml").display().to_string(), "declares several controllers");
        let remedy = "unpivot would take the API away from the others: it handles clusters of one controller only";
        return Err(Error::Input(vec![finding.remedy(remedy)]));
    }
    let lock = lock::take(host)?;
    let kubeconfig = input.text("auth/kubeconfig")?;
    let required = Target::Static.workloads(COMPONENTS, &controller.name);
    let ending = Ending { required: &required, kubeconfig: &kubeconfig, asset_dir: &asset_dir, target: Target::Static };
    let mut run = Unpivot {
        host,
        session: Session::new(host, &input, controller, options, ending)?.holding(lock),
        node: &controller.name,
        unit: None,
        guard_is_away: false,
        has_taken: false,
        told: BTreeSet::new(),
        converted: None,
    };
    if let Err(error) = run.replace(reporter, stop.as_mut()).await {
        run.give_up(reporter).await;
        return Err(error);
    }
    run.session.see_through(reporter, stop.as_mut()).await?;
    run.tidy(reporter, stop).await
}

impl Unpivot<'_> {
    /// Until the static control plane is put in.
    async fn replace(&mut self, reporter: &Reporter, mut stop: Pin<&mut impl Future<Output = u8>>) -> Result<()> {
        let mut backoff = backoff(self.host);
        loop {
            let mut pause = None;
            // Before the Leases are read: whose process was gone then does not renew them.
            let running = processes::running(&self.host.path("/proc")).others;
            let observed = self.session.observe(stop.as_mut()).await?;
            let mut trouble = None;
            let seen = match self.see(&observed, &running).await {
                Ok(seen) => seen,
                Err(error) if error.is_passing() => {
                    pause = Some(backoff.failed(error.after()));
                    trouble = Some(error.to_string());
                    self.seen(&observed, &running, None)
                }
                Err(error) => return Err(error),
            };
            self.has_taken |= !seen.is_untouched();
            let (step, what) = match decide(&seen) {
                Decision::HandOver => {
                    [Step::Prepare, Step::Bridge, Step::Delete, Step::Install]
                        .into_iter()
                        .for_each(|step| reporter.done_if_started(step.id()));
                    return Ok(());
                }
                Decision::Missing(components) => return Err(missing(&components)),
                Decision::Wait(step, what) => (step, what),
                Decision::Do(step, act) => {
                    step.report(reporter);
                    match self.act(&act, &observed, reporter).await {
                        Ok(()) => {
                            backoff.succeeded();
                            continue;
                        }
                        // What the API could not do now it may do the next time round; all else is final.
                        Err(error) if error.is_passing() => {
                            pause = Some(backoff.failed(error.after()));
                            (step, error.to_string())
                        }
                        Err(error) => {
                            reporter.fail(step.id(), &error.to_string());
                            return Err(error);
                        }
                    }
                }
            };
            let trouble = trouble.as_deref().or(self.session.trouble());
            let what = trouble.map_or(what.clone(), |trouble| format!("{what} ({trouble})"));
            step.report(reporter);
            reporter.waiting(step.id(), &what);
            match pause {
                Some(pause) => self.session.pause_for(pause, &observed, &what).await?,
                None => self.session.pause(&observed, &what).await?,
            }
        }
    }

    async fn see(&mut self, observed: &Observed, running: &BTreeSet<String>) -> Result<Seen> {
        let (Some(client), Some(view)) = (self.session.client().cloned(), &observed.view) else {
            return Ok(self.seen(observed, running, None));
        };
        let workloads: Vec<_> = self_hosted::workloads(&client).await?;
        let workloads: Vec<_> =
            workloads.into_iter().map(|(component, kind, template)| Workload { component, kind, template }).collect();
        let pods = view.pods.get("kube-system").into_iter().flatten();
        let pods = pods.filter(|pod| !pod.mirror && COMPONENTS.contains(&pod.workload.as_str()));
        let elsewhere = pods.clone().find(|pod| pod.node.as_deref().is_some_and(|node| node != self.node));
        if let Some(pod) = elsewhere {
            let finding = Finding::new(format!("the pod kube-system/{}", pod.name), "is on another controller");
            return Err(Error::Preflight(vec![
                finding.remedy("unpivot would take the API away from it: it handles clusters of one controller only"),
            ]));
        }
        let objects = Objects {
            workloads: workloads.iter().map(|workload| workload.component).collect(),
            pods: pods.map(|pod| (pod.name.clone(), self.told.contains(&pod.name))).collect(),
        };
        if !workloads.is_empty() && self.converted.as_ref().is_none_or(|(known, _)| *known != workloads) {
            let converted = become_static(&client, &workloads, self.host).await?;
            self.converted = Some((workloads, converted));
        }
        Ok(self.seen(observed, running, Some(objects)))
    }

    fn seen(&self, observed: &Observed, running: &BTreeSet<String>, objects: Option<Objects>) -> Seen {
        let permanent = Permanent::new(self.host);
        let prepared = |(_, pods): &(_, Vec<StaticPod>)| pods.iter().all(|pod| permanent.is_prepared(pod));
        Seen {
            node_ip: observed.node_ip,
            api_said: observed.api_said.clone(),
            objects,
            statics: observed.statics.clone(),
            is_prepared: self.converted.as_ref().is_some_and(prepared),
            unit_is_off: self.unit.is_some(),
            guard_is_away: self.guard_is_away,
            bridge_stands: Bridge::new(self.host).state().is_raised(),
            bridge_serves: observed.bridge_serves,
            processes: COMPONENTS.into_iter().filter(|component| running.contains(*component)).collect(),
            has_dead_leases: !observed.dead_leases.is_empty(),
        }
    }

    async fn act(&mut self, act: &Act, observed: &Observed, reporter: &Reporter) -> Result<()> {
        tracing::debug!(?act, "acting");
        let client = self.session.client().cloned();
        let client = || client.as_ref().ok_or_else(|| Error::failed("reach the API", "there is no connection"));
        match act {
            Act::Prepare => {
                let pods = self.converted.iter().flat_map(|(_, pods)| pods);
                pods.into_iter().try_for_each(|pod| Permanent::new(self.host).prepare(pod))
            }
            Act::DisableUnit => {
                let was = own_unit::disable(self.host).await?;
                if was.enabled {
                    let undo = format!("`systemctl enable {UNIT}` undoes it");
                    reporter.note(&format!("{UNIT} is disabled: it would pivot again at the next boot ({undo})"));
                }
                if was.started {
                    reporter.note(&format!("{UNIT} is stopped: it would pivot again once this has ended"));
                }
                self.unit = Some(was);
                Ok(())
            }
            Act::TakeGuardAway => {
                self.has_taken = true;
                // First what would bring it back.
                self_hosted::delete_guard(client()?, self.node).await?;
                guard_pod::withdraw(self.host)?;
                self.guard_is_away = true;
                Ok(())
            }
            Act::Raise => self.session.raise().await,
            Act::DeleteWorkloads => self_hosted::delete_workloads(client()?).await,
            Act::DeleteDeadLeases => {
                for act in dead_leases(observed) {
                    self.session.act(&act, reporter).await?;
                }
                Ok(())
            }
            Act::DeletePods(names) => {
                let pods: Vec<_> = names.iter().map(|name| ("kube-system".to_owned(), name.clone())).collect();
                write::delete_pods(client()?, &pods).await?;
                self.told.extend(names.iter().cloned());
                Ok(())
            }
            Act::Install(components) => {
                components.iter().try_for_each(|component| Permanent::new(self.host).install(component))
            }
        }
    }

    /// It ends before its time. As long as nothing was taken away, boots are to go as before.
    async fn give_up(&self, reporter: &Reporter) {
        if self.has_taken || !self.unit.is_some_and(|was| was.enabled) {
            return;
        }
        match own_unit::enable(self.host).await {
            Ok(()) => reporter.note(&format!("{UNIT} is enabled again: nothing was removed")),
            Err(error) => reporter.note(&error.to_string()),
        }
    }

    /// What nothing needs any more goes.
    async fn tidy(&mut self, reporter: &Reporter, mut stop: Pin<&mut impl Future<Output = u8>>) -> Result<()> {
        reporter.start(TIDY, "delete what only the self-hosted control plane needed");
        let mut backoff = backoff(self.host);
        loop {
            let held = self.session.hold();
            let observed = self.session.observe(stop.as_mut()).await?;
            if held.is_ok() && !observed.statics.stands() {
                let cause = "another hoist has taken the static control plane out meanwhile";
                return Err(Error::failed("finish", cause));
            }
            let client = self.session.client();
            let deleted = match (held, client) {
                (Err(error), _) => Err(error),
                (Ok(()), Some(client)) => self_hosted::delete_leftovers(client).await,
                (Ok(()), None) => Err(Error::failed("reach the API", &observed.api_said)),
            };
            match deleted {
                Ok(()) => break,
                Err(error) => {
                    // Nobody waits for that but this run.
                    self.session.release();
                    reporter.waiting(TIDY, &error.to_string());
                    let pause = backoff.failed(error.after());
                    self.session.pause_for(pause, &observed, &error.to_string()).await?;
                }
            }
        }
        reporter.done(TIDY);
        Ok(())
    }
}

/// The pauses before what the API could not do is tried again.
fn backoff(host: &Host) -> Backoff {
    Backoff::new(Duration::from_millis(150), Duration::from_secs(5), u64::from(host.world().now().nanosecond()))
}

/// What the workloads become.
async fn become_static(client: &Client, workloads: &[Workload], host: &Host) -> Result<Vec<StaticPod>> {
    let mut objects = convert::Objects::default();
    for references in workloads.iter().map(Workload::references) {
        for name in references.secrets {
            if let Some(content) = self_hosted::secret(client, &name).await? {
                objects.secrets.insert(name, content);
            }
        }
        for name in references.config_maps {
            if let Some(content) = self_hosted::config_map(client, &name).await? {
                objects.config_maps.insert(name, content);
            }
        }
        if self_hosted::gives_token(client, &references.account).await? {
            objects.giving_accounts.insert(references.account);
        }
    }
    let folder = host.inside(&host.permanent()).display().to_string();
    let (mut pods, mut findings) = (Vec::new(), Vec::new());
    for workload in workloads {
        match convert(workload, &objects, &folder) {
            Ok(pod) => pods.push(pod),
            Err(found) => findings.extend(found),
        }
    }
    if findings.is_empty() { Ok(pods) } else { Err(Error::Input(findings)) }
}

fn missing(components: &[&str]) -> Error {
    let finding = |component: &&str| {
        let kind = self_hosted::kind_of(component);
        let message = format!("there is neither the {kind} kube-system/{component} nor a static pod of hoist's");
        Finding::new(*component, message).remedy("`hoist start` makes what is missing; then run `hoist unpivot` again")
    };
    Error::Preflight(components.iter().map(finding).collect())
}
