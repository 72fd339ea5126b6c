//! Which member of a tenant's etcd is changed next, where there are several: one at a time, each once all others have proved
//! themselves, and none while it leads. Decided purely; nothing is remembered.
//!
//! | # | observed | next |
//! |---|---|---|
//! | 1 | members are not there | they are made, all at once: a majority of them forms the cluster |
//! | 2 | no member is to be changed | nothing |
//! | 3 | one that is to be changed is ready neither by the kubelet's word nor by its own | it is changed |
//! | 4 | another one is not ready, does not answer, does not follow the leader, or is not in sync | wait |
//! | 5 | one that does not lead is to be changed | it is changed, the last one first |
//! | 6 | the leader alone is | it hands leadership to the member that is furthest |

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use futures::future::join_all;
use serde_json::Value;

use super::apply::{self, MEMBERS};
use super::conditions::is_rolled_out;
use super::differs;
use super::tenant::{Addresses, Tenant};
use crate::desired::secrets::Tls;
use crate::etcd::client::{Client, MemberId, Status};
use crate::etcd::members::IN_SYNC;

/// Where members answer clients.
const PORT: u16 = 2379;
/// How long each may take for an answer.
const LIMIT: Duration = Duration::from_secs(2);

/// A member as it is.
#[derive(Debug, Clone, Default)]
struct Member {
    /// Its workload is there.
    is_there: bool,
    /// It shall be another one than it is.
    differs: bool,
    /// Its pod is that of its workload, and the kubelet finds it ready: it has read through a majority.
    is_ready: bool,
    /// What it says itself, if it says anything.
    answer: Option<Status>,
}

/// What is next, by the members' numbers.
#[derive(Debug, PartialEq, Eq)]
enum Next {
    /// Nothing.
    Rest,
    /// These are written.
    Write(Vec<usize>),
    /// The first hands leadership to the second.
    Move(usize, MemberId),
    /// Nothing, for this reason.
    Wait(String),
}

/// What is left as it is in this turn.
#[derive(Debug, Default)]
pub struct Held {
    /// The workloads.
    pub workloads: BTreeMap<&'static str, Value>,
    /// What they wait for.
    pub waits: Option<String>,
}

/// Takes out of `objects` the members that are not to be changed in this turn, `there` being the workloads as they are; moves
/// leadership where that comes first. Nobody is asked where nothing is to be changed.
pub async fn hold(
    tenant: &Tenant,
    objects: &mut Vec<Value>,
    there: &BTreeMap<&'static str, Value>,
    at: &Addresses,
    tls: &Tls,
) -> Held {
    if tenant.members() == 1 {
        return Held::default();
    }
    let number = |object: &Value| {
        let (name, _) = apply::workload(tenant, object)?;
        MEMBERS.iter().position(|member| *member == name)
    };
    let mut members = vec![Member::default(); tenant.members()];
    for object in objects.iter() {
        let Some(number) = number(object) else { continue };
        let Some(live) = there.get(MEMBERS[number]) else { continue };
        let differs = differs::why(Some(live), object).is_some();
        members[number] = Member { is_there: true, differs, is_ready: is_rolled_out(live), answer: None };
    }
    if members.iter().any(|member| member.differs) {
        let answers = join_all(at.etcd.iter().map(|ip| ask(SocketAddr::new(*ip, PORT), tls))).await;
        for (member, answer) in members.iter_mut().zip(answers) {
            member.answer = answer;
        }
    }
    let called = |number: usize| tenant.member(number);
    let (written, waits) = match decide(&members, &called) {
        Next::Rest => return Held::default(),
        Next::Write(numbers) => (numbers, None),
        Next::Wait(why) => (Vec::new(), Some(why)),
        Next::Move(from, to) => {
            let moved = move_leader(at.etcd.get(from).map(|ip| SocketAddr::new(*ip, PORT)), to, tls).await;
            let why = match moved {
                Ok(()) => format!("{} hands leadership to another member before it is replaced", called(from)),
                Err(why) => format!("{} does not hand leadership to another member: {why}", called(from)),
            };
            (Vec::new(), Some(why))
        }
    };
    let is_held = |object: &Value| {
        number(object)
            .filter(|number| members[*number].is_there && members[*number].differs && !written.contains(number))
    };
    let mut held = Held { workloads: BTreeMap::new(), waits };
    objects.retain(|object| match is_held(object) {
        Some(number) => {
            held.workloads.extend(there.get(MEMBERS[number]).map(|live| (MEMBERS[number], live.clone())));
            false
        }
        None => true,
    });
    held
}

async fn ask(address: SocketAddr, tls: &Tls) -> Option<Status> {
    let mut client = Client::connect(address, tls, LIMIT).await.ok()?;
    client.status().await.ok()
}

async fn move_leader(address: Option<SocketAddr>, to: MemberId, tls: &Tls) -> Result<(), String> {
    let address = address.ok_or("it has no address")?;
    let mut client = Client::connect(address, tls, LIMIT).await.map_err(|error| error.to_string())?;
    client.move_leader(to).await.map_err(|error| error.to_string())
}

/// Decides.
fn decide(members: &[Member], called: &dyn Fn(usize) -> String) -> Next {
    let missing: Vec<_> = (0..members.len()).filter(|number| !members[*number].is_there).collect();
    if !missing.is_empty() {
        return Next::Write(missing);
    }
    let to_change: Vec<_> = (0..members.len()).rev().filter(|number| members[*number].differs).collect();
    let Some(last) = to_change.first() else { return Next::Rest };
    let is_down = |number: &&usize| !members[**number].is_ready && members[**number].answer.is_none();
    if let Some(down) = to_change.iter().find(is_down) {
        return Next::Write(vec![*down]);
    }
    let leader = members.iter().filter_map(|member| member.answer.as_ref()).find(|said| said.leader == said.member);
    let Some(leader) = leader.filter(|said| said.leader.is_some()) else {
        return Next::Wait("no member of etcd says that it leads: none is replaced before one does".into());
    };
    let leads = |number: usize| members[number].answer.as_ref().is_some_and(|said| said.member == leader.member);
    let next = to_change.iter().find(|number| !leads(**number)).unwrap_or(last);
    for other in (0..members.len()).filter(|other| other != next) {
        if let Some(why) = why_not_well(&members[other], leader) {
            return Next::Wait(format!("{} is replaced once {} is well, which {why}", called(*next), called(other)));
        }
    }
    if !leads(*next) {
        return Next::Write(vec![*next]);
    }
    let others = (0..members.len()).filter(|other| other != next);
    let heir = others.filter_map(|other| members[other].answer.as_ref()).max_by_key(|said| said.applied);
    match heir.and_then(|said| said.member) {
        Some(heir) => Next::Move(*next, heir),
        None => Next::Wait(format!("{} leads, and no other member can", called(*next))),
    }
}

fn why_not_well(member: &Member, leader: &Status) -> Option<String> {
    let Some(said) = &member.answer else { return Some("does not answer".into()) };
    let behind = leader.index.saturating_sub(said.applied);
    match () {
        () if !member.is_ready => Some("is not ready".into()),
        () if said.leader != leader.member => Some("does not follow the leader".into()),
        () if said.is_learner => Some("has no vote".into()),
        () if behind > IN_SYNC => Some(format!("is {behind} entries behind")),
        () if !said.errors.is_empty() => Some(format!("says: {}", said.errors.join(", "))),
        () => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Three that are well, of which the first one leads.
    fn three() -> Vec<Member> {
        let of = |number: u64| Status {
            member: Some(MemberId(number)),
            leader: Some(MemberId(1)),
            index: 5000,
            applied: 4990 + number,
            ..Status::default()
        };
        (1..=3)
            .map(|number| Member { is_there: true, differs: false, is_ready: true, answer: Some(of(number)) })
            .collect()
    }

    fn next(members: &[Member]) -> Next {
        decide(members, &|number| format!("a-etcd-{number}"))
    }

    #[test]
    fn members_are_replaced_one_by_one_and_the_leader_last_once_it_leads_no_more() {
        let mut members = three();
        assert_eq!(next(&members), Next::Rest);
        members.iter_mut().for_each(|member| member.differs = true);
        assert_eq!(next(&members), Next::Write(vec![2]));
        members[2] = Member { is_ready: false, differs: false, ..members[2].clone() };
        assert_eq!(next(&members), Next::Wait("a-etcd-1 is replaced once a-etcd-2 is well, which is not ready".into()));
        members[2].is_ready = true;
        assert_eq!(next(&members), Next::Write(vec![1]));
        members[1].differs = false;
        assert_eq!(next(&members), Next::Move(0, MemberId(3)), "to the one that is furthest");
        for member in &mut members {
            member.answer.as_mut().unwrap().leader = Some(MemberId(3));
        }
        assert_eq!(next(&members), Next::Write(vec![0]));
    }

    #[test]
    fn none_is_replaced_while_another_one_is_not_well() {
        type Break = fn(&mut Member);
        let table: [(Break, &str); 6] = [
            (|member| member.is_ready = false, "is not ready"),
            (|member| member.answer = None, "does not answer"),
            (|member| member.answer.as_mut().unwrap().leader = None, "does not follow"),
            (|member| member.answer.as_mut().unwrap().applied = 3999, "1001 entries behind"),
            (|member| member.answer.as_mut().unwrap().is_learner = true, "has no vote"),
            (|member| member.answer.as_mut().unwrap().errors = vec!["NOSPACE".into()], "says: NOSPACE"),
        ];
        for (broken, why) in table {
            let mut members = three();
            members[2].differs = true;
            broken(&mut members[1]);
            match next(&members) {
                Next::Wait(said) => assert!(said.contains(why), "{said}"),
                other => panic!("{why}: {other:?}"),
            }
        }
        let mut members = three();
        members[2].differs = true;
        for member in &mut members {
            member.answer.as_mut().unwrap().leader = None;
        }
        assert!(matches!(next(&members), Next::Wait(_)), "there is an election");
    }

    #[test]
    fn one_that_is_down_is_replaced_first_whatever_the_others_are() {
        let mut members = three();
        members.iter_mut().for_each(|member| member.differs = true);
        (members[1].is_ready, members[1].answer) = (false, None);
        assert_eq!(next(&members), Next::Write(vec![1]), "an edit that repairs it");
        (members[2].is_ready, members[2].answer) = (false, None);
        assert_eq!(next(&members), Next::Write(vec![2]));
        // One that the operator alone does not reach may serve.
        members = three();
        members[1].differs = true;
        members[1].answer = None;
        assert_eq!(next(&members), Next::Write(vec![1]), "and costs no majority as long as the others are well");
        members[2].answer = None;
        assert!(matches!(next(&members), Next::Wait(_)));
    }

    #[test]
    fn members_that_are_not_there_are_made_together() {
        assert_eq!(next(&vec![Member::default(); 3]), Next::Write(vec![0, 1, 2]));
        let mut members = three();
        members[0].differs = true;
        members[1] = Member::default();
        assert_eq!(next(&members), Next::Write(vec![1]));
    }
}
