//! The endpoint that each node of a cluster has, as an asset directory has it. One that an older hoist rendered has none.

use std::net::SocketAddr;

use crate::base::error::Result;
use crate::desired::assets::AssetSet;
use crate::desired::config::Cluster;

/// Its static pod in the kubelet's folder.
pub const NAME: &str = "hoist-endpoint.yaml";
/// The same in the asset directory.
pub const RENDERED: &str = "bootstrap-manifests/hoist-endpoint.yaml";
/// Where the kubelet's folder is on a worker.
pub const WORKERS: &str = "/etc/kubernetes/manifests/hoist-endpoint.yaml";

/// Where it keeps what it remembers; the kubelet makes the folder.
pub const DATA: &str = "/var/lib/hoist/endpoint";

/// Where the clients of a node ask, where nodes have an endpoint.
pub fn address(assets: &AssetSet, cluster: &Cluster) -> Option<SocketAddr> {
    cluster.node_endpoint().filter(|_| assets.files.contains_key(RENDERED))
}

/// The URL at which the clients of each node ask, the same on all of them.
pub fn server(assets: &AssetSet, cluster: &Cluster) -> String {
    match address(assets, cluster) {
        Some(address) => format!("https://{address}"),
        None => format!("https://{}", cluster.endpoint()),
    }
}

/// Its manifest, where nodes have an endpoint.
///
/// # Errors
/// One that is no text.
pub fn manifest(assets: &AssetSet, cluster: &Cluster) -> Result<Option<String>> {
    address(assets, cluster).map(|_| assets.text(RENDERED)).transpose()
}
