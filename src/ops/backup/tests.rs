//! Whole archives, written and read again; and all that can be wrong with one.

use std::io;
use std::os::unix::fs::PermissionsExt;

use super::*;
use crate::base::files::Operation;
use crate::etcd::snapshot::tests::some;

/// Pieces of a snapshot in memory.
struct Memory {
    length: u64,
    pieces: Vec<Vec<u8>>,
}

impl Memory {
    fn new(content: &[u8]) -> Self {
        let pieces = content.chunks(1000).rev().map(<[u8]>::to_vec).collect();
        Self { length: content.len() as u64, pieces }
    }
}

impl Pieces for Memory {
    fn length(&self) -> u64 {
        self.length
    }

    async fn piece(&mut self) -> Result<Option<Vec<u8>>> {
        Ok(self.pieces.pop())
    }
}

struct Folder {
    dir: tempfile::TempDir,
    options: Options,
}

impl Folder {
    fn new(recipients: &[&age::x25519::Identity]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let assets = dir.path().join("assets");
        for (name, mode) in
            [("cluster.yaml", 0o644), ("tls/ca.key", 0o600), ("tls/ca.crt", 0o644), (".rendered", 0o644)]
        {
            let path = assets.join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, format!("content of {name}")).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        }
        std::fs::write(assets.join("tls/.hoist-Ab3dEf"), "torn").unwrap();
        std::os::unix::fs::symlink("ca.crt", assets.join("tls/link.crt")).unwrap();
        let options = Options {
            asset_dir: assets,
            output_file: dir.path().join("backup.tar"),
            recipients: recipients.iter().map(|key| key.to_public().to_string().parse().unwrap()).collect(),
            force: false,
            node_name: None,
        };
        Self { dir, options }
    }

    async fn write(&self, snapshot: Memory) -> Result<String> {
        let manifest = archive::tests::manifest();
        write(None, &self.options.asset_dir, &self.options.output_file, &self.options, &manifest, snapshot).await
    }

    fn identity(&self, key: &age::x25519::Identity) -> PathBuf {
        let path = self.dir.path().join("key.txt");
        let text = age::secrecy::ExposeSecret::expose_secret(&key.to_string()).to_owned();
        std::fs::write(&path, format!("# created: now\n{text}\n")).unwrap();
        path
    }

    fn left(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.dir.path()).unwrap();
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

/// Reads an archive to its end.
fn opened(file: &Path, identity: Option<&Path>) -> Result<()> {
    archive::read("f", sealed::open(file, identity)?, |_| Ok(())).map(drop)
}

/// What is in an archive.
fn contents(file: &Path, identity: Option<&Path>) -> (Vec<(String, Vec<u8>)>, String) {
    let contents = archive::read("f", sealed::open(file, identity).unwrap(), |_| Ok(())).unwrap();
    (contents.assets.into_iter().map(|(path, file)| (path, file.content)).collect(), contents.sum)
}

fn said(error: &Error) -> String {
    error.to_string()
}

#[tokio::test]
async fn what_was_written_is_read_again() {
    let key = age::x25519::Identity::generate();
    for recipients in [&[][..], &[&key]] {
        let folder = Folder::new(recipients);
        let snapshot = some(70);
        let sum = folder.write(Memory::new(&snapshot)).await.unwrap();
        let file = &folder.options.output_file;
        assert_eq!(std::fs::metadata(file).unwrap().permissions().mode() & 0o777, 0o600);
        let identity = folder.identity(&key);
        let mut came = Vec::new();
        let reader = sealed::open(file, Some(&identity)).unwrap();
        let contents = archive::read("f", reader, |piece| {
            came.extend_from_slice(piece);
            Ok(())
        });
        let contents = contents.unwrap();
        assert!(came == snapshot);
        assert_eq!((contents.length, &contents.sum), (snapshot.len() as u64, &sum));
        assert_eq!(contents.manifest.etcd_version, "3.6.8");
        let modes: Vec<_> = contents.assets.iter().map(|(path, file)| (&**path, file.mode)).collect();
        let expected = [
            (".rendered", 0o644),
            ("cluster.yaml", 0o644),
            ("tls/ca.crt", 0o644),
            ("tls/ca.key", 0o600),
            ("tls/link.crt", 0o644),
        ];
        assert_eq!(modes, expected);
        assert_eq!(contents.assets["tls/link.crt"].content, b"content of tls/ca.crt");
        let bytes = std::fs::read(file).unwrap();
        let shows = bytes.windows(10).any(|window| window == b"content of");
        assert_eq!(shows, recipients.is_empty(), "encrypted, it shows nothing");
    }
}

#[tokio::test]
async fn it_is_for_whom_it_was_written_and_nobody_else() {
    let (key, second, other) =
        (age::x25519::Identity::generate(), age::x25519::Identity::generate(), age::x25519::Identity::generate());
    let folder = Folder::new(&[&key, &second]);
    folder.write(Memory::new(&some(3))).await.unwrap();
    let file = folder.options.output_file.clone();
    for key in [&key, &second] {
        assert!(opened(&file, Some(&folder.identity(key))).is_ok());
    }
    let identity = folder.identity(&other);
    assert!(
        said(&opened(&file, Some(&identity)).err().unwrap()).contains("holds no key that this archive is encrypted to")
    );
    assert!(said(&opened(&file, None).err().unwrap()).contains("is encrypted\n    name the file with the secret key"));
}

#[tokio::test]
async fn what_is_torn_or_damaged_is_refused() {
    let key = age::x25519::Identity::generate();
    for recipients in [&[][..], &[&key]] {
        let folder = Folder::new(recipients);
        folder.write(Memory::new(&some(70))).await.unwrap();
        let file = folder.options.output_file.clone();
        let identity = folder.identity(&key);
        let whole = std::fs::read(&file).unwrap();
        assert!(opened(&file, Some(&identity)).is_ok());
        // tar's own end, two blocks of nothing, is all that may be missing of one that is not encrypted.
        let needed = if recipients.is_empty() { whole.len() - 1024 } else { whole.len() };
        let lengths = (0..needed).step_by(397).chain([needed - 1, needed - 512, needed - 513]);
        for length in lengths {
            std::fs::write(&file, &whole[..length]).unwrap();
            let error = opened(&file, Some(&identity)).err().unwrap_or_else(|| panic!("cut at {length}"));
            assert_eq!(error.exit_code(), 3, "cut at {length}: {error}");
        }
        for at in (0..needed).step_by(397) {
            let mut damaged = whole.clone();
            damaged[at] ^= 0x11;
            std::fs::write(&file, &damaged).unwrap();
            // Some of tar's headers says nothing that matters: then all is as it was.
            match opened(&file, Some(&identity)) {
                Err(error) => assert_eq!(error.exit_code(), 3, "damaged at {at}: {error}"),
                Ok(()) => {
                    std::fs::write(&file, &whole).unwrap();
                    let expected = contents(&file, Some(&identity));
                    std::fs::write(&file, &damaged).unwrap();
                    assert!(contents(&file, Some(&identity)) == expected, "damaged at {at}, and not noticed");
                }
            }
        }
    }
}

#[tokio::test]
async fn a_snapshot_that_is_not_whole_makes_no_backup() {
    let folder = Folder::new(&[]);
    let whole = some(70);
    let mut damaged = whole.clone();
    damaged[5000] ^= 1;
    let mut short = Memory::new(&whole);
    short.length += 512;
    let mut cut = Memory::new(&whole);
    cut.pieces.remove(0);
    for (snapshot, why) in [(Memory::new(&damaged), "is damaged"), (short, "has 35872 bytes"), (cut, "has no checksum")]
    {
        let error = folder.write(snapshot).await.unwrap_err();
        assert!(said(&error).contains(why), "{error}");
        assert_eq!(folder.left(), ["assets"]);
    }
}

#[tokio::test]
async fn a_full_disk_at_any_moment_leaves_nothing_and_takes_nothing() {
    let key = age::x25519::Identity::generate();
    let mut folder = Folder::new(&[&key]);
    folder.options.force = true;
    let file = folder.options.output_file.clone();
    std::fs::write(&file, "an earlier one").unwrap();
    let mut room = 0;
    loop {
        let mut left = room;
        files::watch(Some(Box::new(move |operation, _| match operation {
            Operation::Sync | Operation::Create | Operation::Write if left == 0 => {
                Err(io::ErrorKind::StorageFull.into())
            }
            _ => {
                left -= i32::from(left > 0);
                Ok(())
            }
        })));
        let written = folder.write(Memory::new(&some(600))).await;
        files::watch(None);
        match written {
            Ok(_) => break,
            Err(Error::Io { source, .. }) => assert_eq!(source.kind(), io::ErrorKind::StorageFull),
            Err(error) => panic!("{error}"),
        }
        assert_eq!(folder.left(), ["assets", "backup.tar"], "with room for {room}");
        // Once it is renamed, it is the new one: only that the name is on the disk is not sure then.
        let is_old = std::fs::read(&file).unwrap() == b"an earlier one";
        assert!(is_old || opened(&file, Some(&folder.identity(&key))).is_ok(), "with room for {room}");
        let _ = std::fs::remove_file(folder.dir.path().join("key.txt"));
        std::fs::write(&file, "an earlier one").unwrap();
        room += 1;
    }
    assert!(room > 5, "{room}");
    assert!(opened(&file, Some(&folder.identity(&key))).is_ok());
}

#[tokio::test]
async fn a_file_that_came_meanwhile_stays() {
    let folder = Folder::new(&[]);
    std::fs::write(&folder.options.output_file, "mine").unwrap();
    let error = folder.write(Memory::new(&some(3))).await.unwrap_err();
    assert!(said(&error).contains("exists now"), "{error}");
    assert_eq!(std::fs::read(&folder.options.output_file).unwrap(), b"mine");
    assert_eq!(folder.left(), ["assets", "backup.tar"]);
}

#[test]
fn links_that_lead_back_are_found() {
    let folder = Folder::new(&[]);
    std::os::unix::fs::symlink("..", folder.options.asset_dir.join("tls/up")).unwrap();
    assert!(said(&files_below(&folder.options.asset_dir).unwrap_err()).contains("is a link to a folder around itself"));
}

#[test]
fn without_an_asset_directory_what_guard_keeps_is_backed_up() {
    let root = tempfile::tempdir().unwrap();
    let host = crate::node::system::host(root.path(), Path::new("/etc/kubernetes/manifests"));
    let place = root.path().join("assets");
    assert!(source(&host, &place).is_err(), "there is neither");
    let text = "apiVersion: hoist/v1alpha1\nkind: Cluster\ncontrollers:\n- {name: c1, address: 10.0.0.1}\n";
    let cluster = crate::desired::config::parse("cluster.yaml", text, Path::new("/")).unwrap();
    let now = time::OffsetDateTime::now_utc();
    let pki = crate::desired::pki::issue(&cluster, &Default::default(), &Default::default(), now).unwrap();
    let assets = crate::desired::render::render(&cluster, &pki.files, "abcdef.0123456789abcdef").unwrap();
    // Of one that a label made.
    let made = Controller { name: "c2".into(), address: [10, 0, 0, 2].into(), taints: Vec::new() };
    Copy::new(&assets, &cluster, &made).store(&host).unwrap();
    let (kept, is_kept) = source(&host, &place).unwrap();
    assert!(is_kept && kept.files.contains_key("tls/ca.key") && kept.cluster(&place).unwrap() == cluster);
}
