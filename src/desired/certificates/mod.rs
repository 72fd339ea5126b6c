//! The inventory of certificates, as far as it is read in texts: what `hoist certs`, `status`, `validate`, `backup` and guard
//! know of certificates, they know from here.
//!
//! ```text
//! PEM, kubeconfig, Secret, ConfigMap, caBundle ─► copies, keys ─► endings
//! ```

mod copy;
mod endings;
mod fields;
mod keys;

pub use copy::{CertificateCopy, copies, in_pem, name, of_assets};
pub use endings::{Ending, endings, unsaid};
pub use fields::fields;
pub use keys::{KeyCopy, keys, keys_of_assets};
