//! `hoist render`

use std::io::Write;
use std::path::PathBuf;

use time::OffsetDateTime;

use crate::assets::{self, Written};
use crate::error::Result;
use crate::{config, kubelet, pki, render};

/// `hoist render`
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The cluster's declaration; `-` is standard input
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// The folder to write: a new one, an empty one, or one that was rendered before
    #[arg(long, value_name = "DIR")]
    asset_dir: PathBuf,
    /// A file of the asset directory to write anew, although you edited or removed it; may be given several times
    #[arg(long, value_name = "FILE")]
    replace: Vec<PathBuf>,
}

pub(super) fn run(args: &Args, out: &mut dyn Write) -> Result<()> {
    let cluster = config::load(&args.config)?;
    let dir = assets::absolute(&args.asset_dir)?;
    assets::check_target(&dir, &args.config)?;
    let existing = assets::existing(&dir, "tls")?;
    let user_files = pki::read_user_files(&cluster)?;
    let issued = pki::issue(&cluster, &existing, &user_files, OffsetDateTime::now_utc())?;
    let token = pki::bootstrap_token(kubelet::rendered_token(&dir)?.as_deref())?;
    let set = render::render(&cluster, &issued.files, &token)?;
    let Written { changed, kept, left_out, removed, unused } = set.write(&dir, &set.named(&dir, &args.replace)?)?;

    let mut said = String::new();
    let mut say = |line: String| said.push_str(&(line + "\n"));
    // The first time, everything is new.
    for file in issued.issued.iter().filter(|_| !existing.is_empty()) {
        say(format!("issued tls/{}: {}", file.path, file.reason));
    }
    kept.iter().for_each(|path| say(format!("kept your own {path}")));
    left_out.iter().for_each(|path| say(format!("left out {path}: you removed it (--replace {path} brings it back)")));
    removed.iter().for_each(|path| say(format!("removed {path}: this cluster has no use for it")));
    unused.iter().for_each(|path| say(format!("left {path}, for which this cluster has no use")));
    say(format!("{}: {} files, {} of them written", args.asset_dir.display(), set.files.len(), changed.len()));
    super::print(out, &said)
}
