//! Guard's copy of the bridge, on this controller's disk: as `render` made it and `start` had it last, user's edits
//! included. One file, so that it is whole or not there; its checksum tells a torn or tampered one, which is not raised.
//! The same text, without what belongs to one controller, is a Secret of the cluster.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::assets::AssetSet;
use crate::config::{Cluster, Controller};
use crate::error::{Error, Finding, Result};
use crate::files::{self, File};
use crate::host::Host;
use crate::server_config;

/// Where it is.
const PATH: &str = "/var/lib/hoist/guard/bridge.json";
/// The version of its form.
const SCHEMA: &str = "hoist.bridge/v1";
/// What guard, the bridge and `recover` never need: whoever has it can make others' certificates.
const LEFT_OUT: [&str; 2] = ["tls/etcd/ca.key", "tls/front-proxy-ca.key"];
/// The folders of tls/ that have one for each controller below them.
const PER_CONTROLLER: [&str; 2] = ["tls/etcd/", "tls/kubelet/"];
/// How many bytes the Secret may have: the API takes a mebibyte, and base64 needs a third more.
const SECRET_LIMIT: usize = 700 * 1024;

/// Guard's copy.
#[derive(Clone, PartialEq)]
pub struct Copy {
    /// The controller that it is for; `None` in the cluster's Secret.
    pub controller: Option<Controller>,
    /// The version of Kubernetes that it brings up.
    pub kubernetes: String,
    /// The part of the asset directory that is kept.
    pub assets: AssetSet,
}

/// It as it is written.
#[derive(Serialize, Deserialize)]
struct Written {
    schema: String,
    /// The version of hoist that wrote it.
    hoist: String,
    kubernetes: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    controller: Option<Named>,
    /// Of all files, names and contents.
    sha256: String,
    files: BTreeMap<String, String>,
}

#[derive(Serialize, Deserialize)]
struct Named {
    name: String,
    address: IpAddr,
}

impl Copy {
    /// What of `assets` is kept on `controller`.
    pub fn new(assets: &AssetSet, cluster: &Cluster, controller: &Controller) -> Self {
        let kept = |path: &str| is_kept(path) && is_of(path, Some(&controller.name));
        Self {
            controller: Some(Controller { taints: Vec::new(), ..controller.clone() }),
            kubernetes: cluster.kubernetes_version.to_string(),
            assets: only(assets, kept),
        }
    }

    /// The part that is the same for every controller: for the cluster's Secret. Where that would be too large for one,
    /// a user's manifests stay out of it; the disk has them.
    pub fn shared(&self) -> Self {
        let shared = Self { controller: None, assets: only(&self.assets, |path| is_of(path, None)), ..self.clone() };
        if shared.to_json().len() <= SECRET_LIMIT {
            return shared;
        }
        Self { assets: only(&shared.assets, |path| !is_applied(path)), ..shared }
    }

    /// The shared part `self`, completed with what `own` has of one controller alone, and of what was too large.
    pub fn completed(&self, own: &Self) -> Self {
        let mut files = own.assets.files.clone();
        files.retain(|path, _| !is_of(path, None) || is_applied(path));
        if self.assets.files.keys().any(|path| is_applied(path)) {
            files.retain(|path, _| !is_applied(path));
        }
        files.extend(self.assets.files.clone());
        Self { controller: own.controller.clone(), assets: AssetSet { files, is_part: true }, ..self.clone() }
    }

    /// The checksum of its files.
    pub fn sum(&self) -> String {
        sum(self.texts().iter().map(|(path, text)| (path.as_str(), text.as_str())))
    }

    fn texts(&self) -> BTreeMap<String, String> {
        let text = |(path, file): (&String, &File)| {
            // What is no text is no manifest, no key and no certificate.
            Some((path.clone(), String::from_utf8(file.content.clone()).ok()?))
        };
        self.assets.files.iter().filter_map(text).collect()
    }

    /// Its text.
    pub fn to_json(&self) -> String {
        let named = |controller: &Controller| Named { name: controller.name.clone(), address: controller.address };
        let written = Written {
            schema: SCHEMA.into(),
            hoist: env!("CARGO_PKG_VERSION").into(),
            kubernetes: self.kubernetes.clone(),
            controller: self.controller.as_ref().map(named),
            sha256: self.sum(),
            files: self.texts(),
        };
        serde_json::to_string(&written).unwrap_or_default()
    }

    /// Reads its text.
    ///
    /// # Errors
    /// Why it is none, in a few words: torn, changed since, of a form that this hoist does not know.
    pub fn parse(text: &[u8]) -> Result<Self, String> {
        let written: Written = serde_json::from_slice(text).map_err(|error| format!("it is torn: {error}"))?;
        if written.schema != SCHEMA {
            return Err(format!("its form is {:?}, and this hoist reads {SCHEMA}", written.schema));
        }
        if sum(written.files.iter().map(|(path, text)| (path.as_str(), text.as_str()))) != written.sha256 {
            return Err("its content is not what its checksum says: it was changed by somebody else than hoist".into());
        }
        let controller = |named: Named| Controller { name: named.name, address: named.address, taints: Vec::new() };
        let files = written.files.into_iter().map(|(path, text)| (path, File::private(text))).collect();
        Ok(Self {
            controller: written.controller.map(controller),
            kubernetes: written.kubernetes,
            assets: AssetSet { files, is_part: true },
        })
    }

    /// The one on this host; `None` when there is none.
    ///
    /// # Errors
    /// One that cannot be read, or is not whole.
    pub fn load(host: &Host) -> Result<Option<Self>> {
        let path = path(host);
        let Some(text) = files::read_if_there(&path)? else { return Ok(None) };
        Self::parse(&text).map(Some).map_err(|why| {
            Error::Input(vec![Finding::new(path.display().to_string(), format!("is not used: {why}")).remedy(
                "`hoist start` with the asset directory writes it anew; guard takes the one of the cluster's Secret as soon as the API answers",
            )])
        })
    }

    /// Writes it to this host and says whether anything changed.
    ///
    /// # Errors
    /// The system's refusal; what stood there stands.
    pub fn store(&self, host: &Host) -> Result<bool> {
        let path = path(host);
        files::make_dir(path.parent().unwrap_or(Path::new("/")), 0o700)?;
        files::write(&path, &File::private(self.to_json()))
    }

    /// The cluster that it brings up, and which of its controllers this is.
    ///
    /// # Errors
    /// A configuration that is not valid; the cluster's Secret, which is of no controller.
    pub fn cluster(&self) -> Result<(Cluster, Controller)> {
        let cluster = self.assets.cluster(Path::new(PATH))?;
        let controller = self.controller.clone();
        let controller =
            controller.ok_or_else(|| Error::failed("use the copy of the bridge", "it names no controller"))?;
        Ok((cluster, controller))
    }
}

/// Whether the host has the one of this text.
pub fn stands(host: &Host, text: &str) -> bool {
    files::stands(&path(host), &File::private(text))
}

/// Its file on this host.
pub fn path(host: &Host) -> PathBuf {
    host.path(PATH)
}

fn only(assets: &AssetSet, keep: impl Fn(&str) -> bool) -> AssetSet {
    let files = assets.files.iter().filter(|(path, _)| keep(path));
    // As a directory is read: what it is written with is another's to say.
    let file = |(path, file): (&String, &File)| (path.clone(), File::private(file.content.clone()));
    AssetSet { files: files.map(file).collect(), is_part: true }
}

/// Whether it is only ever applied: the bridge needs none of it.
fn is_applied(path: &str) -> bool {
    path.starts_with("manifests/") && path != server_config::PATH
}

fn is_kept(path: &str) -> bool {
    !LEFT_OUT.contains(&path) && !path.ends_with(".csr")
}

/// Whether a file is every controller's, or the one's that is named.
fn is_of(path: &str, controller: Option<&str>) -> bool {
    let owner = PER_CONTROLLER.iter().find_map(|folder| path.strip_prefix(folder)?.split_once('/'));
    owner.is_none_or(|(owner, _)| Some(owner) == controller)
}

fn sum<'a>(files: impl Iterator<Item = (&'a str, &'a str)>) -> String {
    let mut digest = Sha256::new();
    for (path, text) in files {
        for part in [path, text] {
            digest.update((part.len() as u64).to_le_bytes());
            digest.update(part);
        }
    }
    digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn assets() -> (AssetSet, Cluster) {
        let text = "apiVersion: hoist/v1alpha1\nkind: Cluster\ncontrollers:\n- {name: c1, address: 10.0.0.1}\n- {name: c2, address: 10.0.0.2}\n- {name: c3, address: 10.0.0.3}\n";
        let cluster = crate::config::parse("cluster.yaml", text, Path::new("/")).unwrap();
        let now = time::OffsetDateTime::now_utc();
        let pki = crate::pki::issue(&cluster, &Default::default(), &Default::default(), now).unwrap();
        (crate::render::render(&cluster, &pki.files, "abcdef.0123456789abcdef").unwrap(), cluster)
    }

    fn host() -> (tempfile::TempDir, Host) {
        let root = tempfile::tempdir().unwrap();
        let host = Host::new(root.path(), Path::new("/etc/kubernetes/manifests"));
        (root, host)
    }

    #[test]
    fn it_has_what_this_controllers_bridge_needs_and_no_more_keys() {
        let (assets, cluster) = assets();
        let (_root, host) = host();
        let copy = Copy::new(&assets, &cluster, &cluster.controllers[1]);
        assert!(copy.store(&host).unwrap() && !copy.store(&host).unwrap() && stands(&host, &copy.to_json()));
        let read = Copy::load(&host).unwrap().unwrap();
        let (read_cluster, controller) = read.cluster().unwrap();
        assert_eq!((&read_cluster, controller.name.as_str()), (&cluster, "c2"));
        crate::bridge::Bridge::new(&host).plan(&read.assets, &read_cluster, &controller).unwrap();
        let keys: Vec<_> = read.assets.files.keys().filter(|path| path.ends_with(".key")).cloned().collect();
        for absent in ["tls/etcd/ca.key", "tls/front-proxy-ca.key", "tls/etcd/c1/peer.key", "tls/kubelet/c3/client.key"]
        {
            assert!(assets.files.contains_key(absent) && !keys.iter().any(|key| key == absent), "{absent}: {keys:?}");
        }
        let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(path(&host)).unwrap().permissions());
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn the_shared_part_is_of_no_controller_and_is_completed_by_one() {
        let (assets, cluster) = assets();
        let own = Copy::new(&assets, &cluster, &cluster.controllers[0]);
        let shared = own.shared();
        assert!(!shared.to_json().contains("tls/etcd/c1/") && shared.controller.is_none());
        assert!(shared.assets.files.contains_key("manifests/kube-apiserver/daemonset.yaml"));
        assert!(shared == Copy::new(&assets, &cluster, &cluster.controllers[2]).shared());
        assert!(Copy::parse(shared.to_json().as_bytes()).unwrap().completed(&own) == own);
    }

    #[test]
    fn a_users_large_manifests_stay_on_the_disk() {
        let (mut assets, cluster) = assets();
        assets.files.insert("manifests/user.yaml".into(), File::public("a".repeat(SECRET_LIMIT)));
        let own = Copy::new(&assets, &cluster, &cluster.controllers[0]);
        let shared = own.shared();
        assert!(shared.to_json().len() < SECRET_LIMIT && !shared.to_json().contains("manifests/user.yaml"));
        // The bridge mounts these.
        assert!(shared.assets.files.contains_key(server_config::PATH));
        assert!(shared.completed(&own) == own);
    }

    #[test]
    fn a_torn_or_tampered_one_is_told_and_not_used() {
        let (assets, cluster) = assets();
        let (_root, host) = host();
        assert!(Copy::load(&host).unwrap().is_none());
        let copy = Copy::new(&assets, &cluster, &cluster.controllers[0]);
        copy.store(&host).unwrap();
        let whole = std::fs::read_to_string(path(&host)).unwrap();
        let told = |text: &str| {
            std::fs::write(path(&host), text).unwrap();
            Copy::load(&host).err().map(|error| error.to_string()).unwrap_or_default()
        };
        assert!(told(&whole[..whole.len() / 2]).contains("it is torn"));
        assert!(told(&whole.replace("--secure-port=6444", "--secure-port=6445")).contains("checksum"));
        assert!(told(&whole.replace("bridge/v1", "bridge/v9")).contains("this hoist reads hoist.bridge/v1"));
        assert_eq!(told(&whole), "");
    }
}
