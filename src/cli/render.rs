//! `hoist render`

use std::collections::BTreeSet;
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};

use time::OffsetDateTime;

use crate::base::error::{Error, Result};
use crate::base::files;
use crate::desired::assets::{self, AssetSet, Choices, Written};
use crate::desired::config;
use crate::desired::config::Cluster;
use crate::desired::first_boot;
use crate::desired::pki;
use crate::desired::render;
use crate::node::kubelet;

/// The exit code of a `--diff` that shows changes.
pub const WOULD_CHANGE: u8 = 2;

/// `hoist render`
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The cluster's declaration; `-` is standard input
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// The folder to write: a new one, an empty one, or one that was rendered before
    #[arg(long, value_name = "DIR")]
    asset_dir: PathBuf,
    /// Show what would change as a unified diff, and write nothing; exits 0 for no change, 2 for some
    #[arg(long)]
    diff: bool,
    /// A file of the asset directory to write anew, although you edited or removed it; may be given several times
    #[arg(long, value_name = "FILE")]
    replace: Vec<PathBuf>,
    /// A file of the asset directory to leave as you edited it, whatever hoist has changed in it since; may be given
    /// several times
    #[arg(long, value_name = "FILE")]
    keep: Vec<PathBuf>,
    /// Also write first-boot/ of the asset directory: files that make a fresh machine a controller at its first boot.
    /// They hold keys
    #[arg(long, value_name = "FORMAT")]
    first_boot: Option<first_boot::Format>,
}

pub(super) fn run(args: &Args, color: bool, out: &mut dyn Write) -> Result<u8> {
    let dir = assets::absolute(&args.asset_dir)?;
    let is_replaced = args.replace.iter().any(|path| path.ends_with("cluster.yaml"));
    let loaded = config::load(&args.config, assets::rendered_version(&dir, is_replaced))?;
    let cluster = &loaded.cluster;
    assets::check_target(&dir, &args.config)?;
    let existing = assets::existing(&dir, "tls")?;
    let user_files = pki::read_user_files(cluster)?;
    let issued = pki::issue(cluster, &existing, &user_files, OffsetDateTime::now_utc())?;
    let token = pki::bootstrap_token(kubelet::rendered_token(&dir)?.as_deref())?;
    let is_signed = issued.awaited.is_empty();
    let addons = assets::addons(&cluster.addons, cluster.kubernetes_version)?;
    let mut set = if is_signed { render::render(cluster, &issued.files, &token)? } else { render::tls(&issued.files) };
    if is_signed {
        set.files.extend(addons);
    }
    let named =
        |option, names: &[PathBuf]| if is_signed { set.named(&dir, option, names) } else { Ok(BTreeSet::new()) };
    let choices = Choices { replace: named("--replace", &args.replace)?, keep: named("--keep", &args.keep)? };
    if args.diff {
        let plan = set.plan(&dir, &choices)?;
        super::print(out, &plan.diff(&issued.issued, color && is_for_eyes()))?;
        if !plan.conflicts.is_empty() {
            return Err(Error::Input(plan.conflicts));
        }
        return match is_signed {
            false => Err(Error::Unsigned(issued.awaited)),
            true if plan.is_empty() => Ok(0),
            true => Ok(WOULD_CHANGE),
        };
    }
    let Written { changed, merged, kept, left_out, removed, unused } = set.write(&dir, &choices)?;

    for warning in loaded.warnings.iter().cloned().chain(pki::exposed_user_files(cluster)) {
        // Nobody is left to tell if standard error is closed.
        let _ = writeln!(std::io::stderr(), "{warning}");
    }
    let mut said = String::new();
    let mut say = |line: String| said.push_str(&(line + "\n"));
    if !loaded.names_version && cluster.kubernetes_version.to_string() != config::KUBERNETES_VERSION {
        let (kept, own) = (cluster.kubernetes_version, config::KUBERNETES_VERSION);
        say(format!("kept Kubernetes {kept}; for another version, set it in cluster.yaml (kubernetesVersion: {own})"));
    }
    // The first time, everything is new.
    for file in issued.issued.iter().filter(|_| !existing.is_empty()) {
        say(format!("issued tls/{}: {}", file.path, file.reason));
    }
    merged.iter().for_each(|path| say(format!("merged {path}: it has hoist's change and your edit")));
    kept.iter().for_each(|path| say(format!("kept your own {path}")));
    left_out.iter().for_each(|path| say(format!("left out {path}: you removed it (--replace {path} brings it back)")));
    for path in &removed {
        let is_request = path.ends_with(".csr");
        let why = if is_request { "its certificate is there" } else { "this cluster does not use it" };
        say(format!("removed {path}: {why}"));
    }
    unused.iter().for_each(|path| say(format!("left {path}, which this cluster does not use")));
    if args.first_boot.is_none() && dir.join(first_boot::FOLDER).exists() {
        say(format!("left {}/ as it was: --first-boot writes it anew", first_boot::FOLDER));
    }
    if is_signed {
        for (path, size) in first_boot_files(args, &dir, cluster)? {
            say(format!("wrote {path}: {size} KiB, with keys in it"));
        }
    }
    say(format!("{}: {} files, {} of them written", args.asset_dir.display(), set.files.len(), changed.len()));
    issued.due.iter().for_each(|finding| said.push_str(&format!("{finding}\n")));
    super::print(out, &said)?;
    if is_signed { Ok(0) } else { Err(Error::Unsigned(issued.awaited)) }
}

/// Whether a terminal shows it that knows colours.
fn is_for_eyes() -> bool {
    std::io::stdout().is_terminal() && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
}

/// Writes the files for the first boot, if they are wanted, and returns their paths and sizes in KiB.
fn first_boot_files(args: &Args, dir: &Path, cluster: &Cluster) -> Result<Vec<(String, usize)>> {
    let Some(format) = args.first_boot else { return Ok(Vec::new()) };
    // From the disk: with what its user has edited and added.
    let made = first_boot::files(format, &AssetSet::load(dir)?, cluster)?;
    files::make_dir(&dir.join(first_boot::FOLDER), 0o700)?;
    files::write_all(made.iter().map(|(path, file)| (dir.join(path), file)))?;
    Ok(made.into_iter().map(|(path, file)| (path, file.content.len().div_ceil(1024))).collect())
}
