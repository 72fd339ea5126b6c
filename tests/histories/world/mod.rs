//! A machine and its cluster, in memory and below a folder: they behave as the real ones do where hoist depends on it,
//! and hold hoist to what it promises.

mod api;
mod controllers;
mod disk;
mod faults;
mod process;
mod runtime;
mod store;
mod systemd;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hoist::base::files::Operation;
use time::OffsetDateTime;

pub use api::{Request, Response, status};
pub use faults::{Fault, Faults, place};
pub use process::Program;
pub use runtime::MANIFESTS;
use store::Store;
pub use store::key;
pub use systemd::{MACHINES, Machine};

use crate::random::Random;
use disk::Disk;
use process::Process;
use runtime::{Kubelet, Pod, Runtime};
use systemd::Unit;

pub const NODE: &str = "c1";
pub const IP: &str = "198.51.100.10";
pub const LOOPBACK: &str = "127.0.0.1";
/// How often the world takes a turn.
pub const TURN: Duration = Duration::from_millis(100);
/// What the world has taken excuses an outage that begins so soon after it.
const EXCUSE: Duration = Duration::from_secs(3);

/// More than any kernel counts (PID_MAX_LIMIT): no signal reaches a process of the machine that the tests run on.
const NO_PROCESS: u32 = 5_000_000;

pub type Shared = Arc<Mutex<World>>;

/// How fast this world is.
pub struct Pace {
    pod: (u64, u64),
    pub namespaces: Duration,
}

impl Pace {
    fn new(random: &mut Random) -> Self {
        // Most images are there; some are pulled.
        let pod = random.pick(&[(50, 500), (50, 500), (300, 3000), (2000, 20_000)]);
        Self { pod, namespaces: random.millis(0, 800) }
    }

    fn pod(&self, random: &mut Random) -> Duration {
        random.millis(self.pod.0, self.pod.1)
    }
}

/// What comes about later by itself.
#[derive(Debug)]
pub enum Later {
    Establish(String),
}

pub struct World {
    pub root: PathBuf,
    /// Since the history began.
    pub now: Duration,
    /// What the date has jumped.
    pub jumped: time::Duration,
    pub random: Random,
    pub pace: Pace,
    pub store: Store,
    pub unit: Unit,
    pub kubelet: Option<Kubelet>,
    pub runtime: Runtime,
    pub processes: BTreeMap<u32, Process>,
    last_pid: u32,
    later: Vec<(Duration, Later)>,
    api_since: Option<Duration>,
    /// The store's version when the controllers last looked.
    controlled_at: u64,
    /// Answers to lists, and the version of what they list.
    lists: BTreeMap<String, (u64, String)>,
    pub faults: Faults,
    /// Until then no self-hosted API server gets ready.
    pub bad_until: Duration,
    /// hoist may take the self-hosted control plane away, once another one serves.
    pub may_take_away: bool,
    /// Manifests of static pods that have their date by this world's clock.
    dated: BTreeSet<u64>,
    /// When the world last took a process.
    taken: Duration,
    /// NODE_IP has been served before.
    pub has_served: bool,
    /// Writes that hoist has got through to the API, and changes that it has made to the disk.
    pub writes: u64,
    /// What must be in the folders that static pods mount.
    pub secrets: Arc<BTreeMap<PathBuf, Vec<u8>>>,
    /// What a power cut would leave.
    pub disk: Disk,
    /// What hoist or this world has done wrong.
    pub wrong: Vec<String>,
    pub tale: Vec<String>,
}

impl World {
    pub fn new(root: &Path, machine: Machine, random: Random, secrets: Arc<BTreeMap<PathBuf, Vec<u8>>>) -> Self {
        let mut random = random;
        let pace = Pace::new(&mut random);
        let mut world = Self {
            root: root.to_owned(),
            now: Duration::ZERO,
            jumped: time::Duration::ZERO,
            pace,
            random,
            store: Store::default(),
            unit: Unit::new(machine),
            kubelet: None,
            runtime: Runtime::default(),
            processes: BTreeMap::new(),
            last_pid: NO_PROCESS,
            later: Vec::new(),
            api_since: None,
            controlled_at: 0,
            lists: BTreeMap::new(),
            faults: Faults::default(),
            bad_until: Duration::ZERO,
            may_take_away: false,
            dated: BTreeSet::new(),
            taken: Duration::ZERO,
            has_served: false,
            writes: 0,
            secrets,
            disk: Disk::default(),
            wrong: Vec::new(),
            tale: Vec::new(),
        };
        world.make_machine();
        world.disk = Disk::of(root);
        world
    }

    /// The date here.
    pub fn date(&self) -> OffsetDateTime {
        OffsetDateTime::from_unix_timestamp(1_800_000_000).unwrap() + self.now + self.jumped
    }

    pub fn say(&mut self, text: String) {
        self.tale.push(format!("{:9.3} {text}", self.now.as_secs_f64()));
    }

    pub fn wrong(&mut self, text: String) {
        self.say(format!("WRONG: {text}"));
        self.wrong.push(text);
    }

    pub fn later(&mut self, at: Duration, what: Later) {
        self.later.push((at, what));
    }

    /// All that happens by itself up to `now`.
    pub fn turn(&mut self, now: Duration) {
        self.now = now;
        self.date_manifests();
        let (due, later): (Vec<_>, _) = std::mem::take(&mut self.later).into_iter().partition(|(at, _)| *at <= now);
        self.later = later;
        for (_, what) in due {
            match what {
                Later::Establish(name) => self.establish(&name),
            }
        }
        self.tick_faults();
        self.tick_systemd();
        self.tick_processes();
        self.tick_kubelet();
        self.tick_api();
        self.tick_leases();
        self.tick_controllers();
        self.has_served |= self.behind_node_ip().is_some_and(|server| self.is_ready(server));
    }

    /// Nothing goes wrong any more.
    pub fn heal(&mut self) {
        self.faults.heal();
        self.heal_api_server();
        self.pace.pod = (50, 500);
        self.say("all is well from now on".into());
    }

    /// Whether the kubelet runs with the files as they are now.
    pub fn kubelet_is_current(&self) -> bool {
        let with = self.kubelet.as_ref().map(|kubelet| kubelet.with.clone());
        with.is_some() && with == self.kubelet_files()
    }

    /// Whether a process of the self-hosted control plane holds a Lease.
    pub fn is_held_by_self_hosted(&self, lease: &str) -> bool {
        let holder = self.holder(lease);
        self.processes.values().any(|process| process.identity == holder && !process.is_bridge())
    }

    /// The kubelet ends these containers of static pods because their manifest is gone or another: does somebody else
    /// serve NODE_IP?
    fn judge_end(&mut self, pids: &[u32]) {
        let serves_it = pids
            .iter()
            .any(|pid| self.processes.get(pid).is_some_and(|p| p.is_bridge() && p.program == Program::ApiServer));
        let etcd = pids.iter().any(|pid| self.processes.get(pid).is_some_and(|p| p.program == Program::Etcd));
        let other = self.one(Program::ApiServer, false).is_some_and(|server| self.is_ready(server));
        let excused = self.taken > Duration::ZERO && self.now < self.taken + EXCUSE;
        if self.has_served && ((serves_it && !other && !excused) || etcd) {
            self.wrong("hoist takes away what serves NODE_IP, and nobody else is ready".into());
        }
    }

    /// Before hoist changes something on the disk.
    pub fn judge_operation(&mut self, operation: Operation, path: &Path) {
        if operation == Operation::Sync {
            self.disk.sync(path);
        }
        self.writes += u64::from(operation != Operation::Sync && (operation != Operation::Remove || path.exists()));
        let manifest = |id: &str| self.root.join(MANIFESTS).join(id.split(' ').next().unwrap_or_default());
        let living = |(id, pod): &(&String, &Pod)| pod.is_static && (self.lives(id) || manifest(id).exists());
        let mut mounted = self.runtime.pods.iter().filter(living).flat_map(|(_, pod)| pod.mounts.iter());
        let is_lost = match operation {
            Operation::Remove => path.exists() && mounted.any(|mount| path.starts_with(mount)),
            // What replaces a key is another key.
            Operation::Rename => {
                let is_key = self.secrets.contains_key(path);
                is_key && path.exists() && mounted.any(|mount| path.starts_with(mount))
            }
            Operation::RemoveDir => {
                path.exists() && mounted.any(|mount| path.starts_with(mount) || mount.starts_with(path))
            }
            _ => false,
        };
        if is_lost {
            self.wrong(format!("{operation:?} {}, which a static pod that lives has mounted", path.display()));
        }
    }
}
