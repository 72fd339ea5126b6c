//! What the listeners of a controller serve, and which file each of them serves from.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use futures::future::join_all;

use crate::base::probe;
use crate::desired::certificates::{self, CertificateCopy};
use crate::desired::config::API_PORT;
use crate::desired::secrets::BRIDGE_PORT;
use crate::etcd::{alarms, members};
use crate::node::host::Host;

/// How long a server may take to show its own.
const LIMIT: Duration = Duration::from_secs(2);

/// A server on a controller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listener {
    /// Who listens.
    pub holder: &'static str,
    /// Where.
    pub address: SocketAddr,
    /// The file that it serves from, as its host has it; `None` where it makes its own.
    pub file: Option<PathBuf>,
}

/// What a listener serves now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Served {
    /// The listener.
    pub listener: Listener,
    /// Its certificate, or why none was seen.
    pub certificate: Result<CertificateCopy, String>,
}

/// The listeners of a controller whose loopback address is `loopback`.
pub fn listeners(host: &Host, loopback: IpAddr, node_ip: IpAddr) -> Vec<Listener> {
    let at = |holder, ip, port, file| Listener { holder, address: SocketAddr::new(ip, port), file };
    let mut all = vec![at("kube-apiserver", loopback, API_PORT, Some(host.serving_pki().join("apiserver.crt")))];
    let bridge = host.bridge().join("kube-apiserver/apiserver.crt");
    if bridge.is_file() {
        all.push(at("bridge", loopback, BRIDGE_PORT, Some(bridge)));
    }
    if host.etcd_pki().join("server.crt").is_file() {
        all.push(at("etcd", loopback, alarms::PORT, Some(host.etcd_pki().join("server.crt"))));
        all.push(at("etcd", node_ip, members::PEER_PORT, Some(host.etcd_pki().join("peer.crt"))));
    }
    all.push(at("kubelet", node_ip, 10250, Some(host.kubelet_serving_certificate())));
    all.push(at("kube-controller-manager", loopback, 10257, None));
    all.push(at("kube-scheduler", loopback, 10259, None));
    all
}

/// Asks all of them at once.
pub async fn served(listeners: &[Listener]) -> Vec<Served> {
    join_all(listeners.iter().map(ask)).await
}

/// Asks one.
pub async fn ask(listener: &Listener) -> Served {
    let place = listener.address.to_string();
    let certificate = probe::served_certificate(listener.address, LIMIT).await.and_then(|pem| {
        let found = certificates::in_pem(&place, listener.holder, &pem).into_iter().next();
        found.ok_or_else(|| "it shows no certificate".to_owned())
    });
    Served { listener: listener.clone(), certificate }
}
