//! The endpoint of this node: it comes before anybody asks there, and goes when nobody does any more.
//!
//! | | | then |
//! |---|---|---|
//! | on | its static pod stands | kube-proxy and flannel are led there once it answers on every node that is ready; this controller's kubelet, too |
//! | off | kube-proxy, flannel and the kubelet are led away | its static pod goes |

use std::net::SocketAddr;
use std::time::Duration;

use kube::Client;
use tokio::time::{Instant, sleep};

use super::memory::{Fixed, Run};
use crate::api::node_endpoints;
use crate::base::error::{Error, Result};
use crate::base::report::Reporter;
use crate::desired::node_endpoint;
use crate::node::kubelet;
use crate::node::kubelet_kubeconfig;
use crate::node::lock;
use crate::plane::endpoint_pod;

/// How long the endpoint may take to answer: its image may have to be pulled.
const ANSWER_LIMIT: Duration = Duration::from_secs(120);
/// How long kube-proxy and flannel may take to be made anew on all nodes.
const ROLL_LIMIT: Duration = Duration::from_secs(180);
const AGAIN: Duration = Duration::from_millis(500);
const ASK_LIMIT: Duration = Duration::from_secs(5);
/// So many good answers in a row are a proof.
const PROOF: u32 = 3;

impl Run<'_> {
    /// In a cluster that has been up: the endpoint's static pod, where it is new or another. In a new one the raise puts it
    /// in, beside all else.
    ///
    /// # Errors
    /// The system's refusal.
    pub(super) fn bring_endpoint(&self, reporter: &Reporter) -> Result<()> {
        let Fixed { host, assets, cluster, binary, .. } = self.fixed;
        if host.kubelet_kubeconfig().exists() && endpoint_pod::install(host, assets, cluster, binary)? {
            reporter.note("the static pod of this node's endpoint is put in");
        }
        Ok(())
    }

    /// Before what is applied leads the clients of every node to its endpoint: it must answer on each of them.
    ///
    /// # Errors
    /// The nodes on which it does not.
    pub(super) async fn endpoints_answer(&self, client: &Client) -> Result<()> {
        let Fixed { assets, cluster, .. } = self.fixed;
        let Some(address) = node_endpoint::address(assets, cluster) else { return Ok(()) };
        if !node_endpoints::asks_elsewhere(client, &format!("https://{address}")).await? {
            return Ok(());
        }
        let without = node_endpoints::without(client).await?;
        if without.is_empty() {
            return Ok(());
        }
        let names: Vec<_> = without.iter().map(String::as_str).collect();
        Err(Error::Failed {
            action: "lead the clients of each node to its endpoint".into(),
            cause: format!("it does not answer on {}", names.join(", ")),
            next: Some(
                "put what `hoist join-assets` writes on that machine, and restart its kubelet (docs/endpoint.md)"
                    .into(),
            ),
        })
    }

    /// Leads this controller's kubelet to the endpoint, once that answers, or away from it; an endpoint that is not wanted any
    /// more goes then.
    ///
    /// # Errors
    /// An endpoint that does not answer; the system's refusal.
    pub(super) async fn lead_to_endpoint(&mut self, client: &Client, ca: &[u8], reporter: &Reporter) -> Result<()> {
        let Fixed { host, assets, cluster, controller, .. } = self.fixed;
        let endpoint = node_endpoint::address(assets, cluster);
        let wanted = kubelet::server_of(assets, cluster, controller);
        let is_led = kubelet_kubeconfig::server(host).is_none_or(|server| server == wanted);
        let is_over = endpoint.is_none() && endpoint_pod::is_there(host);
        if is_led && !is_over {
            return Ok(());
        }
        // While it waited, this run may have let go of it.
        if self.lock.is_none() {
            self.lock = Some(lock::try_take(host)?);
        }
        if !is_led {
            if let Some(address) = endpoint {
                self.proves_itself(address, ca).await?;
            }
            kubelet_kubeconfig::lead(host, &wanted)?;
            if kubelet::is_systemd(host) {
                kubelet::restart(host).await?;
                reporter.note(&format!("the kubelet asks at {wanted} from now on"));
            } else {
                reporter.note(&format!("the kubelet asks at {wanted} once it is restarted: restart it"));
            }
        }
        if is_over {
            let begun = Instant::now();
            while let Some(name) = node_endpoints::rolls(client).await? {
                if begun.elapsed() > ROLL_LIMIT {
                    reporter.note(&format!(
                        "this node's endpoint stays, as {name} is not rolled out yet; run the same command again"
                    ));
                    return Ok(());
                }
                sleep(AGAIN).await;
            }
            endpoint_pod::remove(host)?;
            reporter.note("nobody asks this node's endpoint any more: its static pod is taken out");
        }
        Ok(())
    }

    async fn proves_itself(&self, address: SocketAddr, ca: &[u8]) -> Result<()> {
        let probe = self.fixed.host.world().probe(ca)?;
        let begun = Instant::now();
        let mut good = 0;
        loop {
            let answer = probe.get(address, "/readyz", ASK_LIMIT).await;
            good = if answer.is_ready() { good + 1 } else { 0 };
            if good == PROOF {
                return Ok(());
            }
            if begun.elapsed() > ANSWER_LIMIT {
                return Err(Error::Failed {
                    action: "lead the kubelet to the endpoint of this node".into(),
                    cause: format!("{address} answers {answer}"),
                    next: Some(format!(
                        "`kubectl -n kube-system logs hoist-endpoint-{}` says why; then run `{}` again",
                        self.fixed.controller.name,
                        self.command()
                    )),
                });
            }
            sleep(AGAIN).await;
        }
    }
}
