//! systemd, as far as a kubelet's unit goes: what it has read of the unit, whether it is enabled, and the kubelet that
//! it starts again when it ends.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use hoist::node::world::Ran;

use super::World;

const UNIT: &str = "etc/systemd/system/kubelet.service";
const DROP_IN: &str = "etc/systemd/system/kubelet.service.d/20-hoist.conf";
/// Where a package puts its own.
const PACKAGED: &str = "usr/lib/systemd/system/kubelet.service";

/// What the machine has of a kubelet before hoist comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Machine {
    /// The program alone.
    Bare,
    /// A package's unit, enabled: without a configuration, the kubelet ends and is started again for ever.
    Packaged,
    /// No systemd: somebody runs the kubelet by hand, as often as it ends.
    ByHand,
}

pub const MACHINES: [Machine; 3] = [Machine::Bare, Machine::Packaged, Machine::ByHand];

#[derive(Debug)]
pub struct Unit {
    pub machine: Machine,
    /// The unit's files as systemd has them in its memory: read at boot, at a reload, and when it had none.
    loaded: Option<String>,
    enabled: bool,
    wanted: bool,
    next: Duration,
}

impl Unit {
    pub fn new(machine: Machine) -> Self {
        let running = machine != Machine::Bare;
        Self { machine, loaded: None, enabled: running, wanted: running, next: Duration::ZERO }
    }

    /// What a kubelet is run with, as its unit says.
    pub fn runs_with(&self) -> String {
        self.loaded.clone().unwrap_or_default()
    }
}

impl World {
    /// The unit's files as they are on the disk.
    fn unit_files(&self) -> Option<String> {
        let read = |path: &str| fs::read_to_string(self.root.join(path)).ok();
        let unit = read(UNIT).or_else(|| read(PACKAGED))?;
        Some(unit + &read(DROP_IN).unwrap_or_default())
    }

    pub fn make_run(&self) {
        let dir = if self.unit.machine == Machine::ByHand { "run" } else { "run/systemd/system" };
        fs::create_dir_all(self.root.join(dir)).unwrap();
    }

    pub fn make_machine(&mut self) {
        self.make_run();
        for dir in ["etc", "usr/bin", "usr/lib/systemd/system", "proc", "var/lib"] {
            fs::create_dir_all(self.root.join(dir)).unwrap();
        }
        let path: PathBuf = self.root.join("usr/bin/kubelet");
        fs::write(path, "").unwrap();
        let plugins = self.root.join("opt/cni/bin");
        fs::create_dir_all(&plugins).unwrap();
        for plugin in ["bridge", "host-local", "loopback", "portmap"] {
            fs::write(plugins.join(plugin), "").unwrap();
        }
        if self.unit.machine == Machine::Packaged {
            let text = "[Service]\nExecStart=/usr/bin/kubelet\nRestart=always\n";
            fs::write(self.root.join(PACKAGED), text).unwrap();
        }
        self.boot();
    }

    /// What systemd does at boot.
    pub fn boot(&mut self) {
        self.unit.loaded = self.unit_files();
        self.unit.wanted = self.unit.enabled;
        self.unit.next = self.now + Duration::from_millis(800);
    }

    /// Starts the kubelet when it should run and does not.
    pub fn tick_systemd(&mut self) {
        let runs_ours = self.unit.machine == Machine::ByHand || self.unit.runs_with().contains("kubelet.env");
        if self.kubelet.is_none() && self.unit.wanted && self.now >= self.unit.next {
            if runs_ours {
                self.start_kubelet();
            }
            self.unit.next = self.now + Duration::from_secs(2);
        }
    }

    /// The kubelet ends; its containers go on.
    pub fn kill_kubelet(&mut self, why: &str) {
        if self.kubelet.take().is_some() {
            self.say(format!("the kubelet ends: {why}"));
            self.unit.next = self.now + Duration::from_secs(2);
        }
    }

    /// The kubelet ends, and comes back only then.
    pub fn keep_kubelet_away(&mut self, until: Duration) {
        self.kill_kubelet("it is kept away");
        self.unit.next = until;
    }

    /// What `systemctl` does.
    pub fn systemctl(&mut self, args: &[&str]) -> Ran {
        let said = |text: &str| Ran { success: true, stdout: format!("{text}\n"), stderr: String::new() };
        let failed = |text: &str| Ran { success: false, stdout: String::new(), stderr: text.into() };
        if self.unit.machine == Machine::ByHand {
            self.wrong("systemctl is called where there is no systemd".into());
        }
        // A unit that systemd does not know yet is read when it is named.
        if self.unit.loaded.is_none() {
            self.unit.loaded = self.unit_files();
        }
        match args {
            ["show", "kubelet.service", "--value", "--property", property] => said(match *property {
                "LoadState" if self.unit.loaded.is_some() => "loaded",
                "LoadState" => "not-found",
                "UnitFileState" if self.unit.enabled => "enabled",
                "UnitFileState" if self.unit.loaded.is_some() => "disabled",
                "UnitFileState" => "",
                "ActiveState" if self.kubelet.is_some() => "active",
                "ActiveState" if self.unit.wanted => "activating",
                "ActiveState" => "inactive",
                "ExecStart" if self.unit.loaded.is_some() => "{ path=/usr/bin/kubelet ; argv[]=/usr/bin/kubelet }",
                "ExecStart" => "",
                other => {
                    self.wrong(format!("nobody expected the property {other}"));
                    ""
                }
            }),
            ["daemon-reload"] => {
                self.unit.loaded = self.unit_files();
                said("")
            }
            ["enable", "kubelet.service"] => {
                // It reloads, too.
                self.unit.loaded = self.unit_files();
                if self.unit.loaded.is_none() {
                    return failed("Failed to enable unit: Unit file kubelet.service does not exist.");
                }
                self.unit.enabled = true;
                said("")
            }
            ["restart", "kubelet.service"] if self.unit.loaded.is_some() => {
                self.kill_kubelet("systemctl restart");
                self.unit.wanted = true;
                self.unit.next = self.now + self.random.millis(50, 300);
                said("")
            }
            ["stop" | "disable" | "reset-failed", "kubelet.service"] => {
                if args[0] == "stop" {
                    self.kill_kubelet("systemctl stop");
                    self.unit.wanted = false;
                }
                self.unit.enabled &= args[0] != "disable";
                said("")
            }
            _ => {
                self.wrong(format!("nobody expected systemctl {args:?}"));
                failed("unknown")
            }
        }
    }
}
