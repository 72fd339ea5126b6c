//! The command line: what users type, and which room it goes to. No logic.

use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use nix::sys::signal::Signal;
use time::OffsetDateTime;
use tokio::signal::unix::{SignalKind, signal};

use crate::api::observe::Required;
use crate::assets::{self, Written};
use crate::config::duration;
use crate::error::{Error, Result};
use crate::host::Host;
use crate::report::{Output, Reporter};
use crate::{config, forward, kubelet, pki, render, start};

/// Brings up a self-hosted Kubernetes control plane from nothing but a kubelet, and keeps it up.
#[derive(Debug, Parser)]
#[command(version, max_term_width = 100)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
    /// What is logged to standard error.
    #[arg(long, global = true, value_name = "LEVEL", default_value = "warn", value_parser = ["error", "warn", "info", "debug", "trace"])]
    pub log_level: String,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Write the asset directory of a cluster: TLS material, static pods, manifests, the kubelet's files
    Render(RenderArgs),
    /// Bring the cluster up on this controller, or go on where an earlier run stopped
    Start(StartArgs),
    /// About cluster.yaml
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Pass connections on to the bridge's API server once it is ready (run by the bridge's static pod)
    #[command(hide = true)]
    Forward(ForwardArgs),
}

/// `hoist render`
#[derive(Debug, Args)]
pub struct RenderArgs {
    /// The cluster's declaration; `-` is standard input
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// The folder to write: a new one, an empty one, or one that was rendered before
    #[arg(long, value_name = "DIR")]
    asset_dir: PathBuf,
    /// A file of the asset directory to write anew, although you edited or removed it; may be given several times
    #[arg(long, value_name = "FILE")]
    replace: Vec<PathBuf>,
}

/// `hoist start`
#[derive(Debug, Args)]
pub struct StartArgs {
    /// The folder that `hoist render` wrote
    #[arg(long, value_name = "DIR")]
    asset_dir: PathBuf,
    /// The kubelet's folder of static pods
    #[arg(long, value_name = "DIR", default_value = "/etc/kubernetes/manifests")]
    pod_manifest_path: PathBuf,
    /// Which controller of cluster.yaml this machine is [default: the one whose address it has]
    #[arg(long, value_name = "NAME")]
    node_name: Option<String>,
    /// Workloads (NAMESPACE/NAME of a DaemonSet, Deployment, StatefulSet or Pod) whose pods must be ready before the
    /// bridge is lowered
    #[arg(long, value_name = "NAMESPACE/NAME", value_delimiter = ',', default_values = ["kube-system/kube-apiserver", "kube-system/kube-controller-manager", "kube-system/kube-scheduler"])]
    required_pods: Vec<Required>,
    /// How long it may go without any progress; an image that is being pulled and a pod that changes state are some
    #[arg(long, value_name = "DURATION", default_value = "5m", value_parser = duration)]
    progress_timeout: Duration,
    /// How long the whole may take, as 90s, 20m or 1h30m
    #[arg(long, value_name = "DURATION", default_value = "30m", value_parser = duration)]
    timeout: Duration,
    /// How progress is shown
    #[arg(long, value_enum, default_value = "text")]
    output: Output,
}

/// `hoist config`
#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Print a cluster.yaml with every field, its meaning and its default
    Default,
}

/// `hoist forward`
#[derive(Debug, Args)]
pub struct ForwardArgs {
    /// Where clients connect
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: SocketAddr,
    /// The API server to pass them to
    #[arg(long, value_name = "ADDRESS:PORT")]
    target: SocketAddr,
    /// The CA that vouches for it
    #[arg(long, value_name = "FILE")]
    ca_file: PathBuf,
    /// How long open connections may go on after SIGTERM
    #[arg(long, value_name = "DURATION", default_value = "20s", value_parser = duration)]
    drain_timeout: Duration,
}

/// Runs a command, writing what it says to `out`.
///
/// # Errors
/// Whatever the command ends with.
pub async fn run(command: Command, out: &mut dyn Write) -> Result<()> {
    match command {
        Command::Render(args) => render(&args, out),
        Command::Start(args) => start(args).await,
        Command::Config(ConfigCommand::Default) => print(out, config::DEFAULT),
        Command::Forward(args) => forward(args).await,
    }
}

fn render(args: &RenderArgs, out: &mut dyn Write) -> Result<()> {
    let cluster = config::load(&args.config)?;
    let dir = assets::absolute(&args.asset_dir)?;
    assets::check_target(&dir, &args.config)?;
    let existing = assets::existing(&dir, "tls")?;
    let user_files = pki::read_user_files(&cluster)?;
    let issued = pki::issue(&cluster, &existing, &user_files, OffsetDateTime::now_utc())?;
    let token = pki::bootstrap_token(kubelet::rendered_token(&dir)?.as_deref())?;
    let set = render::render(&cluster, &issued.files, &token)?;
    let Written { changed, kept, left_out, removed, unused } = set.write(&dir, &set.named(&dir, &args.replace)?)?;

    let mut said = String::new();
    let mut say = |line: String| said.push_str(&(line + "\n"));
    // The first time, everything is new.
    for file in issued.issued.iter().filter(|_| !existing.is_empty()) {
        say(format!("issued tls/{}: {}", file.path, file.reason));
    }
    kept.iter().for_each(|path| say(format!("kept your own {path}")));
    left_out.iter().for_each(|path| say(format!("left out {path}: you removed it (--replace {path} brings it back)")));
    removed.iter().for_each(|path| say(format!("removed {path}: this cluster has no use for it")));
    unused.iter().for_each(|path| say(format!("left {path}, for which this cluster has no use")));
    say(format!("{}: {} files, {} of them written", args.asset_dir.display(), set.files.len(), changed.len()));
    print(out, &said)
}

async fn start(args: StartArgs) -> Result<()> {
    let reporter = Reporter::stdout(args.output);
    let binary = std::env::current_exe().map_err(|error| Error::failed("find hoist's own binary", error))?;
    let options = start::Options {
        asset_dir: args.asset_dir,
        node_name: args.node_name,
        required_pods: args.required_pods,
        progress_timeout: args.progress_timeout,
        timeout: args.timeout,
        binary,
    };
    let host = Host::new(Path::new("/"), &args.pod_manifest_path);
    let result = start::start(&host, &options, &reporter, stop()?).await;
    reporter.finish(result.as_ref().map(|()| "the cluster serves itself"));
    result
}

async fn forward(args: ForwardArgs) -> Result<()> {
    let options = forward::Options {
        listen: args.listen,
        target: args.target,
        ca_file: args.ca_file,
        drain_timeout: args.drain_timeout,
    };
    let stop = stop()?;
    forward::run(&options, async {
        stop.await;
    })
    .await
}

/// Completes when the process is asked to end, with the signal's number.
fn stop() -> Result<impl Future<Output = u8>> {
    let listen = |kind| signal(kind).map_err(|error| Error::failed("listen for signals", error));
    let (mut term, mut int) = (listen(SignalKind::terminate())?, listen(SignalKind::interrupt())?);
    Ok(async move {
        tokio::select! {
            _ = term.recv() => Signal::SIGTERM as u8,
            _ = int.recv() => Signal::SIGINT as u8,
        }
    })
}

fn print(out: &mut dyn Write, text: &str) -> Result<()> {
    out.write_all(text.as_bytes()).map_err(|error| Error::failed("write to standard output", error))
}
