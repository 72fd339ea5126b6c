//! The bridge: a temporary static control plane on this controller. *Raise* it: its manifests stand in the kubelet's
//! folder. *Lower* it: they are gone.
//!
//! ```text
//! clients ─► NODE_IP:6443 ─ forwarder ─► 127.0.0.1:6444  the bridge's API server ─┐
//!                  │ (none there)                                                  ├─► etcd
//!                  └──► 0.0.0.0:6443  the self-hosted API server ──────────────────┘
//! ```

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::base::error::Result;
use crate::base::files::{self, File};
use crate::desired::assets::AssetSet;
use crate::desired::config::{Cluster, Controller, Etcd};
use crate::desired::secrets::{self, COMPONENTS, SecretFiles, Server};
use crate::desired::server_config;
use crate::node::etcd_data::{self, Data};
use crate::node::etcd_manifest::{self, NAME as ETCD};
use crate::node::host::{self, Host};
use crate::node::images;
use crate::node::processes;
use crate::node::static_pods::StaticPods;
use crate::plane::endpoint_pod;
use crate::plane::remembered::Remembered;

/// The bridge's manifests, in the order in which they are put in: while the API server's is not there, a raise that
/// was cut short cannot be taken for one that was partly lowered.
const MANIFESTS: [&str; 3] = ["bridge-kube-controller-manager.yaml", "bridge-kube-scheduler.yaml", API_SERVER];
const API_SERVER: &str = "bridge-kube-apiserver.yaml";
/// Guard's static pod, which raises the bridge again.
pub const GUARD: &str = "hoist-guard.yaml";
/// The folder of hoist's own binary.
const BINARIES: &str = "/var/lib/hoist/bin";

/// Which of the bridge's manifests stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Standing {
    /// The API server's.
    pub api_server: bool,
    /// How many of the two controllers'.
    pub controllers: usize,
}

impl Standing {
    /// All of them.
    pub fn is_all(self) -> bool {
        self.api_server && self.controllers == MANIFESTS.len() - 1
    }
}

/// What of the bridge is on this host.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct State {
    /// The API server's manifest stands.
    pub api_server: bool,
    /// How many of the two controllers' manifests stand.
    pub controllers: usize,
    /// Its components of which a process runs.
    pub processes: BTreeSet<String>,
    /// Files that only a raised bridge needs are on the disk.
    pub files: bool,
}

impl State {
    /// All of it stands.
    pub fn is_raised(&self) -> bool {
        self.api_server && self.controllers == MANIFESTS.len() - 1
    }

    /// None of its manifests stands.
    pub fn is_lowered(&self) -> bool {
        !self.api_server && self.controllers == 0
    }

    /// Neither its controller manager nor its scheduler runs or will.
    pub fn controllers_gone(&self) -> bool {
        self.controllers == 0
            && !self.processes.contains("kube-controller-manager")
            && !self.processes.contains("kube-scheduler")
    }
}

/// What stands on the disk when the bridge is raised.
#[derive(Default)]
pub struct Plan {
    secrets: Vec<(PathBuf, File)>,
    manifests: Vec<(&'static str, String)>,
    /// Folders that are root's alone.
    folders: Vec<PathBuf>,
    /// etcd's data, where etcd is among it, and whether etcd may begin a cluster there.
    etcd: Option<(Data, bool)>,
    /// No other controller has a member of etcd.
    is_only: bool,
}

impl Plan {
    fn add(&mut self, folder: &Path, content: SecretFiles) {
        self.secrets.extend(content.into_iter().map(|(name, content)| (folder.join(name), File::private(content))));
    }
}

impl Plan {
    /// With a folder that a kubelet would make for everybody to look into: a pod cannot make it, guard's neither.
    pub fn with_folder(mut self, folder: PathBuf) -> Self {
        self.folders.push(folder);
        self
    }

    /// In which etcd may begin a new cluster, if its data is not there.
    pub fn beginning(mut self, may_begin: bool) -> Self {
        if let Some((_, may)) = &mut self.etcd {
            *may = may_begin;
        }
        self
    }

    /// With the images that `choose` says, for a component and the image that its manifest names.
    pub fn with_images(mut self, choose: impl Fn(&str, &str) -> String) -> Self {
        for (name, text) in &mut self.manifests {
            let component = name.strip_prefix("bridge-").and_then(|name| name.strip_suffix(".yaml"));
            let Some(component) = component else { continue };
            if let Some(image) = images::of_container(text, component) {
                *text = images::with_image(text, component, &choose(component, &image));
            }
        }
        self
    }

    /// The texts of its manifests.
    pub fn texts(&self) -> impl Iterator<Item = &str> {
        self.manifests.iter().map(|(_, text)| text.as_str())
    }

    /// Whether its pods run hoist from this controller's disk; where `images.hoist` names an image, they do not.
    fn mounts_binary(&self) -> bool {
        self.texts().any(|text| text.contains(host::BINARY))
    }
}

/// What a raise has changed on the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Raised {
    /// Anything.
    pub any: bool,
    /// A manifest of a static pod that stood there already.
    pub pods: bool,
}

/// The bridge of one controller.
pub struct Bridge<'a> {
    host: &'a Host,
    pods: StaticPods,
}

impl<'a> Bridge<'a> {
    /// The bridge on `host`.
    pub fn new(host: &'a Host) -> Self {
        Self { host, pods: StaticPods::new(host.manifests()) }
    }

    /// The names of all static pods that hoist installs on a controller.
    pub fn manifest_names() -> Vec<&'static str> {
        MANIFESTS.into_iter().chain([ETCD, GUARD]).collect()
    }

    /// What of it is on the host now.
    pub fn state(&self) -> State {
        let Standing { api_server, controllers } = self.standing();
        State {
            api_server,
            controllers,
            processes: processes::running(&self.host.path("/proc")).bridge,
            // Guard runs from the same binary, and so may the endpoint.
            files: self.host.bridge().exists() || (self.host.path(BINARIES).exists() && !self.is_run_by_another()),
        }
    }

    /// Whether guard or the endpoint runs from hoist's binary on the disk.
    fn is_run_by_another(&self) -> bool {
        self.pods.has(GUARD) || endpoint_pod::mounts_binary(self.host)
    }

    /// Which of its manifests stand now.
    pub fn standing(&self) -> Standing {
        Standing {
            api_server: self.pods.has(API_SERVER),
            controllers: MANIFESTS.iter().filter(|name| **name != API_SERVER && self.pods.has(name)).count(),
        }
    }

    /// When its API server's manifest was put in.
    pub fn raised_at(&self) -> Option<SystemTime> {
        self.pods.installed_at(API_SERVER)
    }

    /// One that stands is raised anew: the machine has booted, and none of its processes outlived that.
    ///
    /// # Errors
    /// The system's refusal.
    pub fn raise_anew(&self, now: SystemTime) -> Result<()> {
        self.pods.install_anew(API_SERVER, now)
    }

    /// Whether etcd's manifest stands, where this cluster has etcd on its controllers.
    pub fn has_etcd(&self) -> bool {
        self.pods.has(ETCD)
    }

    /// What raising it puts on this controller's disk, etcd included, but for hoist's binary: built in memory, written by
    /// [`Self::raise`].
    ///
    /// # Errors
    /// An asset directory that lacks a file.
    pub fn plan(&self, assets: &AssetSet, cluster: &Cluster, controller: &Controller) -> Result<Plan> {
        let mut plan = self.plan_beside_etcd(assets, cluster, controller)?;
        if let Etcd::Local { data_dir, .. } = &cluster.etcd {
            plan.add(&self.host.etcd_pki(), secrets::of_etcd(&controller.name, &assets.tls())?);
            let manifest = assets.text(&format!("bootstrap-manifests/{ETCD}"))?;
            plan.manifests.insert(0, (ETCD, etcd_data::guarded(&manifest)));
            plan.folders.push(self.host.path(data_dir));
            plan.etcd = Some((Data::at(self.host, data_dir), false));
            plan.is_only = Remembered::is_only(self.host, cluster);
        }
        Ok(plan)
    }

    /// The same but for etcd, which is left as it is.
    ///
    /// # Errors
    /// The same.
    pub fn plan_beside_etcd(&self, assets: &AssetSet, cluster: &Cluster, controller: &Controller) -> Result<Plan> {
        let tls = secrets::of_controller(&controller.name, assets.tls());
        let mut plan = Plan::default();
        for component in COMPONENTS {
            let content = secrets::of_component(component, cluster, &tls, Server::Bridge)?;
            plan.add(&self.host.bridge().join(component), content);
        }
        let ca = tls.get("ca.crt").cloned().unwrap_or_default();
        plan.add(&self.host.bridge().join(server_config::NAME), server_config::files(assets)?);
        plan.add(&self.host.bridge().join("forwarder"), SecretFiles::from([("ca.crt".into(), ca)]));
        for name in MANIFESTS {
            plan.manifests.push((name, assets.text(&format!("bootstrap-manifests/{name}"))?));
        }
        Ok(plan)
    }

    /// Installs etcd (permanent) and raises the bridge; `binary` is hoist's own. What stands already is left alone, and so is
    /// an etcd whose manifest lacks nothing but the condition that its data is there. Says what changed.
    ///
    /// # Errors
    /// The system's refusal.
    pub fn raise(&self, plan: &Plan, binary: &Path) -> Result<Raised> {
        for dir in &plan.folders {
            files::make_dir(dir, 0o700)?;
        }
        for (path, _) in &plan.secrets {
            files::make_dir(path.parent().unwrap_or(Path::new("/")), 0o700)?;
        }
        let written = files::write_all(plan.secrets.iter().map(|(path, file)| (path.clone(), file)))?;
        let own = self.host.binary();
        files::make_dir(own.parent().unwrap_or(Path::new("/")), 0o755)?;
        // Guard's own is there already; and where an image has it, no pod of the bridge needs it.
        let copied = (binary != own || plan.mounts_binary()) && files::copy_program(binary, &own)?;
        let mut raised = Raised { any: copied || !written.is_empty(), pods: false };
        if let Some((data, may_begin)) = &plan.etcd
            && (*may_begin || data.is_there())
        {
            let is_new = data.begin()?;
            raised.any |= is_new;
            // The kubelet waits for it, and would look again minutes later.
            raised.pods |= is_new && self.pods.read(ETCD).is_some_and(|text| etcd_data::guarded(&text) == text);
        }
        for (name, text) in &plan.manifests {
            let stood = self.pods.has(name);
            if *name == ETCD && stood && self.pods.read(name).is_some_and(|there| etcd_data::is_alike(&there, text)) {
                continue;
            }
            let changed = match *name == ETCD {
                true => etcd_manifest::install(self.host, text, plan.is_only)?,
                false => self.pods.install(name, text)?,
            };
            raised.any |= changed;
            raised.pods |= changed && stood && self.pods.kept(name).is_none();
        }
        Ok(raised)
    }

    /// Every file that raising it by `plan` may make.
    pub fn footprint(&self, plan: &Plan) -> Vec<PathBuf> {
        let secrets = plan.secrets.iter().map(|(path, _)| path.clone());
        let manifests = plan.manifests.iter().map(|(name, _)| self.host.manifests().join(name));
        // No file in these folders is hoist's; the name stands for the folder, which may be new.
        let data = plan.folders.iter().map(|dir| dir.join("any"));
        let mark = plan.etcd.iter().map(|(data, _)| data.mark());
        secrets.chain(manifests).chain(mark).chain(data).chain([self.host.binary()]).collect()
    }

    /// Lowers the bridge's controller manager and scheduler.
    ///
    /// # Errors
    /// The system's refusal.
    pub fn lower_controllers(&self) -> Result<()> {
        for name in MANIFESTS.iter().filter(|name| **name != API_SERVER) {
            self.pods.remove(name)?;
        }
        Ok(())
    }

    /// Lowers the bridge's API server; its forwarder hands the address back first.
    ///
    /// # Errors
    /// The system's refusal.
    pub fn lower_api_server(&self) -> Result<()> {
        self.pods.remove(API_SERVER).map(drop)
    }

    /// Removes what only a raised bridge needs: its keys and, where nothing else runs from it, hoist's binary.
    ///
    /// # Errors
    /// The system's refusal.
    pub fn clean_up(&self) -> Result<()> {
        files::remove_dir(&self.host.bridge())?;
        if !self.is_run_by_another() {
            files::remove_dir(&self.host.path(BINARIES))?;
        }
        Ok(())
    }
}
