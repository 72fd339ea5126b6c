//! The files that cluster.yaml names: existing CAs, a service-account key, an external etcd's client files.

use std::collections::BTreeMap;
use std::fmt;

use crate::config::{Cluster, Etcd};
use crate::error::{Error, Finding, Result};

/// The contents of the files that cluster.yaml names, by the path written there.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct UserFiles(pub BTreeMap<String, Vec<u8>>);

/// Names the files only: half of them are secret.
impl fmt::Debug for UserFiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("UserFiles").field(&self.0.keys()).finish()
    }
}

/// A file that cluster.yaml names, and where its copy belongs.
pub(super) struct Named<'a> {
    /// The field of cluster.yaml.
    pub field: &'static str,
    /// The path written there.
    pub source: &'a str,
    /// The path in tls/.
    pub target: &'static str,
}

/// Every file that this cluster.yaml names.
pub(super) fn named(cluster: &Cluster) -> Vec<Named<'_>> {
    let pki = &cluster.pki;
    let mut all = Vec::new();
    let mut add = |field, source, target| all.push(Named { field, source, target });
    if let Some(ca) = &pki.ca {
        add("pki.ca.certificate", &*ca.certificate, "ca.crt");
        ca.key.iter().for_each(|key| add("pki.ca.key", key, "ca.key"));
    }
    if let Some(ca) = &pki.front_proxy_ca {
        add("pki.frontProxyCA.certificate", &ca.certificate, "front-proxy-ca.crt");
        ca.key.iter().for_each(|key| add("pki.frontProxyCA.key", key, "front-proxy-ca.key"));
    }
    if let Some(key) = &pki.service_account_key {
        add("pki.serviceAccountKey", key, "sa.key");
    }
    match (&cluster.etcd, &pki.etcd_ca) {
        (Etcd::External { ca_file, cert_file, key_file, .. }, _) => {
            add("etcd.external.caFile", ca_file, "etcd/ca.crt");
            add("etcd.external.certFile", cert_file, "apiserver-etcd-client.crt");
            add("etcd.external.keyFile", key_file, "apiserver-etcd-client.key");
        }
        (Etcd::Local { .. }, Some(ca)) => {
            add("pki.etcdCA.certificate", &ca.certificate, "etcd/ca.crt");
            ca.key.iter().for_each(|key| add("pki.etcdCA.key", key, "etcd/ca.key"));
        }
        (Etcd::Local { .. }, None) => {}
    }
    all
}

/// Reads every file that cluster.yaml names; all that cannot be read are reported at once.
pub fn read_user_files(cluster: &Cluster) -> Result<UserFiles> {
    let mut files = BTreeMap::new();
    let mut findings = Vec::new();
    for Named { field, source, .. } in named(cluster) {
        match std::fs::read(source) {
            Ok(bytes) => {
                files.insert(source.to_owned(), bytes);
            }
            Err(e) => findings.push(
                Finding::new(source, format!("cannot be read: {e}"))
                    .remedy(format!("{field} names it: correct the path, or let this user read the file")),
            ),
        }
    }
    if findings.is_empty() { Ok(UserFiles(files)) } else { Err(Error::Input(findings)) }
}
