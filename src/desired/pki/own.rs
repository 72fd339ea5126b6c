//! The certificates of one controller alone, made on that controller for a cluster that is there.

use std::collections::BTreeMap;

use time::OffsetDateTime;

use super::issue::Work;
use super::plan::plan;
use super::user::UserFiles;
use crate::base::error::{Error, Result};
use crate::desired::config::{Cluster, Controller};
use crate::desired::secrets::{SERVING, own_serving};

/// What of tls/ is `controller`'s alone: the pairs of its etcd member and of its API server, by path relative to tls/. What
/// `tls` has of it stays as [`issue`](super::issue()) keeps it; what is missing is made, with keys that are nowhere else.
///
/// # Errors
/// A CA whose key `tls` lacks; a file of `tls` that is not what it should be.
pub fn own(
    cluster: &Cluster,
    controller: &Controller,
    tls: &BTreeMap<String, Vec<u8>>,
    now: OffsetDateTime,
) -> Result<BTreeMap<String, Vec<u8>>> {
    let mut with_it = cluster.clone();
    with_it.controllers.retain(|other| other.name != controller.name);
    with_it.controllers.push(controller.clone());
    // What they name was copied into tls/ when the cluster was rendered.
    let pki = &mut with_it.pki;
    (pki.ca, pki.front_proxy_ca, pki.etcd_ca, pki.service_account_key) = (None, None, None, None);
    let mut existing = tls.clone();
    for file in SERVING {
        existing.remove(file);
        if let Some(own) = tls.get(&own_serving(&controller.name, file)) {
            existing.insert(file.to_owned(), own.clone());
        }
    }
    let nobody = UserFiles::default();
    let mut work = Work::new(&with_it, &existing, &nobody, now)?;
    let of_etcd = format!("etcd/{}/", controller.name);
    let is_own = |stem: &str| stem == "apiserver" || stem.starts_with(&of_etcd);
    let mut findings = Vec::new();
    for (ca, leaves) in plan(&with_it) {
        let leaves: Vec<_> = leaves.into_iter().filter(|leaf| is_own(&leaf.stem)).collect();
        if !leaves.is_empty() {
            let authority = work.authority(ca, false)?;
            findings.extend(work.leaves(ca, &leaves, &authority)?);
        }
    }
    if !findings.is_empty() {
        return Err(Error::Input(findings));
    }
    let mut made = work.files;
    for file in SERVING {
        if let Some(content) = made.remove(file) {
            made.insert(own_serving(&controller.name, file), content);
        }
    }
    let of_serving = own_serving(&controller.name, "");
    made.retain(|path, _| path.starts_with(&of_etcd) || path.starts_with(&of_serving));
    Ok(made)
}
