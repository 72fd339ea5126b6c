//! What whoever hands over does by itself: `start`'s own tests go through every row in turn.

use super::*;
use crate::api::observe::PodView;

pub(crate) const NODE: &str = "c1";
pub(crate) const IP: &str = "10.0.0.1";

/// What is seen of a freshly installed machine.
pub(crate) fn seen() -> Observed {
    let required = ["kube-apiserver", "kube-controller-manager", "kube-scheduler"];
    Observed {
        node_ip: IP.parse().unwrap(),
        node_name: NODE.into(),
        target: Target::SelfHosted,
        required: required.iter().map(|name| format!("kube-system/{name}").parse().unwrap()).collect(),
        bridge: BridgeState::default(),
        bridge_serves: false,
        statics: static_plane::State::default(),
        has_guard: true,
        kubelet_waits: false,
        api_ready: false,
        api_said: "connection refused".into(),
        self_hosted_ready: 0,
        self_hosted_said: "connection refused".into(),
        view: None,
        missing: Vec::new(),
        backed_off: Vec::new(),
        required_ready_for: None,
        others_ready_for: None,
        successors_ready_for: None,
        leaderless_for: Duration::ZERO,
        leases_when_gone: BTreeMap::new(),
        dead_leases: Vec::new(),
    }
}

pub(crate) fn lease(holder: &str, renewed: &str) -> LeaseView {
    LeaseView {
        holder: holder.into(),
        renewed: renewed.into(),
        resource_version: format!("rv-{renewed}"),
        ..LeaseView::default()
    }
}

pub(crate) fn pod(workload: &str, ready: bool) -> PodView {
    PodView {
        name: format!("{workload}-x"),
        node: Some(NODE.into()),
        ready,
        restarts: 0,
        reason: "CrashLoopBackOff".into(),
        workload: workload.into(),
        owner: None,
        per_node: workload == "kube-apiserver",
        mirror: false,
    }
}

#[test]
fn another_nodes_api_server_or_a_mirror_pod_does_not_count() {
    let mut observed = seen();
    let pods = |change: &dyn Fn(&mut PodView)| {
        let mut pods: Vec<_> = observed.required.iter().map(|required| pod(&required.name, true)).collect();
        change(&mut pods[0]);
        ClusterView { pods: BTreeMap::from([("kube-system".to_owned(), pods)]), ..ClusterView::default() }
    };
    assert!(all_ready(&pods(&|_| {}), NODE, &observed.required));
    assert!(!all_ready(&pods(&|pod| pod.node = Some("c2".into())), NODE, &observed.required));
    assert!(!all_ready(&pods(&|pod| pod.mirror = true), NODE, &observed.required));
    let own = Target::Static.workloads(["kube-apiserver"], NODE);
    let mirror = |pod: &mut PodView| {
        (pod.name, pod.workload, pod.mirror) = (own[0].name.clone(), own[0].name.clone(), true);
    };
    assert!(all_ready(&pods(&mirror), NODE, &own), "one that is asked for by its name does");
    observed.required.clear();
    assert!(all_ready(&ClusterView::default(), NODE, &observed.required));
}

/// A bridge that is raised, with all that it is to be lowered for.
fn well() -> Observed {
    let mut o = seen();
    let processes = ["forwarder", "kube-apiserver", "kube-controller-manager", "kube-scheduler"];
    let processes = processes.iter().map(ToString::to_string).collect();
    o.bridge = BridgeState { api_server: true, controllers: 2, processes, files: true };
    (o.api_ready, o.self_hosted_ready) = (true, PROOFS);
    let pods = o.required.iter().map(|required| pod(&required.name, true)).collect();
    let leases = LEASES.iter().map(|name| ((*name).to_owned(), lease("bridge", "1"))).collect();
    let pods = BTreeMap::from([("kube-system".to_owned(), pods)]);
    o.view = Some(ClusterView { pods, leases, endpoints: vec![IP.into()], ..ClusterView::default() });
    let stable = Some(STABLE);
    (o.required_ready_for, o.others_ready_for, o.successors_ready_for) = (stable, stable, stable);
    o
}

/// The next act of a hand-over, which does what it says; then the world is as that leaves it.
#[test]
fn a_hand_over_goes_from_a_raised_bridge_to_none() {
    let mut o = well();
    let mut lowered_for = None;
    let mut done = Vec::new();
    loop {
        assert!(done.len() < 20, "{done:?}");
        match decide(&o, lowered_for) {
            Decision::Do(step, acts) => {
                for act in acts {
                    match &act {
                        Act::LowerControllers => o.bridge.controllers = 0,
                        Act::DeleteLease { name, .. } => {
                            o.dead_leases.retain(|(dead, _)| dead != name);
                            o.view.as_mut().unwrap().leases.insert(name.clone(), lease("self-hosted", "2"));
                        }
                        Act::LowerApiServer => (o.bridge.api_server, lowered_for) = (false, Some(Duration::ZERO)),
                        Act::CleanUp => o.bridge.files = false,
                        act => panic!("{act:?}"),
                    }
                    done.push(format!("{step:?} {}", format!("{act:?}").split_whitespace().next().unwrap()));
                }
            }
            // What ends by itself.
            Decision::Wait(Step::Controllers, what) if what.ends_with("to end") => {
                o.bridge.processes.retain(|process| !process.starts_with("kube-c") && !process.starts_with("kube-s"));
                o.leases_when_gone = o.view.as_ref().unwrap().leases.clone();
                o.dead_leases = LEASES.iter().map(|name| ((*name).to_owned(), "rv-1".to_owned())).collect();
            }
            Decision::Wait(Step::Prove, what) if what.ends_with("to end") => drop(o.bridge.processes.pop_first()),
            Decision::Done => break,
            other => panic!("{other:?} after {done:?}"),
        }
    }
    let expected = [
        "Controllers LowerControllers",
        "Controllers DeleteLease",
        "Controllers DeleteLease",
        "Lower LowerApiServer",
        "Prove CleanUp",
    ];
    assert_eq!(done, expected);
}

#[test]
fn what_is_no_hand_over_is_the_callers() {
    let raised = well();
    let mut none = raised.clone();
    (none.bridge, none.api_ready, none.self_hosted_ready) = (BridgeState::default(), false, 0);
    assert_eq!(decide(&none, None), Decision::Unraised);
    assert!(matches!(decide(&none, Some(STABLE)), Decision::Wait(Step::Prove, _)), "it has only just been lowered");
    assert_eq!(decide(&none, Some(PROVE_LIMIT + STABLE)), Decision::Late);
    let mut half = raised.clone();
    half.bridge.controllers = 1;
    assert_eq!(decide(&half, None), Decision::Unraised);
    let leaderless = Observed { leaderless_for: LEAD_LIMIT + STABLE, ..raised.clone() };
    assert_eq!(decide(&leaderless, None), Decision::Late);
    let unread = Observed { view: None, ..raised.clone() };
    assert!(matches!(decide(&unread, None), Decision::Wait(..)), "what is not known is not taken for absent");
    let unguarded = Observed { has_guard: false, ..raised.clone() };
    assert_eq!(decide(&unguarded, None), Decision::Do(Step::Controllers, vec![Act::InstallGuard]));
    let mut unpublished = raised;
    unpublished.view.as_mut().unwrap().endpoints.clear();
    assert_eq!(decide(&unpublished, None), Decision::Do(Step::Controllers, vec![Act::PublishEndpoint]));
}

/// Its API server answers at loopback, too: nothing is lowered for that one in the belief that it is the self-hosted one.
#[test]
fn beside_static_pods_nothing_is_handed_over_to_the_self_hosted_ones() {
    let mut o = well();
    o.statics.standing.insert("kube-apiserver".into());
    assert!(matches!(decide(&o, None), Decision::Wait(Step::Controllers, _)));
    o.target = Target::Static;
    assert_eq!(decide(&o, None), Decision::Do(Step::Controllers, vec![Act::LowerControllers]));
}
