//! Another version of a node's kubelet, in place, with clients that never stop: refused, taken back by itself, killed, done; and no
//! container knows of it.

use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::support::cluster::{Cluster, declaration, render};
use crate::support::command::{Ended, Running};
use crate::support::controller::{Controller, LATER};
use crate::support::node::Node;
use crate::support::random::Random;
use crate::support::{eventually, hoist, worker};

const OLD: &str = "1.36.3";
const NEW: &str = "1.37.2";
/// How long one exchange may take on a busy machine.
const LIMIT: Duration = Duration::from_secs(180);
/// A program that says that it is the new kubelet and takes every flag, and ends when it is run.
const BROKEN: &str = "#!/bin/sh
case \"$*\" in
*--version*) echo Kubernetes v1.37.2 ;;
*--exit-on-lock-contention*) echo no lock file specified >&2; exit 1 ;;
*) echo this one never serves >&2; exit 1 ;;
esac
";

#[test]
fn kubelets_are_exchanged_in_place() {
    let controller = upgraded("kb1");
    let w = Node::of_version("kb2", OLD);
    worker::join(&w, &controller.cluster);
    worker::is_ready(&w, &controller.cluster);
    worker::says_hello(&controller.kubectl, &w, "user", LATER);
    // A static pod of a user's, as most have them.
    w.sh("cat > /etc/kubernetes/manifests/mine.yaml <<END
apiVersion: v1
kind: Pod
metadata: {name: mine, namespace: default}
spec: {containers: [{name: a, image: 'docker.io/library/busybox:1.36', command: [sleep, infinity]}], terminationGracePeriodSeconds: 0}
END");
    let mine = format!("mine-{}", w.name);
    eventually("the static pod runs", LATER, || ready(&controller, &["-n", "default", "pod", &mine]));
    let new = w.has_kubelet_file(NEW);
    let traffic = controller.traffic();

    // What the new one would not take is said, and nothing is done.
    let before = containers(&w);
    w.sh("cp /var/lib/kubelet/config.yaml /root/config.yaml; echo 'featureGates: {NoSuchGate: true}' >> /var/lib/kubelet/config.yaml");
    says(&exchange(&w, &new, &[]).expect(3), &["does not take the flags and the configuration", "NoSuchGate"]);
    w.sh("cp /root/config.yaml /var/lib/kubelet/config.yaml; printf '#!/bin/sh\\necho hello\\n' > /opt/none; chmod 755 /opt/none");
    says(&exchange(&w, "/opt/none", &[]).expect(1), &["a kubelet says", "hello"]);
    says(&exchange(&w, &new, &["--dry-run"]).expect(0), &["nothing stands in the way from v1.36.3 to v1.37.2"]);
    is(&controller, &w, OLD);

    // One that does not serve is taken back without a word from anybody.
    w.sh(&format!("cat > /opt/broken <<'END'\n{BROKEN}END\nchmod 755 /opt/broken"));
    let ended = exchange(&w, "/opt/broken", &[]).expect(1);
    says(&ended, &["it has ended 2 times", "this one never serves", "has its kubelet of v1.36.3 again"]);
    is(&controller, &w, OLD);
    assert_eq!(containers(&w), before, "the way back touched a container");

    // A package is as good as a program, and is not installed.
    let deb = deb(&w, &new);
    says(&exchange(&w, &deb, &["--dry-run"]).expect(0), &["nothing stands in the way from v1.36.3 to v1.37.2"]);
    w.sh("mkdir /root/empty; dpkg-deb --extract /opt/kubelet.deb /root/empty; rm /root/empty/usr/bin/kubelet; cp -r /root/deb/DEBIAN /root/empty/; dpkg-deb -Znone --build /root/empty /opt/empty.deb");
    says(&exchange(&w, "/opt/empty.deb", &[]).expect(3), &["is a package without a program `kubelet`"]);
    w.sh("head -c 5000 /opt/kubelet.deb > /opt/torn.deb");
    says(&exchange(&w, "/opt/torn.deb", &[]).expect(1), &["unpack /opt/torn.deb", "dpkg-deb"]);
    is(&controller, &w, OLD);

    // Killed again and again, it comes to its end. What it said would be made anew, was, and nothing else.
    let mut random = Random::seeded("HOIST_UPGRADE_SEED");
    for _ in 0..3 {
        let running = begin(&w, &deb, &[]);
        std::thread::sleep(random.up_to(Duration::from_secs(4)));
        running.kill();
    }
    says(&exchange(&w, &deb, &[]).expect(0), &["`dpkg -i /opt/kubelet.deb`"]);
    is(&controller, &w, NEW);
    w.sh("test ! -e /var/lib/hoist/kubelet-package");
    let others = |containers: &[(String, String)]| {
        containers.iter().filter(|(pod, _)| *pod != mine).cloned().collect::<Vec<_>>()
    };
    assert_eq!(others(&containers(&w)), others(&before));
    assert_ne!(containers(&w), before, "the static pod without a uid is what another minor version makes anew");
    says(&exchange(&w, &new, &[]).expect(0), &["the kubelet is v1.37.2"]);
    w.sh("cmp /usr/local/bin/kubelet.hoist-previous /usr/local/lib/kubernetes/kubelet");

    // On a controller everything goes on: guard and etcd, too.
    let new = controller.node.has_kubelet_file(NEW);
    let rpm = rpm(&controller.node, &new);
    let before = containers(&controller.node);
    let ended = exchange(&controller.node, &rpm, &[]).expect(0);
    says(&ended, &["containers go on", &format!("`rpm -U {rpm}`")]);
    is(&controller, &controller.node, NEW);
    assert_eq!(containers(&controller.node), before);
    assert!(controller.is_lowered(), "guard saw no reason for a bridge");
    let old = "/usr/local/bin/kubelet.hoist-previous";
    says(&exchange(&controller.node, old, &[]).expect(3), &["older minor version than this node's v1.37.2"]);

    let record = traffic.end().unwrap();
    eprintln!("{}", record.summary());
    assert_eq!(record.failures().count(), 0, "{record}");
}

/// A package of Debian's kind on a node, with the kubelet `program`; its file.
fn deb(node: &Node, program: &str) -> String {
    node.sh(&format!(
        "mkdir -p /root/deb/DEBIAN /root/deb/usr/bin; cp {program} /root/deb/usr/bin/kubelet
printf 'Package: kubelet\nVersion: {NEW}-1\nArchitecture: amd64\nMaintainer: nobody\nDescription: a kubelet\n' > /root/deb/DEBIAN/control
dpkg-deb -Znone --build /root/deb /opt/kubelet.deb"
    ));
    "/opt/kubelet.deb".to_owned()
}

/// A package of RPM's kind on a node, with the kubelet `program`; its file.
fn rpm(node: &Node, program: &str) -> String {
    let out = node.sh(&format!(
        "mkdir -p /root/rpm; cat > /root/rpm/kubelet.spec <<'END'
%define __strip /bin/true
%define debug_package %{{nil}}
%define _binary_payload w1.gzdio
Name: kubelet
Version: {NEW}
Release: 1
Summary: a kubelet
License: Apache-2.0
%description
a kubelet
%install
install -D -m 755 {program} %{{buildroot}}/usr/bin/kubelet
%files
/usr/bin/kubelet
END
rpmbuild -bb --define '_topdir /root/rpm' /root/rpm/kubelet.spec >&2; ls /root/rpm/RPMS/*/kubelet-*.rpm"
    ));
    out.trim().to_owned()
}

/// A controller whose control plane has the new version, and whose kubelet has the old one.
fn upgraded(name: &str) -> Controller {
    let node = Node::of_version(name, OLD);
    node.has_images_of(NEW);
    let cluster = Cluster::to_render(&node, node.address);
    render(&declaration(&node, node.address).replace(OLD, NEW), &cluster.assets).ok();
    Controller::start(node, cluster)
}

/// The kubelets of all nodes by one command on another machine, from an image: a node that fails ends it, and the next run goes on.
#[test]
fn all_kubelets_are_exchanged_from_an_image() {
    let controller = upgraded("ka1");
    let workers = ["ka2", "ka3"].map(|name| {
        let node = Node::of_version(name, OLD);
        worker::unpack(&node, &controller.cluster);
        node.sh("systemctl enable --now kubelet");
        worker::is_ready(&node, &controller.cluster);
        node
    });
    let nodes: Vec<_> = [&controller.node].into_iter().chain(&workers).collect();
    nodes.iter().for_each(|node| has_image(node));
    workers.iter().for_each(|node| worker::says_hello(&controller.kubectl, node, &format!("on-{}", node.name), LATER));
    let traffic = controller.traffic();
    let before: Vec<_> = nodes.iter().map(|node| containers(node)).collect();

    // The first worker does not take it: the controller has it by then, and the other worker is left alone.
    workers[0]
        .sh("cp /var/lib/kubelet/config.yaml /root/config.yaml; echo 'featureGates: {NoSuchGate: true}' >> /var/lib/kubelet/config.yaml");
    says(&all(&controller).expect(1), &[&workers[0].name, "NoSuchGate"]);
    is(&controller, nodes[0], NEW);
    is(&controller, &workers[0], OLD);
    is(&controller, &workers[1], OLD);
    workers[0].sh("cp /root/config.yaml /var/lib/kubelet/config.yaml");

    // Killed, what it has begun goes on by itself.
    let running = begin_all(&controller);
    std::thread::sleep(Duration::from_secs(3));
    running.kill();
    says(&all(&controller).expect(0), &["the kubelets of 3 nodes are v1.37.2"]);
    for (node, before) in nodes.iter().zip(before) {
        is(&controller, node, NEW);
        assert_eq!(containers(node), before, "{}", node.name);
        assert_eq!(node.sh("ls /var/lib/hoist/kubelet"), "", "what only the pod needed is gone");
    }
    let left =
        controller.kubectl.list(&["pods", "-n", "kube-system", "-l", "app.kubernetes.io/name=hoist-upgrade-node"]);
    assert!(left.is_empty(), "{left:?}");
    let record = traffic.end().unwrap();
    eprintln!("{}", record.summary());
    assert_eq!(record.failures().count(), 0, "{record}");
}

/// The command of the page docs/upgrade.md.
pub const ALL: &str = "hoist upgrade node --all-nodes --image registry.example.com/kubelet:v1.37.2 --kubelet /usr/bin/kubelet --asset-dir assets";
/// The name of an image that has nothing but the new kubelet.
const IMAGE: &str = "registry.example.com/kubelet:v1.37.2";

/// Has the image, as if it had pulled it.
fn has_image(node: &Node) {
    let kubelet = node.has_kubelet_file(NEW);
    node.sh(&format!(
        "mkdir -p /opt/image/usr/bin && cd /opt/image && cp {kubelet} usr/bin/kubelet
        tar -cf layer.tar usr && rm -r usr
        sum=$(sha256sum layer.tar | cut -d' ' -f1)
        printf '{{\"architecture\":\"amd64\",\"os\":\"linux\",\"config\":{{}},\"rootfs\":{{\"type\":\"layers\",\"diff_ids\":[\"sha256:%s\"]}}}}' \"$sum\" > config.json
        printf '[{{\"Config\":\"config.json\",\"RepoTags\":[\"{IMAGE}\"],\"Layers\":[\"layer.tar\"]}}]' > manifest.json
        tar -cf image.tar config.json layer.tar manifest.json
        ctr -n k8s.io images import image.tar
        rm -r /opt/image {kubelet}"
    ));
}

fn begin_all(controller: &Controller) -> Running {
    assert!(ALL.contains(IMAGE));
    let words = ALL.split(' ').map(|word| match word {
        "hoist" => hoist(),
        "assets" => controller.cluster.assets.clone(),
        other => other.into(),
    });
    let words: Vec<_> = words.collect();
    Running::spawn(Command::new(&words[0]).args(&words[1..]), "")
}

fn all(controller: &Controller) -> Ended {
    let ended = begin_all(controller).wait(LIMIT * 2);
    eprintln!("--- all nodes\n{}{}", ended.stdout, ended.stderr);
    ended
}

fn begin(node: &Node, program: &str, more: &[&str]) -> Running {
    let hoist = hoist().display().to_string();
    node.spawn([&[&*hoist, "upgrade", "node", "--kubelet", program], more].concat())
}

fn exchange(node: &Node, program: &str, more: &[&str]) -> Ended {
    let ended = begin(node, program, more).wait(LIMIT);
    eprintln!("--- {} {program}\n{}{}", node.name, ended.stdout, ended.stderr);
    ended
}

/// What a command has written holds all of these.
#[track_caller]
fn says(ended: &Ended, texts: &[&str]) {
    let text = format!("{}{}", ended.stdout, ended.stderr);
    texts.iter().for_each(|expected| assert!(text.contains(expected), "{expected}: {text}"));
}

fn ready(controller: &Controller, what: &[&str]) -> Option<()> {
    let object: Value =
        serde_json::from_str(&controller.kubectl.run(&[&["get", "-o", "json"], what].concat()).stdout).ok()?;
    let conditions = object["status"]["conditions"].as_array()?;
    conditions.iter().any(|one| one["type"] == "Ready" && one["status"] == "True").then_some(())
}

/// The Node is ready, and its kubelet of this version.
#[track_caller]
fn is(controller: &Controller, node: &Node, version: &str) {
    ready(controller, &["node", &node.name]).unwrap();
    let object = controller.kubectl.get(&["node", &node.name]);
    assert_eq!(object["status"]["nodeInfo"]["kubeletVersion"], format!("v{version}"));
}

/// The pods of all containers that run on a node, each with the container's id.
pub fn containers(node: &Node) -> Vec<(String, String)> {
    let listed = node.sh("ctr -n k8s.io tasks list -q | while read -r id; do
        pod=$(ctr -n k8s.io containers info \"$id\" | sed -n 's/.*\"io.kubernetes.pod.name\": \"\\([^\"]*\\)\".*/\\1/p' | head -n 1)
        echo \"$pod $id\"
    done");
    let pair = |line: &str| line.split_once(' ').map(|(pod, id)| (pod.to_owned(), id.to_owned()));
    let mut found: Vec<_> = listed.lines().filter_map(pair).collect();
    found.sort();
    found
}
