//! Where a restore takes its data from: read to its end and checked before anything is changed.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};

use super::{Data, restore, unpack};
use crate::assets::AssetSet;
use crate::backup::archive::{self, Contents};
use crate::backup::sealed;
use crate::error::{Error, Finding, Result};
use crate::files::File;
use crate::snapshot;

/// What belongs to a cluster and to no other: data of one is of no use with the keys of another.
const IDENTITY: [&str; 3] = ["tls/ca.crt", "tls/etcd/ca.crt", "tls/sa.pub"];
/// The parts of an asset directory that `start` reads.
const PARTS: [&str; 6] = ["auth/", "tls/", "bootstrap-manifests/", "manifests/", "kubelet/", "systemd/"];

/// Where a restore takes its data from.
pub(crate) enum Source {
    /// Nowhere: etcd has it.
    There,
    /// A snapshot: the file, its length and its sum.
    Snapshot(PathBuf, u64, String),
    /// An archive.
    Backup {
        /// The file.
        file: PathBuf,
        /// The secret key that it is encrypted to.
        identity: Option<PathBuf>,
        /// What is in it.
        contents: Box<Contents>,
    },
}

impl Source {
    /// Reads all of it.
    ///
    /// # Errors
    /// A file that is torn, damaged, not to be decrypted, or something else.
    pub(crate) fn read(data: &Data) -> Result<Self> {
        match data {
            Data::There => Ok(Self::There),
            Data::Snapshot(file) => {
                let read = snapshot::read(sealed::open_file(file)?).map_err(|error| Error::io("read", file, error))?;
                let (length, sum) = read.map_err(|why| {
                    let finding = Finding::new(file.display().to_string(), why);
                    Error::Input(vec![finding.remedy("name a file that `etcdctl snapshot save` has written; for one of `hoist backup`, it is --backup")])
                })?;
                Ok(Self::Snapshot(file.clone(), length, snapshot::hex(&sum)))
            }
            Data::Backup { file, identity } => {
                let reader = sealed::open(file, identity.as_deref())?;
                let contents = archive::read(&file.display().to_string(), reader, |_| Ok(()))?;
                Ok(Self::Backup { file: file.clone(), identity: identity.clone(), contents: Box::new(contents) })
            }
        }
    }

    /// The asset directory: the one at `place`, or that of the backup where there is none.
    ///
    /// # Errors
    /// One that is not there, or is of another cluster.
    pub(crate) fn assets(&self, place: &Path) -> Result<AssetSet> {
        let Self::Backup { contents, file, .. } = self else { return AssetSet::load(place) };
        if is_new(place) {
            return Ok(of_files(&contents.assets));
        }
        let assets = AssetSet::load(place)?;
        let differs = |path: &&&str| match (assets.files.get(**path), contents.assets.get(**path)) {
            (Some(here), Some(there)) => here.content != there.content,
            _ => false,
        };
        match IDENTITY.iter().find(differs) {
            None => Ok(assets),
            Some(path) => {
                let finding = Finding::new(
                    place.join(path).display().to_string(),
                    format!("is of another cluster than {}", file.display()),
                );
                Err(Error::Input(vec![
                    finding.remedy("move that asset directory away, or name a new one: it is filled from the backup"),
                ]))
            }
        }
    }

    /// Writes the backup's asset directory to `place`, if there is none.
    ///
    /// # Errors
    /// The system's refusal; there is none then.
    pub(crate) fn unpack(&self, place: &Path) -> Result<()> {
        match self {
            Self::Backup { contents, .. } if is_new(place) => unpack::unpack(&contents.assets, place),
            _ => Ok(()),
        }
    }

    /// What is going to become of it.
    pub(super) fn plan_of_assets(&self, place: &Path) -> Option<String> {
        let Self::Backup { contents, file, .. } = self else { return None };
        Some(match is_new(place) {
            true => format!("unpack the asset directory of {} to {}", file.display(), place.display()),
            false => format!(
                "use the asset directory {}, which is there; that of the backup, with {} files, is not unpacked",
                place.display(),
                contents.assets.len()
            ),
        })
    }

    /// The snapshot in words.
    pub(super) fn what(&self) -> Option<String> {
        match self {
            Self::There => None,
            Self::Snapshot(file, length, _) => Some(format!("the snapshot {} ({length} bytes)", file.display())),
            Self::Backup { file, contents, .. } => {
                let made = &contents.manifest;
                Some(format!(
                    "the snapshot in {} ({} bytes; of the controller {}, etcd {}, taken at {})",
                    file.display(),
                    contents.length,
                    made.controller,
                    made.etcd_version,
                    made.time
                ))
            }
        }
    }

    /// The snapshot's length.
    pub(super) fn length(&self) -> Option<u64> {
        match self {
            Self::There => None,
            Self::Snapshot(_, length, _) => Some(*length),
            Self::Backup { contents, .. } => Some(contents.length),
        }
    }

    /// The snapshot's SHA-256.
    pub(super) fn sum(&self) -> Option<&str> {
        match self {
            Self::There => None,
            Self::Snapshot(_, _, sum) => Some(sum),
            Self::Backup { contents, .. } => Some(&contents.sum),
        }
    }

    /// Copies the snapshot; what comes is checked once more.
    ///
    /// # Errors
    /// A file that is another by now; the system's refusal.
    pub(super) fn copy(&self, to: &mut dyn Write) -> Result<()> {
        match self {
            Self::There => Ok(()),
            Self::Snapshot(file, ..) => restore::copy(file, to),
            Self::Backup { file, identity, .. } => {
                let reader = sealed::open(file, identity.as_deref())?;
                archive::read(&file.display().to_string(), reader, |piece| restore::write(piece, to)).map(drop)
            }
        }
    }
}

/// Whether there is no asset directory yet: nothing, or an empty folder.
fn is_new(place: &Path) -> bool {
    match std::fs::read_dir(place) {
        Ok(mut entries) => entries.next().is_none(),
        Err(error) => error.kind() == std::io::ErrorKind::NotFound,
    }
}

/// What [`AssetSet::load`] would read, had these files been unpacked.
fn of_files(files: &BTreeMap<String, File>) -> AssetSet {
    let is_part = |path: &str| path == "cluster.yaml" || PARTS.iter().any(|part| path.starts_with(part));
    let is_hidden = |path: &str| path.rsplit('/').next().is_some_and(|name| name.starts_with('.'));
    let files = files.iter().filter(|(path, _)| is_part(path) && !is_hidden(path));
    AssetSet { files: files.map(|(path, file)| (path.clone(), file.clone())).collect(), is_part: false }
}
