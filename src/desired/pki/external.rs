//! Certificates of CAs whose keys are elsewhere: the requests, and whether the signed certificates match them.

use std::collections::BTreeSet;

use rcgen::KeyPair;
use time::{Duration, OffsetDateTime};
use x509_parser::certificate::X509Certificate;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::extensions::ParsedExtension;
use x509_parser::prelude::FromDer;

use super::plan::{LeafPlan, canonical, usage_name};
use super::{inspect, parse};
use crate::base::error::Result;

/// So long before its end a certificate is asked for anew, but never before two thirds of its life are over.
const AHEAD: Duration = Duration::days(30);

/// Everything that makes a certificate (with what is behind it in its file) not the planned one, of the key and the CA.
pub(super) fn problems(
    plan: &LeafPlan,
    chain: &[Vec<u8>],
    key: &KeyPair,
    authority: &[Vec<u8>],
    now: OffsetDateTime,
) -> Result<Vec<String>, String> {
    let leaf = parse::x509(chain.first().ok_or("there is no certificate in it")?)?;
    let info = inspect::info(&leaf);
    let mut problems = Vec::new();
    if !parse::key_fits(key, &leaf) {
        problems.push(format!("is not for the key in tls/{}.key", plan.stem));
    }
    if !is_issued(&leaf, &chain[1..], authority) {
        let is_named = |der: &Vec<u8>| parse::x509(der).is_ok_and(|ca| ca.subject().as_raw() == leaf.issuer().as_raw());
        problems.push(match authority.iter().any(is_named) {
            true => "names that CA as its issuer, and does not have its signature".to_owned(),
            false => format!("was not issued by that CA, but by {}", info.issuer),
        });
    }
    let has = |value: &str, mut all: Vec<&str>| {
        all.retain(|one| *one == value);
        !all.is_empty()
    };
    let names = leaf.subject().iter_common_name().filter_map(|name| name.as_str().ok()).collect();
    let groups = leaf.subject().iter_organization().filter_map(|name| name.as_str().ok()).collect();
    // The API server takes these for a user and its groups; of a server, clients read the names below.
    let is_user = has(&plan.common_name, names) && plan.organization.is_none_or(|group| has(group, groups));
    if !plan.is_served() && !is_user {
        problems.push(format!("has the subject {}, not {}", info.subject, plan.subject()));
    }
    let sans: BTreeSet<_> = info.sans.iter().map(|name| canonical(name)).collect();
    let missing: Vec<_> = plan.sans.iter().filter(|name| !sans.contains(*name)).map(String::as_str).collect();
    if !missing.is_empty() {
        problems.push(format!("lacks the names {}", missing.join(", ")));
    }
    let usages = plan.usages.iter().map(usage_name);
    let missing: Vec<_> = usages.filter(|usage| !info.ekus.iter().any(|has| has == usage || has == ANY)).collect();
    if !missing.is_empty() {
        problems.push(format!("lacks the extended key usage {}", missing.join(", ")));
    }
    if leaf.key_usage().ok().flatten().is_some_and(|usage| !usage.value.digital_signature()) {
        problems.push("lacks the key usage digitalSignature".to_owned());
    }
    if info.is_ca {
        problems.push("is a CA, and no component may be one".to_owned());
    }
    if now > info.not_after {
        problems.push(format!("expired {}", info.not_after.date()));
    } else if now < info.not_before {
        problems.push(format!("is not valid before {}", info.not_before));
    }
    Ok(problems)
}

const ANY: &str = "anyExtendedKeyUsage";

/// Whether the certificate was issued by one of `authority`, or by one of those behind it that was in turn.
fn is_issued(leaf: &X509Certificate<'_>, behind: &[Vec<u8>], authority: &[Vec<u8>]) -> bool {
    let by = |certificate: &X509Certificate<'_>, issuers: &[Vec<u8>]| {
        let issues = |der: &&Vec<u8>| {
            parse::x509(der).is_ok_and(|issuer| issuer.is_ca() && parse::issued_by(certificate, &issuer))
        };
        issuers.iter().find(issues).cloned()
    };
    if by(leaf, authority).is_some() {
        return true;
    }
    let mut next = by(leaf, behind);
    // Each of them once: a ring of them ends.
    for _ in behind {
        let Some(der) = next else { return false };
        let Ok(issuer) = parse::x509(&der) else { return false };
        if by(&issuer, authority).is_some() {
            return true;
        }
        next = by(&issuer, behind);
    }
    false
}

/// Whether it is time to ask for the next one.
pub(super) fn is_due(chain: &[Vec<u8>], now: OffsetDateTime) -> Option<OffsetDateTime> {
    let leaf = parse::x509(chain.first()?).ok()?;
    let (begin, end) = (leaf.validity().not_before.to_datetime(), leaf.validity().not_after.to_datetime());
    (end - now < AHEAD.min((end - begin) / 3)).then_some(end)
}

/// Whether a request asks for the planned certificate of this key: then it stays as it is.
pub(super) fn is_request_for(plan: &LeafPlan, key: &KeyPair, pem: &[u8]) -> bool {
    let Ok(block) = pem::parse(pem) else { return false };
    let Ok((_, request)) = X509CertificationRequest::from_der(block.contents()) else { return false };
    let info = &request.certification_request_info;
    let (mut sans, mut usages) = (BTreeSet::new(), BTreeSet::new());
    for extension in request.requested_extensions().into_iter().flatten() {
        match extension {
            ParsedExtension::SubjectAlternativeName(names) => {
                sans.extend(names.general_names.iter().map(|name| canonical(&inspect::san(name))));
            }
            ParsedExtension::ExtendedKeyUsage(usage) => usages.extend(inspect::usages(usage)),
            _ => {}
        }
    }
    let wanted: BTreeSet<_> = plan.usages.iter().map(|usage| usage_name(usage).to_owned()).collect();
    key.public_key_raw() == &*info.subject_pki.subject_public_key.data
        && info.subject.to_string() == plan.subject()
        && sans == plan.sans.iter().cloned().collect()
        && usages == wanted
        && request.verify_signature().is_ok()
}

/// What the certificate must say, for whoever signs it.
pub(super) fn description(plan: &LeafPlan) -> String {
    let usages: Vec<_> = plan.usages.iter().map(usage_name).collect();
    let mut text = format!("subject {}; extended key usage {}", plan.subject(), usages.join(", "));
    if !plan.sans.is_empty() {
        text.push_str(&format!("; names {}", plan.sans.join(", ")));
    }
    text
}
