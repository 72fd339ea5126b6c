//! The only owner of the Kubernetes API: connecting, applying, observing, and the few single writes of `start`.

pub mod apply;
pub mod approve;
pub mod approver;
pub mod certificates;
pub mod controllers;
pub mod disk;
pub mod dns;
pub mod endpoints;
pub mod etcd_roll;
pub mod front_proxy;
pub mod guard;
pub mod health;
pub mod inventory;
pub mod missing;
pub mod node_endpoints;
pub mod node_task;
pub mod observe;
pub mod owners;
mod pages;
pub mod requests;
mod resources;
pub mod rollout;
pub mod rotation;
pub mod self_hosted;
pub mod service_accounts;
pub mod skew;
pub mod stored;
pub mod timestamp;
pub mod tokens;
mod transport;
pub mod turn;
mod verdict;
pub mod write;

use std::net::SocketAddr;
use std::time::Duration;

use kube::config::KubeConfigOptions;
use kube::{Client, Config};

use crate::base::error::{Error, Result};
use crate::desired::kubeconfig;

pub use verdict::{Verdict, failed, refused_or_failed, verdict};

/// How long the answer may take that tells whether the API is served.
const SERVED_LIMIT: Duration = Duration::from_secs(5);
/// How long a watch may be silent: the API server ends it sooner, or says that nothing has changed.
const WATCH_LIMIT: Duration = Duration::from_secs(310);
/// The field manager of everything hoist applies.
pub const FIELD_MANAGER: &str = "hoist";
/// The field manager of add-ons: what bears it may be pruned, what bears only the other never is.
pub const ADDONS_MANAGER: &str = "hoist-addons";

/// A client with `kubeconfig`'s credentials for the API server at `address`.
///
/// Each connection and answer is bounded in time and nothing is retried: the loop that calls tries again itself.
///
/// # Errors
/// A kubeconfig that does not parse, or gets its credentials elsewhere than from itself and from files.
pub async fn connect(kubeconfig: &str, address: SocketAddr) -> Result<Client> {
    let mut config = config(kubeconfig).await?;
    config.cluster_url = format!("https://{address}").parse().map_err(|error| unusable(&error))?;
    transport::client(config)
}

/// The same of an API server at an address that its certificate does not have: it has `name`.
///
/// # Errors
/// As of [`connect`].
pub async fn connect_as(kubeconfig: &str, address: SocketAddr, name: &str) -> Result<Client> {
    let mut config = config(kubeconfig).await?;
    config.cluster_url = format!("https://{address}").parse().map_err(|error| unusable(&error))?;
    config.tls_server_name = Some(name.to_owned());
    transport::client(config)
}

/// The cluster as an admin reaches it, from any machine.
pub struct Admin {
    /// A client, bounded in time as that of [`connect`] is.
    pub client: Client,
    /// host:port of the API server.
    pub endpoint: String,
    /// The CAs (PEM) that vouch for it.
    pub ca_pem: Vec<u8>,
}

/// Clients of one cluster for what runs for ever.
#[derive(Clone)]
pub struct Clients {
    /// For requests, bounded in time as that of [`connect`] is.
    pub requests: Client,
    /// For watches, on which nothing may come for minutes.
    pub watches: Client,
}

/// Those of a pod, with the token of its service account.
///
/// # Errors
/// This is no pod, or one without a token.
pub fn of_pod() -> Result<Clients> {
    let config = Config::incluster_env().map_err(|error| Error::Failed {
        action: "use the service account of this pod".into(),
        cause: error.to_string(),
        next: Some("run it in a pod that has one, or name a kubeconfig: --kubeconfig FILE".into()),
    })?;
    clients(config)
}

/// Those at the address that `kubeconfig` itself names.
///
/// # Errors
/// As [`admin`].
pub async fn of_kubeconfig(kubeconfig: &str) -> Result<Clients> {
    clients(config(kubeconfig).await?)
}

fn clients(mut config: Config) -> Result<Clients> {
    bound(&mut config);
    let requests = transport::client(config.clone())?;
    config.read_timeout = Some(WATCH_LIMIT);
    Ok(Clients { requests, watches: transport::client(config)? })
}

/// The cluster at the address that `kubeconfig` itself names, which may be a load balancer's.
///
/// # Errors
/// A kubeconfig that does not parse, or gets its credentials elsewhere than from itself and from files.
pub async fn admin(kubeconfig: &str) -> Result<Admin> {
    let config = config(kubeconfig).await?;
    let url = &config.cluster_url;
    let endpoint = url.authority().map(|authority| match authority.port() {
        Some(_) => authority.to_string(),
        None => format!("{authority}:443"),
    });
    let ca = config.root_cert.iter().flatten().map(|der| pem::Pem::new("CERTIFICATE", der.clone()));
    let ca_pem = pem::encode_many(&ca.collect::<Vec<_>>()).into_bytes();
    Ok(Admin { endpoint: endpoint.unwrap_or_default(), ca_pem, client: transport::client(config)? })
}

/// Whether the API answers at all: who types a command is told at once that it does not.
///
/// # Errors
/// Why it does not.
pub async fn reach(admin: &Admin) -> Result<()> {
    let answer = admin.client.apiserver_version().await.map(drop);
    answer.map_err(|error| Error::Failed {
        action: format!("reach the API server at {}", admin.endpoint),
        cause: explain(&error),
        next: Some(
            "check whether it is served (`hoist status` on a controller), and whether the kubeconfig is this cluster's"
                .into(),
        ),
    })
}

async fn config(kubeconfig: &str) -> Result<Config> {
    let parsed = kubeconfig::read(kubeconfig).map_err(|reason| unusable(&reason))?;
    let options = KubeConfigOptions::default();
    let mut config = Config::from_custom_kubeconfig(parsed, &options).await.map_err(|error| unusable(&error))?;
    bound(&mut config);
    Ok(config)
}

fn bound(config: &mut Config) {
    config.connect_timeout = Some(Duration::from_secs(3));
    config.read_timeout = Some(Duration::from_secs(10));
    config.write_timeout = Some(Duration::from_secs(10));
}

fn unusable(error: &dyn std::fmt::Display) -> Error {
    Error::failed("use the kubeconfig", error)
}

/// Whether the object asked for does not exist.
pub fn is_not_found(error: &kube::Error) -> bool {
    verdict(error) == Verdict::Missing
}

/// What the API server of `client` says at a path of its own.
///
/// # Errors
/// Why it does not say.
async fn page(client: &Client, path: &str, action: &str) -> Result<String> {
    let request = hyper::Request::get(path).body(Vec::new()).map_err(|error| Error::failed(action, error))?;
    client.request_text(request).await.map_err(|error| failed(action, &error))
}

/// Whether the API server says that it is ready, now.
pub async fn is_served(client: &Client) -> bool {
    let Ok(request) = hyper::Request::get("/readyz").body(Vec::new()) else { return false };
    matches!(tokio::time::timeout(SERVED_LIMIT, client.request_text(request)).await, Ok(Ok(_)))
}

/// An error as one short sentence.
pub fn explain(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message.clone(),
        other => {
            let mut text = other.to_string();
            let mut source = std::error::Error::source(other);
            while let Some(cause) = source {
                let cause_text = cause.to_string();
                if !text.contains(&cause_text) {
                    text = format!("{text}: {cause_text}");
                }
                source = cause.source();
            }
            text
        }
    }
}
