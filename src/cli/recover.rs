//! `hoist recover`

use std::path::PathBuf;

use super::confirm;
use super::controller::{Conditions, Controller};
use crate::base::error::Result;
use crate::base::report::{Reporter, Success};
use crate::ops::recover::{self, Confirm, Data, Options, Outcome};
use crate::ops::start::Mode;

/// `hoist recover`
///
/// The asset directory is used as it is. Where it is not there, it is filled from the backup or, without one, from what
/// guard keeps on this controller.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Restore etcd's data from this file of `etcdctl snapshot save` first; the current data is moved aside
    #[arg(long, value_name = "FILE", conflicts_with = "backup")]
    etcd_snapshot: Option<PathBuf>,
    /// Restore etcd's data, and the asset directory if it is not there, from this file of `hoist backup` first
    #[arg(long, value_name = "FILE")]
    backup: Option<PathBuf>,
    /// The file with the secret key of the backup's recipient
    #[arg(long, value_name = "FILE", requires = "backup")]
    identity: Option<PathBuf>,
    /// Make a cluster of what the etcd of this controller has, where most of the others are lost for good: what only they
    /// have is lost. It is said what that is, and asked whether to go on
    #[arg(long, conflicts_with_all = ["etcd_snapshot", "backup"])]
    force_new_cluster: bool,
    /// Do not ask
    #[arg(long, short, requires = "force_new_cluster")]
    yes: bool,
    /// Show what would be done, and change nothing
    #[arg(long)]
    dry_run: bool,
    /// Apply every manifest as it is in the asset directory, over edits in the cluster
    #[arg(long)]
    force_manifests: bool,
    #[command(flatten)]
    controller: Controller,
    #[command(flatten)]
    conditions: Conditions,
}

pub(super) async fn run(args: Args, color: bool) -> Result<()> {
    let reporter = args.controller.reporter(color);
    let next = match args.dry_run {
        true => "run it without --dry-run".to_owned(),
        false => args.controller.look(),
    };
    let result = recovered(args, &reporter).await;
    let message = |outcome: &Outcome| match outcome {
        Outcome::Planned => "nothing was changed",
        Outcome::Recovered => "the cluster serves itself again",
    };
    reporter.finish(result.as_ref().map(|outcome| Success { message: message(outcome), next: &next }));
    result.map(drop)
}

async fn recovered(args: Args, reporter: &Reporter) -> Result<Outcome> {
    let data = match (args.etcd_snapshot, args.backup) {
        (Some(file), _) => Data::Snapshot(file),
        (None, Some(file)) => Data::Backup { file, identity: args.identity },
        (None, None) if args.force_new_cluster => Data::Survivor,
        (None, None) => Data::InEtcd,
    };
    let confirm: Option<Confirm> = if args.yes { None } else { Some(confirm) };
    let host = args.controller.host();
    let mode = Mode::Recover { force_manifests: args.force_manifests };
    let start = args.controller.options(mode, Some(args.conditions))?;
    let options = Options { data, dry_run: args.dry_run, confirm, start };
    recover::recover(&host, &options, reporter, super::stop()?).await
}

fn confirm() -> Result<()> {
    confirm::ask("recover", "`hoist recover --force-new-cluster --yes` does not ask", &mut std::io::stdout().lock())
}
