//! hoist itself as a container image: an OCI archive of the binary's own bytes and nothing else.
//!
//! ```text
//! oci-layout       the version of this form
//! index.json       the image's manifest, and the name that it is imported under
//! blobs/sha256/…   its manifest, its configuration and its one layer, a tar archive with /hoist in it
//! ```
//!
//! The form is the OCI's: image-layout.md, manifest.md and config.md of its image-spec 1.0. The same binary and name give the
//! same bytes: nothing in it has a time, or an order that is chance.

use std::collections::BTreeMap;
use std::io;

use serde_json::{Value, json};
use tar::{EntryType, Header};

use crate::base::files::sha256;
use crate::desired::config;
use crate::node::images;

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
/// Not compressed: no tool is needed to make it, and every runtime takes it.
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
/// The beginning of Unix time, as images have it that are the same whenever they are built.
const NO_TIME: &str = "1970-01-01T00:00:00Z";
/// Where the binary is in the image: where guard and the forwarder have the host's binary without one.
pub const BINARY: &str = "/hoist";

/// The name of an image, as the kubelet asks the container runtime for it: with a registry and a tag.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Name(String);

impl Name {
    /// Reads one as `images` of cluster.yaml has it: `hoist:1` is `docker.io/library/hoist:1`.
    ///
    /// # Errors
    /// Why it is none.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.contains('@') {
            return Err(
                "it has a digest, which only a registry gives an image; write it like localhost/hoist:1.0".into()
            );
        }
        config::image(text).map_err(|why| format!("it {why}; write it like localhost/hoist:1.0"))?;
        Ok(Self(images::normal(text)))
    }

    /// Its tag.
    fn tag(&self) -> &str {
        self.0.rsplit_once(':').map_or("latest", |(_, tag)| tag)
    }
}

impl Default for Name {
    /// `localhost/hoist:VERSION`: no runtime pulls it from anywhere.
    fn default() -> Self {
        Self(concat!("localhost/hoist:", env!("CARGO_PKG_VERSION")).into())
    }
}

impl std::fmt::Display for Name {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// What an image is made of.
#[derive(Debug, Clone)]
pub struct Image<'a> {
    /// A static program.
    pub binary: &'a [u8],
    /// The processor that it is for, as Rust names it.
    pub arch: &'a str,
    /// The commit that it was built from, where that is known.
    pub commit: Option<&'a str>,
    /// The name that it is imported under.
    pub name: &'a Name,
}

impl Image<'_> {
    /// The archive.
    ///
    /// # Errors
    /// None that a buffer in memory has.
    pub fn archive(&self) -> io::Result<Vec<u8>> {
        let layer = tar_of([(BINARY.trim_start_matches('/'), 0o755, self.binary)])?;
        let config = self.config(&layer).to_string().into_bytes();
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": descriptor(CONFIG, &config),
            "layers": [descriptor(LAYER, &layer)],
        });
        let manifest = manifest.to_string().into_bytes();
        let mut named = descriptor(MANIFEST, &manifest);
        named["annotations"] = json!({
            // By the first containerd and Docker name it, by the second others do.
            "io.containerd.image.name": self.name.to_string(),
            "org.opencontainers.image.ref.name": self.name.tag(),
        });
        let index = json!({ "schemaVersion": 2, "manifests": [named] }).to_string();
        let layout = json!({ "imageLayoutVersion": "1.0.0" }).to_string();
        let blobs: BTreeMap<_, _> =
            [&config, &layer, &manifest].map(|blob| (format!("blobs/sha256/{}", sha256(blob)), blob.as_slice())).into();
        let files = [("oci-layout", layout.as_bytes()), ("index.json", index.as_bytes())];
        let blobs = blobs.iter().map(|(path, blob)| (path.as_str(), *blob));
        tar_of(files.into_iter().chain(blobs).map(|(path, content)| (path, 0o644, content)))
    }

    fn config(&self, layer: &[u8]) -> Value {
        let mut labels = json!({
            "org.opencontainers.image.title": "hoist",
            "org.opencontainers.image.version": env!("CARGO_PKG_VERSION"),
            "org.opencontainers.image.licenses": env!("CARGO_PKG_LICENSE"),
        });
        if let Some(commit) = self.commit {
            labels["org.opencontainers.image.revision"] = commit.into();
        }
        json!({
            "created": NO_TIME,
            "architecture": architecture(self.arch),
            "os": "linux",
            "config": { "Entrypoint": [BINARY], "Labels": labels },
            "rootfs": { "type": "layers", "diff_ids": [digest(layer)] },
            "history": [{ "created": NO_TIME, "created_by": "hoist image save" }],
        })
    }
}

/// As Go names it, which images follow.
fn architecture(arch: &str) -> &str {
    match arch {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn digest(content: &[u8]) -> String {
    format!("sha256:{}", sha256(content))
}

fn descriptor(media_type: &str, content: &[u8]) -> Value {
    json!({ "mediaType": media_type, "digest": digest(content), "size": content.len() })
}

/// Files of root's, each with its path, mode and content.
fn tar_of<'a>(files: impl IntoIterator<Item = (&'a str, u32, &'a [u8])>) -> io::Result<Vec<u8>> {
    let mut tar = tar::Builder::new(Vec::new());
    for (path, mode, content) in files {
        let mut header = Header::new_ustar();
        header.set_entry_type(EntryType::Regular);
        header.set_mode(mode);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_size(content.len() as u64);
        tar.append_data(&mut header, path, content)?;
    }
    tar.into_inner()
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    const PROGRAM: &[u8] = b"\x7fELF, and so on";

    fn image(name: &Name) -> Image<'_> {
        Image { binary: PROGRAM, arch: "x86_64", commit: Some("abc"), name }
    }

    /// The files of a tar archive, each with its mode; all of them are root's, and have no time.
    fn files(archive: &[u8]) -> BTreeMap<String, (u32, Vec<u8>)> {
        let mut archive = tar::Archive::new(archive);
        let mut read = BTreeMap::new();
        for entry in archive.entries().unwrap() {
            let mut entry = entry.unwrap();
            let header = entry.header().clone();
            assert_eq!((header.uid().unwrap(), header.gid().unwrap(), header.mtime().unwrap()), (0, 0, 0));
            assert_eq!(header.entry_type(), EntryType::Regular);
            let path = entry.path().unwrap().display().to_string();
            let mut content = Vec::new();
            entry.read_to_end(&mut content).unwrap();
            assert!(read.insert(path, (header.mode().unwrap(), content)).is_none());
        }
        read
    }

    /// What a descriptor leads to, and nothing else: its digest and its length are right.
    fn follow(files: &mut BTreeMap<String, (u32, Vec<u8>)>, descriptor: &Value, media_type: &str) -> Vec<u8> {
        assert_eq!(descriptor["mediaType"], media_type);
        let sum = descriptor["digest"].as_str().unwrap().strip_prefix("sha256:").unwrap();
        let (_, content) = files.remove(&format!("blobs/sha256/{sum}")).unwrap();
        assert_eq!((sha256(&content).as_str(), content.len() as u64), (sum, descriptor["size"].as_u64().unwrap()));
        content
    }

    #[test]
    fn an_archive_leads_from_its_index_to_the_binary() {
        let name = Name::default();
        let mut archive = files(&image(&name).archive().unwrap());
        let json = |content: &[u8]| serde_json::from_slice::<Value>(content).unwrap();
        assert_eq!(json(&archive.remove("oci-layout").unwrap().1), json!({ "imageLayoutVersion": "1.0.0" }));
        let index = json(&archive.remove("index.json").unwrap().1);
        let [named] = index["manifests"].as_array().unwrap().as_slice() else { panic!("{index}") };
        let version = env!("CARGO_PKG_VERSION");
        let annotations = json!({
            "io.containerd.image.name": format!("localhost/hoist:{version}"),
            "org.opencontainers.image.ref.name": version,
        });
        assert_eq!(named["annotations"], annotations);
        let manifest = json(&follow(&mut archive, named, MANIFEST));
        assert_eq!((&manifest["mediaType"], &manifest["schemaVersion"]), (&MANIFEST.into(), &2.into()));
        let config = json(&follow(&mut archive, &manifest["config"], CONFIG));
        let [layer] = manifest["layers"].as_array().unwrap().as_slice() else { panic!("{manifest}") };
        let layer = follow(&mut archive, layer, LAYER);
        assert!(archive.is_empty(), "{:?}", archive.keys());

        assert_eq!(config["rootfs"], json!({ "type": "layers", "diff_ids": [digest(&layer)] }));
        assert_eq!((&config["os"], &config["architecture"]), (&"linux".into(), &"amd64".into()));
        assert_eq!(config["config"]["Entrypoint"], json!([BINARY]));
        assert_eq!(config["config"]["Labels"]["org.opencontainers.image.revision"], "abc");
        assert_eq!(files(&layer), [("hoist".to_owned(), (0o755, PROGRAM.to_vec()))].into());
    }

    #[test]
    fn the_same_binary_gives_the_same_bytes() {
        let name = Name::parse("registry.example.com:5000/hoist:1").unwrap();
        let archive = image(&name).archive().unwrap();
        assert_eq!(archive, image(&name).archive().unwrap());
        let other = Image { binary: b"\x7fELF, and another", ..image(&name) };
        assert_ne!(archive, other.archive().unwrap());
    }

    #[test]
    fn a_name_is_what_the_kubelet_asks_for() {
        for (text, name, tag) in [
            ("localhost/hoist:0.1.0", "localhost/hoist:0.1.0", "0.1.0"),
            ("hoist:1", "docker.io/library/hoist:1", "1"),
            ("r.io:5000/a/hoist:v1-2", "r.io:5000/a/hoist:v1-2", "v1-2"),
        ] {
            let read = Name::parse(text).unwrap();
            assert_eq!((read.to_string().as_str(), read.tag()), (name, tag));
        }
        for text in ["", "hoist", "localhost/hoist", "hoist:", "https://r.io/hoist:1", "hoist:1@sha256:aa", "a b:1"] {
            assert!(Name::parse(text).is_err(), "{text}");
        }
    }
}
