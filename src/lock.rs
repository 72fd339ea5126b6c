//! One hoist at a time changes a node: the lock that sees to it.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::error::{Error, Result};
use crate::host::Host;
use crate::start::rfc3339;

/// Guard holds it for milliseconds, now and then: whoever comes then need not hear of it.
const TRIES: u32 = 20;
const INTERVAL: Duration = Duration::from_millis(50);

/// Takes the lock that keeps a second hoist from this node, until it is dropped.
///
/// # Errors
/// Who holds it, and since when; the system's refusal.
pub fn take(host: &Host) -> Result<File> {
    for _ in 1..TRIES {
        match try_take(host) {
            Err(Error::Locked { .. }) => std::thread::sleep(INTERVAL),
            taken => return taken,
        }
    }
    try_take(host)
}

/// The same without any patience.
///
/// # Errors
/// The same.
pub fn try_take(host: &Host) -> Result<File> {
    let path = path(host);
    let open = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
    let mut file = open.map_err(|error| Error::io("lock", &path, error))?;
    match file.try_lock() {
        Ok(()) => {
            let now = rfc3339(host.outside().now());
            let text = format!("pid {}, since {now}\n", std::process::id());
            let wrote = file.set_len(0).and_then(|()| file.rewind()).and_then(|()| file.write_all(text.as_bytes()));
            wrote.map_err(|error| Error::io("lock", &path, error))?;
            Ok(file)
        }
        Err(TryLockError::WouldBlock) => Err(Error::Locked { holder: read(&mut file, &path)? }),
        Err(TryLockError::Error(error)) => Err(Error::io("lock", &path, error)),
    }
}

/// Who holds it now, in their own words; `None` when nobody does, as far as can be told.
pub fn holder(host: &Host) -> Option<String> {
    let path = path(host);
    let mut file = File::open(&path).ok()?;
    match file.try_lock_shared() {
        Err(TryLockError::WouldBlock) => read(&mut file, &path).ok(),
        _ => None,
    }
}

fn read(file: &mut File, path: &Path) -> Result<String> {
    let mut holder = String::new();
    file.read_to_string(&mut holder).map_err(|error| Error::io("read", path, error))?;
    Ok(holder.trim().to_owned())
}

fn path(host: &Host) -> PathBuf {
    host.path("/run/hoist.lock")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_held_by_one_and_says_by_whom() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("run")).unwrap();
        let host = Host::new(root.path(), Path::new("/etc/kubernetes/manifests"));
        assert_eq!(holder(&host), None);
        let held = take(&host).unwrap();
        let pid = format!("pid {}, since ", std::process::id());
        assert!(holder(&host).unwrap().starts_with(&pid));
        assert!(matches!(try_take(&host), Err(Error::Locked { holder }) if holder.starts_with(&pid)));
        drop(held);
        assert_eq!(holder(&host), None);
        take(&host).unwrap();
    }
}
