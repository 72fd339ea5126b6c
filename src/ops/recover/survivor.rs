//! What the etcd of this controller has, where most of the others are lost: a snapshot of it, taken while it runs. It has all
//! that this member has applied; etcd's own `--force-new-cluster` would keep the id of the cluster, by which a member that comes
//! back would take it for its own, and drop what is in the log and was not seen to be committed.

use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use super::Data;
use super::places::Places;
use super::source::Source;
use crate::base::error::{Error, Result};
use crate::base::files;
use crate::base::report::Reporter;
use crate::desired::config::Cluster;
use crate::desired::secrets::Tls;
use crate::etcd::alarms;
use crate::etcd::client::Snapshot;
use crate::node::host::Host;

/// Where the snapshot is until it is restored. It holds every secret of the cluster.
const FOLDER: &str = "/var/lib/hoist/recover";
/// The step, as events name it.
const STEP: &str = "snapshot";

fn path(host: &Host) -> PathBuf {
    host.path(FOLDER).join("survivor.db")
}

/// What is going to be done, as lines of a plan.
pub(super) fn plan(host: &Host, places: &Places) -> Vec<String> {
    let name = |path: &Path| host.inside(path).display().to_string();
    vec![
        format!(
            "take a snapshot of this controller's etcd, and restore it to {}, by a static pod of etcd's own image",
            name(&places.work)
        ),
        "stop the kubelet, etcd and the control plane of this controller".into(),
        format!(
            "move {} to {}, and what was restored into its place",
            name(&places.place),
            name(&places.aside(host.world().now()))
        ),
    ]
}

/// Takes the snapshot.
///
/// # Errors
/// An etcd that does not give it; the system's refusal.
pub(super) async fn save(host: &Host, cluster: &Cluster, tls: &Tls, reporter: &Reporter) -> Result<Source> {
    reporter.start(STEP, "take a snapshot of this controller's etcd");
    let path = path(host);
    files::make_dir(&host.path(FOLDER), 0o700)?;
    files::remove(&path)?;
    let mut snapshot = Snapshot::begin(SocketAddr::new(cluster.loopback(), alarms::PORT), tls).await?;
    let mut beside = files::Beside::create(&path)?;
    while let Some(piece) = snapshot.piece().await? {
        beside.write_all(&piece).map_err(|error| Error::io("write", &path, error))?;
    }
    beside.commit(false)?;
    let source = Source::read(&Data::Snapshot(path))?;
    reporter.done(STEP);
    Ok(source)
}

/// Removes it.
///
/// # Errors
/// The system's refusal.
pub(super) fn remove(host: &Host) -> Result<()> {
    files::remove_dir(&host.path(FOLDER)).map(drop)
}
