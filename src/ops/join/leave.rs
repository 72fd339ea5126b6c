//! A controller that goes: its member is removed by whoever has the turn, and then it takes its own away.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use kube::Client;
use tokio::time::{Instant, sleep};

use super::CALL_LIMIT;
use super::look::{Way, addresses};
use crate::base::error::{Error, Result};
use crate::desired::config::{Cluster, Controller};
use crate::desired::secrets::Tls;
use crate::etcd::alarms;
use crate::etcd::client::List;
use crate::etcd::members::{self, peer_url};
use crate::node::host::Host;
use crate::plane::bridge::Bridge;
use crate::plane::kept_copy::Copy;
use crate::plane::{guard_pod, member, serving};

/// How long the removal may take: a leader is moved first, and each change waits for the one before.
const LIMIT: Duration = Duration::from_secs(120);
const AGAIN: Duration = Duration::from_secs(1);

/// Waits until the members, as a majority of the voters has them, are without that of `controller`. They are asked where
/// controllers are declared or `published`, and where they say that others are.
///
/// # Errors
/// That they still have it: nothing may be taken away.
pub async fn until_removed(cluster: &Cluster, controller: &Controller, tls: &Tls, published: &[IpAddr]) -> Result<()> {
    let own = SocketAddr::new(cluster.loopback(), alarms::PORT);
    let url = peer_url(controller.address);
    let begun = Instant::now();
    let mut known = addresses(cluster, &published.iter().copied().collect(), None, alarms::PORT);
    while begun.elapsed() < LIMIT {
        let asked = members::ask(own, &known, tls, CALL_LIMIT).await;
        known.extend(asked.lists.iter().flat_map(|list| list.members.values()).flat_map(|member| member.addresses()));
        known.sort_unstable();
        known.dedup();
        let has_it = |list: &List| list.members.values().any(|member| member.peer_urls.contains(&url));
        if !asked.lists.is_empty() && !asked.lists.iter().any(has_it) {
            return Ok(());
        }
        sleep(AGAIN).await;
    }
    Err(Error::failed("leave the node", "its etcd member is still one of the cluster's"))
}

/// A client of the API server of another controller, of those that are declared or `published`: this one's is on its way out.
///
/// # Errors
/// That none says that it is ready.
pub async fn client_of_another(host: &Host, copy: &Copy, published: &[IpAddr]) -> Result<Client> {
    Way::of(published.iter().copied()).another(host, copy).await
}

/// Takes away all that made a controller of this machine, once no voter counts its member any more: the bridge, what its API
/// server serves with, the member; guard comes last, as that ends whoever does it.
///
/// # Errors
/// The system's refusal; running it again goes on.
pub fn unmake(host: &Host, cluster: &Cluster) -> Result<()> {
    let bridge = Bridge::new(host);
    bridge.lower_api_server()?;
    bridge.lower_controllers()?;
    serving::remove(host)?;
    member::remove(host, cluster)?;
    guard_pod::remove(host)
}
