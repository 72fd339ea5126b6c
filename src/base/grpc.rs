//! A minimal gRPC client: unary and server-streaming calls. Messages are declared by hand, so no compiler for .proto
//! files is needed.

use std::fmt;
use std::marker::PhantomData;
use std::path::Path;

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper::{HeaderMap, Request, Response, header};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::UnixStream;
use tokio::task::JoinHandle;

/// As much as the kubelet takes of an answer of CRI: a node may have thousands of containers and images. A message of
/// etcd's snapshot has 32 KiB.
pub(crate) const LONGEST: usize = 16 << 20;
/// A byte that says whether the message is compressed, and its length.
const PREFIX: usize = 5;
/// gRPC's code for a method that a server does not have.
const UNIMPLEMENTED: &str = "12";

/// Why a call came to nothing.
#[derive(Debug, PartialEq, Eq)]
pub enum Failure {
    /// The server has no such method of this service.
    Unimplemented(&'static str),
    /// The server refuses, by one of gRPC's codes and in its own words.
    Refused {
        /// gRPC's code.
        code: u32,
        /// What it says.
        message: String,
    },
    /// Anything else: no connection, or an answer that cannot be read.
    Other(String),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unimplemented(service) => write!(f, "it does not serve {service}"),
            Self::Refused { code, message } => write!(f, "{message} (gRPC status {code})"),
            Self::Other(reason) => f.write_str(reason),
        }
    }
}

fn failed(reason: impl fmt::Display) -> Failure {
    Failure::Other(reason.to_string())
}

/// A connection to a server.
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
    /// One to the socket at this path.
    pub async fn unix(socket: &Path) -> std::io::Result<Self> {
        Self::over(UnixStream::connect(socket).await?).await
    }

    /// One over a stream that stands already.
    pub async fn over(stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) -> std::io::Result<Self> {
        let (sender, connection) =
            handshake(TokioExecutor::new(), TokioIo::new(stream)).await.map_err(std::io::Error::other)?;
        // Its failure is seen by whoever waits for an answer.
        let driver = tokio::spawn(async move { drop(connection.await) });
        Ok(Self { sender, driver })
    }

    /// Calls a method that answers with one message.
    pub async fn call<A: Message + Default>(
        &mut self,
        service: &'static str,
        method: &str,
        question: &impl Message,
    ) -> Result<A, Failure> {
        let mut answers = self.stream(service, method, question).await?;
        let Some(answer) = answers.message().await? else { return Err(failed(NO_MESSAGE)) };
        match answers.message().await? {
            None => Ok(answer),
            Some(_) => Err(failed(NO_MESSAGE)),
        }
    }

    /// Calls a method that answers with a stream of messages.
    pub async fn stream<A: Message + Default>(
        &mut self,
        service: &'static str,
        method: &str,
        question: &impl Message,
    ) -> Result<Messages<A>, Failure> {
        let message = question.encode_to_vec();
        let mut body = vec![0];
        body.extend(u32::try_from(message.len()).unwrap_or(u32::MAX).to_be_bytes());
        body.extend(message);
        let request = Request::post(format!("http://localhost/{service}/{method}"))
            .header(header::CONTENT_TYPE, "application/grpc")
            .header(header::TE, "trailers")
            .header(header::USER_AGENT, concat!("hoist/", env!("CARGO_PKG_VERSION")))
            .body(Full::from(body))
            .map_err(failed)?;
        let response = self.sender.send_request(request).await.map_err(failed)?;
        Messages::begin(service, response)
    }
}

/// What is no message, where one was expected.
const NO_MESSAGE: &str = "its answer is not a message of gRPC";

/// The messages of an answer, as they come: no more of them is in memory than one.
pub struct Messages<A> {
    service: &'static str,
    body: Incoming,
    unread: Vec<u8>,
    is_over: bool,
    kind: PhantomData<A>,
}

impl<A: Message + Default> Messages<A> {
    fn begin(service: &'static str, response: Response<Incoming>) -> Result<Self, Failure> {
        let (head, body) = response.into_parts();
        if head.status != 200 {
            return Err(failed(format!("it answers with the HTTP status {}", head.status)));
        }
        // An answer without a message has its status in the headers.
        verdict(service, &head.headers)?;
        Ok(Self { service, body, unread: Vec::new(), is_over: false, kind: PhantomData })
    }

    /// The next message; `None` when the server has said that it was the last.
    pub async fn message(&mut self) -> Result<Option<A>, Failure> {
        loop {
            if let Some(([0, length @ ..], rest)) = self.unread.split_first_chunk::<PREFIX>() {
                let length = be(length);
                if length > LONGEST {
                    return Err(failed(format!("its answer has {length} bytes, and {LONGEST} is the limit")));
                }
                if let Some(message) = rest.get(..length) {
                    let message = A::decode(message).map_err(failed)?;
                    self.unread.drain(..PREFIX + length);
                    return Ok(Some(message));
                }
            } else if self.unread.len() >= PREFIX {
                // Compressed, which was not asked for.
                return Err(failed(NO_MESSAGE));
            }
            if self.is_over {
                return if self.unread.is_empty() { Ok(None) } else { Err(failed(NO_MESSAGE)) };
            }
            match self.body.frame().await {
                None => return Err(failed("the connection ended in the middle of its answer")),
                Some(frame) => match frame.map_err(failed)?.into_data() {
                    Ok(data) => self.unread.extend_from_slice(&data),
                    Err(frame) => {
                        let Ok(trailers) = frame.into_trailers() else { continue };
                        verdict(self.service, &trailers)?;
                        self.is_over = true;
                    }
                },
            }
        }
    }
}

fn be(length: &[u8]) -> usize {
    length.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte))
}

/// The status of a call, where these headers have one.
fn verdict(service: &'static str, headers: &HeaderMap) -> Result<(), Failure> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    match text("grpc-status") {
        None | Some("0") => Ok(()),
        Some(UNIMPLEMENTED) => Err(Failure::Unimplemented(service)),
        Some(code) => {
            let message = text("grpc-message").unwrap_or("it refuses").to_owned();
            // A code that is no number is nobody's: 2 is gRPC's own for what is not known.
            Err(Failure::Refused { code: code.parse().unwrap_or(2), message })
        }
    }
}
