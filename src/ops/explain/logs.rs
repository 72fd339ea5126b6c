//! The last lines of containers' logs on this host, from the kubelet's folder of logs, which can be read without an
//! API server. The kubelet deletes a pod's logs with the pod, so [`PodLogs`] has copies of the ends.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::Instant;

use crate::node::host::Host;

/// Where the kubelet keeps them, unless its configuration says otherwise.
const LOGS: &str = "/var/log/pods";
/// How much of a log's end is read.
const TAIL: u64 = 32 * 1024;
/// How often the ends are copied.
const KEEP_EVERY: Duration = Duration::from_secs(1);
/// Of so many pods.
const KEEP: usize = 16;

/// The ends of a container's last logs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Log {
    /// The container.
    pub container: String,
    /// The lines of the run before, if there was one.
    pub previous: Vec<String>,
    /// The lines of the last run.
    pub current: Vec<String>,
}

/// The logs of the pod `name` of `namespace`, as they are on this host; empty where it has none of them.
pub fn of_pod(host: &Host, namespace: &str, name: &str) -> Vec<Log> {
    folder(host, namespace, name).map(|folder| of_folder(&folder)).unwrap_or_default()
}

/// The newest folder of a pod: one that is made anew under the same name has another uid.
fn folder(host: &Host, namespace: &str, name: &str) -> Option<PathBuf> {
    let prefix = format!("{namespace}_{name}_");
    let folders = entries(&host.path(LOGS)).filter(|path| file_name(path).starts_with(&prefix));
    folders.max_by_key(|path| fs::metadata(path).and_then(|meta| meta.modified()).ok())
}

fn of_folder(folder: &Path) -> Vec<Log> {
    let mut logs: Vec<_> = entries(folder)
        .filter(|path| path.is_dir())
        .map(|container| {
            // Named by the number of restarts; what was rotated has more behind it.
            let number = |path: &PathBuf| file_name(path).strip_suffix(".log")?.parse::<u32>().ok();
            let mut runs: Vec<_> = entries(&container).filter_map(|path| Some((number(&path)?, path))).collect();
            runs.sort();
            let mut runs = runs.into_iter().rev().map(|(_, path)| lines(&tail(&path)));
            let current = runs.next().unwrap_or_default();
            Log { container: file_name(&container), previous: runs.next().unwrap_or_default(), current }
        })
        .collect();
    // The kubelet deletes files first and folders later.
    logs.retain(|log| !log.current.is_empty() || !log.previous.is_empty());
    logs.sort_by(|a, b| a.container.cmp(&b.container));
    logs
}

fn entries(dir: &Path) -> impl Iterator<Item = PathBuf> + use<> {
    fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path())
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn tail(path: &Path) -> String {
    let read = || {
        let mut file = fs::File::open(path)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(TAIL)))?;
        let mut bytes = Vec::new();
        file.take(TAIL).read_to_end(&mut bytes)?;
        Ok::<_, std::io::Error>(String::from_utf8_lossy(&bytes).into_owned())
    };
    read().unwrap_or_default()
}

/// What the container wrote: the runtime puts time, stream and `F`, or `P` for a part of a line, before each.
fn lines(text: &str) -> Vec<String> {
    let mut lines = Vec::new();
    let mut begun = String::new();
    for line in text.lines() {
        let mut fields = line.splitn(4, ' ');
        // The first may have been cut off by reading only the end.
        let (Some(_), Some("stdout" | "stderr"), Some(tag), content) =
            (fields.next(), fields.next(), fields.next(), fields.next())
        else {
            continue;
        };
        begun.push_str(content.unwrap_or_default());
        if !tag.starts_with('P') {
            lines.push(std::mem::take(&mut begun));
        }
    }
    if !begun.is_empty() {
        lines.push(begun);
    }
    lines
}

/// The ends of the logs of pods that matter, as they were when they were there.
#[derive(Debug, Default)]
pub struct PodLogs {
    last: Option<Instant>,
    pods: BTreeMap<(String, String), (Instant, Vec<Log>)>,
}

impl PodLogs {
    /// Copies the ends of the logs of these pods (namespace and name), if it has not done so a moment ago.
    pub fn keep<'a>(&mut self, host: &Host, pods: impl IntoIterator<Item = (&'a str, &'a str)>, now: Instant) {
        if self.last.is_some_and(|last| now - last < KEEP_EVERY) {
            return;
        }
        self.last = Some(now);
        for (namespace, name) in pods {
            let logs = of_pod(host, namespace, name);
            if !logs.is_empty() {
                self.pods.insert((namespace.into(), name.into()), (now, logs));
            }
        }
        while self.pods.len() > KEEP {
            let oldest = self.pods.iter().min_by_key(|(_, (at, _))| *at).map(|(pod, _)| pod.clone());
            self.pods.retain(|pod, _| Some(pod) != oldest.as_ref());
        }
    }

    /// The logs of a pod: those that are there, or else what was kept of them.
    pub fn of_pod(&self, host: &Host, namespace: &str, name: &str) -> Vec<Log> {
        let there = of_pod(host, namespace, name);
        let kept = || self.pods.get(&(namespace.to_owned(), name.to_owned())).map(|(_, logs)| logs.clone());
        if there.is_empty() { kept().unwrap_or_default() } else { there }
    }

    /// The pod of `namespace` whose logs were kept last, of those whose name begins with `prefix`.
    pub fn last_of(&self, namespace: &str, prefix: &str) -> Option<&str> {
        let of_prefix = self.pods.iter().filter(|((there, name), _)| there == namespace && name.starts_with(prefix));
        of_prefix.max_by_key(|(_, (at, _))| *at).map(|((_, name), _)| name.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::system;

    fn host(files: &[(&str, &str)]) -> (tempfile::TempDir, Host) {
        let dir = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = dir.path().join("var/log/pods").join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let host = system::host(dir.path(), Path::new("/etc/kubernetes/manifests"));
        (dir, host)
    }

    const POD: &str = "kube-system_a-x1_6f1c/a";

    #[test]
    fn the_last_two_runs_of_each_container_are_read_as_it_wrote_them() {
        let (_dir, host) = host(&[
            (&format!("{POD}/8.log"), "t stderr F eight\n"),
            (&format!("{POD}/9.log"), "t stderr F unknown flag\nt stdout P half a\nt stdout F  line\n"),
            (&format!("{POD}/10.log"), "cut off F x\nt stderr F \nt stderr F now\n"),
            (&format!("{POD}/10.log.20261121-114852"), "t stderr F rotated\n"),
            ("kube-system_a-x1-b_77/a/0.log", "t stderr F another pod's\n"),
        ]);
        let [log] = of_pod(&host, "kube-system", "a-x1").try_into().unwrap();
        assert_eq!(log.container, "a");
        assert_eq!(log.previous, ["unknown flag", "half a line"]);
        assert_eq!(log.current, ["", "now"]);
        assert!(of_pod(&host, "kube-system", "b").is_empty());
    }

    #[test]
    fn what_the_kubelet_deletes_was_kept() {
        let (dir, host) = host(&[(&format!("{POD}/0.log"), "t stderr F last words\n")]);
        let mut logs = PodLogs::default();
        let begun = Instant::now();
        logs.keep(&host, [("kube-system", "a-x1")], begun);
        let file = dir.path().join("var/log/pods").join(POD).join("0.log");
        fs::remove_file(file).unwrap();
        logs.keep(&host, [("kube-system", "a-x1")], begun + KEEP_EVERY);
        assert_eq!(logs.of_pod(&host, "kube-system", "a-x1")[0].current, ["last words"], "the folder is there");
        fs::remove_dir_all(dir.path().join("var/log/pods")).unwrap();
        logs.keep(&host, [("kube-system", "a-x1")], begun + KEEP_EVERY * 2);
        assert_eq!(logs.of_pod(&host, "kube-system", "a-x1")[0].current, ["last words"]);
        assert_eq!(logs.last_of("kube-system", "a-"), Some("a-x1"));
        assert_eq!(logs.last_of("default", "a-"), None);
    }

    #[test]
    fn only_the_end_of_a_long_log_is_read_and_no_more_pods_than_a_few_are_kept() {
        let long: String = (0..10_000).map(|number| format!("t stderr F line {number}\n")).collect();
        let files: Vec<_> = (0..KEEP + 5).map(|number| format!("kube-system_p{number:02}_u/c/0.log")).collect();
        let files: Vec<_> = files.iter().map(|path| (path.as_str(), long.as_str())).collect();
        let (_dir, host) = host(&files);
        let mut logs = PodLogs::default();
        for number in 0..KEEP + 5 {
            let now = Instant::now() + KEEP_EVERY * u32::try_from(2 * number).unwrap();
            logs.keep(&host, [("kube-system", format!("p{number:02}").as_str())], now);
        }
        assert_eq!(logs.pods.len(), KEEP);
        assert_eq!(logs.last_of("kube-system", "p"), Some("p20"));
        let log = &logs.of_pod(&host, "kube-system", "p20")[0];
        assert!(log.current.len() < 2_000, "{}", log.current.len());
        assert_eq!(log.current.last().unwrap(), "line 9999");
    }
}
