//! An asset directory in the layout of bootkube v0.14: refused with the reasons, and the way that the refusal and
//! docs/from-bootkube.md show leads to one that hoist starts.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::{Row, Table};
use crate::support::{CLUSTER, Folder};

/// The layout, as far as it matters: the names, and in the files what hoist looks at.
fn bootkube() -> Folder {
    let folder = Folder::new();
    // Keys of an RSA CA as bootkube makes it are in tests/pki; here it is the files that matter.
    let cluster = hoist::desired::config::parse("f", CLUSTER, Path::new("/")).unwrap();
    let now = time::OffsetDateTime::now_utc();
    let made = hoist::desired::pki::issue(&cluster, &BTreeMap::new(), &Default::default(), now).unwrap().files;
    for (name, from) in [
        ("ca.crt", "ca.crt"),
        ("ca.key", "ca.key"),
        ("apiserver.crt", "apiserver.crt"),
        ("apiserver.key", "apiserver.key"),
        ("service-account.key", "sa.key"),
        ("service-account.pub", "sa.pub"),
        ("admin.crt", "admin.crt"),
        ("admin.key", "admin.key"),
        ("etcd-client-ca.crt", "etcd/ca.crt"),
        ("etcd-client.crt", "apiserver-etcd-client.crt"),
        ("etcd-client.key", "apiserver-etcd-client.key"),
    ] {
        let path = format!("old/tls/{name}");
        folder.put(&path, &made[from]);
        // As bootkube writes all of its files.
        fs::set_permissions(folder.path(&path), fs::Permissions::from_mode(0o600)).unwrap();
    }
    folder.put("old/auth/kubeconfig", "apiVersion: v1\nkind: Config\n");
    for name in ["apiserver", "controller-manager", "scheduler"] {
        let pod =
            format!("apiVersion: v1\nkind: Pod\nmetadata: {{name: bootstrap-kube-{name}, namespace: kube-system}}\n");
        folder.put(&format!("old/bootstrap-manifests/bootstrap-{name}.yaml"), pod);
    }
    let put = |name: &str, text: &str| folder.put(&format!("old/manifests/{name}.yaml"), text);
    put(
        "kube-system-rbac-role-binding",
        "apiVersion: rbac.authorization.k8s.io/v1\nkind: ClusterRoleBinding\nmetadata:\n  name: system:default-sa\n\
         subjects:\n- kind: ServiceAccount\n  name: default\n  namespace: kube-system\nroleRef:\n  kind: ClusterRole\n  \
         name: cluster-admin\n  apiGroup: rbac.authorization.k8s.io\n",
    );
    put(
        "kube-scheduler-disruption",
        "apiVersion: policy/v1beta1\nkind: PodDisruptionBudget\nmetadata: {name: kube-scheduler, namespace: kube-system}\n",
    );
    put("pod-checkpointer", "apiVersion: apps/v1\nkind: DaemonSet\nmetadata: {name: pod-checkpointer}\n");
    put("kube-apiserver", "apiVersion: apps/v1\nkind: DaemonSet\nmetadata: {name: kube-apiserver}\n");
    put("mine", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: mine}\ndata: {a: b}\n");
    folder
}

#[test]
fn it_is_refused_with_the_reasons() {
    let mut table = Table::default();
    let folder = bootkube();
    folder.put("cluster.yaml", CLUSTER);
    let says = [
        "  DIR/old: was rendered by bootkube (bootstrap-manifests/bootstrap-apiserver.yaml, ",
        "tls/service-account.key",
        "pki: {ca: {certificate: DIR/old/tls/ca.crt, key: DIR/old/tls/ca.key}, serviceAccountKey: DIR/old/tls/service-account.key}",
        "docs/from-bootkube.md",
        "  DIR/old/bootstrap-manifests/bootstrap-apiserver.yaml: this API server takes the port of the self-hosted one",
        "  DIR/old/manifests/kube-scheduler-disruption.yaml:1:13: policy/v1beta1 is not served since Kubernetes 1.25\n",
        "  DIR/old/manifests/kube-system-rbac-role-binding.yaml:11:9: gives all rights to every pod in kube-system ",
    ];
    let render = || folder.bounded(&["render", "--config", "cluster.yaml", "--asset-dir", "old"]);
    table.row(&Row { name: "render", code: 3, says: &says }, &folder, render);
    // `start` is made to find it under the name that the helper knows.
    fs::rename(folder.path("old"), folder.path("assets")).unwrap();
    let says: Vec<_> = says.iter().map(|text| text.replace("DIR/old", "DIR/assets")).collect();
    let says: Vec<_> = says.iter().map(String::as_str).collect();
    folder.give_away();
    table.row(&Row { name: "start", code: 3, says: &says }, &folder, || folder.bounded_start());
    // A cluster.yaml beside them makes no asset directory of it.
    folder.put("assets/cluster.yaml", CLUSTER);
    folder.give_away();
    table.row(&Row { name: "start", code: 3, says: &says }, &folder, || folder.bounded_start());
}

/// The indented blocks of docs/from-bootkube.md that begin with `first`.
fn block(first: &str) -> String {
    let text = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/from-bootkube.md")).unwrap();
    let (_, rest) = text.split_once(&format!("\n    {first}")).unwrap_or_else(|| panic!("the page has no {first}"));
    let more = rest.lines().skip(1).take_while(|line| line.starts_with("    "));
    let rest = rest.lines().next().unwrap_or_default();
    let lines = std::iter::once(format!("{first}{rest}")).chain(more.map(|line| line[4..].to_owned()));
    lines.map(|line| line + "\n").collect()
}

#[test]
fn the_page_leads_to_one_that_starts() {
    let folder = bootkube();
    folder.put("cluster.yaml", block("apiVersion: hoist/v1alpha1"));
    // The page's commands, with hoist on the PATH as it is once installed.
    let commands = block("hoist render --config");
    let mut command = folder.command(&[]);
    let bin = Path::new(command.get_program()).parent().unwrap().to_owned();
    command = std::process::Command::new("sh");
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
    command.args(["-euc", &commands]).env("PATH", path).current_dir(folder.path(""));
    folder.ran(&mut command).ok();
    for (new, old) in [("ca.crt", "ca.crt"), ("ca.key", "ca.key"), ("sa.key", "service-account.key")] {
        assert_eq!(folder.read(&format!("assets/tls/{new}")), folder.read(&format!("old/tls/{old}")), "{new}");
    }
    assert_eq!(folder.read("assets/manifests/mine.yaml"), folder.read("old/manifests/mine.yaml"));
    // Nothing of the input is left to object to: it is the machine that is no controller.
    folder.start(&[]).failed_saying(4, &["no interface of this machine has the address of one of them"]);
}
