//! The remaining validity of certificates, by the inventory.

use serde::Serialize;
use time::OffsetDateTime;

use super::Subject;
use crate::base::time::rfc3339;
use crate::node::host::Host;
use crate::plane::certificates::{self, CertificateCopy, Listener};
use crate::plane::kept_copy::Copy;
use crate::plane::requests;

/// A certificate and its end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Certificate {
    /// The file, or the address that serves it.
    pub place: String,
    /// As in `CN=kubernetes`.
    pub subject: String,
    /// Its end, as RFC 3339 has it.
    pub not_after: String,
    /// Whole days until then; less than nothing once it is over.
    pub remaining_days: i64,
    /// Its end has passed.
    pub expired: bool,
}

/// The one that `listener` serves, those on this controller's disk and those of the asset directory; and what ends that nothing
/// renews by itself.
pub(super) async fn look(
    subject: &Subject<'_>,
    listener: &Listener,
    now: OffsetDateTime,
) -> (Vec<Certificate>, Vec<String>) {
    let served = certificates::ask(listener).await.certificate.ok();
    let served = served.map(|copy| CertificateCopy { place: format!("as served by {}", copy.place), ..copy });
    let mut copies: Vec<_> = served.into_iter().collect();
    copies.extend(certificates::on_disk(subject.host));
    copies.extend(subject.assets.iter().flat_map(|assets| certificates::of_assets("", "", assets)));
    let shown = copies.iter().map(|copy| certificate(copy, now)).collect();
    let kept = Copy::load(subject.host).ok().flatten();
    copies.extend(kept.iter().flat_map(|kept| certificates::in_guards_copy(subject.host, kept)));
    let mut warnings: Vec<_> = certificates::endings(&copies, now).iter().map(ToString::to_string).collect();
    warnings.extend(kept.iter().filter_map(|kept| awaited(subject.host, kept, now)));
    (shown, warnings)
}

/// What waits for a CA whose key is elsewhere, and until when.
fn awaited(host: &Host, kept: &Copy, now: OffsetDateTime) -> Option<String> {
    let awaited = requests::awaited(kept, now);
    let end = awaited.values().min()?;
    let names: Vec<_> = awaited.keys().map(String::as_str).collect();
    let folder = host.inside(&requests::folder(host)).display().to_string();
    Some(format!(
        "{} wait for a CA whose key is elsewhere, until {}: have the requests in {folder} signed",
        names.join(", "),
        rfc3339(*end)
    ))
}

fn certificate(copy: &CertificateCopy, now: OffsetDateTime) -> Certificate {
    let end = copy.info.not_after;
    Certificate {
        place: copy.place.clone(),
        subject: copy.info.subject.clone(),
        not_after: rfc3339(end),
        remaining_days: (end - now).whole_days(),
        expired: end < now,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::preflight::testing::tls;

    #[test]
    fn whose_end_is_told_in_days() {
        let made = OffsetDateTime::from_unix_timestamp(1_782_907_200).unwrap();
        let copies = certificates::of_assets("", "", &tls(made));
        let left = |days, place: &str| {
            let copy = copies.iter().find(|copy| copy.place == place).unwrap();
            let shown = certificate(copy, made + time::Duration::days(days));
            (shown.remaining_days, shown.expired)
        };
        assert_eq!(left(5, "tls/apiserver.crt"), (360, false));
        assert_eq!(left(367, "tls/apiserver.crt"), (-2, true));
        assert_eq!(left(367, "tls/ca.crt"), (3283, false));
        assert!(!copies.iter().any(|copy| copy.place.ends_with(".key")));
    }
}
