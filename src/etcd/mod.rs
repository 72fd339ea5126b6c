//! etcd: its client, its alarms, its snapshots.

pub mod alarms;
pub mod client;
pub mod snapshot;
