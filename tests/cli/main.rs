//! hoist as its users type it: the real binary, what it says, its exit code, and what it did to the disk.

// clippy.toml allows them in #[test] functions; these files are tests throughout.
#![allow(clippy::unwrap_used, clippy::expect_used)]
// The rows of a table are tuples.
#![allow(clippy::type_complexity)]

#[path = "../support/events.rs"]
mod events;
#[path = "../support/recover_page.rs"]
mod recover_page;

mod applying;
mod as_yaml;
mod bad;
mod diff;
mod endpoint;
mod exit_codes;
mod external_ca;
mod first_boot;
mod forwarding;
mod going_back;
mod images;
mod joining;
mod links;
mod looking;
mod output;
mod programs;
mod recovering;
mod reference;
mod rendering;
mod starting;
mod support;
mod systemd;
mod validating;
