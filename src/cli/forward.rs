//! `hoist forward`

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::config::duration;
use crate::error::Result;
use crate::forward;

/// `hoist forward`
#[derive(Debug, clap::Args)]
pub struct Args {
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

pub(super) async fn run(args: Args) -> Result<()> {
    let options = forward::Options {
        listen: args.listen,
        target: args.target,
        ca_file: args.ca_file,
        drain_timeout: args.drain_timeout,
    };
    let stop = super::stop()?;
    forward::run(&options, async {
        stop.await;
    })
    .await
}
