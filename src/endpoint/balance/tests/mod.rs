//! The endpoint as its clients meet it, before API servers that live and die in this process.

mod life;
mod targets;

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener as StdListener};
use std::time::Duration;

use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

use super::{Options, run};
use crate::base::error::Result;
use crate::base::probe::testing::{Authority, Server};

/// How long anything may take on a busy machine.
const SOON: Duration = Duration::from_secs(20);
/// Longer than it takes to find a target bad, on a machine that is not.
const A_WHILE: Duration = Duration::from_secs(2);

/// An endpoint that runs until [`Running::stop`].
struct Running {
    listen: SocketAddr,
    stop: oneshot::Sender<()>,
    task: JoinHandle<Result<()>>,
    folder: TempDir,
}

impl Running {
    fn before(ca: &Authority, targets: &[SocketAddr]) -> Self {
        Self::with(ca, targets, |_| {})
    }

    fn with(ca: &Authority, targets: &[SocketAddr], change: impl FnOnce(&mut Options)) -> Self {
        Self::within(tempfile::tempdir().unwrap(), ca, targets, change)
    }

    fn within(folder: TempDir, ca: &Authority, targets: &[SocketAddr], change: impl FnOnce(&mut Options)) -> Self {
        let ca_file = folder.path().join("ca.crt");
        std::fs::write(&ca_file, ca.pem()).unwrap();
        let mut options = Options {
            listen: deserted(),
            targets: targets.to_vec(),
            prefer: None,
            state_file: folder.path().join("endpoint/targets"),
            ca_file,
            kubeconfig: None,
            metrics: None,
            drain_timeout: Duration::from_millis(100),
            connections: 5000,
            seed: 7,
        };
        change(&mut options);
        let listen = options.listen;
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(async move { run(&options, async { drop(stopped.await) }).await });
        Self { listen, stop, task, folder }
    }

    /// Asks it to stop; what is returned ends with it.
    fn stop(self) -> JoinHandle<Result<()>> {
        self.stop.send(()).unwrap();
        self.task
    }

    async fn ended(self) {
        timeout(SOON, self.stop()).await.unwrap().unwrap().unwrap();
    }

    /// A connection that `name` has answered.
    async fn to(&self, name: &str) -> TcpStream {
        let begun = Instant::now();
        loop {
            if let Ok(mut client) = TcpStream::connect(self.listen).await
                && ask(&mut client).await.is_ok_and(|answer| answer == format!("{name}:ping"))
            {
                return client;
            }
            assert!(begun.elapsed() < SOON, "{name} never answered");
            sleep(Duration::from_millis(10)).await;
        }
    }

    /// Waits until so many clients in a row were answered by one of `names`.
    async fn only(&self, names: &[&str], times: usize) {
        let begun = Instant::now();
        let mut row = 0;
        while row < times {
            let who = self.who().await.unwrap();
            row = if names.contains(&&*who) { row + 1 } else { 0 };
            assert!(begun.elapsed() < SOON, "{who} goes on answering");
            sleep(Duration::from_millis(5)).await;
        }
    }

    /// Who answers on a new connection.
    async fn who(&self) -> io::Result<String> {
        let mut client = TcpStream::connect(self.listen).await?;
        let answer = ask(&mut client).await?;
        Ok(answer.strip_suffix(":ping").unwrap_or(&answer).to_owned())
    }
}

/// An address of loopback at which nobody listens.
fn deserted() -> SocketAddr {
    StdListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap()
}

/// API servers with these names.
async fn servers<const N: usize>(ca: &Authority, names: [&'static str; N]) -> [Server; N] {
    let mut started = Vec::new();
    for name in names {
        let server = Server::start(name, ca).await;
        server.keep_alive();
        started.push(server);
    }
    started.try_into().unwrap_or_else(|_| unreachable!())
}

/// What comes of a chunk on this connection; an error where it is closed.
async fn ask(client: &mut TcpStream) -> io::Result<String> {
    client.write_all(b"ping").await?;
    let mut answer = [0; 64];
    match timeout(SOON, client.read(&mut answer)).await? {
        Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
        Ok(count) => Ok(String::from_utf8_lossy(&answer[..count]).into_owned()),
        Err(error) => Err(error),
    }
}

/// Completes when the other side has closed a connection at rest.
async fn is_closed(client: &mut TcpStream) {
    let read = timeout(SOON, client.read(&mut [0; 64])).await;
    assert!(matches!(read, Ok(Ok(0) | Err(_))), "{read:?}");
}

/// Whether a connection at rest stays open for a while.
async fn stays_open(client: &mut TcpStream) -> bool {
    timeout(A_WHILE, client.read(&mut [0; 64])).await.is_err()
}
