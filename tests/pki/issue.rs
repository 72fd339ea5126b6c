//! What is kept, what is issued anew, and why.

use hoist::base::error::Error;
use hoist::desired::config::VirtualAddress;
use hoist::desired::pki;

use crate::support::{
    Files, Folder, changed, cluster, controller, days, info, issue, issue_at, none, now, reasons, refused, refused_at,
};

#[test]
fn a_second_issue_changes_no_byte() {
    let first = issue(&cluster(), &Files::new());
    let second = issue_at(&cluster(), &first.files, now() + days(364));
    assert_eq!(first.files, second.files);
    assert!(second.issued.is_empty(), "{:?}", second.issued);
}

#[test]
fn a_new_controller_changes_what_it_must() {
    let mut cluster = cluster();
    let before = issue(&cluster, &Files::new());
    cluster.controllers.push(controller("c2", "192.0.2.2"));
    let after = issue(&cluster, &before.files);
    assert_eq!(
        changed(&before.files, &after.files),
        [
            "apiserver.crt",
            "etcd/c2/peer.crt",
            "etcd/c2/peer.key",
            "etcd/c2/server.crt",
            "etcd/c2/server.key",
            "kubelet/c2/client.crt",
            "kubelet/c2/client.key"
        ]
    );
    assert_eq!(
        reasons(&after),
        [
            ("apiserver.crt", "names were added: 192.0.2.2, c2"),
            ("kubelet/c2/client.key", "new"),
            ("kubelet/c2/client.crt", "new"),
            ("etcd/c2/server.key", "new"),
            ("etcd/c2/server.crt", "new"),
            ("etcd/c2/peer.key", "new"),
            ("etcd/c2/peer.crt", "new"),
        ]
    );

    cluster.controllers.pop();
    let removed = issue(&cluster, &after.files);
    assert_eq!(reasons(&removed), [("apiserver.crt", "names were removed: 192.0.2.2, c2")]);
    assert!(!removed.files.contains_key("etcd/c2/peer.crt"));
    cluster.api_server.cert_sans.push("*.example.com".into());
    assert_eq!(reasons(&issue(&cluster, &removed.files)), [("apiserver.crt", "a name was added: *.example.com")]);
}

#[test]
fn an_expired_leaf_is_issued_for_its_key() {
    let before = issue_at(&cluster(), &Files::new(), now() - days(366));
    let after = issue(&cluster(), &before.files);
    let changed = changed(&before.files, &after.files);
    assert_eq!(changed.len(), 12);
    assert!(changed.iter().all(|path| path.ends_with(".crt") && !path.ends_with("ca.crt")), "{changed:?}");
    let date = info(&before.files, "admin.crt").not_after.date();
    assert!(after.issued.iter().all(|i| i.reason == format!("expired {date}")), "{:?}", after.issued);
    let folder = Folder::of(&after.files);
    folder.openssl("verify -x509_strict -CAfile ca.crt -purpose sslclient admin.crt");
    assert_eq!(folder.openssl("x509 -in admin.crt -noout -pubkey"), folder.openssl("pkey -in admin.key -pubout"));
}

#[test]
fn a_lost_certificate_is_made_for_its_key() {
    let before = issue(&cluster(), &Files::new());
    let mut files = before.files.clone();
    files.retain(|path, _| !["ca.crt", "admin.crt", "sa.pub"].contains(&path.as_str()));
    let after = issue(&cluster(), &files);
    let reason = "new, for the key that was there";
    assert_eq!(reasons(&after), [("ca.crt", reason), ("admin.crt", reason), ("sa.pub", reason)]);
    assert_eq!(after.files["sa.pub"], before.files["sa.pub"]);
    // The old leaves verify with the new CA certificate: its name and key are the same.
    Folder::of(&after.files).openssl("verify -x509_strict -CAfile ca.crt apiserver.crt admin.crt");
}

#[test]
fn a_lost_key_is_replaced_with_its_certificate() {
    let mut files = issue(&cluster(), &Files::new()).files;
    files.remove("admin.key");
    assert_eq!(reasons(&issue(&cluster(), &files)), [("admin.key", "new"), ("admin.crt", "its key was missing")]);
}

#[test]
fn a_changed_ca_reissues_its_leaves() {
    let mut files = issue(&cluster(), &Files::new()).files;
    let other = issue(&cluster(), &Files::new()).files;
    // The same name, another key: only the signature tells.
    for path in ["front-proxy-ca.crt", "front-proxy-ca.key"] {
        files.insert(path.into(), other[path].clone());
    }
    let after = issue(&cluster(), &files);
    assert_eq!(reasons(&after), [("front-proxy-client.crt", "its issuer is no longer front-proxy-ca.crt")]);
    Folder::of(&after.files).openssl("verify -x509_strict -CAfile front-proxy-ca.crt front-proxy-client.crt");
}

#[test]
fn a_leaf_of_another_subject_or_usage_is_reissued() {
    let mut files = issue(&cluster(), &Files::new()).files;
    for kind in ["crt", "key"] {
        files.insert(format!("admin.{kind}"), files[&format!("kube-scheduler.{kind}")].clone());
        files.insert(format!("kube-scheduler.{kind}"), files[&format!("apiserver.{kind}")].clone());
    }
    assert_eq!(
        reasons(&issue(&cluster(), &files)),
        [
            ("kube-scheduler.crt", "its subject was CN=kube-apiserver"),
            ("admin.crt", "its subject was CN=system:kube-scheduler")
        ]
    );
    // The right subject, the wrong usage.
    let folder = Folder::of(&files);
    std::fs::write(folder.path().join("ext"), "extendedKeyUsage=serverAuth\n").unwrap();
    folder.openssl("req -new -key admin.key -subj /O=system:masters/CN=kubernetes-admin -out csr");
    folder.openssl("x509 -req -in csr -CA ca.crt -CAkey ca.key -days 9 -extfile ext -out admin.crt");
    files.insert("admin.crt".into(), folder.read("admin.crt"));
    assert_eq!(reasons(&issue(&cluster(), &files))[1], ("admin.crt", "its extended key usages were: serverAuth"));
}

#[test]
fn a_leaf_that_openssl_made_is_kept() {
    let mut files = issue(&cluster(), &Files::new()).files;
    let folder = Folder::of(&files);
    std::fs::write(folder.path().join("ext"), "extendedKeyUsage=clientAuth\n").unwrap();
    folder.openssl("genrsa -traditional -out admin.key 2048");
    folder.openssl("req -new -key admin.key -subj /O=system:masters/CN=kubernetes-admin -out csr");
    folder.openssl("x509 -req -in csr -CA ca.crt -CAkey ca.key -days 9 -extfile ext -out admin.crt");
    for path in ["admin.crt", "admin.key"] {
        files.insert(path.into(), folder.read(path));
    }
    assert_eq!(issue(&cluster(), &files).files, files);
}

#[test]
fn a_ca_key_may_be_kept_elsewhere() {
    let mut cluster = cluster();
    let mut files = issue(&cluster, &Files::new()).files;
    files.remove("ca.key");
    assert_eq!(issue(&cluster, &files).files, files);

    files.remove("admin.crt");
    cluster.controllers.push(controller("c2", "192.0.2.2"));
    let message = refused(&cluster, &files);
    assert!(
        message.contains(
            "tls/ca.key: is missing, and without it these cannot be issued: apiserver.crt (names were added: \
             192.0.2.2, c2), admin.crt (new, for the key that was there)"
        ),
        "{message}"
    );
}

#[test]
fn an_expired_ca_is_not_replaced() {
    let files = issue_at(&cluster(), &Files::new(), now() - days(3651)).files;
    let message = refused(&cluster(), &files);
    for ca in ["tls/ca.crt", "tls/front-proxy-ca.crt", "tls/etcd/ca.crt"] {
        assert!(message.contains(&format!("{ca}: expired ")), "{message}");
    }
    let message = refused_at(&cluster(), &files, now() - days(4000));
    assert!(message.contains("tls/ca.crt: is not valid before"), "{message}");
}

#[test]
fn everything_wrong_is_reported_at_once() {
    let mut files = issue(&cluster(), &Files::new()).files;
    files.insert("ca.crt".into(), b"nonsense".to_vec());
    let scheduler = files["kube-scheduler.key"].clone();
    files.insert("front-proxy-ca.key".into(), scheduler.clone());
    files.insert("etcd/c1/peer.key".into(), scheduler);
    let half = files["etcd/healthcheck-client.crt"].len() / 2;
    files.get_mut("etcd/healthcheck-client.crt").unwrap().truncate(half);
    files.remove("sa.key");
    let message = refused(&cluster(), &files);
    for finding in [
        "tls/ca.crt: is not a PEM file",
        "tls/front-proxy-ca.key: is not the key of tls/front-proxy-ca.crt",
        "tls/etcd/c1/peer.key: is not the key of tls/etcd/c1/peer.crt",
        "tls/etcd/healthcheck-client.crt: is not valid PEM: a block is cut off or malformed",
        "tls/sa.key: is missing, while tls/sa.pub is there",
    ] {
        assert!(message.contains(finding), "{finding}\n{message}");
    }
}

#[test]
fn a_public_key_must_belong_to_the_private_one() {
    let mut files = issue(&cluster(), &Files::new()).files;
    let other = issue(&cluster(), &Files::new()).files["sa.pub"].clone();
    // After a rotation the old one is kept beside the new one.
    files.get_mut("sa.pub").unwrap().extend_from_slice(&other);
    assert_eq!(issue(&cluster(), &files).files, files);
    files.insert("sa.pub".into(), other);
    let message = refused(&cluster(), &files);
    assert!(message.contains("tls/sa.pub: does not hold the public key of tls/sa.key"), "{message}");
}

#[test]
fn debug_output_shows_no_key() {
    let pki = issue(&cluster(), &Files::new());
    let shown = format!("{pki:?} {:?}", pki::UserFiles(pki.files.clone()));
    assert!(shown.contains("sa.key"));
    for (path, bytes) in &pki.files {
        let text = String::from_utf8_lossy(bytes);
        let line = text.lines().nth(1).unwrap();
        assert!(!shown.contains(line) && !shown.contains(&format!("{bytes:?}")[1..40]), "{path}");
    }
}

#[test]
fn a_user_file_that_was_not_read_is_never_made() {
    let mut cluster = cluster();
    cluster.pki.service_account_key = Some("/x/sa.key".into());
    let error = pki::issue(&cluster, &Files::new(), &none(), now()).unwrap_err();
    assert!(matches!(error, Error::Failed { .. }) && error.to_string().contains("/x/sa.key"), "{error}");
}

#[test]
fn inspect_says_what_a_certificate_says() {
    let files = issue(&cluster(), &Files::new()).files;
    let admin = info(&files, "admin.crt");
    assert_eq!((&*admin.subject, &*admin.issuer), ("O=system:masters, CN=kubernetes-admin", "CN=kubernetes"));
    assert!(!admin.is_ca && info(&files, "ca.crt").is_ca && admin.sans.is_empty());
    assert!(info(&files, "apiserver.crt").sans.contains(&"fd00:96::1".to_owned()));
    assert!(pki::inspect(b"").is_err() && pki::inspect(&files["admin.key"]).is_err());
}

/// What is made on a controller that a label made: pairs of its own, of the cluster's CAs, and no new CA.
#[test]
fn a_controller_makes_what_is_its_own_and_nothing_else() {
    let mut cluster = cluster();
    let address = "192.0.2.200".parse().unwrap();
    let virtual_address = VirtualAddress { address, interface: "eth0".into(), router_id: 200 };
    cluster.api_endpoint.virtual_address = Some(virtual_address);
    let tls = issue(&cluster, &Files::new()).files;
    assert!(info(&tls, "apiserver.crt").sans.contains(&"192.0.2.200".to_owned()));
    let new = controller("c9", "192.0.2.9");
    let own = pki::own(&cluster, &new, &tls, now()).unwrap();
    let paths: Vec<_> = own.keys().map(String::as_str).collect();
    assert_eq!(
        paths,
        [
            "apiserver/c9/apiserver.crt",
            "apiserver/c9/apiserver.key",
            "etcd/c9/peer.crt",
            "etcd/c9/peer.key",
            "etcd/c9/server.crt",
            "etcd/c9/server.key",
        ]
    );
    let sans = info(&own, "apiserver/c9/apiserver.crt").sans;
    for name in ["c9", "192.0.2.9", "192.0.2.200", "127.0.0.1", "kubernetes.default.svc"] {
        assert!(sans.iter().any(|san| san == name), "{name}: {sans:?}");
    }
    assert_ne!(own["apiserver/c9/apiserver.key"], tls["apiserver.key"], "a key that is nowhere else");
    let mut all = tls.clone();
    all.extend(own.clone());
    assert!(pki::own(&cluster, &new, &all, now()).unwrap() == own, "what is there stays");

    let mut keyless = tls;
    keyless.remove("etcd/ca.key");
    let Err(Error::Input(findings)) = pki::own(&cluster, &new, &keyless, now()) else { panic!("it was issued") };
    assert!(findings.iter().any(|finding| finding.to_string().contains("tls/etcd/ca.key")), "{findings:?}");
}
