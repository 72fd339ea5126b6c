//! Reads which API servers the cluster publishes: the EndpointSlice `default/kubernetes`, through the endpoint itself.
//!
//! A read every few seconds costs less than a watch: the object changes with the controllers, and a watch is one more
//! connection that every hand-over has to end.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use kube::Client;
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};
use tracing::warn;

use crate::api::{self, endpoints};
use crate::base::backoff::Backoff;
use crate::base::error::{Error, Result};
use crate::base::input;
use crate::desired::config::API_PORT;

/// Between two reads.
const PERIOD: Duration = Duration::from_secs(10);
/// Between two tries, while they fail.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));
/// How long a read may take.
const LIMIT: Duration = Duration::from_secs(15);

/// Reads for ever with the credentials of `kubeconfig`, by the endpoint at `own`, and sends what is published. What fails is
/// tried again later each time, and said once.
pub async fn watch(
    kubeconfig: PathBuf,
    own: SocketAddr,
    seed: u64,
    found: mpsc::Sender<Vec<SocketAddr>>,
) -> Infallible {
    let mut backoff = Backoff::new(RETRY.0, RETRY.1, seed);
    let mut client = None;
    let mut said = String::new();
    loop {
        let read = timeout(LIMIT, read(&kubeconfig, own, &mut client)).await;
        let pause =
            match read.unwrap_or_else(|_| Err(Error::failed("read the cluster's API servers", "no answer in time"))) {
                Ok(published) => {
                    // Who would take it ends with this process.
                    let _ = found.send(published).await;
                    backoff.succeeded();
                    said.clear();
                    PERIOD
                }
                Err(error) => {
                    // Its credentials may have been renewed on the disk.
                    client = None;
                    let text = error.to_string();
                    if text != said {
                        warn!("{text}");
                        said = text;
                    }
                    backoff.failed(error.after())
                }
            };
        sleep(pause).await;
    }
}

async fn read(kubeconfig: &Path, own: SocketAddr, client: &mut Option<Client>) -> Result<Vec<SocketAddr>> {
    let client = match client {
        Some(client) => client,
        None => {
            let content =
                input::read(kubeconfig, input::CONFIG_LIMIT).map_err(|unread| unread.into_error(kubeconfig))?;
            client.insert(api::connect(&String::from_utf8_lossy(&content), own).await?)
        }
    };
    let published = endpoints::published(client).await?;
    Ok(published.into_iter().map(|address| SocketAddr::new(address, API_PORT)).collect())
}
