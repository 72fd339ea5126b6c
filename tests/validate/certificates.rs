//! Certificates and keys that do not go together, each in a rendered cluster that is otherwise whole.

use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose as Usage, IsCa, Issuer, KeyPair, SanType,
};
use time::{Duration, OffsetDateTime};

use crate::support::{Directory, all, findings, lines};

/// A leaf certificate as somebody else's tool would make it.
struct Leaf<'a> {
    subject: &'a [(DnType, &'a str)],
    sans: &'a [&'a str],
    usages: &'a [Usage],
    from: i64,
    until: i64,
}

const SCHEDULER: &[(DnType, &str)] = &[(DnType::CommonName, "system:kube-scheduler")];
const NAMES: &[&str] = &[
    "kubernetes",
    "kubernetes.default",
    "kubernetes.default.svc",
    "kubernetes.default.svc.cluster.local",
    "minimal-1",
    "192.0.2.10",
    "10.96.0.1",
    "localhost",
    "127.0.0.1",
    "::1",
];

impl Leaf<'_> {
    /// The API server's, valid from and until a day counted from now.
    fn server(from: i64, until: i64) -> Self {
        Leaf {
            subject: &[(DnType::CommonName, "kube-apiserver")],
            sans: NAMES,
            usages: &[Usage::ServerAuth],
            from,
            until,
        }
    }

    fn scheduler() -> Self {
        Leaf { subject: SCHEDULER, sans: &[], usages: &[Usage::ClientAuth], from: -1, until: 300 }
    }

    /// Issues it by a CA of the directory, and puts it and its key where `stem` stands.
    fn put(&self, directory: &mut Directory, ca: &str, stem: &str) {
        let (certificate, key) = self.issue(directory, ca);
        directory.put(&format!("tls/{stem}.crt"), certificate);
        directory.put(&format!("tls/{stem}.key"), key);
    }

    fn issue(&self, directory: &Directory, ca: &str) -> (String, String) {
        let ca_key = KeyPair::from_pem(&directory.text(&format!("tls/{ca}.key"))).unwrap();
        let issuer = Issuer::from_ca_cert_pem(&directory.text(&format!("tls/{ca}.crt")), &ca_key).unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        for (kind, value) in self.subject {
            params.distinguished_name.push(kind.clone(), *value);
        }
        params.extended_key_usages = self.usages.to_vec();
        params.is_ca = IsCa::ExplicitNoCa;
        let now = OffsetDateTime::now_utc();
        (params.not_before, params.not_after) = (now + Duration::days(self.from), now + Duration::days(self.until));
        let san = |name: &&str| match name.parse() {
            Ok(address) => SanType::IpAddress(address),
            Err(_) => SanType::DnsName((*name).try_into().unwrap()),
        };
        params.subject_alt_names = self.sans.iter().map(san).collect();
        let key = KeyPair::generate().unwrap();
        (params.signed_by(&key, &issuer).unwrap().pem(), key.serialize_pem())
    }
}

fn date(days: i64) -> String {
    (OffsetDateTime::now_utc() + Duration::days(days)).date().to_string()
}

/// A directory in which one thing was broken.
#[track_caller]
fn broken(act: impl FnOnce(&mut Directory), expected: &[&str]) {
    let mut directory = Directory::new();
    act(&mut directory);
    assert_eq!(findings(&directory.set), expected);
}

#[test]
fn another_tools_certificate_is_as_good() {
    broken(|directory| Leaf::server(-1, 300).put(directory, "ca", "apiserver"), &[]);
    broken(|directory| Leaf::scheduler().put(directory, "ca", "kube-scheduler"), &[]);
    // A name with a star is one for all, and no list of usages is no limit.
    let names = ["*.default.svc", "kubernetes", "KUBERNETES.default", "*.default.svc.cluster.local"];
    let names = [&names[..], &NAMES[4..]].concat();
    let leaf = Leaf { sans: &names, usages: &[], ..Leaf::server(-1, 300) };
    broken(|directory| leaf.put(directory, "ca", "apiserver"), &[]);
}

#[test]
fn from_when_until_when() {
    let expired = format!("assets/tls/apiserver.crt:1:1: expired {}", date(-1));
    broken(|directory| Leaf::server(-100, -1).put(directory, "ca", "apiserver"), &[&expired]);
    let soon = format!("assets/tls/apiserver.crt:1:1: warning: expires {}, in 19 days", date(20));
    broken(|directory| Leaf::server(-300, 20).put(directory, "ca", "apiserver"), &[&soon]);
    // Of a short life, 20 days are most.
    broken(|directory| Leaf::server(-1, 20).put(directory, "ca", "apiserver"), &[]);

    let mut directory = Directory::new();
    Leaf::server(2, 300).put(&mut directory, "ca", "apiserver");
    let found = findings(&directory.set);
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].starts_with("assets/tls/apiserver.crt:1:1: is not valid before "), "{found:?}");

    let until = date(3650);
    let longer = format!(
        "assets/tls/apiserver.crt:1:1: warning: is valid for longer than assets/tls/ca.crt, which ends {until}"
    );
    broken(|directory| Leaf::server(-1, 5000).put(directory, "ca", "apiserver"), &[&longer]);
}

#[test]
fn all_expire_in_the_end() {
    let directory = Directory::new();
    let late = OffsetDateTime::now_utc() + Duration::days(366);
    let found = lines(all(&directory.set, late));
    let leaves = directory.set.files.keys().filter(|path| path.ends_with(".crt") && !path.ends_with("ca.crt"));
    let expected: Vec<_> = leaves.map(|path| format!("assets/{path}:1:1: expired {}", date(365))).collect();
    assert_eq!(found, expected);
    let remedy = all(&directory.set, late).remove(0).remedy.unwrap();
    assert!(remedy.contains("hoist render"), "{remedy}");
}

#[test]
fn names_usage_and_subject() {
    let leaf = Leaf { sans: &NAMES[..9], ..Leaf::server(-1, 300) };
    broken(|directory| leaf.put(directory, "ca", "apiserver"), &["assets/tls/apiserver.crt:1:1: lacks the name ::1"]);
    let leaf = Leaf { usages: &[Usage::ClientAuth], ..Leaf::server(-1, 300) };
    let expected = "assets/tls/apiserver.crt:1:1: lacks the extended key usage serverAuth";
    broken(|directory| leaf.put(directory, "ca", "apiserver"), &[expected]);
    let leaf = Leaf { subject: &[(DnType::CommonName, "scheduler")], ..Leaf::scheduler() };
    let expected =
        "assets/tls/kube-scheduler.crt:1:1: is of CN=scheduler, where the user system:kube-scheduler is needed";
    broken(|directory| leaf.put(directory, "ca", "kube-scheduler"), &[expected]);
    let leaf = Leaf { subject: &[(DnType::CommonName, "kubernetes-admin")], ..Leaf::scheduler() };
    let expected = "assets/tls/admin.crt:1:1: is of CN=kubernetes-admin, where the user kubernetes-admin of the group system:masters is needed";
    broken(|directory| leaf.put(directory, "ca", "admin"), &[expected]);
    // etcd shows its peers what it shows its clients.
    let leaf = Leaf { sans: &["minimal-1", "192.0.2.10", "localhost", "127.0.0.1", "::1"], ..Leaf::server(-1, 300) };
    let expected = "assets/tls/etcd/minimal-1/server.crt:1:1: lacks the extended key usage clientAuth";
    broken(|directory| leaf.put(directory, "etcd/ca", "etcd/minimal-1/server"), &[expected]);
}

#[test]
fn keys_and_chains() {
    let other = Directory::new();
    let from = |path: &'static str| other.text(path);
    broken(
        |directory| directory.put("tls/apiserver.key", from("tls/apiserver.key")),
        &["assets/tls/apiserver.key: is not the key of assets/tls/apiserver.crt"],
    );
    broken(
        |directory| directory.put("tls/ca.key", from("tls/ca.key")),
        &["assets/tls/ca.key: is not the key of assets/tls/ca.crt"],
    );
    broken(
        |directory| {
            directory.put("tls/front-proxy-client.crt", from("tls/front-proxy-client.crt"));
            directory.put("tls/front-proxy-client.key", from("tls/front-proxy-client.key"));
        },
        &["assets/tls/front-proxy-client.crt:1:1: was not issued by assets/tls/front-proxy-ca.crt"],
    );
    broken(
        |directory| {
            directory.put("tls/etcd/minimal-1/peer.crt", from("tls/etcd/minimal-1/peer.crt"));
            directory.put("tls/etcd/minimal-1/peer.key", from("tls/etcd/minimal-1/peer.key"));
        },
        &["assets/tls/etcd/minimal-1/peer.crt:1:1: was not issued by assets/tls/etcd/ca.crt"],
    );
    // Where nothing fits, it is the CA that is the odd one.
    broken(
        |directory| {
            directory.put("tls/etcd/ca.crt", from("tls/etcd/ca.crt"));
            directory.put("tls/etcd/ca.key", from("tls/etcd/ca.key"));
        },
        &["assets/tls/etcd/ca.crt:1:1: issued none of assets/tls/apiserver-etcd-client.crt, \
           assets/tls/etcd/healthcheck-client.crt, assets/tls/etcd/minimal-1/server.crt, assets/tls/etcd/minimal-1/peer.crt"],
    );
    broken(
        |directory| directory.put("tls/sa.pub", from("tls/sa.pub")),
        &["assets/tls/sa.pub: does not hold the public key of assets/tls/sa.key"],
    );
    broken(
        |directory| directory.put("tls/apiserver.crt", "none"),
        &["assets/tls/apiserver.crt: is not a PEM file: there is no -----BEGIN line"],
    );
    broken(
        |directory| {
            // A leaf in front of the CA that issued it: all still trust the file.
            let both = directory.text("tls/admin.crt") + &directory.text("tls/ca.crt");
            directory.put("tls/ca.crt", both);
        },
        &[
            "assets/tls/ca.crt:1:1: O=system:masters, CN=kubernetes-admin is not a CA: it may not issue certificates",
            "assets/tls/ca.key: is not the key of assets/tls/ca.crt",
        ],
    );
}

/// Replaces the value of a key in a Secret's manifest, and says where it stands.
fn replace(directory: &mut Directory, path: &str, key: &str, content: &str) -> String {
    use base64::Engine;
    let text = directory.text(path);
    let start = format!("  \"{key}\": ");
    let line = text.lines().find(|line| line.starts_with(&start)).unwrap().to_owned();
    let encoded = base64::engine::general_purpose::STANDARD.encode(content);
    directory.edit(path, &line, &format!("{start}\"{encoded}\""));
    let at = directory.position(path, &start);
    let (line, _) = at.split_once(':').unwrap();
    format!("assets/{path}:{line}:{}", start.len() + 1)
}

/// The same key and name, with what keeps clients from trusting what it signs. tests/pki has the whole table.
#[test]
fn a_ca_that_cannot_sign_what_it_is_to_sign() {
    use rcgen::{BasicConstraints, GeneralSubtree, KeyUsagePurpose, NameConstraints};
    type Change = fn(&mut CertificateParams);
    let table: [(Change, &[&str]); 3] = [
        (|_| {}, &[]),
        (
            |params| params.extended_key_usages = vec![Usage::ClientAuth],
            &["CN=kubernetes has the extended key usages clientAuth, without serverAuth"],
        ),
        (
            |params| {
                let excluded_subtrees = vec![GeneralSubtree::DnsName("minimal-1".into())];
                params.name_constraints = Some(NameConstraints { permitted_subtrees: Vec::new(), excluded_subtrees });
            },
            &["its name constraints exclude minimal-1"],
        ),
    ];
    for (change, expected) in table {
        let mut directory = Directory::new();
        let key = KeyPair::from_pem(&directory.text("tls/ca.key")).unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, "kubernetes");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        params.not_after = OffsetDateTime::now_utc() + Duration::days(3000);
        change(&mut params);
        directory.put("tls/ca.crt", params.self_signed(&key).unwrap().pem());
        let found = findings(&directory.set);
        let expected: Vec<_> = expected.iter().map(|text| format!("assets/tls/ca.crt:1:1: {text}")).collect();
        assert_eq!(found, expected);
    }
}

#[test]
fn a_ca_that_ends_is_said_a_year_before_wherever_it_is() {
    use base64::Engine;
    let (mut directory, other) = (Directory::new(), Directory::new());
    let end =
        |directory: &Directory, days: i64| lines(all(&directory.set, OffsetDateTime::now_utc() + Duration::days(days)));
    let of_cas = |found: Vec<String>| found.into_iter().filter(|line| line.contains("ca.crt")).collect::<Vec<_>>();
    assert_eq!(of_cas(end(&directory, 3650 - 366)), [""; 0]);
    let said = format!("warning: expires {}, in 364 days", date(3650));
    let cas = ["ca", "etcd/ca", "front-proxy-ca"].map(|ca| format!("assets/tls/{ca}.crt:1:1: {said}"));
    assert_eq!(of_cas(end(&directory, 3650 - 365)), cas);

    // Another CA's, in a webhook and in a kubeconfig that a ConfigMap holds.
    let foreign = other.text("tls/ca.crt");
    let bundle = base64::engine::general_purpose::STANDARD.encode(&foreign);
    let webhook = format!(
        "apiVersion: admissionregistration.k8s.io/v1\nkind: ValidatingWebhookConfiguration\nmetadata: {{name: x}}\nwebhooks:\n\
        - name: x.example.com\n  admissionReviewVersions: [v1]\n  sideEffects: None\n  clientConfig:\n    url: https://192.0.2.1\n    caBundle: {bundle}\n"
    );
    directory.put("manifests/x/webhook.yaml", webhook);
    let config = format!(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: x, namespace: kube-system}}\ndata:\n  kubeconfig: |\n    clusters:\n\
        \x20   - cluster:\n        certificate-authority-data: {bundle}\n"
    );
    directory.put("manifests/x/config.yaml", config);
    assert_eq!(findings(&directory.set), [""; 0]);
    let found = end(&directory, 3651);
    for place in ["assets/manifests/x/webhook.yaml:10:15", "assets/manifests/x/config.yaml:6:5"] {
        let said = format!("{place}: CN=kubernetes expired {}", date(3650));
        assert!(found.contains(&said), "{said}: {found:#?}");
    }
}

#[test]
fn what_secrets_hold() {
    const SECRET: &str = "manifests/kube-apiserver/secret.yaml";
    let other = Directory::new();

    // Renewed there, and not in tls/: as good.
    let mut directory = Directory::new();
    let kubelet_client = |from, until| Leaf {
        subject: &[(DnType::CommonName, "kube-apiserver-kubelet-client")],
        sans: &[],
        usages: &[Usage::ClientAuth],
        from,
        until,
    };
    let (certificate, key) = kubelet_client(-1, 300).issue(&directory, "ca");
    replace(&mut directory, SECRET, "apiserver-kubelet-client.crt", &certificate);
    replace(&mut directory, SECRET, "apiserver-kubelet-client.key", &key);
    assert_eq!(findings(&directory.set), [""; 0]);

    let mut directory = Directory::new();
    let (certificate, key) = kubelet_client(-100, -1).issue(&directory, "ca");
    let at = replace(&mut directory, SECRET, "apiserver-kubelet-client.crt", &certificate);
    replace(&mut directory, SECRET, "apiserver-kubelet-client.key", &key);
    assert_eq!(findings(&directory.set), [format!("{at}: CN=kube-apiserver-kubelet-client expired {}", date(-1))]);

    let mut directory = Directory::new();
    let at = replace(
        &mut directory,
        SECRET,
        "apiserver-kubelet-client.key",
        &other.text("tls/apiserver-kubelet-client.key"),
    );
    assert_eq!(findings(&directory.set), [format!("{at}: is not the key of assets/tls/apiserver-kubelet-client.crt")]);

    let mut directory = Directory::new();
    let at = replace(&mut directory, SECRET, "sa.pub", &other.text("tls/sa.pub"));
    assert_eq!(findings(&directory.set), [format!("{at}: does not hold the public key of assets/tls/sa.key")]);

    let mut directory = Directory::new();
    let secret = "manifests/kube-controller-manager/secret.yaml";
    let chain = directory.text("tls/ca.crt") + &other.text("tls/ca.crt");
    let at = replace(&mut directory, secret, "signing-ca.crt", &chain);
    assert_eq!(
        findings(&directory.set),
        [format!("{at}: holds several certificates, and kube-controller-manager signs with one")]
    );

    let mut directory = Directory::new();
    let at = replace(&mut directory, "manifests/kube-scheduler/secret.yaml", "kubeconfig", "a: [");
    assert_eq!(findings(&directory.set), [format!("{at}: is not a kubeconfig")]);

    // The pair that a kubeconfig names.
    let secret = "manifests/kube-scheduler/secret.yaml";
    let mut directory = Directory::new();
    let at = replace(&mut directory, secret, "client.key", &other.text("tls/kube-scheduler.key"));
    assert_eq!(findings(&directory.set), [format!("{at}: is not the key of assets/tls/kube-scheduler.crt")]);

    let mut directory = Directory::new();
    let at = replace(&mut directory, secret, "client.crt", &other.text("tls/kube-scheduler.crt"));
    replace(&mut directory, secret, "client.key", &other.text("tls/kube-scheduler.key"));
    assert_eq!(findings(&directory.set), [format!("{at}: was not issued by assets/tls/ca.crt")]);

    let mut directory = Directory::new();
    directory.edit(secret, "  \"client.crt\": ", "  \"other.crt\": ");
    let at = directory.position(secret, "  \"kubeconfig\": ");
    let (line, _) = at.split_once(':').unwrap();
    let at = format!("assets/{secret}:{line}:{}", "  \"kubeconfig\": ".len() + 1);
    assert_eq!(
        findings(&directory.set),
        [format!(
            "{at}: kubeconfig: names /etc/kubernetes/secrets/client.crt: Secret kube-scheduler has no key client.crt"
        )]
    );

    // The API server would not let this user in.
    let mut directory = Directory::new();
    let text = other.text("auth/kubeconfig");
    directory.put("auth/kubeconfig", text);
    let found = findings(&directory.set);
    let at = |needle: &str| {
        let at = directory.position("auth/kubeconfig", needle);
        let (line, column) = at.split_once(':').unwrap();
        format!("assets/auth/kubeconfig:{line}:{}", column.parse::<usize>().unwrap() + needle.len() + 2)
    };
    assert_eq!(
        found,
        [
            format!(
                "{}: clusters[0].cluster.certificate-authority-data: did not issue assets/tls/apiserver.crt, so its users would not trust the API server",
                at("certificate-authority-data")
            ),
            format!("{}: was not issued by assets/tls/ca.crt", at("client-certificate-data")),
        ]
    );
}

#[test]
fn a_flag_that_names_another_certificate() {
    let mut directory = Directory::new();
    let path = "manifests/kube-apiserver/daemonset.yaml";
    directory.edit(
        path,
        "--tls-cert-file=/etc/kubernetes/serving/apiserver.crt",
        "--tls-cert-file=/etc/kubernetes/secrets/apiserver-kubelet-client.crt",
    );
    directory.edit(
        path,
        "--tls-private-key-file=/etc/kubernetes/serving/apiserver.key",
        "--tls-private-key-file=/etc/kubernetes/secrets/apiserver-kubelet-client.key",
    );
    let at = directory.position(path, "--tls-cert-file");
    let found = findings(&directory.set);
    let here = format!(
        "assets/{path}:{at}: --tls-cert-file: names tls/apiserver-kubelet-client.crt, which lacks the extended key usage serverAuth"
    );
    assert!(found.contains(&here), "{found:#?}");
}
