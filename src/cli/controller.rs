//! The options that `start`, `recover` and `unpivot` share: which controller, from what, and how long it may take.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::api::observe::Required;
use crate::base::error::{Error, Result};
use crate::base::report::{Output, Reporter};
use crate::desired::config::{self, duration};
use crate::node::host::Host;
use crate::node::system;
use crate::ops::start::{Mode, Options};

/// The workloads without which there is no control plane.
const REQUIRED: [&str; 3] =
    ["kube-system/kube-apiserver", "kube-system/kube-controller-manager", "kube-system/kube-scheduler"];

/// What a command works on.
#[derive(Debug, clap::Args)]
pub(super) struct Controller {
    /// The folder that `hoist render` wrote
    #[arg(long, value_name = "DIR", default_value = config::ASSET_DIR)]
    pub(super) asset_dir: PathBuf,
    /// The kubelet's folder of static pods
    #[arg(long, value_name = "DIR", default_value = "/etc/kubernetes/manifests", value_parser = absolute)]
    pod_manifest_path: PathBuf,
    /// Which controller of cluster.yaml this machine is [default: the one whose address this machine has]
    #[arg(long, value_name = "NAME")]
    node_name: Option<String>,
    /// How long it may go without progress, such as an image that is being pulled or a pod that changes state
    #[arg(long, value_name = "DURATION", default_value = "5m", value_parser = duration)]
    progress_timeout: Duration,
    /// How long it may take altogether, as 90s, 20m or 1h30m
    #[arg(long, value_name = "DURATION", default_value = "30m", value_parser = duration)]
    timeout: Duration,
    #[command(flatten)]
    preflight: super::preflight::Choice,
    /// How progress is shown
    #[arg(long, short, value_enum, default_value = "text")]
    output: Output,
}

/// What must hold before the bridge is lowered.
#[derive(Debug, clap::Args)]
pub(super) struct Conditions {
    /// Refuse an asset directory in which `hoist validate` finds wrong references or certificates
    #[arg(long, value_name = "BOOL", default_value_t = true, action = clap::ArgAction::Set)]
    validate: bool,
    /// Workloads (NAMESPACE/NAME of a DaemonSet, Deployment, StatefulSet or Pod) whose pods must be ready before the
    /// bridge is lowered
    #[arg(long, value_name = "NAMESPACE/NAME", value_delimiter = ',', default_values = REQUIRED)]
    required_pods: Vec<Required>,
}

impl Controller {
    /// Who tells how it goes.
    pub(super) fn reporter(&self, color: bool) -> Reporter {
        Reporter::stdout(self.output, color)
    }

    /// The command that shows what has become of it.
    pub(super) fn look(&self) -> String {
        format!(
            "`kubectl --kubeconfig {} get pods -A` shows the cluster",
            self.asset_dir.join("auth/kubeconfig").display()
        )
    }

    /// This machine.
    pub(super) fn host(&self) -> Host {
        system::host(Path::new("/"), &self.pod_manifest_path)
    }

    /// All of it; without conditions, whoever runs it has its own.
    ///
    /// # Errors
    /// hoist's own binary cannot be found.
    pub(super) fn options(self, mode: Mode, conditions: Option<Conditions>) -> Result<Options> {
        let binary = std::env::current_exe().map_err(|error| Error::failed("find hoist's own binary", error))?;
        let (validate, required_pods) =
            conditions.map_or((true, Vec::new()), |conditions| (conditions.validate, conditions.required_pods));
        Ok(Options {
            asset_dir: self.asset_dir,
            node_name: self.node_name,
            preflight: self.preflight.into(),
            validate,
            required_pods,
            progress_timeout: self.progress_timeout,
            timeout: self.timeout,
            binary,
            mode,
        })
    }
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
