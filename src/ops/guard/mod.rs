//! `hoist guard`: reboots, bad edits and crashes do not take the API down. A static pod on each controller.
//!
//! ```text
//! copy (disk) ─┐
//! observer ────┴─► decide (pure) ─► raise (install) │ hand over (start) │ rest
//!      loopback, NODE_IP, etcd, /proc                └─► heartbeat: events, Leases, the Secret; metrics
//! ```
//! `decide` decides, `run.rs` is the loop, `acts.rs` has the acts. plane/ has the bridge that guard keeps (`kept_copy`), and
//! puts both on the disk (`guard_pod`). `watch.rs` observes etcd's alarms and images. `leave.rs` has what precedes guard's
//! leaving. `keeper.rs` runs beside the loop: it keeps this controller's address and, by `approver.rs`, approves kubelets'
//! serving certificates. `check.rs` is what keepalived asks, `shutdown.rs` what precedes
//! the machine's being switched off, `etcd_ends.rs` what precedes etcd's end, `etcd_roll.rs` exchanges etcd when an upgrade orders it, `virtual_address.rs` has the virtual address leave
//! first.

mod acts;
mod approver;
mod check;
pub mod decide;
mod etcd_ends;
mod etcd_roll;
mod heartbeat;
mod keeper;
mod leases;
mod leave;
mod metrics;
mod observer;
mod run;
mod shutdown;
mod virtual_address;
mod watch;

pub use check::{Place, Question, check};
pub use leave::may_remove;
pub use run::{Options, run};
pub use shutdown::shut_down;
