//! What `hoist validate` finds in an asset directory: nothing in one that was rendered, and the one thing that is wrong
//! in one that was broken.

// clippy.toml allows them in #[test] functions; these files are tests throughout.
#![allow(clippy::unwrap_used, clippy::expect_used)]

// The clusters of tests/golden; not all of it is used here.
#[allow(dead_code)]
#[path = "../render/support.rs"]
mod rendered;

mod agreement;
mod certificates;
mod clean;
mod encryption;
mod exported;
mod flags;
mod references;
mod schemas;
mod sizes;
mod support;
