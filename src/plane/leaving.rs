//! That this controller is about to be none any more, or its machine or its etcd is being ended. keepalived's check then lets another
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
    /// Its etcd is being ended, and comes back.
    Etcd,
    /// It is none any more, and what is left of guard is to go, whatever comes between.
    Unmade,
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

/// Whether it is about to be so, for whatever reason.
pub fn is_so(host: &Host) -> bool {
    [Why::Label, Why::Shutdown, Why::Etcd].into_iter().any(|why| path(host, why).exists())
}

/// Whether it is none any more.
pub fn is_unmade(host: &Host) -> bool {
    path(host, Why::Unmade).exists()
}

/// Where that is said, in guard's folder.
pub fn path(host: &Host, why: Why) -> PathBuf {
    let name = match why {
        Why::Label => "leaving",
        Why::Shutdown => "shutdown",
        Why::Etcd => "etcd-ends",
        Why::Unmade => "unmade",
    };
    host.path("/var/lib/hoist/guard").join(name)
}
