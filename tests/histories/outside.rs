//! The world as hoist meets it: programs, API servers, the date, and the disk.

use std::fmt;
use std::fs;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::future::BoxFuture;
use hoist::base::error::{Error, Result};
use hoist::base::files::{self, Operation};
use hoist::base::probe::Answer;
use hoist::base::watched::Watched;
use hoist::desired::secrets::Tls;
use hoist::etcd::alarms::Health;
use hoist::node::world::{Ask, Ran, World};
use http::{Request as HttpRequest, Response as HttpResponse};
use http_body_util::BodyExt;
use kube::Client;
use kube::client::Body;
use time::OffsetDateTime;
use tokio::sync::Notify;

use crate::world::{Fault, IP, LOOPBACK, Program, Request, Response, Shared, place, status};

/// How long hoist's client waits for an answer.
const ANSWER: Duration = Duration::from_secs(10);

/// What a thread unwinds with that is killed in the middle of its work on the disk.
///
/// A thread that unwinds cleans up; one that is killed does not. So it carries what must be there again afterwards: the
/// files beside.
pub struct Killed(pub Vec<(PathBuf, u32, Vec<u8>)>);

#[derive(Clone)]
pub struct Scripted {
    pub world: Shared,
    /// hoist is killed, as by SIGKILL.
    pub killed: Arc<Notify>,
}

impl fmt::Debug for Scripted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Scripted")
    }
}

impl Scripted {
    /// A moment at which hoist may be killed: it goes no further then.
    async fn moment(&self) {
        let is_killed = {
            let world = &mut *self.world.lock().unwrap();
            world.faults.is_killed(world.now)
        };
        if is_killed {
            self.killed.notify_one();
            std::future::pending::<()>().await;
        }
    }

    async fn pause(&self, least: u64, most: u64) {
        let pause = self.world.lock().unwrap().random.millis(least, most);
        tokio::time::sleep(pause).await;
    }

    async fn ask(self, address: SocketAddr, path: &str, limit: Duration) -> Answer {
        self.pause(1, 8).await;
        let (listens, answer) = {
            let mut world = self.world.lock().unwrap();
            world.show_clock();
            let (ip, loopback) = (IP.parse::<IpAddr>().unwrap(), LOOPBACK.parse::<IpAddr>().unwrap());
            if address.port() != 6443 || ![ip, loopback].contains(&address.ip()) {
                world.wrong(format!("nobody expected a probe of {address}"));
            }
            if world.probe_fault() {
                let body = "[-]etcd failed: reason withheld\nreadyz check failed\n".to_owned();
                return match world.random.below(10) {
                    0..3 => Answer::TimedOut,
                    3 => Answer::NotAsked("Too many open files (os error 24)".into()),
                    _ => Answer::Http { status: 500, body },
                };
            }
            let server =
                if address.ip() == loopback { world.one(Program::ApiServer, false) } else { world.behind_node_ip() };
            match server {
                None => (false, Answer::Refused),
                Some(server) if server.hangs => (true, Answer::TimedOut),
                Some(server) if world.is_ready(server) => (true, Answer::Http { status: 200, body: "ok".into() }),
                // It accepts before it answers.
                Some(server) if world.now < server.begun + Duration::from_millis(1200) => (true, Answer::TimedOut),
                // Whatever becomes of its etcd.
                Some(_) if path == "/version" => (true, Answer::Http { status: 200, body: "{}".into() }),
                Some(server) if server.ends.is_some() && world.serves(server) => {
                    let body = "[+]ping ok\n[-]shutdown failed: reason withheld\nreadyz check failed\n";
                    (true, Answer::Http { status: 500, body: body.into() })
                }
                Some(_) => {
                    let body = "[+]ping ok\n[-]poststarthook/rbac/bootstrap-roles failed: reason withheld\nreadyz check failed\n";
                    (true, Answer::Http { status: 500, body: body.into() })
                }
            }
        };
        if listens && answer == Answer::TimedOut {
            tokio::time::sleep(limit).await;
        }
        answer
    }

    /// A request on its way to the API server behind NODE_IP, and its answer on the way back.
    async fn request(self, request: Request) -> io::Result<Response> {
        self.pause(1, 4).await;
        let writes = request.writes();
        if writes {
            self.moment().await;
        }
        let fault = self.world.lock().unwrap().request_fault(writes);
        if let Some(fault) = fault {
            self.world.lock().unwrap().say(format!("{fault:?} for {} {}", request.method, request.path));
        }
        match fault {
            Some(Fault::Status(code, reason)) => return Ok(status(code, reason, "a fault of the world's")),
            Some(Fault::Reset) => return Err(io::ErrorKind::ConnectionReset.into()),
            Some(Fault::Hang) => {
                tokio::time::sleep(ANSWER).await;
                return Err(io::ErrorKind::TimedOut.into());
            }
            _ => {}
        }
        let answer = {
            let mut world = self.world.lock().unwrap();
            world.show_clock();
            let Some(server) = world.behind_node_ip() else { return Err(io::ErrorKind::ConnectionRefused.into()) };
            if server.hangs {
                None
            } else if world.serves(server) {
                if writes {
                    world.faults.changed();
                }
                Some(world.serve(&request))
            } else if world.etcd_serves() {
                let why = "forbidden: User \"kubernetes-admin\" cannot do this: RBAC is not loaded";
                Some(status(403, "Forbidden", why))
            } else {
                Some(status(500, "InternalError", "etcdserver: request timed out"))
            }
        };
        let Some(answer) = answer else {
            tokio::time::sleep(ANSWER).await;
            return Err(io::ErrorKind::TimedOut.into());
        };
        if writes {
            self.moment().await;
        }
        match fault {
            Some(Fault::Lost) => return Err(io::ErrorKind::ConnectionReset.into()),
            Some(Fault::LostHang) => {
                tokio::time::sleep(ANSWER).await;
                return Err(io::ErrorKind::TimedOut.into());
            }
            _ => {}
        }
        self.pause(0, 4).await;
        Ok(answer)
    }

    /// Asks before every change to the disk of this thread: is there room, is it allowed, or is this the end?
    pub fn watch_disk(&self) {
        let scripted = self.clone();
        files::watch(Some(Box::new(move |operation, path| {
            let mut world = scripted.world.lock().unwrap();
            world.judge_operation(operation, path);
            if !world.has_room(operation, path) {
                return Err(io::Error::from_raw_os_error(nix::libc::ENOSPC));
            }
            let now = world.now;
            if world.faults.is_killed_before(operation, now) {
                world.say(format!("killed before {operation:?} {}", place(path)));
                // Some of it is done already.
                if operation == Operation::Write && world.random.permille(500) {
                    fs::write(path, "half of a fi").unwrap();
                }
                if operation == Operation::RemoveDir && world.random.permille(700) {
                    remove_some(path, &mut |path| world.random.permille(500) && path.exists());
                }
                let mut beside = tree(&world.root);
                beside.retain(|(path, ..)| {
                    path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(files::BESIDE))
                });
                drop(world);
                std::panic::resume_unwind(Box::new(Killed(beside)));
            }
            Ok(())
        })));
    }
}

/// Every file and folder but /proc: path, mode, content.
pub fn tree(dir: &Path) -> Vec<(PathBuf, u32, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.ends_with("proc") {
            continue;
        }
        let mode = fs::metadata(&path).unwrap().permissions().mode() & 0o777;
        if path.is_dir() {
            found.extend(tree(&path));
            found.push((path, mode, Vec::new()));
        } else {
            let content = fs::read(&path).unwrap();
            found.push((path, mode, content));
        }
    }
    found.sort();
    found
}

fn remove_some(dir: &Path, choose: &mut dyn FnMut(&Path) -> bool) {
    let mut entries: Vec<_> = fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    entries.sort();
    for path in entries {
        if path.is_dir() {
            remove_some(&path, choose);
            let _ = fs::remove_dir(&path);
        } else if choose(&path) {
            fs::remove_file(path).unwrap();
        }
    }
}

impl World for Scripted {
    fn now(&self) -> OffsetDateTime {
        self.world.lock().unwrap().date()
    }

    fn is_root(&self) -> bool {
        true
    }

    fn nftables(&self) -> std::result::Result<(), String> {
        Ok(())
    }

    fn hostname(&self) -> String {
        crate::world::NODE.into()
    }

    fn addresses(&self) -> Result<Vec<IpAddr>> {
        Ok([LOOPBACK, IP].map(|address| address.parse().unwrap()).to_vec())
    }

    fn is_free(&self, address: SocketAddr) -> bool {
        !self.world.lock().unwrap().holds(&address.ip().to_string(), address.port())
    }

    fn accepts(&self, address: SocketAddr, _limit: Duration) -> BoxFuture<'_, bool> {
        let world = self.world.lock().unwrap();
        let runs = match address.port() {
            10248 => world.kubelet.is_some(),
            port => world.holds(&address.ip().to_string(), port),
        };
        drop(world);
        Box::pin(async move { runs })
    }

    fn etcd_serves<'a>(&'a self, address: SocketAddr, _: &'a Tls, limit: Duration) -> BoxFuture<'a, bool> {
        self.accepts(address, limit)
    }

    /// Events of the real kernel would come at any time.
    fn watch(&self, folders: Vec<PathBuf>) -> Watched {
        Watched::polled(folders)
    }

    fn etcd<'a>(&'a self, _: SocketAddr, _: &'a Tls, _limit: Duration) -> BoxFuture<'a, Result<Health, String>> {
        Box::pin(async { Err("nobody answers".to_owned()) })
    }

    fn run<'a>(&'a self, program: &'a str, args: &'a [&'a str], _limit: Duration) -> BoxFuture<'a, Result<Ran>> {
        Box::pin(async move {
            if program == "journalctl" {
                return Ok(Ran { success: true, stdout: "its last words\n".into(), stderr: String::new() });
            }
            assert_eq!(program, "systemctl");
            self.pause(2, 20).await;
            self.moment().await;
            if self.world.lock().unwrap().command_fault() {
                return Err(Error::failed(format!("run `systemctl {}`", args.join(" ")), "Failed to connect to bus"));
            }
            let ran = {
                let mut world = self.world.lock().unwrap();
                if args[0] != "show" {
                    world.faults.changed();
                }
                world.systemctl(args)
            };
            self.moment().await;
            Ok(ran)
        })
    }

    fn probe(&self, _ca_pem: &[u8]) -> Result<Box<dyn Ask>> {
        Ok(Box::new(self.clone()))
    }

    fn connect<'a>(&'a self, _kubeconfig: &'a str, address: SocketAddr) -> BoxFuture<'a, Result<Client>> {
        assert_eq!(address.to_string(), format!("{IP}:6443"));
        Box::pin(async move { Ok(Client::new(Service(self.clone()), "default")) })
    }
}

impl Ask for Scripted {
    fn get<'a>(&'a self, address: SocketAddr, path: &'a str, limit: Duration) -> BoxFuture<'a, Answer> {
        assert!(["/readyz", "/version"].contains(&path), "{path}");
        let probe = self.clone().ask(address, path, limit);
        Box::pin(async move { tokio::time::timeout(limit, probe).await.unwrap_or(Answer::TimedOut) })
    }
}

/// The API without a network: what kube's client calls in place of a connection.
struct Service(Scripted);

impl tower::Service<HttpRequest<Body>> for Service {
    type Response = HttpResponse<String>;
    type Error = io::Error;
    type Future = BoxFuture<'static, io::Result<HttpResponse<String>>>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: HttpRequest<Body>) -> Self::Future {
        let scripted = self.0.clone();
        Box::pin(async move {
            let (parts, body) = request.into_parts();
            let header = |name: &str| {
                let value = parts.headers.get(name).and_then(|value| value.to_str().ok());
                value.unwrap_or_default().to_owned()
            };
            let request = Request {
                method: parts.method.to_string(),
                path: parts.uri.path().to_owned(),
                query: parts.uri.query().unwrap_or_default().to_owned(),
                accept: header("accept"),
                content_type: header("content-type"),
                body: body.collect().await.map_err(io::Error::other)?.to_bytes().to_vec(),
            };
            let answer = scripted.request(request).await?;
            Ok(HttpResponse::builder().status(answer.code).body(answer.body).unwrap())
        })
    }
}
