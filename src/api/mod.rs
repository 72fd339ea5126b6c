//! The only owner of the Kubernetes API: connecting, applying, observing, and the few single writes of `start`.

pub mod apply;
pub mod dns;
pub mod guard;
pub mod health;
pub mod observe;
pub mod owners;
pub mod self_hosted;
mod transport;
pub mod write;

use std::net::SocketAddr;
use std::time::Duration;

use kube::config::KubeConfigOptions;
use kube::{Client, Config};

use crate::error::{Error, Result};
use crate::kubeconfig;

/// The field manager of everything hoist applies.
pub const FIELD_MANAGER: &str = "hoist";

/// A client with `kubeconfig`'s credentials for the API server at `address`.
///
/// Each connection and answer is bounded in time and nothing is retried: the loop that calls tries again itself.
///
/// # Errors
/// A kubeconfig that does not parse, or gets its credentials elsewhere than from itself and from files.
pub async fn connect(kubeconfig: &str, address: SocketAddr) -> Result<Client> {
    let failed = |error: &dyn std::fmt::Display| Error::failed("use the kubeconfig", error);
    let parsed = kubeconfig::read(kubeconfig).map_err(|reason| failed(&reason))?;
    let options = KubeConfigOptions::default();
    let mut config = Config::from_custom_kubeconfig(parsed, &options).await.map_err(|error| failed(&error))?;
    config.cluster_url = format!("https://{address}").parse().map_err(|error| failed(&error))?;
    config.connect_timeout = Some(Duration::from_secs(3));
    config.read_timeout = Some(Duration::from_secs(10));
    config.write_timeout = Some(Duration::from_secs(10));
    transport::client(config)
}

/// Whether an error is the API server's own word on the object (as opposed to a lost connection or an overload),
/// so that asking again cannot help.
pub fn is_refusal(error: &kube::Error) -> bool {
    match error {
        kube::Error::Api(status) => {
            (400..500).contains(&status.code) && !matches!(status.code, 401 | 404 | 408 | 409 | 429)
        }
        _ => false,
    }
}

/// Whether the object asked for does not exist.
pub fn is_not_found(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 404)
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
