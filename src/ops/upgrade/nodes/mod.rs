//! The kubelets of all nodes, or the hoist, from any machine: on each node a pod of hoist's exchanges it, as `hoist upgrade node` and
//! `hoist upgrade hoist` do there.
//!
//! ```text
//! Nodes, pods ─► loop { observe ─► decide ─► a pod is made, or taken away }
//! ```

mod decide;
mod pod;

use std::collections::BTreeSet;
use std::time::Duration;

use kube::Client;
use tokio::time::{Instant, sleep};

use crate::api::{controllers, node_task, skew, write};
use crate::base::backoff::Backoff;
use crate::base::error::{Error, Result};
use crate::base::report::Reporter;
use crate::desired::config::Cluster;

use decide::{Decision, Node, Task, decide};
pub use pod::{Source, What};

/// Between two rounds.
const INTERVAL: Duration = Duration::from_secs(1);
/// The longest pause, but for chance, before what has failed is tried again.
const LONG_INTERVAL: Duration = Duration::from_secs(5);
/// How long the API may not answer.
const AWAY: Duration = Duration::from_secs(120);
/// How much longer than what it exchanges one pod may take: its images are pulled, and the way back is gone.
const BESIDE: Duration = Duration::from_secs(540);

/// What `--all-nodes` was told.
#[derive(Debug, Clone)]
pub struct Options<'a> {
    /// What is exchanged.
    pub what: What<'a>,
    /// How many nodes may be under way at once; of controllers it is one.
    pub most: usize,
    /// How long the exchange may take on one node.
    pub timeout: Duration,
    /// The kubelets' folder of static pods.
    pub manifests: &'a str,
}

impl Options<'_> {
    /// What is wanted of a node, or of every one.
    fn wanted(&self, cluster: &Cluster, node: &str) -> String {
        match self.what {
            What::Kubelet(_) => format!("the kubelet of {node} is {}", cluster.kubernetes_version),
            What::Hoist(image) => format!("hoist of {node} is that of {image}"),
        }
    }

    fn failed(&self, cluster: &Cluster, left: &[(String, String)]) -> Error {
        let left: Vec<_> = left.iter().map(|(node, why)| format!("{node}: {why}")).collect();
        let (action, next) = match self.what {
            What::Kubelet(_) => (
                format!("bring every kubelet to {}", cluster.kubernetes_version),
                "`hoist upgrade node --dry-run` on that node says what stands in the way; the same command goes on"
                    .to_owned(),
            ),
            What::Hoist(image) => (
                format!("bring the hoist of {image} to every node"),
                // The node's own hoist would bring itself to all of the node.
                format!("`kubectl -n kube-system logs {}` says more; the same command goes on", self.what.pod("NODE")),
            ),
        };
        Error::Failed { action, cause: left.join("; "), next: Some(next) }
    }
}

/// Exchanges the kubelet of each node that has not the version of `cluster`, or hoist on each node; says how many nodes have it then.
/// When `stop` completes, with the number of a signal, what is under way goes on by itself.
///
/// # Errors
/// Nodes on which nothing was exchanged, each with its reason: none is begun after one has failed. Running it again goes on.
pub async fn run(
    client: &Client,
    cluster: &Cluster,
    options: &Options<'_>,
    reporter: &Reporter,
    stop: impl Future<Output = u8>,
) -> Result<usize> {
    let mut stop = std::pin::pin!(stop);
    tokio::select! {
        biased;
        signal = &mut stop => Err(Error::Interrupted {
            signal,
            state: "nodes that are under way go on by themselves; the same command continues".into(),
        }),
        ended = go(client, cluster, options, reporter) => ended,
    }
}

async fn go(client: &Client, cluster: &Cluster, options: &Options<'_>, reporter: &Reporter) -> Result<usize> {
    // Those that are followed; of them, those whose pods this run has made; of these, those that are done.
    let (mut begun, mut made, mut done): (BTreeSet<String>, BTreeSet<String>, BTreeSet<String>) = Default::default();
    let mut backoff = Backoff::new(INTERVAL, LONG_INTERVAL, u64::from(std::process::id()));
    let (mut answered, mut changed) = (Instant::now(), Instant::now());
    let mut last = Vec::new();
    loop {
        let nodes = match observe(client, cluster, options.what, &made, &mut done).await {
            Ok(nodes) => nodes,
            Err(error) if error.is_passing() && answered.elapsed() < AWAY => {
                begun.iter().for_each(|node| reporter.waiting(node, &format!("the API server: {error}")));
                sleep(backoff.failed(error.after())).await;
                continue;
            }
            Err(error) => return Err(error),
        };
        backoff.succeeded();
        answered = Instant::now();
        if nodes != last {
            changed = answered;
        }
        for node in nodes.iter().filter(|node| node.is_new && node.task.is_none()) {
            reporter.done_if_started(&node.name);
        }
        let acted = match decide(&nodes, &begun, options.most) {
            Decision::Done => return Ok(nodes.len()),
            Decision::Stop(left) => {
                left.iter().filter(|(node, _)| begun.contains(node)).for_each(|(node, why)| reporter.fail(node, why));
                return Err(options.failed(cluster, &left));
            }
            Decision::Wait(what) if changed.elapsed() > options.timeout + BESIDE => {
                return Err(options.failed(cluster, &[(what, "nothing has changed for too long".into())]));
            }
            Decision::Wait(_) => {
                for node in &nodes {
                    if let Some(Task::Runs(what)) = &node.task {
                        if begun.insert(node.name.clone()) {
                            reporter.start(&node.name, &options.wanted(cluster, &node.name));
                        }
                        reporter.waiting(&node.name, what);
                    }
                }
                Ok(())
            }
            Decision::Begin(node) => {
                if begun.insert(node.clone()) {
                    reporter.start(&node, &options.wanted(cluster, &node));
                }
                node_task::make(client, pod::pod(cluster, &node, options)).await.map(|is_made| {
                    if is_made {
                        made.insert(node);
                    }
                })
            }
            Decision::Clean(node) => {
                write::delete_pods(client, &[("kube-system".into(), options.what.pod(&node))]).await
            }
        };
        if let Err(error) = acted
            && !error.is_passing()
        {
            return Err(error);
        }
        last = nodes;
        sleep(INTERVAL).await;
    }
}

/// The error that hoist ended with, of what its pod has written: progress, and then the error and what to do.
fn error_of(said: &str) -> String {
    let error = said.rsplit_once("hoist: ").map_or(said, |(_, error)| error);
    error.lines().map(str::trim).collect::<Vec<_>>().join("; ")
}

/// The nodes now. Which hoist a node has no object says: those whose pod has done its work in this run have the new one, and on one that
/// had it before, the pod finds nothing to do. `done` remembers them; a pod that this run has not `made` may be of another hoist.
async fn observe(
    client: &Client,
    cluster: &Cluster,
    what: What<'_>,
    made: &BTreeSet<String>,
    done: &mut BTreeSet<String>,
) -> Result<Vec<Node>> {
    let tasks = node_task::list(client, what.label()).await?;
    let controllers: BTreeSet<_> = controllers::list(client).await?.into_iter().map(|node| node.name).collect();
    let kubelets = skew::kubelets(client).await?;
    let node = |kubelet: skew::Kubelet| {
        let task = tasks.iter().find(|task| task.node == kubelet.node);
        let task = task.map(|task| match (&task.waits, &task.failed) {
            (_, Some(why)) => Task::Failed(error_of(why)),
            (Some(what), _) => Task::Runs(what.clone()),
            (None, None) => Task::Done,
        });
        if task == Some(Task::Done) && made.contains(&kubelet.node) {
            done.insert(kubelet.node.clone());
        }
        Node {
            is_controller: controllers.contains(&kubelet.node),
            is_new: match what {
                What::Kubelet(_) => cluster.kubernetes_version.is(&kubelet.version),
                What::Hoist(_) => done.contains(&kubelet.node),
            },
            ready: kubelet.ready,
            name: kubelet.node,
            task,
        }
    };
    Ok(kubelets.into_iter().map(node).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_what_a_pod_has_written_the_error_counts() {
        let said =
            "[ 0.3s] kubelet: waits\n[ 0.4s] failed after 0.4 s: x\nhoist: the input is not valid\n  a: b\n  next: c";
        assert_eq!(error_of(said), "the input is not valid; a: b; next: c");
        assert_eq!(error_of("exec: no such file"), "exec: no such file");
    }
}
