//! Whose a process is.
//!
//! A host may run several control planes: with hosted ones, that is ordinary. Which process is whose is no matter of its
//! program's name. What this cluster's components have on this host, and no other process at that time, is a port each in
//! the host's network namespace. So a component is this cluster's if it is in that namespace and was told that port: this needs
//! no container runtime, and no right to look into another process, which guard does not have.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::desired::config::API_PORT;
use crate::etcd::alarms;

/// The variable that every container of the bridge has in its environment; its value is the component.
const MARK: &str = "HOIST_BRIDGE";
/// The same of the containers of the permanent static control plane.
pub const PERMANENT: &str = "HOIST_STATIC";

/// The ports of the bridge's components, by their flags: they tell a process of it whose environment cannot be read.
const BRIDGE_PORTS: [(&str, &str); 3] =
    [("kube-apiserver", "6444"), ("kube-controller-manager", "10267"), ("kube-scheduler", "10269")];

/// The ports of this cluster's own components, static or self-hosted, each with the flag that says it and holds where the flag
/// is left out. cluster.yaml cannot change them.
const OWN_PORTS: [(&str, &str, u16); 4] = [
    ("etcd", "listen-client-urls", alarms::PORT),
    ("kube-apiserver", "secure-port", API_PORT),
    ("kube-controller-manager", "secure-port", 10257),
    ("kube-scheduler", "secure-port", 10259),
];

/// Whose a process is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Owner {
    /// This component of the bridge.
    Bridge(String),
    /// This component of the permanent static control plane.
    Permanent(String),
    /// None of hoist's: the program.
    Another(String),
    /// Of another control plane on this host.
    AnotherCluster,
}

/// Whose the process `pid` is.
pub(super) fn owner(proc: &Path, pid: &str) -> Owner {
    owner_by(proc, pid, &std::fs::read(proc.join(pid).join("cmdline")).unwrap_or_default())
}

/// The same, by its command as it was read.
pub(super) fn owner_by(proc: &Path, pid: &str, command: &[u8]) -> Owner {
    match whose(std::fs::read(proc.join(pid).join("environ")), command) {
        Owner::Bridge(_) | Owner::Permanent(_) if !shares_network(proc, pid) => Owner::AnotherCluster,
        Owner::Another(program) => {
            let own = OWN_PORTS.iter().find(|(component, ..)| *component == program);
            let is_own =
                own.is_none_or(|(_, flag, port)| has_port(&words(command), flag, *port) && shares_network(proc, pid));
            if is_own { Owner::Another(program) } else { Owner::AnotherCluster }
        }
        owner => owner,
    }
}

/// Whether a process was told this port, or none; a file may tell it, too. What talks to this cluster's API server is this
/// cluster's, whatever port somebody has given it since.
fn has_port(words: &[String], flag_name: &str, port: u16) -> bool {
    let ends = |value: &str, port: u16| value.rsplit(':').next().and_then(|port| port.parse().ok()) == Some(port);
    let told = flag(words, flag_name).is_none_or(|value| value.split(',').any(|value| ends(value, port)));
    told || flag(words, "config-file").is_some() || flag(words, "master").is_some_and(|master| ends(master, API_PORT))
}

/// Whether a process is in the same network namespace as this one; taken for granted where the kernel does not say. The files
/// below net/ are made anew in each namespace (`proc_register` in fs/proc/generic.c), and everybody may look at their inodes,
/// while ns/net is for those who may trace the process.
fn shares_network(proc: &Path, pid: &str) -> bool {
    let id = |path: &Path| std::fs::metadata(path).ok().map(|meta| (meta.dev(), meta.ino()));
    let (own, other) = (id(&proc.join("net/tcp")), id(&proc.join(pid).join("net/tcp")));
    own.zip(other).is_none_or(|(own, other)| own == other)
}

/// The words of a command.
pub(super) fn words(command: &[u8]) -> Vec<String> {
    // Each ends with a zero, the last one too.
    command
        .strip_suffix(&[0])
        .unwrap_or(command)
        .split(|byte| *byte == 0)
        .map(|word| String::from_utf8_lossy(word).into_owned())
        .collect()
}

/// The value of the flag `--NAME=VALUE`, or `--NAME VALUE`, of a command: of one that is there twice, the last one counts.
pub fn flag<'a>(words: &'a [String], name: &str) -> Option<&'a str> {
    let value = |(at, word): (usize, &'a String)| match word.strip_prefix("--")?.strip_prefix(name)? {
        "" => words.get(at + 1).map(String::as_str),
        rest => rest.strip_prefix('='),
    };
    words.iter().enumerate().rev().find_map(value)
}

/// Whose a process is, by its environment and its command. Guard has no capabilities: the environment of a process of
/// another user, or with capabilities of its own, is not for it to read (ptrace(2)), while every command is.
fn whose(environment: io::Result<Vec<u8>>, command: &[u8]) -> Owner {
    // A zombie has neither: it serves nobody.
    match environment {
        Ok(environment) => {
            if let Some(component) = marked(&environment, MARK) {
                return Owner::Bridge(component);
            }
            if let Some(component) = marked(&environment, PERMANENT) {
                return Owner::Permanent(component);
            }
        }
        Err(_) => {
            if let Some(component) = bridge_command(command) {
                return Owner::Bridge(component);
            }
        }
    }
    Owner::Another(program(command))
}

/// The bridge's component whose command this is.
fn bridge_command(command: &[u8]) -> Option<String> {
    let words = words(command);
    let (program, flags) = (program(command), words.get(1..)?);
    // The forwarder is hoist's own program.
    if program == "hoist" && flags.first().is_some_and(|word| word == "forward") {
        return Some("forwarder".into());
    }
    let (component, port) = BRIDGE_PORTS.into_iter().find(|(component, _)| *component == program)?;
    (flag(flags, "secure-port") == Some(port)).then(|| component.to_owned())
}

/// The component that a variable of hoist's names, in a process's environment.
fn marked(environment: &[u8], mark: &str) -> Option<String> {
    let value = |variable: &[u8]| Some(variable.strip_prefix(mark.as_bytes())?.strip_prefix(b"=")?.to_vec());
    let component = environment.split(|byte| *byte == 0).find_map(value)?;
    Some(String::from_utf8_lossy(&component).into_owned())
}

/// The first word of a command line, without its folder.
fn program(command: &[u8]) -> String {
    let program = command.split(|byte| *byte == 0).next().unwrap_or_default();
    String::from_utf8_lossy(program).rsplit('/').next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::io::ErrorKind;
    use std::process::Command;
    use std::time::Duration;

    use super::*;
    use crate::node::processes::{Process, Running, is_own_api_server, of, running};

    #[test]
    fn a_static_pods_process_is_neither_the_bridges_nor_anothers() {
        let proc = tempfile::tempdir().unwrap();
        for (pid, environment) in [("1", ""), ("2", "A=b\0HOIST_STATIC=kube-scheduler\0"), ("3", "HOIST_BRIDGE=x\0")] {
            std::fs::create_dir(proc.path().join(pid)).unwrap();
            std::fs::write(proc.path().join(pid).join("environ"), environment).unwrap();
            std::fs::write(proc.path().join(pid).join("cmdline"), format!("/bin/p{pid}\0--x\0")).unwrap();
        }
        let set = |name: &str| BTreeSet::from([name.to_owned()]);
        let expected = Running { bridge: set("x"), permanent: set("kube-scheduler"), others: set("p1") };
        assert_eq!(running(proc.path()), expected);
    }

    #[test]
    fn one_whose_environment_is_not_for_us_to_read_is_known_by_its_command() {
        let denied = || Err(ErrorKind::PermissionDenied.into());
        let command =
            |words: &[&str]| words.iter().flat_map(|word| [word.as_bytes(), b"\0"]).flatten().copied().collect();
        let whose = |words: &[&str]| -> Owner {
            let command: Vec<u8> = command(words);
            super::whose(denied(), &command)
        };
        let bridge = |name: &str| Owner::Bridge(name.into());
        let another = |name: &str| Owner::Another(name.into());
        assert_eq!(
            whose(&["kube-apiserver", "--bind-address=127.0.0.1", "--secure-port=6444"]),
            bridge("kube-apiserver")
        );
        assert_eq!(whose(&["/usr/bin/kube-apiserver", "--secure-port=6443"]), another("kube-apiserver"));
        assert_eq!(whose(&["kube-scheduler", "--secure-port=10269"]), bridge("kube-scheduler"));
        assert_eq!(whose(&["kube-scheduler", "--secure-port=10269", "--secure-port=10259"]), another("kube-scheduler"));
        assert_eq!(whose(&["kube-scheduler", "--secure-port=6444"]), another("kube-scheduler"), "another's port");
        assert_eq!(whose(&["/hoist", "forward", "--listen=10.0.0.1:6443"]), bridge("forwarder"));
        assert_eq!(whose(&["/hoist", "guard"]), another("hoist"));
        // What can be read decides.
        let own = super::whose(Ok(b"A=b\0".to_vec()), b"kube-apiserver\0--secure-port=6444\0");
        assert_eq!(own, another("kube-apiserver"));
        // The same by /proc: what cannot be read is no file here, for root can read all.
        let proc = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(proc.path().join("4/environ")).unwrap();
        std::fs::write(proc.path().join("4/cmdline"), "kube-controller-manager\0--secure-port=10267\0").unwrap();
        let expected = Running { bridge: BTreeSet::from(["kube-controller-manager".to_owned()]), ..Running::default() };
        assert_eq!(running(proc.path()), expected);
        assert!(of(proc.path(), "kube-controller-manager").unwrap().iter().all(|component| component.of_bridge));
        let all = of(proc.path(), "kube-controller-manager").unwrap();
        let [one] = all.as_slice() else { panic!("{all:?}") };
        assert_eq!(
            (one.pid, one.of_bridge, one.flag("secure-port"), one.flag("secure")),
            (4, true, Some("10267"), None)
        );
        assert!(of(&proc.path().join("none"), "kube-controller-manager").is_err(), "nobody is gone who is not seen");
    }

    /// A /proc below which processes are put, in the host's network namespace or in one of their own.
    struct Proc(tempfile::TempDir);

    impl Proc {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            std::fs::create_dir(dir.path().join("net")).unwrap();
            std::fs::write(dir.path().join("net/tcp"), "").unwrap();
            Self(dir)
        }

        fn put(&self, pid: &str, is_in_host_network: bool, environment: &str, command: &str) {
            let dir = self.0.path().join(pid);
            std::fs::create_dir_all(dir.join("net")).unwrap();
            match is_in_host_network {
                true => std::fs::hard_link(self.0.path().join("net/tcp"), dir.join("net/tcp")).unwrap(),
                false => std::fs::write(dir.join("net/tcp"), "").unwrap(),
            }
            std::fs::write(dir.join("environ"), environment).unwrap();
            std::fs::write(dir.join("cmdline"), command.replace(' ', "\0")).unwrap();
        }
    }

    #[test]
    fn another_control_plane_on_the_host_is_neither_the_bridges_nor_this_clusters() {
        let all =
            |running: Running| [running.bridge, running.permanent, running.others].map(|set| set.into_iter().collect());
        let running_with = |is_in_host_network, environment: &str, command: &str| -> [Vec<String>; 3] {
            let proc = Proc::new();
            proc.put("7", is_in_host_network, environment, command);
            all(running(proc.0.path()))
        };
        let none: [Vec<String>; 3] = Default::default();
        // In the host's network: told by its port.
        for (own, another) in [
            ("kube-apiserver --secure-port=6443", "kube-apiserver --secure-port=7443"),
            ("kube-apiserver --secure-port 6443", "kube-apiserver --secure-port 7443"),
            ("kube-apiserver", "kube-apiserver --secure-port=6443 --secure-port=7443"),
            ("kube-controller-manager --secure-port=10257", "kube-controller-manager --secure-port=10357"),
            ("kube-scheduler", "kube-scheduler --secure-port=10359 --master=https://10.0.0.1:7443"),
            (
                "etcd --listen-client-urls=https://127.0.0.1:2379,https://10.0.0.1:2379",
                "etcd --listen-client-urls=https://127.0.0.1:3379",
            ),
            ("etcd --config-file=/etc/etcd.yaml", "etcd --listen-client-urls https://10.0.0.1:12379"),
        ] {
            let program = own.split(' ').next().unwrap();
            assert_eq!(running_with(true, "", own), [vec![], vec![], vec![program.to_owned()]], "{own}");
            assert_eq!(running_with(true, "", another), none, "{another}");
            // As a pod that has a network of its own.
            assert_eq!(running_with(false, "", own), none, "{own}");
        }
        // Somebody has edited the port.
        let edited = "kube-scheduler --secure-port=10300 --master=https://10.0.0.1:6443";
        assert_eq!(running_with(true, "", edited)[2], ["kube-scheduler"]);
        // A hoist on another machine of which this one sees the processes, as it does those of containers.
        for environment in ["HOIST_BRIDGE=kube-apiserver", "HOIST_STATIC=kube-apiserver"] {
            assert_eq!(running_with(false, environment, "kube-apiserver --secure-port=6444"), none);
            assert_ne!(running_with(true, environment, "kube-apiserver --secure-port=6444"), none);
        }
        assert_eq!(running_with(false, "", "sleep 60")[2], ["sleep"], "what is no control plane is counted as before");
    }

    #[test]
    fn only_this_clusters_processes_may_hold_its_leases_or_be_ended() {
        let proc = Proc::new();
        proc.put("7", true, "", "kube-controller-manager --secure-port=10357");
        proc.put("8", false, "", "kube-controller-manager");
        proc.put("9", true, "", "kube-controller-manager --secure-port=10257");
        proc.put("10", true, "", "kube-apiserver --secure-port=7443");
        proc.put("11", true, "", "kube-apiserver --secure-port=6443");
        proc.put("12", true, "HOIST_BRIDGE=kube-apiserver", "kube-apiserver --secure-port=6444");
        let found: Vec<_> = of(proc.0.path(), "kube-controller-manager").unwrap();
        assert_eq!(found.iter().map(|component| component.pid).collect::<Vec<_>>(), [9]);
        let is_own = |pid| {
            let process = Process { pid, began: 1, age: Duration::ZERO, used: Duration::ZERO };
            is_own_api_server(proc.0.path(), &process)
        };
        assert_eq!([10, 11, 12].map(is_own), [false, true, false]);
    }

    #[test]
    fn a_process_shares_this_ones_network_until_it_has_another() {
        let proc = Path::new("/proc");
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let shares = shares_network(proc, &child.id().to_string());
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(shares);
        // Namespaces are for root to make, or for whom the system lets.
        let other = Command::new("unshare").args(["--net", "sleep", "60"]).spawn();
        let Ok(mut other) = other else { return };
        let moved = (0..100).any(|_| {
            std::thread::sleep(Duration::from_millis(10));
            !shares_network(proc, &other.id().to_string())
        });
        let refused = other.try_wait().unwrap().is_some();
        other.kill().unwrap();
        other.wait().unwrap();
        assert!(moved || refused);
    }

    /// The ports by which the bridge is known are those of its manifests.
    #[test]
    fn the_bridges_ports_are_those_of_its_manifests() {
        for (component, port) in BRIDGE_PORTS {
            let path = format!("{}/bootstrap-manifests/bridge-{component}.yaml", env!("CARGO_MANIFEST_DIR"));
            let manifest = std::fs::read_to_string(path).unwrap();
            assert!(manifest.contains(&format!("--secure-port={port}\n")), "{component}");
        }
        for (component, kind) in [
            ("kube-apiserver", "daemonset"),
            ("kube-controller-manager", "deployment"),
            ("kube-scheduler", "deployment"),
        ] {
            let (.., port) = OWN_PORTS.into_iter().find(|(own, ..)| *own == component).unwrap();
            let path = format!("{}/manifests/{component}/{kind}.yaml", env!("CARGO_MANIFEST_DIR"));
            let manifest = std::fs::read_to_string(path).unwrap();
            assert!(manifest.contains(&format!("--secure-port={port}\n")), "{component}");
            assert!(manifest.contains("hostNetwork: true\n"), "{component}");
        }
    }
}
