//! What a rotation looks at, whatever is rotated.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use futures::future::join_all;
use tokio::time::timeout;

use super::kind::Kind;
use super::scene::{SERVER, Scene, chosen, passing};
use crate::api::{controllers, guard, rollout, rotation, self_hosted};
use crate::base::error::Result;
use crate::base::files;
use crate::desired::config::API_PORT;
use crate::desired::rotation::{Clock, Observed, Word, in_tls};
use crate::desired::secrets::Tls;
use crate::plane::kept_copy::Copy;

/// How long an API server may take to say which keys it has.
const WORD_LIMIT: Duration = Duration::from_secs(20);

impl Scene<'_> {
    /// What is so now.
    ///
    /// # Errors
    /// What could not be read.
    pub async fn look(&self, kind: &Kind) -> Result<Observed> {
        let text = guard::copy(&self.client)
            .await?
            .ok_or_else(|| passing("the Secret hoist-guard is gone: guard restores it within a minute"))?;
        let kept = Copy::of_secret(&text)?;
        let mut secrets = Vec::new();
        let mut unsettled = Vec::new();
        for (component, paths) in self.keys.secrets() {
            let held = self_hosted::secret(&self.client, component).await?.unwrap_or_default();
            let files = chosen(held, paths);
            secrets
                .push((*component, files.into_iter().map(|(name, file)| (in_tls(&name).to_owned(), file)).collect()));
            unsettled.extend(rotation::workload(&self.client, component).await?.rollout);
        }
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
        let bridges = rollout::bridges(&self.client).await?;
        unsettled.extend(bridges.into_iter().map(|node| {
            format!("the bridge stands on {node}: guard lowers it once the API server there has been ready for a while")
        }));
        let guards_secret = chosen(kept.assets.tls(), self.keys.files());
        let mut servers = Vec::new();
        if guards_behind.is_empty() && unsettled.is_empty() {
            let nodes: Vec<_> = nodes.into_iter().map(|node| (node.name, node.address)).collect();
            servers = self.of_each(kind, &nodes, &guards_secret).await;
            servers.extend(kind.others(self, &guards_secret).await);
        }
        Ok(Observed {
            guards_secret,
            secrets,
            directory: self.directory()?,
            guards_behind,
            unsettled,
            servers,
            left: None,
            clock: self.clock(),
        })
    }

    /// For certificates that are made.
    fn clock(&self) -> Clock {
        let pki = &self.cluster.pki;
        Clock { now: self.host.world().now(), cas: pki.ca_validity, leaves: pki.certificate_validity }
    }

    /// What the API server of each of these controllers says.
    async fn of_each(&self, kind: &Kind, nodes: &[(String, Option<IpAddr>)], kept: &Tls) -> Vec<Word> {
        let words = nodes.iter().map(async |(node, address)| {
            let asked = async {
                let address = address.ok_or_else(|| passing("its Node has no address"))?;
                self.said(kind, SocketAddr::new(address, API_PORT), kept).await
            };
            let said = match timeout(WORD_LIMIT, asked).await {
                Ok(said) => said.map_err(|error| error.to_string()),
                Err(_) => Err("no answer in time".to_owned()),
            };
            let reloads = kind.reloads(&said, kept);
            Word { component: SERVER, node: node.clone(), said, reloads }
        });
        join_all(words).await
    }

    /// The files in the asset directory; none where it lacks one.
    fn directory(&self) -> Result<Option<Tls>> {
        let Some(dir) = &self.asset_dir else { return Ok(None) };
        let mut found = Tls::new();
        for path in self.keys.files() {
            let Some(content) = files::read_if_there(&dir.join("tls").join(path))? else { return Ok(None) };
            found.insert((*path).to_owned(), content);
        }
        Ok(Some(found))
    }
}
