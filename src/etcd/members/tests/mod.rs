//! The rows of the table, one by one; and histories in a small model of etcd.

mod histories;
mod model;

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use super::*;
use crate::etcd::client::{Failed, List, Member, MemberId, Sort, Status};

const MINUTE: Duration = Duration::from_secs(60);
/// The leader's last entry.
const INDEX: u64 = 100_000;

fn url(number: u64) -> String {
    format!("https://10.0.0.{number}:2380")
}

fn member(number: u64, is_learner: bool) -> Member {
    Member {
        id: MemberId(number),
        name: format!("c{number}"),
        peer_urls: vec![url(number)],
        client_urls: vec![url(number).replace("2380", "2379")],
        is_learner,
    }
}

fn seen(number: u64, is_learner: bool) -> Seen {
    let status = Status {
        member: Some(MemberId(number)),
        leader: Some(MemberId(1)),
        index: INDEX,
        applied: INDEX,
        is_learner,
        ..Status::default()
    };
    let address = format!("10.0.0.{number}:2379").parse().unwrap();
    Seen { answer: Some(Answer { address, status, healthy: is_learner }), since: MINUTE, stalled: Duration::ZERO }
}

fn controller(number: u64, data: Option<Data>) -> Wanted {
    let uid = format!("uid-{number}");
    let report = data.map(|data| Report { uid: uid.clone(), data });
    Wanted { name: format!("c{number}"), uid, peer_url: url(number), report }
}

/// The controllers c1 and so on, each a voter that is well; c1 leads, and it is where this is asked.
fn voters(count: u64) -> Observed {
    let members: BTreeMap<_, _> = (1..=count).map(|number| (MemberId(number), member(number, false))).collect();
    Observed {
        lists: vec![List { cluster: 1, members }],
        settled: MINUTE,
        seen: (1..=count).map(|number| (MemberId(number), seen(number, false))).collect(),
        wanted: (1..=count).map(|number| controller(number, Some(Data::Of(MemberId(number))))).collect(),
        this: Some(MemberId(1)),
        again: None,
    }
}

impl Observed {
    fn entry(mut self, number: u64, change: impl FnOnce(&mut Member)) -> Self {
        change(self.lists[0].members.get_mut(&MemberId(number)).unwrap());
        self
    }

    fn of(mut self, number: u64, change: impl FnOnce(&mut Seen)) -> Self {
        change(self.seen.get_mut(&MemberId(number)).unwrap());
        self
    }

    fn says(self, number: u64, change: impl FnOnce(&mut Answer)) -> Self {
        self.of(number, |seen| change(seen.answer.as_mut().unwrap()))
    }

    /// A learner that is in sync and well, of a controller.
    fn learner(mut self, number: u64) -> Self {
        self.lists[0].members.insert(MemberId(number), member(number, true));
        self.seen.insert(MemberId(number), seen(number, true));
        self.wanted.push(controller(number, Some(Data::Of(MemberId(number)))));
        self
    }

    fn away(self, number: u64) -> Self {
        self.of(number, |seen| (seen.answer, seen.since, seen.stalled) = (None, MINUTE / 2, MINUTE / 2))
    }

    /// The label is taken away.
    fn unwanted(mut self, number: u64) -> Self {
        self.wanted.retain(|wanted| wanted.peer_url != url(number));
        self
    }

    fn reports(mut self, number: u64, data: Option<Data>) -> Self {
        let wanted = self.wanted.iter_mut().find(|wanted| wanted.peer_url == url(number)).unwrap();
        *wanted = controller(number, data);
        self
    }

    /// The label is given.
    fn wants(mut self, number: u64, data: Option<Data>) -> Self {
        self.wanted.push(controller(number, data));
        self
    }
}

#[test]
fn a_member_is_defragmented_where_much_is_to_be_had_and_all_others_are_well() {
    const MIB: i64 = 1 << 20;
    let of = |number, size, in_use| {
        let mut observed = voters(3).says(number, |answer| {
            (answer.status.size, answer.status.size_in_use) = (size * MIB, in_use * MIB);
        });
        observed.this = Some(MemberId(number));
        observed
    };
    assert!(is_due(&of(2, 100, 55), None));
    assert!(!is_due(&of(2, 99, 1), None), "it is small");
    assert!(!is_due(&of(2, 1000, 551), None), "most of it is in use");
    assert!(!is_due(&of(1, 1000, 1), None), "it leads");
    assert!(!is_due(&of(2, 100, 55), Some(PAUSE / 2)), "a while ago");
    assert!(is_due(&of(2, 100, 55), Some(PAUSE)));
    assert!(!is_due(&of(2, 100, 55).away(3), None));
    assert!(!is_due(&of(2, 100, 55).says(3, |answer| answer.status.applied = INDEX - IN_SYNC - 1), None));
    assert!(!is_due(&of(2, 100, 55).learner(4), None));
    assert!(!is_due(&of(2, 100, 55).of(3, |seen| seen.since = Duration::ZERO), None), "it was defragmented just now");
    let mut single = voters(1).says(1, |answer| (answer.status.size, answer.status.size_in_use) = (1000 * MIB, MIB));
    single.this = Some(MemberId(1));
    assert!(!is_due(&single, None), "it leads");
}

/// An act in short.
fn short(act: &Act) -> String {
    match act {
        Act::Nothing => "nothing".into(),
        Act::Wait(why) => format!("wait: {why}"),
        Act::Make { at, change, .. } => match change {
            Change::Add(url) => format!("add {url} at {at}"),
            Change::Promote(id) => format!("promote {id} at {at}"),
            Change::MoveLeader(to) => format!("{at} hands leadership to {to}"),
            Change::Remove(id) => format!("remove {id} at {at}"),
        },
    }
}

#[test]
fn each_row_of_the_table() {
    let empty = Some(Data::Empty);
    let data_of = |number| Some(Data::Of(MemberId(number)));
    let two = || voters(2);
    let three = || voters(3);
    let list = |number| voters(number).lists.remove(0);
    let table = [
        // 1
        (Observed { lists: Vec::new(), ..three() }, "wait: no voter of etcd tells the members"),
        (Observed { wanted: Vec::new(), ..three() }, "wait: no Node has the control plane's label"),
        (
            Observed { lists: vec![list(3), list(2)], ..three() },
            "wait: the voters tell different members: c1, c2, c3 of the cluster 1, and c1, c2 of the cluster 1",
        ),
        (
            Observed { lists: vec![list(3), List { cluster: 2, ..list(3) }], ..three() },
            "wait: the voters tell different members",
        ),
        (
            Observed {
                lists: vec![list(3), voters(3).entry(2, |member| member.is_learner = true).lists.remove(0)],
                ..three()
            },
            "wait: the voters tell different members: c1, c2, c3 of the cluster 1, and c1, c2 (learner), c3",
        ),
        // A name may be missing in one of them.
        (
            Observed {
                lists: vec![list(3), three().entry(2, |member| member.name.clear()).lists.remove(0)],
                ..three()
            },
            "nothing",
        ),
        (
            three().says(2, |answer| answer.status.errors = vec!["memberID:2  alarm:CORRUPT".into()]),
            "wait: the member 2 has the alarm CORRUPT",
        ),
        // 2
        (
            three().away(2).away(3).unwanted(3),
            "wait: no member leads a majority of the voters: c2 has not answered for 30 s, c3 has",
        ),
        (
            three().says(1, |answer| answer.status.leader = None).says(2, |answer| answer.status.leader = None),
            "wait: no member leads a majority of the voters: there is an election",
        ),
        (
            three().of(1, |seen| seen.since = Duration::ZERO).away(3),
            "wait: of 2 voters that a change takes, 1 are well: c1 has not answered for 5 s in a row yet, c3",
        ),
        // 3
        (Observed { settled: Duration::from_secs(4), ..three() }.unwanted(3), "wait: the members have just changed"),
        // 4
        (three().away(3).unwanted(3), "remove 3 at 1"),
        (three().away(3).reports(3, empty), "remove 3 at 1"),
        (
            three().away(3).reports(3, data_of(3)),
            "wait: the voters are the controllers, and not all are well: c3 has not answered",
        ),
        (
            three().away(3).reports(3, None),
            "wait: the voters are the controllers, and not all are well: c3 has not answered",
        ),
        (three().reports(3, empty), "nothing"),
        // It is the report of the machine before.
        (
            {
                let mut rebuilt = three().away(3).reports(3, empty);
                rebuilt.wanted[2].uid = "another".into();
                rebuilt
            },
            "wait: the voters are the controllers, and not all are well: c3 has not answered",
        ),
        (
            three().away(3).of(3, |seen| seen.since = Duration::from_secs(4)).reports(3, empty),
            "wait: the voters are the controllers, and not all are well: c3 has not answered",
        ),
        (three().away(3).unwanted(3).learner(4), "remove 3 at 1"),
        // Though none of the others is a controller's.
        (three().away(3).unwanted(1).unwanted(2).unwanted(3).wants(4, empty), "remove 3 at 1"),
        (voters(4).away(3).away(4).unwanted(3), "wait: no member leads a majority"),
        (voters(5).away(3).away(4).unwanted(3), "remove 3 at 1"),
        // 5
        (three().learner(4).unwanted(4), "remove 4 at 1"),
        (three().learner(4).away(4).reports(4, empty), "remove 4 at 1"),
        (
            three().learner(4).away(4).reports(4, empty).entry(4, |member| member.name.clear()),
            "wait: https://10.0.0.4:2380 is a learner, and has not answered for 30 s",
        ),
        (three().learner(4).away(4).of(4, |seen| seen.stalled = 10 * MINUTE), "remove 4 at 1"),
        (three().learner(4).away(4).of(4, |seen| seen.stalled = 9 * MINUTE), "wait: c4 is a learner, and"),
        (three().learner(4).away(4).of(4, |seen| seen.stalled = MINUTE).wants(5, empty), "remove 4 at 1"),
        (three().learner(4).away(4).of(4, |seen| seen.stalled = MINUTE).wants(5, None), "wait: c4 is a learner, and"),
        // 6
        (voters(1).learner(2), "promote 2 at 1"),
        (two().learner(3), "promote 3 at 1"),
        (three().learner(4).unwanted(3), "promote 4 at 1"),
        (
            three().learner(4).says(4, |answer| answer.healthy = false),
            "wait: c4 is a learner, and does not say that it is well",
        ),
        (
            three().learner(4).says(4, |answer| answer.status.leader = None),
            "wait: c4 is a learner, and does not say that it is well",
        ),
        (
            three().learner(4).says(4, |answer| answer.status.applied = 7),
            "wait: c4 is a learner, and not in sync: it has applied entry 7 of 100000",
        ),
        (
            three().learner(4).of(4, |seen| seen.since = Duration::ZERO),
            "wait: c4 is a learner, and has not answered for 2 s in a row yet",
        ),
        (
            three().learner(4).away(3),
            "wait: c4 is in sync, and is promoted once 3 voters are well, so that the majority does not hang on it: c3 has not answered for 30 s",
        ),
        (voters(4).learner(5).away(4), "promote 5 at 1"),
        // 8
        (voters(1).wants(2, empty), "add https://10.0.0.2:2380 at 1"),
        (three().unwanted(3).wants(4, empty), "add https://10.0.0.4:2380 at 1"),
        (three().away(2).wants(4, empty), "wait: c4 is added once all voters are well: c2 has not answered for 30 s"),
        (
            three().says(2, |answer| answer.status.applied = 7).wants(4, empty),
            "wait: c4 is added once all voters are well: c2 is 99993 entries behind",
        ),
        // 9
        (three().unwanted(3).wants(4, None), "wait: c4 is to be a member, and its guard has not said lately"),
        (three().wants(4, data_of(9)), "wait: c4 has the data of a member that was removed"),
        (
            three().unwanted(3).wants(4, data_of(3)),
            "wait: c4 has the data of the member 3, which the others reach elsewhere than at https://10.0.0.4:2380",
        ),
        // 10
        (three().unwanted(1), "1 hands leadership to 2"),
        (three().unwanted(1).says(2, |answer| answer.status.applied = INDEX - 10), "1 hands leadership to 3"),
        // 11
        (three().unwanted(3), "remove 3 at 1"),
        (three().unwanted(1).unwanted(3), "remove 3 at 1"),
        (two().unwanted(2), "remove 2 at 1"),
        (two().unwanted(1), "1 hands leadership to 2"),
        (voters(1).unwanted(1).wants(2, None), "wait: c2 is to be a member"),
        (three().away(2).unwanted(3), "wait: c3 is removed once all other voters are well: c2 has not"),
        (voters(5).away(2).unwanted(3), "wait: c3 is removed once all other voters are well: c2 has not"),
        (voters(5).unwanted(3).unwanted(4).unwanted(5), "remove 3 at 1"),
        // 12
        (
            three().says(3, |answer| answer.status.leader = None),
            "wait: the voters are the controllers, and not all are well: c3 does not follow",
        ),
        // 13
        (voters(1), "nothing"),
        (voters(5), "nothing"),
    ];
    for (number, (observed, expected)) in table.into_iter().enumerate() {
        let act = short(&decide(&observed));
        assert!(
            act == expected || expected.starts_with("wait") && act.starts_with(expected),
            "{number}: {act}\n{expected}"
        );
    }
}

#[test]
fn where_a_change_is_asked_for() {
    let at = |observed: &Observed| match decide(observed) {
        Act::Make { at, .. } => at.0,
        act => panic!("{act:?}"),
    };
    let joining = || voters(3).wants(4, Some(Data::Empty));
    assert_eq!(at(&Observed { this: Some(MemberId(3)), ..joining() }), 3, "this node's");
    assert_eq!(at(&Observed { this: None, ..joining() }), 1, "the leader");
    assert_eq!(at(&Observed { again: Some(MemberId(2)), ..joining() }), 2, "where it was refused");
    let leaving = |number| Observed { this: Some(MemberId(number)), ..voters(3).unwanted(3) };
    assert_eq!((at(&leaving(3)), at(&leaving(2))), (1, 2), "never the one that goes");
    let leaving = Observed { again: Some(MemberId(3)), ..voters(3).unwanted(3).away(3) };
    assert_eq!(at(&leaving), 1, "one that answers");
}

#[test]
fn the_watch_knows_for_how_long() {
    let begun = Instant::now();
    let mut watch = Watch::default();
    let mut at = |seconds, observed: Observed| {
        let answers = observed.seen.iter().filter_map(|(id, seen)| Some((*id, seen.answer.clone()?)));
        let asked = Asked { lists: observed.lists.clone(), answers: answers.collect(), this: observed.this };
        watch.observed(asked, observed.wanted.clone(), begun + Duration::from_secs(seconds))
    };
    let seconds = |seen: &Seen| (seen.answer.is_some(), seen.since.as_secs(), seen.stalled.as_secs());
    let of = |observed: &Observed, number| seconds(&observed.seen[&MemberId(number)]);
    let behind = |applied| voters(3).away(3).learner(4).says(4, |answer| answer.status.applied = applied);
    assert_eq!(of(&at(0, behind(7)), 3), (false, 0, 0));
    let look = at(4, behind(7));
    assert_eq!(
        (of(&look, 1), of(&look, 3), of(&look, 4), look.settled.as_secs()),
        ((true, 4, 0), (false, 4, 4), (true, 4, 4), 4)
    );
    assert_eq!(of(&at(5, behind(8)), 4), (true, 5, 0), "it has applied an entry");
    let look = at(6, voters(3).learner(4));
    assert_eq!((of(&look, 3), of(&look, 4)), ((true, 0, 0), (true, 6, 0)));
    let look = at(7, voters(3).learner(4).away(4));
    assert_eq!((of(&look, 4), look.settled.as_secs()), ((false, 0, 1), 7));
    let look = at(8, voters(3));
    assert_eq!((of(&look, 1), look.settled.as_secs()), ((true, 8, 0), 0), "the list is another");
    // A list that nobody tells is not another one.
    assert_eq!(at(9, Observed { lists: Vec::new(), ..voters(3) }).settled.as_secs(), 0);
    assert_eq!(at(10, voters(3)).settled.as_secs(), 2);
    let look = at(41, voters(3));
    assert_eq!((of(&look, 1), look.settled.as_secs()), ((true, 0, 0), 0), "nobody looked for half a minute");

    let failed = |sort| Err::<(), _>(Failed { sort, said: String::new() });
    let mut again = |result| {
        watch.came_to(MemberId(2), &result);
        watch.observed(Asked::default(), Vec::new(), begun).again
    };
    assert_eq!(again(failed(Sort::Again)), Some(MemberId(2)));
    assert_eq!(again(failed(Sort::Unclear)), None);
    assert_eq!(again(failed(Sort::Again)), Some(MemberId(2)));
    assert_eq!(again(Ok(())), None);
}
