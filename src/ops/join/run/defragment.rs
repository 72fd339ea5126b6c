//! This controller's own member is defragmented, if that is its turn.

use std::net::SocketAddr;
use std::pin::pin;
use std::time::Duration;

use tokio::time::{Instant, timeout};

use super::super::CALL_LIMIT;
use super::{Join, Own};
use crate::api::turn;
use crate::base::error::Result;
use crate::etcd::alarms;
use crate::etcd::client as etcd;

/// How long a member may take to defragment its database: less than a round.
const LIMIT: Duration = Duration::from_secs(45);

impl Join<'_> {
    /// Defragments this controller's own member, under the turn. Its own API server has no etcd meanwhile: another's is asked.
    pub(super) async fn defragment(&mut self, of: &Own) -> Result<()> {
        let client = self.way.another(self.host, &of.copy).await?;
        self.defragmented = Some(Instant::now());
        let address = SocketAddr::new(of.cluster.loopback(), alarms::PORT);
        let size =
            async || Some(etcd::Client::connect(address, &of.tls, CALL_LIMIT).await.ok()?.status().await.ok()?.size);
        let before = size().await;
        let work = async { etcd::Client::connect(address, &of.tls, LIMIT).await?.defragment().await };
        let mut work = pin!(work);
        let done = loop {
            match timeout(turn::LASTS / 3, &mut work).await {
                Ok(done) => break done,
                // It is this controller's turn until it has ended.
                Err(_) => drop(self.turn.take(&client, Instant::now(), self.host.world().now()).await?),
            }
        };
        let mib = |size: Option<i64>| size.map_or_else(|| "?".into(), |size| format!("{} MiB", size >> 20));
        self.say(match done {
            Ok(()) => format!(
                "etcd's database on this controller is defragmented: {}, before {}",
                mib(size().await),
                mib(before)
            ),
            Err(failed) => format!("etcd's database on this controller was to be defragmented; not done: {failed}"),
        });
        Ok(())
    }
}
