//! Certificates that a cluster's CA would not have signed like that.

use rcgen::{CertificateParams, Issuer, KeyPair};

use super::cluster::Cluster;

/// A certificate of the cluster's CA and its new key, both in PEM, one behind the other.
pub fn signed(cluster: &Cluster, params: &CertificateParams) -> String {
    let read = |name: &str| std::fs::read_to_string(cluster.assets.join("tls").join(name)).unwrap();
    let ca_key = KeyPair::from_pem(&read("ca.key")).unwrap();
    let issuer = Issuer::from_ca_cert_pem(&read("ca.crt"), ca_key).unwrap();
    let key = KeyPair::generate().unwrap();
    params.signed_by(&key, &issuer).unwrap().pem() + &key.serialize_pem()
}
