//! etcd's members on the etcd that the nodes have: three processes on three addresses of a loopback, with certificates of
//! hoist's own, become three voters of one, lose a disk, and become one again, by hoist's decision and client; meanwhile a
//! client writes without pause, and nothing that was acknowledged is lost. It needs no node.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use hoist::base::grpc::Connection;
use hoist::desired::secrets::Tls;
use hoist::etcd::client::{self, List, Member, MemberId, Sort};
use hoist::etcd::members::{Act, Change, Data, Observed, Report, Wanted, Watch, ask, decide, make};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::Signal;
use prost::Message;

use crate::support::beside::{Beside, StopSignal};
use crate::support::cache;
use crate::support::cluster::render;
use crate::support::command::{Running, run};
use crate::support::http::runtime;

/// Of one question.
const LIMIT: Duration = Duration::from_secs(2);
/// Of each part of the test.
const PART: Duration = Duration::from_secs(120);
const SECOND: Duration = Duration::from_secs(1);
const NAMES: [&str; 3] = ["c1", "c2", "c3"];
/// What the writer's keys begin with, and what comes after all of them.
const FIRST_KEY: &str = "written/";
const AFTER_KEYS: &str = "written0";

#[derive(Message)]
struct PutRequest {
    #[prost(bytes = "vec", tag = "1")]
    key: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

#[derive(Message)]
struct RangeRequest {
    #[prost(bytes = "vec", tag = "1")]
    key: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    range_end: Vec<u8>,
    #[prost(bool, tag = "8")]
    keys_only: bool,
}

#[derive(Message)]
struct RangeResponse {
    #[prost(message, repeated, tag = "2")]
    kvs: Vec<KeyValue>,
}

#[derive(Message)]
struct KeyValue {
    #[prost(bytes = "vec", tag = "1")]
    key: Vec<u8>,
}

#[derive(Message)]
struct Empty {}

fn client_address(number: usize) -> SocketAddr {
    ([10, 77, 0, number as u8 + 1], 2379).into()
}

fn peer_url(number: usize) -> String {
    format!("https://10.77.0.{}:2380", number + 1)
}

/// The machines, each with a folder for etcd's data and perhaps a process.
struct Machines {
    folder: PathBuf,
    tls: PathBuf,
    program: PathBuf,
    processes: [Option<Running>; 3],
    /// How they ended that ended by themselves.
    ended: BTreeMap<usize, Option<i32>>,
}

impl Machines {
    fn data(&self, number: usize) -> PathBuf {
        self.folder.join(NAMES[number])
    }

    /// Starts etcd with the flags of its static pod, as one of these members.
    fn start(&mut self, number: usize, members: &[usize], state: &str) {
        let (name, address, peer) = (NAMES[number], client_address(number), peer_url(number));
        let file = |name: &str| self.tls.join(name).display().to_string();
        let own = |role: &str| file(&format!("etcd/{name}/{role}"));
        let cluster: Vec<_> = members.iter().map(|one| format!("{}={}", NAMES[*one], peer_url(*one))).collect();
        let flags = [
            ("name", name.to_owned()),
            ("data-dir", self.data(number).display().to_string()),
            ("advertise-client-urls", format!("https://{address}")),
            ("listen-client-urls", format!("https://{address}")),
            ("initial-advertise-peer-urls", peer.clone()),
            ("listen-peer-urls", peer),
            ("initial-cluster", cluster.join(",")),
            ("initial-cluster-state", state.to_owned()),
            ("cert-file", own("server.crt")),
            ("key-file", own("server.key")),
            ("client-cert-auth", "true".into()),
            ("trusted-ca-file", file("etcd/ca.crt")),
            ("peer-cert-file", own("peer.crt")),
            ("peer-key-file", own("peer.key")),
            ("peer-client-cert-auth", "true".into()),
            ("peer-trusted-ca-file", file("etcd/ca.crt")),
            // On one machine all would call from the address that they call.
            ("feature-gates", "SetMemberLocalAddr=true".into()),
        ];
        // Where the test itself is killed, this ends too.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL"]).arg(&self.program);
        command.args(flags.iter().map(|(name, value)| format!("--{name}={value}")));
        self.processes[number] = Some(Running::spawn(&mut command, ""));
    }

    /// Its power fails, and its disk with it.
    fn lose(&mut self, number: usize) {
        if let Some(process) = self.processes[number].take() {
            process.signal(Signal::SIGKILL);
            process.wait(PART);
        }
        std::fs::remove_dir_all(self.data(number)).unwrap();
    }

    /// What the guard of each machine does: it starts etcd where a learner's entry waits for it. How a process ended that
    /// ended by itself is kept.
    fn guards(&mut self, list: Option<&List>) {
        for (number, name) in NAMES.iter().enumerate() {
            if let Some(process) = &mut self.processes[number]
                && process.has_ended()
            {
                let ended = self.processes[number].take().unwrap().wait(PART);
                if ended.code != Some(0) {
                    eprintln!("{name} has ended: {:?}", ended.stderr.lines().last());
                }
                self.ended.insert(number, ended.code);
            }
            let of = |member: &&Member| member.peer_urls.contains(&peer_url(number));
            let Some(list) = list else { continue };
            let is_new =
                list.members.values().find(of).is_some_and(|member| member.is_learner && member.name.is_empty());
            if is_new && self.processes[number].is_none() {
                let urls: BTreeSet<_> = list.members.values().flat_map(|member| &member.peer_urls).collect();
                let members: Vec<_> = (0..NAMES.len()).filter(|one| urls.contains(&peer_url(*one))).collect();
                self.start(number, &members, "existing");
            }
        }
    }

    fn wanted(&self, number: usize, observed: &BTreeMap<usize, MemberId>) -> Wanted {
        let uid = format!("uid-{number}");
        let data = match observed.get(&number) {
            _ if !self.data(number).exists() => Some(Data::Empty),
            Some(id) => Some(Data::Of(*id)),
            None => None,
        };
        let report = data.map(|data| Report { uid: uid.clone(), data });
        Wanted { name: NAMES[number].into(), uid, peer_url: peer_url(number), report }
    }
}

/// What came of the writes.
#[derive(Default)]
struct Writes {
    acknowledged: BTreeSet<String>,
    failed: Vec<String>,
    longest: Duration,
}

/// Writes a key every 20 ms, one after the other, at whichever member takes it.
fn write(signal: &StopSignal, tls: &Tls) -> Writes {
    runtime().block_on(async {
        let mut writes = Writes::default();
        let mut connection: Option<Connection> = None;
        let (mut at, mut number, mut last) = (0, 0, Instant::now());
        while !signal.to_stop() {
            let key = format!("{FIRST_KEY}{number:08}");
            number += 1;
            match put(&mut connection, client_address(at), tls, &key).await {
                Ok(()) => {
                    writes.acknowledged.insert(key);
                    writes.longest = writes.longest.max(last.elapsed());
                    last = Instant::now();
                }
                Err(why) => {
                    writes.failed.push(format!("{key} at {}: {why}", NAMES[at]));
                    (connection, at) = (None, (at + 1) % NAMES.len());
                }
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        writes
    })
}

async fn put(connection: &mut Option<Connection>, address: SocketAddr, tls: &Tls, key: &str) -> Result<(), String> {
    let put = async {
        if connection.is_none() {
            *connection = Some(client::connect(address, tls).await?);
        }
        let connection = connection.as_mut().ok_or("no connection")?;
        let question = PutRequest { key: key.into(), value: vec![b'x'; 512] };
        let Empty {} = connection.call("etcdserverpb.KV", "Put", &question).await.map_err(|why| why.to_string())?;
        Ok(())
    };
    tokio::time::timeout(LIMIT, put).await.unwrap_or_else(|_| Err("no answer in time".into()))
}

/// All keys of the writer's that a member has.
async fn keys(address: SocketAddr, tls: &Tls) -> BTreeSet<String> {
    let mut connection = client::connect(address, tls).await.unwrap();
    let question = RangeRequest { key: FIRST_KEY.into(), range_end: AFTER_KEYS.into(), keys_only: true };
    let answer: RangeResponse = connection.call("etcdserverpb.KV", "Range", &question).await.unwrap();
    answer.kvs.into_iter().map(|pair| String::from_utf8(pair.key).unwrap()).collect()
}

/// The one who looks, decides and acts, once a second.
struct Acting {
    tls: Tls,
    watch: Watch,
    begun: Instant,
    /// Which member each machine had when it was seen last.
    known: BTreeMap<usize, MemberId>,
    said: String,
    changes: Vec<Change>,
    refused: Vec<String>,
}

impl Acting {
    async fn look(&mut self, machines: &mut Machines, wanted: &[usize]) -> Observed {
        let others: Vec<_> = (0..NAMES.len()).map(client_address).collect();
        let asked = ask(others[wanted[0]], &others, &self.tls, LIMIT).await;
        for (id, answer) in &asked.answers {
            let number = others.iter().position(|address| *address == answer.address).unwrap();
            self.known.insert(number, *id);
        }
        machines.guards(asked.lists.first());
        let wanted = wanted.iter().map(|number| machines.wanted(*number, &self.known)).collect();
        self.watch.observed(asked, wanted, tokio::time::Instant::now())
    }

    /// Until nothing is left to do.
    async fn until_as_wanted(&mut self, machines: &mut Machines, wanted: &[usize]) {
        let begun = Instant::now();
        loop {
            let observed = self.look(machines, wanted).await;
            let act = decide(&observed);
            let said = format!("{act:?}");
            let plain = |text: &str| text.replace(|c: char| c.is_ascii_digit(), "");
            if plain(&said) != plain(&self.said) {
                eprintln!("{:6.1?} {said}", self.begun.elapsed());
            }
            self.said = said;
            match act {
                Act::Nothing => return,
                Act::Wait(_) => {}
                Act::Make { at, change, .. } => {
                    let result = make(&observed, at, &change, &self.tls, 5 * LIMIT).await;
                    self.watch.came_to(at, &result);
                    match result {
                        Ok(()) => self.changes.push(change),
                        Err(failed) => {
                            eprintln!("{:6.1?} {:?}: {failed}", self.begun.elapsed(), failed.sort);
                            assert_ne!(failed.sort, Sort::Refused, "{failed}");
                            self.refused.push(failed.to_string());
                        }
                    }
                }
            }
            assert!(begun.elapsed() < PART, "not within {PART:?}: {}", self.said);
            tokio::time::sleep(SECOND).await;
        }
    }
}

fn version() -> String {
    let default = || hoist::desired::config::KUBERNETES_VERSION.trim_start_matches('v').to_owned();
    std::env::var("HOIST_KUBERNETES").ok().filter(|version| !version.is_empty()).unwrap_or_else(default)
}

/// The content of tls/, by path below it.
fn read(folder: &Path, below: &str, tls: &mut Tls) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        let name = format!("{below}{}", entry.file_name().to_string_lossy());
        match entry.path().is_dir() {
            true => read(&entry.path(), &format!("{name}/"), tls),
            false => drop(tls.insert(name, std::fs::read(entry.path()).unwrap())),
        }
    }
}

#[test]
fn etcd_members() {
    // A network of this thread's own, and of what it starts, that is gone with them.
    std::thread::spawn(grow_and_shrink).join().unwrap();
}

fn grow_and_shrink() {
    unshare(CloneFlags::CLONE_NEWNET).unwrap();
    run(Command::new("ip").args(["link", "set", "lo", "up"]), SECOND * 10).ok();
    for number in 0..NAMES.len() {
        let address = format!("{}/32", client_address(number).ip());
        run(Command::new("ip").args(["address", "add", &address, "dev", "lo"]), SECOND * 10).ok();
    }
    let folder = tempfile::tempdir().unwrap();
    let controllers: String = (0..NAMES.len())
        .map(|number| format!("- name: {}\n  address: {}\n", NAMES[number], client_address(number).ip()))
        .collect();
    let declaration = format!("apiVersion: hoist/v1alpha1\nkind: Cluster\ncontrollers:\n{controllers}");
    let assets = folder.path().join("assets");
    render(&declaration, &assets).ok();
    let mut tls = Tls::new();
    read(&assets.join("tls"), "", &mut tls);

    let mut machines = Machines {
        folder: folder.path().to_owned(),
        tls: assets.join("tls"),
        program: cache().join(format!("kubernetes/v{}/bin/etcd", version())),
        processes: [None, None, None],
        ended: BTreeMap::new(),
    };
    machines.start(0, &[0], "new");
    let writer = {
        let tls = tls.clone();
        Beside::begin(move |signal| write(&signal, &tls))
    };
    let mut acting = Acting {
        tls: tls.clone(),
        watch: Watch::default(),
        begun: Instant::now(),
        known: BTreeMap::new(),
        said: String::new(),
        changes: Vec::new(),
        refused: Vec::new(),
    };
    let kinds = |changes: &[Change]| -> Vec<_> {
        changes
            .iter()
            .map(|change| match change {
                Change::Add(_) => "add",
                Change::Promote(_) => "promote",
                Change::MoveLeader(_) => "move leadership",
                Change::Remove(_) => "remove",
            })
            .collect()
    };
    runtime().block_on(async {
        acting.until_as_wanted(&mut machines, &[0]).await;
        assert!(acting.changes.is_empty(), "one is one: {:?}", acting.changes);

        acting.until_as_wanted(&mut machines, &[0, 1, 2]).await;
        assert_eq!(kinds(&acting.changes), ["add", "promote", "add", "promote"]);
        let three = acting.begun.elapsed();

        acting.changes.clear();
        assert_eq!(acting.refused, [""; 0], "what had to wait has waited");
        machines.lose(1);
        acting.until_as_wanted(&mut machines, &[0, 1, 2]).await;
        assert_eq!(kinds(&acting.changes), ["remove", "add", "promote"], "its disk was lost");
        let again = acting.begun.elapsed();

        // The one that began it all goes, too.
        acting.changes.clear();
        acting.until_as_wanted(&mut machines, &[2]).await;
        let removed = kinds(&acting.changes);
        assert_eq!(removed.iter().filter(|kind| **kind == "remove").count(), 2, "{removed:?}");
        eprintln!(
            "three voters after {three:.1?}, again after {again:.1?}, one after {:.1?}; refused: {:?}",
            acting.begun.elapsed(),
            acting.refused
        );
        let observed = acting.look(&mut machines, &[2]).await;
        let voters: Vec<_> = observed.lists[0].members.values().map(|member| &*member.name).collect();
        assert_eq!(voters, ["c3"]);

        // What was removed ends by itself, and well.
        let begun = Instant::now();
        while machines.ended.len() < 2 && begun.elapsed() < PART {
            machines.guards(None);
            tokio::time::sleep(SECOND / 10).await;
        }
        assert_eq!(machines.ended, BTreeMap::from([(0, Some(0)), (1, Some(0))]));
    });

    let writes = writer.end();
    let there = runtime().block_on(keys(client_address(2), &tls));
    let lost: Vec<_> = writes.acknowledged.difference(&there).collect();
    eprintln!(
        "{} writes acknowledged, {} lost, {} refused or unanswered; longest gap {:.2?}",
        writes.acknowledged.len(),
        lost.len(),
        writes.failed.len(),
        writes.longest
    );
    writes.failed.iter().take(10).for_each(|failed| eprintln!("  {failed}"));
    assert!(lost.is_empty(), "acknowledged, and lost: {lost:?}");
    assert!(writes.acknowledged.len() > 200, "it has hardly written");
}
