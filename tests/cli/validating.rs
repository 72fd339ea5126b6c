//! `hoist validate`: what it says, as text and as JSON, and its exit code. What it finds is in tests/validate.

use crate::support::{CLUSTER, Folder};

/// A manifest of which only the cluster knows whether it works.
const OWN: &str = "apiVersion: rbac.authorization.k8s.io/v1\nkind: ClusterRoleBinding\nmetadata: {name: own}\n\
    roleRef:\n  name: my-own\n  kind: ClusterRole\n  apiGroup: rbac.authorization.k8s.io\n";

const VALIDATE: [&str; 3] = ["validate", "--asset-dir", "assets"];

#[test]
fn nothing_is_wrong() {
    let folder = Folder::rendered(CLUSTER);
    let ran = folder.unchanged(|| folder.run(&VALIDATE));
    assert_eq!(ran.ok(), "assets: nothing is wrong\n");
    let ran = folder.run(&["validate", "--asset-dir", "assets", "--output", "json"]);
    assert_eq!(ran.ok(), "{\"schema\":\"hoist.findings/v1\",\"findings\":[]}\n");
}

#[test]
fn only_warnings() {
    let folder = Folder::rendered(CLUSTER);
    folder.put("assets/manifests/own.yaml", OWN);
    assert_eq!(
        folder.run(&VALIDATE).ok(),
        "assets/manifests/own.yaml:5:9: warning: roleRef.name: no manifest makes the ClusterRole my-own\n    \
         correct the name, or add a manifest, unless the cluster has it\n\
         assets: 0 errors, 1 warning\n"
    );
}

#[test]
fn errors_and_warnings_as_json() {
    let folder = Folder::rendered(CLUSTER);
    folder.put("assets/manifests/own.yaml", OWN);
    std::fs::remove_file(folder.path("assets/tls/sa.key")).unwrap();
    let ran = folder.run(&["validate", "--asset-dir", "assets", "--output", "json"]);
    assert_eq!((ran.code, &*ran.stderr), (Some(3), ""));
    let found: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    let expected = serde_json::json!({
        "schema": "hoist.findings/v1",
        "findings": [
            {
                "severity": "warning",
                "file": "assets/manifests/own.yaml",
                "line": 5,
                "column": 9,
                "message": "roleRef.name: no manifest makes the ClusterRole my-own",
                "remedy": "correct the name, or add a manifest, unless the cluster has it",
            },
            {
                "severity": "error",
                "file": "assets/tls/sa.key",
                "line": null,
                "column": null,
                "message": "the asset directory lacks this file",
                "remedy": "run `hoist render` with the cluster.yaml and this asset directory again",
            },
        ],
    });
    assert_eq!(found, expected);
    let ran = folder.run(&VALIDATE);
    assert_eq!(ran.code, Some(3));
    assert!(ran.stdout.ends_with("\nassets: 1 error, 1 warning\n"), "{}", ran.stdout);
}

#[test]
fn no_asset_directory_and_no_cluster() {
    let folder = Folder::new();
    let ran = folder.run(&VALIDATE);
    assert_eq!(ran.code, Some(3));
    assert!(ran.stdout.starts_with("assets: there is no such folder\n"), "{}", ran.stdout);

    // Without a cluster, manifests are still judged by themselves.
    let folder = Folder::rendered(CLUSTER);
    folder.edit("assets/cluster.yaml", "clusterName: kubernetes", "clustrName: kubernetes");
    folder.edit("assets/manifests/kube-scheduler/deployment.yaml", "hostNetwork: true", "hostNetwrk: true");
    let ran = folder.run(&VALIDATE);
    assert_eq!(ran.code, Some(3));
    assert!(ran.stdout.starts_with("assets/cluster.yaml:4:1: clustrName: unknown field\n"), "{}", ran.stdout);
    assert!(ran.stdout.contains("spec.template.spec.hostNetwrk: unknown field"), "{}", ran.stdout);
}
