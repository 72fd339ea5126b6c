//! The permanent static control plane that `unpivot` leaves: which parts of it are on this controller, putting it in,
//! taking it out.
//!
//! Its pods mount folders below /etc/kubernetes/static-pods. A manifest is *prepared* there, with all that it mounts,
//! before anything that it replaces is taken away; *put in*, it stands in the kubelet's folder.

use std::collections::BTreeSet;
use std::path::Path;

use crate::base::error::{Error, Result};
use crate::base::files::{self, File};
use crate::desired::secrets::COMPONENTS;
use crate::node::host::Host;
use crate::node::processes;
use crate::node::static_pods::StaticPods;

/// What of it is on this host: components by their names.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct State {
    /// Those whose manifests stand in the kubelet's folder.
    pub standing: BTreeSet<String>,
    /// Those that only have to be put in.
    pub prepared: BTreeSet<String>,
    /// Those of which a process runs.
    pub processes: BTreeSet<String>,
    /// What its pods mount, or have mounted, is on the disk.
    pub files: bool,
}

impl State {
    /// Some of it runs or will.
    pub fn is_there(&self) -> bool {
        !self.standing.is_empty() || !self.processes.is_empty()
    }

    /// All of it is what this controller runs with.
    pub fn stands(&self) -> bool {
        self.standing.len() == COMPONENTS.len()
    }
}

/// A component as a static pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StaticPod {
    /// Its name.
    pub component: String,
    /// Its manifest.
    pub manifest: String,
    /// What it mounts.
    pub folders: Vec<Folder>,
}

/// What one volume of a static pod holds.
#[derive(Clone, PartialEq, Eq)]
pub struct Folder {
    /// The volume's name.
    pub volume: String,
    /// The user who reads it.
    pub owner: u32,
    /// Its files, by path below it.
    pub files: Vec<(String, File)>,
}

impl std::fmt::Debug for Folder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names: Vec<_> = self.files.iter().map(|(path, file)| format!("{path} {:o}", file.mode)).collect();
        f.debug_struct("Folder")
            .field("volume", &self.volume)
            .field("owner", &self.owner)
            .field("files", &names)
            .finish()
    }
}

/// The permanent static control plane of one controller.
pub struct Permanent<'a> {
    host: &'a Host,
    pods: StaticPods,
}

impl<'a> Permanent<'a> {
    /// The one of `host`.
    pub fn new(host: &'a Host) -> Self {
        Self { host, pods: StaticPods::new(host.manifests()) }
    }

    /// The names of its manifests.
    pub fn manifest_names() -> [String; 3] {
        COMPONENTS.map(manifest_name)
    }

    /// What of it is on the host now.
    pub fn state(&self) -> State {
        let those = |is: &dyn Fn(&str) -> bool| {
            COMPONENTS.into_iter().filter(|component| is(component)).map(str::to_owned).collect()
        };
        State {
            standing: those(&|component| self.pods.has_own(&manifest_name(component))),
            prepared: those(&|component| self.prepared(component).is_file()),
            processes: processes::running(&self.host.path("/proc")).permanent,
            files: self.host.permanent().exists(),
        }
    }

    /// Whether the pod is prepared, or put in, just as it is here.
    pub fn is_prepared(&self, pod: &StaticPod) -> bool {
        let folders = pod.folders.iter().all(|folder| {
            let path = self.folder(&pod.component).join(&folder.volume);
            folder.files.iter().all(|(name, file)| files::stands(&path.join(name), file))
        });
        folders && files::stands(&self.prepared(&pod.component), &File::private(pod.manifest.as_str()))
    }

    /// Prepares a pod: all that it mounts, and last its manifest.
    ///
    /// # Errors
    /// The system's refusal.
    pub fn prepare(&self, pod: &StaticPod) -> Result<()> {
        files::remove(&self.prepared(&pod.component))?;
        // A run that was killed has left what was not whole yet.
        files::sweep(&self.host.permanent())?;
        let own = self.folder(&pod.component);
        if !self.pods.has(&manifest_name(&pod.component)) {
            // What an earlier run has prepared may be of an older state of it.
            files::remove_dir(&own)?;
        }
        files::make_dir(&own, 0o700)?;
        for folder in &pod.folders {
            let path = own.join(&folder.volume);
            files::make_dir(&path, 0o700)?;
            files::give(&path, folder.owner)?;
            for (name, _) in &folder.files {
                // A file may be in a folder of its own.
                for inner in Path::new(name).ancestors().skip(1).collect::<Vec<_>>().into_iter().rev() {
                    files::make_dir(&path.join(inner), 0o700)?;
                    files::give(&path.join(inner), folder.owner)?;
                }
            }
            files::write_all_of(folder.owner, folder.files.iter().map(|(name, file)| (path.join(name), file)))?;
        }
        files::write(&self.prepared(&pod.component), &File::private(pod.manifest.as_str())).map(drop)
    }

    /// Puts a prepared manifest in.
    ///
    /// # Errors
    /// There is none; the system's refusal.
    pub fn install(&self, component: &str) -> Result<()> {
        let path = self.prepared(component);
        let text = std::fs::read_to_string(&path).map_err(|error| Error::io("read", &path, error))?;
        self.pods.install(&manifest_name(component), &text)?;
        files::remove(&path).map(drop)
    }

    /// Takes its manifests out: the controllers' first, that they can still give up their Leases.
    ///
    /// # Errors
    /// The system's refusal.
    pub fn remove(&self) -> Result<()> {
        for name in Self::manifest_names().iter().rev().filter(|name| self.pods.has_own(name)) {
            self.pods.remove(name)?;
        }
        Ok(())
    }

    /// Removes what its pods mount. They must be gone.
    ///
    /// # Errors
    /// The system's refusal.
    pub fn clean_up(&self) -> Result<()> {
        files::remove_dir(&self.host.permanent()).map(drop)
    }

    fn folder(&self, component: &str) -> std::path::PathBuf {
        self.host.permanent().join(component)
    }

    fn prepared(&self, component: &str) -> std::path::PathBuf {
        self.host.permanent().join(manifest_name(component))
    }
}

fn manifest_name(component: &str) -> String {
    format!("{component}.yaml")
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};

    use super::*;
    use crate::node::system;

    fn pod(component: &str) -> StaticPod {
        let manifest = "kind: Pod\nmetadata: {labels: {app.kubernetes.io/managed-by: hoist}}\n".to_owned();
        let files = vec![("ca.crt".to_owned(), File::private("a")), ("deep/er/x".to_owned(), File::private("b"))];
        let owner = nix::unistd::geteuid().as_raw();
        StaticPod {
            component: component.into(),
            manifest,
            folders: vec![Folder { volume: "secrets".into(), owner, files }],
        }
    }

    #[test]
    fn what_is_prepared_is_put_in_and_taken_out_again() {
        let root = tempfile::tempdir().unwrap();
        let host = system::host(root.path(), Path::new("/etc/kubernetes/manifests"));
        std::fs::create_dir_all(host.path("/etc/kubernetes")).unwrap();
        let permanent = Permanent::new(&host);
        assert_eq!(permanent.state(), State::default());
        for component in COMPONENTS {
            let pod = pod(component);
            assert!(!permanent.is_prepared(&pod));
            permanent.prepare(&pod).unwrap();
            assert!(permanent.is_prepared(&pod));
        }
        assert_eq!((permanent.state().prepared.len(), permanent.state().is_there()), (3, false));
        let key = host.permanent().join("kube-scheduler/secrets/deep/er/x");
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&key), mode(key.parent().unwrap()), mode(&host.permanent())), (0o600, 0o700, 0o700));
        assert_eq!(std::fs::metadata(&key).unwrap().uid(), nix::unistd::geteuid().as_raw());

        COMPONENTS.iter().for_each(|component| permanent.install(component).unwrap());
        let state = permanent.state();
        assert!(state.stands() && state.prepared.is_empty(), "{state:?}");
        // Somebody else's manifest of that name is not hoist's to take out.
        std::fs::write(host.manifests().join("kube-scheduler.yaml"), "kind: Pod\n").unwrap();
        permanent.remove().unwrap();
        permanent.clean_up().unwrap();
        assert_eq!(permanent.state(), State::default());
        assert!(host.manifests().join("kube-scheduler.yaml").is_file() && !host.permanent().exists());
    }
}
