//! What only time can tell: for how long a member answers, is silent, makes no progress. All of it may be lost: the next
//! change then comes some seconds later.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::Instant;

use super::observed::{Answer, Observed, Seen, Wanted};
use super::view::IN_SYNC;
use crate::etcd::client::{Failed, List, MemberId, Sort};

/// After so long without a look nothing is known of the time between.
const UNWATCHED: Duration = Duration::from_secs(30);

/// What the members answered at one moment.
#[derive(Debug, Clone, Default)]
pub struct Asked {
    /// The lists of members, each as one voter tells it.
    pub lists: Vec<List>,
    /// What each member that answers says.
    pub answers: BTreeMap<MemberId, Answer>,
    /// The member of this node, where it has one that answers.
    pub this: Option<MemberId>,
}

/// What was seen lately.
#[derive(Debug, Default)]
pub struct Watch {
    looked: Option<Instant>,
    list: Option<(List, Instant)>,
    members: BTreeMap<MemberId, Memory>,
    again: Option<MemberId>,
}

/// What was seen lately of a member.
#[derive(Debug)]
struct Memory {
    answers: bool,
    /// Since when it does or does not.
    since: Instant,
    /// The furthest that it has come, and when.
    applied: u64,
    progress: Instant,
}

impl Watch {
    /// Adds what was asked at `now` to what is remembered, for the controllers `wanted`.
    pub fn observed(&mut self, asked: Asked, wanted: Vec<Wanted>, now: Instant) -> Observed {
        if self.looked.is_none_or(|looked| now.saturating_duration_since(looked) >= UNWATCHED) {
            (self.list, self.members) = Default::default();
        }
        self.looked = Some(now);
        let settled = self.settled(asked.lists.first(), now);
        let index = asked.answers.values().map(|answer| answer.status.index).max().unwrap_or_default();
        let named = asked.lists.iter().flat_map(|list| list.members.keys());
        let named: BTreeSet<MemberId> = named.chain(self.members.keys()).copied().collect();
        let mut seen = BTreeMap::new();
        for id in named {
            seen.insert(id, self.seen(id, asked.answers.get(&id), index, now));
        }
        if let Some((list, _)) = &self.list {
            self.members.retain(|id, _| list.members.contains_key(id));
        }
        Observed { lists: asked.lists, settled, seen, wanted, this: asked.this, again: self.again }
    }

    /// Remembers what came of a change at a member.
    pub fn came_to<T>(&mut self, at: MemberId, result: &Result<T, Failed>) {
        let again = matches!(result, Err(Failed { sort: Sort::Again, .. }));
        self.again = again.then_some(at);
    }

    /// For how long the list has been the one that it is.
    fn settled(&mut self, list: Option<&List>, now: Instant) -> Duration {
        let Some(list) = list else { return Duration::ZERO };
        let since = match &self.list {
            Some((before, since)) if before.agrees(list) => *since,
            _ => now,
        };
        self.list = Some((list.clone(), since));
        now.saturating_duration_since(since)
    }

    fn seen(&mut self, id: MemberId, answer: Option<&Answer>, index: u64, now: Instant) -> Seen {
        let answers = answer.is_some();
        let memory = self.members.entry(id).or_insert(Memory { answers, since: now, applied: 0, progress: now });
        if memory.answers != answers {
            (memory.answers, memory.since) = (answers, now);
        }
        if let Some(Answer { status, .. }) = answer
            && (status.applied > memory.applied || index.saturating_sub(status.applied) <= IN_SYNC)
        {
            (memory.applied, memory.progress) = (status.applied, now);
        }
        Seen {
            answer: answer.cloned(),
            since: now.saturating_duration_since(memory.since),
            stalled: now.saturating_duration_since(memory.progress),
        }
    }
}
