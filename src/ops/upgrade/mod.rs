//! Another version of Kubernetes for a control plane that serves: what stands in the way, the way to it, and the way back.
//!
//! ```text
//! asset directory (new), guard's Secret (old) ─► releases ─► check ─► loop { observe ─► decide ─► act }
//! ```
//!
//! There is no state file: which form of a workload stands, and which version guard's copy has, says where it is. guard's copy of
//! the old version is the way back, until the commit replaces it.

mod act;
mod check;
mod decide;
pub mod hoist;
mod holds;
pub mod node;
pub mod nodes;
mod observe;
mod releases;
mod rendered;
mod run;

use crate::base::error::{Error, Finding, Result};
use crate::node::host::Host;

pub use check::{Plan, plan};
pub use decide::{Step, Way};
pub use releases::Subject;
pub use rendered::rendered;
pub use run::{Ended, Options, run};

/// Refuses a command that works on this machine to all but root.
fn only_root(host: &Host, command: &str) -> Result<()> {
    match host.world().is_root() {
        true => Ok(()),
        false => Err(Error::Preflight(vec![Finding::new(command, "must run as root").remedy("run it with sudo")])),
    }
}
