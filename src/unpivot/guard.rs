//! Taking guard away: it would take the missing self-hosted API server for a mishap, and raise a bridge of its own.

use kube::Client;

use crate::api::self_hosted;
use crate::error::Result;
use crate::host::Host;
use crate::static_pods::StaticPods;
use crate::{files, kubelet};

/// Its static pod.
const MANIFEST: &str = "hoist-guard.yaml";
/// What it keeps on the disk.
const FOLDER: &str = "/var/lib/hoist/guard";
/// What makes the kubelet wait for it.
const DROP_IN: &str = "/etc/systemd/system/kubelet.service.d/10-hoist-guard.conf";

/// Takes guard away: first what would bring it back, then what of it is here. What is not there is fine.
///
/// # Errors
/// The API server's word, or the system's refusal; calling again goes on.
pub async fn take_guard_away(host: &Host, client: &Client) -> Result<()> {
    self_hosted::delete_guard(client).await?;
    take_guard_off(host).await
}

/// Takes off this host what guard has on it.
///
/// # Errors
/// The system's refusal.
pub async fn take_guard_off(host: &Host) -> Result<()> {
    StaticPods::new(host.manifests()).remove(MANIFEST)?;
    files::remove_dir(&host.path(FOLDER))?;
    if files::remove(&host.path(DROP_IN))? && kubelet::is_systemd(host) {
        kubelet::systemctl(host, &["daemon-reload"]).await?;
    }
    Ok(())
}
