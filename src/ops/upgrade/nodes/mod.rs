//! The kubelets of all nodes, from any machine: on each node a pod of hoist's exchanges the kubelet beside it, as `hoist upgrade node`
//! does there.
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
use crate::desired::config::{Cluster, Version};

use decide::{Decision, Node, Task, decide};
pub use pod::Source;

/// Between two rounds.
const INTERVAL: Duration = Duration::from_secs(1);
/// The longest pause, but for chance, before what has failed is tried again.
const LONG_INTERVAL: Duration = Duration::from_secs(5);
/// How long the API may not answer.
const AWAY: Duration = Duration::from_secs(120);
/// How much longer than its kubelet may take one pod may: its images are pulled, and the way back is gone.
const BESIDE: Duration = Duration::from_secs(540);

/// What `hoist upgrade node --all-nodes` was told.
#[derive(Debug, Clone)]
pub struct Options<'a> {
    /// Where the new kubelet comes from.
    pub source: Source<'a>,
    /// How many nodes may be under way at once; of controllers it is one.
    pub most: usize,
    /// How long a kubelet may take until its Node is ready.
    pub timeout: Duration,
}

/// Exchanges the kubelet of each node that has not the version of `cluster`; says how many nodes have it then. When `stop` completes,
/// with the number of a signal, what is under way goes on by itself.
///
/// # Errors
/// Nodes whose kubelet was not exchanged, each with its reason: none is begun after one has failed. Running it again goes on.
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
    let wanted = cluster.kubernetes_version;
    let mut begun = BTreeSet::new();
    let mut backoff = Backoff::new(INTERVAL, LONG_INTERVAL, u64::from(std::process::id()));
    let (mut answered, mut changed) = (Instant::now(), Instant::now());
    let mut last = Vec::new();
    loop {
        let nodes = match observe(client, wanted).await {
            Ok(nodes) => nodes,
            Err(error) if error.is_passing() && answered.elapsed() < AWAY => {
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
        let done = match decide(&nodes, &begun, options.most) {
            Decision::Done => return Ok(nodes.len()),
            Decision::Stop(left) => {
                left.iter().filter(|(node, _)| begun.contains(node)).for_each(|(node, why)| reporter.fail(node, why));
                return Err(failed(wanted, &left));
            }
            Decision::Wait(what) if changed.elapsed() > options.timeout + BESIDE => {
                return Err(failed(wanted, &[(what, "nothing has changed for too long".into())]));
            }
            Decision::Wait(_) => {
                for node in &nodes {
                    if let Some(Task::Runs(what)) = &node.task {
                        if begun.insert(node.name.clone()) {
                            start(reporter, &node.name, wanted);
                        }
                        reporter.waiting(&node.name, what);
                    }
                }
                Ok(())
            }
            Decision::Begin(node) => {
                if begun.insert(node.clone()) {
                    start(reporter, &node, wanted);
                }
                node_task::make(client, pod::pod(cluster, &node, options)).await
            }
            Decision::Clean(node) => write::delete_pods(client, &[("kube-system".into(), pod::name(&node))]).await,
        };
        if let Err(error) = done
            && !error.is_passing()
        {
            return Err(error);
        }
        last = nodes;
        sleep(INTERVAL).await;
    }
}

fn start(reporter: &Reporter, node: &str, wanted: Version) {
    reporter.start(node, &format!("the kubelet of {node} is {wanted}"));
}

fn failed(wanted: Version, left: &[(String, String)]) -> Error {
    let left: Vec<_> = left.iter().map(|(node, why)| format!("{node}: {why}")).collect();
    Error::Failed {
        action: format!("bring every kubelet to {wanted}"),
        cause: left.join("; "),
        next: Some(
            "`hoist upgrade node --dry-run` on that node says what stands in the way; the same command goes on".into(),
        ),
    }
}

/// The error that hoist ended with, of what its pod has written: progress, and then the error and what to do.
fn error_of(said: &str) -> String {
    let error = said.rsplit_once("hoist: ").map_or(said, |(_, error)| error);
    error.lines().map(str::trim).collect::<Vec<_>>().join("; ")
}

async fn observe(client: &Client, wanted: Version) -> Result<Vec<Node>> {
    let tasks = node_task::list(client, pod::NAME).await?;
    let controllers: BTreeSet<_> = controllers::list(client).await?.into_iter().map(|node| node.name).collect();
    let kubelets = skew::kubelets(client).await?;
    let node = |kubelet: skew::Kubelet| {
        let task = tasks.iter().find(|task| task.node == kubelet.node);
        let task = task.map(|task| match (&task.waits, &task.failed) {
            (_, Some(why)) => Task::Failed(error_of(why)),
            (Some(what), _) => Task::Runs(what.clone()),
            (None, None) => Task::Done,
        });
        Node {
            is_controller: controllers.contains(&kubelet.node),
            is_new: wanted.is(&kubelet.version),
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
