//! The command line: a file for each command, which parses arguments and calls the module that does the work. No
//! logic.

mod admin;
mod apply;
mod backup;
mod certs;
mod completion;
mod confirm;
mod controller;
mod endpoint;
mod forward;
mod guard;
mod hosting;
mod images;
mod join_assets;
mod man;
mod operator;
mod output;
mod preflight;
mod recover;
mod render;
mod reset;
mod start;
mod status;
mod token;
mod unpivot;
mod upgrade;
mod upgrade_hoist;
mod upgrade_node;
mod validate;
mod version;

use std::future::poll_fn;
use std::io::Write;
use std::path::Path;
use std::task::Poll;

pub use render::WOULD_CHANGE;

use clap::{ColorChoice, CommandFactory, FromArgMatches, Parser, Subcommand};
use nix::sys::signal::Signal;
use tokio::signal::unix::{SignalKind, signal};

use crate::base::error::{Error, Result};
use crate::base::limits;
use crate::base::log;
use crate::desired::config;
use crate::node::processes;

/// Brings up a self-hosted Kubernetes control plane from nothing but a kubelet, and keeps it up.
#[derive(Debug, Parser)]
#[command(version, max_term_width = 100)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
    /// What is logged to standard error
    #[arg(long, global = true, value_name = "LEVEL", default_value = "warn", value_parser = ["error", "warn", "info", "debug", "trace"])]
    pub log_level: String,
    /// How logs, and the error that ends a command, are written to standard error
    #[arg(long, global = true, value_enum, value_name = "FORMAT", default_value = "text")]
    pub log_format: log::Format,
    /// Use no colours, as with the environment variable NO_COLOR
    #[arg(long, global = true)]
    pub no_color: bool,
}

impl Cli {
    /// What was typed; wrong usage and `--help` end the process.
    pub fn from_env() -> Self {
        // Help and usage may have colours, and are shown before there is an answer to what was typed.
        let plain = std::env::args_os().any(|arg| arg == "--no-color");
        let command = Self::command().color(if plain { ColorChoice::Never } else { ColorChoice::Auto });
        Self::from_arg_matches(&command.get_matches()).unwrap_or_else(|error| error.exit())
    }

    /// Whether a terminal may be given colours: see no-color.org.
    fn color(&self) -> bool {
        !self.no_color && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
    }
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Write the asset directory of a cluster: TLS material, static pods, manifests, the kubelet's files
    Render(render::Args),
    /// Bring the cluster up on this controller, or continue an earlier run
    Start(start::Args),
    /// Apply manifests/ and addons/ of an asset directory to its cluster again
    Apply(apply::Args),
    /// Back this controller up to one file: a snapshot of its etcd, and the asset directory
    Backup(backup::Args),
    /// Bring the cluster back: restore the missing parts of its control plane, or etcd's data first
    Recover(recover::Args),
    /// Turn the self-hosted control plane into static pods for good, with its flags and images; `start` pivots again
    Unpivot(unpivot::Args),
    /// Take hoist off this node: show what is removed, and ask first
    Reset(reset::Args),
    /// Check whether this machine is ready for `start`, and change nothing
    Preflight(preflight::Args),
    /// Show what this controller and its cluster are now; the exit code is 0 if all is well
    Status(status::Args),
    /// Check whether the files of an asset directory fit together: references, certificates, ports, subnets, flags
    Validate(validate::Args),
    /// Bring the control plane to another version of Kubernetes in place: tried first, and undone if it does not serve
    Upgrade(upgrade::Args),
    /// Show the certificates of this machine and its cluster, and renew them
    Certs(certs::Args),
    /// Manage bootstrap tokens, with which machines join the cluster as workers
    Token(token::Args),
    /// Write what a machine needs to become a worker, and nothing more: the CA, a bootstrap kubeconfig, the kubelet's files
    JoinAssets(join_assets::Args),
    /// Commands for hosted control planes: those of other clusters, the tenants, as pods of this one
    Hosting(hosting::Args),
    /// Commands for cluster.yaml
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Commands for the images of a cluster, and for hoist's own image
    #[command(subcommand, visible_alias = "image")]
    Images(images::Command),
    /// Print the script by which a shell completes hoist's command line
    Completion(completion::Args),
    /// Print hoist's man page, or write those of all commands
    Man(man::Args),
    /// Print hoist's version, and the versions of Kubernetes that it knows
    Version(version::Args),
    /// Pass connections on to the bridge's API server once it is ready (run by the bridge's static pod)
    #[command(hide = true)]
    Forward(forward::Args),
    /// Pass connections of this node on to API servers that serve, from one loopback address
    Endpoint(endpoint::Args),
    /// Keep the API served on this controller: raise the bridge when the API server is gone, and lower it when the API
    /// server serves again (run by a static pod)
    Guard(guard::Args),
    /// Bring up and keep the control planes of tenants, as their objects declare them (run by a Deployment)
    Operator(operator::Args),
}

/// `hoist config`
#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Print a cluster.yaml with every field, its meaning and its default
    Default,
}

/// Runs a command, writing what it says to `out`, and returns the exit code: 0 but for commands that answer by it.
///
/// # Errors
/// Whatever the command ends with.
pub async fn run(cli: Cli, out: &mut dyn Write) -> Result<u8> {
    let color = cli.color();
    // To one that is out of files it looks as if nobody listened and nothing ran.
    limits::raise_open_files();
    match cli.command {
        Command::Render(args) => return render::run(&args, color, out),
        Command::Start(args) => start::run(args, color).await?,
        Command::Apply(args) => return apply::run(args, color, out).await,
        Command::Backup(args) => backup::run(args, color).await?,
        Command::Recover(args) => recover::run(args, color).await?,
        Command::Reset(args) => reset::run(&args, color, out).await?,
        Command::Unpivot(args) => unpivot::run(args, color).await?,
        Command::Validate(args) => return validate::run(&args, out),
        Command::Preflight(args) => return preflight::run(args, out).await,
        Command::Status(args) => return status::run(&args, out).await,
        Command::Upgrade(args) => return upgrade::run(&args, color, out).await,
        Command::Certs(args) => return certs::run(&args, out).await,
        Command::Token(args) => token::run(args, out).await?,
        Command::JoinAssets(args) => join_assets::run(&args, out).await?,
        Command::Config(ConfigCommand::Default) => print(out, config::DEFAULT)?,
        Command::Images(command) => images::run(&command, out)?,
        Command::Completion(args) => completion::run(args, out)?,
        Command::Man(args) => man::run(&args, out)?,
        Command::Version(args) => version::run(&args, out)?,
        Command::Forward(args) => forward::run(args).await?,
        Command::Endpoint(args) => endpoint::run(args).await?,
        Command::Guard(args) => guard::run(args).await?,
        Command::Hosting(args) => return hosting::run(args, out).await,
        Command::Operator(args) => operator::run(args).await?,
    }
    Ok(0)
}

/// Completes when the process is asked to end, or its terminal is gone, with the signal's number.
fn stop() -> Result<impl Future<Output = u8>> {
    let mut kinds = vec![Signal::SIGTERM, Signal::SIGINT];
    // Where it was ignored from the beginning, nohup or its like wants it to stay so.
    if !processes::ignores(Path::new("/proc"), Signal::SIGHUP as u8) {
        kinds.push(Signal::SIGHUP);
    }
    let mut heard = Vec::new();
    for kind in kinds {
        let listen = signal(SignalKind::from_raw(kind as i32));
        heard.push((kind as u8, listen.map_err(|error| Error::failed("listen for signals", error))?));
    }
    Ok(poll_fn(move |context| {
        let got = heard.iter_mut().find_map(|(number, signal)| signal.poll_recv(context).is_ready().then_some(*number));
        got.map_or(Poll::Pending, Poll::Ready)
    }))
}

fn print(out: &mut dyn Write, text: &str) -> Result<()> {
    out.write_all(text.as_bytes()).map_err(|error| Error::failed("write to standard output", error))
}
