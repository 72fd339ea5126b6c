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
pub mod node;
pub mod nodes;
mod observe;
mod releases;
mod rendered;
mod run;

pub use check::{Plan, plan};
pub use decide::{Step, Way};
pub use releases::Subject;
pub use rendered::rendered;
pub use run::{Ended, Options, run};
