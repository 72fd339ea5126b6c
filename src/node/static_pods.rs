//! The only owner of the kubelet's folder of static pods: it lists the manifests and their owners, puts a manifest in
//! whole, and takes it out.
//!
//! A manifest of a pod that is to outlive its kubelet has a uid. A kubelet gives a static pod without one a hash of the object as it
//! knows it; a kubelet of another minor version knows other fields, and makes every such pod anew (measured from 1.36.3 to 1.37.2).
//! The uid follows from the machine, the file and the text, for under a kept uid a kubelet takes over hardly more than images of a
//! manifest that was edited. [`StaticPods::settle`] gives an edited one its own. A pod that runs a program of the disk is made anew for
//! another program by a uid that follows from it, too ([`StaticPods::install_with`]). To all else the manifest is as it was given: the
//! line is no part of what is read.

use std::fs::OpenOptions;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde_json::Value;

use crate::base::error::{Error, Finding, Result};
use crate::base::files::{self, File};
use crate::base::yaml;
use crate::desired::static_uid as uid;

/// The label that says that a static pod is hoist's.
const MANAGED_BY: &str = "/metadata/labels/app.kubernetes.io~1managed-by";
/// Programs of which a controller runs one set: another's manifest with one of them stands in the way.
const CONTROL_PLANE: [&str; 4] = ["etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler"];

/// The pods that outlive their kubelets.
const LASTING: [&str; 3] = ["etcd.yaml", "hoist-endpoint.yaml", "hoist-guard.yaml"];

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

    /// The same of a pod that is to outlive its kubelet. A manifest that is there and says the same stays, with the uid that it has
    /// or without: another would make its pod anew.
    ///
    /// # Errors
    /// The same.
    pub fn install_lasting(&self, name: &str, text: &str) -> Result<bool> {
        let path = self.dir.join(name);
        let derived = Self::uid_with(name, text, None);
        let Ok(there) = std::fs::read_to_string(&path) else { return self.install(name, &uid::with(text, &derived)) };
        if uid::without(&there) == text {
            return self.install(name, &there);
        }
        // Of another image alone, and so of the pod that is there.
        let kept = uid::of(&there).filter(|_| uid::is_kept(&there, &derived));
        let uid = kept.map_or(derived.clone(), |kept| uid::keeping(&kept, &derived));
        self.install(name, &uid::with(text, &uid))
    }

    /// The same under the uid of the pod that runs, `kept`. Its kubelet takes the manifest over when the container is started anew, and makes
    /// no other pod.
    ///
    /// # Errors
    /// The same.
    pub fn install_keeping(&self, name: &str, text: &str, kept: &str) -> Result<bool> {
        self.install(name, &uid::with(text, &uid::keeping(kept, &Self::uid_with(name, text, None))))
    }

    /// The text of the manifest `name`, if it was put in under the uid of the pod before, and has not been edited since.
    pub fn kept(&self, name: &str) -> Option<String> {
        let there = std::fs::read_to_string(self.dir.join(name)).ok()?;
        let text = uid::without(&there);
        uid::is_kept(&there, &Self::uid_with(name, &text, None)).then_some(text)
    }

    /// The uid that the manifest `name` gives its pod.
    pub fn uid(&self, name: &str) -> Option<String> {
        uid::of(&std::fs::read_to_string(self.dir.join(name)).ok()?)
    }

    /// The same of a pod that runs a program of the disk, which is `program` now (what its content is told by): another program is
    /// another pod.
    ///
    /// # Errors
    /// The same.
    pub fn install_with(&self, name: &str, text: &str, program: &str) -> Result<bool> {
        self.install(name, &uid::with(text, &Self::uid_with(name, text, Some(program))))
    }

    /// The program that the manifest `name` was put in for, by [`StaticPods::install_with`].
    pub fn program(&self, name: &str) -> Option<String> {
        let text = std::fs::read_to_string(self.dir.join(name)).ok()?;
        uid::program(&text).map(str::to_owned)
    }

    /// Gives each manifest of [`LASTING`] that was edited since it got its uid another one, so that its pod follows; says which.
    /// One without a uid gets one where `none_runs`, which nobody notices then.
    ///
    /// # Errors
    /// The system's refusal; the next time goes on.
    pub fn settle(&self, none_runs: bool) -> Result<Vec<&'static str>> {
        let mut settled = Vec::new();
        for name in LASTING {
            let Ok(there) = std::fs::read_to_string(self.dir.join(name)) else { continue };
            let text = uid::without(&there);
            let derived = Self::uid_with(name, &text, uid::program(&there));
            let wanted = uid::with(&text, &derived);
            let is_meant = none_runs && self.has_own(name) || text != there;
            let is_older = there == uid::with(&text, &uid::derived_once(&Self::machine(), name, &text));
            let was_copied = there == uid::to_copy(name, &text);
            // What was kept is given back where nothing of it runs.
            let is_kept = !none_runs && uid::is_kept(&there, &derived);
            if is_meant && wanted != there && !is_older && !was_copied && !is_kept {
                self.install(name, &wanted)?;
                settled.push(name);
            }
        }
        Ok(settled)
    }

    /// The value of a manifest's uid: never twice on a node, whose kubelet reads one folder.
    fn uid_with(name: &str, text: &str, program: Option<&str>) -> String {
        uid::derived(&Self::machine(), name, text, program)
    }

    fn machine() -> String {
        nix::unistd::gethostname().unwrap_or_default().to_string_lossy().into_owned()
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
        std::fs::read_to_string(self.dir.join(name)).ok().map(|text| uid::without(&text))
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

    /// The pods whose manifests give them no uid: the path of each, and its pod as `NAMESPACE/NAME`. A kubelet of another minor version
    /// makes them anew: it takes a hash for their uid, over fields that differ from version to version.
    ///
    /// # Errors
    /// A folder that cannot be read.
    pub fn without_own_uid(&self) -> Result<Vec<(PathBuf, String)>> {
        let entries = match std::fs::read_dir(&self.dir) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(|error| Error::io("read", &self.dir, error))?,
        };
        let paths = entries.flatten().map(|entry| entry.path());
        let is_read = |path: &PathBuf| {
            path.is_file() && !path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'))
        };
        let mut found = Vec::new();
        for path in paths.filter(is_read) {
            let text = std::fs::read(&path).map_err(|error| Error::io("read", &path, error))?;
            let documents = yaml::documents("", &String::from_utf8_lossy(&text)).unwrap_or_default();
            let Some(pod) = documents.first().map(|document| &document.value) else { continue };
            let field = |name: &str| pod.pointer(&format!("/metadata/{name}")).and_then(Value::as_str);
            if pod["kind"] == "Pod" && field("uid").is_none_or(str::is_empty) {
                let pod = format!("{}/{}", field("namespace").unwrap_or("default"), field("name").unwrap_or_default());
                found.push((path, pod));
            }
        }
        found.sort();
        Ok(found)
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

    const OWN: &str = "# what it is for\napiVersion: v1\nkind: Pod\nmetadata:\n  name: etcd\nspec: {}\n";

    #[test]
    fn each_manifest_gets_a_uid_of_its_own_and_is_read_as_it_was_given() {
        let (dir, pods) = folder(&[]);
        let uid_of = |name: &str| {
            let text = std::fs::read_to_string(dir.path().join(name)).unwrap();
            let document = yaml::documents(name, &text).unwrap().remove(0);
            document.value["metadata"]["uid"].as_str().unwrap().to_owned()
        };
        assert!(pods.install_lasting("etcd.yaml", OWN).unwrap() && pods.install_lasting("other.yaml", OWN).unwrap());
        let first = uid_of("etcd.yaml");
        assert_ne!(first, uid_of("other.yaml"), "never twice on a node");
        assert_eq!(pods.read("etcd.yaml").as_deref(), Some(OWN));
        assert!(!pods.install_lasting("etcd.yaml", OWN).unwrap());
        let changed = OWN.replace("spec: {}", "spec: {hostNetwork: true}");
        assert!(pods.install_lasting("etcd.yaml", &changed).unwrap());
        assert_ne!(uid_of("etcd.yaml"), first, "another text is another pod");
        pods.remove("etcd.yaml").unwrap();
        pods.install_lasting("etcd.yaml", OWN).unwrap();
        assert_eq!(uid_of("etcd.yaml"), first);
        let parts: Vec<_> = first.split('-').map(str::len).collect();
        assert_eq!(parts, [8, 4, 4, 4, 12]);
        assert!(first.chars().all(|c| c == '-' || c.is_ascii_hexdigit() && !c.is_ascii_uppercase()), "{first}");
    }

    #[test]
    fn a_pod_without_a_uid_is_named() {
        let pod = |metadata: &str| format!("apiVersion: v1\nkind: Pod\nmetadata: {metadata}\n");
        let (one, other) = (pod("{name: a, namespace: n, uid: u}"), pod("{name: b}"));
        let (dir, pods) = folder(&[("a.yaml", &one), ("b.yaml", &other), (".c.yaml", &other), ("d.yaml", "kind: [")]);
        assert_eq!(pods.without_own_uid().unwrap(), [(dir.path().join("b.yaml"), "default/b".to_owned())]);
        assert!(StaticPods::new(&dir.path().join("none")).without_own_uid().unwrap().is_empty());
    }

    #[test]
    fn a_pod_that_runs_without_a_uid_is_not_made_anew_for_one() {
        let (dir, pods) = folder(&[("etcd.yaml", OWN)]);
        pods.install_lasting("etcd.yaml", OWN).unwrap();
        assert_eq!(std::fs::read_to_string(dir.path().join("etcd.yaml")).unwrap(), OWN);
        // A user's own is the user's.
        let with = OWN.replace("  name: etcd\n", "  name: etcd\n  uid: mine\n");
        assert!(
            pods.install_lasting("etcd.yaml", &with).unwrap() && !pods.install_lasting("etcd.yaml", &with).unwrap()
        );
        assert_eq!(std::fs::read_to_string(dir.path().join("etcd.yaml")).unwrap(), with);
    }

    #[test]
    fn another_image_is_no_other_pod() {
        let (_dir, pods) = folder(&[]);
        let uid = |pods: &StaticPods| {
            let text = std::fs::read_to_string(pods.dir.join("etcd.yaml")).unwrap();
            text.lines().find(|line| line.starts_with("  uid: ")).unwrap().to_owned()
        };
        let of = |image: &str| {
            format!(
                "apiVersion: v1\nkind: Pod\nmetadata:\n  name: etcd\n  labels:\n    app.kubernetes.io/managed-by: hoist\nspec:\n  containers:\n  - name: etcd\n    image: {image}\n"
            )
        };
        pods.install_lasting("etcd.yaml", &of("etcd:1")).unwrap();
        let first = uid(&pods);
        assert!(pods.install_lasting("etcd.yaml", &of("etcd:2")).unwrap());
        assert_eq!(uid(&pods), first);
        assert!(pods.settle(false).unwrap().is_empty());
        // What an older hoist has derived from images, too, stays as long as nobody edits it.
        let text = of("etcd:2");
        let older = uid::with(&text, &uid::derived_once(&StaticPods::machine(), "etcd.yaml", &text));
        pods.install("etcd.yaml", &older).unwrap();
        assert!(pods.settle(true).unwrap().is_empty());
        pods.install("etcd.yaml", &older.replace("etcd:2", "etcd:3")).unwrap();
        assert_eq!(pods.settle(false).unwrap(), ["etcd.yaml"]);
    }

    #[test]
    fn what_was_copied_to_a_machine_keeps_its_uid_until_it_is_edited() {
        let own = OWN.replace("  name: etcd\n", "  name: etcd\n  labels:\n    app.kubernetes.io/managed-by: hoist\n");
        let copied = uid::to_copy("hoist-endpoint.yaml", &own);
        assert!(copied.contains("\n  uid: \"") && copied != uid::to_copy("etcd.yaml", &own));
        let (dir, pods) = folder(&[("hoist-endpoint.yaml", &copied)]);
        assert!(pods.settle(true).unwrap().is_empty() && pods.without_own_uid().unwrap().is_empty());
        pods.install_lasting("hoist-endpoint.yaml", &own).unwrap();
        assert_eq!(
            std::fs::read_to_string(dir.path().join("hoist-endpoint.yaml")).unwrap(),
            copied,
            "it says the same"
        );
        std::fs::write(dir.path().join("hoist-endpoint.yaml"), copied.replace("spec: {}", "spec: {a: b}")).unwrap();
        assert_eq!(pods.settle(false).unwrap(), ["hoist-endpoint.yaml"]);
    }

    #[test]
    fn an_edit_makes_another_pod() {
        let own = OWN.replace("  name: etcd\n", "  name: etcd\n  labels:\n    app.kubernetes.io/managed-by: hoist\n");
        let (dir, pods) = folder(&[("hoist-guard.yaml", &own), ("mine.yaml", &own)]);
        pods.install_lasting("etcd.yaml", &own).unwrap();
        assert!(pods.settle(false).unwrap().is_empty());
        let path = dir.path().join("etcd.yaml");
        let before = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, before.replace("spec: {}", "spec: {hostNetwork: true}")).unwrap();
        assert_eq!(pods.settle(false).unwrap(), ["etcd.yaml"]);
        let after = std::fs::read_to_string(&path).unwrap();
        let line = |text: &str| text.lines().find(|line| line.starts_with("  uid: ")).unwrap().to_owned();
        assert!(after.contains("hostNetwork: true") && line(&after) != line(&before), "{after}");
        assert!(pods.settle(false).unwrap().is_empty());
        let guard = || std::fs::read_to_string(dir.path().join("hoist-guard.yaml")).unwrap();
        assert_eq!(guard(), own);
        assert_eq!(pods.settle(true).unwrap(), ["hoist-guard.yaml"]);
        assert!(uid::without(&guard()) == own && guard() != own);
        assert_eq!(std::fs::read_to_string(dir.path().join("mine.yaml")).unwrap(), own);
    }

    #[test]
    fn another_program_of_the_disk_makes_another_pod_that_reads_the_same() {
        let own =
            OWN.replace("name: etcd\n", "name: hoist-guard\n  labels:\n    app.kubernetes.io/managed-by: hoist\n");
        let (dir, pods) = folder(&[]);
        let guard = || std::fs::read_to_string(dir.path().join("hoist-guard.yaml")).unwrap();
        pods.install_lasting("hoist-guard.yaml", &own).unwrap();
        let before = guard();
        assert_eq!(pods.program("hoist-guard.yaml"), None);
        assert!(pods.install_with("hoist-guard.yaml", &own, "1f2e").unwrap());
        let with = guard();
        assert!(with != before && with.contains("  uid: \""), "{with}");
        assert_eq!(pods.program("hoist-guard.yaml").as_deref(), Some("1f2e"));
        assert_eq!(pods.read("hoist-guard.yaml").as_deref(), Some(&*own));
        // Nobody makes it anew again: not who finds that it says what it should, nor who looks for edits.
        assert!(!pods.install_lasting("hoist-guard.yaml", &own).unwrap());
        assert!(pods.settle(true).unwrap().is_empty() && pods.settle(false).unwrap().is_empty());
        assert_eq!(guard(), with);
        let document = yaml::documents("", &with).unwrap().remove(0);
        assert_eq!(document.value["metadata"]["uid"].as_str().map(str::len), Some(36));
        // An edit makes another pod, of the same program.
        std::fs::write(dir.path().join("hoist-guard.yaml"), with.replace("spec: {}", "spec: {hostPID: true}")).unwrap();
        assert_eq!(pods.settle(false).unwrap(), ["hoist-guard.yaml"]);
        assert_eq!(pods.program("hoist-guard.yaml").as_deref(), Some("1f2e"));
        assert!(pods.install_with("hoist-guard.yaml", &own, "3d4c").unwrap() && guard() != with);
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
