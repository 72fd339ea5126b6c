//! The current state of this node and its cluster: observed, not remembered. It changes nothing, and takes no lock.
//!
//! ```text
//! look: the host, probes, the API, what start would see ─► Status ─► problems (judge, pure) ─► text, JSON
//! ```

mod certificates;
mod etcd;
mod judge;
mod machine;
mod text;

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use futures::future::OptionFuture;
use serde::Serialize;
use time::OffsetDateTime;

use crate::api::health::{Condition, Leader};
use crate::api::observe::{ClusterView, NodeView};
use crate::api::{self, health};
use crate::base::error::Result;
use crate::base::probe::Answer;
use crate::desired::assets::AssetSet;
use crate::desired::config::{API_PORT, Cluster, Controller, Etcd};
use crate::desired::node_endpoint;
use crate::desired::secrets::BRIDGE_PODS;
use crate::desired::secrets::{BRIDGE_PORT, COMPONENTS};
use crate::node::host::Host;
use crate::node::processes;
use crate::ops::start;
use crate::plane::bridge::{self, Bridge};
use crate::plane::certificates::Listener;
use crate::plane::endpoint_pod;
use crate::plane::guard_pod;
use crate::plane::hand_over::Target;
use crate::plane::kept_copy;
use crate::plane::static_plane::Permanent;
pub use certificates::Certificate;
pub use etcd::Member;

/// The version of what is written as JSON: fields may be added to it, never changed or taken away.
const SCHEMA: &str = "hoist.status/v1";
/// What the node's endpoint is called.
const ENDPOINT: &str = "endpoint";
/// How long one question to an API server may take.
const LIMIT: Duration = Duration::from_secs(2);

/// Where to look, and with which credentials.
pub struct Subject<'a> {
    /// This machine.
    pub host: &'a Host,
    /// The cluster, as far as it is known here.
    pub cluster: &'a Cluster,
    /// Which of its controllers this machine is.
    pub controller: &'a Controller,
    /// The asset directory, if one was named.
    pub assets: Option<&'a AssetSet>,
    /// An administrator's kubeconfig; without one, the API is not asked.
    pub kubeconfig: Option<&'a str>,
    /// The CA of the API servers.
    pub ca: &'a [u8],
}

/// All of it.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// `hoist.status/v1`
    pub schema: &'static str,
    /// The cluster is self-hosted, and nothing is wrong with it.
    pub healthy: bool,
    /// Why it is not.
    pub problems: Vec<String>,
    /// What this controller's control plane is, or is to be: `self-hosted`, or `static` after `hoist unpivot`.
    pub control_plane: &'static str,
    /// This machine's Node.
    pub node: Node,
    /// Who serves the API.
    pub api: Api,
    /// What of the bridge is here.
    pub bridge: BridgeStatus,
    /// The control plane's pods of this node, self-hosted and static ones; none are known while the API is away.
    pub pods: Vec<Pod>,
    /// Who leads; nobody is known to while the API is away.
    pub leaders: Vec<Leader>,
    /// What is gone of what the asset directory's manifests make, or those that guard keeps; kind, namespace, name.
    pub missing: Vec<String>,
    /// How long certificates are good for.
    pub certificates: Vec<Certificate>,
    /// What will be wrong later, and is not yet.
    pub warnings: Vec<String>,
    /// etcd's database, where etcd is on this controller and its certificates are known.
    pub etcd: Option<EtcdStatus>,
    /// What `start` would do next, where its credentials are known.
    pub next: Option<NextStep>,
}

/// etcd's database on this controller, and all members.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct EtcdStatus {
    /// The alarms that any member has raised, as etcd names them.
    pub alarms: Vec<String>,
    /// Its bytes.
    pub size: i64,
    /// How many it may have.
    pub quota: i64,
    /// The members, by name; none where no voter tells them.
    pub members: Vec<Member>,
}

/// This machine's Node.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Node {
    /// Its name.
    pub name: String,
    /// NODE_IP.
    pub address: String,
    /// Its conditions, as its kubelet has said last.
    pub conditions: Vec<Condition>,
    /// Its Node lacks the control plane's label, by which the self-hosted API server comes to it.
    pub lacks_label: bool,
}

/// Who serves the API.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Api {
    /// Who answers at NODE_IP.
    pub served_by: Server,
    /// What was asked, and what it answered.
    pub endpoints: Vec<Endpoint>,
}

/// Who answers at NODE_IP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Server {
    /// The self-hosted API server.
    SelfHosted,
    /// The API server that is a static pod for good.
    Static,
    /// The bridge's, through the forwarder.
    Bridge,
    /// Somebody of whom hoist knows nothing.
    Other,
    /// Nobody.
    Nobody,
}

/// An address that was asked for /readyz.
#[derive(Debug, Clone, Serialize)]
pub struct Endpoint {
    /// Whose it is: `node`, `self-hosted` or `static`, `bridge`; `endpoint` where nodes have one.
    pub name: &'static str,
    /// The address.
    pub address: SocketAddr,
    /// It answered with 200.
    pub ready: bool,
    /// What it answered.
    pub answer: String,
}

/// What of the bridge is here.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct BridgeStatus {
    /// `lowered`, `raised`, or `partly raised`.
    pub state: &'static str,
    /// The API server's manifest stands.
    pub api_server: bool,
    /// How many of the two controllers' manifests stand.
    pub controllers: usize,
    /// Its components of which a process runs.
    pub processes: Vec<String>,
    /// Its keys and its binary are on the disk.
    pub files: bool,
}

/// A pod of the control plane on this node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Pod {
    /// Its name, in kube-system.
    pub name: String,
    /// Its DaemonSet or Deployment; for a static pod its own name.
    pub workload: String,
    /// A static pod's mirror, and not self-hosted.
    pub is_static: bool,
    /// The condition Ready.
    pub ready: bool,
    /// How often its containers were started again.
    pub restarts: i32,
    /// Why it is not ready, as far as it tells.
    pub reason: Option<String>,
}

/// What `start` would do next.
#[derive(Debug, Clone, Serialize)]
pub struct NextStep {
    /// The step, as the events of `start` name it; `null` when there is nothing to do.
    pub step: Option<&'static str>,
    /// What it would do, or wait for.
    pub what: String,
}

/// Looks.
///
/// # Errors
/// A CA or a kubeconfig that cannot be used. What is away or broken is in the status.
pub async fn look(subject: &Subject<'_>) -> Result<Status> {
    let Subject { host, cluster, controller, .. } = *subject;
    let node_ip = SocketAddr::new(controller.address, API_PORT);
    let state = Bridge::new(host).state();
    let probe = subject.host.world().probe(subject.ca)?;
    let target = if Permanent::new(host).state().is_there() { Target::Static } else { Target::SelfHosted };
    let addresses = [
        ("node", node_ip),
        (target.name(), SocketAddr::new(cluster.loopback(), API_PORT)),
        ("bridge", SocketAddr::new(cluster.loopback(), BRIDGE_PORT)),
    ];
    let ask = |(name, address)| {
        let probe = &probe;
        async move { (name, address, probe.get(address, "/readyz", LIMIT).await) }
    };
    let [node, own, of_bridge] = addresses.map(ask);
    let endpoint = endpoint_of(subject).map(|address| ask((ENDPOINT, address)));
    let (node, own, of_bridge, of_endpoint) = futures::join!(node, own, of_bridge, OptionFuture::from(endpoint));
    // The forwarder has the address itself; everybody else may only have the wildcard.
    let forwarded = state.processes.contains("forwarder") && processes::listens_at(&host.path("/proc"), node_ip);
    let served_by = judge::server(&node.2, &own.2, forwarded, target);
    let endpoint = |(name, address, answer): (&'static str, SocketAddr, Answer)| {
        let ready = answer.is_ready();
        let answer = if ready { "ok".to_owned() } else { answer.to_string() };
        Endpoint { name, address, ready, answer }
    };

    let listener = Listener { holder: COMPONENTS[0], address: node_ip, file: None };
    let (certificates, warnings) = certificates::look(subject, &listener, OffsetDateTime::now_utc()).await;

    let mut status = Status {
        schema: SCHEMA,
        healthy: false,
        problems: Vec::new(),
        control_plane: target.name(),
        node: Node {
            name: controller.name.clone(),
            address: controller.address.to_string(),
            conditions: Vec::new(),
            lacks_label: false,
        },
        api: Api {
            served_by,
            endpoints: [node, own, of_bridge].into_iter().chain(of_endpoint).map(endpoint).collect(),
        },
        bridge: bridge_status(&state),
        pods: Vec::new(),
        leaders: Vec::new(),
        missing: Vec::new(),
        certificates,
        warnings,
        etcd: None,
        next: None,
    };
    let here = machine::look(subject).await;
    status.etcd = here.etcd;
    let mut unknown = Vec::new();
    if !subject.host.world().is_root() {
        unknown.push("only root sees processes and keys of others: run it with sudo".to_owned());
    }
    match subject.kubeconfig {
        Some(kubeconfig) => unknown.extend(ask_the_api(subject, kubeconfig, target, &mut status).await?),
        None => unknown.push("the cluster was not asked: name --asset-dir or --kubeconfig".into()),
    }
    let compared = std::mem::take(&mut status.problems);
    status.problems = judge::problems(&status, target, matches!(cluster.etcd, Etcd::Local { .. }));
    status.problems.extend(compared);
    status.problems.extend(here.problems);
    status.problems.extend(unknown);
    status.healthy = status.problems.is_empty();
    Ok(status)
}

/// Where this node's endpoint is, if it has one or shall have one.
fn endpoint_of(subject: &Subject<'_>) -> Option<SocketAddr> {
    let is_wanted = subject.assets.is_some_and(|assets| assets.files.contains_key(node_endpoint::RENDERED));
    subject.cluster.node_endpoint().filter(|_| is_wanted || endpoint_pod::is_there(subject.host))
}

/// Completes the status with what the API shows and what `start` makes of it; returns what could not be read.
async fn ask_the_api(
    subject: &Subject<'_>,
    kubeconfig: &str,
    target: Target,
    status: &mut Status,
) -> Result<Option<String>> {
    let Subject { host, cluster, controller, ca, .. } = *subject;
    // What `start` requires unless it is told otherwise.
    let required = target.workloads(COMPONENTS, &controller.name);
    let next = start::next_step(host, cluster, controller, &required, kubeconfig, ca, target).await?;
    let mut trouble = next.trouble;
    if let Some(view) = &next.observed.view {
        status.pods = pods(view, &controller.name);
        let client = api::connect(kubeconfig, SocketAddr::new(controller.address, API_PORT)).await?;
        let read = futures::join!(
            health::conditions(&client, &controller.name),
            health::leaders(&client, OffsetDateTime::now_utc())
        );
        match read {
            (Ok(conditions), Ok(leaders)) => (status.node.conditions, status.leaders) = (conditions, leaders),
            (Err(error), _) | (_, Err(error)) => trouble = Some(error.to_string()),
        }
        // A control plane of static pods needs neither.
        if target == Target::SelfHosted {
            status.node.lacks_label = view.node == NodeView::Registered;
            match missing(subject, &client).await {
                Ok(missing) => status.missing = missing,
                Err(error) => trouble = Some(error.to_string()),
            }
        }
        let told = futures::join!(api::observe::cluster_id(&client), api::guard::version(&client));
        if let (Ok(id), Ok(version)) = told {
            let of = version.version.filter(|_| !version.is_on_trial);
            status.problems = machine::compare(host, subject.assets, &id, of);
            if version.is_on_trial {
                status.problems.push("an upgrade is under way, and not committed: `hoist upgrade apply` goes on, `hoist upgrade rollback` goes back".into());
            }
        }
    }
    status.next = Some(NextStep { step: next.step, what: next.what });
    Ok(trouble)
}

/// What is gone of what manifests make: those of the asset directory, or else those that guard keeps.
async fn missing(subject: &Subject<'_>, client: &kube::Client) -> Result<Vec<String>> {
    let kept = if subject.assets.is_none() { kept_copy::Copy::load(subject.host).ok().flatten() } else { None };
    let Some(assets) = subject.assets.or(kept.as_ref().map(|copy| &copy.assets)) else { return Ok(Vec::new()) };
    let (manifests, addons) = assets.manifests(Path::new(""))?;
    let mut gone = api::missing::missing(client, &manifests, guard_pod::is_wanted(assets)).await?;
    if !addons.is_empty() {
        gone.extend(api::missing::inventory(client).await?);
    }
    Ok(gone.iter().map(ToString::to_string).collect())
}

/// The control plane's pods of this node.
fn pods(view: &ClusterView, node: &str) -> Vec<Pod> {
    let is_static = |name: &str| {
        BRIDGE_PODS
            .into_iter()
            .chain(COMPONENTS)
            .chain(["etcd", "hoist-guard", "hoist-endpoint"])
            .any(|pod| name.strip_prefix(pod) == Some(&format!("-{node}")))
    };
    let wanted = |pod: &&api::observe::PodView| {
        let here = pod.node.as_deref().is_none_or(|there| there == node);
        here && if pod.mirror { is_static(&pod.name) } else { COMPONENTS.contains(&pod.workload.as_str()) }
    };
    let pod = |pod: &api::observe::PodView| Pod {
        name: pod.name.clone(),
        workload: pod.workload.clone(),
        is_static: pod.mirror,
        ready: pod.ready,
        restarts: pod.restarts,
        reason: (!pod.ready).then(|| pod.reason.clone()),
    };
    let mut pods: Vec<_> = view.pods.get("kube-system").into_iter().flatten().filter(wanted).map(pod).collect();
    pods.sort_by(|a, b| a.name.cmp(&b.name));
    pods
}

fn bridge_status(state: &bridge::State) -> BridgeStatus {
    let word = match state {
        state if state.is_raised() => "raised",
        state if state.is_lowered() => "lowered",
        _ => "partly raised",
    };
    BridgeStatus {
        state: word,
        api_server: state.api_server,
        controllers: state.controllers,
        processes: state.processes.iter().cloned().collect(),
        files: state.files,
    }
}
