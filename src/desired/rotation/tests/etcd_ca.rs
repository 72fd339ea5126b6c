//! The CA of etcd is rotated in a world of one controller and of three, killed at every act, led back and on. Whatever happens, each
//! member accepts each other and every client, and every client accepts each member: those that run, and those that could begin now.

use super::*;
use crate::desired::rotation::etcd_ca::{API_SERVER, EtcdCa, MEMBER, has_only_to_read, leads_back};
use crate::desired::rotation::{ETCD_CA as CA, ETCD_CA_KEY as CA_KEY, ETCD_CLIENTS as CLIENTS};

/// Whoever shows a certificate, and trusts CAs.
#[derive(Clone, Debug, PartialEq)]
struct Party {
    name: String,
    /// By whom that was issued which it may show.
    shows: BTreeSet<String>,
    trusts: Vec<String>,
}

#[derive(Clone, Debug)]
struct Member {
    /// By whom its certificates are issued: it reads them anew.
    issuer: String,
    /// Whom it trusts, and whom it would trust if it began again.
    trusts: Vec<String>,
    disk: Vec<String>,
}

#[derive(Clone)]
struct Etcd {
    guards_secret: Tls,
    /// That of the API servers.
    secret: Tls,
    directory: Option<Tls>,
    copies: BTreeMap<&'static str, Tls>,
    members: BTreeMap<&'static str, Member>,
    /// Each as it began, with what its Secret has had since: it may show any of it, or all of it still.
    servers: BTreeMap<&'static str, Party>,
    rolls: Vec<&'static str>,
    is_bridged: bool,
    /// The kubelet gives the first pod of a rollout the Secret as it was before.
    lags: Option<Tls>,
    time: u32,
}

fn names(files: &Tls) -> Vec<String> {
    pki::cas(&files[CA], b"").into_iter().map(|ca| ca.name).collect()
}

/// By whom the clients' certificates are issued.
fn issuer(files: &Tls) -> String {
    let issuers = CLIENTS.iter().filter_map(|path| files.get(*path)).map(|pem| {
        let said = pki::inspect(pem).unwrap().issuer;
        said.strip_prefix("CN=").unwrap().to_owned()
    });
    let issuers: BTreeSet<_> = issuers.collect();
    assert_eq!(issuers.len(), 1, "{issuers:?}");
    issuers.into_iter().next().unwrap()
}

/// What a cluster begins with.
fn made() -> Tls {
    let text = "apiVersion: hoist/v1alpha1\nkind: Cluster\ncontrollers:\n- {name: c1, address: 192.0.2.10}\n";
    let cluster = crate::desired::config::parse("f", text, std::path::Path::new("/")).unwrap();
    let mut files = pki::issue(&cluster, &Default::default(), &Default::default(), clock(0).now).unwrap().files;
    files.retain(|path, _| [CA, CA_KEY].contains(&path.as_str()) || CLIENTS.contains(&path.as_str()));
    files
}

fn of_server(files: &Tls) -> Tls {
    files.iter().filter(|(path, _)| [CA, CLIENTS[0]].contains(&path.as_str())).map(owned).collect()
}

fn party(name: impl ToString, files: &Tls) -> Party {
    Party { name: name.to_string(), shows: [issuer(files)].into(), trusts: names(files) }
}

impl Etcd {
    fn new(nodes: &[&'static str]) -> Self {
        let one = made();
        let (secret, trusts) = (of_server(&one), names(&one));
        let member = Member { issuer: issuer(&one), trusts: trusts.clone(), disk: trusts };
        let world = Self {
            copies: nodes.iter().map(|node| (*node, one.clone())).collect(),
            members: nodes.iter().map(|node| (*node, member.clone())).collect(),
            servers: nodes.iter().map(|node| (*node, party(node, &secret))).collect(),
            guards_secret: one.clone(),
            directory: Some(one),
            secret,
            rolls: Vec::new(),
            is_bridged: false,
            lags: None,
            time: 1,
        };
        assert_eq!(world.refused(), None);
        world
    }

    /// Who would refuse whom.
    fn refused(&self) -> Option<String> {
        let mut clients: Vec<_> = self.servers.values().cloned().collect();
        // Those that could begin now: a pod, a bridge, guard, a controller that joins, a command that reads the directory.
        clients.push(party("a pod", &self.secret));
        clients.extend(self.copies.iter().map(|(node, copy)| party(format!("guard of {node}"), copy)));
        clients.push(party("one that joins", &self.guards_secret));
        clients.extend(self.directory.iter().map(|files| party("the directory", files)));
        let peers = self.members.iter().map(|(node, member)| Party {
            name: format!("the member {node}"),
            shows: [member.issuer.clone()].into(),
            trusts: member.trusts.iter().filter(|name| member.disk.contains(name)).cloned().collect(),
        });
        clients.extend(peers);
        for (node, member) in &self.members {
            for client in &clients {
                if !client.trusts.contains(&member.issuer) {
                    return Some(format!("{} does not trust the member {node}: {client:?} {member:?}", client.name));
                }
                // Killed, it would begin with what is on the disk.
                let accepts = |name| member.trusts.contains(name) && member.disk.contains(name);
                if !client.shows.iter().all(accepts) {
                    return Some(format!("the member {node} refuses {}: {client:?} {member:?}", client.name));
                }
            }
        }
        None
    }

    fn observed(&self) -> Observed {
        let behind = self.copies.iter().filter(|(_, copy)| **copy != self.guards_secret);
        let guards_behind: Vec<_> = behind.map(|(node, _)| (*node).to_owned()).collect();
        let rolls = self.rolls.iter().copied().chain(self.is_bridged.then_some("a bridge"));
        let unsettled: Vec<_> = rolls.map(str::to_owned).collect();
        let word = |component, node: &&str, issuer: &str, trusts: &[String]| {
            let said: Vec<_> = [issuer.to_owned()].into_iter().chain(trusts.iter().cloned()).collect();
            let reloads = has_only_to_read(&said, &self.guards_secret);
            Word { component, node: (*node).to_owned(), said: Ok(said), reloads }
        };
        let servers = self.servers.iter().map(|(node, server)| word(API_SERVER, node, "", &server.trusts));
        let members = self.members.iter().map(|(node, member)| word(MEMBER, node, &member.issuer, &member.trusts));
        let is_asked = guards_behind.is_empty() && unsettled.is_empty();
        Observed {
            guards_secret: self.guards_secret.clone(),
            secrets: vec![(API_SERVER, self.secret.clone())],
            directory: self.directory.clone(),
            servers: if is_asked { servers.chain(members).collect() } else { Vec::new() },
            guards_behind,
            unsettled,
            left: None,
            clock: clock(self.time),
        }
    }

    /// Time passes: a guard takes its copy, or issues anew what is its controller's own, or an API server is made anew.
    fn tick(&mut self) {
        self.time += 1;
        let first = |copy: &Tls| names(copy).remove(0);
        if let Some(copy) = self.copies.values_mut().find(|copy| **copy != self.guards_secret) {
            copy.clone_from(&self.guards_secret);
        } else if let Some((node, member)) =
            self.members.iter_mut().find(|(node, member)| member.issuer != first(&self.copies[*node]))
        {
            member.issuer = first(&self.copies[node]);
        } else if let Some(node) = self.rolls.pop() {
            let read = self.lags.take().unwrap_or_else(|| self.secret.clone());
            let mut server = party(node, &read);
            server.shows.insert(issuer(&self.secret));
            self.servers.insert(node, server);
        } else {
            self.is_bridged = false;
        }
    }

    /// The command, until it ends or is killed after so many acts.
    fn run(&mut self, mut asked: Asked, acts: usize) -> Option<Step> {
        let (mut left, mut is_counted) = (acts, false);
        for _ in 0..1000 {
            let mut observed = self.observed();
            let rotation = EtcdCa::of(&observed, asked).unwrap();
            observed.left = is_counted.then(Left::default);
            let seen = seen(&rotation, &observed, asked);
            let step = decide(&seen);
            is_counted = step == Step::Count;
            match &step {
                Step::Wait(_) | Step::Count => {
                    self.tick();
                    assert_eq!(self.refused(), None);
                    continue;
                }
                Step::Nothing | Step::AwaitFinish(_) => return Some(step),
                _ => {}
            }
            if left == 0 {
                return None;
            }
            left -= 1;
            asked = if asked == Asked::Rotate { Asked::Continue } else { asked };
            match step {
                Step::Begin => self.guards_secret = rotation.begun().unwrap().content(Level::Knows).unwrap(),
                Step::WriteGuards(level) => self.guards_secret = rotation.content(level).unwrap(),
                Step::WriteDirectory(level) => self.directory = Some(rotation.content(level).unwrap()),
                Step::WriteSecret(API_SERVER, level) => {
                    let old = std::mem::replace(&mut self.secret, of_server(&rotation.content(level).unwrap()));
                    self.lags = Some(old);
                    for server in self.servers.values_mut() {
                        server.shows.insert(issuer(&self.secret));
                    }
                }
                Step::Roll(API_SERVER) => {
                    (self.rolls, self.is_bridged) = (self.servers.keys().copied().collect(), true)
                }
                Step::Roll(MEMBER) => self.begins_again(),
                step => panic!("{step:?}"),
            }
            assert_eq!(self.refused(), None);
        }
        panic!("it comes to no end");
    }

    /// The first member that does not trust what its guard keeps: its file is written, and it begins again.
    fn begins_again(&mut self) {
        let kept = |node: &str| names(&self.copies[node]);
        let node = *self.members.iter().find(|(node, member)| member.trusts != kept(node)).unwrap().0;
        let trusts = kept(node);
        self.members.get_mut(node).unwrap().disk.clone_from(&trusts);
        assert_eq!(self.refused(), None);
        self.members.get_mut(node).unwrap().trusts = trusts;
    }

    /// Every place has this CA and no other.
    fn has_alone(&self, name: &str) -> bool {
        let places = [&self.guards_secret, &self.secret].into_iter().chain(&self.directory).chain(self.copies.values());
        let mut places = places;
        let in_servers = self.servers.values().all(|server| server.trusts == [name]);
        let in_members = self.members.values().all(|member| member.trusts == [name] && member.issuer == name);
        places.all(|files| names(files) == [name] && issuer(files) == name) && in_servers && in_members
    }

    fn issues(&self) -> String {
        issuer(&self.secret)
    }
}

const SIZES: [&[&str]; 2] = [&["c1"], &["c1", "c2", "c3"]];

#[test]
fn a_rotation_of_etcds_ca_is_two_runs() {
    for nodes in SIZES {
        let mut world = Etcd::new(nodes);
        let old = world.issues();
        assert_eq!(world.run(Asked::Continue, 99), Some(Step::Nothing));
        assert!(awaits(world.run(Asked::Rotate, 99)));
        let new = world.issues();
        assert!(new != old && new.starts_with("etcd-ca-") && names(&world.secret).len() == 2);
        assert!(world.members.values().all(|member| member.issuer == new && member.trusts.len() == 2));
        assert!(awaits(world.run(Asked::Rotate, 99)), "it begins no second one");
        // A member that drops the old one before each API server has begun again may refuse one.
        let mut early = world.clone();
        let member = early.members.get_mut("c1").unwrap();
        (member.trusts, member.disk) = (vec![new.clone()], vec![new.clone()]);
        assert!(early.refused().unwrap().starts_with("the member c1 refuses"));
        assert_eq!(world.run(Asked::Finish, 99), Some(Step::Nothing));
        assert!(world.has_alone(&new));
        for asked in [Asked::Finish, Asked::Abort, Asked::Continue] {
            assert_eq!(world.run(asked, 99), Some(Step::Nothing));
        }
        assert!(awaits(world.run(Asked::Rotate, 99)), "and the next");
        assert_eq!(world.run(Asked::Abort, 99), Some(Step::Nothing));
        assert!(world.has_alone(&new), "{nodes:?}");
    }
}

#[test]
fn killed_at_any_act_a_rotation_of_etcds_ca_goes_on_or_back() {
    for nodes in SIZES {
        for killed in 0.. {
            let mut is_over = false;
            for asked in [Asked::Finish, Asked::Abort] {
                let mut world = Etcd::new(nodes);
                let old = world.issues();
                is_over = world.run(Asked::Rotate, killed).is_some();
                assert_eq!(world.run(asked, 99), Some(Step::Nothing), "{nodes:?} {killed} {asked:?}");
                assert!(world.has_alone(&world.issues()), "{nodes:?} {killed} {asked:?}");
                let is_old = world.issues() == old;
                assert_eq!(is_old, killed == 0 || asked == Asked::Abort, "{nodes:?} {killed} {asked:?}");
            }
            if is_over {
                assert!(killed >= 8 + nodes.len(), "{killed}");
                break;
            }
        }
    }
}

#[test]
fn a_killed_finish_or_way_back_of_etcds_ca_is_gone_on_with_or_turned() {
    for nodes in SIZES {
        let mut rotated = Etcd::new(nodes);
        assert!(awaits(rotated.run(Asked::Rotate, 99)));
        for begun in [Asked::Finish, Asked::Abort] {
            for killed in 0.. {
                let mut is_over = false;
                for asked in [Asked::Finish, Asked::Abort] {
                    let mut world = rotated.clone();
                    is_over = world.run(begun, killed).is_some();
                    assert_eq!(world.run(asked, 99), Some(Step::Nothing), "{nodes:?} {begun:?} {killed} {asked:?}");
                    assert!(world.has_alone(&world.issues()), "{nodes:?} {begun:?} {killed} {asked:?}");
                }
                if is_over {
                    break;
                }
            }
        }
    }
}

#[test]
fn a_server_begins_again_only_for_whom_it_trusts() {
    let mut rotated = Etcd::new(&["c1"]);
    let old = rotated.issues();
    assert!(awaits(rotated.run(Asked::Rotate, 99)));
    let new = rotated.issues();
    let (kept, rotation) = (&rotated.guards_secret, EtcdCa::of(&rotated.observed(), Asked::Rotate).unwrap());
    for (component, said, level, reads) in [
        (MEMBER, vec![], Level::Lacks, false),
        (MEMBER, vec![&old, &old], Level::Lacks, false),
        (MEMBER, vec![&old, &old, &new], Level::Knows, true),
        (MEMBER, vec![&new, &new, &old], Level::Uses, true),
        (MEMBER, vec![&new, &new], Level::Alone, false),
        (API_SERVER, vec![&old, &old], Level::Lacks, false),
        (API_SERVER, vec![&old, &old, &new], Level::Uses, true),
        (API_SERVER, vec![&new, &new], Level::Alone, false),
    ] {
        let said: Vec<String> = said.into_iter().cloned().collect();
        assert_eq!(rotation.level_of_server(component, &said), level, "{component} {said:?}");
        assert_eq!(has_only_to_read(&said, kept), reads, "{component} {said:?}");
    }
}

#[test]
fn what_is_not_its_own_is_refused() {
    let world = Etcd::new(&["c1"]);
    let said = |edit: &dyn Fn(&mut Observed)| {
        let mut seen = world.observed();
        edit(&mut seen);
        EtcdCa::of(&seen, Asked::Rotate).err().map(|error| error.to_string()).unwrap_or_default()
    };
    assert_eq!(said(&|_| {}), "");
    for path in [CA, CA_KEY, CLIENTS[1]] {
        let text = said(&|seen| drop(seen.guards_secret.remove(path)));
        assert!(text.contains(path) && text.contains("not there") == (path == CA_KEY), "{path}: {text}");
    }
    let other = made();
    let text = said(&|seen| seen.secrets = vec![(API_SERVER, of_server(&other))]);
    assert!(text.contains("has no CA of those that guard's Secret has"), "{text}");
    let (crt, _) = pki::etcd_ca(clock(60).cas, clock(60).now).unwrap();
    let text = said(&|seen| drop(seen.directory.as_mut().unwrap().insert(CA.into(), crt.clone().into())));
    assert!(text.contains("which the cluster has not"), "{text}");
}

#[test]
fn a_directory_of_before_leads_it_back() {
    let mut world = Etcd::new(&["c1"]);
    let older = world.directory.clone().unwrap();
    assert!(awaits(world.run(Asked::Rotate, 99)));
    let said = leads_back(&world.guards_secret, &older).unwrap_or_default();
    assert!(said.contains("has the CA etcd-ca, and lacks etcd-ca-"), "{said}");
    let between = world.directory.clone().unwrap();
    assert_eq!(leads_back(&world.guards_secret, &between), None);
    assert_eq!(world.run(Asked::Finish, 99), Some(Step::Nothing));
    let said = leads_back(&world.guards_secret, &between).unwrap_or_default();
    assert!(said.contains("still has the CA etcd-ca, which the cluster has dropped"), "{said}");
    assert_eq!(leads_back(&world.guards_secret, &world.directory.clone().unwrap()), None);
}
