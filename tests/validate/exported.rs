//! What `kubectl get -o yaml` has written is put into the asset directory as it is.

use crate::support::{Directory, findings};

/// As kubectl writes a ConfigMap.
const EXPORTED: &str = "\
apiVersion: v1
data:
  a: b
kind: ConfigMap
metadata:
  creationTimestamp: \"2026-01-01T00:00:00Z\"
  name: settings
  namespace: kube-system
  resourceVersion: \"4711\"
  uid: 0e5c1d36-1111-4222-8333-444455556666
";

#[test]
fn what_binds_a_manifest_to_one_object_is_named() {
    let mut directory = Directory::new();
    for path in ["manifests/mine/settings.yaml", "addons/mine/settings.yaml"] {
        directory.put(path, EXPORTED.replace("settings", path.split('/').next().unwrap()));
    }
    let why = "is that of one object of one cluster: the API server refuses the manifest anywhere else";
    let expected = ["addons", "manifests"].map(|part| {
        [(9, "resourceVersion"), (10, "uid")]
            .map(|(line, field)| format!("assets/{part}/mine/settings.yaml:{line}:3: warning: metadata.{field}: {why}"))
    });
    assert_eq!(findings(&directory.set), expected.concat());
}

/// hoist's own static pods may say who they are.
#[test]
fn a_static_pod_may_have_a_uid() {
    let mut directory = Directory::new();
    directory.edit(
        "bootstrap-manifests/hoist-guard.yaml",
        "  namespace: kube-system\n",
        "  namespace: kube-system\n  uid: 0e5c1d36-1111-4222-8333-444455556666\n",
    );
    assert_eq!(findings(&directory.set), [""; 0]);
}
