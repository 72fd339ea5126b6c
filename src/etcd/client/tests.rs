//! Against an etcd of hyper's, over TLS.

use std::convert::Infallible;
use std::sync::Arc;

use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Bytes, Frame};
use hyper::{HeaderMap, Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsAcceptor;

use super::messages::{AlarmMember, KeyValue, ResponseHeader, SnapshotResponse};
use super::*;
use crate::base::probe::testing::Authority;
use crate::etcd::snapshot::tests::some;
use crate::etcd::{alarms, snapshot};

const LIMIT: Duration = Duration::from_secs(20);

/// What it says at the end of a snapshot.
#[derive(Clone, Copy)]
enum End {
    Well,
    BreaksOff,
    Refuses,
}

fn message(message: &impl Message) -> Frame<Bytes> {
    let message = message.encode_to_vec();
    let mut bytes = vec![0];
    bytes.extend((message.len() as u32).to_be_bytes());
    bytes.extend(message);
    Frame::data(Bytes::from(bytes))
}

fn trailers(status: &str) -> Frame<Bytes> {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", status.parse().unwrap());
    trailers.insert("grpc-message", "no space".parse().unwrap());
    Frame::trailers(trailers)
}

type Body = http_body_util::combinators::BoxBody<Bytes, std::io::Error>;

fn respond(path: &str, asked: &[u8], snapshot: &[u8], end: End) -> Response<Body> {
    let frames = match path {
        "/etcdserverpb.Maintenance/Status" => {
            let header = Some(ResponseHeader { revision: 1234, member_id: 7, ..Default::default() });
            let version = "3.6.8".to_owned();
            let (db_size, db_size_quota) = (16 << 20, 16 << 20);
            let status = StatusResponse { header, version, db_size, db_size_quota, ..Default::default() };
            vec![Ok(message(&status)), Ok(trailers("0"))]
        }
        // It has the keys /a/0 to /a/19 and /b, and no page has more than it was asked for.
        "/etcdserverpb.KV/Range" => {
            let asked = RangeRequest::decode(&asked[5..]).unwrap();
            let mut all: Vec<_> = (0..20).map(|number| format!("/a/{number}")).chain(["/b".to_owned()]).collect();
            all.sort();
            let is_asked = |key: &String| key.as_bytes() >= &asked.key[..] && key.as_bytes() < &asked.range_end[..];
            let found: Vec<_> = all.into_iter().filter(is_asked).collect();
            let limit = usize::try_from(asked.limit).unwrap();
            let pair = |key: &String| KeyValue { key: key.clone().into_bytes(), value: key.to_uppercase().into() };
            let kvs = found.iter().take(limit).map(pair).collect();
            vec![Ok(message(&RangeResponse { kvs, more: found.len() > limit })), Ok(trailers("0"))]
        }
        "/etcdserverpb.Maintenance/Alarm" => {
            let alarms = [1, 2, 1, 7].map(|alarm| AlarmMember { member_id: 7, alarm }).into();
            vec![Ok(message(&AlarmResponse { alarms })), Ok(trailers("0"))]
        }
        "/etcdserverpb.Maintenance/Snapshot" => {
            let (database, sum) = snapshot.split_at(snapshot.len() - snapshot::SUM);
            let mut sent = 0;
            let mut frames: Vec<_> = database
                .chunks(32 * 1024)
                .map(|piece| {
                    sent += piece.len();
                    Ok(message(&SnapshotResponse {
                        remaining_bytes: (database.len() - sent) as u64,
                        blob: piece.into(),
                    }))
                })
                .collect();
            match end {
                End::Well => {
                    frames.push(Ok(message(&SnapshotResponse { remaining_bytes: 0, blob: sum.into() })));
                    frames.push(Ok(trailers("0")));
                }
                End::BreaksOff => frames.push(Err(std::io::ErrorKind::BrokenPipe.into())),
                End::Refuses => frames.push(Ok(trailers("8"))),
            }
            frames
        }
        _ => {
            let response = Response::builder().header("grpc-status", "12");
            return response.body(Full::default().map_err(|never: Infallible| match never {}).boxed()).unwrap();
        }
    };
    Response::new(StreamBody::new(futures::stream::iter(frames)).boxed())
}

async fn serve(snapshot: Vec<u8>, end: End) -> (SocketAddr, Tls) {
    let ca = Authority::new();
    let (certificate, key) = ca.issue("127.0.0.1");
    let chain = vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()];
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let own = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
    let mut config = builder.with_no_client_auth().with_single_cert(chain, own).unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (acceptor, snapshot) = (acceptor.clone(), snapshot.clone());
            tokio::spawn(async move {
                let Ok(stream) = acceptor.accept(stream).await else { return };
                let service = hyper::service::service_fn(move |request: Request<hyper::body::Incoming>| {
                    let (path, snapshot) = (request.uri().path().to_owned(), snapshot.clone());
                    async move {
                        let asked = request.into_body().collect().await.unwrap().to_bytes();
                        Ok::<_, Infallible>(respond(&path, &asked, &snapshot, end))
                    }
                });
                let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                let _ = server.serve_connection(TokioIo::new(stream), service).await;
            });
        }
    });
    let tls = Tls::from([
        ("etcd/ca.crt".to_owned(), ca.pem().into_bytes()),
        ("apiserver-etcd-client.crt".to_owned(), certificate.into_bytes()),
        ("apiserver-etcd-client.key".to_owned(), key.into_bytes()),
    ]);
    (address, tls)
}

#[tokio::test]
async fn its_pieces_are_the_file_of_etcdctl() {
    let whole = some(1000);
    let (address, tls) = serve(whole.clone(), End::Well).await;
    let mut snapshot = Snapshot::begin(address, &tls).await.unwrap();
    assert_eq!((snapshot.length, &*snapshot.version), (whole.len() as u64, "3.6.8"));
    let mut came = Vec::new();
    while let Some(piece) = snapshot.piece().await.unwrap() {
        came.extend(piece);
    }
    assert!(came == whole);
}

#[tokio::test]
async fn one_that_breaks_off_does_not_count() {
    for (end, why) in [(End::BreaksOff, ""), (End::Refuses, "no space (gRPC status 8)")] {
        let (address, tls) = serve(some(1000), end).await;
        let mut snapshot = Snapshot::begin(address, &tls).await.unwrap();
        let error = loop {
            match snapshot.piece().await {
                Ok(Some(_)) => {}
                Ok(None) => panic!("it was taken for whole"),
                Err(error) => break error.to_string(),
            }
        };
        assert!(error.starts_with("cannot read the snapshot from etcd: ") && error.contains(why), "{error}");
    }
}

#[tokio::test]
async fn values_come_page_by_page_and_each_once() {
    let (address, tls) = serve(Vec::new(), End::Well).await;
    let mut etcd = Client::connect(address, &tls, LIMIT).await.unwrap();
    let mut found = Vec::new();
    let pair = |key: &[u8], value: &[u8]| [key, value].map(|bytes| String::from_utf8(bytes.to_vec()).unwrap());
    etcd.each_value("/a/", |key, value| found.push(pair(key, value))).await.unwrap();
    assert_eq!(found.len(), 20);
    assert!(found.is_sorted() && found.iter().all(|[key, value]| key.to_uppercase() == *value), "{found:?}");
    found.clear();
    etcd.each_value("/c", |key, value| found.push(pair(key, value))).await.unwrap();
    assert!(found.is_empty());
}

#[tokio::test]
async fn an_etcd_that_is_away_or_another_one() {
    let (address, mut tls) = serve(some(3), End::Well).await;
    tls.insert("etcd/ca.crt".into(), Authority::new().pem().into_bytes());
    let error = Snapshot::begin(address, &tls).await.err().unwrap().to_string();
    assert!(
        error.contains(&format!("cannot ask etcd at {address} for a snapshot: invalid peer certificate")),
        "{error}"
    );
    let nobody = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let error = Snapshot::begin(nobody, &tls).await.err().unwrap().to_string();
    assert!(
        error.contains("Connection refused") && error.contains("next: run it on a controller whose etcd runs"),
        "{error}"
    );
}

#[tokio::test]
async fn its_alarms_are_named_with_what_to_type() {
    let (address, mut tls) = serve(some(3), End::Well).await;
    let health = alarms::ask(address, &tls, LIMIT).await.unwrap();
    let names: Vec<_> = health.alarms.iter().map(alarms::Alarm::name).collect();
    assert_eq!(names, ["NOSPACE", "CORRUPT", "alarm 7"]);
    let said = health.said("c1");
    assert_eq!(said.len(), 3);
    let space = &said[0];
    assert!(space.0.contains("NOSPACE") && space.0.contains("16 MiB of 16 MiB"), "{space:?}");
    assert!(space.1.contains("server.key compact --physical 1234") && space.1.contains("exec etcd-c1 --"), "{space:?}");
    assert!(said[1].0.contains("CORRUPT") && said[1].1.contains("hoist recover --backup"), "{said:?}");
    let of = |address: &str| alarms::Health { address: address.parse().unwrap(), ..health.clone() }.said("c1");
    for address in ["127.0.0.1:2379", "[::1]:2379"] {
        assert!(of(address)[0].1.contains(&format!("etcdctl --endpoints=https://{address} --cacert")), "{address}");
    }
    tls.insert("etcd/ca.crt".into(), Authority::new().pem().into_bytes());
    alarms::ask(address, &tls, LIMIT).await.unwrap_err();
}
