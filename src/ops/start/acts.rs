//! The acts of a run of `start`.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use kube::Client;
use tokio::time::Instant;

use super::decide::Act;
use super::memory::Mode;
use super::memory::{Fixed, Run};
use super::observer::Observer;
use crate::api::apply::{Change, Refusal, apply};
use crate::api::observe::{self, ClusterView, hopeless};
use crate::api::{self, controllers, endpoints, write};
use crate::base::error::{Error, Result};
use crate::base::files;
use crate::base::files::File;
use crate::base::report::Reporter;
use crate::base::time::rfc3339;
use crate::desired::assets::CLUSTER_ID;
use crate::desired::config::API_PORT;
use crate::desired::server_config;
use crate::etcd::alarms;
use crate::node::etcd_data::Data;
use crate::node::etcd_manifest;
use crate::node::images;
use crate::node::kubelet;
use crate::node::lock;
use crate::node::lock::Lock;
use crate::node::packet_filter;
use crate::node::rollback::Before;
use crate::ops::explain::{self, Explanation, Seen};
use crate::plane::bridge::{self, Bridge, Plan};
use crate::plane::endpoint_pod;
use crate::plane::guard_pod;
use crate::plane::hand_over::{self, Observed, Target};
use crate::plane::kept_copy;
use crate::plane::serving;
use crate::plane::static_plane::Permanent;

/// How long etcd may take to say its alarms.
const ASK_LIMIT: Duration = Duration::from_secs(2);
/// How long a kubelet may take to see another manifest of etcd.
const KUBELET_SEES: Duration = Duration::from_secs(30);

impl Run<'_> {
    /// Whether this run may change the node by what it has seen. If not, it has taken the lock just now, and must look
    /// again first: somebody else may have had it.
    ///
    /// # Errors
    /// Who has the lock; the system's refusal.
    pub(super) fn may_act(&mut self) -> Result<bool> {
        if self.lock.is_some() {
            return Ok(true);
        }
        self.lock = Some(lock::try_take(self.fixed.host)?);
        Ok(false)
    }

    /// Does one thing. `client` is there once the API has answered.
    pub(super) async fn act(&mut self, act: &Act, client: Option<&Client>, reporter: &Reporter) -> Result<()> {
        tracing::debug!(?act, "acting");
        let bridge = Bridge::new(self.fixed.host);
        let client = || client.ok_or_else(|| Error::failed("reach the API", "there is no connection"));
        match act {
            Act::Raise => {
                let plan = bridge.plan(self.fixed.assets, self.fixed.cluster, self.fixed.controller)?;
                let plan = plan.with_folder(self.fixed.host.path(server_config::AUDIT_LOGS));
                let plan = self.with_images(plan.beginning(self.fixed.may_begin)).await;
                let kubelet =
                    kubelet::plan(self.fixed.host, self.fixed.assets, self.fixed.cluster, self.fixed.controller)?;
                if self.before.is_none() {
                    let footprint =
                        bridge.footprint(&plan).into_iter().chain(kubelet::footprint(self.fixed.host, &kubelet));
                    let footprint = footprint.chain(endpoint_pod::footprint(self.fixed.host));
                    self.before = Some((Before::take(footprint)?, kubelet::unit_state(self.fixed.host).await?));
                }
                // A kubelet that has not reached any API yet ends no static pod, and so does not replace one, until it
                // is started anew.
                let raised = bridge.raise(&plan, self.fixed.binary)?;
                let Fixed { host, assets, cluster, binary, .. } = self.fixed;
                endpoint_pod::install(host, assets, cluster, binary)?;
                let changed = kubelet::install_files(self.fixed.host, &kubelet)? || raised.pods;
                if kubelet::is_systemd(self.fixed.host) {
                    if kubelet::run_by_systemd(self.fixed.host, self.fixed.assets, changed).await? {
                        self.kubelet_since = Some(Instant::now());
                    }
                } else {
                    reporter.note("systemd does not run here: run the kubelet as kubelet/kubelet.service of the asset directory says");
                }
                self.raised = Some(raised.any || changed);
                if etcd_manifest::follow(self.fixed.host, KUBELET_SEES).await? {
                    reporter.note("etcd was ended, and begins anew by its manifest, which has changed");
                }
            }
            Act::BootstrapToken => {
                let token = kubelet::bootstrap_token(self.fixed.assets)?;
                let expiration = rfc3339(self.fixed.host.world().now() + self.fixed.cluster.pki.bootstrap_token_ttl);
                write::bootstrap_token(client()?, &token, &expiration).await?;
                self.made_token = true;
            }
            Act::Apply => {
                // The pods of what is applied wait for it.
                serving::install(self.fixed.host, self.fixed.controller, &self.fixed.assets.tls())?;
                self.endpoints_answer(client()?).await?;
                let (manifests, said) =
                    packet_filter::fit(self.fixed.manifests, self.fixed.cluster, || self.fixed.host.world().nftables());
                said.iter().for_each(|said| reporter.note(said));
                let outcome = apply(client()?, &manifests, self.force_manifests()).await?;
                for refusal in &outcome.refused {
                    reporter.note(&format!("refused: {}", refusal.finding));
                }
                let hopeless = hopeless(&outcome.refused, self.fixed.required);
                if !hopeless.is_empty() {
                    return Err(Error::Refused(hopeless));
                }
                // In a cluster that is up they were deleted, or their manifests are new.
                if self.raised.is_none() {
                    for made in outcome.changes.iter().filter(|made| made.change == Change::Created) {
                        reporter.note(&format!("{} was not there, and is made", made.name));
                    }
                }
                reporter.note(&format!("{} objects applied", outcome.applied));
                self.refused = outcome.refused;
                self.applied = true;
            }
            Act::KeepCopy => {
                let id = observe::cluster_id(client()?).await?;
                if let Some(copy) = &mut self.guard {
                    copy.assets.files.insert(CLUSTER_ID.into(), File::private(format!("{id}\n")));
                    let shared = copy.shared();
                    match write::guard_copy(client()?, &shared.to_json(), &shared.sum()).await {
                        Err(Error::Refused(findings)) => {
                            findings.iter().for_each(|finding| reporter.note(&format!("refused: {finding}")));
                            let refusal = |finding| Refusal {
                                kind: "Secret".into(),
                                namespace: "kube-system".into(),
                                name: api::guard::NAME.into(),
                                finding,
                            };
                            self.refused.extend(findings.into_iter().map(refusal));
                        }
                        kept => kept?,
                    }
                }
                self.kept_copy = true;
            }
            Act::RestartKubelet => {
                self.kubelet_knows = true;
                kubelet::restart(self.fixed.host).await?;
            }
            Act::AdoptNode => {
                write::adopt_node(client()?, &self.fixed.controller.name, &self.fixed.controller.taints).await?
            }
            Act::RemoveStatic => {
                reporter.note("the bridge serves; the static pods of the control plane are taken out");
                Permanent::new(self.fixed.host).remove()?;
            }
            Act::HandOver(act) => self.hand_over(act, client(), reporter).await?,
            Act::RaiseAndFail => {
                let plan = bridge.plan(self.fixed.assets, self.fixed.cluster, self.fixed.controller)?;
                bridge.raise(&self.with_images(plan).await, self.fixed.binary)?;
            }
        }
        Ok(())
    }

    /// Does one thing of the hand-over.
    pub(super) async fn hand_over(
        &mut self,
        act: &hand_over::Act,
        client: Result<&Client>,
        reporter: &Reporter,
    ) -> Result<()> {
        use hand_over::Act;
        let bridge = Bridge::new(self.fixed.host);
        match act {
            Act::PublishEndpoint => {
                let (client, own) = (client?, self.fixed.controller.address);
                let mut serving = endpoints::published(client).await?;
                serving.extend((!serving.contains(&own)).then_some(own));
                // One of each is what there is without a word.
                if serving.len() > 1 {
                    controllers::scale(client, serving.len()).await?;
                }
                // Last, for by it is told whether all of this is done.
                endpoints::publish(client, own).await.map(drop)
            }
            Act::ReplacePods(pods) => {
                write::delete_pods(client?, pods).await?;
                for (namespace, name) in pods {
                    reporter.note(&format!(
                        "{namespace}/{name} failed before, and is made anew: it would be tried again minutes later"
                    ));
                }
                self.has_replaced = true;
                Ok(())
            }
            Act::InstallGuard => match &self.guard {
                Some(copy) => {
                    let copy = copy.clone().keeping(self.fixed.host);
                    guard_pod::install(self.fixed.host, &copy, self.fixed.binary).map(drop)
                }
                None => Ok(()),
            },
            Act::LowerControllers => bridge.lower_controllers(),
            Act::DeleteLease { name, resource_version } => write::delete_lease(client?, name, resource_version).await,
            Act::DeleteMirrorPods(names) => write::delete_mirror_pods(client?, names).await,
            Act::LowerApiServer => {
                bridge.lower_api_server()?;
                self.has_lowered = true;
                Ok(())
            }
            Act::CleanUp => {
                if self.fixed.target == Target::SelfHosted {
                    Permanent::new(self.fixed.host).clean_up()?;
                }
                bridge.clean_up()
            }
        }
    }

    /// A plan by the images that have proved themselves and are there.
    pub(super) async fn with_images(&self, plan: Plan) -> Plan {
        let Fixed { host, assets, .. } = self.fixed;
        let followed = kept_copy::Copy::load(host).ok().flatten().map(|copy| copy.images).unwrap_or_default();
        let present = match kubelet::runtime_socket(host, assets) {
            Ok(socket) => images::present(&socket).await.ok(),
            Err(_) => None,
        };
        plan.with_images(|component, named| images::choose(named, followed.get(component), present.as_deref()))
    }

    /// Notes in the asset directory and in guard's copy of which cluster they are: without the disk of its data, none is
    /// begun by them.
    pub(super) async fn remember_cluster(&self, client: &Client, reporter: &Reporter) {
        let path = self.fixed.asset_dir.join(CLUSTER_ID);
        let noted = async {
            let id = observe::cluster_id(client).await?;
            files::write(&path, &File::private(format!("{id}\n")))?;
            let Some(mut copy) = kept_copy::Copy::load(self.fixed.host)?.filter(|_| self.guard.is_some()) else {
                return Ok(());
            };
            let known = copy.cluster_id();
            if known.as_ref() == Some(&id) {
                return Ok(());
            }
            // While it waited, this run may have let go of it.
            let _lock = match self.lock {
                Some(_) => None,
                None => Some(lock::try_take(self.fixed.host)?),
            };
            if let Some(known) = known {
                reporter.note(&format!("this is another cluster than before ({known}): {id} is recorded"));
            }
            copy.assets.files.insert(CLUSTER_ID.into(), File::private(format!("{id}\n")));
            copy.asset_dir = Some(self.fixed.asset_dir.to_owned());
            copy.store(self.fixed.host)?;
            let shared = copy.shared();
            write::guard_copy(client, &shared.to_json(), &shared.sum()).await
        };
        if let Err(error) = noted.await {
            reporter.note(&format!("the cluster's id is not recorded: {error}"));
        }
    }

    /// Whether what was edited in the cluster is to be as its manifest has it.
    fn force_manifests(&self) -> bool {
        self.fixed.mode == (Mode::Recover { force_manifests: true }) && !self.applied
    }

    /// Removes what killed runs have left of files that were not whole yet.
    pub(super) fn sweep(&self) -> Result<()> {
        let bridge = Bridge::new(self.fixed.host);
        let files = kubelet::plan(self.fixed.host, self.fixed.assets, self.fixed.cluster, self.fixed.controller)?;
        let plan = bridge.plan(self.fixed.assets, self.fixed.cluster, self.fixed.controller)?;
        let footprint: Vec<_> =
            bridge.footprint(&plan).into_iter().chain(kubelet::footprint(self.fixed.host, &files)).collect();
        let footprint: Vec<_> = footprint
            .into_iter()
            .chain(guard_pod::footprint(self.fixed.host))
            .chain(endpoint_pod::footprint(self.fixed.host))
            .chain(serving::footprint(self.fixed.host))
            .collect();
        let folders: BTreeSet<_> = footprint.iter().filter_map(|path| path.parent()).collect();
        folders.into_iter().try_for_each(files::sweep)
    }

    /// Puts the disk and the kubelet's unit back as they were: nothing ever ran of what this run installed.
    pub(super) async fn restore(&self) -> Result<()> {
        let Some((files, unit)) = &self.before else { return Ok(()) };
        files.restore()?;
        if let Some(unit) = unit {
            kubelet::restore_unit(self.fixed.host, *unit).await?;
        }
        self.lock.as_ref().map_or(Ok(()), Lock::undo)
    }

    /// The error of a run that a signal has ended: what stands, how to go on, how to undo.
    pub(super) fn interrupted(&self, signal: u8) -> Error {
        let bridge = Bridge::new(self.fixed.host).state();
        let manifests = self.fixed.host.manifests().display();
        // It would raise the bridge again.
        let guard = if guard_pod::is_there(self.fixed.host) {
            format!("{manifests}/{} first, then ", bridge::GUARD)
        } else {
            String::new()
        };
        let state = if bridge.is_lowered() {
            "the bridge is not raised; run the same command again to continue".to_owned()
        } else {
            let stands = "the bridge stays, and keeps serving or starting; run the same command again to continue";
            match self.fixed.target {
                Target::Static => stands.to_owned(),
                Target::SelfHosted => format!(
                    "{stands}\n  \
                     to undo: remove {guard}{manifests}/bridge-*.yaml and then, if you do not want the cluster, {manifests}/etcd.yaml"
                ),
            }
        };
        Error::Interrupted { signal, state }
    }

    /// Keeps the ends of the logs of the pods that are waited for.
    pub(super) fn keep_logs(&mut self, view: Option<&ClusterView>) {
        let pods = explain::pods_to_keep(self.fixed.required, &self.fixed.controller.name, view);
        self.pod_logs.keep(self.fixed.host, pods, Instant::now());
    }

    /// Why the cluster does not get on.
    pub(super) async fn explain(&self, observer: &Observer, observed: &Observed) -> Explanation {
        let context = explain::Context {
            host: self.fixed.host,
            node: &self.fixed.controller.name,
            address: self.fixed.controller.address,
            asset_dir: self.fixed.asset_dir,
            manifests: self.fixed.manifests,
            kubeconfig: self.fixed.kubeconfig,
            required: self.fixed.required,
        };
        let found = self.wrong_here().await;
        let seen = Seen {
            client: observer.client(),
            view: observed.view.as_ref(),
            api_ready: observed.api_ready,
            found: &found,
        };
        explain::explain(&context, seen, &self.pod_logs).await
    }

    /// What is wrong on this machine with etcd and with images, with what to type.
    async fn wrong_here(&self) -> Vec<String> {
        let Fixed { host, cluster, controller, assets, .. } = self.fixed;
        let mut wrong = Vec::new();
        if let Some(data) = Data::of(host, cluster) {
            let address = SocketAddr::new(cluster.loopback(), alarms::PORT);
            match host.world().etcd(address, &assets.tls(), ASK_LIMIT).await {
                Ok(health) => {
                    wrong.extend(health.said(&controller.name).iter().map(|(what, remedy)| format!("{what}; {remedy}")))
                }
                Err(_) if !data.mark().is_file() && !data.is_there() => {
                    wrong.push(format!("etcd's data is not in {}: {}", data.name(), Data::remedy()));
                }
                Err(_) => {}
            }
        }
        if let Ok(socket) = kubelet::runtime_socket(host, assets) {
            let missing = images::missing_here(host, &socket).await.unwrap_or_default();
            wrong.extend(missing.iter().map(|missing| format!("{missing}; {}", missing.remedy())));
        }
        wrong
    }

    /// The result of a run that has reached its end.
    pub(super) fn outcome(&mut self) -> Result<()> {
        let refused: Vec<_> = self.refused.drain(..).map(|refusal| refusal.finding).collect();
        if refused.is_empty() { Ok(()) } else { Err(Error::Refused(refused)) }
    }

    pub(super) fn logs_of(&self, component: &str) -> String {
        let ip = self.fixed.controller.address;
        format!(
            "`kubectl --server https://{} -n kube-system logs -l component={component}` shows why",
            std::net::SocketAddr::new(ip, API_PORT)
        )
    }
}
