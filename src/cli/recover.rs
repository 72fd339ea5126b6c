//! `hoist recover`

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::api::observe::Required;
use crate::config::duration;
use crate::error::{Error, Result};
use crate::host::Host;
use crate::recover::{self, Data, Options, Outcome};
use crate::report::{Output, Reporter, Success};
use crate::start::{self, Mode};

/// `hoist recover`
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The folder that `hoist render` wrote; with --backup, a new one is filled from it
    #[arg(long, value_name = "DIR")]
    asset_dir: PathBuf,
    /// Restore etcd's data from this file of `etcdctl snapshot save` first; the data that is there is moved aside
    #[arg(long, value_name = "FILE", conflicts_with = "backup")]
    etcd_snapshot: Option<PathBuf>,
    /// Restore etcd's data, and an asset directory that is not there, from this file of `hoist backup` first
    #[arg(long, value_name = "FILE")]
    backup: Option<PathBuf>,
    /// The file with the secret key that the backup is encrypted to
    #[arg(long, value_name = "FILE", requires = "backup")]
    identity: Option<PathBuf>,
    /// Show what would be done, and do none of it
    #[arg(long)]
    dry_run: bool,
    /// Apply every manifest as it stands in the asset directory, over what was edited in the cluster
    #[arg(long)]
    force_manifests: bool,
    /// The kubelet's folder of static pods
    #[arg(long, value_name = "DIR", default_value = "/etc/kubernetes/manifests", value_parser = super::start::absolute)]
    pod_manifest_path: PathBuf,
    /// Which controller of cluster.yaml this machine is [default: the one whose address it has]
    #[arg(long, value_name = "NAME")]
    node_name: Option<String>,
    /// Refuse an asset directory whose references or certificates do not go together, as `hoist validate` says
    #[arg(long, value_name = "BOOL", default_value_t = true, action = clap::ArgAction::Set)]
    validate: bool,
    /// Workloads (NAMESPACE/NAME of a DaemonSet, Deployment, StatefulSet or Pod) whose pods must be ready before the
    /// bridge is lowered
    #[arg(long, value_name = "NAMESPACE/NAME", value_delimiter = ',', default_values = super::start::REQUIRED)]
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

pub(super) async fn run(args: Args, color: bool) -> Result<()> {
    let reporter = Reporter::stdout(args.output, color);
    let kubeconfig = args.asset_dir.join("auth/kubeconfig");
    let dry = args.dry_run;
    let result = recovered(args, &reporter).await;
    let next = match dry {
        true => "run it without --dry-run".to_owned(),
        false => format!("`kubectl --kubeconfig {} get pods -A` shows the cluster", kubeconfig.display()),
    };
    let message = |outcome: &Outcome| match outcome {
        Outcome::Planned => "nothing was changed",
        Outcome::Recovered => "the cluster serves itself again",
    };
    reporter.finish(result.as_ref().map(|outcome| Success { message: message(outcome), next: &next }));
    result.map(drop)
}

async fn recovered(args: Args, reporter: &Reporter) -> Result<Outcome> {
    let binary = std::env::current_exe().map_err(|error| Error::failed("find hoist's own binary", error))?;
    let data = match (args.etcd_snapshot, args.backup) {
        (Some(file), _) => Data::Snapshot(file),
        (None, Some(file)) => Data::Backup { file, identity: args.identity },
        (None, None) => Data::There,
    };
    let options = Options {
        data,
        dry_run: args.dry_run,
        start: start::Options {
            asset_dir: args.asset_dir,
            node_name: args.node_name,
            preflight: args.preflight.into(),
            validate: args.validate,
            required_pods: args.required_pods,
            progress_timeout: args.progress_timeout,
            timeout: args.timeout,
            binary,
            mode: Mode::Recover { force_manifests: args.force_manifests },
        },
    };
    let host = Host::new(Path::new("/"), &args.pod_manifest_path);
    recover::recover(&host, &options, reporter, super::stop()?).await
}
