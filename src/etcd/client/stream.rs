//! A snapshot as a stream.

use std::net::SocketAddr;
use std::time::Duration;

use super::connection::connect;
use super::messages::{SnapshotRequest, SnapshotResponse, StatusRequest, StatusResponse};
use super::service::MAINTENANCE;
use crate::base::error::{Error, Result};
use crate::base::grpc::{Connection, Failure, Messages};
use crate::desired::secrets::Tls;
use crate::etcd::snapshot;

/// How long it may be silent.
const LIMIT: Duration = Duration::from_secs(20);

/// A snapshot on its way. Its pieces, one behind the other, are the file that `etcdctl snapshot save` writes.
pub struct Snapshot {
    /// The version of the etcd that makes it.
    pub version: String,
    /// How long it is in all.
    pub length: u64,
    first: Option<Vec<u8>>,
    rest: Messages<SnapshotResponse>,
    // It ends when it is dropped.
    _connection: Connection,
}

impl Snapshot {
    /// Asks the etcd at `address` for one, with the client certificate that the API servers have.
    ///
    /// # Errors
    /// Certificates that cannot be used; an etcd that does not answer.
    pub async fn begin(address: SocketAddr, tls: &Tls) -> Result<Self> {
        let mut connection = in_time(address, connect(address, tls)).await?.map_err(|why| failed(address, why))?;
        let failure = |failure: Failure| failed(address, failure);
        let status = connection.call(MAINTENANCE, "Status", &StatusRequest {});
        let status: StatusResponse = in_time(address, status).await?.map_err(failure)?;
        let stream = connection.stream(MAINTENANCE, "Snapshot", &SnapshotRequest {});
        let mut rest: Messages<SnapshotResponse> = in_time(address, stream).await?.map_err(failure)?;
        let first = in_time(address, rest.message()).await?.map_err(failure)?.unwrap_or_default();
        let length = first.remaining_bytes + (first.blob.len() + snapshot::SUM) as u64;
        Ok(Self { version: status.version, length, first: Some(first.blob), rest, _connection: connection })
    }

    /// The next piece; `None` when etcd has said that it was the last.
    ///
    /// # Errors
    /// A stream that breaks off.
    pub async fn piece(&mut self) -> Result<Option<Vec<u8>>> {
        if let Some(first) = self.first.take() {
            return Ok(Some(first));
        }
        let broken = |why: &dyn std::fmt::Display| Error::Failed {
            action: "read the snapshot from etcd".into(),
            cause: why.to_string(),
            next: Some("run the same command again".into()),
        };
        match tokio::time::timeout(LIMIT, self.rest.message()).await {
            Ok(piece) => Ok(piece.map_err(|failure| broken(&failure))?.map(|piece| piece.blob)),
            Err(_) => Err(broken(&"it has been silent for too long")),
        }
    }
}

async fn in_time<T>(address: SocketAddr, what: impl Future<Output = T>) -> Result<T> {
    tokio::time::timeout(LIMIT, what).await.map_err(|_| failed(address, "no answer in time"))
}

fn failed(address: SocketAddr, why: impl std::fmt::Display) -> Error {
    Error::Failed {
        action: format!("ask etcd at {address} for a snapshot"),
        cause: why.to_string(),
        next: Some(
            "run it on a controller whose etcd runs: `crictl ps --name etcd` shows it; \
             its data may be there without it: see `hoist recover --help`"
                .into(),
        ),
    }
}
