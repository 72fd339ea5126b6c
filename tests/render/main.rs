//! What `hoist render` makes: every file held against `tests/golden`, and what must be true of all of them.

// clippy.toml allows them in #[test] functions; these files are tests throughout.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod golden;
mod kubernetes_types;
mod rules;
mod security;
mod security_page;
mod support;
mod types;
