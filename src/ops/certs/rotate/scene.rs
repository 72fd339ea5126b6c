//! What a rotation looks at.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures::future::join_all;
use kube::Client;
use tokio::time::timeout;

use super::Rotate;
use crate::api::{controllers, guard, rollout, rotation, self_hosted};
use crate::base::error::{Error, Finding, Result};
use crate::base::files;
use crate::desired::config::{API_PORT, ASSET_DIR, Cluster, Controller, Etcd};
use crate::desired::pki::ENCRYPTION;
use crate::desired::rotation::encryption::{Observed, READER};
use crate::desired::secrets;
use crate::node::host::Host;
use crate::plane::kept_copy::Copy;

/// How long an API server may take to tell its metrics.
const METRICS_LIMIT: Duration = Duration::from_secs(20);
const CONFIG_FLAG: &str = "encryption-provider-config";
const MOUNTED: &str = "/etc/kubernetes/secrets/encryption.yaml";
const BY_HAND: &str = "docs/security.md#changing-the-key has how it is changed by hand";

/// A controller, its cluster, and an administrator's way to both.
pub(super) struct Scene<'a> {
    pub host: &'a Host,
    pub copy: Copy,
    pub cluster: Cluster,
    pub controller: Controller,
    pub client: Client,
    /// An asset directory of this cluster, if there is one here.
    pub asset_dir: Option<PathBuf>,
    kubeconfig: String,
    /// Where etcd has Secrets.
    pub etcd_prefix: String,
    reloads: bool,
}

impl<'a> Scene<'a> {
    /// That of this machine.
    ///
    /// # Errors
    /// A machine without guard's copy; a cluster whose Secrets hoist cannot read in etcd.
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
        if matches!(cluster.etcd, Etcd::External { .. }) {
            let message =
                "etcd is not hoist's, and hoist could not see there that nothing is encrypted with the old key";
            return Err(Error::Input(vec![Finding::new("etcd.external", message).remedy(BY_HAND)]));
        }
        let address = SocketAddr::new(controller.address, API_PORT);
        let url = secrets::Server::SelfHosted.url(&cluster);
        let kubeconfig = secrets::kubeconfig(&cluster, &copy.assets.tls(), &url, "kubernetes-admin", "admin")?;
        let client = host.world().connect(&kubeconfig, address).await?;
        let servers = rotation::api_servers(&client, READER).await?;
        if servers.flag(CONFIG_FLAG).is_none_or(|path| path != MOUNTED) {
            let message =
                format!("its flag --{CONFIG_FLAG} names another file than {MOUNTED}, which is not hoist's to rotate");
            let finding = Finding::new(format!("DaemonSet kube-system/{READER}"), message);
            return Err(Error::Input(vec![finding.remedy(BY_HAND)]));
        }
        let etcd_prefix =
            format!("{}/secrets/", servers.flag("etcd-prefix").unwrap_or("/registry").trim_end_matches('/'));
        let reloads = servers.flag(&format!("{CONFIG_FLAG}-automatic-reload")) == Some("true");
        let asset_dir = asset_dir(asked, &copy)?;
        Ok(Self { host, copy, cluster, controller, client, asset_dir, kubeconfig, etcd_prefix, reloads })
    }

    /// What is so now.
    ///
    /// # Errors
    /// What could not be read.
    pub async fn look(&self) -> Result<Observed> {
        let text = guard::copy(&self.client)
            .await?
            .ok_or_else(|| passing("the Secret hoist-guard is gone: guard restores it within a minute"))?;
        let kept = Copy::of_secret(&text)?;
        let secret = self_hosted::secret(&self.client, READER).await?.and_then(|mut files| files.remove(ENCRYPTION));
        let nodes = controllers::list(&self.client).await?;
        let mut guards_behind = Vec::new();
        for node in &nodes {
            guards_behind.extend(match guard::kept(&self.client, &node.name).await?.keys {
                Some(sum) if sum == kept.keys_sum() => None,
                Some(_) => Some(format!("guard of {} has yet to take its copy from its Secret, once a minute", node.name)),
                None => Some(format!(
                    "guard of {} has not said which keys it keeps: an older hoist's never does (`hoist start` brings this one)",
                    node.name
                )),
            });
        }
        let mut unsettled: Vec<_> = rotation::api_servers(&self.client, READER).await?.rollout.into_iter().collect();
        let bridges = rollout::bridges(&self.client).await?;
        unsettled.extend(bridges.into_iter().map(|node| {
            format!("the bridge stands on {node}: guard lowers it once the API server there has been ready for a while")
        }));
        let servers = nodes.iter().map(async |node| {
            let sum = match node.address {
                Some(address) => timeout(METRICS_LIMIT, self.read_by(SocketAddr::new(address, API_PORT))).await,
                None => Ok(Err("its Node has no address".to_owned())),
            };
            (node.name.clone(), sum.unwrap_or_else(|_| Err("no answer in time".to_owned())))
        });
        Ok(Observed {
            guards_secret: kept.assets.tls().remove(ENCRYPTION).unwrap_or_default(),
            secret: secret.unwrap_or_default(),
            directory: self.directory()?,
            guards_behind,
            unsettled,
            reloads: self.reloads,
            servers: join_all(servers).await.into_iter().collect(),
            left: None,
        })
    }

    async fn read_by(&self, address: SocketAddr) -> Result<String, String> {
        let client = self.host.world().connect(&self.kubeconfig, address).await.map_err(|error| error.to_string())?;
        rotation::encryption_sum(&client).await.map_err(|error| error.to_string())
    }

    fn directory(&self) -> Result<Option<Vec<u8>>> {
        let path = self.asset_dir.as_ref().map(|dir| dir.join("tls").join(ENCRYPTION));
        path.map_or(Ok(None), |path| files::read_if_there(&path))
    }
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
