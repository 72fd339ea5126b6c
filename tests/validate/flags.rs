//! Flags that a version does not take.

use crate::rendered;
use crate::support::{Directory, Row, check, findings};

const API_SERVER: &str = "manifests/kube-apiserver/daemonset.yaml";

#[test]
fn unknown_and_deprecated_ones() {
    check(&[
        Row {
            path: API_SERVER,
            from: "- --allow-privileged=true",
            to: "- --allow-privileged=true\n        - --audit-log-maxag=3",
            at: "--audit-log-maxag",
            message: "--audit-log-maxag: is not a flag of kube-apiserver 1.37",
        },
        Row {
            path: API_SERVER,
            from: "- --allow-privileged=true",
            to: "- --allow-privileged=true\n        - audit",
            at: "audit\n",
            message: "`audit`: kube-apiserver takes no arguments, and would exit on this",
        },
        Row {
            path: "bootstrap-manifests/etcd.yaml",
            from: "- --client-cert-auth=true",
            to: "- --client-cert-auth=true\n    - --walldir=/x",
            at: "--walldir",
            message: "--walldir: is not a flag of etcd for Kubernetes 1.37",
        },
        Row {
            path: "bootstrap-manifests/etcd.yaml",
            from: "- --client-cert-auth=true",
            to: "- --client-cert-auth=true\n    - -max-snapshots=3",
            at: "-max-snapshots",
            message: "warning: --max-snapshots: is deprecated in etcd for Kubernetes 1.37",
        },
        Row {
            path: "manifests/kube-scheduler/deployment.yaml",
            from: "- --leader-elect=true",
            to: "- --leader-elect=true\n        - --kube-api-qps=100",
            at: "--kube-api-qps",
            message: "warning: --kube-api-qps: is deprecated in kube-scheduler 1.37",
        },
        Row {
            path: "kubelet/kubelet.service",
            from: "--node-ip=${NODE_IP}",
            to: "--node-ip=${NODE_IP} --container-runtime=remote",
            at: "--container-runtime",
            message: "--container-runtime: is not a flag of kubelet 1.37",
        },
        Row {
            path: "kubelet/kubelet.service",
            from: "--node-ip=${NODE_IP}",
            to: "--node-ip=${NODE_IP} \\\n  --cluster-domain cluster.local",
            at: "--cluster-domain",
            message: "warning: --cluster-domain: is deprecated in kubelet 1.37",
        },
    ]);
}

/// The finding names the version that a flag came with, and the one of the image that is given it.
#[test]
fn of_another_version() {
    let cluster = rendered::parse(
        &rendered::cluster("minimal").to_yaml().replace(hoist::desired::config::KUBERNETES_VERSION, "v1.35.4"),
    );
    let mut directory = Directory { set: rendered::render(&cluster) };
    let add = |directory: &mut Directory, path: &str| {
        directory.edit(
            path,
            "- --allow-privileged=true",
            "- --allow-privileged=true\n        - --tls-curve-preferences=X25519",
        );
    };
    add(&mut directory, API_SERVER);
    let at = directory.position(API_SERVER, "--tls-curve-preferences");
    let message = "--tls-curve-preferences: was added in Kubernetes 1.36, and kube-apiserver is of 1.35";
    assert_eq!(findings(&directory.set), [format!("assets/{API_SERVER}:{at}: {message}")]);

    directory.edit(API_SERVER, "kube-apiserver:v1.35.4", "kube-apiserver:v1.36.3");
    let found = findings(&directory.set);
    assert!(!found.iter().any(|finding| finding.contains("was added in")), "{found:?}");
    assert!(found.iter().any(|finding| finding.contains("and the bridge's is")), "{found:?}");
}

#[test]
fn what_was_likely_meant() {
    let mut directory = Directory::new();
    directory.edit(API_SERVER, "- --allow-privileged=true", "- --allow-privileged=true\n        - --audit-log-maxag=3");
    let found = crate::support::all(&directory.set, time::OffsetDateTime::now_utc());
    assert_eq!(found[0].remedy.as_deref(), Some("did you mean --audit-log-maxage?"));
}
