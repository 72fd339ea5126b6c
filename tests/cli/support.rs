//! A folder to run hoist in, and what comes of it.

use std::collections::BTreeMap;
use std::fs;
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use hoist::node::system::System;
use hoist::node::world::World;
use tempfile::TempDir;

pub const CLUSTER: &str = "\
apiVersion: hoist/v1alpha1
kind: Cluster
controllers:
- name: c1
  address: 198.51.100.10
";

const HOIST: &str = env!("CARGO_BIN_EXE_hoist");
/// A cluster whose only controller is this machine, if it has an address that is not loopback.
pub fn here() -> Option<String> {
    let own = System.addresses().unwrap();
    let address = own.into_iter().find(|address| matches!(address, IpAddr::V4(v4) if !v4.is_loopback()))?;
    // Ranges that no interface is likely to be in.
    let networking = "networking: {podSubnet: 100.64.0.0/16, serviceSubnet: 100.65.0.0/16}\n";
    Some(CLUSTER.replace("198.51.100.10", &address.to_string()) + networking)
}

/// Another user than root.
const NOBODY: u32 = 65534;

pub struct Folder(TempDir);

/// What a run of hoist came to; the folder's own path reads `DIR`.
#[derive(Debug, PartialEq, Eq)]
pub struct Ran {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

/// A file or folder: mode, time of the last change, content.
pub type Entry = (u32, i64, i64, Vec<u8>);

impl Folder {
    pub fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    /// A folder with this cluster.yaml.
    pub fn with(text: &str) -> Self {
        let folder = Self::new();
        folder.put("cluster.yaml", text);
        folder
    }

    /// A folder where this cluster.yaml was rendered to `assets`.
    pub fn rendered(text: &str) -> Self {
        let folder = Self::with(text);
        folder.render().ok();
        folder
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub fn put(&self, name: &str, content: impl AsRef<[u8]>) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    pub fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    /// Replaces the one `from` in a file.
    pub fn edit(&self, name: &str, from: &str, to: &str) {
        let text = self.read(name);
        assert_eq!(text.matches(from).count(), 1, "{name} has one {from}");
        fs::write(self.path(name), text.replace(from, to)).unwrap();
    }

    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(HOIST);
        command.args(args).current_dir(self.0.path()).stdin(Stdio::null());
        command
    }

    pub fn run(&self, args: &[&str]) -> Ran {
        self.ran(&mut self.command(args))
    }

    /// `hoist render` of the folder's cluster.yaml to `assets`.
    pub fn render(&self) -> Ran {
        self.run(&["render", "--config", "cluster.yaml", "--asset-dir", "assets"])
    }

    /// `hoist start` of `assets`, never as root: it then does nothing to this machine, whatever it thinks of the input.
    pub fn start(&self, more: &[&str]) -> Ran {
        self.as_nobody(&[&["start", "--asset-dir", "assets"], more].concat())
    }

    /// The same of any command, whose files are given to that user.
    pub fn as_nobody(&self, args: &[&str]) -> Ran {
        self.give_away();
        let mut command = Command::new(for_nobody().unwrap_or(Path::new(HOIST)));
        command.args(args).current_dir(self.0.path()).stdin(Stdio::null());
        if nix::unistd::geteuid().is_root() {
            command.uid(NOBODY).gid(NOBODY);
        }
        self.ran(&mut command)
    }

    /// The same as far as it is bounded.
    pub fn bounded_start(&self) -> Ran {
        let mut command = bounded(for_nobody().unwrap_or(Path::new(HOIST)), &["start", "--asset-dir", "assets"]);
        command.current_dir(self.0.path()).stdin(Stdio::null());
        if nix::unistd::geteuid().is_root() {
            command.uid(NOBODY).gid(NOBODY);
        }
        self.ran(&mut command)
    }

    /// Makes the folder that of the user whom `start` runs as.
    pub fn give_away(&self) {
        if nix::unistd::geteuid().is_root() {
            for path in self.tree().keys() {
                std::os::unix::fs::lchown(path, Some(NOBODY), Some(NOBODY)).unwrap();
            }
            std::os::unix::fs::chown(self.0.path(), Some(NOBODY), Some(NOBODY)).unwrap();
        }
    }

    /// A run with little memory and time: one that wants more is ended by a signal, or ends itself.
    pub fn bounded(&self, args: &[&str]) -> Ran {
        self.ran(&mut self.bounded_command(args))
    }

    pub fn bounded_command(&self, args: &[&str]) -> Command {
        let mut command = bounded(Path::new(HOIST), args);
        command.current_dir(self.0.path()).stdin(Stdio::null());
        command
    }

    /// The same as [`Folder::render`], bounded.
    pub fn bounded_render(&self) -> Ran {
        self.bounded(&["render", "--config", "cluster.yaml", "--asset-dir", "assets"])
    }

    pub fn ran(&self, command: &mut Command) -> Ran {
        let output = command.output().unwrap();
        let text = |bytes: &[u8]| {
            let text = String::from_utf8(bytes.to_vec()).unwrap();
            text.replace(self.0.path().to_str().unwrap(), "DIR")
        };
        let ran = Ran { code: output.status.code(), stdout: text(&output.stdout), stderr: text(&output.stderr) };
        assert!(!ran.stderr.contains("panicked"), "{ran:?}");
        ran
    }

    /// Everything below the folder, by path.
    pub fn tree(&self) -> BTreeMap<PathBuf, Entry> {
        let mut found = BTreeMap::new();
        collect(self.0.path(), &mut found);
        found
    }

    /// Runs `act` and asserts that it changed nothing on the disk.
    #[track_caller]
    pub fn unchanged(&self, act: impl FnOnce() -> Ran) -> Ran {
        let before = self.tree();
        let ran = act();
        assert!(self.tree() == before, "it changed something: {ran:?}");
        ran
    }
}

/// hoist with little memory (MiB of address space; render takes 60 of them) and processor time (seconds of a debug
/// build on a busy machine).
fn bounded(hoist: &Path, args: &[&str]) -> Command {
    let mut command = Command::new("prlimit");
    command.args(["--as=402653184", "--cpu=20", "--core=0"]).arg(hoist).args(args);
    command
}

/// A copy of hoist that another user may run, if this is root: where cargo puts it may be for root's eyes only.
fn for_nobody() -> Option<&'static Path> {
    static COPY: OnceLock<TempDir> = OnceLock::new();
    nix::unistd::geteuid().is_root().then(|| {
        let copy = COPY.get_or_init(|| {
            let dir = tempfile::tempdir().unwrap();
            fs::copy(HOIST, dir.path().join("hoist")).unwrap();
            std::os::unix::fs::chown(dir.path(), Some(NOBODY), Some(NOBODY)).unwrap();
            dir
        });
        static PATH: OnceLock<PathBuf> = OnceLock::new();
        PATH.get_or_init(|| copy.path().join("hoist")).as_path()
    })
}

/// A file of `size` bytes that takes no place.
pub fn sparse(path: &Path, size: u64) {
    fs::File::create(path).unwrap().set_len(size).unwrap();
}

fn collect(dir: &Path, found: &mut BTreeMap<PathBuf, Entry>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let meta = fs::symlink_metadata(&path).unwrap();
        // One that is huge takes no place, and has nothing to say.
        let content = if meta.is_file() && meta.len() < 32 << 20 { fs::read(&path).unwrap() } else { Vec::new() };
        found.insert(path.clone(), (meta.mode(), meta.mtime(), meta.mtime_nsec(), content));
        if meta.is_dir() {
            collect(&path, found);
        }
    }
}

impl Ran {
    /// It went well, and said nothing on standard error.
    #[track_caller]
    pub fn ok(self) -> String {
        assert_eq!((self.code, &*self.stderr), (Some(0), ""), "{}", self.stdout);
        self.stdout
    }

    /// It failed with `code` and exactly this message.
    #[track_caller]
    pub fn failed(self, code: i32, stderr: &str) {
        assert_eq!(self.stderr, stderr);
        assert_eq!(self.code, Some(code));
    }

    /// It failed with `code`, and its message has all of `said`.
    #[track_caller]
    pub fn failed_saying(self, code: i32, said: &[&str]) {
        assert_eq!(self.code, Some(code), "{self:?}");
        for text in said {
            assert!(self.stderr.contains(text), "{text}: {}", self.stderr);
        }
    }
}
