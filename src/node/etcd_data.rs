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
//!
//! A member that is added anew in place of one whose data is lost waits for a file of its own, `member/hoist-joined-ID`:
//! what the kubelet may still know of the manifest before, which may begin a cluster, does not start on it.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::base::error::Result;
use crate::base::files::{self, File};
use crate::base::yaml;
use crate::desired::config::{Cluster, Etcd};
use crate::etcd::client::MemberId;
use crate::node::host::Host;
use crate::node::mounts::Mounts;

/// The mark, below the data directory.
pub const MARK: &str = "member/hoist-began";
/// The same of a member that was added anew; its id follows.
const JOINED: &str = "member/hoist-joined-";
/// What a folder with the data of a member that was removed is called; the time follows.
pub const ASIDE: &str = "member.removed-";
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

    /// Makes the mark of the member `id` that was added anew, by which its etcd may begin.
    ///
    /// # Errors
    /// The system's refusal.
    pub fn begin_anew(&self, id: MemberId) -> Result<()> {
        files::make_dir(&self.dir.join("member"), 0o700)?;
        files::write(&self.dir.join(joined(id)), &mark()).map(drop)
    }

    /// Whether data of a member that was removed was put aside in this folder.
    pub fn has_aside(&self) -> bool {
        let mut entries = fs::read_dir(&self.dir).into_iter().flatten().flatten();
        entries.any(|entry| entry.file_name().to_string_lossy().starts_with(ASIDE))
    }

    /// Where the file system of the folder is mounted on this machine; `None` where this process may see another folder than
    /// the machine does, as a container whose mounts are older than the machine's.
    pub fn mount(&self, host: &Host) -> Option<PathBuf> {
        let (machine, dir) = (Mounts::of_machine(host), host.inside(&self.dir));
        let (there, here) = (machine.place(&dir)?, Mounts::of(host));
        (here.place(&dir)? == there).then(|| machine.around(&dir).map(|mount| mount.point.clone()))?
    }

    /// Whether nothing of etcd's is there: neither its database and log nor the mark by which it may begin.
    pub fn is_empty(&self) -> bool {
        let is_nothing = |name: &str| fs::symlink_metadata(self.dir.join(name)).is_err();
        self.is_seen() && ["member/snap/db", "member/wal", MARK].into_iter().all(is_nothing)
    }

    /// What is typed where the data is gone.
    pub fn remedy() -> String {
        "mount the disk that it is on, and etcd continues by itself. If the disk is lost: `hoist recover --backup FILE`. `hoist start --new-cluster` begins a new cluster that has nothing of this one".into()
    }
}

/// The mark of the member `id` that was added anew, below the data directory.
pub fn joined(id: MemberId) -> String {
    format!("{JOINED}{id}")
}

/// The marks of members that were added anew, below the data directory `dir`: what is restored there needs them, too.
pub fn joined_marks(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir.join("member")).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    names.map(|name| format!("member/{name}")).filter(|name| name.starts_with(JOINED)).collect()
}

/// etcd's manifest that waits for this mark in place of the one of all.
pub fn waiting_for(manifest: &str, mark: &str) -> String {
    manifest.replace(&format!("/{MARK}"), &format!("/{mark}"))
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

/// Whether a pod's start depends on a mark: that of all, or that of a member that was added anew.
fn is_guarded(pod: &Value) -> bool {
    let volumes = pod.pointer("/spec/volumes").and_then(Value::as_array);
    let path = |volume: &Value| volume.pointer("/hostPath/path").and_then(Value::as_str).map(str::to_owned);
    let is_mark = |path: String| path.ends_with(MARK) || path.contains(&format!("/{JOINED}"));
    volumes.into_iter().flatten().filter_map(path).any(is_mark)
}

/// Whether two manifests of etcd's differ in nothing but that condition and how it is ended: no reason to end an etcd that
/// runs.
pub fn is_alike(one: &str, other: &str) -> bool {
    let bare = |text: &str| {
        let mut pod = yaml::documents("", text).ok()?.into_iter().next()?.value;
        for pointer in ["/spec/volumes", "/spec/containers/0/volumeMounts"] {
            if let Some(list) = pod.pointer_mut(pointer).and_then(Value::as_array_mut) {
                list.retain(|item| item["name"] != VOLUME);
            }
        }
        for (pointer, key) in [("/spec", "terminationGracePeriodSeconds"), ("/spec/containers/0", "lifecycle")] {
            if let Some(object) = pod.pointer_mut(pointer).and_then(Value::as_object_mut) {
                object.remove(key);
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
        let older = text.replace("  terminationGracePeriodSeconds: 90\n", "").replace("preStop", "postStart");
        assert!(older != text && is_alike(&text, &older), "{text}");
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
        assert!(data.is_there() && !data.is_empty());
    }

    #[test]
    fn a_folder_is_lost_only_where_this_process_sees_what_the_machine_sees() {
        let root = tempfile::tempdir().unwrap();
        let host = system::host(root.path(), Path::new("/etc/kubernetes/manifests"));
        let data = Data::at(&host, "/srv/etcd");
        fs::create_dir_all(data.dir()).unwrap();
        let tables = |machine: &str, here: &str| {
            for (process, table) in [("1", machine), ("self", here)] {
                let folder = root.path().join("proc").join(process);
                fs::create_dir_all(&folder).unwrap();
                fs::write(folder.join("mountinfo"), table).unwrap();
            }
            data.mount(&host).map(|point| point.display().to_string())
        };
        let (whole, disk) = ("1 0 8:1 / / rw - ext4 a rw\n", "2 1 8:2 / /srv rw - ext4 b rw\n");
        let container = "1 0 0:9 / / rw - overlay o rw\n";
        let both = format!("{whole}{disk}");
        let inside = |device: &str, path: &str| format!("{container}3 1 {device} {path} /srv/etcd rw - ext4 b rw\n");
        assert_eq!(tables("", ""), None, "the kernel does not tell");
        assert_eq!(tables(&both, &inside("8:2", "/etcd")).as_deref(), Some("/srv"));
        assert_eq!(tables(&both, &inside("8:1", "/srv/etcd")), None, "the disk was mounted later");
        assert_eq!(tables(whole, &inside("8:1", "/srv/etcd")).as_deref(), Some("/"), "it is not mounted");
        assert_eq!(tables(&both, &inside("8:2", "/etcd//deleted")), None);
    }

    #[test]
    fn one_that_is_added_anew_waits_for_its_own_mark() {
        let manifest = waiting_for(&guarded(OLD), &joined(MemberId(0xab)));
        assert!(manifest.contains("\"path\":\"/srv/etcd/member/hoist-joined-ab\""), "{manifest}");
        assert!(!manifest.contains(MARK) && is_alike(&manifest, OLD));
        assert_eq!(guarded(&manifest), manifest, "a second condition of that name is no valid pod");
        let root = tempfile::tempdir().unwrap();
        let data = Data::at(&system::host(root.path(), Path::new("/etc/kubernetes/manifests")), "/srv/etcd");
        assert!(!data.is_empty(), "it cannot be seen");
        fs::create_dir_all(data.dir()).unwrap();
        data.begin_anew(MemberId(0xab)).unwrap();
        assert!(data.is_empty() && !data.mark().exists(), "etcd has not begun");
        assert_eq!(joined_marks(&data.dir()), ["member/hoist-joined-ab"]);
        data.begin().unwrap();
        assert!(!data.is_empty() && !data.has_aside());
        fs::rename(data.dir().join("member"), data.dir().join("member.removed-1")).unwrap();
        assert!(data.is_empty() && data.has_aside() && joined_marks(&data.dir()).is_empty());
    }
}
