//! The files that `start` puts on a controller's disk, by their sources.

use std::collections::BTreeMap;

use crate::base::error::Error;
use crate::desired::assets::AssetSet;
use crate::desired::config::{Cluster, Controller, Etcd};
use crate::desired::secrets::{self, COMPONENTS, SecretFiles, Server, Tls};
use crate::desired::server_config;

/// What `start` puts on the disk of a controller, from tls/.
pub(super) struct Contents {
    pub tls: Tls,
    pub bridge: BTreeMap<&'static str, SecretFiles>,
    pub etcd: BTreeMap<String, SecretFiles>,
    /// What each controller's API server serves with.
    pub serving: BTreeMap<String, SecretFiles>,
    /// Whether all of it could be made: else what is missing was reported, and is not reported again.
    pub is_whole: bool,
}

impl Contents {
    pub fn new(assets: &AssetSet, cluster: &Cluster) -> Self {
        let tls = assets.tls();
        let mut is_whole = true;
        let mut ok = |files: Result<SecretFiles, Error>| {
            is_whole &= files.is_ok();
            files.unwrap_or_default()
        };
        let bridge = COMPONENTS.map(|name| (name, ok(secrets::of_component(name, cluster, &tls, Server::Bridge))));
        let mut bridge = BTreeMap::from(bridge);
        let ca = tls.get("ca.crt").map(|ca| ("ca.crt".to_owned(), ca.clone()));
        // What is no YAML is reported as such.
        let config = server_config::files(assets).unwrap_or_default();
        if !config.is_empty() {
            bridge.insert(server_config::NAME, config);
        }
        bridge.insert("forwarder", ca.into_iter().collect());
        let etcd = match cluster.etcd {
            Etcd::Local { .. } => {
                let names = cluster.controllers.iter().map(|c| c.name.clone());
                names.map(|name| (name.clone(), ok(secrets::of_etcd(&name, &tls)))).collect()
            }
            Etcd::External { .. } => BTreeMap::new(),
        };
        let names = cluster.controllers.iter().map(|c| c.name.clone());
        let serving = names.map(|name| (name.clone(), ok(secrets::of_serving(&name, &tls)))).collect();
        Self { tls, bridge, etcd, serving, is_whole }
    }

    /// The file of tls/ that holds these bytes; that of this controller's, if there are several.
    pub fn origin(&self, bytes: &[u8], controller: &Controller) -> Option<&String> {
        let same = || self.tls.iter().filter(|(_, content)| content.as_slice() == bytes).map(|(path, _)| path);
        let own = format!("etcd/{}/", controller.name);
        same().find(|path| path.starts_with(&own)).or_else(|| same().next())
    }
}
