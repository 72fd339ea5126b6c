//! A test node: see scripts/node.

use std::fs::File;
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, setns};

use super::command::{Ended, Running, run};
use super::reason;
use super::{cache, repository};

/// How long scripts/node may take for one node; the images are loaded once and may take a while.
const UP_LIMIT: Duration = Duration::from_secs(300);
/// How long a command in a node may take that is not a test's subject.
pub const EXEC_LIMIT: Duration = Duration::from_secs(60);
/// All nodes of tests have this in front of their names, and scripts/test and scripts/bench take them down by it.
const PREFIX: &str = "e2e-";
const POD_NETWORK: &str = "--pod-network";

/// A node that is up. Dropped, it is taken down, whatever became of the test.
pub struct Node {
    pub name: String,
    pub address: IpAddr,
    /// The version of its kubelet, without the v.
    pub kubernetes: String,
    /// Its container runtime, as scripts/node names it.
    pub runtime: String,
    /// It has a network of pods of its own, so that its cluster needs no network plugin.
    pub has_pod_network: bool,
    made: Instant,
    /// What it had taken of processors, in seconds, when its power was cut.
    taken: Mutex<f64>,
}

impl Node {
    /// Makes a node and switches it on; a node of that name that an interrupted run left is removed first. It has a
    /// network of pods of its own.
    pub fn up(name: &str) -> Self {
        Self::make(name, &[POD_NETWORK])
    }

    /// The same with this address.
    pub fn up_at(name: &str, address: IpAddr) -> Self {
        Self::make(name, &[POD_NETWORK, "--address", &address.to_string()])
    }

    /// The same, left off: what it shall find at its first boot is put on its [`disk`].
    pub fn off(name: &str) -> Self {
        Self::make(name, &[POD_NETWORK, "--off"])
    }

    /// One as a user's is: its pods have the network that the cluster gives them.
    pub fn plain(name: &str) -> Self {
        Self::make(name, &[])
    }

    /// The same with containerd 2, whatever the others have.
    pub fn plain_with_containerd2(name: &str) -> Self {
        Self::make(name, &["--runtime", "containerd2"])
    }

    /// One of this version of Kubernetes, whatever the others have; with a network of pods of its own.
    pub fn of_version(name: &str, version: &str) -> Self {
        Self::make(name, &[POD_NETWORK, "--kubernetes", version])
    }

    /// Has the images of another version of Kubernetes, as if it had pulled them from a registry.
    #[track_caller]
    pub fn has_images_of(&self, version: &str) {
        let images = cache().join(format!("kubernetes/v{version}/images"));
        for name in ["kubernetes.tar", "pause.tar", "etcd.tar"] {
            std::fs::copy(images.join(name), disk(self).join("opt").join(name)).unwrap();
            self.sh(&format!("ctr -n k8s.io images import /opt/{name}; rm /opt/{name}"));
        }
    }

    /// Has the kubelet of another version of Kubernetes beside its own, as a file of this path.
    #[track_caller]
    pub fn has_kubelet_file(&self, version: &str) -> String {
        let name = format!("opt/kubelet-{version}");
        std::fs::copy(cache().join(format!("kubernetes/v{version}/bin/kubelet")), disk(self).join(&name)).unwrap();
        format!("/{name}")
    }

    fn make(name: &str, args: &[&str]) -> Self {
        let name = format!("{PREFIX}{name}");
        script(&["down", &name], EXEC_LIMIT).ok();
        reason::keep();
        // From here on the name is ours to take down.
        let (address, kubernetes) = (IpAddr::from([0, 0, 0, 0]), String::new());
        let has_pod_network = args.contains(&POD_NETWORK);
        let runtime = String::new();
        let (made, taken) = (Instant::now(), Mutex::new(0.0));
        let mut node = Self { name, address, kubernetes, runtime, has_pod_network, made, taken };
        let chosen: Vec<_> = [("--kubernetes", "HOIST_KUBERNETES"), ("--runtime", "HOIST_RUNTIME")]
            .into_iter()
            .filter_map(|(option, variable)| Some((option, std::env::var(variable).ok().filter(|v| !v.is_empty())?)))
            .collect();
        let chosen: Vec<_> = chosen.iter().flat_map(|(option, value)| [*option, value]).collect();
        // The last one counts: a test that names its own is not asked for another.
        script(&[&["up", &node.name], &*chosen, args].concat(), UP_LIMIT).ok();
        let list = script(&["list"], EXEC_LIMIT).ok();
        let fields: Vec<Vec<&str>> = list.lines().map(|line| line.split_whitespace().collect()).collect();
        let fields = fields.iter().find(|fields| fields.first() == Some(&node.name.as_str())).unwrap();
        node.address = fields[1].parse().unwrap();
        node.kubernetes = fields[2].into();
        node.runtime = fields[4].into();
        node
    }

    /// Starts a command in it, as root. Killed here, it is killed there.
    pub fn spawn<S: AsRef<std::ffi::OsStr>>(&self, command: impl IntoIterator<Item = S>) -> Running {
        Running::spawn(program().args(["exec", &self.name]).args(command), "")
    }

    /// Runs a command in it.
    pub fn exec<S: AsRef<std::ffi::OsStr>>(&self, command: impl IntoIterator<Item = S>) -> Ended {
        self.spawn(command).wait(EXEC_LIMIT)
    }

    /// Kills everything in it at once; its disk stays.
    pub fn power_cut(&self) {
        self.count();
        script(&["power-cut", &self.name], EXEC_LIMIT).ok();
    }

    /// Switches it on again.
    pub fn boot(&self) {
        script(&["boot", &self.name], UP_LIMIT).ok();
    }

    /// Looks from inside of its network, where its loopback addresses are.
    #[track_caller]
    pub fn inside<T: Send + 'static>(&self, look: impl FnOnce() -> T + Send + 'static) -> T {
        inside(File::open(format!("/proc/{}/ns/net", init_of(self))).unwrap(), look)
    }

    /// What a shell in it says to a script that must succeed.
    #[track_caller]
    pub fn sh(&self, script: &str) -> String {
        self.exec(["sh", "-euc", script]).ok()
    }
}

impl Node {
    /// What it has taken of processors, which its cgroup forgets where it is switched off.
    fn count(&self) -> f64 {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        *taken += processor_time(self).unwrap_or_default();
        *taken
    }

    /// Prints what may explain a failure: the last lines of the journal and of every container.
    fn show_logs(&self) {
        const JOURNAL: usize = 40;
        const CONTAINER: usize = 6;
        const WIDTH: usize = 300;
        let logs = run(program().args(["logs", &self.name]), EXEC_LIMIT).stdout;
        for (number, part) in logs.split("\n==> ").enumerate() {
            let lines: Vec<_> = part.lines().filter(|line| !line.is_empty()).collect();
            let (title, wanted) = if number == 0 { (Some("journal"), JOURNAL) } else { (None, CONTAINER) };
            eprintln!("==> {}: {}", self.name, title.or(lines.first().copied()).unwrap_or_default());
            for line in lines.iter().skip(1.max(lines.len().saturating_sub(wanted))) {
                eprintln!("{}", line.chars().take(WIDTH).collect::<String>());
            }
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.show_logs();
            // Logs are long, and who reads them begins at their end.
            eprintln!("==> {}: why the test failed: {}", self.name, reason::kept());
        }
        let taken = self.count();
        let down = script(&["down", &self.name], EXEC_LIMIT);
        if down.code != Some(0) {
            eprintln!("{down}");
        }
        // What of a test's time is this node's, and how much of that it has worked: .config/nextest.toml goes by it.
        eprintln!("{}: {:.0?}, and {taken:.0} s of a processor", self.name, self.made.elapsed());
    }
}

/// Puts this thread into another network than this machine's: a network is a thread's own.
pub fn enter(network: File) {
    setns(network, CloneFlags::CLONE_NEWNET).unwrap();
}

/// Looks from inside of a network, in a thread of its own.
#[track_caller]
pub fn inside<T: Send + 'static>(network: File, look: impl FnOnce() -> T + Send + 'static) -> T {
    let looked = std::thread::spawn(move || {
        enter(network);
        look()
    });
    looked.join().unwrap()
}

/// A node's own files, as this machine sees them: see scripts/node --help.
pub fn disk(node: &Node) -> PathBuf {
    let nodes = std::env::var_os("HOIST_NODES").map_or_else(|| "/var/lib/hoist-nodes".into(), PathBuf::from);
    nodes.join(&node.name).join("disk")
}

/// The pid of a node's first process, on this machine.
pub fn init_of(node: &Node) -> String {
    let text = std::fs::read_to_string(disk(node).with_file_name("init")).unwrap();
    text.split_whitespace().next().unwrap().to_owned()
}

/// The processor time that all of a node's processes have taken since it was switched on, in seconds, by its cgroup;
/// `None` of one that is off.
pub fn processor_time(node: &Node) -> Option<f64> {
    let read = |path: &str| std::fs::read_to_string(format!("/sys/fs/cgroup/{path}")).ok();
    let v1 = read(&format!("cpuacct/hoist-{}/cpuacct.usage", node.name));
    let v1 = v1.and_then(|text| text.trim().parse::<f64>().ok()).map(|nanoseconds| nanoseconds / 1e9);
    let v2 = || {
        let text = read(&format!("hoist-{}/cpu.stat", node.name))?;
        let microseconds = text.lines().find_map(|line| line.strip_prefix("usage_usec "))?;
        Some(microseconds.trim().parse::<f64>().ok()? / 1e6)
    };
    v1.or_else(v2)
}

fn program() -> Command {
    Command::new(repository().join("scripts/node"))
}

fn script(args: &[&str], limit: Duration) -> Ended {
    run(program().args(args), limit)
}
