//! Guard's copy of the bridge, on this controller's disk: as `render` made it and `start` used it last, with the
//! user's edits. It is one file, so it is whole or absent; its checksum reveals a torn or changed copy, which is not
//! raised. A Secret of the cluster has the same text, without what belongs to one controller.
//!
//! Beside it is what guard has learned on this controller: the images that have proved themselves ([`Images`]).

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::base::error::{Error, Finding, Result};
use crate::base::files::{self, File};
use crate::base::input;
use crate::desired::assets::{AssetSet, CLUSTER_ID, cluster_id};
use crate::desired::config::{Cluster, Controller};
use crate::desired::renewal;
use crate::desired::rotation;
use crate::desired::server_config;
use crate::node::host::Host;
use crate::node::images::Images;

/// Where it is.
const PATH: &str = "/var/lib/hoist/guard/bridge.json";
/// The version of its form.
const SCHEMA: &str = "hoist.bridge/v1";
/// The parts of an asset directory that are kept: what the bridge is made of, and what `recover` fills a lost one with.
/// Add-ons are in the cluster and nowhere else needed; they may be large, and hold users' Secrets.
const KEPT: [&str; 7] = ["auth/", "bootstrap-manifests/", "keepalived/", "kubelet/", "manifests/", "systemd/", "tls/"];
/// The same of its files.
const KEPT_FILES: [&str; 2] = ["cluster.yaml", CLUSTER_ID];
/// The folders of tls/ that have one for each controller below them.
const PER_CONTROLLER: [&str; 3] = ["tls/apiserver/", "tls/etcd/", "tls/kubelet/"];
/// How many bytes the Secret may have. An object of etcd's has 1.5 MiB at most, a Secret 1 MiB, and base64 needs a third
/// more on its way.
pub const SECRET_LIMIT: usize = 700 * 1024;
/// How many bytes the file may have: what is longer is neither written nor read.
pub const LIMIT: u64 = 16 << 20;

/// Guard's copy.
#[derive(Clone, PartialEq)]
pub struct Copy {
    /// The controller that it is for; `None` in the cluster's Secret.
    pub controller: Option<Controller>,
    /// The version of Kubernetes that it brings up.
    pub kubernetes: String,
    /// The part of the asset directory that is kept.
    pub assets: AssetSet,
    /// The images that the self-hosted control plane of this controller has proved since.
    pub images: Images,
    /// The asset directory that it comes from, on this controller.
    pub asset_dir: Option<PathBuf>,
    /// It was read, and an older hoist had written more into it than is kept: it is to be written anew.
    pub has_more: bool,
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
    #[serde(default, skip_serializing_if = "Option::is_none", rename = "assetDir")]
    asset_dir: Option<PathBuf>,
    #[serde(default, skip_serializing_if = "Images::is_empty")]
    images: Images,
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
        Self::fitting(assets, cluster, controller, LIMIT).0
    }

    /// The same, in a file of at most `limit` bytes: manifests that find no room stay out of it, the largest first. Says
    /// which.
    pub fn fitting(assets: &AssetSet, cluster: &Cluster, controller: &Controller, limit: u64) -> (Self, Vec<String>) {
        let kept = |path: &str| is_kept(path) && is_of(path, Some(&controller.name));
        let mut copy = Self {
            controller: Some(Controller { taints: Vec::new(), ..controller.clone() }),
            kubernetes: cluster.kubernetes_version.to_string(),
            assets: only(assets, kept),
            images: Images::new(),
            asset_dir: None,
            has_more: false,
        };
        let mut left_out = Vec::new();
        while copy.size() as u64 > limit {
            let applied = copy.assets.files.iter().filter(|(path, _)| is_applied(path));
            let largest = applied.max_by_key(|(_, file)| file.content.len()).map(|(path, _)| path.clone());
            let Some(largest) = largest else { break };
            copy.assets.files.remove(&largest);
            left_out.push(largest);
        }
        (copy, left_out)
    }

    /// The part that is the same for every controller: for the cluster's Secret. Where that would be too large for one,
    /// a user's manifests stay out of it; the disk has them.
    pub fn shared(&self) -> Self {
        let shared = Self {
            controller: None,
            assets: only(&self.assets, |path| is_of(path, None)),
            images: Images::new(),
            asset_dir: None,
            has_more: false,
            kubernetes: self.kubernetes.clone(),
        };
        if shared.size() <= SECRET_LIMIT {
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
        Self {
            controller: own.controller.clone(),
            kubernetes: self.kubernetes.clone(),
            assets: AssetSet { files, is_part: true },
            images: own.images.clone(),
            asset_dir: own.asset_dir.clone(),
            has_more: false,
        }
    }

    /// The one that the Secret `hoist-guard` holds.
    ///
    /// # Errors
    /// What is no copy.
    pub fn of_secret(text: &[u8]) -> Result<Self> {
        Self::parse(text).map_err(|why| Error::failed("use the Secret hoist-guard", why))
    }

    /// With those leaves of `other` that are its own renewed; says whether there were any.
    pub fn with_newer(self, other: &Self) -> (Self, bool) {
        let (assets, any) = renewal::with_newer(self.assets, &other.assets);
        (Self { assets, ..self }, any)
    }

    /// What the disk has noted beside what `self` says, added to it: images, the cluster's id where it has none, and leaves
    /// that were renewed since.
    pub fn keeping(mut self, host: &Host) -> Self {
        if let Ok(Some(there)) = Self::load(host) {
            (self, _) = self.with_newer(&there);
            self.images = there.images;
            if let Some(id) = there.assets.files.get(CLUSTER_ID) {
                self.assets.files.entry(CLUSTER_ID.into()).or_insert_with(|| id.clone());
            }
        }
        self
    }

    /// The id of the cluster that it is of, where that is known.
    pub fn cluster_id(&self) -> Option<String> {
        cluster_id(&self.assets)
    }

    /// The checksum of its files.
    pub fn sum(&self) -> String {
        sum(self.texts().iter().map(|(path, text)| (path.as_str(), text.as_str())))
    }

    /// The checksum of its keys: of what no renewal changes.
    pub fn keys_sum(&self) -> String {
        rotation::sum(&self.assets.tls())
    }

    /// How long its text is, at most.
    fn size(&self) -> usize {
        /// What else than files is in it: images, names, sums.
        const REST: usize = 4096;
        serde_json::to_string(&self.texts()).map_or(0, |text| text.len()) + REST
    }

    fn texts(&self) -> BTreeMap<String, String> {
        let text = |(path, file): (&String, &File)| {
            // What is no text is not a manifest, no key and no certificate.
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
            asset_dir: self.asset_dir.clone(),
            images: self.images.clone(),
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
            return Err("its content does not match its checksum: it was changed, and not by hoist".into());
        }
        let controller = |named: Named| Controller { name: named.name, address: named.address, taints: Vec::new() };
        let count = written.files.len();
        let files = written.files.into_iter().filter(|(path, _)| is_kept(path));
        let files: BTreeMap<_, _> = files.map(|(path, text)| (path, File::private(text))).collect();
        Ok(Self {
            controller: written.controller.map(controller),
            kubernetes: written.kubernetes,
            images: written.images,
            asset_dir: written.asset_dir,
            has_more: files.len() < count,
            assets: AssetSet { files, is_part: true },
        })
    }

    /// The one on this host; `None` when there is none.
    ///
    /// # Errors
    /// One that cannot be read, or is not whole.
    pub fn load(host: &Host) -> Result<Option<Self>> {
        let path = path(host);
        let text = match input::read(&path, LIMIT) {
            Ok(text) => text,
            Err(unread) if unread.is_missing(&path) => return Ok(None),
            Err(unread) => return Err(unread.into_error(&path)),
        };
        Self::parse(&text).map(Some).map_err(|why| {
            Error::Input(vec![Finding::new(path.display().to_string(), format!("is not used: {why}")).remedy(
                "`hoist start` with the asset directory writes it anew; guard takes the one of the cluster's Secret as soon as the API answers",
            )])
        })
    }

    /// Writes it to this host and says whether anything changed.
    ///
    /// # Errors
    /// One that could not be read again; the system's refusal. What stood there stands.
    pub fn store(&self, host: &Host) -> Result<bool> {
        let path = path(host);
        let text = self.to_json();
        if text.len() as u64 > LIMIT {
            let message = format!("would have {} bytes, and {LIMIT} is the limit of guard's copy", text.len());
            let finding = Finding::new(path.display().to_string(), message);
            return Err(Error::Input(vec![
                finding.remedy("make the files of tls/ and bootstrap-manifests/ in the asset directory smaller"),
            ]));
        }
        files::make_dir(path.parent().unwrap_or(Path::new("/")), 0o700)?;
        files::write(&path, &File::private(text))
    }

    /// Whether the host has one that says what this one does, whatever it has noted beside, and renewed.
    pub fn stands(&self, host: &Host) -> bool {
        let files = |assets: &AssetSet| {
            let mut files = assets.files.clone();
            files.remove(CLUSTER_ID);
            files
        };
        Self::load(host).ok().flatten().is_some_and(|there| {
            !there.has_more
                && there.controller == self.controller
                && there.kubernetes == self.kubernetes
                && files(&there.assets) == files(&renewal::with_newer(self.assets.clone(), &there.assets).0)
        })
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
    let is_part = KEPT_FILES.contains(&path) || KEPT.iter().any(|part| path.starts_with(part));
    is_part && !path.ends_with(".csr")
}

/// Whether a file is every controller's, or the one's that is named.
fn is_of(path: &str, controller: Option<&str>) -> bool {
    let owner = PER_CONTROLLER.iter().find_map(|folder| path.strip_prefix(folder)?.split_once('/'));
    owner.is_none_or(|(owner, _)| Some(owner) == controller)
}

fn sum<'a>(files: impl Iterator<Item = (&'a str, &'a str)>) -> String {
    files::sha256_of_all(files.flat_map(|(path, text)| [path, text]))
}

#[cfg(test)]
mod tests;
