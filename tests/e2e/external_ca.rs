//! A cluster whose CAs' keys are elsewhere: openssl signs what hoist asks for, and hoist never sees a CA's key.

use std::path::Path;
use std::process::Command;

use crate::serving::assert_serves_itself;
use crate::support::cluster::{Cluster, declaration, render};
use crate::support::command::run;
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
}

/// Signs every request below `tls`, as the holder of the CAs' keys does it.
fn sign_all(holder: &Path, tls: &Path) {
    let found = run(Command::new("find").arg(tls).args(["-name", "*.csr"]), EXEC_LIMIT).ok();
    assert_eq!(found.lines().count(), 12, "{found}");
    for csr in found.lines() {
        let stem = csr.strip_suffix(".csr").unwrap();
        let ca = match stem.strip_prefix(tls.to_str().unwrap()).unwrap() {
            "/front-proxy-client" => "front-proxy-ca",
            stem if stem.contains("etcd") => "etcd-ca",
            _ => "ca",
        };
        let options = "-days 30 -copy_extensions copyall";
        openssl(holder, &format!("x509 -req -in {csr} -CA {ca}.crt -CAkey {ca}.key -out {stem}.crt {options}"));
    }
}

fn openssl(dir: &Path, args: &str) {
    run(Command::new("openssl").args(args.split_whitespace()).current_dir(dir), EXEC_LIMIT).ok();
}
