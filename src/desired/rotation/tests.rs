//! The whole of a rotation in a world of two controllers, killed at every act, led back and on; whatever happens, every API
//! server and every bridge that could be raised accepts all that any of them has written or signed.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use super::encryption::{self, file_sum};
use super::service_account::{API_SERVER, CONTROLLER_MANAGER};
use super::*;
use crate::desired::pki::{self, ENCRYPTION};
use crate::desired::secrets::Tls;

const NODES: [&str; 2] = ["c1", "c2"];
const ALL: [Keys; 2] = [Keys::EncryptionKey, Keys::ServiceAccount];

/// What a place has that was never rotated.
fn first(keys: Keys) -> Tls {
    match keys {
        Keys::EncryptionKey => Tls::from([(ENCRYPTION.into(), encryption::made(&[("key1", 1)]))]),
        Keys::ServiceAccount => {
            let (private, public) = pki::signing_pair().unwrap();
            Tls::from([(SIGNING.into(), private.into()), (PUBLIC.into(), public.into())])
        }
    }
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
        };
        let guards_behind: Vec<_> = behind.map(|(node, _)| (*node).to_owned()).collect();
        let rolls = self.rolls.iter().copied().chain(self.is_bridged.then_some("a bridge"));
        let unsettled: Vec<_> = rolls.map(str::to_owned).collect();
        let word =
            |component, node: &str, files: &Tls| Word { component, node: node.to_owned(), said: Ok(said(files)) };
        let servers = self.servers.iter().map(|(node, files)| word(API_SERVER, node, files));
        let leader = self.leader.iter().map(|files| word(CONTROLLER_MANAGER, "leader", files));
        let is_asked = guards_behind.is_empty() && unsettled.is_empty();
        Observed {
            guards_secret: self.guards_secret.clone(),
            secrets: self.keys.secrets().iter().map(|(name, _)| (*name, self.secrets[name].clone())).collect(),
            directory: self.directory.clone(),
            servers: if is_asked { servers.chain(leader).collect() } else { Vec::new() },
            guards_behind,
            unsettled,
            reloads: false,
            left: None,
        }
    }

    /// Time passes: one guard takes its copy, one API server is made anew; whoever may serve writes, and all read.
    fn tick(&mut self) {
        if let Some(copy) = self.copies.values_mut().find(|copy| **copy != self.guards_secret) {
            copy.clone_from(&self.guards_secret);
        } else if let Some(node) = self.rolls.pop() {
            let read = self.lags.take().unwrap_or_else(|| self.secrets[API_SERVER].clone());
            self.servers.insert(node, read);
        } else {
            self.is_bridged = false;
        }
        self.serve();
    }

    fn serve(&mut self) {
        let servers: Vec<_> =
            self.servers.values().chain(self.copies.values()).map(|files| uses(self.keys, files)).collect();
        self.written.extend(servers.iter().map(|(writes, _)| writes.clone()));
        self.written.extend(self.leader.iter().map(|files| uses(self.keys, files).0));
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
                Step::Begin => self.guards_secret = rotation.begun().unwrap().content(Level::Knows),
                Step::WriteGuards(level) => self.guards_secret = rotation.content(level),
                Step::WriteDirectory(level) => self.directory = Some(rotation.content(level)),
                Step::WriteSecret(name, level) => {
                    let mut new = rotation.content(level);
                    let there = self.secrets.get_mut(name).unwrap();
                    new.retain(|path, _| there.contains_key(path));
                    let old = std::mem::replace(there, new);
                    if name == API_SERVER {
                        self.lags = Some(old);
                    }
                }
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
                            assert!(asked == Asked::Rotate && world.key() == new && world.accepted() == 2);
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

mod service_account {
    use super::*;
    use crate::desired::rotation::service_account::{ServiceAccountKey, leads_back};

    fn pair(made: &[&(String, String)], accepted: &[&(String, String)]) -> Tls {
        let private: String = made.iter().map(|key| key.0.clone()).collect();
        let public: String = accepted.iter().map(|key| key.1.clone()).collect();
        Tls::from([(SIGNING.into(), private.into()), (PUBLIC.into(), public.into())])
    }

    fn three() -> [(String, String); 3] {
        std::array::from_fn(|_| pki::signing_pair().unwrap())
    }

    #[test]
    fn an_older_directory_leads_back_and_a_users_own_rotation_does_not() {
        let [a, b, _] = &three();
        for (kept, directory, expected) in [
            (pair(&[a], &[a]), pair(&[a], &[a]), None),
            // By hand: another is accepted, signs, and is alone.
            (pair(&[a], &[a]), pair(&[a], &[a, b]), None),
            (pair(&[a], &[a, b]), pair(&[b], &[a, b]), None),
            (pair(&[b], &[a, b]), pair(&[b], &[b]), None),
            // A directory of before.
            (pair(&[a, b], &[a, b]), pair(&[a], &[a]), Some("and lacks")),
            (pair(&[b], &[b]), pair(&[a], &[a]), Some("and lacks")),
            (pair(&[b], &[b]), pair(&[b, a], &[a, b]), Some("still has the key")),
            (pair(&[b, a], &[a, b]), pair(&[a, b], &[a, b]), Some("signs by the key")),
        ] {
            let said = leads_back(&kept, &directory).unwrap_or_default();
            assert!(expected.map_or(said.is_empty(), |text| said.contains(text)), "{expected:?}: {said}");
        }
        assert_eq!(leads_back(&Tls::new(), &pair(&[a], &[a])), None);
        assert_eq!(leads_back(&pair(&[a], &[a]), &Tls::new()), None);
    }

    #[test]
    fn what_is_not_its_own_is_refused_with_the_reason() {
        let [a, b, c] = &three();
        let (one, other) = (pair(&[a], &[a]), pair(&[b], &[b]));
        let seen = |server: &Tls, guards: &Tls, directory: Option<&Tls>| Observed {
            guards_secret: guards.clone(),
            secrets: vec![(API_SERVER, server.clone()), (CONTROLLER_MANAGER, server.clone())],
            directory: directory.cloned(),
            ..Observed::default()
        };
        let said = |seen: &Observed| {
            ServiceAccountKey::of(seen, Asked::Rotate).err().map(|error| error.to_string()).unwrap_or_default()
        };
        assert!(said(&seen(&one, &other, None)).contains("which Secret kube-system/"));
        let foreign = pair(&[a], &[a, b]);
        assert!(said(&seen(&foreign, &foreign, None)).contains("whose other half is not in sa.key"));
        assert!(said(&seen(&one, &one, Some(&pair(&[a], &[a, c])))).contains("which the cluster has not"));
        assert!(said(&seen(&one, &one, Some(&other))).contains("which the cluster has not"));
        assert_eq!(said(&seen(&one, &one, Some(&pair(&[a], &[c, a])))), "", "an older one is dropped");
        assert!(said(&Observed::default()).contains("has no sa.pub"));
    }

    #[test]
    fn the_files_are_what_a_render_keeps_and_servers_read() {
        let [a, _, _] = &three();
        let one = pair(&[a], &[a]);
        let secrets = vec![(API_SERVER, one.clone()), (CONTROLLER_MANAGER, one.clone())];
        let seen = Observed { guards_secret: one, secrets, ..Observed::default() };
        let begun = ServiceAccountKey::of(&seen, Asked::Rotate).unwrap().begun().unwrap();
        let knows = begun.content(Level::Knows);
        let ids = |files: &Tls, name: &str| pki::key_ids(&files[name]);
        assert_eq!(ids(&knows, SIGNING), ids(&seen.guards_secret, SIGNING), "the first signs");
        assert!(String::from_utf8_lossy(&knows[SIGNING]).contains("nothing was signed by it yet"));
        assert_eq!(ids(&knows, PUBLIC)[1], begun.mark());
        let uses = begun.content(Level::Uses);
        assert_eq!((ids(&uses, SIGNING), ids(&uses, PUBLIC)), (vec![begun.mark()], ids(&knows, PUBLIC)));
        assert!(!String::from_utf8_lossy(&uses[SIGNING]).contains('#'));
        assert_eq!(begun.level(&uses), Level::Uses);
        // One file was written, and the other not.
        for (signing, public) in [(&knows, &seen.guards_secret), (&begun.content(Level::Alone), &uses)] {
            let torn = Tls::from([(SIGNING.into(), signing[SIGNING].clone()), (PUBLIC.into(), public[PUBLIC].clone())]);
            assert_eq!(begun.level(&torn), Level::Lacks);
        }
    }
}
