//! What a machine may have against it: a disk that is full or may not be written, files of others.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

use super::{Row, Table};
use crate::support::{CLUSTER, Folder};

/// How a process gets mounts of its own here: as root, or in a user namespace where those are allowed.
fn with_own_mounts() -> Option<&'static [&'static str]> {
    let ways: [&'static [&'static str]; 2] = [&["--mount"], &["--mount", "--map-root-user"]];
    let works =
        |way: &&&[&str]| Command::new("unshare").args(**way).arg("true").output().is_ok_and(|o| o.status.success());
    let way = ways.iter().find(works);
    if way.is_none() {
        // Past the harness, which would keep it to itself: nothing hides that these rows were not run.
        let what = "NOT RUN: disks that are full or read-only, for they take root or user namespaces (unshare --mount)";
        let _ = writeln!(std::io::stderr(), "\n{what}\n");
    }
    way.copied()
}

/// Renders to `disk/assets`, where `mount` has mounted something at `disk`, and lists what is there before and after.
/// The time of a folder is not in it: what was written beside and taken away again changes that.
fn render_to(folder: &Folder, unshare: &[&str], mount: &str) -> crate::support::Ran {
    fs::create_dir_all(folder.path("disk")).unwrap();
    let script = format!(
        "{mount} && list() {{ find disk -type d -printf '%P %m\\n' -o -printf '%P %m %s %T@\\n' | sort; }} && list >&3 && \
         {{ prlimit --as=402653184 --cpu=20 -- \"$0\" render --config cluster.yaml --asset-dir disk/assets; code=$?; }}; \
         list >&3; exit $code"
    );
    let lists = folder.path("lists");
    let mut command = Command::new("unshare");
    command.args(unshare).args(["sh", "-c", &format!("exec 3>lists; {script}"), env!("CARGO_BIN_EXE_hoist")]);
    let ran = folder.ran(command.current_dir(folder.path("")).stdin(Stdio::null()));
    let lists_text = fs::read_to_string(&lists).unwrap();
    fs::remove_file(lists).unwrap();
    let lines: Vec<_> = lists_text.lines().filter(|line| !line.starts_with(' ')).collect();
    let (before, after) = lines.split_at(lines.len() / 2);
    assert_eq!(before, after, "{mount}: it changed something: {ran:?}");
    ran
}

#[test]
fn a_disk_that_refuses() {
    let Some(unshare) = with_own_mounts() else { return };
    let mut table = Table::default();
    let mut row = |name: &str, mount: &str, code: i32, says: &[&str]| {
        let folder = Folder::rendered(CLUSTER);
        fs::create_dir(folder.path("disk")).unwrap();
        // So that where there is an asset directory, there is something to write.
        folder.put("cluster.yaml", format!("{CLUSTER}clusterName: other\n"));
        table.row(&Row { name, code, says }, &folder, || render_to(&folder, unshare, mount));
    };
    const FULL: &[&str] = &["hoist: cannot ", " space", "\n  next: `df -h "];
    for size in ["4k", "16k", "64k", "128k", "200k"] {
        row(&format!("a full disk of {size}"), &format!("mount -t tmpfs -o size={size} full disk"), 1, FULL);
        let again = format!("mount -t tmpfs -o size={size} full disk && mkdir disk/assets");
        row(&format!("a full disk of {size} with the folder"), &again, 1, FULL);
    }
    row("no inodes", "mount -t tmpfs -o nr_inodes=8 full disk", 1, FULL);
    row("no inodes for the last file", "mount -t tmpfs -o nr_inodes=40 full disk", 1, FULL);
    row(
        "a full disk with an asset directory",
        "mount -t tmpfs -o size=600k full disk && cp -rp assets disk/ && { dd if=/dev/zero of=disk/ballast bs=4k 2>/dev/null; true; }",
        1,
        FULL,
    );
    row(
        "a disk that may not be written",
        "mount -t tmpfs -o ro full disk",
        1,
        &["cannot make ", "Read-only file system (os error 30)\n  next: name a folder that can be written"],
    );
}

#[test]
fn files_of_another_user() {
    let mut table = Table::default();
    let folder = Folder::rendered(CLUSTER);
    folder.give_away();
    // For want of another user: nobody may read it, but for root, who does not run it.
    for path in ["tls/ca.key", "auth/kubeconfig"] {
        fs::set_permissions(folder.path("assets").join(path), fs::Permissions::from_mode(0o000)).unwrap();
    }
    let remedy = "this user may not read it\n    run hoist as root, or as the user who rendered";
    let says = [format!("  DIR/assets/auth/kubeconfig: {remedy}"), format!("  DIR/assets/tls/ca.key: {remedy}")];
    let says: Vec<_> = says.iter().map(String::as_str).collect();
    table.row(&Row { name: "files", code: 4, says: &says }, &folder, || folder.bounded_start());
    fs::set_permissions(folder.path("assets/manifests"), fs::Permissions::from_mode(0o000)).unwrap();
    let says = format!("  DIR/assets/manifests: {remedy}");
    table.row(&Row { name: "a folder", code: 4, says: &[&says] }, &folder, || folder.bounded_start());
    fs::set_permissions(folder.path("assets/manifests"), fs::Permissions::from_mode(0o755)).unwrap();
}
