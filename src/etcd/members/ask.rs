//! Asks the members, and makes a change at one.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use futures::future::join_all;

use super::observed::{Answer, Change, Observed};
use super::watch::Asked;
use crate::desired::secrets::Tls;
use crate::etcd::client::{Client, Failed, List, MemberId, is_healthy};

/// Asks this node's member, at its address on loopback, those at the other addresses that are known, and all that these
/// name. A learner that has just begun is named without an address for clients: `others` has those of all controllers.
/// Each call takes `limit` at most, and there are four in a row at each member, for two rounds of members. What is not
/// reached is left out.
pub async fn ask(own: SocketAddr, others: &[SocketAddr], tls: &Tls, limit: Duration) -> Asked {
    let mut asked = Asked::default();
    let mut known = BTreeSet::from([own]);
    known.extend(others);
    let mut round: Vec<SocketAddr> = known.iter().copied().collect();
    // Those that are known may name others; these name nobody else.
    for _ in 0..2 {
        let told = join_all(round.iter().map(|address| one(*address, tls, limit))).await;
        for (answer, list) in told.into_iter().flatten() {
            let Some(id) = answer.status.member else { continue };
            if answer.address == own {
                asked.this = Some(id);
            }
            asked.lists.extend(list);
            // One that is known by several addresses is itself at each.
            asked.answers.entry(id).or_insert(answer);
        }
        let named = asked.lists.iter().flat_map(|list| list.members.values());
        let unknown = named.filter(|member| !asked.answers.contains_key(&member.id));
        let unknown: BTreeSet<_> = unknown.flat_map(|member| member.addresses()).collect();
        round = unknown.difference(&known).copied().collect();
        known.extend(&round);
    }
    asked
}

/// What one member says of itself and, where it votes, of all.
async fn one(address: SocketAddr, tls: &Tls, limit: Duration) -> Option<(Answer, Option<List>)> {
    let mut client = Client::connect(address, tls, limit).await.ok()?;
    let status = client.status().await.ok()?;
    let (healthy, list) = match status.is_learner {
        true => (is_healthy(address, tls, limit).await, None),
        false => (false, client.members().await.ok()),
    };
    Some((Answer { address, status, healthy }, list))
}

/// Makes one change at the member `at`, where it was when `observed`. No call takes longer than `limit`.
///
/// # Errors
/// Why it was not made, or that this is not known: the next look tells.
pub async fn make(
    observed: &Observed,
    at: MemberId,
    change: &Change,
    tls: &Tls,
    limit: Duration,
) -> Result<(), Failed> {
    let Some(address) = observed.address(at) else {
        return Err(Failed::unasked(format!("the member {at} does not answer any more")));
    };
    let mut client = Client::connect(address, tls, limit).await?;
    match change {
        Change::Add(peer_url) => client.add_learner(peer_url).await.map(drop),
        Change::Promote(member) => client.promote(*member).await,
        Change::MoveLeader(to) => client.move_leader(*to).await,
        Change::Remove(member) => client.remove(*member).await,
    }
}
