//! A client of the container runtime. CRI is gRPC over a Unix socket. The few messages that hoist needs are declared
//! by hand, so no compiler for the .proto is needed.

pub mod images;
mod messages;
pub mod pods;
pub mod sandboxes;

use std::fmt;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use crate::base::grpc::{Connection, Failure};
use messages::{
    RuntimeConfigRequest, RuntimeConfigResponse, StatusRequest, StatusResponse, VersionRequest, VersionResponse,
};

/// The service of CRI that runs pods.
const SERVICE: &str = "runtime.v1.RuntimeService";
/// What containerd says to all questions while it starts: after a boot that is when a start comes.
const STARTING: &str = "server is not initialized yet";
/// Between two questions to one that starts.
const INTERVAL: Duration = Duration::from_millis(50);

/// Who puts processes into cgroups: systemd, or whoever runs them, by files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CgroupDriver {
    /// systemd, as slices and scopes.
    Systemd,
    /// The kubelet and the runtime themselves.
    Cgroupfs,
}

impl fmt::Display for CgroupDriver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Systemd => "systemd",
            Self::Cgroupfs => "cgroupfs",
        })
    }
}

/// A runtime that answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Runtime {
    /// `containerd 1.6.20`
    pub name: String,
    /// Why it says that it can run no container; `None` when it can.
    pub not_ready: Option<String>,
    /// The driver that it tells the kubelet to use (the method RuntimeConfig); `None` from runtimes that do not.
    pub told_driver: Option<CgroupDriver>,
    /// The driver of its configuration, as far as it shows that: containerd does.
    pub own_driver: Option<CgroupDriver>,
    /// Where it looks for CNI plugins, as far as its configuration shows that: containerd's does.
    pub cni_bin_dirs: Vec<String>,
    /// Where it looks for the configuration of CNI, as far as it shows that: containerd does.
    pub cni_conf_dir: Option<String>,
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trouble {
    /// Nothing takes connections there.
    Unreachable(String),
    /// It took the connection, and then said nothing in time, or that it is starting.
    Silent,
    /// What answers is no CRI runtime, or does not like the question.
    Refused(String),
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable(reason) | Self::Refused(reason) => f.write_str(reason),
            Self::Silent => f.write_str("it does not answer"),
        }
    }
}

/// Asks the runtime at `socket`.
///
/// # Errors
/// What kept it from answering within `limit`.
pub async fn ask(socket: &Path, limit: Duration) -> Result<Runtime, Trouble> {
    let answer = async {
        loop {
            match talk(socket).await {
                Err(Trouble::Refused(reason)) if reason.contains(STARTING) => tokio::time::sleep(INTERVAL).await,
                answer => return answer,
            }
        }
    };
    tokio::time::timeout(limit, answer).await.unwrap_or(Err(Trouble::Silent))
}

async fn talk(socket: &Path) -> Result<Runtime, Trouble> {
    let mut connection = Connection::unix(socket).await.map_err(|error| Trouble::Unreachable(error.to_string()))?;
    let refused = |failure: Failure| Trouble::Refused(failure.to_string());
    let version: VersionResponse = connection.call(SERVICE, "Version", &VersionRequest {}).await.map_err(refused)?;
    let status: StatusResponse =
        connection.call(SERVICE, "Status", &StatusRequest { verbose: true }).await.map_err(refused)?;
    let config: Option<RuntimeConfigResponse> =
        match connection.call(SERVICE, "RuntimeConfig", &RuntimeConfigRequest {}).await {
            Ok(config) => Some(config),
            Err(Failure::Unimplemented(_)) => None,
            Err(failure) => return Err(refused(failure)),
        };
    let conditions = status.status.map(|status| status.conditions).unwrap_or_default();
    let not_ready = conditions.into_iter().find(|condition| condition.name == "RuntimeReady" && !condition.status);
    Ok(Runtime {
        name: format!("{} {}", version.runtime_name, version.runtime_version.trim_start_matches('v')),
        not_ready: not_ready.map(|condition| format!("{} {}", condition.reason, condition.message).trim().to_owned()),
        told_driver: config.and_then(|config| config.linux).map(|linux| driver(linux.cgroup_driver == 0)),
        own_driver: status.info.get("config").and_then(|config| containerds_driver(config)),
        cni_bin_dirs: status.info.get("config").map(|config| containerds_cni(config)).unwrap_or_default(),
        cni_conf_dir: status.info.get("config").and_then(|config| containerds_cni_configuration(config)),
    })
}

fn driver(is_systemd: bool) -> CgroupDriver {
    if is_systemd { CgroupDriver::Systemd } else { CgroupDriver::Cgroupfs }
}

/// The driver of the runtime that containerd uses by default, in the configuration that it shows with its status.
fn containerds_driver(config: &str) -> Option<CgroupDriver> {
    let config: Value = serde_json::from_str(config).ok()?;
    let containerd = config.get("containerd")?;
    let name = containerd.get("defaultRuntimeName")?.as_str()?;
    let options = containerd.get("runtimes")?.get(name)?.get("options")?;
    // It is left out, or the options are null, where nobody has set it.
    let is_systemd = options.get("SystemdCgroup").and_then(Value::as_bool).unwrap_or(false);
    Some(driver(is_systemd))
}

/// The folder of CNI's configuration in the same.
fn containerds_cni_configuration(config: &str) -> Option<String> {
    let config: Value = serde_json::from_str(config).ok()?;
    let folder = config.pointer("/cni/confDir")?.as_str()?;
    (!folder.is_empty()).then(|| folder.to_owned())
}

/// The folders of CNI plugins in the same: one, or since 2.1 several.
fn containerds_cni(config: &str) -> Vec<String> {
    let config: Value = serde_json::from_str(config).unwrap_or_default();
    let text = |value: &Value| value.as_str().filter(|text| !text.is_empty()).map(str::to_owned);
    let several = config.pointer("/cni/binDirs").and_then(Value::as_array);
    let mut found: Vec<_> = several.into_iter().flatten().filter_map(text).collect();
    found.extend(config.pointer("/cni/binDir").and_then(text));
    found
}

#[cfg(test)]
pub(crate) mod tests;
