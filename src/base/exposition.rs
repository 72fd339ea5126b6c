//! Serves metrics for Prometheus, in its text format, under /metrics.

use std::convert::Infallible;
use std::future::{Future, Ready};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode, header};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};

/// A client that sends nothing is not waited for.
const LIMIT: Duration = Duration::from_secs(5);

/// How many are served at a time; whoever comes then waits.
const AT_ONCE: usize = 16;

/// Serves what `text` returns, for ever, and /healthz beside it. What `wait` gives for another path is waited for, and the
/// answer is that it has come to its end.
///
/// # Errors
/// An address that cannot be had.
pub async fn serve<F: Future<Output = ()>>(
    address: SocketAddr,
    text: impl Fn() -> String,
    wait: impl Fn(&str) -> Option<F>,
) -> std::io::Error {
    let listener = match TcpListener::bind(address).await {
        Ok(listener) => listener,
        Err(error) => return error,
    };
    let mut served = FuturesUnordered::new();
    loop {
        tokio::select! {
            accepted = listener.accept(), if served.len() < AT_ONCE => match accepted {
                Ok((stream, _)) => served.push(serve_one(stream, &text, &wait)),
                Err(_) => tokio::time::sleep(LIMIT).await,
            },
            Some(()) = served.next(), if !served.is_empty() => {}
        }
    }
}

/// Nothing of `serve` that is waited for.
pub fn nothing(_: &str) -> Option<Ready<()>> {
    None
}

async fn serve_one<F: Future<Output = ()>>(
    stream: TcpStream,
    text: &impl Fn() -> String,
    wait: &impl Fn(&str) -> Option<F>,
) {
    let waits = AtomicBool::new(false);
    let service = service_fn(|request: Request<Incoming>| {
        let waited = wait(request.uri().path());
        waits.store(waited.is_some(), Ordering::Relaxed);
        async {
            let request = request;
            let response = match waited {
                Some(waited) => {
                    waited.await;
                    Response::new(Full::new(Bytes::from("ok\n")))
                }
                None => answer(&request, text),
            };
            waits.store(false, Ordering::Relaxed);
            Ok::<_, Infallible>(response)
        }
    });
    let mut server = http1::Builder::new();
    server.timer(TokioTimer::new()).keep_alive(false).header_read_timeout(LIMIT);
    let connection = server.serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    // A client that reads nothing is not waited for either.
    while tokio::time::timeout(LIMIT, &mut connection).await.is_err() && waits.load(Ordering::Relaxed) {}
}

fn answer(request: &Request<Incoming>, text: impl Fn() -> String) -> Response<Full<Bytes>> {
    let (status, text) = match request.uri().path() {
        "/metrics" => (StatusCode::OK, text()),
        "/healthz" => (StatusCode::OK, "ok\n".into()),
        _ => (StatusCode::NOT_FOUND, "there are /metrics and /healthz\n".into()),
    };
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    let kind = header::HeaderValue::from_static("text/plain; version=0.0.4");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::sync::Notify;

    use super::*;

    async fn get(address: SocketAddr, path: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: a\r\n\r\n").as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn what_is_waited_for_keeps_nobody_else_waiting() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let (begun, ended) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let (begins, ends) = (begun.clone(), ended.clone());
        let wait = move |path: &str| {
            let (begins, ends) = (begins.clone(), ends.clone());
            (path == "/wait").then_some(async move {
                begins.notify_one();
                ends.notified().await;
            })
        };
        let served = tokio::spawn(serve(address, || "a 1\n".into(), wait));
        while TcpStream::connect(address).await.is_err() {
            tokio::task::yield_now().await;
        }
        let waits = tokio::spawn(get(address, "/wait"));
        begun.notified().await;
        // Longer than anybody else may take.
        tokio::time::pause();
        tokio::time::advance(LIMIT * 3).await;
        tokio::time::resume();
        assert!(get(address, "/metrics").await.ends_with("a 1\n"));
        assert!(get(address, "/elsewhere").await.starts_with("HTTP/1.1 404"));
        assert!(!waits.is_finished());
        ended.notify_one();
        assert!(waits.await.unwrap().starts_with("HTTP/1.1 200"));
        served.abort();
    }
}
