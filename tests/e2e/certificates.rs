//! Certificates that live for minutes: guard renews them while clients are at work, and no pod is restarted. What the page
//! docs/certificates.md has one type is run as it stands there.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::time::Duration;

use serde_json::Value;

use crate::support::cluster::{self, Cluster};
use crate::support::command::Ended;
use crate::support::controller::Controller;
use crate::support::kubectl::Kubectl;
use crate::support::node::Node;
use crate::support::{eventually, hoist, repository};

/// How long the certificates live that guard is to renew within the test. `start` must come to its end within it.
const LIFE: &str = "3m30s";
/// Two thirds of it, and what guard and the kubelet need to bring what is new to where it is read.
const RENEWED: Duration = Duration::from_secs(240);
const TAKEN_UP: Duration = Duration::from_secs(120);
/// Those that live for a year all the same: the administrator's, as the test asks with it; and those of the two that go over to
/// what is renewed within five minutes, which is longer than the others live.
const LONG: [&str; 3] = ["admin", "kube-controller-manager", "kube-scheduler"];
/// Those that guard is to renew by itself.
const SHORT: [&str; 8] = [
    "apiserver",
    "apiserver-etcd-client",
    "apiserver-kubelet-client",
    "etcd-healthcheck-client",
    "etcd-peer",
    "etcd-server",
    "front-proxy-client",
    "guard",
];

// The commands of the page, in its order.
const LIST: &str = "hoist certs list";
const CHECK_EXPIRATION: &str = "hoist certs check-expiration";
const WITHIN: &str = "hoist certs list --within 30d";
const DRY_RUN: &str = "hoist certs renew --dry-run";
const RENEW_ONE: &str = "hoist certs renew apiserver etcd-server";
const RENEW_ALL: &str = "hoist certs renew";
const EVENTS: &str = "kubectl get events --field-selector reason=CertificatesRenewed";
const PAGE: [&str; 7] = [LIST, CHECK_EXPIRATION, WITHIN, DRY_RUN, RENEW_ONE, RENEW_ALL, EVENTS];

#[test]
fn certificates() {
    is_the_page();
    let node = Node::up("certs1");
    let cluster = Cluster::render(&node);
    let text = cluster::declaration(&node, node.address) + &format!("pki: {{certificateValidityPeriod: {LIFE}}}\n");
    shorten(&node, &cluster, &text, &LONG);
    let controller = Controller::start(node, cluster);
    let kubectl = &controller.kubectl;
    let before = list(&controller);
    let pods = containers(kubectl);
    let traffic = controller.traffic();

    // guard renews by itself.
    let renewed = eventually("guard has renewed what ends, everywhere", RENEWED, || {
        let now = list(&controller);
        is_renewed(&before, &now, &SHORT).then_some(now)
    });
    assert_all_served(&renewed);
    let end = SHORT.iter().flat_map(|name| before.ends(name)).max().unwrap();
    for name in SHORT {
        assert!(renewed.ends(name).min().unwrap() > end, "{name}: {renewed:?}");
    }
    eventually("an event says that they are renewed, and served", TAKEN_UP, || {
        let events = run(&controller, EVENTS).ok();
        SHORT.iter().all(|name| events.contains(name)).then_some(())
    });

    // What came before has ended, and nobody needs it: neither etcd's clients nor `logs`, which the API server asks the
    // kubelet for.
    eventually("the certificates of the beginning have ended", TAKEN_UP, || {
        let now = controller.node.sh("date -u +%Y-%m-%dT%H:%M:%SZ");
        (now.trim() > end).then_some(())
    });
    eventually("the API server shows the kubelet its new certificate", TAKEN_UP, || {
        let name = format!("etcd-{}", controller.node.name);
        (kubectl.run(&["-n", "kube-system", "logs", &name, "--tail=1"]).code == Some(0)).then_some(())
    });
    let metrics = controller.metrics().unwrap();
    assert!(SHORT.iter().all(|name| metrics.contains_key(&format!("certificate_expiry_seconds{{name=\"{name}\"}}"))));

    // By hand.
    let table = run(&controller, LIST).ok();
    assert!(table.starts_with("CERTIFICATE ") && table.contains("EXTERNALLY MANAGED"), "{table}");
    assert_eq!(without_times(&run(&controller, CHECK_EXPIRATION).ok()), without_times(&table));
    run(&controller, WITHIN).expect(1);
    run(&controller, &WITHIN.replace("30d", "1s")).expect(0);
    let before = list(&controller);
    let said = run(&controller, DRY_RUN).ok();
    let shows = |text: &str| assert!(said.lines().any(|line| line.starts_with(text)), "{text}: {said}");
    SHORT.iter().for_each(|name| shows(&format!("{name}: would be renewed; ends ")));
    // It would live for minutes.
    shows("scheduler.conf: it would end no later");
    assert!(is_renewed(&before, &before, &[]) && !is_renewed(&before, &list(&controller), &["apiserver"]));
    run(&controller, "hoist certs renew apiserver nonsense")
        .expect(3)
        .says(&["nonsense: is no certificate", "apiserver"]);
    run(&controller, RENEW_ONE).ok();
    let now = list(&controller);
    assert!(is_renewed(&before, &now, &["apiserver", "etcd-server"]), "{now:?}");
    assert!(!is_renewed(&before, &now, &["etcd-peer"]) && !is_renewed(&before, &now, &["guard"]), "{now:?}");

    let record = traffic.end().unwrap();
    eprintln!("{}", record.summary());
    assert_eq!(record.failures().count(), 0, "{record}");
    assert_eq!(containers(kubectl), pods, "pods were restarted");

    // The two whose pairs live long would end sooner now than before: nothing is renewed for the worse.
    let said = run(&controller, RENEW_ALL).expect(1);
    said.says(&["scheduler.conf: it would end no later"]);
    assert_all_served(&list(&controller));
}

/// The page has these commands, and no others.
fn is_the_page() {
    let page = fs::read_to_string(repository().join("docs/certificates.md")).unwrap();
    let commands: Vec<_> = page.lines().filter_map(|line| line.strip_prefix("    ")).collect();
    assert_eq!(commands, PAGE);
}

/// Has all leaves of a rendered cluster but these issued anew, as this declares it.
pub fn shorten(node: &Node, cluster: &Cluster, declaration: &str, long: &[&str]) {
    let tls = cluster.assets.join("tls");
    let leaves = ["", "etcd", &format!("etcd/{}", node.name), &format!("kubelet/{}", node.name)];
    for folder in leaves.map(|folder| tls.join(folder)) {
        for path in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            let stem = path.file_stem().unwrap().to_str().unwrap().to_owned();
            let is_kept = long.contains(&stem.as_str()) || stem.ends_with("ca");
            if path.extension().is_some_and(|end| end == "crt") && !is_kept {
                fs::remove_file(path).unwrap();
            }
        }
    }
    cluster::render(declaration, &cluster.assets).ok();
}

/// A command of the page, in the node.
fn run(controller: &Controller, command: &str) -> Ended {
    let words: Vec<_> = command.split(' ').collect();
    match words.split_first() {
        Some((&"kubectl", args)) => controller.kubectl.run(args),
        Some((&"hoist", args)) => {
            let hoist = hoist().display().to_string();
            controller.node.exec([hoist.as_str()].iter().chain(args))
        }
        _ => panic!("{command}"),
    }
}

/// What `hoist certs list` says.
#[derive(Debug)]
struct List(Vec<Value>);

fn list(controller: &Controller) -> List {
    let text = run(controller, "hoist certs list -o json").ok();
    let value: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(value["schema"], "hoist.certificates/v1");
    assert_eq!(value["notAsked"], Value::Array(Vec::new()));
    List(value["certificates"].as_array().unwrap().clone())
}

impl List {
    /// The serial numbers of a certificate by the places of its copies.
    fn serials(&self, name: &str) -> BTreeMap<&str, &str> {
        let of = self.0.iter().filter(|one| one["name"] == name);
        of.map(|one| (one["place"].as_str().unwrap(), one["serial"].as_str().unwrap())).collect()
    }

    fn ends(&self, name: &str) -> impl Iterator<Item = &str> {
        self.0.iter().filter(move |one| one["name"] == name).map(|one| one["notAfter"].as_str().unwrap())
    }
}

/// Whether each copy of each of these is another, all copies are one, and the listeners serve it.
fn is_renewed(before: &List, now: &List, names: &[&str]) -> bool {
    names.iter().all(|name| {
        let (before, after) = (before.serials(name), now.serials(name));
        assert!(!before.is_empty() && before.keys().eq(after.keys()), "{name}: {before:?} {after:?}");
        let serials: BTreeSet<_> = after.values().collect();
        before.iter().all(|(place, serial)| after[place] != *serial) && serials.len() == 1
    }) && now.0.iter().filter(|one| names.iter().any(|name| one["name"] == *name)).all(is_served)
}

fn is_served(one: &Value) -> bool {
    one["served"].is_null() || one["served"]["isThis"] == true
}

#[track_caller]
fn assert_all_served(list: &List) {
    let served: Vec<_> = list.0.iter().filter(|one| !one["served"].is_null()).collect();
    let wrong: Vec<_> = served.iter().filter(|one| !is_served(one)).collect();
    assert!(served.len() >= 6 && wrong.is_empty(), "{wrong:?}");
}

/// The table without what passes between two looks.
fn without_times(table: &str) -> Vec<String> {
    let is_left = |word: &&str| {
        let number = word.strip_suffix(['s', 'm', 'h']);
        number.is_none_or(|number| number.parse::<u32>().is_err())
    };
    table.lines().map(|line| line.split_whitespace().filter(is_left).collect::<Vec<_>>().join(" ")).collect()
}

/// The containers of all pods, each with how often it was started again.
pub fn containers(kubectl: &Kubectl) -> BTreeMap<String, (String, u64)> {
    let mut found = BTreeMap::new();
    for pod in kubectl.list(&["pods", "-A"]) {
        let name = pod["metadata"]["name"].as_str().unwrap();
        for container in pod["status"]["containerStatuses"].as_array().into_iter().flatten() {
            let name = format!("{name}/{}", container["name"].as_str().unwrap());
            let id = container["containerID"].as_str().unwrap_or_default().to_owned();
            found.insert(name, (id, container["restartCount"].as_u64().unwrap()));
        }
    }
    found
}
