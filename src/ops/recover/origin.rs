//! The source of the asset directory for a recovery: the existing one or, if it is lost, a backup or guard's copy.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::Path;

use super::source::Source;
use super::unpack;
use crate::base::error::{Error, Finding, Result};
use crate::base::files::File;
use crate::desired::assets::AssetSet;
use crate::desired::pki::{ENCRYPTION, lost_keys};
use crate::node::host::Host;
use crate::plane::kept_copy::Copy;

/// What belongs to a cluster and to no other: data of one is of no use with the keys of another.
const IDENTITY: [&str; 2] = ["tls/ca.crt", "tls/sa.pub"];
/// The same, where one of those is in one of the two alone. A rotation changes it, and data does not depend on it.
const ETCD_CA: &str = "tls/etcd/ca.crt";
/// The parts of an asset directory that `start` reads.
const PARTS: [&str; 8] =
    ["auth/", "tls/", "bootstrap-manifests/", "manifests/", "addons/", "kubelet/", "systemd/", "keepalived/"];

/// Where the asset directory comes from.
pub(super) enum Origin<'a> {
    /// It is there; beside it, a backup may have so many files that are not unpacked.
    AssetDir(AssetSet, Option<usize>),
    /// The archive of a backup, with these files.
    Backup(&'a Path, &'a BTreeMap<String, File>),
    /// Guard's copy.
    Guard(Box<Copy>),
}

impl<'a> Origin<'a> {
    /// Finds the one at `place`; where there is none, that of the backup, or guard's copy on this host.
    ///
    /// # Errors
    /// None anywhere; one that cannot be read, or is of another cluster than the backup.
    pub(super) fn find(host: &Host, source: &'a Source, place: &Path) -> Result<Self> {
        match (is_new(place), source.archive()) {
            (true, Some((file, contents))) => Ok(Self::Backup(file, &contents.assets)),
            (true, None) => match Copy::load(host)? {
                Some(copy) => Ok(Self::Guard(Box::new(copy))),
                None => Err(lost(place)),
            },
            (false, archive) => {
                let assets = AssetSet::load(place)?;
                if let Some((file, contents)) = archive {
                    same_cluster(&assets, &contents.assets, place, file)?;
                }
                Ok(Self::AssetDir(assets, archive.map(|(_, contents)| contents.assets.len())))
            }
        }
    }

    /// What `start` reads of it.
    pub(super) fn assets(&self) -> AssetSet {
        match self {
            Self::AssetDir(assets, _) => assets.clone(),
            Self::Guard(copy) => copy.assets.clone(),
            Self::Backup(_, files) => {
                let is_part = |path: &str| path == "cluster.yaml" || PARTS.iter().any(|part| path.starts_with(part));
                let is_hidden = |path: &str| path.rsplit('/').next().is_some_and(|name| name.starts_with('.'));
                let files = files.iter().filter(|(path, _)| is_part(path) && !is_hidden(path));
                let files = files.map(|(path, file)| (path.clone(), file.clone())).collect();
                AssetSet { files, is_part: false }
            }
        }
    }

    /// What is going to become of it.
    pub(super) fn plan(&self, place: &Path) -> Option<String> {
        let place = place.display();
        match self {
            Self::AssetDir(_, None) => None,
            Self::AssetDir(_, Some(count)) => Some(format!(
                "use the asset directory {place}, which is there; that of the backup, with {count} files, is not unpacked"
            )),
            Self::Backup(file, _) => Some(format!("unpack the asset directory of {} to {place}", file.display())),
            Self::Guard(_) => Some(format!(
                "fill {place}, which is lost, from what guard keeps on this controller: it has no keys of the CAs of etcd and of the front proxy, nor of other controllers"
            )),
        }
    }

    /// Writes it to `place`, if it is not there.
    ///
    /// # Errors
    /// The system's refusal; there is none then.
    pub(super) fn unpack(&self, place: &Path) -> Result<()> {
        match self {
            Self::AssetDir(..) => Ok(()),
            Self::Backup(_, files) => unpack::unpack(files, place),
            Self::Guard(copy) => unpack::unpack(&copy.assets.files, place),
        }
    }
}

/// Whether there is no asset directory yet: nothing, or an empty folder.
fn is_new(place: &Path) -> bool {
    match std::fs::read_dir(place) {
        Ok(mut entries) => entries.next().is_none(),
        Err(error) => error.kind() == ErrorKind::NotFound,
    }
}

fn lost(place: &Path) -> Error {
    let finding = Finding::new(
        place.display().to_string(),
        "there is no such asset directory, and guard keeps nothing of it on this machine",
    );
    // A new one would have new keys, which nothing that is there would trust.
    Error::Input(vec![finding.remedy("bring it here from where it was rendered, or name a backup (--backup)")])
}

/// Whether the asset directory and that of a backup are one cluster's.
fn same_cluster(here: &AssetSet, there: &BTreeMap<String, File>, place: &Path, file: &Path) -> Result<()> {
    let differs = |path: &&&str| match (here.files.get(**path), there.get(**path)) {
        (Some(here), Some(there)) => here.content != there.content,
        _ => false,
    };
    let are_known = IDENTITY.iter().all(|path| here.files.contains_key(*path) && there.contains_key(*path));
    let also = (!are_known).then_some(&ETCD_CA);
    let Some(path) = IDENTITY.iter().chain(also).find(differs) else { return same_keys(here, there, place, file) };
    let rotated =
        if path.ends_with("sa.pub") { ", or of the time after a rotation of the service account key" } else { "" };
    let message = format!("is of another cluster than {}{rotated}", file.display());
    let finding = Finding::new(place.join(path).display().to_string(), message);
    Err(Error::Input(vec![
        finding.remedy("move that asset directory away, or name a new one: it is filled from the backup"),
    ]))
}

/// The asset directory has the keys by which the backup's data is encrypted; it may have newer ones, too.
fn same_keys(here: &AssetSet, there: &BTreeMap<String, File>, place: &Path, file: &Path) -> Result<()> {
    let path = format!("tls/{ENCRYPTION}");
    let keys = |file: Option<&File>| file.map(|file| file.content.clone()).unwrap_or_default();
    let lost = lost_keys(&keys(there.get(&path)), &keys(here.files.get(&path)));
    if lost.is_empty() {
        return Ok(());
    }
    let message = format!("lacks keys by which the data of {} may be encrypted: {}", file.display(), lost.join(", "));
    Err(Error::Input(vec![Finding::new(place.join(path).display().to_string(), message).remedy(
        "add them from the backup's tls/encryption.yaml, behind the others, and run `hoist render`; or move that asset directory away: it is filled from the backup",
    )]))
}
