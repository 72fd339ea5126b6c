use std::io::{Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant as Clock;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use tokio::net::TcpListener;

use super::sockets::bind;
use super::*;
use crate::base::probe::testing::{Authority, Server, chat};
use crate::random::Random;

/// A forwarder that runs until [`Running::stop`].
struct Running {
    listen: SocketAddr,
    stop: oneshot::Sender<()>,
    task: JoinHandle<Result<()>>,
    _ca_file: tempfile::NamedTempFile,
}

impl Running {
    fn start(listen: SocketAddr, target: SocketAddr, ca: &Authority, drain_timeout: Duration) -> Self {
        Self::with(ca, |ca_file| options(listen, target, ca_file, drain_timeout))
    }

    fn with(ca: &Authority, options: impl FnOnce(PathBuf) -> Options) -> Self {
        let ca_file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(ca_file.path(), ca.pem()).unwrap();
        let options = options(ca_file.path().to_owned());
        let listen = options.listen;
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(async move { run(&options, async { drop(stopped.await) }).await });
        Self { listen, stop, task, _ca_file: ca_file }
    }

    /// Asks it to stop; what is returned ends with it.
    fn stop(self) -> JoinHandle<Result<()>> {
        self.stop.send(()).unwrap();
        self.task
    }
}

fn options(listen: SocketAddr, target: SocketAddr, ca_file: PathBuf, drain_timeout: Duration) -> Options {
    Options { listen, also: Also::default(), target, ca_file, drain_timeout, connections: 1000 }
}

/// A stand-in for the self-hosted API server: on the wildcard, with SO_REUSEPORT. Returns the address at which a
/// forwarder can get in front of it; each test has an address of its own, since ports are shared.
fn wildcard(host: u8) -> (SocketAddr, JoinHandle<()>) {
    beside(bind(SocketAddr::from(([0, 0, 0, 0], 0))).unwrap(), host)
}

fn beside(listener: TcpListener, host: u8) -> (SocketAddr, JoinHandle<()>) {
    let addr = SocketAddr::from(([127, 0, 1, host], listener.local_addr().unwrap().port()));
    let task = tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            tokio::spawn(async move { chat(&mut stream, "wildcard").await });
        }
    });
    (addr, task)
}

/// Who answers a chunk on this connection.
async fn ask(stream: &mut TcpStream) -> io::Result<String> {
    stream.write_all(b"ping").await?;
    let mut answer = [0; 64];
    let n = stream.read(&mut answer).await?;
    Ok(String::from_utf8_lossy(&answer[..n]).into_owned())
}

/// Who answers on a new connection.
async fn who(addr: SocketAddr) -> io::Result<String> {
    ask(&mut TcpStream::connect(addr).await?).await
}

/// Waits until a new connection is answered by `name`.
async fn until(addr: SocketAddr, name: &str) {
    let expected = format!("{name}:ping");
    let deadline = Clock::now() + Duration::from_secs(20);
    while who(addr).await.ok().as_deref() != Some(&expected) {
        assert!(Clock::now() < deadline, "{name} never answered at {addr}");
        sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn it_binds_only_when_the_target_is_ready_and_passes_bytes_both_ways() {
    let ca = Authority::new();
    let target = Server::start("bridge", &ca).await;
    target.answer(500, "[-]etcd failed");
    let (listen, _wildcard) = wildcard(1);
    let running = Running::start(listen, target.addr, &ca, DRAIN_TIMEOUT);
    while target.requests().len() < 5 {
        assert_eq!(who(listen).await.unwrap(), "wildcard:ping");
    }

    target.answer(200, "ok");
    until(listen, "bridge").await;

    let mut client = TcpStream::connect(listen).await.unwrap();
    assert_eq!(ask(&mut client).await.unwrap(), "bridge:ping");
    assert_eq!(ask(&mut client).await.unwrap(), "bridge:ping");
    client.shutdown().await.unwrap();
    let mut rest = String::new();
    client.read_to_string(&mut rest).await.unwrap();
    assert_eq!(rest, "bye", "what follows a half-close gets through");

    running.stop().await.unwrap().unwrap();
}

/// An address at which nobody listens.
fn deserted(host: u8) -> SocketAddr {
    StdListener::bind((std::net::Ipv4Addr::new(127, 0, 1, host), 0)).unwrap().local_addr().unwrap()
}

#[tokio::test]
async fn where_nobody_serves_connections_are_kept_until_the_target_is_ready() {
    let ca = Authority::new();
    let target = Server::start("bridge", &ca).await;
    target.answer(500, "[-]etcd failed");
    let running = Running::start(deserted(10), target.addr, &ca, DRAIN_TIMEOUT);
    let listen = running.listen;
    while TcpStream::connect(listen).await.is_err() {
        sleep(Duration::from_millis(10)).await;
    }
    let early = tokio::spawn(async move { who(listen).await });
    sleep(READY_INTERVAL * 4).await;
    assert!(!early.is_finished(), "nobody may answer yet");
    target.answer(200, "ok");
    assert_eq!(early.await.unwrap().unwrap(), "bridge:ping");
    assert_eq!(who(listen).await.unwrap(), "bridge:ping");
    running.stop().await.unwrap().unwrap();
}

#[tokio::test]
async fn what_was_kept_goes_to_the_self_hosted_server_when_that_is_ready_first() {
    let ca = Authority::new();
    let running = Running::start(deserted(11), SocketAddr::from(([127, 0, 0, 1], 1)), &ca, DRAIN_TIMEOUT);
    let listen = running.listen;
    while TcpStream::connect(listen).await.is_err() {
        sleep(Duration::from_millis(10)).await;
    }
    let early = tokio::spawn(async move { who(listen).await });
    let beside = Server::start_on(hold::beside(listen), "self-hosted", &ca).await;
    assert_eq!(early.await.unwrap().unwrap(), "self-hosted:ping");
    until(listen, "self-hosted").await;
    // Once that is gone, too, it is seen that the address was given back.
    beside.kill().await;
    let deadline = Clock::now() + Duration::from_secs(5);
    while TcpStream::connect(listen).await.is_ok() {
        assert!(Clock::now() < deadline, "the forwarder goes on listening");
        sleep(Duration::from_millis(10)).await;
    }
    running.stop().await.unwrap().unwrap();
}

#[tokio::test]
async fn a_target_with_a_foreign_certificate_is_never_ready() {
    let target = Server::start("bridge", &Authority::new()).await;
    let (listen, _wildcard) = wildcard(2);
    let running = Running::start(listen, target.addr, &Authority::new(), DRAIN_TIMEOUT);
    sleep(READY_INTERVAL * 5).await;
    assert_eq!(who(listen).await.unwrap(), "wildcard:ping");
    running.stop().await.unwrap().unwrap();
}

#[tokio::test]
async fn on_stop_new_connections_reach_the_wildcard_and_old_ones_live_on() {
    let ca = Authority::new();
    let target = Server::start("bridge", &ca).await;
    let (listen, _wildcard) = wildcard(3);
    let running = Running::start(listen, target.addr, &ca, DRAIN_TIMEOUT);
    until(listen, "bridge").await;

    let mut old = TcpStream::connect(listen).await.unwrap();
    assert_eq!(ask(&mut old).await.unwrap(), "bridge:ping");
    let ended = running.stop();
    until(listen, "wildcard").await;
    sleep(SETTLE * 2).await;
    assert_eq!(ask(&mut old).await.unwrap(), "bridge:ping");
    assert!(!ended.is_finished());

    drop(old);
    timeout(Duration::from_secs(2), ended).await.expect("it ends with its last connection").unwrap().unwrap();
}

#[tokio::test]
async fn the_drain_time_out_cuts_what_is_open() {
    let ca = Authority::new();
    let target = Server::start("bridge", &ca).await;
    let (listen, _wildcard) = wildcard(4);
    let running = Running::start(listen, target.addr, &ca, Duration::from_millis(200));
    until(listen, "bridge").await;

    let mut open = TcpStream::connect(listen).await.unwrap();
    assert_eq!(ask(&mut open).await.unwrap(), "bridge:ping");
    timeout(Duration::from_secs(2), running.stop()).await.unwrap().unwrap().unwrap();
    assert_ne!(ask(&mut open).await.ok().as_deref(), Some("bridge:ping"));
}

#[tokio::test]
async fn a_dead_target_gives_the_address_back_until_it_is_ready_again() {
    let ca = Authority::new();
    let target = Server::start("bridge", &ca).await;
    let addr = target.addr;
    let (listen, _wildcard) = wildcard(5);
    let running = Running::start(listen, addr, &ca, DRAIN_TIMEOUT);
    until(listen, "bridge").await;

    // It says that it shuts down, and serves on.
    target.answer(500, "[-]shutdown failed");
    sleep(HEALTH_INTERVAL * (HEALTH_MISSES + 1)).await;
    assert_eq!(who(listen).await.unwrap(), "bridge:ping");

    target.kill().await;
    let closed = who(listen).await;
    assert!(closed.as_ref().map_or(true, String::is_empty), "a dead target answered {closed:?}");
    until(listen, "wildcard").await;

    let _again = Server::start_on(addr, "again", &ca).await;
    until(listen, "again").await;
    running.stop().await.unwrap().unwrap();
    assert_eq!(who(listen).await.unwrap(), "wildcard:ping");
}

#[tokio::test]
async fn it_goes_on_trying_while_the_address_is_taken() {
    let ca = Authority::new();
    let target = Server::start("bridge", &ca).await;
    // Without SO_REUSEPORT nobody can stand beside it.
    let rude = StdListener::bind("127.0.1.6:0").unwrap();
    let running = Running::start(rude.local_addr().unwrap(), target.addr, &ca, DRAIN_TIMEOUT);
    sleep(BIND_INTERVAL * 2).await;
    assert!(!running.task.is_finished());
    let listen = running.listen;
    drop(rude);
    until(listen, "bridge").await;
    running.stop().await.unwrap().unwrap();
}

/// Its target gets ready, stops being so, dies and comes back, by chance: whoever connects meets the one on the wildcard, or
/// a target that has been ready since it was started.
#[tokio::test]
async fn in_no_history_a_client_meets_a_target_that_was_not_ready_yet() {
    let histories: Vec<_> = (0..6).map(|seed| tokio::spawn(history(seed))).collect();
    let mut met = 0;
    for history in histories {
        met += history.await.unwrap();
    }
    assert!(met > 20, "only {met} clients met a target");
}

/// How many clients met a target in it.
async fn history(seed: u8) -> usize {
    let mut random = Random::new(seed.into());
    let ca = Authority::new();
    let mut target = Server::start("target", &ca).await;
    target.answer(500, "[-]etcd failed");
    let addr = target.addr;
    let (listen, _wildcard) = wildcard(20 + seed);
    let running = Running::start(listen, addr, &ca, DRAIN_TIMEOUT);
    let (mut was_ready, mut met) = (false, 0);
    for step in 0..40 {
        match random.below(10) {
            0 | 1 => {
                target.answer(200, "ok");
                was_ready = true;
            }
            2 => target.answer(500, "[-]etcd failed"),
            3 if random.permille(400) => {
                target.kill().await;
                // Long enough to be noticed: no API server is back sooner.
                sleep(HEALTH_INTERVAL * (HEALTH_MISSES + 1)).await;
                target = Server::start_on(addr, "target", &ca).await;
                target.answer(500, "[-]etcd failed");
                was_ready = false;
            }
            _ => {
                sleep(random.millis(0, 120)).await;
                match who(listen).await.as_deref() {
                    Ok("wildcard:ping") => {}
                    Ok("target:ping") => {
                        assert!(was_ready, "seed {seed}, step {step}: it is not ready yet");
                        met += 1;
                    }
                    other => panic!("seed {seed}, step {step}: {other:?}"),
                }
            }
        }
    }
    running.stop().await.unwrap().unwrap();
    met
}

#[tokio::test]
async fn a_stop_while_waiting_ends_it_at_once() {
    let unused = SocketAddr::from(([127, 0, 0, 1], 1));
    let (listen, _wildcard) = wildcard(7);
    let running = Running::start(listen, unused, &Authority::new(), DRAIN_TIMEOUT);
    sleep(READY_INTERVAL * 2).await;
    timeout(Duration::from_secs(1), running.stop()).await.unwrap().unwrap().unwrap();
}

#[tokio::test]
async fn the_wildcard_is_not_its_to_take() {
    let (listen, target) = (SocketAddr::from(([0, 0, 0, 0], 6443)), SocketAddr::from(([127, 0, 0, 1], 6444)));
    let options = options(listen, target, PathBuf::new(), DRAIN_TIMEOUT);
    assert!(matches!(run(&options, std::future::pending()).await, Err(Error::Input(_))));
}

/// Who answers on a new connection within a moment.
async fn who_soon(addr: SocketAddr) -> Option<String> {
    timeout(Duration::from_millis(500), who(addr)).await.ok().map(std::result::Result::unwrap)
}

#[tokio::test]
async fn at_its_limit_further_clients_wait_and_the_address_stays() {
    let ca = Authority::new();
    let target = Server::start("bridge", &ca).await;
    let (listen, _wildcard) = wildcard(12);
    let running = Running::with(&ca, |ca_file| Options {
        connections: 3,
        ..options(listen, target.addr, ca_file, Duration::from_millis(100))
    });
    until(listen, "bridge").await;
    let mut open = Vec::new();
    for _ in 0..3 {
        let mut client = TcpStream::connect(listen).await.unwrap();
        assert_eq!(ask(&mut client).await.unwrap(), "bridge:ping");
        open.push(client);
    }
    // Neither refused nor the wildcard's.
    let mut waiting = TcpStream::connect(listen).await.unwrap();
    assert!(timeout(HEALTH_INTERVAL * (HEALTH_MISSES + 1), ask(&mut waiting)).await.is_err());
    assert_eq!(ask(&mut open[0]).await.unwrap(), "bridge:ping");
    open.pop();
    let mut answer = [0; 64];
    let count = timeout(Duration::from_secs(2), waiting.read(&mut answer)).await.unwrap().unwrap();
    assert_eq!(&answer[..count], b"bridge:ping");
    running.stop().await.unwrap().unwrap();
    assert_eq!(who_soon(listen).await.unwrap(), "wildcard:ping");
}

/// The first is where nobody serves, so that connections are kept: no more of them than there is room for.
#[tokio::test]
async fn what_is_kept_has_its_limit_too() {
    let ca = Authority::new();
    let target = Server::start("bridge", &ca).await;
    target.answer(500, "[-]etcd failed");
    let running = Running::with(&ca, |ca_file| Options {
        connections: 2,
        ..options(deserted(13), target.addr, ca_file, Duration::from_millis(100))
    });
    let listen = running.listen;
    while TcpStream::connect(listen).await.is_err() {
        sleep(Duration::from_millis(10)).await;
    }
    let early: Vec<_> = (0..4).map(|_| tokio::spawn(who(listen))).collect();
    sleep(Duration::from_millis(300)).await;
    target.answer(200, "ok");
    for early in early {
        assert_eq!(early.await.unwrap().unwrap(), "bridge:ping");
    }
    running.stop().await.unwrap().unwrap();
}

#[tokio::test]
async fn it_listens_at_further_addresses_from_when_to_when_it_has_the_first() {
    let ca = Authority::new();
    let target = Server::start("bridge", &ca).await;
    target.answer(500, "[-]etcd failed");
    let (listen, _wildcard) = wildcard(14);
    let second = SocketAddr::from(([127, 0, 1, 15], listen.port()));
    let running = Running::with(&ca, |ca_file| Options {
        also: Also { addresses: vec![second, SocketAddr::from(([192, 0, 2, 7], listen.port()))], every: false },
        ..options(listen, target.addr, ca_file, DRAIN_TIMEOUT)
    });
    sleep(READY_INTERVAL * 5).await;
    assert_eq!(who(second).await.unwrap(), "wildcard:ping");
    target.answer(200, "ok");
    until(listen, "bridge").await;
    assert_eq!(who(second).await.unwrap(), "bridge:ping");
    running.stop().await.unwrap().unwrap();
    assert_eq!(who(second).await.unwrap(), "wildcard:ping");
}

/// The kernel shows which connections it asks for a sign of life: those with a timer of the second kind.
#[tokio::test]
async fn both_halves_of_a_connection_are_asked_for_a_sign_of_life() {
    let ca = Authority::new();
    let target = Server::start("bridge", &ca).await;
    let (listen, _wildcard) = wildcard(17);
    let running = Running::start(listen, target.addr, &ca, DRAIN_TIMEOUT);
    until(listen, "bridge").await;
    let mut client = TcpStream::connect(listen).await.unwrap();
    assert_eq!(ask(&mut client).await.unwrap(), "bridge:ping");
    sleep(Duration::from_millis(200)).await;
    let hex = |addr: SocketAddr| match addr.ip() {
        std::net::IpAddr::V4(ip) => format!("{:08X}:{:04X}", u32::from_ne_bytes(ip.octets()), addr.port()),
        std::net::IpAddr::V6(_) => unreachable!(),
    };
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let established: Vec<Vec<_>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
    let timer = |local: Option<String>, remote: Option<String>| {
        let is = |wanted: &Option<String>, there: &str| wanted.as_ref().is_none_or(|wanted| wanted == there);
        let found = established.iter().find(|line| line[3] == "01" && is(&local, line[1]) && is(&remote, line[2]));
        found.map(|line| line[5].split(':').next().unwrap().to_owned())
    };
    assert_eq!(timer(Some(hex(listen)), Some(hex(client.local_addr().unwrap()))).as_deref(), Some("02"));
    assert_eq!(timer(None, Some(hex(target.addr))).as_deref(), Some("02"));
    running.stop().await.unwrap().unwrap();
}

#[test]
fn there_is_room_for_as_many_connections_as_there_are_files_for() {
    assert_eq!([room(0), room(128), room(1024), room(524_288)], [1, 1, 448, 20_000]);
}

/// One request on a new connection, by blocking calls: what a client outside of this runtime sees.
fn who_blocking(addr: SocketAddr) -> io::Result<String> {
    let mut stream = std::net::TcpStream::connect(addr)?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    stream.write_all(b"ping")?;
    let mut answer = [0; 64];
    let n = stream.read(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer[..n]).into_owned())
}

#[tokio::test]
async fn raising_and_lowering_lose_no_connection() {
    hammer(bind(SocketAddr::from(([0, 0, 0, 0], 0))).unwrap(), 8).await;
}

/// The same beside what a Go program makes of the wildcard: an IPv6 listener, for both families.
#[tokio::test]
async fn raising_and_lowering_beside_a_dual_stack_listener_lose_no_connection() {
    // There may be no IPv6.
    if let Ok(wildcard) = bind(SocketAddr::from(([0u16; 8], 0))) {
        hammer(wildcard, 9).await;
    }
}

/// Connects without a pause from several threads while a forwarder comes and goes: no request may fail.
async fn hammer(wildcard: TcpListener, host: u8) {
    const ROUNDS: usize = 20;
    const CLIENTS: usize = 4;
    let ca = Authority::new();
    let target = Server::start("bridge", &ca).await;
    let (listen, _wildcard) = beside(wildcard, host);
    let over = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = (0..CLIENTS)
        .map(|_| {
            let over = over.clone();
            tokio::task::spawn_blocking(move || {
                let (mut bridge, mut wildcard, mut failures) = (0, 0, Vec::new());
                while !over.load(Ordering::Relaxed) {
                    match who_blocking(listen).as_deref() {
                        Ok("bridge:ping") => bridge += 1,
                        Ok("wildcard:ping") => wildcard += 1,
                        other => failures.push(format!("{other:?}")),
                    }
                }
                (bridge, wildcard, failures)
            })
        })
        .collect();

    for _ in 0..ROUNDS {
        let running = Running::start(listen, target.addr, &ca, DRAIN_TIMEOUT);
        until(listen, "bridge").await;
        sleep(Duration::from_millis(20)).await;
        running.stop().await.unwrap().unwrap();
    }
    over.store(true, Ordering::Relaxed);
    let (mut bridge, mut wildcard) = (0, 0);
    for client in clients {
        let (b, w, failures) = client.await.unwrap();
        assert_eq!(failures, Vec::<String>::new());
        bridge += b;
        wildcard += w;
    }
    println!("{ROUNDS} rounds: {bridge} connections to the bridge, {wildcard} to the wildcard, none failed");
    assert!(bridge > ROUNDS && wildcard > ROUNDS);
}
