//! The key of Secrets in etcd: the file that API servers have read, and what is encrypted by which key.

use std::net::SocketAddr;
use std::time::Duration;

use kube::Client;
use tokio::time::sleep;

use super::scene::{SERVER, Scene, passing};
use crate::api::rotation;
use crate::base::error::{Error, Finding, Result};
use crate::desired::config::{Cluster, Etcd};
use crate::desired::rotation::encryption::READER;
use crate::etcd::client::{Client as EtcdClient, Failed};

const CONFIG_FLAG: &str = "encryption-provider-config";
const MOUNTED: &str = "/etc/kubernetes/secrets/encryption.yaml";
const BY_HAND: &str = "docs/security.md#changing-the-key has how it is changed by hand";
/// Where etcd's clients reach it on loopback.
const ETCD_PORT: u16 = 2379;
/// How long etcd may take for one answer.
const ETCD_LIMIT: Duration = Duration::from_secs(20);
/// Between two Secrets that are written again: the API has others to serve.
const PACE: Duration = Duration::from_millis(5);
/// How many refusals are told.
const TOLD: usize = 5;

/// How API servers use it.
pub(super) struct Encryption {
    /// They read another file by themselves.
    pub reloads: bool,
    /// Where etcd has Secrets.
    prefix: String,
}

impl Encryption {
    /// That of a cluster.
    ///
    /// # Errors
    /// An etcd that hoist cannot read; a file that is not hoist's.
    pub async fn new(cluster: &Cluster, client: &Client) -> Result<Self> {
        if matches!(cluster.etcd, Etcd::External { .. }) {
            let message =
                "etcd is not hoist's, and hoist could not see there that nothing is encrypted with the old key";
            return Err(Error::Input(vec![Finding::new("etcd.external", message).remedy(BY_HAND)]));
        }
        let servers = rotation::workload(client, SERVER).await?;
        if servers.flag(CONFIG_FLAG).is_none_or(|path| path != MOUNTED) {
            let message =
                format!("its flag --{CONFIG_FLAG} names another file than {MOUNTED}, which is not hoist's to rotate");
            let finding = Finding::new(format!("DaemonSet kube-system/{SERVER}"), message);
            return Err(Error::Input(vec![finding.remedy(BY_HAND)]));
        }
        let root = servers.flag("etcd-prefix").unwrap_or("/registry").trim_end_matches('/');
        Ok(Self {
            prefix: format!("{root}/secrets/"),
            reloads: servers.flag(&format!("{CONFIG_FLAG}-automatic-reload")) == Some("true"),
        })
    }

    /// The checksum of the file that the API server of `client` has read.
    ///
    /// # Errors
    /// Why it does not say.
    pub async fn said(client: &Client) -> Result<Vec<String>> {
        Ok(vec![rotation::encryption_sum(client).await?])
    }
}

impl Scene<'_> {
    /// The Secrets, by namespace and name, whose values in etcd do not begin with `mark`.
    ///
    /// # Errors
    /// etcd's word.
    pub async fn values_of_others(&self, kind: &Encryption, mark: &str) -> Result<Vec<(String, String)>> {
        let failed = |error: Failed| Error::failed("read Secrets in etcd", error);
        let address = SocketAddr::new(self.cluster.loopback(), ETCD_PORT);
        let mut etcd = EtcdClient::connect(address, &self.copy.assets.tls(), ETCD_LIMIT).await.map_err(failed)?;
        let mut found = Vec::new();
        let take = |key: &[u8], value: &[u8]| {
            let name = std::str::from_utf8(key).ok().and_then(|key| key.strip_prefix(&kind.prefix)?.split_once('/'));
            if let Some((namespace, name)) = name.filter(|_| !value.starts_with(mark.as_bytes())) {
                found.push((namespace.to_owned(), name.to_owned()));
            }
        };
        etcd.each_value(&kind.prefix, take).await.map_err(failed)?;
        Ok(found)
    }

    /// Has each of them written again.
    ///
    /// # Errors
    /// Those that were refused, once all others are written.
    pub async fn rewrite_values(&self, kind: &Encryption, mark: &str) -> Result<()> {
        let (mut refused, mut is_passing) = (Vec::new(), true);
        for (namespace, name) in self.values_of_others(kind, mark).await? {
            if let Err(error) = rotation::write_again(&self.client, &namespace, &name).await {
                is_passing &= error.is_passing();
                refused.push(error.to_string().replace('\n', " "));
            }
            sleep(PACE).await;
        }
        if refused.is_empty() {
            return Ok(());
        }
        let more = refused.len().saturating_sub(TOLD);
        let mut cause = refused[..refused.len() - more].join("; ");
        if more > 0 {
            cause.push_str(&format!("; and {more} more"));
        }
        match is_passing {
            true => Err(passing(&cause)),
            false => Err(Error::Failed {
                action: "have every Secret encrypted by the new key".into(),
                cause,
                next: Some(format!(
                    "a webhook or a policy may refuse it; both keys stay known to every {READER} meanwhile. Then `hoist certs rotate encryption-key --continue`"
                )),
            }),
        }
    }
}
