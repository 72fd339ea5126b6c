//! Decides which change of the members is next: pure. The table is in [the room's page](super).

use std::time::Duration;

use super::observed::{Act, Answer, Change, Data, Observed, Seen, Wanted};
use super::view::{IN_SYNC, View, majority};
use crate::etcd::client::{Member, MemberId};

/// For how long a learner may make no progress, and for how long where another controller waits to be added: etcd takes one
/// learner at a time.
pub const STALLED: Duration = Duration::from_secs(600);
/// See [`STALLED`].
pub const STALLED_BEFORE_OTHERS: Duration = Duration::from_secs(60);

/// For how long a learner must have answered before it gets its vote. Its client port may open 7 s after its start, and the
/// majority does not hang on it.
pub const LEARNS: Duration = Duration::from_secs(2);

/// Which change is next, if any: the first row of the table that applies.
pub fn decide(observed: &Observed) -> Act {
    let view = match View::of(observed) {
        Ok(view) => view,
        Err(why) => return Act::Wait(why),
    };
    let rows = [gone, useless_learner, learner, newcomer, leaver, ailing];
    rows.iter().find_map(|row| row(&view)).unwrap_or(Act::Nothing)
}

/// A voter that is away and will not come back as it was. It counts for the majority and has no say: removing it makes the
/// majority smaller, so that it comes before any promotion.
fn gone(view: &View<'_>) -> Option<Act> {
    let gone = view.voters().filter(|voter| view.is_away(voter)).find_map(|voter| {
        let why = match view.wanted(voter) {
            None => "is away, and no controller",
            Some(wanted) if view.data(wanted) == Some(Data::Empty) => "has lost its data, and is added anew",
            Some(_) => return None,
        };
        view.may_be_dropped(voter).then_some((voter, why))
    });
    gone.map(|(voter, why)| view.remove(voter, why))
}

/// A learner that stands in the way. It has no vote: removing it costs nothing.
fn useless_learner(view: &View<'_>) -> Option<Act> {
    view.learners().find_map(|learner| {
        let Some(wanted) = view.wanted(learner) else { return Some(view.remove(learner, "is no controller")) };
        let seen = view.seen(learner);
        let has_begun = !learner.name.is_empty();
        if has_begun && view.is_away(learner) && view.data(wanted) == Some(Data::Empty) {
            return Some(view.remove(learner, "has lost its data, and is added anew"));
        }
        let limit = if view.addable().next().is_some() { STALLED_BEFORE_OTHERS } else { STALLED };
        (seen.stalled >= limit).then(|| {
            let why = format!("has made no progress for {} s", seen.stalled.as_secs());
            view.remove(learner, &why)
        })
    })
}

/// A learner: promoted, or waited for. Meanwhile no other is added, and no voter that answers is removed.
fn learner(view: &View<'_>) -> Option<Act> {
    let mut why = None;
    for learner in view.learners() {
        match ready(view, learner) {
            Ok(()) => {
                let what = format!("{} is in sync", learner.called());
                return Some(view.make(Change::Promote(learner.id), what));
            }
            Err(reason) => why = why.or(Some(reason)),
        }
    }
    why.map(Act::Wait)
}

/// Whether a learner may vote: it answers, is in sync, and the majority that there will be stands without it. A second
/// member is the exception: with two voters each is needed.
fn ready(view: &View<'_>, learner: &Member) -> Result<(), String> {
    let name = learner.called();
    let Seen { answer, since, .. } = view.seen(learner);
    let silent = || format!("{name} is a learner, and has not answered for {} s", since.as_secs());
    let Answer { status, healthy, .. } = answer.as_ref().ok_or_else(silent)?;
    let behind = view.behind(status);
    if behind > IN_SYNC {
        return Err(format!(
            "{name} is a learner, and not in sync: it has applied entry {} of {}",
            status.applied, view.leader.index
        ));
    }
    if !healthy || status.leader != view.leader.member {
        return Err(format!("{name} is a learner, and does not say that it is well: its log tells why"));
    }
    if *since < LEARNS {
        return Err(format!("{name} is a learner, and has not answered for {} s in a row yet", LEARNS.as_secs()));
    }
    let voters = view.voters().count();
    let (well, needed) = (view.well().count(), majority(voters + 1));
    if voters > 1 && well < needed {
        return Err(format!(
            "{name} is in sync, and is promoted once {needed} voters are well, so that the majority does not hang on it: {}",
            view.ailing()
        ));
    }
    Ok(())
}

/// A controller that is no member.
fn newcomer(view: &View<'_>) -> Option<Act> {
    let next = view.addable().next();
    let Some(next) = next else {
        // Nothing is to be done about these here, and no voter that answers is removed before they vote.
        return view.absent().next().map(|wanted| Act::Wait(not_addable(view, wanted)));
    };
    // etcd 3.6 refuses it otherwise, and a learner would not be promoted.
    if view.well().count() < view.voters().count() {
        return Some(Act::Wait(format!("{} is added once all voters are well: {}", next.name, view.ailing())));
    }
    Some(view.make(Change::Add(next.peer_url.clone()), format!("{} is to be a member", next.name)))
}

/// Why a controller that is no member is not added.
fn not_addable(view: &View<'_>, wanted: &Wanted) -> String {
    let name = &wanted.name;
    match view.data(wanted) {
        None => format!(
            "{name} is to be a member, and its guard has not said lately that its data directory is empty; \
             if the machine is gone for good, `kubectl delete node {name}`"
        ),
        Some(Data::Of(id)) if view.list.members.contains_key(&id) => format!(
            "{name} has the data of the member {id}, which the others reach elsewhere than at {}: \
             the address of a member is not changed",
            wanted.peer_url
        ),
        _ => format!("{name} has the data of a member that was removed: its guard puts it aside first"),
    }
}

/// A voter that answers and is no controller, where every controller votes. The leader is the last.
fn leaver(view: &View<'_>) -> Option<Act> {
    let leads = |voter: &Member| Some(voter.id) == view.leader.member;
    let mut leavers: Vec<_> = view.voters().filter(|voter| view.wanted(voter).is_none()).collect();
    leavers.sort_by_key(|voter| leads(voter));
    let mut why_not = None;
    for voter in leavers {
        match view.may_leave(voter) {
            Ok(()) if leads(voter) => {
                let heir = view.heir(voter)?;
                let why = format!("{} leads, and is no controller", voter.called());
                return Some(Act::Make { at: voter.id, change: Change::MoveLeader(heir), why });
            }
            Ok(()) => return Some(view.remove(voter, "is no controller")),
            Err(why) => why_not = why_not.or(Some(why)),
        }
    }
    why_not.map(Act::Wait)
}

/// A controller's voter that is not well: it comes back, or somebody takes the label away.
fn ailing(view: &View<'_>) -> Option<Act> {
    let all_well = view.well().count() == view.voters().count();
    (!all_well).then(|| Act::Wait(format!("the voters are the controllers, and not all are well: {}", view.ailing())))
}

impl View<'_> {
    /// A change, at the member where it gets through soonest.
    fn make(&self, change: Change, why: String) -> Act {
        self.make_without(None, change, why)
    }

    fn remove(&self, member: &Member, why: &str) -> Act {
        self.make_without(Some(member.id), Change::Remove(member.id), format!("{} {why}", member.called()))
    }

    fn make_without(&self, subject: Option<MemberId>, change: Change, why: String) -> Act {
        match self.asked(subject) {
            Some(at) => Act::Make { at, change, why },
            None => Act::Wait(format!("{why}; no other voter is well: {}", self.ailing())),
        }
    }
}
