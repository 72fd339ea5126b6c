//! The command line, and the folder to write to.

use super::{Row, Table};
use crate::support::{CLUSTER, Folder};

#[test]
fn usage() {
    let mut table = Table::default();
    let folder = Folder::with(CLUSTER);
    let start = |more: [&'static str; 2]| ["start", "--asset-dir", "a", more[0], more[1]];
    let rows: Vec<(&str, Vec<&str>, Vec<&str>)> = vec![
        ("nothing", vec![], vec!["Usage: hoist [OPTIONS] <COMMAND>"]),
        ("a mistyped command", vec!["rendr"], vec!["unrecognized subcommand 'rendr'", "similar", "'render'"]),
        ("no options", vec!["render"], vec!["--config <FILE>", "--asset-dir <DIR>"]),
        (
            "an empty folder",
            vec!["render", "--config", "cluster.yaml", "--asset-dir", ""],
            vec!["a value is required for '--asset-dir <DIR>'"],
        ),
        (
            "a time without a unit",
            start(["--timeout", "1"]).to_vec(),
            vec!["'1'", "--timeout <DURATION>", "is not a duration"],
        ),
        ("a negative time", start(["--timeout", "-1s"]).to_vec(), vec!["-1"]),
        ("no time", start(["--progress-timeout", "0s"]).to_vec(), vec!["is zero"]),
        ("a huge time", start(["--timeout", "99999999999999999999999h"]).to_vec(), vec!["is not a duration"]),
        ("an unknown output", start(["--output", "yaml"]).to_vec(), vec!["[possible values: text, json]"]),
        (
            "an unknown level",
            vec!["--log-level", "loud", "config", "default"],
            vec!["[possible values: error, warn, info, debug, trace]"],
        ),
        (
            "a relative folder of static pods",
            start(["--pod-manifest-path", "manifests"]).to_vec(),
            vec!["it must be an absolute path without `..`"],
        ),
        (
            "a folder of static pods with ..",
            start(["--pod-manifest-path", "/etc/../etc"]).to_vec(),
            vec!["it must be an absolute path"],
        ),
        (
            "a pod without a namespace",
            start(["--required-pods", "kube-apiserver"]).to_vec(),
            vec!["--required-pods <NAMESPACE/NAME>", "it must be NAMESPACE/NAME of a"],
        ),
        ("a pod without a name", start(["--required-pods", "a/"]).to_vec(), vec!["it must be NAMESPACE/NAME of a"]),
        ("a pod without anything", start(["--required-pods", ""]).to_vec(), vec!["it must be NAMESPACE/NAME of a"]),
        ("a pod with too much", start(["--required-pods", "a/b/c"]).to_vec(), vec!["it must be NAMESPACE/NAME of a"]),
        (
            "pods, one of them wrong",
            start(["--required-pods", "a/b,c"]).to_vec(),
            vec!["it must be NAMESPACE/NAME of a"],
        ),
    ];
    for (name, args, says) in rows {
        table.row(&Row { name, code: 2, says: &says }, &folder, || folder.bounded(&args));
    }
}

#[test]
fn targets_that_are_somebody_elses() {
    let mut table = Table::default();
    let folder = Folder::with(CLUSTER);
    folder.put("notes/todo.txt", "x");
    std::os::unix::fs::symlink("loop", folder.path("loop")).unwrap();
    let long = "a".repeat(300);
    const NAME: &str = "    name an empty folder, a new one, or one that `hoist render` wrote\n";
    for (name, dir, code, says) in [
        ("somebody's files", "notes", 3, format!("  DIR/notes: holds files that `hoist render` did not write\n{NAME}")),
        ("a file", "cluster.yaml", 3, format!("  DIR/cluster.yaml: is not a folder\n{NAME}")),
        ("below a file", "cluster.yaml/below", 3, format!("  DIR/cluster.yaml/below: is not a folder\n{NAME}")),
        ("the configuration's own folder", ".", 3, "  DIR: holds your configuration, where `hoist render` would write the resolved one\n    render into a folder of its own, such as `--asset-dir assets`\n".into()),
        // Nobody may write there, not even root.
        ("a folder that cannot be made", "/proc/hoist", 1, "hoist: cannot make /proc/hoist: No such file or directory (os error 2)\n  next: ".into()),
        ("a link to itself", "loop", 1, "DIR/loop: Too many levels of symbolic links (os error 40)\n  next: ".into()),
        ("a name that is too long", &long, 1, "File name too long (os error 36)\n  next: use shorter names".into()),
    ] {
        let run = || folder.bounded(&["render", "--config", "cluster.yaml", "--asset-dir", dir]);
        table.row(&Row { name, code, says: &[&says] }, &folder, run);
    }
    // A name that render does not make.
    let run = || folder.bounded(&["render", "--config", "cluster.yaml", "--asset-dir", "assets", "--replace", "x"]);
    let says = "--replace: `hoist render` makes no x from this configuration\n    name a file by its path below";
    table.row(&Row { name: "--replace", code: 3, says: &[says] }, &folder, run);
}
