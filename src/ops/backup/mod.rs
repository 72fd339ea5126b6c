//! `hoist backup`: one file from which a controller is brought back (`hoist recover --backup`): a snapshot of its etcd
//! and the asset directory. It is written piece by piece, and never whole in memory.
//!
//! ```text
//! etcd ─ snapshot ─┐
//! asset directory ─┴─► archive (tar) ─► sealed (age) ─► the file, beside its place ─► renamed in
//! ```

pub mod archive;
pub mod sealed;

use std::io::Write;
use std::net::SocketAddr;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::pin::pin;

use archive::{Manifest, Writer};
use sealed::{Output, Recipient};

use crate::base::error::{Error, Finding, Result};
use crate::base::files::{self, File};
use crate::base::input::{self, ASSET_LIMIT};
use crate::base::report::Reporter;
use crate::check::preflight;
use crate::desired::assets::{self, AssetSet};
use crate::desired::certificates;
use crate::desired::config::{Cluster, Controller, Etcd};
use crate::etcd::client::Snapshot;
use crate::node::host::Host;
use crate::plane::kept_copy::Copy;

/// What to do about an archive that cannot be used.
const OTHER_BACKUP: &str = "name another backup, or copy this one again from where it was made";
/// Where etcd listens for clients.
const ETCD_PORT: u16 = 2379;
/// The step that a run shows.
const STEP: &str = "backup";

/// What `hoist backup` was told.
#[derive(Debug)]
pub struct Options {
    /// The asset directory.
    pub asset_dir: PathBuf,
    /// The file to write.
    pub output_file: PathBuf,
    /// Whom it is encrypted to; nobody for one that is not encrypted.
    pub recipients: Vec<Recipient>,
    /// Whether a file that is there is replaced.
    pub force: bool,
    /// Which controller this is, where its addresses do not tell.
    pub node_name: Option<String>,
}

/// Writes a backup of this controller. When `stop` completes, with the number of a signal, nothing is left of it.
///
/// # Errors
/// See [`Error`]; whatever it is, a file that was there still is.
pub async fn backup(host: &Host, options: &Options, reporter: &Reporter, stop: impl Future<Output = u8>) -> Result<()> {
    let dir = assets::absolute(&options.asset_dir)?;
    let output = assets::absolute(&options.output_file)?;
    let (assets, is_kept) = source(host, &dir)?;
    let mut cluster = assets.cluster(&dir)?;
    check_target(&output, &dir, options.force)?;
    if let Etcd::External { .. } = cluster.etcd {
        let finding = Finding::new(
            "cluster.yaml: etcd.external",
            "this etcd belongs to no controller, and hoist does not back it up",
        );
        return Err(Error::Preflight(vec![
            finding.remedy("back it up with its own tools, and copy the asset directory, which is everything else"),
        ]));
    }
    if !host.world().is_root() {
        let finding = Finding::new("IsPrivilegedUser", "hoist backup must run as root: it reads every key");
        return Err(Error::Preflight(vec![finding.remedy("run it with sudo")]));
    }
    // One that a label made is in no asset directory.
    if let Some(own) = Copy::load(host).ok().flatten().and_then(|copy| copy.controller)
        && cluster.controllers.iter().all(|declared| declared.address != own.address)
    {
        cluster.controllers.push(own);
    }
    let controller = preflight::controller(&cluster, options.node_name.as_deref(), &host.world().addresses()?)?;
    let address = SocketAddr::new(cluster.loopback(), ETCD_PORT);
    if is_kept {
        reporter.note(&format!(
            "{} is not there: what guard keeps of it on this controller goes into the backup, without add-ons, the key of the front proxy's CA and the keys of other controllers",
            dir.display()
        ));
    }
    for ending in certificates::endings(&certificates::of_assets("", "", &assets), host.world().now()) {
        reporter.note(&format!("{ending}: a backup brings nothing back from then on"));
    }
    reporter.start(STEP, "back up etcd and the asset directory");
    let work = async {
        let snapshot = Snapshot::begin(address, &assets.tls()).await?;
        let manifest = manifest(host, &cluster, controller, &snapshot.version);
        write(is_kept.then_some(&assets), &dir, &output, options, &manifest, snapshot).await
    };
    let mut stop = pin!(stop);
    let written = tokio::select! {
        biased;
        signal = &mut stop => return Err(Error::Interrupted { signal, state: "nothing was written".into() }),
        written = work => written?,
    };
    let size = std::fs::metadata(&output).map(|meta| meta.len()).unwrap_or_default();
    let sealed = if options.recipients.is_empty() {
        "not encrypted: everyone who reads it has every key of the cluster"
    } else {
        "encrypted"
    };
    reporter.note(&format!(
        "{}: {size} bytes, {sealed}; etcd's snapshot in it has the SHA-256 {written}",
        output.display()
    ));
    reporter.done(STEP);
    Ok(())
}

/// The asset directory at `dir`; where there is none, as on a controller that a label made, what guard keeps of one, and that
/// it is that.
fn source(host: &Host, dir: &Path) -> Result<(AssetSet, bool)> {
    let kept = match dir.exists() {
        true => None,
        false => Copy::load(host)?,
    };
    match kept {
        Some(copy) => Ok((copy.assets, true)),
        None => Ok((AssetSet::load(dir)?, false)),
    }
}

fn manifest(host: &Host, cluster: &Cluster, controller: &Controller, etcd_version: &str) -> Manifest {
    let now = host.world().now();
    Manifest {
        schema: archive::SCHEMA.into(),
        hoist: env!("CARGO_PKG_VERSION").into(),
        time: now.format(&time::format_description::well_known::Rfc3339).unwrap_or_default(),
        cluster_name: cluster.cluster_name.clone(),
        controller: controller.name.clone(),
        address: Some(controller.address),
        kubernetes_version: cluster.kubernetes_version.to_string(),
        etcd_version: etcd_version.into(),
    }
}

/// Whether the file may be written: said before anything is asked of etcd.
fn check_target(output: &Path, asset_dir: &Path, force: bool) -> Result<()> {
    let refuse = |message: &str, remedy: &str| {
        Err(Error::Input(vec![Finding::new(output.display().to_string(), message).remedy(remedy)]))
    };
    let folder = output.parent().unwrap_or(Path::new("/"));
    if output.starts_with(asset_dir) {
        return refuse(
            "is inside the asset directory: each backup would hold the ones before",
            "name a file elsewhere",
        );
    }
    if !folder.is_dir() {
        return refuse("its folder is not there", "make the folder, or correct the path");
    }
    match std::fs::symlink_metadata(output) {
        Err(_) => Ok(()),
        Ok(meta) if !meta.is_file() => refuse("is no file", "name a file"),
        Ok(_) if !force => refuse("is there already", "name another file, or replace it with --force"),
        Ok(_) => Ok(()),
    }
}

/// What a snapshot comes from: etcd, but for tests.
pub(crate) trait Pieces {
    /// How long it will be.
    fn length(&self) -> u64;
    /// The next piece.
    async fn piece(&mut self) -> Result<Option<Vec<u8>>>;
}

impl Pieces for Snapshot {
    fn length(&self) -> u64 {
        self.length
    }

    async fn piece(&mut self) -> Result<Option<Vec<u8>>> {
        Self::piece(self).await
    }
}

/// Writes all of it, the files of `kept` or else those below `dir`, beside its place, and renames it in once it is whole; says the snapshot's sum.
async fn write(
    kept: Option<&AssetSet>,
    dir: &Path,
    output: &Path,
    options: &Options,
    manifest: &Manifest,
    mut snapshot: impl Pieces,
) -> Result<String> {
    let failed = |error| Error::io("write", output, error);
    let time = time::OffsetDateTime::parse(&manifest.time, &time::format_description::well_known::Rfc3339);
    let time = time.map_or(0, |time| u64::try_from(time.unix_timestamp()).unwrap_or(0));
    let beside = std::io::BufWriter::with_capacity(1 << 16, files::Beside::create(output)?);
    let mut writer = Writer::new(Output::new(beside, &options.recipients).map_err(failed)?, time);
    writer.manifest(manifest).map_err(failed)?;
    for (name, file) in kept.into_iter().flat_map(|kept| &kept.files) {
        writer.asset(name, file).map_err(failed)?;
    }
    // Add-ons, and what users have beside, are no part of an asset set.
    let below = if kept.is_some() { Vec::new() } else { files_below(dir)? };
    for (name, path) in below {
        let content = input::read(&path, ASSET_LIMIT).map_err(|unread| unread.into_error(&path))?;
        let mode = std::fs::metadata(&path).map_or(0o600, |meta| meta.permissions().mode() & 0o777);
        writer.asset(&name, &File { content, mode }).map_err(failed)?;
    }
    writer.begin_snapshot(snapshot.length()).map_err(failed)?;
    while let Some(piece) = snapshot.piece().await? {
        writer.piece(&piece).map_err(failed)?;
    }
    let sum = writer.end_snapshot().map_err(failed)?.map_err(|why| Error::Failed {
        action: "take the snapshot of etcd".into(),
        cause: format!("what came {why}"),
        next: Some("run the same command again".into()),
    })?;
    let beside = writer.finish().and_then(Output::finish).map_err(failed)?;
    let mut beside = beside.into_inner().map_err(|error| failed(error.into_error()))?;
    beside.flush().map_err(failed)?;
    beside.commit(options.force).map_err(|error| match error {
        Error::Io { source, .. } if source.kind() == std::io::ErrorKind::AlreadyExists => {
            let finding = Finding::new(output.display().to_string(), "exists now, and did not a moment ago");
            Error::Input(vec![finding.remedy("name another file, or replace it with --force")])
        }
        error => error,
    })?;
    Ok(sum)
}

/// Every file of a folder, by its path below it, hidden ones too: they are what makes `hoist render` know its own files.
/// Links are followed.
fn files_below(dir: &Path) -> Result<Vec<(String, PathBuf)>> {
    fn collect(
        root: &Path,
        dir: &Path,
        around: &mut Vec<(u64, u64)>,
        found: &mut Vec<(String, PathBuf)>,
    ) -> Result<()> {
        let read = |error| Error::io("read", dir, error);
        let meta = std::fs::metadata(dir).map_err(read)?;
        let id = (meta.dev(), meta.ino());
        if around.contains(&id) {
            let finding = Finding::new(dir.display().to_string(), "is a link to a folder around itself");
            return Err(Error::Input(vec![finding.remedy("remove the link")]));
        }
        around.push(id);
        for entry in std::fs::read_dir(dir).map_err(read)? {
            let path = entry.map_err(read)?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            // What a killed process has left is no part of it.
            if name.starts_with(files::BESIDE) {
                continue;
            }
            if path.is_dir() {
                collect(root, &path, around, found)?;
            } else if let Some(name) = path.strip_prefix(root).ok().and_then(Path::to_str) {
                found.push((name.to_owned(), path.clone()));
            }
        }
        around.pop();
        Ok(())
    }
    let mut found = Vec::new();
    collect(dir, dir, &mut Vec::new(), &mut found)?;
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests;
