//! Files on the disk: written beside, fsynced, renamed in; a private one has its mode from the moment it exists.
//!
//! Only what was written is synced, each file and folder on its own file system. A flush of a whole file system would
//! wait for the writes of other programs. `sync.rs` does this.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use tempfile::{NamedTempFile, TempPath};

use crate::base::error::{Error, Result};
use crate::base::input::{self, ASSET_LIMIT};

mod large;
mod sync;

pub use large::{Beside, exchange, rename, replace};
use sync::{sync_dir, sync_files};
pub use sync::{sync_folders, sync_tree};

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

    /// Whether only its owner may read it.
    pub fn is_private(&self) -> bool {
        self.mode & 0o044 == 0
    }
}

/// One step of a change to the disk: what a kill may come before, and what the system may refuse.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Operation {
    /// Make a folder, and those above it.
    MakeDir,
    /// Make the empty file beside, in this folder.
    Create,
    /// Fill the file beside.
    Write,
    /// Bring to the disk what was written: a file's content, or a folder's entries.
    Sync,
    /// Rename the file beside to this name.
    Rename,
    /// Remove a file.
    Remove,
    /// Remove a folder, and all that is in it.
    RemoveDir,
}

/// Is asked before each [`Operation`].
pub type Watch = Box<dyn FnMut(Operation, &Path) -> io::Result<()>>;

thread_local! {
    static WATCH: RefCell<Option<Watch>> = const { RefCell::new(None) };
}

/// For tests: asks `watch` before each operation of this thread from now on, and fails as it says; `None` ends it.
#[doc(hidden)]
pub fn watch(watch: Option<Watch>) {
    WATCH.set(watch);
}

fn before(operation: Operation, path: &Path) -> io::Result<()> {
    WATCH.with_borrow_mut(|watch| watch.as_mut().map_or(Ok(()), |watch| watch(operation, path)))
}

/// The SHA-256 of some bytes, in hexadecimal digits.
pub fn sha256(content: &[u8]) -> String {
    Sha256::digest(content).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The SHA-256 of several texts, each with its length in front: which text ends where counts, too.
pub fn sha256_of_all<'a>(texts: impl IntoIterator<Item = &'a str>) -> String {
    let mut digest = Sha256::new();
    for text in texts {
        digest.update((text.len() as u64).to_le_bytes());
        digest.update(text);
    }
    digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The files below a folder, in the order of their names; none where it cannot be read.
pub fn below(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut paths: Vec<_> = entries.map(|entry| entry.path()).collect();
    paths.sort();
    let of = |path: PathBuf| if path.is_dir() { below(&path) } else { vec![path] };
    paths.into_iter().flat_map(of).collect()
}

/// Reads a file; `None` when there is none.
///
/// # Errors
/// Any other failure to read it.
pub fn read_if_there(path: &Path) -> Result<Option<Vec<u8>>> {
    match input::read(path, ASSET_LIMIT) {
        Ok(content) => Ok(Some(content)),
        Err(unread) if unread.is_missing(path) => Ok(None),
        Err(unread) => Err(unread.into_error(path)),
    }
}

/// Whether a user who is neither root nor the owner may read the file at `path`: by its mode, and those of the folders
/// around it.
pub fn is_exposed(path: &Path) -> bool {
    let allows = |path: &Path, bits: u32| fs::metadata(path).is_ok_and(|meta| meta.permissions().mode() & bits != 0);
    let around = |path: &Path| path.ancestors().skip(1).all(|folder| folder == Path::new("") || allows(folder, 0o011));
    allows(path, 0o044) && fs::canonicalize(path).is_ok_and(|path| around(&path))
}

/// Makes a folder and those above it; the new ones get `mode` from the moment they exist.
///
/// # Errors
/// The system's refusal.
pub fn make_dir(path: &Path, mode: u32) -> Result<()> {
    let new: Vec<_> = path.ancestors().take_while(|dir| !folder(Some(dir)).is_dir()).collect();
    if new.is_empty() {
        return Ok(());
    }
    before(Operation::MakeDir, path)
        .and_then(|()| fs::DirBuilder::new().recursive(true).mode(mode).create(path))
        .map_err(|error| Error::io("make", path, error))?;
    // Each is an entry of the one above.
    new.iter().rev().try_for_each(|dir| sync_dir(folder(dir.parent())))
}

/// A folder by its path, which is empty for the one that the process is in.
fn folder(path: Option<&Path>) -> &Path {
    path.filter(|path| *path != Path::new("")).unwrap_or(Path::new("."))
}

/// Whether `path` holds `file` already, mode included.
pub fn stands(path: &Path, file: &File) -> bool {
    stands_as(path, file, None)
}

fn stands_as(path: &Path, file: &File, owner: Option<u32>) -> bool {
    let is_like = |meta: fs::Metadata| {
        meta.is_file()
            && meta.permissions().mode() & 0o777 == file.mode
            && meta.len() == file.content.len() as u64
            && owner.is_none_or(|owner| owner == meta.uid())
    };
    fs::symlink_metadata(path).is_ok_and(is_like) && fs::read(path).is_ok_and(|content| content == file.content)
}

/// Whether there is a file at `path`, and not a link to one, with this mode.
pub fn has_mode(path: &Path, mode: u32) -> bool {
    fs::symlink_metadata(path).is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o777 == mode)
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
    stage(files)?.commit()
}

/// The same, and they belong to the user `owner`, from before they are in their places.
///
/// # Errors
/// The same.
pub fn write_all_of<'a>(owner: u32, files: impl IntoIterator<Item = (PathBuf, &'a File)>) -> Result<Vec<PathBuf>> {
    stage_as(Some(owner), files)?.commit()
}

/// Files that are on the disk beside their places. Dropped, they are gone.
pub struct Staged {
    files: Vec<(PathBuf, TempPath)>,
    /// The folders of all of them, those included that stood already: whoever renamed them in may have been killed before
    /// that was on the disk.
    dirs: BTreeSet<PathBuf>,
}

/// Writes several files beside their places, but for those that stand there already. Folders must be there.
///
/// # Errors
/// The system's refusal; nothing is left beside then.
pub fn stage<'a>(files: impl IntoIterator<Item = (PathBuf, &'a File)>) -> Result<Staged> {
    stage_as(None, files)
}

fn stage_as<'a>(owner: Option<u32>, files: impl IntoIterator<Item = (PathBuf, &'a File)>) -> Result<Staged> {
    /// How many are open at once.
    const OPEN: usize = 64;
    let mut staged = Staged { files: Vec::new(), dirs: BTreeSet::new() };
    let mut open = Vec::new();
    for (path, file) in files {
        staged.dirs.insert(folder(path.parent()).to_owned());
        if !stands_as(&path, file, owner) {
            let beside = write_beside(&path, file, owner)?;
            open.push((path, beside));
        }
        if open.len() == OPEN {
            staged.close(&mut open)?;
        }
    }
    staged.close(&mut open)?;
    Ok(staged)
}

fn write_beside(path: &Path, file: &File, owner: Option<u32>) -> Result<NamedTempFile> {
    let failed = |error| Error::io("write", path, error);
    let dir = folder(path.parent());
    let mut options = tempfile::Builder::new();
    options.prefix(BESIDE).permissions(fs::Permissions::from_mode(file.mode));
    let beside = before(Operation::Create, dir).and_then(|()| options.tempfile_in(dir));
    let mut beside = beside.map_err(|error| Error::io("write in", dir, bare(&error)))?;
    before(Operation::Write, beside.path())
        .and_then(|()| beside.as_file_mut().write_all(&file.content))
        .map_err(failed)?;
    // tempfile honours the umask; the mode is part of what is promised.
    beside.as_file().set_permissions(fs::Permissions::from_mode(file.mode)).map_err(failed)?;
    if let Some(owner) = owner {
        std::os::unix::fs::fchown(beside.as_file(), Some(owner), None)
            .map_err(|error| Error::io("change the owner of", path, error))?;
    }
    Ok(beside)
}

/// An error of tempfile's without the name of a file that is gone.
fn bare(error: &io::Error) -> io::Error {
    error.kind().into()
}

impl Staged {
    /// Brings to the disk what was written, and closes it.
    fn close(&mut self, open: &mut Vec<(PathBuf, NamedTempFile)>) -> Result<()> {
        sync_files(open)?;
        self.files.extend(open.drain(..).map(|(path, beside)| (path, beside.into_temp_path())));
        Ok(())
    }

    /// Renames the files in, and returns their paths.
    ///
    /// # Errors
    /// The system's refusal; those before it are in their places.
    pub fn commit(self) -> Result<Vec<PathBuf>> {
        let mut changed = Vec::new();
        for (path, beside) in self.files {
            before(Operation::Rename, &path)
                .and_then(|()| beside.persist(&path).map_err(|error| error.error))
                .map_err(|error| Error::io("write", &path, error))?;
            changed.push(path);
        }
        self.dirs.iter().try_for_each(|dir| sync_dir(dir))?;
        Ok(changed)
    }
}

/// Makes `uid` the owner of a file or folder.
///
/// # Errors
/// The system's refusal.
pub fn give(path: &Path, uid: u32) -> Result<()> {
    std::os::unix::fs::lchown(path, Some(uid), None).map_err(|error| Error::io("change the owner of", path, error))
}

/// Makes `path` a symbolic link to `target`, whatever file or link it was, and says whether anything changed.
///
/// # Errors
/// The system's refusal; `path` is then as it was.
pub fn link(path: &Path, target: &Path) -> Result<bool> {
    if fs::read_link(path).is_ok_and(|there| there == target) {
        return Ok(false);
    }
    let failed = |error| Error::io("link", path, error);
    let dir = path.parent().unwrap_or(Path::new("/"));
    let make = |beside: &Path| std::os::unix::fs::symlink(target, beside);
    let beside =
        before(Operation::Create, dir).and_then(|()| tempfile::Builder::new().prefix(BESIDE).make_in(dir, make));
    let beside = beside.map_err(failed)?;
    before(Operation::Rename, path).and_then(|()| beside.persist(path).map_err(|error| error.error)).map_err(failed)?;
    sync_dir(dir).map(|()| true)
}

/// Copies the program `from` to `to`, piece by piece: it is larger than all else that hoist holds. Says whether anything
/// changed.
///
/// # Errors
/// The system's refusal; the file is then as it was.
pub fn copy_program(from: &Path, to: &Path) -> Result<bool> {
    const MODE: u32 = 0o755;
    let failed = |error| Error::io("write", to, error);
    let meta = fs::symlink_metadata(to);
    if meta.is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o777 == MODE)
        && have_same_content(from, to).unwrap_or(false)
    {
        return Ok(false);
    }
    let mut source = fs::File::open(from).map_err(|error| Error::io("read", from, error))?;
    let dir = to.parent().unwrap_or(Path::new("."));
    let beside = before(Operation::Create, dir).and_then(|()| tempfile::Builder::new().prefix(BESIDE).tempfile_in(dir));
    let mut beside = beside.map_err(|error| Error::io("write in", dir, bare(&error)))?;
    before(Operation::Write, beside.path())
        .and_then(|()| io::copy(&mut source, beside.as_file_mut()))
        .and_then(|_| beside.as_file().set_permissions(fs::Permissions::from_mode(MODE)))
        .map_err(failed)?;
    before(Operation::Sync, beside.path())
        .and_then(|()| beside.as_file().sync_all())
        .map_err(|error| Error::io("fsync", to, error))?;
    before(Operation::Rename, to).and_then(|()| beside.persist(to).map_err(|error| error.error)).map_err(failed)?;
    sync_dir(dir).map(|()| true)
}

/// Whether two files hold the same.
///
/// # Errors
/// One that cannot be read.
pub fn have_same_content(one: &Path, other: &Path) -> io::Result<bool> {
    let (mut one, mut other) = (fs::File::open(one)?, fs::File::open(other)?);
    if one.metadata()?.len() != other.metadata()?.len() {
        return Ok(false);
    }
    let (mut here, mut there) = ([0; 16 * 1024], [0; 16 * 1024]);
    loop {
        let length = one.read(&mut here)?;
        other.read_exact(&mut there[..length])?;
        if length == 0 || here[..length] != there[..length] {
            return Ok(length == 0);
        }
    }
}

/// Removes a file and says whether it was there.
///
/// # Errors
/// The system's refusal.
pub fn remove(path: &Path) -> Result<bool> {
    match before(Operation::Remove, path).and_then(|()| fs::remove_file(path)) {
        Ok(()) => sync_dir(folder(path.parent())).map(|()| true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(Error::io("remove", path, error)),
    }
}

/// Removes a folder with all that is in it, and says whether it was there.
///
/// # Errors
/// The system's refusal.
pub fn remove_dir(path: &Path) -> Result<bool> {
    match before(Operation::RemoveDir, path).and_then(|()| fs::remove_dir_all(path)) {
        Ok(()) => sync_dir(folder(path.parent())).map(|()| true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(Error::io("remove", path, error)),
    }
}

/// Removes a folder if nothing is in it.
///
/// # Errors
/// The system's refusal.
pub fn remove_empty_dir(path: &Path) -> Result<()> {
    match before(Operation::RemoveDir, path).and_then(|()| fs::remove_dir(path)) {
        Err(error) if !matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::DirectoryNotEmpty) => {
            Err(Error::io("remove", path, error))
        }
        Err(_) => Ok(()),
        Ok(()) => sync_dir(folder(path.parent())),
    }
}

/// Removes what a killed process has left of files that were not whole yet, in this folder itself: it may be keys.
///
/// # Errors
/// The system's refusal.
pub fn sweep(dir: &Path) -> Result<()> {
    let entries = match fs::read_dir(dir) {
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => return Ok(()),
        entries => entries.map_err(|error| Error::io("read", dir, error))?,
    };
    for entry in entries {
        let entry = entry.map_err(|error| Error::io("read", dir, error))?;
        let is_beside = entry.file_name().to_string_lossy().starts_with(BESIDE);
        if is_beside && entry.file_type().is_ok_and(|kind| !kind.is_dir()) {
            remove(&entry.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
