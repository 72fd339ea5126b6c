//! Files of keys and certificates: refused, or read the same once written anew; and issued from.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::LazyLock;

use hoist::desired::config::{self, Cluster, KeyPairFiles};
use hoist::desired::pki::{self, UserFiles};
use pem::Pem;
use time::OffsetDateTime;

const CLUSTER: &str = "apiVersion: hoist/v1alpha1\nkind: Cluster\ncontrollers:\n- {name: c1, address: 192.0.2.1}\n";

static NOW: LazyLock<OffsetDateTime> =
    LazyLock::new(|| OffsetDateTime::from_unix_timestamp(1_800_000_000).unwrap_or(OffsetDateTime::UNIX_EPOCH));
static CLUSTER_OF: LazyLock<Cluster> = LazyLock::new(|| match config::parse("f", CLUSTER, Path::new("/")) {
    Ok(cluster) => cluster,
    Err(error) => panic!("{error}"),
});
static ISSUED: LazyLock<BTreeMap<String, Vec<u8>>> =
    LazyLock::new(|| match pki::issue(&CLUSTER_OF, &BTreeMap::new(), &UserFiles::default(), *NOW) {
        Ok(pki) => pki.files,
        Err(error) => panic!("{error}"),
    });

/// Panics where hoist is wrong about `data`. Its first byte says what the rest is: a file as it is, or DER in a block of
/// the tag.
pub fn check(data: &[u8]) {
    let Some((kind, rest)) = data.split_first() else { return };
    let wrap = |tag: &str| pem::encode(&Pem::new(tag, rest)).into_bytes();
    let bytes = match kind % 5 {
        1 => wrap("CERTIFICATE"),
        2 => wrap("PRIVATE KEY"),
        3 => wrap("EC PRIVATE KEY"),
        4 => wrap("RSA PRIVATE KEY"),
        _ => rest.to_vec(),
    };
    if let Ok(info) = pki::inspect(&bytes) {
        let blocks = pem::parse_many(&bytes).unwrap_or_default();
        let anew: String = blocks.iter().map(pem::encode).collect();
        assert_eq!(pki::inspect(anew.as_bytes()).ok(), Some(info));
    }

    // As what stands in tls/: in every place, or in one, which is quicker.
    let places = ["ca.crt", "apiserver.crt", "ca.key", "sa.pub"];
    let place = usize::from(kind / 5) % 6;
    for (_, path) in (1..).zip(places).filter(|(index, _)| place == 0 || place == *index) {
        let mut existing = ISSUED.clone();
        existing.insert(path.into(), bytes.clone());
        if path == "ca.crt" {
            // Else all that is asked is whether the key fits.
            existing.remove("ca.key");
        }
        again(&CLUSTER_OF, &existing, &UserFiles::default());
    }
    if place != 0 && place != 5 {
        return;
    }
    // As a user's: the same bytes for the certificate and the key, which is what the file of both at once is.
    let mut cluster = CLUSTER_OF.clone();
    cluster.pki.ca = Some(KeyPairFiles { certificate: "ca".into(), key: Some("key".into()) });
    cluster.pki.service_account_key = Some("sa".into());
    let key = ISSUED.get("ca.key").cloned().unwrap_or_default();
    let files = [("ca", bytes.clone()), ("key", key), ("sa", bytes)];
    let files = UserFiles(files.into_iter().map(|(name, bytes)| (name.to_owned(), bytes)).collect());
    again(&cluster, &BTreeMap::new(), &files);
}

/// What is issued once is not issued again.
fn again(cluster: &Cluster, existing: &BTreeMap<String, Vec<u8>>, user: &UserFiles) {
    let Ok(first) = pki::issue(cluster, existing, user, *NOW) else { return };
    match pki::issue(cluster, &first.files, user, *NOW) {
        Ok(second) => assert!(second.issued.is_empty(), "{:?} {:?}", first.issued, second.issued),
        Err(error) => panic!("{error} {:?}", first.issued),
    }
}
