//! etcd: what hoist asks it, its snapshots, its data on the disk.

pub mod alarms;
pub mod client;
pub mod data;
pub mod snapshot;
