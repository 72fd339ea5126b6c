//! How an asset directory gets to the disk: what its user did to it since the last time is honoured, and a render
//! that is killed anywhere is run again and goes on.
//!
//! `.rendered` holds the checksums of what the last render made, so that a user's edit can be told from hoist's own
//! text. While a render is under way, `.rendering` holds those of what it is about to write: a file that an
//! interrupted render left is hoist's own text, too.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use super::AssetSet;
use crate::error::{Error, Finding, Result};
use crate::files::{self, File};

const RENDERED: &str = ".rendered";
const RENDERING: &str = ".rendering";

/// What writing an [`AssetSet`] did, by paths below the asset directory.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// Files that are new or have another content or mode.
    pub changed: Vec<String>,
    /// Files that a user edited, left as they are.
    pub kept: Vec<String>,
    /// Manifests that a user removed, not written again.
    pub left_out: Vec<String>,
    /// Files of an earlier render that this one does not make, removed.
    pub removed: Vec<String>,
    /// Files of an earlier render that this one does not make, left: keys and certificates, and what a user edited.
    pub unused: Vec<String>,
}

/// What becomes of a file that `render` makes.
#[derive(Debug, PartialEq, Eq)]
enum Fate {
    Write,
    Keep,
    LeaveOut,
    Conflict,
}

/// What is to be done, and what is to be said about it.
struct Plan<'a> {
    /// In the order in which they appear on the disk.
    put: Vec<(&'a String, &'a File)>,
    written: Written,
    before: Record,
    after: Record,
}

impl AssetSet {
    /// Writes the set to `dir`. A file that its user edited since the last time is left alone, and so is the gap where
    /// a manifest was removed; but those in `replace` are written anew.
    ///
    /// # Errors
    /// An edited file that the new input wants to change; another render at work; the system's refusal. Nothing is
    /// changed then, but for a refusal in the middle, after which running again goes on.
    pub fn write(&self, dir: &Path, replace: &BTreeSet<String>) -> Result<Written> {
        files::make_dir(dir, 0o755)?;
        let _lock = lock(dir)?;
        self.plan(dir, replace)?.carry_out(dir)
    }

    fn plan(&self, dir: &Path, replace: &BTreeSet<String>) -> Result<Plan<'_>> {
        let rendered = Record::read(&dir.join(RENDERED))?;
        let before = Record::read(&dir.join(RENDERING))?.and(&rendered);
        let is_own = |path: &str, content: &[u8]| before.holds(path, &files::sha256(content));
        let mut written = Written::default();
        let mut conflicts = Vec::new();
        let mut put = Vec::new();
        for (path, file) in &self.files {
            let at = dir.join(path);
            let there = files::read_if_there(&at)?;
            let fate = if replace.contains(path) {
                Fate::Write
            } else {
                fate(path, file, there.as_deref(), &rendered, |content| is_own(path, content))
            };
            match fate {
                Fate::Write if stands(&at, file, there.as_deref()) => {}
                Fate::Write if path.ends_with(".key") && there.is_some_and(|there| there != file.content) => {
                    return Err(Error::failed(format!("write {}", at.display()), "hoist never replaces a key"));
                }
                Fate::Write => put.push((path, file)),
                Fate::Keep => written.kept.push(path.clone()),
                Fate::LeaveOut => written.left_out.push(path.clone()),
                Fate::Conflict => conflicts.push(conflict(&at, path)),
            }
        }
        if !conflicts.is_empty() {
            return Err(Error::Input(conflicts));
        }
        for path in before.0.keys().filter(|path| !self.files.contains_key(*path)) {
            match files::read_if_there(&dir.join(path))? {
                None => {}
                Some(there) if !path.starts_with("tls/") && is_own(path, &there) => written.removed.push(path.clone()),
                Some(_) => written.unused.push(path.clone()),
            }
        }
        written.changed = put.iter().map(|(path, _)| (*path).clone()).collect();
        // A key before its certificate, and all of tls/ before what is made from it: whatever an interrupted render
        // leaves, the next one can build on it.
        put.sort_by_key(|(path, _)| (!path.starts_with("tls/"), !path.ends_with(".key")));
        Ok(Plan { put, written, before, after: Record::of(self) })
    }
}

impl Plan<'_> {
    fn carry_out(self, dir: &Path) -> Result<Written> {
        sweep(dir)?;
        if !self.put.is_empty() || !self.written.removed.is_empty() {
            self.announce(dir)?;
        }
        for (path, _) in &self.put {
            let mode = if path.starts_with("tls/") || path.starts_with("auth/") { 0o700 } else { 0o755 };
            files::make_dir(dir.join(path).parent().unwrap_or(dir), mode)?;
        }
        files::write_all(self.put.iter().map(|(path, file)| (dir.join(path), *file)))?;
        for path in &self.written.removed {
            files::remove(&dir.join(path))?;
            remove_empty_folders(dir, path);
        }
        files::write(&dir.join(RENDERED), &File::public(self.after.text()))?;
        files::remove(&dir.join(RENDERING))?;
        Ok(self.written)
    }

    /// Records what may stand on the disk from now on.
    fn announce(&self, dir: &Path) -> Result<()> {
        let record = self.before.clone().and(&self.after);
        files::write(&dir.join(RENDERING), &File::public(record.text())).map(drop)
    }
}

/// What becomes of the file `path`, of which `there` is what stands on the disk. `is_own` says whether a content is
/// what an earlier render wrote there.
fn fate(path: &str, file: &File, there: Option<&[u8]>, before: &Record, is_own: impl Fn(&[u8]) -> bool) -> Fate {
    match there {
        // What belongs in tls/ was made from what stands there.
        _ if path.starts_with("tls/") => Fate::Write,
        // `start` needs all but the manifests, and a checkout of a repository lacks what is secret.
        None if before.0.contains_key(path) && path.starts_with("manifests/") && !file.is_private() => Fate::LeaveOut,
        None => Fate::Write,
        Some(there) if there == file.content || is_own(there) => Fate::Write,
        // An edit that is kept there would describe another cluster than the files around it.
        Some(_) if path == "cluster.yaml" => Fate::Conflict,
        Some(_) if before.holds(path, &files::sha256(&file.content)) => Fate::Keep,
        Some(_) => Fate::Conflict,
    }
}

fn conflict(at: &Path, path: &str) -> Finding {
    let place = at.display().to_string();
    if path == "cluster.yaml" {
        return Finding::new(place, "was edited, and here `hoist render` writes the resolved configuration").remedy(
            "to render from it, move it out of the asset directory and name it with --config; to drop what was edited, add --replace cluster.yaml",
        );
    }
    Finding::new(place, "was edited, and what cluster.yaml makes of it has changed since")
        .remedy(format!("keep a copy of it elsewhere, add --replace {path}, and carry your edit over to the new file"))
}

/// Whether `file` is at `at` already. Where a user put a link in its place, its mode is the user's business.
fn stands(at: &Path, file: &File, there: Option<&[u8]>) -> bool {
    let is_link = fs::symlink_metadata(at).is_ok_and(|meta| meta.is_symlink());
    files::stands(at, file) || (is_link && there == Some(&*file.content))
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
    if dir.join(RENDERED).is_file() || was_interrupted(dir) {
        return Ok(());
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

/// Keeps a second render from `dir` until it is dropped.
fn lock(dir: &Path) -> Result<fs::File> {
    let file = fs::File::open(dir).map_err(|error| Error::io("lock", dir, error))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
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

/// Checksums of rendered files by path; more than one where an interrupted render was followed by another.
#[derive(Clone, Default)]
struct Record(BTreeMap<String, BTreeSet<String>>);

impl Record {
    fn of(set: &AssetSet) -> Self {
        Self(
            set.files
                .iter()
                .map(|(path, file)| (path.clone(), BTreeSet::from([files::sha256(&file.content)])))
                .collect(),
        )
    }

    fn read(path: &Path) -> Result<Self> {
        let content = files::read_if_there(path)?.unwrap_or_default();
        let mut record = Self::default();
        for (sum, path) in String::from_utf8_lossy(&content).lines().filter_map(|line| line.split_once("  ")) {
            record.0.entry(path.to_owned()).or_default().insert(sum.to_owned());
        }
        Ok(record)
    }

    fn and(mut self, other: &Self) -> Self {
        for (path, sums) in &other.0 {
            self.0.entry(path.clone()).or_default().extend(sums.iter().cloned());
        }
        self
    }

    fn holds(&self, path: &str, sum: &str) -> bool {
        self.0.get(path).is_some_and(|sums| sums.contains(sum))
    }

    /// In the form of sha256sum, so that `sha256sum -c .rendered` shows what was edited.
    fn text(&self) -> String {
        let lines = self.0.iter().flat_map(|(path, sums)| sums.iter().map(move |sum| format!("{sum}  {path}\n")));
        lines.collect()
    }
}

#[cfg(test)]
mod tests;
