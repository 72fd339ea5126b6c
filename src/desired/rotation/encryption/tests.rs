//! The whole of a rotation in a world of two controllers, killed at every act, led back and on; whatever happens, every API
//! server and every bridge that could be raised reads all that any of them has written.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::*;
use crate::desired::rotation::{Step, decide};

const NODES: [&str; 2] = ["c1", "c2"];

fn secret(byte: u8) -> String {
    STANDARD.encode([byte; 32])
}

/// A file with these keys, by their names and what they are made of.
fn file(keys: &[(&str, u8)]) -> Vec<u8> {
    let mut text = "# Never commit it.\napiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\nresources:\n- resources:\n  - secrets\n  providers:\n  - secretbox:\n      keys:\n".to_owned();
    for (name, byte) in keys {
        text.push_str(&format!("      - name: {name}\n        secret: {}\n", secret(*byte)));
    }
    (text + "  - identity: {}\n").into_bytes()
}

fn names(bytes: &[u8]) -> Vec<String> {
    thread_local! {
        /// What was read before: the world asks for the same again and again.
        static KNOWN: RefCell<BTreeMap<Vec<u8>, Vec<String>>> = RefCell::default();
    }
    let read = || Configuration::read("f", bytes).unwrap().keys.into_iter().map(|key| key.name).collect();
    KNOWN.with_borrow_mut(|known| known.entry(bytes.to_vec()).or_insert_with(read).clone())
}

#[derive(Clone)]
struct World {
    guards_secret: Vec<u8>,
    secret: Vec<u8>,
    directory: Option<Vec<u8>>,
    copies: BTreeMap<&'static str, Vec<u8>>,
    servers: BTreeMap<&'static str, Vec<u8>>,
    /// A bridge answers in the place of all of them.
    is_bridged: bool,
    /// Those that a rollout has yet to come to.
    rolls: Vec<&'static str>,
    /// The kubelet gives the first pod of a rollout the Secret as it was before.
    lags: Option<Vec<u8>>,
    /// What values in etcd are encrypted with.
    etcd: BTreeSet<String>,
}

impl World {
    fn new() -> Self {
        let one = file(&[("key1", 1)]);
        let all = || NODES.map(|node| (node, one.clone())).into();
        let (guards_secret, secret, directory) = (one.clone(), one.clone(), Some(one.clone()));
        let (copies, servers) = (all(), all());
        let mut world = Self {
            guards_secret,
            secret,
            directory,
            copies,
            servers,
            is_bridged: false,
            rolls: Vec::new(),
            lags: None,
            etcd: BTreeSet::new(),
        };
        world.serve();
        world
    }

    fn observed(&self) -> Observed {
        let behind = self.copies.iter().filter(|(_, copy)| **copy != self.guards_secret);
        let sum = |(node, bytes): (&&str, &Vec<u8>)| {
            let bytes = if self.is_bridged { &self.copies[*node] } else { bytes };
            ((*node).to_owned(), Ok(file_sum(bytes)))
        };
        Observed {
            guards_secret: self.guards_secret.clone(),
            secret: self.secret.clone(),
            directory: self.directory.clone(),
            guards_behind: behind.map(|(node, _)| (*node).to_owned()).collect(),
            unsettled: self
                .rolls
                .iter()
                .copied()
                .chain(self.is_bridged.then_some("a bridge"))
                .map(str::to_owned)
                .collect(),
            reloads: false,
            servers: self.servers.iter().map(sum).collect(),
            left: None,
        }
    }

    /// Time passes: one guard takes its copy, one API server is made anew; whoever may serve writes, and all read.
    fn tick(&mut self) {
        if let Some(copy) = self.copies.values_mut().find(|copy| **copy != self.guards_secret) {
            copy.clone_from(&self.guards_secret);
        } else if let Some(node) = self.rolls.pop() {
            let read = self.lags.take().unwrap_or_else(|| self.secret.clone());
            self.servers.insert(node, read);
        } else {
            self.is_bridged = false;
        }
        self.serve();
    }

    fn serve(&mut self) {
        for bytes in self.servers.values().chain(self.copies.values()) {
            self.etcd.insert(names(bytes)[0].clone());
        }
        for bytes in self.servers.values().chain(self.copies.values()) {
            let keys = names(bytes);
            assert!(self.etcd.iter().all(|key| keys.contains(key)), "{keys:?} cannot read {:?}", self.etcd);
        }
    }

    /// What the command does, until it ends, or is killed after so many acts. How it ended.
    fn run(&mut self, mut asked: Asked, acts: usize) -> Option<Step> {
        let mut left = acts;
        let mut is_counted = false;
        for _ in 0..1000 {
            let mut observed = self.observed();
            let rotation = Rotation::of(&observed, asked).unwrap();
            let others = self.etcd.iter().filter(|key| *key != rotation.staying()).count();
            observed.left = is_counted.then_some(others as u64);
            is_counted = false;
            let step = decide(&rotation.seen(&observed, asked));
            if let Step::Wait(..) | Step::Count = step {
                is_counted = step == Step::Count;
                self.tick();
                continue;
            }
            if matches!(step, Step::Nothing | Step::AwaitFinish) {
                return Some(step);
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
                Step::WriteSecret(_, level) => {
                    self.lags = Some(std::mem::replace(&mut self.secret, rotation.content(level)));
                }
                Step::Roll(_) => (self.rolls, self.is_bridged) = (NODES.into(), true),
                Step::Rewrite => self.etcd = BTreeSet::from([names(&self.servers["c1"])[0].clone()]),
                step => panic!("{step:?}"),
            }
            self.serve();
        }
        panic!("it comes to no end");
    }

    /// All have these keys and no others, and so has etcd.
    fn has(&self, keys: &[&str]) -> bool {
        let places = [&self.guards_secret, &self.secret].into_iter().chain(&self.directory);
        places.chain(self.copies.values()).chain(self.servers.values()).all(|bytes| names(bytes) == keys)
            && self.etcd.iter().eq(keys.iter())
    }
}

#[test]
fn a_rotation_is_two_runs() {
    let mut world = World::new();
    assert_eq!(world.run(Asked::Continue, 99), Some(Step::Nothing));
    assert_eq!(world.run(Asked::Rotate, 99), Some(Step::AwaitFinish));
    assert_eq!(names(&world.secret), ["key2", "key1"]);
    assert_eq!(world.run(Asked::Rotate, 99), Some(Step::AwaitFinish));
    assert_eq!(world.run(Asked::Finish, 99), Some(Step::Nothing));
    assert!(world.has(&["key2"]));
    assert!(world.secret.starts_with(b"# Never commit it.\n"));
    for asked in [Asked::Finish, Asked::Abort, Asked::Continue] {
        assert_eq!(world.run(asked, 99), Some(Step::Nothing));
    }
    // And the next.
    assert_eq!(world.run(Asked::Rotate, 99), Some(Step::AwaitFinish));
    assert_eq!(world.run(Asked::Abort, 99), Some(Step::Nothing));
    assert!(world.has(&["key2"]));
}

#[test]
fn killed_at_any_act_it_goes_on_or_back() {
    let ends = [(Asked::Finish, "key2"), (Asked::Abort, "key1")];
    for killed in 0.. {
        let mut is_over = false;
        for (asked, key) in ends {
            let mut world = World::new();
            is_over = world.run(Asked::Rotate, killed).is_some();
            let step = world.run(asked, 99);
            assert_eq!(step, Some(Step::Nothing), "{killed} {asked:?}");
            assert!(world.has(&[if killed == 0 { "key1" } else { key }]), "{killed} {asked:?}");
        }
        if is_over {
            assert!(killed >= 9, "{killed}");
            return;
        }
    }
}

#[test]
fn a_finish_or_a_way_back_that_is_killed_is_gone_on_with_or_turned() {
    let mut rotated = World::new();
    assert_eq!(rotated.run(Asked::Rotate, 99), Some(Step::AwaitFinish));
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
                let keys = names(&world.secret);
                match step {
                    Step::AwaitFinish => assert!(asked == Asked::Rotate && keys == ["key2", "key1"]),
                    // The other is gone everywhere but from servers' memory.
                    Step::Nothing => {
                        assert_eq!(keys.len(), 1);
                        assert!(world.has(&[&keys[0]]), "{begun:?} {killed} {asked:?}");
                    }
                    step => panic!("{step:?}"),
                }
                if killed < 2 && asked != Asked::Rotate {
                    let expected = if asked == Asked::Finish { "key2" } else { "key1" };
                    assert_eq!(keys, [expected], "{begun:?} {killed} {asked:?}");
                }
            }
            if is_over {
                break;
            }
        }
    }
}

#[test]
fn what_has_no_key_of_its_own_is_refused_with_the_reason() {
    let good = String::from_utf8(file(&[("key1", 1)])).unwrap();
    let identity = good.replace("  providers:\n", "  providers:\n  - identity: {}\n");
    let kms = "  providers:\n  - kms: {apiVersion: v2, name: a, endpoint: \"unix:///x\"}\n";
    let twice = String::from_utf8(file(&[("a", 1), ("b", 2)])).unwrap();
    for (text, expected) in [
        (identity, "Secrets are written as plain text"),
        (good.replace("  providers:\n", kms), "is a KMS"),
        (good.replace("  - secrets\n", "  - secrets\n  - configmaps\n"), "also encrypts configmaps"),
        (good.replace("  - secrets\n", "  - configmaps\n"), "Secrets are not encrypted"),
        (good.replace("  - secrets\n", "  - '*.*'\n"), "also encrypts *.*"),
        (twice, "which of the keys a and b is newer"),
    ] {
        let seen = Observed { guards_secret: text.clone().into(), secret: text.into(), ..Observed::default() };
        let said = Rotation::of(&seen, Asked::Rotate).err().map(|error| error.to_string()).unwrap_or_default();
        assert!(said.contains(expected) && !said.contains(&secret(1)), "{expected}: {said}");
    }
}

#[test]
fn an_edit_of_the_asset_directory_that_is_not_applied_is_not_written_over() {
    let (one, edited) = (file(&[("key1", 1)]), file(&[("key1", 1), ("key2", 2)]));
    let seen = Observed { guards_secret: one.clone(), secret: one, directory: Some(edited), ..Observed::default() };
    let said = Rotation::of(&seen, Asked::Rotate).err().unwrap().to_string();
    assert!(said.contains("has key2, which the cluster has not"), "{said}");
}

#[test]
fn an_older_directory_leads_back_and_a_users_own_rotation_does_not() {
    let of = |keys: &[(&str, u8)]| file(keys);
    let (a, b, ab, ba) =
        (of(&[("key1", 1)]), of(&[("key2", 2)]), of(&[("key1", 1), ("key2", 2)]), of(&[("key2", 2), ("key1", 1)]));
    for (kept, directory, expected) in [
        (&a, &a, None),
        (&ba, &ba, None),
        // The page docs/security.md, step by step.
        (&a, &ab, None),
        (&ab, &ba, None),
        (&ba, &b, None),
        // A directory of before.
        (&ab, &a, Some("lacks key2")),
        (&ba, &a, Some("lacks key2")),
        (&b, &a, Some("lacks key2")),
        (&b, &ab, Some("still has key1")),
        (&b, &ba, Some("still has key1")),
        (&ba, &ab, Some("has key1 first")),
        // Names say nothing of their age.
        (&of(&[("b", 2), ("a", 1)]), &of(&[("b", 2)]), None),
    ] {
        let said = leads_back(kept, directory);
        let is_it = match (&said, expected) {
            (Some(said), Some(expected)) => said.starts_with(expected),
            (said, expected) => said.is_none() && expected.is_none(),
        };
        assert!(is_it, "{:?} {:?}: {said:?}", names(kept), names(directory));
    }
    assert!(leads_back(b"", &a).is_none() && leads_back(&a, b"").is_none());
}
