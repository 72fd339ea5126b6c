//! etcd: its client, its members, its alarms, its snapshots.

pub mod alarms;
pub mod client;
pub mod members;
pub mod save;
pub mod snapshot;
