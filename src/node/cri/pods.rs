//! Pods in the container runtime: what became of one, and stopping some while no kubelet runs. The runtime knows them
//! without a kubelet or an API server.

use std::path::{Path, PathBuf};
use std::time::Duration;

use prost::Message;

use super::SERVICE;
use super::messages::{
    Container, ContainerStatusRequest, ContainerStatusResponse, ListContainersRequest, ListContainersResponse,
    ListPodSandboxRequest, ListPodSandboxResponse, PodSandbox, RemoveContainerRequest, RemoveContainerResponse,
    StopContainerRequest, StopContainerResponse, StopPodSandboxRequest, StopPodSandboxResponse,
};
use crate::base::error::{Error, Result};
use crate::base::grpc::{Connection, Failure};

/// How long it may take to answer, but for a stop.
const LIMIT: Duration = Duration::from_secs(10);
/// The kubelet's labels of each container.
const POD_NAME: &str = "io.kubernetes.pod.name";
const POD_NAMESPACE: &str = "io.kubernetes.pod.namespace";
const CONTAINER_NAME: &str = "io.kubernetes.container.name";
/// The state of a container that runs.
const RUNNING: i32 = 1;
/// The state of a container that has ended.
const EXITED: i32 = 2;

/// What became of the one container of a pod that runs once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Once {
    /// There is no container of it yet.
    Absent,
    /// It is there, and has not ended.
    Running,
    /// It has ended with this exit code.
    Ended(i32),
}

/// A container that runs.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Runs {
    /// Its pod, as `NAMESPACE/NAME`.
    pub pod: String,
    /// Its name in the pod.
    pub name: String,
    /// What the runtime calls it: another one for each time that it is started.
    pub id: String,
}

/// The runtime at a socket.
pub struct Pods {
    socket: PathBuf,
}

impl Pods {
    /// The runtime at `socket`; it need not be there yet.
    pub fn new(socket: &Path) -> Self {
        Self { socket: socket.to_owned() }
    }

    /// What became of the pod `name` of `namespace`.
    ///
    /// # Errors
    /// A runtime that does not answer.
    pub async fn once(&self, namespace: &str, name: &str) -> Result<Once> {
        let mut connection = self.connection().await?;
        let list: ListContainersResponse = call(&mut connection, "ListContainers", &ListContainersRequest {}).await?;
        let label = |container: &Container, key: &str, value: &str| {
            container.labels.get(key).is_some_and(|there| there == value)
        };
        let mut of_pod = list
            .containers
            .into_iter()
            .filter(|container| label(container, POD_NAMESPACE, namespace) && label(container, POD_NAME, name));
        let Some(container) = of_pod.next() else { return Ok(Once::Absent) };
        if container.state != EXITED {
            return Ok(Once::Running);
        }
        let question = ContainerStatusRequest { container_id: container.id };
        let status: ContainerStatusResponse = call(&mut connection, "ContainerStatus", &question).await?;
        let status = status.status.ok_or_else(|| failed("ContainerStatus", "its answer says nothing"))?;
        Ok(Once::Ended(status.exit_code))
    }

    /// All containers of pods that run, in the order of their names.
    ///
    /// # Errors
    /// A runtime that does not answer.
    pub async fn running(&self) -> Result<Vec<Runs>> {
        let mut connection = self.connection().await?;
        let list: ListContainersResponse = call(&mut connection, "ListContainers", &ListContainersRequest {}).await?;
        let runs = |container: Container| {
            let label = |key: &str| container.labels.get(key).map_or("", String::as_str);
            let pod = format!("{}/{}", label(POD_NAMESPACE), label(POD_NAME));
            Runs { pod, name: label(CONTAINER_NAME).to_owned(), id: container.id.clone() }
        };
        let mut running: Vec<_> =
            list.containers.into_iter().filter(|container| container.state == RUNNING).map(runs).collect();
        running.sort();
        Ok(running)
    }

    /// Stops the pods of `namespace` whose label `label` has one of `values`, and says their names. A container that has
    /// not ended after `grace` is killed. Without a kubelet, nobody starts them again.
    ///
    /// # Errors
    /// A runtime that does not answer, or cannot stop one.
    pub async fn stop(&self, namespace: &str, label: &str, values: &[&str], grace: Duration) -> Result<Vec<String>> {
        let mut connection = self.connection().await?;
        let list: ListPodSandboxResponse = call(&mut connection, "ListPodSandbox", &ListPodSandboxRequest {}).await?;
        let meant = |sandbox: &PodSandbox| {
            let is_there = sandbox.metadata.as_ref().is_some_and(|metadata| metadata.namespace == namespace);
            is_there && sandbox.labels.get(label).is_some_and(|value| values.contains(&value.as_str()))
        };
        let sandboxes: Vec<_> = list.items.into_iter().filter(meant).collect();
        let list: ListContainersResponse = call(&mut connection, "ListContainers", &ListContainersRequest {}).await?;
        let runs = |container: &&Container| {
            container.state != EXITED && sandboxes.iter().any(|sandbox| sandbox.id == container.pod_sandbox_id)
        };
        let containers = list.containers.iter().filter(runs);
        let stops = containers.map(|container| self.stop_container(&container.id, grace));
        futures::future::try_join_all(stops).await?;
        let mut stopped = Vec::new();
        for sandbox in sandboxes {
            let question = StopPodSandboxRequest { pod_sandbox_id: sandbox.id };
            let _: StopPodSandboxResponse = call(&mut connection, "StopPodSandbox", &question).await?;
            if sandbox.state == 0 {
                stopped.extend(sandbox.metadata.map(|metadata| metadata.name));
            }
        }
        stopped.sort();
        Ok(stopped)
    }

    /// Ends the container `name` of the pod `pod` of `namespace`, and takes away what is left of it and of those before it: the kubelet
    /// starts it again at once. One that it finds ended it would let wait, longer each time within ten minutes. Says whether one ran.
    ///
    /// # Errors
    /// A runtime that does not answer, or cannot end it.
    pub async fn begin_again(&self, namespace: &str, pod: &str, name: &str, grace: Duration) -> Result<bool> {
        let mut connection = self.connection().await?;
        let list: ListContainersResponse = call(&mut connection, "ListContainers", &ListContainersRequest {}).await?;
        let is_it = |container: &Container| {
            [(POD_NAMESPACE, namespace), (POD_NAME, pod), (CONTAINER_NAME, name)]
                .iter()
                .all(|(key, value)| container.labels.get(*key).is_some_and(|there| there == value))
        };
        let (running, ended): (Vec<_>, Vec<_>) =
            list.containers.into_iter().filter(is_it).partition(|container| container.state != EXITED);
        for container in &ended {
            self.remove_container(&mut connection, &container.id).await?;
        }
        for container in &running {
            self.stop_container(&container.id, grace).await?;
            self.remove_container(&mut connection, &container.id).await?;
        }
        Ok(!running.is_empty())
    }

    async fn remove_container(&self, connection: &mut Connection, id: &str) -> Result<()> {
        let question = RemoveContainerRequest { container_id: id.to_owned() };
        let _: RemoveContainerResponse = call(connection, "RemoveContainer", &question).await?;
        Ok(())
    }

    async fn stop_container(&self, id: &str, grace: Duration) -> Result<()> {
        let mut connection = self.connection().await?;
        let timeout = i64::try_from(grace.as_secs()).unwrap_or(i64::MAX);
        let question = StopContainerRequest { container_id: id.to_owned(), timeout };
        let stop = connection.call(SERVICE, "StopContainer", &question);
        let stopped: Result<StopContainerResponse, Failure> = match tokio::time::timeout(grace + LIMIT, stop).await {
            Ok(stopped) => stopped,
            Err(_) => return Err(failed("StopContainer", "no answer in time")),
        };
        stopped.map(drop).map_err(|failure| failed("StopContainer", failure))
    }

    async fn connection(&self) -> Result<Connection> {
        match tokio::time::timeout(LIMIT, Connection::unix(&self.socket)).await {
            Ok(connection) => connection.map_err(|error| Error::io("connect to", &self.socket, error)),
            Err(_) => Err(failed("connect", "no answer in time")),
        }
    }
}

async fn call<A: Message + Default>(connection: &mut Connection, method: &str, question: &impl Message) -> Result<A> {
    match tokio::time::timeout(LIMIT, connection.call(SERVICE, method, question)).await {
        Ok(answer) => answer.map_err(|failure| failed(method, failure)),
        Err(_) => Err(failed(method, "no answer in time")),
    }
}

fn failed(method: &str, why: impl std::fmt::Display) -> Error {
    Error::Failed {
        action: format!("ask the container runtime ({method})"),
        cause: why.to_string(),
        next: Some("`journalctl -u containerd -n 50` may say why; then run the same command again".into()),
    }
}
