//! Each row of the table, from the label to the first request.

use std::collections::BTreeMap;

use super::*;

const PEER: &str = "https://10.0.0.2:2380";

fn member(id: u64, name: &str, peer: &str, is_learner: bool) -> (MemberId, Member) {
    let member = Member {
        id: MemberId(id),
        name: name.into(),
        peer_urls: vec![peer.into()],
        client_urls: Vec::new(),
        is_learner,
    };
    (MemberId(id), member)
}

fn list(own: Option<(&str, bool)>) -> Option<List> {
    let mut members = BTreeMap::from([member(1, "c1", "https://10.0.0.1:2380", false)]);
    members.extend(own.map(|(name, is_learner)| member(2, name, PEER, is_learner)));
    Some(List { cluster: 7, members })
}

fn status(id: u64, is_learner: bool) -> Option<Status> {
    Some(Status { member: Some(MemberId(id)), is_learner, ..Status::default() })
}

/// Labelled, with its certificates, and in no list.
fn labelled() -> Observed {
    Observed {
        name: "c2".into(),
        peer_url: PEER.into(),
        has_label: Some(true),
        has_certificates: true,
        is_local: true,
        is_empty: true,
        list: list(None),
        ..Observed::default()
    }
}

fn waits(step: &Step, what: &str) -> bool {
    matches!(step, Step::Wait(why) if why.contains(what))
}

#[test]
fn a_controller_is_made_step_by_step() {
    let new = Observed { has_certificates: false, ..labelled() };
    assert_eq!(decide(&new), Step::MakeCertificates);
    assert_eq!(decide(&Observed { list: None, ..new }), Step::MakeCertificates, "that takes no etcd");
    assert!(waits(&decide(&Observed { list: None, ..labelled() }), "no voter"));
    assert_eq!(decide(&labelled()), Step::Report);
    let added = Observed { list: list(Some(("", true))), ..labelled() };
    let initial = "c1=https://10.0.0.1:2380,c2=https://10.0.0.2:2380";
    assert_eq!(decide(&added), Step::Begin(initial.into()));
    let begun = Observed { has_data: true, has_manifest: true, is_empty: false, ..added };
    assert!(waits(&decide(&begun), "to answer"));
    let learns = Observed { own: status(2, true), list: list(Some(("c2", true))), ..begun };
    assert!(waits(&decide(&learns), "vote"));
    let votes = |listed, says| Observed { list: list(Some(("c2", listed))), own: status(2, says), ..learns.clone() };
    assert!(waits(&decide(&votes(false, true)), "vote"), "it has not heard of its promotion");
    assert!(waits(&decide(&votes(true, false)), "vote"), "the one that was asked has not");
    assert_eq!(decide(&votes(false, false)), Step::Serve);
    assert_eq!(decide(&Observed { serves: true, ..votes(false, false) }), Step::Done);
}

#[test]
fn an_etcd_that_is_another_member_does_not_count() {
    let other = Observed { own: status(9, false), has_data: true, list: list(Some(("c2", false))), ..labelled() };
    assert!(waits(&decide(&other), "to answer"));
}

#[test]
fn old_data_and_an_old_entry_are_not_taken_for_its_own() {
    let removed = Observed { has_data: true, ..labelled() };
    assert_eq!(decide(&removed), Step::PutAside);
    let mut elsewhere = list(None).unwrap();
    elsewhere.members.extend([member(3, "c2", "https://10.0.0.9:2380", false)]);
    assert!(waits(&decide(&Observed { list: Some(elsewhere), ..removed }), "another address"));
}

/// Its system disk is new, and neither its Node nor its entry was deleted.
#[test]
fn a_machine_that_was_made_anew_has_its_old_entry_removed_or_goes_on_with_the_disk_that_was_kept() {
    let anew = Observed { list: list(Some(("c2", false))), ..labelled() };
    assert_eq!(decide(&anew), Step::Report);
    assert!(waits(&decide(&Observed { is_empty: false, ..anew.clone() }), "entry of its lost"), "it cannot be seen");
    assert_eq!(decide(&Observed { list: list(None), ..anew.clone() }), Step::Report);
    let kept = Observed { has_data: true, is_empty: false, ..anew };
    assert!(matches!(decide(&kept), Step::Begin(_)));
    assert!(waits(&decide(&Observed { has_manifest: true, ..kept }), "to answer"));
}

#[test]
fn without_its_label_it_goes_when_no_voter_lists_it() {
    let off = |list| Observed { has_label: Some(false), list, ..labelled() };
    assert!(waits(&decide(&off(list(Some(("c2", true))))), "to be removed"));
    assert!(waits(&decide(&off(None)), "no voter"));
    assert_eq!(decide(&off(list(None))), Step::Remove);
    let unknown = Observed { has_label: None, ..labelled() };
    assert_eq!(decide(&unknown), Step::Report, "the API did not say");
}

#[test]
fn with_etcd_elsewhere_it_needs_its_certificates_alone() {
    let external = Observed { is_local: false, list: None, ..labelled() };
    assert_eq!(decide(&Observed { has_certificates: false, ..external.clone() }), Step::MakeCertificates);
    assert_eq!(decide(&external), Step::Serve);
    assert_eq!(decide(&Observed { has_label: Some(false), ..external }), Step::Remove);
}

#[test]
fn others_that_have_not_started_have_a_name_for_etcd() {
    let mut others = list(Some(("", true))).unwrap();
    others.members.extend([member(10, "", "https://10.0.0.3:2380", true)]);
    let Step::Begin(initial) = decide(&Observed { list: Some(others), ..labelled() }) else { panic!() };
    assert!(initial.ends_with(",member-a=https://10.0.0.3:2380"), "{initial}");
}

/// A controller that serves, listed as a voter, whose etcd does not answer.
fn serving() -> Observed {
    Observed {
        serves: true,
        is_agreed: true,
        was_in: Some(7),
        has_mark: true,
        has_data: true,
        list: list(Some(("c2", false))),
        ..labelled()
    }
}

/// The same with an empty data directory on the file system on which the data was.
fn wiped(seconds: u64) -> Observed {
    let lost_for = Some(Duration::from_secs(seconds));
    Observed { has_data: false, has_mark: false, lost_for, ..serving() }
}

#[test]
fn a_controller_whose_disk_was_wiped_becomes_a_member_anew() {
    assert_eq!(decide(&serving()), Step::Done, "it restarts");
    assert!(waits(&decide(&wiped(59)), "whether it is lost"));
    assert_eq!(decide(&wiped(60)), Step::Report);
    let removed = Observed { list: list(None), ..wiped(65) };
    assert_eq!(decide(&removed), Step::Report);
    let added = Observed { list: list(Some(("", true))), ..removed };
    let initial = "c1=https://10.0.0.1:2380,c2=https://10.0.0.2:2380";
    let begin = Step::BeginAnew(MemberId(2), initial.into());
    assert_eq!(decide(&added), begin);
    let begun = Observed { has_data: true, is_empty: false, lost_for: None, ..added.clone() };
    assert_eq!(decide(&begun), Step::Done, "its etcd is to answer");
    let learns = Observed { own: status(2, true), list: list(Some(("c2", true))), ..begun };
    assert!(waits(&decide(&learns), "vote"));
    let votes = Observed { own: status(2, false), list: list(Some(("c2", false))), ..learns };
    assert_eq!(decide(&votes), Step::Mark);
    assert_eq!(decide(&Observed { has_mark: true, ..votes }), Step::Done);
}

#[test]
fn a_disk_that_is_not_mounted_is_waited_for() {
    let absent = Observed { lost_for: None, ..wiped(0) };
    assert_eq!(decide(&absent), Step::Done);
    assert_eq!(decide(&Observed { list: list(None), ..absent.clone() }), Step::Done, "even if it was removed");
    assert_eq!(decide(&Observed { list: list(Some(("", true))), ..absent }), Step::Done);
}

#[test]
fn nothing_is_lost_without_the_word_of_the_others() {
    let lost = wiped(600);
    for other in [
        Observed { list: None, ..lost.clone() },
        Observed { is_agreed: false, ..lost.clone() },
        Observed { has_label: None, ..lost.clone() },
        Observed { has_label: Some(false), ..lost.clone() },
        Observed { is_local: false, ..lost.clone() },
        Observed { own: status(2, false), has_mark: true, ..lost.clone() },
        Observed { own: status(9, false), ..lost },
    ] {
        assert_eq!(decide(&other), Step::Done, "{other:?}");
    }
}

#[test]
fn data_of_a_member_that_was_removed_is_put_aside_where_a_controller_serves_too() {
    let removed = Observed { list: list(None), ..serving() };
    assert_eq!(decide(&removed), Step::PutAside);
    let runs = Observed { own: status(2, false), ..removed.clone() };
    assert_eq!(decide(&runs), Step::Done, "it has not heard of it");
    assert!(waits(&decide(&Observed { was_in: Some(8), ..removed.clone() }), "another cluster"));
    assert!(waits(&decide(&Observed { was_in: None, ..removed.clone() }), "another cluster"));
    let mut elsewhere = list(None).unwrap();
    elsewhere.members.extend([member(3, "c2", "https://10.0.0.9:2380", false)]);
    assert!(waits(&decide(&Observed { list: Some(elsewhere), ..removed.clone() }), "another address"));
    let aside = Observed { has_data: false, has_mark: false, is_put_aside: true, ..removed };
    assert_eq!(decide(&aside), Step::Report);
    let added = Observed { list: list(Some(("", true))), ..aside };
    assert!(matches!(decide(&added), Step::BeginAnew(MemberId(2), _)));
}
