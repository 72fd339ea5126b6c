//! What goes wrong in a world, by its seed; and the moments at which hoist may be killed.

use std::path::Path;
use std::time::Duration;

use hoist::base::files::{self, Operation};

use super::process::{End, Program};
use super::{NODE, World};
use crate::random::Random;

/// What becomes of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It is refused with this code.
    Status(u16, &'static str),
    /// It is not answered.
    Hang,
    /// The connection is reset before it is done.
    Reset,
    /// It is done, and the answer is lost.
    Lost,
    /// It is done, and not answered.
    LostHang,
}

const FAULTS: [Fault; 9] = [
    Fault::Status(409, "AlreadyExists"),
    Fault::Status(409, "Conflict"),
    Fault::Status(429, "TooManyRequests"),
    Fault::Status(500, "InternalError"),
    Fault::Status(503, "ServiceUnavailable"),
    Fault::Hang,
    Fault::Reset,
    Fault::Lost,
    Fault::LostHang,
];

/// In which a world comes to something else, even where hoist only waits.
const A_WHILE: Duration = Duration::from_millis(500);

/// How often what goes wrong: in a thousand requests, or in a thousand turns of the world.
#[derive(Debug, Clone, Default)]
pub struct Faults {
    pub requests: u64,
    pub probes: u64,
    pub commands: u64,
    pub kubelet: u64,
    pub crashes: u64,
    pub power: u64,
    pub clock: u64,
    pub full: u64,
    /// When all of it is over.
    pub until: Duration,
    /// The disk is full until then.
    pub full_until: Duration,
    /// At which moment hoist is killed.
    pub kill: Option<u64>,
    /// The power is cut then, too.
    pub without_power: bool,
    /// How many moments there were.
    pub moments: u64,
    /// When the last one was, and whether hoist has changed since what would be left of it.
    pub last: Duration,
    pub is_another: bool,
}

impl Faults {
    /// What a seed brings: of each kind none, little or much.
    pub fn random(random: &mut Random) -> Self {
        let mut some = |much: [u64; 4]| random.pick(&much);
        Self {
            requests: some([0, 5, 20, 60]),
            probes: some([0, 0, 20, 60]),
            commands: some([0, 0, 0, 200]),
            kubelet: some([0, 0, 3, 15]),
            crashes: some([0, 0, 2, 8]),
            power: some([0, 0, 0, 2]),
            clock: some([0, 0, 5, 20]),
            full: some([0, 0, 2, 10]),
            ..Self::default()
        }
    }

    /// Nothing goes wrong any more.
    pub fn heal(&mut self) {
        *self = Self { moments: self.moments, ..Self::default() };
    }

    /// hoist has changed what is left when it is killed.
    pub fn changed(&mut self) {
        self.is_another = true;
    }

    /// A place in hoist where it may be killed; is it? It is no further moment if a kill at the last one would have left
    /// the same: hoist has changed nothing since, and the world has hardly gone on.
    pub fn is_killed(&mut self, now: Duration) -> bool {
        if self.is_another || now >= self.last + A_WHILE {
            self.moments += 1;
            (self.last, self.is_another) = (now, false);
            return self.kill == Some(self.moments);
        }
        false
    }

    /// The same before an operation on the disk. Where the power is cut, what was not synced is lost: only there a sync
    /// changes what is left, and nothing else on the disk does.
    pub fn is_killed_before(&mut self, operation: Operation, now: Duration) -> bool {
        let is_in_part = matches!(operation, Operation::Write | Operation::RemoveDir);
        self.is_another |= is_in_part && !self.without_power;
        let is_killed = self.is_killed(now);
        self.is_another |= match operation {
            Operation::Sync => self.without_power || self.power > 0,
            _ => !self.without_power,
        };
        is_killed
    }
}

/// Where an operation takes place: the names of files beside are chance.
pub fn place(path: &Path) -> std::path::Display<'_> {
    let is_beside = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(files::BESIDE));
    path.parent().filter(|_| is_beside).unwrap_or(path).display()
}

impl World {
    /// What becomes of the next request.
    pub fn request_fault(&mut self, writes: bool) -> Option<Fault> {
        if !self.random.permille(self.faults.requests) {
            return None;
        }
        // Only a write meets another one.
        Some(self.random.pick(if writes { &FAULTS } else { &FAULTS[2..7] }))
    }

    /// Whether the next probe finds nobody, although somebody is there.
    pub fn probe_fault(&mut self) -> bool {
        self.random.permille(self.faults.probes)
    }

    pub fn command_fault(&mut self) -> bool {
        self.random.permille(self.faults.commands)
    }

    /// The self-hosted API server is gone, without a word.
    pub fn take_api_server(&mut self) {
        let pid = self.one(Program::ApiServer, false).map(|process| process.pid);
        pid.into_iter().for_each(|pid| self.bury(pid, End::Taken));
    }

    /// The self-hosted API server accepts, and answers nothing.
    pub fn hang_api_server(&mut self) {
        let pid = self.one(Program::ApiServer, false).map(|process| process.pid);
        if let Some(process) = pid.and_then(|pid| self.processes.get_mut(&pid)) {
            process.hangs = true;
            self.say("the self-hosted API server hangs".into());
        }
    }

    /// The self-hosted API server is edited: its pod is replaced, by one that does not start until `bad_until`.
    pub fn edit_api_server(&mut self, bad_until: Duration) {
        self.bad_until = bad_until;
        let pods: Vec<_> = self.store.list("pods", "kube-system").map(|(at, _)| at.clone()).collect();
        for at in pods.iter().filter(|at| at.2.starts_with("kube-apiserver-") && !at.2.ends_with(NODE)) {
            self.say(format!("{} is edited away", at.2));
            self.store.remove(at);
        }
    }

    /// The self-hosted API server starts from now on, and one that hangs is ended, as by its probe.
    pub fn heal_api_server(&mut self) {
        self.bad_until = Duration::ZERO;
        let hung: Vec<_> = self.processes.values().filter(|process| process.hangs).map(|process| process.pid).collect();
        hung.into_iter().for_each(|pid| self.bury(pid, End::Taken));
    }

    /// What happens without hoist.
    pub fn tick_faults(&mut self) {
        if self.now > self.faults.until {
            let kill = self.faults.kill;
            self.faults.heal();
            self.faults.kill = kill;
            return;
        }
        if self.random.permille(self.faults.kubelet) {
            self.kill_kubelet("it is restarted");
        }
        if self.random.permille(self.faults.crashes) && !self.processes.is_empty() {
            let pids: Vec<_> = self.processes.keys().copied().collect();
            let pid = self.random.pick(&pids);
            self.bury(pid, End::Taken);
        }
        if self.random.permille(self.faults.power) {
            self.cut_power();
            self.boot();
        }
        if self.random.permille(self.faults.clock) {
            let hours = self.random.pick(&[-30, -1, 1, 30]);
            self.say(format!("the clock jumps by {hours} h"));
            self.jumped += time::Duration::hours(hours) + time::Duration::microseconds(137);
        }
        if self.random.permille(self.faults.full) {
            self.say("the disk is full".into());
            self.faults.full_until = self.now + self.random.millis(100, 20_000);
        }
    }

    /// Whether the disk has room for this operation.
    pub fn has_room(&mut self, operation: Operation, path: &Path) -> bool {
        let takes = matches!(operation, Operation::MakeDir | Operation::Create | Operation::Write);
        let is_full = takes && self.now < self.faults.full_until;
        if is_full {
            self.say(format!("no room to {operation:?} {}", place(path)));
        }
        !is_full
    }
}
