//! What of hoist's runs on a node, and which hoist it runs.
//!
//! A pod runs the program of the process that listens where its manifest says. So neither a name nor an image's tag counts, and a pod
//! that does not serve runs nothing.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use crate::base::error::{Error, Finding, Result};
use crate::base::files;
use crate::base::yaml;
use crate::desired::{kubelet_config, node_endpoint};
use crate::node::host::{BINARY, Host};
use crate::node::images::{self, Missing};
use crate::node::processes::{self, Process};
use crate::node::static_pods::StaticPods;
use crate::plane::bridge::GUARD;

use super::decide::{Beside, Observed, Pod};

/// The manifest of the second endpoint.
pub(super) const BESIDE: &str = "hoist-endpoint-beside.yaml";
/// The variable that tells the process of the second endpoint from the first's.
pub(super) const MARK: &str = "HOIST_ENDPOINT_BESIDE";
/// The containers of guard and of the endpoint, and the flags that say where they listen.
pub(super) const CONTAINERS: [(&str, &str, &str); 2] =
    [(GUARD, "guard", "metrics-bind-address"), (node_endpoint::NAME, "endpoint", "listen")];

/// The node and the new hoist.
pub(super) struct Scene<'a> {
    pub host: &'a Host,
    pub pods: StaticPods,
    /// The new program's file.
    pub program: PathBuf,
    /// What tells its content.
    pub sum: String,
    /// The image that has it, for pods that run an image.
    pub image: Option<&'a str>,
    /// Which processes run it: two large files are compared once.
    known: BTreeMap<(i32, u64), bool>,
}

impl<'a> Scene<'a> {
    /// Looks.
    ///
    /// # Errors
    /// No image where pods run one; one that is not on this machine.
    pub async fn look(host: &'a Host, program: &Path, image: Option<&'a str>) -> Result<Self> {
        let content = std::fs::read(program).map_err(|error| Error::io("read", program, error))?;
        let sum = files::sha256(&content)[..16].to_owned();
        let pods = StaticPods::new(host.manifests());
        let scene = Self { host, pods, program: program.to_owned(), sum, image, known: BTreeMap::new() };
        scene.judge().await?;
        Ok(scene)
    }

    async fn judge(&self) -> Result<()> {
        let of_image = CONTAINERS.iter().find(|(name, ..)| self.pods.has_own(name) && !self.mounts(name));
        let Some((name, container, _)) = of_image else { return Ok(()) };
        let place = self.host.manifests().join(name).display().to_string();
        let Some(image) = self.image else {
            let finding = Finding::new(place, "runs an image, and --image does not say which one has the new hoist");
            return Err(Error::Input(vec![finding.remedy(
                "`hoist image save FILE --name IMAGE` of the new hoist makes one; give it by --image IMAGE",
            )]));
        };
        let present = images::present(&self.socket()).await;
        // One that does not say what it has is asked by the kubelet.
        if present.is_ok_and(|present| !images::is_there(image, &present)) {
            let missing = Missing { pod: (*container).to_owned(), image: image.to_owned() };
            return Err(Error::Input(vec![Finding::new(place, missing.to_string()).remedy(missing.remedy())]));
        }
        Ok(())
    }

    fn socket(&self) -> PathBuf {
        let text = std::fs::read_to_string(self.host.path("/var/lib/kubelet/config.yaml")).unwrap_or_default();
        let document = yaml::documents("", &text).ok().and_then(|all| all.into_iter().next());
        let configuration = document.map(|document| document.value).unwrap_or_default();
        let endpoint = kubelet_config::runtime_endpoint(&configuration);
        self.host.path(endpoint.strip_prefix("unix://").unwrap_or(endpoint))
    }

    /// Whether a pod runs the binary of this machine's disk.
    pub fn mounts(&self, name: &str) -> bool {
        self.pods.read(name).is_some_and(|text| text.contains(BINARY))
    }

    /// Observes.
    ///
    /// # Errors
    /// A binary that cannot be read.
    pub fn observe(&mut self) -> Result<Observed> {
        let binary = self.host.binary();
        let is_new = || files::have_same_content(&self.program, &binary);
        let is_new = binary.is_file().then(is_new).transpose().map_err(|error| Error::io("read", &binary, error))?;
        let needed = CONTAINERS.iter().any(|(name, ..)| self.mounts(name));
        let [guard, endpoint] = CONTAINERS.map(|(name, _, flag)| self.pod(name, flag));
        let beside = match (self.pods.has(BESIDE), self.listeners(node_endpoint::NAME, "listen", true)) {
            (false, all) if all.is_empty() => Beside::Absent,
            (false, _) => Beside::Leaves,
            (true, all) if !all.is_empty() && all.iter().all(|process| self.is_new(process)) => Beside::Serves,
            (true, _) => Beside::Written,
        };
        Ok(Observed {
            binary: is_new.or(needed.then_some(false)),
            guard,
            endpoint,
            beside,
            waited: Default::default(),
            limit: Default::default(),
        })
    }

    fn pod(&mut self, name: &str, flag: &str) -> Option<Pod> {
        self.pods.read(name).filter(|_| self.pods.has_own(name))?;
        let all = self.listeners(name, flag, false);
        let serves = !all.is_empty() && all.iter().all(|process| self.is_new(process));
        // It may have begun after the binary was put there, by itself.
        let is_written = serves && self.mounts(name) || self.is_written(name);
        Some(Pod { is_written, serves })
    }

    /// Whether the manifest `name` was put in for the new hoist.
    pub fn is_written(&self, name: &str) -> bool {
        let container = CONTAINERS.iter().find(|(there, ..)| *there == name).map(|(_, container, _)| *container);
        let text = self.pods.read(name).unwrap_or_default();
        match self.mounts(name) {
            true => self.pods.program(name).as_deref() == Some(&*self.sum),
            false => container.and_then(|container| images::of_container(&text, container)).as_deref() == self.image,
        }
    }

    /// The processes that listen where the manifest `name` says: the second endpoint's, or all others.
    fn listeners(&self, name: &str, flag: &str, beside: bool) -> Vec<Process> {
        let proc = self.host.path("/proc");
        let is_beside = |process: &Process| processes::variable(&proc, process.pid, MARK).is_some();
        let all = address(&self.pods.read(name).unwrap_or_default(), flag);
        let all = all.map(|address| processes::all_listeners(&proc, address)).unwrap_or_default();
        all.into_iter().filter(|process| is_beside(process) == beside).collect()
    }

    fn is_new(&mut self, process: &Process) -> bool {
        let program = self.host.path("/proc").join(process.pid.to_string()).join("exe");
        *self
            .known
            .entry((process.pid, process.began))
            .or_insert_with(|| files::have_same_content(&self.program, &program).unwrap_or(false))
    }
}

/// Where a manifest's first container listens, by this flag.
fn address(text: &str, flag: &str) -> Option<SocketAddr> {
    let document = yaml::documents("", text).ok()?.into_iter().next()?;
    let command = document.value.pointer("/spec/containers/0/command")?.as_array()?;
    let words: Vec<_> = command.iter().filter_map(|word| word.as_str().map(str::to_owned)).collect();
    processes::flag(&words, flag)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manifest_says_where_its_pod_listens() {
        let text = "kind: Pod\nspec:\n  containers:\n  - command: [/hoist, endpoint, '--listen=127.0.0.1:7443']\n";
        assert_eq!(address(text, "listen"), "127.0.0.1:7443".parse().ok());
        assert_eq!(address(text, "metrics-bind-address"), None);
        assert_eq!(address("kind: [", "listen"), None);
    }
}
