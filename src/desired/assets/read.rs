//! Reads the files of an asset directory, and reports everything that is not a readable file at once.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::{AssetSet, not_for_us, unreadable};
use crate::base::error::{Error, Finding, Result};
use crate::base::files::File;
use crate::base::input::{self, ASSET_LIMIT, ASSETS_LIMIT};

pub(super) struct Reader<'a> {
    root: &'a Path,
    set: AssetSet,
    findings: Vec<Finding>,
    /// Files that this user may not read.
    denied: Vec<Finding>,
    /// Bytes read so far.
    size: u64,
    /// The folders around the one that is read, by device and inode: a link may lead back to one.
    around: Vec<(u64, u64)>,
}

impl<'a> Reader<'a> {
    /// Nothing is read yet; `root` is what paths will be relative to.
    pub fn new(root: &'a Path) -> Self {
        let set = AssetSet::default();
        Self { root, set, findings: Vec::new(), denied: Vec::new(), size: 0, around: Vec::new() }
    }

    /// All that was read.
    pub fn done(self) -> Result<AssetSet> {
        if !self.denied.is_empty() {
            return Err(Error::Preflight(self.denied));
        }
        if self.findings.is_empty() { Ok(self.set) } else { Err(Error::Input(self.findings)) }
    }

    /// Reads a folder with those in it; one that is not there has no files. Links are followed.
    pub fn folder(&mut self, dir: &Path) -> Result<()> {
        let entries = match fs::read_dir(dir) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(error) if error.kind() == std::io::ErrorKind::NotADirectory => {
                self.wrong(dir, "is not a folder", "move it away, and run `hoist render` again");
                return Ok(());
            }
            entries => entries.map_err(|error| unreadable(dir, error))?,
        };
        let meta = fs::metadata(dir).map_err(|error| unreadable(dir, error))?;
        let id = (meta.dev(), meta.ino());
        if self.around.contains(&id) {
            self.wrong(dir, "is a link to a folder around itself", "remove the link");
            return Ok(());
        }
        self.around.push(id);
        let mut paths = Vec::new();
        for entry in entries {
            paths.push(entry.map_err(|error| Error::io("read", dir, error))?.path());
        }
        paths.sort();
        for path in paths {
            let hidden = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
            if path.is_dir() {
                self.folder(&path)?;
            } else if !hidden {
                self.file(&path);
            }
        }
        self.around.pop();
        Ok(())
    }

    /// Reads one file. Ends of lines are Unix's: those that git writes elsewhere mean nothing, and no shell takes them.
    pub fn file(&mut self, path: &Path) {
        let Some(name) = path.strip_prefix(self.root).unwrap_or(path).to_str() else {
            return self.wrong(path, "has a name that is not UTF-8", "give it another name");
        };
        if self.size > ASSETS_LIMIT {
            return; // That was said.
        }
        match input::read(path, ASSET_LIMIT) {
            Ok(content) => {
                self.size += content.len() as u64;
                if self.size > ASSETS_LIMIT {
                    let message = format!("holds more than {} MiB, which hoist does not read", ASSETS_LIMIT >> 20);
                    return self.wrong(self.root, &message, "leave manifests and keys in it, and nothing else");
                }
                self.set.files.insert(name.to_owned(), File::private(input::unix(content)));
            }
            Err(unread) => match unread.into_error(path) {
                Error::Preflight(findings) => self.denied.extend(findings.into_iter().map(not_for_us)),
                Error::Input(findings) => self.findings.extend(findings),
                error => self.findings.push(
                    Finding::new(path.display().to_string(), error.to_string())
                        .remedy("`dmesg` shows what the system says of its disk"),
                ),
            },
        }
    }

    fn wrong(&mut self, path: &Path, message: &str, remedy: &str) {
        self.findings.push(Finding::new(path.display().to_string(), message).remedy(remedy));
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn mode(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn keys_that_others_may_read_are_told_in_one_line() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["tls/a.key", "tls/a.crt", "auth/kubeconfig"] {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, "x").unwrap();
            mode(&path, 0o644);
            mode(path.parent().unwrap(), 0o755);
        }
        mode(dir.path(), 0o755);
        let mut reader = Reader::new(dir.path());
        reader.folder(dir.path()).unwrap();
        let set = reader.done().unwrap();
        let told = || set.exposed(dir.path()).iter().map(ToString::to_string).collect::<Vec<_>>();
        let path = dir.path().display();
        let what = "warning: other users of this machine may read it, and 1 more of this folder's keys";
        assert_eq!(told(), [format!("{path}/auth/kubeconfig: {what}\n    `chmod 700 {path}` keeps them out")]);
        mode(&dir.path().join("auth"), 0o700);
        assert!(
            told()[0].starts_with(&format!("{path}/tls/a.key: warning: other users of this machine may read it\n"))
        );
        mode(dir.path(), 0o700);
        assert_eq!(told(), [""; 0]);
    }
}
