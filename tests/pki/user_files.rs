//! CAs and keys of the user's, and an external etcd.

use hoist::desired::config::Etcd;
use hoist::desired::pki;

use crate::support::{Files, Folder, changed, cluster, days, issue, issue_at, now, reasons, refused};

/// A folder with a CA and a service-account key of the user's.
fn user() -> Folder {
    let user = Folder::new();
    for key in ["ca", "other", "sa"] {
        user.openssl(&format!("genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out {key}.key"));
    }
    user.self_sign("ca", "/CN=kubernetes");
    user.self_sign("other", "/CN=kubernetes");
    user
}

#[test]
fn files_that_cannot_be_read_are_all_named() {
    let user = user();
    let mut cluster = cluster();
    cluster.pki.ca = user.pair("ca.crt", "none.key");
    cluster.pki.service_account_key = Some(user.name("none.sa"));
    let message = pki::read_user_files(&cluster).unwrap_err().to_string();
    for (field, name) in [("pki.ca.key", "none.key"), ("pki.serviceAccountKey", "none.sa")] {
        assert!(message.contains(&format!("{}: there is no such file", user.name(name))), "{message}");
        assert!(message.contains(&format!("{field} names it")), "{message}");
    }
    assert!(!message.contains("ca.crt"), "{message}");
}

#[test]
fn a_users_files_are_copied_and_then_stay() {
    let user = user();
    let mut named = cluster();
    named.pki.ca = user.pair("ca.crt", "ca.key");
    named.pki.service_account_key = Some(user.name("sa.key"));
    let pki = issue(&named, &Files::new());
    let reason = format!("copied from {}", user.name("ca.crt"));
    assert!(reasons(&pki).contains(&("ca.crt", &reason)), "{:?}", pki.issued);
    assert_eq!(pki.files["sa.key"], user.read("sa.key"));
    // cluster.yaml need not name them any longer.
    assert_eq!(issue(&cluster(), &pki.files).files, pki.files);
    // The same key and certificate with a comment are no other.
    std::fs::write(user.path().join("ca.crt"), [b"# ours\n", &*user.read("ca.crt")].concat()).unwrap();
    assert_eq!(issue(&named, &pki.files).files, pki.files);
}

#[test]
fn a_users_ca_never_replaces_the_one_that_stands() {
    let user = user();
    let mut cluster = cluster();
    let files = issue(&cluster, &Files::new()).files;
    cluster.pki.ca = user.pair("ca.crt", "ca.key");
    let message = refused(&cluster, &files);
    for name in ["ca.crt", "ca.key"] {
        let finding = format!("{}: differs from tls/{name}", user.name(name));
        assert!(message.contains(&finding), "{message}");
    }
}

#[test]
fn a_ca_key_kept_elsewhere_comes_from_the_user() {
    let user = user();
    let mut cluster = cluster();
    cluster.pki.ca = user.pair("ca.crt", "ca.key");
    let mut files = issue(&cluster, &Files::new()).files;
    files.retain(|path, _| path != "ca.key" && path != "admin.crt");
    let pki = issue(&cluster, &files);
    assert_eq!(changed(&files, &pki.files), ["admin.crt", "ca.key"]);
}

/// What is said of a CA certificate and key that cannot be used.
fn complaint(user: &Folder, certificate: &str, key: &str) -> String {
    let mut cluster = cluster();
    cluster.pki.ca = user.pair(certificate, key);
    refused(&cluster, &Files::new())
}

#[test]
fn a_ca_that_cannot_be_used_is_explained() {
    let user = user();
    let says = |certificate: &str, key: &str, text: &str| {
        let message = complaint(&user, certificate, key);
        assert!(message.contains(text), "{message}");
        assert!(message.contains(&user.name("")), "{message}");
    };
    says("ca.crt", "other.key", "other.key: is not the key of");
    says("ca.key", "ca.key", "holds a PRIVATE KEY, where only certificates may be");
    says("ca.crt", "ca.crt", "holds no private key");

    user.openssl("pkey -in ca.key -aes256 -passout pass:secret -out encrypted.key");
    says("ca.crt", "encrypted.key", "is an encrypted key");
    user.openssl("ec -in ca.key -aes256 -passout pass:secret -out legacy.key");
    says("ca.crt", "legacy.key", "is an encrypted key");

    user.openssl("genrsa -out rsa.key 2048");
    user.self_sign("rsa", "/CN=rsa");
    user.openssl("rsa -in rsa.key -traditional -aes256 -passout pass:secret -out legacy.key");
    says("rsa.crt", "legacy.key", "decrypt it: openssl pkey -in ");
    user.openssl("pkey -in rsa.key -outform DER -out der.key");
    says("rsa.crt", "der.key", "is not a PEM file");
    user.openssl("genrsa -out small.key 1024");
    user.self_sign("small", "/CN=small");
    says("small.crt", "small.key", "is not a key that hoist can use: RSA of 2048 to 4096 bits");
    user.openssl("genpkey -algorithm RSA-PSS -pkeyopt rsa_keygen_bits:2048 -out pss.key");
    user.self_sign("pss", "/CN=pss");
    says("pss.crt", "pss.key", "is not a key that hoist can use");

    user.openssl("genpkey -algorithm ED25519 -out ed.key");
    user.self_sign("ed", "/CN=ed");
    says("ed.crt", "ed.key", "is not a key that hoist can use");
    user.openssl("ecparam -genkey -noout -name secp521r1 -out p521.key");
    user.self_sign("p521", "/CN=p521");
    says("p521.crt", "p521.key", "is not a key that hoist can use");
    user.openssl("ec -in ca.key -no_public -out bare.key");
    says("ca.crt", "bare.key", "write it anew: openssl pkey");

    user.openssl("req -x509 -new -key ca.key -out leaf.crt -subj /CN=leaf -addext basicConstraints=CA:FALSE");
    says("leaf.crt", "ca.key", "is not a CA");
    user.openssl("req -x509 -new -key ca.key -out usage.crt -subj /CN=usage -addext keyUsage=digitalSignature");
    says("usage.crt", "ca.key", "is not a CA");
}

/// An external etcd with files of the user's: `ca.crt`, `client.crt`, `client.key`.
fn external(user: &Folder) -> Etcd {
    Etcd::External {
        endpoints: vec!["https://etcd.example.com:2379".into()],
        ca_file: user.name("ca.crt"),
        cert_file: user.name("client.crt"),
        key_file: user.name("client.key"),
    }
}

fn client_certificate(user: &Folder, days: u32) {
    user.openssl("req -new -key client.key -subj /CN=client -out client.csr");
    user.openssl(&format!("x509 -req -in client.csr -CA ca.crt -CAkey ca.key -days {days} -out client.crt"));
}

#[test]
fn an_external_etcd_brings_its_files() {
    let user = user();
    // Go reads kinds of key that hoist cannot sign with: they are copied all the same.
    user.openssl("genpkey -algorithm ED25519 -out client.key");
    client_certificate(&user, 10);
    let mut cluster = cluster();
    cluster.etcd = external(&user);
    let pki = issue(&cluster, &Files::new());
    let of_etcd: Vec<_> = pki.files.keys().filter(|path| path.contains("etcd")).collect();
    assert_eq!(of_etcd, ["apiserver-etcd-client.crt", "apiserver-etcd-client.key", "etcd/ca.crt"]);
    assert_eq!(pki.files["apiserver-etcd-client.key"], user.read("client.key"));
    assert_eq!(pki.files["etcd/ca.crt"], user.read("ca.crt"));
    assert_eq!(issue(&cluster, &pki.files).files, pki.files);

    // The user renews the certificate of the same key.
    client_certificate(&user, 20);
    let renewed = issue(&cluster, &pki.files);
    assert_eq!(changed(&pki.files, &renewed.files), ["apiserver-etcd-client.crt"]);
    let result = pki::issue(&cluster, &pki.files, &pki::read_user_files(&cluster).unwrap(), now() + days(25));
    assert!(result.unwrap_err().to_string().contains("client.crt: expired"));
}

#[test]
fn an_external_etcds_files_must_fit() {
    let user = user();
    user.openssl("genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out client.key");
    client_certificate(&user, 10);
    std::fs::copy(user.path().join("other.key"), user.path().join("client.key")).unwrap();
    let mut cluster = cluster();
    cluster.etcd = external(&user);
    let message = refused(&cluster, &Files::new());
    assert!(message.contains("client.key: is not the key of") && message.contains("client.crt"), "{message}");

    // From a local etcd to an external one: hoist's own CA and key are not overwritten.
    client_certificate(&user, 10);
    let local = issue_at(&crate::support::cluster(), &Files::new(), now()).files;
    let message = refused(&cluster, &local);
    assert!(message.contains("differs from tls/etcd/ca.crt"), "{message}");
    assert!(message.contains("differs from tls/apiserver-etcd-client.key"), "{message}");
}

/// A CA whose subject has several attributes of one type, as a Windows domain's has: its leaves name it byte by byte.
#[test]
fn a_ca_of_a_domain_issues() {
    for (algorithm, subject) in [
        ("EC -pkeyopt ec_paramgen_curve:P-384", "/DC=com/DC=example/OU=a/OU=b/CN=ca"),
        ("RSA -pkeyopt rsa_keygen_bits:2048", "/DC=com/DC=example/CN=ca+OU=b"),
    ] {
        let user = Folder::new();
        user.openssl(&format!("genpkey -algorithm {algorithm} -out ca.key"));
        user.self_sign("ca", &format!("{subject} -multivalue-rdn"));
        let mut named = cluster();
        named.pki.ca = user.pair("ca.crt", "ca.key");
        named.pki.etcd_ca = user.pair("ca.crt", "ca.key");
        let pki = issue(&named, &Files::new());
        let folder = Folder::of(&pki.files);
        let issuer = folder.openssl("x509 -in ca.crt -noout -subject -nameopt RFC2253").replace("subject=", "issuer=");
        for (leaf, purpose) in [("apiserver", "sslserver"), ("admin", "sslclient"), ("etcd/c1/peer", "sslserver")] {
            let ca = if leaf.starts_with("etcd") { "etcd/ca.crt" } else { "ca.crt" };
            folder.openssl(&format!("verify -CAfile {ca} -purpose {purpose} {leaf}.crt"));
            assert_eq!(
                folder.openssl(&format!("x509 -in {leaf}.crt -noout -issuer -nameopt RFC2253")),
                issuer,
                "{leaf}"
            );
        }
        let text = folder.openssl("x509 -in admin.crt -noout -text");
        assert!(text.contains("DC = com, DC = example") && text.contains("Authority Key Identifier"), "{text}");
        assert_eq!(issue(&named, &pki.files).files, pki.files, "the second time, nothing is issued");
    }
}

/// Clients refuse a certificate of which one name may not be signed by its CA. It is said once for each CA.
#[test]
fn a_ca_that_may_not_sign_what_it_is_to_sign() {
    let user = Folder::new();
    user.openssl("genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out ca.key");
    let with = |constraints: &str| {
        user.openssl(&format!("req -x509 -new -key ca.key -out ca.crt -days 3650 -subj /CN=a -addext keyUsage=critical,keyCertSign -addext nameConstraints={constraints}"));
        let mut named = cluster();
        named.pki.ca = user.pair("ca.crt", "ca.key");
        named
    };
    let place = user.name("ca.crt");
    for (constraints, excluded) in [
        (
            "critical,permitted;DNS:example.com",
            "c1, kubernetes, kubernetes.default, kubernetes.default.svc, kubernetes.default.svc.cluster.local, localhost",
        ),
        (
            "permitted;IP:192.0.2.0/255.255.255.0,permitted;IP:127.0.0.0/255.0.0.0",
            "10.96.0.1, 203.0.113.7, ::1, fd00:96::1",
        ),
        ("critical,excluded;DNS:example.com,excluded;IP:10.0.0.0/255.0.0.0", "10.96.0.1, api.example.com"),
    ] {
        let message = refused(&with(constraints), &Files::new());
        let said = format!("{place}: its name constraints exclude {excluded}\n    its certificates need these names");
        assert!(message.contains(&said), "{constraints}: {message}");
        assert_eq!(message.matches("constraints exclude").count(), 1, "{message}");
    }
    // Of directories, critical or not: rustls refuses what is under them.
    let section = "[req]\ndistinguished_name=d\nprompt=no\nx509_extensions=v\n[v]\nbasicConstraints=critical,CA:TRUE\n[d]\nCN=a\n[dn]\nO=x\n";
    std::fs::write(user.path().join("dn.cnf"), section).unwrap();
    for kind in ["permitted", "excluded"] {
        let named = with(&format!("{kind};dirName:dn -config dn.cnf"));
        let message = refused(&named, &Files::new());
        assert!(message.contains("its name constraints are of directory names"), "{message}");
        user.openssl("req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout l.key -out l.csr -subj /CN=l -addext subjectAltName=DNS:l");
        user.openssl("x509 -req -in l.csr -CA ca.crt -CAkey ca.key -days 9 -copy_extensions copyall -out l.crt");
        assert!(trusted(&user).unwrap_err().contains("NameConstraintViolation"), "{kind}");
    }
    with("critical,excluded;DNS:corp.example");
    user.openssl("x509 -req -in l.csr -CA ca.crt -CAkey ca.key -days 9 -copy_extensions copyall -out l.crt");
    trusted(&user).unwrap();
    let fine = with("critical,excluded;DNS:corp.example,excluded;IP:172.16.0.0/255.240.0.0");
    let folder = Folder::of(&issue(&fine, &Files::new()).files);
    folder.openssl("verify -CAfile ca.crt -purpose sslserver apiserver.crt");
}

/// Whether rustls believes the server with the certificate `l.crt`, called `l`, where it trusts `ca.crt` alone.
fn trusted(folder: &Folder) -> Result<(), String> {
    use rustls::pki_types::pem::PemObject;
    use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
    let read = |name: &str| CertificateDer::from_pem_slice(&folder.read(name)).unwrap();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(read("ca.crt")).unwrap();
    let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
    let verifier = rustls::client::WebPkiServerVerifier::builder_with_provider(roots.into(), provider).build().unwrap();
    let name = ServerName::try_from("l").unwrap();
    use rustls::client::danger::ServerCertVerifier;
    let verified = verifier.verify_server_cert(&read("l.crt"), &[], &name, &[], UnixTime::now());
    verified.map(drop).map_err(|error| format!("{error:?}"))
}

/// A key that git has given other ends of lines.
#[test]
fn ends_of_lines_in_a_users_files_are_unixs() {
    let user = user();
    for name in ["ca.crt", "ca.key"] {
        let text = String::from_utf8(user.read(name)).unwrap();
        std::fs::write(user.path().join(name), text.replace('\n', "\r\n")).unwrap();
    }
    let mut named = cluster();
    named.pki.ca = user.pair("ca.crt", "ca.key");
    let files = issue(&named, &Files::new()).files;
    assert!(!files["ca.key"].contains(&b'\r') && !files["ca.crt"].contains(&b'\r'));
    assert_eq!(issue(&named, &files).files, files);
}
