//! The asset directory that `start` reads, and that `render` writes again.

use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;

use super::{Row, Table};
use crate::support::{CLUSTER, Folder, sparse};

/// Runs `hoist start` on an asset directory to which `make` has done something.
fn start(table: &mut Table, name: &str, make: impl FnOnce(&Folder), says: &[&str]) {
    let folder = Folder::rendered(CLUSTER);
    make(&folder);
    folder.give_away();
    table.row(&Row { name, code: 3, says }, &folder, || folder.bounded_start());
}

const MINE: &str = "assets/manifests/mine.yaml";
const MAP: &str = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n";

#[test]
fn folders_that_are_no_asset_directory() {
    let mut table = Table::default();
    let folder = Folder::new();
    let make = "    make one with `hoist render --config cluster.yaml --asset-dir DIR`\n";
    let mut row = |name, says: &str| {
        folder.give_away();
        table.row(&Row { name, code: 3, says: &[says] }, &folder, || folder.bounded_start());
    };
    row("nothing", &format!("  DIR/assets: there is no such folder\n{make}"));
    folder.put("assets", "");
    row("a file", &format!("  DIR/assets: is not an asset directory: it has no cluster.yaml\n{make}"));
    fs::remove_file(folder.path("assets")).unwrap();
    folder.put("assets/manifests/a.yaml", "");
    row("manifests alone", &format!("  DIR/assets: is not an asset directory: it has no cluster.yaml\n{make}"));
    folder.put("assets/cluster.yaml/file", "");
    row("a folder in place of cluster.yaml", "  DIR/assets/cluster.yaml: is a folder, not a file\n");
}

#[test]
fn files_that_are_none() {
    let mut table = Table::default();
    let mut row = |name: &str, make: fn(&Folder), says: &[&str]| start(&mut table, name, make, says);
    row("an interrupted render", |folder| folder.put("assets/.rendering", ""), &["  DIR/assets: is incomplete: "]);
    row(
        "cluster.yaml with a mistake",
        |folder| folder.edit("assets/cluster.yaml", "clusterName: kubernetes", "clustrName: kubernetes"),
        &["  DIR/assets/cluster.yaml:4:1: clustrName: unknown field\n    did you mean `clusterName`?\n"],
    );
    row(
        "several that are no files, and a hidden one that does not matter",
        |folder| {
            folder.put("assets/manifests/folder.yaml/a.yaml", MAP);
            let path = |name: &str| folder.path("assets").join(name);
            nix::unistd::mkfifo(&path("manifests/pipe.yaml"), nix::sys::stat::Mode::S_IRWXU).unwrap();
            nix::unistd::mkfifo(&path("manifests/.pipe.yaml"), nix::sys::stat::Mode::S_IRWXU).unwrap();
            drop(UnixListener::bind(path("manifests/socket.yaml")).unwrap());
            symlink("none", path("manifests/dangling.yaml")).unwrap();
            symlink("loop.yaml", path("manifests/loop.yaml")).unwrap();
            symlink("..", path("manifests/up")).unwrap();
            sparse(&path("manifests/huge.yaml"), 100 << 20);
            fs::remove_file(path("tls/ca.key")).unwrap();
            folder.put("assets/tls/ca.key/file", "");
        },
        &[
            "  DIR/assets/manifests/pipe.yaml: is a pipe, not a file\n",
            "  DIR/assets/manifests/socket.yaml: is a socket, not a file\n",
            "  DIR/assets/manifests/dangling.yaml: is a symbolic link to a file that is not there\n",
            "  DIR/assets/manifests/loop.yaml: is a symbolic link that leads back to itself\n",
            "  DIR/assets/manifests/up/manifests: is a link to a folder around itself\n    remove the link\n",
            "  DIR/assets/manifests/huge.yaml: is too large: hoist reads at most 16 MiB of such a file\n",
        ],
    );
    row(
        "more than fits",
        |folder| (0..20).for_each(|i| sparse(&folder.path(&format!("assets/manifests/{i}.yaml")), 16 << 20)),
        &["  DIR/assets: holds more than 128 MiB, which hoist does not read\n"],
    );
}

#[test]
fn manifests() {
    let mut table = Table::default();
    let bomb: String = (1..10).fold("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned(), |text, i| {
        text + &format!("a{i}: &a{i} [{}]\n", format!("*a{}, ", i - 1).repeat(10))
    });
    let utf16: Vec<u8> = [0xfeff].into_iter().chain(MAP.encode_utf16()).flat_map(u16::to_le_bytes).collect();
    let rows: Vec<(&str, Vec<u8>, &[&str])> = vec![
        ("no YAML", b"kind: ConfigMap\nmetadata: {name: a\n".to_vec(), &[":3:1: not valid YAML: "]),
        ("tabs", b"kind: ConfigMap\nmetadata:\n\tname: a\n".to_vec(), &["mine.yaml:3:"]),
        ("a program", b"\x7fELF\x02\x01\x01\0\0\0\xb0\xff".to_vec(), &[":1:11: is not text in UTF-8"]),
        ("NUL", b"kind: A\0B\n".to_vec(), &[":1:8: holds the character U+0000"]),
        ("UTF-16", utf16, &[":1:1: is text in UTF-16"]),
        ("aliases that grow", bomb.into_bytes(), &["aliases expand to too many values"]),
        ("nested deeply", "{a: ".repeat(500_000).into_bytes(), &["nested more than 100 levels deep"]),
        (
            "a duplicate key",
            b"apiVersion: v1\nkind: ConfigMap\n---\nkind: X\nkind: Y\n".to_vec(),
            &[":5:1: duplicate key `kind`, first on line 4"],
        ),
        ("no apiVersion", b"kind: ConfigMap\nmetadata: {name: a}\n".to_vec(), &[":1:1: a manifest needs apiVersion\n"]),
        ("no kind", b"apiVersion: v1\nmetadata: {name: a}\n".to_vec(), &[":1:1: a manifest needs kind\n"]),
        (
            "no name",
            b"apiVersion: v1\nkind: ConfigMap\nmetadata: {}\n".to_vec(),
            &[":3:1: a manifest needs metadata.name\n    give the object a name"],
        ),
        (
            "a name that is a number",
            b"apiVersion: v1\nkind: ConfigMap\nmetadata: {name: 1}\n".to_vec(),
            &["mine.yaml:3:18: metadata.name: expected a string, found 1\n    write it in quotes"],
        ),
        (
            "a name to be",
            b"apiVersion: v1\nkind: ConfigMap\nmetadata: {generateName: a-}\n".to_vec(),
            &["give it a name instead of generateName"],
        ),
        (
            "a list with mistakes in it",
            b"apiVersion: v1\nkind: ConfigMapList\nitems:\n- metadata: {}\n- metadata: {name: a}\n  dta: {}\n- 5\n- {kind: ConfigMap}\n"
                .to_vec(),
            &[
                "mine.yaml:4:3: a manifest needs metadata.name\n    give the object a name",
                "mine.yaml:6:3: dta: unknown field `dta`",
                "mine.yaml:7:3: a manifest needs kind",
                "mine.yaml:8:3: a manifest needs apiVersion",
            ],
        ),
        (
            "a list that is none",
            b"apiVersion: v1\nkind: List\nitems: {a: b}\n".to_vec(),
            &[":1:1: a manifest needs metadata.name\n    if it is a list, its kind ends with List, and items: is a list"],
        ),
        (
            "the same object twice in a list",
            b"apiVersion: v1\nkind: ConfigMapList\nitems:\n- metadata: {name: a}\n- metadata: {name: a}\n".to_vec(),
            &["mine.yaml:5:1: ConfigMap a is in DIR/assets/manifests/mine.yaml:4 already"],
        ),
        (
            "half a character",
            b"apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndata: {a: \"\\ud83d\"}\n".to_vec(),
            &["mine.yaml:4:11: holds an escape of half a character, without the other half\n    write both"],
        ),
        (
            "two objects of JSON, one of them with a key twice",
            b"{\"apiVersion\": \"v1\"}\n {\"kind\": 1, \"kind\": 2}\n".to_vec(),
            &["mine.yaml:2:14: duplicate key `kind`, first on line 2"],
        ),
        (
            "Base64 with a blank",
            b"apiVersion: v1\nkind: Secret\nmetadata: {name: a}\ndata: {a: aGVs bG8=}\n".to_vec(),
            &["mine.yaml:4:8: data.a: "],
        ),
        ("a list", b"- a\n".to_vec(), &[":1:1: a manifest needs kind"]),
        ("a text", b"hello\n".to_vec(), &[":1:1: a manifest needs kind"]),
        (
            "a number in the place of a text",
            b"apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndata: {a: 1}\n".to_vec(),
            &[":4:8: data.a: expected a string, found 1\n    write it in quotes"],
        ),
        (
            "a boolean of YAML 1.1",
            b"apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndata: {a: yes}\n".to_vec(),
            &[":4:8: data.a: expected a string, found true\n    write it in quotes"],
        ),
        (
            "a variable twice",
            b"apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec:\n  containers:\n  - name: a\n    env: [{name: A}, {name: A}]\n"
                .to_vec(),
            &["mine.yaml:7:22: spec.containers[0].env[1]: has name A as spec.containers[0].env[0] has: the API server takes that once\n    keep one"],
        ),
        (
            "no selector",
            b"apiVersion: apps/v1\nkind: StatefulSet\nmetadata: {name: a}\nspec:\n  template: {spec: {containers: [{name: a}]}}\n"
                .to_vec(),
            &["mine.yaml:4:1: spec.selector: it is required\n    add selector: "],
        ),
        (
            "a quantity that is none",
            b"apiVersion: v1\nkind: ResourceQuota\nmetadata: {name: a}\nspec: {hard: {requests.memory: 512MB}}\n".to_vec(),
            &["mine.yaml:4:15: spec.hard[\"requests.memory\"]: expected a quantity, found \"512MB\"\n    write it like 500m, 2, 64Mi or 1G"],
        ),
        (
            "a mistyped field",
            b"apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec: {containers: [], priorityClasName: a}\n".to_vec(),
            &["mine.yaml:4:24: spec.priorityClasName: unknown field `priorityClasName`\n    did you mean `priorityClassName`?"],
        ),
        (
            "twice in a file",
            format!("{MAP}---\n{MAP}").into_bytes(),
            &["mine.yaml:5:1: ConfigMap a is in DIR/assets/manifests/mine.yaml:1 already\n    keep one"],
        ),
        (
            "hoist's own once more",
            b"apiVersion: apps/v1\nkind: DaemonSet\nmetadata: {name: kube-apiserver, namespace: kube-system}\n"
                .to_vec(),
            &["mine.yaml:1:1: DaemonSet kube-apiserver is in DIR/assets/manifests/kube-apiserver/daemonset.yaml:"],
        ),
    ];
    for (name, content, says) in rows {
        start(&mut table, name, |folder| folder.put(MINE, &content), says);
    }
    start(
        &mut table,
        "a static pod with a mistake",
        |folder| folder.edit("assets/bootstrap-manifests/etcd.yaml", "    image:", "    imgae:"),
        &["spec.containers[0].imgae: unknown field `imgae`\n    did you mean `image`?\n"],
    );
}

#[test]
fn keys_and_tokens_of_another_render() {
    let mut table = Table::default();
    let mut row = |name: &str, code: i32, make: fn(&Folder), says: &[&str]| {
        let folder = Folder::rendered(CLUSTER);
        make(&folder);
        table.row(&Row { name, code, says }, &folder, || folder.bounded_render());
    };
    row("a key that is none", 3, |folder| folder.put("assets/tls/ca.key", "x"), &["  tls/ca.key: is not a PEM file: "]);
    row(
        "a key of another",
        3,
        |folder| drop(fs::copy(folder.path("assets/tls/sa.key"), folder.path("assets/tls/ca.key"))),
        &["  tls/ca.key: is not the key of tls/ca.crt\n"],
    );
    row(
        "a CA that is none",
        3,
        |folder| drop(fs::copy(folder.path("assets/tls/admin.crt"), folder.path("assets/tls/ca.crt"))),
        &["tls/ca.crt: the first certificate (O=system:masters, CN=kubernetes-admin) is not a CA"],
    );
    row(
        "an empty certificate",
        3,
        |folder| folder.put("assets/tls/ca.crt", ""),
        &["  tls/ca.crt: is not a PEM file: "],
    );
    row(
        "a huge key",
        3,
        |folder| sparse(&folder.path("assets/tls/ca.key"), 100 << 20),
        &["  DIR/assets/tls/ca.key: is too large: "],
    );
    row(
        "a token that is none",
        3,
        |folder| folder.put("assets/auth/kubeconfig-kubelet", "users: [{user: {token: x}}]\n"),
        &["bootstrap token: is not of the form"],
    );
    row(
        "a kubeconfig that is none",
        3,
        |folder| folder.put("assets/auth/kubeconfig-kubelet", "{\n"),
        &["kubeconfig-kubelet:2:1: not valid YAML: "],
    );
    row(
        "a folder in place of a manifest",
        3,
        |folder| {
            fs::remove_file(folder.path("assets/manifests/kubelet/rbac.yaml")).unwrap();
            folder.put("assets/manifests/kubelet/rbac.yaml/x", "");
        },
        &["  DIR/assets/manifests/kubelet/rbac.yaml: is a folder, not a file\n"],
    );
    row(
        "a pipe in place of a manifest",
        3,
        |folder| {
            fs::remove_file(folder.path("assets/manifests/kubelet/rbac.yaml")).unwrap();
            nix::unistd::mkfifo(&folder.path("assets/manifests/kubelet/rbac.yaml"), nix::sys::stat::Mode::S_IRWXU)
                .unwrap();
        },
        &["  DIR/assets/manifests/kubelet/rbac.yaml: is a pipe, not a file\n"],
    );
    row(
        "a file in place of a folder",
        3,
        |folder| {
            fs::remove_dir_all(folder.path("assets/tls")).unwrap();
            folder.put("assets/tls", "");
        },
        &["  DIR/assets/tls: is not a folder\n"],
    );
}
