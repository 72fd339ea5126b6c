//! A controller, and an administrator's way to it and its cluster.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use kube::Client;

use super::Rotate;
use crate::base::error::{Error, Finding, Result};
use crate::desired::config::{API_PORT, ASSET_DIR, Cluster, Controller};
use crate::desired::rotation::Keys;
use crate::desired::secrets::{self, Tls};
use crate::node::host::Host;
use crate::plane::kept_copy::Copy;

/// The component that is one on each controller.
pub(super) const SERVER: &str = "kube-apiserver";

/// A controller, its cluster, and an administrator's way to both.
pub(super) struct Scene<'a> {
    pub host: &'a Host,
    pub keys: Keys,
    pub copy: Copy,
    pub cluster: Cluster,
    pub controller: Controller,
    pub client: Client,
    /// An asset directory of this cluster, if there is one here.
    pub asset_dir: Option<PathBuf>,
    /// Nothing is changed.
    pub is_plan: bool,
    kubeconfig: String,
}

impl<'a> Scene<'a> {
    /// That of this machine.
    ///
    /// # Errors
    /// A machine without guard's copy.
    pub async fn new(asked: &Rotate<'a>) -> Result<Self> {
        let host = asked.host;
        if !host.world().is_root() {
            let finding = Finding::new("IsPrivilegedUser", "hoist certs rotate must run as root: it reads every key");
            return Err(Error::Preflight(vec![finding.remedy("run it with sudo")]));
        }
        let copy = Copy::load(host)?.ok_or_else(|| Error::Failed {
            action: "rotate keys".into(),
            cause: "guard keeps none on this machine".into(),
            next: Some("run it as root on a controller whose cluster has guard".into()),
        })?;
        let (cluster, controller) = copy.cluster()?;
        let address = SocketAddr::new(controller.address, API_PORT);
        let url = secrets::Server::SelfHosted.url(&cluster);
        let kubeconfig = secrets::kubeconfig(&cluster, &copy.assets.tls(), &url, "kubernetes-admin", "admin")?;
        let client = host.world().connect(&kubeconfig, address).await?;
        let asset_dir = asset_dir(asked, &copy)?;
        Ok(Self {
            host,
            keys: asked.keys,
            copy,
            cluster,
            controller,
            client,
            asset_dir,
            is_plan: asked.is_plan,
            kubeconfig,
        })
    }

    /// An administrator's client of the API server at `address`.
    ///
    /// # Errors
    /// It cannot be connected to.
    pub async fn connect(&self, address: SocketAddr) -> Result<Client> {
        self.host.world().connect(&self.kubeconfig, address).await
    }
}

/// Those files that are named.
pub(super) fn chosen(mut files: Tls, paths: &[&str]) -> Tls {
    files.retain(|path, _| paths.contains(&path.as_str()));
    files
}

/// What may be over in a moment.
pub(super) fn passing(text: &str) -> Error {
    Error::failed("rotate keys", text)
}

/// The asset directory that guard's copy comes from, or the usual one, if it is this cluster's.
fn asset_dir(asked: &Rotate<'_>, copy: &Copy) -> Result<Option<PathBuf>> {
    let is_this = |dir: &Path| {
        let own = fs::read(dir.join("tls/ca.crt")).ok();
        own.is_some() && own == copy.assets.tls().get("ca.crt").cloned()
    };
    if let Some(dir) = &asked.asset_dir {
        let finding = || Finding::new(dir.display().to_string(), "is no asset directory of this cluster");
        return if is_this(dir) { Ok(Some(dir.clone())) } else { Err(Error::Input(vec![finding()])) };
    }
    let known = copy.asset_dir.clone().map(|dir| asked.host.path(&dir.display().to_string()));
    Ok(known.into_iter().chain([asked.host.path(ASSET_DIR)]).find(|dir| is_this(dir)))
}
