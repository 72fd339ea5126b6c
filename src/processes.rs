//! What runs on this host, by /proc: whether the bridge's processes are really gone, and who holds a port.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

/// The variable that every container of the bridge has in its environment; its value is the component.
const MARK: &str = "HOIST_BRIDGE";
/// The same of the containers of the permanent static control plane.
pub const PERMANENT: &str = "HOIST_STATIC";

/// In a second, on every architecture of Linux that has Kubernetes (USER_HZ).
const TICKS: f64 = 100.0;

/// The state of a listening socket in /proc/net/tcp.
const LISTEN: &str = "0A";

/// The control plane's processes on this host.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Running {
    /// The bridge's components, as their manifests mark them.
    pub bridge: BTreeSet<String>,
    /// The components of the permanent static control plane, marked likewise.
    pub permanent: BTreeSet<String>,
    /// The programs of all other processes: the first word of each command, without its folder.
    pub others: BTreeSet<String>,
}

/// What runs on this host. `proc` is /proc but for tests.
pub fn running(proc: &Path) -> Running {
    let mut running = Running::default();
    for pid in pids(proc) {
        // A zombie has neither: it serves nobody.
        let read = |file| std::fs::read(proc.join(&pid).join(file)).unwrap_or_default();
        let environment = read("environ");
        if let Some(component) = marked(&environment, MARK) {
            running.bridge.insert(component);
        } else if let Some(component) = marked(&environment, PERMANENT) {
            running.permanent.insert(component);
        } else {
            running.others.insert(program(&read("cmdline")));
        }
    }
    running
}

/// How long ago the oldest process began whose program is `name` and that is none of hoist's, by the kernel's own clock;
/// `None` where there is none.
pub fn age(proc: &Path, name: &str) -> Option<Duration> {
    let uptime = std::fs::read_to_string(proc.join("uptime")).ok()?;
    let uptime: f64 = uptime.split_whitespace().next()?.parse().ok()?;
    let begun = pids(proc).filter_map(|pid| {
        let read = |file| std::fs::read(proc.join(&pid).join(file)).unwrap_or_default();
        if program(&read("cmdline")) != name {
            return None;
        }
        let environment = read("environ");
        if [MARK, PERMANENT].iter().any(|mark| marked(&environment, mark).is_some()) {
            return None;
        }
        // The name, in brackets, may hold anything; the time is the 20th field after it (proc_pid_stat(5)).
        let stat = String::from_utf8_lossy(&read("stat")).into_owned();
        let ticks: f64 = stat.rsplit_once(") ")?.1.split_whitespace().nth(19)?.parse().ok()?;
        Some(ticks / TICKS)
    });
    let ages = begun.map(|begun| Duration::from_secs_f64((uptime - begun).max(0.0)));
    ages.max()
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

/// Whether nobody listens at `address`, as far as binding it tells: an address that this machine lacks is nobody's.
pub fn is_free(address: SocketAddr) -> bool {
    !matches!(TcpListener::bind(address), Err(error) if error.kind() == ErrorKind::AddrInUse)
}

/// Whether somebody listens at this very address, and not only at the wildcard.
pub fn listens_at(proc: &Path, address: SocketAddr) -> bool {
    let wanted = format!("{}:{:04X}", hex(address.ip()), address.port());
    let tables = ["net/tcp", "net/tcp6"].map(|table| std::fs::read_to_string(proc.join(table)).unwrap_or_default());
    tables.iter().flat_map(|table| table.lines()).any(|line| {
        let fields: Vec<_> = line.split_whitespace().collect();
        fields.get(1) == Some(&wanted.as_str()) && fields.get(3) == Some(&LISTEN)
    })
}

/// The name and pid of the process that listens at `port` of `address` or of the wildcard, as far as /proc tells.
pub fn listener(proc: &Path, address: IpAddr, port: u16) -> Option<(String, String)> {
    let inodes: BTreeSet<String> = ["net/tcp", "net/tcp6"]
        .iter()
        .filter_map(|table| std::fs::read_to_string(proc.join(table)).ok())
        .flat_map(|table| table.lines().filter_map(|line| listening_inode(line, address, port)).collect::<Vec<_>>())
        .collect();
    pids(proc).find_map(|pid| {
        let open = std::fs::read_dir(proc.join(&pid).join("fd")).ok()?;
        let holds = open.flatten().any(|entry| {
            let link = std::fs::read_link(entry.path()).unwrap_or_default();
            let inode = link
                .to_string_lossy()
                .strip_prefix("socket:[")
                .and_then(|rest| rest.strip_suffix(']').map(str::to_owned));
            inode.is_some_and(|inode| inodes.contains(&inode))
        });
        let name = std::fs::read_to_string(proc.join(&pid).join("comm")).ok()?;
        holds.then(|| (name.trim().to_owned(), pid))
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
        let age = age(proc, &name);
        let bridge = super::age(proc, &format!("{name}-1"));
        let none = super::age(proc, "no-such-program");
        for child in [&mut named, &mut marked] {
            child.kill().unwrap();
            child.wait().unwrap();
        }
        // Its clock ticks a hundred times a second.
        let age = age.unwrap();
        assert!(age >= Duration::from_millis(100) && age <= begun.elapsed() + Duration::from_millis(50), "{age:?}");
        assert_eq!((bridge, none), (None, None));
    }

    #[test]
    fn a_listener_is_found_with_its_name() {
        let listener_socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener_socket.local_addr().unwrap();
        assert!(!is_free(address));
        let (_, pid) = listener(Path::new("/proc"), address.ip(), address.port()).unwrap();
        assert_eq!(pid, std::process::id().to_string());
        assert!(listens_at(Path::new("/proc"), address));
        assert!(!listens_at(Path::new("/proc"), SocketAddr::new([127, 0, 0, 9].into(), address.port())));
        drop(listener_socket);
        assert!(!listens_at(Path::new("/proc"), address));
        assert!(is_free(address));
        assert!(is_free(SocketAddr::new([192, 0, 2, 1].into(), address.port())), "it is no address of this machine");
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
}
