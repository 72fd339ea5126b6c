//! Syncs what was written to the disk: files, folders, trees, and nothing else.

use std::fs;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use tempfile::NamedTempFile;

use super::{Operation, before};
use crate::base::error::{Error, Result};

/// So many files at once: a journal takes all that wait for it in one go. 40 files took 20 ms so, and 240 ms one after
/// another.
const AT_ONCE: usize = 8;

/// Brings files to the disk that were written beside their places, whatever file systems they are on.
pub(super) fn sync_files(files: &[(PathBuf, NamedTempFile)]) -> Result<()> {
    let failed = |path: &Path, error| Error::io("fsync", path, error);
    // A thread of its own has no watch.
    for (path, beside) in files {
        before(Operation::Sync, beside.path()).map_err(|error| failed(path, error))?;
    }
    let sync =
        |(path, beside): &(PathBuf, NamedTempFile)| beside.as_file().sync_all().map_err(|error| failed(path, error));
    let (left, refused) = (Mutex::new(files.iter()), Mutex::new(None));
    let next = || left.lock().ok().and_then(|mut left| left.next());
    let work = || {
        while let Some(file) = next() {
            if let (Err(error), Ok(mut refused)) = (sync(file), refused.lock()) {
                *refused = Some(error);
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..AT_ONCE.min(files.len()) {
            // Where there can be no more threads, there is this one.
            let _ = std::thread::Builder::new().spawn_scoped(scope, work);
        }
        work();
    });
    refused.into_inner().ok().flatten().map_or(Ok(()), Err)
}

/// Brings a folder's entries to the disk.
pub(super) fn sync_dir(dir: &Path) -> Result<()> {
    let open = || fs::OpenOptions::new().read(true).custom_flags(nix::libc::O_DIRECTORY).open(dir);
    before(Operation::Sync, dir)
        .and_then(|()| open())
        .and_then(|handle| handle.sync_all())
        .map_err(|error| Error::io("fsync", dir, error))
}

/// Brings the entries of a folder to the disk, and those of the folders in it, where another program has made or removed
/// some. There need not be any.
///
/// # Errors
/// The system's refusal.
pub fn sync_folders(dir: &Path) -> Result<()> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let folders = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    folders.map(|entry| entry.path()).chain(dir.is_dir().then(|| dir.to_owned())).try_for_each(|dir| sync_dir(&dir))
}

/// Brings all files and folders to the disk that another program has written in a folder, the folder included. Links are
/// not followed.
///
/// # Errors
/// The system's refusal.
pub fn sync_tree(dir: &Path) -> Result<()> {
    for entry in fs::read_dir(dir).map_err(|error| Error::io("read", dir, error))? {
        let entry = entry.map_err(|error| Error::io("read", dir, error))?;
        let (path, kind) = (entry.path(), entry.file_type().map_err(|error| Error::io("read", dir, error))?);
        if kind.is_dir() {
            sync_tree(&path)?;
        } else if kind.is_file() {
            before(Operation::Sync, &path)
                .and_then(|()| fs::File::open(&path))
                .and_then(|file| file.sync_all())
                .map_err(|error| Error::io("fsync", &path, error))?;
        }
    }
    sync_dir(dir)
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::rc::Rc;

    use super::super::*;
    use super::*;

    /// What is done, in its order, with paths below `root`; files beside have no name of their own.
    fn observed(root: &Path, what: impl FnOnce()) -> Vec<String> {
        let seen: Rc<RefCell<Vec<String>>> = Rc::default();
        let (into, base) = (seen.clone(), root.to_owned());
        watch(Some(Box::new(move |operation, path| {
            let path = path.strip_prefix(&base).unwrap().display().to_string();
            let path = path.split(BESIDE).next().unwrap_or_default().trim_end_matches('/').to_owned();
            into.borrow_mut().push(format!("{operation:?} {path}").trim_end().to_owned());
            Ok(())
        })));
        what();
        watch(None);
        seen.take()
    }

    /// Each file is on the disk before any has its name, and each folder after that.
    #[test]
    fn every_file_and_every_folder_of_a_batch_is_synced() {
        let root = tempfile::tempdir().unwrap();
        let path = |name: &str| root.path().join(name);
        let (a, b) = (File::private("a"), File::private("b"));
        let done = observed(root.path(), || {
            for folder in ["new/one", "new/two"] {
                make_dir(&path(folder), 0o700).unwrap();
            }
            write_all([(path("new/one/a"), &a), (path("new/two/b"), &b)]).unwrap();
        });
        let expected = [
            "MakeDir new/one",
            "Sync",
            "Sync new",
            "MakeDir new/two",
            "Sync new",
            "Create new/one",
            "Write new/one",
            "Create new/two",
            "Write new/two",
            "Sync new/one",
            "Sync new/two",
            "Rename new/one/a",
            "Rename new/two/b",
            "Sync new/one",
            "Sync new/two",
        ];
        assert_eq!(done, expected);
        // One who was killed after the rename had not come to that.
        let again = observed(root.path(), || drop(write_all([(path("new/one/a"), &a)]).unwrap()));
        assert_eq!(again, ["Sync new/one"]);
    }

    #[test]
    fn what_goes_goes_from_the_disk() {
        let root = tempfile::tempdir().unwrap();
        let path = |name: &str| root.path().join(name);
        make_dir(&path("a/b"), 0o700).unwrap();
        write(&path("a/b/file"), &File::public("x")).unwrap();
        let done = observed(root.path(), || {
            remove(&path("a/b/file")).unwrap();
            remove_empty_dir(&path("a/b")).unwrap();
            remove_empty_dir(&path("a/b")).unwrap();
            remove_dir(&path("a")).unwrap();
        });
        assert_eq!(
            done,
            ["Remove a/b/file", "Sync a/b", "RemoveDir a/b", "Sync a", "RemoveDir a/b", "RemoveDir a", "Sync"]
        );
    }

    #[test]
    fn a_tree_is_synced_file_by_file() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("data/snap")).unwrap();
        fs::write(root.path().join("data/snap/db"), "x").unwrap();
        std::os::unix::fs::symlink("nowhere", root.path().join("data/link")).unwrap();
        let done = observed(root.path(), || sync_tree(&root.path().join("data")).unwrap());
        assert_eq!(done, ["Sync data/snap/db", "Sync data/snap", "Sync data"]);
    }

    /// More of them than a process may have open by default.
    #[test]
    fn a_batch_of_thousands_keeps_few_files_open() {
        let root = tempfile::tempdir().unwrap();
        let file = File::public("x");
        let open = || fs::read_dir("/proc/self/fd").unwrap().count();
        let before = open();
        let most = Rc::new(RefCell::new(0));
        let seen = most.clone();
        watch(Some(Box::new(move |_, _| {
            let now = seen.borrow().max(open());
            *seen.borrow_mut() = now;
            Ok(())
        })));
        let written = write_all((0..300).map(|n| (root.path().join(n.to_string()), &file)));
        watch(None);
        assert_eq!(written.unwrap().len(), 300);
        // Other tests open some meanwhile.
        assert!(*most.borrow() < before + 200, "{most:?} of {before}");
    }
}
