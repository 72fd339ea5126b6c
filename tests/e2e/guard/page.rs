//! docs/guard.md: every command on that page is run here, in the order of a cluster's life, and each of them is there.

use std::collections::BTreeSet;

use super::Controller;
use crate::serving::assert_serves_itself;
use crate::support::cluster::Cluster;
use crate::support::command::{Ended, Running};
use crate::support::node::{EXEC_LIMIT, Node};
use crate::support::{eventually, hoist, repository};

const PAGE: &str = "docs/guard.md";

#[test]
fn guard_page() {
    let node = Node::up("guard-page");
    let cluster = Cluster::render(&node);
    let mut page = Page::read(&node, &cluster);

    // Without guard.
    page.here("rm assets/bootstrap-manifests/hoist-guard.yaml").ok();
    page.here("rm -r assets/manifests/hoist-guard").ok();
    cluster.started(&node, &[]).expect(0);
    assert_eq!(node.sh("ls -A /etc/kubernetes/manifests"), "etcd.yaml\n");
    let there = "daemonsets,secrets,serviceaccounts,roles,leases";
    let of_guard = cluster.kubectl().run(&["get", "-n", "kube-system", there, "-o", "name"]).ok();
    assert!(!of_guard.contains("hoist-guard") && !of_guard.contains("hoist:guard"), "{of_guard}");

    // With it after all.
    let kept = "--replace bootstrap-manifests/hoist-guard.yaml --replace manifests/hoist-guard/daemonset.yaml --replace manifests/hoist-guard/rbac.yaml";
    page.here(&format!("hoist render --config cluster.yaml --asset-dir assets {kept}")).ok();
    page.node("hoist start --asset-dir /etc/hoist/assets").ok();
    let controller = Controller { kubectl: cluster.kubectl(), node, cluster };
    controller.has_guard();

    an_upgrade_and_back(&mut page, &controller);
    what_is_to_be_seen(&mut page);

    page.here("kubectl -n kube-system delete daemonset hoist-guard").ok();
    page.node("hoist guard remove").ok();
    for path in ["/etc/kubernetes/manifests/hoist-guard.yaml", "/var/lib/hoist/guard", "/var/lib/hoist/bin"] {
        assert_eq!(controller.node.exec(["test", "-e", path]).code, Some(1), "{path} is there");
    }
    page.here("kubectl -n kube-system delete secret hoist-guard").ok();
    eventually("guard is gone", super::SOON, || controller.metrics().is_none().then_some(()));
    assert!(page.left.is_empty(), "{PAGE} has commands that no test runs: {:#?}", page.left);
    assert!(controller.is_served());
}

fn an_upgrade_and_back(page: &mut Page, controller: &Controller) {
    let image = format!("registry.k8s.io/kube-apiserver:v{}", controller.node.kubernetes);
    controller.node.sh(&format!("ctr -n k8s.io images tag {image} {image}-1"));
    let traffic = controller.traffic();
    page.here(
        "kubectl -n kube-system set image daemonset/kube-apiserver kube-apiserver=registry.k8s.io/kube-apiserver:VERSION",
    )
    .ok();
    let status = "kubectl -n kube-system rollout status daemonset/kube-apiserver";
    page.here(status).ok();
    page.here("kubectl -n kube-system rollout undo daemonset/kube-apiserver").ok();
    page.here(status).ok();
    controller.until_lowered();
    controller.nothing_failed(traffic);
    assert_serves_itself(&controller.node, &controller.cluster);
}

fn what_is_to_be_seen(page: &mut Page) {
    eventually("the node's events tell it", super::SOON, || {
        let events = page.here("kubectl get events --field-selector involvedObject.kind=Node").ok();
        (events.contains("BridgeRaised") && events.contains("BridgeLowered")).then_some(())
    });
    let described = page.here("kubectl describe node NODE").ok();
    assert!(described.contains("BridgeRaised"), "{described}");
    let logs = page.here("kubectl -n kube-system logs hoist-guard-NODE").ok();
    assert!(logs.contains("the bridge is raised") && logs.contains("the bridge is lowered"), "{logs}");
    let lease = page.here("kubectl -n kube-system get lease hoist-guard-NODE").ok();
    assert!(lease.contains("hoist-guard-"), "{lease}");
    let metrics = page.node("curl -s http://127.0.0.1:10270/metrics").ok();
    assert!(metrics.contains("\nhoist_guard_bridge_raised 0\n"), "{metrics}");
    // Every metric is on the page, and no other.
    let names = |text: &str| {
        let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        words.filter(|word| word.starts_with("hoist_guard_")).map(str::to_owned).collect::<BTreeSet<_>>()
    };
    assert_eq!(names(&page.text), names(&metrics), "the metrics of {PAGE}, and those that are served");
    page.here("kubectl -n kube-system rollout restart daemonset/hoist-guard").ok();
    // The kubelet says that the node is ready a little later.
    eventually("the cluster is healthy", super::SOON, || {
        (page.node("hoist status --asset-dir /etc/hoist/assets").code == Some(0)).then_some(())
    });
}

/// The commands of the page, as they run on this node and its cluster.
struct Page {
    text: String,
    /// Those that were not run yet.
    left: BTreeSet<String>,
    node: String,
    replaced: Vec<(&'static str, String)>,
}

impl Page {
    fn read(node: &Node, cluster: &Cluster) -> Self {
        let text = std::fs::read_to_string(repository().join(PAGE)).unwrap();
        let assets = cluster.assets.display().to_string();
        let replaced = vec![
            ("/etc/hoist/assets", assets.clone()),
            ("--config cluster.yaml", format!("--config {assets}.yaml")),
            ("--asset-dir assets", format!("--asset-dir {assets}")),
            (" assets/", format!(" {assets}/")),
            ("VERSION", format!("v{}-1", node.kubernetes)),
            ("NODE", node.name.clone()),
        ];
        let mut left = BTreeSet::new();
        for line in text.lines().filter_map(|line| line.strip_prefix("    ")) {
            let command = line.split(" # ").next().unwrap_or_default().trim();
            if !command.is_empty() && !command.starts_with('#') {
                left.insert(command.to_owned());
            }
        }
        assert!(left.len() > 10, "{left:?}");
        Self { text, left, node: node.name.clone(), replaced }
    }

    /// Takes a command from the page, as words.
    #[track_caller]
    fn take(&mut self, command: &str) -> String {
        assert!(self.text.contains(&format!("    {command}")), "{PAGE} has no command {command}");
        self.left.remove(command);
        self.replaced.iter().fold(command.to_owned(), |command, (from, to)| command.replace(from, to))
    }

    /// Runs it as an administrator does, on another machine.
    #[track_caller]
    fn here(&mut self, command: &str) -> Ended {
        let command = self.take(command);
        let assets = &self.replaced[0].1;
        let kubernetes = self.replaced[4].1.trim_end_matches("-1").to_owned();
        let kubectl = crate::support::cache().join(format!("kubernetes/{kubernetes}/bin"));
        let programs = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink(hoist(), programs.path().join("hoist")).unwrap();
        let path = std::env::var("PATH").unwrap_or_default();
        let path = format!("{}:{}:{path}", programs.path().display(), kubectl.display());
        let mut shell = std::process::Command::new("sh");
        shell.args(["-euc", &command]).env("PATH", path).env("KUBECONFIG", format!("{assets}/auth/kubeconfig"));
        Running::spawn(&mut shell, "").wait(EXEC_LIMIT)
    }

    /// Runs it on the controller, as root.
    #[track_caller]
    fn node(&mut self, command: &str) -> Ended {
        let command = self.take(command);
        let command = command.replacen("hoist ", &format!("{} ", hoist().display()), 1);
        let mut exec = std::process::Command::new(repository().join("scripts/node"));
        exec.args(["exec", &self.node, "sh", "-euc", &command]);
        Running::spawn(&mut exec, "").wait(EXEC_LIMIT * 3)
    }
}
