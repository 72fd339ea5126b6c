//! What can be rotated, each by its own rules.

use super::decide::Asked;
use super::encryption::EncryptionKey;
use super::etcd_ca::EtcdCa;
use super::front_proxy::FrontProxyCa;
use super::observed::{Keys, Observed, Rotation};
use super::service_account::ServiceAccountKey;
use crate::base::error::Result;

/// Where it stands, by what the places have.
///
/// # Errors
/// What cannot be rotated, with why.
pub fn rotation(keys: Keys, seen: &Observed, asked: Asked) -> Result<Box<dyn Rotation>> {
    Ok(match keys {
        Keys::EncryptionKey => Box::new(EncryptionKey::of(seen, asked)?),
        Keys::ServiceAccount => Box::new(ServiceAccountKey::of(seen, asked)?),
        Keys::FrontProxyCa => Box::new(FrontProxyCa::of(seen, asked)?),
        Keys::EtcdCa => Box::new(EtcdCa::of(seen, asked)?),
    })
}
