//! etcd's alarms: why it takes no more writes, and what to type.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use super::client::{Client, Failed, MemberId};
use crate::desired::secrets::Tls;

/// Where etcd's clients reach it on loopback.
pub const PORT: u16 = 2379;
/// etcd's own, where it is not told another.
pub const DEFAULT_QUOTA: i64 = 2 << 30;
/// The files that etcdctl takes in etcd's own container.
const FILES: &str = "--cacert=/etc/kubernetes/secrets/ca.crt --cert=/etc/kubernetes/secrets/server.crt --key=/etc/kubernetes/secrets/server.key";

/// An alarm of etcd's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Alarm {
    /// The quota of the database is reached: nothing is written any more.
    NoSpace,
    /// A member's data is another than the others'.
    Corrupt,
    /// One that this hoist does not know.
    Other(i32),
}

impl Alarm {
    /// The one that has this number in etcd's messages.
    fn of(number: i32) -> Self {
        match number {
            1 => Self::NoSpace,
            2 => Self::Corrupt,
            number => Self::Other(number),
        }
    }

    /// As etcd names it.
    pub fn name(&self) -> String {
        match self {
            Self::NoSpace => "NOSPACE".into(),
            Self::Corrupt => "CORRUPT".into(),
            Self::Other(number) => format!("alarm {number}"),
        }
    }
}

/// How etcd is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    /// Where it was asked.
    pub address: SocketAddr,
    /// The alarms that are raised.
    pub alarms: BTreeSet<Alarm>,
    /// The same, by the members that have raised them.
    pub raised: BTreeMap<MemberId, BTreeSet<Alarm>>,
    /// The bytes of its database.
    pub size: i64,
    /// And how many it may have.
    pub quota: i64,
    /// The revision of the last write.
    pub revision: i64,
}

impl Health {
    /// Each alarm as a sentence without a full stop, and what to type on or for the controller `node`.
    pub fn said(&self, node: &str) -> Vec<(String, String)> {
        let mib = |bytes: i64| bytes >> 20;
        let address = self.address;
        let exec = format!("kubectl -n kube-system exec etcd-{node} -- etcdctl --endpoints=https://{address} {FILES}");
        let said = |alarm: &Alarm| {
            let begin = format!("etcd has raised the alarm {}", alarm.name());
            match alarm {
                Alarm::NoSpace => (
                    format!(
                        "{begin}: its database has {} MiB of {} MiB, and it takes no more writes",
                        mib(self.size),
                        mib(self.quota)
                    ),
                    format!(
                        "delete what fills it, and then: `{exec} compact --physical {}`, `{exec} defrag`, `{exec} alarm disarm`; more room: quota-backend-bytes in etcd.local.extraArgs of cluster.yaml (docs/recover.md)",
                        self.revision
                    ),
                ),
                Alarm::Corrupt => (
                    format!("{begin}: its members' data differs, and it takes no more requests"),
                    "bring its data back from a backup: `hoist recover --backup FILE`".to_owned(),
                ),
                Alarm::Other(_) => (begin, format!("`{exec} alarm list` shows it")),
            }
        };
        self.alarms.iter().map(said).collect()
    }
}

/// Asks the etcd at `address` for its alarms, within `limit`.
///
/// # Errors
/// Why it does not say.
pub async fn ask(address: SocketAddr, tls: &Tls, limit: Duration) -> Result<Health, String> {
    let answer = async {
        let mut client = Client::connect(address, tls, limit).await?;
        let alarms = client.alarms().await?;
        let status = client.status().await?;
        let mut raised: BTreeMap<MemberId, BTreeSet<Alarm>> = BTreeMap::new();
        for (member, number) in alarms {
            raised.entry(member).or_default().insert(Alarm::of(number));
        }
        Ok(Health {
            address,
            alarms: raised.values().flatten().copied().collect(),
            raised,
            size: status.size,
            quota: status.quota.unwrap_or(DEFAULT_QUOTA),
            revision: status.revision,
        })
    };
    let answer = tokio::time::timeout(limit, answer).await.unwrap_or_else(|_| Err(Failed::late()));
    answer.map_err(|failed| failed.to_string())
}
