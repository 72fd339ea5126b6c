//! What is refused before anything is changed, and where an asset directory comes from. The whole is shown on real nodes.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;

use super::*;
use crate::base::files::File;
use crate::desired::assets::AssetSet;
use crate::desired::config::Cluster;
use crate::etcd::snapshot::tests::some;
use crate::node::host::Host;
use crate::node::system;
use crate::ops::backup::archive::{Contents, tests};

const ONE: &str = "apiVersion: hoist/v1alpha1\nkind: Cluster\ncontrollers:\n- {name: c1, address: 192.0.2.10}\n";

fn cluster(text: &str) -> Cluster {
    crate::desired::config::parse("f", text, Path::new("/")).unwrap()
}

/// A machine that systemd runs.
fn machine() -> (tempfile::TempDir, Host) {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(dir.path().join("run/systemd/system")).unwrap();
    let host = system::host(dir.path(), Path::new("/etc/kubernetes/manifests"));
    (dir, host)
}

fn put(host: &Host, path: &str) {
    let path = host.path(path);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, "").unwrap();
}

fn snapshot(length: u64) -> Source {
    Source::Snapshot("s.db".into(), length, "sum".into())
}

#[track_caller]
fn refused(host: &Host, source: &Source, said: &str) {
    let places = Places::of(host, "/var/lib/etcd");
    let error = possible(host, Some(&places), source).unwrap_err();
    assert_eq!(error.exit_code(), 4);
    assert!(error.to_string().contains(said), "{error}");
}

#[test]
fn what_cannot_be_recovered_is_said() {
    let (dir, host) = machine();
    refused(&host, &Source::Etcd, "/var/lib/etcd: there is no data of etcd");
    refused(&host, &snapshot(1 << 60), "MB are needed beside the existing data");
    let error = possible(&host, None, &snapshot(100)).unwrap_err();
    assert!(error.to_string().contains("etcd.external: this etcd belongs to no controller"), "{error}");
    assert!(possible(&host, None, &Source::Etcd).is_ok(), "whose data is elsewhere, and there");
    let places = Places::of(&host, "/var/lib/etcd");
    assert!(possible(&host, Some(&places), &snapshot(100)).is_ok());
    put(&host, "/var/lib/etcd/member/snap/db");
    assert!(possible(&host, Some(&places), &Source::Etcd).is_ok());
    std::fs::remove_dir_all(dir.path().join("run")).unwrap();
    refused(&host, &snapshot(100), "systemd: does not run here");
    // A file system that cannot exchange folders, and a power cut between two renames.
    std::fs::remove_dir_all(&places.place).unwrap();
    put(&host, "/var/lib/etcd.hoist-restore/data/.hoist-restored");
    refused(&host, &Source::Etcd, "a restore was interrupted");
}

fn contents(files: &[(&str, &str)]) -> Source {
    let file = |(path, text): &(&str, &str)| ((*path).to_owned(), File::private(*text));
    let manifest = tests::manifest();
    let assets: BTreeMap<_, _> = files.iter().map(file).collect();
    let contents = Box::new(Contents { manifest, assets, length: 100, sum: "sum".into() });
    Source::Backup { file: "b.tar".into(), identity: None, contents }
}

fn found<'a>(host: &Host, source: &'a Source, place: &Path) -> Result<Origin<'a>, String> {
    Origin::find(host, source, place).map_err(|error| error.to_string())
}

#[test]
fn an_asset_directory_comes_from_the_backup_only_where_there_is_none() {
    let (dir, host) = machine();
    let place = dir.path().join("new/assets");
    let source =
        contents(&[("cluster.yaml", "c"), ("tls/ca.crt", "ca"), (".rendered", "r"), ("first-boot/c1.yaml", "f")]);
    let origin = found(&host, &source, &place).unwrap();
    let assets = origin.assets();
    let names: Vec<_> = assets.files.keys().collect();
    assert_eq!(names, ["cluster.yaml", "tls/ca.crt"], "what `start` reads");
    assert!(!place.exists(), "it was only looked at");
    assert!(origin.plan(&place).unwrap().starts_with("unpack the asset directory of b.tar to "));

    origin.unpack(&place).unwrap();
    for path in ["cluster.yaml", "tls/ca.crt", ".rendered", "first-boot/c1.yaml"] {
        assert!(place.join(path).is_file(), "{path}");
    }
    assert_eq!(std::fs::metadata(&place).unwrap().permissions().mode() & 0o777, 0o700);
    assert_eq!(std::fs::read_dir(place.parent().unwrap()).unwrap().count(), 1, "nothing is left beside it");

    std::fs::write(place.join("cluster.yaml"), "mine").unwrap();
    let origin = found(&host, &source, &place).unwrap();
    origin.unpack(&place).unwrap();
    assert_eq!(std::fs::read(place.join("cluster.yaml")).unwrap(), b"mine", "one that is there stays");
    assert_eq!(origin.assets().files["cluster.yaml"].content, b"mine");
    let said = origin.plan(&place).unwrap();
    assert!(said.contains("which is there; that of the backup, with 4 files, is not unpacked"), "{said}");

    let other = contents(&[("cluster.yaml", "c"), ("tls/ca.crt", "another")]);
    let error = found(&host, &other, &place).err().unwrap();
    assert!(error.contains("tls/ca.crt: is of another cluster than b.tar"), "{error}");

    // Another CA of etcd is a rotation's, if all else says that it is this cluster.
    let of = |sa: &str, etcd: &str| {
        let (sa, etcd) = (("tls/sa.pub", sa), ("tls/etcd/ca.crt", etcd));
        contents(&[("cluster.yaml", "c"), ("tls/ca.crt", "ca"), sa, etcd])
    };
    std::fs::create_dir_all(place.join("tls/etcd")).unwrap();
    std::fs::write(place.join("tls/etcd/ca.crt"), "new").unwrap();
    let error = found(&host, &of("sa", "old"), &place).err().unwrap();
    assert!(error.contains("tls/etcd/ca.crt: is of another cluster than b.tar"), "{error}");
    std::fs::write(place.join("tls/sa.pub"), "sa").unwrap();
    assert!(found(&host, &of("sa", "old"), &place).is_ok());
    let error = found(&host, &of("another", "new"), &place).err().unwrap();
    assert!(error.contains("tls/sa.pub: is of another cluster than b.tar"), "{error}");

    // Without the keys that its data is encrypted with, it would be of no use.
    let keys = |names: &[(&str, &str)]| {
        let keys: String = names.iter().map(|(name, key)| format!("{{name: {name}, secret: {key}}},")).collect();
        format!("resources: [{{resources: [secrets], providers: [{{secretbox: {{keys: [{keys}]}}}}]}}]\n")
    };
    let old = keys(&[("key1", "AAAA")]);
    let backup = contents(&[("cluster.yaml", "c"), ("tls/ca.crt", "ca"), ("tls/encryption.yaml", &old)]);
    std::fs::write(place.join("tls/encryption.yaml"), keys(&[("key2", "BBBB")])).unwrap();
    let error = found(&host, &backup, &place).err().unwrap();
    assert!(
        error.contains("tls/encryption.yaml: lacks keys by which the data of b.tar may be encrypted: key1"),
        "{error}"
    );
    std::fs::write(place.join("tls/encryption.yaml"), keys(&[("key2", "BBBB"), ("key1", "AAAA")])).unwrap();
    assert!(found(&host, &backup, &place).is_ok());
}

#[test]
fn one_that_is_lost_comes_from_what_guard_keeps() {
    let (dir, host) = machine();
    let place = dir.path().join("assets");
    let error = found(&host, &Source::Etcd, &place).err().unwrap();
    assert!(error.contains("guard keeps nothing of it") && error.contains("--backup"), "{error}");

    let cluster = cluster(ONE);
    let now = time::OffsetDateTime::now_utc();
    let pki = crate::desired::pki::issue(&cluster, &Default::default(), &Default::default(), now).unwrap();
    let assets = crate::desired::render::render(&cluster, &pki.files, "abcdef.0123456789abcdef").unwrap();
    crate::plane::kept_copy::Copy::new(&assets, &cluster, &cluster.controllers[0]).store(&host).unwrap();
    let origin = found(&host, &Source::Etcd, &place).unwrap();
    let said = origin.plan(&place).unwrap();
    assert!(said.contains("which is lost") && !place.exists(), "{said}");
    origin.unpack(&place).unwrap();
    // What was made of it in memory is what the next run reads.
    let read = AssetSet::load(&place).unwrap();
    assert!(read.files == origin.assets().files);
    assert_eq!(Input::of(read, &place).unwrap().cluster(), &cluster);
    let lacking: Vec<_> = assets.files.keys().filter(|path| !place.join(path).exists()).collect();
    assert_eq!(lacking, Vec::<&String>::new());
    for (path, file) in &origin.assets().files {
        assert!(assets.files[path].content == file.content, "{path}");
        let mode = std::fs::metadata(place.join(path)).unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "{path}");
    }
    // The one that is there is used, guard or not.
    assert!(matches!(found(&host, &Source::Etcd, &place), Ok(Origin::AssetDir(_, None))));
}

#[test]
fn a_full_disk_leaves_no_part_of_an_asset_directory() {
    let (dir, host) = machine();
    let folder = dir.path().join("etc");
    std::fs::create_dir(&folder).unwrap();
    let place = folder.join("assets");
    let source = contents(&[("cluster.yaml", "c"), ("tls/ca.crt", "ca")]);
    let origin = found(&host, &source, &place).unwrap();
    for room in 0.. {
        let mut left = room;
        crate::base::files::watch(Some(Box::new(move |_, _| match left {
            0 => Err(std::io::ErrorKind::StorageFull.into()),
            _ => {
                left -= 1;
                Ok(())
            }
        })));
        let unpacked = origin.unpack(&place);
        crate::base::files::watch(None);
        if unpacked.is_ok() {
            assert!(room > 5);
            break;
        }
        if place.exists() {
            assert!(place.join("cluster.yaml").is_file() && place.join("tls/ca.crt").is_file(), "a part of it: {room}");
            std::fs::remove_dir_all(&place).unwrap();
        }
        assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 0, "with room for {room}");
    }
}

#[test]
fn a_snapshot_is_read_to_its_end() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("s.db");
    let mut content = some(70);
    std::fs::write(&file, &content).unwrap();
    let source = Source::read(&Data::Snapshot(file.clone())).unwrap();
    let mut copy = Vec::new();
    source.copy(&mut copy).unwrap();
    assert!(copy == content && source.length() == Some(content.len() as u64));
    content[0] ^= 1;
    std::fs::write(&file, &content).unwrap();
    let error = Source::read(&Data::Snapshot(file)).err().unwrap();
    assert!(error.exit_code() == 3 && error.to_string().contains("s.db: is damaged"), "{error}");
}

#[test]
fn what_a_label_made_is_known_from_what_guard_keeps() {
    let (_dir, host) = machine();
    let cluster = cluster(ONE);
    let now = time::OffsetDateTime::now_utc();
    let pki = crate::desired::pki::issue(&cluster, &Default::default(), &Default::default(), now).unwrap();
    let assets = crate::desired::render::render(&cluster, &pki.files, "abcdef.0123456789abcdef").unwrap();
    assert_eq!(made_by_a_label(&host, &Source::Etcd).unwrap(), None);
    let here = Controller { name: "c2".into(), address: [127, 0, 0, 1].into(), taints: Vec::new() };
    let elsewhere = Controller { address: [192, 0, 2, 77].into(), ..here.clone() };
    Copy::new(&assets, &cluster, &elsewhere).store(&host).unwrap();
    assert_eq!(made_by_a_label(&host, &Source::Etcd).unwrap(), None, "of another machine");
    Copy::new(&assets, &cluster, &here).store(&host).unwrap();
    let made = made_by_a_label(&host, &Source::Etcd).unwrap();
    assert_eq!(made.as_ref(), Some(&here));
    let mut input = Input::of(assets, Path::new("/assets")).unwrap();
    made.into_iter().for_each(|controller| input.add(controller));
    input.add(cluster.controllers[0].clone());
    let names: Vec<_> = input.cluster().controllers.iter().map(|controller| controller.name.as_str()).collect();
    assert_eq!(names, ["c1", "c2"]);
}
