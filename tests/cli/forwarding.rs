//! `hoist forward` as a process with the limits that a container runtime gives it: more clients than its soft limit of
//! open files has room for, and more than its hard one.

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

/// How long anything may take on a busy machine.
pub const SOON: Duration = Duration::from_secs(30);
/// Longer than a forwarder needs to take its target for gone.
const A_WHILE: Duration = Duration::from_secs(4);

/// An API server that says that it is ready to whoever speaks TLS, and echoes what all others send.
pub fn target(ca_file: &Path) -> SocketAddr {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    fs::write(ca_file, ca.pem()).unwrap();
    let key = KeyPair::generate().unwrap();
    let pem = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap().signed_by(&key, &ca).unwrap().pem();
    let chain = vec![CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()];
    let key = PrivateKeyDer::from_pem_slice(key.serialize_pem().as_bytes()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = Arc::new(config.with_no_client_auth().with_single_cert(chain, key).unwrap());
    let listener = socket((Ipv4Addr::LOCALHOST, 0).into());
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().map(Result::unwrap) {
            let config = config.clone();
            std::thread::Builder::new().stack_size(128 << 10).spawn(move || drop(serve(stream, config))).unwrap();
        }
    });
    address
}

fn serve(mut stream: TcpStream, config: Arc<ServerConfig>) -> std::io::Result<()> {
    let mut first = [0];
    stream.peek(&mut first)?;
    if first != [0x16] {
        let mut chunk = [0; 64];
        loop {
            match stream.read(&mut chunk)? {
                0 => return Ok(()),
                n => stream.write_all(&chunk[..n])?,
            }
        }
    }
    let mut tls = StreamOwned::new(ServerConnection::new(config).unwrap(), stream);
    let mut request = [0; 4096];
    let _ = tls.read(&mut request)?;
    tls.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")?;
    tls.conn.send_close_notify();
    tls.flush()?;
    tls.sock.shutdown(Shutdown::Write)
}

/// A listener with a queue for all who come at once.
fn socket(address: SocketAddr) -> TcpListener {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&address.into()).unwrap();
    socket.listen(4096).unwrap();
    socket.into()
}

/// A process; it ends with the test.
pub struct Process(pub Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = kill(Pid::from_raw(self.0.id().try_into().unwrap()), Signal::SIGKILL);
        let _ = self.0.wait();
    }
}

/// A forwarder whose limits of open files are these, and where clients reach it.
fn forwarder(dir: &Path, soft: u32, hard: u32) -> (Process, SocketAddr) {
    let ca_file = dir.join("ca.crt");
    let target = target(&ca_file);
    let listen = TcpListener::bind((Ipv4Addr::new(127, 0, 2, 1), 0)).unwrap().local_addr().unwrap();
    let script = format!("ulimit -Sn {soft}; ulimit -Hn {hard}; exec \"$@\"");
    let mut command = Command::new("sh");
    command.args(["-c", &script, "sh"]).arg(env!("CARGO_BIN_EXE_hoist")).arg("forward");
    command.args([format!("--listen={listen}"), format!("--target={target}")]).arg("--ca-file").arg(&ca_file);
    let forwarder = Process(command.spawn().unwrap());
    let begun = Instant::now();
    while connect(listen).and_then(|mut client| echo(&mut client)).is_err() {
        assert!(begun.elapsed() < SOON, "it does not forward");
        std::thread::sleep(Duration::from_millis(50));
    }
    (forwarder, listen)
}

pub fn connect(address: SocketAddr) -> std::io::Result<TcpStream> {
    let client = TcpStream::connect_timeout(&address, SOON)?;
    client.set_read_timeout(Some(SOON))?;
    Ok(client)
}

pub fn echo(client: &mut TcpStream) -> std::io::Result<()> {
    client.write_all(b"ping")?;
    let mut answer = [0; 4];
    client.read_exact(&mut answer)?;
    assert_eq!(&answer, b"ping");
    Ok(())
}

/// This process has both ends of all connections open.
pub fn raise_own_limit() {
    let hard = getrlimit(Resource::RLIMIT_NOFILE).unwrap().1;
    assert!(hard >= 8192, "this test needs 8192 open files, and may have {hard}");
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).unwrap();
}

/// As containerd 2 leaves it: 1024, and far more if it asks.
#[test]
fn the_forwarder_has_more_connections_than_its_soft_limit() {
    raise_own_limit();
    let dir = tempfile::tempdir().unwrap();
    let (forwarder, listen) = forwarder(dir.path(), 1024, 8192);
    let mut open: Vec<_> = (0..1200).map(|_| connect(listen).unwrap()).collect();
    open.iter_mut().for_each(|client| echo(client).unwrap());
    std::thread::sleep(A_WHILE);
    // Nobody else is there to answer: it has kept the address, and all of them.
    open.push(connect(listen).unwrap());
    open.iter_mut().for_each(|client| echo(client).unwrap());

    // It cannot so much as ask its target any more: that is no reason to give the address away.
    let limit = |files: &str| {
        let pid = forwarder.0.id().to_string();
        assert!(
            Command::new("prlimit").args(["--pid", &pid, &format!("--nofile={files}")]).status().unwrap().success()
        );
    };
    limit("16:8192");
    let mut waiting = connect(listen).unwrap();
    std::thread::sleep(A_WHILE);
    connect(listen).unwrap();
    open.iter_mut().for_each(|client| echo(client).unwrap());
    limit("8192:8192");
    echo(&mut waiting).unwrap();
}

/// What it has no room for waits, and is served when there is.
#[test]
fn the_forwarder_lets_clients_wait_at_its_hard_limit() {
    raise_own_limit();
    let dir = tempfile::tempdir().unwrap();
    let (forwarder, listen) = forwarder(dir.path(), 1024, 1024);
    let mut open: Vec<_> = (0..600).map(|_| connect(listen).unwrap()).collect();
    let room = hoist::endpoint::forward::room(1024);
    assert!(room > 400 && room < 512, "{room}");
    open[..room].iter_mut().for_each(|client| echo(client).unwrap());
    std::thread::sleep(A_WHILE);
    open[..room].iter_mut().for_each(|client| echo(client).unwrap());
    // It does not try over and over meanwhile.
    let used = || {
        let stat = fs::read_to_string(format!("/proc/{}/stat", forwarder.0.id())).unwrap();
        let fields: Vec<u64> =
            stat.rsplit(") ").next().unwrap().split(' ').skip(11).take(2).map(|text| text.parse().unwrap()).collect();
        fields[0] + fields[1]
    };
    let before = used();
    std::thread::sleep(Duration::from_secs(2));
    assert!(used() - before < 40, "it used {} hundredths of a second in 2 s", used() - before);
    drop(open.drain(..200));
    open.iter_mut().for_each(|client| echo(client).unwrap());
}
