//! The copies in the cluster's objects.

use crate::api::certificates::Object;
use crate::api::guard;
use crate::desired::certificates::{self, CertificateCopy, KeyCopy};
use crate::desired::pki;
use crate::plane::kept_copy::Copy;

/// The certificates that `objects` hold. The Secret of guard's copy holds a whole asset directory. Of an object that is not
/// the control plane's own, those count that are of the cluster's CAs.
pub fn in_cluster(objects: &[Object]) -> Vec<CertificateCopy> {
    let (own, others): (Vec<_>, Vec<_>) = objects.iter().partition(|object| object.is_own);
    let mut found: Vec<_> = own.into_iter().flat_map(copies).collect();
    let mut cas: Vec<Vec<u8>> = found.iter().filter(|copy| copy.info.is_ca).map(|copy| copy.pem.clone()).collect();
    cas.sort();
    cas.dedup();
    let is_of_them = |copy: &CertificateCopy| cas.iter().any(|ca| *ca == copy.pem || pki::is_issued_by(ca, &copy.pem));
    found.extend(others.into_iter().flat_map(copies).filter(is_of_them));
    found
}

fn copies(object: &Object) -> Vec<CertificateCopy> {
    let of_file = |(key, content): (&String, &Vec<u8>)| match key == guard::FILE {
        true => {
            let kept = Copy::parse(content);
            kept.iter().flat_map(|kept| certificates::of_assets(&object.place, "guard", &kept.assets)).collect()
        }
        false => certificates::copies(&object.place, key, object.holder, content),
    };
    object.files.iter().flat_map(of_file).collect()
}

/// The keys that no certificate belongs to, of the control plane's own objects.
pub fn keys_in_cluster(objects: &[Object]) -> Vec<KeyCopy> {
    let of_file = |object: &Object, key: &str, content: &[u8]| match key == guard::FILE {
        true => {
            let kept = Copy::parse(content);
            kept.iter().flat_map(|kept| certificates::keys_of_assets(&object.place, "guard", &kept.assets)).collect()
        }
        false => certificates::keys(&object.place, key, object.holder, content),
    };
    let own = objects.iter().filter(|object| object.is_own);
    own.flat_map(|object| object.files.iter().flat_map(move |(key, content)| of_file(object, key, content))).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use time::OffsetDateTime;

    use super::*;
    use crate::check::preflight::testing::tls;

    #[test]
    fn of_what_users_have_the_certificates_of_the_clusters_cas_count() {
        let made = OffsetDateTime::from_unix_timestamp(1_782_907_200).unwrap();
        let (own, foreign) = (tls(made).tls(), tls(made).tls());
        let object = |place: &str, is_own, files: &[(&str, &[u8])]| Object {
            place: place.into(),
            holder: "pods",
            files: files.iter().map(|(key, content)| ((*key).to_owned(), content.to_vec())).collect::<BTreeMap<_, _>>(),
            is_own,
        };
        let objects = [
            object(
                "Secret kube-system/kube-apiserver",
                true,
                &[("ca.crt", &own["ca.crt"]), ("sa.pub", &own["sa.pub"]), ("encryption.yaml", &own["encryption.yaml"])],
            ),
            object(
                "Secret metrics/tls",
                false,
                &[("ca", &own["ca.crt"]), ("leaf", &own["apiserver.crt"]), ("etcd", &own["etcd/ca.crt"])],
            ),
            object("Secret users/tls", false, &[("ca.crt", &foreign["ca.crt"]), ("sa.pub", &own["sa.pub"])]),
            object("APIService v1beta1.x", false, &[("spec.caBundle", &own["ca.crt"])]),
        ];
        let found: Vec<_> =
            in_cluster(&objects).into_iter().map(|copy| format!("{} {}", copy.name, copy.place)).collect();
        assert_eq!(
            found,
            [
                "ca Secret kube-system/kube-apiserver: ca.crt",
                "ca Secret metrics/tls: ca",
                "apiserver Secret metrics/tls: leaf",
                "ca APIService v1beta1.x: spec.caBundle",
            ]
        );
        let keys: Vec<_> =
            keys_in_cluster(&objects).into_iter().map(|key| format!("{} {}", key.name, key.place)).collect();
        assert_eq!(
            keys,
            [
                "encryption-key Secret kube-system/kube-apiserver: encryption.yaml",
                "service-account Secret kube-system/kube-apiserver: sa.pub",
            ]
        );
        assert!(
            in_cluster(&objects[1..]).is_empty(),
            "without the cluster's own there is nothing to hold them against"
        );
    }
}
