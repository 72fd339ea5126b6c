//! Certificates and keys: the peer of each component trusts the certificate that the component presents, for its
//! purpose.
//!
//! ```text
//! planned(): the files of tls/, each as hoist means it      ┐
//! shown():   what the flags and kubeconfigs on the disk say ┘ identity()
//! validity(): from when until when
//! ```

use std::collections::BTreeMap;

use time::OffsetDateTime;

use super::faults::{AGAIN, Faults};
use super::inventory::Inventory;
use super::presented::Presented;
use super::trust;
use crate::base::error::Finding;
use crate::desired::certificates;
use crate::desired::config::Etcd;
use crate::desired::pki::CertificateInfo;
use crate::desired::pki::verify;

/// A certificate is to be renewed when it has less than this left, or a third of its whole life.
const SOON: time::Duration = time::Duration::days(30);
/// The same of a CA, which nothing renews by itself.
const SOON_FOR_A_CA: time::Duration = time::Duration::days(365);

/// Everything that does not depend on the time.
pub(super) fn identity(inventory: &Inventory<'_>) -> Vec<Finding> {
    let mut faults = Faults::default();
    authorities(inventory, &mut faults);
    planned(inventory, &mut faults);
    let presented = Presented::of(inventory, &mut faults);
    trust::check(inventory, &presented, &mut faults);
    faults.into_findings()
}

/// The CAs of tls/.
fn authorities(inventory: &Inventory<'_>, faults: &mut Faults) {
    let local = matches!(inventory.cluster.etcd, Etcd::Local { .. });
    for stem in ["ca", "front-proxy-ca", "etcd/ca"] {
        let Some(source) = inventory.tls_source(&format!("{stem}.crt")) else { continue };
        let Some(certificates) = faults.read(&source) else { continue };
        let first = &certificates[0];
        if !first.may_sign {
            let message = format!("{} is not a CA: it may not issue certificates", first.info.subject);
            faults
                .add("ca", source.finding(message).at(Some((first.line, 1))).remedy("put the CA's certificate first"));
        }
        // What somebody else's etcd has is theirs, and there is no key here.
        if !local && stem == "etcd/ca" {
            continue;
        }
        let unfit =
            if first.may_sign { verify::unfit(inventory.cluster, stem, &certificates, None) } else { Vec::new() };
        for why in unfit {
            faults.add(why.kind, source.finding(why.message).at(Some((first.line, 1))).remedy(why.remedy));
        }
        if let Some(key) = inventory.tls_source(&format!("{stem}.key")) {
            faults.key(first, &source, &key);
        }
    }
}

/// The leaves of tls/, each as hoist means it.
fn planned(inventory: &Inventory<'_>, faults: &mut Faults) {
    let mut foreign: BTreeMap<&str, Vec<Finding>> = BTreeMap::new();
    let mut own: BTreeMap<&str, usize> = BTreeMap::new();
    for needed in verify::needed(inventory.cluster) {
        let Some(source) = inventory.tls_source(&format!("{}.crt", needed.stem)) else { continue };
        let Some(chain) = faults.read(&source) else { continue };
        let at = Some((chain[0].line, 1));
        if let Some(key) = inventory.tls_source(&format!("{}.key", needed.stem)) {
            faults.key(&chain[0], &source, &key);
        }
        faults.purpose(&chain[0], &needed, |message| source.finding(message).at(at));
        let Some(ca) = inventory.tls_source(&format!("{}.crt", needed.ca)) else { continue };
        let Some(roots) = faults.read(&ca) else { continue };
        if !verify::is_trusted(&chain, &roots) {
            let finding = source.finding(format!("was not issued by {}", ca.place)).at(at).remedy(AGAIN);
            foreign.entry(needed.ca).or_default().push(finding);
            continue;
        }
        *own.entry(needed.ca).or_default() += 1;
        if roots.iter().all(|root| root.info.not_after < chain[0].info.not_after) {
            let until = roots[0].info.not_after.date();
            let message = format!("is valid for longer than {}, which ends {until}", ca.place);
            let finding = source.finding(message).at(at).remedy("renew the CA before that day, with the same key");
            faults.add("outlives", finding.warning());
        }
    }
    for (stem, findings) in foreign {
        // It is the CA that is the odd one out, then.
        if findings.len() > 1 && !own.contains_key(stem) {
            let names: Vec<_> = findings.iter().map(|finding| finding.place.as_str()).collect();
            let ca = Finding::new(
                inventory.place(&format!("tls/{stem}.crt")),
                format!("issued none of {}", names.join(", ")),
            );
            findings.iter().for_each(|finding| faults.explain("chain", finding));
            faults.add(
                "chain",
                ca.at(Some((1, 1))).remedy("put back the CA that did, or move these away and render again"),
            );
        } else {
            findings.into_iter().for_each(|finding| faults.add("chain", finding));
        }
    }
}

/// Every certificate at every place, from when until when it is valid.
pub(super) fn validity(inventory: &Inventory<'_>, now: OffsetDateTime) -> Vec<Finding> {
    let mut findings = Vec::new();
    for path in inventory.contents.tls.keys().filter(|path| path.ends_with(".crt")) {
        let Some(source) = inventory.tls_source(path) else { continue };
        for copy in certificates::in_pem(&source.place, "", &source.bytes) {
            let about = |message: String| source.finding(message).at(Some((copy.line, 1)));
            findings.extend(in_time(&copy.info, now, about));
        }
    }
    for (copy, position) in trust::copies(inventory) {
        let about =
            |message: String| Finding::new(&*copy.place, format!("{} {message}", copy.info.subject)).at(position);
        findings.extend(in_time(&copy.info, now, about));
    }
    findings
}

fn in_time(info: &CertificateInfo, now: OffsetDateTime, about: impl Fn(String) -> Finding) -> Option<Finding> {
    let left = info.not_after - now;
    if left.is_negative() {
        let remedy = if info.is_ca {
            "put a renewed certificate of the same key there"
        } else {
            "run `hoist render` again: it renews what has expired"
        };
        return Some(about(format!("expired {}", info.not_after.date())).remedy(remedy));
    }
    if now < info.not_before {
        return Some(about(format!("is not valid before {}", info.not_before)).remedy("check this machine's clock"));
    }
    let life = info.not_after - info.not_before;
    let soon = if info.is_ca { SOON_FOR_A_CA } else { SOON };
    (left < soon.min(life / 3)).then(|| {
        let days = left.whole_days();
        let remedy = if info.is_ca { "renew it in time, with the same key" } else { AGAIN };
        about(format!("expires {}, in {days} days", info.not_after.date())).remedy(remedy).warning()
    })
}
