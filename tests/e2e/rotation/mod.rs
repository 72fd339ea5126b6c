//! Keys are changed while clients are at work: no request fails, no user's pod is restarted. What the page docs/rotation.md has
//! one type is run as it stands there.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::beside::Beside;
use crate::support::command::{Ended, Running};
use crate::support::controller::Controller;
use crate::support::http::{Client, runtime};
use crate::support::kubectl::Kubectl;
use crate::support::node::{Node, init_of};
use crate::support::several::etcdctl;
use crate::support::{eventually, hoist, repository, worker};

mod etcd_ca;
mod front_proxy;

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
const OF_TOKENS: &str = "hoist certs rotate service-account";
const FINISH_TOKENS: &str = "hoist certs rotate service-account --finish";
const ROTATE_CA: &str = "hoist certs rotate front-proxy-ca";
const FINISH_CA: &str = "hoist certs rotate front-proxy-ca --finish";
const ROTATE_ETCD: &str = "hoist certs rotate etcd-ca";
const FINISH_ETCD: &str = "hoist certs rotate etcd-ca --finish";
const PAGE: [&str; 11] =
    [PLAN, ROTATE, FINISH, CONTINUE, ABORT, OF_TOKENS, FINISH_TOKENS, ROTATE_CA, FINISH_CA, ROTATE_ETCD, FINISH_ETCD];
const ABORT_CA: &str = "hoist certs rotate front-proxy-ca --abort";
const ABORT_ETCD: &str = "hoist certs rotate etcd-ca --abort";

/// A kubelet renews a token of ten minutes after eight, and hoist lets five more pass.
const RENEWED: Duration = Duration::from_secs(1200);
/// How often a client with a token asks.
const ASKS: Duration = Duration::from_millis(100);

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

#[test]
fn the_key_of_service_accounts_is_rotated() {
    is_the_page();
    let controller = Controller::up("rotsa1");
    let kubectl = &controller.kubectl;
    bearer(kubectl, &controller.node);
    worker::says_hello(kubectl, &controller.node, "usual", READY);
    kubectl.apply(&secret_of_robot("robot"));
    eventually("the controller manager has filled the Secret", READY, || key_in_secret(kubectl, "robot"));
    let container = users_containers(kubectl)["bearer"].clone();
    let started = started_at(kubectl, "bearer");
    let directory = controller.cluster.assets.clone();
    let older = directory.with_extension("older");
    let _ = fs::remove_dir_all(&older);
    copy(&directory, &older);
    let [old] = &accepted(kubectl)[..] else { panic!("one key is accepted") };
    let lasting = kubectl.run(&["create", "token", "robot", "--duration=3h"]).ok();
    assert_eq!(key_of(&lasting), *old);

    let traffic = controller.traffic();
    // What a client in the pod does: it reads its token again and again. The other has read its own once.
    let uid = kubectl.get(&["pod", "bearer"])["metadata"]["uid"].as_str().unwrap().to_owned();
    let file = format!(
        "/proc/{}/root/var/lib/kubelet/pods/{uid}/volumes/kubernetes.io~projected/t/token",
        init_of(&controller.node)
    );
    let in_pod = ask(&controller, move || fs::read_to_string(&file).unwrap());
    let token = lasting.clone();
    let once = ask(&controller, move || token.clone());

    // The controller manager counts as there once it has been ready for a while.
    eventually("no rotation is under way", READY, || {
        let said = run(&controller, &format!("{OF_TOKENS} --plan")).ok();
        said.contains("is the only key, and no rotation is under way").then_some(())
    });
    // Killed before the new key has signed anything, and led back: nobody is waited for.
    let running = begin(&controller, OF_TOKENS);
    killed(&controller, until_said(running, "the Secret kube-controller-manager: tokens of"));
    let begun = Instant::now();
    let said = run(&controller, &format!("{OF_TOKENS} --abort")).ok();
    eprintln!("led back in {:.0?}:\n{said}", begun.elapsed());
    assert_eq!(accepted(kubectl), std::slice::from_ref(old));

    let begun = Instant::now();
    let running = begin(&controller, OF_TOKENS);
    let said = killed(&controller, until_said(running, "kube-apiserver is rolled"));
    assert!(said.contains("a new key is made") && said.contains("tokens of"), "{said}");
    let said = run(&controller, &format!("{OF_TOKENS} --continue")).ok();
    eprintln!("rotated in {:.0?}:\n{said}", begun.elapsed());
    assert!(said.contains("signs every token") && said.contains("Not yet: 1 Secret of the type"), "{said}");
    let keys = accepted(kubectl);
    let new = keys.iter().find(|key| *key != old).expect("two keys are accepted").clone();
    assert_eq!(keys.len(), 2, "{keys:?}");
    assert_eq!(key_of(&kubectl.run(&["create", "token", "robot"]).ok()), new);
    kubectl.apply(&secret_of_robot("another"));
    let made = eventually("the controller manager signs by the new key", READY, || key_in_secret(kubectl, "another"));
    assert_eq!(made, new);
    let said = run(&controller, &format!("{OF_TOKENS} --plan")).ok();
    assert!(said.contains("is to go") && said.contains("2. ") && said.contains("done"), "{said}");

    // Who has an old token is named, and nothing is dropped.
    let refused = run(&controller, FINISH_TOKENS).expect(1);
    refused.says(&[
        "cannot drop the key",
        "default/robot (key",
        "2 pods may have",
        "default/bearer",
        "default/usual",
        "at the latest",
    ]);
    assert_eq!(accepted(kubectl).len(), 2);
    let hoist = hoist().display().to_string();
    let start = |assets: &std::path::Path| {
        let assets = assets.display().to_string();
        controller.node.spawn([&hoist, "start", "--asset-dir", &assets, "--timeout=180s"]).wait(READY * 2)
    };
    start(&older).expect(3).says(&["tls/sa.pub", "and lacks", "docs/rotation.md"]);
    start(&directory).expect(0);

    // As the page says: the Secret gets another token; of the pods one is made anew, and one is left alone.
    kubectl
        .run(&["patch", "secret", "robot", "--type=json", "-p", r#"[{"op": "remove", "path": "/data/token"}]"#])
        .ok();
    let made = eventually("the Secret has another token", READY, || key_in_secret(kubectl, "robot"));
    assert_eq!(made, new);
    kubectl.run(&["delete", "pod", "usual"]).ok();
    worker::says_hello(kubectl, &controller.node, "usual", READY);
    let waited = Instant::now();
    let mut refusals = 0;
    let (said, once) = loop {
        let before = once.is_finished();
        assert!(!before, "a client has ended");
        let ended = run(&controller, FINISH_TOKENS);
        if ended.code == Some(0) {
            break (ended.ok(), once);
        }
        assert!(waited.elapsed() < RENEWED, "{ended}");
        refusals += 1;
        ended.expect(1).says(&["default/bearer", "1 pod may have a token"]);
        std::thread::sleep(Duration::from_secs(20));
    };
    eprintln!("finished after {:.0?} and {refusals} refusals:\n{said}", waited.elapsed());
    assert!(refusals > 0, "nobody was waited for");
    assert_eq!(accepted(kubectl), std::slice::from_ref(&new));
    start(&older).expect(3).says(&["tls/sa.pub", "and lacks"]);
    start(&directory).expect(0);

    // A token of the old key was accepted until then, and is no more.
    let (asked, failed) = once.end();
    let first = failed.first().expect("a token of the old key is still accepted");
    assert!(failed.iter().all(|(_, why)| why.contains("401")), "{:?}", &failed[..failed.len().min(3)]);
    assert!(asked > 1000 && first.0 > asked / 2, "{asked} {first:?}");
    let (asked, failed) = in_pod.end();
    eprintln!(
        "the pod's token: {asked} requests, {} failed; the old one was refused from request {} on",
        failed.len(),
        first.0
    );
    assert!(asked > 5000 && failed.is_empty(), "{asked} {failed:?}");
    let record = traffic.end().unwrap();
    eprintln!("{}", record.summary());
    assert_eq!(record.failures().count(), 0, "{record}");
    assert_eq!(users_containers(kubectl)["bearer"], container, "the user's pod was restarted");
    assert_eq!(started_at(kubectl, "bearer"), started);
}

/// A pod with a token of ten minutes.
fn bearer(kubectl: &Kubectl, node: &Node) {
    kubectl.apply(&format!(
        "apiVersion: v1
kind: Pod
metadata: {{name: bearer}}
spec:
  nodeName: {}
  automountServiceAccountToken: false
  containers:
  - name: a
    image: 'docker.io/library/busybox:1.36'
    command: [sh, -c, 'echo hello; sleep infinity']
    volumeMounts: [{{name: t, mountPath: /t}}]
  terminationGracePeriodSeconds: 0
  tolerations: [{{operator: Exists}}]
  volumes: [{{name: t, projected: {{sources: [{{serviceAccountToken: {{path: token, expirationSeconds: 600}}}}]}}}}]
---
apiVersion: v1
kind: ServiceAccount
metadata: {{name: robot}}
",
        node.name
    ));
    kubectl.run(&["wait", "--for=condition=Ready", "--timeout=120s", "pod/bearer"]).ok();
}

fn secret_of_robot(name: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Secret\ntype: kubernetes.io/service-account-token\nmetadata: {{name: {name}, annotations: {{kubernetes.io/service-account.name: robot}}}}\n"
    )
}

/// The key of the token in a Secret, if there is one.
fn key_in_secret(kubectl: &Kubectl, name: &str) -> Option<String> {
    use base64::Engine;
    let secret = kubectl.get(&["secret", name]);
    let token = base64::engine::general_purpose::STANDARD.decode(secret["data"]["token"].as_str()?).unwrap();
    Some(key_of(&String::from_utf8(token).unwrap()))
}

/// The key that has signed a token, as its header names it.
fn key_of(token: &str) -> String {
    use base64::Engine;
    let header =
        base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(token.trim().split('.').next().unwrap()).unwrap();
    let header: Value = serde_json::from_slice(&header).unwrap();
    header["kid"].as_str().unwrap().to_owned()
}

/// The keys whose tokens the API server accepts.
fn accepted(kubectl: &Kubectl) -> Vec<String> {
    let text = kubectl.run(&["get", "--raw", "/openid/v1/jwks"]).ok();
    let set: Value = serde_json::from_str(&text).unwrap();
    set["keys"].as_array().unwrap().iter().map(|key| key["kid"].as_str().unwrap().to_owned()).collect()
}

fn started_at(kubectl: &Kubectl, pod: &str) -> Value {
    kubectl.get(&["pod", pod])["status"]["containerStatuses"][0]["state"]["running"]["startedAt"].clone()
}

/// A client that shows a token without pause, each time on a new connection: how often it has asked, and which requests failed.
fn ask(controller: &Controller, token: impl Fn() -> String + Send + 'static) -> Beside<(usize, Vec<(usize, String)>)> {
    let ca = fs::read(controller.cluster.assets.join("tls/ca.crt")).unwrap();
    let address = std::net::SocketAddr::new(controller.node.address, 6443);
    Beside::begin(move |stop| {
        let (runtime, mut asked, mut failed) = (runtime(), 0, Vec::new());
        while !stop.to_stop() {
            let client = Client::with_token(&ca, token().trim(), address);
            match runtime.block_on(client.get("/apis")) {
                Ok((200, _)) => {}
                Ok((status, _)) => failed.push((asked, format!("status {status}"))),
                Err(why) => failed.push((asked, why)),
            }
            asked += 1;
            std::thread::sleep(ASKS);
        }
        (asked, failed)
    })
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
