//! `hoist guard shutdown`: this machine is being switched off, and other controllers serve on. The kubelet's unit runs it once
//! the kubelet has ended, so that nothing is started in the place of what ends; containers still run, and so does the network.
//! The same comes before etcd ends here and begins again (`etcd_ends.rs`), but for the controller manager and the scheduler.
//!
//! | seen | done |
//! |---|---|
//! | no voter tells the members; the other voters that answer are no majority | nothing: without this controller nobody serves |
//! | this controller's member leads | leadership is moved to the voter that is furthest |
//! | an API server runs here, and another controller's is ready | the addresses leave; the controller manager and the scheduler end, and the Leases that they held are deleted; the API server says that it will end, and ends |

use std::net::SocketAddr;
use std::time::Duration;

use kube::Client;
use tokio::time::{Instant, sleep, timeout};

use super::leases::Leases;
use super::leave::{self, API_SERVER};
use crate::api::observe::LEASES;
use crate::base::error::Result;
use crate::base::report::Reporter;
use crate::desired::config::{Cluster, Controller};
use crate::desired::secrets::Tls;
use crate::etcd::alarms;
use crate::etcd::client::{self as etcd, MemberId};
use crate::etcd::members::{self, Asked, IN_SYNC, peer_url};
use crate::node::host::Host;
use crate::node::lock::{self, Lock};
use crate::node::processes::{self, Component, Signal};
use crate::ops::join;
use crate::plane::kept_copy::Copy;
use crate::plane::leaving::{self, Why};
use crate::plane::member;
use crate::plane::remembered::Remembered;

/// How long systemd may take to say whether it stops the machine.
const SYSTEMD_LIMIT: Duration = Duration::from_secs(5);
/// How long one call of a member's may take. Whoever switches a machine off waits for it.
const CALL_LIMIT: Duration = Duration::from_secs(2);
/// How long looking, and each of the acts but the last, may take.
const ACT_LIMIT: Duration = Duration::from_secs(6);
/// How long API servers may take to end: they serve on for 20 s, and complete what they were asked.
const END_LIMIT: Duration = Duration::from_secs(40);
const AGAIN: Duration = Duration::from_millis(200);

/// What is so when the machine is about to be switched off.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Observed {
    /// An API server of this cluster's runs here.
    pub serves: bool,
    /// Another controller's API server says that it is ready.
    pub another_serves: bool,
    /// What the voters tell of themselves; `None` where etcd is elsewhere.
    pub members: Option<Members>,
}

/// The members of etcd.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Members {
    /// How many voters there are, this one included; 0 where none tells.
    pub voters: usize,
    /// This controller's member leads.
    pub leads: bool,
    /// The other voters that follow the leader and are in sync, each with what it has applied.
    pub others: Vec<(MemberId, u64)>,
}

/// What is to be done.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// Who shall lead from now on.
    pub heir: Option<MemberId>,
    /// The addresses leave, and the API servers of this machine end as they were taught.
    pub hands_over: bool,
    /// Why nothing is done, if nothing is.
    pub why: &'static str,
}

/// Decides by the table above.
pub fn decide(seen: &Observed) -> Plan {
    let nothing = |why| Plan { why, ..Plan::default() };
    let mut heir = None;
    if let Some(members) = &seen.members {
        if members.voters == 0 {
            return nothing("no voter of etcd tells the members");
        }
        if members.others.len() <= members.voters / 2 {
            return nothing("the other members of etcd are no majority without this one");
        }
        let furthest = members.others.iter().max_by_key(|(id, applied)| (*applied, std::cmp::Reverse(*id)));
        heir = furthest.map(|(id, _)| *id).filter(|_| members.leads);
    }
    let why = match (seen.serves, seen.another_serves) {
        _ if heir.is_some() => "",
        (false, _) => "no API server runs here",
        (true, false) => "no other controller's API server is ready",
        (true, true) => "",
    };
    Plan { heir, hands_over: seen.serves && seen.another_serves, why }
}

/// Lets the other controllers take over, as far as they can, before this machine is switched off; `only_if_stopping` asks
/// systemd first whether it is. What cannot be done in time is left.
///
/// # Errors
/// A copy of the bridge that cannot be used; the system's refusal.
pub async fn shut_down(host: &Host, only_if_stopping: bool, reporter: &Reporter) -> Result<()> {
    if only_if_stopping && !is_stopping(host).await {
        return Ok(());
    }
    let Some(copy) = Copy::load(host)? else { return Ok(()) };
    let serves = !leave::running(host, &[API_SERVER])?.is_empty();
    let why = others_take_over(host, &copy, Why::Shutdown, serves, reporter).await?;
    if !why.is_empty() {
        reporter.note(&format!("nothing is handed over before this machine is switched off: {why}"));
    }
    Ok(())
}

/// Has the others take over, as far as they can, before the machine goes, or etcd; says why nothing is done, if nothing is.
/// `serves`: an API server of this machine does.
///
/// # Errors
/// A copy of the bridge that cannot be used; the system's refusal.
pub(super) async fn others_take_over(
    host: &Host,
    copy: &Copy,
    why: Why,
    serves: bool,
    reporter: &Reporter,
) -> Result<&'static str> {
    let (cluster, controller) = copy.cluster()?;
    let tls = copy.assets.tls();
    let at = At { host, copy, cluster: &cluster, controller: &controller, tls: &tls, reporter };
    let (members, another) = tokio::join!(at.members(), at.another());
    let observed = Observed { serves, another_serves: another.is_some(), members };
    let plan = decide(&observed);
    at.move_leader(plan.heir).await;
    if let Some(client) = another.filter(|_| plan.hands_over) {
        at.hand_over(&client, why).await?;
        // Somebody else may have died meanwhile.
        at.move_leader(decide(&Observed { members: at.members().await, ..observed }).heir).await;
    }
    Ok(plan.why)
}

async fn is_stopping(host: &Host) -> bool {
    let ran = host.world().run("systemctl", &["is-system-running"], SYSTEMD_LIMIT).await;
    ran.is_ok_and(|ran| ran.stdout.trim() == "stopping")
}

/// Where all of this is.
struct At<'a> {
    host: &'a Host,
    copy: &'a Copy,
    cluster: &'a Cluster,
    controller: &'a Controller,
    tls: &'a Tls,
    reporter: &'a Reporter,
}

impl At<'_> {
    fn own_member(&self) -> SocketAddr {
        SocketAddr::new(self.cluster.loopback(), alarms::PORT)
    }

    async fn members(&self) -> Option<Members> {
        if !member::is_local(self.cluster) {
            return None;
        }
        let others = Remembered::load(self.host).others;
        let declared = self.cluster.controllers.iter().map(|declared| declared.address);
        let known = others.into_iter().chain(declared).filter(|address| *address != self.controller.address);
        let known: Vec<_> = known.map(|address| SocketAddr::new(address, alarms::PORT)).collect();
        let asked = timeout(ACT_LIMIT, members::ask(self.own_member(), &known, self.tls, CALL_LIMIT)).await;
        Some(asked.map(|asked| told(&asked, &peer_url(self.controller.address))).unwrap_or_default())
    }

    /// A client of another controller's API server that is ready.
    async fn another(&self) -> Option<Client> {
        let others: Vec<_> = Remembered::load(self.host).others.into_iter().collect();
        timeout(ACT_LIMIT, join::client_of_another(self.host, self.copy, &others)).await.ok()?.ok()
    }

    async fn move_leader(&self, heir: Option<MemberId>) {
        let Some(heir) = heir else { return };
        let moved =
            async { etcd::Client::connect(self.own_member(), self.tls, CALL_LIMIT).await?.move_leader(heir).await };
        match moved.await {
            Ok(()) => self.reporter.note(&format!("{heir} leads etcd from now on")),
            Err(error) => self.reporter.note(&format!("the leadership of etcd was not moved to {heir}: {error}")),
        }
    }

    /// The API servers of this machine end, by `client` of another one.
    async fn hand_over(&self, client: &Client, why: Why) -> Result<()> {
        // Until this is over, guard puts nothing in the place of what ends.
        let _lock = self.lock().await;
        leaving::begin(self.host, why)?;
        self.retract(client).await;
        let running = leave::running(self.host, &[API_SERVER])?;
        if running.iter().any(|component| component.of_bridge) {
            // It says for a moment only that it will end.
            sleep(leave::TO_MOVE).await;
        }
        running.iter().for_each(|component| self.tell(component));
        if why == Why::Shutdown {
            let leaders = leave::running(self.host, &LEASES)?;
            leaders.iter().for_each(|component| self.tell(component));
            if leave::until_ended(self.host, &LEASES, &leaders, ACT_LIMIT).await {
                self.free_leases(client).await;
            }
        }
        let has_ended = leave::until_ended(self.host, &[API_SERVER], &running, END_LIMIT).await;
        self.reporter.note(match has_ended {
            true => "this controller's API server has ended: the others serve",
            false => "this controller's API server has not ended in time",
        });
        Ok(())
    }

    /// Has a process end in good order.
    fn tell(&self, component: &Component) {
        let Some(process) = &component.process else { return };
        if let Err(error) = processes::signal(&self.host.path("/proc"), process, Signal::TERM) {
            self.reporter.note(&format!("the process {} was not told to end: {error}", process.pid));
        }
    }

    /// Those that led here have ended, and nobody else can know: others would wait for 15 s.
    async fn free_leases(&self, client: &Client) {
        let mut leases = Leases::default();
        match timeout(ACT_LIMIT, leases.free((self.host, &self.controller.name), client, false)).await {
            Ok(Ok(freed)) if freed.is_empty() => {}
            Ok(Ok(freed)) => self.reporter.note(&format!("another one leads from now on: {}", freed.join(", "))),
            Ok(Err(error)) => self.reporter.note(&error.to_string()),
            Err(_) => self.reporter.note("the Leases that were held here expire: the API did not answer in time"),
        }
    }

    async fn lock(&self) -> Option<Lock> {
        let begun = Instant::now();
        loop {
            match lock::try_take(self.host) {
                Ok(lock) => return Some(lock),
                Err(_) if begun.elapsed() < ACT_LIMIT => sleep(AGAIN).await,
                Err(_) => return None,
            }
        }
    }

    async fn retract(&self, client: &Client) {
        let own = self.controller.address;
        match timeout(ACT_LIMIT, leave::retract(client, own)).await {
            Ok(Ok(())) => self.reporter.note(&format!("{own} is not published any more")),
            Ok(Err(error)) => self.reporter.note(&error.to_string()),
            Err(_) => self.reporter.note(&format!("{own} stays published: the API did not answer in time")),
        }
    }
}

/// What was asked, as one decides by it: this controller's member is the one that others reach at `own`.
fn told(asked: &Asked, own: &str) -> Members {
    let Some(list) = asked.lists.first() else { return Members::default() };
    let voters: Vec<_> = list.members.values().filter(|member| !member.is_learner).collect();
    let is_own =
        |id: MemberId| list.members.get(&id).is_some_and(|member| member.peer_urls.iter().any(|url| url == own));
    // A majority follows it: the list is told by nobody else.
    let status = |id: &MemberId| asked.answers.get(id).map(|answer| &answer.status);
    let leader = voters.iter().find(|voter| status(&voter.id).is_some_and(|said| said.leader == Some(voter.id)));
    let Some(leader) = leader.and_then(|leader| status(&leader.id)) else {
        return Members { voters: voters.len(), ..Members::default() };
    };
    let others = voters.iter().filter(|voter| !is_own(voter.id)).filter_map(|voter| {
        let said = status(&voter.id)?;
        let is_well = said.leader == leader.member && leader.index.saturating_sub(said.applied) <= IN_SYNC;
        is_well.then_some((voter.id, said.applied))
    });
    Members { voters: voters.len(), leads: leader.member.is_some_and(is_own), others: others.collect() }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::etcd::client::{List, Member, Status};
    use crate::etcd::members::Answer;

    fn members(voters: usize, leads: bool, others: &[(u64, u64)]) -> Option<Members> {
        let others = others.iter().map(|(id, applied)| (MemberId(*id), *applied)).collect();
        Some(Members { voters, leads, others })
    }

    #[test]
    fn others_take_over_where_they_can_and_nobody_waits_where_they_cannot() {
        let two = &[(2, 90), (3, 91)][..];
        for (what, serves, another, members, heir, hands_over) in [
            ("the only controller", true, false, members(1, true, &[]), None, false),
            ("one of two: the other has no majority", true, true, members(2, true, &[(2, 90)]), None, false),
            ("one of three follows", true, true, members(3, false, two), None, true),
            ("one of three leads: the one that is furthest is next", true, true, members(3, true, two), Some(3), true),
            ("one of three, another is away", true, true, members(3, true, &[(2, 90)]), None, false),
            ("one of four, another is away", true, true, members(4, false, two), None, false),
            ("one of five, two are away", true, true, members(5, true, two), None, false),
            ("nobody tells the members", true, true, members(0, false, &[]), None, false),
            ("no other API server is ready", true, false, members(3, true, two), Some(3), false),
            ("no API server here", false, true, members(3, true, two), Some(3), false),
            ("etcd is elsewhere", true, true, None, None, true),
            ("etcd is elsewhere, and this is the only API server", true, false, None, None, false),
        ] {
            let plan = decide(&Observed { serves, another_serves: another, members });
            assert_eq!((plan.heir, plan.hands_over), (heir.map(MemberId), hands_over), "{what}");
            assert_eq!(plan.why.is_empty(), plan.heir.is_some() || plan.hands_over, "{what}: {}", plan.why);
        }
    }

    /// Three voters and a learner, of which this controller's is the first; what each says of the leader and has applied.
    fn asked(said: &[(u64, u64, u64)]) -> Asked {
        let member = |id: u64| Member {
            id: MemberId(id),
            name: format!("c{id}"),
            peer_urls: vec![format!("https://10.0.0.{id}:2380")],
            client_urls: Vec::new(),
            is_learner: id == 4,
        };
        let list = List { cluster: 7, members: (1..=4).map(|id| (MemberId(id), member(id))).collect() };
        let answer = |(id, leader, applied): &(u64, u64, u64)| {
            let (member, leader) = (Some(MemberId(*id)), Some(MemberId(*leader)));
            let status =
                Status { member, leader, index: 5000, applied: *applied, is_learner: *id == 4, ..Status::default() };
            let address = SocketAddr::from(([10, 0, 0, u8::try_from(*id).unwrap()], 2379));
            (MemberId(*id), Answer { address, status, healthy: true })
        };
        let answers: BTreeMap<_, _> = said.iter().map(answer).collect();
        Asked { lists: vec![list], answers, this: Some(MemberId(1)) }
    }

    #[test]
    fn only_voters_that_follow_and_are_in_sync_take_over() {
        let own = "https://10.0.0.1:2380";
        let told = |said: &[(u64, u64, u64)]| Some(told(&asked(said), own));
        let whole = [(1, 1, 5000), (2, 1, 5000), (3, 1, 4990), (4, 1, 5000)];
        assert_eq!(told(&whole), members(3, true, &[(2, 5000), (3, 4990)]));
        assert_eq!(told(&[(1, 1, 5000), (2, 1, 100), (3, 1, 4990)]), members(3, true, &[(3, 4990)]), "far behind");
        assert_eq!(told(&[(1, 2, 5000), (2, 2, 5000)]), members(3, false, &[(2, 5000)]), "one does not answer");
        assert_eq!(
            told(&[(2, 2, 5000), (3, 2, 5000)]),
            members(3, false, &[(2, 5000), (3, 5000)]),
            "its own etcd is away"
        );
        assert_eq!(told(&[(1, 3, 5000), (2, 3, 5000)]), members(3, false, &[]), "the leader does not answer");
        assert_eq!(super::told(&Asked::default(), own), Members::default());
    }
}
