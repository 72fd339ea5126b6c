//! Checks whether a cluster can work: of the asset directory by itself (`validate`), and of this machine
//! (`preflight`).

pub mod preflight;
pub mod validate;
