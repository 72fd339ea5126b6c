//! What etcd says of its members.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};

use super::messages;

/// A member's id. etcd makes one for each that is added, and never gives it again once the member is removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MemberId(pub u64);

/// As etcdctl shows it.
impl fmt::Display for MemberId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}", self.0)
    }
}

/// An entry of the list of members.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Its id.
    pub id: MemberId,
    /// The name that it has given itself; empty until it has started for the first time.
    pub name: String,
    /// Where the others reach it.
    pub peer_urls: Vec<String>,
    /// Where clients reach it; none until it has started for the first time.
    pub client_urls: Vec<String>,
    /// It has no vote yet.
    pub is_learner: bool,
}

impl Member {
    /// Its name, or where it is while it has none.
    pub fn called(&self) -> String {
        let place = || self.peer_urls.first().cloned().unwrap_or_else(|| self.id.to_string());
        if self.name.is_empty() { place() } else { self.name.clone() }
    }

    /// Where clients reach it, as far as its URLs have addresses in place of names.
    pub fn addresses(&self) -> impl Iterator<Item = SocketAddr> {
        self.client_urls.iter().filter_map(|url| address_of(url))
    }
}

/// The list of members, as one voter tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct List {
    /// The cluster's id.
    pub cluster: u64,
    /// The members, by id.
    pub members: BTreeMap<MemberId, Member>,
}

impl List {
    /// Whether both have the same members in the same roles at the same places. The names and clients' URLs that members
    /// give themselves may be missing in one of them for a moment.
    pub fn agrees(&self, other: &Self) -> bool {
        let members = |list: &Self| -> Vec<_> {
            list.members.values().map(|member| (member.id, member.is_learner, member.peer_urls.clone())).collect()
        };
        self.cluster == other.cluster && members(self) == members(other)
    }
}

/// What a member says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Status {
    /// Its id.
    pub member: Option<MemberId>,
    /// The id of the cluster that it is in.
    pub cluster: u64,
    /// The version of etcd that it runs.
    pub version: String,
    /// Which member leads, as far as it knows.
    pub leader: Option<MemberId>,
    /// Raft's term, as far as it knows.
    pub term: u64,
    /// The last entry that it knows to be committed.
    pub index: u64,
    /// The last entry that it has applied.
    pub applied: u64,
    /// It has no vote yet.
    pub is_learner: bool,
    /// The bytes of its database.
    pub size: i64,
    /// How many of them are in use; the others a defragmentation gives back.
    pub size_in_use: i64,
    /// How many there may be; `None` before etcd 3.6, which does not say.
    pub quota: Option<i64>,
    /// The revision of the last write.
    pub revision: i64,
    /// What is wrong with it in its own words: no leader, alarms.
    pub errors: Vec<String>,
}

/// The address in a URL such as `https://10.0.0.1:2379` or `https://[fd00::1]:2379`; `None` where it has a name.
pub(crate) fn address_of(url: &str) -> Option<SocketAddr> {
    let (_, rest) = url.split_once("://")?;
    let rest = rest.trim_end_matches('/');
    let (host, port) = rest.rsplit_once(':')?;
    let host: IpAddr = host.trim_start_matches('[').trim_end_matches(']').parse().ok()?;
    Some(SocketAddr::new(host, port.parse().ok()?))
}

impl From<messages::Member> for Member {
    fn from(member: messages::Member) -> Self {
        let messages::Member { id, name, peer_urls, client_urls, is_learner } = member;
        Self { id: MemberId(id), name, peer_urls, client_urls, is_learner }
    }
}

impl From<messages::MemberListResponse> for List {
    fn from(list: messages::MemberListResponse) -> Self {
        let members = list.members.into_iter().map(Member::from).map(|member| (member.id, member)).collect();
        Self { cluster: list.header.map_or(0, |header| header.cluster_id), members }
    }
}

impl From<messages::StatusResponse> for Status {
    fn from(status: messages::StatusResponse) -> Self {
        let id = |id: u64| (id != 0).then_some(MemberId(id));
        let header = status.header.unwrap_or_default();
        Self {
            member: id(header.member_id),
            cluster: header.cluster_id,
            version: status.version,
            leader: id(status.leader),
            term: status.raft_term.max(header.raft_term),
            index: status.raft_index,
            applied: status.raft_applied_index,
            is_learner: status.is_learner,
            size: status.db_size,
            size_in_use: status.db_size_in_use,
            quota: (status.db_size_quota > 0).then_some(status.db_size_quota),
            revision: header.revision,
            errors: status.errors,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_url_has_an_address_or_a_name() {
        let table = [
            ("https://10.0.0.1:2379", Some("10.0.0.1:2379")),
            ("http://[fd00::1]:2379/", Some("[fd00::1]:2379")),
            ("https://etcd.example.com:2379", None),
            ("10.0.0.1:2379", None),
            ("https://10.0.0.1", None),
        ];
        for (url, address) in table {
            assert_eq!(address_of(url), address.map(|address| address.parse().unwrap()), "{url}");
        }
    }
}
