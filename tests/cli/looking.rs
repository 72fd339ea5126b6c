//! `hoist preflight` and `hoist status` look, and change nothing. They are never run as root here.

use serde_json::Value;

use crate::support::{CLUSTER, Folder, here};

#[test]
fn all_checks_are_listed() {
    let folder = Folder::new();
    let text = folder.unchanged(|| folder.run(&["preflight", "--list"])).ok();
    let json: Value = serde_json::from_str(&folder.run(&["preflight", "--list", "--output", "json"]).ok()).unwrap();
    assert_eq!(json["schema"], "hoist.preflight/v1");
    let checks = json["checks"].as_array().unwrap();
    assert_eq!(text.lines().count(), checks.len());
    for (line, check) in text.lines().zip(checks) {
        let text = |field: &str| check[field].as_str().unwrap();
        assert!(line.starts_with(text("name")) && line.ends_with(text("title")) && line.contains(text("severity")));
    }
}

#[test]
fn without_root_a_machine_is_not_ready() {
    let Some(cluster) = here() else { return };
    let folder = Folder::rendered(&cluster);
    let ran = folder.as_nobody(&["preflight", "--asset-dir", "assets"]);
    assert_eq!((ran.code, &*ran.stderr), (Some(4), ""), "{ran:?}");
    assert!(ran.stdout.contains("error    IsPrivilegedUser"), "{ran:?}");
    assert!(ran.stdout.contains("this machine is not ready: 1 errors, 0 warnings"), "{ran:?}");
    let ran = folder.as_nobody(&["preflight", "--asset-dir", "assets", "--output", "json"]);
    let json: Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!((ran.code, &json["ready"]), (Some(4), &false.into()));
    assert_eq!(json["checks"][0]["findings"][0]["message"], "hoist start must run as root");
    // Whoever knows better is taken at their word, in any case of letters.
    let ran = folder.as_nobody(&["preflight", "--asset-dir", "assets", "--skip-preflight", "isprivilegeduser"]);
    assert!(ran.stdout.contains("skipped  IsPrivilegedUser") && !ran.stdout.contains("not-run"), "{ran:?}");
}

#[test]
fn a_machine_that_is_no_controller_has_no_status() {
    let folder = Folder::rendered(CLUSTER);
    for command in ["preflight", "status"] {
        folder.as_nobody(&[command, "--asset-dir", "assets"]);
        let said = ["no interface of this machine has the address of one of them: c1 (198.51.100.10)"];
        folder.unchanged(|| folder.as_nobody(&[command, "--asset-dir", "assets"])).failed_saying(4, &said);
        folder.as_nobody(&[command, "--asset-dir", "none"]).failed_saying(3, &["DIR/none: there is no such folder"]);
    }
}
