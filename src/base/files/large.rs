//! Files that are too large for memory, written piece by piece, and folders that are renamed and exchanged.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use super::{BESIDE, Operation, bare, before, folder, sync_dir};
use crate::base::error::{Error, Result};

/// A private file that is written piece by piece, beside its place: for one that is too large for the memory. Dropped, it
/// is gone.
pub struct Beside {
    path: PathBuf,
    file: NamedTempFile,
}

impl Beside {
    /// Makes the empty file. Its folder must be there.
    ///
    /// # Errors
    /// The system's refusal.
    pub fn create(path: &Path) -> Result<Self> {
        let dir = folder(path.parent());
        let mut options = tempfile::Builder::new();
        options.prefix(BESIDE).permissions(fs::Permissions::from_mode(0o600));
        let file = before(Operation::Create, dir).and_then(|()| options.tempfile_in(dir));
        let file = file.map_err(|error| Error::io("write in", dir, bare(&error)))?;
        Ok(Self { path: path.to_owned(), file })
    }

    /// Brings it to the disk and into its place; what is there stays, unless `replace` says otherwise.
    ///
    /// # Errors
    /// The system's refusal; what was there still is.
    pub fn commit(self, replace: bool) -> Result<()> {
        let Self { path, file } = self;
        before(Operation::Sync, file.path())
            .and_then(|()| file.as_file().sync_all())
            .map_err(|error| Error::io("fsync", &path, error))?;
        let rename = |file: NamedTempFile| match replace {
            true => file.persist(&path),
            false => file.persist_noclobber(&path),
        };
        before(Operation::Rename, &path)
            .and_then(|()| rename(file).map_err(|error| error.error))
            .map_err(|error| Error::io("write", &path, error))?;
        sync_dir(folder(path.parent()))
    }
}

impl Write for Beside {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        before(Operation::Write, &self.path)?;
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// Renames a file or a folder to a name that nothing has.
///
/// # Errors
/// The system's refusal; it then has its old name.
pub fn rename(from: &Path, to: &Path) -> Result<()> {
    let failed = |error| Error::io(format!("rename {} to", from.display()), to, error);
    if fs::symlink_metadata(to).is_ok() {
        return Err(failed(io::ErrorKind::AlreadyExists.into()));
    }
    before(Operation::Rename, to).and_then(|()| fs::rename(from, to)).map_err(failed)?;
    [from, to].into_iter().try_for_each(|path| sync_dir(folder(path.parent())))
}

/// Renames a file to a name that another may have, at once: at no moment is the name nobody's. Afterwards nothing has the name
/// `from`, also where both were names of one file, which rename(2) leaves alone.
///
/// # Errors
/// The system's refusal; both are then as they were.
pub fn replace(from: &Path, to: &Path) -> Result<()> {
    before(Operation::Rename, to)
        .and_then(|()| fs::rename(from, to))
        .map_err(|error| Error::io(format!("rename {} to", from.display()), to, error))?;
    super::remove(from)?;
    [from, to].into_iter().try_for_each(|path| sync_dir(folder(path.parent())))
}

/// Gives two folders each other's names, at once: at no moment is either of the names nobody's. Says whether it has: not
/// every file system can.
///
/// # Errors
/// The system's refusal.
pub fn exchange(one: &Path, other: &Path) -> Result<bool> {
    use nix::errno::Errno;
    use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
    let done = before(Operation::Rename, other)
        .and_then(|()| match renameat2(AT_FDCWD, one, AT_FDCWD, other, RenameFlags::RENAME_EXCHANGE) {
            Err(Errno::EINVAL | Errno::ENOSYS | Errno::EXDEV) => Ok(false),
            done => Ok(done.map(|()| true)?),
        })
        .map_err(|error| Error::io(format!("exchange {} for", one.display()), other, error))?;
    [one, other].into_iter().try_for_each(|path| sync_dir(folder(path.parent())))?;
    Ok(done)
}
