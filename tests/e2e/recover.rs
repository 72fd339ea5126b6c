//! A control plane that was deleted, data that goes back to a snapshot, a disk that is gone: each brought back by the
//! commands of docs/recover.md, as they stand there.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose};

use crate::serving::assert_serves_itself;
use crate::support::cluster::{Cluster, START_LIMIT};
use crate::support::command::Ended;
use crate::support::kubectl::Kubectl;
use crate::support::node::{Node, disk};
use crate::support::recover_page as page;
use crate::support::traffic::{PREFIX, Record, Traffic};
use crate::support::{eventually, hoist, pki, worker};

/// A cluster that serves itself, on a node with all in its place that the page takes for granted.
fn started(name: &str) -> (Node, Cluster) {
    let node = Node::up(name);
    let cluster = Cluster::render(&node);
    equip(&node);
    node.sh(&format!("mkdir -m 700 /etc/hoist && cp -rp {} /etc/hoist/assets", cluster.assets.display()));
    cluster.started(&node, &[]).expect(0);
    (node, cluster)
}

/// Puts hoist where users have it.
fn equip(node: &Node) {
    node.sh(&format!("install -m 755 {} /usr/local/bin/hoist", hoist().display()));
}

/// Runs a command of the page.
pub fn run_command(node: &Node, command: &str) -> Ended {
    let ended = node.spawn(["sh", "-euc", command]).wait(START_LIMIT);
    eprintln!("{ended}");
    ended
}

/// The names of the ConfigMaps that the traffic has made.
fn written(kubectl: &Kubectl) -> std::collections::BTreeSet<String> {
    let all = kubectl.list(&["configmaps", "-n", "default"]);
    let names = all.iter().map(|object| object["metadata"]["name"].as_str().unwrap().to_owned());
    names.filter(|name| name.starts_with(PREFIX)).collect()
}

/// Some writes, each acknowledged.
pub fn write(cluster: &Cluster) -> Record {
    let traffic = Traffic::begin(cluster.client());
    std::thread::sleep(Duration::from_secs(2));
    let record = traffic.end().unwrap();
    assert!(record.acknowledged().len() > 5 && record.failures().count() == 0, "{record}");
    record
}

/// Every acknowledged write is there.
pub fn assert_kept(record: &Record, kubectl: &Kubectl) {
    let there = written(kubectl);
    let lost: Vec<_> = record.acknowledged().into_iter().filter(|name| !there.contains(*name)).collect();
    assert!(lost.is_empty(), "acknowledged, and lost: {lost:?}");
}

fn scheduler_image(kubectl: &Kubectl) -> String {
    let scheduler = kubectl.get(&["deployment", "-n", "kube-system", "kube-scheduler"]);
    scheduler["spec"]["template"]["spec"]["containers"][0]["image"].as_str().unwrap().to_owned()
}

/// Waits until each part of the control plane is one pod, after some were made anew.
fn settle(kubectl: &Kubectl) {
    kubectl.run(&["rollout", "status", "-n", "kube-system", "--timeout=90s", "deployment/kube-scheduler"]).ok();
    eventually("what was deleted is gone", Duration::from_secs(60), || {
        let pods = kubectl.list(&["pods", "-n", "kube-system", "-l", "tier=control-plane"]);
        let is_made =
            |pod: &&serde_json::Value| pod["metadata"]["annotations"]["kubernetes.io/config.mirror"].is_null();
        (pods.iter().filter(is_made).count() == 3).then_some(())
    });
    // A scheduler that is rolled gives its Lease back before its successor takes it.
    eventually("somebody leads again", Duration::from_secs(60), || {
        let leases = kubectl.list(&["leases", "-n", "kube-system"]);
        let leads = |name: &str| {
            let lease = leases.iter().find(|lease| lease["metadata"]["name"] == name);
            lease.is_some_and(|lease| lease["spec"]["holderIdentity"].as_str().is_some_and(|holder| !holder.is_empty()))
        };
        ["kube-controller-manager", "kube-scheduler"].iter().all(|name| leads(name)).then_some(())
    });
}

/// Parts of the control plane are deleted; clients notice nothing where the API server was not one of them.
#[test]
fn recover_deleted() {
    let (node, cluster) = started("recover-deleted");
    let kubectl = cluster.kubectl();
    let edited = format!("registry.k8s.io/kube-scheduler:v{}-1", node.kubernetes);
    let set = format!("kube-scheduler={edited}");
    kubectl.run(&["set", "image", "-n", "kube-system", "deployment/kube-scheduler", &set]).ok();
    settle(&kubectl);

    let traffic = Traffic::begin(cluster.client());
    kubectl.run(&["delete", "deployment", "-n", "kube-system", "kube-controller-manager", "--wait=false"]).ok();
    let recovered = run_command(&node, page::RECOVER);
    let record = traffic.end().unwrap();
    eprintln!("{record}");
    recovered.expect(0);
    assert_eq!(record.failures().count(), 0, "the API was away: {record}");
    assert_kept(&record, &kubectl);
    settle(&kubectl);
    assert_serves_itself(&node, &cluster);
    assert_eq!(scheduler_image(&kubectl), edited, "what was edited does not stand");

    // Nobody is left to keep the API.
    kubectl.run(&["delete", "daemonset", "-n", "kube-system", "hoist-guard"]).ok();
    node.sh("hoist guard remove");
    kubectl.run(&["delete", "daemonset", "-n", "kube-system", "kube-apiserver", "--wait=false"]).ok();
    eventually("the API is away", Duration::from_secs(60), || {
        (node.exec(["pgrep", "-x", "kube-apiserver"]).code == Some(1)).then_some(())
    });
    let before = tree(&disk(&node).join("private/etc-kubernetes"));
    let planned = run_command(&node, page::DRY_RUN).expect(0);
    for line in ["1. raise the bridge", "2. apply what is missing", "3. prove", "nothing was changed"] {
        assert!(planned.stdout.contains(line), "{line}: {planned}");
    }
    assert!(tree(&disk(&node).join("private/etc-kubernetes")) == before, "a dry run has changed something");
    run_command(&node, page::FORCE).expect(0);
    settle(&kubectl);
    assert_serves_itself(&node, &cluster);
    assert_eq!(scheduler_image(&kubectl), edited.trim_end_matches("-1"), "it is not as its manifest has it");
    assert_kept(&record, &kubectl);
    a_worker_can_be_let_in_again(&node, &kubectl);
    an_expired_kubelet_gets_back_in(&node, &cluster);
    from_what_guard_keeps(&node, &kubectl);
    assert_serves_itself(&node, &cluster);
}

/// The asset directory is lost, and so is a part of the control plane.
fn from_what_guard_keeps(node: &Node, kubectl: &Kubectl) {
    let names = "cd /etc/hoist/assets && find auth tls bootstrap-manifests manifests kubelet -type f | sort";
    let before = node.sh(names);
    node.sh("mv /etc/hoist/assets /root/lost");
    kubectl.run(&["delete", "deployment", "-n", "kube-system", "kube-scheduler"]).ok();
    let recovered = run_command(node, page::LOST).expect(0);
    assert!(recovered.stdout.contains("fill /etc/hoist/assets, which is lost"), "{recovered}");
    settle(kubectl);
    let after = node.sh(names);
    assert_eq!(after, before, "nothing is lacking");
    node.sh("diff -r /root/lost /etc/hoist/assets | grep -v '^Only in /root/lost' && exit 1 || true");
    assert_eq!(node.sh("find /etc/hoist/assets -perm /077"), "", "others may look");
}

/// The token of the asset directory is made known again: whoever has it may ask for a certificate.
fn a_worker_can_be_let_in_again(node: &Node, kubectl: &Kubectl) {
    let secrets =
        kubectl.list(&["secrets", "-n", "kube-system", "--field-selector", "type=bootstrap.kubernetes.io/token"]);
    let name = secrets[0]["metadata"]["name"].as_str().unwrap();
    kubectl.run(&["delete", "secret", "-n", "kube-system", name]).ok();
    let whoami = "kubectl --kubeconfig /etc/hoist/assets/auth/kubeconfig-kubelet auth whoami -o jsonpath={.status.userInfo.groups}";
    run_command(node, whoami).expect(1);
    let script = format!("{}\n{}", page::FIND_TOKEN, page::MAKE_TOKEN);
    run_command(node, &script).expect(0);
    let groups = eventually("the token is known", Duration::from_secs(10), || {
        let ended = run_command(node, whoami);
        (ended.code == Some(0)).then_some(ended.stdout)
    });
    assert!(groups.contains("system:bootstrappers"), "{groups}");
}

/// A controller that was off for so long that its kubelet's certificate is over.
fn an_expired_kubelet_gets_back_in(node: &Node, cluster: &Cluster) {
    const DAY: Duration = Duration::from_secs(24 * 60 * 60);
    const CURRENT: &str = "/var/lib/kubelet/pki/kubelet-client-current.pem";
    let kubectl = cluster.kubectl();
    let renewed = || kubectl.get(&["lease", "-n", "kube-node-lease", &node.name])["spec"]["renewTime"].clone();
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::OrganizationName, "system:nodes");
    params.distinguished_name.push(DnType::CommonName, format!("system:node:{}", node.name));
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    params.not_before = time::OffsetDateTime::now_utc() - 2 * DAY;
    params.not_after = params.not_before + DAY;
    let expired = "var/lib/kubelet/pki/kubelet-client-expired.pem";
    std::fs::write(disk(node).join(expired), pki::signed(cluster, &params)).unwrap();
    let said = worker::kubelet_says(node, &format!("ln -sf /{expired} {CURRENT}"), &["Unauthorized", "expired"]);
    eprintln!("the kubelet with an expired certificate: {said}");
    let before = renewed();
    run_command(node, page::RECOVER).expect(0);
    assert_ne!(node.sh(&format!("readlink -f {CURRENT}")).trim(), format!("/{expired}"));
    eventually("the kubelet is in again", Duration::from_secs(60), || (renewed() != before).then_some(()));
    settle(&kubectl);
    assert_serves_itself(node, cluster);
}

/// The API is served, and goes back to what it was when etcdctl saved it.
#[test]
fn recover_snapshot() {
    let (node, cluster) = started("recover-snapshot");
    let kubectl = cluster.kubectl();
    let record = write(&cluster);
    run_command(&node, page::SAVE_SNAPSHOT).expect(0);
    kubectl.run(&["create", "configmap", "-n", "default", "later"]).ok();
    kubectl.run(&["delete", "configmap", "-n", "default", record.acknowledged().iter().next().unwrap()]).ok();
    let revision = || {
        let list = kubectl.run(&["get", "--raw", "/api/v1/namespaces/default/configmaps?limit=1"]).ok();
        let list: serde_json::Value = serde_json::from_str(&list).unwrap();
        list["metadata"]["resourceVersion"].as_str().unwrap().parse::<u64>().unwrap()
    };
    let before = revision();

    // Damaged, it is refused, and nothing has changed.
    node.sh("cp /root/snapshot.db /root/damaged.db && printf x | dd of=/root/damaged.db bs=1 seek=9999 conv=notrunc");
    let damaged = page::RESTORE_SNAPSHOT.replace("snapshot.db", "damaged.db");
    run_command(&node, &damaged).expect(3).says(&["/root/damaged.db: is damaged"]);
    kubectl.run(&["get", "configmap", "-n", "default", "later"]).ok();
    assert_eq!(node.sh("rm /root/damaged.db; ls -d /var/lib/etcd*"), "/var/lib/etcd\n");

    // The power goes when nothing runs any more that could serve: the same command goes on.
    let running = node.spawn(["sh", "-euc", page::RESTORE_SNAPSHOT]);
    eventually("it stops what serves", Duration::from_secs(60), || running.said().contains("] stop: ").then_some(()));
    node.power_cut();
    eprintln!("cut: {}", running.said());
    drop(running);
    node.boot();
    node.sh("test -s /var/lib/etcd/member/snap/db");
    run_command(&node, page::RESTORE_SNAPSHOT).expect(0);
    assert_serves_itself(&node, &cluster);
    assert_kept(&record, &kubectl);
    assert_eq!(kubectl.run(&["get", "configmap", "-n", "default", "later"]).code, Some(1), "it is of later");
    assert!(revision() > before + 900_000_000, "revisions may come twice");
    let old = node.sh("ls -d /var/lib/etcd*");
    let (now, old) = old.split_once('\n').unwrap();
    assert_eq!(now, "/var/lib/etcd");
    for old in old.lines() {
        assert!(old.starts_with("/var/lib/etcd.before-"), "{old}");
        node.sh(&format!("test -s {old}/member/snap/db && test ! -e {old}/.hoist-restored"));
    }
    node.sh("ls -d /var/lib/etcd.before-* && test ! -e /var/lib/etcd/.hoist-restored");

    // Once more, with everything at work that knows what is there.
    kubectl.run(&["create", "configmap", "-n", "default", "afterwards"]).ok();
    let before = revision();
    run_command(&node, page::RESTORE_SNAPSHOT).expect(0);
    assert_serves_itself(&node, &cluster);
    assert_kept(&record, &kubectl);
    assert_eq!(kubectl.run(&["get", "configmap", "-n", "default", "afterwards"]).code, Some(1), "it is of later");
    assert!(revision() > before, "revisions come twice");

    // One of after a restore, and then one of before it.
    run_command(&node, &page::SAVE_SNAPSHOT.replace("/root/snapshot.db", "/root/later.db")).expect(0);
    for snapshot in ["later.db", "snapshot.db"] {
        let before = revision();
        run_command(&node, &page::RESTORE_SNAPSHOT.replace("snapshot.db", snapshot)).expect(0);
        assert!(revision() > before, "revisions come twice: {snapshot}");
    }
}

/// The machine is gone, and another one takes its address and the backup.
#[test]
fn recover_backup() {
    let (node, cluster) = started("recover-backup");
    let (name, address) = ("recover-backup", node.address);
    let record = write(&cluster);
    let key = age::x25519::Identity::generate();
    let command = page::BACKUP.replace("AGE_RECIPIENT", &key.to_public().to_string());
    run_command(&node, &command).expect(0);
    run_command(&node, &command).expect(3).says(&["/root/backup.tar: is there already"]);
    assert_eq!(node.sh("stat -c %a /root/backup.tar"), "600\n");
    assert!(node.sh("head -c 21 /root/backup.tar").starts_with("age-encryption.org/v1"));
    run_command(&node, page::PLAIN_BACKUP).expect(0);
    run_command(&node, page::MAKE_FOLDER).expect(0);
    run_command(&node, page::UNPACK).expect(0);
    let checked = run_command(&node, page::CHECK_SUMS).expect(0);
    assert!(checked.stdout.contains("etcd-snapshot.db: OK\n"), "{checked}");
    run_command(&node, page::SNAPSHOT_STATUS).expect(0);
    let assets = tree(&disk(&node).join("etc/hoist/assets"));
    assert!(assets.contains_key(Path::new("tls/ca.key")) && assets.contains_key(Path::new(".rendered")));
    let kept: PathBuf = Path::new(env!("CARGO_TARGET_TMPDIR")).join("recover-backup.tar");
    std::fs::copy(disk(&node).join("root/backup.tar"), &kept).unwrap();
    node.power_cut();
    drop(node);

    let node = Node::up_at(name, address);
    equip(&node);
    // Its disk is elsewhere, as on many a machine.
    node.sh("mkdir -p /var/disk/etcd; rm -rf /var/lib/etcd; ln -s /var/disk/etcd /var/lib/etcd");
    std::fs::copy(&kept, disk(&node).join("root/backup.tar")).unwrap();
    let secret = age::secrecy::ExposeSecret::expose_secret(&key.to_string()).to_owned();
    std::fs::write(disk(&node).join("root/key.txt"), secret).unwrap();
    run_command(&node, page::RESTORE_BACKUP).expect(0);
    assert_serves_itself(&node, &cluster);
    assert_kept(&record, &cluster.kubectl());
    let restored = tree(&disk(&node).join("etc/hoist/assets"));
    let names = restored.keys().chain(assets.keys());
    let other: Vec<_> = names.filter(|name| restored.get(*name) != assets.get(*name)).collect();
    assert!(other.is_empty(), "the asset directory is another one: {other:?}");
    assert_eq!(node.sh("ls -d /var/lib/etcd* /var/disk/*"), "/var/disk/etcd\n/var/lib/etcd\n");
    assert_eq!(node.sh("readlink /var/lib/etcd; ls /var/disk/etcd"), "/var/disk/etcd\nmember\n");
    // And once more, over the data that is there.
    run_command(&node, page::RESTORE_BACKUP).expect(0);
    assert_serves_itself(&node, &cluster);
    assert_kept(&record, &cluster.kubectl());
    let there = node.sh("readlink /var/lib/etcd; ls -d /var/lib/etcd* /var/disk/*");
    assert!(there.starts_with("/var/disk/etcd\n/var/disk/etcd\n/var/disk/etcd.before-"), "{there}");
    assert!(there.ends_with("\n/var/lib/etcd\n") && there.lines().count() == 4, "{there}");
}

/// All files below a folder, with their content.
fn tree(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    fn collect(root: &Path, dir: &Path, found: &mut BTreeMap<PathBuf, Vec<u8>>) {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                collect(root, &path, found);
            // `start` and `recover` note there which cluster they have brought up.
            } else if !path.ends_with("cluster-id") {
                found.insert(path.strip_prefix(root).unwrap().to_owned(), std::fs::read(&path).unwrap());
            }
        }
    }
    let mut found = BTreeMap::new();
    collect(dir, dir, &mut found);
    found
}
