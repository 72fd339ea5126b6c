//! Real nodes for tests: a node, a cluster on it, and clients that watch what they see of it.
//!
//! ```text
//! this machine                                     the test node (scripts/node)
//!   cluster ── hoist render
//!   cluster ── scripts/node exec ─────────────────►  hoist start
//!   kubectl, traffic, watcher ── NODE_IP:6443 ────►  the API, as any client sees it
//! ```

// The e2e tests and the benchmark each use a part of it.
#![allow(dead_code)]

pub mod beside;
pub mod cluster;
pub mod command;
pub mod controller;
pub mod dns;
pub mod events;
pub mod first_boot;
pub mod http;
pub mod keepalived;
pub mod kubectl;
pub mod leases;
pub mod losses;
pub mod node;
pub mod pki;
pub mod process;
pub mod random;
pub mod reason;
pub mod recover_page;
pub mod several;
pub mod traffic;
pub mod visitors;
pub mod watcher;
pub mod worker;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The repository.
pub fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The binary under test: the one of `HOIST_BIN`, or cargo's of this build.
pub fn hoist() -> PathBuf {
    std::env::var_os("HOIST_BIN").map_or_else(|| env!("CARGO_BIN_EXE_hoist").into(), PathBuf::from)
}

/// Where the scripts keep what they have fetched and built.
pub fn cache() -> PathBuf {
    std::env::var_os("HOIST_CACHE").map_or_else(|| repository().join(".cache"), PathBuf::from)
}

/// The files of a Debian package that scripts/debian-tools has unpacked.
pub fn unpacked(package: &str) -> PathBuf {
    let folder = cache().join("debian-tools").join(package);
    assert!(folder.is_dir(), "{} is missing; run scripts/debian-tools", folder.display());
    folder
}

/// Asks until there is an answer; what is dear to ask is asked more seldom, as it takes processors from what is awaited.
///
/// # Panics
/// When there is none within `limit`.
pub fn eventually<T>(what: &str, limit: Duration, mut ask: impl FnMut() -> Option<T>) -> T {
    const PAUSE: Duration = Duration::from_millis(100);
    const LONGEST: Duration = Duration::from_secs(1);
    let begun = Instant::now();
    loop {
        let asked = Instant::now();
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(begun.elapsed() < limit, "{what}: not within {limit:?}");
        std::thread::sleep((2 * asked.elapsed()).clamp(PAUSE, LONGEST));
    }
}
