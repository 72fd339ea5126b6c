//! The remaining validity of certificates: those on the disk, and the one that is served.

use std::net::SocketAddr;
use std::time::Duration;

use serde::Serialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::base::files;
use crate::base::input;
use crate::base::probe;
use crate::base::yaml;
use crate::desired::assets::AssetSet;
use crate::desired::pki;
use crate::node::host::Host;

/// How long a server may take to show its own.
const LIMIT: Duration = Duration::from_secs(2);

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

/// The first certificate of a PEM file that may hold other things, too.
fn certificate(place: String, pem: &[u8], now: OffsetDateTime) -> Option<Certificate> {
    let info = pki::inspect(&pki::certificates_of(pem)).ok()?;
    Some(Certificate {
        place,
        subject: info.subject,
        not_after: info.not_after.format(&Rfc3339).unwrap_or_default(),
        remaining_days: (info.not_after - now).whole_days(),
        expired: info.not_after < now,
    })
}

/// Those that this controller's disk holds: the kubelet's, etcd's, the API server's, the bridge's.
pub fn on_disk(host: &Host, now: OffsetDateTime) -> Vec<Certificate> {
    let mut found = Vec::new();
    for path in [host.kubelet_certificate(), host.path("/etc/kubernetes/pki/ca.crt")] {
        let pem = std::fs::read(&path).unwrap_or_default();
        found.extend(certificate(path.display().to_string(), &pem, now));
    }
    for folder in [host.etcd_pki(), host.serving_pki(), host.bridge()] {
        found.extend(files::below(&folder).into_iter().filter_map(|path| {
            let content = std::fs::read(&path).unwrap_or_default();
            read(&path.display().to_string(), &content, now)
        }));
    }
    found
}

/// Those of an asset directory.
pub fn of_assets(assets: &AssetSet, now: OffsetDateTime) -> Vec<Certificate> {
    let ours = assets.files.iter().filter(|(path, _)| path.starts_with("tls/") || path.starts_with("auth/"));
    ours.filter_map(|(path, file)| read(path, &file.content, now)).collect()
}

/// The certificate in a `.crt`, or the client's in a kubeconfig; other files have none.
fn read(place: &str, content: &[u8], now: OffsetDateTime) -> Option<Certificate> {
    let name = place.rsplit('/').next().unwrap_or(place);
    if name.ends_with(".crt") {
        return certificate(place.to_owned(), content, now);
    }
    if !name.starts_with("kubeconfig") {
        return None;
    }
    let document = yaml::documents("", &String::from_utf8_lossy(content)).ok()?.into_iter().next()?;
    let data = document.value.pointer("/users/0/user/client-certificate-data")?.as_str()?;
    certificate(place.to_owned(), &input::base64(data)?, now)
}

/// The one that is served at `address`, if any is.
pub async fn served(address: SocketAddr, now: OffsetDateTime) -> Option<Certificate> {
    let pem = probe::served_certificate(address, LIMIT).await.ok()?;
    certificate(format!("as served by {address}"), &pem, now)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::preflight::testing::{Machine, cluster, tls};

    #[test]
    fn whose_end_is_told_in_days() {
        let made = OffsetDateTime::from_unix_timestamp(1_782_907_200).unwrap();
        let assets = tls(made);
        let at = |days| made + time::Duration::days(days);
        let find = |found: &[Certificate], place: &str| {
            found.iter().find(|one| one.place == place).map(|one| (one.remaining_days, one.expired))
        };
        assert_eq!(find(&of_assets(&assets, at(5)), "tls/apiserver.crt"), Some((360, false)));
        let late = of_assets(&assets, at(367));
        assert_eq!(find(&late, "tls/apiserver.crt"), Some((-2, true)));
        assert!(find(&late, "tls/ca.crt").is_some_and(|(days, expired)| days > 3000 && !expired));
        assert!(!late.iter().any(|one| one.place.ends_with(".key")));

        let machine = Machine::new();
        let text = |path: &str| assets.text(path).unwrap();
        // The kubelet keeps certificate and key in one file.
        let both = text("tls/admin.key") + &text("tls/admin.crt");
        machine.put("/var/lib/kubelet/pki/kubelet-client-current.pem", both);
        machine.put("/etc/kubernetes/pki/etcd/server.crt", text("tls/etcd/c1/server.crt"));
        let tls: crate::desired::secrets::Tls = assets.tls();
        let config =
            crate::desired::secrets::kubeconfig(&cluster(""), &tls, "https://x:1", "u", "kube-scheduler").unwrap();
        machine.put("/etc/kubernetes/bridge/kube-scheduler/kubeconfig", config);
        let found = on_disk(&machine.host(), at(5));
        let ends: Vec<_> = found.iter().map(|one| one.place.rsplit('/').next().unwrap()).collect();
        assert_eq!(ends, ["kubelet-client-current.pem", "server.crt", "kubeconfig"]);
        assert!(found[2].subject.contains("system:kube-scheduler"), "{found:?}");
    }
}
