//! How another manifest of etcd comes into effect where this member is the only one.
//!
//! Under another uid a kubelet makes another pod. Before it begins that pod it has the API delete the mirror of the one before, and
//! without etcd no API server can: the request ends when its time is over, and the API is away for a minute (63 and 67 s, measured).
//! Under the uid of the pod that runs, the kubelet takes the manifest over for the next start of the container. So where two manifests
//! differ in nothing else than what a container is started with, the uid is kept, and the etcd that runs is ended once: the API is away
//! for as long as etcd takes to end and to begin.
//!
//! Where several members are, the kubelet makes another pod: others serve meanwhile, and its hook has them take over before.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use serde_json::Value;
use tokio::time::{Instant, sleep};

use crate::base::error::{Error, Result};
use crate::base::yaml;
use crate::node::host::Host;
use crate::node::kubelet;
use crate::node::processes::{self, Component, Process, Signal};
use crate::node::static_pods::StaticPods;

/// The file, in the kubelet's folder.
pub const NAME: &str = "etcd.yaml";
/// How long a kubelet may take to see a manifest before etcd is ended for it.
const SEEN: Duration = Duration::from_secs(3);
/// How long etcd may take to end and to begin, until it is ended once more: the kubelet had not seen the manifest.
const AGAIN: Duration = Duration::from_secs(30);
/// How long a kubelet may take to tell etcd to end where the image is another.
const TOLD: Duration = Duration::from_secs(1);
/// How long etcd has for what it is at work on when it is told to end.
const GRACE: Duration = Duration::from_secs(2);
const POLL: Duration = Duration::from_millis(250);

/// Puts another manifest of etcd in, and says whether anything changed. Where `is_only` and nothing else differs than what a container is
/// started with, the pod that runs keeps its uid, and whoever calls sees to it that its etcd is ended ([`follow`], [`end_older`]).
///
/// # Errors
/// The system's refusal; the kubelet then sees what it saw before.
pub fn install(host: &Host, text: &str, is_only: bool) -> Result<bool> {
    let pods = StaticPods::new(host.manifests());
    let before = pods.read(NAME).filter(|before| before != text && pods.has_own(NAME));
    match before.and_then(|before| kept(host, &pods, &before, text, is_only)) {
        Some(kept) => pods.install_keeping(NAME, text, &kept),
        None => pods.install_lasting(NAME, text),
    }
}

/// Has the pod that runs keep its uid where somebody has edited its manifest, which was `before`, as [`install`] does.
///
/// # Errors
/// The same.
pub fn settle(host: &Host, before: &str, is_only: bool) -> Result<bool> {
    let pods = StaticPods::new(host.manifests());
    let Some(text) = pods.read(NAME).filter(|text| text != before && pods.has_own(NAME)) else { return Ok(false) };
    if pods.kept(NAME).is_some() {
        return Ok(false);
    }
    match kept(host, &pods, before, &text, is_only) {
        Some(kept) => pods.install_keeping(NAME, &text, &kept),
        None => Ok(false),
    }
}

/// The uid that the pod which runs can keep.
fn kept(host: &Host, pods: &StaticPods, before: &str, text: &str, is_only: bool) -> Option<String> {
    if !is_only || !is_taken_over(before, text) {
        return None;
    }
    let running = running(host).ok()??;
    let uid = processes::pod_uid(&host.path("/proc"), running.pid)?;
    // What runs is of this manifest, and not of one that the kubelet has still to follow.
    pods.uid(NAME).is_none_or(|there| there == uid).then_some(uid)
}

/// Whether a kubelet takes over what differs when it starts the container anew in the same pod.
fn is_taken_over(before: &str, text: &str) -> bool {
    const OF_POD: [&str; 2] = ["labels", "annotations"];
    const OF_CONTAINER: [&str; 6] = ["args", "command", "env", "image", "imagePullPolicy", "lifecycle"];
    let bare = |text: &str| {
        let mut pod = yaml::documents("", text).ok()?.into_iter().next()?.value;
        let keys = OF_POD.map(|key| ("/metadata", key)).into_iter();
        let keys = keys.chain(OF_CONTAINER.map(|key| ("/spec/containers/0", key)));
        for (pointer, key) in keys.chain([("/spec", "terminationGracePeriodSeconds")]) {
            pod.pointer_mut(pointer).and_then(Value::as_object_mut).map(|object| object.remove(key));
        }
        Some(pod)
    };
    bare(before).is_some_and(|before| bare(text) == Some(before))
}

/// The etcd of this controller that runs, if it is one.
fn running(host: &Host) -> Result<Option<Component>> {
    let mut all = all(host)?.into_iter();
    Ok(all.next().filter(|_| all.next().is_none()))
}

fn all(host: &Host) -> Result<Vec<Component>> {
    let proc = host.path("/proc");
    processes::of(&proc, "etcd").map_err(|error| Error::io("read", &proc, error))
}

/// How long the etcd runs that has done so for longest; `None` where none does.
///
/// # Errors
/// What of /proc could not be read.
pub fn oldest(host: &Host) -> Result<Option<Duration>> {
    Ok(all(host)?.iter().filter_map(|component| Some(component.process.as_ref()?.age)).max())
}

/// Whether the kubelet has a reason to end the etcd that runs: its manifest is gone, or was put there later.
///
/// # Errors
/// What of /proc, or of the manifest, could not be read.
pub fn is_to_end(host: &Host) -> Result<bool> {
    let Some(oldest) = oldest(host)? else { return Ok(false) };
    Ok(age(host)?.is_none_or(|age| age < oldest))
}

/// How long the manifest has been there: not since it was written, but since it came there.
fn age(host: &Host) -> Result<Option<Duration>> {
    let path = host.manifests().join(NAME);
    match std::fs::metadata(&path) {
        Ok(meta) => {
            let came = Duration::new(meta.ctime().unsigned_abs(), meta.ctime_nsec().try_into().unwrap_or_default());
            let age = SystemTime::from(host.world().now()).duration_since(SystemTime::UNIX_EPOCH + came);
            // One of the future: the clock was set back.
            Ok(Some(age.unwrap_or_default()))
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::io("look at", &path, error)),
    }
}

/// Where an etcd that runs is to follow a manifest that keeps its pod's uid.
#[derive(Debug, PartialEq, Eq)]
enum Follows {
    /// It does, or there is nothing to follow.
    Yes,
    /// The kubelet has still to see the manifest, or etcd has just begun.
    Soon,
    /// It is to be ended.
    No,
}

/// The etcd that runs, and whether it follows; `None` where it has nothing to follow, or does not run. Nothing else is looked at
/// while no manifest keeps a uid.
fn follower(host: &Host) -> Result<Option<(Component, Follows)>> {
    let Some(text) = StaticPods::new(host.manifests()).kept(NAME) else { return Ok(None) };
    let (Some(running), Some(age)) = (running(host)?, age(host)?) else { return Ok(None) };
    let follows = follows(&text, &running, age);
    Ok(Some((running, follows)))
}

/// Whether an etcd follows the manifest `text`, which has been there for so long.
fn follows(text: &str, running: &Component, age: Duration) -> Follows {
    let Some(process) = &running.process else { return Follows::Soon };
    if process.age > age {
        return if age < SEEN { Follows::Soon } else { Follows::No };
    }
    match (is_started_by(text, running), process.age < AGAIN) {
        (true, _) => Follows::Yes,
        (false, true) => Follows::Soon,
        (false, false) => Follows::No,
    }
}

/// Whether a process was started by the manifest's command, as far as its words say: what a kubelet replaces in them does not count, and
/// of a command in another's hands, such as a shell's, nothing is said.
fn is_started_by(text: &str, running: &Component) -> bool {
    let (wanted, there) = (command(text), running.words());
    let is_wrapped = wanted.first() != there.first();
    let is_one = |(wanted, there): (&String, &String)| wanted.contains('$') || wanted == there;
    is_wrapped || wanted.len() == there.len() && wanted.iter().zip(there).all(is_one)
}

/// The command of etcd in its manifest, word by word.
pub fn command(text: &str) -> Vec<String> {
    let pod = yaml::documents(NAME, text).ok().and_then(|documents| documents.into_iter().next());
    let words = |key: &str| {
        let words = pod.as_ref().and_then(|pod| pod.value.pointer(&format!("/spec/containers/0/{key}"))?.as_array());
        words.into_iter().flatten().filter_map(|word| word.as_str().map(str::to_owned)).collect::<Vec<_>>()
    };
    [words("command"), words("args")].concat()
}

/// Ends the etcd that runs where its manifest has kept its pod's uid and is younger than it is. Says whether it did.
///
/// # Errors
/// What of /proc, or of the manifest, could not be read; the system's refusal of the signal.
pub async fn end_older(host: &Host) -> Result<bool> {
    match follower(host)? {
        Some((running, Follows::No)) => end(host, running.process.as_ref()).await,
        _ => Ok(false),
    }
}

/// The same as soon as the kubelet has seen the manifest: waits for that, for `limit` at most.
///
/// # Errors
/// The same.
pub async fn follow(host: &Host, limit: Duration) -> Result<bool> {
    let begun = Instant::now();
    loop {
        match follower(host)? {
            None | Some((_, Follows::Yes)) => return Ok(false),
            Some((running, Follows::No)) if end(host, running.process.as_ref()).await? => return Ok(true),
            _ if begun.elapsed() > limit => return Ok(false),
            _ => sleep(POLL).await,
        }
    }
}

/// Ends the only etcd, which its kubelet has told to end for another image: [`end`] says why.
///
/// # Errors
/// The same.
pub async fn hasten(host: &Host) -> Result<()> {
    sleep(TOLD).await;
    let older = running(host)?.and_then(|running| running.process);
    match age(host)? {
        Some(age) => end(host, older.as_ref().filter(|process| age < process.age)).await.map(drop),
        None => Ok(()),
    }
}

/// Tells an etcd to end, and ends it where it goes on: one that is told to end refuses all calls at once, and takes seven seconds more for
/// watches that are open. What it has acknowledged is on the disk. Says whether it did: without a kubelet, nobody would start it again.
async fn end(host: &Host, process: Option<&Process>) -> Result<bool> {
    let Some(process) = process else { return Ok(false) };
    if !kubelet::answers(host).await {
        return Ok(false);
    }
    let proc = host.path("/proc");
    let signal = |signal| {
        let told = processes::signal(&proc, process, signal);
        told.map_err(|error| Error::io("end etcd, process", Path::new(&process.pid.to_string()), error))
    };
    if !signal(Signal::TERM)? {
        return Ok(false);
    }
    let told = Instant::now();
    while told.elapsed() < GRACE {
        sleep(POLL).await;
        if !processes::process(&proc, &process.pid.to_string()).is_some_and(|now| now.is(process)) {
            return Ok(true);
        }
    }
    signal(Signal::KILL)?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::PathBuf;

    use super::*;
    use crate::node::system;

    const HASH: &str = "0123456789abcdef0123456789abcdef";

    /// A controller whose kubelet has made a pod of etcd's manifest, below a folder.
    struct Scene {
        root: tempfile::TempDir,
        host: Host,
    }

    impl Scene {
        fn new() -> Self {
            let root = tempfile::tempdir().unwrap();
            let host = system::host(root.path(), Path::new("/etc/kubernetes/manifests"));
            fs::create_dir_all(host.path("/proc/7")).unwrap();
            fs::create_dir_all(host.manifests()).unwrap();
            fs::write(host.path("/proc/uptime"), "1000.00 1.00\n").unwrap();
            Self { root, host }
        }

        /// An etcd that has run for so long, with this value of a flag, in the pod of this uid.
        fn runs(&self, seconds: u32, value: &str, uid: &str) {
            let proc = self.root.path().join("proc/7");
            let fields = format!("7 (etcd) S{}", " 0".repeat(18));
            fs::write(proc.join("stat"), format!("{fields} {} 0\n", (1000 - seconds) * 100)).unwrap();
            fs::write(proc.join("cmdline"), format!("etcd\0--name=c1\0--x={value}\0--ip=10.0.0.1\0")).unwrap();
            fs::write(proc.join("cgroup"), format!("9:name=systemd:/kubepods/burstable/pod{uid}/a583\n0::/\n"))
                .unwrap();
        }

        fn file(&self) -> PathBuf {
            self.host.manifests().join(NAME)
        }

        fn uid(&self) -> Option<String> {
            StaticPods::new(self.host.manifests()).uid(NAME)
        }

        fn end_older(&self) -> bool {
            follower(&self.host).unwrap().is_some_and(|(_, follows)| follows == Follows::No)
        }
    }

    fn manifest(value: &str, more: &str) -> String {
        format!(
            "apiVersion: v1\nkind: Pod\nmetadata:\n  name: etcd\n  labels:\n    app.kubernetes.io/managed-by: hoist\nspec:\n  containers:\n  - name: etcd\n    image: etcd:1\n    command: [etcd, --name=c1, --x={value}, --ip=$(IP)]\n{more}"
        )
    }

    #[test]
    fn the_only_etcd_begins_anew_in_its_pod_and_one_of_several_in_another() {
        let scene = Scene::new();
        assert!(install(&scene.host, &manifest("1", ""), true).unwrap());
        let first = scene.uid().unwrap();
        scene.runs(600, "1", &first);
        assert!(install(&scene.host, &manifest("2", ""), true).unwrap());
        assert_eq!(scene.uid().as_ref(), Some(&first));
        assert!(!install(&scene.host, &manifest("2", ""), true).unwrap(), "it is there");
        // What looks for edits leaves it, and another image is of the same pod.
        let pods = StaticPods::new(scene.host.manifests());
        assert!(pods.settle(false).unwrap().is_empty());
        pods.install_lasting(NAME, &manifest("2", "").replace("etcd:1", "etcd:2")).unwrap();
        assert_eq!(scene.uid().as_ref(), Some(&first));
        // At a boot nothing of it runs, and it gets the uid that follows from it.
        assert_eq!(pods.settle(true).unwrap(), [NAME]);
        let second = scene.uid().unwrap();
        assert_ne!(second, first);

        scene.runs(600, "2", &second);
        install(&scene.host, &manifest("3", ""), false).unwrap();
        assert_ne!(scene.uid().unwrap(), second, "others take over");
    }

    #[test]
    fn a_pod_without_a_uid_keeps_the_one_that_its_kubelet_gave_it() {
        let scene = Scene::new();
        fs::write(scene.file(), manifest("1", "")).unwrap();
        scene.runs(600, "1", HASH);
        install(&scene.host, &manifest("2", ""), true).unwrap();
        assert_eq!(scene.uid().as_deref(), Some(HASH));
        // By systemd, its name has other dashes.
        let text = "0::/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod6bad575c_726a_8786_8a3d_56775ce815fc.slice/x\n";
        fs::write(scene.host.path("/proc/7/cgroup"), text).unwrap();
        let uid = processes::pod_uid(&scene.host.path("/proc"), 7);
        assert_eq!(uid.as_deref(), Some("6bad575c-726a-8786-8a3d-56775ce815fc"));
    }

    #[test]
    fn what_a_running_pod_cannot_take_over_makes_another() {
        let before = manifest("1", "    env: [{name: A, value: a}]\n");
        let is_taken_over = |more: &str| super::is_taken_over(&before, &manifest("1", more));
        assert!(is_taken_over("    env: []\n    lifecycle: {}\n  terminationGracePeriodSeconds: 9\n"));
        for more in
            ["    volumeMounts: []\n", "    livenessProbe: {}\n", "    resources: {}\n", "  hostNetwork: true\n"]
        {
            assert!(!is_taken_over(more), "{more}");
        }
        assert!(!super::is_taken_over("", &before) && !super::is_taken_over(&before, "{"));
        // And where another pod is on its way, it is left to its kubelet.
        let scene = Scene::new();
        install(&scene.host, &manifest("1", ""), true).unwrap();
        scene.runs(600, "0", HASH);
        let there = scene.uid();
        install(&scene.host, &manifest("2", ""), true).unwrap();
        assert!(scene.uid() != there && scene.uid().as_deref() != Some(HASH));
    }

    #[test]
    fn an_edit_keeps_the_uid_where_what_stood_before_is_known() {
        let scene = Scene::new();
        install(&scene.host, &manifest("1", ""), true).unwrap();
        let (first, text) = (scene.uid().unwrap(), fs::read_to_string(scene.file()).unwrap());
        scene.runs(600, "1", &first);
        fs::write(scene.file(), text.replace("--x=1", "--x=2")).unwrap();
        assert!(!settle(&scene.host, "", true).unwrap() && !settle(&scene.host, &manifest("1", ""), false).unwrap());
        assert!(settle(&scene.host, &manifest("1", ""), true).unwrap());
        assert!(!settle(&scene.host, &manifest("1", ""), true).unwrap(), "it is done");
        assert!(StaticPods::new(scene.host.manifests()).settle(false).unwrap().is_empty());
        assert_eq!(scene.uid(), Some(first));
    }

    #[test]
    fn an_etcd_is_ended_once_for_a_manifest_that_its_kubelet_has_seen() {
        let scene = Scene::new();
        install(&scene.host, &manifest("1", ""), true).unwrap();
        let uid = scene.uid().unwrap();
        scene.runs(600, "1", &uid);
        assert!(!scene.end_older(), "its kubelet makes another pod where one is due");
        install(&scene.host, &manifest("2", ""), true).unwrap();
        assert!(!scene.end_older(), "its kubelet may not have seen it");
        let (seen, text) = (SEEN + Duration::from_secs(1), manifest("2", ""));
        let follows = |age| follows(&text, &running(&scene.host).unwrap().unwrap(), age);
        assert_eq!(follows(seen), Follows::No);
        scene.runs(1, "2", &uid);
        assert_eq!(follows(seen), Follows::Yes);
        // It has begun by the manifest of before, all the same.
        scene.runs(1, "1", &uid);
        assert_eq!(follows(seen), Follows::Soon);
        scene.runs(40, "1", &uid);
        assert_eq!(follows(Duration::from_secs(60)), Follows::No);
        // A shell's command says nothing of etcd's.
        fs::write(scene.host.path("/proc/7/cmdline"), "/bin/etcd\0--x=1\0").unwrap();
        assert_eq!(follows(Duration::from_secs(60)), Follows::Yes);
    }

    #[test]
    fn only_a_manifest_that_came_later_ends_an_etcd() {
        let root = tempfile::tempdir().unwrap();
        let host = system::host(root.path(), Path::new("/etc/kubernetes/manifests"));
        let proc = host.path("/proc/7");
        fs::create_dir_all(&proc).unwrap();
        fs::create_dir_all(host.manifests()).unwrap();
        fs::write(host.path("/proc/uptime"), "1000.00 1.00\n").unwrap();
        let etcd = |seconds: u32| {
            let fields = format!("7 (etcd) S{}", " 0".repeat(18));
            fs::write(proc.join("stat"), format!("{fields} {} 0\n", (1000 - seconds) * 100)).unwrap();
            fs::write(proc.join("cmdline"), "etcd\0--name=c1\0").unwrap();
        };
        let manifest = host.manifests().join(NAME);
        fs::write(&manifest, "kind: Pod\n").unwrap();
        assert!(!is_to_end(&host).unwrap(), "none runs");
        etcd(600);
        assert!(is_to_end(&host).unwrap(), "it was changed");
        // As somebody puts one back that was written long ago.
        let long_ago = SystemTime::now() - Duration::from_secs(86_400);
        fs::File::options().write(true).open(&manifest).unwrap().set_modified(long_ago).unwrap();
        assert!(is_to_end(&host).unwrap(), "it came there just now");
        etcd(0);
        assert!(!is_to_end(&host).unwrap(), "it runs by this manifest");
        fs::remove_file(&manifest).unwrap();
        assert!(is_to_end(&host).unwrap(), "it was taken away");
    }
}
