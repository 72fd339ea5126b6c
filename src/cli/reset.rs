//! `hoist reset`

use std::io::{BufRead, Write};
use std::path::{Path, PathBuf};

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
        super::print(out, "[reset] Are you sure you want to proceed? [y/N]: ")?;
        out.flush().map_err(|error| Error::failed("write to standard output", error))?;
        confirmed(&mut std::io::stdin().lock())?;
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

/// Whether the user says yes, in kubeadm's words.
fn confirmed(input: &mut dyn BufRead) -> Result<()> {
    let mut answer = String::new();
    input.read_line(&mut answer).map_err(|error| Error::failed("read from standard input", error))?;
    match answer.trim() {
        yes if yes.eq_ignore_ascii_case("y") || yes.eq_ignore_ascii_case("yes") => Ok(()),
        _ => Err(Error::Failed {
            action: "proceed".into(),
            cause: "the user didn't answer (Y|y) in order to continue; nothing was changed".into(),
            next: Some("`hoist reset --force` does not ask".into()),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_yes_is_one() {
        for (answer, yes) in [
            ("y\n", true),
            ("Yes\n", true),
            ("YES", true),
            ("\n", false),
            ("", false),
            ("n\ny\n", false),
            ("yep\n", false),
        ] {
            assert_eq!(confirmed(&mut answer.as_bytes()).is_ok(), yes, "{answer:?}");
        }
    }
}
