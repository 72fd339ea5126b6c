//! The members of etcd: which change is next, so that the voters become the controllers and a majority is never lost by it.
//!
//! ```text
//! ask (every member) ─► Watch (for how long) ─► Observed ─► decide (pure) ─► Act ─► make (at one member)
//! ```
//! A step at a time: look, decide, make at most one change, look again. Nothing is kept but [`Watch`], which may be lost. A
//! look every second finds everything in time; one every 30 s is the least. Only one controller may be at it at a time.
//!
//! The first row that applies is taken. A voter is *well* if it has answered for 5 s, follows the leader and is at most 1,000
//! entries behind; *away* if it has not answered for 5 s.
//!
//! | # | observed | act |
//! |---|---|---|
//! | 1 | no voter tells the members; no Node has the label; two voters tell different members; the alarm CORRUPT | wait |
//! | 2 | no leader that a majority follows; no majority of voters is well | wait |
//! | 3 | the list has changed within 5 s | wait |
//! | 4 | a voter is away and is no controller, or its guard reports an empty data directory; a majority of the others is well | remove it |
//! | 5 | a learner is no controller; had begun, is away, and its data directory is empty; has made no progress for 10 min, or 1 min while another waits | remove it |
//! | 6 | a learner has answered for 2 s, /health just now, is in sync; the voters that are well are a majority with it, too, or it is the second member | promote it |
//! | 7 | there is another learner | wait |
//! | 8 | a controller is no member, its guard reports an empty data directory, every voter is well | add it as learner |
//! | 9 | a controller is no member | wait |
//! | 10 | a voter is no controller and leads; row 11 holds for it | move leadership to a controller's voter |
//! | 11 | a voter is no controller; all others are well, a controller's among them | remove it; the leader last |
//! | 12 | a voter is not well | wait |
//! | 13 | otherwise | nothing |
//!
//! What follows from the order: no voter that answers is removed while a controller does not vote yet, be it a learner
//! or none; one that is away is removed first, as it only makes the majority larger. A member that dies between the look and
//! the act (etcd promotes a dead learner without objection) costs no majority, but for a change to two voters, which need each
//! other. A voter that is away and a controller stays. What was removed for its empty data directory is added anew by row 8.

mod ask;
mod decide;
mod defragment;
mod observed;
mod view;
mod watch;

use std::net::{IpAddr, SocketAddr};

pub use ask::{ask, make};
pub use decide::{LEARNS, STALLED, STALLED_BEFORE_OTHERS, decide};
pub use defragment::{PAUSE, is_due};
pub use observed::{Act, Answer, Change, Data, Observed, Report, Seen, Wanted};
pub use view::{IN_SYNC, STEADY};
pub use watch::{Asked, Watch};

/// Where the members reach each other.
pub const PEER_PORT: u16 = 2380;

/// Where the other members reach that of the controller at `address`.
pub fn peer_url(address: IpAddr) -> String {
    format!("https://{}", SocketAddr::new(address, PEER_PORT))
}

#[cfg(test)]
mod tests;
