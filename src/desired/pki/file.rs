//! A PEM file with the name that findings give it.

use rcgen::KeyPair;

use super::parse;
use crate::base::error::{Error, Finding, Result};

/// A file that stands in tls/ or that the user named.
#[derive(Clone)]
pub(super) struct File<'a> {
    pub place: String,
    pub bytes: &'a [u8],
}

impl File<'_> {
    /// Its certificates as DER, at least one.
    pub fn certificates(&self) -> Result<Vec<Vec<u8>>> {
        parse::certificates(&self.place, self.bytes).map_err(input)
    }

    /// Its private key.
    pub fn key(&self) -> Result<KeyPair> {
        parse::key(&self.place, self.bytes).map_err(input)
    }

    /// Something wrong with it.
    pub fn finding(&self, message: impl Into<String>) -> Finding {
        Finding::new(&*self.place, message)
    }

    /// This key does not belong to that certificate.
    pub fn not_the_key_of(&self, certificate: &File<'_>) -> Error {
        let finding = self.finding(format!("is not the key of {}", certificate.place));
        input(finding.remedy("put the matching key there; or, if the key is right, move the certificate away"))
    }
}

/// A single finding as an error.
pub(super) fn input(finding: Finding) -> Error {
    Error::Input(vec![finding])
}
