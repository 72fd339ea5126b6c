//! hoist as its users type it: the real binary, what it says, its exit code, and what it did to the disk.

// clippy.toml allows them in #[test] functions; these files are tests throughout.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod bad_input;
mod exit_codes;
mod output;
mod rendering;
mod starting;
mod support;
