//! What the pods of a tenant's snapshots do: one is taken, or takes the place of the data.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use time::OffsetDateTime;

use crate::base::error::{Error, Result};
use crate::base::files;
use crate::base::input::{self, CONFIG_LIMIT};
use crate::base::time::rfc3339;
use crate::desired::secrets::Tls;
use crate::etcd::save;

/// What a snapshot's file ends with.
pub const END: &str = ".snapshot";
/// etcd's data, in the folder of a tenant.
const MEMBER: &str = "member";
/// Where a snapshot is restored, beside it.
pub const RESTORED: &str = "restored";

/// Saves a snapshot of the etcd at `address` in `dir`, deletes all but the `keep` last ones, and says the file's name.
/// `secrets` is the folder with the certificates that etcd lets in.
///
/// # Errors
/// An etcd that does not answer; the system's refusal.
pub async fn take(address: SocketAddr, secrets: &Path, dir: &Path, keep: usize, now: OffsetDateTime) -> Result<String> {
    let mut tls = Tls::new();
    for path in files::below(secrets) {
        let content = input::read(&path, CONFIG_LIMIT).map_err(|unread| unread.into_error(&path))?;
        let name = path.file_name().unwrap_or_default().to_string_lossy().replace('_', "/");
        tls.insert(name, content);
    }
    let name = file_name(now);
    save::save(address, &tls, &dir.join(&name)).await?;
    for old in superfluous(&there(dir)?, keep) {
        files::remove(&dir.join(old))?;
    }
    Ok(name)
}

/// What a snapshot is called that is taken at this moment: the names are in the order of time.
fn file_name(now: OffsetDateTime) -> String {
    format!("{}{END}", rfc3339(now).replace(':', "-").to_lowercase())
}

/// The snapshots in a folder, the oldest first.
fn there(dir: &Path) -> Result<Vec<String>> {
    let entries = std::fs::read_dir(dir).map_err(|error| Error::io("read", dir, error))?;
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let mut names: Vec<_> = names.filter(|name| name.ends_with(END) && !name.starts_with('.')).collect();
    names.sort();
    Ok(names)
}

fn superfluous(names: &[String], keep: usize) -> &[String] {
    names.get(..names.len().saturating_sub(keep.max(1))).unwrap_or_default()
}

/// Puts what was restored of the snapshot `file` in the place of the data below `root`, at once. What was there stays beside
/// it. Where that has been done, nothing is.
///
/// # Errors
/// Nothing was restored; a file system that cannot exchange two folders; the system's refusal.
pub fn exchange(root: &Path, file: &str) -> Result<()> {
    const ACTION: &str = "put a snapshot in the place of etcd's data";
    let (member, restored, before) = (root.join(MEMBER), root.join(RESTORED), before(root, file));
    if before.exists() {
        return files::remove_dir(&restored).map(drop);
    }
    if !restored.join(MEMBER).join("snap").is_dir() {
        return Err(Error::failed(ACTION, "none was restored"));
    }
    if !member.exists() {
        files::rename(&restored.join(MEMBER), &member)?;
        return files::remove_dir(&restored).map(drop);
    }
    if !files::exchange(&member, &restored.join(MEMBER))? {
        return Err(Error::failed(ACTION, "the file system cannot exchange two folders at once"));
    }
    files::rename(&restored, &before)
}

/// Where the data stays that was there before `file` was restored.
fn before(root: &Path, file: &str) -> PathBuf {
    root.join(format!("before-{}", file.trim_end_matches(END)))
}

/// Says the name of a snapshot where the operator reads it: in the pod's status.
///
/// # Errors
/// The system's refusal.
pub fn say(path: &Path, name: &str) -> Result<()> {
    std::fs::write(path, name).map_err(|error| Error::io("write", path, error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_snapshots_go_by_their_names() {
        let at = |seconds| file_name(OffsetDateTime::from_unix_timestamp(seconds).unwrap());
        assert_eq!(at(1_782_907_200), "2026-07-01t12-00-00z.snapshot");
        let names: Vec<_> = [0, 1_782_907_200, 1_782_907_201].map(at).into();
        assert!(names.is_sorted());
        assert_eq!(superfluous(&names, 2), &names[..1]);
        assert!(superfluous(&names, 3).is_empty() && superfluous(&names, 9).is_empty());
        assert_eq!(superfluous(&names, 0).len(), 2, "the last one stays in any case");

        let dir = tempfile::tempdir().unwrap();
        for name in ["b.snapshot", "a.snapshot", ".c.snapshot", "notes"] {
            std::fs::write(dir.path().join(name), "").unwrap();
        }
        assert_eq!(there(dir.path()).unwrap(), ["a.snapshot", "b.snapshot"]);
    }

    #[test]
    fn restored_data_takes_its_place_once_and_what_was_there_stays() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        let put = |path: &str, text: &str| {
            let path = root.join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        let read = |path: &str| std::fs::read_to_string(root.join(path)).unwrap();
        put("member/snap/db", "old");
        assert!(exchange(root, "x.snapshot").unwrap_err().to_string().contains("none was restored"));
        assert_eq!(read("member/snap/db"), "old");
        put("restored/member/snap/db", "new");
        exchange(root, "x.snapshot").unwrap();
        assert_eq!((read("member/snap/db"), read("before-x/member/snap/db")), ("new".into(), "old".into()));
        assert!(!root.join("restored").exists());
        // The pod runs again.
        put("restored/member/snap/db", "new again");
        exchange(root, "x.snapshot").unwrap();
        assert_eq!((read("member/snap/db"), read("before-x/member/snap/db")), ("new".into(), "old".into()));
        assert!(!root.join("restored").exists());

        let fresh = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(fresh.path().join("restored/member/snap")).unwrap();
        exchange(fresh.path(), "x.snapshot").unwrap();
        assert!(fresh.path().join("member/snap").is_dir() && !fresh.path().join("restored").exists());
    }
}
