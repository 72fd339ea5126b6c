//! A controller's host: its paths, all below a root, so that tests do not touch the machine; and everything of it
//! that is not a file.

use std::ffi::OsString;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use crate::node::world::World;

/// hoist's own binary on a controller, which its pods mount and the kubelet's unit runs.
pub const BINARY: &str = "/var/lib/hoist/bin/hoist";
/// How many links a path may lead through, as the kernel has it: more are a circle.
const MOST_LINKS: usize = 40;

/// One controller.
#[derive(Debug, Clone)]
pub struct Host {
    root: PathBuf,
    manifests: PathBuf,
    world: Arc<dyn World>,
}

impl Host {
    /// A host whose file system begins at `root` (`/` but for tests), with the kubelet's static pods in `manifests`.
    pub fn new(root: &Path, manifests: &Path, world: Arc<dyn World>) -> Self {
        Self { root: root.to_owned(), manifests: below(root, manifests), world }
    }

    /// What of it is no file.
    pub fn world(&self) -> &dyn World {
        &*self.world
    }

    /// Where a kubelet keeps its client certificate.
    pub const KUBELET_CERTIFICATE: &str = "/var/lib/kubelet/pki/kubelet-client-current.pem";

    /// The kubelet's serving certificate: a link, as that of its client certificate.
    pub fn kubelet_serving_certificate(&self) -> PathBuf {
        self.path("/var/lib/kubelet/pki/kubelet-server-current.pem")
    }

    /// Any absolute path of the host.
    pub fn path(&self, absolute: &str) -> PathBuf {
        below(&self.root, Path::new(absolute))
    }

    /// Any absolute path of the host with its symbolic links followed. What is not there has the name that it would have.
    pub fn resolve(&self, absolute: &Path) -> PathBuf {
        let reversed = |path: &Path| {
            let parts = path.components().map(|part| part.as_os_str().to_owned());
            parts.rev().collect::<Vec<OsString>>()
        };
        let (mut left, mut found, mut links) = (reversed(absolute), PathBuf::from("/"), 0);
        while let Some(part) = left.pop() {
            match Path::new(&part).components().next() {
                Some(Component::ParentDir) => drop(found.pop()),
                Some(Component::Normal(name)) => {
                    let next = found.join(name);
                    match std::fs::read_link(below(&self.root, &next)) {
                        Ok(target) if links < MOST_LINKS => {
                            links += 1;
                            if target.is_absolute() {
                                found = PathBuf::from("/");
                            }
                            left.extend(reversed(&target));
                        }
                        _ => found = next,
                    }
                }
                _ => {}
            }
        }
        below(&self.root, &found)
    }

    /// The kubelet's folder of static pods.
    pub fn manifests(&self) -> &Path {
        &self.manifests
    }

    /// A path of the host as its own programs have it, which know of no root.
    pub fn inside(&self, path: &Path) -> PathBuf {
        path.strip_prefix(&self.root).map_or_else(|_| path.to_owned(), |path| Path::new("/").join(path))
    }

    /// What the bridge's pods mount; gone when it is lowered.
    pub fn bridge(&self) -> PathBuf {
        self.path("/etc/kubernetes/bridge")
    }

    /// hoist's own binary, as the bridge's pods mount it.
    pub fn binary(&self) -> PathBuf {
        self.path(BINARY)
    }

    /// What the permanent static control plane mounts, and its manifests before they are put in.
    pub fn permanent(&self) -> PathBuf {
        self.path("/etc/kubernetes/static-pods")
    }

    /// etcd's certificates.
    pub fn etcd_pki(&self) -> PathBuf {
        self.path("/etc/kubernetes/pki/etcd")
    }

    /// What this controller's self-hosted API server serves with. Where it is not, none starts.
    pub fn serving_pki(&self) -> PathBuf {
        self.path("/etc/kubernetes/pki/apiserver")
    }

    /// What says, beside etcd's data that `reset` has kept, whose it is: the SHA-256 of its cluster's etcd CA.
    pub fn kept_etcd(&self, data_dir: &str) -> PathBuf {
        self.path(data_dir).join("hoist-cluster")
    }

    /// The kubelet's kubeconfig.
    pub fn kubelet_kubeconfig(&self) -> PathBuf {
        self.path("/etc/kubernetes/kubelet.conf")
    }

    /// The kubelet's client certificate: a link, which it moves to each new one that it gets.
    pub fn kubelet_certificate(&self) -> PathBuf {
        self.path(Self::KUBELET_CERTIFICATE)
    }
}

fn below(root: &Path, path: &Path) -> PathBuf {
    root.join(path.strip_prefix("/").unwrap_or(path))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::node::system;

    #[test]
    fn links_are_followed_below_the_root() {
        let dir = tempfile::tempdir().unwrap();
        let host = system::host(dir.path(), Path::new("/etc/kubernetes/manifests"));
        for folder in ["var/lib", "data/disk"] {
            std::fs::create_dir_all(dir.path().join(folder)).unwrap();
        }
        symlink("/data/link", dir.path().join("var/lib/etcd")).unwrap();
        symlink("../data/./disk/etcd", dir.path().join("data/link")).unwrap();
        symlink("loop", dir.path().join("data/loop")).unwrap();
        let resolved = |path: &str| host.inside(&host.resolve(Path::new(path))).display().to_string();
        assert_eq!(resolved("/var/lib/etcd"), "/data/disk/etcd");
        assert_eq!(resolved("/var/lib/etcd/member"), "/data/disk/etcd/member");
        assert_eq!(resolved("/var/lib/../lib/none/such"), "/var/lib/none/such");
        assert_eq!(resolved("/data/loop"), "/data/loop", "it leads nowhere");
    }
}
