//! Keys and certificates. [`issue`] is pure: it takes the files of tls/, the files that the user names and the time,
//! and returns the files that belong into tls/. It never replaces an existing key or CA.
//!
//! ```text
//! plan (what a cluster needs) ─► issue (keep or make each file) ─► Pki
//!                                  └─ parse, sign, inspect, external
//! ```

mod ask;
mod cas;
mod constraints;
mod encryption;
mod external;
mod file;
mod fitness;
mod inspect;
mod issue;
mod issuer;
mod key_id;
mod own;
mod parse;
mod pin;
mod plan;
mod reissue;
mod request;
mod sign;
mod token;
mod user;
pub mod verify;

use std::collections::BTreeMap;
use std::fmt;

use crate::base::error::Finding;

pub use ask::{ask, asks_for};
pub use cas::{Ca, ca_name, ca_names, ca_sums, cas, etcd_ca, front_proxy_ca, front_proxy_client};
pub use encryption::{ENCRYPTION, lost_keys};
pub(in crate::desired) use encryption::{WITH_KEYS, key as encryption_key, list, read as encryption};
pub use fitness::Unfit;
pub use inspect::{CertificateInfo, inspect};
pub use issue::issue;
pub use issuer::{certificates_of, first_certificate, is_issued_by, vouches_for_client};
pub use key_id::key_ids;
pub(in crate::desired) use key_id::signing_pair;
pub use own::own;
pub use pin::pins;
pub use reissue::{is_newer, reissue, reissue_by};
pub use request::{Request, request};
pub use token::{bootstrap_token, is_token, is_token_id};
pub use user::{UserFiles, exposed_user_files, read_user_files};

/// Everything that belongs in tls/, and what of it is new.
#[derive(Clone, PartialEq, Eq)]
pub struct Pki {
    /// Contents by path relative to tls/. Files of controllers that left the cluster are not among them.
    pub files: BTreeMap<String, Vec<u8>>,
    /// The files that are new or differ from what stood there, in the order of their making.
    pub issued: Vec<Issued>,
    /// Certificates that CAs whose keys are elsewhere have yet to sign; each has its request among the files. While
    /// there are any, nothing can be made of the files.
    pub awaited: Vec<Finding>,
    /// Certificates of such CAs that will expire soon; they have their requests, too.
    pub due: Vec<Finding>,
}

/// A file that [`issue`] made or changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issued {
    /// Its path in tls/.
    pub path: String,
    /// Why: "new", "expired 2026-01-02", "a name was added: c2".
    pub reason: String,
    /// It is a user's file as it is; what is not is made by chance, and no two are alike.
    pub is_copied: bool,
}

/// Names the files only: half of them are secret.
impl fmt::Debug for Pki {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pki").field("files", &self.files.keys()).field("issued", &self.issued).finish()
    }
}
