//! What [`decide`](super::decide) goes by, and what it says.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use crate::etcd::client::{List, MemberId, Status};

/// The members and the controllers at one moment.
#[derive(Debug, Clone, Default)]
pub struct Observed {
    /// The lists of members, each as one voter tells it; none where no voter tells one.
    pub lists: Vec<List>,
    /// For how long the list has been the one that it is.
    pub settled: Duration,
    /// What was seen of each member that a list names.
    pub seen: BTreeMap<MemberId, Seen>,
    /// The controllers that there are to be: the Nodes with the control plane's label.
    pub wanted: Vec<Wanted>,
    /// The member of this node, where it has one that answers.
    pub this: Option<MemberId>,
    /// The member at which the last change was refused as one to be made again there.
    pub again: Option<MemberId>,
}

impl Observed {
    /// Where a member was asked, if it answered.
    pub fn address(&self, member: MemberId) -> Option<SocketAddr> {
        Some(self.seen.get(&member)?.answer.as_ref()?.address)
    }
}

/// What was seen of a member.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    /// Its answer; `None` where it does not answer.
    pub answer: Option<Answer>,
    /// For how long it has answered without a break, or has not answered.
    pub since: Duration,
    /// For how long it has neither applied an entry nor been in sync.
    pub stalled: Duration,
}

/// A member's answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Where it was asked.
    pub address: SocketAddr,
    /// What it says of itself.
    pub status: Status,
    /// Asked just now for /health, it said that it is well. Only learners are asked.
    pub healthy: bool,
}

/// A controller that there is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// The name of its Node.
    pub name: String,
    /// The uid of its Node: another one is another machine.
    pub uid: String,
    /// Where the others reach its member.
    pub peer_url: String,
    /// What its guard has reported last; `None` where that is too long ago to be so still.
    pub report: Option<Report>,
}

/// What the guard of a controller says of its own machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// The uid of the Node that it speaks for.
    pub uid: String,
    /// What is in the data directory.
    pub data: Data,
}

/// What is in a data directory that can be seen. A guard that does not see it, because its disk is not mounted, reports
/// nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Data {
    /// Nothing.
    Empty,
    /// The data of this member.
    Of(MemberId),
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Act {
    /// Nothing: the voters are the controllers, and all are well.
    Nothing,
    /// Nothing yet, and why, as a sentence without a full stop.
    Wait(String),
    /// One change.
    Make {
        /// The member that is asked to make it.
        at: MemberId,
        /// The change.
        change: Change,
        /// Why, as a sentence without a full stop.
        why: String,
    },
}

/// A change of the members.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Add a learner that the others reach at this URL.
    Add(String),
    /// Give a learner its vote.
    Promote(MemberId),
    /// Hand leadership to this voter.
    MoveLeader(MemberId),
    /// Remove a member for good.
    Remove(MemberId),
}

/// As one would say it.
impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Add(url) => write!(f, "the learner at {url} is added"),
            Self::Promote(member) => write!(f, "the learner {member} gets its vote"),
            Self::MoveLeader(to) => write!(f, "{to} leads from now on"),
            Self::Remove(member) => write!(f, "the member {member} is removed"),
        }
    }
}
