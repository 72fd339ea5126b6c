//! etcd's members, as this controller's etcd and they themselves tell: pure.

use serde::Serialize;

use crate::etcd::alarms::{Alarm, DEFAULT_QUOTA, Health};
use crate::etcd::client;
use crate::etcd::members::{Asked, IN_SYNC};

/// A member of etcd.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Member {
    /// Its name, or where the others reach it while it has not started yet.
    pub name: String,
    /// Its id, as etcdctl shows it.
    pub id: String,
    /// Where clients reach it; `null` while it has not started yet.
    pub address: Option<String>,
    /// `voter` or `learner`.
    pub role: &'static str,
    /// It leads.
    pub leader: bool,
    /// It answers; what follows is known of those alone that do.
    pub answers: bool,
    /// The version of etcd that it runs.
    pub version: Option<String>,
    /// How many entries it is behind the leader.
    pub behind: Option<u64>,
    /// The bytes of its database.
    pub size: Option<i64>,
    /// How many of them are in use; a defragmentation gives back the others.
    pub size_in_use: Option<i64>,
    /// How many it may have.
    pub quota: Option<i64>,
    /// The alarms that it has raised, as etcd names them.
    pub alarms: Vec<String>,
}

/// The members by name, and what is wrong with them: each as a sentence without a full stop, with what to type. `node` is
/// this controller, whose etcd is as `health` says.
pub(super) fn members(asked: &Asked, health: &Health, node: &str) -> (Vec<Member>, Vec<String>) {
    let mut problems = Vec::new();
    let own = asked.this.and_then(|id| asked.answers.get(&id));
    // This controller's own list counts, where its member votes.
    let Some(list) = asked.lists.first() else {
        problems.extend(said(health, node));
        if own.is_some_and(|own| own.status.is_learner) {
            problems.push("etcd's member on this controller is a learner, and has no vote yet".into());
        } else {
            problems.push("no voter of etcd tells the members: most of them are away, or none leads; `crictl ps -a --name etcd` on each controller shows which".into());
        }
        return (Vec::new(), problems);
    };
    if asked.lists.iter().any(|other| !other.agrees(list)) {
        problems.push("etcd's voters tell different members: run `hoist status` again; if they do so still, compare `etcdctl member list` on each controller".into());
    }
    let leader = own.and_then(|own| own.status.leader);
    let index = leader.and_then(|leader| asked.answers.get(&leader)).map(|leader| leader.status.index);
    let voters = list.members.values().filter(|member| !member.is_learner).count();
    let answer =
        list.members.values().filter(|member| !member.is_learner && asked.answers.contains_key(&member.id)).count();
    let mut members: Vec<_> = list
        .members
        .values()
        .map(|member| {
            let status = asked.answers.get(&member.id).map(|answer| &answer.status);
            let behind = status.zip(index).map(|(status, index)| index.saturating_sub(status.applied));
            let alarms = health.raised.get(&member.id);
            let name = member.called();
            if status.is_none() {
                problems.push(away(member, answer, voters));
            }
            if let Some(behind) = behind.filter(|behind| *behind > IN_SYNC && !member.is_learner) {
                problems.push(format!(
                    "etcd's member {name} is {behind} entries behind: `kubectl -n kube-system logs etcd-{name}` says why"
                ));
            }
            if let Some(alarms) = alarms {
                let of_it = Health {
                    alarms: alarms.clone(),
                    size: status.map_or(health.size, |status| status.size),
                    quota: status.and_then(|status| status.quota).unwrap_or(health.quota),
                    ..health.clone()
                };
                problems.extend(said(&of_it, if member.name.is_empty() { node } else { &name }));
            }
            Member {
                name,
                id: member.id.to_string(),
                address: member.client_urls.first().cloned(),
                role: if member.is_learner { "learner" } else { "voter" },
                leader: leader == Some(member.id),
                answers: status.is_some(),
                version: status.map(|status| status.version.clone()),
                behind,
                size: status.map(|status| status.size),
                size_in_use: status.map(|status| status.size_in_use),
                quota: status.map(|status| status.quota.unwrap_or(DEFAULT_QUOTA)),
                alarms: alarms.into_iter().flatten().map(Alarm::name).collect(),
            }
        })
        .collect();
    members.sort_by(|a, b| a.name.cmp(&b.name));
    (members, problems)
}

fn said(health: &Health, node: &str) -> Vec<String> {
    health.said(node).iter().map(|(what, remedy)| format!("{what}: {remedy}")).collect()
}

fn away(member: &client::Member, answer: usize, voters: usize) -> String {
    let name = member.called();
    if member.name.is_empty() {
        return format!(
            "etcd's learner at {name} has not started yet: `crictl ps -a --name etcd` on that machine shows why, if it lasts"
        );
    }
    let place = member.client_urls.first().cloned().unwrap_or_else(|| "no address".into());
    let role = if member.is_learner { "learner" } else { "member" };
    format!(
        "etcd's {role} {name} does not answer at {place}; {answer} of {voters} voters do: power its machine on, or see `crictl ps -a --name etcd` there; if it is gone for good, `kubectl delete node {name}`"
    )
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;
    use crate::etcd::client::{List, MemberId, Status};
    use crate::etcd::members::Answer;

    /// c1 leads, c2 is behind, c3 is away, and a learner has not started.
    fn asked() -> (Asked, Health) {
        let url = |number: u64, port: u16| format!("https://10.0.0.{number}:{port}");
        let member = |number: u64, is_learner: bool| client::Member {
            id: MemberId(number + 0xa0),
            name: if is_learner { String::new() } else { format!("c{number}") },
            peer_urls: vec![url(number, 2380)],
            client_urls: if is_learner { Vec::new() } else { vec![url(number, 2379)] },
            is_learner,
        };
        let members = [member(1, false), member(2, false), member(3, false), member(4, true)];
        let answer = |number: u64, applied: u64| {
            let status = Status {
                member: Some(MemberId(number + 0xa0)),
                version: "3.7.0".into(),
                leader: Some(MemberId(0xa1)),
                index: 5000,
                applied,
                size: (20 << 20) * number as i64,
                quota: Some(2 << 30),
                ..Status::default()
            };
            let address = format!("10.0.0.{number}:2379").parse().unwrap();
            (MemberId(number + 0xa0), Answer { address, status, healthy: false })
        };
        let list = List { cluster: 1, members: members.into_iter().map(|member| (member.id, member)).collect() };
        let asked = Asked {
            lists: vec![list.clone(), list],
            answers: BTreeMap::from([answer(1, 5000), answer(2, 4997)]),
            this: Some(MemberId(0xa1)),
        };
        let health = Health {
            address: "127.0.0.1:2379".parse().unwrap(),
            alarms: BTreeSet::new(),
            raised: BTreeMap::new(),
            size: 20 << 20,
            quota: 2 << 30,
            revision: 7,
        };
        (asked, health)
    }

    #[test]
    fn each_member_is_told() {
        let (asked, health) = asked();
        let (members, problems) = members(&asked, &health, "c1");
        let short = |member: &Member| {
            (
                member.name.clone(),
                member.role,
                member.leader,
                member.answers,
                member.behind,
                member.size.map(|size| size >> 20),
            )
        };
        assert_eq!(
            members.iter().map(short).collect::<Vec<_>>(),
            [
                ("c1".to_owned(), "voter", true, true, Some(0), Some(20)),
                ("c2".to_owned(), "voter", false, true, Some(3), Some(40)),
                ("c3".to_owned(), "voter", false, false, None, None),
                ("https://10.0.0.4:2380".to_owned(), "learner", false, false, None, None),
            ]
        );
        assert_eq!(problems.len(), 2, "{problems:?}");
        assert!(
            problems[0].starts_with("etcd's member c3 does not answer at https://10.0.0.3:2379; 2 of 3 voters do: ")
        );
        assert!(problems[1].starts_with("etcd's learner at https://10.0.0.4:2380 has not started yet"), "{problems:?}");
    }

    #[test]
    fn an_alarm_is_told_of_the_member_that_has_raised_it() {
        let (mut asked, mut health) = asked();
        health.alarms = BTreeSet::from([Alarm::NoSpace]);
        health.raised = BTreeMap::from([(MemberId(0xa2), health.alarms.clone())]);
        asked.answers.get_mut(&MemberId(0xa2)).unwrap().status.applied = 7;
        let (members, problems) = members(&asked, &health, "c1");
        assert_eq!((&*members[0].alarms, &*members[1].alarms), (&[][..], &["NOSPACE".to_owned()][..]));
        assert!(problems[0].starts_with("etcd's member c2 is 4993 entries behind: "), "{problems:?}");
        assert!(problems[1].contains("NOSPACE: its database has 40 MiB of 2048 MiB"), "{problems:?}");
        assert!(problems[1].contains("exec etcd-c2 -- etcdctl --endpoints=https://127.0.0.1:2379 "), "{problems:?}");
    }

    #[test]
    fn without_a_list_the_controllers_own_etcd_is_told() {
        let (mut asked, mut health) = asked();
        (asked.lists, health.alarms) = (Vec::new(), BTreeSet::from([Alarm::Corrupt]));
        let told = |asked: &Asked| {
            let (members, problems) = members(asked, &health, "c1");
            assert!(members.is_empty() && problems.len() == 2 && problems[0].contains("CORRUPT"), "{problems:?}");
            problems[1].clone()
        };
        assert!(told(&asked).starts_with("no voter of etcd tells the members"));
        asked.answers.get_mut(&MemberId(0xa1)).unwrap().status.is_learner = true;
        assert!(told(&asked).contains("is a learner, and has no vote yet"));
    }

    #[test]
    fn lists_that_differ_are_told() {
        let (mut asked, health) = asked();
        asked.lists[1].members.pop_last();
        assert!(members(&asked, &health, "c1").1[0].starts_with("etcd's voters tell different members"));
    }
}
