//! The key of tokens: by which key API servers and the controller manager sign, and who has tokens of the old one.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Seek, SeekFrom};
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use kube::Client;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::sync::Mutex;
use tokio::time::{sleep, timeout};

use super::foreign::{self, MOUNTED};
use super::scene::{SERVER, Scene, passing};
use crate::api::{controllers, rotation, service_accounts as api};
use crate::base::error::{Error, Finding, Result};
use crate::desired::config::{API_PORT, Cluster};
use crate::desired::rotation::service_account::CONTROLLER_MANAGER;
use crate::desired::rotation::tokens::{Stale, Tokens, held};
use crate::desired::rotation::{Asked, Left, PUBLIC, Rotation, SIGNING, Word};

/// The flags that name its files, by component.
const FLAGS: [(&str, &str, &str); 3] = [
    (SERVER, "service-account-key-file", PUBLIC),
    (SERVER, "service-account-signing-key-file", SIGNING),
    (CONTROLLER_MANAGER, "service-account-private-key-file", SIGNING),
];
/// How long API servers are watched for tokens that should have been renewed.
const WATCHED: Duration = Duration::from_secs(60);
/// How long a server may take to say what it has.
const WORD_LIMIT: Duration = Duration::from_secs(20);
/// The audit log of the API server here.
const AUDIT: &str = "/var/log/kubernetes/audit/kube-apiserver.log";
/// How much of its end is read.
const AUDIT_END: u64 = 8 << 20;
/// The annotation of a request with such a token.
const STALE: &str = "authentication.k8s.io/stale-token";

/// What is known of the controller manager that leads: it is asked once.
pub(super) struct ServiceAccount {
    leader: Mutex<Option<(String, String)>>,
}

impl ServiceAccount {
    /// That of a cluster.
    ///
    /// # Errors
    /// A key that is not hoist's to rotate.
    pub async fn new(cluster: &Cluster, client: &Client) -> Result<Self> {
        if cluster.pki.service_account_key.is_some() {
            return Err(Error::Input(vec![foreign::of_user("pki.serviceAccountKey", "key")]));
        }
        for (component, flag, file) in FLAGS {
            let path = format!("{MOUNTED}/{file}");
            let found = rotation::workload(client, component).await?;
            if found.flags(flag) != [&path] {
                let message =
                    format!("its flag --{flag} names other files than {path}, which are not hoist's to rotate");
                let finding = Finding::new(format!("kube-system/{component}"), message);
                return Err(Error::Input(vec![
                    finding.remedy("`hoist start` brings the flags of the asset directory"),
                ]));
            }
        }
        Ok(Self { leader: Mutex::new(None) })
    }

    /// By which key the API server of `client` signs, and which it accepts.
    ///
    /// # Errors
    /// Why it does not say.
    pub async fn said(client: &Client) -> Result<Vec<String>> {
        api::keys_of_server(client).await
    }

    /// By which key the controller manager that leads signs.
    pub async fn leader(&self, client: &Client) -> Word {
        let asked = async {
            let holder = api::leader(client).await?;
            let mut known = self.leader.lock().await;
            if let Some((_, key)) = known.as_ref().filter(|(known, _)| *known == holder) {
                return Ok::<_, Error>(key.clone());
            }
            let key = api::key_of_leader(client).await?;
            // Another may lead since.
            *known = (api::leader(client).await? == holder).then(|| (holder, key.clone()));
            Ok(key)
        };
        let said = match timeout(WORD_LIMIT, asked).await {
            Ok(said) => said.map(|key| vec![key]).map_err(|error| error.to_string()),
            Err(_) => Err("no answer in time".to_owned()),
        };
        Word { component: CONTROLLER_MANAGER, node: "the leader".into(), said, reloads: false }
    }
}

impl Scene<'_> {
    /// Who may still show a token of what is to go.
    ///
    /// # Errors
    /// What could not be read.
    pub async fn tokens_left(&self, rotation: &dyn Rotation, asked: Asked) -> Result<Left> {
        if rotation.is_unused() {
            return Ok(Left::default());
        }
        let client = &self.client;
        let since = api::servers_begun(client).await?;
        let since = since.ok_or_else(|| passing("no API server says since when it runs"))?;
        let mut tokens =
            Tokens { secrets: api::in_secrets(client).await?, pods: api::of_pods(client).await?, stale: Vec::new() };
        let now = || self.host.world().now();
        let found = held(&tokens, &rotation.mark(), since, now());
        if !found.is_empty() || !matches!(asked, Asked::Finish | Asked::Abort) {
            return Ok(Left { others: 0, held: found });
        }
        tokens.stale = self.stale().await?;
        Ok(Left { others: 0, held: held(&tokens, &rotation.mark(), since, now()) })
    }

    /// What API servers are shown for a while.
    async fn stale(&self) -> Result<Vec<Stale>> {
        let begun = self.host.world().now();
        let before = self.stale_of_each().await?;
        sleep(WATCHED).await;
        let after = self.stale_of_each().await?;
        let subjects = stale_subjects(&self.host.path(AUDIT), begun);
        let of = |((node, before), (_, after)): ((String, u64), (String, u64))| Stale {
            count: after.saturating_sub(before),
            subjects: if node == self.controller.name { subjects.clone() } else { Vec::new() },
            node,
        };
        Ok(before.into_iter().zip(after).map(of).collect())
    }

    async fn stale_of_each(&self) -> Result<Vec<(String, u64)>> {
        let mut counts = Vec::new();
        for node in controllers::list(&self.client).await? {
            let address = node.address.ok_or_else(|| passing(&format!("the Node {} has no address", node.name)))?;
            let client = self.connect(SocketAddr::new(address, API_PORT)).await?;
            counts.push((node.name, api::stale(&client).await?));
        }
        Ok(counts)
    }
}

/// Whose tokens were shown since `begun` that should have been renewed, as an audit log says; what cannot be read says nothing.
fn stale_subjects(log: &Path, begun: OffsetDateTime) -> Vec<String> {
    let end = || {
        let mut file = fs::File::open(log)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(AUDIT_END)))?;
        let mut bytes = Vec::new();
        file.take(AUDIT_END).read_to_end(&mut bytes)?;
        Ok::<_, std::io::Error>(bytes)
    };
    let bytes = end().unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let subject = |line: &str| {
        let event: serde_json::Value = serde_json::from_str(line).ok()?;
        let at = OffsetDateTime::parse(event["requestReceivedTimestamp"].as_str()?, &Rfc3339).ok()?;
        let said = event["annotations"][STALE].as_str()?;
        let subject = said.strip_prefix("subject: ")?.split(',').next()?;
        (at >= begun).then(|| subject.to_owned())
    };
    let found: BTreeSet<_> = text.lines().filter(|line| line.contains(STALE)).filter_map(subject).collect();
    found.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_audit_log_says_whose_tokens_are_old() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("audit.log");
        assert!(stale_subjects(&log, OffsetDateTime::UNIX_EPOCH).is_empty());
        let line = |at: &str, said: &str| {
            format!("{{\"requestReceivedTimestamp\":\"{at}\",\"annotations\":{{\"{STALE}\":\"{said}\"}}}}\n")
        };
        let said = |name: &str| format!("subject: system:serviceaccount:a:{name}, seconds after warning threshold: 12");
        let text = [
            line("2026-07-01T12:00:00.000000Z", &said("early")),
            line("2026-07-01T12:00:02.000000Z", &said("late")),
            line("2026-07-01T12:00:03.000000Z", &said("late")),
            "{\"requestReceivedTimestamp\":\"2026-07-01T12:00:04Z\"}\nx\n".into(),
        ];
        fs::write(&log, text.concat()).unwrap();
        let begun = OffsetDateTime::parse("2026-07-01T12:00:01Z", &Rfc3339).unwrap();
        assert_eq!(stale_subjects(&log, begun), ["system:serviceaccount:a:late"]);
    }
}
