//! Three controllers and a worker whose certificates live for minutes: guard and kubelets renew them while clients are at work,
//! and machines that were off for longer than their certificates live come back with nothing typed.
//!
//! The clock of a test node is that of this machine and cannot be moved: ten minutes stand for a year, and eleven minutes without
//! power for 400 days. What differs is that CAs do not grow older meanwhile; that clock is moved in the unit tests.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::certificates::{containers, shorten};
use crate::support::beside::Beside;
use crate::support::cluster::{Cluster, render};
use crate::support::controller::LATER;
use crate::support::kubectl::Kubectl;
use crate::support::node::Node;
use crate::support::several::Several;
use crate::support::{eventually, hoist, worker};

/// How long every certificate lives but those of CAs and the test's own, the administrator's; kubelets' too.
const LIFE: &str = "10m";
/// Longer than that, and than what a kubelet's certificate is dated back.
const OFF: Duration = Duration::from_secs(660);
/// How long clients are at work while certificates are renewed: longer than what reads its certificate late takes. With
/// HOIST_FULL an hour.
const AT_WORK: Duration = Duration::from_secs(480);
const FULL: Duration = Duration::from_secs(3600);
/// Those that guard renews, on each controller.
const RENEWED: [&str; 10] = [
    "apiserver",
    "apiserver-etcd-client",
    "apiserver-kubelet-client",
    "controller-manager.conf",
    "etcd-healthcheck-client",
    "etcd-peer",
    "etcd-server",
    "front-proxy-client",
    "guard",
    "scheduler.conf",
];

#[test]
fn three_controllers_and_a_worker_renew_what_ends() {
    let first = Node::up("renewal-1");
    let cluster = Cluster::to_render(&first, first.address);
    let declaration = Several::declaration(&first);
    render(&declaration, &cluster.assets).ok();
    let short = format!(
        "{declaration}pki: {{certificateValidityPeriod: {LIFE}}}\ncontrollerManager:\n  extraArgs:\n  - {{name: cluster-signing-duration, value: {LIFE}}}\n"
    );
    shorten(&first, &cluster, &short, &["admin"]);
    let mut several = Several::of("renewal", first, cluster, 1);
    several.make_three();
    for node in several.controllers.iter().chain(&several.workers) {
        worker::says_hello(&several.kubectl_of_any(), node, &hello(node), LATER);
    }

    several.renew_at_work();
    several.one_is_off();
    several.all_are_off();
}

impl Several {
    /// Every certificate is another, and served; no request failed, and no pod was restarted.
    fn renew_at_work(&mut self) {
        let lasts = if std::env::var_os("HOIST_FULL").is_some() { FULL } else { AT_WORK };
        let (before, pods) = (self.serials(), containers(&self.kubectl_of_any()));
        let traffic = self.traffic(&self.workers[0]);
        let visits = self.visits();
        std::thread::sleep(lasts);
        let after = self.serials();
        let (visited, failed) = visits.end();
        let record = traffic.end().unwrap();
        eprintln!("{}; {visited} execs and logs, {} failed", record.summary(), failed.len());
        assert_eq!(containers(&self.kubectl_of_any()), pods, "pods were restarted");
        assert!(failed.is_empty(), "{failed:?}");
        assert_eq!(record.failures().count(), 0, "{record}");
        for (place, serial) in &before {
            let now = after.get(place);
            assert!(now.is_some_and(|now| now != serial), "{place:?}: {serial} {now:?}");
        }
        assert!(before.len() >= RENEWED.len() * self.controllers.len(), "{before:?}");
        self.are_served(&self.controllers.iter().collect::<Vec<_>>());
    }

    /// One of three comes back, its kubelet included.
    fn one_is_off(&mut self) {
        let third = &self.controllers[2];
        third.power_cut();
        std::thread::sleep(OFF);
        let begun = Instant::now();
        third.boot();
        self.until_whole();
        self.until_visited(third);
        eprintln!("one that was off for {OFF:?} was a controller again after {:.1?}", begun.elapsed());
        self.are_served(&[third]);
    }

    /// All machines were off: one that `start` made, two that a label made, and a worker whose token is still good.
    fn all_are_off(&mut self) {
        let nodes = || self.controllers.iter().chain(&self.workers);
        nodes().for_each(Node::power_cut);
        std::thread::sleep(OFF);
        let begun = Instant::now();
        nodes().for_each(Node::boot);
        self.until_whole();
        eprintln!("all were off for {OFF:?}: whole after {:.1?}", begun.elapsed());
        nodes().for_each(|node| self.until_visited(node));
        eprintln!("every kubelet serves after {:.1?}", begun.elapsed());
        self.are_served(&self.controllers.iter().collect::<Vec<_>>());
    }

    /// `kubectl exec` and `kubectl logs` at each node's pod in turn, one each second; how many, and what failed.
    fn visits(&self) -> Beside<(usize, Vec<String>)> {
        let kubectl = self.kubectl(&self.controllers[0]);
        let pods: Vec<_> = self.controllers.iter().chain(&self.workers).map(hello).collect();
        Beside::begin(move |stop| {
            let (mut count, mut failed) = (0, Vec::new());
            while !stop.to_stop() {
                let begun = Instant::now();
                let pod = &pods[count / 2 % pods.len()];
                if let Err(why) = visit(&kubectl, pod, count % 2 == 0) {
                    failed.push(why);
                }
                count += 1;
                std::thread::sleep(Duration::from_secs(1).saturating_sub(begun.elapsed()));
            }
            (count, failed)
        })
    }

    /// The API server reaches the kubelet of a node, and the pod there.
    #[track_caller]
    fn until_visited(&self, node: &Node) {
        let kubectl = self.kubectl_of_any();
        eventually(&format!("the pod of {} is reached", node.name), LATER * 2, || {
            [true, false].into_iter().all(|exec| visit(&kubectl, &hello(node), exec).is_ok()).then_some(())
        });
    }

    /// The serial number of each certificate in [`RENEWED`], by controller, name and place.
    fn serials(&self) -> BTreeMap<(String, String, String), String> {
        let mut found = BTreeMap::new();
        for node in &self.controllers {
            for one in list(node).into_iter().filter(|one| RENEWED.iter().any(|name| one["name"] == *name)) {
                let text = |field: &str| one[field].as_str().unwrap().to_owned();
                found.insert((node.name.clone(), text("name"), text("place")), text("serial"));
            }
        }
        found
    }

    /// What listeners of these controllers serve is in their files, and has not ended.
    #[track_caller]
    fn are_served(&self, nodes: &[&Node]) {
        for node in nodes {
            eventually(&format!("all listeners of {} serve what is in their files", node.name), LATER, || {
                let served: Vec<_> = list(node).into_iter().filter(|one| !one["served"].is_null()).collect();
                let is_good = |one: &Value| {
                    one["served"]["isThis"] == true && one["remainingSeconds"].as_i64().is_some_and(|left| left > 0)
                };
                let names: BTreeSet<_> = served.iter().filter_map(|one| one["name"].as_str()).collect();
                let all = ["apiserver", "etcd-peer", "etcd-server", "kubelet-server"];
                (all.iter().all(|name| names.contains(name)) && served.iter().all(is_good)).then_some(())
            });
        }
    }
}

fn hello(node: &Node) -> String {
    format!("hello-{}", node.name)
}

fn visit(kubectl: &Kubectl, pod: &str, exec: bool) -> Result<(), String> {
    let (args, said): (&[&str], _) = match exec {
        true => (&["exec", pod, "--", "echo", "here"], "here\n"),
        false => (&["logs", pod], "hello\n"),
    };
    let ended = kubectl.run(args);
    match ended.stdout == said {
        true => Ok(()),
        false => Err(format!("{args:?}: {ended}")),
    }
}

/// What `hoist certs list` says on a controller.
fn list(node: &Node) -> Vec<Value> {
    let told = node.exec([hoist().display().to_string().as_str(), "certs", "list", "-o", "json"]).stdout;
    let told: Value = serde_json::from_str(&told).unwrap_or_default();
    told["certificates"].as_array().cloned().unwrap_or_default()
}
