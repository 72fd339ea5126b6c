//! `hoist reset`

use std::io::Write;
use std::path::{Path, PathBuf};

use super::confirm;
use crate::base::error::{Error, Finding, Result};
use crate::base::report::{Output, Reporter, Success};
use crate::node::lock;
use crate::node::system;
use crate::ops::reset;

/// `hoist reset`
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Remove without asking
    #[arg(long, short)]
    force: bool,
    /// Only show what would be removed
    #[arg(long)]
    dry_run: bool,
    /// Also remove etcd's data; the cluster is gone then
    #[arg(long)]
    remove_etcd_data: bool,
    /// The kubelet's folder of static pods
    #[arg(long, value_name = "DIR", default_value = "/etc/kubernetes/manifests", value_parser = super::controller::absolute)]
    pod_manifest_path: PathBuf,
}

pub(super) async fn run(args: &Args, color: bool, out: &mut dyn Write) -> Result<()> {
    let host = system::host(Path::new("/"), &args.pod_manifest_path);
    if !host.world().is_root() {
        let finding = Finding::new("hoist reset", "must run as root").remedy("run it with sudo");
        return Err(Error::Preflight(vec![finding]));
    }
    let found = reset::look(&host, args.remove_etcd_data).await;
    super::print(out, &found.to_string())?;
    if args.dry_run || found.is_empty() {
        return Ok(());
    }
    if !args.force {
        confirm::ask("reset", "`hoist reset --force` does not ask", out)?;
    }
    let _lock = lock::take(&host)?;
    let reporter = Reporter::stdout(Output::Text, color);
    let result = reset::reset(&host, &found, &reporter).await;
    let success = Success {
        message: "hoist is off this node",
        next: "`hoist start` brings it back; the asset directory, images and the network plugin's state are still here",
    };
    reporter.finish(result.as_ref().map(|()| success));
    result
}
