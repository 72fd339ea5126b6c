//! The order of steps; and a machine that is killed, or loses its power, after each of them.

use super::*;

fn all() -> BTreeSet<String> {
    COMPONENTS.map(str::to_owned).into()
}

/// A healthy self-hosted cluster.
fn self_hosted() -> Seen {
    Seen {
        node_ip: [10, 0, 0, 1].into(),
        api_said: "ok".into(),
        objects: Some(Objects {
            workloads: COMPONENTS.into(),
            pods: vec![("kube-apiserver-x".into(), false), ("kube-scheduler-x".into(), true)],
        }),
        statics: static_plane::State::default(),
        is_prepared: false,
        unit_is_off: false,
        guard_is_away: false,
        bridge_stands: false,
        bridge_serves: false,
        processes: COMPONENTS.into(),
        has_dead_leases: false,
    }
}

fn act(seen: &Seen) -> Option<Act> {
    match decide(seen) {
        Decision::Do(_, act) => Some(act),
        _ => None,
    }
}

fn objects(seen: &mut Seen) -> &mut Objects {
    seen.objects.as_mut().unwrap()
}

#[test]
fn from_self_hosted_to_static_nothing_goes_before_its_time() {
    let mut seen = self_hosted();
    assert_eq!(act(&seen), Some(Act::Prepare));
    (seen.is_prepared, seen.statics.prepared) = (true, all());
    assert_eq!(act(&seen), Some(Act::DisableUnit), "before anything is taken away");
    seen.unit_is_off = true;
    assert_eq!(act(&seen), Some(Act::Raise));
    seen.bridge_stands = true;
    assert!(matches!(decide(&seen), Decision::Wait(Step::Bridge, _)), "it does not serve yet");
    seen.bridge_serves = true;
    assert_eq!(act(&seen), Some(Act::TakeGuardAway), "not before the bridge serves");
    seen.guard_is_away = true;
    assert_eq!(act(&seen), Some(Act::DeleteWorkloads));
    assert!(seen.is_untouched());
    objects(&mut seen).workloads.clear();
    assert!(!seen.is_untouched());
    assert_eq!(act(&seen), Some(Act::DeletePods(vec!["kube-apiserver-x".into()])));
    objects(&mut seen).pods[0].1 = true;
    assert!(matches!(decide(&seen), Decision::Wait(Step::Delete, what) if what.contains("kube-apiserver-x")));
    objects(&mut seen).pods.clear();
    seen.processes = ["kube-apiserver"].into();
    assert!(matches!(decide(&seen), Decision::Wait(Step::Delete, what) if what == "the process kube-apiserver to end"));
    seen.has_dead_leases = true;
    assert_eq!(act(&seen), Some(Act::DeleteDeadLeases));
    (seen.has_dead_leases, seen.processes) = (false, BTreeSet::new());
    assert_eq!(act(&seen), Some(Act::Install(all().into_iter().collect())));
    (seen.statics.standing, seen.statics.prepared) = (all(), BTreeSet::new());
    assert_eq!(decide(&seen), Decision::HandOver);
    (seen.bridge_stands, seen.bridge_serves) = (false, false);
    assert_eq!(decide(&seen), Decision::HandOver, "a later run finds it so");
}

#[test]
fn a_run_that_was_killed_is_taken_up_where_it_was() {
    // The workloads are deleted, nothing is put in; the bridge's manifests are what comes back after a power cut.
    let mut seen = self_hosted();
    (seen.objects, seen.unit_is_off, seen.guard_is_away) = (Some(Objects::default()), true, true);
    (seen.statics.prepared, seen.processes) = (all(), BTreeSet::new());
    assert_eq!(act(&seen), Some(Act::Raise));
    (seen.bridge_stands, seen.bridge_serves) = (true, true);
    assert_eq!(act(&seen), Some(Act::Install(all().into_iter().collect())));
    // Some are.
    seen.statics.standing = ["kube-apiserver".to_owned()].into();
    seen.statics.prepared.remove("kube-apiserver");
    let rest = vec!["kube-controller-manager".to_owned(), "kube-scheduler".to_owned()];
    assert_eq!(act(&seen), Some(Act::Install(rest)));
    // All are, and the bridge is gone, or its API server alone is left: that is the hand-over's.
    (seen.statics.standing, seen.statics.prepared) = (all(), BTreeSet::new());
    (seen.bridge_stands, seen.objects) = (false, None);
    assert_eq!(decide(&seen), Decision::HandOver);
    seen.unit_is_off = false;
    assert_eq!(act(&seen), Some(Act::DisableUnit));
}

#[test]
fn nothing_is_done_by_what_is_not_known() {
    let mut seen = self_hosted();
    seen.objects = None;
    assert!(matches!(decide(&seen), Decision::Wait(Step::Prepare, _)));
    let mut seen = self_hosted();
    objects(&mut seen).workloads.remove("kube-scheduler");
    assert_eq!(decide(&seen), Decision::Missing(vec!["kube-scheduler"]));
}

#[test]
fn workloads_that_came_back_beside_static_pods_go_again() {
    let mut seen = self_hosted();
    (seen.statics.standing, seen.statics.processes) = (all(), all());
    (seen.is_prepared, seen.unit_is_off, seen.guard_is_away) = (true, true, true);
    assert_eq!(act(&seen), Some(Act::Raise));
}

/// A controller, as far as these steps change it.
#[derive(Debug, Clone)]
struct Machine {
    unit_is_enabled: bool,
    has_guard: bool,
    is_prepared: bool,
    workloads: BTreeSet<&'static str>,
    pods: Vec<String>,
    has_bridge: bool,
    /// The bridge's processes serve, and its forwarder has the address.
    bridge_serves: bool,
    prepared: BTreeSet<String>,
    standing: BTreeSet<String>,
    /// What a run remembers: gone when it is killed.
    unit_is_off: bool,
    guard_is_away: bool,
    told: BTreeSet<String>,
}

impl Machine {
    fn self_hosted() -> Self {
        Self {
            unit_is_enabled: true,
            has_guard: true,
            is_prepared: false,
            workloads: COMPONENTS.into(),
            pods: COMPONENTS.map(|component| format!("{component}-x")).into(),
            has_bridge: false,
            bridge_serves: false,
            prepared: BTreeSet::new(),
            standing: BTreeSet::new(),
            unit_is_off: false,
            guard_is_away: false,
            told: BTreeSet::new(),
        }
    }

    fn serves(&self) -> bool {
        self.bridge_serves || self.pods.iter().any(|pod| pod.starts_with("kube-apiserver")) || self.static_serves()
    }

    fn static_serves(&self) -> bool {
        self.standing.contains("kube-apiserver")
    }

    fn see(&self) -> Seen {
        let pods = self.pods.iter().map(|pod| (pod.clone(), self.told.contains(pod)));
        let processes =
            COMPONENTS.into_iter().filter(|component| self.pods.iter().any(|pod| pod.starts_with(component)));
        Seen {
            node_ip: [10, 0, 0, 1].into(),
            api_said: String::new(),
            objects: self.serves().then(|| Objects { workloads: self.workloads.clone(), pods: pods.collect() }),
            statics: static_plane::State {
                standing: self.standing.clone(),
                prepared: self.prepared.clone(),
                ..Default::default()
            },
            is_prepared: self.is_prepared,
            unit_is_off: self.unit_is_off,
            guard_is_away: self.guard_is_away,
            bridge_stands: self.has_bridge,
            bridge_serves: self.bridge_serves,
            processes: processes.collect(),
            has_dead_leases: false,
        }
    }

    fn act(&mut self, act: Act) {
        match act {
            Act::Prepare => (self.is_prepared, self.prepared) = (true, all()),
            Act::DisableUnit => (self.unit_is_off, self.unit_is_enabled) = (true, false),
            Act::TakeGuardAway => (self.guard_is_away, self.has_guard) = (true, false),
            Act::Raise => self.has_bridge = true,
            Act::DeleteWorkloads => self.workloads.clear(),
            Act::DeletePods(names) => self.told.extend(names),
            Act::DeleteDeadLeases => {}
            // One by one, and it may be killed in between.
            Act::Install(components) => {
                self.prepared.remove(&components[0]);
                self.standing.insert(components[0].clone());
            }
        }
    }

    /// What comes by itself while the run waits.
    fn time_passes(&mut self) {
        self.bridge_serves = self.has_bridge;
        self.pods.retain(|pod| !self.told.contains(pod));
    }

    fn killed(&mut self) {
        (self.unit_is_off, self.guard_is_away) = (false, false);
        self.told.clear();
        // Guard's lock is free, and the self-hosted API server serves.
        if self.has_guard && self.has_bridge && self.workloads.contains("kube-apiserver") {
            (self.has_bridge, self.bridge_serves) = (false, false);
        }
    }

    /// All processes end, and what is on the disk comes back by itself.
    fn boots(&mut self) {
        self.bridge_serves = self.has_bridge || (self.has_guard && !self.static_serves());
        let api = self.bridge_serves || self.static_serves();
        self.pods.retain(|_| api);
        if api {
            self.pods = self.workloads.iter().map(|component| format!("{component}-x")).collect();
        }
    }

    fn check(&self, what: &str) {
        assert!(self.serves(), "{what}: nobody serves: {self:?}");
        let taken = !self.has_guard || self.workloads.len() < COMPONENTS.len() || !self.standing.is_empty();
        assert!(!(self.unit_is_enabled && taken), "{what}: the next boot pivots again: {self:?}");
    }
}

#[test]
fn killed_or_without_power_after_any_step_it_serves_and_goes_on() {
    for (power, at) in [false, true].into_iter().flat_map(|power| (0..60).map(move |at| (power, at))) {
        let what = format!("{} after {at} steps", if power { "the power is cut" } else { "killed" });
        let mut machine = Machine::self_hosted();
        let mut ended = false;
        for step in 0..120 {
            match decide(&machine.see()) {
                Decision::Do(_, act) => machine.act(act),
                Decision::Wait(..) => machine.time_passes(),
                Decision::HandOver => {
                    ended = true;
                    break;
                }
                Decision::Missing(missing) => panic!("{what}: {missing:?} are missing: {machine:?}"),
            }
            machine.check(&what);
            if step == at {
                machine.killed();
                if power {
                    machine.boots();
                }
                machine.check(&what);
            }
        }
        assert!(ended, "{what}: {machine:?}");
        assert_eq!((machine.standing.len(), machine.has_guard, machine.unit_is_enabled), (3, false, false), "{what}");
        assert!(machine.has_bridge && machine.workloads.is_empty() && machine.pods.is_empty(), "{what}: {machine:?}");
    }
}
