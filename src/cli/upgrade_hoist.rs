//! `hoist upgrade hoist`

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::admin;
use super::controller::absolute;
use super::upgrade_node::enter_host;
use crate::base::error::{Error, Finding, Result};
use crate::base::report::{Output, Reporter, Success};
use crate::desired::assets;
use crate::desired::config::duration;
use crate::node::system;
use crate::ops::start::Input;
use crate::ops::upgrade::hoist::{self, Options};
use crate::ops::upgrade::nodes::{self, What};

/// The program that this process runs, whatever has become of the name that it was started by, and in whichever mounts it is.
const OWN_PROGRAM: &str = "/proc/self/exe";

/// `hoist upgrade hoist`
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The image that has this hoist, where guard and the endpoint run an image; with --all-nodes, the one that brings the new hoist to
    /// each node [default: with --all-nodes, images.hoist of the asset directory]
    #[arg(long, value_name = "IMAGE")]
    image: Option<String>,
    /// From any machine, with an admin's kubeconfig: bring the image's hoist to each node, one after the other, controllers first; end
    /// with the first that fails
    #[arg(long)]
    all_nodes: bool,
    /// How many nodes may be under way at once; of controllers it is one
    #[arg(long, value_name = "NUMBER", default_value_t = 1, requires = "all_nodes", value_parser = clap::value_parser!(u16).range(1..))]
    max_unavailable: u16,
    /// How long guard, or the endpoint, may take to run the new hoist
    #[arg(long, value_name = "DURATION", default_value = "2m", value_parser = duration)]
    timeout: Duration,
    /// The kubelet's folder of static pods
    #[arg(long, value_name = "DIR", default_value = "/etc/kubernetes/manifests", value_parser = absolute)]
    pod_manifest_path: PathBuf,
    /// How progress is shown
    #[arg(long, short, value_enum, default_value = "text")]
    output: Output,
    /// For hoist's own pods: see the machine as its first process does
    #[arg(long, hide = true)]
    in_host: bool,
}

pub(super) async fn run(args: &Args, asset_dir: &Path, kubeconfig: Option<&Path>, color: bool) -> Result<u8> {
    let reporter = Reporter::stdout(args.output, color);
    let result = match args.all_nodes {
        true => all(args, asset_dir, kubeconfig, &reporter).await,
        false => one(args, &reporter).await,
    };
    let next = "`hoist status` on a controller shows what is wrong, if anything is";
    reporter.finish(result.as_ref().map(|message| Success { message, next }));
    result.map(|_| 0)
}

async fn one(args: &Args, reporter: &Reporter) -> Result<String> {
    if args.in_host {
        enter_host()?;
    }
    let host = system::host(Path::new("/"), &args.pod_manifest_path);
    let options = Options {
        program: Path::new(OWN_PROGRAM),
        image: args.image.as_deref(),
        timeout: args.timeout,
        // On one of all nodes there may be none of it.
        is_expected: !args.in_host,
    };
    let done = hoist::run(&host, &options, reporter, super::stop()?).await?;
    Ok(match done.exchanged.as_slice() {
        [] => "all of hoist on this node was this one before".to_owned(),
        exchanged => format!("this node has this hoist now: {}", exchanged.join(", ")),
    })
}

async fn all(args: &Args, asset_dir: &Path, kubeconfig: Option<&Path>, reporter: &Reporter) -> Result<String> {
    let input = Input::load(&assets::absolute(asset_dir)?)?;
    let image = args.image.as_ref().or(input.cluster().images.hoist.as_ref()).ok_or_else(|| {
        let finding =
            Finding::new("--all-nodes", "takes an image that has the new hoist, and the asset directory names none");
        Error::Input(vec![finding.remedy(
            "`hoist image save FILE` makes one; give it by --image, or run `hoist upgrade hoist` on each node",
        )])
    })?;
    let client = admin::connect(&admin::kubeconfig(asset_dir, kubeconfig)).await?.client;
    let options = nodes::Options {
        what: What::Hoist(image),
        most: args.max_unavailable.into(),
        timeout: args.timeout,
        manifests: &args.pod_manifest_path.to_string_lossy(),
    };
    let count = nodes::run(&client, input.cluster(), &options, reporter, super::stop()?).await?;
    Ok(format!("{count} nodes have the hoist of {image}"))
}
