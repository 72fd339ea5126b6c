//! Cut off before every single change to the disk: whatever is left, running again ends with the restored data in
//! place and the old data aside.

use std::io;

use super::*;
use crate::node::system;

const SUM: &str = "5bc3";

fn host() -> (tempfile::TempDir, Host) {
    let dir = tempfile::tempdir().unwrap();
    let host = system::host(dir.path(), Path::new("/etc/kubernetes/manifests"));
    (dir, host)
}

fn now() -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(1_782_907_200).unwrap()
}

fn put(dir: &Path, content: &str) {
    fs::create_dir_all(dir.join("member/snap")).unwrap();
    fs::write(dir.join("member/snap/db"), content).unwrap();
}

fn db(dir: &Path) -> Option<String> {
    fs::read_to_string(dir.join("member/snap/db")).ok()
}

/// What a run does once the pod has ended.
fn finish(places: &Places) -> Result<()> {
    if let State::Unfinished = places.state() {
        places.mark(SUM)?;
    }
    if let State::Restored(_) = places.state() {
        places.exchange(now())?;
    }
    places.settle(now()).map(drop)
}

fn mount(host: &Host, path: &str) {
    let mountinfo = host.path("/proc/self/mountinfo");
    fs::create_dir_all(mountinfo.parent().unwrap()).unwrap();
    fs::write(mountinfo, format!("36 35 98:0 / {path} rw,noatime - ext4 /dev/sdb rw\n")).unwrap();
}

/// Has a link to `to` lead from where the data is said to be.
fn link(host: &Host, to: &str) {
    let link = host.path("/var/lib/etcd");
    fs::create_dir_all(link.parent().unwrap()).unwrap();
    fs::create_dir_all(host.path("/data/disk/etcd")).unwrap();
    std::os::unix::fs::symlink(to, link).unwrap();
}

/// What is there before: a link, if there is one, and where something is mounted.
fn cut_anywhere(link_to: Option<&str>, mounted_at: Option<&str>) {
    let mut cuts = 0;
    loop {
        let (_dir, host) = host();
        // A folder on a disk that is mounted above it is renamed as any other.
        let is_mounted = mounted_at.is_some_and(|point| point.ends_with("/etcd"));
        if let Some(to) = link_to {
            link(&host, to);
        }
        if let Some(point) = mounted_at {
            mount(&host, point);
        }
        let places = Places::of(&host, "/var/lib/etcd");
        // The kernel knows of no root below which an absolute link leads.
        let data_dir = host.resolve(Path::new("/var/lib/etcd"));
        put(&data_dir, "old");
        put(&places.work.join("data"), "new");
        fs::write(places.snapshot(), "").unwrap();
        let mut left = cuts;
        files::watch(Some(Box::new(move |_, _| match left {
            0 => Err(io::ErrorKind::Other.into()),
            _ => {
                left -= 1;
                Ok(())
            }
        })));
        let was_cut = finish(&places).is_err();
        files::watch(None);
        assert!(db(&data_dir).is_some_and(|db| db == "old" || db == "new"), "cut {cuts}: neither is in place");
        if was_cut && places.state() != State::None {
            finish(&places).unwrap();
        }
        assert_eq!(db(&data_dir).as_deref(), Some("new"), "cut {cuts}");
        let aside = places.place.parent().unwrap();
        let aside: Vec<_> = fs::read_dir(aside).unwrap().map(|entry| entry.unwrap().path()).collect();
        let aside: Vec<_> = aside.iter().filter(|path| path.to_string_lossy().contains(".before-2026")).collect();
        assert_eq!(aside.len(), 1, "cut {cuts}: {aside:?}");
        let old = if is_mounted { fs::read_to_string(aside[0].join("snap/db")).ok() } else { db(aside[0]) };
        assert_eq!(old.as_deref(), Some("old"), "cut {cuts}");
        assert_eq!(places.state(), State::None, "cut {cuts}");
        assert!(!places.work.exists());
        assert_eq!(
            fs::read_link(host.path("/var/lib/etcd")).ok().as_deref(),
            link_to.map(Path::new),
            "cut {cuts}: the link"
        );
        if !was_cut {
            break;
        }
        cuts += 1;
    }
    assert!(cuts > 8, "{cuts}");
}

#[test]
fn a_power_cut_at_any_moment_leaves_one_of_the_two_in_place() {
    cut_anywhere(None, None);
}

#[test]
fn the_same_where_the_data_has_a_disk_of_its_own() {
    cut_anywhere(None, Some("/var/lib/etcd"));
}

#[test]
fn the_same_where_a_link_leads_to_the_data() {
    for to in ["/data/disk/etcd", "../../data/disk/etcd"] {
        cut_anywhere(Some(to), None);
    }
    cut_anywhere(Some("/data/disk/etcd"), Some("/data/disk/etcd"));
    cut_anywhere(Some("/data/disk/etcd"), Some("/data/disk"));
}

#[test]
fn a_machine_without_data_gets_some() {
    gets_some(&host().1);
    let (_dir, host) = host();
    link(&host, "/data/disk/etcd");
    gets_some(&host);
    assert!(host.path("/var/lib/etcd").is_symlink());
}

fn gets_some(host: &Host) {
    let places = Places::of(host, "/var/lib/etcd");
    assert!(!places.has_data() && places.state() == State::None);
    put(&places.work.join("data"), "new");
    assert_eq!(places.state(), State::Unfinished);
    places.mark(SUM).unwrap();
    assert_eq!(places.state(), State::Restored(SUM.into()));
    fs::create_dir_all(&places.place).unwrap();
    places.exchange(now()).unwrap();
    assert_eq!(places.state(), State::Exchanged(SUM.into()));
    assert_eq!(places.settle(now()).unwrap(), None);
    assert!(places.has_data() && places.state() == State::None);
}

#[test]
fn nothing_that_was_moved_aside_is_overwritten() {
    let (_dir, host) = host();
    let places = Places::of(&host, "/var/lib/etcd");
    let first = places.aside(now());
    assert!(first.ends_with("var/lib/etcd.before-20260701T120000Z"), "{first:?}");
    fs::create_dir_all(&first).unwrap();
    assert!(places.aside(now()).ends_with("etcd.before-20260701T120000Z-2"));
    put(&host.path("/var/lib/etcd"), "old");
    put(&places.work.join("data"), "new");
    places.mark(SUM).unwrap();
    places.exchange(now()).unwrap();
    assert!(places.clear().is_err(), "it holds the old data now");
    let aside = places.settle(now()).unwrap().unwrap();
    assert_eq!(db(&aside).as_deref(), Some("old"));
    assert!(aside.ends_with("etcd.before-20260701T120000Z-2"));
}
