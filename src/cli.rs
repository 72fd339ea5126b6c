//! The command line: what users type, and which room it goes to. No logic. A file for each command.

mod forward;
mod render;
mod start;

use std::io::Write;

use clap::{Parser, Subcommand};
use nix::sys::signal::Signal;
use tokio::signal::unix::{SignalKind, signal};

use crate::config;
use crate::error::{Error, Result};

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
    Render(render::Args),
    /// Bring the cluster up on this controller, or go on where an earlier run stopped
    Start(start::Args),
    /// About cluster.yaml
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Pass connections on to the bridge's API server once it is ready (run by the bridge's static pod)
    #[command(hide = true)]
    Forward(forward::Args),
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
pub async fn run(command: Command, out: &mut dyn Write) -> Result<u8> {
    match command {
        Command::Render(args) => render::run(&args, out)?,
        Command::Start(args) => start::run(args).await?,
        Command::Config(ConfigCommand::Default) => print(out, config::DEFAULT)?,
        Command::Forward(args) => forward::run(args).await?,
    }
    Ok(0)
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
