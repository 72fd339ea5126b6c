//! Against a gRPC server of hyper's.

use std::collections::HashMap;
use std::convert::Infallible;
use std::path::PathBuf;

use http_body_util::{Full, StreamBody};
use hyper::body::{Bytes, Frame};
use hyper::{HeaderMap, Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;

use super::messages::{LinuxRuntimeConfiguration, RuntimeCondition, RuntimeStatus};
use super::*;

const LIMIT: Duration = Duration::from_secs(5);

/// What a method answers: a message, or a gRPC status.
type Answers = HashMap<&'static str, Result<Vec<u8>, u16>>;

/// A runtime that gives these answers, at a socket in a folder of its own.
struct Fake {
    socket: PathBuf,
    _dir: tempfile::TempDir,
}

impl Fake {
    fn start(answers: Answers) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("cri.sock");
        let listener = tokio::net::UnixListener::bind(&socket).unwrap();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let answers = answers.clone();
                let service = hyper::service::service_fn(move |request: Request<hyper::body::Incoming>| {
                    let response = respond(&answers, request.uri().path());
                    async move { Ok::<_, Infallible>(response) }
                });
                let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                tokio::spawn(server.serve_connection(TokioIo::new(stream), service));
            }
        });
        Self { socket, _dir: dir }
    }
}

type Body = http_body_util::Either<
    StreamBody<futures::stream::Iter<std::vec::IntoIter<Result<Frame<Bytes>, Infallible>>>>,
    Full<Bytes>,
>;

/// The gRPC status of a containerd that starts.
const STARTS: u16 = 2;

fn respond(answers: &Answers, path: &str) -> Response<Body> {
    let method = path.strip_prefix("/runtime.v1.RuntimeService/").unwrap();
    let response = Response::builder().header("content-type", "application/grpc");
    match answers.get(method).cloned().unwrap_or(Err(12)) {
        Ok(message) => {
            let mut bytes = vec![0];
            bytes.extend((message.len() as u32).to_be_bytes());
            bytes.extend(message);
            let mut trailers = HeaderMap::new();
            trailers.insert("grpc-status", "0".parse().unwrap());
            // In two frames: a message need not come in one.
            let rest = bytes.split_off(3);
            let frames = vec![
                Ok(Frame::data(Bytes::from(bytes))),
                Ok(Frame::data(Bytes::from(rest))),
                Ok(Frame::trailers(trailers)),
            ];
            let body = StreamBody::new(futures::stream::iter(frames));
            response.body(http_body_util::Either::Left(body)).unwrap()
        }
        Err(status) => {
            let message = if status == STARTS { STARTING } else { "unknown method" };
            let response = response.header("grpc-status", status).header("grpc-message", message);
            response.body(http_body_util::Either::Right(Full::default())).unwrap()
        }
    }
}

fn containerd(config: &str) -> Answers {
    let version = VersionResponse { runtime_name: "containerd".into(), runtime_version: "v1.6.20".into() };
    let ready = |status| RuntimeCondition {
        name: "RuntimeReady".into(),
        status,
        reason: String::new(),
        message: "no shim".into(),
    };
    let status = StatusResponse {
        status: Some(RuntimeStatus { conditions: vec![ready(true)] }),
        info: HashMap::from([("config".into(), config.into())]),
    };
    HashMap::from([("Version", Ok(version.encode_to_vec())), ("Status", Ok(status.encode_to_vec()))])
}

#[tokio::test]
async fn an_older_containerd_shows_its_configuration() {
    let config = r#"{"containerd":{"defaultRuntimeName":"runc","runtimes":{"runc":{"options":{"SystemdCgroup":true}},"x":{"options":{}}}},"cni":{"binDir":"/opt/cni/bin","confDir":"/etc/cni/net.d"}}"#;
    let fake = Fake::start(containerd(config));
    let expected = Runtime {
        name: "containerd 1.6.20".into(),
        not_ready: None,
        told_driver: None,
        own_driver: Some(CgroupDriver::Systemd),
        cni_bin_dirs: vec!["/opt/cni/bin".into()],
        cni_conf_dir: Some("/etc/cni/net.d".into()),
    };
    assert_eq!(ask(&fake.socket, LIMIT).await, Ok(expected));
    assert_eq!(containerds_driver(&config.replace("true", "false")), Some(CgroupDriver::Cgroupfs));
    assert_eq!(containerds_driver(&config.replace("\"SystemdCgroup\":true", "")), Some(CgroupDriver::Cgroupfs));
    assert_eq!(containerds_driver("{}"), None);
    assert_eq!(containerds_driver("no JSON"), None);
    assert_eq!(containerds_cni(r#"{"cni":{"binDir":"","binDirs":["/a","/b"]}}"#), ["/a", "/b"]);
    assert_eq!(containerds_cni("no JSON"), [""; 0]);
    assert_eq!(containerds_cni_configuration(r#"{"cni":{"confDir":""}}"#), None);
}

#[tokio::test]
async fn a_newer_runtime_tells_its_driver() {
    for (number, expected) in [(0, CgroupDriver::Systemd), (1, CgroupDriver::Cgroupfs)] {
        let mut answers = containerd("{}");
        let config = RuntimeConfigResponse { linux: Some(LinuxRuntimeConfiguration { cgroup_driver: number }) };
        answers.insert("RuntimeConfig", Ok(config.encode_to_vec()));
        let fake = Fake::start(answers);
        assert_eq!(ask(&fake.socket, LIMIT).await.unwrap().told_driver, Some(expected));
    }
}

/// A node with thousands of containers: the kubelet takes 16 MiB of an answer, where gRPC's own limit is 4.
#[tokio::test]
async fn an_answer_may_be_as_large_as_the_kubelet_takes_it() {
    let answer = |size: usize| {
        let message = VersionResponse { runtime_name: "a".repeat(size), runtime_version: "v1".into() };
        let status = StatusResponse::default().encode_to_vec();
        HashMap::from([("Version", Ok(message.encode_to_vec())), ("Status", Ok(status))])
    };
    let fake = Fake::start(answer(crate::base::grpc::LONGEST - 100));
    assert!(ask(&fake.socket, LIMIT * 4).await.unwrap().name.len() > 15 << 20);
    let fake = Fake::start(answer(crate::base::grpc::LONGEST));
    let answer = ask(&fake.socket, LIMIT * 4).await;
    assert!(matches!(&answer, Err(Trouble::Refused(why)) if why.contains("16777216 is the limit")), "{answer:?}");
}

#[tokio::test]
async fn what_is_wrong_is_told_apart() {
    let dir = tempfile::tempdir().unwrap();
    let nobody = dir.path().join("none.sock");
    let answer = ask(&nobody, LIMIT).await;
    assert!(matches!(&answer, Err(Trouble::Unreachable(reason)) if reason.contains("No such file")), "{answer:?}");

    let listener = std::os::unix::net::UnixListener::bind(&nobody).unwrap();
    assert_eq!(ask(&nobody, Duration::from_millis(100)).await, Err(Trouble::Silent));
    drop(listener);
    let answer = ask(&nobody, LIMIT).await;
    assert!(matches!(&answer, Err(Trouble::Unreachable(reason)) if reason.contains("refused")), "{answer:?}");

    let fake = Fake::start(HashMap::new());
    let answer = ask(&fake.socket, LIMIT).await;
    assert!(matches!(&answer, Err(Trouble::Refused(reason)) if reason.contains("runtime.v1")), "{answer:?}");

    let fake = Fake::start(HashMap::from([("Version", Err(7))]));
    let answer = ask(&fake.socket, LIMIT).await;
    assert_eq!(answer, Err(Trouble::Refused("unknown method (gRPC status 7)".into())));

    let fake = Fake::start(HashMap::from([("Version", Err(STARTS))]));
    assert_eq!(ask(&fake.socket, Duration::from_millis(200)).await, Err(Trouble::Silent), "it may still come");

    let fake = Fake::start(HashMap::from([("Version", Ok(b"\xff\xff".to_vec()))]));
    assert!(matches!(ask(&fake.socket, LIMIT).await, Err(Trouble::Refused(_))));
}
