//! The other members of etcd, where data is restored on one of several controllers: whether that may be done is decided by
//! [`verdict`] (pure), and then they are removed first, so that there are never two clusters that take writes.
//!
//! | the members | a snapshot is restored | --force-new-cluster |
//! |---|---|---|
//! | this one is the only one, or none is known of | restore | refuse: nothing is lost |
//! | a majority serves, and this one is a voter | remove the others first | refuse: the majority is not lost |
//! | a majority serves without this one | refuse: the cluster is there | refuse: the same |
//! | no majority serves, and this one answers | restore | make a cluster of its data |
//! | no majority serves, and this one does not answer | restore | refuse: its etcd is to run |
//!
//! A member that was removed has no vote, and its etcd ends. Its guard puts the data aside and waits to be added. Until then this
//! controller keeps the turn, so that nobody adds it to the old cluster. The others without a majority take no writes; what is
//! restored is another cluster by its id, which none of them can join or talk to.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use kube::Client;
use tokio::time::{Instant, sleep};

use crate::api::controllers;
use crate::api::turn::Turn;
use crate::base::error::{Error, Finding, Result};
use crate::base::report::Reporter;
use crate::desired::config::{API_PORT, Cluster, Controller};
use crate::desired::secrets::Tls;
use crate::etcd::alarms;
use crate::etcd::client::{Client as Etcd, List, Member, MemberId, Status};
use crate::etcd::members;
use crate::node::host::Host;

/// The step, as events name it.
const STEP: &str = "members";
/// How long one call of a member's may take.
const CALL_LIMIT: Duration = Duration::from_secs(5);
/// How long the removal of one may take: etcd refuses a change for some seconds after the one before.
const REMOVE_LIMIT: Duration = Duration::from_secs(60);
/// How long the others' guards may take to put their data aside.
const ASIDE_LIMIT: Duration = Duration::from_secs(180);
const AGAIN: Duration = Duration::from_secs(1);

/// The members, as they were asked.
#[derive(Debug, Clone, Default)]
pub(super) struct Observed {
    /// This controller's, if it answers.
    pub own: Option<Status>,
    /// The members: as a majority tells them, or else as this controller's own knows them.
    pub list: Option<List>,
    /// A majority of the voters serves.
    pub has_majority: bool,
    /// Those that answer.
    pub answering: BTreeSet<MemberId>,
    /// The addresses of other controllers that are known of.
    pub others: BTreeSet<IpAddr>,
}

/// What is to be done about the others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Nothing: there are none.
    Alone,
    /// They are removed first, in this order.
    RemoveFirst(Vec<Member>),
    /// Nothing can be done: most are lost. These there were, as far as that is known.
    Lost(Vec<Member>),
}

/// Asks them. `others` are the addresses of other controllers that are known of.
pub(super) async fn look(cluster: &Cluster, controller: &Controller, tls: &Tls, others: BTreeSet<IpAddr>) -> Observed {
    let own_address = SocketAddr::new(cluster.loopback(), alarms::PORT);
    let declared = cluster.controllers.iter().map(|declared| declared.address);
    let others: BTreeSet<_> = declared.chain(others).filter(|address| *address != controller.address).collect();
    let known: Vec<_> = others.iter().map(|address| SocketAddr::new(*address, alarms::PORT)).collect();
    let mut asked = members::ask(own_address, &known, tls, CALL_LIMIT).await;
    let own = asked.this.and_then(|id| asked.answers.get(&id)).map(|answer| answer.status.clone());
    let mut list = asked.lists.first().cloned();
    let has_majority = list.is_some();
    if list.is_none() && own.is_some() {
        list = own_list(own_address, tls).await;
        // What it knows of the others has more addresses.
        let more = list.iter().flat_map(|list| list.members.values()).flat_map(Member::addresses);
        let more: Vec<_> = known.iter().copied().chain(more).collect();
        asked = members::ask(own_address, &more, tls, CALL_LIMIT).await;
        if let Some(told) = asked.lists.first() {
            return Observed {
                own,
                list: Some(told.clone()),
                has_majority: true,
                answering: asked.answers.into_keys().collect(),
                others,
            };
        }
    }
    Observed { own, list, has_majority, answering: asked.answers.into_keys().collect(), others }
}

/// The members as this controller's own knows them, without a majority.
async fn own_list(address: SocketAddr, tls: &Tls) -> Option<List> {
    Etcd::connect(address, tls, CALL_LIMIT).await.ok()?.known_members().await.ok()
}

/// Whether data may be restored here, and what comes first; `forced` makes a cluster of what this controller has.
///
/// # Errors
/// Why not, and what to do instead.
pub(super) fn verdict(o: &Observed, forced: bool) -> Result<Verdict, Finding> {
    let refuse = |message: String, remedy: &str| Err(Finding::new("etcd", message).remedy(remedy));
    let own = o.own.as_ref().and_then(|own| own.member);
    let entry = own.and_then(|own| o.list.as_ref()?.members.get(&own));
    let others: Vec<_> = o.others(own);
    let is_learner = o.own.as_ref().is_some_and(|own| own.is_learner) || entry.is_some_and(|entry| entry.is_learner);
    match (o.has_majority, own) {
        (true, Some(_)) if entry.is_some() && others.is_empty() => match forced {
            true => refuse("this controller has the only member, and it serves".into(), "nothing is lost"),
            false => Ok(Verdict::Alone),
        },
        (true, Some(_)) if entry.is_some() && !is_learner && !forced => Ok(Verdict::RemoveFirst(others)),
        (true, Some(_)) if entry.is_some() && !is_learner => refuse(
            format!("a majority of its members serves: {}", said(o.list.iter().flat_map(|list| list.members.values()))),
            "nothing is to be forced; `kubectl delete node NODE` removes the member of a controller that is lost for good",
        ),
        (true, _) => refuse(
            format!("a majority of its members serves without this controller's: {}", said(&others)),
            "run it on one of those controllers. This one becomes a member again by itself; `hoist status` shows what guard waits for",
        ),
        (false, Some(_)) if is_learner => refuse(
            "the member of this controller is a learner, which may lack a part of the data".into(),
            "run it on a controller whose member votes, or restore a snapshot or a backup",
        ),
        (false, None) if forced => refuse(
            "the member of this controller does not answer, so its data cannot be read".into(),
            "if an earlier run has put its data in place, `hoist recover` alone continues; otherwise see that it runs (`crictl ps --name etcd`), or restore a snapshot or a backup: --etcd-snapshot, --backup",
        ),
        (false, Some(_)) if others.is_empty() => match forced {
            true => refuse("this controller has the only member".into(), "`hoist status` shows what is wrong with it"),
            false => Ok(Verdict::Alone),
        },
        (false, None) if others.is_empty() && o.others.is_empty() => Ok(Verdict::Alone),
        (false, _) => Ok(Verdict::Lost(others)),
    }
}

impl Observed {
    /// The members but this controller's: those that do not answer first, as that makes the majority smaller, and the leader
    /// last.
    fn others(&self, own: Option<MemberId>) -> Vec<Member> {
        let all = self.list.iter().flat_map(|list| list.members.values());
        let mut others: Vec<_> = all.filter(|member| Some(member.id) != own).cloned().collect();
        let leads = |member: &Member| self.own.as_ref().is_some_and(|own| own.leader == Some(member.id));
        others.sort_by_key(|member| (self.answering.contains(&member.id), leads(member)));
        others
    }

    /// What is going to be done about them, as lines of a plan.
    pub(super) fn plan(&self, verdict: &Verdict) -> Vec<String> {
        match verdict {
            Verdict::Alone => Vec::new(),
            Verdict::RemoveFirst(others) => vec![format!(
                "remove the members {} from etcd, so that there are never two clusters; their controllers put their data aside, and come back by themselves as empty learners",
                said(others)
            )],
            Verdict::Lost(others) if others.is_empty() => vec![
                "make another cluster than that of the other controllers, whose members do not answer: none of those may come back with its data".into(),
            ],
            Verdict::Lost(others) => vec![format!(
                "make another cluster than that of the members {}, most of which are lost: none of those may come back with its data",
                said(others)
            )],
        }
    }

    /// What is lost if a cluster is made of this controller's data.
    pub(super) fn lost(&self) -> Vec<String> {
        let Some(own) = &self.own else { return Vec::new() };
        let voters: Vec<_> =
            self.list.iter().flat_map(|list| list.members.values()).filter(|member| !member.is_learner).collect();
        let others: Vec<_> = voters.iter().filter(|voter| Some(voter.id) != own.member).collect();
        let told = |voter: &Member| {
            let how = if self.answering.contains(&voter.id) { "answers" } else { "does not answer" };
            format!("{} {how}", voter.called())
        };
        let told: Vec<_> = others.iter().map(|voter| told(voter)).collect();
        let mut lines = vec![
            format!("etcd has {} voters, and no majority of them serves: {}", voters.len(), told.join(", ")),
            format!(
                "this controller's member has applied everything up to entry {} (revision {}, term {}): what the others acknowledged after that is lost, and nobody can say how much it is",
                own.applied, own.revision, own.term
            ),
        ];
        if own.index > own.applied {
            lines.push(format!("it knows of entries up to {}, which it has not applied", own.index));
        }
        lines
    }
}

/// What is left of members that are lost, with what to type.
pub(super) fn dead(lost: &[Member]) -> Vec<String> {
    let line = |member: &Member| {
        let name = member.called();
        format!(
            "{name} is no member any more; if its machine is lost for good: `kubectl delete node {name}`. It must not come back with its old data: remove etcd's data there first"
        )
    };
    lost.iter().map(line).collect()
}

fn said<'a>(members: impl IntoIterator<Item = &'a Member>) -> String {
    let names: Vec<_> = members.into_iter().map(Member::called).collect();
    names.join(", ")
}

/// Removes the others, one after the other, and waits until the guards of those that answered have put their data aside.
pub(super) struct Removal<'a> {
    pub(super) host: &'a Host,
    pub(super) cluster: &'a Cluster,
    pub(super) controller: &'a Controller,
    pub(super) tls: &'a Tls,
    pub(super) kubeconfig: &'a str,
    pub(super) observed: &'a Observed,
    pub(super) reporter: &'a Reporter,
}

impl Removal<'_> {
    /// Does it. Run again after an error, it goes on: the members are asked anew.
    ///
    /// # Errors
    /// A change that etcd refuses for too long; an API that is away; a guard that has not put its data aside. The cluster is
    /// whole, and has the members that are left.
    pub(super) async fn run(&self, others: &[Member]) -> Result<()> {
        self.reporter.start(STEP, "remove the other members of etcd");
        let done = self.removed(others).await;
        match &done {
            Ok(()) => self.reporter.done(STEP),
            Err(error) => self.reporter.fail(STEP, &error.to_string()),
        }
        done
    }

    async fn removed(&self, others: &[Member]) -> Result<()> {
        let client = self.client(others).await?;
        let mut turn = Turn::of_process("recover", self.host.world().now());
        let begun = Instant::now();
        while !self.keep(&mut turn, &client).await? {
            if begun.elapsed() > REMOVE_LIMIT {
                return Err(Error::failed("take the turn", "another controller changes etcd's members"));
            }
            self.reporter.waiting(STEP, "another controller to change etcd's members");
            sleep(AGAIN).await;
        }
        let reports = controllers::list(&client).await?;
        let count = |name: &str, all: &[controllers::ControllerNode]| {
            all.iter().find(|node| node.name == name).and_then(|node| node.report.as_ref()).map(|report| report.count)
        };
        let before: Vec<_> = others.iter().map(|member| count(&member.name, &reports)).collect();
        for member in others {
            self.remove(member, &mut turn, &client).await?;
            self.reporter.note(&format!("{} is no member of etcd any more", member.called()));
        }
        let begun = Instant::now();
        loop {
            // The API server of this controller is the only one that has an etcd.
            let client = self.client(&[]).await;
            let late = match client {
                Ok(client) => {
                    self.keep(&mut turn, &client).await?;
                    let now = controllers::list(&client).await?;
                    let is_late = |(member, before): &(&Member, &Option<u64>)| {
                        let is_controller = now.iter().any(|node| node.name == member.name);
                        let report =
                            now.iter().find(|node| node.name == member.name).and_then(|node| node.report.clone());
                        let is_empty = report.is_some_and(|report| report.is_empty && Some(report.count) != **before);
                        self.observed.answering.contains(&member.id) && is_controller && !is_empty
                    };
                    others.iter().zip(&before).filter(is_late).map(|(member, _)| member.called()).collect::<Vec<_>>()
                }
                Err(error) => vec![error.to_string()],
            };
            if late.is_empty() {
                return Ok(());
            }
            if begun.elapsed() > ASIDE_LIMIT {
                return Err(Error::Failed {
                    action: "have the other controllers put etcd's data aside".into(),
                    cause: format!("not done: {}", late.join(", ")),
                    next: Some(
                        "etcd's data here is as it was, and this controller has the only member. `kubectl -n kube-system logs hoist-guard-NODE` of those controllers shows why; `kubectl delete node NODE` if one is lost. Then run the same command again"
                            .into(),
                    ),
                });
            }
            self.reporter.waiting(STEP, &format!("the guards to put etcd's data aside: {}", late.join(", ")));
            sleep(AGAIN).await;
        }
    }

    /// A client of an API server that serves: this controller's, or that of another.
    async fn client(&self, others: &[Member]) -> Result<Client> {
        let probe = self.host.world().probe(self.tls.get("ca.crt").map(Vec::as_slice).unwrap_or_default())?;
        let others = others.iter().flat_map(Member::addresses).map(|address| address.ip());
        for address in [self.controller.address].into_iter().chain(others) {
            let address = SocketAddr::new(address, API_PORT);
            if probe.get(address, "/readyz", CALL_LIMIT).await.is_ready() {
                return self.host.world().connect(self.kubeconfig, address).await;
            }
        }
        Err(Error::failed("reach the API", "no API server says that it is ready"))
    }

    async fn keep(&self, turn: &mut Turn, client: &Client) -> Result<bool> {
        turn.take(client, Instant::now(), self.host.world().now()).await
    }

    /// Removes one, at this controller's own; leadership is moved here first.
    async fn remove(&self, member: &Member, turn: &mut Turn, client: &Client) -> Result<()> {
        let own = SocketAddr::new(self.cluster.loopback(), alarms::PORT);
        let begun = Instant::now();
        loop {
            // The lease may have run out where etcd was slow; an API that is away changes no members either.
            let _ = self.keep(turn, client).await;
            let why = match self.remove_once(own, member).await {
                Ok(true) => return Ok(()),
                Ok(false) => "it is still listed".to_owned(),
                Err(failed) => failed,
            };
            if begun.elapsed() > REMOVE_LIMIT {
                return Err(Error::Failed {
                    action: format!("remove {} from etcd", member.called()),
                    cause: why,
                    next: Some("etcd's data is as it was; run the same command again".into()),
                });
            }
            self.reporter.waiting(STEP, &format!("etcd to remove {}: {why}", member.called()));
            sleep(AGAIN).await;
        }
    }

    async fn remove_once(&self, own: SocketAddr, member: &Member) -> Result<bool, String> {
        let mut etcd = Etcd::connect(own, self.tls, CALL_LIMIT).await.map_err(|failed| failed.to_string())?;
        let status = etcd.status().await.map_err(|failed| failed.to_string())?;
        if status.leader == Some(member.id)
            && let (Some(here), Some(address)) = (status.member, member.addresses().next())
            && let Ok(mut leader) = Etcd::connect(address, self.tls, CALL_LIMIT).await
        {
            leader.move_leader(here).await.map_err(|failed| failed.to_string())?;
        }
        let removed = etcd.remove(member.id).await;
        let list = etcd.members().await.map_err(|failed| failed.to_string())?;
        match (list.members.contains_key(&member.id), removed) {
            (false, _) => Ok(true),
            (true, Ok(())) => Ok(false),
            (true, Err(failed)) => Err(failed.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn member(id: u64) -> (MemberId, Member) {
        let member = Member {
            id: MemberId(id),
            name: format!("c{id}"),
            peer_urls: vec![format!("https://10.0.0.{id}:2380")],
            client_urls: vec![format!("https://10.0.0.{id}:2379")],
            is_learner: false,
        };
        (MemberId(id), member)
    }

    /// Three members, all well, as the first one sees them; the second leads.
    fn well() -> Observed {
        Observed {
            own: Some(Status {
                member: Some(MemberId(1)),
                leader: Some(MemberId(2)),
                applied: 70,
                index: 71,
                revision: 60,
                term: 3,
                ..Status::default()
            }),
            list: Some(List { cluster: 7, members: BTreeMap::from([member(1), member(2), member(3)]) }),
            has_majority: true,
            answering: [1, 2, 3].map(MemberId).into(),
            others: [IpAddr::from([10, 0, 0, 2]), IpAddr::from([10, 0, 0, 3])].into(),
        }
    }

    /// The same with the two others gone.
    fn lost() -> Observed {
        Observed { has_majority: false, answering: [MemberId(1)].into(), ..well() }
    }

    fn alone() -> Observed {
        let list = Some(List { cluster: 7, members: BTreeMap::from([member(1)]) });
        Observed { list, answering: [MemberId(1)].into(), others: BTreeSet::new(), ..well() }
    }

    fn refuses(o: &Observed, forced: bool, why: &str) {
        let finding = verdict(o, forced).unwrap_err().to_string();
        assert!(finding.contains(why), "{finding}");
    }

    fn names(members: &[Member]) -> Vec<&str> {
        members.iter().map(|member| &*member.name).collect()
    }

    #[test]
    fn a_snapshot_is_restored_after_the_others_are_removed_the_leader_last() {
        let Ok(Verdict::RemoveFirst(others)) = verdict(&well(), false) else { panic!() };
        assert_eq!(names(&others), ["c3", "c2"], "the second leads");
        let away = Observed { answering: [1, 2].map(MemberId).into(), ..well() };
        let Ok(Verdict::RemoveFirst(others)) = verdict(&away, false) else { panic!() };
        assert_eq!(names(&others), ["c3", "c2"], "one that is away first");
        assert!(well().plan(&Verdict::RemoveFirst(others))[0].contains("c3, c2"));
        assert_eq!(verdict(&alone(), false), Ok(Verdict::Alone));
        assert_eq!(
            verdict(&Observed::default(), false),
            Ok(Verdict::Alone),
            "its data is lost, and there was no other"
        );
    }

    #[test]
    fn where_a_majority_serves_without_this_one_nothing_is_restored() {
        let silent = Observed { own: None, ..well() };
        refuses(&silent, false, "a majority of its members serves without");
        refuses(&silent, true, "a majority of its members serves without");
        let mut removed = well();
        removed.list.as_mut().unwrap().members.remove(&MemberId(1));
        refuses(&removed, false, "c3, c2");
        let mut learner = well();
        learner.own.as_mut().unwrap().is_learner = true;
        refuses(&learner, false, "without this controller's");
    }

    #[test]
    fn a_cluster_is_forced_only_of_one_that_has_lost_the_others() {
        refuses(&well(), true, "a majority of its members serves");
        refuses(&alone(), true, "the only member");
        refuses(&Observed { has_majority: false, ..alone() }, true, "the only member");
        refuses(&Observed { own: None, ..lost() }, true, "does not answer");
        let mut learner = lost();
        learner.own.as_mut().unwrap().is_learner = true;
        refuses(&learner, true, "a learner");
        let Ok(Verdict::Lost(others)) = verdict(&lost(), true) else { panic!() };
        assert_eq!(names(&others), ["c3", "c2"]);
        let said = lost().lost().join("\n");
        for part in ["3 voters", "c2 does not answer", "entry 70 (revision 60, term 3)", "entries up to 71"] {
            assert!(said.contains(part), "{said}");
        }
        assert!(matches!(verdict(&lost(), false), Ok(Verdict::Lost(_))), "a snapshot needs nobody");
        let known = Observed { own: None, list: None, has_majority: false, ..well() };
        assert_eq!(verdict(&known, false), Ok(Verdict::Lost(Vec::new())), "guard remembers others");
    }
}
