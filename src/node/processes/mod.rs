//! The processes of this host, by /proc: whether the bridge's have really ended, and which one holds a port.

mod held;
mod owner;

use std::collections::BTreeSet;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use rustix::io::Errno;

pub use held::{Held, Signal, hold, signal};
use owner::{Owner, owner, owner_by, words};
pub use owner::{PERMANENT, flag};

/// In a second, on every architecture of Linux that has Kubernetes (USER_HZ).
const TICKS: f64 = 100.0;

/// The states of a listening and of a connected socket in /proc/net/tcp.
const LISTEN: &str = "0A";
const ESTABLISHED: &str = "01";

/// The control plane's processes on this host.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Running {
    /// The bridge's components, as their manifests mark them.
    pub bridge: BTreeSet<String>,
    /// The components of the permanent static control plane, marked likewise.
    pub permanent: BTreeSet<String>,
    /// The programs of all other processes, but for those of other control planes: the first word of each command, without its
    /// folder.
    pub others: BTreeSet<String>,
}

/// What runs on this host. `proc` is /proc but for tests.
pub fn running(proc: &Path) -> Running {
    let mut running = Running::default();
    for pid in pids(proc) {
        match owner(proc, &pid) {
            Owner::Bridge(component) => running.bridge.insert(component),
            Owner::Permanent(component) => running.permanent.insert(component),
            Owner::Another(program) => running.others.insert(program),
            Owner::AnotherCluster => continue,
        };
    }
    running
}

/// A process, by the kernel's own clocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Process {
    /// Its number.
    pub pid: i32,
    /// When it began, in ticks since the machine did: with the number, this is one process and no other.
    pub began: u64,
    /// How long ago it began.
    pub age: Duration,
    /// How much of a processor it has used, all of its threads together.
    pub used: Duration,
}

impl Process {
    /// Whether it is the same process, however much time has passed for it.
    pub fn is(&self, other: &Self) -> bool {
        (self.pid, self.began) == (other.pid, other.began)
    }
}

/// A process of a component of the control plane.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Component {
    /// Its number.
    pub pid: i32,
    /// It is the bridge's.
    pub of_bridge: bool,
    /// What else the kernel says of it; `None` where it ends just now.
    pub process: Option<Process>,
    command: Vec<String>,
}

impl Component {
    /// The value of a flag of its command: of one that is there twice, the last one counts.
    pub fn flag(&self, name: &str) -> Option<&str> {
        flag(&self.command, name)
    }

    /// Its command, word by word.
    pub fn words(&self) -> &[String] {
        &self.command
    }
}

/// The processes of this cluster's component `name` on this host: the bridge's, a static pod's, the self-hosted ones.
///
/// # Errors
/// What of /proc could not be read: nobody may be taken for gone then.
pub fn of(proc: &Path, name: &str) -> io::Result<Vec<Component>> {
    let mut found = Vec::new();
    std::fs::read_dir(proc)?;
    for pid in pids(proc) {
        let dir = proc.join(&pid);
        let Some(command) = read_of(&dir.join("cmdline"))? else { continue };
        let of_bridge = match owner_by(proc, &pid, &command) {
            Owner::Bridge(component) if component == name => true,
            Owner::Permanent(component) | Owner::Another(component) if component == name => false,
            _ => continue,
        };
        let Ok(number) = pid.parse() else { continue };
        found.push(Component { pid: number, of_bridge, process: look(proc, &pid)?, command: words(&command) });
    }
    Ok(found)
}

/// The command of a process, word by word; `None` where it has ended.
pub fn command(proc: &Path, pid: &str) -> Option<Vec<String>> {
    read_of(&proc.join(pid).join("cmdline")).ok().flatten().map(|command| words(&command))
}

/// What the kernel says of a process; `None` where it has ended.
pub fn process(proc: &Path, pid: &str) -> Option<Process> {
    look(proc, pid).ok().flatten()
}

/// What the kernel says of a process; `None` where it has ended.
fn look(proc: &Path, pid: &str) -> io::Result<Option<Process>> {
    let text = |path: &Path| Ok::<_, io::Error>(read_of(path)?.map(|text| String::from_utf8_lossy(&text).into_owned()));
    let (uptime, stat) = (text(&proc.join("uptime"))?, text(&proc.join(pid).join("stat"))?);
    let parse = |uptime: &str, stat: &str| {
        let uptime: f64 = uptime.split_whitespace().next()?.parse().ok()?;
        // The name, in brackets, may hold anything; the times are the 12th, 13th and 20th field after it (proc_pid_stat(5)).
        let fields: Vec<_> = stat.rsplit_once(") ")?.1.split_whitespace().collect();
        let seconds = |field: usize| Some(fields.get(field)?.parse::<f64>().ok()? / TICKS);
        Some(Process {
            pid: pid.parse().ok()?,
            began: fields.get(19)?.parse().ok()?,
            age: Duration::from_secs_f64((uptime - seconds(19)?).max(0.0)),
            used: Duration::from_secs_f64(seconds(11)? + seconds(12)?),
        })
    };
    Ok(uptime.zip(stat).and_then(|(uptime, stat)| parse(&uptime, &stat)))
}

/// A file of a process; `None` where that has ended.
fn read_of(path: &Path) -> io::Result<Option<Vec<u8>>> {
    match std::fs::read(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == ErrorKind::NotFound || Errno::from_io_error(&error) == Some(Errno::SRCH) => {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// Whether nobody listens at `address`, as far as binding it tells: an address that this machine lacks is nobody's.
pub fn is_free(address: SocketAddr) -> bool {
    !matches!(TcpListener::bind(address), Err(error) if error.kind() == ErrorKind::AddrInUse)
}

/// Whether somebody listens at this very address, and not only at the wildcard.
pub fn listens_at(proc: &Path, address: SocketAddr) -> bool {
    !other_ends(proc, address, LISTEN).is_empty()
}

/// How many connections are open at this address.
pub fn connections(proc: &Path, address: SocketAddr) -> usize {
    other_ends(proc, address, ESTABLISHED).len()
}

/// The other end of each socket at `address` in this state.
fn other_ends(proc: &Path, address: SocketAddr, state: &str) -> Vec<String> {
    let wanted = format!("{}:{:04X}", hex(address.ip()), address.port());
    let tables = ["net/tcp", "net/tcp6"].map(|table| std::fs::read_to_string(proc.join(table)).unwrap_or_default());
    let other_end = |line: &str| {
        let fields: Vec<_> = line.split_whitespace().collect();
        let is_it = fields.get(1) == Some(&wanted.as_str()) && fields.get(3) == Some(&state);
        is_it.then(|| fields.get(2).map(|other| (*other).to_owned())).flatten()
    };
    tables.iter().flat_map(|table| table.lines()).filter_map(other_end).collect()
}

/// The name and pid of the process that listens at `port` of `address` or of the wildcard, as far as /proc tells.
pub fn listener(proc: &Path, address: IpAddr, port: u16) -> Option<(String, String)> {
    listeners(proc, address, port).find_map(|pid| {
        let name = std::fs::read_to_string(proc.join(&pid).join("comm")).ok()?;
        Some((name.trim().to_owned(), pid))
    })
}

/// Whether a process is this cluster's API server, static or self-hosted.
pub fn is_own_api_server(proc: &Path, process: &Process) -> bool {
    let owner = owner(proc, &process.pid.to_string());
    [Owner::Another("kube-apiserver".into()), Owner::Permanent("kube-apiserver".into())].contains(&owner)
}

/// The process that listens there, if it is the only one.
pub fn only_listener(proc: &Path, address: SocketAddr) -> Option<Process> {
    let mut all = all_listeners(proc, address).into_iter();
    all.next().filter(|_| all.next().is_none())
}

/// The processes that listen there, at the address or at the wildcard: several may, beside one another.
pub fn all_listeners(proc: &Path, address: SocketAddr) -> Vec<Process> {
    listeners(proc, address.ip(), address.port()).filter_map(|pid| process(proc, &pid)).collect()
}

/// The value of a variable of a process's environment, as far as this process may read it.
pub fn variable(proc: &Path, pid: i32, name: &str) -> Option<String> {
    let environment = std::fs::read(proc.join(pid.to_string()).join("environ")).ok()?;
    words(&environment).iter().find_map(|word| word.strip_prefix(name)?.strip_prefix('=').map(str::to_owned))
}

/// The uid of the pod that a process is of, by its cgroups: kubelets name a cgroup after it, by systemd with other dashes.
pub fn pod_uid(proc: &Path, pid: i32) -> Option<String> {
    let text = std::fs::read_to_string(proc.join(pid.to_string()).join("cgroup")).ok()?;
    text.lines().flat_map(|line| line.split('/')).find_map(|name| {
        let name = name.strip_suffix(".slice").map_or(name, |slice| slice.rsplit('-').next().unwrap_or(slice));
        let uid = name.strip_prefix("pod").filter(|uid| uid.len() >= 32)?;
        Some(uid.replace('_', "-"))
    })
}

fn listeners(proc: &Path, address: IpAddr, port: u16) -> impl Iterator<Item = String> {
    let inodes: BTreeSet<String> = ["net/tcp", "net/tcp6"]
        .iter()
        .filter_map(|table| std::fs::read_to_string(proc.join(table)).ok())
        .flat_map(|table| table.lines().filter_map(|line| listening_inode(line, address, port)).collect::<Vec<_>>())
        .collect();
    pids(proc).filter(move |pid| {
        let open = std::fs::read_dir(proc.join(pid).join("fd")).into_iter().flatten().flatten();
        open.into_iter().any(|entry| {
            let link = std::fs::read_link(entry.path()).unwrap_or_default();
            let inode = link
                .to_string_lossy()
                .strip_prefix("socket:[")
                .and_then(|rest| rest.strip_suffix(']').map(str::to_owned));
            inode.is_some_and(|inode| inodes.contains(&inode))
        })
    })
}

/// The pid of a process that has the file at `path` open, by whatever name it knows it.
pub fn holder(proc: &Path, path: &Path) -> Option<String> {
    let id = |path: &Path| std::fs::metadata(path).ok().map(|meta| (meta.dev(), meta.ino()));
    let wanted = id(path)?;
    pids(proc).find(|pid| {
        let open = std::fs::read_dir(proc.join(pid).join("fd")).into_iter().flatten().flatten();
        open.into_iter().any(|entry| id(&entry.path()) == Some(wanted))
    })
}

/// Whether this process ignores a signal: before it has listened for it, that is as whoever started it wished.
pub fn ignores(proc: &Path, signal: u8) -> bool {
    let status = std::fs::read_to_string(proc.join("self/status")).unwrap_or_default();
    let mask = status.lines().find_map(|line| u64::from_str_radix(line.strip_prefix("SigIgn:")?.trim(), 16).ok());
    mask.is_some_and(|mask| mask >> signal.saturating_sub(1) & 1 == 1)
}

/// The socket's inode if this line of /proc/net/tcp shows a listener at the port, of the address or the wildcard.
fn listening_inode(line: &str, address: IpAddr, port: u16) -> Option<String> {
    let fields: Vec<_> = line.split_whitespace().collect();
    let (local, state, inode) = (fields.get(1)?, fields.get(3)?, fields.get(9)?);
    let (host, hex_port) = local.split_once(':')?;
    let same_host = host.bytes().all(|digit| digit == b'0') || host == hex(address);
    (state == &LISTEN && u16::from_str_radix(hex_port, 16) == Ok(port) && same_host).then(|| (*inode).to_owned())
}

/// An address as /proc/net/tcp has it: 32-bit words in the host's byte order.
fn hex(address: IpAddr) -> String {
    let octets = match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    };
    let word = |chunk: &[u8]| chunk.try_into().map(u32::from_ne_bytes).unwrap_or_default();
    octets.chunks(4).map(|chunk| format!("{:08X}", word(chunk))).collect()
}

fn pids(proc: &Path) -> impl Iterator<Item = String> {
    let names = std::fs::read_dir(proc)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned());
    names.filter(|name| name.bytes().all(|byte| byte.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::CommandExt;
    use std::process::Command;

    use super::*;

    /// The oldest process of a program that is not the bridge's.
    fn oldest(proc: &Path, name: &str) -> Option<Process> {
        let others = of(proc, name).unwrap().into_iter().filter(|component| !component.of_bridge);
        others.filter_map(|component| component.process).max_by_key(|process| process.age)
    }

    #[test]
    fn a_process_is_as_old_as_it_is() {
        let begun = std::time::Instant::now();
        let name = format!("hoist-{}", std::process::id());
        let sleep = |name: &str, variable: &str| {
            Command::new("/bin/sleep").arg0(name).arg("60").env(variable, "x").spawn().unwrap()
        };
        let mut named = sleep(&format!("/x/{name}"), "X");
        let mut marked = sleep(&format!("{name}-1"), "HOIST_BRIDGE");
        let proc = Path::new("/proc");
        std::thread::sleep(Duration::from_millis(150));
        let found = oldest(proc, &name);
        let bridge = oldest(proc, &format!("{name}-1"));
        let none = oldest(proc, "no-such-program");
        for child in [&mut named, &mut marked] {
            child.kill().unwrap();
            child.wait().unwrap();
        }
        // Its clock ticks a hundred times a second.
        let Process { pid, age, used, .. } = found.unwrap();
        assert_eq!((u32::try_from(pid).unwrap(), used), (named.id(), Duration::ZERO));
        assert!(age >= Duration::from_millis(100) && age <= begun.elapsed() + Duration::from_millis(50), "{age:?}");
        assert_eq!((bridge, none), (None, None));
    }

    #[test]
    fn what_a_process_has_used_is_known() {
        let proc = tempfile::tempdir().unwrap();
        std::fs::write(proc.path().join("uptime"), "100.00 1.00\n").unwrap();
        std::fs::create_dir(proc.path().join("7")).unwrap();
        std::fs::write(proc.path().join("7/cmdline"), "/usr/bin/kube-apiserver\0--x\0").unwrap();
        let stat = "7 (kube) api) S 1 7 7 0 -1 4194560 1 2 3 4 250 50 9 9 20 0 14 0 4000 1 1";
        std::fs::write(proc.path().join("7/stat"), stat).unwrap();
        let expected = Process { pid: 7, began: 4000, age: Duration::from_secs(60), used: Duration::from_secs(3) };
        assert_eq!(oldest(proc.path(), "kube-apiserver"), Some(expected));
    }

    #[test]
    fn a_listener_is_found_with_its_name() {
        let listener_socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener_socket.local_addr().unwrap();
        assert!(!is_free(address));
        let (_, pid) = listener(Path::new("/proc"), address.ip(), address.port()).unwrap();
        assert_eq!(pid, std::process::id().to_string());
        let only = only_listener(Path::new("/proc"), address).unwrap();
        assert_eq!(only.pid.to_string(), pid);
        assert!(listens_at(Path::new("/proc"), address));
        assert_eq!(connections(Path::new("/proc"), address), 0);
        let client = std::net::TcpStream::connect(address).unwrap();
        assert_eq!(connections(Path::new("/proc"), address), 1);
        drop(client);
        assert!(!listens_at(Path::new("/proc"), SocketAddr::new([127, 0, 0, 9].into(), address.port())));
        drop(listener_socket);
        assert!(!listens_at(Path::new("/proc"), address));
        assert!(is_free(address));
        assert!(
            is_free(SocketAddr::new([192, 0, 2, 1].into(), address.port())),
            "it is not an address of this machine"
        );
        assert_eq!(listener(Path::new("/proc"), address.ip(), address.port()), None);
    }

    #[test]
    fn whoever_has_a_file_open_is_known() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let link = file.path().with_extension("link");
        std::fs::hard_link(file.path(), &link).unwrap();
        assert_eq!(holder(Path::new("/proc"), &link), Some(std::process::id().to_string()));
        let (open, path) = file.into_parts();
        drop(open);
        assert_eq!(holder(Path::new("/proc"), &link), None);
        std::fs::remove_file(&link).unwrap();
        drop(path);
        assert_eq!(holder(Path::new("/proc"), &link), None, "no such file");
    }

    #[test]
    fn an_ignored_signal_is_known() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("self")).unwrap();
        // As nohup leaves it: signal 1; and Rust's own runtime: signal 13.
        std::fs::write(dir.path().join("self/status"), "Name:\thoist\nSigIgn:\t0000000000001001\n").unwrap();
        let ignored: Vec<u8> = (1..=64).filter(|signal| ignores(dir.path(), *signal)).collect();
        assert_eq!(ignored, [1, 13]);
        assert!(ignores(Path::new("/proc"), 13) && !ignores(Path::new("/proc"), 15));
    }

    #[test]
    fn a_bridge_process_is_found_by_its_mark() {
        let mut child =
            std::process::Command::new("sleep").arg("30").env("HOIST_BRIDGE", "test-component").spawn().unwrap();
        // The environment is visible once the child has executed the program.
        let found = (0..100).any(|_| {
            std::thread::sleep(std::time::Duration::from_millis(10));
            running(Path::new("/proc")).bridge.contains("test-component")
        });
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(found);
        let own = std::env::args().next().unwrap();
        assert!(running(Path::new("/proc")).others.contains(own.rsplit('/').next().unwrap()));
        assert!(!running(Path::new("/proc")).bridge.contains("test-component"));
    }
}
