//! `hoist guard`: reboots, bad edits and crashes do not take the API down. A static pod on each controller.
//!
//! ```text
//! copy (disk) ─┐
//! observer ────┴─► decide (pure) ─► raise (install) │ hand over (start) │ rest
//!      loopback, NODE_IP, etcd, /proc                └─► tell: events, heartbeat, metrics
//! ```
//! `decide` says when, `run.rs` is the loop, `acts.rs` what it does. plane/ has the bridge that it keeps (`kept_copy`) and how
//! both get on the disk (`guard_pod`).
//! `watch.rs` is what it looks at beside: etcd's alarms, images. `leave.rs` is what comes before it goes. `keeper.rs` runs
//! beside the loop: this controller's address, and by `approver.rs` kubelets' serving certificates.

mod acts;
mod approver;
pub mod decide;
mod keeper;
mod leases;
mod leave;
mod metrics;
mod observer;
mod run;
mod tell;
mod watch;

pub use leave::may_remove;
pub use run::{Options, run};
