//! That this controller is about to be none any more: keepalived's check then lets another one have the virtual address, while
//! this one still serves.

use std::path::PathBuf;

use crate::base::error::Result;
use crate::base::files::{self, File};
use crate::node::host::Host;

/// Says so.
///
/// # Errors
/// The system's refusal.
pub fn begin(host: &Host) -> Result<()> {
    let path = path(host);
    files::make_dir(path.parent().unwrap_or(&path), 0o700)?;
    files::write(&path, &File::private("this controller leaves\n")).map(drop)
}

/// Takes it back.
///
/// # Errors
/// The system's refusal.
pub fn end(host: &Host) -> Result<()> {
    files::remove(&path(host)).map(drop)
}

/// Whether it is so.
pub fn is_so(host: &Host) -> bool {
    path(host).exists()
}

/// Says that this machine is no controller any more, and that what is left of guard is to go, whatever comes between.
///
/// # Errors
/// The system's refusal.
pub fn unmade(host: &Host) -> Result<()> {
    files::write(&unmade_path(host), &File::private("this machine was a controller\n")).map(drop)
}

/// Whether it is so.
pub fn is_unmade(host: &Host) -> bool {
    unmade_path(host).exists()
}

/// Takes it back: the machine is a controller again.
///
/// # Errors
/// The system's refusal.
pub fn made_again(host: &Host) -> Result<()> {
    files::remove(&unmade_path(host)).map(drop)
}

/// Where [`unmade`] says it, in guard's folder.
pub fn unmade_path(host: &Host) -> PathBuf {
    host.path("/var/lib/hoist/guard/unmade")
}

fn path(host: &Host) -> PathBuf {
    host.path("/var/lib/hoist/guard/leaving")
}
