//! Whether etcd's members, where the cluster is up already, have a place for this machine.

use std::net::SocketAddr;
use std::time::Duration;

use futures::future::join_all;

use super::{Facts, disk};
use crate::base::error::Finding;
use crate::desired::config::{Cluster, Controller, Etcd};
use crate::desired::secrets::Tls;
use crate::etcd::alarms;
use crate::etcd::client::{Client, List};
use crate::etcd::members::peer_url;
use crate::node::etcd_data::Data;

/// How long a member may take to answer: less than a check may.
const LIMIT: Duration = Duration::from_millis(700);

/// What the members at the other declared controllers say of this machine's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Said {
    /// Nothing: no majority of them is up, or there are none.
    Nothing,
    /// It is a member that has never started.
    Awaited,
    /// It is one that has.
    Known,
    /// It is none.
    Unknown,
}

/// Asks them.
pub(crate) async fn said(cluster: &Cluster, own: &Controller, tls: &Tls) -> Said {
    if !matches!(cluster.etcd, Etcd::Local { .. }) {
        return Said::Nothing;
    }
    let others = cluster.controllers.iter().filter(|other| other.address != own.address);
    let asked = others.map(|other| async move {
        let address = SocketAddr::new(other.address, alarms::PORT);
        Client::connect(address, tls, LIMIT).await.ok()?.members().await.ok()
    });
    let lists: Vec<_> = join_all(asked).await.into_iter().flatten().collect();
    of(&lists, &peer_url(own.address))
}

/// What these lists say of the member at `peer_url`.
fn of(lists: &[List], peer_url: &str) -> Said {
    let members = lists.iter().flat_map(|list| list.members.values());
    let own: Vec<_> = members.filter(|member| member.peer_urls.iter().any(|url| url == peer_url)).collect();
    match own.iter().all(|member| member.client_urls.is_empty()) {
        _ if lists.is_empty() => Said::Nothing,
        _ if own.is_empty() => Said::Unknown,
        true => Said::Awaited,
        false => Said::Known,
    }
}

/// Whether etcd's data is not there, on a controller that has etcd.
fn lacks_data(facts: &Facts) -> bool {
    Data::of(&facts.host, &facts.cluster).is_some_and(|data| !data.is_there())
}

async fn said_to(facts: &Facts) -> Said {
    let ask = async || said(&facts.cluster, &facts.controller, &facts.assets.tls()).await;
    *facts.member.get_or_init(ask).await
}

/// A controller that is declared after its cluster has begun has no member, and an etcd that begins there knows nobody.
pub(super) async fn has_one(facts: &Facts) -> Vec<Finding> {
    if !lacks_data(facts) || said_to(facts).await != Said::Unknown {
        return Vec::new();
    }
    let name = &facts.controller.name;
    let problem =
        format!("the cluster is up, and its etcd has no member for {name}: one that begins here would serve nobody");
    let remedy = format!(
        "take {name} out of `controllers` of cluster.yaml, have the machine join as a worker (`hoist join-assets`), and make a controller of it: `kubectl label node {name} node-role.kubernetes.io/control-plane=`"
    );
    vec![Finding::new("controllers", problem).remedy(remedy)]
}

/// What [`disk::etcd_data`] finds, except where the others wait for this machine's member: then it has lost nothing.
pub(super) async fn data(facts: &Facts) -> Vec<Finding> {
    let found = disk::etcd_data(facts);
    if !found.is_empty() && lacks_data(facts) && said_to(facts).await == Said::Awaited {
        return Vec::new();
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::etcd::client::{Member, MemberId};

    /// A list of members by their last numbers; those that have started, and others.
    fn list(started: &[u8], others: &[u8]) -> List {
        let member = |last: u8, has_started: bool| {
            let url = |port: u16| format!("https://10.0.0.{last}:{port}");
            let client_urls = if has_started { vec![url(2379)] } else { Vec::new() };
            let (id, name, peer_urls) = (MemberId(last.into()), format!("c{last}"), vec![url(2380)]);
            (id, Member { id, name, peer_urls, client_urls, is_learner: false })
        };
        let started = started.iter().map(|last| member(*last, true));
        List { cluster: 1, members: started.chain(others.iter().map(|last| member(*last, false))).collect() }
    }

    #[test]
    fn a_machine_begins_as_a_member_that_has_never_started_and_as_no_other() {
        let of = |lists: &[List]| of(lists, "https://10.0.0.2:2380");
        assert_eq!(of(&[]), Said::Nothing, "it begins with the others");
        assert_eq!(of(&[list(&[1, 3], &[2])]), Said::Awaited, "it was declared with the others, and comes later");
        assert_eq!(of(&[list(&[1, 2, 3], &[])]), Said::Known, "it has lost its disk");
        assert_eq!(of(&[list(&[1, 3], &[2]), list(&[1, 2, 3], &[])]), Said::Known, "the first may be behind");
        assert_eq!(of(&[list(&[1, 3], &[])]), Said::Unknown);
        assert_eq!(of(&[list(&[1, 3], &[]), list(&[1, 3], &[2])]), Said::Awaited);
    }
}
