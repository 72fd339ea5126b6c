//! Decides what is wrong with the observed status: pure.

use super::{Server, Status};
use crate::api::observe::{CONTROL_PLANE_LABEL, LEASES};
use crate::base::probe::Answer;
use crate::desired::secrets::COMPONENTS;
use crate::plane::hand_over::Target;

/// Conditions of a Node that are wrong when they are true.
const PRESSURE: [&str; 4] = ["DiskPressure", "MemoryPressure", "NetworkUnavailable", "PIDPressure"];

/// Who answers at NODE_IP, by what it and 127.0.0.1 answered, and whether the forwarder listens there.
pub(super) fn server(node: &Answer, loopback: &Answer, forwarded: bool, target: Target) -> Server {
    match (node.is_answered(), forwarded, is_ours(node) && is_ours(loopback)) {
        (false, _, _) => Server::Nobody,
        (true, true, _) => Server::Bridge,
        (true, false, true) if target == Target::Static => Server::Static,
        (true, false, true) => Server::SelfHosted,
        (true, false, false) => Server::Other,
    }
}

/// Whether it is an answer of one for whom this cluster's CA vouches, or has done until it expired.
fn is_ours(answer: &Answer) -> bool {
    match answer {
        Answer::Http { .. } => true,
        Answer::Tls(reason) => reason.contains("expired"),
        _ => false,
    }
}

/// Why this is no healthy cluster, each as a sentence without a full stop.
pub(super) fn problems(status: &Status, target: Target, has_etcd: bool) -> Vec<String> {
    let mut problems = Vec::new();
    problems.extend(of_api(status));
    problems.extend(of_bridge(status));
    // Where the API could be read, all that follows is known.
    if !status.leaders.is_empty() {
        problems.extend(of_pods(status, target, has_etcd));
        problems.extend(of_leaders(status));
        problems.extend(of_node(status));
    }
    problems.extend(status.missing.iter().map(|name| format!("{name} is gone: `hoist start` restores it")));
    let expired = status.certificates.iter().filter(|certificate| certificate.expired);
    problems.extend(expired.map(|one| format!("the certificate {} has expired at {}", one.place, one.not_after)));
    if let Some(next) = status.next.as_ref().filter(|next| next.step.is_some()) {
        let command = target.command();
        problems.push(format!("`{command}` has not done its work here; its next step: {}", next.what));
    }
    problems
}

fn of_api(status: &Status) -> Vec<String> {
    let Some(node) = status.api.endpoints.first() else { return Vec::new() };
    let at = node.address;
    let by = match status.api.served_by {
        // Then nobody else can be ready, either.
        Server::Nobody => return vec![format!("nothing serves {at}: {}", node.answer)],
        Server::SelfHosted | Server::Static => None,
        Server::Bridge => Some(format!("{at} is served by the bridge")),
        Server::Other => Some(format!("{at} is served by neither the bridge nor the self-hosted API server")),
    };
    let own = status.api.endpoints.iter().filter(|endpoint| endpoint.name != "bridge" && !endpoint.ready);
    by.into_iter().chain(own.map(|own| format!("{} is not ready: {}", own.address, own.answer))).collect()
}

fn of_bridge(status: &Status) -> Vec<String> {
    let bridge = &status.bridge;
    let mut problems = Vec::new();
    if bridge.state != "lowered" {
        problems.push(format!("the bridge is {}", bridge.state));
    } else if !bridge.processes.is_empty() {
        problems.push(format!("the bridge is lowered, and its {} still runs", bridge.processes.join(", ")));
    } else if bridge.files {
        problems.push("the bridge is lowered, and its keys are still on the disk".into());
    }
    problems
}

fn of_pods(status: &Status, target: Target, has_etcd: bool) -> Vec<String> {
    let mut problems = Vec::new();
    let is_static = target == Target::Static;
    for (component, workload) in COMPONENTS.into_iter().zip(target.workloads(COMPONENTS, &status.node.name)) {
        let is_its = |pod: &&super::Pod| pod.is_static == is_static && pod.workload == workload.name;
        let mut pods = status.pods.iter().filter(is_its).peekable();
        if pods.peek().is_none() {
            problems.push(format!("there is no {target} pod of {component} on this node"));
        } else if !pods.clone().any(|pod| pod.ready) {
            problems.extend(pods.map(unready));
        }
    }
    let etcd = format!("etcd-{}", status.node.name);
    match status.pods.iter().find(|pod| pod.name == etcd) {
        Some(pod) if !pod.ready => problems.push(unready(pod)),
        None if has_etcd => problems.push("there is no pod of etcd on this node".into()),
        _ => {}
    }
    problems
}

fn unready(pod: &super::Pod) -> String {
    format!("the pod {} is not ready: {}", pod.name, pod.reason.as_deref().unwrap_or("it does not say why"))
}

fn of_leaders(status: &Status) -> Vec<String> {
    let of = |name: &str| match status.leaders.iter().find(|leader| leader.lease == name) {
        Some(leader) if leader.alive => None,
        Some(leader) if leader.holder.is_empty() => Some(format!("no process leads by the Lease {name}")),
        Some(leader) => Some(format!("{} holds the Lease {name}, and does not renew it", leader.holder)),
        None => Some(format!("the Lease {name} could not be read")),
    };
    LEASES.into_iter().filter_map(of).collect()
}

fn of_node(status: &Status) -> Vec<String> {
    let conditions = &status.node.conditions;
    let mut problems = Vec::new();
    match conditions.iter().find(|condition| condition.kind == "Ready") {
        Some(ready) if ready.status == "True" => {}
        Some(ready) => problems.push(format!("the node is not ready: {}: {}", ready.reason, ready.message)),
        None => problems.push(format!(
            "the cluster has no Node {} whose kubelet reports: a kubelet registers its Node when it starts (`systemctl restart kubelet`)",
            status.node.name
        )),
    }
    if status.node.lacks_label {
        problems.push(format!(
            "the node has no label {CONTROL_PLANE_LABEL}: no self-hosted API server runs on it, and guard stays until another controller serves; `kubectl label node {} {CONTROL_PLANE_LABEL}=` makes it a controller again",
            status.node.name
        ));
    }
    let pressed = conditions.iter().filter(|one| PRESSURE.contains(&one.kind.as_str()) && one.status == "True");
    problems.extend(pressed.map(|one| format!("the node has {}: {}", one.kind, one.message)));
    problems
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::*;
    use super::*;

    /// A controller whose cluster serves itself.
    pub fn well() -> Status {
        let pod = |name: &str, workload: &str, is_static| Pod {
            name: name.into(),
            workload: workload.into(),
            is_static,
            ready: true,
            restarts: 0,
            reason: None,
        };
        let endpoint = |name, address: &str, ready| Endpoint {
            name,
            address: address.parse().unwrap(),
            ready,
            answer: if ready { "ok".into() } else { "connection refused".into() },
        };
        let leader = |lease: &str| Leader {
            lease: lease.into(),
            holder: format!("c1_{lease}"),
            renewed_seconds_ago: Some(1),
            alive: true,
        };
        let condition = |kind: &str, status: &str| Condition {
            kind: kind.into(),
            status: status.into(),
            reason: format!("Kubelet{kind}"),
            message: "kubelet says so".into(),
        };
        let member = |name: &str, role, leader: bool, size: Option<i64>| Member {
            name: name.into(),
            id: "8e9e05c52164694d".into(),
            address: size.map(|_| "https://10.0.0.1:2379".into()),
            role,
            leader,
            answers: size.is_some(),
            version: size.map(|_| "3.7.0".into()),
            behind: size.map(|_| if leader { 0 } else { 3 }),
            size,
            size_in_use: size.map(|size| size / 2),
            quota: size.map(|_| 2 << 30),
            alarms: Vec::new(),
        };
        Status {
            schema: SCHEMA,
            healthy: true,
            problems: Vec::new(),
            control_plane: "self-hosted",
            node: Node {
                name: "c1".into(),
                address: "10.0.0.1".into(),
                conditions: vec![condition("DiskPressure", "False"), condition("Ready", "True")],
                lacks_label: false,
            },
            api: Api {
                served_by: Server::SelfHosted,
                endpoints: vec![
                    endpoint("node", "10.0.0.1:6443", true),
                    endpoint("self-hosted", "127.0.0.1:6443", true),
                    endpoint("bridge", "127.0.0.1:6444", false),
                ],
            },
            bridge: bridge_status(&bridge::State::default()),
            pods: vec![
                pod("etcd-c1", "etcd-c1", true),
                pod("kube-apiserver-x", "kube-apiserver", false),
                pod("kube-controller-manager-x-y", "kube-controller-manager", false),
                pod("kube-scheduler-x-y", "kube-scheduler", false),
            ],
            leaders: LEASES.map(leader).into(),
            missing: Vec::new(),
            certificates: vec![Certificate {
                place: "as served by 10.0.0.1:6443".into(),
                subject: "CN=kube-apiserver".into(),
                not_after: "2027-07-01T12:00:00Z".into(),
                remaining_days: 364,
                expired: false,
            }],
            warnings: vec!["the CA ca ends 2036-06-28, within a year, and so does all that it issues".into()],
            etcd: Some(EtcdStatus {
                alarms: Vec::new(),
                size: 20 << 20,
                quota: 2 << 30,
                members: vec![
                    member("c1", "voter", true, Some(20 << 20)),
                    member("c2", "voter", false, Some(20 << 20)),
                    member("https://10.0.0.3:2380", "learner", false, None),
                ],
            }),
            next: Some(NextStep { step: None, what: "nothing: the cluster serves itself".into() }),
        }
    }

    #[test]
    fn each_thing_that_is_wrong_is_said() {
        assert_eq!(problems(&well(), Target::SelfHosted, true), [""; 0]);
        type Change = fn(&mut Status);
        let table: [(Change, &str); 19] = [
            (|s| s.api.served_by = Server::Bridge, "10.0.0.1:6443 is served by the bridge"),
            (|s| s.api.served_by = Server::Nobody, "nothing serves 10.0.0.1:6443"),
            (|s| s.api.served_by = Server::Other, "10.0.0.1:6443 is served by neither"),
            (|s| s.api.endpoints[1].ready = false, "127.0.0.1:6443 is not ready: ok"),
            (|s| s.bridge.state = "partly raised", "the bridge is partly raised"),
            (|s| s.bridge.processes = vec!["forwarder".into()], "the bridge is lowered, and its forwarder still runs"),
            (|s| s.bridge.files = true, "the bridge is lowered, and its keys are still on the disk"),
            (|s| drop(s.pods.remove(2)), "there is no self-hosted pod of kube-controller-manager on this node"),
            (|s| drop(s.pods.remove(0)), "there is no pod of etcd on this node"),
            (|s| s.pods[0].ready = false, "the pod etcd-c1 is not ready: it does not say why"),
            (
                |s| (s.pods[1].ready, s.pods[1].reason) = (false, Some("CrashLoopBackOff".into())),
                "the pod kube-apiserver-x is not ready: CrashLoopBackOff",
            ),
            (|s| s.leaders[0].alive = false, "c1_kube-controller-manager holds the Lease kube-controller-manager, and"),
            (
                |s| (s.leaders[1].alive, s.leaders[1].holder) = (false, String::new()),
                "no process leads by the Lease kube-scheduler",
            ),
            (|s| s.node.conditions[1].status = "False".into(), "the node is not ready: KubeletReady: kubelet says so"),
            (|s| s.node.conditions[0].status = "True".into(), "the node has DiskPressure"),
            (|s| s.node.conditions.clear(), "the cluster has no Node c1"),
            (
                |s| s.node.lacks_label = true,
                "the node has no label node-role.kubernetes.io/control-plane: no self-hosted",
            ),
            (
                |s| s.missing = vec!["ClusterRoleBinding hoist:guard".into()],
                "ClusterRoleBinding hoist:guard is gone: `hoist start` restores it",
            ),
            (|s| s.certificates[0].expired = true, "the certificate as served by 10.0.0.1:6443 has expired at 2027-07"),
        ];
        for (change, expected) in table {
            let mut status = well();
            change(&mut status);
            let found = problems(&status, Target::SelfHosted, true);
            assert!(found.len() == 1 && found[0].starts_with(expected), "{expected}: {found:?}");
        }
        let mut status = well();
        status.next = Some(NextStep { step: Some("install"), what: "raise the bridge".into() });
        assert_eq!(
            problems(&status, Target::SelfHosted, true),
            ["`hoist start` has not done its work here; its next step: raise the bridge"]
        );
        let mut status = well();
        status.pods.remove(0);
        assert_eq!(problems(&status, Target::SelfHosted, false), [""; 0], "its etcd is external");
        let mut status = well();
        (status.leaders, status.pods, status.node.conditions) = Default::default();
        assert_eq!(
            problems(&status, Target::SelfHosted, true),
            [""; 0],
            "what is not known is said by whoever could not read it"
        );
    }

    #[test]
    fn static_pods_are_well_by_a_measure_of_their_own() {
        let mut status = well();
        assert_eq!(problems(&status, Target::Static, true).len(), 3, "they are all self-hosted");
        status.api.served_by = Server::Static;
        for pod in &mut status.pods[1..] {
            let component = COMPONENTS.into_iter().find(|component| *component == pod.workload).unwrap();
            pod.name = format!("{component}-c1");
            (pod.workload, pod.is_static) = (pod.name.clone(), true);
        }
        assert_eq!(problems(&status, Target::Static, true), [""; 0]);
        status.pods[3].ready = false;
        assert_eq!(
            problems(&status, Target::Static, true),
            ["the pod kube-scheduler-c1 is not ready: it does not say why"]
        );
    }

    #[test]
    fn who_serves_is_known_by_evidence() {
        let ok = Answer::Http { status: 200, body: String::new() };
        assert_eq!(server(&Answer::Refused, &ok, true, Target::SelfHosted), Server::Nobody);
        assert_eq!(server(&ok, &Answer::Refused, true, Target::SelfHosted), Server::Bridge);
        assert_eq!(server(&ok, &ok, true, Target::SelfHosted), Server::Bridge, "the more specific address wins");
        assert_eq!(server(&ok, &ok, false, Target::SelfHosted), Server::SelfHosted);
        assert_eq!(server(&ok, &Answer::Refused, false, Target::SelfHosted), Server::Other);
        let tls = |reason: &str| Answer::Tls(format!("invalid peer certificate: {reason}"));
        let (foreign, expired) = (tls("UnknownIssuer"), tls("certificate expired: verification time 1"));
        assert_eq!(server(&foreign, &foreign, false, Target::SelfHosted), Server::Other, "another cluster's");
        assert_eq!(server(&expired, &expired, false, Target::SelfHosted), Server::SelfHosted);
        assert_eq!(server(&ok, &ok, false, Target::Static), Server::Static);
    }
}
