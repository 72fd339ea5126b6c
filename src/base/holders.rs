//! Who holds the lock on a file (flock): root, this user, or somebody else who may merely read it.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::unistd::geteuid;

/// Whether a process of root's or of this user's holds `file`, as `proc` tells. One that cannot be told is taken for one.
pub fn is_ours(proc: &Path, file: &File) -> bool {
    let holders = holders(proc, file);
    let is_ours = |pid: &i32| match fs::metadata(proc.join(pid.to_string())) {
        Ok(meta) => meta.uid() == 0 || meta.uid() == geteuid().as_raw(),
        // It has ended since, and its lock with it.
        Err(_) => true,
    };
    holders.is_empty() || holders.iter().any(is_ours)
}

/// The processes that hold `file`, as the kernel has them.
pub fn holders(proc: &Path, file: &File) -> Vec<i32> {
    let Ok(meta) = file.metadata() else { return Vec::new() };
    let (major, minor) = (nix::sys::stat::major(meta.dev()), nix::sys::stat::minor(meta.dev()));
    let id = format!("{major:02x}:{minor:02x}:{}", meta.ino());
    // proc(5): number, FLOCK, ADVISORY, READ or WRITE, pid, device and inode, from, to. One that waits has an arrow.
    let holder = |line: &str| {
        let fields: Vec<_> = line.split_whitespace().collect();
        let is_its = fields.len() >= 6 && fields[1] == "FLOCK" && fields[5] == id;
        fields.get(4).filter(|_| is_its)?.parse().ok()
    };
    let locks = fs::read_to_string(proc.join("locks")).unwrap_or_default();
    locks.lines().filter_map(holder).filter(|pid| *pid > 0).collect()
}
