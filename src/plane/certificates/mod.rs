//! The inventory of certificates of a controller and its cluster: every copy that there is, read where it is, and what each
//! listener serves. How a copy is found in a text is `desired/certificates`.
//!
//! ```text
//! disk, guard's copy, asset directory ─┐
//! Secrets and ConfigMaps (api) ────────┴─► copies (pure) ─► shown, counted
//! listeners ─► served ─────────────────────────────────┘
//! ```

mod cluster;
mod disk;
mod served;

pub use crate::desired::certificates::{
    CertificateCopy, Ending, KeyCopy, endings, keys_of_assets, name, of_assets, unsaid,
};
pub use cluster::{in_cluster, keys_in_cluster};
pub use disk::{ends, in_guards_copy, keys_in_guards_copy, keys_on_disk, on_disk};
pub use served::{Listener, Served, ask, listeners, served};
