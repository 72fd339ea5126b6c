//! `hoist reset`: takes hoist off this node.
//!
//! ```text
//! look (what is here, and whose it is) ─► Found ─► shown, and asked about ─► act
//! ```
//! What is not hoist's stays. Running it again removes what is left.

mod act;
mod look;

pub use act::reset;
pub use look::{Found, look};

#[cfg(test)]
mod tests;
