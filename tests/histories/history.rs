//! One history: runs of `start` in one world, each stopped in its own way, until one must succeed.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use futures::FutureExt;
use hoist::base::error::Error;
use hoist::base::files;
use hoist::base::report::{Clock, Reporter};
use hoist::check::preflight::{CHECKS, Choice};
use hoist::desired::assets::{AssetSet, CLUSTER_ID};
use hoist::desired::config;
use hoist::desired::pki;
use hoist::desired::render;
use hoist::desired::secrets::{self, COMPONENTS, Server};
use hoist::node::host::Host;
use hoist::ops::start::{Input, Mode, Options, start_with};
use serde_json::Value;
use tempfile::TempDir;
use time::OffsetDateTime;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::outside::{Killed, Scripted, tree};
use crate::random::Random;
use crate::world::{Faults, IP, MACHINES, MANIFESTS, Machine, NODE, Shared, TURN, World};

/// The world knows no pods but the control plane's; objects that nobody looks at only take time.
const ALONE: &str = "network: {plugin: none}\nkubeProxy: {mode: none}\ndns: {plugin: none}\n";

/// Manifests of a user: a namespace, a kind, an object of it.
const USERS: &str = "\
apiVersion: v1
kind: Namespace
metadata: {name: user}
---
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: widgets.example.com}
spec:
  group: example.com
  names: {kind: Widget, plural: widgets}
  scope: Namespaced
  versions:
  - name: v1
    served: true
    storage: true
    schema: {openAPIV3Schema: {type: object}}
---
apiVersion: example.com/v1
kind: Widget
metadata: {name: one, namespace: user}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: settings, namespace: user}
data: {a: b}
";

/// A folder of a test's own: in memory where there is such a place, for thousands of histories write much.
fn folder() -> TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.unwrap()
}

/// What all histories begin with: an asset directory, which none of them may change.
struct Assets {
    dir: TempDir,
    set: AssetSet,
    cluster: config::Cluster,
    input: Input,
}

fn assets() -> &'static Assets {
    static ASSETS: OnceLock<Assets> = OnceLock::new();
    ASSETS.get_or_init(|| {
        let text = format!(
            "apiVersion: hoist/v1alpha1\nkind: Cluster\ncontrollers:\n- {{name: {NODE}, address: {IP}}}\n{ALONE}"
        );
        let cluster = config::parse("cluster.yaml", &text, Path::new("/")).unwrap();
        let now = OffsetDateTime::now_utc();
        let pki = pki::issue(&cluster, &BTreeMap::new(), &pki::UserFiles::default(), now).unwrap();
        let mut set = render::render(&cluster, &pki.files, "abcdef.0123456789abcdef").unwrap();
        set.files.insert("manifests/user.yaml".into(), files::File::public(USERS));
        let dir = folder();
        set.write(&dir.path().join("assets"), &Default::default()).unwrap();
        fs::write(dir.path().join("hoist"), "a static binary").unwrap();
        let input = Input::load(&dir.path().join("assets")).unwrap();
        // Every history notes the same here, which all of them share.
        fs::write(dir.path().join("assets").join(CLUSTER_ID), "uid-kube-system\n").unwrap();
        fs::set_permissions(dir.path().join("assets").join(CLUSTER_ID), fs::Permissions::from_mode(0o600)).unwrap();
        Assets { dir, set, cluster, input }
    })
}

/// The asset directory with these add-ons besides.
pub fn input_with_addons(addons: &str) -> Input {
    let Assets { dir, set, .. } = assets();
    let mut set = set.clone();
    set.files.insert("addons/user.yaml".into(), files::File::public(addons));
    Input::of(set, &dir.path().join("assets")).unwrap()
}

/// What the bridge's pods and etcd must find where they mount it.
fn mounted(root: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let Assets { set, cluster, .. } = assets();
    let tls = set.tls();
    let mut all = BTreeMap::new();
    let mut add = |folder: PathBuf, files: secrets::SecretFiles| {
        all.extend(files.into_iter().map(|(name, content)| (folder.join(name), content)));
    };
    for component in COMPONENTS {
        let folder = root.join("etc/kubernetes/bridge").join(component);
        add(folder, secrets::of_component(component, cluster, &tls, Server::Bridge).unwrap());
    }
    add(root.join("etc/kubernetes/pki/etcd"), secrets::of_etcd(NODE, &tls).unwrap());
    all
}

/// How a run is stopped, but for a kill at a moment, which is the world's to know.
#[derive(Debug, Clone, Copy)]
pub enum Stop {
    Never,
    Kill(Duration),
    Signal(Duration, u8),
}

/// How a run ended.
#[derive(Debug)]
pub enum Ended {
    Done,
    Killed,
    Failed(Error),
}

impl Ended {
    /// What a run came to, which may have unwound where it was killed.
    pub fn of(result: std::thread::Result<Result<(), Error>>) -> Self {
        match result {
            Ok(Ok(())) => Self::Done,
            Ok(Err(error)) => Self::Failed(error),
            Err(unwound) => match unwound.downcast::<Killed>() {
                Ok(killed) => {
                    put_back(killed.0);
                    Self::Killed
                }
                Err(panic) => std::panic::resume_unwind(panic),
            },
        }
    }
}

pub struct History {
    root: TempDir,
    scripted: Scripted,
    begun: Instant,
}

/// A cluster at rest, without what time and chance make: what must be the same whatever happened before.
pub type Rest = BTreeMap<String, String>;

impl History {
    pub fn new(machine: Machine, random: Random) -> Self {
        let root = folder();
        let world = World::new(root.path(), machine, random, Arc::new(mounted(root.path())));
        let scripted = Scripted { world: Arc::new(Mutex::new(world)), killed: Arc::new(Notify::new()) };
        Self { root, scripted, begun: Instant::now() }
    }

    pub fn world(&self) -> &Shared {
        &self.scripted.world
    }

    /// Lets the world go on beside `what`.
    pub async fn beside<T>(&self, what: impl Future<Output = T>) -> T {
        let turns = async {
            loop {
                tokio::time::sleep(TURN).await;
                self.world().lock().unwrap().turn(self.begun.elapsed());
            }
        };
        tokio::select! {
            biased;
            result = what => result,
            () = turns => unreachable!(),
        }
    }

    /// Lets the world go on for a while.
    pub async fn pass(&self, time: Duration) {
        self.beside(tokio::time::sleep(time)).await;
    }

    pub fn host(&self) -> Host {
        Host::new(self.root.path(), &Path::new("/").join(MANIFESTS), Arc::new(self.scripted.clone()))
    }

    pub fn reporter(&self) -> Reporter {
        let begun = Instant::now();
        let clock = Clock::new(OffsetDateTime::UNIX_EPOCH, move || begun.elapsed());
        Reporter::plain(Box::new(Tale(self.world().clone())), clock)
    }

    /// One more run of `start`, beside another one: it must not get far.
    pub async fn run_beside(&self) -> Result<(), Error> {
        let (host, options, reporter) = (self.host(), options(Duration::MAX, Duration::MAX), self.reporter());
        start_with(&host, &assets().input, &options, &reporter, std::future::pending()).await
    }

    /// One run of `start` with these add-ons, which a test lets the world go on beside.
    pub async fn start_with_addons(&self, addons: &str, progress_timeout: Duration) -> Result<(), Error> {
        self.say("start, with add-ons".into());
        let input = input_with_addons(addons);
        let (host, options, reporter) =
            (self.host(), options(progress_timeout * 100, progress_timeout), self.reporter());
        start_with(&host, &input, &options, &reporter, std::future::pending()).await
    }

    /// One run of `start`.
    pub async fn run(&self, stop: Stop, timeout: Duration, progress_timeout: Duration) -> Ended {
        self.say(format!("start, {stop:?}"));
        let (host, options, reporter) = (self.host(), options(timeout, progress_timeout), self.reporter());
        let input = &assets().input;
        let after = |time| async move {
            if let Some(time) = time { tokio::time::sleep(time).await } else { std::future::pending().await }
        };
        let (kill, signal) = match stop {
            Stop::Never => (None, None),
            Stop::Kill(at) => (Some(at), None),
            Stop::Signal(at, number) => (None, Some((at, number))),
        };
        let signalled = async {
            after(signal.map(|(at, _)| at)).await;
            signal.map(|(_, number)| number).unwrap_or_default()
        };
        // A last answer and all that explains a failure may come after the limit.
        let limit = timeout + Duration::from_secs(150);
        let run = AssertUnwindSafe(start_with(&host, input, &options, &reporter, signalled)).catch_unwind();
        let ended = self.until_killed(async {
            tokio::select! {
                biased;
                () = after(kill) => Ended::Killed,
                () = after(Some(limit)) => panic!("start does not end within its limits"),
                result = run => Ended::of(result),
            }
        });
        let ended = ended.await;
        self.say(format!("start ended: {ended:?}"));
        ended
    }

    /// hoist at work, until it ends or is killed, and the world beside it.
    pub async fn until_killed(&self, work: impl Future<Output = Ended>) -> Ended {
        self.scripted.watch_disk();
        let ended = self.beside(async {
            tokio::select! {
                biased;
                () = self.scripted.killed.notified() => Ended::Killed,
                ended = work => ended,
            }
        });
        let ended = ended.await;
        files::watch(None);
        self.world().lock().unwrap().faults.kill = None;
        ended
    }

    pub fn say(&self, text: String) {
        self.world().lock().unwrap().say(text);
    }

    /// Nothing goes wrong any more: a run must succeed, and the next one find nothing to do.
    pub async fn conclude(&self) -> Rest {
        self.world().lock().unwrap().heal();
        let ended = self.run(Stop::Never, Duration::from_secs(1800), Duration::from_secs(300)).await;
        assert!(matches!(ended, Ended::Done), "the last run failed: {ended:?}");
        self.pass(Duration::from_secs(10)).await;
        let (rest, writes) = (self.rest(), self.world().lock().unwrap().writes);
        let ended = self.run(Stop::Never, Duration::from_secs(60), Duration::from_secs(60)).await;
        assert!(matches!(ended, Ended::Done), "a run with nothing to do failed: {ended:?}");
        let writes_now = self.world().lock().unwrap().writes;
        assert_eq!(writes, writes_now, "a run with nothing to do changed something");
        self.pass(Duration::from_secs(5)).await;
        assert_same(&rest, &self.rest());
        self.assert_nothing_wrong();
        rest
    }

    pub fn assert_nothing_wrong(&self) {
        let wrong = self.world().lock().unwrap().wrong.clone();
        assert!(wrong.is_empty(), "{wrong:#?}");
    }

    /// The cluster and the disk, without what time and chance make.
    pub fn rest(&self) -> Rest {
        let mut rest = Rest::new();
        for (path, mode, content) in tree(self.root.path()) {
            let name = path.strip_prefix(self.root.path()).unwrap().display().to_string();
            if name != "run/hoist.lock" {
                rest.insert(name, format!("{mode:o} {}", files::sha256(&content)));
            }
        }
        let world = self.world().lock().unwrap();
        rest.insert("kubelet".into(), format!("{:?}", world.kubelet_is_current()));
        for (key, object) in world.store.all() {
            let mut object = object.clone();
            let metadata = object["metadata"].as_object_mut().unwrap();
            for field in ["resourceVersion", "uid"] {
                metadata.remove(field);
            }
            if let Some(owners) = metadata.get_mut("ownerReferences").and_then(Value::as_array_mut) {
                owners.iter_mut().for_each(|owner| owner["uid"] = Value::Null);
            }
            let mut name = format!("{} {}/{}", key.0, key.1, key.2);
            if let Some(annotations) = metadata.get_mut("annotations").and_then(Value::as_object_mut) {
                annotations.remove("world/served-ms");
                // It names the file and its content.
                annotations.remove("kubernetes.io/config.mirror");
            }
            match key.0.as_str() {
                "leases.coordination.k8s.io" => {
                    object["spec"] = world.is_held_by_self_hosted(&key.2).into();
                }
                "pods" => {
                    if let Some(owner) = metadata.get("ownerReferences").filter(|owner| owner[0]["kind"] != "Node") {
                        name = format!("pods of {}", owner[0]["name"]);
                        metadata.remove("name");
                    }
                    let ready = object.pointer("/status/conditions/0/status").cloned();
                    object["status"] = ready.unwrap_or_default();
                }
                "secrets" if key.2.starts_with("bootstrap-token-") => {
                    object["data"]["expiration"] = Value::Null;
                }
                _ => {}
            }
            object.sort_all_objects();
            let before = rest.insert(name.clone(), object.to_string());
            assert_eq!(before, None, "two of {name}");
        }
        rest
    }
}

/// Two clusters at rest are the same; of what differs, the beginning is shown.
#[track_caller]
pub fn assert_same(left: &Rest, right: &Rest) {
    let shown = |rest: &Rest, name: &String| rest.get(name).map(|text| format!("{text:.300}"));
    let names: std::collections::BTreeSet<_> = left.keys().chain(right.keys()).collect();
    let different: Vec<_> = names
        .into_iter()
        .filter(|name| left.get(*name) != right.get(*name))
        .map(|name| format!("{name}\n  {:?}\n  {:?}", shown(left, name), shown(right, name)))
        .collect();
    assert!(different.is_empty(), "it does not come to the same:\n{}", different.join("\n"));
}

pub fn options(timeout: Duration, progress_timeout: Duration) -> Options {
    let dir = assets().dir.path();
    let pods = ["kube-apiserver", "kube-controller-manager", "kube-scheduler"];
    Options {
        asset_dir: dir.join("assets"),
        node_name: None,
        // They look at much that is not in this world, and change nothing.
        preflight: Choice {
            skip: CHECKS.iter().map(|check| check.name).collect(),
            ignore: Vec::new(),
            new_cluster: false,
        },
        validate: false,
        required_pods: pods.map(|name| format!("kube-system/{name}").parse().unwrap()).to_vec(),
        progress_timeout,
        timeout,
        binary: dir.join("hoist"),
        mode: Mode::Start,
    }
}

/// Puts the files beside back that a thread has cleaned up which was to be killed.
fn put_back(files: Vec<(PathBuf, u32, Vec<u8>)>) {
    for (path, mode, content) in files {
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    }
}

/// What hoist reports goes into the world's tale.
struct Tale(Shared);

impl io::Write for Tale {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(bytes).trim_end().to_owned();
        if !text.is_empty() {
            self.0.lock().unwrap().say(format!("    hoist: {text}"));
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Runs `tale` in a world of its own, whose time passes as fast as it is told; when it fails, all that happened in the
/// world is shown.
pub fn in_world<T: Send>(
    what: &str,
    machine: Machine,
    random: Random,
    tale: impl AsyncFnOnce(&History) -> T + Send,
) -> T {
    /// guard's loop and all that it awaits, without optimisation, takes more than a thread has by default.
    const STACK: usize = 16 << 20;
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().stack_size(STACK);
        let thread = thread.spawn_scoped(scope, || play(what, machine, random, tale)).unwrap();
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

fn play<T>(what: &str, machine: Machine, random: Random, tale: impl AsyncFnOnce(&History) -> T) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let history = History::new(machine, random);
        let told = AssertUnwindSafe(tale(&history)).catch_unwind().await;
        files::watch(None);
        match told {
            Ok(told) => told,
            Err(panic) => {
                let world = history.world().lock().unwrap_or_else(|poisoned| poisoned.into_inner());
                eprintln!("{what}\n{}\nthat was: {what}", world.tale.join("\n"));
                std::panic::resume_unwind(panic);
            }
        }
    })
}

/// A history in which everything may go wrong that a world knows.
pub async fn random_history(history: &History, random: &mut Random) -> Rest {
    let runs = 1 + random.below(4);
    for _ in 0..runs {
        {
            let mut world = history.world().lock().unwrap();
            let moments = world.faults.moments;
            let until = world.now + random.millis(1000, 40_000);
            world.faults = Faults { moments, until, ..Faults::random(random) };
            if random.permille(300) {
                world.faults.kill = Some(moments + 1 + random.below(400));
            }
        }
        let soon = random.millis(0, 30_000);
        let stop = match random.below(4) {
            0 => Stop::Kill(soon),
            1 => Stop::Signal(soon, random.pick(&[2, 15])),
            _ => Stop::Never,
        };
        let (timeout, progress) = random.pick(&[(1800, 300), (1800, 300), (90, 20)]);
        let ended = history.run(stop, Duration::from_secs(timeout), Duration::from_secs(progress)).await;
        if let Ended::Failed(error) = &ended {
            // Nothing is wrong with the input or this machine.
            assert!([1, 6, 7, 130, 143].contains(&error.exit_code()), "{error:?}");
        }
        let pause = random.pick(&[0, 500, 5000, 30_000]);
        history.pass(random.millis(0, pause)).await;
    }
    history.conclude().await
}

/// What a history without any fault comes to, for each machine.
pub fn reference(machine: Machine) -> &'static Rest {
    static RESTS: OnceLock<BTreeMap<usize, Rest>> = OnceLock::new();
    let index = |machine: Machine| MACHINES.iter().position(|there| *there == machine).unwrap();
    let rests = RESTS.get_or_init(|| {
        let all = MACHINES.map(|machine| {
            (
                index(machine),
                in_world("the reference", machine, Random::new(0), async |history| history.conclude().await),
            )
        });
        all.into_iter().collect()
    });
    &rests[&index(machine)]
}

/// The asset directory, which nothing may change.
pub fn asset_tree() -> Vec<(PathBuf, u32, Vec<u8>)> {
    tree(assets().dir.path())
}
