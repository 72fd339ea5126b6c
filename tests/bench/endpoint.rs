//! What `hoist endpoint` takes: processor time for each GiB and for each new connection, memory for each connection at rest,
//! and the latency that it adds; beside no proxy, and beside HAProxy where that is installed.
//!
//! Clients and API servers are threads of this process. What a proxy takes is the kernel's account of its own process.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde::Serialize;

use crate::support;
use crate::support::process::{memory, processor_seconds};
use crate::table::Spread;

const TARGETS: usize = 3;
const GIB: u64 = 1 << 30;
/// What is fetched at once, and how often.
const FETCHED: u64 = 2 * GIB;
const FETCHES: usize = 3;
/// New connections, one after the other.
const CONNECTIONS: usize = 10_000;
/// Connections at rest.
const IDLE: usize = 3000;
/// Questions of some bytes on one connection.
const QUESTIONS: usize = 20_000;
const AT_REST: Duration = Duration::from_secs(10);
const SOON: Duration = Duration::from_secs(30);

/// What a way to the API servers came to.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Way {
    way: &'static str,
    /// Of a processor, for each GiB that a client fetches.
    seconds_per_gib: Option<f64>,
    gib_per_second: f64,
    /// Of a processor, for each connection that is made, used once and closed.
    microseconds_per_connection: Option<f64>,
    /// From the first packet to the first answer, in microseconds.
    connection_microseconds: f64,
    /// From a question to its answer, in microseconds.
    question_microseconds: f64,
    bytes_per_idle_connection: Option<f64>,
    /// Of a processor, with no client.
    share_at_rest: Option<f64>,
}

/// Measures each way in turn, and prints a table; says in which file all of it is.
pub fn measure() {
    let folder = tempfile::tempdir().unwrap();
    let targets = targets(&folder.path().join("ca.crt"));
    let mut ways = vec![way("no proxy", targets[0], None)];
    let proxy = Proxy::hoist(folder.path(), &targets);
    ways.push(way("hoist endpoint", proxy.listen, Some(&proxy)));
    drop(proxy);
    match Proxy::haproxy(folder.path(), &targets) {
        Some(proxy) => ways.push(way("HAProxy", proxy.listen, Some(&proxy))),
        None => eprintln!("haproxy is not installed: it is left out"),
    }
    println!("\n{:44}{}", "", ways.iter().map(|way| format!("{:>16}", way.way)).collect::<String>());
    let row = |what: &str, of: &dyn Fn(&Way) -> Option<f64>| {
        let cells = ways.iter().map(|way| of(way).map_or(format!("{:>16}", "-"), |value| format!("{value:>16.2}")));
        println!("{what:44}{}", cells.collect::<String>());
    };
    row("processor seconds for each GiB", &|way| way.seconds_per_gib);
    row("GiB in a second, one connection", &|way| Some(way.gib_per_second));
    row("processor time for each new connection, µs", &|way| way.microseconds_per_connection);
    row("a new connection's first answer, median µs", &|way| Some(way.connection_microseconds));
    row("a question's answer, median µs", &|way| Some(way.question_microseconds));
    row("memory for each connection at rest, KiB", &|way| way.bytes_per_idle_connection.map(|bytes| bytes / 1024.0));
    row("processor at rest, per cent", &|way| way.share_at_rest.map(|share| share * 100.0));
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join("bench-endpoint.json");
    std::fs::write(&file, serde_json::to_string_pretty(&ways).unwrap()).unwrap();
    println!("{}", file.display());
}

fn way(way: &'static str, address: SocketAddr, proxy: Option<&Proxy>) -> Way {
    eprintln!("{way}");
    let seconds = || proxy.map(|proxy| processor_seconds(&proxy.process).unwrap());
    let taken = |before: Option<f64>| seconds().zip(before).map(|(after, before)| after - before);
    let resident = || proxy.map(|proxy| memory(&proxy.process, "status", "VmRSS:").unwrap() as f64);

    let before = seconds();
    std::thread::sleep(AT_REST);
    let share_at_rest = taken(before).map(|seconds| seconds / AT_REST.as_secs_f64());

    let before = seconds();
    let fetches = (0..FETCHES).map(|_| fetch(address));
    let took = Spread::of(fetches.collect::<Vec<_>>().into_iter()).median;
    let gib = (FETCHED / GIB) as f64;
    let seconds_per_gib = taken(before).map(|seconds| seconds / (gib * FETCHES as f64));

    let before = seconds();
    let connection = Spread::of((0..CONNECTIONS).map(|_| {
        let begun = Instant::now();
        ask(&mut connect(address));
        begun.elapsed().as_secs_f64()
    }));
    let microseconds_per_connection = taken(before).map(|seconds| seconds * 1e6 / CONNECTIONS as f64);

    let mut client = connect(address);
    let question = Spread::of((0..QUESTIONS).map(|_| {
        let begun = Instant::now();
        ask(&mut client);
        begun.elapsed().as_secs_f64()
    }));

    let before = resident();
    let mut idle: Vec<_> = (0..IDLE).map(|_| connect(address)).collect();
    idle.iter_mut().for_each(ask);
    let grown = resident().zip(before).map(|(after, before)| after - before);
    Way {
        way,
        seconds_per_gib,
        gib_per_second: gib / took,
        microseconds_per_connection,
        connection_microseconds: connection.median * 1e6,
        question_microseconds: question.median * 1e6,
        bytes_per_idle_connection: grown.map(|bytes| bytes / IDLE as f64),
        share_at_rest,
    }
}

fn connect(address: SocketAddr) -> TcpStream {
    let client = TcpStream::connect(address).unwrap();
    client.set_nodelay(true).unwrap();
    client.set_read_timeout(Some(SOON)).unwrap();
    client
}

/// A small question, as large as a frame that a watch is sent.
fn ask(client: &mut TcpStream) {
    let question = [b'e'; 200];
    client.write_all(&question).unwrap();
    client.read_exact(&mut [0; 200]).unwrap();
}

/// How long it takes to fetch a lot.
fn fetch(address: SocketAddr) -> f64 {
    let mut client = connect(address);
    let begun = Instant::now();
    client.write_all(&[&b"d"[..], &FETCHED.to_le_bytes()].concat()).unwrap();
    let mut buffer = vec![0; 256 * 1024];
    let mut left = FETCHED;
    while left > 0 {
        let count = client.read(&mut buffer).unwrap() as u64;
        assert!(count > 0, "{left} bytes never came");
        left -= count;
    }
    begun.elapsed().as_secs_f64()
}

/// A proxy before the targets; it ends with this.
struct Proxy {
    child: Child,
    /// Its folder in /proc.
    process: PathBuf,
    listen: SocketAddr,
}

impl Proxy {
    fn hoist(folder: &Path, targets: &[SocketAddr]) -> Self {
        let listen = deserted();
        let mut command = Command::new(support::hoist());
        command.arg("endpoint").arg(format!("--listen={listen}"));
        command.arg("--ca-file").arg(folder.join("ca.crt")).arg("--state-file").arg(folder.join("targets"));
        command.args(targets.iter().map(|target| format!("--target={target}")));
        Self::run(&mut command, listen)
    }

    /// As kubeadm's documents have it; `None` where there is none.
    fn haproxy(folder: &Path, targets: &[SocketAddr]) -> Option<Self> {
        let listen = deserted();
        let servers: Vec<_> = targets
            .iter()
            .enumerate()
            .map(|(number, target)| format!("  server s{number} {target} check check-ssl verify none\n"))
            .collect();
        let config = format!(
            "global\n  nbthread 1\n  maxconn 8000\ndefaults\n  mode tcp\n  timeout connect 5s\n  timeout client 1h\n  \
             timeout server 1h\nlisten api\n  bind {listen}\n  balance roundrobin\n  option httpchk GET /readyz\n  \
             http-check expect status 200\n  default-server inter 250ms fall 1 rise 2\n{}",
            servers.concat()
        );
        let file = folder.join("haproxy.cfg");
        std::fs::write(&file, config).unwrap();
        Command::new("haproxy").arg("-v").stdout(Stdio::null()).status().ok()?;
        Some(Self::run(Command::new("haproxy").arg("-db").arg("-f").arg(&file), listen))
    }

    fn run(command: &mut Command, listen: SocketAddr) -> Self {
        let child = command.spawn().unwrap();
        let process = Path::new("/proc").join(child.id().to_string());
        let proxy = Self { child, process, listen };
        support::eventually("the proxy passes connections on", SOON, || {
            let mut client = TcpStream::connect(listen).ok()?;
            client.write_all(b"e").ok()?;
            client.read_exact(&mut [0]).ok()
        });
        proxy
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn deserted() -> SocketAddr {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap()
}

/// API servers that are ready; over bare TCP they echo, or send as many bytes as they are asked for.
fn targets(ca_file: &Path) -> Vec<SocketAddr> {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    std::fs::write(ca_file, ca.pem()).unwrap();
    let key = KeyPair::generate().unwrap();
    let pem = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap().signed_by(&key, &ca).unwrap().pem();
    let chain = vec![CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()];
    let key = PrivateKeyDer::from_pem_slice(key.serialize_pem().as_bytes()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = Arc::new(config.with_no_client_auth().with_single_cert(chain, key).unwrap());
    (0..TARGETS).map(|_| target(config.clone())).collect()
}

fn target(config: Arc<ServerConfig>) -> SocketAddr {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).unwrap();
    socket.listen(4096).unwrap();
    let listener: TcpListener = socket.into();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let config = config.clone();
            // There are thousands.
            let thread = std::thread::Builder::new().stack_size(64 << 10);
            thread.spawn(move || drop(serve(stream, config))).unwrap();
        }
    });
    address
}

fn serve(mut stream: TcpStream, config: Arc<ServerConfig>) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut first = [0];
    stream.peek(&mut first)?;
    match first[0] {
        0x16 => ready(StreamOwned::new(ServerConnection::new(config).unwrap(), stream)),
        b'd' => {
            let mut order = [0; 9];
            stream.read_exact(&mut order)?;
            let mut left = u64::from_le_bytes(order[1..].try_into().unwrap());
            let chunk = vec![7; 256 * 1024];
            while left > 0 {
                let count = left.min(chunk.len() as u64);
                stream.write_all(&chunk[..usize::try_from(count).unwrap()])?;
                left -= count;
            }
            stream.shutdown(Shutdown::Write)
        }
        _ => {
            let mut chunk = [0; 4096];
            loop {
                match stream.read(&mut chunk)? {
                    0 => return Ok(()),
                    count => stream.write_all(&chunk[..count])?,
                }
            }
        }
    }
}

/// Says that it is ready, as often as it is asked.
fn ready(mut tls: StreamOwned<ServerConnection, TcpStream>) -> std::io::Result<()> {
    let mut request = Vec::new();
    let mut chunk = [0; 1024];
    loop {
        match tls.read(&mut chunk)? {
            0 => return Ok(()),
            count => request.extend_from_slice(&chunk[..count]),
        }
        if request.ends_with(b"\r\n\r\n") {
            request.clear();
            tls.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")?;
            tls.flush()?;
        }
    }
}
