//! Help, and output that nobody reads.

use std::io::pipe;
use std::process::Stdio;

use crate::support::{CLUSTER, Folder};

const COMMANDS: [&[&str]; 24] = [
    &[],
    &["render"],
    &["validate"],
    &["start"],
    &["backup"],
    &["recover"],
    &["unpivot"],
    &["reset"],
    &["guard"],
    &["preflight"],
    &["status"],
    &["token"],
    &["token", "create"],
    &["token", "list"],
    &["token", "delete"],
    &["join-assets"],
    &["config"],
    &["config", "default"],
    &["images"],
    &["images", "list"],
    &["completion"],
    &["man"],
    &["version"],
    &["forward"],
];

#[test]
fn help_is_there_for_every_command_and_fits_a_terminal() {
    let folder = Folder::new();
    for command in COMMANDS {
        let mut texts = Vec::new();
        for help in ["--help", "-h"] {
            let text = folder.run(&[command, &[help]].concat()).ok();
            assert!(text.contains("Usage: hoist"), "{text}");
            assert!(text.lines().all(|line| line.chars().count() <= 100), "{text}");
            texts.push(text);
        }
    }
    let text = folder.run(&["--help"]).ok();
    assert!(!text.contains("forward"), "it is no command of the user's: {text}");
}

#[test]
fn the_version() {
    assert_eq!(Folder::new().run(&["--version"]).ok(), format!("hoist {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn nobody_reads_the_output() {
    let folder = Folder::with(CLUSTER);
    let runs: [&[&str]; 12] = [
        &["--help"],
        &["preflight", "--list"],
        &["status", "--asset-dir", "assets"],
        &["version"],
        &["completion", "bash"],
        &["man"],
        &["--log-format", "json", "render", "--config", "none.yaml", "--asset-dir", "assets"],
        &["config", "default"],
        &["render", "--config", "cluster.yaml", "--asset-dir", "assets"],
        &["render", "--config", "none.yaml", "--asset-dir", "assets"],
        &["--log-level", "trace", "start", "--asset-dir", "assets", "--node-name", "none"],
        &["--log-level", "trace", "start", "--asset-dir", "assets", "--node-name", "none", "--output", "json"],
    ];
    for args in runs {
        let (reader, writer) = pipe().unwrap();
        drop(reader);
        let ran = folder.ran(folder.command(args).stdout(writer.try_clone().unwrap()));
        assert!(ran.code.is_some_and(|code| code < 5), "{args:?} {ran:?}");
        let ran = folder.ran(folder.command(args).stdout(writer.try_clone().unwrap()).stderr(writer));
        assert!(ran.code.is_some_and(|code| code < 5), "{args:?} {ran:?}");
        let ran = folder.ran(folder.command(args).stdout(Stdio::null()).stderr(Stdio::null()));
        assert!(ran.code.is_some_and(|code| code < 5), "{args:?} {ran:?}");
    }
}
