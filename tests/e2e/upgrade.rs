//! Another version of Kubernetes for a control plane that serves, with clients that never stop: tried, undone, done. The commands
//! of the page docs/upgrade.md are run as they stand there.

use std::fs;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::support::cluster::{Cluster, declaration};
use crate::support::command::{Ended, Running, run};
use crate::support::controller::{Controller, LATER, is_lowered};
use crate::support::node::{EXEC_LIMIT, Node, disk};
use crate::support::random::Random;
use crate::support::{cache, eventually, hoist, repository, worker};
use crate::upgrade_hoist;
use crate::upgrade_node::ALL;

const OLD: &str = "1.36.3";
const NEW: &str = "1.37.2";
/// How long an upgrade of one controller may take on a busy machine, on which guard has raised several bridges within the hour.
const UPGRADE: Duration = Duration::from_secs(1200);
/// How long the API may be away while its only etcd is exchanged, on a busy machine.
const ETCD: Duration = Duration::from_secs(15);
/// What a feature gate of nobody's is called: a program that is given it does not start.
const NO_GATE: &str = "NoSuchGateAtAll=true";

// The commands of the page, in its order.
const PLAN_TO: &str = "hoist upgrade plan --to v1.37.2 --asset-dir assets";
const DIFF: &str = "hoist render --config cluster.yaml --asset-dir assets --diff";
const RENDER: &str = "hoist render --config cluster.yaml --asset-dir assets";
const PLAN: &str = "hoist upgrade plan --asset-dir assets";
const BACKUP: &str = "hoist backup --asset-dir /etc/hoist/assets --output-file /root/before.tar";
const APPLY: &str = "hoist upgrade apply --asset-dir assets";
const ROLLBACK: &str = "hoist upgrade rollback --asset-dir assets";
const PAUSE: &str = "hoist upgrade apply --asset-dir assets --pause-after controllers";
const NODE: &str = "hoist upgrade node --kubelet /root/kubelet";
const PAGE: [&str; 12] =
    [PLAN_TO, DIFF, RENDER, PLAN, BACKUP, APPLY, ROLLBACK, PAUSE, NODE, ALL, upgrade_hoist::HERE, upgrade_hoist::ALL];

#[test]
fn upgrade() {
    is_the_page();
    let upgrade = Upgrade::of_one("up");
    let Upgrade { controller, .. } = &upgrade;
    let pods = upgrade.users_pods();
    controller.control_plane_is_rolled_out();
    let traffic = controller.traffic();

    // Before anything is rendered, the plan is what it would be.
    let plan = upgrade.page(PLAN_TO).ok();
    for line in [&*format!("v{OLD} to v{NEW}:"), &format!("is of v{OLD}: what is shown is what it would be for v{NEW}")]
    {
        assert!(plan.contains(line), "{line}: {plan}");
    }
    says(upgrade.page(PLAN).expect(0), &[&format!("The control plane has v{OLD}.")]);

    // What stands in the way is said, and nothing is done.
    upgrade.rendered(&extra("apiServer", "emulated-version", "1.36"));
    says(upgrade.page(PLAN).expect(3), &["In the way:", "--emulated-version"]);
    says(upgrade.page(APPLY).expect(3), &["--emulated-version"]);
    upgrade.is(OLD, None);

    // A new version that does not start is undone without a word from anybody, and says why.
    // Of the API server: guard holds its bridge for longer at each raise, and another fault would take minutes.
    upgrade.rendered(&extra("apiServer", "feature-gates", NO_GATE));
    says(upgrade.page(APPLY).expect(1), &["back to the old version", "NoSuchGateAtAll"]);
    upgrade.is(OLD, None);

    // Tried, and taken back by hand.
    upgrade.declared("");
    upgrade.page(DIFF).expect(2);
    upgrade.page(RENDER).ok();
    let plan = upgrade.page(PLAN).ok();
    let left = format!("the kubelet of {}: v{OLD}", controller.node.name);
    for line in [&*format!("v{OLD} to v{NEW}:"), "--emulated-version=1.36", &left] {
        assert!(plan.contains(line), "{line}: {plan}");
    }
    upgrade.page(BACKUP).ok();
    says(upgrade.page(PAUSE).expect(0), &["paused after the step controllers"]);
    upgrade.is(NEW, Some("36"));
    upgrade.page(ROLLBACK).ok();
    upgrade.is(OLD, None);

    // Killed again and again, it comes to its end.
    let mut random = Random::seeded("HOIST_UPGRADE_SEED");
    for _ in 0..4 {
        let running = upgrade.begin(APPLY);
        std::thread::sleep(random.up_to(Duration::from_secs(25)));
        running.kill();
    }
    says(upgrade.run(&format!("{APPLY} --pause-after commit")).expect(0), &["paused after the step commit"]);
    upgrade.is(NEW, None);
    let record = traffic.end().unwrap();
    eprintln!("{}", record.summary());
    assert_eq!(record.failures().count(), 0, "{record}");

    // An only etcd is away while it is exchanged, and not for longer than it takes to start.
    let traffic = controller.traffic();
    upgrade.page(APPLY).ok();
    upgrade.is(NEW, None);
    upgrade.etcd_is(NEW);
    let record = traffic.end().unwrap();
    eprintln!("etcd: {}", record.summary());
    assert!(record.longest_gap().0 < ETCD, "{record}");

    assert_eq!(controller.daemon_set()["spec"]["updateStrategy"]["type"], "RollingUpdate");
    upgrade.page(APPLY).ok();
    says(upgrade.page(ROLLBACK).expect(1), &["it is committed", "hoist recover"]);
    let plan = upgrade.page(PLAN).ok();
    assert!(plan.starts_with(&format!("The control plane has v{NEW}.")), "{plan}");

    assert_eq!(upgrade.users_pods(), pods, "a user's pod was touched");

    // The bridge of a boot is of the new version, and an asset directory of the old one takes nobody back.
    controller.node.power_cut();
    controller.node.boot();
    controller.until_lowered();
    upgrade.is(NEW, None);

    // A kubelet of another minor version leaves every container alone, those of static pods included.
    let before = upgrade.containers();
    let kubelet = controller.node.has_kubelet_file(NEW);
    controller.node.sh(&format!("cp {kubelet} /root/kubelet"));
    upgrade.page(NODE).ok();
    let node = controller.kubectl.get(&["node", &controller.node.name]);
    assert_eq!(node["status"]["nodeInfo"]["kubeletVersion"], format!("v{NEW}"));
    assert_eq!(upgrade.containers(), before);

    upgrade.declared_as(OLD, "");
    upgrade.page(RENDER).ok();
    controller.cluster.started(&controller.node, &[]).expect(3).says(&["was upgraded to v1.37.2 since"]);
}

/// The page has these commands, and no others.
fn is_the_page() {
    let page = fs::read_to_string(repository().join("docs/upgrade.md")).unwrap();
    let commands: Vec<_> = page.lines().filter_map(|line| line.strip_prefix("    hoist ")).collect();
    assert_eq!(commands, PAGE.map(|command| command.strip_prefix("hoist ").unwrap()));
}

/// What a command has written holds all of these.
#[track_caller]
fn says(ended: Ended, texts: &[&str]) {
    let text = format!("{}{}", ended.stdout, ended.stderr);
    texts.iter().for_each(|expected| assert!(text.contains(expected), "{expected}: {text}"));
}

/// A flag of a component in cluster.yaml.
fn extra(component: &str, name: &str, value: &str) -> String {
    format!("{component}: {{extraArgs: [{{name: {name}, value: '{value}'}}]}}\n")
}

/// A cluster of the old version that is to be upgraded.
struct Upgrade {
    controller: Controller,
    _worker: Node,
}

impl Upgrade {
    /// One controller, and a worker with a user's pod; the controller has the images of the new version, too.
    fn of_one(name: &str) -> Self {
        let node = Node::of_version(&format!("{name}1"), OLD);
        node.has_images_of(NEW);
        let cluster = Cluster::render(&node);
        let controller = Controller::start(node, cluster);
        let worker = Node::of_version(&format!("{name}2"), OLD);
        worker::join(&worker, &controller.cluster);
        worker::is_ready(&worker, &controller.cluster);
        worker::says_hello(&controller.kubectl, &worker, "user", LATER);
        Self { controller, _worker: worker }
    }

    /// Writes cluster.yaml for the new version.
    fn declared(&self, more: &str) {
        self.declared_as(NEW, more);
    }

    fn declared_as(&self, version: &str, more: &str) {
        let node = &self.controller.node;
        let text = declaration(node, node.address).replace(OLD, version) + more;
        fs::write(self.controller.cluster.assets.with_extension("yaml"), text).unwrap();
    }

    /// The same, and renders it.
    fn rendered(&self, more: &str) {
        self.declared(more);
        self.page(RENDER).ok();
    }

    /// A command of the page, which is typed on a machine that is no controller; a backup and what is for nodes on the controller.
    fn begin(&self, command: &str) -> Running {
        let assets = &self.controller.cluster.assets;
        let word = |word: &str| match word {
            "hoist" => hoist(),
            "assets" | "/etc/hoist/assets" => assets.clone(),
            "cluster.yaml" => assets.with_extension("yaml"),
            other => other.into(),
        };
        let words: Vec<_> = command.split(' ').map(word).collect();
        if [BACKUP, NODE].contains(&command) {
            return self.controller.node.spawn(&words);
        }
        Running::spawn(Command::new(&words[0]).args(&words[1..]), "")
    }

    fn page(&self, command: &str) -> Ended {
        assert!(PAGE.contains(&command), "{command}");
        self.run(command)
    }

    fn run(&self, command: &str) -> Ended {
        let ended = self.begin(command).wait(UPGRADE);
        eprintln!("--- {command}\n{}{}", ended.stdout, ended.stderr);
        ended
    }

    /// The whole control plane is of this version, emulates that minor version, and serves by itself.
    #[track_caller]
    fn is(&self, version: &str, emulated: Option<&str>) {
        let kubectl = &self.controller.kubectl;
        eventually("the bridge is lowered", LATER, || is_lowered(&self.controller.node).then_some(()));
        let said: Value = serde_json::from_str(&kubectl.run(&["get", "--raw", "/version"]).ok()).unwrap();
        assert_eq!(said["gitVersion"], format!("v{version}"), "{said}");
        let minor = said["minor"].as_str().unwrap();
        assert_eq!(said["emulationMinor"], emulated.unwrap_or(minor), "{said}");
        for (kind, name) in [
            ("daemonset", "kube-apiserver"),
            ("deployment", "kube-controller-manager"),
            ("deployment", "kube-scheduler"),
        ] {
            let object = kubectl.get(&["-n", "kube-system", kind, name]);
            let container = &object["spec"]["template"]["spec"]["containers"][0];
            let image = container["image"].as_str().unwrap();
            assert!(image.ends_with(&format!(":v{version}")), "{name}: {image}");
            assert_eq!(container["command"].to_string().contains("--emulated-version"), emulated.is_some(), "{name}");
            let args = ["rollout", "status", "-n", "kube-system", "--timeout=60s", &format!("{kind}/{name}")];
            if object["spec"]["updateStrategy"]["type"] != "OnDelete" {
                kubectl.run(&args).ok();
            }
        }
    }

    /// etcd has the image that comes with this version, serves, and was saved before.
    #[track_caller]
    fn etcd_is(&self, version: &str) {
        let versions = fs::read_to_string(cache().join(format!("kubernetes/v{version}/versions"))).unwrap();
        let image = versions.lines().find_map(|line| line.strip_prefix("ETCD_IMAGE=")).unwrap().trim_matches('\'');
        let node = &self.controller.node;
        let pod = self.controller.kubectl.get(&["-n", "kube-system", "pod", &format!("etcd-{}", node.name)]);
        assert_eq!(pod["spec"]["containers"][0]["image"], image);
        assert_eq!(pod["status"]["containerStatuses"][0]["ready"], true);
        let tag = image.rsplit(':').next().unwrap();
        let snapshot = disk(node).join(format!("var/lib/hoist/etcd-snapshots/before-{tag}.db"));
        let mut status = Command::new(cache().join(format!("kubernetes/v{version}/bin/etcdutl")));
        run(status.args(["snapshot", "status"]).arg(snapshot), EXEC_LIMIT).ok();
        node.sh("test ! -e /var/lib/hoist/guard/etcd-exchange.json");
        let secret = self.controller.kubectl.get(&["-n", "kube-system", "secret", "hoist-guard"]);
        assert_eq!(secret["metadata"]["annotations"].get("hoist/etcd-order"), None);
    }

    /// All containers that run on the controller: their ids, and when they began.
    fn containers(&self) -> String {
        let mut lines: Vec<_> =
            self.controller.node.sh("ctr -n k8s.io tasks list").lines().map(str::to_owned).collect();
        lines.sort();
        lines.join("\n")
    }

    /// The containers of users' pods: their ids, and when they began.
    fn users_pods(&self) -> Vec<String> {
        let pods = self.controller.kubectl.list(&["pods", "-n", "default"]);
        pods.iter().map(|pod| pod["status"]["containerStatuses"].to_string()).collect()
    }
}
