//! The inventory of certificates: every copy that there is, read where it is, and what each listener serves. Whatever shows,
//! counts or renews certificates reads it here.
//!
//! ```text
//! disk, guard's copy, asset directory ─┐
//! Secrets and ConfigMaps (api) ────────┴─► copies (pure) ─► shown, counted
//! listeners ─► served ─────────────────────────────────┘
//! ```

mod cluster;
mod copy;
mod disk;
mod served;

pub use cluster::in_cluster;
pub use copy::{CertificateCopy, name};
pub use disk::{ends, in_guards_copy, of_assets, on_disk};
pub use served::{Listener, Served, ask, listeners, served};
