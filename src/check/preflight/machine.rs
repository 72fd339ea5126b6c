//! The user, the processors, the memory, the cgroups, the programs.

use std::collections::BTreeSet;
use std::io::Read;
use std::path::Path;

use super::Facts;
use crate::base::error::Finding;

/// kubeadm's, as the next one.
const CPUS: usize = 2;
const MEGABYTES: u64 = 1700;
/// So much of a program is read.
const HEAD: u64 = 64 << 10;
/// The first minor version whose kubelet does not start on cgroups v1 unless it is told to.
const REFUSES_V1: u32 = 35;
/// What the kubelet needs of cgroups, by their names in /proc/cgroups; v2 has no controllers of the other names.
const CONTROLLERS_V1: [&str; 7] = ["cpu", "cpuacct", "cpuset", "devices", "freezer", "memory", "pids"];
const CONTROLLERS_V2: [&str; 4] = ["cpu", "cpuset", "memory", "pids"];

pub(super) fn root(facts: &Facts) -> Vec<Finding> {
    if facts.is_root {
        return Vec::new();
    }
    vec![Finding::new("", "hoist start must run as root").remedy("run it with sudo")]
}

pub(super) fn processors(facts: &Facts) -> Vec<Finding> {
    let text = facts.read("/proc/cpuinfo");
    let count = text.lines().filter(|line| line.starts_with("processor")).count();
    // An architecture whose /proc/cpuinfo looks different is not judged by it.
    if count == 0 || count >= CPUS {
        return Vec::new();
    }
    let message = format!("this machine has {count} processor, and a controller needs {CPUS}");
    vec![Finding::new("", message).remedy("take a larger machine")]
}

pub(super) fn memory(facts: &Facts) -> Vec<Finding> {
    let text = facts.read("/proc/meminfo");
    let total = text.lines().find_map(|line| line.strip_prefix("MemTotal:")?.trim().strip_suffix(" kB")?.parse().ok());
    match total.map(|kibibytes: u64| kibibytes / 1024) {
        Some(megabytes) if megabytes < MEGABYTES => {
            let message = format!("this machine has {megabytes} MB of memory, and a controller needs {MEGABYTES}");
            vec![Finding::new("", message).remedy("take a larger machine")]
        }
        _ => Vec::new(),
    }
}

/// The kubelet does not start on a machine that swaps, unless it is told that it may.
pub(super) fn swap(facts: &Facts) -> Vec<Finding> {
    let may = facts.kubelet.get("failSwapOn") == Some(&false.into());
    // The first line is the title.
    let swaps: Vec<_> = facts.read("/proc/swaps").lines().skip(1).map(first_word).collect();
    if may || swaps.is_empty() {
        return Vec::new();
    }
    let message =
        format!("this machine swaps to {}, and the kubelet does not start on a machine with swap", swaps.join(", "));
    let remedy = "`swapoff -a`, and take it out of /etc/fstab; or kubelet.config.failSwapOn: false in cluster.yaml, with memorySwap as you want it";
    vec![Finding::new("", message).remedy(remedy)]
}

fn first_word(line: &str) -> String {
    line.split_whitespace().next().unwrap_or_default().to_owned()
}

pub(super) fn cgroups(facts: &Facts) -> Vec<Finding> {
    let mounts = facts.read("/proc/mounts");
    let of_type = |wanted: &str| {
        mounts.lines().any(|line| {
            let mut fields = line.split_whitespace().skip(1);
            let (place, kind) = (fields.next().unwrap_or_default(), fields.next().unwrap_or_default());
            place.starts_with("/sys/fs/cgroup") && kind == wanted && (wanted == "cgroup" || place == "/sys/fs/cgroup")
        })
    };
    if of_type("cgroup2") {
        let there: BTreeSet<_> =
            facts.read("/sys/fs/cgroup/cgroup.controllers").split_whitespace().map(str::to_owned).collect();
        return lacking(&CONTROLLERS_V2, &there).into_iter().collect();
    }
    if !of_type("cgroup") {
        let message = "no cgroups are mounted at /sys/fs/cgroup, and the kubelet puts every container into one";
        return vec![
            Finding::new("", message).remedy("let systemd mount them, or `mount -t cgroup2 none /sys/fs/cgroup`"),
        ];
    }
    let text = facts.read("/proc/cgroups");
    let enabled = text.lines().filter_map(|line| match line.split_whitespace().collect::<Vec<_>>()[..] {
        [name, _, _, "1"] => Some(name.to_owned()),
        _ => None,
    });
    let mut findings: Vec<_> = lacking(&CONTROLLERS_V1, &enabled.collect()).into_iter().collect();
    let fails = facts.kubelet.get("failCgroupV1").and_then(serde_json::Value::as_bool);
    let remedy = "boot with systemd.unified_cgroup_hierarchy=1 on the kernel's command line for v2";
    findings.push(if fails.unwrap_or(facts.cluster.kubernetes_version.minor >= REFUSES_V1) {
        Finding::new("", "this machine has cgroups v1, and the kubelet does not start with them")
            .remedy(format!("{remedy}; or, for now, kubelet.config.failCgroupV1: false in cluster.yaml"))
    } else {
        Finding::new("", "this machine has cgroups v1, which Kubernetes is giving up").remedy(remedy).warning()
    });
    findings
}

fn lacking(needed: &[&str], there: &BTreeSet<String>) -> Option<Finding> {
    let lacking: Vec<_> = needed.iter().copied().filter(|name| !there.contains(*name)).collect();
    let message = format!("the kernel lacks the cgroup controllers {}", lacking.join(", "));
    (!lacking.is_empty()).then(|| {
        Finding::new("", message).remedy("boot a kernel that has them, and does not disable them (cgroup_disable=)")
    })
}

/// A kernel that enforces SELinux's policy. Whether that lets the control plane read what it mounts of the host depends on
/// the policy and on the container runtime, so that it is no error.
pub(super) fn selinux(facts: &Facts) -> Vec<Finding> {
    let path = "/sys/fs/selinux/enforce";
    if facts.read(path).trim() != "1" {
        return Vec::new();
    }
    let message = "SELinux enforces its policy here, and hoist has not been run on such a machine: the policy may keep pods of the control plane from what they mount of the host";
    let remedy = "`setenforce 0`, and SELINUX=permissive in /etc/selinux/config for the next boot, as kubeadm asks for; docs/security.md says what would have to be labelled instead";
    vec![Finding::new(path, message).remedy(remedy)]
}

/// A program of the host's, and what becomes of a machine without it.
pub(super) fn program(facts: &Facts, name: &str, user: &str) -> Vec<Finding> {
    let is_there = std::env::split_paths(&facts.path).any(|folder| {
        // A folder of PATH is of this host, and so may be a link to one of its own.
        facts.host.path(&folder.to_string_lossy()).join(name).exists()
    });
    if is_there {
        return Vec::new();
    }
    vec![Finding::new("", format!("there is no program {name} on PATH: {user}")).remedy(package(name))]
}

fn package(program: &str) -> String {
    let package = match program {
        "ip" => "iproute2",
        "mount" | "losetup" => "mount",
        "nsenter" => "util-linux",
        other => other,
    };
    format!("install it (Debian package: {package})")
}

/// The binary is mounted into an image without libraries, so it must be static.
pub(super) fn own_binary(_: &Facts) -> Vec<Finding> {
    std::env::current_exe().map(|path| not_static(&path)).unwrap_or_default()
}

/// Why the program at `path` cannot run in an image without libraries; nothing where it can, or cannot be read.
pub fn not_static(path: &Path) -> Vec<Finding> {
    // The program headers are near its beginning.
    let mut head = Vec::new();
    let read = std::fs::File::open(path).and_then(|file| file.take(HEAD).read_to_end(&mut head));
    if read.is_err() || !has_interpreter(&head) {
        return Vec::new();
    }
    let message = "is not a static binary, so the bridge's pods could not run it";
    let remedy =
        "build it with `cargo build --release` in hoist's repository, whose .cargo/config.toml makes it static";
    vec![Finding::new(path.display().to_string(), message).remedy(remedy)]
}

/// Whether a 64-bit little-endian ELF file asks for a dynamic loader (program header PT_INTERP; see elf(5)).
fn has_interpreter(elf: &[u8]) -> bool {
    const PT_INTERP: u32 = 3;
    let number = |at: usize, len: usize| {
        elf.get(at..at + len).map(|bytes| bytes.iter().rev().fold(0u64, |sum, byte| sum << 8 | u64::from(*byte)))
    };
    let headers = || Some((number(0x20, 8)?, number(0x36, 2)?, number(0x38, 2)?));
    let Some((offset, size, count)) = headers() else { return false };
    (0..count).any(|index| number((offset + index * size) as usize, 4) == Some(PT_INTERP.into()))
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Machine, said};
    use super::*;

    #[test]
    fn a_static_binary_is_told_from_a_dynamic_one() {
        assert!(has_interpreter(&std::fs::read("/bin/ls").unwrap()));
        assert!(!has_interpreter(b"#!/bin/sh\n"));
        let mut elf = vec![0u8; 0x40 + 2 * 0x38];
        (elf[0x20], elf[0x36], elf[0x38]) = (0x40, 0x38, 2);
        assert!(!has_interpreter(&elf));
        elf[0x40 + 0x38] = 3;
        assert!(has_interpreter(&elf));
        assert!(said(&not_static(Path::new("/bin/ls")))[0].starts_with("/bin/ls: is not a static binary"));
    }

    #[test]
    fn a_small_machine_is_refused() {
        let machine = Machine::new();
        assert!(processors(&machine.facts("")).is_empty() && memory(&machine.facts("")).is_empty(), "unknown");
        machine.put("/proc/cpuinfo", "processor\t: 0\nmodel name\t: x\n");
        machine.put("/proc/meminfo", "MemTotal:        1740799 kB\nMemFree:  1 kB\n");
        let facts = machine.facts("");
        assert_eq!(said(&processors(&facts)), [": this machine has 1 processor, and a controller needs 2"]);
        assert_eq!(said(&memory(&facts)), [": this machine has 1699 MB of memory, and a controller needs 1700"]);
        machine.put("/proc/cpuinfo", "processor\t: 0\nprocessor\t: 1\n");
        machine.put("/proc/meminfo", "MemTotal:        1740800 kB\n");
        assert!(processors(&facts).is_empty() && memory(&facts).is_empty());
    }

    #[test]
    fn swap_is_refused_unless_the_kubelet_may_use_it() {
        let machine = Machine::new();
        machine.put("/proc/swaps", "Filename Type Size\n");
        assert!(swap(&machine.facts("")).is_empty());
        machine.put("/proc/swaps", "Filename Type Size\n/dev/sda2 partition 1\n/swap file 2\n");
        assert!(said(&swap(&machine.facts("")))[0].contains("swaps to /dev/sda2, /swap"));
        assert!(swap(&machine.facts("failSwapOn: false")).is_empty());
    }

    #[test]
    fn cgroups_of_either_version() {
        let machine = Machine::new();
        assert!(said(&cgroups(&machine.facts("")))[0].contains("no cgroups are mounted"));

        machine.put("/proc/mounts", "cgroup2 /sys/fs/cgroup cgroup2 rw 0 0\n");
        machine.put("/sys/fs/cgroup/cgroup.controllers", "cpuset cpu io pids\n");
        assert_eq!(said(&cgroups(&machine.facts(""))), [": the kernel lacks the cgroup controllers memory"]);
        machine.put("/sys/fs/cgroup/cgroup.controllers", "cpuset cpu io memory pids\n");
        assert!(cgroups(&machine.facts("")).is_empty());

        // As systemd mounts both: v2 is there, and has no controllers.
        let mounts = "tmpfs /sys/fs/cgroup tmpfs rw 0 0\ncgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n\
            cgroup /sys/fs/cgroup/memory cgroup rw,memory 0 0\n";
        machine.put("/proc/mounts", mounts);
        let lines: Vec<_> = CONTROLLERS_V1.iter().map(|name| format!("{name}\t1\t42\t1\n")).collect();
        machine.put("/proc/cgroups", format!("#subsys_name\thierarchy\tnum_cgroups\tenabled\n{}", lines.concat()));
        assert_eq!(
            said(&cgroups(&machine.facts(""))),
            [": this machine has cgroups v1, and the kubelet does not start with them"]
        );
        let warned = [": warning: this machine has cgroups v1, which Kubernetes is giving up"];
        assert_eq!(said(&cgroups(&machine.facts("failCgroupV1: false"))), warned);
        let mut facts = machine.facts("");
        facts.cluster.kubernetes_version.minor = 34;
        assert_eq!(said(&cgroups(&facts)), warned);
        machine.put("/proc/cgroups", lines.concat().replace("memory\t1\t42\t1", "memory\t1\t42\t0"));
        assert_eq!(said(&cgroups(&facts))[0], ": the kernel lacks the cgroup controllers memory");
    }

    #[test]
    fn a_policy_that_is_enforced_is_said() {
        let machine = Machine::new();
        assert!(selinux(&machine.facts("")).is_empty(), "there is no SELinux");
        machine.put("/sys/fs/selinux/enforce", "0");
        assert!(selinux(&machine.facts("")).is_empty(), "it is permissive");
        machine.put("/sys/fs/selinux/enforce", "1");
        let found = selinux(&machine.facts(""));
        assert!(said(&found)[0].starts_with("/sys/fs/selinux/enforce: SELinux enforces its policy"), "{found:?}");
        assert!(found[0].remedy.as_ref().unwrap().starts_with("`setenforce 0`"), "{found:?}");
    }

    #[test]
    fn a_program_that_is_missing() {
        let machine = Machine::new();
        let mut facts = machine.facts("");
        facts.path = "/usr/bin:/sbin".into();
        let found = program(&facts, "ip", "network plugins use it");
        assert_eq!(
            found[0].to_string(),
            ": there is no program ip on PATH: network plugins use it\n    install it (Debian package: iproute2)"
        );
        machine.put("/sbin/ip", "");
        assert!(program(&facts, "ip", "").is_empty());
    }
}
