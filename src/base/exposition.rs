//! Serves metrics for Prometheus, in its text format, under /metrics.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode, header};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;

/// A client that sends nothing is not waited for.
const LIMIT: Duration = Duration::from_secs(5);

/// Serves what `text` returns, for ever, and /healthz beside it.
///
/// # Errors
/// An address that cannot be had.
pub async fn serve(address: SocketAddr, text: impl Fn() -> String) -> std::io::Error {
    let listener = match TcpListener::bind(address).await {
        Ok(listener) => listener,
        Err(error) => return error,
    };
    loop {
        // One at a time: who asks is a Prometheus, every now and then.
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(LIMIT).await;
            continue;
        };
        let service = service_fn(|request| {
            let response = answer(&request, &text);
            async move { Ok::<_, Infallible>(response) }
        });
        let mut server = http1::Builder::new();
        server.timer(TokioTimer::new()).keep_alive(false).header_read_timeout(LIMIT);
        let _ = tokio::time::timeout(LIMIT, server.serve_connection(TokioIo::new(stream), service)).await;
    }
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
