//! `hoist hosting`

use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;

use serde_json::json;
use time::OffsetDateTime;

use super::admin::Choice;
use super::output::{self, Output};
use crate::api::apply::{self, Change};
use crate::base::error::{Error, Finding, Result};
use crate::base::files;
use crate::desired::assets::{self, AssetSet};
use crate::operator::{TENANTS, describe, install, snapshots};

/// The version of what `--output json` writes: fields may be added to it, never changed or taken away.
const SCHEMA: &str = "hoist.hosting.status/v1";

/// `hoist hosting`
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// Apply what hosted control planes take: the CRD, the operator, and its rights in the namespaces of tenants
    Install(Install),
    /// Print the admin's kubeconfig of a tenant
    Kubeconfig {
        /// The tenant
        #[arg(value_name = "NAME")]
        name: String,
        /// Its namespace
        #[arg(long, short, value_name = "NAMESPACE", default_value = TENANTS)]
        namespace: String,
        #[command(flatten)]
        cluster: Choice,
    },
    /// Show the tenants, and what those wait for that are not ready; the exit code is 0 if all are
    Status(Status),
    /// Delete the folder of a tenant that is gone (run by a pod of the operator's)
    #[command(hide = true)]
    Clean {
        /// Where the folders are
        #[arg(long, value_name = "DIR")]
        root: PathBuf,
        /// The folder in it
        #[arg(long, value_name = "NAME")]
        folder: String,
    },
    /// Take a snapshot of a tenant's etcd (run by a pod of the operator's)
    #[command(hide = true)]
    Snapshot {
        /// Where a member of etcd listens; the first one that gives a snapshot does
        #[arg(long, value_name = "ADDRESS", required = true)]
        etcd: Vec<SocketAddr>,
        /// The folder with the certificates that it lets in
        #[arg(long, value_name = "DIR")]
        secrets: PathBuf,
        /// Where snapshots are
        #[arg(long, value_name = "DIR")]
        dir: PathBuf,
        /// How many are kept
        #[arg(long, value_name = "NUMBER")]
        keep: usize,
        /// The file that gets its name
        #[arg(long, value_name = "FILE")]
        say: PathBuf,
    },
    /// Put a restored snapshot in the place of a tenant's data (run by a pod of the operator's)
    #[command(hide = true)]
    Exchange {
        /// The tenant's folder
        #[arg(long, value_name = "DIR")]
        root: PathBuf,
        /// The snapshot
        #[arg(long, value_name = "NAME")]
        file: String,
        /// What this restore is known by
        #[arg(long)]
        token: String,
    },
}

#[derive(Debug, clap::Args)]
struct Install {
    /// A namespace in which there may be tenants, which is made if it is not there; may be given several times
    #[arg(long, value_name = "NAMESPACE", default_values = [TENANTS])]
    tenant_namespace: Vec<String>,
    /// Print it, and apply nothing
    #[arg(long)]
    print: bool,
    #[command(flatten)]
    cluster: Choice,
}

#[derive(Debug, clap::Args)]
struct Status {
    /// The tenant [default: all]
    #[arg(value_name = "NAME")]
    name: Option<String>,
    /// The namespace of tenants [default: all]
    #[arg(long, short, value_name = "NAMESPACE")]
    namespace: Option<String>,
    /// How it is shown
    #[arg(long, short, value_enum, default_value = "text")]
    output: Output,
    #[command(flatten)]
    cluster: Choice,
}

pub(super) async fn run(args: Args, out: &mut dyn Write) -> Result<u8> {
    match args.what {
        What::Install(args) => install(&args, out).await?,
        What::Kubeconfig { name, namespace, cluster } => {
            let admin = cluster.connect().await?;
            super::print(out, &describe::kubeconfig(&admin.client, &namespace, &name).await?)?;
        }
        What::Status(args) => return status(&args, out).await,
        What::Clean { root, folder } => {
            if folder.is_empty() || folder.starts_with('.') || folder.contains('/') {
                return Err(Error::Input(vec![Finding::new("--folder", "is not the name of a tenant's folder")]));
            }
            files::remove_dir(&root.join(folder))?;
        }
        What::Snapshot { etcd, secrets, dir, keep, say } => {
            let name = snapshots::take(&etcd, &secrets, &dir, keep, OffsetDateTime::now_utc()).await?;
            snapshots::say(&say, &name)?;
            super::print(out, &format!("took the snapshot {name}\n"))?;
        }
        What::Exchange { root, file, token } => snapshots::exchange(&root, &file, &token)?,
    }
    Ok(0)
}

async fn install(args: &Install, out: &mut dyn Write) -> Result<()> {
    let dir = assets::absolute(&args.cluster.asset_dir)?;
    let cluster = AssetSet::load(&dir)?.cluster(&dir)?;
    if args.print {
        let texts = install::texts(&cluster, &args.tenant_namespace)?;
        let texts: Vec<_> = texts.into_iter().map(|(_, text)| text).collect();
        return super::print(out, &texts.join("---\n"));
    }
    let manifests = install::manifests(&cluster, &args.tenant_namespace)?;
    let admin = args.cluster.connect().await?;
    let outcome = apply::apply(&admin.client, &manifests, false).await?.accepted()?;
    let changed = outcome.changes.iter().filter(|one| one.change != Change::Unchanged).count();
    let namespaces = args.tenant_namespace.join(", ");
    let said = format!(
        "{} objects stand, {changed} of them new or changed; tenants may be in: {namespaces}\n",
        outcome.applied
    );
    super::print(out, &said)
}

async fn status(args: &Status, out: &mut dyn Write) -> Result<u8> {
    let admin = args.cluster.connect().await?;
    let mut tenants = describe::list(&admin.client, args.namespace.as_deref()).await?;
    if let Some(name) = &args.name {
        tenants.retain(|tenant| tenant["metadata"]["name"] == **name);
        if tenants.is_empty() {
            return Err(Error::Failed {
                action: format!("show the tenant {name}"),
                cause: "there is none of that name".into(),
                next: Some("`hoist hosting status` shows those that there are".into()),
            });
        }
    }
    let is_ready = |tenant: &serde_json::Value| describe::is_ready(tenant);
    let text = match args.output {
        Output::Text => describe::text(&tenants),
        Output::Json | Output::Yaml => {
            let shown = |tenant: &serde_json::Value| {
                json!({"namespace": tenant["metadata"]["namespace"], "name": tenant["metadata"]["name"],
                    "ready": is_ready(tenant), "status": tenant["status"]})
            };
            let all = json!({"schema": SCHEMA, "tenants": tenants.iter().map(shown).collect::<Vec<_>>()});
            if args.output == Output::Json { format!("{all}\n") } else { output::yaml(&all)? }
        }
    };
    super::print(out, &text)?;
    Ok(u8::from(!tenants.iter().all(is_ready)))
}
