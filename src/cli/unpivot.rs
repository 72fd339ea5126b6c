//! `hoist unpivot`

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::config::duration;
use crate::error::{Error, Result};
use crate::host::Host;
use crate::report::{Output, Reporter, Success};
use crate::{start, unpivot};

/// `hoist unpivot`
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The folder that `hoist render` wrote: the bridge is raised from it, and its admin's kubeconfig is used
    #[arg(long, value_name = "DIR")]
    asset_dir: PathBuf,
    /// The kubelet's folder of static pods
    #[arg(long, value_name = "DIR", default_value = "/etc/kubernetes/manifests", value_parser = super::start::absolute)]
    pod_manifest_path: PathBuf,
    /// Which controller of cluster.yaml this machine is [default: the one whose address it has]
    #[arg(long, value_name = "NAME")]
    node_name: Option<String>,
    /// How long it may go without any progress
    #[arg(long, value_name = "DURATION", default_value = "5m", value_parser = duration)]
    progress_timeout: Duration,
    /// How long the whole may take, as 90s, 20m or 1h30m
    #[arg(long, value_name = "DURATION", default_value = "30m", value_parser = duration)]
    timeout: Duration,
    #[command(flatten)]
    preflight: super::preflight::Choice,
    /// How progress is shown
    #[arg(long, short, value_enum, default_value = "text")]
    output: Output,
}

pub(super) async fn run(args: Args, color: bool) -> Result<()> {
    let reporter = Reporter::stdout(args.output, color);
    let result = unpivoted(args, &reporter).await;
    let success = Success {
        message: "the control plane is static pods",
        next: "edit them in the kubelet's folder of static pods; `hoist start` pivots again",
    };
    reporter.finish(result.as_ref().map(|()| success));
    result
}

async fn unpivoted(args: Args, reporter: &Reporter) -> Result<()> {
    let binary = std::env::current_exe().map_err(|error| Error::failed("find hoist's own binary", error))?;
    let options = start::Options {
        mode: start::Mode::Start,
        asset_dir: args.asset_dir,
        node_name: args.node_name,
        preflight: args.preflight.into(),
        validate: true,
        required_pods: Vec::new(),
        progress_timeout: args.progress_timeout,
        timeout: args.timeout,
        binary,
    };
    let host = Host::new(Path::new("/"), &args.pod_manifest_path);
    unpivot::unpivot(&host, &options, reporter, super::stop()?).await
}
