//! One copy of a certificate, and how it is found in a text.

use super::fields::fields;
use crate::base::yaml;
use crate::desired::assets::AssetSet;
use crate::desired::pki::{self, CertificateInfo};

/// One copy of a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateCopy {
    /// The certificate's name, kubeadm's where kubeadm has one: `apiserver`, `etcd-peer`, `ca`.
    pub name: String,
    /// The file, the object or the address that has it.
    pub place: String,
    /// The component that uses this copy.
    pub holder: String,
    /// What the certificate says.
    pub info: CertificateInfo,
    /// The certificate alone, as PEM.
    pub pem: Vec<u8>,
    /// The line of its text at which it begins, from 1.
    pub line: usize,
}

/// The names of certificates by the common names of their subjects.
const NAMES: [(&str, &str); 9] = [
    ("kube-apiserver", "apiserver"),
    ("kube-apiserver-etcd-client", "apiserver-etcd-client"),
    ("kube-apiserver-kubelet-client", "apiserver-kubelet-client"),
    ("kube-etcd-healthcheck-client", "etcd-healthcheck-client"),
    ("front-proxy-client", "front-proxy-client"),
    ("kubernetes-admin", "admin.conf"),
    ("system:kube-controller-manager", "controller-manager.conf"),
    ("system:kube-scheduler", "scheduler.conf"),
    ("hoist:guard", "guard"),
];

/// The certificates in the file `key` of `place`: those of a PEM file, or those that a kubeconfig holds. A file that is its
/// own place has no key. What is neither has none. Behind a leaf stand those that its clients need, which have a place of
/// their own.
pub fn copies(place: &str, key: &str, holder: &str, content: &[u8]) -> Vec<CertificateCopy> {
    let whole = whole_place(place, key);
    let text = String::from_utf8_lossy(content);
    if text.contains("-----BEGIN CERTIFICATE-----") {
        return without_chain(in_pem(&whole, holder, content));
    }
    if !text.contains("certificate-authority-data") && !text.contains("client-certificate-data") {
        return Vec::new();
    }
    let documents = yaml::documents("", &text).unwrap_or_default();
    let held = documents.iter().flat_map(|document| fields(&document.value));
    held.flat_map(|(_, pem)| without_chain(in_pem(&whole, holder, &pem))).collect()
}

/// What the parts of an asset directory have that are no manifests: each manifest holds what tls/ has.
pub fn of_assets(place: &str, holder: &str, assets: &AssetSet) -> Vec<CertificateCopy> {
    let ours = assets.files.iter().filter(|(path, _)| is_ours(path));
    ours.flat_map(|(path, file)| copies(place, path, holder, &file.content)).collect()
}

pub(super) fn is_ours(path: &str) -> bool {
    path.starts_with("tls/") || path.starts_with("auth/")
}

/// The name of a file within a place.
pub(super) fn whole_place(place: &str, key: &str) -> String {
    match (place, key) {
        (place, "") => place.to_owned(),
        ("", key) => key.to_owned(),
        (place, key) => format!("{place}: {key}"),
    }
}

/// All certificates of a PEM file, which may hold a key, too.
pub fn in_pem(place: &str, holder: &str, content: &[u8]) -> Vec<CertificateCopy> {
    let text = String::from_utf8_lossy(content);
    let begins = text.lines().enumerate().filter(|(_, line)| line.contains("-----BEGIN "));
    let lines: Vec<_> = begins.map(|(i, _)| i + 1).collect();
    let unix = pem::EncodeConfig::new().set_line_ending(pem::LineEnding::LF);
    let read = |(i, block): (usize, pem::Pem)| {
        let pem = pem::encode_config(&block, unix).into_bytes();
        let info = pki::inspect(&pem).ok()?;
        Some(CertificateCopy {
            name: name(place, &info),
            place: place.to_owned(),
            holder: holder.to_owned(),
            info,
            pem,
            line: lines.get(i).copied().unwrap_or(1),
        })
    };
    let blocks = pem::parse_many(content).unwrap_or_default().into_iter().enumerate();
    blocks.filter(|(_, block)| block.tag() == "CERTIFICATE").filter_map(read).collect()
}

fn without_chain(mut found: Vec<CertificateCopy>) -> Vec<CertificateCopy> {
    if found.first().is_some_and(|first| !first.info.is_ca) {
        found.truncate(1);
    }
    found
}

/// The name of the certificate that says this, at this place.
pub fn name(place: &str, info: &CertificateInfo) -> String {
    let common_name = info.subject.split(", ").find_map(|part| part.strip_prefix("CN=")).unwrap_or_default();
    let file = place.rsplit(['/', ' ']).next().unwrap_or(place);
    let stem = file.rsplit_once('.').map_or(file, |(stem, _)| stem);
    if info.is_ca {
        // A user's CA may have any subject: what counts is what it is used as.
        let is = |words: [&str; 2]| words.iter().any(|word| place.contains(word) || common_name.contains(word));
        return match () {
            () if is(["front-proxy", "requestheader"]) => "front-proxy-ca",
            () if is(["etcd/ca", "etcd-ca"]) => "etcd-ca",
            () => "ca",
        }
        .to_owned();
    }
    if let Some((_, name)) = NAMES.iter().find(|(subject, _)| *subject == common_name) {
        return (*name).to_owned();
    }
    let serves = info.ekus.iter().any(|usage| usage == "serverAuth");
    match stem {
        "server" | "peer" => format!("etcd-{stem}"),
        _ if common_name.starts_with("system:node:") && serves => "kubelet-server".to_owned(),
        _ if common_name.starts_with("system:node:") => "kubelet-client".to_owned(),
        _ => stem.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use time::OffsetDateTime;

    use super::*;
    use crate::check::preflight::testing::{cluster, tls};
    use crate::desired::secrets;

    #[test]
    fn each_certificate_of_a_cluster_has_kubeadms_name_where_kubeadm_has_one() {
        let assets = tls(OffsetDateTime::from_unix_timestamp(1_782_907_200).unwrap());
        let mut names: Vec<_> = assets
            .files
            .iter()
            .filter(|(path, _)| !path.contains("/c2/"))
            .flat_map(|(path, file)| copies("copy", path, "guard", &file.content))
            .map(|copy| format!("{} {}", copy.name, copy.place))
            .collect();
        names.sort();
        assert_eq!(
            names,
            [
                "admin.conf copy: tls/admin.crt",
                "apiserver copy: tls/apiserver.crt",
                "apiserver-etcd-client copy: tls/apiserver-etcd-client.crt",
                "apiserver-kubelet-client copy: tls/apiserver-kubelet-client.crt",
                "ca copy: tls/ca.crt",
                "controller-manager.conf copy: tls/kube-controller-manager.crt",
                "etcd-ca copy: tls/etcd/ca.crt",
                "etcd-healthcheck-client copy: tls/etcd/healthcheck-client.crt",
                "etcd-peer copy: tls/etcd/c1/peer.crt",
                "etcd-server copy: tls/etcd/c1/server.crt",
                "front-proxy-ca copy: tls/front-proxy-ca.crt",
                "front-proxy-client copy: tls/front-proxy-client.crt",
                "guard copy: tls/guard.crt",
                "kubelet-client copy: tls/kubelet/c1/client.crt",
                "scheduler.conf copy: tls/kube-scheduler.crt",
            ]
        );
    }

    #[test]
    fn a_kubeconfig_has_its_clients_certificate_and_its_servers_ca() {
        let assets = tls(OffsetDateTime::from_unix_timestamp(1_782_907_200).unwrap());
        let config = secrets::kubeconfig(&cluster(""), &assets.tls(), "https://x:1", "u", "kube-scheduler").unwrap();
        let names = |content: &[u8]| copies("f", "", "", content).into_iter().map(|copy| copy.name).collect::<Vec<_>>();
        assert_eq!(names(config.as_bytes()), ["scheduler.conf", "ca"]);
        assert!(names(b"certificate-authority-data: [").is_empty() && names(b"x").is_empty());
        // A served chain is one certificate, a bundle of CAs is several.
        let text = |path: &str| assets.text(path).unwrap();
        let (leaf, ca) = (text("tls/apiserver.crt"), text("tls/ca.crt"));
        assert_eq!(names((leaf + &ca).as_bytes()), ["apiserver"]);
        assert_eq!(names((ca + &text("tls/front-proxy-ca.crt")).as_bytes()), ["ca", "front-proxy-ca"]);
    }
}
