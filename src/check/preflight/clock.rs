//! The clock, compared with the validity of the certificates.

use super::Facts;
use crate::base::error::Finding;
use crate::base::time::rfc3339;
use crate::desired::pki;

/// No machine that runs this is older: 2025-01-01.
const EARLIEST: i64 = 1_735_689_600;

pub(super) fn clock(facts: &Facts) -> Vec<Finding> {
    let now = facts.now;
    let remedy = "set the clock (`date -s`), and keep it right with chrony or systemd-timesyncd";
    if now.unix_timestamp() < EARLIEST {
        let message = format!("the clock says {}, which is impossible", rfc3339(now));
        return vec![Finding::new("", message).remedy(remedy)];
    }
    let tls = facts.assets.tls();
    let certificates = tls.iter().filter(|(path, _)| path.ends_with(".crt"));
    // What cannot be read is told where it is used.
    let read: Vec<_> = certificates.filter_map(|(path, pem)| Some((path, pki::inspect(pem).ok()?))).collect();
    let latest = read.iter().filter(|(_, info)| now < info.not_before).max_by_key(|(_, info)| info.not_before);
    if let Some((path, info)) = latest {
        let message =
            format!("the clock says {}, and tls/{path} is valid from {} only", rfc3339(now), rfc3339(info.not_before));
        return vec![Finding::new("", message).remedy(remedy)];
    }
    let expired = read.iter().filter(|(_, info)| info.not_after < now);
    let finding = |(path, info): &(&String, pki::CertificateInfo)| {
        let message = format!("expired at {}; the clock says {}", rfc3339(info.not_after), rfc3339(now));
        Finding::new(format!("tls/{path}"), message).remedy(
            "run `hoist render` again, which issues expired certificates anew; or set the clock, if it is wrong",
        )
    };
    expired.map(finding).collect()
}

#[cfg(test)]
mod tests {
    use time::{Duration, OffsetDateTime};

    use super::super::testing::{Machine, now, said, tls};
    use super::*;

    #[test]
    fn the_clock_must_be_within_all_validities() {
        let machine = Machine::new();
        let mut facts = machine.facts("");
        facts.assets = tls(now());
        assert!(clock(&facts).is_empty());

        facts.now = OffsetDateTime::UNIX_EPOCH;
        assert_eq!(said(&clock(&facts)), [": the clock says 1970-01-01T00:00:00Z, which is impossible"]);

        facts.now = now() - Duration::days(30);
        let found = clock(&facts);
        assert_eq!(found.len(), 1, "one clock, one finding");
        assert!(found[0].message.starts_with("the clock says 2026-06-01T12:00:00Z, and tls/"), "{found:?}");

        facts.now = now() + Duration::days(366);
        let found = said(&clock(&facts));
        assert!(
            found.contains(
                &"tls/apiserver.crt: expired at 2027-07-01T12:00:00Z; the clock says 2027-07-02T12:00:00Z".into()
            ),
            "{found:?}"
        );
        assert!(!found.iter().any(|text| text.starts_with("tls/ca.crt")), "it lives longer: {found:?}");
    }
}
