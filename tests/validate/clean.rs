//! What `render` makes has no finding, and neither has it after what a user may well do to it.

use std::path::Path;

use time::OffsetDateTime;

use crate::rendered;
use crate::support::{Directory, all, findings};

#[test]
fn rendered_clusters() {
    for (cluster, set) in rendered::all() {
        assert_eq!(findings(&set), [""; 0], "{}", cluster.cluster_name);
    }
}

#[test]
fn every_version() {
    for version in ["v1.34.4", "v1.35.4", "v1.36.3", "v1.37.2"] {
        let mut cluster = rendered::cluster("minimal");
        let text = cluster.to_yaml().replace(hoist::desired::config::KUBERNETES_VERSION, version);
        cluster = rendered::parse(&text);
        assert_eq!(findings(&rendered::render(&cluster)), [""; 0], "{version}");
    }
}

/// By the binary of each machine, where `full` has an image.
#[test]
fn an_endpoint_on_each_node_goes_together_and_is_missed() {
    let mut cluster = rendered::cluster("minimal");
    cluster.api_endpoint.node_local = true;
    let mut set = rendered::render(&cluster);
    assert_eq!(findings(&set), [""; 0]);
    let pod = "bootstrap-manifests/hoist-endpoint.yaml";
    set.files.remove(pod);
    let missed = format!("assets/{pod}: no static pod hoist-endpoint: the clients of each node would ask nobody");
    assert_eq!(findings(&set), [missed]);
    // As an older hoist has rendered it.
    set.files.remove("manifests/hoist-endpoint/rbac.yaml");
    assert_eq!(findings(&set), [""; 0]);
}

#[test]
fn a_start_looks_at_its_own_controller_and_not_at_the_clock() {
    let (cluster, mut set) = rendered::all().remove(1);
    let decisive =
        |set: &_| hoist::check::validate::decisive(set, &cluster, &cluster.controllers[1], Path::new("assets"));
    set.files.retain(|path, _| !path.starts_with("tls/etcd/full-1.example.com/"));
    assert!(decisive(&set).is_empty(), "{:?}", decisive(&set));
    set.files.remove("tls/etcd/full-2.example.com/peer.key");
    assert_eq!(decisive(&set).len(), 1);

    let directory = Directory::new();
    let cluster = directory.set.cluster(Path::new("/")).unwrap();
    let late = OffsetDateTime::now_utc() + time::Duration::days(400);
    assert!(!all(&directory.set, late).is_empty());
    let decisive =
        hoist::check::validate::decisive(&directory.set, &cluster, &cluster.controllers[0], Path::new("assets"));
    assert!(decisive.is_empty(), "{decisive:?}");
}

/// Whatever stands in a file, there is an answer. (That it is the right one is for the other tests.)
#[test]
fn files_of_any_content() {
    let directory = Directory::new();
    let odd: [&[u8]; 4] = [
        b"",
        b"\xff\xfe\x00",
        b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
        b"{apiVersion: v1, kind: Pod, metadata: 3, spec: {containers: [3, {command: [etcd, --name, -], env: 3}], volumes: x}}",
    ];
    for path in directory.set.files.keys() {
        for content in odd {
            let mut directory = Directory { set: directory.set.clone() };
            directory.put(path, content);
            let found = all(&directory.set, OffsetDateTime::now_utc());
            // Without this one there is nothing that anything else needs; an empty file is none.
            let is_spare =
                path.starts_with("manifests/cluster/namespace-") || path.ends_with("pod-disruption-budget.yaml");
            // Without them guard keeps the API up, and can tell nobody.
            let is_spare = is_spare || path.starts_with("manifests/hoist-guard/");
            // Without them it serves all the same: what connects pods may be somebody else's.
            let is_spare = is_spare
                || ["coredns", "flannel", "kube-proxy", "node-local-dns"]
                    .iter()
                    .any(|folder| path.starts_with(&format!("manifests/{folder}/")));
            // Nothing that hoist runs reads it: systemd says itself what it makes of it.
            let is_spare = is_spare || path.starts_with("systemd/");
            // Workers are none of the control plane's business.
            let is_spare = is_spare || path.starts_with("kubelet/worker") || path.starts_with("manifests/kubeadm/");
            // A certificate may hold the public key, too.
            let is_spare = is_spare || (path == "tls/sa.pub" && content.starts_with(b"-----"));
            assert!(!found.is_empty() || is_spare, "{path}: {content:?}");
        }
    }
}

/// Forms that kubectl takes, beside the usual ones.
#[test]
fn manifests_as_kubectl_reads_them() {
    let mut directory = Directory::new();
    directory.put(
        "manifests/lists.yaml",
        "# kube-prometheus\napiVersion: v1\nkind: ConfigMapList\nitems:\n- apiVersion: v1\n  kind: ConfigMap\n  metadata: {name: a}\n- metadata: {name: b}\n\
         ---\napiVersion: v1\nkind: List\nmetadata: {resourceVersion: \"\"}\nitems:\n- apiVersion: v1\n  kind: SecretList\n  items:\n  - metadata: {name: c}\n    data:\n      k: |\n        aGVs\n        bG8=\n\
         ---\napiVersion: v1\nkind: List\nitems: []\n...\n",
    );
    directory.put(
        "addons/python.json",
        "{\n\t\"apiVersion\": \"v1\", \"kind\": \"ConfigMap\", \"metadata\": {\"name\": \"d\"},\n\t\"data\": {\"k\": \"\\ud83d\\ude80\"}\n}\n\
         {\"apiVersion\": \"v1\", \"kind\": \"ConfigMap\", \"metadata\": {\"name\": \"e\"}, \"data\": {\"k\": \"a\\/b\"}}\n",
    );
    assert_eq!(findings(&directory.set), [""; 0]);
    let (manifests, addons) = directory.set.manifests(Path::new("assets")).unwrap();
    let of_lists: Vec<_> = manifests.iter().filter(|manifest| manifest.path == "manifests/lists.yaml").collect();
    let said: Vec<_> = of_lists.iter().map(|one| (one.line, one.text("/kind"), one.text("/metadata/name"))).collect();
    assert_eq!(said, [(5, "ConfigMap", "a"), (8, "ConfigMap", "b"), (17, "Secret", "c")]);
    assert_eq!(of_lists[2].text("/data/k"), "aGVs\nbG8=\n", "the API server reads it as kubectl does");
    let said: Vec<_> = addons.iter().map(|one| (one.line, one.text("/metadata/name"), one.text("/data/k"))).collect();
    assert_eq!(said, [(1, "d", "🚀"), (5, "e", "a/b")]);
}

/// A chart's test would stop what comes after it, and its hook before an end would bring that about.
#[test]
fn helms_hooks_for_other_events_are_named_and_not_applied() {
    let mut directory = Directory::new();
    let hook = |kind: &str, name: &str, event: &str| {
        format!(
            "apiVersion: batch/v1\nkind: {kind}\nmetadata:\n  name: {name}\n  annotations:\n    \"helm.sh/hook\": {event}\n"
        )
    };
    let chart = [hook("CronJob", "a", "pre-install"), hook("CronJob", "b", "test"), hook("CronJob", "c", "pre-delete")];
    directory.put("addons/chart.yaml", chart.join("---\n"));
    directory.put("manifests/chart.yaml", hook("CronJob", "a", "post-delete"));
    let said = |file: &str, line: u32, name: &str, event: &str| {
        format!(
            "assets/{file}:{line}:21: warning: CronJob {name} is not applied: it is a hook of Helm's for `{event}`, and not for an install or upgrade"
        )
    };
    let expected = [
        said("addons/chart.yaml", 13, "b", "test"),
        said("addons/chart.yaml", 20, "c", "pre-delete"),
        said("manifests/chart.yaml", 6, "a", "post-delete"),
    ];
    assert_eq!(findings(&directory.set), expected);
    let (manifests, addons) = directory.set.manifests(Path::new("assets")).unwrap();
    assert!(!manifests.iter().any(|manifest| manifest.text("/kind") == "CronJob"));
    assert_eq!(addons.iter().map(|manifest| manifest.text("/metadata/name")).collect::<Vec<_>>(), ["a"]);
}
