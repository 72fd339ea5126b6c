//! What is a key of its own, and what a file of before would do.

use super::testing::{file, secret};
use super::*;

fn names(bytes: &[u8]) -> Vec<String> {
    super::names(bytes)
}

fn of(guards: Vec<u8>, server: Vec<u8>, directory: Option<Vec<u8>>) -> Observed {
    let files = |bytes: Vec<u8>| Tls::from([(ENCRYPTION.to_owned(), bytes)]);
    Observed {
        guards_secret: files(guards),
        secrets: vec![(READER, files(server))],
        directory: directory.map(files),
        ..Observed::default()
    }
}

#[test]
fn what_has_no_key_of_its_own_is_refused_with_the_reason() {
    let good = String::from_utf8(file(&[("key1", 1)])).unwrap();
    let identity = good.replace("  providers:\n", "  providers:\n  - identity: {}\n");
    let kms = "  providers:\n  - kms: {apiVersion: v2, name: a, endpoint: \"unix:///x\"}\n";
    let twice = String::from_utf8(file(&[("a", 1), ("b", 2)])).unwrap();
    for (text, expected) in [
        (identity, "Secrets are written as plain text"),
        (good.replace("  providers:\n", kms), "is a KMS"),
        (good.replace("  - secrets\n", "  - secrets\n  - configmaps\n"), "also encrypts configmaps"),
        (good.replace("  - secrets\n", "  - configmaps\n"), "Secrets are not encrypted"),
        (good.replace("  - secrets\n", "  - '*.*'\n"), "also encrypts *.*"),
        (twice, "which of the keys a and b is newer"),
    ] {
        let seen = of(text.clone().into(), text.into(), None);
        let said = EncryptionKey::of(&seen, Asked::Rotate).err().map(|error| error.to_string()).unwrap_or_default();
        assert!(said.contains(expected) && !said.contains(&secret(1)), "{expected}: {said}");
    }
}

#[test]
fn an_edit_of_the_asset_directory_that_is_not_applied_is_not_written_over() {
    let (one, edited) = (file(&[("key1", 1)]), file(&[("key1", 1), ("key2", 2)]));
    let seen = of(one.clone(), one, Some(edited));
    let said = EncryptionKey::of(&seen, Asked::Rotate).err().unwrap().to_string();
    assert!(said.contains("has key2, which the cluster has not"), "{said}");
}

#[test]
fn an_older_directory_leads_back_and_a_users_own_rotation_does_not() {
    let of = file;
    let (a, b, ab, ba) =
        (of(&[("key1", 1)]), of(&[("key2", 2)]), of(&[("key1", 1), ("key2", 2)]), of(&[("key2", 2), ("key1", 1)]));
    for (kept, directory, expected) in [
        (&a, &a, None),
        (&ba, &ba, None),
        // The page docs/security.md, step by step.
        (&a, &ab, None),
        (&ab, &ba, None),
        (&ba, &b, None),
        // A directory of before.
        (&ab, &a, Some("lacks key2")),
        (&ba, &a, Some("lacks key2")),
        (&b, &a, Some("lacks key2")),
        (&b, &ab, Some("still has key1")),
        (&b, &ba, Some("still has key1")),
        (&ba, &ab, Some("has key1 first")),
        // Names say nothing of their age.
        (&of(&[("b", 2), ("a", 1)]), &of(&[("b", 2)]), None),
    ] {
        let said = leads_back(kept, directory);
        let is_it = match (&said, expected) {
            (Some(said), Some(expected)) => said.starts_with(expected),
            (said, expected) => said.is_none() && expected.is_none(),
        };
        assert!(is_it, "{:?} {:?}: {said:?}", names(kept), names(directory));
    }
    assert!(leads_back(b"", &a).is_none() && leads_back(&a, b"").is_none());
}
