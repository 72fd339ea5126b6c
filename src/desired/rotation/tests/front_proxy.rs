//! The same of CAs, and what servers say of them.

use super::*;
use crate::desired::rotation::front_proxy::{FrontProxyCa, leads_back};

fn only(cas: &[&pki::Ca]) -> Tls {
    Tls::from([(CA.into(), cas.iter().map(|ca| ca.crt.clone()).collect::<String>().into())])
}

fn made(at: u32) -> pki::Ca {
    let (crt, key) = pki::front_proxy_ca(clock(at).cas, clock(at).now).unwrap();
    pki::cas(crt.as_bytes(), key.as_bytes()).remove(0)
}

fn seen(files: &Tls, at: u32) -> Observed {
    let secrets = vec![(API_SERVER, files.clone())];
    Observed { guards_secret: files.clone(), secrets, clock: clock(at), ..Observed::default() }
}

#[test]
fn an_older_directory_leads_back_and_a_newer_one_does_not() {
    let (a, b) = (&made(0), &made(60));
    for (kept, directory, expected) in [
        (only(&[a]), only(&[a]), None),
        (only(&[a]), only(&[b]), None),
        (only(&[a, b]), only(&[b, a]), None),
        (only(&[b, a]), only(&[b]), None),
        (only(&[a, b]), only(&[a]), Some("and lacks")),
        (only(&[b]), only(&[a]), Some("and lacks")),
        (only(&[b]), only(&[b, a]), Some("still has the CA")),
        (only(&[b, a]), only(&[a, b]), Some("issues by the CA")),
    ] {
        let said = leads_back(&kept, &directory).unwrap_or_default();
        assert!(expected.map_or(said.is_empty(), |text| said.contains(text)), "{expected:?}: {said}");
    }
    assert_eq!(leads_back(&Tls::new(), &only(&[a])), None);
}

#[test]
fn what_is_not_its_own_is_refused_with_the_reason() {
    let one = first(Keys::FrontProxyCa);
    let said = |seen: &Observed| {
        FrontProxyCa::of(seen, Asked::Rotate).err().map(|error| error.to_string()).unwrap_or_default()
    };
    assert_eq!(said(&seen(&one, 60)), "");
    let without = |path: &str| {
        let mut files = one.clone();
        files.remove(path);
        said(&seen(&files, 60))
    };
    assert!(
        without(CA_KEY).contains("is not there")
            && without(CA).contains("has no")
            && without(CLIENT).contains("has no")
    );
    let newer = first(Keys::FrontProxyCa).into_iter().chain(only(&[&made(60)])).collect();
    let refused = said(&Observed { directory: Some(newer), ..seen(&one, 90) });
    assert!(refused.contains("which the cluster has not"), "{refused}");
    let (a, b) = (made(0), made(0));
    let two = one.iter().map(owned).chain(only(&[&a, &b])).collect();
    assert!(said(&seen(&two, 60)).contains("none of them is newer"));
}

#[test]
fn what_is_issued_ends_last_and_keeps_its_key() {
    let one = first(Keys::FrontProxyCa);
    let begun = FrontProxyCa::of(&seen(&one, 60), Asked::Rotate).unwrap().begun().unwrap();
    let knows = begun.content(Level::Knows).unwrap();
    assert_eq!(knows[CLIENT], one[CLIENT], "it is still of the old one");
    let uses = begun.content(Level::Uses).unwrap();
    assert!(pki::is_newer(&uses[CLIENT], &one[CLIENT]) && uses[CLIENT_KEY] == one[CLIENT_KEY]);
    // Led back, what is issued again ends later still, at the same moment too.
    let back = FrontProxyCa::of(&seen(&uses, 60), Asked::Abort).unwrap();
    let again = back.content(Level::Uses).unwrap();
    assert!(pki::is_newer(&again[CLIENT], &uses[CLIENT]) && back.level(&again) == Level::Uses);
    // Half of it.
    let torn: Tls = uses.iter().map(owned).chain(owned_only(&one, CLIENT)).collect();
    assert_eq!(begun.level(&torn), Level::Lacks);
    let torn: Tls = uses.iter().map(owned).chain(owned_only(&one, CA_KEY)).collect();
    assert_eq!(begun.level(&torn), Level::Lacks);
}

#[test]
fn what_servers_name_says_how_far_they_are() {
    let one = first(Keys::FrontProxyCa);
    let begun = FrontProxyCa::of(&seen(&one, 60), Asked::Rotate).unwrap().begun().unwrap();
    let (new, old) = (begun.staying(), begun.going().remove(0));
    let level = |component, said: &[&str]| {
        begun.level_of_server(component, &said.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>())
    };
    for (said, of_server, of_map) in [
        (vec!["kubernetes", &old], Level::Lacks, Level::Lacks),
        (vec!["kubernetes", &old, &new], Level::Knows, Level::Uses),
        (vec!["kubernetes", &new, &old], Level::Uses, Level::Uses),
        (vec!["kubernetes", &new], Level::Alone, Level::Alone),
        (vec!["front-proxy-ca"], Level::Lacks, Level::Lacks),
    ] {
        assert_eq!(level(API_SERVER, &said), of_server, "{said:?}");
        assert_eq!((level(CONFIG_MAP, &said), level(AGGREGATED, &said)), (of_map, of_map), "{said:?}");
    }
    // It does not go by the ConfigMap.
    assert_eq!(level(AGGREGATED, &["kubernetes", "its own"]), Level::Alone);
    assert_eq!(level(API_SERVER, &["kubernetes"]), Level::Lacks);
}
