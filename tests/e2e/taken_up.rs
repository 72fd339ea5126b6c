//! What a running etcd and API server take up of their files, and what they do not: the table that renewal and rotation build
//! on, with the programs themselves, of the version that HOIST_KUBERNETES names. They run on this machine, without a node.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::net::TcpListener;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use hoist::desired::{config, pki};
use tempfile::TempDir;
use time::OffsetDateTime;

use crate::support::command::run;
use crate::support::{cache, eventually};

/// How long what is taken up at once may take on a busy machine.
const AT_ONCE: Duration = Duration::from_secs(60);
/// Whatever is taken up after that is not taken up "at once", and for so long a test waits for what never comes.
const NEVER: Duration = Duration::from_secs(45);
/// The API server looks at its encryption configuration once a minute.
const POLLED: Duration = Duration::from_secs(100);
const LIMIT: Duration = Duration::from_secs(30);
const YEAR: Duration = Duration::from_secs(365 * 86400);

type Tls = BTreeMap<String, Vec<u8>>;

/// Both, until they are dropped.
struct Servers {
    dir: TempDir,
    tls: Tls,
    children: Vec<Child>,
    etcd: u16,
    api: u16,
}

impl Drop for Servers {
    fn drop(&mut self) {
        for child in &mut self.children {
            let _ = child.kill();
            let _ = child.wait();
        }
        if std::thread::panicking() {
            let log = fs::read_to_string(self.dir.path().join("kube-apiserver.log")).unwrap_or_default();
            eprintln!("{}", log.lines().rev().take(20).collect::<Vec<_>>().join("\n"));
        }
    }
}

fn issued() -> Tls {
    let text = "apiVersion: hoist/v1alpha1\nkind: Cluster\ncontrollers:\n- {name: c1, address: 192.0.2.10}\n";
    let cluster = config::parse("f", text, Path::new("/")).unwrap();
    pki::issue(&cluster, &Tls::new(), &Default::default(), OffsetDateTime::now_utc()).unwrap().files
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

impl Servers {
    fn up(version: &str) -> Self {
        let (dir, tls) = (TempDir::new().unwrap(), issued());
        let (etcd, peer, api) = (free_port(), free_port(), free_port());
        let mut servers = Self { dir, tls, children: Vec::new(), etcd, api };
        for (path, content) in servers.tls.clone() {
            servers.write(&path, &content);
        }
        // The API server serves with what a link leads to.
        servers.write("first.crt", &servers.tls["apiserver.crt"]);
        symlink("first.crt", servers.dir.path().join("served.crt")).unwrap();
        let bin = cache().join(format!("kubernetes/v{version}/bin"));
        let at = servers.dir.path().display().to_string();
        let [server, key] = ["crt", "key"].map(|end| format!("{at}/etcd/c1/server.{end}"));
        servers.spawn(
            &bin.join("etcd"),
            &format!(
                "--data-dir={at}/data --listen-client-urls=https://127.0.0.1:{etcd} --advertise-client-urls=https://127.0.0.1:{etcd} \
                 --listen-peer-urls=http://127.0.0.1:{peer} --initial-advertise-peer-urls=http://127.0.0.1:{peer} \
                 --initial-cluster=default=http://127.0.0.1:{peer} --cert-file={server} --key-file={key} --client-cert-auth \
                 --trusted-ca-file={at}/etcd/ca.crt"
            ),
        );
        servers.spawn(
            &bin.join("kube-apiserver"),
            &format!(
                "--etcd-servers=https://127.0.0.1:{etcd} --etcd-cafile={at}/etcd/ca.crt --etcd-certfile={at}/apiserver-etcd-client.crt \
                 --etcd-keyfile={at}/apiserver-etcd-client.key --secure-port={api} --bind-address=127.0.0.1 --cert-dir={at}/made \
                 --tls-cert-file={at}/served.crt --tls-private-key-file={at}/apiserver.key --client-ca-file={at}/ca.crt \
                 --service-account-issuer=https://kubernetes.default.svc --service-account-key-file={at}/sa.pub \
                 --service-account-signing-key-file={at}/sa.key --authorization-mode=AlwaysAllow --anonymous-auth=false \
                 --service-cluster-ip-range=10.96.0.0/16 --encryption-provider-config={at}/encryption.yaml \
                 --encryption-provider-config-automatic-reload --endpoint-reconciler-type=none"
            ),
        );
        eventually("the API server is ready", LIMIT * 4, || {
            (servers.asks(&["--cert", "admin.crt", "--key", "admin.key"], "/readyz").0 == "200").then_some(())
        });
        servers
    }

    fn spawn(&mut self, program: &Path, args: &str) {
        let name = program.file_name().unwrap().to_str().unwrap();
        let log = File::create(self.dir.path().join(format!("{name}.log"))).unwrap();
        let mut command = Command::new(program);
        command.args(args.split_whitespace()).stdout(log.try_clone().unwrap()).stderr(log);
        self.children.push(command.spawn().expect("scripts/kubernetes builds it"));
    }

    /// A file is replaced as hoist does it: by a rename.
    fn write(&self, path: &str, content: &[u8]) {
        let path = self.dir.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let beside = path.with_extension("new");
        fs::write(&beside, content).unwrap();
        fs::rename(beside, path).unwrap();
    }

    /// A certificate of tls/ renewed, and its serial number as openssl shows it.
    fn renewed(&self, stem: &str, ca: &str) -> (Vec<u8>, String) {
        let file = |path: String| &self.tls[&path];
        let (crt, key) = (file(format!("{ca}.crt")), file(format!("{ca}.key")));
        let new = pki::reissue(file(format!("{stem}.crt")), crt, key, YEAR, OffsetDateTime::now_utc()).unwrap();
        let serial = pki::inspect(&new).unwrap().serial.replace(':', "").to_uppercase();
        // In DER a zero stands before a number whose first bit is set.
        (new, serial.trim_start_matches('0').to_owned())
    }

    /// The serial number of what is served at a port now.
    fn serves(&self, port: u16) -> String {
        let show = format!(
            "openssl s_client -connect 127.0.0.1:{port} -cert etcd/healthcheck-client.crt -key etcd/healthcheck-client.key </dev/null 2>/dev/null | openssl x509 -noout -serial"
        );
        let ended = run(Command::new("sh").args(["-c", &show]).current_dir(self.dir.path()), LIMIT);
        ended.stdout.trim().trim_start_matches("serial=").trim_start_matches('0').to_owned()
    }

    /// The API server's answer: status and body.
    fn asks(&self, options: &[&str], path: &str) -> (String, String) {
        let url = format!("https://127.0.0.1:{}{path}", self.api);
        let mut command = Command::new("curl");
        command.args(["-s", "--max-time", "10", "--insecure", "-w", "\n%{http_code}"]).args(options).arg(url);
        let told = run(command.current_dir(self.dir.path()), LIMIT).stdout;
        let (body, status) = told.rsplit_once('\n').unwrap_or_default();
        (status.to_owned(), body.to_owned())
    }

    fn as_admin(&self, options: &[&str], path: &str) -> (String, String) {
        self.asks(&[&["--cert", "admin.crt", "--key", "admin.key"], options].concat(), path)
    }
}

#[test]
fn what_is_taken_up_without_a_restart() {
    let version = std::env::var("HOIST_KUBERNETES").ok().filter(|version| !version.is_empty());
    let version = version.unwrap_or_else(|| config::KUBERNETES_VERSION.trim_start_matches('v').to_owned());
    let servers = Servers::up(&version);
    let taken = |what: &str, limit: Duration, is_it: &dyn Fn() -> bool| {
        let begun = Instant::now();
        eventually(what, limit, || is_it().then_some(()));
        eprintln!("{version}: {what}: {:.1?}", begun.elapsed());
    };
    let never = |what: &str, is_it: &dyn Fn() -> bool| {
        std::thread::sleep(NEVER);
        assert!(!is_it(), "{version}: {what}: it was");
        eprintln!("{version}: {what}: not within {NEVER:?}");
    };

    let (crt, serial) = servers.renewed("etcd/c1/server", "etcd/ca");
    servers.write("etcd/c1/server.crt", &crt);
    taken("etcd's serving certificate", AT_ONCE, &|| servers.serves(servers.etcd) == serial);

    let (crt, serial) = servers.renewed("apiserver", "ca");
    servers.write("first.crt", &crt);
    taken("the API server's serving certificate", AT_ONCE, &|| servers.serves(servers.api) == serial);

    // The client CA: another one beside it.
    let other = issued();
    for file in ["admin.crt", "admin.key"] {
        servers.write(&format!("other/{file}"), &other[file]);
    }
    let by_other = || servers.asks(&["--cert", "other/admin.crt", "--key", "other/admin.key"], "/version").0;
    assert_eq!(by_other(), "401");
    let both = [&servers.tls["ca.crt"][..], &other["ca.crt"]].concat();
    servers.write("ca.crt", &both);
    taken("the API server's client CA", AT_ONCE, &|| by_other() == "200");

    // The service account key.
    let object = r#"{"apiVersion":"v1","kind":"ServiceAccount","metadata":{"name":"x"}}"#;
    let post = ["-H", "Content-Type: application/json", "-d"];
    let namespace = "/api/v1/namespaces/default";
    eventually("the namespace is there", LIMIT, || {
        (servers.as_admin(&[&post[..], &[object]].concat(), &format!("{namespace}/serviceaccounts")).0 == "201")
            .then_some(())
    });
    let asked = r#"{"apiVersion":"authentication.k8s.io/v1","kind":"TokenRequest","spec":{}}"#;
    let told = servers.as_admin(&[&post[..], &[asked]].concat(), &format!("{namespace}/serviceaccounts/x/token")).1;
    let told: serde_json::Value = serde_json::from_str(&told).unwrap();
    let token = format!("Authorization: Bearer {}", told["status"]["token"].as_str().unwrap());
    let by_token = || servers.asks(&["-H", &token], "/version").0;
    assert_eq!(by_token(), "200");
    servers.write("sa.pub", &other["sa.pub"]);

    // The encryption key.
    let text = String::from_utf8(servers.tls["encryption.yaml"].clone()).unwrap();
    let new = String::from_utf8(other["encryption.yaml"].clone()).unwrap().replace("key1", "key2");
    let key = |text: &str| text[text.find("      - name: ").unwrap()..].split("\n  - ").next().unwrap().to_owned();
    let two = text.replacen("      - name: key1", &format!("{}\n      - name: key1", key(&new).trim_end()), 1);
    servers.write("encryption.yaml", two.as_bytes());
    let number = std::cell::Cell::new(0);
    let is_new = || {
        number.set(number.get() + 1);
        let secret = format!(r#"{{"apiVersion":"v1","kind":"Secret","metadata":{{"name":"s{}"}}}}"#, number.get());
        servers.as_admin(&[&post[..], &[&secret]].concat(), &format!("{namespace}/secrets"));
        let bin = cache().join(format!("kubernetes/v{version}/bin/etcdctl"));
        let (endpoint, path) = (
            format!("--endpoints=https://127.0.0.1:{}", servers.etcd),
            format!("/registry/secrets/default/s{}", number.get()),
        );
        let mut command = Command::new(bin);
        command.args([
            &endpoint,
            "--cacert=etcd/ca.crt",
            "--cert=etcd/healthcheck-client.crt",
            "--key=etcd/healthcheck-client.key",
            "get",
            &path,
        ]);
        run(command.current_dir(servers.dir.path()), LIMIT).stdout.contains("secretbox:v1:key2:")
    };
    taken("the encryption configuration", POLLED, &is_new);
    never("a token of a service account key that is gone is refused without a restart", &|| by_token() != "200");

    // The traps: another link, whose old file stays; a hard link to the old file.
    let (crt, serial) = servers.renewed("apiserver", "ca");
    servers.write("second.crt", &crt);
    symlink("second.crt", servers.dir.path().join("served.new")).unwrap();
    fs::rename(servers.dir.path().join("served.new"), servers.dir.path().join("served.crt")).unwrap();
    fs::hard_link(servers.dir.path().join("ca.crt"), servers.dir.path().join("kept")).unwrap();
    servers.write("ca.crt", &servers.tls["ca.crt"]);
    std::thread::sleep(Duration::from_secs(20));
    let after_first = by_other();
    servers.write("ca.crt", &both);
    never("another link in its place, whose old file stays, is followed", &|| servers.serves(servers.api) == serial);
    let after_second = by_other();
    eprintln!("{version}: a client CA whose old file has a hard link: {after_first}, then {after_second}");
    assert_eq!((&*after_first, &*after_second), ("401", "401"), "the second change is not taken up");
}
