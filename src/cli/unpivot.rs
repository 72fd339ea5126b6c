//! `hoist unpivot`

use super::controller::Controller;
use crate::base::error::Result;
use crate::base::report::{Reporter, Success};
use crate::ops::start::Mode;
use crate::ops::unpivot;

/// `hoist unpivot`
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    controller: Controller,
}

pub(super) async fn run(args: Args, color: bool) -> Result<()> {
    let reporter = args.controller.reporter(color);
    let result = unpivoted(args, &reporter).await;
    let success = Success {
        message: "the control plane is static pods",
        next: "edit them in the kubelet's folder of static pods; `hoist start` pivots again",
    };
    reporter.finish(result.as_ref().map(|()| success));
    result
}

async fn unpivoted(args: Args, reporter: &Reporter) -> Result<()> {
    let host = args.controller.host();
    let options = args.controller.options(Mode::Start, None)?;
    unpivot::unpivot(&host, &options, reporter, super::stop()?).await
}
