//! Whether this node's member is defragmented now: pure. etcd serves nothing at a member meanwhile, so it is done at one member at a
//! time, while all the others are well, and never at the leader. A single member leads, and is never defragmented by itself.
//!
//! Much can be given back where the database has 100 MiB or more and 45 % of it are not in use: the bounds at which OpenShift's
//! etcd operator does it (`minDefragBytes`, `maxFragmentedPercentage`).

use std::time::Duration;

use super::decide::decide;
use super::observed::{Act, Observed};

/// The least that a database must have.
const LEAST: i64 = 100 << 20;
/// How much of a hundred bytes must not be in use.
const SHARE: i64 = 45;
/// How long a member is left alone after it was defragmented, whatever came of it.
pub const PAUSE: Duration = Duration::from_secs(3600);

/// Whether it is; `last` is how long ago it was done last.
pub fn is_due(observed: &Observed, last: Option<Duration>) -> bool {
    if last.is_some_and(|last| last < PAUSE) || decide(observed) != Act::Nothing {
        return false;
    }
    let answer = observed.this.and_then(|this| observed.seen.get(&this)?.answer.as_ref());
    answer.is_some_and(|answer| {
        let status = &answer.status;
        let unused = status.size.saturating_sub(status.size_in_use);
        status.leader != observed.this && status.size >= LEAST && unused.saturating_mul(100) >= SHARE * status.size
    })
}
