//! Several controllers of which some lose etcd's data, each brought back with clients that never stop: what was acknowledged
//! is there afterwards.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::cluster::START_LIMIT;
use crate::support::command::Ended;
use crate::support::controller::{Controller, LATER, is_ready};
use crate::support::http::Client;
use crate::support::kubectl::Kubectl;
use crate::support::node::{Node, disk};
use crate::support::recover_page as page;
use crate::support::several::{candidate, members};
use crate::support::traffic::{PREFIX, Record, Traffic};
use crate::support::{eventually, hoist};

const LABEL: &str = "node-role.kubernetes.io/control-plane=";

/// Three controllers, two of them made by a label.
fn three(prefix: &str) -> (Controller, Node, Node) {
    let controller = Controller::up(&format!("{prefix}-1"));
    let [second, third] = ["2", "3"].map(|number| candidate(&format!("{prefix}-{number}"), &controller.cluster));
    controller.kubectl.run(&["label", "node", &second.name, &third.name, LABEL]).ok();
    controller.until_made_of(&[&controller.node, &second, &third]);
    (controller, second, third)
}

/// The id of a node's member, as another node's tells it.
fn id_of(node: &Node, at: &Node) -> Option<u64> {
    members(at).iter().find(|member| member.name == node.name && !member.is_learner).map(|member| member.id)
}

/// A client of one controller's API server.
fn client_of(controller: &Controller, node: &Node) -> Client {
    Client::new(&controller.cluster.assets, SocketAddr::new(node.address, 6443))
}

/// A disk is wiped while its machine is off: the controller is a member again by itself, be it one that a label made or the
/// first one, which began the cluster.
#[test]
fn a_wiped_disk_is_filled_again_from_the_others() {
    let (controller, second, third) = three("q-wipe");
    let all = [&controller.node, &second, &third];
    for (wiped, other) in [(&second, &controller.node), (&controller.node, &third)] {
        let before = id_of(wiped, other).unwrap();
        let traffic = Traffic::begin(client_of(&controller, other));
        eventually("its file system is remembered", LATER, || {
            let path = disk(wiped).join("var/lib/hoist/guard/remembered.json");
            std::fs::read_to_string(path).is_ok_and(|text| text.contains("dataMount\":\"/")).then_some(())
        });
        wiped.power_cut();
        std::fs::remove_dir_all(disk(wiped).join("var/lib/etcd/member")).unwrap();
        wiped.boot();
        let begun = Instant::now();
        if wiped.name == controller.node.name {
            // Its kubelet asks its own API server alone, and takes no other manifest up before it has reached one.
            let manifest = disk(wiped).join("private/etc-kubernetes/manifests/etcd.yaml");
            eventually("its etcd is to join", LATER, || {
                std::fs::read_to_string(&manifest).unwrap_or_default().contains("=existing").then_some(())
            });
            wiped.sh("systemctl restart kubelet");
        }
        eventually("it is another member, and votes", 2 * LATER, || {
            id_of(wiped, other).is_some_and(|id| id != before).then_some(())
        });
        eprintln!("{}: a member again {:.1?} after its boot", wiped.name, begun.elapsed());
        eventually("its API server is ready", LATER, || is_ready(&client_of(&controller, wiped)).then_some(()));
        eventually("etcd may start at the next boot", LATER, || {
            wiped.sh("test ! -e /var/lib/etcd/member/hoist-began || echo there").contains("there").then_some(())
        });
        controller.until_made_of(&all);
        controller.nothing_is_lost(traffic);
        // It starts on what it has by now.
        wiped.power_cut();
        wiped.boot();
        eventually("it serves after the next boot", LATER, || is_ready(&client_of(&controller, wiped)).then_some(()));
        controller.until_made_of(&all);
    }
    what_is_not_in_use_is_given_back(&all);
}

/// etcdctl on a node, in a shell.
const ETCDCTL: &str = "etcdctl --endpoints=https://127.0.0.1:2379 --cacert=/etc/kubernetes/pki/etcd/ca.crt \
    --cert=/etc/kubernetes/pki/etcd/server.crt --key=/etc/kubernetes/pki/etcd/server.key";

/// What a node's member says of itself: whether it leads, and the MiB of its database.
fn database(node: &Node) -> (bool, u64) {
    let told: Value = serde_json::from_str(&node.sh(&format!("{ETCDCTL} endpoint status --write-out=json"))).unwrap();
    let status = &told[0]["Status"];
    (status["leader"] == status["header"]["member_id"], status["dbSize"].as_u64().unwrap() >> 20)
}

/// The followers' databases are defragmented, the leader's is not.
fn what_is_not_in_use_is_given_back(nodes: &[&Node]) {
    nodes[0].sh(&format!(
        "head -c 1000000 /dev/zero | tr '\\0' x > /tmp/x
        for number in $(seq 150); do {ETCDCTL} put /hoist-e2e/filled < /tmp/x > /dev/null; done
        revision=$({ETCDCTL} endpoint status --write-out=json | sed 's/.*\"revision\":\\([0-9]*\\).*/\\1/')
        {ETCDCTL} compact --physical $revision"
    ));
    eprintln!("filled: {:?}", nodes.iter().map(|node| database(node)).collect::<Vec<_>>());
    let begun = Instant::now();
    eventually("the followers' databases are small, and the leader's is not", LATER, || {
        let databases: Vec<_> = nodes.iter().map(|node| database(node)).collect();
        databases.iter().all(|(leads, size)| if *leads { *size >= 100 } else { *size < 60 }).then_some(())
    });
    eprintln!("defragmented after {:.1?}", begun.elapsed());
}

/// The names of the ConfigMaps that clients have made.
fn written(kubectl: &Kubectl) -> BTreeSet<String> {
    let all = kubectl.list(&["configmaps", "-n", "default"]);
    let names = all.iter().filter_map(|object| object["metadata"]["name"].as_str());
    names.filter(|name| name.starts_with(PREFIX)).map(str::to_owned).collect()
}

/// How many acknowledged writes are not there any more.
fn lost(record: &Record, kubectl: &Kubectl) -> usize {
    let there = written(kubectl);
    let written = record.acknowledged();
    assert!(written.len() > 20, "too few writes to show anything: {record}");
    written.into_iter().filter(|name| !there.contains(*name)).count()
}

/// Runs a command of hoist's on the first controller, about its asset directory.
fn hoist_on_first(controller: &Controller, name: &str, args: &[&str]) -> Ended {
    let ended = controller.node.spawn(controller.cluster.command(name, args)).wait(START_LIMIT);
    eprintln!("{ended}");
    ended
}

/// Two of three controllers are lost for good: the cluster goes on from the third, and has two more made of new machines by a
/// label.
#[test]
fn a_cluster_is_made_of_the_survivor_of_three() {
    const FORCE: &str = "--force-new-cluster";
    let (controller, second, third) = three("q-force");
    let (kubectl, survivor) = (&controller.kubectl, &controller.node);
    hoist_on_first(&controller, "recover", &[FORCE, "--yes"]).expect(4).says(&["a majority of its members serves"]);
    survivor.sh(&format!(
        "install -m 755 {} /usr/local/bin/hoist && mkdir -p /etc/hoist && ln -s {} /etc/hoist/assets",
        hoist().display(),
        controller.cluster.assets.display()
    ));
    let traffic = controller.traffic();
    std::thread::sleep(Duration::from_secs(10));
    second.power_cut();
    third.power_cut();
    std::thread::sleep(Duration::from_secs(10));
    let record = traffic.end().unwrap();
    eprintln!("{}", record.summary());

    let planned = hoist_on_first(&controller, "recover", &[FORCE, "--dry-run"]).expect(0);
    for said in ["3 voters", "does not answer", "has applied everything up to entry", "nothing was changed"] {
        assert!(planned.stdout.contains(said), "{said}: {planned}");
    }
    let asked = survivor.spawn(["sh", "-euc", page::FORCE_NEW_CLUSTER]).wait(START_LIMIT);
    asked.expect(1).says(&["the user didn't answer"]);
    assert_eq!(survivor.sh("ls -d /var/lib/etcd*"), "/var/lib/etcd\n");
    let begun = Instant::now();
    let forced = hoist_on_first(&controller, "recover", &[FORCE, "--yes", "--timeout=10m"]).expect(0);
    eprintln!("a cluster of the survivor after {:.1?}", begun.elapsed());
    for node in [&second, &third] {
        assert!(forced.stdout.contains(&format!("kubectl delete node {}", node.name)), "{forced}");
    }
    let missing = lost(&record, kubectl);
    eprintln!("acknowledged and lost: {missing} of {}", record.acknowledged().len());
    assert_eq!(missing, 0);
    assert_eq!(members(survivor).len(), 1);
    assert_eq!(survivor.sh("ls /var/lib/hoist/recover 2>/dev/null || true"), "", "every secret is in it");
    eventually("dead addresses are gone", LATER, || {
        (controller.published() == [survivor.address.to_string()]).then_some(())
    });

    kubectl.run(&["delete", "node", &second.name, &third.name]).ok();
    drop((second, third));
    let traffic = controller.traffic();
    let new = ["4", "5"].map(|number| candidate(&format!("q-force-{number}"), &controller.cluster));
    kubectl.run(&["label", "node", &new[0].name, &new[1].name, LABEL]).ok();
    controller.until_made_of(&[survivor, &new[0], &new[1]]);
    controller.nothing_is_lost(traffic);
    assert_eq!(lost(&record, kubectl), 0);
}

/// A snapshot is restored on one of three controllers that serve: the two others come back by themselves, empty, and what
/// was acknowledged before the snapshot is there, and nothing of later.
#[test]
fn a_snapshot_is_restored_on_one_of_three() {
    let (controller, second, third) = three("q-snap");
    let all = [&controller.node, &second, &third];
    let kubectl = &controller.kubectl;
    let traffic = controller.traffic();
    std::thread::sleep(Duration::from_secs(5));
    let record = traffic.end().unwrap();
    // Any controller has a backup to give; one that a label made has no asset directory.
    second.sh("/var/lib/hoist/bin/hoist backup --output-file /root/backup.tar");
    let backup = disk(&controller.node).join("root/backup.tar");
    std::fs::copy(disk(&second).join("root/backup.tar"), &backup).unwrap();
    controller.node.sh(
        "cd /root && tar -x -f backup.tar && sha256sum --check --quiet SHA256SUMS && mv etcd-snapshot.db snapshot.db",
    );
    assert!(controller.node.sh("cat /root/manifest.json").contains(&second.name));
    kubectl.run(&["create", "configmap", "-n", "default", "later"]).ok();
    let ids: Vec<_> = members(&controller.node).iter().map(|member| member.id).collect();
    let (traffic, begun) = (Traffic::begin(client_of(&controller, &third)), Instant::now());
    let restored =
        hoist_on_first(&controller, "recover", &["--etcd-snapshot", "/root/snapshot.db", "--timeout=10m"]).expect(0);
    eprintln!("restored after {:.1?}", begun.elapsed());
    assert!(restored.stdout.contains("remove the members"), "{restored}");
    controller.until_made_of(&all);
    eprintln!("three again after {:.1?}", begun.elapsed());
    if let Some(record) = traffic.end() {
        eprintln!("meanwhile, at a controller that was emptied: {}", record.summary());
    }
    assert!(members(&controller.node).iter().all(|member| !ids.contains(&member.id)), "another cluster");
    assert_eq!(lost(&record, kubectl), 0);
    assert_eq!(kubectl.run(&["get", "configmap", "-n", "default", "later"]).code, Some(1), "it is of later");
    for node in [&second, &third] {
        let aside = node.sh("ls -d /var/lib/etcd/member.removed-*");
        assert_eq!(aside.lines().count(), 1, "{aside}");
    }
}
