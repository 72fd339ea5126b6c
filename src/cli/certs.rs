//! `hoist certs`

use std::io::Write;
use std::path::{Path, PathBuf};

use time::{Duration, OffsetDateTime};

use super::controller::absolute;
use super::output::{self, Output};
use crate::base::error::{Error, Finding, Result};
use crate::base::input::{self, CONFIG_LIMIT};
use crate::desired::assets::{self, AssetSet};
use crate::desired::config;
use crate::desired::rotation::{self, Asked};
use crate::node::system;
use crate::ops::certs;

/// `hoist certs`
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: What,
    /// The kubelet's folder of static pods
    #[arg(long, global = true, value_name = "DIR", default_value = "/etc/kubernetes/manifests", value_parser = absolute)]
    pod_manifest_path: PathBuf,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// Show every copy of every certificate of this machine and its cluster: its end, its CA, and whether it is served
    #[command(visible_alias = "check-expiration")]
    List(List),
    /// Renew certificates of this controller and its cluster now, as guard does by itself before they end
    Renew(Renew),
    /// Change a key or a CA of the cluster while everything serves: add the new one, use it everywhere, and drop the old one
    Rotate(Rotate),
}

#[derive(Debug, clap::Args)]
struct Renew {
    /// The certificates, by the names that `hoist certs list` shows [default: all]
    #[arg(value_name = "NAME")]
    names: Vec<String>,
    /// Show what would be renewed, and change nothing
    #[arg(long)]
    dry_run: bool,
}

#[derive(Debug, clap::Args)]
struct Rotate {
    /// What is changed
    #[arg(value_name = "NAME", value_enum)]
    keys: Keys,
    /// Show the phases, what each waits for, and which one it is in; change nothing
    #[arg(long)]
    plan: bool,
    /// Go on with a rotation that is under way, and begin none
    #[arg(long = "continue", conflicts_with_all = ["abort", "finish"])]
    go_on: bool,
    /// Lead a rotation back to the old key, and drop the new one
    #[arg(long, conflicts_with = "finish")]
    abort: bool,
    /// Drop the old key once nothing needs it any more
    #[arg(long)]
    finish: bool,
    /// The folder that `hoist render` wrote, which gets the keys too [default: the one that this controller was started from, or
    /// /etc/hoist/assets, where it is there]
    #[arg(long, value_name = "DIR")]
    asset_dir: Option<PathBuf>,
}

/// What can be rotated.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Keys {
    /// The key that Secrets are encrypted with in etcd
    EncryptionKey,
    /// The key that signs the tokens of service accounts
    ServiceAccount,
    /// The CA of what API servers show to aggregated ones
    FrontProxyCa,
    /// The CA of etcd, its members and their clients
    EtcdCa,
}

#[derive(Debug, clap::Args)]
struct List {
    /// The folder that `hoist render` wrote [default: /etc/hoist/assets, where it is there]
    #[arg(long, value_name = "DIR")]
    asset_dir: Option<PathBuf>,
    /// An admin's kubeconfig [default: the one that guard keeps on a controller, or that of the asset directory]
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// End with the exit code 1 if a certificate ends within this time, as 30d, 12h or 1h30m
    #[arg(long, value_name = "DURATION", value_parser = within)]
    within: Option<Duration>,
    /// How they are shown
    #[arg(long, short, value_enum, default_value = "text")]
    output: Output,
}

/// A duration that may be given in days.
fn within(text: &str) -> Result<Duration, String> {
    const FORM: &str = "is not a duration such as 30d, 12h or 1h30m";
    if let Some(days) = text.strip_suffix('d') {
        return days.parse::<u32>().map(|days| Duration::days(days.into())).map_err(|_| FORM.to_owned());
    }
    let time = config::duration(text).map_err(|_| FORM.to_owned())?;
    Duration::try_from(time).map_err(|error| error.to_string())
}

pub(super) async fn run(args: &Args, out: &mut dyn Write) -> Result<u8> {
    match &args.what {
        What::List(list) => self::list(args, list, out).await,
        What::Renew(renew) => {
            let host = system::host(Path::new("/"), &args.pod_manifest_path);
            let asked = certs::ByHand { host: &host, names: &renew.names, is_dry_run: renew.dry_run };
            certs::by_hand(&asked, &mut |line| super::print(out, &format!("{line}\n"))).await?;
            Ok(0)
        }
        What::Rotate(rotate) => {
            let host = system::host(Path::new("/"), &args.pod_manifest_path);
            let keys = match rotate.keys {
                Keys::EncryptionKey => rotation::Keys::EncryptionKey,
                Keys::ServiceAccount => rotation::Keys::ServiceAccount,
                Keys::FrontProxyCa => rotation::Keys::FrontProxyCa,
                Keys::EtcdCa => rotation::Keys::EtcdCa,
            };
            let asked = match () {
                () if rotate.abort => Asked::Abort,
                () if rotate.finish => Asked::Finish,
                () if rotate.go_on => Asked::Continue,
                () => Asked::Rotate,
            };
            let asset_dir = rotate.asset_dir.as_deref().map(assets::absolute).transpose()?;
            let asked = certs::Rotate { host: &host, keys, asked, is_plan: rotate.plan, asset_dir };
            certs::rotate(&asked, &mut |line| super::print(out, &format!("{line}\n"))).await?;
            Ok(0)
        }
    }
}

async fn list(args: &Args, list: &List, out: &mut dyn Write) -> Result<u8> {
    let host = system::host(Path::new("/"), &args.pod_manifest_path);
    let default = Some(PathBuf::from(config::ASSET_DIR)).filter(|dir| dir.join("cluster.yaml").is_file());
    let dir = list.asset_dir.clone().or(default).map(|dir| assets::absolute(&dir)).transpose()?;
    let assets = dir.as_deref().map(AssetSet::load).transpose()?;
    let kubeconfig = list.kubeconfig.as_deref().map(|path| {
        let text = input::read(path, CONFIG_LIMIT).map_err(|unread| unread.into_error(path))?;
        Ok::<_, Error>(String::from_utf8_lossy(&text).into_owned())
    });
    let kubeconfig = kubeconfig.transpose()?;
    let subject =
        certs::Subject { host: &host, assets: dir.as_deref().zip(assets.as_ref()), kubeconfig: kubeconfig.as_deref() };
    let found = certs::look(&subject, OffsetDateTime::now_utc()).await?;
    super::print(out, &output::shown(&found, list.output)?)?;
    if list.within.is_some() && found.certificates.is_empty() {
        let finding = Finding::new("--within", "no certificate was looked at, so nobody knows when one ends");
        return Err(Error::Preflight(vec![finding.remedy(
            "run it as root on a node, or name an asset directory (--asset-dir) or a cluster (--kubeconfig)",
        )]));
    }
    Ok(u8::from(list.within.is_some_and(|time| found.ends_within(time))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_may_be_given_in_days() {
        assert_eq!(within("30d"), Ok(Duration::days(30)));
        assert_eq!(within("1h30m"), Ok(Duration::minutes(90)));
        for text in ["d", "-1d", "1.5d", "30", "1w", ""] {
            assert_eq!(within(text).unwrap_err(), "is not a duration such as 30d, 12h or 1h30m", "{text}");
        }
    }
}
