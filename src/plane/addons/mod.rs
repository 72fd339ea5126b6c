//! Add-ons: manifests that users want applied to a cluster that serves itself, in an order, each rank after the one
//! before it is ready.
//!
//! ```text
//! manifests ─► order ─► run: loop over ranks { apply ─► ready? ─► report } ─► prune, by inventory
//! ```
//!
//! An add-on is a folder or a file in addons/. Ranks hold across all of them; a failure holds back the later ranks of its
//! own add-on alone.

mod asset_dir;
mod diff;
mod order;
mod preview;
mod prune;
mod ready;
mod run;
mod wait;

pub use asset_dir::{AssetDir, apply_asset_dir};
pub use order::Order;
pub use preview::{Plan, plan};
pub use ready::unready;
pub use run::{Options, Summary, apply};

#[cfg(test)]
mod tests;
