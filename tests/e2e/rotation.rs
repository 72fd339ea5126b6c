//! Keys are changed while clients are at work: no request fails, no user's pod is restarted. What the page docs/rotation.md has
//! one type is run as it stands there.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::time::{Duration, Instant};

use crate::support::command::{Ended, Running};
use crate::support::controller::Controller;
use crate::support::kubectl::Kubectl;
use crate::support::node::Node;
use crate::support::several::etcdctl;
use crate::support::{eventually, hoist, repository, worker};

/// A phase takes up to a minute for guards, and as long as the bridge is held.
const LIMIT: Duration = Duration::from_secs(600);
const READY: Duration = Duration::from_secs(120);
const PAUSE: Duration = Duration::from_millis(500);
/// How many Secrets there are besides hoist's.
const SECRETS: usize = 40;

// The commands of the page, in its order.
const PLAN: &str = "hoist certs rotate encryption-key --plan";
const ROTATE: &str = "hoist certs rotate encryption-key";
const FINISH: &str = "hoist certs rotate encryption-key --finish";
const CONTINUE: &str = "hoist certs rotate encryption-key --continue";
const ABORT: &str = "hoist certs rotate encryption-key --abort";
const PAGE: [&str; 5] = [PLAN, ROTATE, FINISH, CONTINUE, ABORT];

#[test]
fn the_encryption_key_is_rotated() {
    is_the_page();
    let controller = Controller::up("rotkey1");
    let node = Node::up("rotkey2");
    worker::unpack(&node, &controller.cluster);
    node.sh("systemctl enable --now kubelet");
    worker::is_ready(&node, &controller.cluster);
    let kubectl = &controller.kubectl;
    worker::says_hello(kubectl, &controller.node, "here", READY);
    worker::says_hello(kubectl, &node, "there", READY);
    make_secrets(kubectl, "before", SECRETS);
    let pods = users_containers(kubectl);
    assert_eq!(pods.len(), 2, "{pods:?}");
    let directory = controller.cluster.assets.clone();
    let older = directory.with_extension("older");
    let _ = fs::remove_dir_all(&older);
    copy(&directory, &older);
    let traffic = controller.traffic();

    // What changes nothing.
    let said = run(&controller, PLAN).ok();
    assert!(said.contains("key1 is the only key, and no rotation is under way"), "{said}");
    for command in [CONTINUE, ABORT, FINISH] {
        let said = run(&controller, command).ok();
        assert!(said.contains("no rotation is under way"), "{command}: {said}");
    }
    assert_eq!(writers(&controller), ["key1"]);

    // Killed when the API servers' Secret has the new key, and led back.
    let running = begin(&controller, ROTATE);
    let said = killed(&controller, until_said(running, "the Secret kube-apiserver: key2 can be read by"));
    assert!(said.contains("a new key is made"), "{said}");
    let said = run(&controller, PLAN).ok();
    assert!(said.contains("key1 is to go, key2 is to stay") && said.contains("1. key2 is added"), "{said}");
    let said = run(&controller, ABORT).ok();
    eprintln!("led back:\n{said}");
    assert!(said.contains("key1 is the only key"), "{said}");
    assert_eq!(writers(&controller), ["key1"]);

    // Killed in its middle, and gone on with; a namespace comes meanwhile.
    let begun = Instant::now();
    let running = begin(&controller, ROTATE);
    let said = killed(&controller, until_said(running, "kube-apiserver is rolled"));
    assert!(said.contains("guard of e2e-rotkey1 has yet to take its copy"), "{said}");
    make_secrets(kubectl, "meanwhile", 5);
    let said = run(&controller, CONTINUE).ok();
    eprintln!("rotated in {:.0?}:\n{said}", begun.elapsed());
    assert!(said.contains("every Secret in etcd is encrypted by key2"), "{said}");
    assert_eq!(writers(&controller), ["key2"]);
    let said = run(&controller, PLAN).ok();
    assert!(said.contains("key1 is to go, key2 is to stay"), "{said}");

    // A directory of before does not lead it back; the one on the controller has followed.
    let hoist = hoist().display().to_string();
    let start = |assets: &std::path::Path| {
        let assets = assets.display().to_string();
        controller.node.spawn([&hoist, "start", "--asset-dir", &assets, "--timeout=180s"]).wait(READY * 2)
    };
    start(&older).expect(3).says(&["tls/encryption.yaml", "lacks key2", "docs/rotation.md"]);
    start(&directory).expect(0);

    let said = run(&controller, FINISH).ok();
    eprintln!("finished:\n{said}");
    assert!(said.contains("key2 is the only key"), "{said}");
    assert_eq!(writers(&controller), ["key2"]);
    start(&older).expect(3).says(&["tls/encryption.yaml", "lacks key2"]);
    start(&directory).expect(0);
    let text = fs::read_to_string(directory.join("tls/encryption.yaml")).unwrap();
    assert!(text.contains("key2") && !text.contains("key1") && text.starts_with("# What Secrets"), "{text}");

    let record = traffic.end().unwrap();
    eprintln!("{}", record.summary());
    assert_eq!(record.failures().count(), 0, "{record}");
    assert_eq!(users_containers(kubectl), pods, "users' pods were restarted");
    for pod in ["here", "there"] {
        assert_eq!(kubectl.run(&["logs", pod]).ok(), "hello\n");
        assert_eq!(kubectl.run(&["exec", pod, "--", "echo", "yes"]).ok(), "yes\n");
    }
    let there = kubectl.list(&["secrets", "-n", "meanwhile"]);
    assert_eq!(there.len(), 5, "{there:?}");
}

/// The page has these commands, and no others of hoist's that rotate.
fn is_the_page() {
    let page = fs::read_to_string(repository().join("docs/rotation.md")).unwrap();
    let commands: Vec<_> = page.lines().filter_map(|line| line.strip_prefix("    ")).collect();
    let commands: Vec<_> = commands.into_iter().filter(|line| line.starts_with("hoist certs")).collect();
    assert_eq!(commands, PAGE);
}

/// A command of the page, in the node, to its end.
fn run(controller: &Controller, command: &str) -> Ended {
    begin(controller, command).wait(LIMIT)
}

fn begin(controller: &Controller, command: &str) -> Running {
    let hoist = hoist().display().to_string();
    controller.node.spawn([hoist.as_str()].into_iter().chain(command.split(' ').skip(1)))
}

/// Kills a command; what it has said.
fn killed(controller: &Controller, running: Running) -> String {
    let said = running.kill().stdout;
    eventually("the killed command is gone", Duration::from_secs(5), || {
        (controller.node.exec(["pgrep", "-f", "certs rotate"]).code == Some(1)).then_some(())
    });
    said
}

/// Waits until a command has said so.
#[track_caller]
fn until_said(mut running: Running, text: &str) -> Running {
    let begun = Instant::now();
    while !running.said().contains(text) {
        assert!(!running.has_ended() && begun.elapsed() < LIMIT, "{text}: {}", running.wait(PAUSE));
        std::thread::sleep(PAUSE);
    }
    running
}

fn make_secrets(kubectl: &Kubectl, namespace: &str, count: usize) {
    let secret = |number: usize| {
        format!(
            "---\napiVersion: v1\nkind: Secret\nmetadata: {{name: s{number}, namespace: {namespace}}}\nstringData: {{a: b}}\n"
        )
    };
    kubectl.run(&["create", "namespace", namespace]).ok();
    kubectl.apply(&(0..count).map(secret).collect::<String>());
}

/// The names of the keys that have encrypted Secrets in etcd.
fn writers(controller: &Controller) -> Vec<String> {
    let keys = etcdctl(&controller.node, "get /registry/secrets/ --prefix --keys-only").ok();
    let keys: Vec<_> = keys.lines().filter(|line| !line.is_empty()).collect();
    assert!(keys.len() > SECRETS, "{keys:?}");
    let found = keys.iter().map(|key| {
        let value =
            etcdctl(&controller.node, &format!("get {key} --print-value-only | head -c 40 | tr -dc '[:print:]'"))
                .stdout;
        let rest = value.strip_prefix("k8s:enc:secretbox:v1:").unwrap_or_else(|| panic!("{key}: {value}"));
        rest.split(':').next().unwrap().to_owned()
    });
    found.collect::<BTreeSet<_>>().into_iter().collect()
}

/// The containers of pods that are no part of the control plane, each with how often it was started again.
fn users_containers(kubectl: &Kubectl) -> BTreeMap<String, (String, u64)> {
    let mut found = BTreeMap::new();
    for pod in kubectl.list(&["pods", "-n", "default"]) {
        let name = pod["metadata"]["name"].as_str().unwrap();
        for container in pod["status"]["containerStatuses"].as_array().into_iter().flatten() {
            let id = container["containerID"].as_str().unwrap_or_default().to_owned();
            found.insert(name.to_owned(), (id, container["restartCount"].as_u64().unwrap()));
        }
    }
    found
}

fn copy(from: &std::path::Path, to: &std::path::Path) {
    let paths = [from, to].map(|path| path.display().to_string());
    let status = std::process::Command::new("cp").arg("-a").args(paths).status().unwrap();
    assert!(status.success());
}
