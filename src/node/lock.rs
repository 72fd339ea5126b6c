//! The lock that lets one hoist at a time change a node.
//!
//! The lock is the file [`OWN`], of mode 0600 from its creation: `flock` works on a descriptor for reading, so every
//! user who may open a lock may hold it. The file stays empty and in its place. Guard's pod reaches it through its
//! mount of /var/lib/hoist.
//!
//! An older hoist, or a guard that has not been restarted since an upgrade, knows only [`OLD`], which has mode 0644
//! if it or the kubelet made the file. hoist takes this lock, too, so that both exclude each other, but ignores a
//! holder that is not root. The file describes its holder.
//!
//! What takes minutes, and lets guard do its work meanwhile, excludes only its like: [`exclusively`].

use std::fs::{self, File, OpenOptions, Permissions, TryLockError};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::kill;
use nix::unistd::Pid;

use crate::base::error::{Error, Result};
use crate::base::holders;
use crate::base::time::rfc3339;
use crate::node::host::Host;

const OWN: &str = "/var/lib/hoist/lock";
const OLD: &str = "/run/hoist.lock";
/// What one process at a time exchanges on a node: the kubelet, and hoist itself.
const EXCHANGES: [&str; 2] = ["/run/hoist-kubelet.lock", "/run/hoist-exchange.lock"];
/// Guard holds it for milliseconds, now and then: whoever comes then need not hear of it.
const TRIES: u32 = 20;
const INTERVAL: Duration = Duration::from_millis(50);
/// How often the file that was opened may have been removed before it was locked.
const REMOVALS: u32 = 10;

/// The lock: whoever has it, and nobody else, changes this node. It is given back when it is dropped.
#[derive(Debug)]
pub struct Lock {
    /// Without it where the disk has no room for an empty file, or is read-only.
    own: Option<File>,
    /// Without it where another user holds it.
    _old: Option<File>,
    path: PathBuf,
    /// It made the file, and the folder.
    made: (bool, bool),
}

/// What is exchanged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exchange {
    /// The kubelet.
    Kubelet,
    /// hoist itself.
    Hoist,
}

/// Lets one process at a time exchange this, until what it returns is dropped.
///
/// # Errors
/// Another one is at work; the system's refusal.
pub fn exclusively(host: &Host, what: Exchange) -> Result<File> {
    let (place, holder) = match what {
        Exchange::Kubelet => (EXCHANGES[0], "it exchanges this node's kubelet"),
        Exchange::Hoist => (EXCHANGES[1], "it exchanges this node's hoist"),
    };
    let path = host.path(place);
    let failed = |error| Error::io("lock", &path, error);
    let file = OpenOptions::new().create(true).append(true).mode(0o600).open(&path).map_err(failed)?;
    // One that an older hoist made is open to all.
    file.set_permissions(Permissions::from_mode(0o600)).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(Error::Locked { holder: holder.into() }),
        Err(TryLockError::Error(error)) => Err(failed(error)),
    }
}

/// Takes the lock that keeps a second hoist from this node, until it is dropped.
///
/// # Errors
/// Who holds it, and since when; the system's refusal.
pub fn take(host: &Host) -> Result<Lock> {
    for _ in 1..TRIES {
        match try_take(host) {
            Err(Error::Locked { .. }) => std::thread::sleep(INTERVAL),
            taken => return taken,
        }
    }
    try_take(host)
}

/// The same without any patience.
///
/// # Errors
/// The same.
pub fn try_take(host: &Host) -> Result<Lock> {
    let path = host.path(OWN);
    let mut made = (false, false);
    let mut own = None;
    for _ in 0..REMOVALS {
        let file = match open(&path, &mut made) {
            Ok(file) => file,
            // What the disk has no room for does not keep anybody from mending what can be mended.
            Err(error) if is_no_room(&error) => break,
            Err(error) => return Err(Error::io("lock", &path, error)),
        };
        lock(&file, &path).map_err(|held| held.into_error(host, &file))?;
        // Whoever held it before may have removed it.
        if is_at(&file, &path) {
            own = Some(file);
            break;
        }
    }
    let old = take_old(host)?;
    if own.is_none() && old.is_none() {
        return Err(Error::failed("lock this node", format!("there is no room for {}", path.display())));
    }
    Ok(Lock { own, _old: old, path, made })
}

impl Lock {
    /// Gives it back, and removes what taking it has made on the disk, if it was made by that.
    ///
    /// # Errors
    /// The system's refusal.
    pub fn undo(&self) -> Result<()> {
        let (file, folder) = self.made;
        if file {
            self.remove()?;
        }
        match self.path.parent().filter(|_| folder) {
            Some(folder) => crate::base::files::remove_empty_dir(folder),
            None => Ok(()),
        }
    }

    /// Removes the file. It is held until it is dropped: who has opened it meanwhile sees that it is gone.
    ///
    /// # Errors
    /// The system's refusal.
    pub fn remove(&self) -> Result<()> {
        match self.own.as_ref().is_some_and(|own| is_at(own, &self.path)) {
            true => fs::remove_file(&self.path).map_err(|error| Error::io("remove", &self.path, error)),
            false => Ok(()),
        }
    }
}

/// Who holds it now, in their own words; `None` when nobody does, as far as can be told.
pub fn holder(host: &Host) -> Option<String> {
    let own = host.path(OWN);
    if let Ok(file) = File::open(&own)
        && let Err(TryLockError::WouldBlock) = file.try_lock_shared()
    {
        return Some(words(host, &file));
    }
    let file = File::open(host.path(OLD)).ok()?;
    match file.try_lock_shared() {
        Err(TryLockError::WouldBlock) if holders::is_ours(&host.path("/proc"), &file) => Some(words(host, &file)),
        _ => None,
    }
}

/// What came of locking a file.
enum Held {
    ByAnother,
    Refused(Error),
}

impl Held {
    fn into_error(self, host: &Host, file: &File) -> Error {
        match self {
            Self::ByAnother => Error::Locked { holder: words(host, file) },
            Self::Refused(error) => error,
        }
    }
}

fn lock(file: &File, path: &Path) -> Result<(), Held> {
    match file.try_lock() {
        Ok(()) => Ok(()),
        Err(TryLockError::WouldBlock) => Err(Held::ByAnother),
        Err(TryLockError::Error(error)) => Err(Held::Refused(Error::io("lock", path, error))),
    }
}

/// Opens the file, and makes it and its folder where they are not there.
fn open(path: &Path, made: &mut (bool, bool)) -> std::io::Result<File> {
    if let Some(folder) = path.parent().filter(|folder| !folder.is_dir()) {
        fs::DirBuilder::new().recursive(true).mode(0o755).create(folder)?;
        made.1 = true;
    }
    match private().create_new(true).open(path) {
        Ok(file) => {
            made.0 = true;
            Ok(file)
        }
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => private().open(path),
        // On a disk that is read-only.
        Err(error) => File::open(path).map_err(|_| error),
    }
}

fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true).mode(0o600).custom_flags(nix::libc::O_NOFOLLOW);
    options
}

fn is_no_room(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{QuotaExceeded, ReadOnlyFilesystem, StorageFull};
    matches!(error.kind(), StorageFull | QuotaExceeded | ReadOnlyFilesystem)
}

/// Whether the open file is the one at `path`.
fn is_at(file: &File, path: &Path) -> bool {
    let id = |meta: fs::Metadata| (meta.dev(), meta.ino());
    match (file.metadata(), fs::symlink_metadata(path)) {
        (Ok(file), Ok(there)) => id(file) == id(there),
        _ => false,
    }
}

/// Takes what an older hoist takes, and says in it who holds both. `None` where another user's process keeps it: an older
/// hoist does nothing then.
fn take_old(host: &Host) -> Result<Option<File>> {
    let path = host.path(OLD);
    let mut file =
        private().create(true).truncate(false).open(&path).map_err(|error| Error::io("lock", &path, error))?;
    // The kubelet may have made it, for guard's pod.
    if file.metadata().is_ok_and(|meta| meta.mode() & 0o077 != 0) {
        file.set_permissions(Permissions::from_mode(0o600)).map_err(|error| Error::io("lock", &path, error))?;
    }
    match lock(&file, &path) {
        Ok(()) => {}
        Err(Held::ByAnother) if !holders::is_ours(&host.path("/proc"), &file) => {
            tracing::warn!(path = %path.display(), "another user's process holds the lock of older versions");
            return Ok(None);
        }
        Err(held) => return Err(held.into_error(host, &file)),
    }
    let text = format!("pid {}, since {}\n", std::process::id(), rfc3339(host.world().now()));
    // For people; the lock holds without it.
    let wrote = file.set_len(0).and_then(|()| file.rewind()).and_then(|()| file.write_all(text.as_bytes()));
    if let Err(error) = wrote {
        tracing::debug!(%error, "cannot say who holds the lock");
    }
    Ok(Some(file))
}

/// What can be said of who holds `file`: their own words, if they are of a process that is there and holds it.
fn words(host: &Host, file: &File) -> String {
    let mut text = String::new();
    let said = File::open(host.path(OLD)).and_then(|mut old| old.read_to_string(&mut text));
    let text = if said.is_ok() { text.trim() } else { "" };
    let named = text.strip_prefix("pid ").and_then(|rest| rest.split(',').next()).and_then(|pid| pid.parse().ok());
    match (holders::holders(&host.path("/proc"), file).first(), named) {
        (Some(pid), Some(named)) if *pid == named => text.to_owned(),
        (Some(pid), _) => format!("pid {pid}"),
        (None, Some(named)) if is_there(named) => text.to_owned(),
        (None, _) => "its pid is not known".to_owned(),
    }
}

fn is_there(pid: i32) -> bool {
    kill(Pid::from_raw(pid), None) != Err(Errno::ESRCH)
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command, Stdio};

    use nix::unistd::geteuid;

    use super::*;
    use crate::node::system;

    fn host() -> (tempfile::TempDir, Host) {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("run")).unwrap();
        let host = system::host(root.path(), Path::new("/etc/kubernetes/manifests"));
        (root, host)
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o777
    }

    fn own_words() -> String {
        format!("pid {}, since ", std::process::id())
    }

    #[test]
    fn an_exchange_excludes_its_like_and_no_user_may_hold_its_lock() {
        let (root, host) = host();
        let path = root.path().join("run/hoist-kubelet.lock");
        fs::write(&path, "").unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        let held = exclusively(&host, Exchange::Kubelet).unwrap();
        assert_eq!(mode(&path), 0o600);
        let second = exclusively(&host, Exchange::Kubelet).unwrap_err();
        assert!(second.exit_code() == 5 && second.to_string().contains("exchanges this node's kubelet"), "{second}");
        exclusively(&host, Exchange::Hoist).unwrap();
        drop(held);
        exclusively(&host, Exchange::Kubelet).unwrap();
    }

    #[test]
    fn it_is_held_by_one_and_says_by_whom() {
        let (_root, host) = host();
        assert_eq!(holder(&host), None);
        let held = take(&host).unwrap();
        assert!(holder(&host).unwrap().starts_with(&own_words()));
        assert!(matches!(try_take(&host), Err(Error::Locked { holder }) if holder.starts_with(&own_words())));
        drop(held);
        assert_eq!(holder(&host), None);
        take(&host).unwrap();
    }

    #[test]
    fn it_is_its_owners_alone_also_where_an_older_one_lies() {
        let (root, host) = host();
        let old = root.path().join("run/hoist.lock");
        fs::write(&old, "pid 1, since 2020-01-01T00:00:00Z\n").unwrap();
        fs::set_permissions(&old, Permissions::from_mode(0o644)).unwrap();
        let before = fs::metadata(&old).unwrap().ino();
        let held = take(&host).unwrap();
        assert_eq!((mode(&old), mode(&root.path().join("var/lib/hoist/lock"))), (0o600, 0o600));
        // A guard that runs has this very file mounted.
        assert_eq!(fs::metadata(&old).unwrap().ino(), before);
        drop(held);
    }

    #[test]
    fn a_link_is_not_followed() {
        let (root, host) = host();
        let victim = root.path().join("victim");
        fs::write(&victim, "precious").unwrap();
        fs::create_dir_all(root.path().join("var/lib/hoist")).unwrap();
        std::os::unix::fs::symlink(&victim, root.path().join("run/hoist.lock")).unwrap();
        assert!(try_take(&host).is_err());
        assert_eq!(fs::read_to_string(&victim).unwrap(), "precious");
    }

    #[test]
    fn an_older_hoist_keeps_it_and_is_kept_from_it() {
        let (root, host) = host();
        let old = OpenOptions::new().create(true).append(true).open(root.path().join("run/hoist.lock")).unwrap();
        old.try_lock().unwrap();
        // Of a process that has ended.
        (&old).write_all(b"pid 999999999, since 2020-01-01T00:00:00Z\n").unwrap();
        let Err(Error::Locked { holder: who }) = try_take(&host) else { panic!() };
        assert_eq!(who, "its pid is not known");
        assert_eq!(holder(&host), Some(who));
        old.unlock().unwrap();
        let held = try_take(&host).unwrap();
        assert!(matches!(old.try_lock(), Err(TryLockError::WouldBlock)));
        drop(held);
        old.try_lock().unwrap();
    }

    #[test]
    fn the_words_of_who_holds_it_no_more_are_nobodys() {
        let (root, host) = host();
        std::os::unix::fs::symlink("/proc", root.path().join("proc")).unwrap();
        let held = take(&host).unwrap();
        fs::write(root.path().join("run/hoist.lock"), "pid 1, since 2020-01-01T00:00:00Z\n").unwrap();
        assert_eq!(holder(&host), Some(format!("pid {}", std::process::id())), "as the kernel has it");
        drop(held);
        // A process that another test is about to run has its file, too, until it runs.
        for _ in 0..100 {
            if holder(&host).is_none() {
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        panic!("{:?}", holder(&host));
    }

    /// A process of another user's that has `path` open for reading, and holds it.
    fn foreign(path: &Path) -> Child {
        let mut flock = Command::new("setpriv");
        flock.args(["--reuid=65534", "--regid=65534", "--clear-groups", "flock"]).arg(path);
        let mut child = flock.args(["-c", "echo held; exec sleep 60"]).stdout(Stdio::piped()).spawn().unwrap();
        let mut said = [0; 5];
        child.stdout.as_mut().unwrap().read_exact(&mut said).unwrap();
        child
    }

    #[test]
    fn another_users_process_keeps_nobody_away() {
        if !geteuid().is_root() {
            // Only root can run something as somebody else.
            return;
        }
        let (root, host) = host();
        std::os::unix::fs::symlink("/proc", root.path().join("proc")).unwrap();
        fs::set_permissions(root.path(), Permissions::from_mode(0o755)).unwrap();
        let old = root.path().join("run/hoist.lock");
        fs::write(&old, "pid 1, since 2020-01-01T00:00:00Z\n").unwrap();
        fs::set_permissions(&old, Permissions::from_mode(0o644)).unwrap();
        let mut child = foreign(&old);
        assert_eq!(holder(&host), None);
        let held = try_take(&host).unwrap();
        // It cannot keep a second hoist from seeing the first.
        assert_eq!(holder(&host), Some(format!("pid {}", std::process::id())));
        assert!(matches!(try_take(&host), Err(Error::Locked { .. })));
        drop(held);
        assert_eq!(holder(&host), None);
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// A folder that everybody may read, such as an asset directory.
    #[test]
    fn it_is_told_whose_process_holds_a_folder() {
        let (root, _host) = host();
        let proc = Path::new("/proc");
        let open = || File::open(root.path()).unwrap();
        let own = open();
        own.try_lock().unwrap();
        assert!(holders::is_ours(proc, &open()));
        drop(own);
        if geteuid().is_root() {
            fs::set_permissions(root.path(), Permissions::from_mode(0o755)).unwrap();
            let mut child = foreign(root.path());
            assert!(open().try_lock().is_err() && !holders::is_ours(proc, &open()));
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    #[test]
    fn who_has_opened_a_lock_that_was_removed_does_not_hold_one() {
        let (root, host) = host();
        let held = take(&host).unwrap();
        held.undo().unwrap();
        assert!(!root.path().join("var/lib/hoist").exists());
        drop(held);
        let held = take(&host).unwrap();
        assert!(root.path().join("var/lib/hoist/lock").exists());
        drop(held);
        // It was there: it stays.
        take(&host).unwrap().undo().unwrap();
        assert!(root.path().join("var/lib/hoist/lock").exists());
    }
}
