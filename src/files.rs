//! Files on the disk: written beside, fsynced, renamed in; a private one has its mode from the moment it exists.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::error::{Error, Result};

/// How the names begin of files that are not whole yet. A name with a dot in front is one that the kubelet does not read.
pub const BESIDE: &str = ".hoist-";

/// A file to be.
#[derive(Clone, PartialEq, Eq)]
pub struct File {
    /// Its content.
    pub content: Vec<u8>,
    /// Its permissions, from the moment it exists.
    pub mode: u32,
}

impl File {
    /// A file that everybody may read.
    pub fn public(content: impl Into<Vec<u8>>) -> Self {
        Self { content: content.into(), mode: 0o644 }
    }

    /// A file that only its owner may read.
    pub fn private(content: impl Into<Vec<u8>>) -> Self {
        Self { content: content.into(), mode: 0o600 }
    }

    /// A program that everybody may run.
    pub fn executable(content: impl Into<Vec<u8>>) -> Self {
        Self { content: content.into(), mode: 0o755 }
    }

    /// Whether only its owner may read it.
    pub fn is_private(&self) -> bool {
        self.mode & 0o044 == 0
    }
}

/// The SHA-256 of some bytes, in hexadecimal digits.
pub fn sha256(content: &[u8]) -> String {
    Sha256::digest(content).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Reads a file; `None` when there is none.
///
/// # Errors
/// Any other failure to read it.
pub fn read_if_there(path: &Path) -> Result<Option<Vec<u8>>> {
    match fs::read(path) {
        Ok(content) => Ok(Some(content)),
        Err(error) if matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory) => {
            Ok(None)
        }
        Err(error) => Err(Error::io("read", path, error)),
    }
}

/// Makes a folder and those above it; the new ones get `mode` from the moment they exist.
///
/// # Errors
/// The system's refusal.
pub fn make_dir(path: &Path, mode: u32) -> Result<()> {
    fs::DirBuilder::new().recursive(true).mode(mode).create(path).map_err(|error| Error::io("make", path, error))
}

/// Whether `path` holds `file` already, mode included.
pub fn stands(path: &Path, file: &File) -> bool {
    let mode = fs::symlink_metadata(path).map(|meta| meta.is_file().then(|| meta.permissions().mode() & 0o777));
    matches!(mode, Ok(Some(mode)) if mode == file.mode) && fs::read(path).is_ok_and(|content| content == file.content)
}

/// Writes one file and says whether anything changed.
///
/// # Errors
/// The system's refusal; the file is then as it was.
pub fn write(path: &Path, file: &File) -> Result<bool> {
    Ok(!write_all([(path.to_owned(), file)])?.is_empty())
}

/// Writes several files, each wholly or not at all, and returns the paths that changed. Folders must be there.
///
/// # Errors
/// The system's refusal; until all are written beside, none is renamed in.
pub fn write_all<'a>(files: impl IntoIterator<Item = (PathBuf, &'a File)>) -> Result<Vec<PathBuf>> {
    let mut written = Vec::new();
    for (path, file) in files {
        if stands(&path, file) {
            continue;
        }
        let dir = path.parent().unwrap_or(Path::new("."));
        let mut options = tempfile::Builder::new();
        options.prefix(BESIDE).permissions(fs::Permissions::from_mode(file.mode));
        let mut beside = options.tempfile_in(dir).map_err(|error| Error::io("write in", dir, error))?;
        let wrote = beside.write_all(&file.content);
        wrote.map_err(|error| Error::io("write", &path, error))?;
        // tempfile honours the umask; the mode is part of what is promised.
        let mode = fs::Permissions::from_mode(file.mode);
        beside.as_file().set_permissions(mode).map_err(|error| Error::io("write", &path, error))?;
        written.push((path, beside));
    }
    match written.len() {
        0 => {}
        1 => written[0].1.as_file().sync_all().map_err(|error| Error::io("fsync", &written[0].0, error))?,
        // One flush of the file system is quicker than one for each of many files.
        _ => nix::unistd::syncfs(written[0].1.as_file())
            .map_err(|error| Error::io("flush", &written[0].0, error.into()))?,
    }
    let mut changed = Vec::new();
    for (path, beside) in written {
        beside.persist(&path).map_err(|error| Error::io("write", &path, error.error))?;
        changed.push(path);
    }
    let mut dirs: Vec<_> = changed.iter().filter_map(|path| path.parent()).collect();
    dirs.dedup();
    for dir in dirs {
        sync_dir(dir)?;
    }
    Ok(changed)
}

/// Removes a file and says whether it was there.
///
/// # Errors
/// The system's refusal.
pub fn remove(path: &Path) -> Result<bool> {
    match fs::remove_file(path) {
        Ok(()) => path.parent().map_or(Ok(()), sync_dir).map(|()| true),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(Error::io("remove", path, error)),
    }
}

/// Removes a folder with all that is in it, and says whether it was there.
///
/// # Errors
/// The system's refusal.
pub fn remove_dir(path: &Path) -> Result<bool> {
    match fs::remove_dir_all(path) {
        Ok(()) => path.parent().map_or(Ok(()), sync_dir).map(|()| true),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(Error::io("remove", path, error)),
    }
}

fn sync_dir(dir: &Path) -> Result<()> {
    let open = fs::OpenOptions::new().read(true).custom_flags(nix::libc::O_DIRECTORY).open(dir);
    open.and_then(|handle| handle.sync_all()).map_err(|error| Error::io("fsync", dir, error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_private_file_is_written_once_and_is_private() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        let file = File::private("secret");
        assert!(write(&path, &file).unwrap());
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(!write(&path, &file).unwrap());
        assert!(write(&path, &File::public("secret")).unwrap(), "a mode is part of a file");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "nothing is left beside it");
        assert!(remove(&path).unwrap());
        assert!(!remove(&path).unwrap());
    }

    #[test]
    fn nothing_is_renamed_in_when_one_cannot_be_written() {
        let dir = tempfile::tempdir().unwrap();
        let (a, b) = (dir.path().join("a"), dir.path().join("missing/b"));
        let file = File::public("x");
        write_all([(a.clone(), &file), (b, &file)]).unwrap_err();
        assert!(!a.exists());
    }
}
