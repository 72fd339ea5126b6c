//! Whether it can work: the asset directory by itself (`validate`), and on this machine (`preflight`).

pub mod preflight;
pub mod validate;
