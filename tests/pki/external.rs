//! CAs whose keys are elsewhere: requests go out, signed certificates come back. openssl is the CA.

use hoist::desired::config::KeyPairFiles;
use hoist::desired::pki::{self, Pki};

use crate::support::{Files, Folder, changed, cluster, controller, days, info, issue, issue_at, now, reasons, refused};

/// The holder of the three CAs' keys, and what a cluster of external CAs is declared with.
struct Holder(Folder);

const CAS: [&str; 3] = ["ca", "front-proxy-ca", "etcd-ca"];

impl Holder {
    fn new() -> Self {
        let folder = Folder::new();
        for ca in CAS {
            folder.openssl(&format!("genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out {ca}.key"));
            folder.openssl(&format!("req -x509 -new -key {ca}.key -out {ca}.crt -days 3000 -subj /O=Example/CN={ca}"));
        }
        Self(folder)
    }

    fn cluster(&self) -> hoist::desired::config::Cluster {
        let mut cluster = cluster();
        let named = |ca: &str| Some(KeyPairFiles { certificate: self.0.name(&format!("{ca}.crt")), key: None });
        cluster.pki.ca = named("ca");
        cluster.pki.front_proxy_ca = named("front-proxy-ca");
        cluster.pki.etcd_ca = named("etcd-ca");
        cluster
    }

    /// The CA that a certificate is to be signed by.
    fn ca_of(stem: &str) -> &'static str {
        match stem {
            "front-proxy-client" => "front-proxy-ca",
            stem if stem.starts_with("etcd/") || stem == "apiserver-etcd-client" => "etcd-ca",
            _ => "ca",
        }
    }

    /// Signs a request as it stands.
    fn sign(&self, csr: &[u8], ca: &str, options: &str) -> Vec<u8> {
        std::fs::write(self.0.path().join("csr"), csr).unwrap();
        self.0.openssl(&format!("x509 -req -in csr -CA {ca}.crt -CAkey {ca}.key -out crt {options}"));
        self.0.read("crt")
    }

    /// Every certificate that is awaited, signed and put beside its request.
    fn sign_all(&self, pki: &Pki, options: &str) -> Files {
        let mut files = pki.files.clone();
        for (path, csr) in &pki.files {
            if let Some(stem) = path.strip_suffix(".csr") {
                files.insert(format!("{stem}.crt"), self.sign(csr, Self::ca_of(stem), options));
            }
        }
        files
    }
}

const COPY: &str = "-copy_extensions copyall -days 100";

fn stems(pki: &Pki) -> Vec<&str> {
    pki.awaited
        .iter()
        .map(|finding| finding.place.strip_prefix("tls/").unwrap().strip_suffix(".crt").unwrap())
        .collect()
}

const ALL: [&str; 12] = [
    "apiserver",
    "apiserver-kubelet-client",
    "kube-controller-manager",
    "kube-scheduler",
    "guard",
    "admin",
    "kubelet/c1/client",
    "front-proxy-client",
    "apiserver-etcd-client",
    "etcd/healthcheck-client",
    "etcd/c1/server",
    "etcd/c1/peer",
];

#[test]
fn requests_say_what_the_certificates_must() {
    let holder = Holder::new();
    let pki = issue(&holder.cluster(), &Files::new());
    assert_eq!(stems(&pki), ALL);
    let folder = Folder::of(&pki.files);
    for stem in ALL {
        assert!(!pki.files.contains_key(&format!("{stem}.crt")), "{stem}");
        folder.openssl(&format!("req -in {stem}.csr -noout -verify"));
        assert_eq!(
            folder.openssl(&format!("req -in {stem}.csr -noout -pubkey")),
            folder.openssl(&format!("pkey -in {stem}.key -pubout"))
        );
    }
    assert!(CAS.iter().all(|ca| !pki.files.contains_key(&format!("{}.key", ca.replace("etcd-", "etcd/")))));

    let text = folder.openssl("req -in apiserver.csr -noout -text");
    for part in [
        "Subject: CN = kube-apiserver\n",
        "TLS Web Server Authentication\n",
        "DNS:kubernetes.default.svc.cluster.local",
        "DNS:api.example.com",
        "IP Address:10.96.0.1",
        "Digital Signature\n",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let text = folder.openssl("req -in kubelet/c1/client.csr -noout -text");
    assert!(text.contains("Subject: O = system:nodes, CN = system:node:c1\n"), "{text}");
    assert!(text.contains("TLS Web Client Authentication\n") && !text.contains("Server Auth"), "{text}");

    let said = pki.awaited[0].to_string();
    assert!(
        said.starts_with(
            "tls/apiserver.crt: is not there yet\n    have tls/apiserver.csr signed by O=Example, CN=ca: "
        ),
        "{said}"
    );
    assert!(said.contains("subject CN=kube-apiserver; extended key usage serverAuth; names kubernetes, "), "{said}");
    // Until they are signed, they stay as they are.
    assert_eq!(changed(&pki.files, &issue(&holder.cluster(), &pki.files).files), [""; 0]);
}

#[test]
fn signed_certificates_are_picked_up() {
    let holder = Holder::new();
    let pki = issue(&holder.cluster(), &Files::new());
    let signed = holder.sign_all(&pki, COPY);
    let done = issue(&holder.cluster(), &signed);
    assert_eq!((&done.awaited[..], &done.due[..]), (&[][..], &[][..]));
    assert_eq!(done.issued, [], "{:?}", done.issued);
    for (path, content) in &done.files {
        assert!(signed[path] == *content, "{path} is as it was signed");
        assert!(!path.ends_with(".csr"), "{path} has served its turn");
    }
    for stem in ALL {
        assert!(done.files.contains_key(&format!("{stem}.crt")) && done.files.contains_key(&format!("{stem}.key")));
    }
}

#[test]
fn a_few_at_a_time() {
    let holder = Holder::new();
    let pki = issue(&holder.cluster(), &Files::new());
    let mut files = pki.files.clone();
    files.insert("admin.crt".into(), holder.sign(&pki.files["admin.csr"], "ca", COPY));
    let next = issue(&holder.cluster(), &files);
    assert_eq!(stems(&next), ALL.into_iter().filter(|stem| *stem != "admin").collect::<Vec<_>>());
    assert!(!next.files.contains_key("admin.csr"));
}

#[test]
fn only_one_of_the_cas_may_be_external() {
    let holder = Holder::new();
    let mut cluster = cluster();
    cluster.pki.etcd_ca = holder.cluster().pki.etcd_ca;
    let pki = issue(&cluster, &Files::new());
    assert_eq!(stems(&pki), ALL[8..]);
    assert!(pki.files.contains_key("apiserver.crt") && pki.files.contains_key("ca.key"));
    let done = issue(&cluster, &holder.sign_all(&pki, COPY));
    assert_eq!(done.awaited, []);
}

/// What is said of a certificate for the API server that a CA made of the request in its own way.
fn said_of(holder: &Holder, files: &Files, stem: &str, crt: Vec<u8>) -> String {
    let files = Files::from_iter(files.clone().into_iter().chain([(format!("{stem}.crt"), crt)]));
    let pki = issue(&holder.cluster(), &files);
    let place = format!("tls/{stem}.crt");
    let found = pki.awaited.iter().find(|finding| finding.place == place);
    found.map(|finding| finding.message.clone()).unwrap_or_default()
}

#[test]
fn what_is_wrong_with_a_signed_certificate_is_said_all_at_once() {
    let holder = Holder::new();
    let files = issue(&holder.cluster(), &Files::new()).files;
    let names = "kubernetes, kubernetes.default, kubernetes.default.svc, kubernetes.default.svc.cluster.local, c1, 192.0.2.1, 10.96.0.1, fd00:96::1, api.example.com, 203.0.113.7, localhost, 127.0.0.1, ::1";
    let server = |ca: &str, options: &str| {
        said_of(&holder, &files, "apiserver", holder.sign(&files["apiserver.csr"], ca, options))
    };
    assert_eq!(server("ca", COPY), "");
    assert_eq!(server("ca", "-days 9"), format!("lacks the names {names}; lacks the extended key usage serverAuth"));
    assert_eq!(server("etcd-ca", COPY), "was not issued by that CA, but by O=Example, CN=etcd-ca");
    // Another CA of the same name.
    holder.0.openssl("genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out twin.key");
    holder.0.openssl("req -x509 -new -key twin.key -out twin.crt -days 300 -subj /O=Example/CN=ca");
    assert_eq!(server("twin", COPY), "names that CA as its issuer, and does not have its signature");
    let another = holder.sign(&files["admin.csr"], "ca", COPY);
    assert_eq!(
        said_of(&holder, &files, "apiserver", another),
        format!(
            "is not for the key in tls/apiserver.key; lacks the names {names}; lacks the extended key usage serverAuth"
        )
    );

    let write = |name: &str, text: &str| std::fs::write(holder.0.path().join(name), text).unwrap();
    let client = |options: &str| said_of(&holder, &files, "admin", holder.sign(&files["admin.csr"], "ca", options));
    write("any", "extendedKeyUsage=anyExtendedKeyUsage\n");
    assert_eq!(client("-days 9 -extfile any"), "");
    write("usage", "extendedKeyUsage=clientAuth\nkeyUsage=keyEncipherment\nbasicConstraints=CA:TRUE\n");
    assert_eq!(
        client("-days 9 -extfile usage"),
        "lacks the key usage digitalSignature; is a CA, and no component may be one"
    );
    assert!(client(&format!("{COPY} -days -1")).starts_with("expired 2"));
    // openssl 3.0 cannot change a subject here, so another request of the same key is signed.
    let folder = Folder::of(&files);
    folder.openssl("req -new -key admin.key -subj /O=Example/CN=kubernetes-admin -addext extendedKeyUsage=clientAuth -out other.csr");
    assert_eq!(
        said_of(&holder, &files, "admin", holder.sign(&folder.read("other.csr"), "ca", COPY)),
        "has the subject O=Example, CN=kubernetes-admin, not O=system:masters, CN=kubernetes-admin"
    );
    // An organization more is no harm: many CAs put theirs in.
    folder.openssl("req -new -key admin.key -subj /O=Example/O=system:masters/CN=kubernetes-admin -addext extendedKeyUsage=clientAuth -out other.csr");
    assert_eq!(said_of(&holder, &files, "admin", holder.sign(&folder.read("other.csr"), "ca", COPY)), "");

    assert!(said_of(&holder, &files, "admin", b"hello".to_vec()).starts_with("is not a PEM file"));
    assert!(said_of(&holder, &files, "admin", files["admin.key"].clone()).starts_with("holds a PRIVATE KEY"));
}

/// A company's CA puts attributes of its own into subjects: a renewal has them byte for byte, as openssl reads them.
#[test]
fn a_renewed_certificate_has_the_subject_that_its_ca_has_given_it() {
    const NAMED: &str = "-noout -subject -issuer -nameopt dump_all,dump_der,oid,sep_comma_plus";
    let folder = Folder::of(&issue(&cluster(), &Files::new()).files);
    folder.openssl("genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out ca.key");
    folder.self_sign("ca", "/DC=com/DC=example/OU=b/OU=a/O=Example/CN=ca+OU=c -multivalue-rdn");
    let subject = "/DC=com/DC=example/OU=Plattform/OU=Köln/O=Example/O=system:masters/CN=kubernetes-admin+UID=7";
    folder.openssl(&format!("req -new -utf8 -key admin.key -multivalue-rdn -subj {subject} -addext extendedKeyUsage=clientAuth -out admin.csr"));
    folder.openssl("x509 -req -in admin.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 9 -copy_extensions copyall -out admin.crt");
    let year = std::time::Duration::from_hours(8760);
    let renewed =
        pki::reissue(&folder.read("admin.crt"), &folder.read("ca.crt"), &folder.read("ca.key"), year, now()).unwrap();
    std::fs::write(folder.path().join("renewed.crt"), renewed).unwrap();
    let named = folder.openssl(&format!("x509 -in renewed.crt {NAMED}"));
    assert_eq!(named, folder.openssl(&format!("x509 -in admin.crt {NAMED}")));
    assert_eq!(named.matches("2.5.4.10=").count(), 3, "two O of the subject's and one of the issuer's: {named}");
    folder.openssl("verify -CAfile ca.crt -purpose sslclient renewed.crt");
    // So has the request, where the CA's key is elsewhere.
    let request = pki::ask(&folder.read("admin.crt"), &folder.read("admin.key")).unwrap();
    std::fs::write(folder.path().join("asked.csr"), &request).unwrap();
    folder.openssl("req -in asked.csr -noout -verify");
    folder.openssl("x509 -req -in asked.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 90 -copy_extensions copyall -out asked.crt");
    assert_eq!(folder.openssl(&format!("x509 -in asked.crt {NAMED}")), named);
    assert_eq!(info(&Files::from([("asked.crt".into(), folder.read("asked.crt"))]), "asked.crt").ekus, ["clientAuth"]);
    assert!(pki::is_newer(&folder.read("asked.crt"), &folder.read("admin.crt")));
    assert_eq!(
        folder.openssl("x509 -in renewed.crt -noout -pubkey"),
        folder.openssl("pkey -in admin.key -pubout"),
        "the key stays"
    );
}

#[test]
fn a_certificate_may_be_issued_through_intermediates() {
    let holder = Holder::new();
    let files = issue(&holder.cluster(), &Files::new()).files;
    holder.0.openssl("genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:2048 -out middle.key");
    holder.0.openssl("req -new -key middle.key -subj /CN=middle -out middle.csr");
    std::fs::write(holder.0.path().join("ca-ext"), "basicConstraints=critical,CA:TRUE\nkeyUsage=keyCertSign\n")
        .unwrap();
    holder.0.openssl("x509 -req -in middle.csr -CA ca.crt -CAkey ca.key -days 9 -extfile ca-ext -out middle.crt");
    let leaf = holder.sign(&files["apiserver.csr"], "middle", COPY);
    let said = said_of(&holder, &files, "apiserver", leaf.clone());
    assert_eq!(said, "was not issued by that CA, but by CN=middle", "without what is between");
    assert_eq!(said_of(&holder, &files, "apiserver", [leaf, holder.0.read("middle.crt")].concat()), "");
}

#[test]
fn an_external_ca_may_have_keys_of_kinds_that_hoist_cannot_sign_with() {
    let holder = Holder::new();
    for make in ["genpkey -algorithm ED25519", "ecparam -genkey -noout -name secp521r1", "genpkey -algorithm RSA"] {
        holder.0.openssl(&format!("{make} -out ca.key"));
        holder.0.openssl("req -x509 -new -key ca.key -out ca.crt -days 300 -subj /CN=ca");
        let pki = issue(&holder.cluster(), &Files::new());
        let done = issue(&holder.cluster(), &holder.sign_all(&pki, COPY));
        assert_eq!(done.awaited, [], "{make}");
    }
}

#[test]
fn what_changes_or_expires_is_asked_for_anew() {
    let holder = Holder::new();
    let mut cluster = holder.cluster();
    let signed = holder.sign_all(&issue(&cluster, &Files::new()), COPY);
    let done = issue(&cluster, &signed);

    // 100 days: the next is asked for a month before, and meanwhile the old one serves.
    assert_eq!(issue_at(&cluster, &done.files, now() + days(69)).due, []);
    let soon = issue_at(&cluster, &done.files, now() + days(71));
    assert_eq!((soon.due.len(), soon.awaited.len()), (ALL.len(), 0));
    assert!(soon.due[0].to_string().starts_with("tls/apiserver.crt: warning: expires "), "{}", soon.due[0]);
    assert!(soon.files.contains_key("apiserver.crt") && soon.files.contains_key("apiserver.csr"));
    assert_eq!(changed(&soon.files, &issue_at(&cluster, &soon.files, now() + days(72)).files), [""; 0]);
    let renewed = holder.sign_all(&soon, COPY);
    // Of the keys that stand; the day after tomorrow is far from their end.
    assert_eq!(issue(&cluster, &renewed).due, []);
    // Ten days: it is not asked for on the first.
    let short = holder.sign_all(&soon, "-copy_extensions copyall -days 10");
    assert_eq!(issue(&cluster, &short).due, []);
    assert_eq!(issue_at(&cluster, &short, now() + days(7)).due.len(), ALL.len());

    // A name more: a request more, and the old certificate is no good.
    cluster.controllers.push(controller("c2", "192.0.2.2"));
    let two = issue(&cluster, &done.files);
    assert_eq!(stems(&two), ["apiserver", "kubelet/c2/client", "etcd/c2/server", "etcd/c2/peer"],);
    assert_eq!(two.awaited[0].message, "lacks the names c2, 192.0.2.2");
    assert!(reasons(&two).contains(&("apiserver.csr", "a request to O=Example, CN=ca")), "{:?}", two.issued);
    assert_eq!(two.files["apiserver.key"], done.files["apiserver.key"]);
    assert_eq!(issue(&cluster, &holder.sign_all(&two, COPY).into_iter().chain(done.files).collect()).awaited.len(), 1);
}

#[test]
fn a_key_of_an_external_ca_must_not_stand() {
    let holder = Holder::new();
    let files = Files::from([("ca.key".to_owned(), holder.0.read("ca.key"))]);
    let message = refused(&holder.cluster(), &files);
    assert!(message.contains("tls/ca.key: is there, while pki.ca of cluster.yaml names a certificate"), "{message}");
    assert!(message.contains("name it as pki.ca.key; or move it away"), "{message}");
}

#[test]
fn a_cluster_may_give_its_ca_key_away_and_take_it_back() {
    let holder = Holder::new();
    let mut cluster = holder.cluster();
    for (files, ca) in
        [&mut cluster.pki.ca, &mut cluster.pki.front_proxy_ca, &mut cluster.pki.etcd_ca].into_iter().zip(CAS)
    {
        files.as_mut().unwrap().key = Some(holder.0.name(&format!("{ca}.key")));
    }
    let own = issue(&cluster, &Files::new());
    assert_eq!(own.awaited, []);
    let mut files = own.files.clone();
    files.retain(|path, _| !path.ends_with("ca.key"));
    let away = issue(&holder.cluster(), &files);
    assert_eq!(stems(&away), [""; 0], "all certificates stand");
    let back = pki::issue(&cluster, &away.files, &pki::read_user_files(&cluster).unwrap(), now()).unwrap();
    assert_eq!(changed(&own.files, &back.files), [""; 0]);
}
