//! Keys that are changed in a running cluster, in phases that each leave it whole. Pure: what is seen is a parameter, and where
//! a rotation stands is what the files themselves say.
//!
//! ```text
//! files, servers' words ─► encryption ─► Seen ─► decide ─► Step
//!                             └─► what a phase has in each place ─► put ─► tls/, manifests of Secrets
//! ```

mod decide;
pub mod encryption;
mod put;

pub use decide::{Asked, Level, Seen, Server, Step, decide, towards};
pub use put::{put, sum};
