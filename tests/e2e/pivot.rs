//! From nothing to a cluster that serves itself, with clients that never stop asking.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::serving::assert_serves_itself;
use crate::support::cluster::{Cluster, START_LIMIT};
use crate::support::events::events;
use crate::support::kubectl::Kubectl;
use crate::support::node::Node;
use crate::support::traffic::{self, Traffic};
use crate::support::watcher::Watcher;
use crate::support::{eventually, hoist};

/// How long the clients go on after `start` has said that all is well.
const AFTERWARDS: Duration = Duration::from_secs(10);

#[test]
fn pivot() {
    let node = Node::plain("pivot");
    let cluster = Cluster::render(&node);
    let kubectl = cluster.kubectl();

    status_before_start(&node, &cluster);
    start_loses_nothing(&node, &cluster, &kubectl);
    status_after_start(&node, &cluster);
    assert_serves_itself(&node, &cluster);
    a_users_deployment_runs(&kubectl);
    every_log_can_be_read(&node, &kubectl);
    a_second_start_changes_nothing(&node, &cluster, &kubectl);
    an_image_can_be_set(&node, &kubectl);
}

/// The other container runtime: one that tells the kubelet its cgroup driver, and whose pods may open few files.
#[test]
fn pivot_with_containerd2() {
    let node = Node::plain_with_containerd2("pivot-2");
    let cluster = Cluster::render(&node);
    let kubectl = cluster.kubectl();
    let versions = node.sh("containerd --version; runc --version | head -n 1");
    eprintln!("{versions}");
    assert!(versions.contains("containerd/v2 2.") && versions.contains("runc version 1.5"), "{versions}");
    // No word of the driver is the user's: hoist's own default would be wrong here, and does not count.
    let config = std::fs::read_to_string(cluster.assets.join("kubelet/config.yaml")).unwrap();
    assert!(config.contains("cgroupDriver: systemd"), "{config}");
    let preflight = node.exec(cluster.command("preflight", &["--output=json"])).expect(0);
    let report: serde_json::Value = serde_json::from_str(&preflight.stdout).unwrap();
    for name in ["CRI", "ContainerRuntimeVersion", "CgroupDriver"] {
        let check = report["checks"].as_array().unwrap().iter().find(|check| check["name"] == name).unwrap();
        assert_eq!(check["outcome"], "ok", "{check:#}");
    }

    start_loses_nothing(&node, &cluster, &kubectl);
    status_after_start(&node, &cluster);
    assert_serves_itself(&node, &cluster);
    a_users_deployment_runs(&kubectl);
    every_log_can_be_read(&node, &kubectl);
    let limit = kubectl.run(&["exec", "-n", "default", "deployment/user", "--", "sh", "-c", "ulimit -Sn"]).ok();
    assert_eq!(limit.trim(), "1024", "the files that a pod may open");
}

fn status_before_start(node: &Node, cluster: &Cluster) {
    let status = node.exec(cluster.command("status", &[])).expect(1);
    let address = node.address;
    for text in
        ["next step of `hoist start`: raise the bridge", "bridge: lowered", &format!("nothing serves {address}:6443")]
    {
        assert!(status.stdout.contains(text), "{text}: {status}");
    }
}

fn status_after_start(node: &Node, cluster: &Cluster) {
    // The kubelet says that it is ready when it has seen its network, a little later.
    let ended = eventually("the cluster is healthy", Duration::from_secs(60), || {
        let status = node.exec(cluster.command("status", &["--output=json"]));
        (status.code == Some(0)).then_some(status)
    });
    let status: serde_json::Value = serde_json::from_str(&ended.stdout).unwrap();
    assert_eq!((&status["schema"], &status["healthy"]), (&"hoist.status/v1".into(), &true.into()));
    assert_eq!((&status["api"]["servedBy"], &status["bridge"]["state"]), (&"self-hosted".into(), &"lowered".into()));
    assert!(status["next"]["step"].is_null(), "{status:#}");
    let count = |field: &str| status[field].as_array().unwrap().len();
    assert_eq!((count("pods"), count("leaders"), count("problems")), (5, 2, 0), "{status:#}");
    let places: Vec<_> = status["certificates"].as_array().unwrap().iter().map(|one| &one["place"]).collect();
    let served = format!("as served by {}:6443", node.address);
    for place in [&served, "/var/lib/kubelet/pki/kubelet-client-current.pem", "/etc/kubernetes/pki/etcd/server.crt"] {
        assert!(places.contains(&&place.into()), "{place}: {places:?}");
    }
    // The same without the asset directory, and what the machine alone knows.
    let kubeconfig = cluster.assets.join("auth/kubeconfig").display().to_string();
    let hoist = hoist().display().to_string();
    let by_kubeconfig = node.exec([&hoist, "status", "--kubeconfig", &kubeconfig]).expect(0);
    assert!(by_kubeconfig.stdout.contains("the cluster is self-hosted and healthy"), "{by_kubeconfig}");
    let alone = node.exec([&hoist, "status"]).expect(1);
    assert!(alone.stdout.contains("API: served by the self-hosted API server"), "{alone}");
    assert!(alone.stdout.contains("the cluster was not asked"), "{alone}");
}

fn start_loses_nothing(node: &Node, cluster: &Cluster, kubectl: &Kubectl) {
    let traffic = Traffic::begin(cluster.client());
    let watcher = Watcher::begin(cluster.client(), node.address);
    let start = cluster.start(node, &["--output=json"]).wait(START_LIMIT);
    std::thread::sleep(AFTERWARDS);
    let (record, sights) = (traffic.end(), watcher.end());
    eprintln!("{start}");
    let record = record.unwrap_or_else(|| panic!("the API was never ready: {start}"));
    eprintln!("{record}\n{sights}");
    a_program_can_follow(&start.expect(0).stdout);

    assert_eq!(record.failures().count(), 0, "requests failed: {record}");
    assert!(record.exchanges.len() > 100, "too few requests to show anything: {record}");
    let there = kubectl.list(&["configmaps", "-n", "default"]);
    let there: BTreeSet<_> = there.iter().map(|object| object["metadata"]["name"].as_str().unwrap()).collect();
    let missing: Vec<_> = record.acknowledged().into_iter().filter(|name| !there.contains(name)).collect();
    assert!(missing.is_empty(), "acknowledged and lost: {missing:?}");
    assert!(there.iter().any(|name| name.starts_with(traffic::PREFIX)));

    assert!(sights.ready.is_some() && sights.readings > 20, "too few readings to show anything: {sights}");
    assert!(sights.wrong.is_empty(), "the kubernetes Service was wrong: {sights}");
}

fn a_program_can_follow(stdout: &str) {
    let events = events(stdout);
    let result = events.last().unwrap();
    assert_eq!((&result["outcome"], &result["exitCode"]), (&"succeeded".into(), &0.into()), "{result}");
    assert!(result["next"].as_str().unwrap().contains("auth/kubeconfig"), "{result}");
    let steps = result["steps"].as_array().unwrap();
    let ids: BTreeSet<_> = steps.iter().map(|step| step["step"].as_str().unwrap()).collect();
    for step in ["install", "api", "apply", "hand-over", "lower", "prove"] {
        assert!(ids.contains(step), "{step}: {ids:?}");
    }
    assert!(steps.iter().all(|step| step["state"] == "done"), "{steps:?}");
    let waits = events.iter().filter(|event| event["event"] == "waiting");
    // What a pod is waited for is said with the pod's name and its reason.
    let of_pod =
        |event: &&serde_json::Value| event["for"].as_str().unwrap().contains("kube-system/kube-controller-manager-");
    assert!(waits.clone().any(|event| of_pod(&event)), "{:?}", waits.collect::<Vec<_>>());
}

fn a_users_deployment_runs(kubectl: &Kubectl) {
    kubectl.apply(
        r#"
apiVersion: apps/v1
kind: Deployment
metadata: {name: user, namespace: default}
spec:
  selector: {matchLabels: {app: user}}
  template:
    metadata: {labels: {app: user}}
    spec:
      containers:
      - {name: user, image: "docker.io/library/busybox:1.36", command: [sleep, infinity]}
      terminationGracePeriodSeconds: 0
      tolerations:
      - {key: node-role.kubernetes.io/control-plane, operator: Exists}
"#,
    );
    kubectl.run(&["wait", "-n", "default", "--for=condition=Available", "--timeout=60s", "deployment/user"]).ok();
}

/// The control plane is looked at like anything else: etcd, too.
fn every_log_can_be_read(node: &Node, kubectl: &Kubectl) {
    let pods = kubectl.list(&["pods", "-n", "kube-system", "-l", "tier=control-plane"]);
    let names: Vec<_> = pods.iter().map(|pod| pod["metadata"]["name"].as_str().unwrap()).collect();
    assert_eq!(names.len(), 5, "the control plane's pods: {names:?}");
    for name in ["etcd", "hoist-guard"] {
        assert!(names.contains(&format!("{name}-{}", node.name).as_str()), "{names:?}");
    }
    for name in names {
        let logs = kubectl.run(&["logs", "-n", "kube-system", name, "--tail=5"]).ok();
        assert!(!logs.trim().is_empty(), "the logs of {name} are empty");
    }
}

fn a_second_start_changes_nothing(node: &Node, cluster: &Cluster, kubectl: &Kubectl) {
    // Status that is still being written is not of start's doing.
    let before = eventually("the cluster comes to rest", Duration::from_secs(60), || {
        let before = snapshot(node, kubectl);
        std::thread::sleep(Duration::from_secs(3));
        (before == snapshot(node, kubectl)).then_some(before)
    });
    let start = cluster.started(node, &[]).expect(0);
    eprintln!("the second start took {:.1?}", start.took);
    assert!(start.took < Duration::from_secs(10), "{start}");
    let after = snapshot(node, kubectl);
    let changed: Vec<_> = before.symmetric_difference(&after).collect();
    assert!(changed.is_empty(), "changed by a start that had nothing to do: {changed:#?}");
}

/// Every object of the control plane as it is, every file of hoist's, and which kubelet runs.
fn snapshot(node: &Node, kubectl: &Kubectl) -> BTreeSet<String> {
    let kinds =
        "daemonsets,deployments,pods,secrets,configmaps,serviceaccounts,poddisruptionbudgets,roles,rolebindings";
    let mut objects = kubectl.list(&["-n", "kube-system", kinds]);
    objects.extend(kubectl.list(&["clusterroles,clusterrolebindings,namespaces,customresourcedefinitions"]));
    objects.extend(kubectl.list(&["-n", "default", "endpointslices,services"]));
    let mut all: BTreeSet<_> = objects
        .iter()
        .map(|object| {
            let metadata = &object["metadata"];
            format!("{} {} {}", object["kind"], metadata["name"], metadata["resourceVersion"])
        })
        .collect();
    // A Node's version changes with every status that its kubelet sends.
    let object = kubectl.get(&["node", &node.name]);
    all.insert(format!("{} {}", object["metadata"]["labels"], object["spec"]));
    let files = "find /etc/kubernetes /etc/systemd/system /var/lib/hoist /var/lib/kubelet/config.yaml -printf '%p %M %s %T@\\n'";
    all.extend(node.sh(files).lines().map(str::to_owned));
    all.insert(node.sh("systemctl show kubelet --property=MainPID"));
    all
}

/// The control plane is upgraded like anything else.
fn an_image_can_be_set(node: &Node, kubectl: &Kubectl) {
    let image = format!("registry.k8s.io/kube-scheduler:v{}-1", node.kubernetes);
    let container = format!("kube-scheduler={image}");
    kubectl.run(&["set", "image", "-n", "kube-system", "deployment/kube-scheduler", &container]).ok();
    kubectl.run(&["rollout", "status", "-n", "kube-system", "--timeout=90s", "deployment/kube-scheduler"]).ok();
    let object = kubectl.get(&["deployment", "-n", "kube-system", "kube-scheduler"]);
    assert_eq!(object["spec"]["template"]["spec"]["containers"][0]["image"], image.as_str());
    let conditions = object["status"]["conditions"].as_array().unwrap();
    let available = |condition: &serde_json::Value| condition["type"] == "Available" && condition["status"] == "True";
    assert!(conditions.iter().any(available), "{conditions:?}");
}
