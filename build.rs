//! Embeds the templates (a change of one rebuilds the binary), what `hoist version` says of the build, and how it is linked.

use std::path::Path;
use std::process::Command;
use std::{env, fs};

fn main() {
    for folder in ["assets", "bootstrap-manifests", "manifests"] {
        println!("cargo::rerun-if-changed={folder}");
    }
    println!("cargo::rerun-if-changed=build.rs");
    if variable("CARGO_CFG_TARGET_OS") == "linux" {
        // A static binary that is loaded anywhere has a relocation for every pointer; packed, they take a hundredth.
        println!("cargo::rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
    }
    println!("cargo::rustc-env=HOIST_BUILD_TARGET={}", variable("TARGET"));
    println!("cargo::rustc-env=HOIST_BUILD_RUSTC={}", rustc());
    println!("cargo::rerun-if-env-changed=HOIST_GIT_COMMIT");
    if let Some(commit) = commit() {
        println!("cargo::rustc-env=HOIST_BUILD_COMMIT={commit}");
    }
}

fn variable(name: &str) -> String {
    env::var(name).unwrap_or_default()
}

/// The compiler, as it names itself.
fn rustc() -> String {
    let said = Command::new(variable("RUSTC")).arg("--version").output();
    said.map_or_else(|_| "rustc".into(), |said| String::from_utf8_lossy(&said.stdout).trim().to_owned())
}

/// The commit: what `HOIST_GIT_COMMIT` says, as for a build from an archive, or the one that is checked out. It follows
/// from the source alone, so that a build can be repeated to the byte. A debug build has none: it would be built anew
/// after every commit.
fn commit() -> Option<String> {
    let told = variable("HOIST_GIT_COMMIT");
    if !told.is_empty() {
        return Some(told);
    }
    if variable("PROFILE") != "release" {
        return None;
    }
    let git = Path::new(".git");
    // Changes with every commit and every checkout.
    read(&git.join("logs/HEAD"));
    let head = read(&git.join("HEAD"))?;
    let Some(branch) = head.strip_prefix("ref: ") else { return Some(head) };
    // A branch has a file of its own, or a line in the file of all that were packed.
    read(&git.join(branch)).or_else(|| {
        let packed = read(&git.join("packed-refs"))?;
        packed.lines().find_map(|line| Some(line.strip_suffix(branch)?.trim().to_owned()))
    })
}

fn read(path: &Path) -> Option<String> {
    if path.exists() {
        println!("cargo::rerun-if-changed={}", path.display());
    }
    fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
}
