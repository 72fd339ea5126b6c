//! The processes of the machine, as its /proc shows them: what each is, when it serves, how it ends.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use hoist::node::processes::PERMANENT;

use super::{IP, World};

/// How long the machine was up when the history began.
const BOOTED: Duration = Duration::from_secs(1000);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Program {
    Etcd,
    ApiServer,
    Forwarder,
    ControllerManager,
    Scheduler,
    Other,
}

#[derive(Debug, Clone)]
pub struct Process {
    pub pid: u32,
    pub program: Program,
    /// Its HOIST_BRIDGE, if it has one.
    pub mark: Option<String>,
    /// Its HOIST_STATIC, if it has one.
    pub permanent: Option<String>,
    /// Of which pod, by the runtime's key.
    pub pod: String,
    pub begun: Duration,
    /// When it serves, as far as that is up to itself.
    pub ready_at: Option<Duration>,
    /// When it ends, once it was told to.
    pub ends: Option<Duration>,
    /// Under which it leads.
    pub identity: String,
    /// When it next does what it does.
    pub next: Duration,
    /// The Lease of another as it was last seen to change, and when.
    pub seen: (String, Duration),
    /// It answers nothing any more, and works all the time.
    pub hangs: bool,
}

/// Why a process is no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// It was told to end.
    Terminated,
    /// The world took it.
    Taken,
}

impl Process {
    pub fn is_bridge(&self) -> bool {
        self.mark.is_some()
    }

    /// The file's name, as /proc has it.
    fn words(&self) -> &'static str {
        match self.program {
            Program::Etcd => "etcd\0--x\0",
            Program::ApiServer => "kube-apiserver\0--x\0",
            Program::Forwarder => "/hoist\0forward\0",
            Program::ControllerManager if self.is_bridge() => {
                "kube-controller-manager\0--leader-elect-lease-duration=13s\0"
            }
            Program::ControllerManager => "kube-controller-manager\0--x\0",
            Program::Scheduler if self.is_bridge() => {
                "/usr/local/bin/kube-scheduler\0--leader-elect-lease-duration=13s\0"
            }
            Program::Scheduler => "/usr/local/bin/kube-scheduler\0--x\0",
            Program::Other => "sleep\0infinity\0",
        }
    }

    /// The ports that it holds: on which host (empty: all), and which.
    fn ports(&self) -> &'static [(&'static str, u16)] {
        match (self.program, self.is_bridge()) {
            (Program::Etcd, _) => &[("127.0.0.1", 2379), (IP, 2379), (IP, 2380), ("127.0.0.1", 2381)],
            (Program::ApiServer, true) => &[("127.0.0.1", 6444)],
            (Program::ApiServer, false) => &[("", 6443)],
            (Program::Forwarder, _) => &[(IP, 6443)],
            (Program::ControllerManager, true) => &[("127.0.0.1", 10267)],
            (Program::ControllerManager, false) => &[("127.0.0.1", 10257)],
            (Program::Scheduler, true) => &[("127.0.0.1", 10269)],
            (Program::Scheduler, false) => &[("127.0.0.1", 10259)],
            (Program::Other, _) => &[],
        }
    }
}

impl World {
    fn proc(&self) -> PathBuf {
        self.root.join("proc")
    }

    /// Shows other control planes in /proc: of hosted clusters, with ports of their own or networks of their own. They are
    /// there throughout, and nobody may care.
    pub fn show_neighbours(&mut self) {
        self.show_ports();
        for (pid, is_in_host_network, environment, command) in [
            (10, true, "", "kube-apiserver\0--secure-port=7443\0"),
            (11, true, "", "kube-controller-manager\0--secure-port=10357\0"),
            (12, true, "", "kube-scheduler\0--secure-port=10359\0"),
            (13, true, "", "etcd\0--listen-client-urls=https://127.0.0.1:3379\0"),
            (14, false, "", "kube-apiserver\0--secure-port=6443\0"),
            (15, false, "", "kube-controller-manager\0"),
            (16, false, "", "kube-scheduler\0"),
            (17, false, "HOIST_BRIDGE=kube-controller-manager\0", "kube-controller-manager\0"),
            (18, false, "HOIST_STATIC=kube-scheduler\0", "kube-scheduler\0"),
        ] {
            let dir = self.proc().join(pid.to_string());
            fs::create_dir_all(dir.join("net")).unwrap();
            match is_in_host_network {
                true => fs::hard_link(self.proc().join("net/tcp"), dir.join("net/tcp")).unwrap(),
                false => fs::write(dir.join("net/tcp"), "").unwrap(),
            }
            fs::write(dir.join("environ"), environment).unwrap();
            fs::write(dir.join("cmdline"), command).unwrap();
        }
    }

    /// Starts a process and shows it in /proc.
    pub fn spawn(&mut self, program: Program, marks: (Option<String>, Option<String>), pod: &str) -> u32 {
        let (mark, permanent) = marks;
        self.last_pid += 1;
        let pid = self.last_pid;
        let ready_at = match program {
            // Once it has reached etcd, or an API server.
            Program::ApiServer | Program::Forwarder | Program::ControllerManager | Program::Scheduler => None,
            _ => Some(self.now + self.random.millis(300, 700)),
        };
        let identity = format!("{}_{:016x}", super::NODE, self.random.next());
        let process = Process {
            pid,
            program,
            mark,
            permanent,
            pod: pod.to_owned(),
            begun: self.now,
            ready_at,
            ends: None,
            identity,
            next: self.now,
            seen: (String::new(), self.now),
            hangs: false,
        };
        let dir = self.proc().join(pid.to_string());
        fs::create_dir_all(dir.join("fd")).unwrap();
        let mark = process.mark.as_ref().map(|mark| format!("HOIST_BRIDGE={mark}\0")).unwrap_or_default();
        let permanent = process.permanent.as_ref().map(|mark| format!("{PERMANENT}={mark}\0")).unwrap_or_default();
        fs::write(dir.join("environ"), format!("PATH=/usr/bin\0{mark}{permanent}A=b\0")).unwrap();
        fs::write(dir.join("cmdline"), process.words()).unwrap();
        let name = process.words().split('\0').next().unwrap().rsplit('/').next().unwrap();
        fs::write(dir.join("comm"), format!("{:.15}\n", name)).unwrap();
        std::os::unix::fs::symlink(format!("socket:[{pid}]"), dir.join("fd/3")).unwrap();
        let stat = self.stat(&process);
        fs::write(dir.join("stat"), stat).unwrap();
        self.say(format!(
            "{pid} begins: {:?}{}, of {pod}",
            program,
            if mark.is_empty() { "" } else { " of the bridge" }
        ));
        self.processes.insert(pid, process);
        self.show_ports();
        pid
    }

    /// /proc/PID/stat, as far as it is read: when the process began, and what it has used of a processor.
    fn stat(&self, process: &Process) -> String {
        let ticks = |time: Duration| time.as_millis() / 10;
        let used = ticks(self.now.saturating_sub(process.begun)) / 2;
        let began = ticks(BOOTED + process.begun);
        format!("{} (x) S{} {used} 0 0 0 0 0 0 0 {began}\n", process.pid, " 0".repeat(10))
    }

    /// Shows how long the machine has been up, and what processes that hang have used of it.
    pub fn show_clock(&self) {
        fs::write(self.proc().join("uptime"), format!("{:.2} 0.00\n", (BOOTED + self.now).as_secs_f64())).unwrap();
        for process in self.processes.values().filter(|process| process.hangs) {
            fs::write(self.proc().join(format!("{}/stat", process.pid)), self.stat(process)).unwrap();
        }
    }

    /// Tells a process to end, as the kubelet does.
    pub fn terminate(&mut self, pid: u32) {
        let Some(process) = self.processes.get(&pid) else { return };
        if process.ends.is_some() {
            return;
        }
        let grace = match (process.program, process.is_bridge()) {
            (Program::Forwarder, _) => self.random.millis(20, 300),
            (Program::ApiServer, true) => self.random.millis(1000, 2500),
            (Program::ApiServer, false) => Duration::from_secs(11),
            _ => self.random.millis(25, 500),
        };
        let ends = self.now + grace;
        if let Some(process) = self.processes.get_mut(&pid) {
            process.ends = Some(ends);
        }
        self.show_ports();
    }

    /// It is gone, at once.
    pub fn bury(&mut self, pid: u32, end: End) {
        let Some(process) = self.processes.remove(&pid) else { return };
        fs::remove_dir_all(self.proc().join(pid.to_string())).unwrap();
        self.say(format!("{pid} ends ({end:?}): {:?} of {}", process.program, process.pod));
        if end == End::Taken {
            self.taken = self.now;
        }
        // The scheduler gives its Lease back; the controller manager keeps it.
        if process.program == Program::Scheduler && end == End::Terminated {
            self.release_lease(&process);
        }
        self.show_ports();
    }

    /// Whether a forwarder has its listener.
    pub fn forwards(&self) -> bool {
        self.processes.values().any(|process| {
            process.program == Program::Forwarder && process.ready_at.is_some() && process.ends.is_none()
        })
    }

    fn listens(&self, process: &Process) -> bool {
        match process.program {
            Program::Forwarder => process.ready_at.is_some() && process.ends.is_none(),
            _ => self.now >= process.begun + Duration::from_millis(100),
        }
    }

    /// /proc/net/tcp, by which hoist learns who holds a port.
    pub fn show_ports(&mut self) {
        let word = |host: &str| {
            let address: std::net::Ipv4Addr = host.parse().unwrap_or(std::net::Ipv4Addr::UNSPECIFIED);
            format!("{:08X}", u32::from_ne_bytes(address.octets()))
        };
        let mut table = String::from("  sl  local_address rem_address   st\n");
        // A forwarder binds once there is something to forward to.
        let waits = |process: &&Process| process.program == Program::Forwarder && !self.listens(process);
        for process in self.processes.values().filter(|process| !waits(process)) {
            for (host, port) in process.ports() {
                table += &format!(
                    "   0: {}:{port:04X} 00000000:0000 0A 00000000:00000000 00:00000000 00000000 0 0 {} 1\n",
                    word(host),
                    process.pid
                );
            }
        }
        fs::create_dir_all(self.proc().join("net")).unwrap();
        fs::write(self.proc().join("net/tcp"), table).unwrap();
    }

    /// Whether somebody listens at a port of `host`.
    pub fn holds(&self, host: &str, port: u16) -> bool {
        self.processes.values().any(|process| {
            self.listens(process)
                && process.ports().iter().any(|(own, held)| *held == port && (own.is_empty() || *own == host))
        })
    }

    pub fn one(&self, program: Program, bridge: bool) -> Option<&Process> {
        let mut all = self.processes.values().filter(|p| p.program == program && p.is_bridge() == bridge);
        // Where an old one is on its way out, it is the new one that counts.
        let first = all.next();
        all.next().or(first)
    }

    pub fn etcd_serves(&self) -> bool {
        self.one(Program::Etcd, false)
            .is_some_and(|etcd| etcd.ends.is_none() && etcd.ready_at.is_some_and(|at| at <= self.now))
    }

    /// /readyz of an API server is 200.
    pub fn is_ready(&self, server: &Process) -> bool {
        server.ends.is_none() && self.serves(server)
    }

    /// It answers what it is asked, whatever /readyz says.
    pub fn serves(&self, server: &Process) -> bool {
        !server.hangs && self.etcd_serves() && server.ready_at.is_some_and(|at| at <= self.now)
    }

    /// The API server that a connection to NODE_IP reaches.
    pub fn behind_node_ip(&self) -> Option<&Process> {
        if self.forwards() {
            return self.one(Program::ApiServer, true);
        }
        self.one(Program::ApiServer, false).filter(|server| self.listens(server))
    }

    pub fn node_ip_serves(&self) -> bool {
        self.behind_node_ip().is_some_and(|server| self.serves(server))
    }

    /// Moves every process along.
    pub fn tick_processes(&mut self) {
        let over: Vec<_> =
            self.processes.values().filter(|p| p.ends.is_some_and(|at| at <= self.now)).map(|p| p.pid).collect();
        for pid in over {
            self.bury(pid, End::Terminated);
        }
        let (etcd, node_ip) = (self.etcd_serves(), self.node_ip_serves());
        let bridge = self.one(Program::ApiServer, true).is_some_and(|server| self.is_ready(server));
        let waiting: Vec<_> = self.processes.values().filter(|p| p.ready_at.is_none()).cloned().collect();
        for process in waiting {
            let reaches = if process.is_bridge() { bridge } else { node_ip };
            let after = match process.program {
                // As it was edited it does not start.
                Program::ApiServer if !process.is_bridge() && self.now < self.bad_until => continue,
                Program::ApiServer if etcd => self.random.millis(1200, 3000),
                Program::Forwarder if bridge => Duration::ZERO,
                // Its own probe is answered a moment later.
                Program::ControllerManager | Program::Scheduler if reaches => self.random.millis(200, 1500),
                _ => continue,
            };
            let at = self.now + after;
            if let Some(process) = self.processes.get_mut(&process.pid) {
                process.ready_at = Some(at);
            }
            if process.program == Program::Forwarder {
                self.say(format!("{} forwards", process.pid));
                self.show_ports();
            }
        }
    }
}
