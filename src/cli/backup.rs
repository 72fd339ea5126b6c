//! `hoist backup`

use std::path::{Path, PathBuf};

use crate::base::error::Result;
use crate::base::report::{Output, Reporter, Success};
use crate::desired::config;
use crate::node::system;
use crate::ops::backup::sealed::Recipient;
use crate::ops::backup::{self, Options};

/// `hoist backup`
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The folder that `hoist render` wrote
    #[arg(long, value_name = "DIR", default_value = config::ASSET_DIR)]
    asset_dir: PathBuf,
    /// The file to write; only root can read it
    #[arg(long, value_name = "FILE")]
    output_file: PathBuf,
    /// Encrypt the file to this public key of age's, age1…; may be given several times. Without one, the file is not
    /// encrypted, and holds every key of the cluster
    #[arg(long, value_name = "AGE_RECIPIENT")]
    recipient: Vec<Recipient>,
    /// Replace an existing file
    #[arg(long)]
    force: bool,
    /// Which controller of cluster.yaml this machine is [default: the one whose address this machine has]
    #[arg(long, value_name = "NAME")]
    node_name: Option<String>,
    /// How progress is shown
    #[arg(long, short, value_enum, default_value = "text")]
    output: Output,
}

pub(super) async fn run(args: Args, color: bool) -> Result<()> {
    let reporter = Reporter::stdout(args.output, color);
    let options = Options {
        asset_dir: args.asset_dir,
        output_file: args.output_file,
        recipients: args.recipient,
        force: args.force,
        node_name: args.node_name,
    };
    let host = system::host(Path::new("/"), Path::new("/etc/kubernetes/manifests"));
    let result = match super::stop() {
        Ok(stop) => backup::backup(&host, &options, &reporter, stop).await,
        Err(error) => Err(error),
    };
    let next = format!(
        "keep {} away from this machine; `hoist recover --backup FILE` brings the cluster back from it",
        options.output_file.display()
    );
    reporter.finish(result.as_ref().map(|()| Success { message: "the backup is written", next: &next }));
    result
}
