//! What a controller in the making does next on its own machine: pure. The members of etcd are changed elsewhere
//! ([`crate::etcd::members`]), by whoever has the turn; here it is seen what came of that.
//!
//! | observed | done |
//! |---|---|
//! | its API server may serve | nothing: it is a controller |
//! | the control plane's label was taken off its Node, and no voter lists it as a member | what was made for it is removed |
//! | the same, and a voter lists it | wait for its removal |
//! | its certificates are not there | they are made |
//! | etcd is not on the controllers | its API server may serve |
//! | no voter tells the members | wait |
//! | it is listed as a voter, and its own etcd says that it is this one | its API server may serve |
//! | it is listed, has never started, and its data directory is empty | etcd begins, as one that joins |
//! | it is listed otherwise | wait |
//! | it is not listed, by its name or its address, and its data directory is not empty | the data is put aside |
//! | it is not listed, and its data directory is empty | it reports that, and waits to be added |

use crate::etcd::client::{List, Member, Status};

/// A controller in the making, this time round.
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
    /// There is data of etcd's.
    pub has_data: bool,
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
    /// Move data of a member that was removed out of the way.
    PutAside,
    /// Let its API server serve.
    Serve,
    /// Take away what was made for it.
    Remove,
}

/// Decides: the first row of the table that applies.
pub fn decide(o: &Observed) -> Step {
    if o.serves {
        return Step::Done;
    }
    let entry = o.entry();
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
        None if !o.has_data && !entry.name.is_empty() => {
            Step::Wait(format!("the entry of its lost etcd member {} to be removed", entry.id))
        }
        None => Step::Wait("its etcd to answer".into()),
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
