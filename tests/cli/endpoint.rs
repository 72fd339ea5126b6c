//! `hoist endpoint` as a process: more clients than its soft limit of open files has room for, and what each of them takes;
//! SIGTERM; what it refuses.

use std::io::Read;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::forwarding::{Process, SOON, connect, echo, raise_own_limit, target};
use crate::support::Folder;

/// An endpoint before one API server, and where clients reach it.
fn endpoint(folder: &Path, soft: u32, hard: u32) -> (Process, SocketAddr) {
    let ca_file = folder.join("ca.crt");
    let target = target(&ca_file);
    let listen = TcpListener::bind((Ipv4Addr::new(127, 0, 3, 1), 0)).unwrap().local_addr().unwrap();
    let script = format!("ulimit -Sn {soft}; ulimit -Hn {hard}; exec \"$@\"");
    let mut command = Command::new("sh");
    command.args(["-c", &script, "sh"]).arg(env!("CARGO_BIN_EXE_hoist")).arg("endpoint");
    command.args([format!("--listen={listen}"), format!("--target={target}")]).arg("--ca-file").arg(&ca_file);
    command.arg("--state-file").arg(folder.join("targets"));
    let endpoint = Process(command.spawn().unwrap());
    let begun = Instant::now();
    while connect(listen).and_then(|mut client| echo(&mut client)).is_err() {
        assert!(begun.elapsed() < SOON, "it does not forward");
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    (endpoint, listen)
}

/// The memory of a process, in bytes.
fn memory(process: &Process) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{}/status", process.0.id())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() * 1024
}

#[test]
fn the_endpoint_has_more_connections_than_its_soft_limit_and_each_takes_little() {
    const COUNT: usize = 1500;
    raise_own_limit();
    let folder = tempfile::tempdir().unwrap();
    let (endpoint, listen) = endpoint(folder.path(), 1024, 8192);
    let before = memory(&endpoint);
    let mut open: Vec<_> = (0..COUNT).map(|_| connect(listen).unwrap()).collect();
    open.iter_mut().for_each(|client| echo(client).unwrap());
    open.iter_mut().for_each(|client| echo(client).unwrap());
    let each = memory(&endpoint).saturating_sub(before) / COUNT;
    println!("{each} bytes for each connection at rest");
    // A buffer for each would be twice as much.
    assert!(each < 8192, "{each} bytes for each connection at rest");
}

#[test]
fn at_sigterm_open_connections_go_on_until_they_end() {
    let folder = tempfile::tempdir().unwrap();
    let (mut endpoint, listen) = endpoint(folder.path(), 1024, 1024);
    let mut open = connect(listen).unwrap();
    echo(&mut open).unwrap();
    kill(Pid::from_raw(endpoint.0.id().try_into().unwrap()), Signal::SIGTERM).unwrap();
    let begun = Instant::now();
    while connect(listen).is_ok() {
        assert!(begun.elapsed() < SOON, "it goes on listening");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    echo(&mut open).unwrap();
    open.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(open.read(&mut [0]).unwrap(), 0);
    drop(open);
    assert!(endpoint.0.wait().unwrap().success());
}

#[test]
fn what_it_cannot_work_with_is_refused_with_what_to_do() {
    let folder = Folder::new();
    folder.put("ca.crt", "no certificate");
    let state = ["--state-file", "targets"];
    let run = |more: &[&str]| folder.run(&[&["endpoint", "--ca-file", "ca.crt"], &state[..], more].concat());
    run(&[]).failed(
        3,
        "hoist: the input is not valid; nothing was changed\n  --target: no API server is known: none is configured, and targets has none\n    give the address of one API server at least\n",
    );
    run(&["--target=192.0.2.1", "--listen=192.0.2.9:7443"])
        .failed_saying(3, &["--listen", "not an address of loopback"]);
    run(&["--target=127.0.0.1:7443"]).failed_saying(3, &["is where this endpoint itself listens"]);
    run(&["--target=c1.example"]).failed_saying(2, &["is not an address such as 192.0.2.10:6443"]);
    run(&["--target=192.0.2.1"]).failed_saying(1, &["CA certificate"]);
}
