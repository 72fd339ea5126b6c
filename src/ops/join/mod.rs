//! A controller is made by a label, and unmade by taking it away. guard runs this beside its own loop on each controller.
//!
//! ```text
//! every controller:  Nodes with the label ─┐
//!                    members of etcd ──────┴─► members::decide ─► under the turn: add, promote, remove one
//! the new one:       its disk, its Node, the members ─► decide ─► certificates, etcd, API server
//! ```
//! Each looks afresh and does one thing at a time, so that either may be killed at any moment and goes on. `decide` is what
//! the new controller does on its own machine; `etcd/members` decides on changes of the members, which whoever sees them
//! first makes, under the turn (`api/turn.rs`). `look.rs` observes, `run.rs` is the loop.

mod addresses;
mod decide;
mod leave;
mod look;
mod run;

use std::time::Duration;

pub use leave::{client_of_another, unmake, until_removed};
pub use run::run;

/// How long a controller's API server may take to say that it is ready.
const ASK_LIMIT: Duration = Duration::from_secs(2);
/// How long one call of a member's may take.
const CALL_LIMIT: Duration = Duration::from_secs(5);
