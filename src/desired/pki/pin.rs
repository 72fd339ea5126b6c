//! CAs by the hashes of their public keys, as kubeadm's `--discovery-token-ca-cert-hash` has them.

use sha2::{Digest, Sha256};

use super::parse;
use crate::base::error::{Error, Result};

/// `sha256:…` of the public key of each certificate in `pem`.
///
/// # Errors
/// What is no certificate.
pub fn pins(pem: &[u8]) -> Result<Vec<String>> {
    let failed = |cause: String| Error::failed("read the CA's certificate", cause);
    let blocks = pem::parse_many(pem).map_err(|error| failed(error.to_string()))?;
    let pin = |block: &pem::Pem| {
        let x509 = parse::x509(block.contents()).map_err(failed)?;
        let hash = Sha256::digest(x509.public_key().raw);
        Ok(format!("sha256:{}", hash.iter().map(|byte| format!("{byte:02x}")).collect::<String>()))
    };
    blocks.iter().filter(|block| block.tag() == "CERTIFICATE").map(pin).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pin_is_of_the_key_alone() {
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = || rcgen::CertificateParams::new(vec!["a".into()]).unwrap().self_signed(&key).unwrap().pem();
        // The key in DER, as `openssl x509 -pubkey | openssl pkey -pubin -outform der` has it.
        let der = rcgen::PublicKeyData::subject_public_key_info(&key);
        let hash: String = Sha256::digest(der).iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(
            pins(format!("{}{}", certificate(), certificate()).as_bytes()).unwrap(),
            vec![format!("sha256:{hash}"); 2]
        );
        assert!(pins(b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").is_err());
    }
}
