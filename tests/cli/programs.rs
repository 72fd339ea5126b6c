//! What programs read: events, the log, the version; and what packagers install.

use std::process::{Command, Stdio};

use serde_json::Value;

use crate::events::events;
use crate::support::{CLUSTER, Folder, Ran};

/// The result that `hoist start` ended with; it agrees with the exit code, and the same stands on standard error.
#[track_caller]
fn result(ran: &Ran) -> Value {
    let mut events = events(&ran.stdout);
    let result = events.pop().unwrap();
    assert_eq!(result["exitCode"], ran.code.unwrap(), "{ran:?}");
    let message = result["message"].as_str().unwrap();
    assert_eq!(ran.stderr.lines().next(), Some(&*format!("hoist: {message}")), "{ran:?}");
    result
}

#[test]
fn every_refusal_ends_with_a_result() {
    let json = ["--output", "json"];
    let folder = Folder::new();
    let ran = result(&folder.start(&json));
    assert_eq!((&ran["exitCode"], &ran["class"]), (&3.into(), &"invalid-input".into()));
    assert_eq!(ran["findings"][0]["message"], "there is no such folder");
    assert_eq!(ran["findings"][0]["severity"], "error");

    let folder = Folder::rendered(CLUSTER);
    folder.edit("assets/cluster.yaml", "clusterName: kubernetes", "clustrName: kubernetes");
    let ran = result(&folder.start(&json));
    let finding = &ran["findings"][0];
    assert_eq!((&finding["line"], &finding["column"]), (&4.into(), &1.into()), "{finding}");
    assert_eq!(finding["file"], "DIR/assets/cluster.yaml");
    assert_eq!(finding["remedy"], "did you mean `clusterName`?");

    let folder = Folder::rendered(CLUSTER);
    folder.put("assets/manifests/mine/a.yaml", "kind: ConfigMap\nmetadata: {name: a\n");
    folder.put("assets/manifests/mine/c.yaml", "apiVersion: v1\nkind: ConfigMap\n");
    let ran = result(&folder.start(&json));
    assert_eq!(ran["findings"].as_array().unwrap().len(), 2, "all at once: {ran}");

    let folder = Folder::rendered(CLUSTER);
    let ran = result(&folder.start(&json));
    assert_eq!((&ran["exitCode"], &ran["class"]), (&4.into(), &"not-ready".into()));
    assert!(ran["findings"][0]["message"].as_str().unwrap().contains("c1 (198.51.100.10)"), "{ran}");
    assert!(ran["next"].as_str().unwrap().contains("run the same command again"), "{ran}");
    assert_eq!(ran["steps"], Value::Array(Vec::new()), "none was begun");
}

/// Wrong usage is told before anybody can know what the output was to be.
#[test]
fn wrong_usage_leaves_standard_output_empty() {
    let ran = Folder::new().run(&["start", "--output", "json", "--asset-dri", "assets"]);
    assert_eq!((ran.code, &*ran.stdout), (Some(2), ""), "{ran:?}");
    assert!(ran.stderr.contains("--asset-dir"), "{ran:?}");
}

#[test]
fn a_log_of_records() {
    let folder = Folder::with("apiVersion: hoist/v1alpha1\nkind: Cluster\ncontrollers: []\nkubernetesVersion: 1.2\n");
    let ran = folder.run(&["render", "--config", "cluster.yaml", "--asset-dir", "assets", "--log-format", "json"]);
    let records: Vec<Value> = ran.stderr.lines().map(|line| serde_json::from_str(line).expect(line)).collect();
    let last = records.last().unwrap();
    assert_eq!((ran.code, &last["level"], &last["exitCode"]), (Some(3), &"ERROR".into(), &3.into()), "{last}");
    assert!(last["findings"].as_array().unwrap().iter().all(|finding| finding["file"] == "cluster.yaml"), "{last}");

    let folder = Folder::rendered(CLUSTER);
    let ran = folder.start(&["--log-format", "json", "--log-level", "trace", "--output", "json"]);
    let records: Vec<Value> = ran.stderr.lines().map(|line| serde_json::from_str(line).expect(line)).collect();
    for record in &records {
        for field in ["timestamp", "level", "message", "target"] {
            assert!(record[field].is_string(), "{field}: {record}");
        }
    }
    assert_eq!(records.last().unwrap()["class"], "not-ready");
    assert_eq!(events(&ran.stdout).last().unwrap()["exitCode"], 4, "and standard output is as without a log");
}

#[test]
fn the_version_for_programs() {
    let folder = Folder::new();
    for json in ["-ojson", "--output=json"] {
        let version: Value = serde_json::from_str(&folder.run(&["version", json]).ok()).unwrap();
        assert_eq!(version["version"], env!("CARGO_PKG_VERSION"));
        assert!(version["rustc"].as_str().unwrap().starts_with("rustc 1."), "{version}");
        assert_eq!(version["eventSchema"], "hoist.event/v1");
        let supported = version["kubernetes"]["supported"].as_array().unwrap();
        let default = version["kubernetes"]["default"].as_str().unwrap();
        assert!(
            supported.iter().any(|minor| default.starts_with(&format!("v{}.", minor.as_str().unwrap()))),
            "{version}"
        );
    }
    let text = folder.run(&["version"]).ok();
    assert!(text.starts_with(&format!("hoist {}\n", env!("CARGO_PKG_VERSION"))), "{text}");
}

#[test]
fn colours_can_be_had_and_refused() {
    let folder = Folder::new();
    let help = |args: &[&str], no_color: &str| {
        let mut command = folder.command(args);
        folder.ran(command.env("CLICOLOR_FORCE", "1").env("NO_COLOR", no_color)).stdout
    };
    assert!(help(&["--help"], "").contains('\u{1b}'), "nothing would show without");
    for (args, no_color) in
        [(&["--no-color", "--help"][..], ""), (&["start", "--help", "--no-color"], ""), (&["--help"], "1")]
    {
        let text = help(args, no_color);
        assert!(text.contains("Usage: hoist") && !text.contains('\u{1b}'), "{args:?} {text}");
    }
}

/// bash reads it, and offers what it should.
#[test]
fn bash_completes() {
    let folder = Folder::new();
    folder.put("completion", folder.run(&["completion", "bash"]).ok());
    let complete = |words: &[&str]| {
        let script = format!(
            "source completion; COMP_WORDS=({}); COMP_CWORD={}; _hoist hoist \"${{COMP_WORDS[-1]}}\" \"${{COMP_WORDS[-2]}}\"; echo \"${{COMPREPLY[@]}}\"",
            words.join(" "),
            words.len() - 1
        );
        let mut bash = Command::new("bash");
        bash.args(["--norc", "-euc", &script]).current_dir(folder.path("")).stdin(Stdio::null());
        folder.ran(&mut bash).ok().trim().to_owned()
    };
    assert_eq!(complete(&["hoist", "st"]), "start status");
    assert_eq!(complete(&["hoist", "start", "--asset"]), "--asset-dir");
    assert_eq!(complete(&["hoist", "start", "--output", "\"\""]), "text json");
    assert!(!complete(&["hoist", "\"\""]).contains("forward"), "it is no command of the user's");
}

#[test]
fn other_shells_complete() {
    let folder = Folder::new();
    for (shell, begins) in
        [("zsh", "#compdef hoist"), ("fish", "#"), ("elvish", "\nuse builtin;"), ("powershell", "\nusing namespace")]
    {
        let text = folder.run(&["completion", shell]).ok();
        assert!(text.starts_with(begins) && text.contains("pod-manifest-path"), "{shell}: {text}");
    }
    assert_eq!(folder.run(&["completion", "tcsh"]).code, Some(2));
}

#[test]
fn man_pages() {
    let folder = Folder::new();
    folder.run(&["man", "--output-dir", "man/man1"]).ok();
    let page = |name: &str| folder.read(&format!("man/man1/{name}.1"));
    assert_eq!(folder.run(&["man"]).ok(), page("hoist"));
    let pages: Vec<_> =
        folder.tree().into_keys().filter(|path| path.extension().is_some_and(|end| end == "1")).collect();
    assert!(pages.len() >= 8 && !pages.iter().any(|page| page.ends_with("hoist-forward.1")), "{pages:?}");
    for path in &pages {
        let text = std::fs::read_to_string(path).unwrap();
        assert!(text.contains(".TH HOIST") && text.contains(concat!("hoist ", env!("CARGO_PKG_VERSION"))), "{text}");
        // It is where packages are built that a formatter is to be had.
        let mut man = Command::new("man");
        match man.args(["--warnings", "-E", "UTF-8", "-l"]).arg(path).stdin(Stdio::null()).output() {
            Ok(shown) => assert!(shown.status.success() && shown.stderr.is_empty(), "{path:?} {shown:?}"),
            Err(error) => eprintln!("there is no man to show {} with: {error}", path.display()),
        }
    }
    for (code, _) in hoist::base::error::EXIT_CODES {
        assert!(page("hoist").contains(&format!("\n\\fB{code}\\fR\n")), "exit code {code}");
    }
    assert!(page("hoist-start").contains("pod\\-manifest\\-path"));
}
