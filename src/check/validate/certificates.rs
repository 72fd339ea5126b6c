//! Certificates and keys: who shows one is trusted by who is shown it, for what it is shown.
//!
//! ```text
//! planned(): the files of tls/, each as hoist means it      ┐
//! shown():   what the flags and kubeconfigs on the disk say ┘ identity()
//! validity(): from when until when
//! ```

use std::collections::BTreeMap;

use time::OffsetDateTime;

use super::files::Source;
use super::inventory::Inventory;
use super::shown::{self, Shown};
use crate::base::error::Finding;
use crate::base::input;
use crate::base::yaml::Position;
use crate::desired::config::Etcd;
use crate::desired::pki::verify::{self, Certificate, Needed};

/// A certificate is to be renewed when it has less than this left, or a third of its whole life.
const SOON: time::Duration = time::Duration::days(30);

/// What is wrong with certificates and keys, each once: what is said of a file of tls/ is not said again of its user.
#[derive(Default)]
pub(super) struct Faults(BTreeMap<Fault, Option<Finding>>);

/// A place, a position there, and a sort of fault.
type Fault = (String, Option<Position>, &'static str);

impl Faults {
    /// Adds a finding, unless one of this sort is there about the same place.
    pub fn add(&mut self, sort: &'static str, finding: Finding) {
        self.0.entry((finding.place.clone(), finding.position, sort)).or_insert(Some(finding));
    }

    /// Keeps a finding from being added: what is behind it was said of another file.
    fn explain(&mut self, sort: &'static str, finding: &Finding) {
        self.0.entry((finding.place.clone(), finding.position, sort)).or_insert(None);
    }

    /// Whether something of this sort is known of a file.
    pub fn has(&self, sort: &str, place: &str) -> bool {
        self.0.keys().any(|(at, _, found)| at == place && *found == sort)
    }

    pub fn into_findings(self) -> Vec<Finding> {
        self.0.into_values().flatten().collect()
    }

    /// The certificates of a file, or what is wrong with it.
    pub fn read(&mut self, source: &Source) -> Option<Vec<Certificate>> {
        match verify::certificates(&source.place, &source.bytes) {
            Ok(certificates) => Some(certificates),
            Err(finding) => {
                self.add("unreadable", finding.at(source.position).remedy(AGAIN));
                None
            }
        }
    }

    /// Whether the key is that of the certificate.
    pub fn key(&mut self, certificate: &Certificate, source: &Source, key: &Source) {
        match verify::key_fits(certificate, &key.place, &key.bytes) {
            Ok(true) => {}
            Ok(false) => {
                let finding = key.finding(format!("is not the key of {}", source.place));
                self.add("key", finding.remedy("put the matching key there, or the matching certificate"));
            }
            Err(finding) => self.add("key", finding.at(key.position)),
        }
    }

    /// Whether a certificate is good for what is needed of it. `about` makes a finding of a sentence.
    pub fn purpose(&mut self, certificate: &Certificate, needed: &Needed, about: impl Fn(String) -> Finding) {
        let info = &certificate.info;
        let lacks = |usage: &&&str| !info.ekus.iter().any(|eku| eku == **usage || eku == "anyExtendedKeyUsage");
        let usages: Vec<_> = needed.usages.iter().filter(lacks).copied().collect();
        if !info.ekus.is_empty() && !usages.is_empty() {
            let message = format!("lacks the extended key usage {}", usages.join(" and "));
            self.add("usage", about(message).remedy(AGAIN));
        }
        let names: Vec<_> = needed.sans.iter().filter(|name| !verify::has_name(info, name)).cloned().collect();
        if !names.is_empty() {
            let noun = if names.len() == 1 { "name" } else { "names" };
            self.add("names", about(format!("lacks the {noun} {}", names.join(", "))).remedy(AGAIN));
        }
        let has = |part: String| info.subject.split(", ").any(|found| found == part);
        let is_named = has(format!("CN={}", needed.common_name));
        let is_member = needed.organization.is_none_or(|organization| has(format!("O={organization}")));
        // Who is called does not look at the subject of who calls, but for its rights; of servers, only the names count.
        if needed.sans.is_empty() && !(is_named && is_member) {
            let group = needed.organization.map(|group| format!(" of the group {group}")).unwrap_or_default();
            let message = format!("is of {}, where the user {}{group} is needed", info.subject, needed.common_name);
            self.add("subject", about(message).remedy(AGAIN));
        }
    }
}

pub(super) const AGAIN: &str =
    "move the certificate away (its key may stay) and run `hoist render` again: it issues what is missing";

/// Everything that does not depend on the time.
pub(super) fn identity(inventory: &Inventory<'_>) -> Vec<Finding> {
    let mut faults = Faults::default();
    authorities(inventory, &mut faults);
    planned(inventory, &mut faults);
    let shown = Shown::of(inventory, &mut faults);
    shown::check(inventory, &shown, &mut faults);
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
            let message = format!("{} is no CA: it may not issue certificates", first.info.subject);
            faults
                .add("ca", source.finding(message).at(Some((first.line, 1))).remedy("put the CA's certificate first"));
        }
        let names: Vec<_> = verify::needed(inventory.cluster).into_iter().filter(|needed| needed.ca == stem).collect();
        let names: Vec<_> = names.into_iter().flat_map(|needed| needed.sans).collect();
        if let Some(why) = verify::constraints(&certificates, &names) {
            let finding = source.finding(format!("its name constraints {why}")).at(Some((first.line, 1)));
            faults.add("constraints", finding.remedy("its certificates need these names: use a CA that may sign them"));
        }
        // Of an etcd that is somebody else's, there is no key here.
        if let Some(key) = inventory.tls_source(&format!("{stem}.key"))
            && (local || stem != "etcd/ca")
        {
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
            let finding = source.finding(message).at(at).remedy("renew the CA before that day, with the key it has");
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
                ca.at(Some((1, 1))).remedy("put the CA back that did, or move these away and render again"),
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
        for certificate in verify::certificates(&source.place, &source.bytes).unwrap_or_default() {
            let about = |message: String| source.finding(message).at(Some((certificate.line, 1)));
            findings.extend(in_time(&certificate, now, about));
        }
    }
    for source in shown::copies(inventory) {
        for certificate in verify::certificates(&source.place, &source.bytes).unwrap_or_default() {
            let about = |message: String| source.finding(format!("{} {message}", certificate.info.subject));
            findings.extend(in_time(&certificate, now, about));
        }
    }
    findings
}

fn in_time(certificate: &Certificate, now: OffsetDateTime, about: impl Fn(String) -> Finding) -> Option<Finding> {
    let info = &certificate.info;
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
    (left < SOON.min(life / 3)).then(|| {
        let days = left.whole_days();
        let remedy = if info.is_ca { "renew it in time, with the key it has" } else { AGAIN };
        about(format!("expires {}, in {days} days", info.not_after.date())).remedy(remedy).warning()
    })
}

/// The text of a kubeconfig's field in Base64, if it is any.
pub(super) fn field(value: &serde_json::Value, pointer: &str) -> Option<Vec<u8>> {
    input::base64(value.pointer(pointer)?.as_str()?)
}
