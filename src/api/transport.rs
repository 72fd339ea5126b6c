//! The transport to the API server beneath kube's client. kube's own transport supports more than hoist lets a
//! kubeconfig ask for: programs that make credentials, read by JSONPath and regular expressions, and the CAs that the
//! machine trusts. All of that would be in the binary.

use http_body_util::{BodyExt, Either, Full};
use hyper::body::{Bytes, Incoming};
use hyper::header::HeaderValue;
use hyper::{Request, Response, header};
use hyper_rustls::{FixedServerNameResolver, HttpsConnectorBuilder};
use hyper_timeout::TimeoutConnector;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::{Client as HttpClient, Error as HttpError};
use hyper_util::rt::TokioExecutor;
use kube::client::{Body, ClientBuilder, ConfigExt};
use kube::{Client, Config};
use serde_json::{Value, json};
use tower::ServiceExt;

use crate::base::error::Result;
use crate::desired::kubeconfig::Access;

/// A client for the API server that `config` names, with the credentials that it holds or names the files of.
pub(super) fn client(config: Config) -> Result<Client> {
    let Access { tls, server_name, headers } = Access::of(&config)?;
    let https = HttpsConnectorBuilder::new().with_tls_config(tls).https_only();
    let https = match server_name {
        Some(name) => https.with_server_name_resolver(FixedServerNameResolver::new(name)),
        None => https,
    };
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    let mut connector = TimeoutConnector::new(https.enable_http1().wrap_connector(tcp));
    connector.set_connect_timeout(config.connect_timeout);
    connector.set_read_timeout(config.read_timeout);
    connector.set_write_timeout(config.write_timeout);
    // A connection that is kept for the next request waits to be read from all the while: without this, that counts
    // towards the time which the next answer may take.
    connector.set_reset_reader_on_write(true);
    let http = HttpClient::builder(TokioExecutor::new()).build::<_, Body>(connector);
    let http =
        ServiceExt::<Request<Body>>::and_then(http, async |answer| Ok::<_, HttpError>(with_retry_after(answer).await));
    // A token in a file is replaced long before it ends: each request shows what the file has then.
    let token = config.auth_info.token_file.clone().filter(|_| config.auth_info.token.is_none());
    let http = http.map_request(move |request| with_token(request, token.as_deref()));
    let namespace = config.default_namespace.clone();
    Ok(ClientBuilder::new(http, namespace).with_layer(&config.base_uri_layer()).with_layer(&headers).build())
}

/// A request with the token that the file has now; as it was, where that cannot be read.
fn with_token(mut request: Request<Body>, file: Option<&str>) -> Request<Body> {
    let text = file.and_then(|file| std::fs::read_to_string(file).ok());
    if let Some(mut value) = text.and_then(|text| HeaderValue::try_from(format!("Bearer {}", text.trim_end())).ok()) {
        value.set_sensitive(true);
        request.headers_mut().insert(header::AUTHORIZATION, value);
    }
    request
}

/// Puts what the header Retry-After of an answer says into its Status, where kube's client reads it: one from the flow
/// control of an API server, or from a load balancer, has no Status of its own.
async fn with_retry_after(answer: Response<Incoming>) -> Response<Either<Incoming, Full<Bytes>>> {
    let is_failure = answer.status().is_client_error() || answer.status().is_server_error();
    let header = answer.headers().get(header::RETRY_AFTER).filter(|_| is_failure);
    let seconds = header.and_then(|value| value.to_str().ok());
    let Some(seconds) = seconds.and_then(|text| text.trim().parse::<u32>().ok()).filter(|seconds| *seconds > 0) else {
        return answer.map(Either::Left);
    };
    let (mut parts, body) = answer.into_parts();
    let content = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let status = serde_json::from_slice::<Value>(&content).ok().filter(|status| status["kind"] == "Status");
    let mut status = status.unwrap_or_else(|| {
        json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": parts.status.as_u16(),
            "message": String::from_utf8_lossy(&content).trim(),
            "reason": parts.status.canonical_reason().unwrap_or_default().replace(' ', "")})
    });
    if status["details"]["retryAfterSeconds"].is_null() {
        status["details"]["retryAfterSeconds"] = seconds.into();
    }
    parts.headers.remove(header::CONTENT_LENGTH);
    Response::from_parts(parts, Either::Right(Full::from(status.to_string())))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::net::SocketAddr;
    use std::time::Duration;

    use kube::config::{KubeConfigOptions, Kubeconfig};

    use super::*;
    use crate::api::connect;
    use crate::base::probe::testing::{Authority, Server};
    use crate::desired::kubeconfig::{Credentials, KubeConfig};

    fn kubeconfig(ca: &Authority, credentials: Credentials<'_>) -> String {
        let ca = ca.pem();
        let config = KubeConfig {
            cluster_name: "kubernetes",
            server: "https://192.0.2.1:6443",
            ca_pem: ca.as_bytes(),
            user: "admin",
            credentials,
        };
        config.to_yaml()
    }

    async fn ask(kubeconfig: &str, address: SocketAddr) -> Result<String, String> {
        let client = connect(kubeconfig, address).await.map_err(|error| error.to_string())?;
        let request = hyper::Request::get("/version").body(Vec::new()).unwrap();
        client.request_text(request).await.map_err(|error| crate::api::explain(&error))
    }

    #[tokio::test]
    async fn the_server_of_the_ca_is_asked_with_the_certificate() {
        let ca = Authority::new();
        let server = Server::start_with_client_auth("api", &ca).await;
        let (cert, key) = ca.issue("client");
        let (cert_pem, key_pem) = (cert.as_bytes(), key.as_bytes());
        let held = kubeconfig(&ca, Credentials::ClientCertificate { cert_pem, key_pem });
        assert_eq!(ask(&held, server.addr).await.unwrap(), "ok");
        assert_eq!(server.requests(), ["GET /version HTTP/1.1"]);

        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("client.pem");
        fs::write(&file, format!("{cert}{key}")).unwrap();
        let named = kubeconfig(&ca, Credentials::ClientCertificateFile(file.to_str().unwrap()));
        assert_eq!(ask(&named, server.addr).await.unwrap(), "ok");

        let other = Authority::new();
        let (cert, key) = other.issue("client");
        let (cert_pem, key_pem) = (cert.as_bytes(), key.as_bytes());
        let foreign = kubeconfig(&other, Credentials::ClientCertificate { cert_pem, key_pem });
        let error = ask(&foreign, server.addr).await.unwrap_err();
        assert!(error.contains("certificate"), "{error}");
        fs::remove_file(&file).unwrap();
        let error = ask(&named, server.addr).await.unwrap_err();
        assert!(error.contains("client.pem"), "{error}");
    }

    #[tokio::test]
    async fn what_a_busy_server_says_in_a_header_is_heard() {
        let ca = Authority::new();
        let server = Server::start("api", &ca).await;
        let client = connect(&kubeconfig(&ca, Credentials::Token("a")), server.addr).await.unwrap();
        let status = r#"{"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": "busy", "reason": "TooManyRequests", "code": 429}"#;
        for (body, said) in [
            ("Too many requests, please try again later.\n", "Too many requests, please try again later."),
            (status, "busy"),
        ] {
            server.answer(429, body);
            let request = hyper::Request::get("/version").body(Vec::new()).unwrap();
            let error = client.request_text(request).await.unwrap_err();
            let error = crate::api::failed("ask", &error);
            assert_eq!(
                (error.after(), error.to_string()),
                (Some(Duration::from_secs(7)), format!("cannot ask: {said}"))
            );
        }
    }

    #[tokio::test]
    async fn a_server_may_have_the_name_that_the_kubeconfig_gives_it() {
        let ca = Authority::new();
        let server = Server::start("api", &ca).await;
        // The server listens on every address; its certificate is for 127.0.0.1.
        let other = SocketAddr::from(([127, 0, 0, 2], server.addr.port()));
        let config = kubeconfig(&ca, Credentials::Token("a"));
        assert!(ask(&config, other).await.is_err());
        let named = config.replace("    server:", "    tls-server-name: 127.0.0.1\n    server:");
        assert_eq!(ask(&named, other).await.unwrap(), "ok");
    }

    #[tokio::test]
    async fn what_it_does_not_hold_is_not_got_by_programs_and_nobody_else_is_trusted() {
        let ca = Authority::new();
        let config = kubeconfig(&ca, Credentials::Token("a"));
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 1));
        let program =
            config.replace("token: \"a\"", "exec: {apiVersion: client.authentication.k8s.io/v1, command: id}");
        let error = ask(&program, nowhere).await.unwrap_err();
        assert!(error.contains("run a program"), "{error}");
        let anybody = config.replace("    server:", "    insecure-skip-tls-verify: true\n    server:");
        let error = ask(&anybody, nowhere).await.unwrap_err();
        assert!(error.contains("trusts any server"), "{error}");
        let of_the_machine = config.replace("certificate-authority-data:", "disable-compression: false #");
        let error = ask(&of_the_machine, nowhere).await.unwrap_err();
        assert!(error.contains("no CA"), "{error}");
    }

    /// The connection is kept and idle for a part of the limit, and the next answer takes a part of it: neither is more
    /// than the limit, both together are.
    #[tokio::test]
    async fn what_a_connection_was_idle_for_is_no_part_of_the_next_answer() {
        const LIMIT: Duration = Duration::from_millis(1500);
        const PART: Duration = Duration::from_millis(1000);
        let ca = Authority::new();
        let server = Server::start("api", &ca).await;
        server.keep_alive();
        let config = kubeconfig(&ca, Credentials::Token("a"));
        let config = config.replace("https://192.0.2.1:6443", &format!("https://{}", server.addr));
        let (config, options) = (Kubeconfig::from_yaml(&config).unwrap(), KubeConfigOptions::default());
        let mut config = Config::from_custom_kubeconfig(config, &options).await.unwrap();
        config.read_timeout = Some(LIMIT);
        let client = super::client(config).unwrap();
        let ask = async || client.request_text(hyper::Request::get("/version").body(Vec::new()).unwrap()).await;
        ask().await.unwrap();
        tokio::time::sleep(PART).await;
        server.answer_after(PART);
        ask().await.unwrap();
        assert_eq!((server.requests().len(), server.connections()), (2, 1), "it was the same connection");
        // It is a limit all the same.
        server.answer_after(LIMIT * 2);
        ask().await.unwrap_err();
    }
}
