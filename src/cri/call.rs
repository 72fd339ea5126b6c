//! A gRPC call without streams: one message there, one back, each behind five bytes that say how long it is.

use std::fmt;
use std::path::Path;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper::{HeaderMap, Request, Response, header};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use tokio::net::UnixStream;
use tokio::task::JoinHandle;

/// containerd shows its whole configuration: tens of kilobytes.
const LONGEST: usize = 4 << 20;
/// A byte that says whether the message is compressed, and its length.
const PREFIX: usize = 5;
/// gRPC's code for a method that a server does not have.
const UNIMPLEMENTED: &str = "12";

/// Why a call came to nothing.
#[derive(Debug, PartialEq, Eq)]
pub enum Failure {
    /// The server has no such method.
    Unimplemented,
    /// Anything else.
    Other(String),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unimplemented => f.write_str("it does not serve runtime.v1 of the Container Runtime Interface"),
            Self::Other(reason) => f.write_str(reason),
        }
    }
}

fn failed(reason: impl fmt::Display) -> Failure {
    Failure::Other(reason.to_string())
}

/// A connection to a runtime's socket.
pub struct Connection {
    sender: SendRequest<Full<Bytes>>,
    driver: JoinHandle<()>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl Connection {
    pub async fn open(socket: &Path) -> std::io::Result<Self> {
        let stream = UnixStream::connect(socket).await?;
        let (sender, connection) =
            handshake(TokioExecutor::new(), TokioIo::new(stream)).await.map_err(std::io::Error::other)?;
        // Its failure is seen by whoever waits for an answer.
        let driver = tokio::spawn(async move { drop(connection.await) });
        Ok(Self { sender, driver })
    }

    /// Calls a method of the runtime service.
    pub async fn call<A: Message + Default>(&mut self, method: &str, question: &impl Message) -> Result<A, Failure> {
        let message = question.encode_to_vec();
        let mut body = vec![0];
        body.extend(u32::try_from(message.len()).unwrap_or(u32::MAX).to_be_bytes());
        body.extend(message);
        let request = Request::post(format!("http://localhost/runtime.v1.RuntimeService/{method}"))
            .header(header::CONTENT_TYPE, "application/grpc")
            .header(header::TE, "trailers")
            .header(header::USER_AGENT, concat!("hoist/", env!("CARGO_PKG_VERSION")))
            .body(Full::from(body))
            .map_err(failed)?;
        answer(self.sender.send_request(request).await.map_err(failed)?).await
    }
}

async fn answer<A: Message + Default>(response: Response<Incoming>) -> Result<A, Failure> {
    let (head, body) = response.into_parts();
    if head.status != 200 {
        return Err(failed(format!("it answers with the HTTP status {}", head.status)));
    }
    // An answer without a message has its status in the headers.
    verdict(&head.headers)?;
    let body = Limited::new(body, LONGEST).collect().await.map_err(failed)?;
    if let Some(trailers) = body.trailers() {
        verdict(trailers)?;
    }
    let bytes = body.to_bytes();
    let message = match bytes.split_at_checked(PREFIX) {
        Some(([0, length @ ..], message)) if be(length) == message.len() => message,
        _ => return Err(failed("its answer is no message of gRPC")),
    };
    A::decode(message).map_err(failed)
}

fn be(length: &[u8]) -> usize {
    length.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte))
}

/// The status of a call, where these headers have one.
fn verdict(headers: &HeaderMap) -> Result<(), Failure> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    match text("grpc-status") {
        None | Some("0") => Ok(()),
        Some(UNIMPLEMENTED) => Err(Failure::Unimplemented),
        Some(code) => Err(failed(format!("{} (gRPC status {code})", text("grpc-message").unwrap_or("it refuses")))),
    }
}
