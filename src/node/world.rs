//! What a start meets outside of itself that is no file: the machine's system, the API servers, the date. One trait, so
//! that a test can put a scripted world in its place; [`System`] is the real one.
//!
//! Durations are measured by tokio's clock, which a test can let run at its own pace.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use futures::future::BoxFuture;
use kube::Client;
use time::OffsetDateTime;
use tokio::process::Command;

use crate::api;
use crate::base::error::{Error, Result};
use crate::base::probe;
use crate::base::probe::{Answer, LACK_PAUSE, Probe};
use crate::desired::secrets::Tls;
use crate::etcd::alarms::{self, Health};
use crate::node::packet_filter;
use crate::node::processes;

/// What a program came to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ran {
    /// It exited with 0.
    pub success: bool,
    /// What it wrote on standard output.
    pub stdout: String,
    /// What it wrote on standard error.
    pub stderr: String,
}

/// The outside of one start.
pub trait Outside: fmt::Debug + Send + Sync {
    /// The date and time, which somebody may set meanwhile.
    fn now(&self) -> OffsetDateTime;

    /// Whether hoist runs as root.
    fn is_root(&self) -> bool;

    /// Whether the kernel has the nftables that kube-proxy needs.
    ///
    /// # Errors
    /// Why not, as the end of a sentence that begins with the kernel.
    fn nftables(&self) -> std::result::Result<(), String>;

    /// The machine's name.
    fn hostname(&self) -> String;

    /// The addresses of the machine's interfaces.
    ///
    /// # Errors
    /// The system's refusal to list them.
    fn addresses(&self) -> Result<Vec<IpAddr>>;

    /// Whether nobody listens at `address`, so that a server could.
    fn is_free(&self, address: SocketAddr) -> bool;

    /// Whether somebody accepts a connection at `address` within `limit`. What this machine lacks for it at first it may
    /// have a moment later.
    fn accepts(&self, address: SocketAddr, limit: Duration) -> BoxFuture<'_, bool>;

    /// How the etcd at `address` is, which lets in whom `tls` has the certificates of; it must say so within `limit`.
    fn etcd<'a>(&'a self, address: SocketAddr, tls: &'a Tls, limit: Duration) -> BoxFuture<'a, Result<Health, String>>;

    /// Runs a program to its end, which must come within `limit`.
    fn run<'a>(&'a self, program: &'a str, args: &'a [&'a str], limit: Duration) -> BoxFuture<'a, Result<Ran>>;

    /// What asks API servers for which one of the CAs in `ca_pem` vouches.
    ///
    /// # Errors
    /// What is no certificate.
    fn probe(&self, ca_pem: &[u8]) -> Result<Box<dyn Ask>>;

    /// A client with the credentials of `kubeconfig` for the API server at `address`.
    fn connect<'a>(&'a self, kubeconfig: &'a str, address: SocketAddr) -> BoxFuture<'a, Result<Client>>;
}

/// Asks an API server instance, each time on a connection of its own.
pub trait Ask: Send + Sync {
    /// One GET, answered or given up within `limit`.
    fn get<'a>(&'a self, address: SocketAddr, path: &'a str, limit: Duration) -> BoxFuture<'a, Answer>;
}

/// The machine that hoist runs on.
#[derive(Debug, Clone, Copy, Default)]
pub struct System;

impl Outside for System {
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
        let interfaces =
            nix::ifaddrs::getifaddrs().map_err(|error| Error::failed("list the network interfaces", error))?;
        let address = |interface: nix::ifaddrs::InterfaceAddress| {
            let storage = interface.address?;
            let v4 = storage.as_sockaddr_in().map(|address| IpAddr::V4(address.ip()));
            v4.or_else(|| storage.as_sockaddr_in6().map(|address| IpAddr::V6(address.ip())))
        };
        Ok(interfaces.filter_map(address).collect())
    }

    fn is_free(&self, address: SocketAddr) -> bool {
        processes::is_free(address)
    }

    fn etcd<'a>(&'a self, address: SocketAddr, tls: &'a Tls, limit: Duration) -> BoxFuture<'a, Result<Health, String>> {
        Box::pin(alarms::ask(address, tls, limit))
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

    fn connect<'a>(&'a self, kubeconfig: &'a str, address: SocketAddr) -> BoxFuture<'a, Result<Client>> {
        Box::pin(api::connect(kubeconfig, address))
    }
}

impl Ask for Probe {
    fn get<'a>(&'a self, address: SocketAddr, path: &'a str, limit: Duration) -> BoxFuture<'a, Answer> {
        Box::pin(Self::get(self, address, path, limit))
    }
}
