//! `hoist certs`: the certificates of this machine and its cluster, each copy with its end and what is served; and how they
//! are renewed, by guard and by hand.
//!
//! ```text
//! list.rs, text.rs: inventory (plane) ─► List ─► text, JSON
//! keep.rs (guard's loop), by_hand.rs ─► decide (desired, pure) ─► renew.rs: copies ─► disk, Secrets ─► seen on the wire
//! ```

mod by_hand;
mod keep;
mod list;
mod renew;
mod rotate;
mod text;

pub use by_hand::{ByHand, by_hand};
pub use keep::run;
pub use list::{Certificate, Key, List, Served, Subject, look};
pub use rotate::{Rotate, rotate};
