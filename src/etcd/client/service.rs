//! The names of etcd's gRPC services.

/// Status, alarms, leadership, snapshots.
pub(super) const MAINTENANCE: &str = "etcdserverpb.Maintenance";
/// Members.
pub(super) const CLUSTER: &str = "etcdserverpb.Cluster";
/// Keys and values.
pub(super) const KV: &str = "etcdserverpb.KV";
