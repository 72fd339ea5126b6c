//! `hoist endpoint`

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::base::error::{Error, Result};
use crate::base::limits;
use crate::desired::config::duration;
use crate::endpoint::balance::{self, parse_target};
use crate::endpoint::forward;

/// `hoist endpoint`
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Where clients of this node connect, an address of loopback
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:7443")]
    listen: SocketAddr,
    /// An API server, beside those that are remembered and discovered; port 6443 unless it says another (may be repeated)
    #[arg(long = "target", value_name = "ADDRESS[:PORT]", value_parser = parse_target)]
    targets: Vec<SocketAddr>,
    /// The API server of this node: it gets the new connections while it is good
    #[arg(long, value_name = "ADDRESS[:PORT]", value_parser = parse_target)]
    prefer: Option<SocketAddr>,
    /// The CA that vouches for API servers
    #[arg(long, value_name = "FILE", default_value = "/etc/kubernetes/pki/ca.crt")]
    ca_file: PathBuf,
    /// Credentials that may read the EndpointSlice default/kubernetes; without them, no API server is discovered
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// The file that remembers API servers that were discovered
    #[arg(long, value_name = "FILE", default_value = "/var/lib/hoist/endpoint/targets")]
    state_file: PathBuf,
    /// Where metrics are served, for Prometheus, under /metrics; none are served without it
    #[arg(long, value_name = "ADDRESS:PORT")]
    metrics_bind_address: Option<SocketAddr>,
    /// How long open connections may go on after SIGTERM
    #[arg(long, value_name = "DURATION", default_value = "20s", value_parser = duration)]
    drain_timeout: Duration,
}

pub(super) async fn run(args: Args) -> Result<()> {
    let seed = getrandom::u64().map_err(|error| Error::failed("get a random number", error))?;
    let options = balance::Options {
        listen: args.listen,
        targets: args.targets,
        prefer: args.prefer,
        state_file: args.state_file,
        ca_file: args.ca_file,
        kubeconfig: args.kubeconfig,
        metrics: args.metrics_bind_address,
        drain_timeout: args.drain_timeout,
        connections: forward::room(limits::open_files()),
        seed,
    };
    let stop = super::stop()?;
    balance::run(&options, async {
        stop.await;
    })
    .await
}
