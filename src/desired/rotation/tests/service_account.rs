//! What is a key of its own, and what a directory of before would do.

use super::*;
use crate::desired::rotation::service_account::{ServiceAccountKey, leads_back};

fn pair(made: &[&(String, String)], accepted: &[&(String, String)]) -> Tls {
    let private: String = made.iter().map(|key| key.0.clone()).collect();
    let public: String = accepted.iter().map(|key| key.1.clone()).collect();
    Tls::from([(SIGNING.into(), private.into()), (PUBLIC.into(), public.into())])
}

fn three() -> [(String, String); 3] {
    std::array::from_fn(|_| pki::signing_pair().unwrap())
}

#[test]
fn an_older_directory_leads_back_and_a_users_own_rotation_does_not() {
    let [a, b, _] = &three();
    for (kept, directory, expected) in [
        (pair(&[a], &[a]), pair(&[a], &[a]), None),
        // By hand: another is accepted, signs, and is alone.
        (pair(&[a], &[a]), pair(&[a], &[a, b]), None),
        (pair(&[a], &[a, b]), pair(&[b], &[a, b]), None),
        (pair(&[b], &[a, b]), pair(&[b], &[b]), None),
        // A directory of before.
        (pair(&[a, b], &[a, b]), pair(&[a], &[a]), Some("and lacks")),
        (pair(&[b], &[b]), pair(&[a], &[a]), Some("and lacks")),
        (pair(&[b], &[b]), pair(&[b, a], &[a, b]), Some("still has the key")),
        (pair(&[b, a], &[a, b]), pair(&[a, b], &[a, b]), Some("signs by the key")),
    ] {
        let said = leads_back(&kept, &directory).unwrap_or_default();
        assert!(expected.map_or(said.is_empty(), |text| said.contains(text)), "{expected:?}: {said}");
    }
    assert_eq!(leads_back(&Tls::new(), &pair(&[a], &[a])), None);
    assert_eq!(leads_back(&pair(&[a], &[a]), &Tls::new()), None);
}

#[test]
fn what_is_not_its_own_is_refused_with_the_reason() {
    let [a, b, c] = &three();
    let (one, other) = (pair(&[a], &[a]), pair(&[b], &[b]));
    let seen = |server: &Tls, guards: &Tls, directory: Option<&Tls>| Observed {
        guards_secret: guards.clone(),
        secrets: vec![(API_SERVER, server.clone()), (CONTROLLER_MANAGER, server.clone())],
        directory: directory.cloned(),
        ..Observed::default()
    };
    let said = |seen: &Observed| {
        ServiceAccountKey::of(seen, Asked::Rotate).err().map(|error| error.to_string()).unwrap_or_default()
    };
    assert!(said(&seen(&one, &other, None)).contains("which Secret kube-system/"));
    let foreign = pair(&[a], &[a, b]);
    assert!(said(&seen(&foreign, &foreign, None)).contains("whose other half is not in sa.key"));
    assert!(said(&seen(&one, &one, Some(&pair(&[a], &[a, c])))).contains("which the cluster has not"));
    assert!(said(&seen(&one, &one, Some(&other))).contains("which the cluster has not"));
    assert_eq!(said(&seen(&one, &one, Some(&pair(&[a], &[c, a])))), "", "an older one is dropped");
    assert!(said(&Observed::default()).contains("has no sa.pub"));
}

#[test]
fn the_files_are_what_a_render_keeps_and_servers_read() {
    let [a, _, _] = &three();
    let one = pair(&[a], &[a]);
    let secrets = vec![(API_SERVER, one.clone()), (CONTROLLER_MANAGER, one.clone())];
    let seen = Observed { guards_secret: one, secrets, ..Observed::default() };
    let begun = ServiceAccountKey::of(&seen, Asked::Rotate).unwrap().begun().unwrap();
    let knows = begun.content(Level::Knows).unwrap();
    let ids = |files: &Tls, name: &str| pki::key_ids(&files[name]);
    assert_eq!(ids(&knows, SIGNING), ids(&seen.guards_secret, SIGNING), "the first signs");
    assert!(String::from_utf8_lossy(&knows[SIGNING]).contains("nothing was signed by it yet"));
    assert_eq!(ids(&knows, PUBLIC)[1], begun.mark());
    let uses = begun.content(Level::Uses).unwrap();
    assert_eq!((ids(&uses, SIGNING), ids(&uses, PUBLIC)), (vec![begun.mark()], ids(&knows, PUBLIC)));
    assert!(!String::from_utf8_lossy(&uses[SIGNING]).contains('#'));
    assert_eq!(begun.level(&uses), Level::Uses);
    // One file was written, and the other not.
    for (signing, public) in [(&knows, &seen.guards_secret), (&begun.content(Level::Alone).unwrap(), &uses)] {
        let torn = Tls::from([(SIGNING.into(), signing[SIGNING].clone()), (PUBLIC.into(), public[PUBLIC].clone())]);
        assert_eq!(begun.level(&torn), Level::Lacks);
    }
}
