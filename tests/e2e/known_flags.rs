//! The table of flags against the programs themselves, of the version that the test nodes run.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use hoist::desired::known_flags::{self, Program};

use crate::support::cache;

/// The version of the nodes, as "1.36.3".
fn version() -> String {
    let default = || hoist::desired::config::KUBERNETES_VERSION.trim_start_matches('v').to_owned();
    std::env::var("HOIST_KUBERNETES").ok().filter(|version| !version.is_empty()).unwrap_or_else(default)
}

fn programs() -> PathBuf {
    cache().join(format!("kubernetes/v{}/bin", version()))
}

fn says(dir: &Path, program: Program, args: &[&str]) -> String {
    let output = Command::new(dir.join(program.name())).args(args).output().expect("scripts/kubernetes builds it");
    String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
}

/// The flags that `--help` shows: those that are deprecated may be hidden.
fn shown(help: &str) -> BTreeSet<String> {
    let flag = |line: &str| {
        let line = line.strip_prefix("  ")?.trim_start();
        let line = if line.starts_with('-') && !line.starts_with("--") { line.split_once(", ")?.1 } else { line };
        let name: String =
            line.strip_prefix("--")?.chars().take_while(|c| c.is_ascii_alphanumeric() || "-_.".contains(*c)).collect();
        (!name.is_empty()).then_some(name)
    };
    help.lines().filter_map(flag).collect()
}

/// Whether the program takes a flag. Behind it stands one that ends it at once.
fn takes(dir: &Path, program: Program, flag: &str) -> bool {
    let said = says(dir, program, &[&format!("--{flag}=1"), "--version"]);
    !said.contains("unknown flag") && !said.contains("flag provided but not defined")
}

#[test]
fn known_flags_are_the_programs_own() {
    let dir = programs();
    let minor = version().split('.').nth(1).unwrap().parse().unwrap();
    for program in Program::ALL {
        let known: BTreeSet<_> = known_flags::all(program, minor).map(|(name, _)| name.to_owned()).collect();
        let shown = shown(&says(&dir, program, &["--help"]));
        assert!(shown.len() > 50, "{program:?}: {shown:?}");
        // etcd 3.7 shows two that it does not take any more.
        let missing: Vec<_> = shown.difference(&known).filter(|flag| takes(&dir, program, flag)).collect();
        assert!(missing.is_empty(), "{program:?} shows what the table lacks: {missing:?}; run scripts/known-flags");
        assert!(!takes(&dir, program, "no-such-flag"), "{program:?}");
        let hidden: Vec<_> = known.difference(&shown).collect();
        eprintln!("{}: {} flags, {} of them hidden", program.name(), known.len(), hidden.len());
        for flag in hidden {
            assert!(takes(&dir, program, flag), "{program:?} does not take --{flag}; run scripts/known-flags");
        }
    }
}
