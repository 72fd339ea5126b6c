//! The power of the only controller is cut, and comes back.

use std::fmt;
use std::time::{Duration, Instant, SystemTime};

use k8s_openapi::jiff::Timestamp;
use serde::Serialize;

use super::steps::{self, Steps};
use crate::moments::{kubelet_started, until};
use crate::support::controller::Controller;
use crate::support::http::{Client, runtime};
use crate::support::leases;
use crate::support::node::Node;

/// A request to a node whose network is not up yet must not keep the next one from being made.
const PATIENCE: Duration = Duration::from_secs(1);

/// When it was what; times in seconds from the moment at which the switch was turned.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Boot {
    /// systemd has started the kubelet, by its own account.
    pub kubelet: f64,
    /// /readyz at the node's address was 200.
    pub api_ready: f64,
    /// hoist's alone: the same of the self-hosted API server.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub self_hosted_ready: Option<f64>,
    /// Both Leases were renewed.
    pub leaders: f64,
    /// hoist's alone: nothing of the bridge is left.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lowered: Option<f64>,
    pub steps: Steps,
}

impl fmt::Display for Boot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kubelet, api_ready, self_hosted_ready, leaders, lowered, steps: _ } = self;
        write!(f, "after the switch the kubelet {kubelet:.2} s, API ready {api_ready:.2} s")?;
        if let Some(ready) = self_hosted_ready {
            write!(f, ", self-hosted API server ready {ready:.2} s")?;
        }
        write!(f, ", both leaders {leaders:.2} s")?;
        lowered.map_or(Ok(()), |lowered| write!(f, ", bridge lowered {lowered:.2} s"))
    }
}

/// Of one that hoist has made.
pub fn of_controller(controller: &Controller) -> Boot {
    let (node, self_hosted) = (&controller.node, Some(controller.self_hosted()));
    let Seen { switched, since, kubelet, api_ready, self_hosted_ready, leaders } =
        power_cut(node, controller.cluster.client(), self_hosted);
    // The bridge's logs go with it.
    let steps = steps::of_controller(node, since);
    controller.until_lowered();
    let lowered = Some(switched.elapsed().as_secs_f64());
    Boot { kubelet, api_ready, self_hosted_ready, leaders, lowered, steps }
}

/// Of one that kubeadm has made.
pub fn of_kubeadm(node: &Node, client: Client) -> Boot {
    let Seen { since, kubelet, api_ready, leaders, .. } = power_cut(node, client, None);
    let steps = steps::of_kubeadm(node, since);
    Boot { kubelet, api_ready, self_hosted_ready: None, leaders, lowered: None, steps }
}

/// What was seen of it; times in seconds from the moment at which the switch was turned.
struct Seen {
    switched: Instant,
    /// The same moment, as the node's clock has it.
    since: Timestamp,
    kubelet: f64,
    api_ready: f64,
    self_hosted_ready: Option<f64>,
    leaders: f64,
}

fn power_cut(node: &Node, client: Client, self_hosted: Option<Client>) -> Seen {
    node.power_cut();
    let (switched, since, unix) = (Instant::now(), Timestamp::now(), SystemTime::now());
    // From the beginning: whether the API is there before scripts/node says that the node is, is not known.
    let watch = std::thread::spawn(move || {
        runtime().block_on(async {
            let api_ready = until(switched, async || is_ready(&client).await).await;
            let leaders = until(switched, async || leases::are_renewed_since(&client, since).await).await;
            (api_ready, leaders)
        })
    });
    node.boot();
    let self_hosted_ready = self_hosted
        .map(|client| node.inside(move || runtime().block_on(until(switched, async || is_ready(&client).await))));
    let (api_ready, leaders) = watch.join().unwrap();
    let kubelet = kubelet_started(node, unix);
    Seen { switched, since, kubelet, api_ready, self_hosted_ready, leaders }
}

async fn is_ready(client: &Client) -> bool {
    matches!(tokio::time::timeout(PATIENCE, client.get("/readyz")).await, Ok(Ok((200, _))))
}
