//! `hoist upgrade`

use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use time::OffsetDateTime;

use super::admin;
use super::output::{self, Output};
use super::{upgrade_hoist, upgrade_node};
use crate::api;
use crate::base::error::{Error, Finding, Result};
use crate::base::input::{self, CONFIG_LIMIT};
use crate::base::report::{self, Reporter, Success};
use crate::desired::assets;
use crate::desired::config::{self, duration};
use crate::node::system::System;
use crate::node::world::World;
use crate::ops::start::Input;
use crate::ops::upgrade::{self, Ended, Options, Step, Subject, Way};

/// The exit code of a plan that something stands in the way of: that of an input that is not valid.
const IN_THE_WAY: u8 = 3;

/// `hoist upgrade`
///
/// Needs no root and no controller: only the API, at the address of each controller. `node` is for the node itself, as root.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: What,
    /// The folder that `hoist render` wrote for the new version
    #[arg(long, global = true, value_name = "DIR", default_value = config::ASSET_DIR)]
    asset_dir: PathBuf,
    /// An admin's kubeconfig [default: auth/kubeconfig of the asset directory]
    #[arg(long, global = true, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// Show what an upgrade to the asset directory's version would do, and all that stands in the way; exits 3 if anything does
    Plan(Plan),
    /// Bring the control plane to the asset directory's version; run again, it goes on
    Apply(Apply),
    /// Bring the control plane back to the version that guard keeps, as long as the new one is not committed
    Rollback(Run),
    /// On a node, as root: exchange its kubelet while its pods run on; or, with --all-nodes, those of all nodes
    Node(upgrade_node::Args),
    /// On a node, as root: switch its guard and endpoint to this hoist while they serve; or, with --all-nodes, those of all nodes
    Hoist(upgrade_hoist::Args),
}

#[derive(Debug, clap::Args)]
struct Plan {
    /// The version to plan for; the asset directory is rendered for it in memory [default: the asset directory's]
    #[arg(long, value_name = "VERSION")]
    to: Option<String>,
    /// Do not count fields that others have edited in the cluster
    #[arg(long)]
    force_conflicts: bool,
    /// How it is shown
    #[arg(long, short, value_enum, default_value = "text")]
    output: Output,
}

#[derive(Debug, clap::Args)]
struct Apply {
    /// The version that is expected of the asset directory
    #[arg(long, value_name = "VERSION")]
    to: Option<String>,
    /// Take over fields of the control plane's workloads that others have edited in the cluster
    #[arg(long)]
    force_conflicts: bool,
    /// For how long the new version serves on trial before it is committed
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = duration)]
    soak: Duration,
    /// Stop after this step; without the flag, the same command goes on
    #[arg(long, value_enum, value_name = "STEP")]
    pause_after: Option<Step>,
    /// Exchange etcd, too, one controller's after the other, once the new version is committed
    #[arg(long, value_name = "BOOL", default_value_t = true, action = clap::ArgAction::Set)]
    etcd_upgrade: bool,
    /// Go back by itself if the new version does not serve
    #[arg(long, value_name = "BOOL", default_value_t = true, action = clap::ArgAction::Set)]
    automatic_rollback: bool,
    #[command(flatten)]
    run: Run,
}

#[derive(Debug, clap::Args)]
struct Run {
    /// How long it may go without progress, such as an image that is being pulled or a pod that changes state
    #[arg(long, value_name = "DURATION", default_value = "5m", value_parser = duration)]
    progress_timeout: Duration,
    /// How long it may take altogether, as 90s, 20m or 1h30m
    #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = duration)]
    timeout: Duration,
    /// How progress is shown
    #[arg(long, short, value_enum, default_value = "text")]
    output: report::Output,
}

impl Run {
    fn options(&self) -> Options {
        Options {
            soak: Duration::ZERO,
            pause_after: None,
            etcd: false,
            turns_round: false,
            progress_timeout: self.progress_timeout,
            timeout: self.timeout,
            hostname: System.hostname(),
        }
    }
}

pub(super) async fn run(args: &Args, color: bool, out: &mut dyn Write) -> Result<u8> {
    match &args.what {
        What::Plan(plan) => {
            let subject = planned(args, plan.to.as_deref()).await?;
            let found = self::plan(args, &subject, plan.force_conflicts).await?;
            super::print(out, &output::shown(&found, plan.output)?)?;
            Ok(if found.in_the_way.is_empty() { 0 } else { IN_THE_WAY })
        }
        What::Apply(apply) => {
            let reporter = Reporter::stdout(apply.run.output, color);
            let result = applied(args, apply, &reporter).await;
            finish(args, &reporter, result)
        }
        What::Node(node) => upgrade_node::run(node, &args.asset_dir, args.kubeconfig.as_deref(), color).await,
        What::Hoist(hoist) => upgrade_hoist::run(hoist, &args.asset_dir, args.kubeconfig.as_deref(), color).await,
        What::Rollback(run) => {
            let reporter = Reporter::stdout(run.output, color);
            let rolled_back = async {
                let subject = open(args, None).await?;
                upgrade::run(&subject, Way::Back, &run.options(), &reporter, super::stop()?).await?;
                Ok("the control plane runs the version that guard keeps".to_owned())
            };
            let result = rolled_back.await;
            finish(args, &reporter, result)
        }
    }
}

fn finish(args: &Args, reporter: &Reporter, result: Result<String>) -> Result<u8> {
    let kubeconfig = admin::kubeconfig(&args.asset_dir, args.kubeconfig.as_deref());
    let next = format!("`kubectl --kubeconfig {} get pods -n kube-system` shows it", kubeconfig.display());
    reporter.finish(result.as_ref().map(|message| Success { message, next: &next }));
    result.map(|_| 0)
}

async fn applied(args: &Args, apply: &Apply, reporter: &Reporter) -> Result<String> {
    let subject = open(args, apply.to.as_deref()).await?;
    let found = plan(args, &subject, apply.force_conflicts).await?;
    found.verdict()?;
    for said in &found.warnings {
        reporter.note(&format!("{}: {}", said.place, said.message));
    }
    let options = Options {
        soak: apply.soak,
        pause_after: apply.pause_after,
        etcd: apply.etcd_upgrade,
        turns_round: apply.automatic_rollback,
        ..apply.run.options()
    };
    Ok(match upgrade::run(&subject, Way::Forth, &options, reporter, super::stop()?).await? {
        Ended::Done => format!("the control plane runs {}", found.to),
        Ended::Paused(step) => {
            format!("paused after the step {}; the same command without --pause-after goes on", step.name())
        }
    })
}

async fn plan(args: &Args, subject: &Subject, force_conflicts: bool) -> Result<upgrade::Plan> {
    let path = admin::kubeconfig(&args.asset_dir, args.kubeconfig.as_deref());
    let text = input::read(&path, CONFIG_LIMIT).map_err(|unread| unread.into_error(&path))?;
    let kubeconfig = String::from_utf8_lossy(&text).into_owned();
    let connect = async |address: SocketAddr| api::connect(&kubeconfig, address).await;
    upgrade::plan(subject, force_conflicts, connect).await
}

fn is_of(input: &Input, version: &str) -> bool {
    input.cluster().kubernetes_version.to_string().trim_start_matches('v') == version.trim_start_matches('v')
}

/// The asset directory, which must be of the version `to` if one is expected, and a way to its cluster.
async fn open(args: &Args, to: Option<&str>) -> Result<Subject> {
    let dir = assets::absolute(&args.asset_dir)?;
    let input = Input::load(&dir)?;
    if let Some(to) = to.filter(|to| !is_of(&input, to)) {
        let version = input.cluster().kubernetes_version;
        let finding =
            Finding::new(dir.join("cluster.yaml").display().to_string(), format!("is of {version}, and not of {to}"));
        return Err(Error::Input(vec![finding.remedy(
            "set kubernetesVersion in your cluster.yaml, `hoist render` it into this directory, and review what changes",
        )]));
    }
    subject(args, dir, input, Vec::new()).await
}

/// The same; where it is of another version, as it would be for `to`.
async fn planned(args: &Args, to: Option<&str>) -> Result<Subject> {
    let dir = assets::absolute(&args.asset_dir)?;
    let input = Input::load(&dir)?;
    match to.filter(|to| !is_of(&input, to)) {
        None => subject(args, dir, input, Vec::new()).await,
        Some(to) => {
            let (set, findings) = upgrade::rendered(&dir, to, OffsetDateTime::now_utc())?;
            let input = Input::of(set, &dir)?;
            subject(args, dir, input, findings).await
        }
    }
}

async fn subject(args: &Args, dir: PathBuf, input: Input, findings: Vec<Finding>) -> Result<Subject> {
    let admin = admin::connect(&admin::kubeconfig(&args.asset_dir, args.kubeconfig.as_deref())).await?;
    Ok(Subject { input, dir, findings, client: admin.client, ca_pem: admin.ca_pem })
}
