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

fn path(host: &Host) -> PathBuf {
    host.path("/var/lib/hoist/guard/leaving")
}
