//! What is known of a node before its kubelet is exchanged, and what stands in the way of it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use kube::Client;

use crate::api;
use crate::api::skew::{self, Serves};
use crate::base::error::{Error, Finding, Result};
use crate::base::yaml;
use crate::desired::config::Version;
use crate::desired::{kubelet_config, pki};
use crate::node::cri::pods::{Pods, Runs};
use crate::node::host::Host;
use crate::node::kubelet::program::{self, Place, Running};
use crate::node::static_pods::StaticPods;

use super::super::check::{GIVE_UID, KUBELET_BEHIND};

/// Kubelets from this minor version on ask the runtime for its cgroup driver (RuntimeConfig of CRI), and do not start without an
/// answer.
const KUBELET_NEEDS_RUNTIME_CONFIG: u32 = 38;
/// How long the container runtime may take to say what it can.
const RUNTIME_LIMIT: Duration = Duration::from_secs(10);

/// The node, with all that its kubelet is asked by.
pub(super) struct Scene<'a> {
    pub host: &'a Host,
    /// The new program.
    pub program: PathBuf,
    /// Its version.
    pub new: Version,
    /// The version of the program that is in the kubelet's place, or of the one that waits beside it.
    pub old: Version,
    pub place: Place,
    /// The Node's name.
    pub node: String,
    /// A client with the kubelet's own rights.
    pub client: Client,
    /// The container runtime.
    pub runtime: Pods,
    socket: PathBuf,
    running: Option<Running>,
}

impl<'a> Scene<'a> {
    /// Looks; `program` is the new kubelet.
    ///
    /// # Errors
    /// No kubelet, or one that reaches no API; a program that is no kubelet.
    pub async fn look(host: &'a Host, program: &Path) -> Result<Self> {
        let new = program::version(host, program).await?;
        let place = Place::find(host).await?;
        let old = match place.has_way_back() {
            true => program::version(host, &place.way_back()).await?,
            false => program::version(host, place.path()).await?,
        };
        let running = program::running(host).await?;
        let flag = |name: &str| running.as_ref().and_then(|running| running.flag(name));
        let file = |name: &str, otherwise: PathBuf| flag(name).map_or(otherwise, |path| host.path(path));
        let kubeconfig = file("kubeconfig", host.kubelet_kubeconfig());
        let text = std::fs::read_to_string(&kubeconfig).map_err(|error| Error::io("read", &kubeconfig, error))?;
        let client = api::admin(&text).await?.client;
        let configuration = file("config", host.path("/var/lib/kubelet/config.yaml"));
        let text = std::fs::read_to_string(&configuration).unwrap_or_default();
        let place_of_it = configuration.display().to_string();
        let document = yaml::documents(&place_of_it, &text).map_err(Error::Input)?.into_iter().next();
        let configuration = document.map(|document| document.value).unwrap_or_default();
        let endpoint = flag("container-runtime-endpoint").unwrap_or(kubelet_config::runtime_endpoint(&configuration));
        let socket = host.path(endpoint.strip_prefix("unix://").unwrap_or(endpoint));
        let node = node_name(host).ok_or_else(|| Error::Failed {
            action: "find this machine's Node".into(),
            cause: format!("{} names none", host.kubelet_certificate().display()),
            next: Some("a kubelet that has joined a cluster has a client certificate there".into()),
        })?;
        let program = program.to_owned();
        Ok(Self { host, program, new, old, place, node, client, runtime: Pods::new(&socket), socket, running })
    }

    /// All that stands in the way, and what does not and is worth knowing; and the pods that will be made anew.
    ///
    /// # Errors
    /// Whoever does not answer.
    pub async fn judge(&self) -> Result<(Vec<Finding>, BTreeSet<String>)> {
        let mut findings = versions(self.old, self.new, skew::serves(&self.client).await?);
        findings.extend(self.flags().await?);
        findings.extend(self.runtime_config().await);
        let mut anew = BTreeSet::new();
        if self.old.minor != self.new.minor {
            for (path, pod) in StaticPods::new(self.host.manifests()).without_own_uid()? {
                findings.push(has_no_uid(&path, &pod));
                anew.insert(format!("{pod}-{}", self.node));
            }
        }
        Ok((findings, anew))
    }

    async fn flags(&self) -> Result<Vec<Finding>> {
        // One that does not run says nothing of its flags: an exchange that was cut short is gone on with.
        let Some(running) = &self.running else {
            let finding = Finding::new("kubelet", "does not run, so that nobody knows its flags")
                .remedy("`journalctl -u kubelet -n 50` may say why; start it first");
            return Ok((!self.place.has_way_back()).then_some(finding).into_iter().collect());
        };
        let said = program::judge(self.host, &self.program, running).await?;
        let finding = |message: String| Finding::new(self.program.display().to_string(), message);
        let refusal = said.refusal.map(|why| {
            finding(format!("does not take the flags and the configuration of this kubelet: {why}")).remedy(
                "`systemctl cat kubelet` shows the flags; on a controller, kubelet.config of cluster.yaml is its configuration",
            )
        });
        let unknown =
            said.unknown.map(|what| finding(format!("leaves out what it does not know of the configuration: {what}")));
        Ok(refusal.into_iter().chain(unknown.map(Finding::warning)).collect())
    }

    /// Kubelets ask for the method RuntimeConfig from a version on.
    async fn runtime_config(&self) -> Option<Finding> {
        if self.new.minor < KUBELET_NEEDS_RUNTIME_CONFIG {
            return None;
        }
        let runtime = crate::node::cri::ask(&self.socket, RUNTIME_LIMIT).await.ok()?;
        let finding = Finding::new(runtime.name, format!("is too old for a kubelet of {}", self.new));
        runtime.told_driver.is_none().then(|| finding.remedy("containerd 2.0 and newer are new enough"))
    }

    /// The containers that run now.
    ///
    /// # Errors
    /// A runtime that does not answer.
    pub async fn containers(&self) -> Result<Vec<Runs>> {
        self.runtime.running().await
    }
}

/// The name of this machine's Node, by the certificate of its kubelet.
fn node_name(host: &Host) -> Option<String> {
    let pem = std::fs::read(host.kubelet_certificate()).ok()?;
    let subject = pki::inspect(&pem).ok()?.subject;
    subject.split(", ").find_map(|part| part.strip_prefix("CN=system:node:")).map(str::to_owned)
}

/// What the versions say.
fn versions(old: Version, new: Version, serves: Serves) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut finding = |message: String, remedy: &str| {
        findings.push(Finding::new(format!("kubelet {new}"), message).remedy(remedy));
    };
    if (new.major, new.minor) < (old.major, old.minor) {
        finding(
            format!("is of an older minor version than this node's {old}, whose files it may not be able to read"),
            "make the node anew with the older version",
        );
    }
    let api = serves.version;
    // What is tried may be taken back, and then no kubelet may be newer.
    let served = serves.emulates.unwrap_or(api.minor);
    if new.minor > served {
        let trial = if serves.emulates.is_some() { format!(", and emulates 1.{served} still") } else { String::new() };
        finding(
            format!("is newer than the API server, which is {api}{trial}: a kubelet may not be"),
            "`hoist upgrade apply` brings the control plane to the new version first",
        );
    }
    if new.minor + KUBELET_BEHIND < api.minor {
        finding(
            format!("is more than {KUBELET_BEHIND} minor versions older than the API server, which is {api}"),
            "take a newer one",
        );
    }
    findings
}

fn has_no_uid(path: &Path, pod: &str) -> Finding {
    Finding::new(
        path.display().to_string(),
        format!("the static pod {pod} has no metadata.uid: a kubelet of another minor version makes it anew, and its containers are restarted"),
    )
    .remedy(GIVE_UID)
    .warning()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(minor: u32, patch: u32) -> Version {
        Version { major: 1, minor, patch }
    }

    fn said(old: Version, new: Version, api: u32, emulates: Option<u32>) -> String {
        let findings = versions(old, new, Serves { version: version(api, 0), emulates });
        findings.iter().map(|finding| finding.message.clone()).collect::<Vec<_>>().join("; ")
    }

    #[test]
    fn a_kubelet_is_neither_newer_than_what_serves_nor_older_than_before() {
        assert_eq!(said(version(36, 3), version(37, 2), 37, None), "");
        assert_eq!(said(version(34, 4), version(37, 2), 37, None), "", "a kubelet may leave versions out");
        assert_eq!(said(version(37, 2), version(37, 1), 37, None), "", "patch versions go both ways");
        assert!(
            said(version(36, 3), version(37, 2), 36, None).contains("is newer than the API server, which is v1.36.0:")
        );
        assert!(said(version(36, 3), version(37, 2), 37, Some(36)).contains("emulates 1.36 still"));
        assert!(
            said(version(37, 2), version(36, 3), 37, None).contains("older minor version than this node's v1.37.2")
        );
        assert!(said(version(33, 0), version(33, 1), 37, None).contains("more than 3 minor versions older"));
    }
}
