//! What guard does next: a pure function of what was observed. The first row that fits decides; docs/guard.md has the
//! rows as a table.
//!
//! ```text
//!             the self-hosted API server is gone, shuts down, hangs
//!   lowered ────────────────────────────────────────────────────────► raised
//!      ▲                                                                │
//!      └──────── hand over, as `start` does ◄── it has been ready for a while
//! ```
//! Raising is the safe direction, and is never held back by earlier events. Lowering prevents endless cycles: each
//! raise within the last hour doubles the time for which the self-hosted API server must prove itself.

use crate::api::guard::NodeSeen;
use std::fmt;
use std::time::Duration;

use crate::node::etcd_data::Data;
use crate::node::processes::Process;

/// How long an API server that has just been started may refuse connections: a look or two, so that one that is
/// replaced within milliseconds is not taken for a crash.
pub const REFUSED_GRACE: Duration = Duration::from_millis(500);
/// How long one may accept and not answer: three questions in a row.
pub const SILENT_GRACE: Duration = Duration::from_secs(6);
/// How long one may answer that it is not ready: it takes 3 s to start, and its etcd may be away for a moment.
pub const UNREADY_GRACE: Duration = Duration::from_secs(15);
/// Guard has only just begun, as at a boot: nobody can be on the way back whom it would have to wait for.
pub const BOOT: Duration = Duration::from_secs(30);
/// How long the self-hosted API server must have been ready before the bridge is lowered, the first time in an hour.
pub const HOLD: Duration = Duration::from_secs(5);
/// And however often it was raised.
pub const HOLD_LIMIT: Duration = Duration::from_secs(600);
/// How long nobody may have renewed the Lease of the controller manager or of the scheduler: it lasts 15 s, and one that
/// is rolled out takes it a few seconds later.
pub const LEADERLESS: Duration = Duration::from_secs(30);
/// How long the API must have said that this node is no controller before guard may leave it.
pub const LEAVE_AFTER: Duration = Duration::from_secs(60);
/// How long the first API server of a controller that a label made may take: others serve meanwhile.
pub const FIRST: Duration = Duration::from_secs(60);
/// How long a raised bridge may not serve before what stands of it is put right.
pub const REPAIR_AFTER: Duration = Duration::from_secs(30);

/// Of the time in which an API server has not answered it has used no more of a processor: it does not work on an answer,
/// it does nothing. One that is at rest and well uses more.
pub const HANGS_BELOW: f64 = 0.01;

/// What this controller's own API server is, by what it answers on loopback.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Server {
    /// It says that it is ready.
    Ready,
    /// It says that it is shutting down; it serves for some seconds more.
    Ending,
    /// It answers, and is not ready.
    Unready,
    /// Somebody accepts, and does not answer.
    Silent,
    /// Nobody listens.
    Gone,
    /// It could not be asked: this machine is out of files, memory or ports.
    Unknown,
}

/// What this controller's Node says of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// It has the control plane's label.
    Controller,
    /// It is another Node than the one that had the label last, and has none: it was deleted, and its kubelet, which may not
    /// give itself that label, has registered it again.
    MadeAnew,
    /// Somebody has taken the label off.
    TakenOff,
    /// There is no such Node.
    Absent,
}

/// What a Node says, given the uid of the one that was last seen with the label: guard's Lease has it. Where that is not
/// known, the label is for an admin to put back.
pub fn role(node: Option<&NodeSeen>, labelled: Option<&str>) -> Role {
    match node {
        None => Role::Absent,
        Some(node) if node.has_label => Role::Controller,
        Some(node) if labelled.is_some_and(|uid| uid != node.uid) => Role::MadeAnew,
        Some(_) => Role::TakenOff,
    }
}

/// What guard knows of its copy of the bridge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CopyState {
    /// Whole.
    Whole,
    /// There is none yet.
    Missing,
    /// Torn or tampered with.
    Broken,
}

/// What of the bridge stands on the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stands {
    /// Nothing.
    Nothing,
    /// A raise was cut short: no API server.
    Begun,
    /// Its API server, and not both of its controllers: it is being lowered.
    ApiServer,
    /// All of it.
    All,
}

/// What was observed, this time round.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Observed {
    /// The self-hosted API server.
    pub server: Server,
    /// Since when it is that, while etcd serves: from the moment on at which etcd was last seen not to.
    pub server_for: Duration,
    /// A process of it is there.
    pub has_process: bool,
    /// The process of one that is silent, whatever it is asked, and has done nothing since ([`HANGS_BELOW`]).
    pub hangs: Option<Process>,
    /// What of the bridge stands.
    pub stands: Stands,
    /// Nothing of it stands, and its files are there: a raise or a lowering was cut short.
    pub has_leftovers: bool,
    /// Since when NODE_IP has not answered, with the bridge raised and while etcd serves.
    pub silent_for: Duration,
    /// etcd accepts connections, as far as it is this node's.
    pub etcd: bool,
    /// It serves, too: one of several members that reaches no majority accepts connections, and so does one that hangs. It is
    /// asked where that may be why the API server is silent or not ready.
    pub etcd_serves: bool,
    /// Where etcd's data should be, if etcd does not answer and has none there.
    pub lacks_data: Option<String>,
    /// How long guard has been running.
    pub up_for: Duration,
    /// How often it has raised the bridge within the last hour.
    pub raises: u32,
    /// Its copy of the bridge.
    pub copy: CopyState,
    /// For how long a Lease of the control plane had not been renewed when it was last looked at.
    pub leaderless_for: Duration,
    /// Since when this controller has been made by a label, while its first API server is still to come.
    pub new_for: Option<Duration>,
    /// The Node was made anew, and lacks the label.
    pub is_made_anew: bool,
    /// Since when the API has said that the label was taken off this Node, as long as it says anything.
    pub not_controller_for: Option<Duration>,
    /// Whether another controller's address is published and answers, just now; `None` where that was not asked.
    pub another_serves: Option<bool>,
    /// Who else is at work on this node: a `start`, by its own words.
    pub busy: Option<String>,
}

/// Why the bridge is raised.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cause {
    /// Nothing runs at a boot.
    Boot,
    /// The self-hosted API server said that it is shutting down.
    Ending,
    /// It is gone.
    Gone,
    /// It answers nothing.
    Silent,
    /// It does not get ready.
    Unready,
    /// What stood of the bridge was not all of it, or did not serve.
    Repair,
    /// It serves, and nobody leads: without a controller manager, nothing makes one.
    Leaderless,
}

/// What to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Nothing: the self-hosted API server serves, or what there is to wait for.
    Rest(String),
    /// Put the bridge where the kubelet finds it.
    Raise(Cause),
    /// End the process of the self-hosted API server, which hangs: while it keeps its port and its connections, their other
    /// ends wait for it, and the kubelet starts no pod.
    End(Process),
    /// Hand over to the self-hosted control plane, step by step, as `start` does.
    Lower,
    /// Give the Node the control plane's label and taints again.
    Adopt,
    /// Take guard and what it has here away: this node is no controller any more, and another one serves.
    Leave,
}

impl Cause {
    /// All of them.
    pub const ALL: [Self; 7] =
        [Self::Boot, Self::Ending, Self::Gone, Self::Silent, Self::Unready, Self::Repair, Self::Leaderless];

    /// A word for metrics and events.
    pub fn name(self) -> &'static str {
        match self {
            Self::Boot => "boot",
            Self::Ending => "shutting-down",
            Self::Gone => "gone",
            Self::Silent => "silent",
            Self::Unready => "not-ready",
            Self::Repair => "repair",
            Self::Leaderless => "leaderless",
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Boot => "no API server runs on this controller, as after a boot",
            Self::Ending => "the self-hosted API server is shutting down",
            Self::Gone => "the self-hosted API server is gone",
            Self::Silent => "the self-hosted API server does not answer",
            Self::Unready => "the self-hosted API server is not ready",
            Self::Repair => "a part of the bridge is missing, or it does not serve",
            Self::Leaderless => "no controller manager leads, or no scheduler",
        })
    }
}

/// How long the self-hosted API server must have been ready before the bridge is lowered.
pub fn hold(raises: u32) -> Duration {
    HOLD_LIMIT.min(HOLD * 2u32.saturating_pow(raises.saturating_sub(1).min(16)))
}

/// Whether guard would leave this node, and stays because no other controller is known to serve.
pub fn stays(o: &Observed) -> bool {
    is_no_controller(o) && o.another_serves == Some(false)
}

fn is_no_controller(o: &Observed) -> bool {
    o.not_controller_for.is_some_and(|so_long| so_long >= LEAVE_AFTER)
}

/// Decides.
pub fn decide(o: &Observed) -> Decision {
    if let Some(who) = &o.busy {
        return Decision::Rest(format!("another hoist is at work on this node ({who})"));
    }
    match of_the_bridge(o) {
        // What keeps the API served comes first.
        Decision::Rest(_) if o.is_made_anew => Decision::Adopt,
        decision => decision,
    }
}

fn of_the_bridge(o: &Observed) -> Decision {
    use Decision::{End, Leave, Lower, Raise, Rest};
    if is_no_controller(o) && o.another_serves == Some(true) {
        return Leave;
    }
    let ready_for = if o.server == Server::Ready { o.server_for } else { Duration::ZERO };
    match o.stands {
        Stands::All | Stands::ApiServer if ready_for >= hold(o.raises) => return Lower,
        Stands::All | Stands::ApiServer if o.server == Server::Ready => {
            let (now, wanted) = (ready_for.as_secs(), hold(o.raises).as_secs());
            return Rest(format!("the self-hosted API server has been ready for {now} s of {wanted} s"));
        }
        Stands::Nothing if o.server == Server::Ready && !is_leaderless(o) => {
            if o.has_leftovers && ready_for >= hold(o.raises) {
                return Lower;
            }
            return Rest("the self-hosted API server serves".into());
        }
        Stands::All if o.server == Server::Silent && o.server_for >= SILENT_GRACE && o.etcd => {
            if let Some(process) = o.hangs {
                return End(process);
            }
        }
        _ => {}
    }
    match o.copy {
        CopyState::Missing => return Rest("there is no copy of the bridge on this node to raise".into()),
        CopyState::Broken => {
            return Rest("the copy of the bridge is torn or was tampered with, and is not raised".into());
        }
        CopyState::Whole => {}
    }
    match o.stands {
        Stands::Begun => Raise(Cause::Repair),
        Stands::All if o.silent_for >= REPAIR_AFTER && o.etcd => Raise(Cause::Repair),
        Stands::All | Stands::ApiServer if o.lacks_data.is_some() => {
            Rest(lacks_data(o.lacks_data.as_deref().unwrap_or_default()))
        }
        Stands::All => Rest("the bridge serves until the self-hosted API server does".into()),
        // Its API server serves; its controllers are put back if the self-hosted one goes away for good.
        Stands::Nothing if is_leaderless(o) => Raise(Cause::Leaderless),
        Stands::Nothing if o.new_for.is_some_and(|so_long| so_long < FIRST) => {
            Rest("the first API server of this controller to start".into())
        }
        Stands::ApiServer | Stands::Nothing => match is_gone(o) {
            Some(cause) => Raise(cause),
            None if o.lacks_data.is_some() => Rest(lacks_data(o.lacks_data.as_deref().unwrap_or_default())),
            None if !o.etcd => Rest("etcd to answer: no API server can serve without it".into()),
            None if !o.etcd_serves => {
                Rest("etcd to serve: its member here hangs, or reaches no majority of the members".into())
            }
            None => Rest("the self-hosted API server to answer".into()),
        },
    }
}

/// That etcd's data is not where it should be, and what to do.
pub fn lacks_data(place: &str) -> String {
    format!(
        "etcd is not started: its data is not in {place}. What to do: {}. Of several controllers, one whose data is lost becomes a member again by itself, if its file system is mounted",
        Data::remedy()
    )
}

/// Whether the self-hosted API server serves and nobody leads.
fn is_leaderless(o: &Observed) -> bool {
    o.server == Server::Ready && o.leaderless_for >= LEADERLESS
}

/// Why the self-hosted API server is taken for gone, if it is.
fn is_gone(o: &Observed) -> Option<Cause> {
    let boots = o.server == Server::Gone && !o.has_process && o.up_for < BOOT;
    // Before the first API server there is no etcd to ask either: it boots beside.
    if boots {
        return Some(Cause::Boot);
    }
    let (cause, grace) = match o.server {
        Server::Ready | Server::Unknown => return None,
        Server::Ending => (Cause::Ending, Duration::ZERO),
        Server::Gone => (Cause::Gone, REFUSED_GRACE),
        Server::Silent => (Cause::Silent, SILENT_GRACE),
        Server::Unready => (Cause::Unready, UNREADY_GRACE),
    };
    // One that answers, or accepts, is in the place of another that would do no better.
    let would_serve = o.etcd_serves || !matches!(o.server, Server::Silent | Server::Unready);
    (o.etcd && would_serve && o.server_for >= grace).then_some(cause)
}

#[cfg(test)]
mod tests;
