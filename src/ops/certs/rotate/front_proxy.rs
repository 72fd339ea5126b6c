//! The CA of the front proxy: whom API servers and aggregated ones trust, as they say in their handshakes.

use std::net::SocketAddr;
use std::time::Duration;

use futures::future::join_all;
use kube::Client;

use super::foreign;
use super::scene::{SERVER, Scene, passing};
use crate::api::{front_proxy as api, rotation, self_hosted};
use crate::base::error::{Error, Result};
use crate::base::probe;
use crate::desired::config::Cluster;
use crate::desired::pki;
use crate::desired::rotation::front_proxy::{AGGREGATED, CONFIG_MAP};
use crate::desired::rotation::{CA, CLIENT, CLIENT_KEY, Word};
use crate::desired::secrets::Tls;

/// The flags that name its files.
const FLAGS: [(&str, &str); 3] =
    [("requestheader-client-ca-file", CA), ("proxy-client-cert-file", CLIENT), ("proxy-client-key-file", CLIENT_KEY)];
/// How long a server may take for a handshake.
const LIMIT: Duration = Duration::from_secs(10);

/// Whether it is hoist's to rotate.
///
/// # Errors
/// Where it is not, with why.
pub(super) async fn check(cluster: &Cluster, client: &Client) -> Result<()> {
    if cluster.pki.front_proxy_ca.is_some() {
        return Err(Error::Input(vec![foreign::of_user("pki.frontProxyCA", "CA")]));
    }
    let found = rotation::workload(client, SERVER).await?;
    let foreign = foreign::flag(&format!("kube-system/{SERVER}"), &found, &FLAGS);
    foreign.map_or(Ok(()), |finding| Err(Error::Input(vec![finding])))
}

/// The names of the CAs that the server at `address` trusts.
///
/// # Errors
/// Why it does not say.
pub(super) async fn trusted(address: SocketAddr) -> Result<Vec<String>> {
    let names = probe::trusted_cas(address, LIMIT).await.map_err(|why| passing(&why))?;
    Ok(names.iter().filter_map(|name| pki::ca_name(name)).collect())
}

/// Whom aggregated API servers are told to trust, where guard's Secret has `kept`, and whom each of them trusts.
pub(super) async fn others(client: &Client, kept: &Tls) -> Vec<Word> {
    let told = api::told(client).await.map(|pem| pki::ca_names(&pem));
    let all = pki::ca_names(kept.get(CA).map(Vec::as_slice).unwrap_or_default());
    // API servers add what it lacks, and take nothing away.
    let reloads = told.as_ref().is_ok_and(|told| !all.iter().all(|name| told.contains(name)));
    let said = told.map_err(|error| error.to_string());
    let mut words = vec![Word { component: CONFIG_MAP, node: "kube-system".into(), said, reloads }];
    let word = |node: String, said| Word { component: AGGREGATED, node, said, reloads: true };
    match api::aggregated(client).await {
        Ok(found) => {
            let asked = found.into_iter().map(async |one| {
                let said = trusted(one.address).await.map_err(|error| error.to_string());
                // One that is not ready and does not answer does not run, and reads the ConfigMap when it begins.
                let counts = one.is_ready || said.is_ok();
                counts.then(|| word(format!("{} at {}", one.service, one.address), said))
            });
            words.extend(join_all(asked).await.into_iter().flatten());
        }
        Err(error) => words.push(word("this cluster".into(), Err(error.to_string()))),
    }
    words
}

impl Scene<'_> {
    /// Has aggregated API servers be told to trust what API servers do, and nothing else.
    ///
    /// # Errors
    /// The API server's word.
    pub async fn tell_aggregated(&self) -> Result<()> {
        let held = self_hosted::secret(&self.client, SERVER).await?.unwrap_or_default();
        match held.get(CA) {
            Some(cas) => api::tell(&self.client, cas).await,
            None => Ok(()),
        }
    }
}
