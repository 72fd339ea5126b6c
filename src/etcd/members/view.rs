//! What follows from what was observed, before anything is decided: the one list, the leader, which voters are well.

use std::cmp::Reverse;
use std::time::Duration;

use super::observed::{Answer, Data, Observed, Seen, Wanted};
use crate::etcd::client::{List, Member, MemberId, Status};

/// For how long a member must have answered before it counts, or been silent before it does not; and how long a list must
/// have stood before the next change. etcd itself refuses a change for 5 s after a member has connected.
pub const STEADY: Duration = Duration::from_secs(5);
/// How many entries a member may be behind and be in sync.
pub const IN_SYNC: u64 = 1000;
/// As etcd names it in a member's errors.
const CORRUPT: &str = "CORRUPT";
/// What was seen of a member that was not asked yet.
static UNSEEN: Seen = Seen { answer: None, since: Duration::ZERO, stalled: Duration::ZERO };

/// How many of so many voters are a majority.
pub(super) fn majority(voters: usize) -> usize {
    voters / 2 + 1
}

/// A cluster whose members may be changed.
pub(super) struct View<'a> {
    observed: &'a Observed,
    pub(super) list: &'a List,
    /// What the leader says of itself.
    pub(super) leader: &'a Status,
}

impl<'a> View<'a> {
    /// The one of what was observed; otherwise why nothing may be changed now.
    pub(super) fn of(observed: &'a Observed) -> Result<Self, String> {
        let Some(list) = observed.lists.first() else {
            return Err("no voter of etcd tells the members: most of them are away, or have no leader".into());
        };
        if observed.wanted.is_empty() {
            return Err("no Node has the control plane's label: every member stays".into());
        }
        if let Some(other) = observed.lists.iter().find(|other| !other.agrees(list)) {
            return Err(format!("the voters tell different members: {}, and {}", told(list), told(other)));
        }
        let corrupt = observed.seen.iter().find(|(_, seen)| {
            let mut errors = seen.answer.iter().flat_map(|answer| &answer.status.errors);
            errors.any(|error| error.contains(CORRUPT))
        });
        if let Some((id, _)) = corrupt {
            return Err(format!(
                "the member {id} has the alarm CORRUPT: every member stays as it is until that is gone"
            ));
        }
        // Without a leader nothing is known of who is well; for the reason, anything else stands in.
        let Some(leader) = leader(observed, list) else {
            return Err(format!("no member leads a majority of the voters: {}", silent(observed, list)));
        };
        let view = Self { observed, list, leader };
        let (well, needed) = (view.well().count(), majority(view.voters().count()));
        if well < needed {
            return Err(format!("of {needed} voters that a change takes, {well} are well: {}", view.ailing()));
        }
        if observed.settled < STEADY {
            return Err(format!("the members have just changed: the next change comes {} s later", STEADY.as_secs()));
        }
        Ok(view)
    }

    pub(super) fn voters(&self) -> impl Iterator<Item = &'a Member> {
        voters(self.list)
    }

    pub(super) fn learners(&self) -> impl Iterator<Item = &'a Member> {
        self.list.members.values().filter(|member| member.is_learner)
    }

    pub(super) fn seen(&self, member: &Member) -> &'a Seen {
        self.observed.seen.get(&member.id).unwrap_or(&UNSEEN)
    }

    /// The voters that answer, have done so for long enough, follow the leader and are in sync with it.
    pub(super) fn well(&self) -> impl Iterator<Item = &'a Member> {
        self.voters().filter(|voter| self.why_not_well(voter).is_none())
    }

    /// Whether a member is not reached, and this is no moment's.
    pub(super) fn is_away(&self, member: &Member) -> bool {
        let seen = self.seen(member);
        seen.answer.is_none() && seen.since >= STEADY
    }

    /// How many entries behind the leader a member is.
    pub(super) fn behind(&self, status: &Status) -> u64 {
        self.leader.index.saturating_sub(status.applied)
    }

    /// The controller whose member it is.
    pub(super) fn wanted(&self, member: &Member) -> Option<&'a Wanted> {
        self.observed.wanted.iter().find(|wanted| member.peer_urls.contains(&wanted.peer_url))
    }

    /// What is in a controller's data directory, if its own guard says so, and not that of the machine before it.
    pub(super) fn data(&self, wanted: &Wanted) -> Option<Data> {
        wanted.report.as_ref().filter(|report| report.uid == wanted.uid).map(|report| report.data)
    }

    /// The controllers that have no member.
    pub(super) fn absent(&self) -> impl Iterator<Item = &'a Wanted> {
        let is_there =
            |wanted: &Wanted| self.list.members.values().any(|member| member.peer_urls.contains(&wanted.peer_url));
        self.observed.wanted.iter().filter(move |wanted| !is_there(wanted))
    }

    /// Those of them that can be given one.
    pub(super) fn addable(&self) -> impl Iterator<Item = &'a Wanted> {
        self.absent().filter(|wanted| self.data(wanted) == Some(Data::Empty))
    }

    /// Whether a voter that is away may be removed: a majority of the others is well.
    pub(super) fn may_be_dropped(&self, voter: &Member) -> bool {
        let others = self.voters().filter(|other| other.id != voter.id).count();
        let well = self.well().filter(|other| other.id != voter.id).count();
        others > 0 && well >= majority(others)
    }

    /// Whether a voter that answers may be removed: all the others are well, so that it costs no majority if one of them
    /// fails meanwhile, and one of them is a controller's.
    pub(super) fn may_leave(&self, voter: &Member) -> Result<(), String> {
        let name = voter.called();
        let others: Vec<_> = self.voters().filter(|other| other.id != voter.id).collect();
        if others.is_empty() {
            return Err(format!("{name} is the last voter"));
        }
        if others.iter().any(|other| self.why_not_well(other).is_some()) {
            return Err(format!("{name} is removed once all other voters are well: {}", self.ailing()));
        }
        if !others.iter().any(|other| self.wanted(other).is_some()) {
            return Err(format!("{name} is removed once the member of a controller votes"));
        }
        Ok(())
    }

    /// Who shall lead in place of `voter`: of the controllers' the one that is furthest.
    pub(super) fn heir(&self, voter: &Member) -> Option<MemberId> {
        let applied = |member: &Member| self.seen(member).answer.as_ref().map_or(0, |answer| answer.status.applied);
        let others = self.well().filter(|other| other.id != voter.id && self.wanted(other).is_some());
        others.max_by_key(|member| (applied(member), Reverse(member.id))).map(|member| member.id)
    }

    /// The member that is asked for a change of `subject`: where the last one was refused it gets through soonest; then
    /// this node's own, the leader, or any that is well.
    pub(super) fn asked(&self, subject: Option<MemberId>) -> Option<MemberId> {
        let well: Vec<_> = self.well().map(|member| member.id).filter(|id| Some(*id) != subject).collect();
        let preferred = [self.observed.again, self.observed.this, self.leader.member];
        let preferred = preferred.into_iter().flatten().find(|id| well.contains(id));
        preferred.or(well.first().copied())
    }

    /// Which voters are not well, and why.
    pub(super) fn ailing(&self) -> String {
        let reasons: Vec<_> = self
            .voters()
            .filter_map(|voter| Some(format!("{} {}", voter.called(), self.why_not_well(voter)?)))
            .collect();
        if reasons.is_empty() { "all voters are".into() } else { reasons.join(", ") }
    }

    fn why_not_well(&self, voter: &Member) -> Option<String> {
        let Seen { answer, since, .. } = self.seen(voter);
        let Some(Answer { status, .. }) = answer else {
            return Some(format!("has not answered for {} s", since.as_secs()));
        };
        let behind = self.behind(status);
        if status.is_learner {
            Some("does not know yet that it votes".into())
        } else if status.leader != self.leader.member {
            Some("does not follow the leader".into())
        } else if behind > IN_SYNC {
            Some(format!("is {behind} entries behind"))
        } else if *since < STEADY {
            Some(format!("has not answered for {} s in a row yet", STEADY.as_secs()))
        } else {
            None
        }
    }
}

fn voters(list: &List) -> impl Iterator<Item = &Member> {
    list.members.values().filter(|member| !member.is_learner)
}

/// The voter that leads by what a majority of the voters says, itself included.
fn leader<'a>(observed: &'a Observed, list: &List) -> Option<&'a Status> {
    let status = |member: &Member| Some(&observed.seen.get(&member.id)?.answer.as_ref()?.status);
    let follow = |id: MemberId| {
        let follows = |voter: &&Member| status(voter).is_some_and(|said| said.leader == Some(id));
        voters(list).filter(follows).count()
    };
    let leads = |voter: &&Member| {
        status(voter).is_some_and(|said| said.leader == Some(voter.id))
            && follow(voter.id) >= majority(voters(list).count())
    };
    voters(list).find(leads).and_then(status)
}

/// Which voters do not answer.
fn silent(observed: &Observed, list: &List) -> String {
    let seen = |voter: &Member| observed.seen.get(&voter.id).unwrap_or(&UNSEEN);
    let silent = voters(list).filter(|voter| seen(voter).answer.is_none());
    let said: Vec<_> = silent
        .map(|voter| format!("{} has not answered for {} s", voter.called(), seen(voter).since.as_secs()))
        .collect();
    if said.is_empty() { "there is an election".into() } else { said.join(", ") }
}

/// A list, in short.
fn told(list: &List) -> String {
    let said = |member: &Member| {
        let role = if member.is_learner { " (learner)" } else { "" };
        format!("{}{role}", member.called())
    };
    let members: Vec<_> = list.members.values().map(said).collect();
    format!("{} of the cluster {:x}", members.join(", "), list.cluster)
}
