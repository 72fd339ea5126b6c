//! The protocol by table: each row's condition, and what must not be done before it holds.

use std::ops::{Deref, DerefMut};

use super::hand_over::Act::{
    CleanUp, DeleteLease, DeleteMirrorPods, InstallGuard, LowerApiServer, LowerControllers, PublishEndpoint,
    ReplacePods,
};
use super::hand_over::tests::{IP, NODE, lease, pod, seen};
use super::hand_over::{LEAD_LIMIT, PROOFS, PROVE_LIMIT, STABLE};
use super::*;
use crate::api::observe::{ClusterView, LEASES};
use crate::plane::bridge::State as BridgeState;
use crate::plane::static_plane;

/// A run at some moment: what it sees, and what it remembers.
#[derive(Debug, Clone)]
struct Moment {
    seen: Observed,
    run: Memory,
}

impl Deref for Moment {
    type Target = Observed;

    fn deref(&self) -> &Observed {
        &self.seen
    }
}

impl DerefMut for Moment {
    fn deref_mut(&mut self) -> &mut Observed {
        &mut self.seen
    }
}

fn decide(moment: &Moment) -> Decision {
    super::decide(&moment.seen, &moment.run)
}

/// A freshly installed machine; the methods move it along.
fn fresh() -> Moment {
    Moment { seen: seen(), run: Memory { kept_copy: true, ..Memory::default() } }
}

impl Moment {
    fn raised(mut self) -> Self {
        let processes = ["forwarder", "kube-apiserver", "kube-controller-manager", "kube-scheduler"];
        self.bridge = BridgeState {
            api_server: true,
            controllers: 2,
            processes: processes.iter().map(ToString::to_string).collect(),
            files: true,
        };
        self.run.has_raised = true;
        self
    }

    fn api(mut self) -> Self {
        self.api_ready = true;
        let leases = LEASES.iter().map(|name| ((*name).to_owned(), lease("bridge", "1"))).collect();
        self.view = Some(ClusterView { leases, ..ClusterView::default() });
        self
    }

    fn see(mut self, change: impl FnOnce(&mut ClusterView)) -> Self {
        change(self.view.as_mut().unwrap());
        self
    }

    fn applied(mut self) -> Self {
        self.run.applied = true;
        self.run.made_token = true;
        self.see(|view| view.endpoints = vec![IP.into()])
    }

    fn adopted(self) -> Self {
        self.see(|view| view.node = NodeView::Adopted)
    }

    fn self_hosted(mut self) -> Self {
        self.self_hosted_ready = PROOFS;
        self
    }

    fn successors(mut self) -> Self {
        self.successors_ready_for = Some(STABLE);
        self
    }

    fn pods_ready(mut self) -> Self {
        self.required_ready_for = Some(STABLE);
        self.others_ready_for = Some(STABLE);
        self.successors_ready_for = Some(STABLE);
        let pods = self.required.iter().map(|required| pod(&required.name, true)).collect();
        self.see(|view| drop(view.pods.insert("kube-system".into(), pods)))
    }

    /// The successors of the bridge's controllers are there, and the self-hosted API server is on its way.
    fn succeeded() -> Self {
        fresh().raised().api().applied().adopted().successors()
    }

    /// All that must hold before the bridge's controllers are lowered, and much more.
    fn well() -> Self {
        Self::succeeded().self_hosted().pods_ready()
    }

    fn controllers_lowered(mut self) -> Self {
        self.bridge.controllers = 0;
        self
    }

    fn controllers_ended(mut self) -> Self {
        self.bridge.processes.retain(|component| !component.starts_with("kube-c") && !component.starts_with("kube-s"));
        self.leases_when_gone = self.view.as_ref().unwrap().leases.clone();
        self.dead_leases = LEASES.iter().map(|name| ((*name).to_owned(), "rv-1".to_owned())).collect();
        self
    }

    fn leases_moved(mut self) -> Self {
        self.dead_leases.clear();
        self.see(|view| {
            for there in view.leases.values_mut() {
                *there = lease("self-hosted", "2");
            }
        })
    }

    fn lowered(mut self, so_long: Duration) -> Self {
        self.bridge.api_server = false;
        self.run.lowered_for = Some(so_long);
        self
    }

    fn all_ended(mut self) -> Self {
        self.bridge.processes.clear();
        self
    }

    fn cleaned(mut self) -> Self {
        self.bridge.files = false;
        self
    }
}

fn acts(observed: &Moment) -> Vec<Act> {
    match decide(observed) {
        Decision::Do(_, acts) => acts,
        other => panic!("expected acts, not {other:?}"),
    }
}

fn waits(observed: &Moment) -> (Step, String) {
    match decide(observed) {
        Decision::Wait(step, what) => (step, what),
        other => panic!("expected a wait, not {other:?}"),
    }
}

fn delete(name: &str) -> Act {
    Act::HandOver(DeleteLease { name: name.into(), resource_version: "rv-1".into() })
}

/// `recover`: whatever serves, nothing of it is believed before the bridge was raised and what is missing put back.
#[test]
fn a_recover_raises_whatever_serves() {
    let up = || {
        let mut o = fresh();
        o.run.raises_first = true;
        o.self_hosted_ready = PROOFS;
        o.api_ready = true;
        o.view = Some(ClusterView { endpoints: vec![IP.into()], node: NodeView::Adopted, ..ClusterView::default() });
        o
    };
    assert_eq!(decide(&up()), Decision::Do(Step::Install, vec![Act::Raise]));
    let mut half = up();
    half.bridge = BridgeState { api_server: true, controllers: 0, ..BridgeState::default() };
    assert_eq!(decide(&half), Decision::Do(Step::Install, vec![Act::Raise]), "its controllers are needed, too");
    let raised = up().raised();
    assert_eq!(decide(&raised), Decision::Do(Step::Apply, vec![Act::Apply]));
    let mut applied = up().raised();
    applied.run.applied = true;
    applied.missing = vec!["DaemonSet kube-system/kube-apiserver".into()];
    assert_eq!(decide(&applied), Decision::Do(Step::Node, vec![Act::Apply]), "it was deleted meanwhile");
    applied.missing.clear();
    assert!(matches!(decide(&applied), Decision::Wait(Step::HandOver, _)));
    applied.dead_leases = vec![("kube-controller-manager".into(), "rv-1".into())];
    assert_eq!(decide(&applied), Decision::Do(Step::HandOver, vec![delete("kube-controller-manager")]));
}

#[test]
fn row_1_raise_on_a_fresh_machine_and_after_a_raise_that_was_cut_short() {
    assert_eq!(acts(&fresh()), [Act::Raise]);
    let mut partly = fresh();
    partly.bridge.controllers = 1;
    assert_eq!(acts(&partly), [Act::Raise]);
    partly.bridge.controllers = 2;
    assert_eq!(acts(&partly), [Act::Raise], "the API server's manifest is missing");
    let mut one_gone = fresh().raised();
    one_gone.bridge.controllers = 1;
    assert_eq!(acts(&one_gone), [Act::Raise]);
    let mut of_an_earlier_run = fresh().raised();
    of_an_earlier_run.run.has_raised = false;
    assert_eq!(acts(&of_an_earlier_run), [Act::Raise], "the kubelet may lack something of its own");
    let handed_over = of_an_earlier_run.api().applied().adopted().controllers_lowered();
    assert!(!matches!(decide(&handed_over), Decision::Do(Step::Install, _)), "its controllers do not come back");
}

#[test]
fn row_1_what_an_earlier_run_raised_is_raised_anew_unless_it_serves() {
    let mut observed = fresh().raised();
    observed.run.has_raised = false;
    assert_eq!(acts(&observed), [Act::Raise], "it may be incomplete, or wrong and corrected since");
    let serves = observed.api();
    assert!(!acts(&serves).contains(&Act::Raise));
}

#[test]
fn row_2_nothing_is_applied_before_the_api_is_ready() {
    assert_eq!(waits(&fresh().raised()).0, Step::Api);
    let mut open = fresh().raised().api();
    (open.api_ready, open.api_said) = (false, "500".into());
    assert_eq!(waits(&open).0, Step::Api, "an open port or a 500 is not ready");
    let mut unreadable = fresh().raised().api();
    unreadable.view = None;
    assert_eq!(waits(&unreadable).0, Step::Api, "what is not known is not taken for absent");
    assert_eq!(acts(&fresh().raised().api()), [Act::Apply, Act::BootstrapToken, Act::HandOver(PublishEndpoint)]);
}

#[test]
fn row_2_the_token_is_for_a_cluster_that_begins() {
    let begins = |node| fresh().raised().api().see(|view| view.node = node);
    assert!(acts(&begins(NodeView::Registered)).contains(&Act::BootstrapToken), "the kubelet may be quicker");
    assert_eq!(acts(&begins(NodeView::Adopted)), [Act::Apply, Act::HandOver(PublishEndpoint)]);
    let mut made = begins(NodeView::Absent);
    made.run.made_token = true;
    assert_eq!(acts(&made), [Act::Apply, Act::HandOver(PublishEndpoint)]);
}

#[test]
fn row_3_the_node_is_adopted_once_it_exists() {
    let observed = fresh().raised().api().applied();
    assert_eq!(waits(&observed).0, Step::Node);
    assert_eq!(acts(&observed.see(|view| view.node = NodeView::Registered)), [Act::AdoptNode]);
}

#[test]
fn row_3_a_kubelet_that_waits_is_started_anew_but_not_before_the_manifests_are_applied() {
    let mut observed = fresh().raised().api().applied();
    observed.kubelet_waits = true;
    assert_eq!(acts(&observed), [Act::RestartKubelet]);
    observed.run.applied = false;
    assert!(!acts(&observed).contains(&Act::RestartKubelet));
}

#[test]
fn row_4_one_answer_is_no_proof() {
    let mut observed = Moment::well().controllers_lowered().controllers_ended().leases_moved();
    observed.self_hosted_ready = PROOFS - 1;
    assert_eq!(waits(&observed).0, Step::SelfHosted);
}

#[test]
fn row_5_every_required_pod_must_be_ready_for_a_while_and_the_wait_names_it() {
    let mut observed = Moment::well().controllers_lowered().controllers_ended().leases_moved();
    observed.required_ready_for = None;
    assert_eq!(acts(&observed), [Act::HandOver(LowerApiServer)], "the API server's own answers have proved it");
    observed.others_ready_for = Some(STABLE / 2);
    assert_eq!(waits(&observed).0, Step::Required);
    observed.others_ready_for = None;
    let observed = observed.see(|view| {
        view.pods.insert("kube-system".into(), vec![pod("kube-apiserver", true), pod("kube-scheduler", false)]);
    });
    let (step, what) = waits(&observed);
    assert_eq!(step, Step::Required);
    assert_eq!(
        what,
        "kube-system/kube-controller-manager has no pod yet; kube-system/kube-scheduler-x: CrashLoopBackOff"
    );
}

/// A node that `unpivot` has left: static pods, and no bridge.
fn unpivoted() -> Moment {
    let mut observed = fresh().api().self_hosted();
    let all = crate::desired::secrets::COMPONENTS.map(str::to_owned);
    observed.statics = static_plane::State {
        standing: all.clone().into(),
        prepared: Default::default(),
        processes: all.into(),
        files: true,
    };
    observed
}

#[test]
fn static_pods_go_only_when_the_bridge_serves_and_nothing_is_applied_beside_them() {
    let mut observed = unpivoted();
    assert_eq!(decide(&observed), Decision::Do(Step::Install, vec![Act::Raise]));
    observed = {
        let raised = fresh().raised().api();
        Moment { seen: Observed { statics: observed.seen.statics, ..raised.seen }, run: raised.run }
    };
    // NODE_IP answers: by the static API server, for the forwarder does not listen yet.
    assert!(matches!(decide(&observed), Decision::Wait(Step::Api, _)));
    observed.bridge_serves = true;
    assert_eq!(decide(&observed), Decision::Do(Step::Api, vec![Act::RemoveStatic]));
    observed.statics.standing.clear();
    assert!(matches!(decide(&observed), Decision::Wait(Step::Api, what) if what.contains("kube-apiserver")));
    observed.statics.processes = ["kube-apiserver".to_owned()].into();
    observed.dead_leases = vec![("kube-scheduler".into(), "7".into())];
    let delete = Act::HandOver(DeleteLease { name: "kube-scheduler".into(), resource_version: "7".into() });
    assert_eq!(decide(&observed), Decision::Do(Step::Api, vec![delete]));
    (observed.statics.processes, observed.dead_leases) = Default::default();
    assert!(matches!(decide(&observed), Decision::Do(Step::Apply, acts) if acts.contains(&Act::Apply)));
}

#[test]
fn what_unpivot_lowers_the_bridge_for_is_left_alone() {
    let mut observed = unpivoted();
    observed.target = Target::Static;
    assert!(matches!(decide(&observed), Decision::Do(Step::Prove, acts) if acts == [Act::HandOver(PublishEndpoint)]));
}

#[test]
fn keys_that_an_unpivot_has_left_behind_are_removed() {
    let lowered = Moment::well().controllers_lowered().controllers_ended().leases_moved();
    let mut observed = lowered.lowered(Duration::from_secs(1)).all_ended().cleaned();
    assert_eq!(decide(&observed), Decision::Done);
    observed.statics.files = true;
    assert_eq!(decide(&observed), Decision::Do(Step::Prove, vec![Act::HandOver(CleanUp)]));
    observed.target = Target::Static;
    assert_eq!(decide(&observed), Decision::Done, "its pods mount them");
}

#[test]
fn row_5_pods_that_an_earlier_run_left_waiting_are_replaced_where_somebody_makes_them_anew() {
    let pods = vec![("kube-system".to_owned(), "kube-apiserver-x".to_owned())];
    let mut observed = fresh().raised().api().applied().adopted();
    observed.backed_off = pods.clone();
    assert_eq!(acts(&observed), [Act::HandOver(ReplacePods(pods.clone()))], "by the bridge's controller manager");
    observed.run.applied = false;
    assert!(
        !acts(&observed).contains(&Act::HandOver(ReplacePods(pods.clone()))),
        "not before the manifests are applied"
    );
    let mut lowered = Moment::succeeded().controllers_lowered().controllers_ended().leases_moved();
    lowered.backed_off = pods.clone();
    assert_eq!(acts(&lowered), [Act::HandOver(ReplacePods(pods))], "by the self-hosted one");
    lowered.successors_ready_for = None;
    assert_eq!(waits(&lowered).0, Step::SelfHosted, "by nobody");
}

#[test]
fn row_6_the_controllers_go_once_their_successors_are_ready_and_never_before() {
    let mut observed = Moment::succeeded();
    assert_eq!(acts(&observed), [Act::HandOver(LowerControllers)], "the self-hosted API server takes its time");
    observed.successors_ready_for = Some(STABLE / 2);
    assert_eq!(waits(&observed).0, Step::HandOver);
    let mut observed = Moment::well();
    observed.successors_ready_for = None;
    assert_eq!(waits(&observed).0, Step::HandOver, "whatever else is ready");
}

#[test]
fn row_7_no_lease_is_deleted_while_its_holder_may_live() {
    let running = Moment::well().controllers_lowered();
    assert_eq!(waits(&running).0, Step::HandOver, "their processes still run");
    let ended = running.controllers_ended();
    assert_eq!(acts(&ended), [delete(LEASES[0]), delete(LEASES[1])]);
    let mut unknown = ended.clone();
    unknown.dead_leases.clear();
    assert_eq!(acts(&unknown), [Act::HandOver(LowerApiServer)], "nothing proves that the holder was the bridge's");
    let mut renewed = ended;
    renewed.dead_leases.remove(0);
    assert_eq!(acts(&renewed), [delete(LEASES[1])], "a holder who renews it lives");
}

#[test]
fn row_8_the_api_server_goes_last() {
    let released = Moment::well().controllers_lowered().controllers_ended();
    let mut released = released.see(|view| {
        for lease in view.leases.values_mut() {
            lease.holder.clear();
        }
    });
    released.dead_leases.clear();
    assert_eq!(acts(&released), [Act::HandOver(LowerApiServer)]);
    let unproved = Moment::succeeded().controllers_lowered().controllers_ended().leases_moved();
    assert_eq!(waits(&unproved).0, Step::SelfHosted, "and not before its successor has proved itself");
}

#[test]
fn row_8_successors_that_do_not_lead_bring_the_whole_bridge_back() {
    let mut observed = Moment::succeeded().controllers_lowered().controllers_ended().leases_moved();
    observed.leaderless_for = LEAD_LIMIT;
    assert_eq!(waits(&observed).0, Step::SelfHosted, "with patience");
    observed.leaderless_for = LEAD_LIMIT + Duration::from_secs(1);
    assert_eq!(acts(&observed), [Act::RaiseAndFail]);
}

#[test]
fn row_9_everything_must_be_proved() {
    let second = Duration::from_secs(1);
    let lowered = Moment::well().controllers_lowered().controllers_ended().lowered(second);
    assert!(waits(&lowered).1.contains("a leader to take the Lease kube-controller-manager"));
    let moved = lowered.leases_moved();
    assert_eq!(waits(&moved), (Step::Prove, "the bridge's forwarder to end".into()));
    let ended = moved.all_ended();
    let name = format!("bridge-kube-apiserver-{NODE}");
    let with_mirror = ended.clone().see(|view| {
        let mut mirror = pod("bridge-kube-apiserver", false);
        (mirror.name, mirror.mirror) = (name.clone(), true);
        view.pods.get_mut("kube-system").unwrap().push(mirror);
    });
    assert_eq!(acts(&with_mirror), [Act::HandOver(DeleteMirrorPods(vec![name]))]);
    let mut running = with_mirror;
    running.bridge.processes.insert("kube-apiserver".into());
    assert!(waits(&running).1.contains("kube-apiserver to end"), "a pod is shown as long as one of its processes runs");
    assert_eq!(acts(&ended), [Act::HandOver(CleanUp)]);
    let cleaned = ended.cleaned();
    assert_eq!(decide(&cleaned), Decision::Done);
    assert_eq!(acts(&cleaned.clone().see(|view| view.endpoints.clear())), [Act::HandOver(PublishEndpoint)]);
    let unguarded = |applied| Moment {
        seen: Observed { has_guard: false, ..cleaned.seen.clone() },
        run: Memory { applied, ..cleaned.run.clone() },
    };
    assert_eq!(acts(&unguarded(true)), [Act::HandOver(InstallGuard)]);
    assert_eq!(
        acts(&unguarded(false)),
        [Act::Apply, Act::HandOver(InstallGuard)],
        "guard is nothing without its rights"
    );
    let mut unkept = unguarded(true);
    unkept.run.kept_copy = false;
    assert_eq!(acts(&unkept), [Act::KeepCopy, Act::HandOver(InstallGuard)]);
    let mut unready = cleaned.clone();
    unready.required_ready_for = None;
    assert_eq!(waits(&unready).0, Step::Prove);
    let unlabelled = unready.clone().see(|view| view.node = NodeView::Registered);
    assert_eq!(acts(&unlabelled), [Act::AdoptNode]);
    // Whatever serves: somebody has deleted what an earlier run has made.
    let mut deleted = unready;
    (deleted.missing, deleted.run.applied) = (vec!["ClusterRoleBinding hoist:guard".into()], false);
    assert_eq!(decide(&deleted), Decision::Do(Step::Prove, vec![Act::Apply]));
    // Guard's Secret may be among it, which no manifest makes.
    deleted.run.kept_copy = false;
    assert_eq!(decide(&deleted), Decision::Do(Step::Prove, vec![Act::Apply, Act::KeepCopy]));
    deleted.run.kept_copy = true;
    deleted.run.applied = true;
    assert_eq!(waits(&deleted).0, Step::Prove, "what is refused is not tried for ever");
}

/// A Secret that is refused was tried three times a second, and everything was applied before each time.
#[test]
fn what_is_applied_is_not_applied_again_for_guards_copy() {
    let mut unkept = Moment::succeeded();
    unkept.run.kept_copy = false;
    assert_eq!(acts(&unkept), [Act::KeepCopy]);
    unkept.run.applied = false;
    assert_eq!(acts(&unkept), [Act::Apply, Act::KeepCopy]);
}

#[test]
fn row_9_what_is_not_proved_in_time_raises_the_bridge_again_and_fails() {
    let late = PROVE_LIMIT + Duration::from_secs(1);
    let mut silent = Moment::well().controllers_lowered().controllers_ended().lowered(late);
    (silent.api_ready, silent.self_hosted_ready, silent.view) = (false, 0, None);
    assert_eq!(acts(&silent), [Act::RaiseAndFail]);
    silent.run.lowered_for = Some(Duration::from_secs(1));
    assert_eq!(waits(&silent).0, Step::Prove, "not at once");
    let leaderless = Moment::well().controllers_lowered().controllers_ended().lowered(late);
    assert_eq!(acts(&leaderless), [Act::RaiseAndFail]);
    let slow_kubelet = leaderless.leases_moved();
    assert_eq!(waits(&slow_kubelet).0, Step::Prove, "what the kubelet has to tidy up is no reason");
}

#[test]
fn a_cluster_that_is_up_is_left_alone() {
    let mut up = Moment::well().controllers_lowered().controllers_ended().lowered(Duration::ZERO);
    up = up.leases_moved().all_ended().cleaned();
    (up.run.lowered_for, up.run.applied, up.run.made_token) = (None, false, false);
    assert_eq!(decide(&up), Decision::Done, "nothing is applied again");
    up.self_hosted_ready = 1;
    assert_eq!(waits(&up).0, Step::Prove, "one answer is no proof, and no reason to raise a bridge");
    (up.self_hosted_ready, up.api_ready) = (0, false);
    assert_eq!(acts(&up), [Act::Raise], "a reboot, say");
}
