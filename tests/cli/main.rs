//! hoist as its users type it: the real binary, what it says, its exit code, and what it did to the disk.

// clippy.toml allows them in #[test] functions; these files are tests throughout.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "../support/events.rs"]
mod events;

mod bad_input;
mod diff;
mod exit_codes;
mod external_ca;
mod output;
mod programs;
mod rendering;
mod starting;
mod support;
mod systemd;
