//! What a controller in the making does next on its own machine: pure. The members of etcd are changed elsewhere
//! ([`crate::etcd::members`]), by whoever has the turn; here it is seen what came of that.
//!
//! | observed | done |
//! |---|---|
//! | its API server may serve | nothing: it is a controller; but see below |
//! | the control plane's label was taken off its Node, and no voter lists it as a member | what was made for it is removed |
//! | the same, and a voter lists it | wait for its removal |
//! | its certificates are not there | they are made |
//! | etcd is not on the controllers | its API server may serve |
//! | no voter tells the members | wait |
//! | it is listed as a voter, and its own etcd says that it is this one | its API server may serve |
//! | it is listed, has never started, and there is no data | etcd begins, as one that joins |
//! | it is listed, has started before, and its data directory is empty: the machine was made anew | it reports that: the others remove the entry |
//! | it is listed, and its data is there without its manifest: the machine was made anew, and the disk kept | etcd goes on with it |
//! | it is listed otherwise | wait |
//! | it is not listed, by its name or its address, and its data directory is not empty | the data is put aside |
//! | it is not listed, and its data directory is empty | it reports that, and waits to be added |
//!
//! A controller whose data of etcd is gone becomes a member anew, on the word of a majority of the other voters. Its data is
//! *lost* if the directory has been empty for a minute and is on the file system on which the data was: a disk that is not
//! mounted is none of that, and is waited for.
//!
//! | observed of a controller that has the label and whose API server may serve | done |
//! |---|---|
//! | no voter tells the members, or they tell different ones | nothing |
//! | its own etcd says that it is the listed one, and votes; its data lacks the mark | the mark is made |
//! | its own etcd answers | nothing |
//! | it is not listed in the cluster that it was in, and its data directory is not empty | the data is put aside |
//! | it is not listed; its data is lost or was put aside | it reports that |
//! | it is listed, and that one has never started; its data is lost or was put aside | etcd begins, as one that joins |
//! | it is listed, and its data is lost | it reports that: the others remove the entry |
//! | otherwise | nothing |

use std::time::Duration;

use crate::etcd::client::{List, Member, MemberId, Status};

/// For how long data must be gone before it is lost.
pub const LOST: Duration = Duration::from_secs(60);

/// A controller in the making, or one whose data is perhaps lost, this time round.
#[derive(Debug, Clone, Default)]
pub struct Observed {
    /// The name of its Node, and of its member.
    pub name: String,
    /// Where the other members reach its own.
    pub peer_url: String,
    /// Its API server may serve.
    pub serves: bool,
    /// Its Node has the control plane's label; `None` where the API did not say.
    pub has_label: Option<bool>,
    /// Its own certificates are there.
    pub has_certificates: bool,
    /// This cluster has etcd on its controllers.
    pub is_local: bool,
    /// The members, as a voter tells them.
    pub list: Option<List>,
    /// All voters that tell the members tell these.
    pub is_agreed: bool,
    /// There is data of etcd's.
    pub has_data: bool,
    /// Its data directory can be seen, and nothing is in it, neither data nor the mark of a beginning.
    pub is_empty: bool,
    /// Its etcd's manifest is there.
    pub has_manifest: bool,
    /// The mark is there without which its etcd does not start at a boot.
    pub has_mark: bool,
    /// For how long its data directory has been empty, and on the file system on which the data was.
    pub lost_for: Option<Duration>,
    /// Its data directory is empty, and has data in it that was put aside.
    pub is_put_aside: bool,
    /// The cluster that its member was in, as far as that is remembered.
    pub was_in: Option<u64>,
    /// What its own etcd says of itself, if it answers.
    pub own: Option<Status>,
}

/// What to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Nothing: it is a controller.
    Done,
    /// Nothing yet, and why.
    Wait(String),
    /// Make its certificates.
    MakeCertificates,
    /// Say that its data directory is empty, and wait to be added.
    Report,
    /// Put etcd on the disk, with this value of `--initial-cluster`.
    Begin(String),
    /// The same in place of a member whose data is gone: as this one that was added anew.
    BeginAnew(MemberId, String),
    /// Make the mark by which etcd starts at a boot: it votes again.
    Mark,
    /// Move data of a member that was removed out of the way.
    PutAside,
    /// Let its API server serve.
    Serve,
    /// Take away what was made for it.
    Remove,
}

/// Decides: the first row of the table that applies.
pub fn decide(o: &Observed) -> Step {
    let entry = o.entry();
    if o.serves {
        return again(o, entry);
    }
    if o.has_label == Some(false) {
        return match (&o.list, entry) {
            (_, Some(_)) => Step::Wait("its member is to be removed: the label was taken off its Node".into()),
            (None, None) if o.is_local => no_voter(),
            _ => Step::Remove,
        };
    }
    if !o.has_certificates {
        return Step::MakeCertificates;
    }
    if !o.is_local {
        return Step::Serve;
    }
    let Some(list) = &o.list else { return no_voter() };
    let Some(entry) = entry else {
        let is_known = list.members.values().any(|member| member.name == o.name);
        return match (o.has_data, is_known) {
            (true, false) => Step::PutAside,
            (true, true) => Step::Wait(format!("etcd lists {} at another address, and its data is here", o.name)),
            (false, _) => Step::Report,
        };
    };
    let own = o.own.as_ref().filter(|own| own.member == Some(entry.id));
    match own {
        Some(own) if !entry.is_learner && !own.is_learner => Step::Serve,
        Some(_) => Step::Wait(format!("its etcd member {} to get its vote", entry.id)),
        None if !o.has_data && entry.name.is_empty() => Step::Begin(initial(list, o)),
        None if o.own.is_none() && o.has_data && !o.has_manifest => Step::Begin(initial(list, o)),
        None if o.own.is_none() && o.is_empty => Step::Report,
        None if !o.has_data => Step::Wait(format!("the entry of its lost etcd member {} to be removed", entry.id)),
        None => Step::Wait("its etcd to answer".into()),
    }
}

/// A controller that serves: the second table.
fn again(o: &Observed, entry: Option<&Member>) -> Step {
    let Some(list) = o.list.as_ref().filter(|_| o.is_local && o.is_agreed && o.has_label == Some(true)) else {
        return Step::Done;
    };
    let is_gone = o.is_put_aside || o.lost_for.is_some();
    match (entry, &o.own) {
        (Some(entry), Some(own)) if own.member == Some(entry.id) => match entry.is_learner || own.is_learner {
            true => Step::Wait(format!("its etcd member {} to get its vote", entry.id)),
            false if o.has_data && !o.has_mark => Step::Mark,
            false => Step::Done,
        },
        (_, Some(_)) => Step::Done,
        (None, None) if o.has_data && o.was_in != Some(list.cluster) => Step::Wait(
            "etcd's data here is of another cluster than the one of the other controllers: nothing is done to it"
                .into(),
        ),
        (None, None) if o.has_data && list.members.values().any(|member| member.name == o.name) => {
            Step::Wait(format!("etcd lists {} at another address, and its data is here", o.name))
        }
        (None, None) if o.has_data => Step::PutAside,
        (None, None) if is_gone => Step::Report,
        (Some(entry), None) if entry.name.is_empty() && is_gone => Step::BeginAnew(entry.id, initial(list, o)),
        (Some(_), None) => match o.lost_for {
            Some(lost_for) if lost_for >= LOST => Step::Report,
            Some(_) => Step::Wait("etcd's data is gone: whether it is lost".into()),
            None => Step::Done,
        },
        (None, None) => Step::Done,
    }
}

fn no_voter() -> Step {
    Step::Wait("no voter of etcd tells the members".into())
}

impl Observed {
    /// Its entry in the list.
    fn entry(&self) -> Option<&Member> {
        self.list.as_ref()?.members.values().find(|member| member.peer_urls.contains(&self.peer_url))
    }
}

/// The value of `--initial-cluster`: as the list has the members, this one by its name. etcd tells them apart by their URLs;
/// one that has not started yet has no name, and gets any.
fn initial(list: &List, o: &Observed) -> String {
    let of = |member: &Member| {
        let is_own = member.peer_urls.contains(&o.peer_url);
        let name = match (is_own, member.name.is_empty()) {
            (true, _) => o.name.clone(),
            (false, true) => format!("member-{}", member.id),
            (false, false) => member.name.clone(),
        };
        member.peer_urls.iter().map(|url| format!("{name}={url}")).collect::<Vec<_>>()
    };
    list.members.values().flat_map(of).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests;
