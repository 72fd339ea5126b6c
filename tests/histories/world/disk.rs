//! What of the disk survives a power cut: what was brought to it. A file's content is lost that was not synced, and so is
//! every change of a folder since that was.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Not on the disk.
const IN_MEMORY: [&str; 2] = ["proc", "run"];

#[derive(Debug, Clone, PartialEq, Eq)]
enum Entry {
    Folder { inode: u64, mode: u32 },
    File { inode: u64 },
    Link(PathBuf),
}

type Entries = BTreeMap<OsString, Entry>;

/// The disk below a folder, as a power cut would leave it. A name stands for an inode, as on a real one.
#[derive(Debug, Default)]
pub struct Disk {
    root: PathBuf,
    folders: BTreeMap<u64, Entries>,
    files: BTreeMap<u64, (u32, Vec<u8>)>,
}

impl Disk {
    /// One to which all has been brought that is there.
    pub fn of(root: &Path) -> Self {
        let mut disk = Self { root: root.to_owned(), ..Self::default() };
        disk.bring(root);
        disk
    }

    fn bring(&mut self, dir: &Path) {
        self.sync(dir);
        for path in self.below(dir) {
            if path.is_dir() && !path.is_symlink() {
                self.bring(&path);
            } else if !path.is_symlink() {
                self.sync(&path);
            }
        }
    }

    fn below(&self, dir: &Path) -> Vec<PathBuf> {
        let all = fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path());
        all.filter(|path| !IN_MEMORY.iter().any(|name| *path == self.root.join(name))).collect()
    }

    /// A file or folder is brought to the disk as it is now.
    pub fn sync(&mut self, path: &Path) {
        let Ok(meta) = fs::metadata(path) else { return };
        if meta.is_dir() {
            let entries = self.below(path).into_iter().map(|path| (path.file_name().unwrap().to_owned(), entry(&path)));
            let entries = entries.collect();
            self.folders.insert(meta.ino(), entries);
        } else {
            self.files.insert(meta.ino(), (meta.permissions().mode() & 0o777, fs::read(path).unwrap()));
        }
    }

    /// What was not brought to the disk is lost. Returns what that was.
    pub fn lose(&mut self) -> Vec<String> {
        let mut lost = Vec::new();
        let root = self.root.clone();
        let inode = fs::metadata(&root).unwrap().ino();
        self.restore(&root, inode, &mut lost);
        *self = Self::of(&root);
        lost
    }

    fn restore(&self, dir: &Path, inode: u64, lost: &mut Vec<String>) {
        let kept = self.folders.get(&inode).cloned().unwrap_or_default();
        for path in self.below(dir) {
            if kept.get(path.file_name().unwrap()) != Some(&entry(&path)) {
                let is_folder = path.is_dir() && !path.is_symlink();
                if is_folder { fs::remove_dir_all(&path) } else { fs::remove_file(&path) }.unwrap();
                lost.push(path.display().to_string());
            }
        }
        for (name, entry) in &kept {
            let path = dir.join(name);
            match entry {
                Entry::Folder { inode, mode } => {
                    if !path.is_dir() {
                        fs::create_dir(&path).unwrap();
                        fs::set_permissions(&path, fs::Permissions::from_mode(*mode)).unwrap();
                    }
                    self.restore(&path, *inode, lost);
                }
                Entry::Link(target) if !path.is_symlink() => std::os::unix::fs::symlink(target, &path).unwrap(),
                Entry::Link(_) => {}
                Entry::File { inode } => {
                    // A name that was brought to the disk before what it stands for has nothing in it.
                    let (mode, content) = self.files.get(inode).cloned().unwrap_or((0o600, Vec::new()));
                    if fs::read(&path).ok().as_ref() != Some(&content) {
                        lost.push(format!("what is in {}", path.display()));
                        fs::write(&path, &content).unwrap();
                    }
                    fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
                }
            }
        }
    }
}

fn entry(path: &Path) -> Entry {
    let meta = fs::symlink_metadata(path).unwrap();
    let (inode, mode) = (meta.ino(), meta.permissions().mode() & 0o777);
    match meta.file_type() {
        kind if kind.is_symlink() => Entry::Link(fs::read_link(path).unwrap()),
        kind if kind.is_dir() => Entry::Folder { inode, mode },
        _ => Entry::File { inode },
    }
}
