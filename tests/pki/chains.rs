//! What openssl says of every certificate.

use crate::support::{Files, Folder, cluster, controller, days, info, issue, issue_at, now};

/// Every leaf: its CA, its purposes.
const LEAVES: &[(&str, &str, &[&str])] = &[
    ("apiserver", "ca.crt", &["sslserver"]),
    ("apiserver-kubelet-client", "ca.crt", &["sslclient"]),
    ("kube-controller-manager", "ca.crt", &["sslclient"]),
    ("kube-scheduler", "ca.crt", &["sslclient"]),
    ("guard", "ca.crt", &["sslclient"]),
    ("admin", "ca.crt", &["sslclient"]),
    ("front-proxy-client", "front-proxy-ca.crt", &["sslclient"]),
    ("apiserver-etcd-client", "etcd/ca.crt", &["sslclient"]),
    ("etcd/healthcheck-client", "etcd/ca.crt", &["sslclient"]),
    ("etcd/c1/server", "etcd/ca.crt", &["sslserver", "sslclient"]),
    ("etcd/c1/peer", "etcd/ca.crt", &["sslserver", "sslclient"]),
    ("kubelet/c1/client", "ca.crt", &["sslclient"]),
];

/// Every leaf verifies for its purposes, strictly, and for no other; every key is its certificate's.
fn verify(files: &Files) -> Folder {
    let folder = Folder::of(files);
    for (leaf, ca, purposes) in LEAVES {
        for purpose in *purposes {
            folder.openssl(&format!("verify -x509_strict -CAfile {ca} -purpose {purpose} {leaf}.crt"));
        }
        assert_eq!(
            folder.openssl(&format!("x509 -in {leaf}.crt -noout -pubkey")),
            folder.openssl(&format!("pkey -in {leaf}.key -pubout")),
            "{leaf}"
        );
        let ekus: Vec<_> =
            purposes.iter().map(|p| if *p == "sslserver" { "serverAuth" } else { "clientAuth" }).collect();
        assert_eq!(info(files, &format!("{leaf}.crt")).ekus, ekus, "{leaf}");
    }
    folder
}

/// The text that openssl prints of some extension, one line, sorted at its commas.
fn extension(folder: &Folder, path: &str, name: &str) -> Vec<String> {
    let text = folder.openssl(&format!("x509 -in {path} -noout -ext {name}"));
    let mut values: Vec<_> = text.lines().skip(1).flat_map(|l| l.split(',')).map(|v| v.trim().to_owned()).collect();
    values.sort();
    values
}

#[test]
fn a_new_pki_verifies() {
    let pki = issue(&cluster(), &Files::new());
    assert_eq!(
        pki.files.keys().filter(|path| path.ends_with(".crt")).count(),
        LEAVES.len() + 3,
        "leaves and CAs: {:?}",
        pki.files.keys()
    );
    assert_eq!(pki.issued.len(), pki.files.len());
    assert_eq!(signing_certificate(&pki.files), pki.files["ca.crt"]);
    let folder = verify(&pki.files);

    for (ca, name) in [("ca", "kubernetes"), ("front-proxy-ca", "front-proxy-ca"), ("etcd/ca", "etcd-ca")] {
        folder.openssl(&format!("verify -x509_strict -CAfile {ca}.crt {ca}.crt"));
        let text = folder.openssl(&format!("x509 -in {ca}.crt -noout -text"));
        assert!(text.contains(&format!("Subject: CN = {name}\n")), "{text}");
        assert!(text.contains("Basic Constraints: critical\n                CA:TRUE, pathlen:0"), "{text}");
        assert!(
            text.contains("Key Usage: critical\n                Digital Signature, Certificate Sign, CRL Sign"),
            "{text}"
        );
        assert!(text.contains("ASN1 OID: prime256v1") && text.contains("ecdsa-with-SHA256"), "{text}");
        assert!(text.contains("Subject Key Identifier"), "{text}");
    }
    let text = folder.openssl("x509 -in admin.crt -noout -text");
    assert!(text.contains("Subject: O = system:masters, CN = kubernetes-admin\n"), "{text}");
    assert!(text.contains("Key Usage: critical\n                Digital Signature\n"), "{text}");
    assert!(text.contains("Basic Constraints: critical\n                CA:FALSE"), "{text}");
    assert!(text.contains("Subject Key Identifier") && text.contains("Authority Key Identifier"), "{text}");
    let text = folder.openssl("x509 -in apiserver-kubelet-client.crt -noout -subject");
    assert_eq!(text.trim(), "subject=CN = kube-apiserver-kubelet-client");

    // The service-account key signs what its public half verifies, in the forms that Kubernetes reads.
    assert!(pki.files["sa.key"].starts_with(b"-----BEGIN PRIVATE KEY-----\n"));
    assert!(pki.files["sa.pub"].starts_with(b"-----BEGIN PUBLIC KEY-----\n"));
    folder.openssl("dgst -sha256 -sign sa.key -out signature ca.crt");
    folder.openssl("dgst -sha256 -verify sa.pub -signature signature ca.crt");
}

#[test]
fn serial_numbers_are_random_and_positive() {
    let pki = issue(&cluster(), &Files::new());
    let serials: std::collections::BTreeSet<_> =
        pki.files.keys().filter(|path| path.ends_with(".crt")).map(|path| info(&pki.files, path).serial).collect();
    assert_eq!(serials.len(), LEAVES.len() + 3);
    let folder = Folder::of(&pki.files);
    let serial = folder.openssl("x509 -in admin.crt -noout -serial");
    assert!(!serial.contains('-') && serial.trim().len() > "serial=".len() + 24, "{serial}");
}

#[test]
fn names_are_what_the_cluster_asks_for() {
    let mut cluster = cluster();
    cluster.controllers.push(controller("c2", "2001:db8::2"));
    let pki = issue(&cluster, &Files::new());
    let folder = Folder::of(&pki.files);
    assert_eq!(
        extension(&folder, "apiserver.crt", "subjectAltName"),
        [
            "DNS:api.example.com",
            "DNS:c1",
            "DNS:c2",
            "DNS:kubernetes",
            "DNS:kubernetes.default",
            "DNS:kubernetes.default.svc",
            "DNS:kubernetes.default.svc.cluster.local",
            "DNS:localhost",
            "IP Address:0:0:0:0:0:0:0:1",
            "IP Address:10.96.0.1",
            "IP Address:127.0.0.1",
            "IP Address:192.0.2.1",
            "IP Address:2001:DB8:0:0:0:0:0:2",
            "IP Address:203.0.113.7",
            "IP Address:FD00:96:0:0:0:0:0:1",
        ]
    );
    for role in ["server", "peer"] {
        let path = format!("etcd/c2/{role}.crt");
        assert_eq!(
            extension(&folder, &path, "subjectAltName"),
            [
                "DNS:c2",
                "DNS:localhost",
                "IP Address:0:0:0:0:0:0:0:1",
                "IP Address:127.0.0.1",
                "IP Address:2001:DB8:0:0:0:0:0:2"
            ]
        );
        assert_eq!(
            extension(&folder, &path, "extendedKeyUsage"),
            ["TLS Web Client Authentication", "TLS Web Server Authentication"]
        );
    }
}

#[test]
fn lifetimes_are_the_clusters_and_never_beyond_the_ca() {
    let now = now().replace_nanosecond(0).unwrap();
    let mut cluster = cluster();
    let pki = issue_at(&cluster, &Files::new(), now);
    let folder = Folder::of(&pki.files);
    let (ca, leaf) = (info(&pki.files, "ca.crt"), info(&pki.files, "admin.crt"));
    assert_eq!((ca.not_before, ca.not_after), (now - time::Duration::minutes(5), now + days(3650)));
    assert_eq!((leaf.not_before, leaf.not_after), (now - time::Duration::minutes(5), now + days(365)));
    let seconds = days(365).whole_seconds();
    folder.openssl(&format!("x509 -in admin.crt -noout -checkend {}", seconds - 60));

    cluster.pki.certificate_validity *= 100;
    cluster.controllers.push(controller("c2", "192.0.2.2"));
    let later = issue_at(&cluster, &pki.files, now + days(1));
    assert_eq!(info(&later.files, "apiserver.crt").not_after, ca.not_after);
    assert_eq!(info(&later.files, "etcd/c2/peer.crt").not_after, ca.not_after);

    // A lifetime without end is cut where dates end.
    cluster.pki.ca_validity = std::time::Duration::MAX;
    let endless = issue_at(&cluster, &Files::new(), now);
    assert_eq!(info(&endless.files, "ca.crt").not_after.year(), 9999);
    verify(&endless.files);
}

#[test]
fn an_rsa_ca_in_pkcs1_signs() {
    let user = Folder::new();
    user.openssl("genrsa -traditional -out ca.key 2048");
    user.self_sign("ca", "/C=DE/O=Example/CN=Example");
    assert!(user.read("ca.key").starts_with(b"-----BEGIN RSA PRIVATE KEY-----"));
    let mut cluster = cluster();
    cluster.pki.ca = user.pair("ca.crt", "ca.key");
    cluster.pki.service_account_key = Some(user.name("ca.key"));
    let pki = issue(&cluster, &Files::new());
    assert_eq!(pki.files["ca.key"], user.read("ca.key"));
    assert_eq!(pki.files["ca.crt"], user.read("ca.crt"));
    let folder = verify(&pki.files);
    assert_eq!(folder.openssl("pkey -in ca.key -pubout").as_bytes(), pki.files["sa.pub"]);
    assert!(folder.openssl("x509 -in apiserver.crt -noout -text").contains("sha256WithRSAEncryption"));
    assert_eq!(issue(&cluster, &pki.files).files, pki.files);
}

#[test]
fn an_ec_ca_in_sec1_signs() {
    for curve in ["prime256v1", "secp384r1"] {
        let user = Folder::new();
        // Without -noout: the file begins with an EC PARAMETERS block.
        user.openssl(&format!("ecparam -genkey -name {curve} -out ca.key"));
        user.self_sign("ca", "/CN=Example");
        let text = String::from_utf8(user.read("ca.key")).unwrap();
        assert!(text.contains("BEGIN EC PARAMETERS") && text.contains("BEGIN EC PRIVATE KEY"), "{text}");
        let mut cluster = cluster();
        cluster.pki.etcd_ca = user.pair("ca.crt", "ca.key");
        cluster.pki.front_proxy_ca = user.pair("ca.crt", "ca.key");
        verify(&issue(&cluster, &Files::new()).files);
    }
}

#[test]
fn a_pkcs8_ca_of_any_kind_signs() {
    for algorithm in ["RSA -pkeyopt rsa_keygen_bits:2048", "EC -pkeyopt ec_paramgen_curve:P-384"] {
        let user = Folder::new();
        user.openssl(&format!("genpkey -algorithm {algorithm} -out ca.key"));
        user.self_sign("ca", "/CN=Example");
        let mut cluster = cluster();
        cluster.pki.ca = user.pair("ca.crt", "ca.key");
        verify(&issue(&cluster, &Files::new()).files);
    }
}

/// Every kind of key in every form, of a root and of an intermediate, for each of the three CAs.
#[test]
fn a_ca_of_every_kind_and_form_signs_alone_and_in_a_chain() {
    const EXTENSIONS: &str = "basicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign\nsubjectKeyIdentifier=hash\nauthorityKeyIdentifier=keyid\n";
    for (make, old_form) in [
        ("genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:2048", "RSA PRIVATE KEY"),
        ("genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:3072", "RSA PRIVATE KEY"),
        ("genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256", "EC PRIVATE KEY"),
        ("genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-384", "EC PRIVATE KEY"),
    ] {
        let user = Folder::new();
        user.openssl(&format!("{make} -out ca.key"));
        user.openssl("pkey -in ca.key -traditional -out old.key");
        assert!(String::from_utf8(user.read("old.key")).unwrap().starts_with(&format!("-----BEGIN {old_form}-----")));
        user.self_sign("ca", "/O=Example/CN=Example");
        user.openssl("genrsa -out root.key 2048");
        user.self_sign("root", "/CN=root");
        std::fs::write(user.path().join("ext"), EXTENSIONS).unwrap();
        user.openssl("req -new -key ca.key -subj /O=Example/CN=middle -out middle.csr");
        user.openssl("x509 -req -in middle.csr -CA root.crt -CAkey root.key -CAcreateserial -days 2000 -extfile ext -out middle.crt");
        // As openssl and a Windows machine leave it: with what it says in front, and their ends of lines.
        let text = user.openssl("x509 -in middle.crt -text") + std::str::from_utf8(&user.read("root.crt")).unwrap();
        std::fs::write(user.path().join("chain.crt"), text.replace('\n', "\r\n")).unwrap();
        for certificate in ["ca.crt", "chain.crt"] {
            for key in ["ca.key", "old.key"] {
                let mut cluster = cluster();
                cluster.pki.ca = user.pair(certificate, key);
                cluster.pki.etcd_ca = user.pair(certificate, key);
                cluster.pki.front_proxy_ca = user.pair(certificate, key);
                let pki = issue(&cluster, &Files::new());
                // Once for each certificate: that the forms of a key are one key is asserted below.
                if key == "old.key" {
                    verify(&pki.files);
                }
                // All as it was, but for the ends of lines.
                let unix = String::from_utf8(user.read(certificate)).unwrap().replace("\r\n", "\n");
                assert!(pki.files["ca.key"] == user.read(key) && pki.files["etcd/ca.crt"] == unix.as_bytes());
                assert_eq!(issue(&cluster, &pki.files).issued, [], "{make} {certificate} {key}");
            }
        }
    }
}

#[test]
fn an_intermediate_ca_signs_and_servers_send_it() {
    let user = Folder::new();
    for key in ["root", "middle", "ca"] {
        user.openssl(&format!("genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out {key}.key"));
    }
    user.self_sign("root", "/CN=root");
    std::fs::write(
        user.path().join("ext"),
        "basicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign\n\
        subjectKeyIdentifier=hash\nauthorityKeyIdentifier=keyid\n",
    )
    .unwrap();
    for (issuer, name) in [("root", "middle"), ("middle", "ca")] {
        user.openssl(&format!("req -new -key {name}.key -subj /CN={name} -out {name}.csr"));
        user.openssl(&format!(
            "x509 -req -in {name}.csr -CA {issuer}.crt -CAkey {issuer}.key -CAcreateserial -days 2000 -extfile ext -out {name}.crt"
        ));
    }
    // In any order behind the issuer, the root among them.
    let bundle = [user.read("ca.crt"), user.read("root.crt"), user.read("middle.crt")].concat();
    std::fs::write(user.path().join("bundle.crt"), bundle).unwrap();
    let mut cluster = cluster();
    cluster.pki.ca = user.pair("bundle.crt", "ca.key");
    cluster.pki.etcd_ca = user.pair("bundle.crt", "ca.key");

    let pki = issue(&cluster, &Files::new());
    let folder = verify(&pki.files);
    assert_eq!(pki.files["ca.crt"], user.read("bundle.crt"));
    assert_eq!(signing_certificate(&pki.files), user.read("ca.crt"));
    let intermediates = [user.read("ca.crt"), user.read("middle.crt")].concat();
    for served in ["apiserver.crt", "etcd/c1/server.crt", "etcd/c1/peer.crt"] {
        let sent = &pki.files[served];
        assert!(sent.ends_with(&intermediates), "{}", String::from_utf8_lossy(sent));
        // A client that knows the root alone finds its way with what the server sends.
        let root = user.name("root.crt");
        folder.openssl(&format!("verify -x509_strict -CAfile {root} -untrusted {served} -purpose sslserver {served}"));
    }
    assert_eq!(pki.files["admin.crt"].windows(10).filter(|w| w == b"-----BEGIN").count(), 1);
    assert_eq!(issue(&cluster, &pki.files).files, pki.files);
}

/// What the controller manager signs with: one certificate, whatever stands around it.
fn signing_certificate(tls: &Files) -> Vec<u8> {
    let of = hoist::desired::secrets::of_component(
        "kube-controller-manager",
        &cluster(),
        tls,
        hoist::desired::secrets::Server::SelfHosted,
    );
    of.unwrap().remove("signing-ca.crt").unwrap()
}
