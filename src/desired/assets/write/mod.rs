//! Writes an asset directory to the disk. It honours the user's changes since the last render ([`Plan`]). A render
//! that was killed at any point can be run again, and continues.
//!
//! `.rendered` holds the checksums of what the last render made, `.rendered-texts` the texts. While a render is under
//! way, `.rendering` holds the checksums of what it is about to write: a file that an interrupted render left is hoist's
//! own text, too.

use std::fs;
use std::path::Path;

use super::plan::{Choices, Plan, Written};
use super::record::{RENDERED, RENDERING, TEXTS};
use super::{AssetSet, bootkube};
use crate::base::error::{Error, Finding, Result};
use crate::base::files::{self, File};
use crate::base::holders;

impl AssetSet {
    /// Writes the set to `dir`. What its user edited since the last time is kept, and so is the gap where a manifest was
    /// removed, but as `choices` say.
    ///
    /// # Errors
    /// An edit that meets a change of hoist's; another render at work; the system's refusal. Nothing is changed then, but
    /// for a refusal in the middle, after which running again goes on.
    pub fn write(&self, dir: &Path, choices: &Choices) -> Result<Written> {
        let is_new = !dir.exists();
        files::make_dir(dir, 0o755)?;
        let _lock = locked(dir)?;
        self.plan(dir, choices)?.carry_out(dir).inspect_err(|_| {
            if is_new {
                // Where something is in it, it stays.
                let _ = fs::remove_dir(dir);
            }
        })
    }
}

impl Plan<'_> {
    fn carry_out(self, dir: &Path) -> Result<Written> {
        if !self.conflicts.is_empty() {
            return Err(Error::Input(self.conflicts));
        }
        let was_interrupted = was_interrupted(dir);
        sweep(dir)?;
        if !self.put.is_empty() || !self.written.removed.is_empty() {
            self.announce(dir)?;
        }
        // A disk that is full is noticed here, while nothing of it is in its place.
        let staged = self.stage(dir).inspect_err(|_| self.withdraw(dir, was_interrupted))?;
        staged.commit()?;
        for path in &self.written.removed {
            files::remove(&dir.join(path))?;
            remove_empty_folders(dir, path);
        }
        if self.notes_differ {
            // The texts first: one that the checksums do not bear out is not believed.
            let notes = [(TEXTS, self.texts.to_file()), (RENDERED, File::public(self.after.text()))];
            files::write_all(notes.iter().map(|(name, file)| (dir.join(name), file)))?;
        }
        files::remove(&dir.join(RENDERING))?;
        Ok(self.written)
    }

    /// Makes the folders, and writes all files beside their places.
    fn stage(&self, dir: &Path) -> Result<files::Staged> {
        for put in &self.put {
            let mode = if put.path.starts_with("tls/") || put.path.starts_with("auth/") { 0o700 } else { 0o755 };
            files::make_dir(dir.join(put.path).parent().unwrap_or(dir), mode)?;
        }
        files::stage(self.put.iter().map(|put| (dir.join(put.path), &*put.file)))
    }

    /// Takes back what was done before the first file came to its place. What cannot be taken back stays, and the
    /// next render knows it.
    fn withdraw(&self, dir: &Path, was_interrupted: bool) {
        for put in &self.put {
            remove_empty_folders(dir, put.path);
        }
        if !was_interrupted {
            let _ = files::remove(&dir.join(RENDERING));
        }
    }

    /// Records what may stand on the disk from now on.
    fn announce(&self, dir: &Path) -> Result<()> {
        let merged = self.put.iter().filter_map(|put| Some((put.path, &*put.file.content, &*put.own?.content)));
        files::write(&dir.join(RENDERING), &self.history.journal(&self.after, merged)).map(drop)
    }
}

/// Whether `hoist render` made what is in `dir`.
pub(super) fn was_rendered(dir: &Path) -> bool {
    dir.join(RENDERED).is_file() || was_interrupted(dir)
}

/// Whether a render of `dir` began and did not end.
pub(super) fn was_interrupted(dir: &Path) -> bool {
    dir.join(RENDERING).exists()
}

/// Whether the configuration in the file `config` may be rendered to `dir`: an asset directory, an empty folder, or
/// nothing yet.
///
/// # Errors
/// A folder that holds something else.
pub fn check_target(dir: &Path, config: &Path) -> Result<()> {
    if was_rendered(dir) {
        return Ok(());
    }
    let of_bootkube = bootkube::findings(dir);
    if !of_bootkube.is_empty() {
        return Err(Error::Input(of_bootkube));
    }
    let refuse = |message: &str, remedy: &str| {
        Err(Error::Input(vec![Finding::new(dir.display().to_string(), message).remedy(remedy)]))
    };
    const REMEDY: &str = "name an empty folder, a new one, or one that `hoist render` wrote";
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::NotADirectory => return refuse("is not a folder", REMEDY),
        Err(error) => return Err(Error::io("read", dir, error)),
        Ok(entries) => entries,
    };
    let is_config = |path: &Path| match (fs::canonicalize(path), fs::canonicalize(config)) {
        (Ok(path), Ok(config)) => path == config,
        _ => false,
    };
    for entry in entries {
        let path = entry.map_err(|error| Error::io("read", dir, error))?.path();
        if is_config(&path) {
            return refuse(
                "holds your configuration, where `hoist render` would write the resolved one",
                "render into a folder of its own, such as `--asset-dir assets`",
            );
        }
        if !is_leftover(&path) {
            return refuse("holds files that `hoist render` did not write", REMEDY);
        }
    }
    Ok(())
}

/// Keeps a second render from `dir` until it is dropped; a process of another user's, but for root's, keeps none.
fn locked(dir: &Path) -> Result<fs::File> {
    let file = fs::File::open(dir).map_err(|error| Error::io("lock", dir, error))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        // Whoever may read the folder may lock it.
        Err(fs::TryLockError::WouldBlock) if !holders::is_ours(Path::new("/proc"), &file) => Ok(file),
        Err(fs::TryLockError::WouldBlock) => Err(Error::Locked { holder: format!("it renders {}", dir.display()) }),
        Err(fs::TryLockError::Error(error)) => Err(Error::io("lock", dir, error)),
    }
}

/// A file that a killed process was writing.
fn is_leftover(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(files::BESIDE)) && path.is_file()
}

/// Removes what a killed render was writing: it may be keys.
fn sweep(dir: &Path) -> Result<()> {
    for entry in fs::read_dir(dir).map_err(|error| Error::io("read", dir, error))? {
        let entry = entry.map_err(|error| Error::io("read", dir, error))?;
        // Not through links, which lead out of the asset directory.
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            sweep(&entry.path())?;
        } else if is_leftover(&entry.path()) {
            files::remove(&entry.path())?;
        }
    }
    Ok(())
}

/// Removes the folders around `path` that are empty now.
fn remove_empty_folders(dir: &Path, path: &str) {
    let around = Path::new(path).ancestors().skip(1).filter(|folder| *folder != Path::new(""));
    for folder in around {
        // The system refuses to remove one that is not empty.
        if fs::remove_dir(dir.join(folder)).is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests;
