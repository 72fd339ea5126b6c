//! The pods of a runtime, whoever made them.

use std::path::Path;
use std::time::Duration;

use super::messages::{
    ListPodSandboxRequest, ListPodSandboxResponse, RemovePodSandboxRequest, RemovePodSandboxResponse,
    StopPodSandboxRequest, StopPodSandboxResponse,
};
use super::{SERVICE, Trouble};
use crate::base::grpc::{Connection, Failure};

/// A pod, as the runtime has it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Pod {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// What the runtime calls it.
    pub id: String,
}

/// All pods of the runtime at `socket`.
///
/// # Errors
/// What kept it from answering within `limit`.
pub async fn pods(socket: &Path, limit: Duration) -> Result<Vec<Pod>, Trouble> {
    let answer = async {
        let mut connection = open(socket).await?;
        let list: ListPodSandboxResponse =
            connection.call(SERVICE, "ListPodSandbox", &ListPodSandboxRequest {}).await.map_err(refused)?;
        let pod = |sandbox: super::messages::PodSandbox| {
            let metadata = sandbox.metadata.unwrap_or_default();
            Pod { namespace: metadata.namespace, name: metadata.name, id: sandbox.id }
        };
        let mut pods: Vec<_> = list.items.into_iter().map(pod).collect();
        pods.sort();
        Ok(pods)
    };
    tokio::time::timeout(limit, answer).await.unwrap_or(Err(Trouble::Silent))
}

/// Ends a pod's containers, and removes it.
///
/// # Errors
/// What kept it from that within `limit`.
pub async fn remove_pod(socket: &Path, id: &str, limit: Duration) -> Result<(), Trouble> {
    let answer = async {
        let mut connection = open(socket).await?;
        let stop = StopPodSandboxRequest { pod_sandbox_id: id.to_owned() };
        let _: StopPodSandboxResponse = connection.call(SERVICE, "StopPodSandbox", &stop).await.map_err(refused)?;
        let remove = RemovePodSandboxRequest { pod_sandbox_id: id.to_owned() };
        let _: RemovePodSandboxResponse =
            connection.call(SERVICE, "RemovePodSandbox", &remove).await.map_err(refused)?;
        Ok(())
    };
    tokio::time::timeout(limit, answer).await.unwrap_or(Err(Trouble::Silent))
}

async fn open(socket: &Path) -> Result<Connection, Trouble> {
    Connection::unix(socket).await.map_err(|error| Trouble::Unreachable(error.to_string()))
}

fn refused(failure: Failure) -> Trouble {
    Trouble::Refused(failure.to_string())
}
