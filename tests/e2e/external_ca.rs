//! A cluster whose CAs' keys are elsewhere: openssl signs what hoist asks for, and hoist never sees a CA's key.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::serving::assert_serves_itself;
use crate::support::cluster::{Cluster, declaration, render};
use crate::support::command::run;
use crate::support::controller::{Controller, LATER};
use crate::support::eventually;
use crate::support::node::{EXEC_LIMIT, Node};

const CAS: [(&str, &str); 3] = [("ca", "ca"), ("etcdCA", "etcd-ca"), ("frontProxyCA", "front-proxy-ca")];

#[test]
fn external_ca() {
    let node = Node::up("external-ca");
    let cluster = Cluster::to_render(&node, node.address);
    let holder = tempfile::tempdir().unwrap();
    let mut declaration = declaration(&node, node.address) + "pki:\n";
    for (field, ca) in CAS {
        let at = holder.path().display();
        openssl(holder.path(), &format!("genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:2048 -out {ca}.key"));
        openssl(
            holder.path(),
            &format!("req -x509 -new -key {ca}.key -out {ca}.crt -days 30 -subj /O=Example/CN={ca}"),
        );
        declaration.push_str(&format!("  {field}: {{certificate: {at}/{ca}.crt}}\n"));
    }

    let asked = render(&declaration, &cluster.assets);
    eprintln!("{asked}");
    asked.expect(9);
    node.exec(cluster.start_command(&[])).expect(3);
    sign_all(holder.path(), &cluster.assets.join("tls"));
    render(&declaration, &cluster.assets).ok();
    let keys = run(Command::new("find").arg(&cluster.assets).args(["-name", "*ca.key"]), EXEC_LIMIT).ok();
    assert_eq!(keys, "", "no key of a CA");

    cluster.started(&node, &[]).expect(0);
    assert_serves_itself(&node, &cluster);
    // The kubelet came in by the certificate of the CA, and asked for no other.
    let kubectl = cluster.kubectl();
    assert_eq!(kubectl.list(&["certificatesigningrequests"]).len(), 0);
    let issuer = node.sh("openssl x509 -noout -issuer -subject -in /var/lib/kubelet/pki/kubelet-client-current.pem");
    assert_eq!(
        issuer,
        format!("issuer=O = Example, CN = ca\nsubject=O = system:nodes, CN = system:node:{}\n", node.name)
    );
    // After a power cut, too.
    node.power_cut();
    node.boot();
    cluster.started(&node, &[]).expect(0);
    assert_serves_itself(&node, &cluster);
    let controller = Controller { kubectl: cluster.kubectl(), node, cluster };
    guard_asks(&controller, holder.path());
}

/// Where guard asks for what is due.
const REQUESTS: &str = "/var/lib/hoist/guard/requests";
/// What it asks for, below that; the kubelet's, too.
const ASKED: [&str; 11] = [
    "admin",
    "apiserver",
    "apiserver-etcd-client",
    "apiserver-kubelet-client",
    "etcd/healthcheck-client",
    "etcd/NODE/peer",
    "etcd/NODE/server",
    "front-proxy-client",
    "guard",
    "kube-controller-manager",
    "kube-scheduler",
];

/// guard writes requests for what ends, says so, and takes what was signed; no request of clients fails.
fn guard_asks(controller: &Controller, holder: &Path) {
    let node = &controller.node;
    let traffic = controller.traffic();
    let wanted: BTreeSet<_> = ASKED.iter().map(|stem| stem.replace("NODE", &node.name)).collect();
    let requests = || -> BTreeSet<String> {
        let found = node.sh(&format!("cd {REQUESTS} 2>/dev/null && find . -name '*.csr' || true"));
        let stem = |line: &str| line.strip_prefix("./")?.strip_suffix(".csr").map(str::to_owned);
        found.lines().filter_map(stem).filter(|stem| !stem.starts_with("kubelet/")).collect()
    };
    eventually("guard asks for what is due", LATER, || (requests() == wanted).then_some(()));
    let events = |reason: &str| {
        let field = format!("reason={reason}");
        controller.kubectl.run(&["get", "events", "-A", "--field-selector", &field]).stdout
    };
    eventually("an event says what waits", LATER, || {
        let said = events("CertificatesAwaitTheirCA");
        (said.contains("etcd-server") && said.contains(REQUESTS)).then_some(())
    });
    eventually("the metric says until when", LATER, || {
        let metrics = controller.metrics()?;
        metrics.contains_key("certificate_awaited_expiry_seconds{name=\"front-proxy-client\"}").then_some(())
    });
    let status = controller.cluster.command("status", &[]);
    let said = node.exec(&status).stdout;
    let line = said.lines().find(|line| line.contains("wait for a CA whose key is elsewhere, until "));
    assert!(line.is_some_and(|line| line.contains("apiserver-etcd-client") && line.contains(REQUESTS)), "{said}");

    // One is signed by the wrong CA, at first.
    let work = tempfile::tempdir().unwrap();
    let copied = |stem: &str, ca: &str| {
        let csr = work.path().join("asked.csr");
        std::fs::write(&csr, node.sh(&format!("cat {REQUESTS}/{stem}.csr"))).unwrap();
        let crt = work.path().join("signed.crt");
        let options = "-days 30 -copy_extensions copyall";
        openssl(
            holder,
            &format!("x509 -req -in {} -CA {ca}.crt -CAkey {ca}.key -out {} {options}", csr.display(), crt.display()),
        );
        let pem = std::fs::read_to_string(crt).unwrap();
        node.sh(&format!(
            "cat > {REQUESTS}/{stem}.crt.new <<'END'\n{pem}END\nmv {REQUESTS}/{stem}.crt.new {REQUESTS}/{stem}.crt"
        ));
    };
    copied("guard", "front-proxy-ca");
    eventually("an event says why a certificate is not taken", LATER, || {
        let said = events("CertificateNotTaken");
        said.contains(&format!("{REQUESTS}/guard.crt: it was not issued by tls/ca.crt")).then_some(())
    });
    let serves =
        || node.sh("echo | openssl s_client -connect 127.0.0.1:6443 2>/dev/null | openssl x509 -noout -enddate");
    let before = serves();
    for stem in &wanted {
        copied(stem, ca_of(stem));
    }
    eventually("what was signed is taken, and no request is left", LATER, || requests().is_empty().then_some(()));
    eventually("an event says that it is served", LATER * 2, || {
        let said = events("CertificatesRenewed");
        ["apiserver", "etcd-peer", "etcd-server", "guard"].iter().all(|name| said.contains(name)).then_some(())
    });
    assert_ne!(serves(), before);
    std::thread::sleep(Duration::from_secs(5));
    let record = traffic.end().unwrap();
    eprintln!("{}", record.summary());
    assert_eq!(record.failures().count(), 0, "{record}");
}

/// Which of the three signs it.
fn ca_of(stem: &str) -> &'static str {
    match stem {
        "front-proxy-client" => "front-proxy-ca",
        stem if stem.contains("etcd") => "etcd-ca",
        _ => "ca",
    }
}

/// Signs every request below `tls`, as the holder of the CAs' keys does it: for two days that are nearly over.
fn sign_all(holder: &Path, tls: &Path) {
    let found = run(Command::new("find").arg(tls).args(["-name", "*.csr"]), EXEC_LIMIT).ok();
    assert_eq!(found.lines().count(), 12, "{found}");
    let config = "[ca]\ndefault_ca=d\n[d]\ndatabase=index.txt\nrand_serial=yes\nnew_certs_dir=.\ndefault_md=sha256\n\
        policy=p\ncopy_extensions=copyall\nunique_subject=no\n[p]\norganizationName=optional\ncommonName=supplied\n";
    std::fs::write(holder.join("ca.cnf"), config).unwrap();
    std::fs::write(holder.join("index.txt"), "").unwrap();
    let date = |when: &str| run(Command::new("date").args(["-u", "+%Y%m%d%H%M%SZ", "-d", when]), EXEC_LIMIT).ok();
    let (begins, ends) = (date("2 days ago"), date("6 hours"));
    for csr in found.lines() {
        let stem = csr.strip_suffix(".csr").unwrap();
        let ca = ca_of(stem.strip_prefix(tls.to_str().unwrap()).unwrap().trim_start_matches('/'));
        openssl(
            holder,
            &format!(
                "ca -batch -notext -preserveDN -config ca.cnf -cert {ca}.crt -keyfile {ca}.key -in {csr} -out {stem}.crt -startdate {} -enddate {}",
                begins.trim(),
                ends.trim()
            ),
        );
    }
}

fn openssl(dir: &Path, args: &str) {
    run(Command::new("openssl").args(args.split_whitespace()).current_dir(dir), EXEC_LIMIT).ok();
}
