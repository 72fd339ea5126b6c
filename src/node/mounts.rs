//! What is mounted where, as /proc/self/mountinfo tells; see proc_pid_mountinfo(5).

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use crate::node::host::Host;

/// One mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// Where it is mounted, as the host's own programs have it.
    pub point: PathBuf,
    /// The numbers of its file system, as `8:1`: another one at each boot, perhaps.
    pub device: String,
    /// Which folder of the file system is mounted.
    pub root: PathBuf,
    /// What this mount allows, whatever the file system's other mounts do: `rw`, `noexec` and their like.
    pub options: Vec<String>,
}

impl Mount {
    /// Whether programs on it cannot be run.
    pub fn is_noexec(&self) -> bool {
        self.options.iter().any(|option| option == "noexec")
    }
}

/// All mounts that this process sees, in the order in which they were made.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Mounts(Vec<Mount>);

impl Mounts {
    /// The mounts of `host`; none where the kernel does not tell.
    pub fn of(host: &Host) -> Self {
        let table = std::fs::read_to_string(host.path("/proc/self/mountinfo")).unwrap_or_default();
        Self(table.lines().filter_map(mount).collect())
    }

    /// Those that the first process of the machine sees: what was mounted after a container began is not in the container.
    pub fn of_machine(host: &Host) -> Self {
        let table = std::fs::read_to_string(host.path("/proc/1/mountinfo")).unwrap_or_default();
        Self(table.lines().filter_map(mount).collect())
    }

    /// Which folder of which file system `path` is: its numbers, and the path in it. No link is followed.
    pub fn place(&self, path: &Path) -> Option<(&str, PathBuf)> {
        let mount = self.around(path)?;
        Some((&mount.device, mount.root.join(path.strip_prefix(&mount.point).ok()?)))
    }

    /// Whether something is mounted at `path` itself: no link is followed.
    pub fn is_point(&self, path: &Path) -> bool {
        self.0.iter().any(|mount| mount.point == path)
    }

    /// The mount that `path` is on: no link is followed.
    pub fn around(&self, path: &Path) -> Option<&Mount> {
        let length = |mount: &&Mount| mount.point.components().count();
        // Of several at one place, the last one covers the others.
        self.0.iter().filter(|mount| path.starts_with(&mount.point)).max_by_key(length)
    }

    /// The places in `folder` that something is mounted at, itself included.
    pub fn within(&self, folder: &Path) -> Vec<PathBuf> {
        self.0.iter().filter(|mount| mount.point.starts_with(folder)).map(|mount| mount.point.clone()).collect()
    }
}

fn mount(line: &str) -> Option<Mount> {
    let mut fields = line.split(' ').skip(2);
    let (device, root) = (fields.next()?, fields.next()?);
    let (point, options) = (fields.next()?, fields.next()?);
    Some(Mount {
        point: unescaped(point),
        device: device.to_owned(),
        root: unescaped(root),
        options: options.split(',').map(str::to_owned).collect(),
    })
}

/// A path whose spaces, tabs, line ends and backslashes stand as three octal digits behind a backslash.
fn unescaped(text: &str) -> PathBuf {
    let bytes = text.as_bytes();
    let (mut path, mut at) = (Vec::with_capacity(bytes.len()), 0);
    while let Some(byte) = bytes.get(at) {
        let digits =
            bytes.get(at + 1..at + 4).filter(|_| *byte == b'\\').and_then(|digits| str::from_utf8(digits).ok());
        match digits.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(meant) => {
                path.push(meant);
                at += 4;
            }
            None => {
                path.push(*byte);
                at += 1;
            }
        }
    }
    PathBuf::from(OsString::from_vec(path))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::system;

    #[test]
    fn mounts_are_read_as_the_kernel_writes_them() {
        let dir = tempfile::tempdir().unwrap();
        let host = system::host(dir.path(), Path::new("/etc/kubernetes/manifests"));
        assert_eq!(Mounts::of(&host).around(Path::new("/var")), None, "the kernel does not tell");
        std::fs::create_dir_all(dir.path().join("proc/self")).unwrap();
        let table = "22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n\
            36 22 98:0 / /var/lib/my\\040etcd rw,noatime - ext4 /dev/sdb rw\n\
            40 22 98:1 / /var rw,nosuid,nodev,noexec master:3 - xfs /dev/sdc rw\n\
            41 40 98:1 /hoist /var/lib/hoist rw - xfs /dev/sdc rw\n\
            42 41 98:2 / /var/lib/hoist rw,noexec - tmpfs tmpfs rw\n";
        std::fs::write(dir.path().join("proc/self/mountinfo"), table).unwrap();
        let mounts = Mounts::of(&host);
        assert!(mounts.is_point(Path::new("/var/lib/my etcd")) && !mounts.is_point(Path::new("/var/lib")));
        let noexec = |path: &str| mounts.around(Path::new(path)).unwrap().is_noexec();
        assert!(noexec("/var/lib") && noexec("/var") && noexec("/var/lib/hoist/bin"));
        assert!(!noexec("/variable") && !noexec("/var/lib/my etcd/member"));
        assert_eq!(mounts.within(Path::new("/var/lib/hoist")).len(), 2);
        let place =
            |path: &str| mounts.place(Path::new(path)).map(|(device, path)| format!("{device} {}", path.display()));
        assert_eq!(place("/var/lib/my etcd/member").as_deref(), Some("98:0 /member"));
        assert_eq!(place("/var/lib/etcd").as_deref(), Some("98:1 /lib/etcd"));
        assert_eq!(unescaped(r"/a\134b\"), Path::new(r"/a\b\"));
    }
}
