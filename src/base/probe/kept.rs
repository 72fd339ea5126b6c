//! A connection to one instance of an API server that is kept for several questions.
//!
//! It saves the handshake, and its end is a sign that needs no question. What it answers is the word of the instance that it
//! once led to: a new connection may lead to another one.

use std::error::Error as StdError;
use std::net::SocketAddr;
use std::pin::Pin;

use http_body_util::Empty;
use hyper::Request;
use hyper::body::Bytes;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;

use super::{Answer, Probe, classify, read};

/// Drives the connection; completes with it.
type Driver = Pin<Box<dyn Future<Output = hyper::Result<()>> + Send>>;

/// An open connection.
pub struct Kept {
    host: String,
    sender: SendRequest<Empty<Bytes>>,
    driver: Option<Driver>,
}

impl Probe {
    /// Opens a connection to be kept, however long it takes: the caller sets the limit.
    ///
    /// # Errors
    /// What came in place of one.
    pub async fn open(&self, addr: SocketAddr) -> Result<Kept, Answer> {
        let open = async {
            let tcp = TcpStream::connect(addr).await?;
            tcp.set_nodelay(true)?;
            let tls = self.tls.connect(ServerName::IpAddress(addr.ip().into()), tcp).await?;
            let (sender, connection) = http1::handshake(TokioIo::new(tls)).await?;
            let driver: Driver = Box::pin(connection);
            Ok::<_, Box<dyn StdError + Send + Sync>>(Kept { host: addr.to_string(), sender, driver: Some(driver) })
        };
        open.await.map_err(|error| classify(&*error))
    }
}

impl Kept {
    /// One GET, however long it takes: the caller sets the limit. If this is dropped before it completes, the connection is
    /// of no further use.
    pub async fn get(&mut self, path: &str) -> Answer {
        let Self { host, sender, driver } = self;
        let Some(driving) = driver else { return Answer::Broken("the connection has ended".into()) };
        let ask = async {
            let request = Request::get(path)
                .header(header::HOST, host.as_str())
                .header(header::USER_AGENT, concat!("hoist/", env!("CARGO_PKG_VERSION")))
                .body(Empty::<Bytes>::new())?;
            sender.ready().await?;
            Ok::<_, Box<dyn StdError + Send + Sync>>(read(sender.send_request(request).await?).await?)
        };
        let mut ask = std::pin::pin!(ask);
        let answered = tokio::select! {
            biased;
            answer = &mut ask => answer,
            closed = driving => {
                *driver = None;
                match closed {
                    // The answer may have come with the end.
                    Ok(()) => ask.await,
                    Err(error) => Err(error.into()),
                }
            }
        };
        answered.unwrap_or_else(|error| classify(&*error))
    }

    /// Completes when the other side has ended the connection.
    pub async fn ended(&mut self) {
        if let Some(driver) = &mut self.driver {
            // How it ended is no matter.
            let _ = driver.await;
            self.driver = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::testing::{Authority, Server};
    use super::*;

    const SOON: Duration = Duration::from_secs(10);

    #[tokio::test]
    async fn several_questions_take_one_connection_and_its_end_is_noticed() {
        let ca = Authority::new();
        let server = Server::start("api", &ca).await;
        server.keep_alive();
        let probe = Probe::new(ca.pem().as_bytes()).unwrap();
        let mut kept = probe.open(server.addr).await.unwrap();
        for _ in 0..3 {
            assert!(kept.get("/readyz").await.is_ready());
        }
        server.answer(500, "[-]etcd failed");
        assert_eq!(kept.get("/readyz").await.to_string(), "500: [-]etcd failed");
        assert_eq!((server.requests().len(), server.connections()), (4, 1));
        assert!(tokio::time::timeout(Duration::from_millis(50), kept.ended()).await.is_err());
        server.kill().await;
        tokio::time::timeout(SOON, kept.ended()).await.unwrap();
        assert!(kept.get("/readyz").await.is_missed());
    }

    #[tokio::test]
    async fn a_server_that_closes_after_its_answer_is_heard_all_the_same() {
        let ca = Authority::new();
        let server = Server::start("api", &ca).await;
        let mut kept = Probe::new(ca.pem().as_bytes()).unwrap().open(server.addr).await.unwrap();
        assert!(kept.get("/readyz").await.is_ready());
        tokio::time::timeout(SOON, kept.ended()).await.unwrap();
        assert!(!kept.get("/readyz").await.is_ready());
    }

    #[tokio::test]
    async fn what_comes_in_place_of_a_connection() {
        let ca = Authority::new();
        let server = Server::start("api", &ca).await;
        let foreign = Probe::new(Authority::new().pem().as_bytes()).unwrap();
        assert!(matches!(foreign.open(server.addr).await, Err(Answer::Tls(_))));
        let addr = server.addr;
        server.kill().await;
        let probe = Probe::new(ca.pem().as_bytes()).unwrap();
        assert!(matches!(probe.open(addr).await, Err(Answer::Refused)));
    }
}
