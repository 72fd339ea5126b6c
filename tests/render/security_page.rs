//! The table of docs/security.md: each row that says that something holds names a test that is there.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// Every function of the tests below a folder, by name.
fn functions(folder: &Path, found: &mut BTreeSet<String>) {
    for entry in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
        if entry.is_dir() {
            functions(&entry, found);
        } else if entry.extension().is_some_and(|end| end == "rs") {
            let text = std::fs::read_to_string(&entry).unwrap();
            let mut is_test = false;
            for line in text.lines().map(str::trim_start) {
                if let Some(rest) = line.strip_prefix("fn ").filter(|_| is_test) {
                    found.insert(rest.split(['(', '<']).next().unwrap().to_owned());
                }
                is_test = line.starts_with("#[test]")
                    || line.starts_with("#[tokio::test")
                    || (is_test && line.starts_with("#["));
            }
        }
    }
}

#[test]
fn every_row_of_the_page_names_a_test_that_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = std::fs::read_to_string(root.join("docs/security.md")).unwrap();
    let rows: Vec<Vec<&str>> = page
        .lines()
        .filter(|line| line.starts_with("| ") && line.as_bytes()[2].is_ascii_digit())
        .map(|line| line.trim_matches('|').split(" | ").map(str::trim).collect())
        .collect();
    assert!(rows.len() > 60, "{}", rows.len());
    let mut tests: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    for (target, folder) in [
        ("lib", "src"),
        ("render", "tests/render"),
        ("cli", "tests/cli"),
        ("e2e", "tests/e2e"),
        ("validate", "tests/validate"),
        ("pki", "tests/pki"),
    ] {
        functions(&root.join(folder), tests.entry(target).or_default());
    }
    for row in rows {
        let [_, _, state, _, shown] = row[..] else { panic!("{row:?} has not five columns") };
        assert!(["met", "in part", "no", "yours"].contains(&state), "{row:?}");
        let named: Vec<_> = shown.split(", ").filter(|name| !matches!(*name, "" | "-")).collect();
        assert!(!named.is_empty() || state != "met", "{row:?} is met, and no test shows it");
        for name in named {
            let (target, test) = name.trim_matches('`').split_once(' ').unwrap_or_else(|| panic!("{row:?}"));
            assert!(tests.get(target).is_some_and(|tests| tests.contains(test)), "{row:?}: there is no test {name}");
        }
    }
}
