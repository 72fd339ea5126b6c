//! One copy of a certificate, and how it is found in a text. Pure.

use crate::base::input;
use crate::base::yaml;
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
/// own place has no key. What is neither has none.
pub fn copies(place: &str, key: &str, holder: &str, content: &[u8]) -> Vec<CertificateCopy> {
    let whole = if key.is_empty() { place.to_owned() } else { format!("{place}: {key}") };
    let text = String::from_utf8_lossy(content);
    if text.contains("-----BEGIN CERTIFICATE-----") {
        return of_pem(&whole, holder, content);
    }
    match text.contains("certificate-authority-data") || text.contains("client-certificate-data") {
        true => of_kubeconfig(&whole, holder, &text),
        false => Vec::new(),
    }
}

/// The certificates of a PEM file, which may hold a key, too. Behind a leaf stand those that its clients need, which have
/// a place of their own.
pub fn of_pem(place: &str, holder: &str, content: &[u8]) -> Vec<CertificateCopy> {
    let blocks = pem::parse_many(content).unwrap_or_default();
    let blocks = blocks.into_iter().filter(|block| block.tag() == "CERTIFICATE");
    let lines = pem::EncodeConfig::new().set_line_ending(pem::LineEnding::LF);
    let read = |block: pem::Pem| {
        let pem = pem::encode_config(&block, lines).into_bytes();
        let info = pki::inspect(&pem).ok()?;
        Some(CertificateCopy {
            name: name(place, &info),
            place: place.to_owned(),
            holder: holder.to_owned(),
            info,
            pem,
        })
    };
    let mut found: Vec<_> = blocks.filter_map(read).collect();
    if found.first().is_some_and(|first| !first.info.is_ca) {
        found.truncate(1);
    }
    found
}

fn of_kubeconfig(place: &str, holder: &str, text: &str) -> Vec<CertificateCopy> {
    let documents = yaml::documents("", text).unwrap_or_default();
    let mut found = Vec::new();
    for document in documents {
        for (list, field, part) in
            [("users", "user", "client-certificate-data"), ("clusters", "cluster", "certificate-authority-data")]
        {
            for entry in document.value[list].as_array().into_iter().flatten() {
                let Some(data) = entry[field][part].as_str().and_then(input::base64) else { continue };
                found.extend(of_pem(place, holder, &data));
            }
        }
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
