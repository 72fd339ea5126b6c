//! `hoist start`

use super::controller::{Conditions, Controller};
use crate::base::error::Result;
use crate::base::report::{Reporter, Success};
use crate::ops::start::{self, Mode};

/// `hoist start`
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    controller: Controller,
    #[command(flatten)]
    conditions: Conditions,
    /// Begin a new cluster although this machine or the asset directory knows of one whose etcd data is not there
    #[arg(long)]
    new_cluster: bool,
}

pub(super) async fn run(args: Args, color: bool) -> Result<()> {
    let reporter = args.controller.reporter(color);
    let next = args.controller.look();
    // Every failure from here on is told to whoever reads the events, too.
    let result = started(args, &reporter).await;
    reporter.finish(result.as_ref().map(|()| Success { message: "the cluster serves itself", next: &next }));
    result
}

async fn started(args: Args, reporter: &Reporter) -> Result<()> {
    let host = args.controller.host();
    let mut options = args.controller.options(Mode::Start, Some(args.conditions))?;
    options.preflight.new_cluster = args.new_cluster;
    start::start(&host, &options, reporter, super::stop()?).await
}
