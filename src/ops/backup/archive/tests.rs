//! Archives that hoist has not made.

use super::*;
use crate::etcd::snapshot::tests::some;

/// One of a controller c1.
pub fn manifest() -> Manifest {
    Manifest {
        schema: SCHEMA.into(),
        hoist: "0.1.0".into(),
        time: "2026-07-01T12:00:00Z".into(),
        cluster_name: "kubernetes".into(),
        controller: "c1".into(),
        address: None,
        kubernetes_version: "v1.36.3".into(),
        etcd_version: "3.6.8".into(),
    }
}

fn refused(archive: &[u8]) -> String {
    read("f", archive, |_| Ok(())).err().map(|error| error.to_string()).unwrap_or_default()
}

/// An archive with these files of the asset directory.
fn archive(assets: &[&str]) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new(), 0);
    writer.manifest(&manifest()).unwrap();
    for path in assets {
        // The library refuses to write some of them; the name is put in by hand.
        let mut header = writer.header(0o600, 1);
        let name = format!("assets/{path}");
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_cksum();
        writer.tar.append(&header, &b"x"[..]).unwrap();
        writer.sums += &format!("{}  {name}\n", sha256(b"x"));
    }
    let snapshot = some(2);
    writer.begin_snapshot(snapshot.len() as u64).unwrap();
    writer.piece(&snapshot).unwrap();
    writer.end_snapshot().unwrap().unwrap();
    writer.finish().unwrap()
}

#[test]
fn no_file_leads_out_of_the_asset_directory() {
    assert_eq!(refused(&archive(&["cluster.yaml", "tls/ca.crt"])), "");
    for path in ["../x", "tls/../../x", "/etc/x", "", "tls/", "./../x"] {
        let said = refused(&archive(&["cluster.yaml", path]));
        assert!(said.contains("which no backup of hoist's does"), "{path}: {said}");
    }
    assert!(refused(&archive(&["a", "a"])).contains("a file twice"));
}

#[test]
fn nothing_but_files() {
    let mut writer = Writer::new(Vec::new(), 0);
    writer.manifest(&manifest()).unwrap();
    let mut header = Header::new_gnu();
    header.set_entry_type(EntryType::Symlink);
    header.set_size(0);
    writer.tar.append_link(&mut header, "assets/tls", "/etc").unwrap();
    assert!(refused(&writer.tar.into_inner().unwrap()).contains("\"assets/tls\", which no backup of hoist's does"));
}

#[test]
fn of_another_version() {
    let mut other = manifest();
    other.schema = "hoist.backup/v9".into();
    let mut writer = Writer::new(Vec::new(), 0);
    writer.manifest(&other).unwrap();
    let said = refused(&writer.finish().unwrap());
    assert!(said.contains("is of another version of hoist: this one reads hoist.backup/v1"), "{said}");
}

#[test]
fn what_the_reader_cannot_write_ends_it() {
    let error = read("f", &archive(&["a"])[..], |_| Err(Error::failed("write", "no room"))).err().unwrap();
    assert_eq!(error.exit_code(), 1);
}
