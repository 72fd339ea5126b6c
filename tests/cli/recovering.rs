//! `hoist backup` and `hoist recover`, as far as they get without root and without etcd: they refuse, and change nothing.

use std::io::Write;

use crate::recover_page;
use crate::support::{CLUSTER, Folder, here};

const RECOVER: [&str; 3] = ["recover", "--asset-dir", "assets"];
const BACKUP: [&str; 5] = ["backup", "--asset-dir", "assets", "--output-file", "backup.tar"];

/// `hoist` with these arguments, twice: the second time nothing may change, not even whose the files are.
#[track_caller]
fn refused(folder: &Folder, args: &[&str], code: i32, said: &[&str]) {
    folder.as_nobody(args);
    folder.unchanged(|| folder.as_nobody(args)).failed_saying(code, said);
}

#[test]
fn every_command_of_the_page_is_run_by_a_test() {
    let page = include_str!("../../docs/recover.md");
    let commands: Vec<_> = page.lines().filter_map(|line| line.strip_prefix("    ")).collect();
    assert_eq!(commands, recover_page::ALL);
    let tests = [include_str!("../e2e/recover.rs"), include_str!("../e2e/quorum.rs")].concat();
    let source = include_str!("../support/recover_page.rs");
    let names = source.lines().filter_map(|line| line.strip_prefix("pub const ")?.split_once(": &str"));
    let unused: Vec<_> = names.map(|(name, _)| name).filter(|name| !tests.contains(&format!("page::{name}"))).collect();
    assert!(unused.is_empty(), "no test runs {unused:?}");
}

#[test]
fn without_root() {
    let Some(cluster) = here() else { return };
    let folder = Folder::rendered(&cluster);
    refused(&folder, &BACKUP, 4, &["IsPrivilegedUser: hoist backup must run as root"]);
    refused(&folder, &RECOVER, 4, &["IsPrivilegedUser: hoist recover must run as root\n    run it with sudo\n"]);
    refused(&folder, &[&RECOVER[..], &["--dry-run"]].concat(), 4, &["IsPrivilegedUser"]);
}

#[test]
fn what_is_typed_wrongly() {
    let folder = Folder::rendered(CLUSTER);
    let recover = |more: &[&'static str]| [&RECOVER[..], more].concat();
    for (args, said) in [
        (recover(&["--etcd-snapshot", "a", "--backup", "b"]), "cannot be used with"),
        (recover(&["--identity", "key.txt"]), "--backup <FILE>"),
        ([&BACKUP[..], &["--recipient", "age1nonsense"]].concat(), "it must be a public key of age's"),
        ([&BACKUP[..], &["--recipient", "AGE-SECRET-KEY-1X"]].concat(), "that is the secret key; name the public one"),
        (vec!["backup", "--asset-dir", "assets"], "--output-file <FILE>"),
    ] {
        folder.unchanged(|| folder.run(&args)).failed_saying(2, &[said]);
    }
}

#[test]
fn where_a_backup_cannot_be_written() {
    let folder = Folder::rendered(CLUSTER);
    folder.put("backup.tar", "mine");
    refused(
        &folder,
        &BACKUP,
        3,
        &["DIR/backup.tar: is there already\n    name another file, or replace it with --force\n"],
    );
    for (file, said) in [
        ("none/backup.tar", "DIR/none/backup.tar: its folder is not there\n"),
        ("assets", "is inside the asset directory"),
        ("assets/backup.tar", "is inside the asset directory"),
        ("/dev/null", "/dev/null: is no file"),
    ] {
        refused(&folder, &["backup", "--asset-dir", "assets", "--output-file", file], 3, &[said]);
    }
    refused(
        &folder,
        &["backup", "--asset-dir", "none", "--output-file", "b"],
        3,
        &["DIR/none: there is no such folder"],
    );
}

#[test]
fn an_etcd_that_is_no_controllers_is_not_backed_up() {
    let mut folder = Folder::with(CLUSTER);
    let external = "etcd:\n  external:\n    endpoints: [https://192.0.2.1:2379]\n    caFile: ca.crt\n    certFile: c.crt\n    keyFile: c.key\n";
    // Any certificate will do.
    folder.render().ok();
    for (from, to) in
        [("etcd/ca.crt", "ca.crt"), ("apiserver-etcd-client.crt", "c.crt"), ("apiserver-etcd-client.key", "c.key")]
    {
        std::fs::copy(folder.path("assets/tls").join(from), folder.path(to)).unwrap();
    }
    let files: Vec<_> = ["ca.crt", "c.crt", "c.key"].map(|name| (name, folder.read(name))).into();
    folder = Folder::with(&format!("{CLUSTER}{external}"));
    files.iter().for_each(|(name, text)| folder.put(name, text));
    std::fs::set_permissions(folder.path("c.key"), std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    folder.render().ok();
    refused(&folder, &BACKUP, 4, &["cluster.yaml: etcd.external: this etcd belongs to no controller"]);
}

/// Read as root: what is wrong with a file is said before anything of this machine is looked at.
#[test]
fn files_that_are_no_snapshot_and_no_backup() {
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let folder = Folder::rendered(CLUSTER);
    folder.put("text", "nothing of the kind\n");
    folder.put("armored", "-----BEGIN AGE ENCRYPTED FILE-----\n");
    folder.put("sealed", "age-encryption.org/v1\n-> X25519 x\n");
    folder.put("key.txt", "no key\n");
    let mut other = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(0);
    other.append_data(&mut header, "other", &b""[..]).unwrap();
    folder.put("other.tar", other.into_inner().unwrap());
    std::fs::File::create(folder.path("empty")).unwrap().flush().unwrap();
    for (args, said) in [
        (&["--etcd-snapshot", "none"][..], "none: there is no such file"),
        (&["--etcd-snapshot", "assets"], "assets: is no file"),
        (&["--etcd-snapshot", "text"], "text: has no checksum at its end"),
        (&["--etcd-snapshot", "empty"], "empty: has no checksum at its end"),
        (&["--backup", "none"], "none: there is no such file"),
        (&["--backup", "text"], "text: is torn or damaged, or no backup of hoist's"),
        (&["--backup", "empty"], "empty: is not a backup of hoist's"),
        (&["--backup", "other.tar"], "other.tar: holds \"other\", which no backup of hoist's does"),
        (&["--backup", "armored"], "armored: is encrypted, as text"),
        (&["--backup", "sealed"], "sealed: is encrypted\n    name the file with the secret key"),
        (&["--backup", "sealed", "--identity", "none"], "none: there is no such file"),
        (&["--backup", "sealed", "--identity", "key.txt"], "key.txt: holds no secret key of age's"),
    ] {
        let ran = folder.unchanged(|| folder.run(&[&RECOVER[..], args].concat()));
        ran.failed_saying(3, &[said, "nothing was changed"]);
    }
    // This machine is no controller of that cluster; what is there is not looked for before.
    folder.unchanged(|| folder.run(&RECOVER)).failed_saying(4, &["there is no data of etcd"]);
}
