//! Of several operators one acts: who has the Lease, and for as long as it can renew it.

use std::time::Duration;

use kube::Client;
use time::OffsetDateTime;
use tokio::time::{Instant, sleep};

use crate::api::turn::{LASTS, Turn};
use crate::base::error::Error;

/// How often the Lease is renewed, or asked for.
const PAUSE: Duration = Duration::from_secs(5);

/// Completes once this operator has the Lease.
pub async fn elected(turn: &mut Turn, client: &Client) {
    loop {
        match turn.take(client, Instant::now(), OffsetDateTime::now_utc()).await {
            Ok(true) => return,
            Ok(false) => tracing::debug!("another operator leads"),
            Err(error) => tracing::warn!("{error}"),
        }
        sleep(PAUSE).await;
    }
}

/// Renews the Lease, and completes once it may be another's.
pub async fn lost(turn: &mut Turn, client: &Client) -> Error {
    let mut renewed = Instant::now();
    loop {
        sleep(PAUSE).await;
        let asked = Instant::now();
        match tokio::time::timeout(PAUSE, turn.take(client, asked, OffsetDateTime::now_utc())).await {
            Ok(Ok(true)) => renewed = asked,
            Ok(Ok(false)) => return Error::failed("lead the operators of hosted control planes", "another one does"),
            Ok(Err(error)) => tracing::warn!("{error}"),
            Err(_) => tracing::warn!("the Lease could not be renewed in time"),
        }
        // Before anybody else may take it.
        if renewed.elapsed() + PAUSE >= LASTS {
            return Error::failed("lead the operators of hosted control planes", "the Lease could not be renewed");
        }
    }
}
