//! What an asset directory would be for another version of Kubernetes, as `hoist render` would make it: for a plan. Nothing is written.

use std::path::Path;

use serde_json::Value;
use time::OffsetDateTime;

use crate::base::error::{Error, Finding, Result};
use crate::base::yaml;
use crate::desired::assets::{self, AssetSet, Choices};
use crate::desired::config::{self, Images, Version};
use crate::desired::pki;
use crate::desired::render;
use crate::node::kubelet;

/// The asset directory at `dir`, as it would be for the version `to`, and what its user has to know: that it is to be rendered first, and
/// the edits that a render would not bring together with hoist's changes.
///
/// # Errors
/// A version that hoist does not know; a cluster.yaml that is not valid for it; certificates that wait for a CA whose key is elsewhere.
pub fn rendered(dir: &Path, to: &str, now: OffsetDateTime) -> Result<(AssetSet, Vec<Finding>)> {
    let there = AssetSet::load(dir)?;
    let before = there.cluster(dir)?;
    let place = dir.join("cluster.yaml").display().to_string();
    let text = for_version(&there.text("cluster.yaml")?, &before.images, to)?;
    let cluster = config::parse(&place, &text, dir)?;
    let issued = pki::issue(&cluster, &assets::existing(dir, "tls")?, &pki::read_user_files(&cluster)?, now)?;
    if !issued.awaited.is_empty() {
        return Err(Error::Unsigned(issued.awaited));
    }
    let token = pki::bootstrap_token(kubelet::rendered_token(dir)?.as_deref())?;
    let new = render::render(&cluster, &issued.files, &token)?;
    let plan = new.plan(dir, &Choices::default())?;
    let remedy = "set kubernetesVersion in your cluster.yaml and `hoist render` it into this directory before `hoist upgrade apply`";
    let message = format!(
        "is of {}: what is shown is what it would be for {}",
        before.kubernetes_version, cluster.kubernetes_version
    );
    let note = Finding::new(dir.display().to_string(), message).remedy(remedy).warning();
    let findings = [note].into_iter().chain(plan.conflicts.iter().cloned()).collect();
    Ok((plan.result(there), findings))
}

/// A resolved cluster.yaml with another version, and with the images that belong to it; those that a user has chosen stay.
fn for_version(text: &str, images: &Images, to: &str) -> Result<String> {
    let document = yaml::documents("cluster.yaml", text).map_err(Error::Input)?.into_iter().next();
    let mut value = document.map(|document| document.value).unwrap_or_default();
    let old = value["kubernetesVersion"].as_str().unwrap_or_default().to_owned();
    let (old, new) = (defaults(&old)?, defaults(to)?);
    value["kubernetesVersion"] = new.1.to_string().into();
    let pairs = of_a_version(&old.0).into_iter().zip(of_a_version(&new.0));
    let chosen = of_a_version(images);
    let retagged: Vec<_> = pairs.zip(chosen).map(|((old, new), there)| (there, retag(there, old, new))).collect();
    for image in value["images"].as_object_mut().into_iter().flatten().map(|(_, image)| image) {
        if let Some((_, new)) = retagged.iter().find(|(there, _)| image.as_str() == Some(there)) {
            *image = Value::from(new.clone());
        }
    }
    Ok(yaml::to_string(&value))
}

/// The images of a version, with hoist's defaults for all else.
fn defaults(version: &str) -> Result<(Images, Version)> {
    let text = format!(
        "apiVersion: hoist/v1alpha1\nkind: Cluster\nkubernetesVersion: {version}\ncontrollers: [{{name: a, address: 192.0.2.10}}]\n"
    );
    let cluster = config::parse("--to", &text, Path::new("/")).map_err(|error| match error {
        Error::Input(findings) => {
            // Where it stands in a file of nobody's is nothing to a user.
            Error::Input(findings.into_iter().map(|finding| Finding { position: None, ..finding }).collect())
        }
        error => error,
    })?;
    Ok((cluster.images, cluster.kubernetes_version))
}

/// Those images whose defaults follow from the version of Kubernetes.
fn of_a_version(images: &Images) -> [&str; 7] {
    let Images { kube_apiserver, kube_controller_manager, kube_scheduler, kube_proxy, etcd, coredns, pause, .. } =
        images;
    [kube_apiserver, kube_controller_manager, kube_scheduler, kube_proxy, etcd, coredns, pause]
}

/// `image` with the tag of `new`, where it has that of `old`: from whichever registry.
fn retag(image: &str, old: &str, new: &str) -> String {
    match (image.rsplit_once(':'), old.rsplit_once(':'), new.rsplit_once(':')) {
        (Some((name, tag)), Some((_, before)), Some((_, after))) if tag == before => format!("{name}:{after}"),
        _ => image.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: &str = "apiVersion: hoist/v1alpha1\nkind: Cluster\nkubernetesVersion: v1.36.3\nimageRepository: r.example.com/k8s\nimages: {etcd: 'r.example.com/etcd:mine'}\ncontrollers: [{name: c1, address: 192.0.2.10}]\n";

    fn now() -> OffsetDateTime {
        OffsetDateTime::from_unix_timestamp(1_800_000_000).unwrap()
    }

    /// An asset directory of 1.36.
    fn folder() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let cluster = config::parse("f", OLD, Path::new("/")).unwrap();
        let pki = pki::issue(&cluster, &Default::default(), &Default::default(), now()).unwrap();
        let set = render::render(&cluster, &pki.files, "abcdef.0123456789abcdef").unwrap();
        set.write(&dir.path().join("assets"), &Default::default()).unwrap();
        dir
    }

    #[test]
    fn it_is_what_a_render_would_make_and_nothing_is_written() {
        let dir = folder();
        let at = dir.path().join("assets");
        // What a user has edited is brought together with hoist's changes.
        let edited = at.join("manifests/kube-scheduler/deployment.yaml");
        let text = std::fs::read_to_string(&edited).unwrap();
        std::fs::write(&edited, format!("# mine\n{text}")).unwrap();
        let before = AssetSet::load(&at).unwrap();
        let (after, findings) = rendered(&at, "1.37.2", now()).unwrap();
        assert!(AssetSet::load(&at).unwrap() == before, "written");
        assert_eq!(findings.len(), 1, "{findings:?}");
        assert!(findings[0].message.contains("is of v1.36.3: what is shown is what it would be for v1.37.2"));
        let cluster = after.cluster(&at).unwrap();
        assert_eq!(cluster.kubernetes_version.to_string(), "v1.37.2");
        assert_eq!(cluster.images.kube_apiserver, "r.example.com/k8s/kube-apiserver:v1.37.2");
        assert_eq!(cluster.images.etcd, "r.example.com/etcd:mine", "a user's choice");
        let scheduler = after.text("manifests/kube-scheduler/deployment.yaml").unwrap();
        assert!(scheduler.starts_with("# mine\n") && scheduler.contains("kube-scheduler:v1.37.2"), "{scheduler}");
        assert!(after.tls() == before.tls(), "no key and no certificate is another");
        assert!(after.files.contains_key("bootstrap-manifests/hoist-guard.yaml"));
    }

    #[test]
    fn an_edit_that_meets_a_change_is_named() {
        let dir = folder();
        let at = dir.path().join("assets");
        let edited = at.join("manifests/kube-scheduler/deployment.yaml");
        let text = std::fs::read_to_string(&edited).unwrap();
        std::fs::write(&edited, text.replace("kube-scheduler:v1.36.3", "kube-scheduler:mine")).unwrap();
        let (_, findings) = rendered(&at, "v1.37.2", now()).unwrap();
        assert!(
            findings.iter().any(|finding| finding.place.ends_with("kube-scheduler/deployment.yaml")),
            "{findings:?}"
        );
    }

    #[test]
    fn a_version_that_nobody_knows_is_refused() {
        let dir = folder();
        let error = rendered(&dir.path().join("assets"), "1.99.0", now()).err().unwrap().to_string();
        assert!(error.contains("--to: ") && error.contains("is not supported"), "{error}");
    }
}
