//! Finds what hoist has put on this node.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::base::files;
use crate::base::yaml;
use crate::desired::assets;
use crate::desired::config;
use crate::desired::pki;
use crate::node::cri::sandboxes::{self, Pod};
use crate::node::host::Host;
use crate::node::static_pods::StaticPods;
use crate::plane::kept_copy;

/// How long the runtime may take to list its pods.
const LIMIT: Duration = Duration::from_secs(5);
/// `start` writes it, and begins it so: a kubelet with it is one that hoist runs.
const ENVIRONMENT: &str = "/etc/kubernetes/kubelet.env";
const WRITTEN: &str = "# Written by hoist start.";
/// What `start` writes for a kubelet, but for its environment.
const OF_THE_KUBELET: [&str; 3] =
    ["/etc/kubernetes/pki/ca.crt", "/etc/kubernetes/kubelet.conf", "/var/lib/kubelet/config.yaml"];
const KUBELET_PKI: &str = "/var/lib/kubelet/pki";
const KUBELET_PODS: &str = "/var/lib/kubelet/pods";
const ETCD_PKI: [&str; 5] = ["ca.crt", "peer.crt", "peer.key", "server.crt", "server.key"];
const ETCD_DATA: &str = "/var/lib/etcd";
const UNITS: [(&str, &str); 3] = [
    ("/etc/systemd/system/kubelet.service", "# How a kubelet must be run for hoist"),
    ("/etc/systemd/system/kubelet.service.d/20-hoist.conf", ""),
    ("/etc/systemd/system/hoist.service", HOISTS_UNIT),
];
const HOISTS_UNIT: &str = "# Brings the cluster up at the first boot";
/// A package's unit, and what has systemd run it at boots.
const PACKAGED: &str = "/usr/lib/systemd/system/hoist.service";
const ENABLED: &str = "/etc/systemd/system/multi-user.target.wants/hoist.service";
const CONTAINERD: &str = "unix:///run/containerd/containerd.sock";

/// All of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Found {
    /// Manifests in the kubelet's folder of static pods, by name.
    pub manifests: Vec<String>,
    /// Files.
    pub files: Vec<PathBuf>,
    /// Folders, with all that is in them.
    pub folders: Vec<PathBuf>,
    /// Files of systemd's units, and the link that enables a package's.
    pub units: Vec<PathBuf>,
    /// The kubelet is one that hoist runs: it is stopped, and its pods end.
    pub has_kubelet: bool,
    /// The pods of the container runtime.
    pub pods: Vec<Pod>,
    /// Why those are not known.
    pub runtime_trouble: Option<String>,
    /// The runtime's socket.
    pub socket: PathBuf,
    /// What says whose etcd's data is, and its content: it is what `start` knows kept data by.
    pub kept_etcd: Option<(PathBuf, String)>,
    /// etcd's data, if it is there.
    pub etcd_data: Option<PathBuf>,
    /// It is removed, too.
    pub removes_etcd_data: bool,
    /// What says, in the asset directory that guard's copy is of, which cluster was brought up: it goes with the data.
    pub cluster_id: Option<PathBuf>,
    /// The folder of static pods.
    pub manifests_in: PathBuf,
}

impl Found {
    /// Nothing is left to remove.
    pub fn is_empty(&self) -> bool {
        let has_data = self.removes_etcd_data && (self.etcd_data.is_some() || self.cluster_id.is_some());
        let files = self.files.is_empty() && self.folders.is_empty() && self.units.is_empty();
        self.manifests.is_empty() && files && !self.has_kubelet && !has_data
    }
}

/// Looks for all of it.
pub async fn look(host: &Host, removes_etcd_data: bool) -> Found {
    let pods = StaticPods::new(host.manifests());
    let environment = host.path(ENVIRONMENT);
    let has_kubelet = begins_with(&environment, WRITTEN);
    let mut files = Vec::new();
    if has_kubelet {
        files.extend(OF_THE_KUBELET.map(|path| host.path(path)));
        files.extend(ETCD_PKI.map(|name| host.etcd_pki().join(name)));
        files.extend(certificates(&host.path(KUBELET_PKI)));
        // The last one: by it is told that the others are hoist's.
        files.push(environment);
    }
    files.retain(|path| path.symlink_metadata().is_ok());
    let mut folders = vec![host.bridge(), host.permanent(), host.serving_pki(), host.path("/var/lib/hoist")];
    let socket = socket(host);
    let (mut running, mut runtime_trouble) = (Vec::new(), None);
    if has_kubelet {
        folders.push(host.path(KUBELET_PODS));
        match sandboxes::pods(&socket, LIMIT).await {
            Ok(pods) => running = pods,
            Err(trouble) => runtime_trouble = Some(trouble.to_string()),
        }
    }
    folders.retain(|folder| folder.is_dir());
    let units = UNITS.iter().map(|(path, begin)| (host.path(path), begin));
    let units = units.filter(|(path, begin)| path.is_file() && begins_with(path, begin)).map(|(path, _)| path);
    let etcd_data = pods.host_path("etcd.yaml", "data").unwrap_or_else(|| ETCD_DATA.to_owned());
    let is_own = has_kubelet || pods.has_own("etcd.yaml") || host.kept_etcd(&etcd_data).is_file();
    let ca = files::read_if_there(&host.etcd_pki().join("ca.crt")).ok().flatten().filter(|_| has_kubelet);
    Found {
        kept_etcd: ca.map(|ca| {
            let sums: Vec<_> = pki::ca_sums(&ca).into_iter().collect();
            (host.kept_etcd(&etcd_data), sums.join("\n") + "\n")
        }),
        manifests: pods.own(),
        files,
        folders,
        units: units.chain(enabled_by_package(host)).collect(),
        has_kubelet,
        pods: running,
        runtime_trouble,
        socket,
        // By what etcd makes in it, and nobody else.
        etcd_data: Some(host.path(&etcd_data).join("member")).filter(|data| is_own && data.is_dir()),
        removes_etcd_data,
        cluster_id: cluster_id(host).filter(|_| removes_etcd_data),
        manifests_in: host.manifests().to_owned(),
    }
}

/// The link by which systemd runs a package's hoist.service at boots. The unit itself is the package's.
fn enabled_by_package(host: &Host) -> Option<PathBuf> {
    let link = host.path(ENABLED);
    let unit = std::fs::read_link(&link).ok()?;
    let is_packages =
        unit.ends_with("lib/systemd/system/hoist.service") && begins_with(&host.path(PACKAGED), HOISTS_UNIT);
    is_packages.then_some(link)
}

/// Where the asset directory has noted which cluster it is of.
fn cluster_id(host: &Host) -> Option<PathBuf> {
    let noted = kept_copy::Copy::load(host).ok().flatten().and_then(|copy| copy.asset_dir);
    let default = host.path(config::ASSET_DIR);
    let dir = noted.map(|dir| host.path(&dir.to_string_lossy())).unwrap_or(default);
    Some(dir.join(assets::CLUSTER_ID)).filter(|path| path.is_file())
}

/// Where the kubelet's container runtime listens.
fn socket(host: &Host) -> PathBuf {
    let text = std::fs::read_to_string(host.path("/var/lib/kubelet/config.yaml")).unwrap_or_default();
    let document = yaml::documents("config.yaml", &text).ok().and_then(|documents| documents.into_iter().next());
    let endpoint = document.and_then(|document| document.value["containerRuntimeEndpoint"].as_str().map(str::to_owned));
    let endpoint = endpoint.filter(|endpoint| !endpoint.is_empty()).unwrap_or_else(|| CONTAINERD.to_owned());
    host.path(endpoint.strip_prefix("unix://").unwrap_or(&endpoint))
}

fn begins_with(path: &Path, begin: &str) -> bool {
    files::read_if_there(path).ok().flatten().is_some_and(|text| text.starts_with(begin.as_bytes()))
}

/// The certificates by which the kubelet is let in and with which it serves, those that it has renewed and the links to
/// the current ones.
fn certificates(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let is_one = |name: &str| {
        (name.starts_with("kubelet-client-") || name.starts_with("kubelet-server-")) && name.ends_with(".pem")
    };
    let found = entries.filter(|entry| is_one(&entry.file_name().to_string_lossy()));
    let mut found: Vec<_> = found.map(|entry| entry.path()).collect();
    found.sort();
    found
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            writeln!(f, "nothing of hoist's is on this node")?;
        } else {
            writeln!(f, "hoist reset removes from this node:")?;
        }
        if self.has_kubelet {
            writeln!(f, "  the kubelet, which is stopped")?;
        }
        for Pod { namespace, name, .. } in &self.pods {
            writeln!(f, "  the pod {namespace}/{name}")?;
        }
        if let Some(trouble) = &self.runtime_trouble {
            writeln!(f, "  no pods: the container runtime at {} says: {trouble}", self.socket.display())?;
        }
        let manifests = self.manifests.iter().map(|name| self.manifests_in.join(name));
        let data = self.etcd_data.iter().filter(|_| self.removes_etcd_data);
        for path in manifests.chain(self.files.iter().cloned()).chain(self.units.iter().cloned()) {
            writeln!(f, "  {}", path.display())?;
        }
        for folder in self.folders.iter().chain(data) {
            writeln!(f, "  {}/", folder.display())?;
        }
        if let Some(id) = &self.cluster_id {
            writeln!(f, "  {}", id.display())?;
        }
        if let Some(data) = self.etcd_data.as_ref().filter(|_| !self.removes_etcd_data) {
            let data = data.parent().unwrap_or(data).display();
            writeln!(f, "it keeps etcd's data in {data}, the cluster's state (--remove-etcd-data removes it)")?;
        }
        Ok(())
    }
}
