//! `hoist guard`

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use super::controller::absolute;
use crate::base::error::{Error, Result};
use crate::base::report::{Output, Reporter};
use crate::desired::config::Controller;
use crate::node::system;
use crate::ops::guard;
use crate::plane::guard_pod;

/// `hoist guard`
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: Option<What>,
    /// The kubelet's folder of static pods
    #[arg(long, global = true, value_name = "DIR", default_value = "/etc/kubernetes/manifests", value_parser = absolute)]
    pod_manifest_path: PathBuf,
    /// This controller's Node
    #[arg(long, global = true, value_name = "NAME", env = "NODE_NAME", hide_env_values = true)]
    node_name: Option<String>,
    /// Where metrics are served, for Prometheus, under /metrics
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:10270")]
    metrics_bind_address: SocketAddr,
}

/// What else than guarding.
#[derive(Debug, clap::Subcommand)]
enum What {
    /// Raise the bridge if no API server runs here, before the kubelet starts (run by the kubelet's unit)
    Boot,
    /// Put guard on this node, with the bridge from the cluster's Secret (run by the DaemonSet hoist-guard)
    Install(Install),
    /// Remove guard, and the bridge that it keeps, from this node
    Remove,
    /// Let the other controllers take over before this machine is switched off (run by the kubelet's unit)
    Shutdown(Shutdown),
    /// Say by the exit code whether this machine may have the virtual address (run by keepalived)
    Check(Check),
}

#[derive(Debug, clap::Args)]
struct Shutdown {
    /// Only if systemd is stopping this machine
    #[arg(long)]
    if_stopping: bool,
}

#[derive(Debug, clap::Args)]
struct Check {
    /// What must be so
    #[arg(value_enum)]
    question: guard::Question,
    #[command(flatten)]
    place: guard::Place,
}

#[derive(Debug, clap::Args)]
struct Install {
    /// The bridge, as the Secret hoist-guard has it
    #[arg(long, value_name = "FILE")]
    from: PathBuf,
    /// hoist's binary
    #[arg(long, value_name = "FILE")]
    binary: PathBuf,
    /// This controller's address
    #[arg(long, value_name = "ADDRESS", env = "NODE_IP", hide_env_values = true)]
    node_ip: IpAddr,
}

pub(super) async fn run(args: Args) -> Result<()> {
    let host = system::host(Path::new("/"), &args.pod_manifest_path);
    let reporter = Reporter::stdout(Output::Text, false);
    let name = || args.node_name.clone().ok_or_else(|| Error::failed("guard", "--node-name says which Node this is"));
    match args.what {
        None => {
            let options = guard::Options { node_name: name()?, metrics: args.metrics_bind_address };
            let stop = super::stop()?;
            tokio::select! {
                biased;
                _ = stop => Ok(()),
                ended = guard::run(&host, &options, &reporter) => ended,
            }
        }
        Some(What::Boot) => {
            if guard_pod::boot(&host).await? {
                reporter.note("no API server runs here: the bridge is raised");
            }
            Ok(())
        }
        Some(What::Install(install)) => {
            let controller = Controller { name: name()?, address: install.node_ip, taints: Vec::new() };
            if guard_pod::install_from(&host, &install.from, &install.binary, controller)? {
                reporter.note("guard is on this node");
            }
            Ok(())
        }
        Some(What::Shutdown(shutdown)) => guard::shut_down(&host, shutdown.if_stopping, &reporter).await,
        Some(What::Check(check)) => guard::check(&host, check.question, &check.place).await,
        Some(What::Remove) => {
            guard::may_remove(&host).await?;
            guard_pod::remove(&host)?;
            reporter.note("guard, and the bridge that it kept, are gone from this node");
            Ok(())
        }
    }
}
