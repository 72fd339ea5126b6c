//! A controller in the making, in a scripted world: a real disk, real certificates, an etcd and voters that keep to etcd's
//! rules. What the joining machine does is cut short at every change of its disk, and by chance.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use http::{Request, Response};
use kube::client::Body;
use serde_json::{Value, json};

use super::*;
use crate::api::controllers::ControllerNode;
use crate::base::files;
use crate::base::report::Clock;
use crate::desired::assets::AssetSet;
use crate::desired::{config, render};
use crate::etcd::client::{List, MemberId, Status};
use crate::etcd::members::Answer as Told;
use crate::node::static_pods::StaticPods;
use crate::node::system;
use crate::plane::leaving;
use crate::random::Random;

const ADDRESS: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 2));
const CLUSTER: u64 = 7;
/// After so many rounds in which nothing happens any more, it has arrived, or never does.
const ROUNDS: usize = 120;

/// One cluster of a declared controller, for all tests: keys take time.
fn shared() -> (config::Cluster, AssetSet) {
    let text = "apiVersion: hoist/v1alpha1\nkind: Cluster\ncontrollers:\n- {name: c1, address: 10.0.0.1}\n";
    let cluster = config::parse("cluster.yaml", text, Path::new("/")).unwrap();
    let now = time::OffsetDateTime::now_utc();
    let pki = pki::issue(&cluster, &Default::default(), &Default::default(), now).unwrap();
    let assets = render::render(&cluster, &pki.files, "abcdef.0123456789abcdef").unwrap();
    (cluster, assets)
}

/// What comes to an end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cut {
    /// guard's process.
    Guard,
    /// The power: etcd's process, too.
    Power,
}

/// The entry of the machine's member among those that the voters list.
#[derive(Debug, Clone)]
struct Entry {
    id: MemberId,
    name: String,
    is_learner: bool,
}

/// The machine, its Node, and what the voters say.
struct Machine {
    host: Host,
    _root: tempfile::TempDir,
    secret: PathBuf,
    entry: Option<Entry>,
    ids: u64,
    is_labelled: bool,
    /// Which member its etcd is, while it runs.
    etcd: Option<MemberId>,
    /// What its guard has reported last; `Err` while the API is away.
    api: Arc<Mutex<Result<Option<Report>, ()>>>,
    /// The count of the last report that the voters have seen, and for how many rounds they have seen no newer one.
    heard: (u64, usize),
    /// What it has done, for who reads a failure.
    told: Arc<Mutex<Vec<u8>>>,
}

/// Writes for a reader in the same process.
struct Log(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Machine {
    /// A worker that got the label.
    fn new((cluster, assets): &(config::Cluster, AssetSet)) -> Self {
        // In memory where there is such a place.
        let memory = Path::new("/dev/shm");
        let root = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.unwrap();
        let host = system::host(&root.path().join("machine"), Path::new("/etc/kubernetes/manifests"));
        let secret = root.path().join("bridge.json");
        fs::write(&secret, Copy::new(assets, cluster, &cluster.controllers[0]).shared().to_json()).unwrap();
        fs::write(root.path().join("hoist"), "").unwrap();
        let machine = Self {
            host,
            _root: root,
            secret,
            entry: None,
            ids: 1,
            is_labelled: true,
            etcd: None,
            api: Arc::new(Mutex::new(Ok(None))),
            heard: (0, 0),
            told: Arc::default(),
        };
        machine.is_made_anew();
        machine
    }

    /// Its system is installed, as on a new disk.
    fn is_made_anew(&self) {
        let _ = fs::remove_dir_all(self.host.path("/"));
        for folder in ["/run", "/etc/kubernetes/manifests", "/var/lib/etcd", "/proc/self", "/proc/1"] {
            fs::create_dir_all(self.host.path(folder)).unwrap();
        }
        for process in ["self", "1"] {
            let mounts = "30 1 8:1 / / rw - ext4 /dev/sda1 rw\n31 30 8:2 / /var/lib/etcd rw - ext4 /dev/sda2 rw\n";
            fs::write(self.host.path(&format!("/proc/{process}/mountinfo")), mounts).unwrap();
        }
    }

    fn say(&self, what: &str) {
        self.told.lock().unwrap().extend(format!("* {what}\n").into_bytes());
    }

    fn told(&self) -> String {
        String::from_utf8_lossy(&self.told.lock().unwrap()).into_owned()
    }

    fn data(&self) -> Data {
        Data::at(&self.host, "/var/lib/etcd")
    }

    fn database(&self) -> PathBuf {
        self.data().dir().join("member/snap/db")
    }

    /// Its etcd, as the kubelet starts it and as it starts itself.
    fn etcd_lives(&mut self) {
        let pods = StaticPods::new(self.host.manifests());
        let Some(manifest) = pods.read("etcd.yaml") else {
            self.etcd = None;
            return;
        };
        let listed = self.entry.as_ref().map(|entry| entry.id);
        if let Some(id) = self.etcd {
            // Its disk is taken from under it, or the others have removed it.
            if !self.database().is_file() || listed != Some(id) {
                self.etcd = None;
            }
            return;
        }
        let mark = pods.host_path("etcd.yaml", "began").expect("it waits for a mark");
        if !self.host.path(&mark).is_file() {
            return;
        }
        if let Ok(text) = fs::read_to_string(self.database()) {
            let id = MemberId(text.parse().unwrap());
            self.etcd = (listed == Some(id)).then_some(id);
            return;
        }
        assert!(manifest.contains("--initial-cluster-state=existing"), "a second cluster: {}", self.told());
        let Some(entry) = self.entry.clone() else { return };
        assert!(entry.name.is_empty(), "{entry:?} starts again without its data: {}", self.told());
        assert!(manifest.contains(&format!("c2={}", peer_url(ADDRESS))), "{manifest}");
        self.etcd = Some(entry.id);
        fs::create_dir_all(self.database().parent().unwrap()).unwrap();
        fs::write(self.database(), entry.id.0.to_string()).unwrap();
        self.entry = Some(Entry { name: "c2".into(), ..entry });
    }

    /// The voters: they add who is empty, promote who answers, remove who is none any more or has lost its data.
    fn voters_decide(&mut self) {
        let report = self.api.lock().unwrap().clone();
        let is_empty = match &report {
            Ok(Some(report)) if report.count != self.heard.0 => {
                self.heard = (report.count, 0);
                report.is_empty
            }
            Ok(Some(report)) => {
                self.heard.1 += 1;
                report.is_empty && self.heard.1 < 15
            }
            _ => false,
        };
        let runs = |id| self.etcd == Some(id);
        match self.entry.clone() {
            None if self.is_labelled && is_empty => {
                self.ids += 1;
                assert!(!self.database().exists(), "one that has data is added: {}", self.told());
                self.entry = Some(Entry { id: MemberId(self.ids), name: String::new(), is_learner: true });
                self.say("added");
            }
            Some(_) if !self.is_labelled => {
                self.say("removed: no controller");
                self.entry = None;
            }
            Some(entry) if !runs(entry.id) && !entry.name.is_empty() && is_empty => {
                self.say("removed: its data is lost");
                self.entry = None;
            }
            Some(entry) if runs(entry.id) && entry.is_learner => {
                self.say("promoted");
                self.entry = Some(Entry { is_learner: false, ..entry });
            }
            _ => {}
        }
    }

    fn asked(&self) -> Asked {
        let member = |id, name: &str, address, is_learner| {
            let (peer_urls, client_urls) = (vec![peer_url(address)], Vec::new());
            (id, Member { id, name: name.into(), peer_urls, client_urls, is_learner })
        };
        let first = MemberId(1);
        let mut members: std::collections::BTreeMap<_, _> =
            [member(first, "c1", IpAddr::from([10, 0, 0, 1]), false)].into();
        members.extend(self.entry.as_ref().map(|entry| member(entry.id, &entry.name, ADDRESS, entry.is_learner)));
        let mut asked = Asked { lists: vec![List { cluster: CLUSTER, members }], ..Asked::default() };
        if let (Some(id), Some(entry)) = (self.etcd, &self.entry) {
            let status =
                Status { member: Some(id), cluster: CLUSTER, is_learner: entry.is_learner, ..Status::default() };
            let address = SocketAddr::new(ADDRESS, alarms::PORT);
            asked.answers.insert(id, Told { address, status, healthy: true });
            asked.this = Some(id);
        }
        asked
    }

    fn seen(&self) -> Option<Seen> {
        let report = self.api.lock().unwrap().clone().ok()?;
        let node = ControllerNode { name: "c2".into(), uid: "u".into(), address: Some(ADDRESS), report };
        let controllers = self.is_labelled.then_some(node).into_iter().collect();
        Some(Seen { controllers, published: Vec::new(), expected: Vec::new() })
    }

    /// The API, as far as the machine writes there: its reports. There are no pods.
    fn client(&self) -> Client {
        let api = self.api.clone();
        Client::new(
            tower::service_fn(move |request: Request<Body>| {
                let api = api.clone();
                async move {
                    let path = request.uri().path().to_owned();
                    let is_report = request.method() == http::Method::PATCH && path.contains("/leases/");
                    assert!(is_report || path.ends_with("/pods"), "nobody expected {path}");
                    let body = request.into_body().collect_bytes().await.unwrap();
                    let mut api = api.lock().unwrap();
                    let (status, answer) = match &mut *api {
                        Err(()) => (503, json!({"kind": "Status", "apiVersion": "v1", "code": 503, "message": "away"})),
                        Ok(report) if is_report => {
                            let lease: Value = serde_json::from_slice(&body).unwrap();
                            let all = lease["metadata"]["annotations"].as_object();
                            let text = all.and_then(|all| all.values().next()?.as_str());
                            *report = text.map(|text| serde_json::from_str(text).unwrap());
                            (
                                200,
                                json!({"apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata", "metadata": {}}),
                            )
                        }
                        Ok(_) => (200, json!({"metadata": {}, "items": []})),
                    };
                    let answer = Response::builder().status(status).body(Body::from(answer.to_string().into_bytes()));
                    Ok::<_, std::convert::Infallible>(answer.unwrap())
                }
            }),
            "default",
        )
    }

    /// One second, with a guard that has been running for a while.
    async fn round(&mut self, join: &mut Join<'_>) -> Result<()> {
        tokio::time::advance(Duration::from_secs(1)).await;
        self.etcd_lives();
        self.voters_decide();
        let api_is_there = self.api.lock().unwrap().is_ok();
        if guard_pod::is_there(&self.host) && leaving::is_unmade(&self.host) {
            return guard_pod::remove(&self.host);
        }
        // The DaemonSet's pod, and guard's way to leave.
        if self.is_labelled && api_is_there && !guard_pod::is_there(&self.host) {
            let controller = Controller { name: "c2".into(), address: ADDRESS, taints: Vec::new() };
            let binary = self._root.path().join("hoist");
            guard_pod::install_from(&self.host, &self.secret, &binary, controller)?;
        }
        if !self.is_labelled && api_is_there && self.entry.is_none() && serving::is_there(&self.host) {
            let Some(of) = join.own()? else { return Ok(()) };
            return leave::unmake(&self.host, &of.cluster);
        }
        let Some(of) = join.own()? else { return Ok(()) };
        join.is_made_here(&of)?;
        let (seen, asked) = (self.seen(), self.asked());
        let client = api_is_there.then(|| self.client());
        join.make(&of, seen.as_ref(), &asked, client.as_ref()).await.map(drop)
    }

    /// Whether it is what its label says.
    fn has_arrived(&self) -> Result<(), String> {
        let votes = self.entry.as_ref().is_some_and(|entry| !entry.is_learner && self.etcd == Some(entry.id));
        let serves = serving::is_there(&self.host);
        if self.is_labelled {
            return match votes && serves && self.data().mark().is_file() {
                true => Ok(()),
                false => Err(format!("votes: {votes}, serves: {serves}")),
            };
        }
        let keys = ["/etc/kubernetes/pki/etcd", "/etc/kubernetes/pki/apiserver", "/var/lib/hoist/guard/bridge.json"];
        let left = keys.into_iter().chain(["/var/lib/etcd/member"]).filter(|path| self.host.path(path).exists());
        let left: Vec<_> = left.collect();
        let manifests: Vec<_> =
            fs::read_dir(self.host.manifests()).unwrap().map(|entry| entry.unwrap().path()).collect();
        match left.is_empty() && manifests.is_empty() && self.entry.is_none() && !guard_pod::is_there(&self.host) {
            true => Ok(()),
            false => Err(format!("left: {left:?} {manifests:?} {:?}", self.entry)),
        }
    }

    /// Lets guard run until the machine is what it is to be. After as many changes of the disk as there is `room` for,
    /// nothing more is written, and what is cut ends; then it goes on.
    async fn arrives(&mut self, room: &Arc<Mutex<usize>>, cut: Cut) {
        let (host, reporter) = (self.host.clone(), self.reporter());
        let mut join = Join::new(&host, "c2", &reporter);
        let mut why = String::new();
        for _ in 0..ROUNDS {
            let had_room = *room.lock().unwrap() > 0;
            if had_room {
                self.watches(room);
            }
            let done = self.round(&mut join).await;
            files::watch(None);
            if let Err(error) = done {
                self.say(&error.to_string());
            }
            if had_room && *room.lock().unwrap() == 0 {
                self.ends(cut);
                join = Join::new(&host, "c2", &reporter);
            }
            match self.has_arrived() {
                Ok(()) => return,
                Err(not) => why = not,
            }
        }
        panic!("it does not arrive: {why}\n{}", self.told());
    }

    /// Takes each change of the disk from `room`.
    fn watches(&self, room: &Arc<Mutex<usize>>) {
        let room = room.clone();
        files::watch(Some(Box::new(move |_, _| {
            let mut room = room.lock().unwrap();
            *room = room.saturating_sub(1);
            if *room == 0 { Err(ErrorKind::StorageFull.into()) } else { Ok(()) }
        })));
    }

    /// guard ends, and whatever else does.
    fn ends(&mut self, cut: Cut) {
        self.say(&format!("{cut:?} ends"));
        if cut == Cut::Power {
            self.etcd = None;
        }
    }

    fn reporter(&self) -> Reporter {
        Reporter::plain(Box::new(Log(self.told.clone())), Clock::system())
    }
}

/// What becomes of a machine, one after the other: each is arrived at before the next.
type Way = &'static [fn(&mut Machine)];

fn wipe(machine: &mut Machine) {
    let _ = fs::remove_dir_all(machine.data().dir().join("member"));
}

fn anew(machine: &mut Machine) {
    machine.is_made_anew();
    machine.etcd = None;
}

/// The system's disk is new, and the one of etcd's data is the old one.
fn anew_but_for_its_data(machine: &mut Machine) {
    let (data, aside) = (machine.data().dir(), machine._root.path().join("kept"));
    fs::rename(&data, &aside).unwrap();
    anew(machine);
    fs::remove_dir_all(&data).unwrap();
    fs::rename(&aside, &data).unwrap();
}

fn label(machine: &mut Machine) {
    machine.is_labelled = true;
}

fn unlabel(machine: &mut Machine) {
    machine.is_labelled = false;
}

/// It was off while the others removed its member: by another Node of its name, say.
fn remove(machine: &mut Machine) {
    machine.entry = None;
}

/// The last of each is cut short.
const WAYS: [(&str, Way); 7] = [
    ("it is made", &[label]),
    ("it is unmade", &[label, unlabel]),
    ("it is made again", &[label, unlabel, label]),
    ("its disk is wiped", &[label, wipe]),
    ("it is made anew", &[label, anew]),
    ("it is made anew but for its data", &[label, anew_but_for_its_data]),
    ("its member is removed", &[label, remove]),
];

#[tokio::test(start_paused = true)]
async fn it_converges_after_a_cut_at_every_change_of_the_disk() {
    let shared = shared();
    let untouched = Arc::default();
    for (name, way) in WAYS {
        for changes in 1.. {
            let cut = if changes % 2 == 0 { Cut::Guard } else { Cut::Power };
            let room = Arc::new(Mutex::new(changes));
            let mut machine = Machine::new(&shared);
            machine.say(&format!("{name}, {cut:?} after {changes} changes"));
            for (at, befalls) in way.iter().enumerate() {
                befalls(&mut machine);
                let is_last = at + 1 == way.len();
                machine.arrives(if is_last { &room } else { &untouched }, cut).await;
            }
            if *room.lock().unwrap() > 0 {
                assert!(changes > 10, "{name}: {changes}");
                break;
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn it_converges_after_any_history() {
    let shared = shared();
    let seeds = std::env::var("HOIST_JOINS").ok().and_then(|text| text.parse().ok()).unwrap_or(20);
    for seed in 0..seeds {
        let mut random = Random::new(seed);
        let mut machine = Machine::new(&shared);
        machine.say(&format!("seed {seed}"));
        let (host, reporter) = (machine.host.clone(), machine.reporter());
        let mut join = Join::new(&host, "c2", &reporter);
        for _ in 0..200 {
            let room = Arc::new(Mutex::new(usize::try_from(1 + random.below(40)).unwrap()));
            let is_cut = random.permille(60);
            if is_cut {
                machine.watches(&room);
            }
            let done = machine.round(&mut join).await;
            files::watch(None);
            if let Err(error) = done {
                machine.say(&error.to_string());
            }
            if is_cut {
                machine.ends(random.pick(&[Cut::Guard, Cut::Power]));
                join = Join::new(&host, "c2", &reporter);
            }
            match random.below(400) {
                0 => wipe(&mut machine),
                1 => anew(&mut machine),
                2 => anew_but_for_its_data(&mut machine),
                3 => remove(&mut machine),
                4..8 => machine.is_labelled = !machine.is_labelled,
                8..12 => machine.etcd = None,
                12..20 => {
                    let is_there = machine.api.lock().unwrap().is_ok();
                    *machine.api.lock().unwrap() = if is_there { Err(()) } else { Ok(None) };
                }
                _ => {}
            }
        }
        if machine.api.lock().unwrap().is_err() {
            *machine.api.lock().unwrap() = Ok(None);
        }
        machine.say("calm");
        machine.arrives(&Arc::default(), Cut::Guard).await;
    }
}
