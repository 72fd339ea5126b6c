//! The state of the disk before a first raise, and the way back to it: a machine whose kubelet never starts is left
//! as it was found.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::base::error::Result;
use crate::base::files::{self, File};
use crate::base::input;

/// The largest of what is put back: hoist's own program.
const LIMIT: u64 = 256 << 20;

/// What a path was.
enum Was {
    Absent,
    File(File),
    Link(PathBuf),
}

/// Files and folders as they were.
pub struct Before {
    files: Vec<(PathBuf, Was)>,
    new_dirs: Vec<PathBuf>,
}

impl Before {
    /// Remembers `files`, and which of the folders above them are not there yet.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub fn take(files: impl IntoIterator<Item = PathBuf>) -> Result<Self> {
        let mut before = Self { files: Vec::new(), new_dirs: Vec::new() };
        for path in files {
            let absent = path.ancestors().skip(1).filter(|dir| !dir.exists()).map(Path::to_owned);
            before.new_dirs.extend(absent.collect::<Vec<_>>());
            let was = was(&path)?;
            before.files.push((path, was));
        }
        // The deepest first, as they are removed.
        before.new_dirs.sort_by_key(|dir| std::cmp::Reverse(dir.components().count()));
        before.new_dirs.dedup();
        Ok(before)
    }

    /// Puts everything back. Folders that something else has filled meanwhile stay.
    ///
    /// # Errors
    /// The system's refusal.
    pub fn restore(&self) -> Result<()> {
        for (path, was) in &self.files {
            match was {
                Was::File(file) => files::write(path, file),
                Was::Link(target) => files::link(path, target),
                Was::Absent => files::remove(path),
            }?;
        }
        for dir in &self.new_dirs {
            files::remove_empty_dir(dir)?;
        }
        Ok(())
    }
}

fn was(path: &Path) -> Result<Was> {
    if let Ok(target) = fs::read_link(path) {
        return Ok(Was::Link(target));
    }
    let content = match input::read(path, LIMIT) {
        Ok(content) => Some(content),
        Err(unread) if unread.is_missing(path) => None,
        Err(unread) => return Err(unread.into_error(path)),
    };
    let file = content.map(|content| {
        let mode = fs::metadata(path).map(|meta| meta.permissions().mode() & 0o777).unwrap_or(0o600);
        File { content, mode }
    });
    Ok(file.map_or(Was::Absent, Was::File))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_there_comes_back_and_what_was_not_goes() {
        let dir = tempfile::tempdir().unwrap();
        let (old, new, deep) = (dir.path().join("old"), dir.path().join("new"), dir.path().join("a/b/c"));
        let program = "before".repeat(3 << 20);
        fs::write(&old, &program).unwrap();
        let link = dir.path().join("link");
        files::link(&link, Path::new("there")).unwrap();
        let before = Before::take([old.clone(), new.clone(), deep.clone(), link.clone()]).unwrap();
        files::link(&link, Path::new("elsewhere")).unwrap();
        fs::write(&old, "after").unwrap();
        fs::write(&new, "x").unwrap();
        fs::create_dir_all(deep.parent().unwrap()).unwrap();
        fs::write(&deep, "x").unwrap();
        before.restore().unwrap();
        assert!(fs::read_to_string(&old).unwrap() == program);
        assert_eq!(fs::read_link(&link).unwrap(), Path::new("there"));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
    }
}
