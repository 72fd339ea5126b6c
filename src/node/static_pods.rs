//! The only owner of the kubelet's folder of static pods: it lists the manifests and their owners, puts a manifest in
//! whole, and takes it out.

use std::fs::OpenOptions;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde_json::Value;

use crate::base::error::{Error, Finding, Result};
use crate::base::files::{self, File};
use crate::base::yaml;

/// The label that says that a static pod is hoist's.
const MANAGED_BY: &str = "/metadata/labels/app.kubernetes.io~1managed-by";
/// Programs of which a controller runs one set: another's manifest with one of them stands in the way.
const CONTROL_PLANE: [&str; 4] = ["etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler"];

/// The kubelet's folder of static pods.
#[derive(Debug, Clone)]
pub struct StaticPods {
    dir: PathBuf,
}

impl StaticPods {
    /// The folder `dir`; it need not be there yet.
    pub fn new(dir: &Path) -> Self {
        Self { dir: dir.to_owned() }
    }

    /// Puts the manifest `name` in, whole, and says whether anything changed.
    ///
    /// # Errors
    /// The system's refusal; the kubelet then sees what it saw before.
    pub fn install(&self, name: &str, text: &str) -> Result<bool> {
        files::make_dir(&self.dir, 0o755)?;
        files::write(&self.dir.join(name), &File::private(text))
    }

    /// Takes the manifest `name` out and says whether it was there.
    ///
    /// # Errors
    /// The system's refusal.
    pub fn remove(&self, name: &str) -> Result<bool> {
        files::remove(&self.dir.join(name))
    }

    /// Whether the manifest `name` is there.
    pub fn has(&self, name: &str) -> bool {
        self.dir.join(name).is_file()
    }

    /// The text of the manifest `name`, if it is there.
    pub fn read(&self, name: &str) -> Option<String> {
        std::fs::read_to_string(self.dir.join(name)).ok()
    }

    /// When the manifest `name` was put in, if it is there.
    pub fn installed_at(&self, name: &str) -> Option<SystemTime> {
        std::fs::metadata(self.dir.join(name)).and_then(|meta| meta.modified()).ok()
    }

    /// Has the manifest `name` be put in at `now`, without touching what it says.
    ///
    /// # Errors
    /// The system's refusal; a manifest that is not there.
    pub fn install_anew(&self, name: &str, now: SystemTime) -> Result<()> {
        let path = self.dir.join(name);
        let done = OpenOptions::new().write(true).open(&path).and_then(|file| file.set_modified(now));
        done.map_err(|error| Error::io("write", &path, error))
    }

    /// The names of all manifests that bear hoist's label.
    pub fn own(&self) -> Vec<String> {
        let entries = std::fs::read_dir(&self.dir).into_iter().flatten().flatten();
        let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
        let mut names: Vec<_> = names.filter(|name| !name.starts_with('.') && self.has_own(name)).collect();
        names.sort();
        names
    }

    /// The first hostPath of the manifest `name` that is a volume of this name.
    pub fn host_path(&self, name: &str, volume: &str) -> Option<String> {
        let text = std::fs::read_to_string(self.dir.join(name)).ok()?;
        let document = yaml::documents(name, &text).ok()?.into_iter().next()?;
        let volumes = document.value.pointer("/spec/volumes")?.as_array()?;
        let found = volumes.iter().find(|there| there["name"] == volume)?;
        found.pointer("/hostPath/path")?.as_str().map(str::to_owned)
    }

    /// Whether the manifest `name` is there and bears hoist's label.
    pub fn has_own(&self, name: &str) -> bool {
        let text = std::fs::read_to_string(self.dir.join(name)).unwrap_or_default();
        yaml::documents(name, &text).is_ok_and(|documents| documents.iter().any(|document| is_own(&document.value)))
    }

    /// Manifests that stand in the way of hoist's: of another's control plane, or under one of `names` without
    /// hoist's label.
    ///
    /// # Errors
    /// A folder that cannot be read.
    pub fn foreign(&self, names: &[&str]) -> Result<Vec<Finding>> {
        let entries = match std::fs::read_dir(&self.dir) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(|error| Error::io("read", &self.dir, error))?,
        };
        let mut findings = Vec::new();
        for entry in entries {
            let path = entry.map_err(|error| Error::io("read", &self.dir, error))?.path();
            let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            // The kubelet reads every file here but those with a dot in front.
            if name.starts_with('.') || !path.is_file() {
                continue;
            }
            let place = path.display().to_string();
            let text = std::fs::read(&path).map_err(|error| Error::io("read", &path, error))?;
            let documents = yaml::documents(&place, &String::from_utf8_lossy(&text)).unwrap_or_default();
            let ours = documents.iter().any(|document| is_own(&document.value));
            let runs = documents.iter().find_map(|document| control_plane_program(&document.value));
            let what = match runs {
                _ if ours => continue,
                Some(program) => format!("a static pod that is not hoist's runs {program} here"),
                None if names.contains(&name.as_str()) => "hoist needs this name for a static pod of its own".into(),
                None => continue,
            };
            findings.push(Finding::new(place, what).remedy(
                "if it is left from an earlier cluster, remove that cluster first (`kubeadm reset`), or move the file out of the folder",
            ));
        }
        Ok(findings)
    }
}

fn is_own(pod: &Value) -> bool {
    pod.pointer(MANAGED_BY).and_then(Value::as_str) == Some("hoist")
}

/// The control plane's program that a pod runs, if it does.
fn control_plane_program(pod: &Value) -> Option<&'static str> {
    let containers = pod.pointer("/spec/containers")?.as_array()?;
    let words = containers.iter().flat_map(|container| {
        ["command", "args"].into_iter().filter_map(|field| container.get(field)?.as_array()?.first()?.as_str())
    });
    let programs: Vec<_> = words.map(|word| word.rsplit('/').next().unwrap_or(word)).collect();
    CONTROL_PLANE.into_iter().find(|program| programs.contains(program))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(files: &[(&str, &str)]) -> (tempfile::TempDir, StaticPods) {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in files {
            std::fs::write(dir.path().join(name), text).unwrap();
        }
        let pods = StaticPods::new(dir.path());
        (dir, pods)
    }

    const KUBEADM: &str = "apiVersion: v1\nkind: Pod\nmetadata: {name: kube-apiserver}\nspec: {containers: [{name: a, command: [kube-apiserver, --x]}]}\n";

    #[test]
    fn another_control_plane_is_foreign_under_any_name() {
        let (_dir, pods) = folder(&[
            ("anything.bak", KUBEADM),
            (".hidden", KUBEADM),
            ("etcd.yaml", "kind: Pod\n"),
            ("mine.yaml", "kind: Pod\n"),
        ]);
        let mut found: Vec<_> =
            pods.foreign(&["etcd.yaml"]).unwrap().into_iter().map(|finding| finding.message).collect();
        found.sort();
        assert_eq!(
            found,
            [
                "a static pod that is not hoist's runs kube-apiserver here",
                "hoist needs this name for a static pod of its own"
            ]
        );
    }

    #[test]
    fn what_hoist_put_there_is_its_own() {
        let (_dir, pods) = folder(&[]);
        let text =
            KUBEADM.replace("{name: kube-apiserver}", "{name: a, labels: {app.kubernetes.io/managed-by: hoist}}");
        assert!(pods.install("etcd.yaml", &text).unwrap());
        assert!(!pods.install("etcd.yaml", &text).unwrap());
        assert!(pods.foreign(&["etcd.yaml"]).unwrap().is_empty());
        assert!(pods.has_own("etcd.yaml"));
        assert!(pods.has("etcd.yaml") && pods.remove("etcd.yaml").unwrap() && !pods.has("etcd.yaml"));
    }
}
