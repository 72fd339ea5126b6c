//! Where a restore takes its data from: read to its end and checked before anything is changed.

use std::io::Write;
use std::path::{Path, PathBuf};

use super::{Data, restore};
use crate::base::error::{Error, Finding, Result};
use crate::etcd::snapshot;
use crate::ops::backup::archive::{self, Contents};
use crate::ops::backup::sealed;

/// Where a restore takes its data from.
pub(super) enum Source {
    /// Nowhere: etcd has it.
    Etcd,
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
    pub(super) fn read(data: &Data) -> Result<Self> {
        match data {
            Data::InEtcd | Data::Survivor => Ok(Self::Etcd),
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

    /// The archive, if it is one.
    pub(super) fn archive(&self) -> Option<(&Path, &Contents)> {
        match self {
            Self::Backup { file, contents, .. } => Some((file, contents)),
            _ => None,
        }
    }

    /// The snapshot in words.
    pub(super) fn what(&self) -> Option<String> {
        match self {
            Self::Etcd => None,
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
            Self::Etcd => None,
            Self::Snapshot(_, length, _) => Some(*length),
            Self::Backup { contents, .. } => Some(contents.length),
        }
    }

    /// The snapshot's SHA-256.
    pub(super) fn sum(&self) -> Option<&str> {
        match self {
            Self::Etcd => None,
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
            Self::Etcd => Ok(()),
            Self::Snapshot(file, ..) => restore::copy(file, to),
            Self::Backup { file, identity, .. } => {
                let reader = sealed::open(file, identity.as_deref())?;
                archive::read(&file.display().to_string(), reader, |piece| restore::write(piece, to)).map(drop)
            }
        }
    }
}
