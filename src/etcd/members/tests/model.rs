//! Five machines and etcd's rules for its members, as server/etcdserver/server.go and membership/cluster.go of etcd 3.6 and
//! 3.7 have them; each tick is a second.

use std::collections::{BTreeMap, BTreeSet};

use super::super::{Answer, Asked, Change, Data, Report, Wanted};
use crate::etcd::client::{List, Member, MemberId, Sort, Status};
use crate::random::Random;

pub const MACHINES: usize = 5;
/// For so long a connection must stand before etcd counts it.
const HEALTH_INTERVAL: u64 = 5;
/// For so long a report counts.
const REPORT: u64 = 5;
/// How many entries a member catches up with in a second.
const RATE: u64 = 30_000;

/// A machine that may be a controller.
#[derive(Debug, Clone)]
pub struct Machine {
    pub is_on: bool,
    pub is_labelled: bool,
    /// Of its Node.
    pub uid: u64,
    /// Its address changes when it is rebuilt elsewhere.
    pub place: u64,
    pub disk: Option<Disk>,
    /// Those of one island reach each other.
    pub island: u8,
    /// How long its etcd takes to start: there is an image to pull.
    pub slowness: u64,
    /// When its guard began to start etcd.
    starting: Option<u64>,
    report: Option<(Report, u64)>,
}

/// A data directory.
#[derive(Debug, Clone, Copy)]
pub struct Disk {
    pub id: MemberId,
    applied: u64,
}

/// An entry of the list of members.
#[derive(Debug, Clone)]
pub struct Entry {
    pub url: String,
    pub is_learner: bool,
    /// It has published its name.
    is_started: bool,
    /// The last entry that it has acknowledged, as the leader knows.
    matched: u64,
}

/// All of it.
#[derive(Debug, Clone)]
pub struct Model {
    pub now: u64,
    pub machines: Vec<Machine>,
    pub entries: BTreeMap<MemberId, Entry>,
    pub leader: Option<MemberId>,
    /// Where the one is that acts.
    pub turn: usize,
    /// The one who acts does not reach this machine, whoever else does.
    pub unseen: Option<usize>,
    /// The list before the last change.
    before: List,
    index: u64,
    ids: u64,
    uids: u64,
    /// 3.6 adds a member only where all voters are connected, 3.7 where a majority with it is.
    is_36: bool,
    connected: BTreeMap<(MemberId, MemberId), u64>,
    leaderless: u64,
    random: Random,
}

pub fn majority(voters: usize) -> usize {
    voters / 2 + 1
}

impl Model {
    /// As many voters as `voters`; the other machines are on, and no controllers.
    pub fn new(voters: usize, mut random: Random) -> Self {
        let index = random.pick(&[5, 5_000, 500_000]);
        let mut model = Self {
            now: 0,
            machines: Vec::new(),
            entries: BTreeMap::new(),
            leader: None,
            turn: 0,
            unseen: None,
            before: List { cluster: 1, members: BTreeMap::new() },
            index,
            ids: 100,
            uids: 0,
            is_36: random.permille(500),
            connected: BTreeMap::new(),
            leaderless: 0,
            random,
        };
        for number in 0..MACHINES {
            let is_voter = number < voters;
            let id = MemberId(number as u64 + 1);
            model.uids += 1;
            model.machines.push(Machine {
                is_on: true,
                is_labelled: is_voter,
                uid: model.uids,
                place: number as u64 + 1,
                disk: is_voter.then_some(Disk { id, applied: index }),
                island: 0,
                slowness: model.random.below(12),
                starting: None,
                report: None,
            });
            if is_voter {
                let url = super::url(number as u64 + 1);
                model.entries.insert(id, Entry { url, is_learner: false, is_started: true, matched: index });
            }
        }
        model.before = model.list();
        model
    }

    pub fn list(&self) -> List {
        let member = |(id, entry): (&MemberId, &Entry)| Member {
            id: *id,
            name: if entry.is_started { format!("m{id}") } else { String::new() },
            peer_urls: vec![entry.url.clone()],
            client_urls: Vec::new(),
            is_learner: entry.is_learner,
        };
        List { cluster: 1, members: self.entries.iter().map(|entry| (*entry.0, member(entry))).collect() }
    }

    pub fn voters(&self) -> Vec<MemberId> {
        self.entries.iter().filter(|(_, entry)| !entry.is_learner).map(|(id, _)| *id).collect()
    }

    /// The machine on which a member's process runs.
    pub fn runs(&self, id: MemberId) -> Option<&Machine> {
        let machine = self.machines.iter().find(|machine| machine.disk.is_some_and(|disk| disk.id == id))?;
        (machine.is_on && self.entries.contains_key(&id)).then_some(machine)
    }

    /// The island on which a majority of the voters runs.
    pub fn quorum(&self) -> Option<u8> {
        let voters = self.voters();
        let runs_on = |island: u8| {
            voters.iter().filter(|id| self.runs(**id).is_some_and(|machine| machine.island == island)).count()
        };
        [0, 1].into_iter().find(|island| runs_on(*island) >= majority(voters.len()))
    }

    /// Whether a member's machine is not reached by the one who acts alone.
    pub fn is_unseen(&self, id: MemberId) -> bool {
        let unseen = self.unseen.and_then(|machine| self.machines[machine].disk);
        unseen.is_some_and(|disk| disk.id == id)
    }

    /// Whether a member runs where the majority is.
    pub fn is_alive(&self, id: MemberId) -> bool {
        self.quorum().is_some_and(|island| self.runs(id).is_some_and(|machine| machine.island == island))
    }

    pub fn url(&self, machine: usize) -> String {
        super::url(self.machines[machine].place)
    }

    /// A new machine in place of one.
    pub fn rebuild(&mut self, machine: usize, elsewhere: bool) {
        self.uids += 1;
        let uid = self.uids;
        let machine = &mut self.machines[machine];
        // Its guard's last report is still there, and says what it says of another machine.
        (machine.disk, machine.starting, machine.uid, machine.is_on) = (None, None, uid, true);
        if elsewhere {
            machine.place += MACHINES as u64;
        }
    }

    pub fn wipe(&mut self, machine: usize) {
        let machine = &mut self.machines[machine];
        (machine.disk, machine.starting, machine.is_on) = (None, None, false);
    }

    /// A second passes.
    pub fn tick(&mut self) {
        self.now += 1;
        self.guards();
        self.connections();
        self.elections();
        self.writes();
    }

    /// What each guard does on its own machine, and reports.
    fn guards(&mut self) {
        let Some(island) = self.quorum() else { return };
        for number in 0..MACHINES {
            let url = self.url(number);
            let entry = self.entries.iter().find(|(_, entry)| entry.url == url);
            // A member that has acknowledged entries and lost them does not start again.
            let startable = entry.filter(|(_, entry)| entry.is_learner && !entry.is_started && entry.matched == 0);
            let startable = startable.map(|(id, _)| *id);
            let machine = &mut self.machines[number];
            if !machine.is_on || machine.island != island || !machine.is_labelled {
                machine.starting = None;
                continue;
            }
            match (machine.disk, startable) {
                (Some(disk), _) if !self.entries.contains_key(&disk.id) => machine.disk = None,
                (None, Some(id)) => {
                    let since = *machine.starting.get_or_insert(self.now);
                    if self.now >= since + machine.slowness {
                        machine.disk = Some(Disk { id, applied: 0 });
                        machine.starting = None;
                    }
                }
                _ => machine.starting = None,
            }
            let data = machine.disk.map_or(Data::Empty, |disk| Data::Of(disk.id));
            machine.report = Some((Report { uid: machine.uid.to_string(), data }, self.now));
        }
    }

    fn connections(&mut self) {
        let islands: Vec<_> =
            self.entries.keys().map(|id| (*id, self.runs(*id).map(|machine| machine.island))).collect();
        let now = self.now;
        let before = std::mem::take(&mut self.connected);
        for (a, here) in &islands {
            let reached = islands.iter().filter(|(_, there)| here.is_some() && here == there);
            for pair in reached.map(|(b, _)| (*a, *b)) {
                self.connected.insert(pair, before.get(&pair).copied().unwrap_or(now));
            }
        }
    }

    fn elections(&mut self) {
        if self.leader.is_some_and(|leader| !self.is_alive(leader)) {
            self.leader = None;
        }
        if self.leader.is_some() || self.quorum().is_none() {
            self.leaderless = 0;
            return;
        }
        self.leaderless += 1;
        if self.leaderless > 1 {
            let applied = |id: &MemberId| self.entries[id].matched;
            let alive: Vec<_> = self.voters().into_iter().filter(|id| self.is_alive(*id)).collect();
            self.leader = alive.into_iter().max_by_key(applied);
        }
    }

    fn writes(&mut self) {
        if self.leader.is_none() {
            return;
        }
        self.index += self.random.below(600);
        for id in self.entries.keys().copied().collect::<Vec<_>>() {
            if !self.is_alive(id) {
                continue;
            }
            let index = self.index;
            let Some(disk) =
                self.machines.iter_mut().filter_map(|machine| machine.disk.as_mut()).find(|disk| disk.id == id)
            else {
                continue;
            };
            let Some(entry) = self.entries.get_mut(&id) else { continue };
            // It publishes its name some time after it has begun.
            entry.is_started |= entry.matched > 0 && self.random.permille(300);
            disk.applied = index.min(disk.applied + RATE);
            entry.matched = disk.applied;
        }
    }

    /// What the one who acts is told.
    pub fn asked(&self) -> Asked {
        let here = self.machines[self.turn].island;
        let mut asked = Asked::default();
        let leads = self.leader.filter(|_| self.quorum() == Some(here));
        for (id, entry) in &self.entries {
            let Some(machine) = self.runs(*id).filter(|machine| machine.island == here) else { continue };
            if self.is_unseen(*id) {
                continue;
            }
            let applied = machine.disk.map_or(0, |disk| disk.applied);
            let status = Status {
                member: Some(*id),
                leader: leads,
                index: if leads == Some(*id) { self.index } else { applied },
                applied,
                is_learner: entry.is_learner,
                ..Status::default()
            };
            let address = ([10, 0, 0, machine.place as u8], 2379).into();
            let healthy = entry.is_learner && leads.is_some();
            asked.answers.insert(*id, Answer { address, status, healthy });
            if leads.is_some() && !entry.is_learner {
                asked.lists.push(self.list());
            }
        }
        asked.this = self.machines[self.turn].disk.map(|disk| disk.id).filter(|id| asked.answers.contains_key(id));
        asked
    }

    /// The same, where one voter was asked just before the last change.
    pub fn asked_in_a_race(&self) -> Asked {
        let mut asked = self.asked();
        if let Some(list) = asked.lists.last_mut() {
            *list = self.before.clone();
        }
        asked
    }

    /// The controllers, as the API shows them.
    pub fn wanted(&self) -> Vec<Wanted> {
        let wanted = |(number, machine): (usize, &Machine)| Wanted {
            name: format!("c{number}"),
            uid: machine.uid.to_string(),
            peer_url: self.url(number),
            report: machine.report.clone().filter(|(_, at)| self.now <= at + REPORT).map(|(report, _)| report),
        };
        self.machines.iter().enumerate().filter(|(_, machine)| machine.is_labelled).map(wanted).collect()
    }

    /// etcd's answer to a change.
    pub fn make(&mut self, at: MemberId, change: &Change) -> Result<(), Sort> {
        let here = self.machines[self.turn].island;
        if self.is_unseen(at) || self.runs(at).is_none_or(|machine| machine.island != here) {
            return Err(Sort::Again);
        }
        if self.entries[&at].is_learner {
            return Err(Sort::Refused);
        }
        if self.quorum() != Some(here) || self.leader.is_none() {
            return Err(Sort::Unclear);
        }
        let before = self.list();
        match change {
            Change::Add(url) => self.add(at, url)?,
            Change::Promote(id) => self.promote(*id)?,
            Change::MoveLeader(to) => return self.move_leader(at, *to),
            Change::Remove(id) => self.remove(at, *id)?,
        }
        self.before = before;
        Ok(())
    }

    /// To how many voters a member has been connected for long enough, itself included.
    fn active(&self, at: MemberId) -> usize {
        let since =
            |id: &MemberId| self.connected.get(&(at, *id)).is_some_and(|since| self.now >= since + HEALTH_INTERVAL);
        self.voters().iter().filter(|id| **id == at || since(id)).count()
    }

    fn started(&self, without: Option<MemberId>) -> (usize, usize) {
        let voters: Vec<_> = self.voters().into_iter().filter(|id| Some(*id) != without).collect();
        (voters.iter().filter(|id| self.entries[id].is_started).count(), voters.len())
    }

    fn add(&mut self, at: MemberId, url: &str) -> Result<(), Sort> {
        let voters = self.voters().len();
        let is_healthy = match self.is_36 {
            true => self.active(at) == voters,
            false => voters == 1 || self.active(at) >= majority(voters + 1),
        };
        if !is_healthy {
            return Err(Sort::Again);
        }
        if self.entries.values().any(|entry| entry.url == url) {
            return Err(Sort::Done);
        }
        if self.entries.values().any(|entry| entry.is_learner) {
            return Err(Sort::NotYet);
        }
        self.ids += 1;
        let entry = Entry { url: url.to_owned(), is_learner: true, is_started: false, matched: 0 };
        self.entries.insert(MemberId(self.ids), entry);
        Ok(())
    }

    fn promote(&mut self, id: MemberId) -> Result<(), Sort> {
        let (started, voters) = self.started(None);
        let index = self.index;
        let Some(entry) = self.entries.get_mut(&id).filter(|entry| entry.is_learner) else { return Err(Sort::Done) };
        // What the leader knows of it: a dead one is promoted without objection.
        if (entry.matched as f64) < 0.9 * index as f64 || started + 1 < majority(voters + 1) {
            return Err(Sort::NotYet);
        }
        entry.is_learner = false;
        Ok(())
    }

    fn remove(&mut self, at: MemberId, id: MemberId) -> Result<(), Sort> {
        let Some(entry) = self.entries.get(&id) else { return Err(Sort::Done) };
        if !entry.is_learner {
            let (started, rest) = self.started(Some(id));
            if started < majority(rest) {
                return Err(Sort::NotYet);
            }
            let is_connected = id == at || self.connected.contains_key(&(at, id)) && self.runs(id).is_some();
            let voters = self.voters().len();
            if is_connected && self.active(at) - 1 < 1 + (voters - 1) / 2 {
                return Err(Sort::Again);
            }
        }
        self.entries.remove(&id);
        if self.leader == Some(id) {
            self.leader = None;
        }
        // The answer is lost now and then.
        if self.random.permille(100) { Err(Sort::Unclear) } else { Ok(()) }
    }

    fn move_leader(&mut self, at: MemberId, to: MemberId) -> Result<(), Sort> {
        if self.leader != Some(at) {
            return Err(Sort::Again);
        }
        match self.entries.get(&to) {
            None => Err(Sort::Refused),
            Some(entry) if entry.is_learner => Err(Sort::Refused),
            Some(_) if self.is_alive(to) => {
                self.leader = Some(to);
                Ok(())
            }
            Some(_) => Err(Sort::Unclear),
        }
    }

    /// Where the voters are.
    pub fn urls(&self) -> BTreeSet<String> {
        self.voters().iter().map(|id| self.entries[id].url.clone()).collect()
    }
}
