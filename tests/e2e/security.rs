//! docs/security.md on a real node: who may do what, what etcd and the audit log hold, whose files are whose, and a key that
//! is changed as the page says.

use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use base64::Engine;
use serde_json::{Value, json};

use crate::least_privilege::{Row, nobody_may_do_more_than_it_needs};
use crate::support::cluster::{declaration, render};
use crate::support::command::run;
use crate::support::controller::{Controller, SOON};
use crate::support::eventually;
use crate::support::kubectl::Kubectl;
use crate::support::node::{EXEC_LIMIT, Node};

/// What is in the Secret that this test makes.
const WORD: &str = "nobody-but-its-reader-sees-this";

/// Whom hoist gives anything to do in the cluster.
const WHO: [&str; 5] = [
    "hoist:guard",
    "system:serviceaccount:kube-system:hoist-guard",
    "system:serviceaccount:kube-system:kube-apiserver",
    "system:serviceaccount:kube-system:kube-controller-manager",
    "system:serviceaccount:kube-system:kube-scheduler",
];
/// What some may do, and what not: who, verb, kind with a name, namespace.
const ROWS: [Row; 11] = [
    ("hoist:guard", "get", "secrets/hoist-guard", "kube-system", true),
    // It renews the certificates in it.
    ("hoist:guard", "get", "secrets/kube-apiserver", "kube-system", true),
    ("hoist:guard", "get", "secrets/other", "kube-system", false),
    ("hoist:guard", "get", "secrets/hoist-guard", "default", false),
    ("hoist:guard", "patch", "secrets/hoist-guard", "kube-system", true),
    ("hoist:guard", "patch", "secrets/kube-apiserver", "kube-system", true),
    ("hoist:guard", "patch", "secrets/other", "kube-system", false),
    ("hoist:guard", "create", "secrets", "kube-system", false),
    ("hoist:guard", "delete", "leases.coordination.k8s.io/kube-scheduler", "kube-system", true),
    ("hoist:guard", "delete", "leases.coordination.k8s.io/other", "kube-system", false),
    ("hoist:guard", "delete", "pods", "default", false),
];

#[test]
fn security() {
    let controller = Controller::up("security");
    anonymous_requests_are_answered_where_they_are_listed(&controller);
    another_nodes_kubelet_stays_within_its_own(&controller);
    nobody_may_do_more_than_it_needs(&controller.kubectl, &WHO, &ROWS);
    a_controller_is_made_only_by_who_may(&controller);
    kubelets_answer_nobody_without_rights(&controller);
    pods_beyond_the_standard_are_warned_of(&controller);

    let secret = ["create", "secret", "generic", "probe", "-n", "default", &format!("--from-literal=word={WORD}")];
    controller.kubectl.run(&secret).ok();
    assert_eq!(writers(&controller), ["k8s:enc:secretbox:v1:key1:"]);
    files_are_roots_alone(&controller.node);
    the_key_is_changed(&controller);
    the_audit_log_names_the_secret_and_not_what_it_holds(&controller);
}

// --- the API ---

/// kubectl of somebody with these fields of a kubeconfig's user, at an address.
fn kubectl_of(controller: &Controller, name: &str, user: &Value, server: &str) -> Kubectl {
    let config = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "c", "cluster": {"server": server, "insecure-skip-tls-verify": true}}],
        "users": [{"name": "u", "user": user}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "x",
    });
    let path = controller.cluster.assets.with_extension(name);
    std::fs::write(&path, config.to_string()).unwrap();
    Kubectl::new(&controller.node.kubernetes, &path)
}

fn api(controller: &Controller) -> String {
    format!("https://{}", SocketAddr::new(controller.cluster.address, 6443))
}

fn kubelet(controller: &Controller) -> String {
    format!("https://{}", SocketAddr::new(controller.cluster.address, 10250))
}

#[track_caller]
fn refused(kubectl: &Kubectl, args: &[&str], why: &str) {
    let ended = kubectl.run(args);
    assert!(ended.code == Some(1) && ended.stderr.contains(why), "expected {why}: {ended}");
}

/// What is answered to somebody without credentials.
fn anonymous(server: &str, path: &str) -> String {
    let url = format!("{server}{path}");
    run(Command::new("curl").args(["-sk", "-o", "/dev/null", "-w", "%{http_code}", &url]), EXEC_LIMIT).ok()
}

fn anonymous_requests_are_answered_where_they_are_listed(controller: &Controller) {
    let server = api(controller);
    for path in ["/healthz", "/livez", "/readyz", "/version"] {
        assert_eq!(anonymous(&server, path), "200", "{path}");
    }
    // A role that somebody has bound to everybody by mistake gives nobody without credentials anything.
    let bind = ["create", "clusterrolebinding", "mistake", "--clusterrole=view", "--group=system:unauthenticated"];
    controller.kubectl.run(&bind).ok();
    for path in
        ["/api", "/apis", "/openapi/v2", "/metrics", "/livez/etcd", "/api/v1/nodes", "/api/v1/namespaces/default/pods"]
    {
        assert_eq!(anonymous(&server, path), "401", "{path}");
    }
    controller.kubectl.run(&["delete", "clusterrolebinding", "mistake"]).ok();
    // Only RBAC stands before this one.
    assert_ne!(anonymous(&server, "/api/v1/namespaces/kube-public/configmaps/cluster-info"), "401");
}

fn openssl(folder: &Path, args: &str) {
    run(Command::new("openssl").current_dir(folder).args(args.split(' ')), EXEC_LIMIT).ok();
}

/// The credentials of the kubelet of a node that is no node of this cluster, signed by its CA as a worker's would be.
fn other_kubelet(controller: &Controller, folder: &Path) -> Value {
    let tls = controller.cluster.assets.join("tls");
    let tls = tls.display();
    openssl(folder, "genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out other.key");
    openssl(folder, "req -new -key other.key -out other.csr -subj /O=system:nodes/CN=system:node:other");
    std::fs::write(folder.join("ext"), "extendedKeyUsage = clientAuth\n").unwrap();
    openssl(
        folder,
        &format!(
            "x509 -req -in other.csr -CA {tls}/ca.crt -CAkey {tls}/ca.key -CAserial serial -CAcreateserial -days 1 -extfile ext -out other.crt"
        ),
    );
    let file = |name: &str| folder.join(name).display().to_string();
    json!({"client-certificate": file("other.crt"), "client-key": file("other.key")})
}

fn another_nodes_kubelet_stays_within_its_own(controller: &Controller) {
    let folder = tempfile::tempdir().unwrap();
    let credentials = other_kubelet(controller, folder.path());
    let other = kubectl_of(controller, "other", &credentials, &api(controller));
    assert!(other.run(&["auth", "whoami"]).ok().contains("system:node:other"));
    let node = &controller.node.name;
    refused(&other, &["get", "secret", "-n", "kube-system", "kube-apiserver"], "Forbidden");
    refused(&other, &["get", "secrets", "-A"], "Forbidden");
    refused(&other, &["annotate", "node", node, "a=b"], "forbidden");
    refused(&other, &["label", "node", node, "a=b"], "forbidden");
    let labelled = json!({"apiVersion": "v1", "kind": "Node",
        "metadata": {"name": "other", "labels": {"node-role.kubernetes.io/control-plane": ""}}});
    let file = folder.path().join("node.json");
    std::fs::write(&file, labelled.to_string()).unwrap();
    refused(&other, &["create", "-f", &file.display().to_string()], "is not allowed to set the following labels");
    refused(&other, &["get", "secret", "-n", "kube-system", "hoist-guard"], "Forbidden");
    refused(&other, &["delete", "node", node], "forbidden");
    refused(&other, &["delete", "pods", "-n", "kube-system", "--all"], "forbidden");
    let approval =
        ["auth", "can-i", "update", "certificatesigningrequests.certificates.k8s.io", "--subresource=approval"];
    assert_eq!(other.run(&approval).expect(1).stdout.trim(), "no");
    // Nor does the kubelet of this node take orders from that one.
    let other = kubectl_of(controller, "other-kubelet", &credentials, &kubelet(controller));
    refused(&other, &["get", "--raw", "/pods"], "Forbidden");
}

/// Whoever sets the control plane's label hands out the keys of the cluster's CA.
fn a_controller_is_made_only_by_who_may(controller: &Controller) {
    let kubectl = &controller.kubectl;
    let label = "node-role.kubernetes.io/control-plane";
    let (set, taken) = (format!("{label}="), format!("{label}-"));
    let node = &controller.node.name;
    kubectl.run(&["create", "clusterrole", "labels", "--verb=get,list,patch,update", "--resource=nodes"]).ok();
    let account = "--serviceaccount=default:labels";
    kubectl.run(&["create", "serviceaccount", "labels", "-n", "default"]).ok();
    kubectl.run(&["create", "clusterrolebinding", "labels", "--clusterrole=labels", account]).ok();
    let other = controller.cluster.assets.with_extension("node.json");
    let object = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "other"}});
    std::fs::write(&other, object.to_string()).unwrap();
    let other = other.display().to_string();
    kubectl.run(&["create", "-f", &other]).ok();

    let who = "system:serviceaccount:default:labels";
    let as_account = |args: &[&str]| kubectl.run(&[args, &["--dry-run=server", "--as", who]].concat());
    eventually("the account may change Nodes", SOON, || {
        (as_account(&["label", "node", "other", "a=b"]).code == Some(0)).then_some(())
    });
    let refused = |args: &[&str]| {
        let ended = as_account(args);
        assert!(ended.code == Some(1) && ended.stderr.contains("only who has the verb make-controller"), "{ended}");
    };
    refused(&["label", "node", "other", &set]);
    refused(&["label", "node", node, &taken]);
    // By the Node's status, too.
    let patch = json!({"metadata": {"labels": {label: ""}}}).to_string();
    kubectl.run(&["create", "clusterrole", "status", "--verb=get,patch", "--resource=nodes/status"]).ok();
    kubectl.run(&["create", "clusterrolebinding", "status", "--clusterrole=status", account]).ok();
    let mut last = String::new();
    let is_refused = (0..60).any(|_| {
        let ended = as_account(&["patch", "node", "other", "--subresource=status", "-p", &patch]);
        std::thread::sleep(Duration::from_millis(500));
        last = ended.to_string();
        ended.code == Some(1) && ended.stderr.contains("only who has the verb make-controller")
    });
    assert!(is_refused, "{last}");

    kubectl.run(&["create", "clusterrole", "makes", "--verb=make-controller", "--resource=nodes"]).ok();
    kubectl.run(&["create", "clusterrolebinding", "makes", "--clusterrole=makes", account]).ok();
    eventually("an account with that verb may", SOON, || {
        (as_account(&["label", "node", "other", &set]).code == Some(0)).then_some(())
    });
    kubectl.run(&["delete", "node", "other"]).ok();
    kubectl.run(&["delete", "clusterrolebinding", "labels", "status", "makes"]).ok();
}

fn kubelets_answer_nobody_without_rights(controller: &Controller) {
    for path in ["/pods", "/metrics", "/configz"] {
        assert_eq!(anonymous(&kubelet(controller), path), "401", "{path}");
    }
    let read_only = SocketAddr::new(controller.cluster.address, 10255);
    let refusal = TcpStream::connect_timeout(&read_only, Duration::from_secs(5)).unwrap_err();
    assert_eq!(refusal.kind(), std::io::ErrorKind::ConnectionRefused);
}

fn pods_beyond_the_standard_are_warned_of(controller: &Controller) {
    let pod = json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "of-the-host", "namespace": "default"},
        "spec": {"hostNetwork": true, "containers": [{"name": "a", "image": "a"}]},
    });
    let path = controller.cluster.assets.with_extension("pod.json");
    std::fs::write(&path, pod.to_string()).unwrap();
    let file = path.display().to_string();
    // The service account of a namespace that is new may take a moment.
    let create = || {
        Some(controller.kubectl.run(&["create", "--dry-run=server", "-f", &file])).filter(|ended| ended.code == Some(0))
    };
    let made = eventually("pods may be made", SOON, create);
    made.says(&["would violate PodSecurity \"baseline:latest\""]);
}

// --- etcd ---

/// By which keys the Secrets in etcd are encrypted, each once.
#[track_caller]
fn writers(controller: &Controller) -> Vec<String> {
    let tls = controller.cluster.assets.join("tls");
    let tls = tls.display();
    let text = controller.node.sh(&format!(
        "etcdctl --endpoints https://127.0.0.1:2379 --cacert {tls}/etcd/ca.crt --cert {tls}/apiserver-etcd-client.crt \
         --key {tls}/apiserver-etcd-client.key get --prefix /registry/secrets/ -w json"
    ));
    let found: Value = serde_json::from_str(&text).unwrap();
    let decode = |value: &Value| base64::engine::general_purpose::STANDARD.decode(value.as_str().unwrap()).unwrap();
    let entries = found["kvs"].as_array().unwrap();
    assert!(entries.len() > 4, "{}", entries.len());
    let mut writers = Vec::new();
    for entry in entries {
        let (name, value) = (decode(&entry["key"]), decode(&entry["value"]));
        let beginning = String::from_utf8_lossy(&value[..value.len().min(40)]).into_owned();
        let fields: Vec<_> = beginning.split(':').take(5).collect();
        assert_eq!(fields[..2], ["k8s", "enc"], "{} is plain: {beginning:?}", String::from_utf8_lossy(&name));
        assert!(!String::from_utf8_lossy(&value).contains(WORD));
        let writer = format!("{}:", fields.join(":"));
        if !writers.contains(&writer) {
            writers.push(writer);
        }
    }
    writers
}

/// The Secret, as the API gives it.
#[track_caller]
fn assert_readable(controller: &Controller) {
    let secret = controller.kubectl.get(&["secret", "probe", "-n", "default"]);
    let word = base64::engine::general_purpose::STANDARD.decode(secret["data"]["word"].as_str().unwrap()).unwrap();
    assert_eq!(word, WORD.as_bytes());
}

/// An edit of tls/encryption.yaml, and what the page has behind each.
fn brought_in(controller: &Controller, edit: impl FnOnce(&str) -> String) {
    let Controller { node, cluster, kubectl } = controller;
    let path: PathBuf = cluster.assets.join("tls/encryption.yaml");
    let text = std::fs::read_to_string(&path).unwrap();
    let edited = edit(&text);
    assert_ne!(edited, text);
    std::fs::write(&path, edited).unwrap();
    // Until it is rendered, the bridge and the self-hosted one would not read each other's Secrets.
    let forgotten = cluster.started(node, &[]).expect(3);
    forgotten.says(&["the bridge could not read them", "hoist render"]);
    render(&declaration(node, cluster.address), &cluster.assets).ok();
    cluster.started(node, &[]).expect(0);
    kubectl.run(&["-n", "kube-system", "rollout", "restart", "daemonset/kube-apiserver"]).ok();
    controller.until_raised();
    files_are_roots_alone(node);
    assert_readable(controller);
    controller.rolled_out();
    controller.until_lowered();
    assert_readable(controller);
}

fn the_key_is_changed(controller: &Controller) {
    let key = base64::engine::general_purpose::STANDARD.encode([42; 32]);
    let (old, new) = (|text: &str| entry(text, "key1"), format!("      - name: key2\n        secret: {key}\n"));
    brought_in(controller, |text| text.replace(&old(text), &format!("{}{new}", old(text))));
    assert_eq!(writers(controller), ["k8s:enc:secretbox:v1:key1:"]);
    brought_in(controller, |text| text.replace(&new, "").replace(&old(text), &format!("{new}{}", old(text))));
    let program = controller.kubectl.program.display();
    let kubeconfig = controller.cluster.assets.join("auth/kubeconfig");
    let kubectl = format!("{program} --kubeconfig {}", kubeconfig.display());
    let line = format!("{kubectl} get secrets --all-namespaces -o json | {kubectl} replace -f -");
    run(Command::new("sh").args(["-euc", &line]), EXEC_LIMIT).ok();
    assert_eq!(writers(controller), ["k8s:enc:secretbox:v1:key2:"]);
    brought_in(controller, |text| text.replace(&old(text), ""));
    assert_eq!(writers(controller), ["k8s:enc:secretbox:v1:key2:"]);
}

/// The lines of a key in an EncryptionConfiguration of hoist's.
fn entry(text: &str, name: &str) -> String {
    let at = text.find(&format!("      - name: {name}\n")).unwrap();
    let lines: Vec<_> = text[at..].lines().take(2).collect();
    lines.join("\n") + "\n"
}

// --- the disk ---

fn files_are_roots_alone(node: &Node) {
    // A certificate of a CA, the kubelet's address and its unit are no secrets.
    node.sh("test -s /var/log/kubernetes/audit/bridge-kube-apiserver.log && test -d /var/lib/etcd/member");
    // The bridge's files go while they are looked at.
    let exposed = node.sh(
        "exec 2>/dev/null
         find /etc/kubernetes /var/lib/hoist/guard /var/lib/etcd /var/log/kubernetes /var/lib/kubelet/config.yaml -type f \
           ! -perm 0600 ! -path /etc/kubernetes/pki/ca.crt ! -path /etc/kubernetes/kubelet.env || true
         find -L /etc/kubernetes /var/lib/hoist /var/lib/etcd /var/log/kubernetes /var/lib/kubelet/config.yaml \
           /var/lib/kubelet/pki /etc/systemd/system/kubelet.service* ! -user root || true
         find /var/lib/etcd /etc/kubernetes/pki/etcd /var/log/kubernetes/audit /var/lib/hoist/guard -type d ! -perm 0700 || true",
    );
    assert_eq!(exposed, "", "not root's alone");
}

fn the_audit_log_names_the_secret_and_not_what_it_holds(controller: &Controller) {
    const LOG: &str = "/var/log/kubernetes/audit/kube-apiserver.log";
    let Controller { node, .. } = controller;
    assert_eq!(node.sh("ls /var/log/kubernetes/audit"), "bridge-kube-apiserver.log\nkube-apiserver.log\n");
    let encoded = base64::engine::general_purpose::STANDARD.encode(WORD);
    let told = node.exec(["grep", "-rlE", &format!("{WORD}|{encoded}"), "/var/log/kubernetes"]);
    assert_eq!((told.code, told.stdout.as_str()), (Some(1), ""), "what a Secret holds is in the audit log");
    let text = node.sh(&format!("grep '\"name\":\"probe\"' {LOG}"));
    let events: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let made = events.iter().find(|event| event["verb"] == "create" && event["objectRef"]["resource"] == "secrets");
    let made = made.unwrap_or_else(|| panic!("nobody made it: {text}"));
    assert_eq!((&made["level"], &made["user"]["username"]), (&json!("Metadata"), &json!("kubernetes-admin")));
    // A binding that was made is there in full, and nothing of what components do all the time.
    let mistake = node.sh(&format!("grep '\"name\":\"mistake\"' {LOG}"));
    assert!(mistake.contains("\"requestObject\"") && mistake.contains("system:unauthenticated"), "{mistake}");
    let noise = node.sh(&format!("grep '\"resource\":\"leases\"' {LOG} | grep -vc kubernetes-admin || true"));
    assert_eq!(noise.trim(), "0", "heartbeats");
}
