//! A snapshot of etcd's in a file, as `etcdctl snapshot save` makes it.

use std::io::Write;
use std::net::SocketAddr;
use std::path::Path;

use super::client::Snapshot;
use super::snapshot::Check;
use crate::base::error::{Error, Result};
use crate::base::files::Beside;
use crate::desired::secrets::Tls;

/// Saves a snapshot of the etcd at `address` as `path`, which gets it whole or not at all; says its length in bytes. What is there
/// is replaced. `tls` has the certificates that etcd lets in.
///
/// # Errors
/// An etcd that does not answer, or breaks off; the system's refusal.
pub async fn save(address: SocketAddr, tls: &Tls, path: &Path) -> Result<u64> {
    let mut snapshot = Snapshot::begin(address, tls).await?;
    let (mut beside, mut check) = (Beside::create(path)?, Check::default());
    while let Some(piece) = snapshot.piece().await? {
        beside.write_all(&piece).map_err(|error| Error::io("write", path, error))?;
        check.update(&piece);
    }
    let length = check.length();
    check.finish().map_err(|why| Error::failed("take the snapshot of etcd", format!("what came {why}")))?;
    beside.commit(true)?;
    Ok(length)
}
