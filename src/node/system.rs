//! The machine that hoist runs on, and the servers that it can reach: the real [`World`].

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use kube::Client;
use time::OffsetDateTime;
use tokio::process::Command;

use crate::api;
use crate::base::error::{Error, Result};
use crate::base::probe::{self, Keeping, LACK_PAUSE, Probe};
use crate::base::watched::Watched;
use crate::desired::secrets::Tls;
use crate::etcd::alarms;
use crate::etcd::alarms::Health;
use crate::etcd::client::is_healthy;
use crate::node::host::Host;
use crate::node::world::{Ask, Ran, World};
use crate::node::{interfaces, packet_filter, processes};

/// This machine, with its file system below `root` (`/` but for tests) and the kubelet's static pods in `manifests`.
pub fn host(root: &Path, manifests: &Path) -> Host {
    Host::new(root, manifests, Arc::new(System))
}

/// The machine that hoist runs on.
#[derive(Debug, Clone, Copy, Default)]
pub struct System;

impl World for System {
    fn now(&self) -> OffsetDateTime {
        OffsetDateTime::now_utc()
    }

    fn is_root(&self) -> bool {
        nix::unistd::geteuid().is_root()
    }

    fn nftables(&self) -> std::result::Result<(), String> {
        packet_filter::nftables()
    }

    fn hostname(&self) -> String {
        nix::unistd::gethostname().unwrap_or_default().to_string_lossy().into_owned()
    }

    fn addresses(&self) -> Result<Vec<IpAddr>> {
        let addresses = interfaces::addresses();
        let addresses = addresses.map_err(|error| Error::failed("list the network interfaces", error))?;
        Ok(addresses.map(|(_, address)| address).collect())
    }

    fn is_free(&self, address: SocketAddr) -> bool {
        processes::is_free(address)
    }

    fn etcd<'a>(&'a self, address: SocketAddr, tls: &'a Tls, limit: Duration) -> BoxFuture<'a, Result<Health, String>> {
        Box::pin(alarms::ask(address, tls, limit))
    }

    fn etcd_serves<'a>(&'a self, address: SocketAddr, tls: &'a Tls, limit: Duration) -> BoxFuture<'a, bool> {
        Box::pin(is_healthy(address, tls, limit))
    }

    fn accepts(&self, address: SocketAddr, limit: Duration) -> BoxFuture<'_, bool> {
        let ask = async move {
            loop {
                match tokio::net::TcpStream::connect(address).await {
                    Err(error) if probe::lacks(&error) => tokio::time::sleep(LACK_PAUSE).await,
                    answer => return answer.is_ok(),
                }
            }
        };
        Box::pin(async move { tokio::time::timeout(limit, ask).await.unwrap_or(false) })
    }

    fn watch(&self, folders: Vec<PathBuf>) -> Watched {
        Watched::new(folders)
    }

    fn run<'a>(&'a self, program: &'a str, args: &'a [&'a str], limit: Duration) -> BoxFuture<'a, Result<Ran>> {
        let action = move || format!("run `{program} {}`", args.join(" "));
        Box::pin(async move {
            let mut command = Command::new(program);
            // It has no business with the service manager that waits for hoist's own word.
            let run = command.args(args).env_remove("NOTIFY_SOCKET").kill_on_drop(true).output();
            let output = match tokio::time::timeout(limit, run).await {
                Err(_) => return Err(Error::failed(action(), format!("no answer within {} s", limit.as_secs()))),
                Ok(output) => output.map_err(|error| Error::failed(action(), error))?,
            };
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            Ok(Ran { success: output.status.success(), stdout: text(&output.stdout), stderr: text(&output.stderr) })
        })
    }

    fn probe(&self, ca_pem: &[u8]) -> Result<Box<dyn Ask>> {
        Ok(Box::new(Probe::new(ca_pem)?))
    }

    fn keeping_probe(&self, ca_pem: &[u8]) -> Result<Box<dyn Ask>> {
        Ok(Box::new(Keeping::new(Probe::new(ca_pem)?)))
    }

    fn connect<'a>(&'a self, kubeconfig: &'a str, address: SocketAddr) -> BoxFuture<'a, Result<Client>> {
        Box::pin(api::connect(kubeconfig, address))
    }
}
