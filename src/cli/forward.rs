//! `hoist forward`

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::base::error::Result;
use crate::base::limits;
use crate::desired::config::duration;
use crate::endpoint::forward;

/// `hoist forward`
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Where clients connect: the controller's own address first, and then others that it may have, now or later
    #[arg(long, value_name = "ADDRESS:PORT", required = true)]
    listen: Vec<SocketAddr>,
    /// Listen at every address that this machine has, now or later, but loopback's
    #[arg(long)]
    listen_everywhere: bool,
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
    let mut addresses = args.listen.into_iter();
    // Without any, clap has refused it.
    let Some(listen) = addresses.next() else { return Ok(()) };
    let options = forward::Options {
        listen,
        also: forward::Also { addresses: addresses.collect(), every: args.listen_everywhere },
        connections: forward::room(limits::open_files()),
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
