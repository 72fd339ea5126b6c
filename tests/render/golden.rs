//! Every file that holds no secret, byte by byte; of the others, that they are there, their mode and what is in them.
//! `UPDATE_GOLDEN=1 cargo test --test render` writes them anew; the difference is then reviewed like code.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use base64::Engine;
use hoist::desired::assets::AssetSet;

use crate::support::{NAMES, cluster, documents, golden, is_secret, render, text};

/// All files of the set with their modes, and for a Secret's manifest its keys.
fn listing(set: &AssetSet) -> String {
    let line = |(path, file): (&String, &hoist::base::files::File)| {
        let mode = format!("{:04o}", file.mode);
        let mut line = format!("{mode} {path}\n");
        if path.ends_with("/secret.yaml") {
            let data = documents(path, &text(set, path))[0].value["data"].clone();
            data.as_object().unwrap().keys().for_each(|key| line.push_str(&format!("       - {key}\n")));
        }
        line
    };
    set.files.iter().map(line).collect()
}

fn below(dir: &Path, root: &Path, found: &mut BTreeMap<String, String>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            below(&path, root, found);
        } else {
            let name = path.strip_prefix(root).unwrap().to_string_lossy().into_owned();
            found.insert(name, fs::read_to_string(&path).unwrap());
        }
    }
}

fn check(name: &str) {
    let set = render(&cluster(name));
    let mut made = BTreeMap::from([("LISTING".to_owned(), listing(&set))]);
    let open = set.files.keys().filter(|path| !is_secret(path));
    // cluster-info has the CA in it, which is another each time.
    let ca = base64::engine::general_purpose::STANDARD.encode(&set.files["tls/ca.crt"].content);
    made.extend(open.map(|path| (path.clone(), text(&set, path).replace(&ca, "CA"))));

    let dir = golden().join(name);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        let _ = fs::remove_dir_all(&dir);
        for (path, text) in &made {
            let path = dir.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
    }
    let mut expected = BTreeMap::new();
    below(&dir, &dir, &mut expected);
    let differ = |path: &&String| made.get(*path) != expected.get(*path);
    let paths: std::collections::BTreeSet<_> = made.keys().chain(expected.keys()).collect();
    let Some(path) = paths.into_iter().find(differ) else { return };
    let (made, expected) = (made.get(path), expected.get(path));
    let lines = |text: Option<&String>| text.map(|text| text.lines().map(str::to_owned).collect::<Vec<_>>());
    let (made, expected) = (lines(made).unwrap_or_default(), lines(expected).unwrap_or_default());
    let at = made.iter().zip(&expected).take_while(|(a, b)| a == b).count();
    panic!(
        "{name}/{path} differs from line {} on:\n  made:     {:?}\n  expected: {:?}\n\
         If it is meant to: UPDATE_GOLDEN=1 cargo test --test render, and review the difference.",
        at + 1,
        made.get(at),
        expected.get(at)
    );
}

#[test]
fn minimal() {
    check("minimal");
}

#[test]
fn full() {
    check("full");
}

#[test]
fn external() {
    check("external");
}

#[test]
fn external_ca() {
    check("external-ca");
}

#[test]
fn every_configuration_is_held_against_its_files() {
    let mut found: Vec<_> = fs::read_dir(golden())
        .unwrap()
        .filter_map(|entry| Some(entry.unwrap().file_name().to_str()?.strip_suffix(".yaml")?.to_owned()))
        .collect();
    found.sort();
    let mut names = NAMES;
    names.sort_unstable();
    assert_eq!(found, names);
}
