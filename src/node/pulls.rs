//! What containerd has of the images that it is pulling: progress that shows only on the disk.

use std::path::Path;

use crate::node::host::Host;

/// Where containerd keeps what it has of an image that it is pulling.
const PULLS: &str = "/var/lib/containerd/io.containerd.content.v1.content/ingest";

/// The bytes of images that containerd is pulling on this host.
pub fn pulled(host: &Host) -> u64 {
    let size = |entry: std::fs::DirEntry| std::fs::metadata(entry.path().join("data")).ok().map(|meta| meta.len());
    let entries = |dir: &Path| std::fs::read_dir(dir).into_iter().flatten().flatten();
    entries(&host.path(PULLS)).filter_map(size).sum()
}
