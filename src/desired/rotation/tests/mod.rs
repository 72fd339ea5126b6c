//! The whole of a rotation in a world of two controllers, killed at every act, led back and on; whatever happens, every API
//! server and every bridge that could be raised accepts all that any of them has written or signed.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use super::encryption::{self, file_sum};
use super::front_proxy::{AGGREGATED, CONFIG_MAP};
use super::service_account::{API_SERVER, CONTROLLER_MANAGER};
use super::*;
use crate::desired::pki::{self, ENCRYPTION};
use crate::desired::secrets::Tls;

mod etcd_ca;
mod front_proxy;
mod service_account;

const NODES: [&str; 2] = ["c1", "c2"];
const ALL: [Keys; 3] = [Keys::EncryptionKey, Keys::ServiceAccount, Keys::FrontProxyCa];

/// What a place has that was never rotated.
fn first(keys: Keys) -> Tls {
    match keys {
        Keys::EncryptionKey => Tls::from([(ENCRYPTION.into(), encryption::made(&[("key1", 1)]))]),
        Keys::ServiceAccount => {
            let (private, public) = pki::signing_pair().unwrap();
            Tls::from([(SIGNING.into(), private.into()), (PUBLIC.into(), public.into())])
        }
        Keys::EtcdCa => unreachable!("it has a world of its own"),
        Keys::FrontProxyCa => {
            let Clock { now, cas, leaves } = clock(0);
            let (crt, key) = pki::front_proxy_ca(cas, now).unwrap();
            let (client_key, _) = pki::signing_pair().unwrap();
            let ca = pki::cas(crt.as_bytes(), key.as_bytes()).remove(0);
            let client = pki::front_proxy_client(client_key.as_bytes(), &ca, leaves, now, now).unwrap();
            let files = [(CA, crt.into()), (CA_KEY, key.into()), (CLIENT, client), (CLIENT_KEY, client_key.into())];
            files.map(|(path, content)| (path.to_owned(), content)).into()
        }
    }
}

/// So many seconds after the beginning.
fn clock(seconds: u32) -> Clock {
    let begun = time::OffsetDateTime::from_unix_timestamp(1_782_907_200).unwrap();
    let day = std::time::Duration::from_hours(24);
    Clock { now: begun + time::Duration::seconds(seconds.into()), cas: day * 3650, leaves: day * 365 }
}

/// By which key a server with these files writes or signs, and what it accepts.
fn uses(keys: Keys, files: &Tls) -> (String, Vec<String>) {
    thread_local! {
        /// What was read before: the world asks for the same again and again.
        static KNOWN: RefCell<BTreeMap<Tls, (String, Vec<String>)>> = RefCell::default();
    }
    let read = || match keys {
        Keys::EncryptionKey => {
            let names = encryption::names(&files[ENCRYPTION]);
            (names[0].clone(), names)
        }
        Keys::ServiceAccount => {
            let signs = pki::key_ids(&files[SIGNING]).remove(0);
            // One that accepts nothing but signs, as the controller manager, is as good as all.
            (signs.clone(), files.get(PUBLIC).map_or(vec![signs], |public| pki::key_ids(public)))
        }
        Keys::EtcdCa => unreachable!("it has a world of its own"),
        Keys::FrontProxyCa => {
            let cas = pki::cas(&files[CA], b"");
            let issued =
                |ca: &&pki::Ca| files.get(CLIENT).is_none_or(|client| pki::is_issued_by(ca.crt.as_bytes(), client));
            let shows = cas.iter().find(issued).expect("one of them has issued it").name.clone();
            (shows, cas.into_iter().map(|ca| ca.name).collect())
        }
    };
    KNOWN.with_borrow_mut(|known| known.entry(files.clone()).or_insert_with(read).clone())
}

#[derive(Clone)]
struct World {
    keys: Keys,
    guards_secret: Tls,
    secrets: BTreeMap<&'static str, Tls>,
    directory: Option<Tls>,
    copies: BTreeMap<&'static str, Tls>,
    /// The API servers.
    servers: BTreeMap<&'static str, Tls>,
    /// The controller manager that leads.
    leader: Option<Tls>,
    /// Whom aggregated API servers are told to trust, and whom one of them does.
    told: Option<Tls>,
    aggregated: Option<Tls>,
    /// How late it is, in seconds.
    time: u32,
    /// A bridge answers in the place of all of them.
    is_bridged: bool,
    /// Those that a rollout has yet to come to.
    rolls: Vec<&'static str>,
    /// The kubelet gives the first pod of a rollout the Secret as it was before.
    lags: Option<Tls>,
    /// By which keys there is something: values in etcd, tokens.
    written: BTreeSet<String>,
}

impl World {
    fn new(keys: Keys) -> Self {
        let one = first(keys);
        let all = || NODES.map(|node| (node, one.clone())).into();
        let secret = |files: &[&str]| one.iter().filter(|(path, _)| files.contains(&&***path)).map(owned).collect();
        let mut world = Self {
            keys,
            guards_secret: one.clone(),
            secrets: keys.secrets().iter().map(|(name, files)| (*name, secret(files))).collect(),
            directory: Some(one.clone()),
            copies: all(),
            servers: all(),
            leader: (keys == Keys::ServiceAccount).then(|| secret(&[SIGNING])),
            told: (keys == Keys::FrontProxyCa).then(|| secret(&[CA])),
            aggregated: (keys == Keys::FrontProxyCa).then(|| secret(&[CA])),
            time: 1,
            is_bridged: false,
            rolls: Vec::new(),
            lags: None,
            written: BTreeSet::new(),
        };
        world.serve();
        world
    }

    fn observed(&self) -> Observed {
        let behind = self.copies.iter().filter(|(_, copy)| **copy != self.guards_secret);
        let said = |files: &Tls| match self.keys {
            Keys::EncryptionKey => vec![file_sum(&files[ENCRYPTION])],
            Keys::ServiceAccount => {
                let (signs, accepts) = uses(self.keys, files);
                [signs].into_iter().chain(accepts).collect()
            }
            // A server trusts others, too.
            Keys::EtcdCa => unreachable!("it has a world of its own"),
            Keys::FrontProxyCa => ["kubernetes".to_owned()].into_iter().chain(uses(self.keys, files).1).collect(),
        };
        let guards_behind: Vec<_> = behind.map(|(node, _)| (*node).to_owned()).collect();
        let rolls = self.rolls.iter().copied().chain(self.is_bridged.then_some("a bridge"));
        let unsettled: Vec<_> = rolls.map(str::to_owned).collect();
        let word = |component, node: &str, files: &Tls| {
            let said = said(files);
            let lacks = |held: &Tls| uses(self.keys, held).1.iter().any(|name| !said.contains(name));
            let reloads = match component {
                CONFIG_MAP => lacks(&self.guards_secret),
                _ => self.keys == Keys::FrontProxyCa,
            };
            Word { component, node: node.to_owned(), said: Ok(said), reloads }
        };
        let servers = self.servers.iter().map(|(node, files)| word(API_SERVER, node, files));
        let leader = self.leader.iter().map(|files| word(CONTROLLER_MANAGER, "leader", files));
        let told = self.told.iter().map(|files| word(CONFIG_MAP, "kube-system", files));
        let aggregated = self.aggregated.iter().map(|files| word(AGGREGATED, "one", files));
        let is_asked = guards_behind.is_empty() && unsettled.is_empty();
        Observed {
            guards_secret: self.guards_secret.clone(),
            secrets: self.keys.secrets().iter().map(|(name, _)| (*name, self.secrets[name].clone())).collect(),
            directory: self.directory.clone(),
            servers: if is_asked { servers.chain(leader).chain(told).chain(aggregated).collect() } else { Vec::new() },
            guards_behind,
            unsettled,
            left: None,
            clock: clock(self.time),
        }
    }

    /// Time passes: one guard takes its copy, one API server is made anew; whoever may serve writes, and all read.
    fn tick(&mut self) {
        self.time += 1;
        if let Some(copy) = self.copies.values_mut().find(|copy| **copy != self.guards_secret) {
            copy.clone_from(&self.guards_secret);
        } else if self.keys == Keys::FrontProxyCa {
            self.reread();
        } else if let Some(node) = self.rolls.pop() {
            let read = self.lags.take().unwrap_or_else(|| self.secrets[API_SERVER].clone());
            self.servers.insert(node, read);
        } else {
            self.is_bridged = false;
        }
        self.serve();
    }

    /// An API server reads its Secret anew, and adds what it trusts to what aggregated ones are told; then one of those reads that.
    fn reread(&mut self) {
        let secret = &self.secrets[API_SERVER];
        let told = self.told.as_mut().unwrap();
        let Some(server) = self.servers.values_mut().find(|server| *server != secret) else {
            self.aggregated = self.told.clone();
            return;
        };
        server.clone_from(secret);
        for ca in pki::cas(&secret[CA], b"") {
            if !pki::cas(&told[CA], b"").contains(&ca) {
                told.get_mut(CA).unwrap().extend(ca.crt.into_bytes());
            }
        }
    }

    fn serve(&mut self) {
        if self.keys == Keys::FrontProxyCa {
            // What is shown is not kept.
            self.written.clear();
        }
        let mut servers: Vec<_> =
            self.servers.values().chain(self.copies.values()).map(|files| uses(self.keys, files)).collect();
        self.written.extend(servers.iter().map(|(writes, _)| writes.clone()));
        self.written.extend(self.leader.iter().map(|files| uses(self.keys, files).0));
        servers.extend(self.aggregated.iter().map(|files| uses(self.keys, files)));
        for (_, accepts) in servers {
            assert!(
                self.written.iter().all(|key| accepts.contains(key)),
                "{accepts:?} lacks one of {:?}",
                self.written
            );
        }
    }

    /// What nobody writes any more ends.
    fn expire(&mut self) {
        self.written.clear();
        self.serve();
    }

    /// What is still of another key than the one that stays: Secrets can be made anew, tokens cannot.
    fn left(&self, rotation: &dyn Rotation) -> Left {
        match self.keys {
            Keys::EncryptionKey => {
                let others = self.written.iter().filter(|key| **key != rotation.staying()).count();
                Left { others: others as u64, held: Vec::new() }
            }
            Keys::FrontProxyCa | Keys::EtcdCa => Left::default(),
            Keys::ServiceAccount if rotation.is_unused() => Left::default(),
            Keys::ServiceAccount => {
                let others = self.written.iter().filter(|key| **key != rotation.mark());
                Left { others: 0, held: others.cloned().collect() }
            }
        }
    }

    /// What the command does, until it ends, or is killed after so many acts. How it ended.
    fn run(&mut self, mut asked: Asked, acts: usize) -> Option<Step> {
        let mut left = acts;
        let mut is_counted = false;
        for _ in 0..1000 {
            let mut observed = self.observed();
            let rotation = rotation(self.keys, &observed, asked).unwrap();
            observed.left = is_counted.then(|| self.left(&*rotation));
            is_counted = false;
            let step = decide(&seen(&*rotation, &observed, asked));
            match &step {
                Step::Wait(_) | Step::Count => {
                    is_counted = step == Step::Count;
                    self.tick();
                    continue;
                }
                Step::Held(_) => {
                    self.expire();
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
                Step::WriteSecret(name, level) => {
                    let mut new = rotation.content(level).unwrap();
                    let there = self.secrets.get_mut(name).unwrap();
                    new.retain(|path, _| there.contains_key(path));
                    let old = std::mem::replace(there, new);
                    if name == API_SERVER {
                        self.lags = Some(old);
                    }
                }
                Step::Roll(CONFIG_MAP) => self.told = Some(owned_only(&self.secrets[API_SERVER], CA)),
                Step::Roll(API_SERVER) => (self.rolls, self.is_bridged) = (NODES.into(), true),
                Step::Roll(_) => self.leader = Some(self.secrets[CONTROLLER_MANAGER].clone()),
                Step::Rewrite => self.written = BTreeSet::from([uses(self.keys, &self.servers["c1"]).0]),
                step => panic!("{step:?}"),
            }
            self.serve();
        }
        panic!("it comes to no end");
    }

    /// Every place has this key and no other, and so has all that is written.
    fn has_alone(&self, key: &str) -> bool {
        let places = [&self.guards_secret].into_iter().chain(&self.directory).chain(self.secrets.values());
        let mut places = places.chain(self.copies.values()).chain(self.servers.values()).chain(&self.leader);
        let mut places = places.by_ref().chain(&self.told).chain(&self.aggregated);
        places.all(|files| uses(self.keys, files).1 == [key]) && self.written.iter().all(|written| written == key)
    }

    fn key(&self) -> String {
        uses(self.keys, &self.secrets[API_SERVER]).0
    }

    fn accepted(&self) -> usize {
        uses(self.keys, &self.secrets[API_SERVER]).1.len()
    }
}

fn owned((path, content): (&String, &Vec<u8>)) -> (String, Vec<u8>) {
    (path.clone(), content.clone())
}

fn owned_only(files: &Tls, path: &str) -> Tls {
    Tls::from([(path.to_owned(), files[path].clone())])
}

fn awaits(step: Option<Step>) -> bool {
    matches!(step, Some(Step::AwaitFinish(_)))
}

#[test]
fn a_rotation_is_two_runs() {
    for keys in ALL {
        let mut world = World::new(keys);
        let old = world.key();
        assert_eq!(world.run(Asked::Continue, 99), Some(Step::Nothing));
        assert!(awaits(world.run(Asked::Rotate, 99)));
        let new = world.key();
        assert!(new != old && world.accepted() == 2);
        assert!(awaits(world.run(Asked::Rotate, 99)), "it begins no second one");
        assert_eq!(world.run(Asked::Finish, 99), Some(Step::Nothing));
        assert!(world.has_alone(&new));
        for asked in [Asked::Finish, Asked::Abort, Asked::Continue] {
            assert_eq!(world.run(asked, 99), Some(Step::Nothing));
        }
        // And the next.
        assert!(awaits(world.run(Asked::Rotate, 99)));
        assert_eq!(world.run(Asked::Abort, 99), Some(Step::Nothing));
        assert!(world.has_alone(&new), "{keys:?}");
    }
}

#[test]
fn killed_at_any_act_it_goes_on_or_back() {
    for keys in ALL {
        for killed in 0.. {
            let mut is_over = false;
            for asked in [Asked::Finish, Asked::Abort] {
                let mut world = World::new(keys);
                let old = world.key();
                is_over = world.run(Asked::Rotate, killed).is_some();
                let step = world.run(asked, 99);
                assert_eq!(step, Some(Step::Nothing), "{keys:?} {killed} {asked:?}");
                assert!(world.has_alone(&world.key()), "{keys:?} {killed} {asked:?}");
                assert_eq!(world.key() == old, killed == 0 || asked == Asked::Abort, "{keys:?} {killed} {asked:?}");
            }
            if is_over {
                assert!(killed >= 9, "{killed}");
                break;
            }
        }
    }
}

#[test]
fn a_finish_or_a_way_back_that_is_killed_is_gone_on_with_or_turned() {
    for keys in ALL {
        let mut rotated = World::new(keys);
        let old = rotated.key();
        assert!(awaits(rotated.run(Asked::Rotate, 99)));
        let new = rotated.key();
        for begun in [Asked::Finish, Asked::Abort] {
            for killed in 0.. {
                let mut is_over = false;
                for asked in [Asked::Finish, Asked::Abort, Asked::Rotate] {
                    let mut world = rotated.clone();
                    is_over = world.run(begun, killed).is_some();
                    if is_over {
                        continue;
                    }
                    let step = world.run(asked, 99).unwrap();
                    match step {
                        Step::AwaitFinish(_) => {
                            // A CA whose key guard's Secret has dropped does not come back.
                            let is_it = keys == Keys::FrontProxyCa || world.key() == new;
                            assert!(asked == Asked::Rotate && is_it && world.accepted() == 2);
                        }
                        // The other is gone everywhere but from servers' memory.
                        Step::Nothing => {
                            assert!(world.has_alone(&world.key()), "{keys:?} {begun:?} {killed} {asked:?}")
                        }
                        step => panic!("{step:?}"),
                    }
                    if killed < 2 && asked != Asked::Rotate {
                        let expected = if asked == Asked::Finish { &new } else { &old };
                        assert_eq!(world.key(), *expected, "{keys:?} {begun:?} {killed} {asked:?}");
                    }
                }
                if is_over {
                    break;
                }
            }
        }
    }
}

#[test]
fn a_key_that_has_signed_nothing_is_taken_back_at_once() {
    for killed in 1.. {
        let mut world = World::new(Keys::ServiceAccount);
        let old = world.key();
        assert_eq!(world.run(Asked::Rotate, killed), None);
        let observed = world.observed();
        let back = rotation(world.keys, &observed, Asked::Abort).unwrap();
        let has_signed = world.written.iter().any(|key| *key != old);
        assert!(!back.is_unused() || !has_signed, "{killed}");
        if has_signed {
            assert!(killed > 3, "{killed}");
            return;
        }
    }
}
