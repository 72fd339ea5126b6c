//! The endpoint on a controller's disk: its static pod, and hoist's binary where no image has it.

use std::path::{Path, PathBuf};

use crate::base::error::Result;
use crate::base::files;
use crate::desired::assets::AssetSet;
use crate::desired::config::Cluster;
use crate::desired::node_endpoint::{self, NAME};
use crate::node::host::{self, Host};
use crate::node::static_pods::StaticPods;

/// Whether it is on the host, whatever it says.
pub fn is_there(host: &Host) -> bool {
    StaticPods::new(host.manifests()).has(NAME)
}

/// Whether it is on the host, and runs hoist from this machine's disk.
pub fn mounts_binary(host: &Host) -> bool {
    StaticPods::new(host.manifests()).read(NAME).is_some_and(|text| text.contains(host::BINARY))
}

/// Puts it on the host, where nodes have an endpoint, and says whether anything changed. `binary` is hoist's own.
///
/// # Errors
/// The system's refusal; running it again goes on.
pub fn install(host: &Host, assets: &AssetSet, cluster: &Cluster, binary: &Path) -> Result<bool> {
    let Some(text) = node_endpoint::manifest(assets, cluster)? else { return Ok(false) };
    let pods = StaticPods::new(host.manifests());
    if pods.read(NAME).as_ref() == Some(&text) {
        return Ok(false);
    }
    let own = host.binary();
    if text.contains(host::BINARY) && !own.is_file() {
        files::make_dir(own.parent().unwrap_or(Path::new("/")), 0o755)?;
        files::copy_program(binary, &own)?;
    }
    pods.install_lasting(NAME, &text)
}

/// Takes it from the host, and says whether it was there. What it remembers stays.
///
/// # Errors
/// The system's refusal.
pub fn remove(host: &Host) -> Result<bool> {
    StaticPods::new(host.manifests()).remove(NAME)
}

/// Every file that [`install`] may make.
pub fn footprint(host: &Host) -> Vec<PathBuf> {
    vec![host.binary(), host.manifests().join(NAME)]
}
