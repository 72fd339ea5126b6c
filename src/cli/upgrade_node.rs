//! `hoist upgrade node`

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sched::{CloneFlags, setns};

use super::admin;
use super::controller::absolute;
use crate::base::error::{Error, Result};
use crate::base::files;
use crate::base::report::{Output, Reporter, Success};
use crate::desired::assets;
use crate::desired::config::duration;
use crate::node::system;
use crate::ops::start::Input;
use crate::ops::upgrade::node::{self, Options};
use crate::ops::upgrade::nodes::{self, Source, What};

/// `hoist upgrade node`
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The program of the new kubelet, or a .deb or .rpm that has it; with --image, its path in the image
    #[arg(long, value_name = "FILE", value_parser = absolute)]
    kubelet: PathBuf,
    /// Show what stands in the way, and change nothing; exits 3 if anything does
    #[arg(long, conflicts_with = "all_nodes")]
    dry_run: bool,
    /// From any machine, with an admin's kubeconfig: exchange the kubelet of each node that has not the asset directory's version,
    /// one after the other, controllers first; end with the first that fails
    #[arg(long)]
    all_nodes: bool,
    /// The image that has the new kubelet; without it, each node has the file
    #[arg(long, value_name = "IMAGE", requires = "all_nodes")]
    image: Option<String>,
    /// How many nodes may be under way at once; of controllers it is one
    #[arg(long, value_name = "NUMBER", default_value_t = 1, requires = "all_nodes", value_parser = clap::value_parser!(u16).range(1..))]
    max_unavailable: u16,
    /// How long it may take until the node is ready with the new kubelet; then the old one comes back
    #[arg(long, value_name = "DURATION", default_value = "1m", value_parser = duration)]
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
    /// For hoist's own pods: remove the program's file in the end, which only they need
    #[arg(long, hide = true)]
    consume: bool,
    /// For hoist's own pods: copy the program to this file, and do nothing else
    #[arg(long, hide = true, value_name = "FILE")]
    take: Option<PathBuf>,
}

pub(super) async fn run(args: &Args, asset_dir: &Path, kubeconfig: Option<&Path>, color: bool) -> Result<u8> {
    if let Some(to) = &args.take {
        return files::copy_program(&args.kubelet, to).map(|_| 0);
    }
    let reporter = Reporter::stdout(args.output, color);
    let result = match args.all_nodes {
        true => all(args, asset_dir, kubeconfig, &reporter).await,
        false => one(args, &reporter).await,
    };
    let next = if args.dry_run { "the same command without --dry-run" } else { "`kubectl get nodes` shows it" };
    reporter.finish(result.as_ref().map(|message| Success { message, next }));
    result.map(|_| 0)
}

async fn one(args: &Args, reporter: &Reporter) -> Result<String> {
    if args.in_host {
        enter_host()?;
    }
    let host = system::host(Path::new("/"), &args.pod_manifest_path);
    let options = Options { file: &args.kubelet, timeout: args.timeout, is_dry_run: args.dry_run };
    let done = node::run(&host, &options, reporter, super::stop()?).await;
    if args.consume {
        files::remove(&args.kubelet)?;
    }
    let done = done?;
    Ok(match args.dry_run {
        true => format!("{}: nothing stands in the way from {} to {}", done.node, done.from, done.to),
        false => done.to_string(),
    })
}

async fn all(args: &Args, asset_dir: &Path, kubeconfig: Option<&Path>, reporter: &Reporter) -> Result<String> {
    let input = Input::load(&assets::absolute(asset_dir)?)?;
    let client = admin::connect(&admin::kubeconfig(asset_dir, kubeconfig)).await?.client;
    let file = args.kubelet.to_string_lossy();
    let source = match &args.image {
        Some(image) => Source::Image { image, file: &file },
        None => Source::File(&file),
    };
    let options = nodes::Options {
        what: What::Kubelet(source),
        most: args.max_unavailable.into(),
        timeout: args.timeout,
        manifests: &args.pod_manifest_path.to_string_lossy(),
    };
    let count = nodes::run(&client, input.cluster(), &options, reporter, super::stop()?).await?;
    Ok(format!("the kubelets of {count} nodes are {}", input.cluster().kubernetes_version))
}

/// Enters the mounts of the machine's first process, of a container that sees the machine's processes. Nothing else may run in this
/// process yet: they are a process's own (setns(2)).
pub(super) fn enter_host() -> Result<()> {
    let mounts = Path::new("/proc/1/ns/mnt");
    let file = File::open(mounts).map_err(|error| Error::io("open", mounts, error))?;
    setns(file, CloneFlags::CLONE_NEWNS).map_err(|error| Error::failed("enter the machine's mounts", error))
}
