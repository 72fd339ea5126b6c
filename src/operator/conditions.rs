//! What is said of a tenant in its status. Pure.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::apply::MEMBERS;
use super::trouble::Trouble;

/// The conditions, in the order in which a tenant comes up; `Ready` follows from them.
pub const ALL: [&str; 6] = ["Accepted", "EtcdReady", "APIServerReady", "ControllersReady", UPGRADED, "AddonsApplied"];
/// Whether every part is of the version that the spec names.
pub const UPGRADED: &str = "Upgraded";
/// The last one: all of them.
pub const READY: &str = "Ready";
/// Whether the last snapshot that was due was taken, and what is to be restored was. A tenant is ready without.
pub const SNAPSHOTS: &str = "SnapshotsTaken";
/// Its reason where none are to be taken.
const NOT_ASKED: &str = "NotAsked";
/// Whether what the object names in `addons` is applied. A tenant is ready without: an add-on may wait for its nodes.
pub const SPEC_ADDONS: &str = "SpecAddonsApplied";

/// The reasons of what is not so yet, and will be.
pub const ON_ITS_WAY: [&str; 9] =
    ["Starting", "RollingOut", "NoLeader", "NotServed", "Waiting", "Restoring", "Trying", "Committed", "GoingBack"];

/// A condition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condition {
    /// Which.
    pub kind: &'static str,
    /// Whether it is so; `None` is not known.
    pub is_so: Option<bool>,
    /// Why, in one word.
    pub reason: String,
    /// Why, for people.
    pub message: String,
}

impl Condition {
    /// One that is so.
    pub fn yes(kind: &'static str, reason: &str, message: impl Into<String>) -> Self {
        Self { kind, is_so: Some(true), reason: reason.into(), message: message.into() }
    }

    /// One that is not.
    pub fn no(kind: &'static str, reason: &str, message: impl Into<String>) -> Self {
        Self { kind, is_so: Some(false), reason: reason.into(), message: message.into() }
    }
}

/// What the tenant's API says of the tenant.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Inside {
    /// It is served.
    pub is_served: bool,
    /// What keeps objects from being applied; `None` where all are.
    pub unapplied: Option<String>,
    /// Who does not lead.
    pub leaderless: Vec<String>,
    /// How many Nodes there are.
    pub nodes: Option<usize>,
}

/// What was seen of a tenant's workloads.
#[derive(Debug, Default)]
pub struct Seen {
    /// The workloads as they are, by what follows the tenant's name in theirs.
    pub workloads: BTreeMap<&'static str, Value>,
    /// What is in the way of each.
    pub troubles: BTreeMap<&'static str, Trouble>,
    /// What the next change of a member of etcd waits for.
    pub held: Option<String>,
    /// What the tenant's API says.
    pub inside: Inside,
    /// What is in the way of its add-ons, if anything is; `None` where they were not looked at.
    pub addons: Option<Option<Trouble>>,
    /// The CronJob that takes snapshots, where there is to be one.
    pub backup: Option<Value>,
    /// What kept a snapshot from being restored.
    pub unrestored: Option<Trouble>,
    /// Whether it is of the version that its spec names.
    pub upgrade: Option<Condition>,
}

impl Seen {
    /// Whether a workload has a pod that serves.
    pub fn serves(&self, name: &str) -> bool {
        self.workloads.get(name).is_some_and(|workload| workload["status"]["readyReplicas"].as_u64() >= Some(1))
    }

    /// Whether all pods of a workload are of its last revision, and ready.
    pub fn is_rolled_out(&self, name: &str) -> bool {
        self.workloads.get(name).is_some_and(is_rolled_out)
    }

    fn workload(&self, kind: &'static str, name: &'static str, what: &str) -> Condition {
        match (self.serves(name), self.troubles.get(name)) {
            (true, _) if self.is_rolled_out(name) => Condition::yes(kind, "Ready", format!("{what} is ready")),
            // What runs serves on while what is new does not come.
            (true, Some(trouble)) => {
                Condition::no(kind, trouble.reason, format!("{}. What ran before runs on", trouble.message))
            }
            (true, None) => {
                Condition::no(kind, "RollingOut", format!("{what} is being replaced: the pods before it serve on"))
            }
            (false, Some(trouble)) => Condition::no(kind, trouble.reason, trouble.message.clone()),
            (false, None) => Condition::no(kind, "Starting", format!("{what} is not ready yet")),
        }
    }

    /// What is said of etcd: of several members a majority serves.
    fn etcd(&self) -> Condition {
        let members: Vec<_> = self.workloads.keys().filter(|name| MEMBERS.contains(name)).copied().collect();
        if members.len() <= 1 {
            return self.workload("EtcdReady", "etcd", "etcd");
        }
        let (count, needed) = (members.len(), members.len() / 2 + 1);
        let ready = members.iter().filter(|name| self.serves(name)).count();
        if members.iter().all(|name| self.is_rolled_out(name)) && self.held.is_none() {
            return Condition::yes("EtcdReady", "Ready", format!("all {count} members of etcd are ready"));
        }
        let said = match ready {
            _ if ready == count => "all members of etcd are ready".to_owned(),
            _ if ready >= needed => format!("{ready} of {count} members of etcd are ready: they serve"),
            _ => format!("{ready} of {count} members of etcd are ready, and it takes {needed} to serve"),
        };
        let which: Vec<_> = members
            .iter()
            .filter_map(|name| self.workloads.get(name).filter(|_| !self.serves(name)))
            .filter_map(|workload| workload["metadata"]["name"].as_str())
            .collect();
        let which = if which.is_empty() { String::new() } else { format!(". Not ready: {}", which.join(", ")) };
        let trouble = members.iter().find_map(|name| self.troubles.get(name));
        let why = trouble.map(|trouble| format!(". {}", trouble.message));
        let why = why.or_else(|| self.held.as_ref().map(|held| format!(". {held}"))).unwrap_or_default();
        let reason = match trouble {
            Some(trouble) => trouble.reason,
            None if ready >= needed => "RollingOut",
            None => "Starting",
        };
        Condition::no("EtcdReady", reason, format!("{said}{which}{why}"))
    }

    /// What keeps a new version from coming is said with the way back, as long as there is one.
    fn upgraded(&self) -> Condition {
        let Some(said) = &self.upgrade else { return Condition::yes(UPGRADED, "Current", "no other version was seen") };
        let names = ["apiserver", "controller-manager", "scheduler"].into_iter().chain(MEMBERS);
        match names.into_iter().find_map(|name| self.troubles.get(name)) {
            Some(trouble) if said.is_so == Some(false) => {
                Condition::no(UPGRADED, trouble.reason, format!("{}. {}", trouble.message, said.message))
            }
            _ => said.clone(),
        }
    }

    /// What is said of snapshots; nothing new while one is under way that is not the first.
    fn snapshots(&self) -> Option<Condition> {
        if let Some(trouble) = &self.unrestored {
            return Some(Condition::no(SNAPSHOTS, trouble.reason, trouble.message.clone()));
        }
        let Some(job) = &self.backup else {
            return Some(Condition::yes(SNAPSHOTS, NOT_ASKED, "spec.backup asks for none"));
        };
        let time = |field: &str| job["status"][field].as_str();
        let is_at_work = job["status"]["active"].as_array().is_some_and(|active| !active.is_empty());
        let (due, taken) = (time("lastScheduleTime"), time("lastSuccessfulTime"));
        let Some(due) = due else { return Some(Condition::yes(SNAPSHOTS, "NotDue", "none was due yet")) };
        let (namespace, name) = (&job["metadata"]["namespace"], &job["metadata"]["name"]);
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let remedy = format!("`kubectl -n {} describe cronjob {}` and its pods say", text(namespace), text(name));
        match taken {
            Some(taken) if taken >= due => {
                Some(Condition::yes(SNAPSHOTS, "Taken", "snapshots are taken as spec.backup says"))
            }
            None if is_at_work => {
                let message = format!("none was taken yet, and one is under way. {remedy} how far it is");
                Some(Condition::no(SNAPSHOTS, "UnderWay", message))
            }
            Some(_) if is_at_work => None,
            _ => {
                let message = format!("the snapshot that was due at {due} was not taken. {remedy} why");
                Some(Condition::no(SNAPSHOTS, "NotTaken", message))
            }
        }
    }

    /// What is said of it.
    pub fn conditions(&self) -> Vec<Condition> {
        let mut all = vec![
            Condition::yes("Accepted", "Accepted", "the spec is accepted"),
            self.etcd(),
            match self.workload("APIServerReady", "apiserver", "the API server") {
                ready if ready.is_so == Some(true) && !self.inside.is_served => {
                    Condition::no("APIServerReady", "NotServed", "the API server does not answer at its Service yet")
                }
                other => other,
            },
        ];
        let manager = self.workload("ControllersReady", "controller-manager", "kube-controller-manager");
        let scheduler = self.workload("ControllersReady", "scheduler", "kube-scheduler");
        all.push(match () {
            () if manager.is_so != Some(true) => manager,
            () if scheduler.is_so != Some(true) => scheduler,
            () if !self.inside.is_served || !self.inside.leaderless.is_empty() => {
                let who = self.inside.leaderless.join(" and ");
                Condition::no("ControllersReady", "NoLeader", format!("nobody leads yet: {who}"))
            }
            () => Condition::yes("ControllersReady", "Leading", "kube-controller-manager and kube-scheduler lead"),
        });
        all.push(self.upgraded());
        all.push(match &self.inside.unapplied {
            _ if !self.inside.is_served => {
                Condition::no("AddonsApplied", "Waiting", "the tenant's API is not served yet")
            }
            Some(why) => Condition::no("AddonsApplied", "NotApplied", why.clone()),
            None => {
                Condition::yes("AddonsApplied", "Applied", "DNS, proxy, network and what joining takes are applied")
            }
        });
        all.extend(self.snapshots());
        all.push(match &self.addons {
            None => Condition::no(SPEC_ADDONS, "Waiting", "the tenant is not there yet"),
            Some(Some(trouble)) => Condition::no(SPEC_ADDONS, trouble.reason, trouble.message.clone()),
            Some(None) => Condition::yes(SPEC_ADDONS, "Applied", "all that spec.addons names is applied"),
        });
        all
    }
}

/// Whether snapshots were asked for when a status was written.
pub fn asked_for_snapshots(status: &Value) -> bool {
    let all = status["conditions"].as_array().into_iter().flatten();
    all.filter(|one| one["type"] == SNAPSHOTS).any(|one| one["reason"] != NOT_ASKED)
}

/// Whether all are so from which [`READY`] follows.
pub fn are_met(conditions: &[Condition]) -> bool {
    conditions.iter().all(|condition| !ALL.contains(&condition.kind) || condition.is_so == Some(true))
}

/// Whether all pods of a StatefulSet or a Deployment are of its last revision, and ready.
pub fn is_rolled_out(workload: &Value) -> bool {
    let number = |pointer: &str| workload.pointer(pointer).and_then(Value::as_u64);
    let wanted = number("/spec/replicas").unwrap_or(1);
    let is = |field: &str| number(&format!("/status/{field}")) == Some(wanted);
    number("/status/observedGeneration") >= number("/metadata/generation")
        && is("readyReplicas")
        && is("updatedReplicas")
        && is("replicas")
}

/// What is known of a tenant besides its conditions; `None` leaves what was said before.
#[derive(Debug, Default)]
pub struct Facts {
    /// Where it is.
    pub endpoint: Option<String>,
    /// The hash of its CA.
    pub ca_hash: Option<String>,
    /// How many Nodes it has.
    pub nodes: Option<usize>,
    /// What every part runs.
    pub version: Option<String>,
    /// The version of which data may have been written.
    pub committed: Option<String>,
    /// The last snapshot.
    pub snapshot: Option<String>,
    /// The snapshot that was restored; empty where none is to be.
    pub restored: Option<String>,
}

/// The status that follows from what was said before and what is said now, at `now` as the API writes it. What `conditions`
/// does not have stays as it was, and is about an older generation.
pub fn status(before: &Value, generation: i64, conditions: &[Condition], facts: &Facts, now: &str) -> Value {
    let mut all = conditions.to_vec();
    let known =
        |kind: &str| before["conditions"].as_array().into_iter().flatten().find(|one| one["type"] == *kind).cloned();
    let mut wrong = ALL
        .iter()
        .filter_map(|kind| conditions.iter().find(|one| one.kind == *kind))
        .filter(|one| one.is_so != Some(true));
    all.push(match wrong.next() {
        Some(first) => Condition { kind: READY, ..first.clone() },
        None if ALL.iter().any(|kind| conditions.iter().all(|one| one.kind != *kind)) => {
            Condition::no(READY, "Unknown", "not all of it was looked at")
        }
        None => Condition::yes(READY, "Ready", "the API is served, and its controllers lead"),
    });
    let mut written = Vec::new();
    for kind in ALL.iter().chain([&SNAPSHOTS, &SPEC_ADDONS, &READY]) {
        let old = known(kind);
        let Some(new) = all.iter().find(|one| one.kind == *kind) else {
            written.extend(old);
            continue;
        };
        let status = match new.is_so {
            Some(true) => "True",
            Some(false) => "False",
            None => "Unknown",
        };
        let same = old.as_ref().filter(|old| old["status"] == status);
        let since = same.map_or_else(|| now.into(), |old| old["lastTransitionTime"].clone());
        written.push(json!({"type": kind, "status": status, "reason": new.reason, "message": new.message,
            "observedGeneration": generation, "lastTransitionTime": since}));
    }
    let mut status = json!({"observedGeneration": generation, "conditions": written});
    let facts = [
        ("endpoint", facts.endpoint.as_ref().map(|text| json!(text))),
        ("caCertHash", facts.ca_hash.as_ref().map(|text| json!(text))),
        ("nodes", facts.nodes.map(|count| json!(count))),
        ("version", facts.version.as_ref().map(|text| json!(text))),
        ("committedVersion", facts.committed.as_ref().map(|text| json!(text))),
        ("lastSnapshot", facts.snapshot.as_ref().map(|text| json!(text))),
        ("restoredFrom", facts.restored.as_ref().map(|text| json!(text))),
    ];
    for (name, value) in facts {
        if let Some(value) = value.or_else(|| before.get(name).cloned()) {
            status[name] = value;
        }
    }
    status
}

#[cfg(test)]
mod tests {
    use super::*;

    fn up() -> Value {
        json!({"metadata": {"generation": 2}, "spec": {"replicas": 1},
            "status": {"observedGeneration": 2, "replicas": 1, "readyReplicas": 1, "updatedReplicas": 1}})
    }

    fn all_up() -> Seen {
        let workloads = ["etcd", "apiserver", "controller-manager", "scheduler"].map(|name| (name, up()));
        let inside = Inside { is_served: true, nodes: Some(2), ..Inside::default() };
        Seen { workloads: workloads.into(), inside, addons: Some(None), ..Seen::default() }
    }

    fn ready(status: &Value) -> (&str, &str) {
        let ready = status["conditions"].as_array().unwrap().last().unwrap();
        assert_eq!(ready["type"], READY);
        (ready["status"].as_str().unwrap(), ready["reason"].as_str().unwrap())
    }

    #[test]
    fn a_tenant_is_ready_when_all_of_it_is() {
        let of = |seen: &Seen| status(&Value::Null, 3, &seen.conditions(), &Facts::default(), "t");
        assert_eq!(ready(&of(&all_up())), ("True", "Ready"));
        assert_eq!(ready(&of(&Seen::default())), ("False", "Starting"));
        let mut seen = all_up();
        seen.inside.leaderless.push("kube-scheduler".into());
        assert_eq!(ready(&of(&seen)), ("False", "NoLeader"));
        seen = all_up();
        seen.inside.is_served = false;
        assert_eq!(ready(&of(&seen)), ("False", "NotServed"));
        seen = all_up();
        seen.inside.unapplied = Some("refused".into());
        assert_eq!(ready(&of(&seen)), ("False", "NotApplied"));
        seen = all_up();
        seen.addons = Some(Some(Trouble { reason: "NotFound", message: "x".into() }));
        let without = of(&seen);
        assert_eq!(ready(&without), ("True", "Ready"), "a tenant is there without its add-ons");
        assert!(are_met(&seen.conditions()));
        let all = without["conditions"].as_array().unwrap();
        assert!(all.iter().any(|one| one["type"] == SPEC_ADDONS && one["reason"] == "NotFound"), "{without}");
        seen = all_up();
        seen.workloads.get_mut("apiserver").unwrap()["status"]["updatedReplicas"] = json!(0);
        assert_eq!(ready(&of(&seen)), ("False", "RollingOut"));
        seen.troubles.insert("apiserver", Trouble { reason: "ImageNotPulled", message: "x".into() });
        assert_eq!(ready(&of(&seen)), ("False", "ImageNotPulled"));
    }

    #[test]
    fn of_three_members_a_majority_serves_and_those_that_do_not_are_named() {
        let mut seen = all_up();
        for name in MEMBERS {
            let mut member = up();
            member["metadata"]["name"] = format!("a-{name}").into();
            seen.workloads.insert(name, member);
        }
        assert_eq!(seen.etcd().is_so, Some(true));
        seen.held = Some("a-etcd-0 hands leadership over".into());
        let said = seen.etcd();
        assert_eq!(
            (said.is_so, &*said.message),
            (Some(false), "all members of etcd are ready. a-etcd-0 hands leadership over"),
            "it is looked at again soon"
        );
        seen.held = None;
        seen.workloads.get_mut("etcd-2").unwrap()["status"]["readyReplicas"] = json!(0);
        let said = seen.etcd();
        assert_eq!((said.is_so, &*said.reason), (Some(false), "RollingOut"));
        assert_eq!(said.message, "2 of 3 members of etcd are ready: they serve. Not ready: a-etcd-2");
        seen.troubles.insert("etcd-2", Trouble { reason: "Crashes", message: "look at its log".into() });
        assert!(seen.etcd().reason == "Crashes" && seen.etcd().message.ends_with("a-etcd-2. look at its log"));
        seen.troubles.clear();
        seen.workloads.get_mut("etcd").unwrap()["status"]["readyReplicas"] = json!(0);
        let said = seen.etcd();
        assert_eq!(said.reason, "Starting");
        assert!(said.message.contains("it takes 2 to serve. Not ready: a-etcd, a-etcd-2"), "{}", said.message);
    }

    #[test]
    fn a_snapshot_that_was_due_and_was_not_taken_is_said() {
        let of = |status: Value| {
            let backup = Some(json!({"metadata": {"namespace": "n", "name": "a-backup"}, "status": status}));
            let condition = Seen { backup, ..all_up() }.snapshots();
            condition.map(|condition| (condition.is_so, condition.reason))
        };
        let is = |is_so: bool, reason: &str| Some((Some(is_so), reason.to_owned()));
        assert_eq!(all_up().snapshots().unwrap().reason, "NotAsked");
        assert_eq!(of(json!({})), is(true, "NotDue"));
        let (one, two) = ("2026-07-01T12:00:00Z", "2026-07-01T12:00:09Z");
        assert_eq!(of(json!({"lastScheduleTime": one, "lastSuccessfulTime": two})), is(true, "Taken"));
        assert_eq!(of(json!({"lastScheduleTime": two, "lastSuccessfulTime": one})), is(false, "NotTaken"));
        assert_eq!(of(json!({"lastScheduleTime": one})), is(false, "NotTaken"));
        assert_eq!(of(json!({"lastScheduleTime": one, "active": [{}]})), is(false, "UnderWay"));
        let later = json!({"lastScheduleTime": two, "lastSuccessfulTime": one, "active": [{}]});
        assert_eq!(of(later), None, "what was said last stays until this one has ended");
    }

    #[test]
    fn what_has_not_changed_keeps_its_time_and_what_is_not_looked_at_stays() {
        let facts = Facts { endpoint: Some("192.0.2.7:30443".into()), ..Facts::default() };
        let first = status(&Value::Null, 1, &all_up().conditions(), &facts, "one");
        assert_eq!(status(&first, 1, &all_up().conditions(), &Facts::default(), "two"), first);
        let refused = [Condition::no("Accepted", "InvalidSpec", "no")];
        let second = status(&first, 2, &refused, &Facts::default(), "two");
        assert_eq!(ready(&second), ("False", "InvalidSpec"));
        assert_eq!(second["endpoint"], "192.0.2.7:30443");
        let etcd = &second["conditions"][1];
        assert_eq!((&etcd["type"], &etcd["observedGeneration"]), (&json!("EtcdReady"), &json!(1)));
        assert_eq!(second["conditions"][0]["lastTransitionTime"], "two");
    }
}
