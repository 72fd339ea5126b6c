//! What guard remembers of its controller beyond a reboot: where the other controllers are, which cluster its member was in,
//! and where the file system of etcd's data was mounted. All of it may be lost: guard then asks fewer, and touches less.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::base::error::Result;
use crate::base::files::{self, File};
use crate::desired::config::Cluster;
use crate::node::host::Host;

/// Where it is.
const PATH: &str = "/var/lib/hoist/guard/remembered.json";

/// It as it is written.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Remembered {
    /// The addresses of the other controllers.
    pub others: BTreeSet<IpAddr>,
    /// The id of the cluster that this controller's member of etcd was in, in hexadecimal digits.
    pub cluster: Option<String>,
    /// Where the file system of etcd's data was mounted, while the data was there.
    pub data_mount: Option<PathBuf>,
}

impl Remembered {
    /// What is remembered; nothing where that cannot be read.
    pub fn load(host: &Host) -> Self {
        let text = std::fs::read(host.path(PATH)).unwrap_or_default();
        serde_json::from_slice(&text).unwrap_or_default()
    }

    /// Whether this controller is the only one of `cluster`, as far as that is known here.
    pub fn is_only(host: &Host, cluster: &Cluster) -> bool {
        cluster.controllers.len() == 1 && Self::load(host).others.is_empty()
    }

    /// Writes it.
    ///
    /// # Errors
    /// The system's refusal; what stood there stands.
    pub fn store(&self, host: &Host) -> Result<()> {
        let path = host.path(PATH);
        files::make_dir(path.parent().unwrap_or(Path::new("/")), 0o700)?;
        let text = serde_json::to_string(self).unwrap_or_default();
        files::write(&path, &File::private(format!("{text}\n"))).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::system;

    #[test]
    fn what_is_remembered_is_there_again() {
        let root = tempfile::tempdir().unwrap();
        let host = system::host(root.path(), Path::new("/etc/kubernetes/manifests"));
        assert_eq!(Remembered::load(&host), Remembered::default());
        let remembered = Remembered {
            others: BTreeSet::from([IpAddr::from([10, 0, 0, 2])]),
            cluster: Some("7".into()),
            data_mount: Some("/var/lib/etcd".into()),
        };
        remembered.store(&host).unwrap();
        assert_eq!(Remembered::load(&host), remembered);
        std::fs::write(host.path(PATH), "{").unwrap();
        assert_eq!(Remembered::load(&host), Remembered::default(), "it is torn");
    }
}
