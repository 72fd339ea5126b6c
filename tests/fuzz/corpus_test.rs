//! The corpus of the fuzz targets, with a few changes to each input, by an ordinary test: what was found once stays found.
//! scripts/fuzz searches on from there.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

#[path = "oracles/config.rs"]
mod config;
#[path = "oracles/kubeconfig.rs"]
mod kubeconfig;
#[path = "oracles/manifests.rs"]
mod manifests;
#[path = "oracles/pem.rs"]
mod pem;

use std::panic::{AssertUnwindSafe, catch_unwind};

/// How many changed forms of each input are tried; HOIST_CHANGES says otherwise.
const CHANGES: u64 = 20;

fn run(target: &str, check: fn(&[u8])) {
    let changes = std::env::var("HOIST_CHANGES").map_or(CHANGES, |text| text.parse().unwrap());
    let dir = format!("{}/tests/fuzz/corpus/{target}", env!("CARGO_MANIFEST_DIR"));
    let mut paths: Vec<_> = std::fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    assert!(paths.len() > 3, "{dir}");
    let inputs: Vec<_> = paths.iter().map(|path| std::fs::read(path).unwrap()).collect();
    let mut failed = Vec::new();
    for (path, input) in paths.iter().zip(&inputs) {
        for seed in 0..=changes {
            let data = if seed == 0 { input.clone() } else { changed(input, &inputs, seed) };
            if catch_unwind(AssertUnwindSafe(|| check(&data))).is_err() {
                failed.push(format!("{}, seed {seed}: {}", path.display(), data.escape_ascii()));
            }
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n\n"));
}

/// The input with some places changed: a pure function of the seed.
fn changed(input: &[u8], others: &[Vec<u8>], seed: u64) -> Vec<u8> {
    const PIECES: [&[u8]; 24] = [
        b"",
        b"\n",
        b" ",
        b"  ",
        b": ",
        b"- ",
        b"'",
        b"\"",
        b"#",
        b"&a ",
        b"*a",
        b"|\n",
        b">",
        b"---\n",
        b"? ",
        b"!!str ",
        b"{",
        b"}",
        b"[",
        b"]",
        b",",
        b"\\",
        b"\t",
        b"\xc3\xa4",
    ];
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state >> 33).unwrap() % below.max(1)
    };
    let mut data = input.to_vec();
    for _ in 0..=next(4) {
        let at = next(data.len() + 1);
        let end = (at + next(8)).min(data.len());
        match next(5) {
            0 => drop(data.splice(at..at, PIECES[next(PIECES.len())].iter().copied())),
            1 => drop(data.splice(at..end, PIECES[next(PIECES.len())].iter().copied())),
            2 => data.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= 1 << next(8)),
            3 => {
                let other = &others[next(others.len())];
                let from = next(other.len());
                let to = (from + next(40)).min(other.len());
                data.splice(at..at, other[from..to].iter().copied());
            }
            _ => {
                let piece = data[at..end].to_vec();
                let to = next(data.len() + 1);
                data.splice(to..to, piece);
            }
        }
    }
    data
}

#[test]
fn config_holds() {
    run("config", config::check);
}

#[test]
fn manifests_hold() {
    run("manifests", manifests::check_with_others);
}

#[test]
fn pem_holds() {
    run("pem", pem::check);
}

#[test]
fn kubeconfig_holds() {
    run("kubeconfig", kubeconfig::check);
}
