//! What a failed call means for the one who made it. etcd tells its errors apart by their texts; they are matched here and
//! nowhere else.

use std::fmt;

use crate::base::grpc::Failure;

/// What to do about a call that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sort {
    /// Nothing has changed. The same call at the same member gets through once it has been connected for long enough, or
    /// has a leader.
    Again,
    /// Nothing has changed, and first something else must come about: a learner in sync, a member that starts.
    NotYet,
    /// It is so already, by an earlier call whose answer was lost or by another controller's. The list says what is.
    Done,
    /// It may have been done or not: the answer was lost, or the member ended. The list says.
    Unclear,
    /// etcd will not do it.
    Refused,
}

/// A call that failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failed {
    /// What it means.
    pub sort: Sort,
    /// Why, in the words of the one who refused.
    pub said: String,
}

/// gRPC's codes of calls of which it is not known whether they were carried out: cancelled, the time is over, the server
/// is away.
const UNCLEAR: [u32; 3] = [1, 4, 14];

/// etcd's own words, from api/v3rpc/rpctypes/error.go and server/etcdserver/errors of etcd 3.7; those of 3.6 are the same.
const WORDS: [(&str, Sort); 16] = [
    ("etcdserver: unhealthy cluster", Sort::Again),
    ("etcdserver: no leader", Sort::Again),
    ("etcdserver: not leader", Sort::Again),
    ("etcdserver: too many requests", Sort::Again),
    ("etcdserver: re-configuration failed due to not enough started members", Sort::NotYet),
    ("etcdserver: can only promote a learner member which is in sync with leader", Sort::NotYet),
    ("etcdserver: too many learner members in cluster", Sort::NotYet),
    ("etcdserver: member ID already exist", Sort::Done),
    ("etcdserver: Peer URLs already exists", Sort::Done),
    ("etcdserver: can only promote a learner member", Sort::Done),
    ("etcdserver: member not found", Sort::Done),
    ("etcdserver: leader changed", Sort::Unclear),
    ("etcdserver: server stopped", Sort::Unclear),
    ("etcdserver: request timed out", Sort::Unclear),
    ("etcdserver: request timed out, leader transfer took too long", Sort::Unclear),
    ("etcdserver: request timed out, waiting for the applied index took too long", Sort::Unclear),
];

impl Failed {
    /// One that no connection could be made for: nothing was asked.
    pub(crate) fn unasked(why: impl fmt::Display) -> Self {
        Self { sort: Sort::Again, said: why.to_string() }
    }

    /// One whose answer did not come in time.
    pub(crate) fn late() -> Self {
        Self { sort: Sort::Unclear, said: "no answer in time".into() }
    }
}

impl From<Failure> for Failed {
    fn from(failure: Failure) -> Self {
        let sort = match &failure {
            Failure::Unimplemented(_) => Sort::Refused,
            // The connection broke with the question under way.
            Failure::Other(_) => Sort::Unclear,
            Failure::Refused { code, message } => {
                let known = WORDS.iter().find(|(words, _)| words == message).map(|(_, sort)| *sort);
                known.unwrap_or(if UNCLEAR.contains(code) { Sort::Unclear } else { Sort::Refused })
            }
        };
        Self { sort, said: failure.to_string() }
    }
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.said)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn etcds_words_say_what_to_do() {
        let of = |code, message: &str| Failed::from(Failure::Refused { code, message: message.into() });
        let table = [
            (14, "etcdserver: unhealthy cluster", Sort::Again),
            (9, "etcdserver: can only promote a learner member which is in sync with leader", Sort::NotYet),
            (9, "etcdserver: can only promote a learner member", Sort::Done),
            (9, "etcdserver: too many learner members in cluster", Sort::NotYet),
            (9, "etcdserver: re-configuration failed due to not enough started members", Sort::NotYet),
            (9, "etcdserver: member ID already exist", Sort::Done),
            (5, "etcdserver: member not found", Sort::Done),
            (14, "etcdserver: leader changed", Sort::Unclear),
            (14, "etcdserver: server stopped", Sort::Unclear),
            (14, "etcdserver: request timed out, possibly due to previous leader failure", Sort::Unclear),
            (2, "etcdserver: request timed out, leader transfer took too long", Sort::Unclear),
            (4, "context deadline exceeded", Sort::Unclear),
            (9, "etcdserver: rpc not supported for learner", Sort::Refused),
            (9, "etcdserver: bad leader transferee", Sort::Refused),
            (3, "etcdserver: given member URLs are invalid", Sort::Refused),
        ];
        for (code, words, sort) in table {
            assert_eq!(of(code, words).sort, sort, "{words}");
        }
        assert_eq!(of(9, "x").to_string(), "x (gRPC status 9)");
        assert_eq!(Failed::from(Failure::Other("broken pipe".into())).sort, Sort::Unclear);
        assert_eq!(Failed::from(Failure::Unimplemented("s")).sort, Sort::Refused);
    }
}
