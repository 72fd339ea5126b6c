//! Keys that are changed in a running cluster, in phases that each leave it whole. Pure: what is seen is a parameter, and where
//! a rotation stands is what the files themselves say.
//!
//! ```text
//! files, servers' words ─► Observed ─► encryption, service_account, front_proxy, etcd_ca: Rotation ─► Seen ─► decide ─► Step
//!                                         └─► what a phase has in each place ─► put ─► tls/, manifests of Secrets
//! ```
//! What is common to all keys is in `decide` and `observed`: the order of the places and what is waited for. A kind of key says
//! how far files are, and what they have in a phase; which of its keys or CAs stay, and in which order, is in `ring`,
//! and what all CAs have in common in `ca_ring`.

mod ca_ring;
mod decide;
pub mod encryption;
pub mod etcd_ca;
pub mod front_proxy;
mod kinds;
mod observed;
mod put;
mod ring;
pub mod service_account;
pub mod tokens;

pub use decide::{Asked, Left, Level, Seen, Server, Step, decide, towards};
pub use kinds::rotation;
pub use observed::{
    CA, CA_KEY, CLIENT, CLIENT_KEY, Clock, ETCD_CA, ETCD_CA_KEY, ETCD_CLIENTS, Keys, Observed, PUBLIC, Rotation,
    SIGNING, Word, in_tls, seen,
};
pub use put::{put, sum};

#[cfg(test)]
mod tests;
