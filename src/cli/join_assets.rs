//! `hoist join-assets`

use std::io::Write;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use time::OffsetDateTime;
use tokio::time::timeout;

use super::admin::{Choice, Tenant};
use crate::api;
use crate::base::error::{Error, Finding, Result};
use crate::base::files::{self, File};
use crate::desired::assets::{self, AssetSet};
use crate::desired::config;
use crate::desired::first_boot;
use crate::desired::join::{self, Worker};
use crate::desired::pki;
use crate::desired::tokens;
use crate::operator::tenant_assets;

/// How long the cluster may take to say what it knows of the token.
const LIMIT: Duration = Duration::from_secs(15);

/// `hoist join-assets`
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A bootstrap token: `hoist token create` prints one
    #[arg(long, value_parser = token)]
    token: String,
    #[command(flatten)]
    cluster: Choice,
    #[command(flatten)]
    tenant: Tenant,
    /// The folder to write to; existing files in it are replaced
    #[arg(long, value_name = "DIR")]
    output_dir: PathBuf,
    /// What to write: files for a machine's root, or one file for its first boot
    #[arg(long, value_enum, default_value = "dir")]
    format: Format,
    /// The name of the worker's Node [default: the machine's hostname]
    #[arg(long, visible_alias = "node-name", value_name = "NAME", value_parser = node)]
    node: Option<String>,
    /// The address of the worker's Node [default: that of the machine's default route]
    #[arg(long, value_name = "ADDRESS")]
    node_ip: Option<IpAddr>,
    /// Refuse a CA whose public key does not have this hash, sha256:…; may be given several times
    #[arg(long, value_name = "HASH")]
    discovery_token_ca_cert_hash: Vec<String>,
}

/// What is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// Files below etc/ and var/, as they stand on the worker
    Dir,
    /// User data of cloud-init: NAME.cloud-init.yaml
    CloudInit,
    /// A config of Ignition, version 3: NAME.ign
    Ignition,
}

/// A token on the command line. What is none is not repeated: it may be a mistyped secret.
pub(super) fn token(text: &str) -> Result<String, String> {
    if pki::is_token(text) {
        Ok(text.to_owned())
    } else {
        Err("is not of the form [a-z0-9]{6}.[a-z0-9]{16}".to_owned())
    }
}

/// A Node's name, as Kubernetes wants it.
fn node(text: &str) -> Result<String, String> {
    config::subdomain(text).map(|()| text.to_owned())
}

pub(super) async fn run(args: &Args, out: &mut dyn Write) -> Result<()> {
    let (assets, cluster) = match &args.tenant.tenant {
        Some(name) => {
            let admin = args.cluster.connect().await?;
            tenant_assets::of(&admin.client, &args.tenant.tenant_namespace, name).await?
        }
        None => {
            let dir = assets::absolute(&args.cluster.asset_dir)?;
            let assets = AssetSet::load(&dir)?;
            let cluster = assets.cluster(&dir)?;
            (assets, cluster)
        }
    };
    let worker = Worker { token: &args.token, node: args.node.as_deref(), node_ip: args.node_ip };
    let name = args.node.as_deref().unwrap_or(join::ANY);
    let format = match args.format {
        Format::Dir => None,
        Format::CloudInit => Some(first_boot::Format::CloudInit),
        Format::Ignition => Some(first_boot::Format::Ignition),
    };
    let written: Vec<(PathBuf, File)> = match format {
        None => {
            let mut files = join::files(&worker, &assets, &cluster)?;
            files.push(join::unit(&assets)?);
            let below = |path: &str| args.output_dir.join(path.trim_start_matches('/'));
            files.into_iter().map(|(path, file)| (below(&path), file)).collect()
        }
        Some(format) => {
            let file = join::first_boot(format, &worker, &assets, &cluster)?;
            vec![(args.output_dir.join(format.file_name(name)), file)]
        }
    };
    is_ca(&assets.text("tls/ca.crt")?, &args.discovery_token_ca_cert_hash)?;
    let checked = timeout(LIMIT, is_known(&assets, &args.token)).await;
    match checked.unwrap_or_else(|_| Err(Error::failed("read the bootstrap token", "no answer in time"))) {
        Ok(()) => {}
        Err(error @ Error::Input(_)) => return Err(error),
        // Workers are also prepared where the cluster cannot be reached, or before there is one.
        Err(error) => {
            let warning = Finding::new("--token", format!("was not checked: {error}")).warning();
            let warning = warning.remedy("`hoist token list` shows whether the cluster knows it");
            // Nobody is left to tell if standard error is closed.
            let _ = writeln!(std::io::stderr(), "{warning}");
        }
    }
    files::make_dir(&args.output_dir, 0o700)?;
    for (path, _) in &written {
        files::make_dir(path.parent().unwrap_or(Path::new("/")), 0o755)?;
    }
    files::write_all(written.iter().map(|(path, file)| (path.clone(), file)))?;
    let said: String = written.iter().map(|(path, _)| format!("wrote {}\n", path.display())).collect();
    super::print(out, &said)
}

/// Refuses an asset directory of another CA than the user expects.
fn is_ca(ca: &str, wanted: &[String]) -> Result<()> {
    let pins = pki::pins(ca.as_bytes())?;
    if wanted.is_empty() || wanted.iter().any(|wanted| pins.contains(&wanted.to_ascii_lowercase())) {
        return Ok(());
    }
    let message = format!("is not that of tls/ca.crt, which is {}", pins.join(" or "));
    let finding = Finding::new("--discovery-token-ca-cert-hash", message);
    Err(Error::Input(vec![finding.remedy("it is another cluster's asset directory, or the hash was copied in part")]))
}

/// Asks the cluster whether a kubelet will be let in by this token.
async fn is_known(assets: &AssetSet, token: &str) -> Result<()> {
    let admin = api::admin(&assets.text("auth/kubeconfig")?).await?;
    let id = token.split('.').next().unwrap_or_default();
    let known = api::tokens::get(&admin.client, id).await?;
    let problem = tokens::problem(token, known.as_ref(), OffsetDateTime::now_utc());
    problem.map_or(Ok(()), |finding| Err(Error::Input(vec![finding])))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_has_a_name_that_kubernetes_takes() {
        for good in ["w1", "worker-1.example.com", "0"] {
            assert!(node(good).is_ok(), "{good}");
        }
        for bad in ["", "W1", "-a", "a-", "a..b", "a b", "a\"b", "a_b", &"a".repeat(254)] {
            assert!(node(bad).is_err(), "{bad}");
        }
    }
}
