//! What the endpoint knows at this moment, shared by all that looks and all that forwards: each target's health, and who
//! is connected to it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tracing::{info, warn};

use super::choose::{self, Candidate};
use super::health::{Health, LetsGo, Meanwhile, Seen, State};
use crate::base::probe::Answer;

/// Everything known of the targets.
pub struct Board {
    inner: Mutex<Inner>,
    changed: Notify,
    preferred: Option<SocketAddr>,
    /// Clients that were closed because no target could be reached.
    unserved: AtomicU64,
    /// Connections that were tried at another target, because the first one never answered.
    moved: AtomicU64,
}

struct Inner {
    targets: BTreeMap<SocketAddr, Entry>,
    random: u64,
}

/// One target.
struct Entry {
    health: Health,
    connections: usize,
    total: u64,
    /// Tells the connections to the target that it lets go.
    lets_go: watch::Sender<LetsGo>,
    signs: Arc<Signs>,
}

/// The signs by which the one who asks a target and those who are connected to it tell each other of it.
#[derive(Default)]
pub struct Signs {
    /// The bytes that came from it.
    pub heard: AtomicU64,
    /// It is to be asked now: something went wrong with a connection.
    pub hurry: Notify,
}

/// A target, as others see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seat {
    /// Where it is.
    pub address: SocketAddr,
    /// What is thought of it.
    pub state: State,
    /// For how long.
    pub since: Duration,
    /// The connections that lead to it now.
    pub connections: usize,
    /// Those that ever did.
    pub total: u64,
    /// The bytes that came from it.
    pub bytes: u64,
}

impl Board {
    /// Without any target. Chance between equal targets comes from `seed`.
    pub fn new(preferred: Option<SocketAddr>, seed: u64) -> Arc<Self> {
        Arc::new(Self {
            inner: Mutex::new(Inner { targets: BTreeMap::new(), random: seed }),
            changed: Notify::new(),
            preferred,
            unserved: AtomicU64::new(0),
            moved: AtomicU64::new(0),
        })
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on these are the targets. Connections to one that is none any more are closed.
    pub fn set(&self, addresses: &BTreeSet<SocketAddr>, now: Instant) {
        let mut inner = self.inner();
        inner.targets.retain(|address, _| addresses.contains(address));
        for address in addresses {
            inner.targets.entry(*address).or_insert_with(|| Entry {
                health: Health::unknown(now),
                connections: 0,
                total: 0,
                lets_go: watch::Sender::new(LetsGo::None),
                signs: Arc::default(),
            });
        }
    }

    /// A target answered so, and that came from it while it was asked.
    pub fn seen(&self, address: SocketAddr, answer: &Answer, meanwhile: Meanwhile, now: Instant) {
        let mut inner = self.inner();
        let Some(entry) = inner.targets.get_mut(&address) else { return };
        let before = entry.health.state();
        entry.health = entry.health.next(Seen::of(answer, meanwhile), now);
        let after = entry.health.state();
        let thought: Vec<_> = inner.targets.iter().map(|(address, entry)| (*address, entry.health.lets_go())).collect();
        let serves = inner.targets.values().any(|entry| entry.health.serves(now));
        for (address, lets_go) in choose::closing(&thought, serves) {
            if let Some(entry) = inner.targets.get(&address).filter(|entry| entry.connections > 0) {
                if lets_go == LetsGo::All {
                    info!("closing {} connections to {address}, which is {}", entry.connections, entry.health.state());
                }
                entry.lets_go.send_replace(lets_go);
            }
        }
        drop(inner);
        if before != after {
            match after {
                State::Good => info!("{address} is good"),
                State::Starting | State::Leaving | State::Unknown => info!("{address} is {after}: {answer}"),
                _ => warn!("{address} is {after}: {answer}"),
            }
            self.changed.notify_waiters();
        }
    }

    /// The targets to try, one after the other, at `now`.
    pub fn order(&self, now: Instant) -> Vec<SocketAddr> {
        let mut inner = self.inner();
        let Inner { targets, random } = &mut *inner;
        let candidates = targets.iter().map(|(address, entry)| Candidate {
            address: *address,
            state: entry.health.state(),
            since: entry.health.for_so_long(now),
            connections: entry.connections,
            ready: entry.health.ready_ago(now),
            is_preferred: self.preferred == Some(*address),
            chance: chance(random),
        });
        choose::order(candidates.collect())
    }

    /// Whether an API server is to be had, or may be in a moment: a target answers, or was ready within `lately`.
    pub fn has_hope(&self, lately: Duration, now: Instant) -> bool {
        let is_hope = |health: &Health| {
            let is_there = !matches!(health.state(), State::Away | State::Silent | State::Unknown);
            is_there || health.ready_ago(now).is_some_and(|ago| ago < lately)
        };
        self.inner().targets.values().any(|entry| is_hope(&entry.health))
    }

    /// Counts a connection to a target, until it is dropped; `None` where it is no target any more.
    pub fn lease(self: &Arc<Self>, address: SocketAddr) -> Option<Lease> {
        let mut inner = self.inner();
        let entry = inner.targets.get_mut(&address)?;
        entry.connections += 1;
        let (lets_go, signs) = (entry.lets_go.subscribe(), entry.signs.clone());
        Some(Lease { board: self.clone(), address, lets_go, signs })
    }

    /// Completes when what is thought of a target changes.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    /// What those who ask a target and those who are connected to it share.
    pub fn signs(&self, address: SocketAddr) -> Option<Arc<Signs>> {
        self.inner().targets.get(&address).map(|entry| entry.signs.clone())
    }

    /// A client was closed because no target could be reached.
    pub fn count_unserved(&self) {
        self.unserved.fetch_add(1, Ordering::Relaxed);
    }

    /// A connection is tried at another target.
    pub fn count_moved(&self) {
        self.moved.fetch_add(1, Ordering::Relaxed);
    }

    /// How many clients found no target, and how many were tried at another one.
    pub fn counts(&self) -> (u64, u64) {
        (self.unserved.load(Ordering::Relaxed), self.moved.load(Ordering::Relaxed))
    }

    /// All targets, as they are at `now`.
    pub fn seats(&self, now: Instant) -> Vec<Seat> {
        let inner = self.inner();
        let seats = inner.targets.iter().map(|(address, entry)| Seat {
            address: *address,
            state: entry.health.state(),
            since: entry.health.for_so_long(now),
            connections: entry.connections,
            total: entry.total,
            bytes: entry.signs.heard.load(Ordering::Relaxed),
        });
        seats.collect()
    }
}

/// A connection to a target, which is counted as long as this is there.
pub struct Lease {
    board: Arc<Board>,
    address: SocketAddr,
    lets_go: watch::Receiver<LetsGo>,
    signs: Arc<Signs>,
}

impl Lease {
    /// The target.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Completes when the connection is to be closed.
    pub async fn closed(&self) {
        self.let_go(LetsGo::All).await;
    }

    /// Completes when the connection is better elsewhere, as long as the target has not answered on it.
    pub async fn passed_on(&self) {
        self.let_go(LetsGo::Unanswered).await;
    }

    /// Completes at the next time at which as many are let go as this, or more.
    async fn let_go(&self, least: LetsGo) {
        let mut lets_go = self.lets_go.clone();
        // An error says that the target is none any more.
        while lets_go.changed().await.is_ok() {
            if *lets_go.borrow_and_update() >= least {
                return;
            }
        }
    }

    /// So many bytes came from the target.
    pub fn heard(&self, bytes: usize) {
        self.signs.heard.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Something is wrong with the target: it is asked at once.
    pub fn suspect(&self) {
        self.signs.hurry.notify_one();
    }

    /// The target has answered: this is a connection of its own from now on.
    pub fn is_made(&self) {
        if let Some(entry) = self.board.inner().targets.get_mut(&self.address) {
            entry.total += 1;
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(entry) = self.board.inner().targets.get_mut(&self.address)
            // One that was forgotten and came back counts anew.
            && Arc::ptr_eq(&entry.signs, &self.signs)
        {
            entry.connections -= 1;
        }
    }
}

/// The next number of a sequence that looks like chance: SplitMix64.
fn chance(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut mixed = *state;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    fn at(last: u8) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, last], 6443))
    }

    fn ready() -> Answer {
        Answer::Http { status: 200, body: "ok".into() }
    }

    fn board(targets: u8, seed: u64) -> Arc<Board> {
        let board = Board::new(None, seed);
        board.set(&(1..=targets).map(at).collect(), Instant::now());
        for last in 1..=targets {
            board.seen(at(last), &ready(), Meanwhile::Nothing, Instant::now());
        }
        board
    }

    #[tokio::test]
    async fn connections_spread_evenly_and_a_target_that_comes_back_is_filled_up() {
        let board = board(3, 7);
        let connect = || board.lease(board.order(Instant::now())[0]).unwrap();
        let counts = || board.seats(Instant::now()).iter().map(|seat| seat.connections).collect::<Vec<_>>();
        let mut open: Vec<_> = (0..300).map(|_| connect()).collect();
        assert_eq!(counts(), [100, 100, 100]);
        open.retain(|lease| lease.address() != at(2));
        open.extend((0..50).map(|_| connect()));
        assert_eq!(counts(), [100, 50, 100]);
    }

    #[tokio::test]
    async fn the_first_connections_of_many_nodes_lead_to_different_targets() {
        let first = |seed| board(3, seed).order(Instant::now())[0];
        let count = |wanted| (0..300).filter(|seed| first(*seed) == wanted).count();
        for last in 1..=3 {
            assert!((60..140).contains(&count(at(last))), "{}", count(at(last)));
        }
    }

    #[tokio::test]
    async fn connections_to_a_target_that_hangs_are_told_and_others_are_not() {
        let board = board(2, 7);
        let (first, second) = (board.lease(at(1)).unwrap(), board.lease(at(2)).unwrap());
        let hangs = |last| board.seen(at(last), &Answer::TimedOut, Meanwhile::Nothing, Instant::now());
        assert!(first.passed_on().now_or_never().is_none());
        hangs(1);
        assert!(first.passed_on().now_or_never().is_some() && first.closed().now_or_never().is_none());
        hangs(1);
        assert!(first.closed().now_or_never().is_some());
        // Now the other one hangs, too: it keeps what it has.
        hangs(2);
        hangs(2);
        assert!(second.passed_on().now_or_never().is_none() && second.closed().now_or_never().is_none());
        // Until there is somewhere to go.
        for _ in 0..2 {
            board.seen(at(1), &ready(), Meanwhile::Nothing, Instant::now());
        }
        assert!(second.closed().now_or_never().is_some());
    }

    #[tokio::test]
    async fn connections_to_what_is_no_target_any_more_are_told() {
        let board = board(2, 7);
        let lease = board.lease(at(1)).unwrap();
        board.set(&BTreeSet::from([at(2)]), Instant::now());
        assert!(lease.closed().now_or_never().is_some());
        assert!(board.lease(at(1)).is_none());
        // It comes back, and the old one does not count for it.
        board.set(&BTreeSet::from([at(1), at(2)]), Instant::now());
        drop(lease);
        assert_eq!(board.seats(Instant::now())[0].connections, 0);
    }
}
