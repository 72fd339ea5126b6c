//! A machine that is a folder.

use std::path::Path;

use tempfile::TempDir;
use time::OffsetDateTime;
use tokio::sync::OnceCell;

use super::Facts;
use crate::base::error::Finding;
use crate::base::files::File;
use crate::base::yaml;
use crate::desired::assets::AssetSet;
use crate::desired::config::Cluster;
use crate::node::host::Host;
use crate::node::system;

/// When it is now.
pub fn now() -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(1_782_907_200).unwrap()
}

/// A cluster of two controllers, with `more` in its cluster.yaml.
pub fn cluster(more: &str) -> Cluster {
    const CLUSTER: &str = "apiVersion: hoist/v1alpha1\nkind: Cluster\ncontrollers:\n\
        - {name: c1, address: 192.0.2.10}\n- {name: c2, address: 192.0.2.11}\n";
    crate::desired::config::parse("f", &format!("{CLUSTER}{more}"), Path::new("/")).unwrap()
}

/// A machine whose file system is a temporary folder.
pub struct Machine(TempDir);

impl Machine {
    pub fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    pub fn put(&self, path: &str, content: impl AsRef<[u8]>) {
        let path = self.host().path(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }

    /// Has the kernel tell of these mounts, each with its options.
    pub fn mounts(&self, mounts: &[(&str, &str)]) {
        let line = |(point, options): &(&str, &str)| format!("22 1 8:1 / {point} {options} - ext4 /dev/sda1 rw\n");
        self.put("/proc/self/mountinfo", mounts.iter().map(line).collect::<String>());
    }

    pub fn host(&self) -> Host {
        system::host(self.path(), Path::new("/etc/kubernetes/manifests"))
    }

    /// What there is to look at on it, for a kubelet with this configuration.
    pub fn facts(&self, kubelet: &str) -> Facts {
        let cluster = cluster("");
        Facts {
            host: self.host(),
            assets: AssetSet::default(),
            controller: cluster.controllers[0].clone(),
            cluster,
            kubelet: yaml::documents("f", kubelet).unwrap().pop().map(|document| document.value).unwrap_or_default(),
            now: now(),
            is_root: true,
            new_cluster: false,
            path: "/usr/bin".into(),
            proxy: [None, None],
            runtime: OnceCell::new(),
            member: OnceCell::new(),
        }
    }
}

/// The TLS material of [`cluster`], made at this time.
pub fn tls(at: OffsetDateTime) -> AssetSet {
    let pki = crate::desired::pki::issue(&cluster(""), &Default::default(), &Default::default(), at).unwrap();
    let files = pki.files.into_iter().map(|(path, content)| (format!("tls/{path}"), File::private(content)));
    AssetSet { files: files.collect(), ..AssetSet::default() }
}

/// The findings without their remedies.
pub fn said(findings: &[Finding]) -> Vec<String> {
    findings.iter().map(|finding| finding.to_string().lines().next().unwrap_or_default().to_owned()).collect()
}
