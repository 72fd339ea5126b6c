//! The files that cluster.yaml names: existing CAs, a service-account key, an external etcd's client files.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use crate::base::error::{Error, Finding, Result};
use crate::base::files;
use crate::base::input::{self, PEM_LIMIT};
use crate::desired::config::{Cluster, Etcd};

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

/// The keys among them that other users of this machine may read. hoist's copies are private; it may be meant.
pub fn exposed_user_files(cluster: &Cluster) -> Vec<Finding> {
    let keys = named(cluster).into_iter().filter(|named| named.target.ends_with(".key"));
    keys.filter(|named| files::is_exposed(Path::new(named.source)))
        .map(|named| {
            Finding::new(named.source, "other users of this machine may read this key")
                .warning()
                .remedy(format!("`chmod go= {}` keeps them out", named.source))
        })
        .collect()
}

/// Reads every file that cluster.yaml names; all that cannot be read are reported at once.
pub fn read_user_files(cluster: &Cluster) -> Result<UserFiles> {
    let mut files = BTreeMap::new();
    let mut findings = Vec::new();
    for Named { field, source, .. } in named(cluster) {
        match input::read(Path::new(source), PEM_LIMIT) {
            Ok(bytes) => {
                files.insert(source.to_owned(), input::unix(bytes));
            }
            Err(unread) => {
                findings.push(unread.finding.remedy(format!(
                    "{field} names it: correct the path, put the file there, or let this user read it"
                )))
            }
        }
    }
    if findings.is_empty() { Ok(UserFiles(files)) } else { Err(Error::Input(findings)) }
}
