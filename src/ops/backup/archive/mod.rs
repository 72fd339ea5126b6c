//! What a backup is: a tar archive of what another machine needs to be this controller.
//!
//! ```text
//! manifest.json      what made it, when, of what
//! assets/…           the asset directory, keys and all
//! etcd-snapshot.db   as `etcdctl snapshot save` writes it
//! SHA256SUMS         of all the above, as `sha256sum --check` takes it; its last file, so that what is torn lacks it
//! ```

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::IpAddr;
use std::path::{Component, Path};

use serde::{Deserialize, Serialize};
use tar::{EntryType, Header};

use crate::base::error::{Error, Finding, Result};
use crate::base::files::{File, sha256};
use crate::base::input::{ASSET_LIMIT, ASSETS_LIMIT};
use crate::desired::config::Controller;
use crate::etcd::snapshot::{self, hex};

const MANIFEST: &str = "manifest.json";
const ASSETS: &str = "assets/";
const SNAPSHOT: &str = "etcd-snapshot.db";
const SUMS: &str = "SHA256SUMS";
/// The form of all this.
pub const SCHEMA: &str = "hoist.backup/v1";
/// tar's unit: a file's end is filled up to it.
const BLOCK: u64 = 512;
const PIECE: usize = 64 * 1024;

/// What made an archive, when, of what.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// [`SCHEMA`].
    pub schema: String,
    /// The version of hoist.
    pub hoist: String,
    /// When it was begun, as RFC 3339 has it.
    pub time: String,
    /// The cluster's name.
    pub cluster_name: String,
    /// The controller whose etcd it is.
    pub controller: String,
    /// Its address; an older hoist has not said it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<IpAddr>,
    /// As cluster.yaml has it.
    pub kubernetes_version: String,
    /// As etcd says it.
    pub etcd_version: String,
}

impl Manifest {
    /// The controller whose etcd it is, if its address is known.
    pub fn of(&self) -> Option<Controller> {
        Some(Controller { name: self.controller.clone(), address: self.address?, taints: Vec::new() })
    }
}

/// What is in an archive that is whole.
pub struct Contents {
    /// What made it.
    pub manifest: Manifest,
    /// The asset directory, by path below it.
    pub assets: BTreeMap<String, File>,
    /// The length of the snapshot.
    pub length: u64,
    /// The snapshot's SHA-256, in hexadecimal digits.
    pub sum: String,
}

/// Writes an archive, piece by piece.
pub struct Writer<W: Write> {
    tar: tar::Builder<W>,
    sums: String,
    time: u64,
    snapshot: snapshot::Check,
    expected: u64,
}

impl<W: Write> Writer<W> {
    /// One that was begun at `time`, in seconds since 1970.
    pub fn new(out: W, time: u64) -> Self {
        let snapshot = snapshot::Check::default();
        Self { tar: tar::Builder::new(out), sums: String::new(), time, snapshot, expected: 0 }
    }

    /// The first file.
    ///
    /// # Errors
    /// The system's refusal to write.
    pub fn manifest(&mut self, manifest: &Manifest) -> io::Result<()> {
        let text = serde_json::to_string_pretty(manifest)? + "\n";
        self.file(MANIFEST, 0o644, text.as_bytes())
    }

    /// A file of the asset directory.
    ///
    /// # Errors
    /// The system's refusal to write.
    pub fn asset(&mut self, path: &str, file: &File) -> io::Result<()> {
        self.file(&format!("{ASSETS}{path}"), file.mode, &file.content)
    }

    fn file(&mut self, path: &str, mode: u32, content: &[u8]) -> io::Result<()> {
        let mut header = self.header(mode, content.len() as u64);
        self.tar.append_data(&mut header, path, content)?;
        self.sums += &format!("{}  {path}\n", sha256(content));
        Ok(())
    }

    fn header(&self, mode: u32, length: u64) -> Header {
        let mut header = Header::new_gnu();
        header.set_entry_type(EntryType::Regular);
        header.set_mode(mode);
        header.set_mtime(self.time);
        header.set_size(length);
        header
    }

    /// Begins the snapshot, which is going to have this length.
    ///
    /// # Errors
    /// The system's refusal to write.
    pub fn begin_snapshot(&mut self, length: u64) -> io::Result<()> {
        let mut header = self.header(0o600, length);
        header.set_path(SNAPSHOT)?;
        header.set_cksum();
        self.expected = length;
        self.tar.get_mut().write_all(header.as_bytes())
    }

    /// A piece of it.
    ///
    /// # Errors
    /// The system's refusal to write.
    pub fn piece(&mut self, piece: &[u8]) -> io::Result<()> {
        self.snapshot.update(piece);
        self.tar.get_mut().write_all(piece)
    }

    /// Ends the snapshot, and says its sum.
    ///
    /// # Errors
    /// The system's refusal to write. The inner one says why it is no snapshot.
    pub fn end_snapshot(&mut self) -> io::Result<Result<String, String>> {
        let length = self.snapshot.length();
        let sum = match std::mem::take(&mut self.snapshot).finish() {
            Ok(_) if length != self.expected => Err(format!("has {length} bytes, where {} were told", self.expected)),
            Ok(sum) => Ok(hex(&sum)),
            Err(why) => Err(why),
        };
        if let Ok(sum) = &sum {
            let rest = length.next_multiple_of(BLOCK) - length;
            self.tar.get_mut().write_all(&vec![0; rest as usize])?;
            self.sums += &format!("{sum}  {SNAPSHOT}\n");
        }
        Ok(sum)
    }

    /// Writes the sums, and ends the archive.
    ///
    /// # Errors
    /// The system's refusal to write.
    pub fn finish(mut self) -> io::Result<W> {
        let mut header = self.header(0o644, self.sums.len() as u64);
        let sums = std::mem::take(&mut self.sums);
        self.tar.append_data(&mut header, SUMS, sums.as_bytes())?;
        self.tar.into_inner()
    }
}

/// Reads an archive to its end and checks all of it; `snapshot` is given every piece of the snapshot.
///
/// # Errors
/// What is no archive of hoist's, or not all of one; what `snapshot` says.
pub fn read(place: &str, from: impl Read, snapshot: impl FnMut(&[u8]) -> Result<()>) -> Result<Contents> {
    Reader { place, manifest: None, assets: BTreeMap::new(), size: 0, found: None, sums: String::new(), snapshot }
        .read(from)
}

struct Reader<'a, F> {
    place: &'a str,
    manifest: Option<Manifest>,
    assets: BTreeMap<String, File>,
    size: u64,
    found: Option<(u64, String)>,
    sums: String,
    snapshot: F,
}

impl<F: FnMut(&[u8]) -> Result<()>> Reader<'_, F> {
    fn read(mut self, from: impl Read) -> Result<Contents> {
        let mut archive = tar::Archive::new(from);
        let mut is_whole = false;
        for entry in archive.entries().map_err(|error| self.torn(&error))? {
            let mut entry = entry.map_err(|error| self.torn(&error))?;
            let path = entry.path().ok().and_then(|path| path.to_str().map(str::to_owned)).unwrap_or_default();
            if is_whole || entry.header().entry_type() != EntryType::Regular {
                return Err(self.refuse(&format!("holds {path:?}, which no backup of hoist's does")));
            }
            let length = entry.size();
            if path == SNAPSHOT && self.manifest.is_some() && self.found.is_none() {
                self.snapshot(&mut entry, length)?;
                continue;
            }
            if length > ASSET_LIMIT {
                return Err(self.refuse(&format!("holds {path:?}, which is too large")));
            }
            let mut content = Vec::new();
            entry.read_to_end(&mut content).map_err(|error| self.torn(&error))?;
            if content.len() as u64 != length {
                return Err(self.torn(&"it ends in the middle of a file"));
            }
            if path == SUMS {
                if content != self.sums.as_bytes() {
                    return Err(self.refuse("is damaged: its files do not have the checksums that it names"));
                }
                is_whole = true;
                continue;
            }
            self.sums += &format!("{}  {path}\n", sha256(&content));
            if path == MANIFEST && self.manifest.is_none() {
                self.manifest = Some(self.parse(&content)?);
            } else if let Some(name) = path.strip_prefix(ASSETS).filter(|name| is_plain(name)).map(str::to_owned)
                && self.manifest.is_some()
            {
                self.size += length;
                let mode = entry.header().mode().unwrap_or(0o600) & 0o777;
                if self.size > ASSETS_LIMIT || self.assets.insert(name, File { content, mode }).is_some() {
                    return Err(self.refuse("holds too much, or a file twice"));
                }
            } else {
                return Err(self.refuse(&format!("holds {path:?}, which no backup of hoist's does")));
            }
        }
        // An encrypted one shows at its very end whether it was cut short.
        io::copy(&mut archive.into_inner(), &mut io::sink()).map_err(|error| self.torn(&error))?;
        match (self.manifest.take(), self.found.take()) {
            (Some(manifest), Some((length, sum))) if is_whole => {
                Ok(Contents { manifest, assets: std::mem::take(&mut self.assets), length, sum })
            }
            (None, _) if self.sums.is_empty() => Err(self.refuse("is not a backup of hoist's")),
            _ => Err(self.torn(&"its end is missing")),
        }
    }

    fn parse(&self, content: &[u8]) -> Result<Manifest> {
        let value: serde_json::Value = serde_json::from_slice(content).unwrap_or_default();
        if value["schema"] != SCHEMA {
            return Err(self.refuse(&format!("is of another version of hoist: this one reads {SCHEMA}")));
        }
        serde_json::from_value(value).map_err(|error| self.refuse(&format!("has no valid {MANIFEST}: {error}")))
    }

    fn snapshot(&mut self, entry: &mut impl Read, length: u64) -> Result<()> {
        let mut check = snapshot::Check::default();
        let mut piece = vec![0; PIECE];
        loop {
            let count = entry.read(&mut piece).map_err(|error| self.torn(&error))?;
            if count == 0 {
                break;
            }
            check.update(&piece[..count]);
            (self.snapshot)(&piece[..count])?;
        }
        if check.length() != length {
            return Err(self.torn(&"it ends in the middle of the snapshot"));
        }
        let sum = check.finish().map(|sum| hex(&sum)).map_err(|why| self.refuse(&format!("{SNAPSHOT} {why}")))?;
        self.sums += &format!("{sum}  {SNAPSHOT}\n");
        self.found = Some((length, sum));
        Ok(())
    }

    fn torn(&self, why: &dyn std::fmt::Display) -> Error {
        self.refuse(&format!("is torn or damaged, or no backup of hoist's: {why}"))
    }

    fn refuse(&self, message: &str) -> Error {
        Error::Input(vec![Finding::new(self.place, message).remedy(super::OTHER_BACKUP)])
    }
}

/// Whether a path leads to a file below the folder that it is joined to.
fn is_plain(path: &str) -> bool {
    !path.is_empty()
        && !path.ends_with('/')
        && Path::new(path).components().all(|part| matches!(part, Component::Normal(_)))
}

#[cfg(test)]
pub(crate) mod tests;
