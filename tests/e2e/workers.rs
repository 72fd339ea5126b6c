//! Machines that become workers: by what `hoist join-assets` writes, and by `kubeadm join`, with the same token. What
//! they serve is vouched for by the cluster's CA, and nobody gets a certificate for what is another's.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use rcgen::CertificateParams;
use serde_json::Value;

use crate::support::cluster::Cluster;
use crate::support::command::{Ended, Running, run};
use crate::support::controller::{Controller, SOON};
use crate::support::first_boot::{bare, ignite, seed};
use crate::support::kubectl::Kubectl;
use crate::support::node::Node;
use crate::support::{eventually, hoist, pki, worker};

const SIGNER: &str = "kubernetes.io/kubelet-serving";
/// A port of a node where somebody serves, and one where nobody does.
const TOMORROW: &str = "7443";
const NOBODY: &str = "7444";
const JOURNAL: &str = "journalctl -u kubelet -o cat --no-pager";
/// What takes a worker's identity from a machine, as docs/workers.md has it.
const FORGET: &str = "systemctl disable --now kubelet
    rm -rf /var/lib/kubelet/pki /etc/kubernetes/kubelet.conf /etc/kubernetes/bootstrap-kubelet.conf /etc/kubernetes/pki /var/lib/kubelet/config.yaml";

#[test]
fn workers() {
    let controller = Controller::up("workers-c");
    let kubectl = &controller.kubectl;
    its_own_kubelet_is_vouched_for(&controller);
    let cluster = &controller.cluster;

    let token = create_token(cluster, &[]);
    let first = Node::up("worker-1");
    prepare(&first, &join_assets(cluster, &first, &token).1);
    first.sh("systemctl enable --now kubelet");
    worker::is_ready(&first, cluster);
    is_vouched_for(kubectl, &first);

    let second = Node::up("worker-2");
    tokens_that_let_nobody_in(cluster, &second, &token);
    joins_by_kubeadm(cluster, &second, &token);
    worker::is_ready(&second, cluster);
    is_vouched_for(kubectl, &second);

    first_boots(&controller, &token);
    nobody_serves_as_another(&controller, &first, &second);
    leaves(&controller, &first);
}

/// As many at once as HOIST_WORKERS says, 5 otherwise: `cargo test --test e2e -- --ignored --nocapture many_workers`.
/// More than 6 take `sysctl fs.inotify.max_user_instances=1024`: kubelets of nodes on one machine share its limit.
#[test]
#[ignore = "a benchmark: it asserts nothing about time"]
fn many_workers() {
    let count = std::env::var("HOIST_WORKERS").map_or(5, |count| count.parse::<usize>().unwrap());
    let controller = Controller::up("workers-c");
    let token = create_token(&controller.cluster, &[]);
    let nodes: Vec<_> = (1..=count).map(|number| Node::up(&format!("worker-{number}"))).collect();
    for node in &nodes {
        prepare(node, &join_assets(&controller.cluster, node, &token).1);
    }
    let begun = Instant::now();
    for node in &nodes {
        node.sh("systemctl enable --now --no-block kubelet");
    }
    let seconds = |what: &str, wanted: &dyn Fn() -> usize| {
        let mut taken = Vec::new();
        eventually(what, Duration::from_secs(600), || {
            let there = wanted();
            taken.resize(there.max(taken.len()), begun.elapsed().as_secs_f64());
            (there == count).then_some(())
        });
        eprintln!("{what}: {}", taken.iter().map(|at| format!("{at:.1} s")).collect::<Vec<_>>().join(", "));
    };
    let kubectl = &controller.kubectl;
    seconds("Ready", &|| {
        let nodes = kubectl.list(&["nodes"]);
        nodes.iter().filter(|node| condition(node, "Ready") && !is_controller(node)).count()
    });
    seconds("with a serving certificate", &|| {
        let requests = kubectl.list(&["csr", "--field-selector", &format!("spec.signerName={SIGNER}")]);
        let signed = |csr: &&Value| csr["status"]["certificate"].is_string();
        requests.iter().filter(signed).count().saturating_sub(1)
    });
}

fn is_controller(node: &Value) -> bool {
    node["metadata"]["labels"].get("node-role.kubernetes.io/control-plane").is_some()
}

fn condition(object: &Value, wanted: &str) -> bool {
    let conditions = object["status"]["conditions"].as_array();
    conditions.into_iter().flatten().any(|one| one["type"] == wanted && one["status"] == "True")
}

// --- hoist's commands ---

fn hoist_says(cluster: &Cluster, args: &[&str]) -> Ended {
    let mut command = Command::new(hoist());
    command.args(args).arg("--asset-dir").arg(&cluster.assets);
    run(&mut command, SOON)
}

#[track_caller]
fn create_token(cluster: &Cluster, more: &[&str]) -> String {
    hoist_says(cluster, &[&["token", "create"], more].concat()).ok().trim().to_owned()
}

/// `hoist join-assets` for a node, and the folder that it writes, where the node sees it.
fn join_assets(cluster: &Cluster, node: &Node, token: &str) -> (Ended, PathBuf) {
    let address = node.address.to_string();
    join_assets_of(cluster, &node.name, token, &["--node", &node.name, "--node-ip", &address])
}

/// The same for whom these flags say.
fn join_assets_of(cluster: &Cluster, name: &str, token: &str, flags: &[&str]) -> (Ended, PathBuf) {
    let out = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-join"));
    let _ = std::fs::remove_dir_all(&out);
    let out_text = out.display().to_string();
    (hoist_says(cluster, &[&["join-assets", "--token", token, "--output-dir", &out_text], flags].concat()), out)
}

/// Puts the files on a machine that has nothing but containerd and a kubelet: no package's unit has a say.
fn prepare(node: &Node, out: &Path) {
    node.sh(&format!(
        "mkdir -p /etc/systemd/system/kubelet.service.d
        ln -sf /dev/null /etc/systemd/system/kubelet.service.d/10-kubeadm.conf
        tar -C {} -c etc var | tar -x -C / --no-same-owner --no-overwrite-dir
        systemctl daemon-reload",
        out.display()
    ));
}

// --- a worker ---

/// The API server believes only the cluster's CA: logs and exec show that the kubelet serves with a certificate of it.
#[track_caller]
fn is_vouched_for(kubectl: &Kubectl, node: &Node) {
    let name = format!("on-{}", node.name);
    worker::says_hello(kubectl, node, &name, Duration::from_secs(60));
    eventually("the worker serves with its certificate", SOON, || {
        kubectl.run(&["logs", &name]).stdout.contains("hello").then_some(())
    });
    assert_eq!(kubectl.run(&["exec", &name, "--", "echo", "there"]).ok(), "there\n");
    kubectl.run(&["delete", "pod", &name, "--wait=false"]).ok();
    // What others see who believe nobody else: the address is in the certificate.
    let served = node.sh("openssl s_client -connect $(hostname -i | cut -d' ' -f1):10250 -CAfile /etc/kubernetes/pki/ca.crt -verify_return_error </dev/null 2>&1 | openssl x509 -noout -subject -ext subjectAltName");
    assert!(served.contains(&format!("CN = system:node:{}", node.name)), "{served}");
    assert!(served.contains(&format!("IP Address:{}", node.address)), "{served}");
}

fn its_own_kubelet_is_vouched_for(controller: &Controller) {
    let name = format!("hoist-guard-{}", controller.node.name);
    let begun = Instant::now();
    eventually("the controller's kubelet serves with its certificate", SOON, || {
        (controller.kubectl.run(&["-n", "kube-system", "logs", &name]).code == Some(0)).then_some(())
    });
    eprintln!("the logs of the controller's pods can be read {:.1?} after the start", begun.elapsed());
}

/// Wrong, expired and revoked ones, and another CA: what hoist, kubeadm and the kubelet say. docs/workers.md has it.
fn tokens_that_let_nobody_in(cluster: &Cluster, node: &Node, good: &str) {
    let refused = |token: &str, said: &[&str]| {
        let (ended, out) = join_assets(cluster, node, token);
        ended.expect(3).says(said);
        assert!(!out.exists(), "nothing is written");
    };
    let mut wrong = good.to_owned();
    wrong.replace_range(7.., "0000000000000000");
    refused(&wrong, &["mistyped", "hoist token create"]);
    refused("aaaaaa.0000000000000000", &["the cluster has no token aaaaaa"]);
    let expired = create_token(cluster, &["--ttl=1s"]);
    std::thread::sleep(Duration::from_secs(2));
    refused(&expired, &["has expired"]);
    let revoked = create_token(cluster, &["--description", "to be revoked"]);
    assert!(hoist_says(cluster, &["token", "list"]).ok().contains("to be revoked"));
    hoist_says(cluster, &["token", "revoke", &revoked]).ok();
    refused(&revoked, &["was revoked"]);
    hoist_says(cluster, &["token", "delete", &revoked]).expect(1).says(&["no such token"]);

    // The same, found out by the kubelet, which goes on trying.
    let (ended, out) = join_assets(cluster, node, good);
    ended.ok();
    prepare(node, &out);
    let journal_says = |script: &str, said: &str| {
        eprintln!("{said}: {}", worker::kubelet_says(node, script, &[said]));
    };
    let conf = "/etc/kubernetes/bootstrap-kubelet.conf";
    journal_says(&format!("sed -i 's/{good}/{revoked}/' {conf}"), "Unauthorized");
    let other = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout /dev/null -subj /CN=kubernetes -days 2 2>/dev/null | base64 -w0";
    let ca = format!("sed -i \"s#certificate-authority-data: .*#certificate-authority-data: $({other})#\" {conf}");
    journal_says(&ca, "x509: certificate signed by unknown authority");
    prepare(node, &out);
    let _server = serves_from_tomorrow_on(cluster, node);
    let server = format!("sed -i 's#server: .*#server: https://127.0.0.1:{TOMORROW}#' {conf}");
    journal_says(&server, "x509: certificate has expired or is not yet valid");
    journal_says(&server.replace(TOMORROW, NOBODY), "connection refused");
    node.sh(FORGET);
}

/// What a machine sees of a cluster whose clock is a day before its own: all nodes of this machine have one clock.
fn serves_from_tomorrow_on(cluster: &Cluster, node: &Node) -> Running {
    let mut params = CertificateParams::new(["127.0.0.1".to_owned()]).unwrap();
    params.not_before = time::OffsetDateTime::now_utc() + Duration::from_secs(24 * 60 * 60);
    params.not_after = params.not_before + Duration::from_secs(24 * 60 * 60);
    let path = cluster.assets.with_extension("tomorrow.pem");
    std::fs::write(&path, pki::signed(cluster, &params)).unwrap();
    let file = path.display().to_string();
    let accept = format!("127.0.0.1:{TOMORROW}");
    node.spawn(["openssl", "s_server", "-quiet", "-accept", &accept, "-cert", &file, "-key", &file])
}

/// The real one, with the line that hoist prints for it.
fn joins_by_kubeadm(cluster: &Cluster, node: &Node, token: &str) {
    let printed = hoist_says(cluster, &["token", "create", "--print-join"]).ok();
    let line = printed.lines().find(|line| line.starts_with("kubeadm join ")).unwrap().to_owned();
    // As the package has it.
    node.sh("rm -rf /etc/systemd/system/kubelet.service /etc/systemd/system/kubelet.service.d /etc/default/kubelet /etc/sysconfig/kubelet; systemctl daemon-reload");
    let join = |line: &str| {
        let name = &node.name;
        let command = format!("timeout 25 {line} --node-name {name} --ignore-preflight-errors=all");
        node.exec(["sh", "-c", &command])
    };
    let (start, hash) = line.split_once("sha256:").unwrap();
    let other: String = hash.chars().map(|c| if c == '0' { '1' } else { '0' }).collect();
    let wrong = join(&format!("{start}sha256:{other}"));
    assert_ne!(wrong.code, Some(0), "{wrong}");
    eprintln!("another CA: {wrong}");

    // The line has a token of its own; the one of before is as good.
    let own = line.split(' ').skip_while(|word| *word != "--token").nth(1).unwrap();
    let joined = join(&line.replace(own, token));
    assert_eq!(joined.code, Some(0), "{joined}");
}

/// Two machines that nobody has touched before they are switched on, one by the file of any machine.
fn first_boots(controller: &Controller, token: &str) {
    let cluster = &controller.cluster;
    let [ignited, seeded] = ["worker-ign", "worker-ci"].map(Node::off);
    let flags = ["--format=ignition", "--node", &ignited.name];
    let (written, out) = join_assets_of(cluster, &ignited.name, token, &flags);
    written.ok();
    ignite(&ignited, &out.join(format!("{}.ign", ignited.name)), "kubelet.service");
    let (written, out) = join_assets_of(cluster, &seeded.name, token, &["--format=cloud-init"]);
    written.ok();
    seed(&seeded, &out.join("worker.cloud-init.yaml"), None);
    let both = [ignited, seeded];
    for node in &both {
        bare(node);
        node.boot();
    }
    for node in &both {
        worker::is_ready(node, cluster);
        is_vouched_for(&controller.kubectl, node);
        // A token is as good as a password.
        let mode = node.sh("stat -c %a,%U /etc/kubernetes/bootstrap-kubelet.conf /var/lib/kubelet/config.yaml");
        assert_eq!(mode, "600,root\n600,root\n");
    }
    let kept =
        both[1].sh(&format!("grep -rl '{token}' /var/lib/cloud /run/cloud-init /var/log | xargs stat -c %a | sort -u"));
    assert_eq!(kept, "600\n", "nor what cloud-init keeps of it");
}

/// A kubelet that is not to be trusted asks for what is another's.
fn nobody_serves_as_another(controller: &Controller, first: &Node, second: &Node) {
    let kubectl = &controller.kubectl;
    let (name, other) = (&first.name, second.address);
    let rows = [
        ("a-foreign-address", "IP:192.0.2.1".to_owned()),
        ("another-nodes-name", format!("DNS:{}", second.name)),
        ("another-nodes-address", format!("IP:{other}")),
        ("the-api-server", "DNS:kubernetes.default.svc".to_owned()),
        ("the-controllers-address", format!("IP:{}", controller.cluster.address)),
    ];
    let ask = |row: &str, subject: &str, san: &str| {
        let script = format!(
            "openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout /dev/null -subj '/O=system:nodes/CN=system:node:{subject}' -addext subjectAltName={san} 2>/dev/null | base64 -w0"
        );
        let request = first.sh(&script);
        let csr = format!(
            "apiVersion: certificates.k8s.io/v1
kind: CertificateSigningRequest
metadata: {{name: {row}}}
spec: {{signerName: {SIGNER}, request: {request}, usages: [digital signature, server auth]}}
"
        );
        let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{row}.yaml"));
        std::fs::write(&file, csr).unwrap();
        let (file, as_node) = (file.display().to_string(), format!("--as=system:node:{name}"));
        let groups = ["--as-group=system:nodes", "--as-group=system:authenticated"];
        kubectl.run(&[&["create", "-f", &file, &as_node][..], &groups].concat())
    };
    // The API server sees to the subject itself; the rest is guard's.
    ask("another-subject", &second.name, &format!("DNS:{name}"))
        .expect(1)
        .says(&["can only create a node CSR with CN"]);
    for (row, san) in &rows {
        ask(row, name, san).ok();
    }
    let guard = format!("hoist-guard-{}", controller.node.name);
    for (row, ..) in &rows {
        eventually("guard has seen it", SOON, || {
            let log = kubectl.run(&["-n", "kube-system", "logs", &guard]).ok();
            log.lines().any(|line| line.contains(&format!("the request {row} "))).then_some(())
        });
        let csr = kubectl.get(&["csr", row]);
        assert!(csr["status"].get("conditions").is_none(), "{csr}");
        assert!(csr["status"].get("certificate").is_none(), "{csr}");
    }
}

/// `kubectl delete node` takes no credentials away: what docs/workers.md says of it.
fn leaves(controller: &Controller, node: &Node) {
    let (kubectl, name) = (&controller.kubectl, format!("node/{}", node.name));
    kubectl.run(&["delete", &name]).ok();
    let own = "kubectl --kubeconfig=/etc/kubernetes/kubelet.conf";
    let who = node.sh(&format!("{own} auth whoami -o jsonpath='{{.status.userInfo.username}}'"));
    assert_eq!(who, format!("system:node:{}", node.name), "its certificate counts on");
    for args in ["get secrets -n kube-system", "get secret -n kube-system kube-apiserver"] {
        let ended = node.exec(["sh", "-c", &format!("{own} {args}")]);
        ended.expect(1).says(&["Forbidden"]);
    }
    // A machine that was stolen, as the page has it.
    let page = include_str!("../../docs/workers.md");
    let policy = page.split("```yaml\n").nth(1).unwrap().split("```").next().unwrap().replace("NODE", &node.name);
    kubectl.apply(&policy);
    std::thread::sleep(Duration::from_secs(3));
    node.sh("systemctl restart kubelet");
    eventually("the kubelet is told", SOON, || node.sh(JOURNAL).contains("this machine was stolen").then_some(()));
    kubectl.run(&["get", &name]).expect(1).says(&["not found"]);
    let kinds = "validatingadmissionpolicies,validatingadmissionpolicybindings";
    kubectl.run(&["delete", kinds, "stolen-node"]).ok();
    // A kubelet registers when it starts: whoever only deletes the Node has it again after the next boot.
    node.sh("systemctl restart kubelet");
    worker::is_ready(node, &controller.cluster);

    node.sh(FORGET);
    kubectl.run(&["delete", &name]).ok();
    std::thread::sleep(Duration::from_secs(5));
    kubectl.run(&["get", &name]).expect(1).says(&["not found"]);
}
