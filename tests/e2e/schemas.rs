//! The tables of assets/schemas against an API server of the version that the test nodes run: what they refuse it refuses,
//! and what it takes they take.

use std::collections::BTreeSet;
use std::io::Write;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use hoist::base::yaml;
use hoist::desired::config::Version;
use hoist::desired::schema::{self, Reader};
use serde_json::Value;

use crate::support::{cache, repository};

/// The version of the nodes.
fn version() -> Version {
    let default = || hoist::desired::config::KUBERNETES_VERSION.to_owned();
    let named = std::env::var("HOIST_KUBERNETES").ok().filter(|version| !version.is_empty()).unwrap_or_else(default);
    let numbers: Vec<_> = named.trim_start_matches('v').split('.').map(|number| number.parse().unwrap()).collect();
    Version { major: numbers[0], minor: numbers[1], patch: numbers[2] }
}

fn programs() -> PathBuf {
    cache().join(format!("kubernetes/{}/bin", version()))
}

/// etcd and an API server, with nothing else in the cluster.
struct Server {
    processes: Vec<Child>,
    url: String,
    /// Where they have what they write.
    _dir: tempfile::TempDir,
}

impl Drop for Server {
    fn drop(&mut self) {
        for process in self.processes.iter_mut().rev() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn spawn(dir: &Path, program: &str, args: &[String]) -> Child {
    let log = std::fs::File::create(dir.join(format!("{program}.log"))).unwrap();
    let mut command = Command::new(programs().join(program));
    command.args(args).current_dir(dir).stdout(log.try_clone().unwrap()).stderr(log);
    command.spawn().expect("scripts/kubernetes builds it")
}

impl Server {
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let key = Command::new("openssl").args(["genrsa", "-out", "sa.key"]).current_dir(dir.path()).output().unwrap();
        assert!(key.status.success(), "{key:?}");
        std::fs::write(dir.path().join("tokens.csv"), "admin,admin,1,system:masters\n").unwrap();
        let (client, peer, secure) = (free_port(), free_port(), free_port());
        let url = |port| format!("http://127.0.0.1:{port}");
        let etcd = [
            "--data-dir=etcd".to_owned(),
            format!("--listen-client-urls={}", url(client)),
            format!("--advertise-client-urls={}", url(client)),
            format!("--listen-peer-urls={}", url(peer)),
            format!("--initial-advertise-peer-urls={}", url(peer)),
            format!("--initial-cluster=default={}", url(peer)),
            "--unsafe-no-fsync".to_owned(),
        ];
        let mut api = [
            "--cert-dir=certs",
            "--bind-address=127.0.0.1",
            "--service-account-key-file=sa.key",
            "--service-account-signing-key-file=sa.key",
            "--service-account-issuer=https://kubernetes.default.svc",
            "--token-auth-file=tokens.csv",
            "--disable-admission-plugins=ServiceAccount",
            // That of the golden cluster.
            "--service-cluster-ip-range=10.20.0.0/16,fd00:20::/112",
            "--allow-privileged=true",
            "--endpoint-reconciler-type=none",
        ]
        .map(str::to_owned)
        .to_vec();
        api.extend([format!("--etcd-servers={}", url(client)), format!("--secure-port={secure}")]);
        let processes = vec![spawn(dir.path(), "etcd", &etcd), spawn(dir.path(), "kube-apiserver", &api)];
        let server = Self { processes, url: format!("https://127.0.0.1:{secure}"), _dir: dir };
        let until = Instant::now() + Duration::from_secs(120);
        while !server.kubectl(&["get", "namespace", "kube-system"], "").status.success() {
            assert!(Instant::now() < until, "{:?}", server.kubectl(&["get", "--raw", "/readyz?verbose"], ""));
            std::thread::sleep(Duration::from_millis(500));
        }
        server
    }

    fn kubectl(&self, args: &[&str], input: &str) -> Output {
        let mut command = Command::new(programs().join("kubectl"));
        command.args(["--server", &self.url, "--token=admin", "--insecure-skip-tls-verify"]).args(args);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        child.wait_with_output().unwrap()
    }

    /// Why the API server refuses an object; `None` where it takes it.
    fn refuses(&self, object: &Value) -> Option<String> {
        // As hoist applies it: its own check of the fields is for warnings.
        let args = ["apply", "--server-side", "--dry-run=server", "--validate=ignore", "-f", "-"];
        let output = self.kubectl(&args, &object.to_string());
        (!output.status.success()).then(|| String::from_utf8_lossy(&output.stderr).into_owned())
    }
}

fn ours(object: &Value) -> Vec<String> {
    let found = schema::check(object, Some(version()), Reader::ApiServer);
    found.into_iter().map(|problem| format!("{}: {}", problem.path, problem.message)).collect()
}

/// The objects of a golden cluster, but for Secrets, which are not kept there as they are.
fn golden(folder: &Path) -> Vec<Value> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(golden(&path));
        } else if path.extension().is_some_and(|end| end == "yaml") && !path.ends_with("secret.yaml") {
            let text = std::fs::read_to_string(&path).unwrap();
            found.extend(yaml::documents("m", &text).unwrap().into_iter().map(|document| document.value));
        }
    }
    found
}

/// The value once for each field in it that is left out, and once for each map with a field that nobody knows; with
/// where that is, but for the numbers of items.
fn changed(path: &str, value: &Value) -> Vec<(String, Value)> {
    let mut found = Vec::new();
    match value {
        Value::Object(map) => {
            let with = |key: &str, inner: Option<Value>| {
                let mut map = map.clone();
                match inner {
                    Some(inner) => map.insert(key.to_owned(), inner),
                    None => map.shift_remove(key),
                };
                Value::Object(map)
            };
            found.push((format!("{path}.hoistTypo"), with("hoistTypo", Some(1.into()))));
            for (key, inner) in map {
                let path = format!("{path}.{key}");
                found.push((path.clone(), with(key, None)));
                found.extend(changed(&path, inner).into_iter().map(|(at, inner)| (at, with(key, Some(inner)))));
            }
        }
        Value::Array(list) => {
            for (i, inner) in list.iter().enumerate() {
                for (at, inner) in changed(&format!("{path}[]"), inner) {
                    let mut list = list.clone();
                    list[i] = inner;
                    found.push((at, Value::Array(list)));
                }
            }
            // Twice the same item.
            if let Some(first) = list.first() {
                let mut list = list.clone();
                list.push(first.clone());
                found.push((format!("{path}[twice]"), Value::Array(list)));
            }
        }
        Value::String(_) => found.push((format!("{path} = 1"), 1.into())),
        _ => found.push((format!("{path} = text"), "text".into())),
    }
    found
}

#[test]
fn schemas_refuse_what_the_api_server_refuses() {
    let server = Server::start();
    assert!(
        server
            .refuses(&serde_json::json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "dta": 1}))
            .is_some()
    );
    let objects = golden(&repository().join("tests/golden/full/manifests"));
    let namespaces: BTreeSet<_> = objects.iter().filter_map(|o| o.pointer("/metadata/namespace")?.as_str()).collect();
    // The API server makes these itself.
    for namespace in
        namespaces.into_iter().filter(|namespace| !["default", "kube-public", "kube-system"].contains(namespace))
    {
        let made = server.kubectl(&["create", "namespace", namespace], "");
        assert!(made.status.success(), "{made:?}");
    }
    let (mut asked, mut wrong) = (BTreeSet::new(), Vec::new());
    for object in &objects {
        let kind = object["kind"].as_str().unwrap_or_default().to_owned();
        assert_eq!(ours(object), [""; 0], "{kind}");
        if let Some(why) = server.refuses(object) {
            wrong.push(format!("{kind} {}: {why}", object["metadata"]["name"]));
        }
        for (at, changed) in changed(&kind, object) {
            let found = ours(&changed);
            // Which object it is says kubectl's own check.
            let names =
                [".metadata", ".metadata.name", ".kind", ".apiVersion"].iter().any(|end| at == format!("{kind}{end}"));
            if !found.is_empty() && !names && asked.insert(at.clone()) && server.refuses(&changed).is_none() {
                wrong.push(format!("{at}: the API server takes it: {found:?}"));
            }
        }
    }
    eprintln!("{} changes that the tables refuse, tried", asked.len());
    assert!(asked.len() > 300, "{}", asked.len());
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), asked.len(), wrong.join("\n"));
}
