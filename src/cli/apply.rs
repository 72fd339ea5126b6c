//! `hoist apply`

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use kube::Client;
use serde_json::json;

use crate::api;
use crate::base::error::{Error, Finding, Result};
use crate::base::report::{Output, Reporter, Success};
use crate::desired::assets::{self, AssetSet, Manifest};
use crate::desired::config::version::numbers;
use crate::desired::config::{self, Version, duration};
use crate::ops::start::Input;
use crate::plane::addons::{self, AssetDir, Options, Plan};

use super::{WOULD_CHANGE, admin};

/// The version of what `--dry-run --output json` writes: fields may be added to it, never changed or taken away.
const SCHEMA: &str = "hoist.plan/v1";

/// `hoist apply`
///
/// Needs no root and no controller: only the API. What was edited in the cluster since its manifest was last applied
/// stands, unless --force-conflicts says otherwise.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Folders and files with manifests, which are applied to a tenant in place of an asset directory's
    #[arg(value_name = "FILE", requires = "tenant")]
    files: Vec<String>,
    /// The folder that `hoist render` wrote
    #[arg(long, value_name = "DIR", default_value = config::ASSET_DIR)]
    asset_dir: PathBuf,
    /// An admin's kubeconfig [default: auth/kubeconfig of the asset directory]
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    #[command(flatten)]
    tenant: admin::Tenant,
    /// Leave manifests/ alone
    #[arg(long)]
    addons_only: bool,
    /// Apply every manifest as it is, over edits in the cluster and over the fields of other managers
    #[arg(long)]
    force_conflicts: bool,
    /// Remove the objects that hoist applied from add-ons before and that addons/ does not have any more
    #[arg(long, conflicts_with = "tenant")]
    prune: bool,
    /// Also wait until the objects of the last rank are ready
    #[arg(long)]
    wait: bool,
    /// Show what would be done, by the API server's dry run, and change nothing
    #[arg(long, value_name = "server", value_parser = ["server"], num_args = 0..=1, require_equals = true, default_missing_value = "server")]
    dry_run: Option<String>,
    /// Show what would change as a unified diff, by the API server's dry run, and change nothing; exits 0 for no change, 2
    /// for some
    #[arg(long)]
    diff: bool,
    /// How long it may go without progress, such as an object that gets ready or a pod that changes state
    #[arg(long, value_name = "DURATION", default_value = "5m", value_parser = duration)]
    progress_timeout: Duration,
    /// How long it may take altogether, as 90s, 20m or 1h30m
    #[arg(long, value_name = "DURATION", default_value = "30m", value_parser = duration)]
    timeout: Duration,
    /// How progress is shown
    #[arg(long, short, value_enum, default_value = "text")]
    output: Output,
}

pub(super) async fn run(args: Args, color: bool, out: &mut dyn Write) -> Result<u8> {
    if args.dry_run.is_some() || args.diff {
        return preview(&args, color, out).await;
    }
    let reporter = Reporter::stdout(args.output, color);
    let result = applied(&args, &reporter).await;
    let message = result.as_ref().map(|summary| format!("{summary}")).unwrap_or_default();
    let next = match &args.tenant.tenant {
        Some(name) => format!("`hoist hosting kubeconfig {name}` prints the kubeconfig of the tenant"),
        None => format!("`kubectl --kubeconfig {} get pods -A` shows the cluster", kubeconfig(&args).display()),
    };
    reporter.finish(result.as_ref().map(|_| Success { message: &message, next: &next }));
    result.map(|_| 0)
}

async fn applied(args: &Args, reporter: &Reporter) -> Result<addons::Summary> {
    let (input, client) = open(args).await?;
    let (asset_dir, options, stop) = (input.asset_dir(args), options(args), super::stop()?);
    tokio::select! {
        biased;
        signal = stop => {
            Err(Error::Interrupted { signal, state: "what was applied stays; run the same command again to continue".into() })
        }
        summary = addons::apply_asset_dir(&client, &asset_dir, &options, reporter) => summary,
    }
}

/// Writes what would be done, and returns the exit code.
async fn preview(args: &Args, color: bool, out: &mut dyn Write) -> Result<u8> {
    let (input, client) = open(args).await?;
    let is_coloured = color && args.output == Output::Text && std::io::stdout().is_terminal();
    let plan = addons::plan(&client, &input.asset_dir(args), &options(args), is_coloured).await?;
    let Plan { lines, diff, summary, refused } = plan;
    let text = match (args.output, args.diff) {
        (Output::Json, _) => {
            let diff = if args.diff { json!(diff) } else { json!(null) };
            format!(
                "{}\n",
                json!({"schema": SCHEMA, "summary": summary, "changes": lines, "diff": diff, "refused": refused})
            )
        }
        (Output::Text, true) => diff.clone(),
        (Output::Text, false) => {
            let lines: String = lines.iter().map(|line| format!("{line}\n")).collect();
            format!("{lines}{summary} (nothing was done)\n")
        }
    };
    super::print(out, &text)?;
    if !refused.is_empty() {
        return Err(Error::Refused(refused));
    }
    Ok(if args.diff && !diff.is_empty() { WOULD_CHANGE } else { 0 })
}

/// What is applied.
enum Manifests {
    /// All of an asset directory.
    AssetDir(Box<Input>),
    /// What was named, to a tenant.
    Named(Vec<Manifest>),
}

impl Manifests {
    fn asset_dir(&self, args: &Args) -> AssetDir<'_> {
        match self {
            Self::AssetDir(input) => {
                AssetDir { manifests: input.manifests(), addons: input.addons(), addons_only: args.addons_only }
            }
            Self::Named(addons) => AssetDir { manifests: &[], addons, addons_only: true },
        }
    }
}

/// What is applied, and a way to its cluster.
async fn open(args: &Args) -> Result<(Manifests, Client)> {
    if args.tenant.tenant.is_none() {
        let dir = assets::absolute(&args.asset_dir)?;
        let input = Input::of(AssetSet::load(&dir)?, &dir)?;
        let client = admin::connect(&kubeconfig(args)).await?.client;
        return Ok((Manifests::AssetDir(Box::new(input)), client));
    }
    if args.files.is_empty() {
        let finding = Finding::new("--tenant", "nothing is named that is to be applied to the tenant");
        return Err(Error::Input(vec![
            finding.remedy("name folders and files with manifests: `hoist apply --tenant a DIR`"),
        ]));
    }
    let client = args.tenant.connect_at(&kubeconfig(args)).await?.client;
    let said =
        client.apiserver_version().await.map_err(|error| api::failed("reach the tenant's API server", &error))?;
    let (major, minor, patch) = numbers(&said.git_version).unwrap_or_default();
    let files = assets::addons(&args.files, Version { major, minor, patch })?;
    let (_, addons) = AssetSet { files, is_part: true }.manifests(Path::new(""))?;
    Ok((Manifests::Named(addons), client))
}

fn kubeconfig(args: &Args) -> PathBuf {
    admin::kubeconfig(&args.asset_dir, args.kubeconfig.as_deref())
}

fn options(args: &Args) -> Options {
    Options {
        force_conflicts: args.force_conflicts,
        prune: args.prune,
        wait: args.wait,
        tell_each: true,
        progress_timeout: args.progress_timeout,
        timeout: args.timeout,
    }
}
