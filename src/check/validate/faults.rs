//! What is wrong with certificates and keys, each once.

use std::collections::BTreeMap;

use super::files::Source;
use crate::base::error::Finding;
use crate::base::input;
use crate::base::yaml::Position;
use crate::desired::pki::verify::{self, Certificate, Needed};

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
    pub fn explain(&mut self, sort: &'static str, finding: &Finding) {
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

/// The text of a kubeconfig's field in Base64, if it is any.
pub(super) fn field(value: &serde_json::Value, pointer: &str) -> Option<Vec<u8>> {
    input::base64(value.pointer(pointer)?.as_str()?)
}
