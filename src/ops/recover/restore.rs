//! Restores a snapshot: first beside the existing data, by etcd's own etcdutl from etcd's image, in a static pod that
//! runs once. Then everything that knows the old data is stopped, and the restored data takes its place.

use std::fs;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use minijinja::context;
use tokio::time::Instant;

use super::places::{Places, State};
use crate::base::error::{Error, Result};
use crate::base::files;
use crate::base::report::Reporter;
use crate::desired::assets::AssetSet;
use crate::desired::config;
use crate::desired::config::{Cluster, Controller};
use crate::desired::secrets::BRIDGE_PODS;
use crate::desired::secrets::COMPONENTS;
use crate::desired::template;
use crate::etcd::alarms;
use crate::node::cri::pods::{Once, Pods};
use crate::node::host::Host;
use crate::node::kubelet;
use crate::node::processes;
use crate::node::pulls::pulled;
use crate::node::static_pods::StaticPods;
use crate::ops::explain;
use crate::plane::bridge::Bridge;

/// The steps, as events name them.
const RESTORE: &str = "restore";
const STOP: &str = "stop";
const EXCHANGE: &str = "exchange";

/// The manifest of the pod that restores.
const MANIFEST: &str = "hoist-etcd-restore.yaml";
const NAMESPACE: &str = "kube-system";
/// How far revisions go on beyond those of the snapshot: so many for each second since 1970. No cluster writes as fast for
/// long, so that a snapshot that is restored a second time goes on beyond all that came of the first time, too.
const REVISIONS_PER_SECOND: i64 = 1000;
/// And so many beyond the last one of the etcd that serves until then: a snapshot of after an earlier restore has that one's, too, and
/// one of before is to go on beyond both.
const BEYOND: i64 = 1_000_000_000;
const INTERVAL: Duration = Duration::from_millis(150);
/// How long a container has to end before it is killed: what it would do longer is let clients down gently.
const GRACE: Duration = Duration::from_secs(5);
/// How long all of them may take to be gone.
const GONE_LIMIT: Duration = Duration::from_secs(30);
/// How many of the last lines of the pod's log are shown when it fails.
const LOG_LINES: usize = 8;

/// How long etcd may take to say its revision.
const ASK_LIMIT: Duration = Duration::from_secs(2);

/// How far revisions go on beyond those of a snapshot, `now` seconds after 1970.
fn bump(now: i64, served: Option<i64>) -> i64 {
    (now.max(1) * REVISIONS_PER_SECOND).max(served.unwrap_or_default().saturating_add(BEYOND))
}

/// What a restore needs to know.
pub(super) struct Restore<'a> {
    pub(super) host: &'a Host,
    pub(super) assets: &'a AssetSet,
    pub(super) cluster: &'a Cluster,
    pub(super) controller: &'a Controller,
    pub(super) places: &'a Places,
    /// The snapshot's SHA-256.
    pub(super) sum: &'a str,
    /// Without any progress for so long, it is given up.
    pub(super) progress_timeout: Duration,
    pub(super) reporter: &'a Reporter,
}

impl Restore<'_> {
    /// Restores the snapshot beside the data that is there, which goes on serving; `snapshot` writes the snapshot.
    pub(super) async fn beside(&self, snapshot: impl FnOnce(&mut dyn Write) -> Result<()>) -> Result<()> {
        self.reporter.start(RESTORE, "restore the snapshot beside etcd's data");
        if self.places.state() == State::Restored(self.sum.to_owned()) {
            self.reporter.note("an earlier run has restored it already");
            self.reporter.done(RESTORE);
            return Ok(());
        }
        let pods = StaticPods::new(self.host.manifests());
        pods.remove(MANIFEST)?;
        self.places.clear()?;
        let result = self.run_pod(&pods, snapshot).await;
        // In any case, or it would run again at the next boot.
        pods.remove(MANIFEST)?;
        match result {
            Ok(()) => {
                files::remove(&self.places.snapshot())?;
                self.places.mark(self.sum)?;
                self.reporter.done(RESTORE);
                Ok(())
            }
            Err(error) => {
                self.reporter.fail(RESTORE, &error.to_string());
                // It holds every secret of the cluster.
                let _ = self.places.clear();
                Err(error)
            }
        }
    }

    /// Takes back what [`Self::beside`] was doing.
    pub(super) fn abandon(&self) -> Result<()> {
        StaticPods::new(self.host.manifests()).remove(MANIFEST)?;
        self.places.clear()
    }

    async fn run_pod(&self, pods: &StaticPods, snapshot: impl FnOnce(&mut dyn Write) -> Result<()>) -> Result<()> {
        files::make_dir(&self.places.work, 0o700)?;
        let mut beside = files::Beside::create(&self.places.snapshot())?;
        snapshot(&mut beside)?;
        beside.commit(false)?;
        let kubelet = kubelet::plan(self.host, self.assets, self.cluster, self.controller)?;
        let changed = kubelet::install_files(self.host, &kubelet)?;
        kubelet::run_by_systemd(self.host, self.assets, changed).await?;
        let runtime = Pods::new(&kubelet::runtime_socket(self.host, self.assets)?);
        // Another name each time: what an earlier one came to proves nothing.
        let name = format!("etcd-restore-{}", self.host.world().now().unix_timestamp());
        let etcd = SocketAddr::new(self.cluster.loopback(), alarms::PORT);
        let served =
            self.host.world().etcd(etcd, &self.assets.tls(), ASK_LIMIT).await.ok().map(|health| health.revision);
        pods.install(MANIFEST, &self.manifest(&name, served)?)?;
        let mirrored = format!("{name}-{}", self.controller.name);
        let (mut last, mut last_at) = ((Once::Absent, 0), Instant::now());
        loop {
            let seen = (runtime.once(NAMESPACE, &mirrored).await?, pulled(self.host));
            if seen != last {
                (last, last_at) = (seen, Instant::now());
            }
            match seen.0 {
                Once::Ended(0) if self.is_whole() => return Ok(()),
                Once::Ended(0) => {
                    return Err(self.failed("it reported success, and its data is not there", &mirrored));
                }
                Once::Ended(code) => return Err(self.failed(&format!("it ended with exit code {code}"), &mirrored)),
                Once::Running => self.reporter.waiting(RESTORE, "etcdutl to restore it"),
                Once::Absent => self.reporter.waiting(RESTORE, "the kubelet to start the pod that restores it"),
            }
            if last_at.elapsed() > self.progress_timeout {
                return Err(self.failed("there was no progress for too long", &mirrored));
            }
            tokio::time::sleep(INTERVAL).await;
        }
    }

    /// `served` is the last revision of the etcd that is there, where it says so.
    fn manifest(&self, name: &str, served: Option<i64>) -> Result<String> {
        let (file, source) = template::templates("recover")
            .into_iter()
            .next()
            .ok_or_else(|| Error::failed("restore the snapshot", "this binary lacks the template of the pod"))?;
        let address = self.controller.address;
        let context = context! {
            name => name,
            image => &self.cluster.images.etcd,
            bump_revision => bump(self.host.world().now().unix_timestamp(), served),
            host_url => config::url_host(address),
            node_name => &self.controller.name,
            token => format!("hoist-{}", self.host.world().now().unix_timestamp_nanos()),
            work => self.host.inside(&self.places.work).display().to_string(),
        };
        template::render(&file, source, &Default::default(), &context)
    }

    /// Whether there is what etcd needs.
    fn is_whole(&self) -> bool {
        let data = self.places.work.join("data/member");
        let has_wal = fs::read_dir(data.join("wal")).is_ok_and(|mut entries| entries.next().is_some());
        has_wal && data.join("snap/db").is_file()
    }

    fn failed(&self, why: &str, pod: &str) -> Error {
        let logs = explain::of_pod(self.host, NAMESPACE, pod);
        let lines = logs.iter().flat_map(|log| &log.current);
        let lines: Vec<_> = lines.map(|line| format!("\n    {line}")).collect();
        let lines = lines[lines.len().saturating_sub(LOG_LINES)..].concat();
        let said = if lines.is_empty() { String::new() } else { format!("; its last words:{lines}") };
        Error::Failed {
            action: format!("restore the snapshot by the pod {NAMESPACE}/{pod}"),
            cause: format!("{why}{said}"),
            next: Some(format!(
                "etcd's data is as it was. `journalctl -u kubelet -n 50` shows the kubelet's view; it runs etcdutl out of {}",
                self.cluster.images.etcd
            )),
        }
    }

    /// Puts what was restored in the place of what was there, with everything stopped that knows that.
    pub(super) async fn in_place(&self) -> Result<()> {
        let pods = StaticPods::new(self.host.manifests());
        let mut removed = Vec::new();
        let stopped = self.stop(&pods, &mut removed).await;
        if let Err(error) = stopped.and_then(|()| self.exchange()) {
            self.reporter.note(&format!("what was stopped is started again: {}", self.undo(&pods, &removed).await));
            return Err(error);
        }
        Ok(())
    }

    /// Stops the kubelet, and every process of the control plane on this controller. What it takes out of the kubelet's
    /// folder is in `removed`.
    async fn stop(&self, pods: &StaticPods, removed: &mut Vec<(&'static str, String)>) -> Result<()> {
        self.reporter.start(STOP, "stop etcd and the control plane of this controller");
        for name in Bridge::manifest_names() {
            let path = self.host.manifests().join(name);
            if let Some(text) = files::read_if_there(&path)? {
                removed.push((name, String::from_utf8_lossy(&text).into_owned()));
                pods.remove(name)?;
            }
        }
        // Or it would start again what is stopped.
        kubelet::stop(self.host).await?;
        let runtime = Pods::new(&kubelet::runtime_socket(self.host, self.assets)?);
        let names: Vec<_> = ["etcd"].into_iter().chain(COMPONENTS).chain(BRIDGE_PODS).collect();
        let stopped = runtime.stop(NAMESPACE, "component", &names, GRACE).await?;
        if !stopped.is_empty() {
            self.reporter.note(&format!("stopped: {}", stopped.join(", ")));
        }
        let begun = Instant::now();
        while let Some(what) = self.alive() {
            if begun.elapsed() > GONE_LIMIT {
                return Err(Error::Failed {
                    action: "put the restored data in place".into(),
                    cause: format!("{what} still runs"),
                    next: Some("stop it, and run the same command again; etcd's data is as it was".into()),
                });
            }
            self.reporter.waiting(STOP, &format!("{what} to end"));
            tokio::time::sleep(INTERVAL).await;
        }
        self.reporter.done(STOP);
        Ok(())
    }

    /// A process that knows the data which is in place, or serves what it has read of it.
    fn alive(&self) -> Option<String> {
        let proc = self.host.path("/proc");
        let running = processes::running(&proc);
        if running.bridge.contains("kube-apiserver") {
            return Some("the bridge's kube-apiserver".into());
        }
        if running.others.contains("kube-apiserver") {
            return Some("a kube-apiserver".into());
        }
        let files = [self.places.database(), self.places.work.join("data/member/snap/db")];
        let pid = files.iter().find_map(|file| processes::holder(&proc, file))?;
        Some(format!("the etcd with the pid {pid}"))
    }

    fn exchange(&self) -> Result<()> {
        self.reporter.start(EXCHANGE, "put the restored data in the place of the old");
        let now = self.host.world().now();
        self.places.exchange(now)?;
        settle(self.places, self.host, self.reporter)?;
        self.reporter.done(EXCHANGE);
        Ok(())
    }

    /// Lets everything run again on the data that is in place.
    async fn undo(&self, pods: &StaticPods, removed: &[(&'static str, String)]) -> String {
        let installed = removed.iter().try_for_each(|(name, text)| pods.install(name, text).map(drop));
        let started = kubelet::restart(self.host).await;
        match installed.and(started) {
            Ok(()) => "done".into(),
            Err(error) => error.to_string(),
        }
    }
}

/// Moves aside what a restore has replaced, and says where it is.
pub(super) fn settle(places: &Places, host: &Host, reporter: &Reporter) -> Result<()> {
    if let Some(aside) = places.settle(host.world().now())? {
        let aside = host.inside(&aside);
        reporter.note(&format!("the data from before is in {}: hoist never removes it", aside.display()));
    }
    Ok(())
}

/// Copies a file to where a snapshot belongs.
pub(super) fn copy(from: &Path, to: &mut dyn Write) -> Result<()> {
    let read = |error| Error::io("read", from, error);
    let mut file = crate::ops::backup::sealed::open_file(from)?;
    let mut piece = vec![0; 64 * 1024];
    loop {
        match file.read(&mut piece).map_err(read)? {
            0 => return Ok(()),
            count => write(&piece[..count], to)?,
        }
    }
}

/// Writes a piece of a snapshot.
pub(super) fn write(piece: &[u8], to: &mut dyn Write) -> Result<()> {
    to.write_all(piece).map_err(|error| Error::io("write", Path::new("the copy of the snapshot"), error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn revisions_go_on_beyond_those_of_every_snapshot_and_of_the_etcd_that_served() {
        let now = 1_800_000_000;
        assert_eq!((bump(now, None), bump(now, Some(1234))), (1_800_000_000_000, 1_800_000_000_000));
        assert!(bump(0, None) > 0);
        // A snapshot of before is restored after one of after an earlier restore.
        let (before, first) = (1000, 1000 + bump(now, Some(1000)));
        let second = first + 10 + bump(now + 10, Some(first + 20));
        let third = before + bump(now + 20, Some(second + 5));
        assert!(first < second && second + 5 < third, "{first}, {second}, {third}");
    }
}
