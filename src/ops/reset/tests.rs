//! Below a root of the test's own, without systemd, a kubelet or a runtime.

use std::cell::RefCell;
use std::path::Path;
use std::rc::Rc;

use super::*;
use crate::base::files::{self, Operation};
use crate::base::report::{Clock, Reporter};
use crate::node::host::Host;
use crate::node::system;

const MANIFESTS: &str = "/etc/kubernetes/manifests";
const OWN: &str = "kind: Pod\nmetadata: {labels: {app.kubernetes.io/managed-by: hoist}}\nspec: {volumes: [{name: data, hostPath: {path: /data/etcd}}]}\n";

struct Node {
    root: tempfile::TempDir,
    host: Host,
}

impl Node {
    fn new(files: &[(&str, &str)]) -> Self {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path.trim_start_matches('/'));
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        let host = system::host(root.path(), Path::new(MANIFESTS));
        Self { root, host }
    }

    /// All files below the root, in order.
    fn files(&self) -> Vec<String> {
        fn walk(dir: &Path, found: &mut Vec<std::path::PathBuf>) {
            for entry in std::fs::read_dir(dir).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() { walk(&path, found) } else { found.push(path) }
            }
        }
        let mut found = Vec::new();
        walk(self.root.path(), &mut found);
        let mut found: Vec<_> = found.iter().map(|path| self.host.inside(path).display().to_string()).collect();
        found.sort();
        found
    }

    async fn reset(&self, removes_etcd_data: bool) -> Found {
        let found = look(&self.host, removes_etcd_data).await;
        let reporter = Reporter::plain(Box::new(std::io::sink()), Clock::system());
        reset(&self.host, &found, &reporter).await.unwrap();
        found
    }
}

/// What `start`, `unpivot` and guard write, and what stays of others.
const CONTROLLER: [(&str, &str); 24] = [
    ("/etc/kubernetes/kubelet.env", "# Written by hoist start.\nNODE_NAME=c1\n"),
    ("/etc/kubernetes/kubelet.conf", "x"),
    ("/etc/kubernetes/bridge/kube-scheduler/ca.crt", "x"),
    ("/etc/kubernetes/static-pods/kube-scheduler/secrets/ca.crt", "x"),
    ("/etc/kubernetes/manifests/bridge-kube-scheduler.yaml", OWN),
    ("/etc/kubernetes/manifests/etcd.yaml", OWN),
    ("/etc/kubernetes/manifests/hoist-guard.yaml", OWN),
    ("/etc/kubernetes/manifests/kube-scheduler.yaml", OWN),
    ("/etc/kubernetes/pki/ca.crt", "x"),
    ("/etc/kubernetes/pki/etcd/ca.crt", "x"),
    ("/etc/systemd/system/hoist.service", "# Brings the cluster up at the first boot, and\n"),
    ("/etc/systemd/system/kubelet.service", "# How a kubelet must be run for hoist. Where\n"),
    ("/etc/systemd/system/kubelet.service.d/20-hoist.conf", "x"),
    ("/var/lib/hoist/bin/hoist", "x"),
    ("/var/lib/hoist/guard/x", "x"),
    ("/var/lib/kubelet/config.yaml", "kind: KubeletConfiguration\n"),
    ("/var/lib/kubelet/pki/kubelet-client-current.pem", "x"),
    ("/var/lib/kubelet/pki/kubelet-client-hoist.pem", "x"),
    ("/var/lib/kubelet/pki/kubelet-server-current.pem", "x"),
    ("/var/lib/kubelet/pods/uid/volumes/x", "x"),
    ("/data/etcd/member/snap/db", "x"),
    ("/etc/kubernetes/manifests/mine.yaml", "kind: Pod\n"),
    ("/etc/kubernetes/pki/mine.crt", "x"),
    ("/etc/systemd/system/kubelet.service.d/30-mine.conf", "x"),
];
const MINE: [&str; 3] = [
    "/etc/kubernetes/manifests/mine.yaml",
    "/etc/kubernetes/pki/mine.crt",
    "/etc/systemd/system/kubelet.service.d/30-mine.conf",
];

#[tokio::test]
async fn all_of_hoists_goes_and_nothing_else() {
    let node = Node::new(&CONTROLLER);
    let found = node.reset(false).await;
    assert_eq!(node.files(), [&["/data/etcd/hoist-cluster", "/data/etcd/member/snap/db"], &MINE[..]].concat());
    let shown = found.to_string().replace(&node.root.path().display().to_string(), "");
    assert!(shown.contains("  /etc/kubernetes/manifests/etcd.yaml\n"), "{shown}");
    assert!(shown.contains("it keeps etcd's data in /data/etcd,"), "{shown}");
    assert!(!shown.contains("mine"), "{shown}");
    // Where etcd's data was is known as long as its manifest is; a second run knows the usual place.
    let again = node.reset(true).await;
    assert!(again.is_empty() && again.to_string().contains("nothing of hoist's is on this node"), "{again}");
}

/// It would bring the cluster back at the next boot; the unit itself is the package's.
#[tokio::test]
async fn a_packages_unit_is_disabled_and_stays() {
    const UNIT: &str = "/usr/lib/systemd/system/hoist.service";
    const LINK: &str = "/etc/systemd/system/multi-user.target.wants/hoist.service";
    let text = "# Brings the cluster up at the first boot, and\n";
    let enabled = |unit: &str, leads_to: &str| {
        let node = Node::new(&[(UNIT, unit), ("/etc/systemd/system/multi-user.target.wants/other.service", "x")]);
        std::os::unix::fs::symlink(leads_to, node.root.path().join(&LINK[1..])).unwrap();
        node
    };
    // Where Debian has it, and where everybody else has it.
    for leads_to in ["/lib/systemd/system/hoist.service", UNIT] {
        let node = enabled(text, leads_to);
        let found = node.reset(false).await;
        assert!(!found.is_empty() && found.to_string().contains(LINK), "{found}");
        assert!(node.root.path().join(&LINK[1..]).symlink_metadata().is_err());
        assert!(node.files().contains(&UNIT.to_owned()));
        assert!(node.reset(false).await.is_empty());
    }
    for (unit, leads_to) in [("[Service]\n", UNIT), (text, "/etc/systemd/system/hoist.service")] {
        let node = enabled(unit, leads_to);
        assert!(node.reset(false).await.is_empty(), "{unit} {leads_to}: somebody else's");
        assert!(node.root.path().join(&LINK[1..]).symlink_metadata().is_ok());
    }
}

/// As long as guard is there, a reset that is cut short would find what it took away there again.
#[tokio::test]
async fn guard_goes_first_and_etcd_last() {
    let node = Node::new(&CONTROLLER);
    let removed: Rc<RefCell<Vec<String>>> = Rc::default();
    let (into, folder) = (removed.clone(), node.host.manifests().to_owned());
    files::watch(Some(Box::new(move |operation, path| {
        if operation == Operation::Remove && path.parent() == Some(&folder) {
            into.borrow_mut().push(path.file_name().unwrap().to_string_lossy().into_owned());
        }
        Ok(())
    })));
    node.reset(false).await;
    files::watch(None);
    assert_eq!(removed.take(), ["hoist-guard.yaml", "bridge-kube-scheduler.yaml", "kube-scheduler.yaml", "etcd.yaml"]);
}

#[tokio::test]
async fn etcds_data_goes_where_it_is_asked_for() {
    let node = Node::new(&CONTROLLER);
    let found = node.reset(true).await;
    assert!(found.to_string().contains("/data/etcd/member/"), "{found}");
    assert_eq!(node.files(), MINE);
}

#[tokio::test]
async fn a_node_of_kubeadms_is_left_alone() {
    let kubeadm = [
        ("/etc/kubernetes/kubelet.conf", "x"),
        ("/etc/kubernetes/manifests/etcd.yaml", "kind: Pod\n"),
        ("/etc/kubernetes/manifests/kube-scheduler.yaml", "kind: Pod\n"),
        ("/etc/kubernetes/pki/ca.crt", "x"),
        ("/etc/kubernetes/pki/etcd/server.key", "x"),
        ("/etc/systemd/system/hoist.service", "[Service]\n"),
        ("/etc/systemd/system/kubelet.service", "[Service]\n"),
        ("/var/lib/kubelet/config.yaml", "x"),
        ("/var/lib/kubelet/pki/kubelet-client-current.pem", "x"),
        ("/var/lib/etcd/member/snap/db", "x"),
        ("/var/lib/kubelet/pods/uid/volumes/x", "x"),
    ];
    let node = Node::new(&kubeadm);
    assert!(node.reset(true).await.is_empty());
    let mut there = kubeadm.map(|(path, _)| path.to_owned());
    there.sort();
    assert_eq!(node.files(), there);
}

/// Only the root user may unmount, and nothing is mounted there: it stays in the table.
async fn assert_what_is_mounted_stays(node: &Node, at: &str) {
    let mounts = node.root.path().join("proc/self/mountinfo");
    std::fs::create_dir_all(mounts.parent().unwrap()).unwrap();
    let at = format!("{at}/uid/volumes/hoist-test\\040nothing");
    std::fs::write(mounts, format!("36 35 0:9 / {at} rw - nfs4 nfs:/data rw\n")).unwrap();
    let found = look(&node.host, false).await;
    let reporter = Reporter::plain(Box::new(std::io::sink()), Clock::system());
    let said = reset(&node.host, &found, &reporter).await.unwrap_err().to_string();
    assert!(said.contains(&format!("something is still mounted at {}", at.replace("\\040", " "))), "{said}");
    let files = node.files();
    assert!(files.iter().any(|file| file.ends_with("kubelet/pods/uid/volumes/x")), "{files:?}");
    assert!(
        files.contains(&"/etc/kubernetes/kubelet.env".to_owned()),
        "the next run knows whose all this is: {files:?}"
    );
}

#[tokio::test]
async fn what_is_still_mounted_is_never_removed() {
    assert_what_is_mounted_stays(&Node::new(&CONTROLLER), "/var/lib/kubelet/pods").await;
}

/// As on a machine whose kubelet has got a larger disk.
#[tokio::test]
async fn what_is_still_mounted_behind_a_link_is_never_removed() {
    let node = Node::new(&CONTROLLER);
    let path = |path: &str| node.root.path().join(path);
    std::fs::rename(path("var/lib/kubelet"), path("data/kubelet")).unwrap();
    std::os::unix::fs::symlink("../../data/kubelet", path("var/lib/kubelet")).unwrap();
    assert_what_is_mounted_stays(&node, "/data/kubelet/pods").await;
}
