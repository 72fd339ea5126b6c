//! etcd's data on a controller's disk, and the file that keeps etcd from beginning a second, empty cluster if the
//! data is missing.
//!
//! ```text
//!  dataDir/member/hoist-began   made before etcd begins ─► hostPath, type File, of etcd's static pod
//!          │ not there: its disk is not mounted, or another one is
//!          └─► the kubelet does not start etcd, says why, and tries again until it is there
//! ```
//! This needs no API and no process of hoist's, at any boot. The file is in the folder that etcd makes and that a
//! restore exchanges, so it moves with the data.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::base::error::Result;
use crate::base::files::{self, File};
use crate::base::yaml;
use crate::desired::config::{Cluster, Etcd};
use crate::node::host::Host;

/// The mark, below the data directory.
pub const MARK: &str = "member/hoist-began";
/// What stands in it, for people.
const TEXT: &str = "etcd has begun here. Without this file its static pod does not start: where the disk of its data is not\n\
mounted, it would begin a second, empty cluster. Written by hoist.\n";
/// The volume of etcd's pod, and where it is mounted.
const VOLUME: &str = "began";
const MOUNT: &str = "/etc/kubernetes/began";

/// etcd's data directory on a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Data {
    dir: PathBuf,
    /// As etcd's manifest names it.
    name: String,
}

impl Data {
    /// The one of `cluster`, if etcd is on its controllers.
    pub fn of(host: &Host, cluster: &Cluster) -> Option<Self> {
        match &cluster.etcd {
            Etcd::Local { data_dir, .. } => Some(Self::at(host, data_dir)),
            Etcd::External { .. } => None,
        }
    }

    /// The one at `dir`.
    pub fn at(host: &Host, dir: &str) -> Self {
        Self { dir: host.resolve(Path::new(dir)), name: dir.to_owned() }
    }

    /// As messages name it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The folder.
    pub fn dir(&self) -> PathBuf {
        self.dir.clone()
    }

    /// Whether there is a database of etcd's.
    pub fn is_there(&self) -> bool {
        fs::metadata(self.dir.join("member/snap/db")).is_ok_and(|meta| meta.is_file() && meta.len() > 0)
    }

    /// Whether the folder can be seen, so that what is not in it is not there.
    pub fn is_seen(&self) -> bool {
        self.dir.is_dir()
    }

    /// Where the mark is.
    pub fn mark(&self) -> PathBuf {
        self.dir.join(MARK)
    }

    /// Makes the mark, by which etcd may begin on this folder, or go on; says whether it was not there.
    ///
    /// # Errors
    /// The system's refusal.
    pub fn begin(&self) -> Result<bool> {
        if self.mark().is_file() {
            return Ok(false);
        }
        files::make_dir(&self.dir.join("member"), 0o700)?;
        files::write(&self.mark(), &mark())
    }

    /// What is typed where the data is gone.
    pub fn remedy() -> String {
        "mount the disk that it is on, and etcd continues by itself. If the disk is lost: `hoist recover --backup FILE`. `hoist start --new-cluster` begins a new cluster that has nothing of this one".into()
    }
}

/// The mark as a file.
pub fn mark() -> File {
    File::private(TEXT)
}

/// etcd's manifest with the mark as a condition of its start; as it is, where that is in it or its data cannot be told.
pub fn guarded(manifest: &str) -> String {
    let Some(document) = yaml::documents("", manifest).ok().and_then(|all| all.into_iter().next()) else {
        return manifest.to_owned();
    };
    let pod = &document.value;
    if is_guarded(pod) {
        return manifest.to_owned();
    }
    let volumes = pod.pointer("/spec/volumes").and_then(Value::as_array);
    let data = volumes.into_iter().flatten().find(|volume| volume["name"] == "data");
    let Some(dir) = data.and_then(|volume| volume.pointer("/hostPath/path")?.as_str()) else {
        return manifest.to_owned();
    };
    let volume =
        json!({"name": VOLUME, "hostPath": {"path": format!("{}/{MARK}", dir.trim_end_matches('/')), "type": "File"}});
    let mount = json!({"name": VOLUME, "mountPath": MOUNT, "readOnly": true});
    let mut whole = pod.clone();
    for (pointer, item) in [("/spec/volumes", &volume), ("/spec/containers/0/volumeMounts", &mount)] {
        let Some(list) = whole.pointer_mut(pointer).and_then(Value::as_array_mut) else { return manifest.to_owned() };
        list.insert(0, item.clone());
    }
    // As text, so that what somebody wrote into it stays; if it is written in another way than hoist writes it, as JSON.
    let inserted = |text: String, path: &str, item: &Value| {
        let (line, column) = document.positions.get(&format!("{path}[0]"))?;
        let indent = " ".repeat(column.checked_sub(3)?);
        let mut lines: Vec<_> = text.split('\n').map(str::to_owned).collect();
        (line <= lines.len()).then(|| lines.insert(line - 1, format!("{indent}- {item}")))?;
        Some(lines.join("\n"))
    };
    // The volumes first: they stand behind.
    let text = inserted(manifest.to_owned(), "spec.volumes", &volume)
        .and_then(|text| inserted(text, "spec.containers[0].volumeMounts", &mount));
    let says_so = |text: &String| {
        let read = yaml::documents("", text).ok().and_then(|all| all.into_iter().next());
        read.is_some_and(|document| document.value == whole)
    };
    text.filter(says_so).unwrap_or_else(|| format!("{whole:#}\n"))
}

/// Whether a pod's start depends on the mark.
fn is_guarded(pod: &Value) -> bool {
    let volumes = pod.pointer("/spec/volumes").and_then(Value::as_array);
    let path = |volume: &Value| volume.pointer("/hostPath/path").and_then(Value::as_str).map(str::to_owned);
    volumes.into_iter().flatten().filter_map(path).any(|path| path.ends_with(MARK))
}

/// Whether two manifests of etcd's differ in nothing but that condition: no reason to end an etcd that runs.
pub fn is_alike(one: &str, other: &str) -> bool {
    let bare = |text: &str| {
        let mut pod = yaml::documents("", text).ok()?.into_iter().next()?.value;
        for pointer in ["/spec/volumes", "/spec/containers/0/volumeMounts"] {
            if let Some(list) = pod.pointer_mut(pointer).and_then(Value::as_array_mut) {
                list.retain(|item| item["name"] != VOLUME);
            }
        }
        Some(pod)
    };
    bare(one).is_some_and(|one| bare(other) == Some(one))
}

#[cfg(test)]
mod tests {

    use super::*;
    use crate::node::system;

    const OLD: &str = "\
# mine
apiVersion: v1
kind: Pod
metadata: {name: etcd}
spec:
  containers:
  - name: etcd
    image: a:1 # mine
    volumeMounts:
    - name: data
      mountPath: /var/lib/etcd
  volumes:
  - name: data
    hostPath:
      path: \"/srv/etcd\"
      type: Directory
";

    #[test]
    fn an_older_manifest_gets_the_condition_and_keeps_the_rest() {
        let new = guarded(OLD);
        let added: Vec<_> = new.lines().filter(|line| !OLD.lines().any(|old| old == *line)).collect();
        assert_eq!(added.len(), 2, "{new}");
        assert!(
            added[1].contains("\"path\":\"/srv/etcd/member/hoist-began\"") && added[1].contains("\"type\":\"File\"")
        );
        assert!(new.contains("image: a:1 # mine") && guarded(&new) == new);
        assert!(is_alike(OLD, &new) && is_alike(&new, OLD) && !is_alike(&new, &OLD.replace("a:1", "a:2")));
        // Written in another way.
        let flow = "kind: Pod\nspec: {containers: [{name: etcd, volumeMounts: [{name: data}]}], volumes: [{name: data, hostPath: {path: /d}}]}\n";
        let new = guarded(flow);
        assert!(is_guarded(&yaml::documents("", &new).unwrap()[0].value) && is_alike(flow, &new), "{new}");
        for strange in ["", "{", "kind: Pod\nspec: {containers: []}\n"] {
            assert_eq!(guarded(strange), strange);
        }
    }

    #[test]
    fn the_rendered_manifest_has_it() {
        let text = "apiVersion: hoist/v1alpha1\nkind: Cluster\ncontrollers:\n- {name: c1, address: 10.0.0.1}\n";
        let cluster = crate::desired::config::parse("cluster.yaml", text, Path::new("/")).unwrap();
        let now = time::OffsetDateTime::now_utc();
        let pki = crate::desired::pki::issue(&cluster, &Default::default(), &Default::default(), now).unwrap();
        let assets = crate::desired::render::render(&cluster, &pki.files, "abcdef.0123456789abcdef").unwrap();
        let text = assets.text("bootstrap-manifests/etcd.yaml").unwrap();
        assert_eq!(guarded(&text), text);
        assert_eq!(text.matches("- name: began\n").count(), 2);
        assert!(is_alike(&text, &guarded(&text)), "{text}");
    }

    #[test]
    fn the_mark_comes_once_and_data_is_what_etcd_makes() {
        let root = tempfile::tempdir().unwrap();
        let host = system::host(root.path(), Path::new("/etc/kubernetes/manifests"));
        let data = Data::at(&host, "/srv/etcd");
        assert!(!data.is_there() && !data.is_seen());
        assert!(data.begin().unwrap() && !data.begin().unwrap());
        assert!(!data.is_there() && data.is_seen(), "etcd has not begun yet");
        fs::create_dir_all(data.dir().join("member/snap")).unwrap();
        fs::write(data.dir().join("member/snap/db"), "").unwrap();
        assert!(!data.is_there(), "nothing is in it");
        fs::write(data.dir().join("member/snap/db"), "x").unwrap();
        assert!(data.is_there());
    }
}
