//! Everything outside of hoist that is not a file: the operating system, the API servers, etcd, the date. It is one trait,
//! so that a test can replace it with a scripted world; `system.rs` has the real one.
//!
//! Durations are measured by tokio's clock, which a test can let run at its own pace.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use futures::future::BoxFuture;
use kube::Client;
use time::OffsetDateTime;

use crate::base::error::Result;
use crate::base::probe::{Answer, Keeping, Probe};
use crate::base::watched::Watched;
use crate::desired::secrets::Tls;
use crate::etcd::alarms::Health;

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
pub trait World: fmt::Debug + Send + Sync {
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

    /// Whether the member of etcd at `address` says within `limit` that it serves: it reaches a leader that has a majority.
    fn etcd_serves<'a>(&'a self, address: SocketAddr, tls: &'a Tls, limit: Duration) -> BoxFuture<'a, bool>;

    /// Watches folders, which need not be there yet, for changes by other programs.
    fn watch(&self, folders: Vec<PathBuf>) -> Watched;

    /// Runs a program to its end, which must come within `limit`.
    fn run<'a>(&'a self, program: &'a str, args: &'a [&'a str], limit: Duration) -> BoxFuture<'a, Result<Ran>>;

    /// What asks API servers for which one of the CAs in `ca_pem` vouches.
    ///
    /// # Errors
    /// What is no certificate.
    fn probe(&self, ca_pem: &[u8]) -> Result<Box<dyn Ask>>;

    /// The same, on connections that are kept: for who asks the same ones all the time.
    ///
    /// # Errors
    /// The same.
    fn keeping_probe(&self, ca_pem: &[u8]) -> Result<Box<dyn Ask>> {
        self.probe(ca_pem)
    }

    /// A client with the credentials of `kubeconfig` for the API server at `address`.
    fn connect<'a>(&'a self, kubeconfig: &'a str, address: SocketAddr) -> BoxFuture<'a, Result<Client>>;
}

/// Asks an API server instance.
pub trait Ask: Send + Sync {
    /// One GET, answered or given up within `limit`.
    fn get<'a>(&'a self, address: SocketAddr, path: &'a str, limit: Duration) -> BoxFuture<'a, Answer>;
}

impl Ask for Probe {
    fn get<'a>(&'a self, address: SocketAddr, path: &'a str, limit: Duration) -> BoxFuture<'a, Answer> {
        Box::pin(Self::get(self, address, path, limit))
    }
}

impl Ask for Keeping {
    fn get<'a>(&'a self, address: SocketAddr, path: &'a str, limit: Duration) -> BoxFuture<'a, Answer> {
        Box::pin(Self::get(self, address, path, limit))
    }
}
