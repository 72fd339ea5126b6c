//! The PKI as its users and openssl see it. These tests need the `openssl` command.

// clippy.toml allows them in #[test] functions; these files are tests throughout.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod chains;
mod external;
mod issue;
mod support;
mod unfit;
mod user_files;
