//! Random histories: joins, deaths, wiped disks, machines made anew, labels given and taken, partitions, guards that begin
//! anew, changes asked for twice, deaths between a look and the act. `HOIST_SEED=123 cargo test --lib members` tells one again.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use tokio::time::Instant;

use super::super::{Act, Change, Data, Observed, Report, Wanted, Watch, decide};
use super::model::{MACHINES, Model, majority};
use super::{MINUTE, seen, short};
use crate::etcd::client::{Failed, MemberId, Sort, Status};
use crate::random::Random;

/// Told by default; HOIST_HISTORIES is another number, HOIST_HISTORIES_FROM another beginning.
const HISTORIES: u64 = 150;
/// Of one history.
const EVENTS: u64 = 40;
/// Within so many seconds without a fault all is as wanted. A learner that cannot start takes ten minutes.
const CONVERGED: u64 = 1500;
/// A wrong decision is found within so many histories.
const MOST: u64 = 2000;
/// So many changes at most lead there: each of five machines is removed, added, promoted, and led away from, and some again.
const CHANGES: usize = 40;

/// What happens to the machines, and how the one who acts is led astray.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Event {
    Seconds(u64),
    Label(usize),
    Unlabel(usize),
    Off(usize),
    On(usize),
    Wiped(usize),
    Rebuilt(usize),
    RebuiltElsewhere(usize),
    /// The machines of this mask are cut off from the others.
    Cut(u8),
    Healed,
    /// The one who acts does not reach this machine until all is healed, whoever else does.
    Unseen(usize),
    Turn(usize),
    /// The guard begins anew.
    Forgets,
    /// This machine dies between the next look and its act.
    Race(usize),
    /// The next change is asked for twice.
    Twice,
    /// The voters are asked at two moments.
    TwoLists,
}

fn event(random: &mut Random) -> Event {
    let machine = random.below(MACHINES as u64) as usize;
    match random.below(32) {
        0..=7 => Event::Seconds(1 + random.below(40)),
        8..=11 => Event::Label(machine),
        12..=14 => Event::Unlabel(machine),
        15 => Event::Off(machine),
        16..=18 => Event::On(machine),
        19 => Event::Wiped(machine),
        20 => Event::Rebuilt(machine),
        21 => Event::RebuiltElsewhere(machine),
        22 => Event::Cut(random.below(1 << MACHINES) as u8),
        23..=24 => Event::Healed,
        25 => Event::Turn(machine),
        26 => Event::Forgets,
        27..=28 => Event::Race(machine),
        29 => Event::Twice,
        30 => Event::Unseen(machine),
        _ => Event::TwoLists,
    }
}

type Decide = fn(&Observed) -> Act;

/// One history under way.
struct Told {
    model: Model,
    decide: Decide,
    watch: Watch,
    begun: Instant,
    race: Option<usize>,
    twice: bool,
    two_lists: bool,
    changes: usize,
    refused: usize,
}

impl Told {
    fn new(seed: u64, decide: Decide) -> Self {
        let mut random = Random::new(seed);
        let voters = random.pick(&[1, 1, 2, 3, 3, 4, 5]);
        let model = Model::new(voters, random);
        let (race, twice, two_lists) = (None, false, false);
        Self {
            model,
            decide,
            watch: Watch::default(),
            begun: Instant::now(),
            race,
            twice,
            two_lists,
            changes: 0,
            refused: 0,
        }
    }

    fn happens(&mut self, event: Event) {
        let machines = &mut self.model.machines;
        match event {
            Event::Seconds(seconds) => (0..seconds).for_each(|_| self.second()),
            Event::Label(machine) => machines[machine].is_labelled = true,
            Event::Unlabel(machine) => machines[machine].is_labelled = false,
            Event::Off(machine) => machines[machine].is_on = false,
            Event::On(machine) => machines[machine].is_on = true,
            Event::Wiped(machine) => self.model.wipe(machine),
            Event::Rebuilt(machine) => self.model.rebuild(machine, false),
            Event::RebuiltElsewhere(machine) => self.model.rebuild(machine, true),
            Event::Cut(mask) => {
                for (number, machine) in machines.iter_mut().enumerate() {
                    machine.island = mask >> number & 1;
                }
            }
            Event::Healed => {
                machines.iter_mut().for_each(|machine| machine.island = 0);
                self.model.unseen = None;
            }
            Event::Unseen(machine) => self.model.unseen = Some(machine),
            Event::Turn(machine) => self.turn(machine),
            Event::Forgets => self.watch = Watch::default(),
            Event::Race(machine) => self.race = Some(machine),
            Event::Twice => self.twice = true,
            Event::TwoLists => self.two_lists = true,
        }
        self.second();
    }

    /// Another guard acts from now on, and knows nothing of before.
    fn turn(&mut self, machine: usize) {
        (self.model.turn, self.watch) = (machine, Watch::default());
    }

    /// A second passes, and a guard looks, decides and acts.
    fn second(&mut self) {
        self.model.tick();
        let machine = |number: usize| &self.model.machines[number];
        // Whoever has the Lease is on, and reaches the API; another one gets it otherwise.
        if !machine(self.model.turn).is_on || self.model.quorum() != Some(machine(self.model.turn).island) {
            let able = (0..MACHINES).find(|n| machine(*n).is_on && self.model.quorum() == Some(machine(*n).island));
            let Some(able) = able else { return };
            self.turn(able);
        }
        let two_lists = std::mem::take(&mut self.two_lists);
        let asked = if two_lists { self.model.asked_in_a_race() } else { self.model.asked() };
        let agree = asked.lists.windows(2).all(|two| two[0].agrees(&two[1]));
        let now = self.begun + Duration::from_secs(self.model.now);
        let observed = self.watch.observed(asked, self.model.wanted(), now);
        let act = (self.decide)(&observed);
        let Act::Make { at, change, .. } = &act else { return };
        assert!(agree, "{} while two lists differ", short(&act));
        self.is_right(&observed, *at, change);
        // Two voters need each other: of a death between the look and a change to two nothing can be known.
        let to_two = match change {
            Change::Promote(_) => self.model.voters().len() == 1,
            Change::Remove(id) => self.model.voters().len() == 3 && self.model.is_alive(*id),
            _ => false,
        };
        if let Some(dies) = self.race.take() {
            self.model.machines[dies].is_on = false;
        }
        for _ in 0..1 + u32::from(std::mem::take(&mut self.twice)) {
            let had_quorum = self.model.quorum().is_some();
            let result = self.model.make(*at, change);
            assert_ne!(result, Err(Sort::Refused), "{}", short(&act));
            assert!(!had_quorum || to_two || self.model.quorum().is_some(), "{} has lost the majority", short(&act));
            self.changes += 1;
            self.refused += usize::from(result == Err(Sort::Again));
            let result = result.map_err(|sort| Failed { sort, said: String::new() });
            self.watch.came_to(*at, &result);
        }
    }

    /// What must hold of a change at the moment of the look, whatever etcd makes of it.
    fn is_right(&self, observed: &Observed, at: MemberId, change: &Change) {
        let model = &self.model;
        assert!(!observed.wanted.is_empty(), "{change:?}, and nobody wants anything");
        let votes = |id: &MemberId| model.entries.get(id).is_some_and(|entry| !entry.is_learner);
        assert!(votes(&at), "{change:?} is asked for at {at}, which does not vote");
        match change {
            Change::Add(url) => assert!(observed.wanted.iter().any(|wanted| wanted.peer_url == *url)),
            Change::Promote(id) => assert!(model.is_alive(*id), "{id} is dead, and promoted"),
            Change::MoveLeader(to) => assert!(model.is_alive(*to) && votes(to)),
            Change::Remove(id) => {
                assert_ne!(at, *id, "asked of itself");
                let Some(entry) = model.entries.get(id).filter(|entry| !entry.is_learner) else { return };
                let voters = model.voters();
                assert!(voters.len() > 1, "the last voter is removed");
                let rest = voters.iter().filter(|voter| *voter != id && model.is_alive(**voter)).count();
                assert!(rest >= majority(voters.len() - 1), "{id} is removed, and {rest} of the others are alive");
                let machine = model.machines.iter().enumerate().find(|(number, _)| model.url(*number) == entry.url);
                let has_data = machine
                    .is_some_and(|(_, machine)| machine.is_labelled && machine.disk.is_some_and(|disk| disk.id == *id));
                assert!(!has_data, "{id} is a controller's that has its data, and is removed");
                if model.is_alive(*id) && !model.is_unseen(*id) {
                    assert_ne!(model.leader, Some(*id), "it leads, and is removed");
                    let urls = model.urls();
                    let waits = observed.wanted.iter().find(|wanted| !urls.contains(&wanted.peer_url));
                    assert!(waits.is_none(), "{id} is removed before {waits:?} votes");
                }
            }
        }
    }

    /// Whether all is as wanted.
    fn has_converged(&self) -> bool {
        let wanted: BTreeSet<_> = self.model.wanted().into_iter().map(|wanted| wanted.peer_url).collect();
        let is_whole = self.model.entries.values().all(|entry| !entry.is_learner);
        is_whole && self.model.urls() == wanted && self.model.voters().iter().all(|id| self.model.is_alive(*id))
    }

    /// No more faults: the machines that there are come back as they are.
    fn settles(&mut self) {
        (self.race, self.twice, self.two_lists, self.model.unseen) = (None, false, false, None);
        for machine in &mut self.model.machines {
            (machine.is_on, machine.island) = (true, 0);
        }
        // Who has lost most of the data has lost it; and where nobody is wanted, nothing is done.
        if self.model.quorum().is_none() || !self.model.machines.iter().any(|machine| machine.is_labelled) {
            return;
        }
        // A connection that broke between two looks is not seen, and the next change is refused once: not from here on.
        (self.changes, self.refused, self.watch) = (0, 0, Watch::default());
        for _ in 0..CONVERGED {
            self.second();
            if self.has_converged() && (self.decide)(&self.look()) == Act::Nothing {
                break;
            }
        }
        assert!(self.has_converged(), "no end: {:?} of {:?}", self.model.entries, self.model.machines);
        assert!(self.changes <= CHANGES, "{} changes", self.changes);
        assert_eq!(self.refused, 0, "changes that etcd would not make yet");
    }

    fn look(&mut self) -> Observed {
        let now = self.begun + Duration::from_secs(self.model.now);
        self.watch.observed(self.model.asked(), self.model.wanted(), now)
    }
}

fn events(seed: u64) -> Vec<Event> {
    let mut random = Random::new(!seed);
    let count = random.below(EVENTS);
    (0..count).map(|_| event(&mut random)).collect()
}

/// Tells a history; what is wrong with it.
fn tell(seed: u64, events: &[Event], decide: Decide) -> Result<Told, String> {
    let told = catch_unwind(AssertUnwindSafe(|| {
        let mut told = Told::new(seed, decide);
        events.iter().for_each(|event| told.happens(*event));
        told.settles();
        told
    }));
    told.map_err(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default()
    })
}

/// The same without all events that are not needed to fail.
fn shortest(seed: u64, decide: Decide) -> Option<(Vec<Event>, String)> {
    let mut events = events(seed);
    let mut failure = tell(seed, &events, decide).err()?;
    let mut at = 0;
    while at < events.len() {
        let mut fewer = events.clone();
        fewer.remove(at);
        match tell(seed, &fewer, decide) {
            Err(why) => (events, failure) = (fewer, why),
            Ok(_) => at += 1,
        }
    }
    Some((events, failure))
}

#[test]
fn no_history_loses_a_majority_and_each_converges() {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().expect("a number"));
    let seeds = match number("HOIST_SEED") {
        Some(seed) => seed..seed + 1,
        None => {
            let first = number("HOIST_HISTORIES_FROM").unwrap_or(1);
            first..first + number("HOIST_HISTORIES").unwrap_or(HISTORIES)
        }
    };
    for seed in seeds {
        if let Some((events, why)) = shortest(seed, decide) {
            panic!("HOIST_SEED={seed}: {why}\n{events:?}");
        }
    }
}

/// Decisions that are wrong in one way each: they are shown what is not so, or what they say is changed.
mod mutants {
    use super::*;

    /// Of the member `id`, what it would say if it were alive and well.
    fn well(observed: &mut Observed, id: MemberId, is_learner: bool) {
        let leader = observed.seen.values().filter_map(|seen| Some(&seen.answer.as_ref()?.status));
        let Some(leader) = leader
            .filter(|status| status.leader.is_some() && status.leader == status.member)
            .max_by_key(|status| status.index)
        else {
            return;
        };
        let status = Status { member: Some(id), is_learner, applied: leader.index, ..leader.clone() };
        let mut seen = seen(1, true);
        let Some(answer) = &mut seen.answer else { return };
        answer.status = status;
        observed.seen.insert(id, seen);
    }

    fn all_well(observed: &Observed, learners: bool) -> Observed {
        let mut observed = observed.clone();
        let members: Vec<_> = observed.lists.iter().flat_map(|list| list.members.values().cloned()).collect();
        for member in members.iter().filter(|member| member.is_learner == learners) {
            well(&mut observed, member.id, learners);
        }
        observed
    }

    /// The decision on something else, where it is a change of this kind.
    fn only(observed: &Observed, other: &Observed, is_meant: fn(&Change) -> bool) -> Act {
        match decide(other) {
            act @ Act::Make { .. } if matches!(&act, Act::Make { change, .. } if is_meant(change)) => act,
            _ => decide(observed),
        }
    }

    fn promotes_the_dead(observed: &Observed) -> Act {
        decide(&all_well(observed, true))
    }

    fn promotes_without_a_voter_to_spare(observed: &Observed) -> Act {
        only(observed, &all_well(observed, false), |change| matches!(change, Change::Promote(_)))
    }

    fn removes_without_a_majority(observed: &Observed) -> Act {
        only(observed, &all_well(observed, false), |change| matches!(change, Change::Remove(_)))
    }

    fn removes_before_the_successor_votes(observed: &Observed) -> Act {
        let mut other = observed.clone();
        for list in &mut other.lists {
            list.members.retain(|_, member| !member.is_learner);
        }
        let urls: Vec<_> = other
            .lists
            .iter()
            .flat_map(|list| list.members.values())
            .flat_map(|member| member.peer_urls.clone())
            .collect();
        other.wanted.retain(|wanted| urls.contains(&wanted.peer_url));
        only(observed, &other, |change| matches!(change, Change::Remove(_)))
    }

    fn removes_the_leader(observed: &Observed) -> Act {
        match decide(observed) {
            Act::Make { at, change: Change::MoveLeader(to), why } => {
                Act::Make { at: to, change: Change::Remove(at), why }
            }
            act => act,
        }
    }

    fn removes_controllers_that_are_off(observed: &Observed) -> Act {
        let mut observed = observed.clone();
        for wanted in &mut observed.wanted {
            let uid = wanted.uid.clone();
            wanted.report.get_or_insert(Report { uid, data: Data::Empty });
        }
        decide(&observed)
    }

    fn believes_the_first_list(observed: &Observed) -> Act {
        let mut observed = observed.clone();
        observed.lists.truncate(1);
        decide(&observed)
    }

    fn shrinks_where_nobody_is_wanted(observed: &Observed) -> Act {
        let mut observed = observed.clone();
        if let (true, Some(list)) = (observed.wanted.is_empty(), observed.lists.first()) {
            let first = list.members.values().find(|member| !member.is_learner);
            observed.wanted = first
                .map(|first| Wanted {
                    name: first.called(),
                    uid: String::new(),
                    peer_url: first.peer_urls[0].clone(),
                    report: None,
                })
                .into_iter()
                .collect();
        }
        decide(&observed)
    }

    fn does_not_see_lost_data(observed: &Observed) -> Act {
        let mut observed = observed.clone();
        let urls: Vec<_> = observed
            .lists
            .iter()
            .flat_map(|list| list.members.values())
            .flat_map(|member| member.peer_urls.clone())
            .collect();
        for wanted in observed.wanted.iter_mut().filter(|wanted| urls.contains(&wanted.peer_url)) {
            wanted.report = None;
        }
        decide(&observed)
    }

    fn takes_a_newcomer_for_one_that_lost_its_data(observed: &Observed) -> Act {
        let mut observed = observed.clone();
        for member in observed.lists.iter_mut().flat_map(|list| list.members.values_mut()) {
            member.name = "named".into();
        }
        decide(&observed)
    }

    fn does_not_wait_for_connections(observed: &Observed) -> Act {
        let mut observed = observed.clone();
        observed.settled = MINUTE;
        for seen in observed.seen.values_mut() {
            seen.since = MINUTE;
        }
        decide(&observed)
    }

    fn never_gives_a_learner_up(observed: &Observed) -> Act {
        let mut observed = observed.clone();
        observed.seen.values_mut().for_each(|seen| seen.stalled = Duration::ZERO);
        decide(&observed)
    }

    fn asks_the_leaver_itself(observed: &Observed) -> Act {
        match decide(observed) {
            Act::Make { change: Change::Remove(id), why, .. } => Act::Make { at: id, change: Change::Remove(id), why },
            act => act,
        }
    }

    fn removes_nobody(observed: &Observed) -> Act {
        match decide(observed) {
            Act::Make { change: Change::Remove(_), .. } => Act::Nothing,
            act => act,
        }
    }

    #[test]
    fn each_is_found() {
        let mutants: [(&str, Decide); 14] = [
            ("promotes the dead", promotes_the_dead),
            ("promotes without a voter to spare", promotes_without_a_voter_to_spare),
            ("removes without a majority", removes_without_a_majority),
            ("removes before the successor votes", removes_before_the_successor_votes),
            ("removes the leader", removes_the_leader),
            ("removes controllers that are off", removes_controllers_that_are_off),
            ("believes the first list", believes_the_first_list),
            ("shrinks where nobody is wanted", shrinks_where_nobody_is_wanted),
            ("does not see lost data", does_not_see_lost_data),
            ("takes a newcomer for one that lost its data", takes_a_newcomer_for_one_that_lost_its_data),
            ("does not wait for connections", does_not_wait_for_connections),
            ("never gives a learner up", never_gives_a_learner_up),
            ("asks the leaver itself", asks_the_leaver_itself),
            ("removes nobody", removes_nobody),
        ];
        for (name, mutant) in mutants {
            let found = (1..=MOST).find_map(|seed| Some((seed, tell(seed, &events(seed), mutant).err()?)));
            let (seed, why) = found.unwrap_or_else(|| panic!("a decision that {name} passes {MOST} histories"));
            println!("{name}: found by the history {seed}: {}", why.chars().take(120).collect::<String>());
        }
    }
}
