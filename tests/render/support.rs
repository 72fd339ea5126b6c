//! Clusters of `tests/golden`, rendered.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use hoist::base::yaml::{self, Document};
use hoist::desired::assets::AssetSet;
use hoist::desired::config::{self, Cluster};
use hoist::desired::pki::{self, Pki, UserFiles};
use hoist::desired::render;
use time::OffsetDateTime;

pub const NAMES: [&str; 4] = ["minimal", "full", "external", "external-ca"];
pub const TOKEN: &str = "abcdef.0123456789abcdef";

pub type Files = BTreeMap<String, Vec<u8>>;

pub fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

/// The configuration `tests/golden/<name>.yaml`, as if it stood in /base.
pub fn cluster(name: &str) -> Cluster {
    parse(&std::fs::read_to_string(golden().join(format!("{name}.yaml"))).unwrap())
}

pub fn parse(text: &str) -> Cluster {
    config::parse("cluster.yaml", text, Path::new("/base")).unwrap_or_else(|error| panic!("{error}"))
}

/// One controller, all addresses IPv6, etcd on the controller.
pub fn ipv6() -> Cluster {
    let text = std::fs::read_to_string(golden().join("external.yaml")).unwrap();
    let (head, rest) = text.split_once("etcd:\n").unwrap();
    parse(&format!("{head}controllers:{}", rest.split_once("controllers:").unwrap().1))
}

/// The files that the configurations name, made by hoist for another cluster.
fn user_files() -> UserFiles {
    let cluster = cluster("minimal");
    let pki = pki::issue(&cluster, &Files::new(), &UserFiles::default(), OffsetDateTime::now_utc()).unwrap();
    let file = |(name, source): (&str, &str)| (format!("/base/{name}"), pki.files[source].clone());
    let named = [
        ("pki/ca.crt", "ca.crt"),
        ("pki/ca.key", "ca.key"),
        ("pki/etcd-ca.crt", "etcd/ca.crt"),
        ("pki/etcd-ca.key", "etcd/ca.key"),
        ("pki/front-proxy-ca.crt", "front-proxy-ca.crt"),
        ("pki/front-proxy-ca.key", "front-proxy-ca.key"),
        ("pki/sa.key", "sa.key"),
        ("etcd/ca.crt", "etcd/ca.crt"),
        ("etcd/client.crt", "apiserver-etcd-client.crt"),
        ("etcd/client.key", "apiserver-etcd-client.key"),
    ];
    UserFiles(named.into_iter().map(file).collect())
}

pub fn issue(cluster: &Cluster, existing: &Files) -> Pki {
    let mut at_hand = cluster.clone();
    let cas = [
        (&mut at_hand.pki.ca, "ca"),
        (&mut at_hand.pki.etcd_ca, "etcd-ca"),
        (&mut at_hand.pki.front_proxy_ca, "front-proxy-ca"),
    ];
    for (files, name) in cas {
        files.iter_mut().filter(|files| files.key.is_none()).for_each(|files| {
            files.key = Some(format!("/base/pki/{name}.key"));
        });
    }
    let mut pki = pki::issue(&at_hand, existing, &user_files(), OffsetDateTime::now_utc()).unwrap();
    if cluster.has_external_ca() {
        // As if they had been signed elsewhere.
        pki.files.retain(|path, _| !path.ends_with("ca.key"));
    }
    pki
}

pub fn render(cluster: &Cluster) -> AssetSet {
    render::render(cluster, &issue(cluster, &Files::new()).files, TOKEN).unwrap()
}

/// The clusters of `tests/golden` and the one of [`ipv6`], rendered.
pub fn all() -> Vec<(Cluster, AssetSet)> {
    let clusters = NAMES.into_iter().map(cluster).chain([ipv6()]);
    clusters.map(|cluster| (cluster.clone(), render(&cluster))).collect()
}

pub fn is_manifest(path: &str) -> bool {
    path.starts_with("manifests/") || path.starts_with("bootstrap-manifests/")
}

pub fn is_secret(path: &str) -> bool {
    path.starts_with("tls/") || path.starts_with("auth/") || path.ends_with("/secret.yaml")
}

pub fn text(set: &AssetSet, path: &str) -> String {
    set.text(path).unwrap_or_else(|error| panic!("{error}"))
}

pub fn documents(path: &str, text: &str) -> Vec<Document> {
    yaml::documents(path, text).unwrap_or_else(|findings| panic!("{findings:?}"))
}
