//! A client of etcd's gRPC services Maintenance, Cluster and KV: status, alarms, members, leadership, a snapshot as a stream,
//! values.
//! The few messages that hoist needs are declared field by field in `messages.rs`; `failed.rs` sorts etcd's errors;
//! `connection.rs` is the one way to a member. No call takes longer than the limit that it is given.

mod connection;
mod failed;
mod messages;
mod service;
mod stream;
mod types;

use std::net::SocketAddr;
use std::time::Duration;

use prost::Message;

use crate::base::grpc::{Connection, Failure};
use crate::base::probe::Probe;
use crate::desired::secrets::Tls;
use messages::{
    AlarmRequest, AlarmResponse, DefragmentRequest, Done, MemberAddRequest, MemberAddResponse, MemberListRequest,
    MemberListResponse, MemberPromoteRequest, MemberRemoveRequest, MoveLeaderRequest, RangeRequest, RangeResponse,
    StatusRequest, StatusResponse,
};
use service::{CLUSTER, KV, MAINTENANCE};

pub use connection::connect;
pub use failed::{Failed, Sort};
pub use stream::Snapshot;
pub use types::{List, Member, MemberId, Status};

/// How many values are asked for at once: each has 1.5 MiB at most, and an answer 16 MiB.
const PAGE: i64 = 8;

/// A connection to one member.
pub struct Client {
    connection: Connection,
    /// Of each call.
    limit: Duration,
}

impl Client {
    /// Connects to the member at `address` with the client certificate that the API servers have. Neither that nor any
    /// call takes longer than `limit`.
    ///
    /// # Errors
    /// Certificates that cannot be used; a member that does not answer.
    pub async fn connect(address: SocketAddr, tls: &Tls, limit: Duration) -> Result<Self, Failed> {
        let connection = tokio::time::timeout(limit, connect(address, tls)).await;
        let connection = connection.unwrap_or_else(|_| Err("no answer in time".into()));
        Ok(Self { connection: connection.map_err(Failed::unasked)?, limit })
    }

    /// What it says of itself. A learner, and a member without a leader, say it too.
    ///
    /// # Errors
    /// Why it does not say.
    pub async fn status(&mut self) -> Result<Status, Failed> {
        let status: StatusResponse = self.call(MAINTENANCE, "Status", &StatusRequest {}).await?;
        Ok(status.into())
    }

    /// All alarms, by the members that have raised them, and etcd's numbers for them. It is a write of etcd's.
    ///
    /// # Errors
    /// Why it does not say.
    pub async fn alarms(&mut self) -> Result<Vec<(MemberId, i32)>, Failed> {
        let alarms: AlarmResponse = self.call(MAINTENANCE, "Alarm", &AlarmRequest {}).await?;
        Ok(alarms.alarms.iter().map(|alarm| (MemberId(alarm.member_id), alarm.alarm)).collect())
    }

    /// The members, as a majority of the voters knows them at this moment: a voter that has lost the others does not say,
    /// and a learner never does.
    ///
    /// # Errors
    /// Why it does not say.
    pub async fn members(&mut self) -> Result<List, Failed> {
        let question = MemberListRequest { linearizable: true };
        let list: MemberListResponse = self.call(CLUSTER, "MemberList", &question).await?;
        Ok(list.into())
    }

    /// The members as this one knows them, whatever became of the others: old, perhaps. A learner does not say.
    ///
    /// # Errors
    /// Why it does not say.
    pub async fn known_members(&mut self) -> Result<List, Failed> {
        let question = MemberListRequest { linearizable: false };
        let list: MemberListResponse = self.call(CLUSTER, "MemberList", &question).await?;
        Ok(list.into())
    }

    /// Adds a member without a vote that will be reached by the others at `peer_url`. Its id, unless etcd forgets to say.
    ///
    /// # Errors
    /// Why it was not added, or that this is not known.
    pub async fn add_learner(&mut self, peer_url: &str) -> Result<Option<MemberId>, Failed> {
        let question = MemberAddRequest { peer_urls: vec![peer_url.to_owned()], is_learner: true };
        let added: MemberAddResponse = self.call(CLUSTER, "MemberAdd", &question).await?;
        Ok(added.member.map(|member| MemberId(member.id)))
    }

    /// Gives a learner its vote. The leader looks at how far it has sent it entries, and not at whether it is alive.
    ///
    /// # Errors
    /// Why it was not promoted, or that this is not known.
    pub async fn promote(&mut self, member: MemberId) -> Result<(), Failed> {
        let Done {} = self.call(CLUSTER, "MemberPromote", &MemberPromoteRequest { id: member.0 }).await?;
        Ok(())
    }

    /// Removes a member for good.
    ///
    /// # Errors
    /// Why it was not removed, or that this is not known.
    pub async fn remove(&mut self, member: MemberId) -> Result<(), Failed> {
        let Done {} = self.call(CLUSTER, "MemberRemove", &MemberRemoveRequest { id: member.0 }).await?;
        Ok(())
    }

    /// Hands leadership to the voter `to`. Only the leader can be asked.
    ///
    /// # Errors
    /// Why it does not lead, or that this is not known.
    pub async fn move_leader(&mut self, to: MemberId) -> Result<(), Failed> {
        let Done {} = self.call(MAINTENANCE, "MoveLeader", &MoveLeaderRequest { target_id: to.0 }).await?;
        Ok(())
    }

    /// Gives the file system back what the database does not use. The member serves nothing meanwhile.
    ///
    /// # Errors
    /// Why it did not, or that this is not known.
    pub async fn defragment(&mut self) -> Result<(), Failed> {
        let Done {} = self.call(MAINTENANCE, "Defragment", &DefragmentRequest {}).await?;
        Ok(())
    }

    /// Hands every key that begins with `prefix`, and its value, to `take`, in the order of the keys. What is written meanwhile
    /// may be among them.
    ///
    /// # Errors
    /// Why it does not say.
    pub async fn each_value(&mut self, prefix: &str, mut take: impl FnMut(&[u8], &[u8])) -> Result<(), Failed> {
        let mut range_end = prefix.as_bytes().to_vec();
        if let Some(last) = range_end.last_mut() {
            *last += 1;
        }
        let mut key = prefix.as_bytes().to_vec();
        loop {
            let question = RangeRequest { key: key.clone(), range_end: range_end.clone(), limit: PAGE };
            let page: RangeResponse = self.call(KV, "Range", &question).await?;
            page.kvs.iter().for_each(|found| take(&found.key, &found.value));
            match page.kvs.last().filter(|_| page.more) {
                // The least that is greater.
                Some(last) => key = [&last.key[..], &[0]].concat(),
                None => return Ok(()),
            }
        }
    }

    async fn call<A: Message + Default>(
        &mut self,
        service: &'static str,
        method: &str,
        question: &impl Message,
    ) -> Result<A, Failed> {
        let call = self.connection.call(service, method, question);
        let answer: Result<A, Failure> = tokio::time::timeout(self.limit, call).await.map_err(|_| Failed::late())?;
        Ok(answer?)
    }
}

/// Whether the member at `address` says within `limit` that it serves: it reaches the leader and has no alarm. A learner
/// says it, too.
pub async fn is_healthy(address: SocketAddr, tls: &Tls, limit: Duration) -> bool {
    let (ca, certificate, key) = connection::credentials(tls);
    match Probe::with_identity(ca, certificate, key) {
        Ok(probe) => probe.get(address, "/health", limit).await.is_ready(),
        Err(_) => false,
    }
}

#[cfg(test)]
pub(crate) mod tests;
