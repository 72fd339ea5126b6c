//! Every way that a tenant's upgrade can go, with the operator killed after any of its acts, parts that come or do not, and an
//! edit back at any moment until the commit.

use std::collections::{BTreeMap, VecDeque};

use super::*;

const OLD: Version = Version { major: 1, minor: 36, patch: 3 };
const PATCH: Version = Version { major: 1, minor: 36, patch: 4 };
const NEW: Version = Version { major: 1, minor: 37, patch: 2 };

/// A tenant in a model: what is written, and what serves.
#[derive(Debug, Clone, PartialEq, Eq)]
struct World {
    seen: Observed,
    /// The API servers that clients meet: those of before until the new ones are there.
    serves: Shape,
    /// Whose program leads, of either controller.
    leads: [Shape; 2],
    inside: Version,
}

fn settled(version: Version) -> Part {
    Part { runs: Some(Shape::plain(version)), waits: None }
}

fn at(committed: Version, wanted: Version) -> World {
    let seen = Observed {
        committed,
        wanted,
        done: Some(committed),
        api_servers: settled(committed),
        controllers: [settled(committed), settled(committed)],
        etcd: settled(committed),
        old_server: None,
    };
    let shape = Shape::plain(committed);
    World { seen, serves: shape, leads: [shape; 2], inside: committed }
}

fn write(part: &mut Part, shape: Shape) {
    if part.runs != Some(shape) {
        *part = Part { runs: Some(shape), waits: Some("it to come".into()) };
    }
}

/// What may come next: each act of the plan by itself, as an operator does that is killed after it, and what the pods do.
fn next(world: &World) -> Vec<(&'static str, World)> {
    let plan = decide(&world.seen);
    let mut all = Vec::new();
    let mut add = |what, change: &dyn Fn(&mut World)| {
        let mut other = world.clone();
        change(&mut other);
        if other != *world {
            all.push((what, other));
        }
    };
    add("writes the API servers", &|world| {
        write(&mut world.seen.api_servers, plan.api_servers);
    });
    for number in 0..2 {
        add("writes a controller", &|world| write(&mut world.seen.controllers[number], plan.controllers[number]));
        add("a controller leads", &|world| {
            world.leads[number] = world.seen.controllers[number].runs.unwrap();
            world.seen.controllers[number].waits = None;
        });
    }
    add("writes etcd", &|world| write(&mut world.seen.etcd, Shape::plain(plan.etcd)));
    add("etcd serves", &|world| world.seen.etcd.waits = None);
    add("the API servers serve", &|world| {
        let runs = world.seen.api_servers.runs.unwrap();
        if world.serves != runs {
            world.seen.old_server = Some("a-1".into());
        }
        (world.serves, world.seen.api_servers.waits) = (runs, None);
    });
    add("the one of before ends", &|world| world.seen.old_server = None);
    add("applies what is in the tenant", &|world| world.inside = plan.inside);
    if plan.commits {
        add("commits", &|world| world.seen.committed = world.seen.wanted);
    }
    if condition(&world.seen, &plan).is_so == Some(true) && plan.waits.is_none() && world.inside == world.seen.wanted {
        add("is done", &|world| world.seen.done = Some(world.seen.wanted));
    }
    all
}

/// What holds in every moment.
fn holds(world: &World, first: Version) {
    let seen = &world.seen;
    for leader in world.leads {
        assert!(leader.version <= world.serves.version, "a controller is newer than what it asks: {world:#?}");
    }
    let writes = world.serves.emulates.map_or(world.serves.version.minor, |old| old.minor);
    assert!(writes <= seen.committed.minor, "data of a version that is not committed: {world:#?}");
    if seen.committed == first {
        assert_eq!(seen.etcd.runs, Some(Shape::plain(first)), "etcd has no way back: {world:#?}");
        assert_eq!(world.inside, first, "{world:#?}");
    }
}

/// Goes all ways from `begin`; `edits` are what the spec may become at any moment that the CRD's rules allow.
fn explore(begin: World, edits: &[Version]) -> usize {
    let first = begin.seen.committed;
    let mut known = BTreeMap::from([(format!("{begin:?}"), ())]);
    let mut open = VecDeque::from([begin]);
    while let Some(world) = open.pop_front() {
        holds(&world, first);
        let mut ways = next(&world);
        if ways.is_empty() {
            let seen = &world.seen;
            let plan = decide(seen);
            assert_eq!((seen.done, seen.committed), (Some(seen.wanted), seen.wanted), "stuck: {plan:#?} {world:#?}");
            assert_eq!((world.serves, world.inside), (Shape::plain(seen.wanted), seen.wanted));
            assert_eq!((world.leads, &seen.etcd), ([Shape::plain(seen.wanted); 2], &settled(seen.wanted)));
        }
        for wanted in edits.iter().filter(|wanted| **wanted >= world.seen.committed) {
            let mut other = world.clone();
            other.seen.wanted = *wanted;
            ways.push(("is edited", other));
        }
        for (_, other) in ways {
            if known.insert(format!("{other:?}"), ()).is_none() {
                open.push_back(other);
            }
        }
    }
    known.len()
}

#[test]
fn killed_after_any_act_it_goes_on_to_the_same_end() {
    let moments = explore(at(OLD, NEW), &[]);
    assert!(moments > 40, "{moments}");
    explore(at(OLD, PATCH), &[]);
    explore(at(OLD, OLD), &[]);
}

#[test]
fn edited_back_and_forth_until_the_commit_it_comes_to_what_is_wanted_last() {
    let moments = explore(at(OLD, NEW), &[OLD, NEW]);
    assert!(moments > 150, "{moments}");
}

#[test]
fn api_servers_that_never_come_leave_all_else_as_it_was() {
    let mut world = at(OLD, NEW);
    let trial = decide(&world.seen).api_servers;
    write(&mut world.seen.api_servers, trial);
    let plan = decide(&world.seen);
    let old = Shape::plain(OLD);
    assert_eq!((plan.controllers, plan.etcd, plan.inside, plan.commits), ([old; 2], OLD, OLD, false));
    let said = condition(&world.seen, &plan);
    assert_eq!((said.is_so, &*said.reason), (Some(false), "Trying"));
    for part in [
        "v1.37.2 is tried, and emulates 1.36",
        "waits for kube-apiserver",
        "spec.kubernetesVersion: v1.36.3 leads back",
    ] {
        assert!(said.message.contains(part), "{part}: {}", said.message);
    }
    world.seen.wanted = OLD;
    let plan = decide(&world.seen);
    assert_eq!((plan.api_servers, plan.controllers), (old, [old; 2]), "the undo");
}

#[test]
fn a_trial_that_broke_goes_back_without_waiting_for_who_cannot_lead_in_it() {
    let trial = Shape { version: NEW, emulates: Some(Emulated::from(OLD)) };
    let mut world = at(OLD, NEW);
    let broken = || Part { runs: Some(trial), waits: Some("it to come".into()) };
    (world.seen.api_servers, world.seen.controllers) = (broken(), [broken(), broken()]);
    world.seen.wanted = OLD;
    let plan = decide(&world.seen);
    assert_eq!(plan.controllers, [Shape::plain(OLD); 2]);
    assert_eq!(plan.api_servers, trial, "controllers first");
    world.seen.controllers.iter_mut().for_each(|part| part.runs = Some(Shape::plain(OLD)));
    assert_eq!(decide(&world.seen).api_servers, Shape::plain(OLD));
}

#[test]
fn a_tenant_that_is_made_has_all_of_it_at_once() {
    let none = || Part { runs: None, waits: None };
    let seen = Observed {
        committed: NEW,
        wanted: NEW,
        done: None,
        api_servers: none(),
        controllers: [none(), none()],
        etcd: none(),
        old_server: None,
    };
    let plan = decide(&seen);
    let new = Shape::plain(NEW);
    assert_eq!((plan.api_servers, plan.controllers, plan.etcd, plan.inside), (new, [new; 2], NEW, NEW));
    assert_eq!(condition(&seen, &plan).reason, "Starting");
}

#[test]
fn what_the_crd_keeps_out_is_refused_here_too() {
    let object = |name: &str| serde_json::json!({"spec": {"apiServer": {"extraArgs": [{"name": name, "value": "x"}]}}});
    assert!(refused(&object("v"), OLD, NEW).is_ok());
    assert!(refused(&object("emulated-version"), NEW, NEW).is_ok(), "at rest it is the user's");
    for (flag, committed, wanted, why) in [
        ("v", NEW, OLD, "cannot read what v1.37.2 has written"),
        ("v", Version { minor: 35, ..NEW }, NEW, "Name one of 1.36"),
        ("emulated-version", OLD, NEW, "Take it out"),
    ] {
        let said = refused(&object(flag), committed, wanted).unwrap_err();
        assert!(said.message.contains(why), "{said:?}");
    }
}
