//! What a controller's self-hosted API server serves with, on its disk. The kubelet starts none before it is there, so that a
//! controller in the making has no API server that ends again and again.

use std::path::{Path, PathBuf};

use crate::base::error::Result;
use crate::base::files::{self, File};
use crate::desired::config::Controller;
use crate::desired::secrets::{self, SERVING, SecretFiles, Tls};
use crate::node::host::Host;

/// Whether it is there.
pub fn is_there(host: &Host) -> bool {
    SERVING.iter().all(|name| host.serving_pki().join(name).is_file())
}

/// Puts the pair of `controller` there, from tls/; says whether that changed anything. An API server that runs takes it up.
///
/// # Errors
/// Every file that tls/ lacks; the system's refusal.
pub fn install(host: &Host, controller: &Controller, tls: &Tls) -> Result<bool> {
    write(&host.serving_pki(), secrets::of_serving(&controller.name, tls)?)
}

/// Writes files that are root's alone into a folder that is; says whether that changed anything.
pub(super) fn write(folder: &Path, content: SecretFiles) -> Result<bool> {
    files::make_dir(folder, 0o700)?;
    let content: Vec<_> = content.into_iter().map(|(name, text)| (folder.join(name), File::private(text))).collect();
    Ok(!files::write_all(content.iter().map(|(path, file)| (path.clone(), file)))?.is_empty())
}

/// The files that [`install`] makes.
pub fn footprint(host: &Host) -> Vec<PathBuf> {
    SERVING.iter().map(|name| host.serving_pki().join(name)).collect()
}

/// Takes it away.
///
/// # Errors
/// The system's refusal.
pub fn remove(host: &Host) -> Result<()> {
    files::remove_dir(&host.serving_pki()).map(drop)
}
