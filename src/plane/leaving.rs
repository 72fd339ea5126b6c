//! That this controller is about to be none any more, or its machine is being switched off. keepalived's check then lets another
//! one have the virtual address, while this one still serves, and guard keeps its address out of those of the `kubernetes`
//! Service.

use std::path::PathBuf;

use crate::base::error::Result;
use crate::base::files::{self, File};
use crate::node::host::Host;

/// Why it leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// Its label is taken away.
    Label,
    /// The machine is being switched off: it comes back.
    Shutdown,
}

/// Says so.
///
/// # Errors
/// The system's refusal.
pub fn begin(host: &Host, why: Why) -> Result<()> {
    let path = path(host, why);
    files::make_dir(path.parent().unwrap_or(&path), 0o700)?;
    files::write(&path, &File::private("this controller leaves\n")).map(drop)
}

/// Takes it back.
///
/// # Errors
/// The system's refusal.
pub fn end(host: &Host, why: Why) -> Result<()> {
    files::remove(&path(host, why)).map(drop)
}

/// Whether it is so, for whatever reason.
pub fn is_so(host: &Host) -> bool {
    [Why::Label, Why::Shutdown].into_iter().any(|why| path(host, why).exists())
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

fn path(host: &Host, why: Why) -> PathBuf {
    let name = match why {
        Why::Label => "leaving",
        Why::Shutdown => "shutdown",
    };
    host.path("/var/lib/hoist/guard").join(name)
}
