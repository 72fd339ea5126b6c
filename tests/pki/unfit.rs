//! CAs that cannot sign what they are to sign: refused with the reason, and refused by clients as well.

use hoist::desired::config::Cluster;
use hoist::desired::pki::verify;

use crate::support::{Files, Folder, cluster, days, issue, issue_at, now, refused};

/// The extensions of a CA that may sign everything.
const FIT: &str =
    "basicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign,cRLSign\nsubjectKeyIdentifier=hash\n";

/// A company's CA `ca` that a root has signed, with the extensions of each and the key of the CA.
struct Company {
    folder: Folder,
    /// The field of cluster.yaml that names it.
    field: fn(&mut Cluster) -> &mut Option<hoist::desired::config::KeyPairFiles>,
}

impl Company {
    fn new(key: &str, root: &str, ca: &str, days: i64, hash: &str) -> Self {
        let folder = Folder::new();
        let write = |name: &str, extensions: &str| std::fs::write(folder.path().join(name), extensions).unwrap();
        write("root.ext", root);
        write("ca.ext", ca);
        folder.openssl("genrsa -out root.key 2048");
        folder.openssl("req -new -key root.key -subj /O=Example/CN=root -out root.csr");
        folder.openssl("x509 -req -in root.csr -signkey root.key -days 4000 -extfile root.ext -out root.crt");
        folder.openssl(&format!("{key} -out ca.key"));
        folder.openssl("req -new -key ca.key -subj /DC=com/DC=example/OU=a/OU=b/CN=ca -out ca.csr");
        folder.openssl(&format!("x509 -req -in ca.csr -CA root.crt -CAkey root.key -CAcreateserial {hash} -days {days} -extfile ca.ext -out ca.crt"));
        let bundle = [folder.read("ca.crt"), folder.read("root.crt")].concat();
        std::fs::write(folder.path().join("bundle.crt"), bundle).unwrap();
        Self { folder, field: |cluster| &mut cluster.pki.ca }
    }

    fn cluster(&self, with_key: bool) -> Cluster {
        let mut cluster = cluster();
        let mut pair = self.folder.pair("bundle.crt", "ca.key").unwrap();
        if !with_key {
            pair.key = None;
        }
        *(self.field)(&mut cluster) = Some(pair);
        cluster
    }

    /// What openssl says of a server's certificate that the CA issues, where the root alone is known.
    fn said_by_openssl(&self) -> String {
        let folder = &self.folder;
        folder.openssl("req -new -newkey rsa:2048 -nodes -keyout leaf.key -subj /CN=c1 -addext subjectAltName=DNS:c1,IP:192.0.2.1 -addext extendedKeyUsage=serverAuth -out leaf.csr");
        folder.openssl("x509 -req -in leaf.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 365 -copy_extensions copyall -out leaf.crt");
        let args = "verify -x509_strict -auth_level 2 -CAfile root.crt -untrusted ca.crt -purpose sslserver leaf.crt";
        let output =
            std::process::Command::new("openssl").args(args.split(' ')).current_dir(folder.path()).output().unwrap();
        String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
    }
}

#[test]
fn each_is_refused_with_its_reason() {
    const EC: &str = "genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256";
    let with = |more: &str| format!("{FIT}authorityKeyIdentifier=keyid\n{more}\n");
    // What the CA has, what hoist says, and what openssl says of what it signs; where hoist has no key to read, too.
    for (key, root, ca, age, hash, ours, openssls) in [
        (EC, FIT.to_owned(), with(""), 2000, "", "", "leaf.crt: OK"),
        (EC, FIT.to_owned(), with("extendedKeyUsage=serverAuth,clientAuth,codeSigning"), 2000, "", "", "leaf.crt: OK"),
        (
            EC,
            FIT.to_owned(),
            with("extendedKeyUsage=clientAuth"),
            2000,
            "",
            "DC=com, DC=example, OU=a, OU=b, CN=ca has the extended key usages clientAuth, without serverAuth",
            // invalid purpose
            "unsuitable certificate purpose",
        ),
        (
            EC,
            FIT.to_owned(),
            with("extendedKeyUsage=serverAuth"),
            2000,
            "",
            "has the extended key usages serverAuth, without clientAuth",
            "leaf.crt: OK",
        ),
        (
            EC,
            format!("{FIT}extendedKeyUsage=codeSigning\n"),
            with(""),
            2000,
            "",
            "O=Example, CN=root, above it, has the extended key usages codeSigning, without clientAuth, serverAuth",
            "unsuitable certificate purpose",
        ),
        (
            EC,
            FIT.replace("CA:TRUE", "CA:TRUE,pathlen:0"),
            with(""),
            2000,
            "",
            "O=Example, CN=root, above it, has the path length 0, and 1 CAs stand below it",
            "path length constraint exceeded",
        ),
        (
            EC,
            FIT.replace("CA:TRUE", "CA:TRUE,pathlen:1"),
            with("").replace("CA:TRUE", "CA:TRUE,pathlen:0"),
            2000,
            "",
            "",
            "leaf.crt: OK",
        ),
        (
            EC,
            FIT.to_owned(),
            with("nameConstraints=critical,permitted;DNS:example.com"),
            2000,
            "",
            "its name constraints exclude c1, kubernetes, ",
            "permitted subtree violation",
        ),
        (
            EC,
            format!("{FIT}nameConstraints=critical,excluded;IP:192.0.2.0/255.255.255.0\n"),
            with(""),
            2000,
            "",
            "its name constraints exclude 192.0.2.1",
            "excluded subtree violation",
        ),
        (EC, FIT.to_owned(), with(""), 100, "", "CN=ca ends 2", "leaf.crt: OK"),
        (
            EC,
            FIT.to_owned(),
            with(""),
            2000,
            "-sha1",
            "is signed with SHA-1, which clients refuse",
            "digest algorithm too weak",
        ),
        (EC, FIT.to_owned(), with("").replace("keyCertSign,", ""), 2000, "", "is not a CA", "invalid CA certificate"),
    ] {
        let company = Company::new(key, &root, &ca, age, hash);
        assert!(company.said_by_openssl().contains(openssls), "{ours}: {}", company.said_by_openssl());
        if ours.is_empty() {
            issue(&company.cluster(true), &Files::new());
            continue;
        }
        let message = refused(&company.cluster(true), &Files::new());
        assert!(message.contains(&company.folder.name("bundle.crt")) && message.contains(ours), "{ours}: {message}");
        // Whoever holds the key says how long what it signs is valid.
        if age > 365 {
            let message = refused(&company.cluster(false), &Files::new());
            assert!(message.contains(ours), "{ours}: {message}");
        }
    }
}

#[test]
fn a_weak_key_is_refused_where_it_is_read_and_where_it_is_elsewhere() {
    for (key, elsewhere, here) in [
        ("genrsa 1024", "has an RSA key of 1024 bits, which clients refuse", "is not a key that hoist can use"),
        (
            "genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-224",
            "has an EC key of 224 bits",
            "is not a key that hoist can use",
        ),
    ] {
        let extensions = format!("{FIT}authorityKeyIdentifier=keyid\n");
        // genrsa takes the number last.
        let company = match key.strip_prefix("genrsa ") {
            Some(bits) => Company::new(
                &format!("genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:{bits}"),
                FIT,
                &extensions,
                2000,
                "",
            ),
            None => Company::new(key, FIT, &extensions, 2000, ""),
        };
        let message = refused(&company.cluster(false), &Files::new());
        assert!(message.contains(elsewhere), "{message}");
        let message = refused(&company.cluster(true), &Files::new());
        assert!(message.contains(here), "{message}");
    }
}

/// The front proxy's CA signs clients alone.
#[test]
fn a_ca_is_held_against_what_it_signs_and_no_more() {
    let extensions = format!(
        "{FIT}authorityKeyIdentifier=keyid\nextendedKeyUsage=clientAuth\nnameConstraints=permitted;DNS:example.com\n"
    );
    let key = "genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256";
    let mut company = Company::new(key, FIT, &extensions, 2000, "");
    company.field = |cluster| &mut cluster.pki.front_proxy_ca;
    issue(&company.cluster(true), &Files::new());
    company.field = |cluster| &mut cluster.pki.etcd_ca;
    assert!(refused(&company.cluster(true), &Files::new()).contains("without serverAuth"));
}

/// In its last year a CA goes on, and its certificates end with it.
#[test]
fn the_end_of_a_ca_that_has_served_is_no_reason() {
    let extensions = format!("{FIT}authorityKeyIdentifier=keyid\n");
    let key = "genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256";
    let company = Company::new(key, FIT, &extensions, 400, "");
    let mut cluster = company.cluster(true);
    let pki = issue(&cluster, &Files::new());
    cluster.controllers.push(crate::support::controller("c2", "192.0.2.2"));
    let later = issue_at(&cluster, &pki.files, now() + days(200));
    let end = crate::support::info(&later.files, "ca.crt").not_after;
    assert_eq!(crate::support::info(&later.files, "apiserver.crt").not_after, end);
    let read = verify::certificates("ca.crt", &later.files["ca.crt"]).unwrap();
    assert_eq!(verify::unfit(&cluster, "ca", &read, None), []);
    assert_eq!(verify::unfit(&cluster, "ca", &read, Some(end + days(1)))[0].kind, "ends");
}
