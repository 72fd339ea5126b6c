//! What must hold of every cluster that `start` has left with success: it serves itself, and nothing is left of the
//! bridge.

use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use crate::support::cluster::Cluster;
use crate::support::eventually;
use crate::support::kubectl::Kubectl;
use crate::support::node::Node;

const COMPONENTS: [&str; 3] = ["kube-apiserver", "kube-controller-manager", "kube-scheduler"];

/// Asserts all of it.
pub fn assert_serves_itself(node: &Node, cluster: &Cluster) {
    let kubectl = cluster.kubectl();
    let processes = Processes::of(node);
    for component in COMPONENTS {
        assert_is_self_hosted(component, &processes, &kubectl);
    }
    assert_listens(node, &processes, &kubectl);
    assert_leases_are_renewed(node, &kubectl);
    assert_disk_is_clean(node, cluster);
    assert_no_bridge(node, &kubectl);
    assert_is_controller(node, &kubectl);
}

/// What must hold where `unpivot` has left with success: static pods serve, and nothing is left of the others.
pub fn assert_is_static(node: &Node, cluster: &Cluster) {
    let kubectl = cluster.kubectl();
    let processes = Processes::of(node);
    for component in COMPONENTS {
        let environment = &processes.only(component).environment;
        assert_eq!(environment, &format!("HOIST_STATIC={component}"), "{component} is no static pod");
        let name = format!("{component}-{}", node.name);
        let pods = kubectl.list(&["pods", "-n", "kube-system", "-l", &format!("component={component}")]);
        let names: Vec<_> = pods.iter().map(|pod| pod["metadata"]["name"].as_str().unwrap()).collect();
        assert_eq!(names, [name], "pods of {component}");
    }
    assert_listens(node, &processes, &kubectl);
    assert_leases_are_renewed(node, &kubectl);
    assert_no_bridge(node, &kubectl);
    let manifests = "etcd.yaml\nkube-apiserver.yaml\nkube-controller-manager.yaml\nkube-scheduler.yaml\n";
    assert_eq!(node.sh("ls -A /etc/kubernetes/manifests"), manifests);
    for path in ["/etc/kubernetes/bridge", "/var/lib/hoist/bin"] {
        assert_eq!(node.exec(["test", "-e", path]).code, Some(1), "{path} is there");
    }
    let exposed = node.sh(
        "find /etc/kubernetes/static-pods -type f ! -perm 0600; find /etc/kubernetes/static-pods -type d ! -perm 0700",
    );
    assert_eq!(exposed, "", "readable by others");
    let kinds = "daemonsets,deployments,replicasets,poddisruptionbudgets,secrets,serviceaccounts";
    let objects = kubectl.list(&["-n", "kube-system", kinds]);
    let names: Vec<_> = objects.iter().map(|object| object["metadata"]["name"].as_str().unwrap()).collect();
    let mut left = names.clone();
    // The account of one of the controller manager's own controllers, from 1.37 on.
    left.retain(|name| *name != "kube-apiserver-serving-clustertrustbundle-publisher");
    left.retain(|name| COMPONENTS.iter().any(|component| name.starts_with(component)));
    assert!(left.is_empty(), "objects of the self-hosted control plane: {left:?}");
}

/// The processes of a node with their cgroups: which container of which pod each of them belongs to.
struct Processes(Vec<Process>);

struct Process {
    pid: String,
    program: String,
    environment: String,
    cgroup: String,
}

impl Processes {
    fn of(node: &Node) -> Self {
        // A process that ends meanwhile has no fields any more, and is left out below.
        let script = r#"for dir in /proc/[0-9]*; do
            printf '%s|%s|%s|%s\n' "${dir#/proc/}" \
                "$(tr '\0' '\n' <$dir/cmdline | head -n 1)" \
                "$(tr '\0' '\n' <$dir/environ | grep -E "^HOIST_(BRIDGE|STATIC)=" || true)" \
                "$(tr '\n' ' ' <$dir/cgroup)"
        done 2>/dev/null"#;
        let text = node.sh(script);
        let process = |line: &str| {
            let mut fields = line.splitn(4, '|').map(str::to_owned);
            let mut field = || fields.next().unwrap_or_default();
            let (pid, command, environment, cgroup) = (field(), field(), field(), field());
            let program = command.rsplit('/').next().unwrap_or_default().to_owned();
            Process { pid, program, environment, cgroup }
        };
        Self(text.lines().map(process).filter(|process| !process.cgroup.is_empty()).collect())
    }

    /// The one process of a program.
    fn only(&self, program: &str) -> &Process {
        let found: Vec<_> = self.0.iter().filter(|process| process.program == program).collect();
        let pids: Vec<_> = found.iter().map(|process| &process.pid).collect();
        assert_eq!(found.len(), 1, "processes of {program}: {pids:?}");
        found[0]
    }
}

/// The one pod of a component that its DaemonSet or Deployment has made, and the id of its container.
fn pod(component: &str, kubectl: &Kubectl) -> (String, String) {
    let pods = kubectl.list(&["pods", "-n", "kube-system", "-l", &format!("component={component}")]);
    let names: Vec<_> = pods.iter().map(|pod| pod["metadata"]["name"].to_string()).collect();
    assert_eq!(pods.len(), 1, "pods of {component}: {names:?}");
    let owner = &pods[0]["metadata"]["ownerReferences"][0]["kind"];
    let expected = if component == "kube-apiserver" { "DaemonSet" } else { "ReplicaSet" };
    assert_eq!(owner, expected, "{component} is not of the self-hosted control plane");
    let uid = pods[0]["metadata"]["uid"].as_str().unwrap().to_owned();
    let id = pods[0]["status"]["containerStatuses"][0]["containerID"].as_str().unwrap();
    (uid, id.strip_prefix("containerd://").unwrap().to_owned())
}

/// Its only process is in the container of its only pod.
fn assert_is_self_hosted(component: &str, processes: &Processes, kubectl: &Kubectl) {
    let (uid, container) = pod(component, kubectl);
    let Process { pid, cgroup, .. } = processes.only(component);
    // With systemd's driver the dashes are underscores.
    let in_pod = cgroup.contains(&format!("pod{uid}")) || cgroup.contains(&format!("pod{}", uid.replace('-', "_")));
    assert!(in_pod && cgroup.contains(&container), "{component}, pid {pid}, is not of pod {uid}: {cgroup}");
}

/// Who listens at the API's port is that API server, and nobody else.
fn assert_listens(node: &Node, processes: &Processes, kubectl: &Kubectl) {
    let listeners = node.sh("ss -ltnpH 'sport = :6443'");
    assert_eq!(listeners.lines().count(), 1, "listeners at port 6443: {listeners}");
    let pid = &processes.only("kube-apiserver").pid;
    assert!(listeners.contains(&format!("pid={pid},")), "it is not pid {pid}: {listeners}");
    assert_eq!(kubectl.run(&["get", "--raw", "/readyz"]).ok(), "ok");
}

/// Both leaders live. That they are self-hosted follows from there being no other process of their program.
fn assert_leases_are_renewed(node: &Node, kubectl: &Kubectl) {
    let leases = || {
        ["kube-controller-manager", "kube-scheduler"].map(|name| {
            let spec = kubectl.get(&["lease", "-n", "kube-system", name])["spec"].clone();
            let holder = spec["holderIdentity"].as_str().unwrap_or_default().to_owned();
            assert!(holder.starts_with(&format!("{}_", node.name)), "the holder of {name}: {holder:?}");
            (holder, spec["renewTime"].as_str().unwrap_or_default().to_owned())
        })
    };
    let before = leases();
    eventually("both Leases are renewed by their holders", Duration::from_secs(10), || {
        let now = leases();
        let renewed = |(then, now): (&(String, String), &(String, String))| then.0 == now.0 && then.1 < now.1;
        before.iter().zip(&now).all(renewed).then_some(())
    });
}

/// Guard, and the endpoint where nodes have one; and nothing of the bridge but in guard's copy.
fn assert_disk_is_clean(node: &Node, cluster: &Cluster) {
    let endpoint = "hoist-endpoint.yaml";
    let has_endpoint = cluster.assets.join("bootstrap-manifests").join(endpoint).exists();
    let expected = ["etcd.yaml"].into_iter().chain(has_endpoint.then_some(endpoint)).chain(["hoist-guard.yaml"]);
    assert!(node.sh("ls -A /etc/kubernetes/manifests").lines().eq(expected));
    assert_eq!(node.exec(["test", "-e", "/etc/kubernetes/bridge"]).code, Some(1), "the bridge's keys are there");
    assert_eq!(
        node.sh("stat -c '%a %U' /var/lib/hoist/guard /var/lib/hoist/guard/bridge.json"),
        "700 root\n600 root\n"
    );
    // A cluster whose CA signs elsewhere has no token.
    let token = std::fs::read_to_string(cluster.assets.join("auth/kubeconfig-kubelet"));
    let mut secrets: Vec<_> = token
        .iter()
        .map(|text| text.lines().find_map(|line| line.trim().strip_prefix("token:")).unwrap())
        .map(|token| token.trim().trim_matches('"').to_owned())
        .collect();
    for entry in std::fs::read_dir(cluster.assets.join("tls")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "key") {
            secrets.push(line_of_key(&path));
        }
    }
    // etcd's own key stays, and so does what the API server serves with: that they are found shows that the search finds.
    let etcd = format!("tls/etcd/{}/server.key", node.name);
    secrets.push(line_of_key(&cluster.assets.join(etcd)));
    let patterns: String = secrets.iter().map(|secret| format!(" -e {secret}")).collect();
    // -xdev: the Secrets of running pods are on a tmpfs each, which is no disk.
    let script = format!(
        "find /etc/kubernetes /etc/systemd/system /var/lib/kubelet /var/lib/hoist -xdev -type f -print0 | xargs -0 grep -lF{patterns}"
    );
    let holders = node.sh(&script);
    let mut holders: Vec<_> = holders.lines().collect();
    holders.sort_unstable();
    let expected = [
        "/etc/kubernetes/pki/apiserver/apiserver.key",
        "/etc/kubernetes/pki/etcd/server.key",
        "/var/lib/hoist/guard/bridge.json",
    ];
    assert_eq!(holders, expected, "files that hold a secret of the bootstrap");
}

/// A line that no other file has by chance.
fn line_of_key(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap().lines().nth(1).unwrap().to_owned()
}

/// Neither a process, nor a container, nor a pod.
fn assert_no_bridge(node: &Node, kubectl: &Kubectl) {
    let marked = Processes::of(node).0.into_iter().filter(|process| process.environment.starts_with("HOIST_BRIDGE"));
    let marked: Vec<_> = marked.collect();
    let names: Vec<_> = marked.iter().map(|process| format!("{} {}", process.pid, process.environment)).collect();
    assert!(marked.is_empty(), "processes of the bridge: {names:?}");

    let containers = node.sh(r#"ctr -n k8s.io containers ls -q 'labels."io.kubernetes.pod.name"~=bridge-.*'"#);
    let tasks = node.sh("ctr -n k8s.io tasks ls");
    let runs = |id: &&str| tasks.lines().any(|task| task.starts_with(*id) && task.contains("RUNNING"));
    let running: Vec<_> = containers.lines().filter(runs).collect();
    assert!(running.is_empty(), "containers of the bridge run: {running:?}");

    let pods = kubectl.list(&["pods", "-A"]);
    let name = |pod: &Value| pod["metadata"]["name"].as_str().unwrap().to_owned();
    let bridge: Vec<_> = pods.iter().map(name).filter(|name| name.starts_with("bridge-")).collect();
    assert!(bridge.is_empty(), "pods of the bridge: {bridge:?}");
}

fn assert_is_controller(node: &Node, kubectl: &Kubectl) {
    let object = kubectl.get(&["node", &node.name]);
    assert_eq!(object["metadata"]["labels"]["node-role.kubernetes.io/control-plane"], "");
    let taints = object["spec"]["taints"].as_array().cloned().unwrap_or_default();
    let keys: Vec<_> = taints.iter().map(|taint| taint["key"].as_str().unwrap()).collect();
    assert!(keys.contains(&"node-role.kubernetes.io/control-plane"), "taints: {keys:?}");
}
