//! The images of static pods: what a manifest names, whether this machine has it, and which one the bridge is raised from.
//!
//! A static pod whose image is gone does not start if no registry answers; for the bridge, that means no API. So the
//! copy of the bridge takes over the image that the self-hosted component has proved, and a raise uses an image that
//! is there.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::base::yaml;
use crate::desired::config::version::of_image;
use crate::node::cri;
use crate::node::cri::Trouble;
use crate::node::host::Host;
use crate::node::static_pods::StaticPods;

/// How long the runtime may take to list its images. Whoever raises a bridge does not wait for longer.
const LIMIT: Duration = Duration::from_secs(1);

/// The image that a component of the self-hosted control plane has proved on this controller, in the place of the one
/// that the asset directory names for its bridge.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Followed {
    /// What the bridge's manifest named then: where it names another by now, that counts.
    pub from: String,
    /// What the component runs.
    pub to: String,
}

/// By component.
pub type Images = BTreeMap<String, Followed>;

/// A static pod's image that this machine has not.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Missing {
    /// The pod, as its manifest names it.
    pub pod: String,
    /// The image.
    pub image: String,
}

impl std::fmt::Display for Missing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { pod, image } = self;
        write!(f, "the image {image} of the static pod {pod} is not on this machine")
    }
}

impl Missing {
    /// What to type.
    pub fn remedy(&self) -> String {
        let image = &self.image;
        // hoist writes its own.
        let file = match repository(image).rsplit('/').next() {
            Some("hoist") => format!("`hoist image save FILE --name {image}`"),
            _ => "`ctr images export`".to_owned(),
        };
        format!("`crictl pull {image}`, or `ctr -n k8s.io images import FILE` with a file of {file}")
    }
}

/// A reference as a runtime writes it: with a registry, and with a tag or a digest.
pub fn normal(reference: &str) -> String {
    if reference.starts_with("sha256:") {
        return reference.to_owned();
    }
    let (first, rest) = reference.split_once('/').unwrap_or(("", reference));
    let named = if first.is_empty() {
        format!("docker.io/library/{rest}")
    } else if ["docker.io", "index.docker.io"].contains(&first) {
        let folder = if rest.contains('/') { "" } else { "library/" };
        format!("docker.io/{folder}{rest}")
    } else if first.contains(['.', ':']) || first == "localhost" {
        reference.to_owned()
    } else {
        format!("docker.io/{reference}")
    };
    // A digest tells more than a tag in front of it.
    if let Some((name, digest)) = named.split_once('@') {
        return format!("{}@{digest}", repository(name));
    }
    if repository(&named) == named { format!("{named}:latest") } else { named }
}

/// A reference without tag and digest.
fn repository(reference: &str) -> &str {
    let name = reference.split_once('@').map_or(reference, |(name, _)| name);
    match name.rsplit_once(':') {
        Some((repository, tag)) if !tag.contains('/') => repository,
        _ => name,
    }
}

/// Whether a runtime with the images `present` has `reference`.
pub fn is_there(reference: &str, present: &[String]) -> bool {
    let reference = normal(reference);
    present.contains(&reference)
}

/// The image of the container `container` in a pod's manifest, with its line and column.
fn place(text: &str, container: &str) -> Option<(String, yaml::Position)> {
    let document = yaml::documents("", text).ok()?.into_iter().next()?;
    let containers = document.value.pointer("/spec/containers")?.as_array()?;
    let index = containers.iter().position(|there| there["name"] == container)?;
    let image = containers[index]["image"].as_str()?.to_owned();
    Some((image, document.positions.get(&format!("spec.containers[{index}].image"))?))
}

/// The image of the container `container` in a pod's manifest.
pub fn of_container(text: &str, container: &str) -> Option<String> {
    place(text, container).map(|(image, _)| image)
}

/// A pod's manifest with another image for the container `container`; as it is, where that is not written plainly.
pub fn with_image(text: &str, container: &str, image: &str) -> String {
    let Some((old, (line, column))) = place(text, container).filter(|(old, _)| old != image) else {
        return text.to_owned();
    };
    let mut lines: Vec<_> = text.split('\n').map(str::to_owned).collect();
    let Some(changed) = lines.get_mut(line - 1) else { return text.to_owned() };
    let at = changed.char_indices().nth(column - 1).map_or(changed.len(), |(at, _)| at);
    let end = changed.split_off(at);
    changed.push_str(&end.replacen(&old, image, 1));
    let changed = lines.join("\n");
    if of_container(&changed, container).as_deref() == Some(image) { changed } else { text.to_owned() }
}

/// The image to raise a component's bridge from: the one that has proved itself or, where that is gone, another one of the
/// same minor version that is there. Without knowledge of what is there, the first.
pub fn choose(named: &str, followed: Option<&Followed>, present: Option<&[String]>) -> String {
    let followed = followed.filter(|followed| followed.from == named).map(|followed| followed.to.as_str());
    let wanted = followed.unwrap_or(named);
    let Some(present) = present else { return wanted.to_owned() };
    if let Some(there) = [wanted, named].into_iter().find(|image| is_there(image, present)) {
        return there.to_owned();
    }
    let minor = |image: &str| of_image(image).map(|(major, minor, _)| (major, minor));
    let (wanted_minor, of) = (minor(wanted).or_else(|| minor(named)), normal(wanted));
    let alike = present.iter().filter(|there| repository(there) == repository(&of) && !there.contains('@'));
    let alike = alike.filter(|there| wanted_minor.is_some() && minor(there) == wanted_minor);
    alike.max_by_key(|there| of_image(there)).cloned().unwrap_or_else(|| wanted.to_owned())
}

/// The images that the runtime at `socket` has.
///
/// # Errors
/// What kept it from answering.
pub async fn present(socket: &Path) -> Result<Vec<String>, Trouble> {
    cri::images::list(socket, LIMIT).await
}

/// The images of `manifests`, static pods each under its file's name, that are not among `present`.
pub fn missing<'a>(manifests: impl IntoIterator<Item = &'a str>, present: &[String]) -> Vec<Missing> {
    let mut found = Vec::new();
    for text in manifests {
        let Some(document) = yaml::documents("", text).ok().and_then(|all| all.into_iter().next()) else { continue };
        let pod = document.value.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default();
        for key in ["initContainers", "containers"] {
            let containers = document.value.pointer(&format!("/spec/{key}")).and_then(Value::as_array);
            let images = containers.into_iter().flatten().filter_map(|container| container["image"].as_str());
            let absent = images.filter(|image| !is_there(image, present));
            found.extend(absent.map(|image| Missing { pod: pod.to_owned(), image: image.to_owned() }));
        }
    }
    found.sort();
    found.dedup();
    found
}

/// The images of hoist's static pods in the kubelet's folder that this machine has not.
///
/// # Errors
/// A runtime that does not answer.
pub async fn missing_here(host: &Host, socket: &Path) -> Result<Vec<Missing>, Trouble> {
    let pods = StaticPods::new(host.manifests());
    let read = |name: String| std::fs::read_to_string(host.manifests().join(name)).ok();
    let texts: Vec<_> = pods.own().into_iter().filter_map(read).collect();
    Ok(missing(texts.iter().map(String::as_str), &present(socket).await?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(images: &[&str]) -> Vec<String> {
        images.iter().map(|image| (*image).to_owned()).collect()
    }

    #[test]
    fn a_reference_is_known_however_it_is_written() {
        let present = all(&[
            "docker.io/library/busybox:1.36",
            "registry.k8s.io/pause:3.10",
            "r.io:5000/a@sha256:aa",
            "docker.io/me/x:latest",
            "sha256:bb",
        ]);
        for there in [
            "busybox:1.36",
            "docker.io/busybox:1.36",
            "index.docker.io/me/x",
            "registry.k8s.io/pause:3.10",
            "r.io:5000/a:1@sha256:aa",
            "me/x",
            "docker.io/me/x:latest",
            "sha256:bb",
        ] {
            assert!(is_there(there, &present), "{there}");
        }
        for absent in
            ["busybox", "registry.k8s.io/pause:3.1", "r.io:5000/a:1", "localhost/me/x", "registry.k8s.io/pause:3.10-1"]
        {
            assert!(!is_there(absent, &present), "{absent}");
        }
    }

    const NAMED: &str = "registry.k8s.io/kube-apiserver:v1.36.3";
    const PROVED: &str = "registry.k8s.io/kube-apiserver:v1.36.3-1";

    #[test]
    fn what_is_there_is_taken_and_what_proved_itself_first() {
        let followed = Followed { from: NAMED.into(), to: PROVED.into() };
        let choose = |followed: Option<&Followed>, present: &[&str]| choose(NAMED, followed, Some(&all(present)));
        assert_eq!(choose(None, &[NAMED, PROVED]), NAMED);
        assert_eq!(choose(Some(&followed), &[NAMED, PROVED]), PROVED);
        assert_eq!(choose(Some(&followed), &[NAMED]), NAMED, "the other is gone");
        assert_eq!(choose(None, &[PROVED]), PROVED, "of the same minor version");
        let newer = [
            "registry.k8s.io/kube-apiserver:v1.36.9",
            "registry.k8s.io/kube-apiserver:v1.36.11",
            "registry.k8s.io/kube-apiserver:v1.37.2",
        ];
        assert_eq!(choose(None, &newer), newer[1]);
        assert_eq!(choose(None, &newer[2..]), NAMED, "its flags are of another minor version");
        assert_eq!(
            choose(Some(&followed), &["registry.k8s.io/kube-scheduler:v1.36.3"]),
            PROVED,
            "nothing of it is there"
        );
        assert_eq!(super::choose(NAMED, Some(&followed), None), PROVED, "nobody says what is there");
        let older = Followed { from: "registry.k8s.io/kube-apiserver:v1.36.2".into(), to: PROVED.into() };
        assert_eq!(choose(Some(&older), &[NAMED, PROVED]), NAMED, "the manifest names another by now");
    }

    #[test]
    fn one_containers_image_is_exchanged_in_its_place() {
        let text = "# v1\nkind: Pod\nmetadata: {name: p}\nspec:\n  containers:\n  - name: a\n    image: \"r/a:1\" # r/a:1\n  - name: b\n    image: r/a:1\n";
        let changed = with_image(text, "a", "r/a:1-1");
        assert_eq!(changed, text.replacen("\"r/a:1\"", "\"r/a:1-1\"", 1));
        assert_eq!(of_container(&changed, "b").as_deref(), Some("r/a:1"));
        assert_eq!(with_image(text, "c", "x"), text);
        let found = missing([&*changed], &all(&["docker.io/r/a:1"]));
        assert_eq!(found, [Missing { pod: "p".into(), image: "r/a:1-1".into() }]);
    }

    #[test]
    fn a_missing_image_is_brought_by_who_has_it() {
        let remedy = |image: &str| Missing { pod: "p".into(), image: image.into() }.remedy();
        assert!(remedy(NAMED).ends_with("with a file of `ctr images export`"), "{}", remedy(NAMED));
        let own = "localhost/hoist:0.1.0";
        assert!(remedy(own).ends_with("with a file of `hoist image save FILE --name localhost/hoist:0.1.0`"));
    }
}
