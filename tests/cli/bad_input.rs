//! What is wrong with cluster.yaml, the command line or the target is named with its place, its cause and what to do;
//! nothing is written.

use crate::support::{CLUSTER, Folder};

const INVALID: &str = "hoist: the input is not valid; nothing was changed\n";

/// The cluster.yaml `text` is refused with `findings`.
#[track_caller]
fn refused(text: &str, findings: &str) {
    let folder = Folder::with(text);
    folder.unchanged(|| folder.render()).failed(3, &format!("{INVALID}{findings}"));
}

#[test]
fn an_unknown_field() {
    refused(
        &format!("{CLUSTER}networking:\n  podsubnet: 10.0.0.0/16\n"),
        "  cluster.yaml:7:3: networking.podsubnet: unknown field\n    did you mean `podSubnet`?\n",
    );
}

#[test]
fn a_duplicate_key() {
    refused(
        &format!("{CLUSTER}clusterName: a\nclusterName: b\n"),
        "  cluster.yaml:7:1: duplicate key `clusterName`, first on line 6\n    keep one of them\n",
    );
}

#[test]
fn no_yaml() {
    refused(
        &format!("{CLUSTER}clusterName: [\n"),
        "  cluster.yaml:7:1: not valid YAML: while parsing a node, did not find expected node content\n",
    );
}

#[test]
fn another_kind_of_file() {
    refused(
        "apiVersion: v1\nkind: Pod\n",
        "  cluster.yaml:1:13: apiVersion: \"v1\" is not known\n    write apiVersion: hoist/v1alpha1\n  \
         cluster.yaml:2:7: kind: \"Pod\" is not known\n    write kind: Cluster\n",
    );
}

#[test]
fn an_empty_file() {
    refused("", "  cluster.yaml: it is empty\n");
}

#[test]
fn several_findings_at_once() {
    refused(
        &format!(
            "{CLUSTER}kubernetesVersion: v1.20.0\nnetworking: {{podSubnet: 10.96.0.0/16}}\napiServer:\n  extraArgs:\n  - {{name: secure-port, value: '443'}}\n"
        ),
        "  cluster.yaml:6:20: kubernetesVersion: v1.20.0 is not supported\n    supported: 1.34, 1.35, 1.36\n  \
         cluster.yaml:7:25: networking.podSubnet: 10.96.0.0/16 overlaps the service subnet 10.96.0.0/12\n    choose another range\n  \
         cluster.yaml:10:12: apiServer.extraArgs[0].name: `secure-port` is set by hoist: the bridge and the self-hosted API server share one address by it\n    remove it\n",
    );
}

#[test]
fn subnets_that_overlap() {
    refused(
        &format!("{CLUSTER}networking: {{podSubnet: 10.96.0.0/16}}\n"),
        "  cluster.yaml:6:25: networking.podSubnet: 10.96.0.0/16 overlaps the service subnet 10.96.0.0/12\n    choose another range\n",
    );
}

#[test]
fn a_subnet_that_holds_a_controller() {
    refused(
        &format!("{CLUSTER}networking: {{podSubnet: 198.51.0.0/16}}\n"),
        "  cluster.yaml:5:12: controllers[0].address: 198.51.100.10 lies in networking.podSubnet, 198.51.0.0/16\n    choose another range for the subnet\n",
    );
}

#[test]
fn a_version_that_is_not_supported() {
    refused(
        &format!("{CLUSTER}kubernetesVersion: v1.33.9\n"),
        "  cluster.yaml:6:20: kubernetesVersion: v1.33.9 is not supported\n    supported: 1.34, 1.35, 1.36\n",
    );
}

#[test]
fn a_ca_that_is_not_there() {
    refused(
        &format!("{CLUSTER}pki: {{ca: {{certificate: ca.crt, key: keys/ca.key}}}}\n"),
        "  DIR/ca.crt: cannot be read: No such file or directory (os error 2)\n    pki.ca.certificate names it: correct the path, or let this user read the file\n  \
         DIR/keys/ca.key: cannot be read: No such file or directory (os error 2)\n    pki.ca.key names it: correct the path, or let this user read the file\n",
    );
}

#[test]
fn a_key_that_is_none() {
    let folder = Folder::with(&format!("{CLUSTER}pki: {{serviceAccountKey: sa.key}}\n"));
    folder.put("sa.key", "no key");
    folder
        .unchanged(|| folder.render())
        .failed(3, &format!("{INVALID}  DIR/sa.key: is no PEM file: there is no -----BEGIN line\n"));
}

#[test]
fn a_configuration_that_is_not_there() {
    let folder = Folder::new();
    folder.unchanged(|| folder.render()).failed(
        3,
        &format!("{INVALID}  cluster.yaml: there is no such file\n    `hoist config default > cluster.yaml` makes one to begin with\n"),
    );
}

#[test]
fn a_configuration_that_is_no_text() {
    let folder = Folder::new();
    folder.put("cluster.yaml", b"kind: Cluster\nclusterName: \xe4\n");
    folder.unchanged(|| folder.render()).failed(3, &format!("{INVALID}  cluster.yaml:2:14: is not text in UTF-8\n"));
}

#[test]
fn a_configuration_that_is_a_folder() {
    let folder = Folder::new();
    let run = || folder.run(&["render", "--config", ".", "--asset-dir", "assets"]);
    folder.unchanged(run).failed(1, "hoist: cannot read .: Is a directory (os error 21)\n");
}

#[test]
fn targets_that_are_somebody_elses() {
    let folder = Folder::with(CLUSTER);
    folder.put("notes/todo.txt", "x");
    let render =
        |dir: &str| folder.unchanged(|| folder.run(&["render", "--config", "cluster.yaml", "--asset-dir", dir]));
    let remedy = "    name an empty folder, a new one, or one that `hoist render` wrote\n";
    for (dir, what) in [
        ("notes", "DIR/notes: holds files that `hoist render` did not write"),
        ("cluster.yaml", "DIR/cluster.yaml: is not a folder"),
        ("cluster.yaml/below", "DIR/cluster.yaml/below: is not a folder"),
    ] {
        render(dir).failed(3, &format!("{INVALID}  {what}\n{remedy}"));
    }
    let what = "DIR: holds your configuration, where `hoist render` would write the resolved one";
    let remedy = "    render into a folder of its own, such as `--asset-dir assets`\n";
    render(".").failed(3, &format!("{INVALID}  {what}\n{remedy}"));
    // Nobody may write there, not even root.
    render("/proc/hoist").failed(1, "hoist: cannot make /proc/hoist: No such file or directory (os error 2)\n");
}

#[test]
fn usage() {
    let folder = Folder::with(CLUSTER);
    for (args, said) in [
        (&[][..], &["Usage: hoist [OPTIONS] <COMMAND>"][..]),
        (&["rendr"], &["unrecognized subcommand 'rendr'", "similar", "'render'"]),
        (&["render"], &["--config <FILE>", "--asset-dir <DIR>"]),
        (&["start", "--asset-dir", "a", "--timeout", "1"], &["'1'", "--timeout <DURATION>", "is not a duration"]),
        (&["start", "--asset-dir", "a", "--output", "yaml"], &["[possible values: text, json]"]),
        (&["--log-level", "loud", "config", "default"], &["[possible values: error, warn, info, debug, trace]"]),
    ] {
        folder.unchanged(|| folder.run(args)).failed_saying(2, said);
    }
    for value in ["kube-apiserver", "/a", "a/", "a/b/c", "a/b,c", ""] {
        let run = || folder.run(&["start", "--asset-dir", "a", "--required-pods", value]);
        folder.unchanged(run).failed_saying(2, &["--required-pods <NAMESPACE/NAME>", "it must be NAMESPACE/NAME of a"]);
    }
}
