//! `hoist start`

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::api::observe::Required;
use crate::config::duration;
use crate::error::{Error, Result};
use crate::host::Host;
use crate::report::{Output, Reporter, Success};
use crate::start;

/// The workloads without which there is no control plane.
pub(super) const REQUIRED: [&str; 3] =
    ["kube-system/kube-apiserver", "kube-system/kube-controller-manager", "kube-system/kube-scheduler"];

/// `hoist start`
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The folder that `hoist render` wrote
    #[arg(long, value_name = "DIR")]
    asset_dir: PathBuf,
    /// The kubelet's folder of static pods
    #[arg(long, value_name = "DIR", default_value = "/etc/kubernetes/manifests", value_parser = absolute)]
    pod_manifest_path: PathBuf,
    /// Which controller of cluster.yaml this machine is [default: the one whose address it has]
    #[arg(long, value_name = "NAME")]
    node_name: Option<String>,
    /// Refuse an asset directory whose references or certificates do not go together, as `hoist validate` says
    #[arg(long, value_name = "BOOL", default_value_t = true, action = clap::ArgAction::Set)]
    validate: bool,
    /// Workloads (NAMESPACE/NAME of a DaemonSet, Deployment, StatefulSet or Pod) whose pods must be ready before the
    /// bridge is lowered
    #[arg(long, value_name = "NAMESPACE/NAME", value_delimiter = ',', default_values = REQUIRED)]
    required_pods: Vec<Required>,
    /// How long it may go without any progress; an image that is being pulled and a pod that changes state are some
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

/// A folder on the host, which the kubelet and hoist must take for the same.
pub(super) fn absolute(text: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(text);
    let plain = path.components().skip(1).all(|part| matches!(part, std::path::Component::Normal(_)));
    match path.is_absolute() && plain && path != Path::new("/") {
        true => Ok(path),
        false => Err("it must be an absolute path without `..`, such as /etc/kubernetes/manifests".to_owned()),
    }
}

pub(super) async fn run(args: Args, color: bool) -> Result<()> {
    let reporter = Reporter::stdout(args.output, color);
    let kubeconfig = args.asset_dir.join("auth/kubeconfig");
    // Every failure from here on is told to whoever reads the events, too.
    let result = started(args, &reporter).await;
    let next = format!("`kubectl --kubeconfig {} get pods -A` shows the cluster", kubeconfig.display());
    reporter.finish(result.as_ref().map(|()| Success { message: "the cluster serves itself", next: &next }));
    result
}

async fn started(args: Args, reporter: &Reporter) -> Result<()> {
    let binary = std::env::current_exe().map_err(|error| Error::failed("find hoist's own binary", error))?;
    let options = start::Options {
        asset_dir: args.asset_dir,
        node_name: args.node_name,
        preflight: args.preflight.into(),
        validate: args.validate,
        required_pods: args.required_pods,
        progress_timeout: args.progress_timeout,
        timeout: args.timeout,
        binary,
        mode: start::Mode::Start,
    };
    let host = Host::new(Path::new("/"), &args.pod_manifest_path);
    start::start(&host, &options, reporter, super::stop()?).await
}
