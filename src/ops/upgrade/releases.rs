//! The two versions between which an upgrade goes: the asset directory's, and that of guard's copy in the cluster.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use kube::Client;

use crate::api::guard;
use crate::base::error::{Error, Finding, Result};
use crate::desired::assets::Manifest;
use crate::desired::config::version::numbers;
use crate::desired::config::{Etcd, Version};
use crate::desired::secrets::COMPONENTS;
use crate::desired::upgrade::{Emulated, held, image, on_trial};
use crate::ops::start::Input;
use crate::plane::kept_copy::Copy;

use super::decide::Form;

/// A cluster, and the asset directory that it is to follow.
pub struct Subject {
    /// The asset directory.
    pub input: Input,
    /// Where it is.
    pub dir: PathBuf,
    /// What is to be said of it, before the cluster is asked.
    pub findings: Vec<Finding>,
    /// A client with an admin's rights.
    pub client: Client,
    /// The CAs (PEM) that vouch for the API servers.
    pub ca_pem: Vec<u8>,
}

/// The control plane of one version.
pub(super) struct Release {
    /// The version of Kubernetes.
    pub version: Version,
    manifests: Vec<Manifest>,
}

/// Both, and what guard's Secret holds.
pub(super) struct Releases {
    /// That of guard's copy: the way back. `None` once the copy is of the new version.
    pub old: Option<Release>,
    /// The asset directory's.
    pub new: Release,
    /// guard's copy in the cluster.
    pub copy: Copy,
    /// Its checksum there.
    pub sum: Option<String>,
}

impl Release {
    /// That of these manifests.
    ///
    /// # Errors
    /// They lack the workload of a component; `place` is what the message calls them.
    fn new(version: Version, manifests: Vec<Manifest>, place: &str) -> Result<Self> {
        let release = Self { version, manifests };
        let lacks = COMPONENTS.into_iter().filter(|component| release.workload(component).is_none());
        let lacks: Vec<_> = lacks.map(|component| lacking(place, component)).collect();
        if lacks.is_empty() { Ok(release) } else { Err(Error::Input(lacks)) }
    }

    /// The manifest of a component's workload.
    pub fn workload(&self, component: &str) -> Option<&Manifest> {
        self.manifests.iter().find(|manifest| {
            matches!(manifest.text("/kind"), "DaemonSet" | "Deployment")
                && manifest.text("/metadata/name") == component
                && manifest.text("/metadata/namespace") == "kube-system"
        })
    }

    /// What stands beside it in its folder, but for Secrets: their certificates are renewed in the cluster, and no version
    /// changes them.
    pub fn beside(&self, component: &str) -> Vec<Manifest> {
        let Some(workload) = self.workload(component) else { return Vec::new() };
        let folder = Path::new(&workload.path).parent();
        let is_beside = |manifest: &&Manifest| {
            Path::new(&manifest.path).parent() == folder && manifest.text("/kind") != "Secret" && *manifest != workload
        };
        self.manifests.iter().filter(is_beside).cloned().collect()
    }

    /// The image of a component.
    pub fn image(&self, component: &str) -> Option<&str> {
        image(&self.workload(component)?.object["spec"]["template"]["spec"], component)
    }
}

fn lacking(place: &str, component: &str) -> Finding {
    Finding::new(place, format!("has no manifest of the workload {component}, which an upgrade would replace"))
        .remedy("`hoist render` writes it; guard's copy has it once `hoist start` has used such an asset directory")
}

impl Releases {
    /// Both.
    ///
    /// # Errors
    /// A cluster without guard's copy; a copy or an asset directory that lacks a workload; the API server's word.
    pub async fn read(subject: &Subject) -> Result<Self> {
        let new = Release::new(
            subject.input.cluster().kubernetes_version,
            subject.input.manifests().to_vec(),
            &subject.dir.display().to_string(),
        )?;
        let sum = guard::copy_sum(&subject.client).await?;
        let Some(text) = guard::copy(&subject.client).await? else {
            let finding = Finding::new("Secret kube-system/hoist-guard", "is not there, and it is the way back");
            return Err(Error::Input(vec![finding.remedy(
                "`hoist start` on a controller brings guard and its Secret; without guard, `kubectl set image` changes a version",
            )]));
        };
        let copy = Copy::of_secret(&text)?;
        let version = numbers(&copy.kubernetes).map(|(major, minor, patch)| Version { major, minor, patch });
        let version = version
            .ok_or_else(|| Error::failed("use guard's copy", format!("its version is {:?}", copy.kubernetes)))?;
        let place = "guard's copy in the Secret kube-system/hoist-guard";
        let old = match version == new.version {
            true => None,
            false => Some(Release::new(version, copy.assets.manifests(Path::new(place))?.0, place)?),
        };
        Ok(Self { old, new, copy, sum })
    }

    /// The image that etcd has in the asset directory, where etcd is hoist's.
    pub fn etcd(subject: &Subject) -> Option<&str> {
        let cluster = subject.input.cluster();
        matches!(cluster.etcd, Etcd::Local { .. }).then_some(cluster.images.etcd.as_str())
    }

    /// What a program on trial emulates; `None` where the minor version stays.
    pub fn emulated(&self) -> Option<Emulated> {
        Emulated::on_the_way(self.old.as_ref()?.version, self.new.version)
    }

    /// The manifests that make `form` of a component; those of the old version where there is no way back are none.
    pub fn manifests(&self, component: &str, form: Form, is_held: bool) -> (Vec<Manifest>, Option<Manifest>) {
        let release = match form {
            Form::Old => self.old.as_ref(),
            Form::Trial | Form::New => Some(&self.new),
        };
        let Some(release) = release else { return (Vec::new(), None) };
        let workload = release.workload(component).map(|workload| match (form, self.emulated()) {
            (Form::Trial, Some(old)) => on_trial(workload, old),
            _ => workload.clone(),
        });
        let workload = workload.map(|workload| if is_held { held(&workload) } else { workload });
        (release.beside(component), workload)
    }

    /// The images of both, by component, old and new.
    pub fn images(&self) -> BTreeMap<&'static str, (Option<&str>, Option<&str>)> {
        let old = |component| self.old.as_ref().and_then(|old| old.image(component));
        COMPONENTS.into_iter().map(|component| (component, (old(component), self.new.image(component)))).collect()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn manifest(path: &str, kind: &str, name: &str) -> Manifest {
        let spec = json!({"template": {"spec": {"containers": [{"name": name, "image": format!("{name}:v1"), "command": [name]}]}}});
        let object = json!({"apiVersion": "v1", "kind": kind,
            "metadata": {"name": name, "namespace": "kube-system"}, "spec": spec});
        Manifest { path: path.into(), line: 1, object }
    }

    fn release(minor: u32) -> Release {
        let manifests = vec![
            manifest("manifests/a/daemonset.yaml", "DaemonSet", "kube-apiserver"),
            manifest("manifests/a/config.yaml", "ConfigMap", "kube-apiserver"),
            manifest("manifests/a/secret.yaml", "Secret", "kube-apiserver"),
            manifest("manifests/b/deployment.yaml", "Deployment", "kube-controller-manager"),
            manifest("manifests/c/deployment.yaml", "Deployment", "kube-scheduler"),
        ];
        Release::new(Version { major: 1, minor, patch: 0 }, manifests, "here").ok().unwrap()
    }

    #[test]
    fn a_component_is_its_workload_and_what_stands_beside_it_but_for_secrets() {
        let release = release(37);
        let beside = release.beside("kube-apiserver");
        assert_eq!(beside.iter().map(|manifest| manifest.text("/kind")).collect::<Vec<_>>(), ["ConfigMap"]);
        assert!(release.beside("kube-scheduler").is_empty());
        assert_eq!(release.image("kube-scheduler"), Some("kube-scheduler:v1"));
    }

    #[test]
    fn each_component_that_is_lacking_is_named() {
        let only = vec![manifest("manifests/a/daemonset.yaml", "DaemonSet", "kube-apiserver")];
        let Err(Error::Input(findings)) = Release::new(Version { major: 1, minor: 37, patch: 0 }, only, "here") else {
            panic!()
        };
        let text = findings.iter().map(ToString::to_string).collect::<String>();
        assert!(text.contains("kube-controller-manager") && text.contains("kube-scheduler"), "{text}");
    }
}
