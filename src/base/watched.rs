//! Folders that wake their user when something in them changes.
//!
//! A folder is watched, never a file: inotify follows an inode, and a file that is replaced by a rename is another one. What
//! is there counts when it is read, and no event says more than that something may be different.
//!
//! Beneath it is a poll. Where the kernel gives no watch, because this user has too many already, it is all there is.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use notify::event::{AccessKind, AccessMode, EventKind, ModifyKind};
use notify::{Config, Event, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::Notify;
use tokio::time::Instant;

/// How often folders that are watched are looked at all the same, and those that are not are tried to be watched again.
pub const POLL: Duration = Duration::from_secs(30);
/// How often the folders to watch are determined anew, while they change at the same time.
const TRIES: usize = 4;

/// What hears of events.
type Handler = Box<dyn Fn(notify::Result<Event>) + Send>;
/// Makes what sends them.
type Make = Box<dyn FnMut(Handler) -> notify::Result<Box<dyn Watcher + Send>> + Send>;
/// A folder's device and inode.
type Inode = (u64, u64);

/// Folders and what is known of changes in them.
pub struct Watched {
    folders: Vec<PathBuf>,
    make: Option<Make>,
    watcher: Option<Box<dyn Watcher + Send>>,
    /// What has a watch.
    with_watch: BTreeMap<PathBuf, Inode>,
    events: Arc<Events>,
    polled_at: Option<Instant>,
    trouble: Option<String>,
    is_told: bool,
}

/// What the watcher's thread leaves for the user.
#[derive(Default)]
struct Events {
    are_new: AtomicBool,
    wake: Notify,
    /// What has another name now, or none: its watch is over, or follows it elsewhere.
    moved: Mutex<BTreeSet<PathBuf>>,
    /// There were more events than the kernel keeps.
    are_lost: AtomicBool,
}

impl Events {
    fn take_in(&self, event: notify::Result<Event>) {
        if let Ok(event) = &event {
            if event.need_rescan() {
                self.are_lost.store(true, SeqCst);
            }
            match event.kind {
                EventKind::Access(AccessKind::Close(AccessMode::Write)) => {}
                // Reading changes nothing: the kubelet reads its folder every 20 s.
                EventKind::Access(_) => return,
                EventKind::Remove(_) | EventKind::Modify(ModifyKind::Name(_)) => {
                    let mut moved = self.moved.lock().unwrap_or_else(PoisonError::into_inner);
                    moved.extend(event.paths.iter().cloned());
                }
                _ => {}
            }
        }
        self.are_new.store(true, SeqCst);
        self.wake.notify_one();
    }
}

impl Watched {
    /// Watches the folders at these paths, which need not be there yet, by inotify.
    pub fn new(folders: Vec<PathBuf>) -> Self {
        Self::with(folders, |handler| {
            // notify panics where it gets no thread.
            std::thread::Builder::new().spawn(|| ())?;
            let watcher = RecommendedWatcher::new(handler, Config::default())?;
            Ok(Box::new(watcher) as Box<dyn Watcher + Send>)
        })
    }

    /// Watches them by what `make` makes.
    fn with(
        folders: Vec<PathBuf>,
        make: impl FnMut(Handler) -> notify::Result<Box<dyn Watcher + Send>> + Send + 'static,
    ) -> Self {
        Self { make: Some(Box::new(make)), ..Self::polled(folders) }
    }

    /// Watches nothing: the folders may always have changed.
    pub fn polled(folders: Vec<PathBuf>) -> Self {
        Self {
            folders,
            make: None,
            watcher: None,
            with_watch: BTreeMap::new(),
            events: Arc::default(),
            polled_at: None,
            trouble: None,
            is_told: false,
        }
    }

    /// Whether anything may have changed since this was last asked: what changes after that is
    /// said the next time. The first time it may have, and from then on every [`POLL`]; without a watch always.
    pub fn may_have_changed(&mut self, now: Instant) -> bool {
        let Some(make) = &mut self.make else { return true };
        let has_news = self.events.are_new.swap(false, SeqCst);
        let is_due = self.polled_at.is_none_or(|at| now.saturating_duration_since(at) >= POLL);
        if is_due {
            self.polled_at = Some(now);
        }
        if self.watcher.is_none() && is_due {
            let events = self.events.clone();
            match make(Box::new(move |event| events.take_in(event))) {
                Ok(watcher) => self.watcher = Some(watcher),
                Err(error) => self.give_up(&error),
            }
        }
        if has_news || is_due {
            self.watch();
        }
        has_news || is_due || self.watcher.is_none()
    }

    /// Waits until anything may have changed since [`Self::may_have_changed`] was last asked: without a watch, for ever.
    pub async fn changed(&self) {
        while !self.events.are_new.load(SeqCst) {
            self.events.wake.notified().await;
        }
    }

    /// Why the folders are polled, if they are: once.
    pub fn trouble(&mut self) -> Option<String> {
        let trouble = self.trouble.take()?;
        (!std::mem::replace(&mut self.is_told, true)).then_some(trouble)
    }

    /// Watches what is to be watched now. A folder that comes or goes meanwhile is noticed: either by its watch or by the
    /// next look.
    fn watch(&mut self) {
        for _ in 0..TRIES {
            let wanted = self.wanted();
            let moved = std::mem::take(&mut *self.events.moved.lock().unwrap_or_else(PoisonError::into_inner));
            let are_lost = self.events.are_lost.swap(false, SeqCst);
            let Some(watcher) = &mut self.watcher else { return };
            self.with_watch.retain(|path, inode| {
                // An inode that is free is soon another folder's.
                let stays = !are_lost && !moved.contains(path) && wanted.get(path) == Some(inode);
                if !stays {
                    // Where the folder is gone, the kernel has ended its watch.
                    let _ = watcher.unwatch(path);
                }
                stays
            });
            if wanted == self.with_watch {
                return;
            }
            for (path, inode) in wanted {
                if self.with_watch.contains_key(&path) {
                    continue;
                }
                match watcher.watch(&path, RecursiveMode::NonRecursive) {
                    Ok(()) => drop(self.with_watch.insert(path, inode)),
                    // It has just gone.
                    Err(_) if !path.is_dir() => {}
                    Err(error) => return self.give_up(&error),
                }
            }
        }
    }

    /// The folders in which a change tells of one in those that are asked for.
    fn wanted(&self) -> BTreeMap<PathBuf, Inode> {
        let inode = |path: &Path| {
            let meta = std::fs::metadata(path).ok().filter(std::fs::Metadata::is_dir)?;
            Some((path.to_owned(), (meta.dev(), meta.ino())))
        };
        let around = |path: &Path| path.ancestors().skip(1).find_map(inode);
        let of = |folder: &PathBuf| match inode(folder) {
            Some(found) => {
                let is_link = folder.is_symlink();
                [Some(found), is_link.then(|| around(folder)).flatten()]
            }
            None => [around(folder), None],
        };
        self.folders.iter().flat_map(of).flatten().collect()
    }

    fn give_up(&mut self, error: &notify::Error) {
        self.watcher = None;
        self.with_watch.clear();
        let folders: Vec<_> = self.folders.iter().map(|folder| folder.display().to_string()).collect();
        self.trouble = Some(format!(
            "cannot watch {}, which is polled instead: {}. If other programs have all watches, there can be more: `sysctl -w fs.inotify.max_user_instances=1024 fs.inotify.max_user_watches=524288`",
            folders.join(" and "),
            error.to_string().trim_end_matches('.')
        ));
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use notify::{ErrorKind, WatcherKind};
    use tempfile::TempDir;
    use tokio::time::{sleep, timeout};

    use super::*;

    /// A folder that is watched, and nothing new in it.
    async fn watched(folder: &str) -> (TempDir, PathBuf, Watched) {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join(folder);
        let mut watched = Watched::new(vec![folder.clone()]);
        assert!(watched.may_have_changed(Instant::now()), "nothing was read yet");
        assert_eq!(watched.trouble(), None);
        assert!(!watched.may_have_changed(Instant::now()));
        (root, folder, watched)
    }

    /// After each of these changes, one after another, the user is woken.
    async fn wakes(watched: &mut Watched, what: &str, change: impl FnOnce()) {
        change();
        timeout(Duration::from_secs(20), watched.changed()).await.unwrap_or_else(|_| panic!("{what}: nobody is woken"));
        // One change is several events.
        while watched.may_have_changed(Instant::now()) {
            sleep(Duration::from_millis(50)).await;
        }
    }

    fn rename_over(path: &Path, text: &str) {
        let beside = path.with_extension("new");
        fs::write(&beside, text).unwrap();
        fs::rename(&beside, path).unwrap();
    }

    #[tokio::test]
    async fn a_file_that_is_replaced_wakes_each_time() {
        let (_root, folder, mut watched) = watched("").await;
        let file = folder.join("bridge.json");
        for n in 0..3 {
            wakes(&mut watched, "renamed over", || rename_over(&file, &n.to_string())).await;
        }
        wakes(&mut watched, "written in place", || fs::write(&file, "3").unwrap()).await;
        wakes(&mut watched, "removed", || fs::remove_file(&file).unwrap()).await;
    }

    #[tokio::test]
    async fn reading_wakes_nobody() {
        let (_root, folder, mut watched) = watched("").await;
        wakes(&mut watched, "written", || fs::write(folder.join("etcd.yaml"), "kind: Pod\n").unwrap()).await;
        fs::read(folder.join("etcd.yaml")).unwrap();
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 1);
        let woken = timeout(Duration::from_millis(300), watched.changed()).await;
        assert!(woken.is_err());
    }

    /// As the kubelet brings another Secret into a volume: files stay links to what `..data` leads to.
    #[tokio::test]
    async fn a_link_that_is_swapped_wakes_each_time() {
        let (_root, folder, mut watched) = watched("").await;
        let swap = |n: u32| {
            let folder = folder.clone();
            move || {
                let data = folder.join(format!("..{n}"));
                fs::create_dir(&data).unwrap();
                fs::write(data.join("ca.crt"), n.to_string()).unwrap();
                symlink(format!("..{n}"), folder.join("..data_tmp")).unwrap();
                fs::rename(folder.join("..data_tmp"), folder.join("..data")).unwrap();
            }
        };
        for n in 0..3 {
            wakes(&mut watched, "..data swapped", swap(n)).await;
            assert_eq!(fs::read_to_string(folder.join("..data/ca.crt")).unwrap(), n.to_string());
        }
    }

    #[tokio::test]
    async fn a_folder_that_comes_goes_and_comes_again_is_watched() {
        let (root, folder, mut watched) = watched("hoist/guard").await;
        for _ in 0..3 {
            wakes(&mut watched, "made", || fs::create_dir_all(&folder).unwrap()).await;
            wakes(&mut watched, "written", || fs::write(folder.join("bridge.json"), "x").unwrap()).await;
            wakes(&mut watched, "removed", || fs::remove_dir_all(root.path().join("hoist")).unwrap()).await;
        }
    }

    #[tokio::test]
    async fn another_folder_in_its_place_is_watched() {
        let (root, folder, mut watched) = watched("guard").await;
        wakes(&mut watched, "made", || fs::create_dir(&folder).unwrap()).await;
        let swap = |n: u32| {
            fs::rename(&folder, root.path().join(n.to_string())).unwrap();
            fs::create_dir(&folder).unwrap();
        };
        for n in 0..3 {
            wakes(&mut watched, "renamed away", || swap(n)).await;
            wakes(&mut watched, "written", || fs::write(folder.join("bridge.json"), "x").unwrap()).await;
        }
    }

    #[tokio::test]
    async fn a_link_to_a_folder_is_watched_too() {
        let (root, folder, mut watched) = watched("manifests").await;
        let lead = |to: &str| {
            fs::create_dir(root.path().join(to)).unwrap();
            symlink(to, root.path().join("new")).unwrap();
            fs::rename(root.path().join("new"), &folder).unwrap();
        };
        for to in ["one", "two"] {
            wakes(&mut watched, "another link", || lead(to)).await;
            wakes(&mut watched, "written", || fs::write(folder.join("etcd.yaml"), "x").unwrap()).await;
        }
    }

    /// What the kernel says of one watch after another: all of them are taken as long as `left` is 0.
    struct Few(Arc<Mutex<u32>>);

    impl Watcher for Few {
        fn new<F: notify::EventHandler>(_: F, _: Config) -> notify::Result<Self> {
            unreachable!()
        }

        fn watch(&mut self, _: &Path, _: RecursiveMode) -> notify::Result<()> {
            let mut left = self.0.lock().unwrap();
            *left = left.checked_sub(1).ok_or_else(|| notify::Error::new(ErrorKind::MaxFilesWatch))?;
            Ok(())
        }

        fn unwatch(&mut self, _: &Path) -> notify::Result<()> {
            Ok(())
        }

        fn kind() -> WatcherKind {
            WatcherKind::NullWatcher
        }
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_watch_it_is_polled_until_there_is_one() {
        let root = tempfile::tempdir().unwrap();
        let folders = ["manifests", "guard"].map(|name| root.path().join(name));
        folders.iter().for_each(|folder| fs::create_dir(folder).unwrap());
        let left = Arc::new(Mutex::new(0));
        let (may_watch, is_limit) = (left.clone(), Arc::new(AtomicBool::new(true)));
        let has_instances = is_limit.clone();
        let mut watched = Watched::with(folders.to_vec(), move |_| match is_limit.load(SeqCst) {
            true => Err(std::io::Error::from_raw_os_error(nix::libc::EMFILE).into()),
            false => Ok(Box::new(Few(left.clone())) as Box<dyn Watcher + Send>),
        });
        let begun = Instant::now();
        let mut at = |seconds| {
            let may = watched.may_have_changed(begun + Duration::from_secs(seconds));
            (may, watched.trouble())
        };
        let (may, trouble) = at(0);
        let trouble = trouble.unwrap();
        assert!(
            may && trouble.contains("Too many open files") && trouble.contains("guard, which is polled"),
            "{trouble}"
        );
        assert!((1..29).all(|second| at(second) == (true, None)), "it is said once, and always looked");
        has_instances.store(false, SeqCst);
        *may_watch.lock().unwrap() = 1;
        assert_eq!((at(30), at(31)), ((true, None), (true, None)), "one folder of two is not enough");
        *may_watch.lock().unwrap() = 2;
        assert_eq!((at(60), at(61), at(89)), ((true, None), (false, None), (false, None)));
        assert_eq!((at(90), at(91)), ((true, None), (false, None)), "what is watched is polled, too");
        let woken = timeout(Duration::from_secs(3600), watched.changed()).await;
        assert!(woken.is_err());
    }
}
