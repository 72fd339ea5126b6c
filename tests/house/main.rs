//! The floors of src/: a group imports only from groups below its own, and no two files import each other, by however many
//! others. CONTRIBUTING.md says what belongs where.

// clippy.toml allows them in #[test] functions; these files are tests throughout.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod imports;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::LazyLock;

use imports::{File, House};

/// The groups, from the roof to the ground.
const FLOORS: [&str; 11] =
    ["cli", "ops", "operator", "check", "plane", "endpoint", "node", "etcd", "api", "desired", "base"];

fn house() -> &'static House {
    static HOUSE: LazyLock<House> = LazyLock::new(|| House::read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src")));
    &HOUSE
}

/// How far down a file's group is; what lies beside the groups (lib.rs) is above all.
fn floor(file: &str) -> usize {
    let group = file.split('/').next().unwrap_or(file);
    FLOORS.iter().position(|floor| *floor == group).map_or(0, |floor| floor + 1)
}

#[test]
fn every_file_is_in_a_group() {
    let house = house();
    let stray: Vec<_> =
        house.files().filter(|file| !matches!(*file, "lib.rs" | "main.rs") && floor(file) == 0).collect();
    assert!(stray.is_empty(), "of no group: {stray:?}; the groups are {FLOORS:?}");
}

#[test]
fn a_module_with_files_of_its_own_is_a_folder_with_a_mod_rs() {
    let house = house();
    let files: BTreeSet<&str> = house.files().collect();
    let has_folder = |file: &&str| {
        let folder = format!("{}/", file.trim_end_matches(".rs"));
        files.iter().any(|other| other.starts_with(&folder))
    };
    let two_styles: Vec<_> = files.iter().copied().filter(has_folder).collect();
    assert!(two_styles.is_empty(), "these have a folder beside them; their place is mod.rs in it: {two_styles:?}");
}

#[test]
fn no_arrow_leads_upwards() {
    let house = house();
    let up: Vec<_> = house
        .arrows()
        .filter(|(from, to, _)| floor(from) > floor(to))
        .map(|(from, to, names)| format!("src/{from} imports src/{to} ({names}), which is above it"))
        .collect();
    assert!(up.is_empty(), "a group imports only from those after it in {FLOORS:?}:\n{}", up.join("\n"));
}

#[test]
fn no_files_import_each_other() {
    let house = house();
    let mut told = Vec::new();
    for circle in circles(house) {
        let within = house.arrows().filter(|(from, to, _)| circle.contains(*from) && circle.contains(*to));
        let arrows: Vec<_> =
            within.map(|(from, to, names)| format!("  src/{from} imports src/{to} ({names})")).collect();
        told.push(format!("{} files import each other:\n{}", circle.len(), arrows.join("\n")));
    }
    assert!(told.is_empty(), "{}", told.join("\n"));
}

#[test]
fn what_is_read_of_a_file() {
    let source = r#"
        //! crate::of::a_comment
        use crate::base::{error::Error, files::{self, File as Written}};
        pub use self::child::Handed;
        use super::sister::Sister;
        mod child;
        fn body() -> crate::api::Answer { files::write(&format!("{}", crate::etcd::client::LIMIT)) }
        #[cfg(test)]
        mod tests { use crate::ops::start::Start; }
    "#;
    let file = File::parse("node/room", source);
    let read: BTreeSet<&str> = file.uses.iter().map(String::as_str).collect();
    let wanted = [
        "base::error::Error",
        "base::files",
        "base::files::File",
        "base::files::write",
        "node::sister::Sister",
        "api::Answer",
        "etcd::client::LIMIT",
    ];
    assert_eq!(read, BTreeSet::from(wanted));
    assert_eq!(file.hands_on, BTreeMap::from([("Handed".to_owned(), "node::room::child::Handed".to_owned())]));
}

/// Every set of more than one file in which each reaches each.
fn circles(house: &House) -> Vec<BTreeSet<&str>> {
    let reached: BTreeMap<&str, BTreeSet<&str>> = house.files().map(|file| (file, house.reaches(file))).collect();
    let mut found: Vec<BTreeSet<&str>> = Vec::new();
    for (file, reach) in &reached {
        let circle: BTreeSet<&str> = reach.iter().copied().filter(|other| reached[other].contains(file)).collect();
        if circle.len() > 1 && !found.contains(&circle) {
            found.push(circle);
        }
    }
    found
}
