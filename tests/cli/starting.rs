//! What keeps `hoist start` from touching a machine. It is never run as root here.

use std::fs;

use crate::support::{CLUSTER, Folder, here};

/// `hoist start` ends with `code` and these findings.
#[track_caller]
fn refused(folder: &Folder, more: &[&str], code: i32, findings: &str) {
    let what = if code == 3 { "the input is not valid" } else { "this machine is not ready" };
    // It may change whose the files are, so what is watched is the second run.
    folder.start(more);
    folder.unchanged(|| folder.start(more)).failed(code, &format!("hoist: {what}; nothing was changed\n{findings}"));
}

/// The line and column of `text` in a file, as findings have them.
fn position(folder: &Folder, name: &str, text: &str) -> String {
    let content = folder.read(name);
    let (before, _) = content.split_once(text).unwrap();
    let line = before.lines().count() + usize::from(before.ends_with('\n'));
    format!("{}:{}", line, before.len() - before.rfind('\n').map_or(0, |at| at + 1) + 1)
}

#[test]
fn manifests_that_are_not_valid() {
    let folder = Folder::rendered(CLUSTER);
    let (daemonset, deployment) =
        ("assets/manifests/kube-apiserver/daemonset.yaml", "assets/manifests/kube-scheduler/deployment.yaml");
    folder.edit(daemonset, "hostNetwork: true", "hostNetwrk: true");
    folder.edit(deployment, "minReadySeconds: 10", "minReadySeconds: soon");
    folder.put("assets/manifests/mine/a.yaml", "kind: ConfigMap\nmetadata: {name: a\n");
    folder.put("assets/manifests/mine/b.yaml", "apiVersion: v1\nkind: ConfigMap\n---\nkind: X\nkind: Y\n");
    folder.put("assets/manifests/mine/c.yaml", "apiVersion: v1\nkind: ConfigMap\n");
    let (first, second) =
        (position(&folder, daemonset, "hostNetwrk"), position(&folder, deployment, "minReadySeconds"));
    refused(
        &folder,
        &[],
        3,
        &format!(
            "  DIR/{daemonset}:{first}: spec.template.spec.hostNetwrk: unknown field `hostNetwrk`\n    \
             did you mean `hostNetwork`?\n  \
             DIR/{deployment}:{second}: spec.minReadySeconds: expected an integer of 32 bits, found \"soon\"\n    \
             `kubectl explain deployment` names the fields and their types\n  \
             DIR/assets/manifests/mine/a.yaml:3:1: not valid YAML: while parsing a flow mapping, did not find expected ',' or '}}'\n    \
             look at the lines up to there: indentation, a colon or dash, an open quote or bracket\n  \
             DIR/assets/manifests/mine/b.yaml:5:1: duplicate key `kind`, first on line 4\n    keep one of them\n  \
             DIR/assets/manifests/mine/c.yaml:1:1: a manifest needs metadata.name\n    \
             give the object a name: metadata: {{name: …}}\n"
        ),
    );
}

#[test]
fn a_file_that_is_missing() {
    let Some(cluster) = here() else { return };
    let folder = Folder::rendered(&cluster);
    let mut findings = String::new();
    for name in ["auth/kubeconfig", "bootstrap-manifests/etcd.yaml", "tls/apiserver.key", "tls/kube-scheduler.crt"] {
        fs::remove_file(folder.path("assets").join(name)).unwrap();
        findings += &format!("  DIR/assets/{name}: the asset directory lacks this file\n");
        findings += "    run `hoist render` with the cluster.yaml and this asset directory again\n";
    }
    refused(&folder, &[], 3, &findings);
    // What the message advises.
    let issued = "issued tls/apiserver.key: new\nissued tls/apiserver.crt: its key was missing\n";
    let said = folder.render().ok();
    assert!(said.starts_with(issued), "{said}");
    assert_eq!(folder.start(&[]).code, Some(4));
}

#[test]
fn an_asset_directory_that_does_not_go_together() {
    let Some(cluster) = here() else { return };
    let folder = Folder::rendered(&cluster);
    let daemonset = "assets/manifests/kube-apiserver/daemonset.yaml";
    folder.edit(daemonset, "secretName: kube-apiserver", "secretName: keys");
    // A warning of it stands in nobody's way.
    folder.edit("assets/manifests/kube-apiserver/rbac.yaml", "system:kubelet-api-admin", "my-own");
    let at = position(&folder, daemonset, "keys\n");
    let findings = format!(
        "  DIR/{daemonset}:{at}: spec.template.spec.volumes[2].secret.secretName: no manifest makes the Secret keys of kube-system\n    \
         correct the name, or add a manifest; `hoist render` writes those of the control plane\n"
    );
    refused(&folder, &[], 3, &findings);
    // Who knows better may say so.
    folder.start(&["--validate=false"]).failed_saying(4, &["hoist start must run as root"]);
}

#[test]
fn a_machine_that_is_no_controller() {
    let folder = Folder::rendered(CLUSTER);
    refused(
        &folder,
        &[],
        4,
        "  cluster.yaml: controllers: no interface of this machine has the address of one of them: c1 (198.51.100.10)\n    \
         run it on a controller, or correct the address and render again\n",
    );
    refused(
        &folder,
        &["--node-name", "c2"],
        4,
        "  --node-name: no controller of cluster.yaml is called c2; there are c1 (198.51.100.10)\n    name one of them\n",
    );
}

#[test]
fn without_root() {
    let Some(cluster) = here() else { return };
    let folder = Folder::rendered(&cluster);
    folder.start(&[]).failed_saying(
        4,
        &[
            "hoist: this machine is not ready; nothing was changed\n",
            "  IsPrivilegedUser: hoist start must run as root\n    run it with sudo\n",
        ],
    );
}

/// It then gets as far as this machine lets it, which is not far for such a user.
#[test]
fn a_check_that_is_skipped_is_not_made() {
    let Some(cluster) = here() else { return };
    let folder = Folder::rendered(&cluster);
    for flag in ["--skip-preflight=isprivilegeduser", "--ignore-preflight-errors=IsPrivilegedUser"] {
        let ran = folder.start(&[flag]);
        assert!(matches!(ran.code, Some(1 | 4)), "{ran:?}");
        let as_error = "  IsPrivilegedUser: hoist start must run as root\n";
        assert!(!ran.stderr.contains(as_error) && !ran.stderr.is_empty(), "{ran:?}");
    }
}
