//! What the pods of a tenant's snapshots do: one is taken, or takes the place of the data.

use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

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

/// The form of a snapshot's name: `9` stands for any digit.
const FORM: &str = "9999-99-99t99-99-99z.snapshot";
/// In the folder that keeps what was there before a restore: which folder the restored data is.
const MARK: &str = "restored-inode";

/// Saves a snapshot of the etcd whose members are at `addresses`, from the first one that gives it, in `dir`, deletes of those that
/// were saved here all but the `keep` last ones, and says the file's name. `secrets` is the folder with the certificates that etcd
/// lets in.
///
/// # Errors
/// An etcd that does not answer; the system's refusal.
pub async fn take(
    addresses: &[SocketAddr],
    secrets: &Path,
    dir: &Path,
    keep: usize,
    now: OffsetDateTime,
) -> Result<String> {
    let mut tls = Tls::new();
    for path in files::below(secrets) {
        let content = input::read(&path, CONFIG_LIMIT).map_err(|unread| unread.into_error(&path))?;
        let name = path.file_name().unwrap_or_default().to_string_lossy().replace('_', "/");
        tls.insert(name, content);
    }
    let name = file_name(now);
    // What one that was killed has left: nobody else writes here.
    files::sweep(dir)?;
    let mut saved = Err(Error::failed("save a snapshot", "no member of etcd is named"));
    for address in addresses {
        saved = save::save(*address, &tls, &dir.join(&name)).await.map(drop);
        if saved.is_ok() {
            break;
        }
    }
    saved?;
    for old in superfluous(&there(dir)?, keep).iter().filter(|old| **old != name) {
        files::remove(&dir.join(old))?;
    }
    Ok(name)
}

/// What a snapshot is called that is taken at this moment: the names are in the order of time.
fn file_name(now: OffsetDateTime) -> String {
    format!("{}{END}", rfc3339(now).replace(':', "-").to_lowercase())
}

/// The snapshots in a folder that were saved here, the oldest first. Whatever else is there is somebody's own.
fn there(dir: &Path) -> Result<Vec<String>> {
    let entries = std::fs::read_dir(dir).map_err(|error| Error::io("read", dir, error))?;
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let mut names: Vec<_> = names.filter(|name| is_own(name)).collect();
    names.sort();
    Ok(names)
}

fn is_own(name: &str) -> bool {
    let is_like = |(one, form): (u8, u8)| if form == b'9' { one.is_ascii_digit() } else { one == form };
    name.len() == FORM.len() && name.bytes().zip(FORM.bytes()).all(is_like)
}

fn superfluous(names: &[String], keep: usize) -> &[String] {
    names.get(..names.len().saturating_sub(keep.max(1))).unwrap_or_default()
}

/// Puts what was restored of the snapshot `file` in the place of the data below `root`, at once. What was there stays beside
/// it, under the name of the snapshot and of this restore, `token`. Where that has been done, nothing is. Killed at any moment, it
/// goes on when it runs again.
///
/// # Errors
/// Nothing was restored; a file system that cannot exchange two folders; the system's refusal.
pub fn exchange(root: &Path, file: &str, token: &str) -> Result<()> {
    const ACTION: &str = "put a snapshot in the place of etcd's data";
    let (member, restored) = (root.join(MEMBER), root.join(RESTORED));
    let kept = root.join(format!("before-{}-{token}", file.trim_end_matches(END)));
    if !kept.exists() {
        let new = restored.join(MEMBER);
        if !new.join("snap").is_dir() {
            return Err(Error::failed(ACTION, "none was restored"));
        }
        let mark = inode(&new).unwrap_or_default().to_string();
        files::write(&restored.join(MARK), &files::File::private(mark))?;
        // From here on nobody takes it for what an earlier try has left.
        files::rename(&restored, &kept)?;
    }
    let mark = std::fs::read_to_string(kept.join(MARK)).unwrap_or_default();
    let new = kept.join(MEMBER);
    if inode(&member).is_some_and(|inode| inode.to_string() == mark) {
        // The exchange has been.
    } else if !member.exists() {
        files::rename(&new, &member)?;
    } else if !files::exchange(&member, &new)? {
        return Err(Error::failed(ACTION, "the file system cannot exchange two folders at once"));
    }
    // What a later try has restored once more.
    files::remove_dir(&restored).map(drop)
}

/// What a folder is known by, whatever its name.
fn inode(path: &Path) -> Option<u64> {
    std::fs::metadata(path).ok().map(|meta| meta.ino())
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
        for name in [&names[0], &names[1], "before-upgrade.snapshot", "2026-07-01.snapshot", ".c.snapshot", "notes"] {
            std::fs::write(dir.path().join(name), "").unwrap();
        }
        assert_eq!(there(dir.path()).unwrap(), names[..2], "what users put there is theirs");
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
        let is = |member: &str, kept: &str, before: &str| {
            assert_eq!(
                (read("member/snap/db"), read(&format!("{kept}/member/snap/db"))),
                (member.into(), before.into())
            );
            assert!(!root.join("restored").exists());
        };
        put("member/snap/db", "old");
        assert!(exchange(root, "x.snapshot", "1").unwrap_err().to_string().contains("none was restored"));
        assert_eq!(read("member/snap/db"), "old");
        put("restored/member/snap/db", "new");
        exchange(root, "x.snapshot", "1").unwrap();
        is("new", "before-x-1", "old");
        // The pod runs again.
        put("restored/member/snap/db", "new again");
        exchange(root, "x.snapshot", "1").unwrap();
        is("new", "before-x-1", "old");
        // The same snapshot, another time.
        put("member/snap/db", "later");
        put("restored/member/snap/db", "new once more");
        exchange(root, "x.snapshot", "2").unwrap();
        is("new once more", "before-x-2", "later");
        assert_eq!(read("before-x-1/member/snap/db"), "old");
    }

    #[test]
    fn a_restore_that_is_killed_at_any_moment_loses_nothing_and_goes_on() {
        for killed_after in 0..4 {
            let dir = tempfile::tempdir().unwrap();
            let root = dir.path();
            let put = |path: &str, text: &str| {
                let path = root.join(path);
                std::fs::create_dir_all(path.parent().unwrap()).unwrap();
                std::fs::write(path, text).unwrap();
            };
            put("member/snap/db", "old");
            put("restored/member/snap/db", "new");
            let mark = inode(&root.join("restored/member")).unwrap().to_string();
            if killed_after > 0 {
                put("restored/restored-inode", &mark);
            }
            if killed_after > 1 {
                std::fs::rename(root.join("restored"), root.join("before-x-1")).unwrap();
            }
            if killed_after > 2 {
                files::exchange(&root.join("member"), &root.join("before-x-1/member")).unwrap();
            }
            // The next try removes what the one before has restored, and restores.
            files::remove_dir(&root.join("restored")).unwrap();
            put("restored/member/snap/db", "new");
            exchange(root, "x.snapshot", "1").unwrap();
            let read = |path: &str| std::fs::read_to_string(root.join(path)).unwrap();
            assert_eq!(read("member/snap/db"), "new", "killed after {killed_after}");
            assert_eq!(read("before-x-1/member/snap/db"), "old", "killed after {killed_after}");
            assert!(!root.join("restored").exists());
        }
        let fresh = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(fresh.path().join("restored/member/snap")).unwrap();
        for _ in 0..2 {
            exchange(fresh.path(), "x.snapshot", "1").unwrap();
            assert!(fresh.path().join("member/snap").is_dir() && !fresh.path().join("restored").exists());
        }
    }
}
