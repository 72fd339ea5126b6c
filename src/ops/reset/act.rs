//! Removes what was found: what runs first, then its files.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::Instant;

use super::look::Found;
use crate::base::error::{Error, Result};
use crate::base::files::{self, File};
use crate::base::report::Reporter;
use crate::node::cri::sandboxes::{self, Pod};
use crate::node::etcd_manifest::NAME as ETCD;
use crate::node::host::Host;
use crate::node::kubelet;
use crate::node::mounts::Mounts;
use crate::node::own_unit;
use crate::node::processes;
use crate::node::static_pods::StaticPods;
use crate::plane::bridge::GUARD;

/// How long the kubelet may take to end static pods; an API server serves on for 10 s.
const STATIC_LIMIT: Duration = Duration::from_secs(60);
/// How long the runtime may take to end one pod.
const POD_LIMIT: Duration = Duration::from_secs(20);
const INTERVAL: Duration = Duration::from_millis(200);

/// Takes away all of it. What it cannot take away is said at its end, and does not keep it from the rest.
///
/// # Errors
/// All that is left.
pub async fn reset(host: &Host, found: &Found, reporter: &Reporter) -> Result<()> {
    let mut left: Vec<String> = Vec::new();
    let mut keep = |result: Result<()>| left.extend(result.err().map(|error| error.to_string()));
    if kubelet::is_systemd(host) && found.units.iter().any(|unit| unit.ends_with("hoist.service")) {
        keep(own_unit::disable(host).await.map(drop));
    }
    if !found.manifests.is_empty() {
        reporter.start("static-pods", "the static pods end");
        end_static_pods(host, found, reporter).await?;
        reporter.done("static-pods");
    }
    if found.has_kubelet {
        reporter.start("kubelet", "the kubelet is stopped");
        keep(stop_kubelet(host, found).await);
        reporter.done("kubelet");
        reporter.start("pods", "the other pods end");
        for trouble in end_pods(&found.socket, &found.pods, reporter).await {
            keep(Err(trouble));
        }
        reporter.done("pods");
    }
    reporter.start("files", "files and folders go");
    for folder in &found.folders {
        keep(remove_folder(host, folder).await);
    }
    if let Some(data) = found.etcd_data.as_ref().filter(|_| found.removes_etcd_data) {
        keep(files::remove_dir(data).map(drop));
        if let Some(folder) = data.parent() {
            keep(files::remove(&folder.join("hoist-cluster")).map(drop));
        }
    } else if let (Some(_), Some((path, text))) = (&found.etcd_data, &found.kept_etcd) {
        files::write(path, &File::public(text.as_str()))?;
    }
    // Or a start would look for that cluster's data.
    keep(found.cluster_id.as_ref().map_or(Ok(()), |id| files::remove(id).map(drop)));
    for path in found.units.iter().chain(&found.files) {
        // The last one says that the others are hoist's: as long as one is left, it stays.
        if Some(path) == found.files.last() && !left.is_empty() {
            break;
        }
        left.extend(files::remove(path).err().map(|error| error.to_string()));
    }
    for folder in emptied(host, found) {
        files::remove_empty_dir(&folder)?;
    }
    if kubelet::is_systemd(host) && !found.units.is_empty() {
        left.extend(kubelet::systemctl(host, &["daemon-reload"]).await.err().map(|error| error.to_string()));
    }
    reporter.done("files");
    if left.is_empty() {
        return Ok(());
    }
    Err(Error::Failed {
        action: "take all of it away".into(),
        cause: left.join("; "),
        next: Some("fix that, and run `hoist reset` again".into()),
    })
}

/// Folders that may be empty now, and that `start` makes.
fn emptied(host: &Host, found: &Found) -> Vec<PathBuf> {
    let folders = ["/etc/kubernetes/pki/etcd", "/etc/kubernetes/pki", "/etc/systemd/system/kubelet.service.d"];
    if found.has_kubelet { folders.map(|folder| host.path(folder)).into() } else { Vec::new() }
}

/// Takes the static pods' manifests out and waits for their processes to end: guard's first, which would put the others
/// back if this were cut short, etcd's last.
async fn end_static_pods(host: &Host, found: &Found, reporter: &Reporter) -> Result<()> {
    let pods = StaticPods::new(host.manifests());
    let (etcd, others): (Vec<_>, Vec<_>) = found.manifests.iter().partition(|name| *name == ETCD);
    let (guard, others): (Vec<_>, Vec<_>) = others.into_iter().partition(|name| *name == GUARD);
    for name in guard.into_iter().chain(others) {
        pods.remove(name)?;
    }
    let is_own = |running: &processes::Running| !running.bridge.is_empty() || !running.permanent.is_empty();
    wait(host, reporter, "the control plane's static pods to end", is_own).await;
    let had_etcd = !etcd.is_empty();
    for name in etcd {
        pods.remove(name)?;
    }
    if had_etcd {
        wait(host, reporter, "etcd to end", |running| running.others.contains("etcd")).await;
    }
    Ok(())
}

/// Waits until `runs` is no more; whatever is left then, the runtime ends. Without a kubelet nobody would.
async fn wait(host: &Host, reporter: &Reporter, what: &str, runs: impl Fn(&processes::Running) -> bool) {
    let begun = Instant::now();
    while runs(&processes::running(&host.path("/proc"))) && kubelet::answers(host).await {
        if begun.elapsed() > STATIC_LIMIT {
            reporter.note(&format!("{what}: not within {} s; the container runtime ends it", STATIC_LIMIT.as_secs()));
            return;
        }
        reporter.waiting("static-pods", what);
        tokio::time::sleep(INTERVAL).await;
    }
}

async fn stop_kubelet(host: &Host, found: &Found) -> Result<()> {
    if !kubelet::is_systemd(host) {
        return Ok(());
    }
    kubelet::systemctl(host, &["stop", "kubelet.service"]).await?;
    if found.units.iter().any(|unit| unit.ends_with("kubelet.service")) {
        kubelet::systemctl(host, &["disable", "kubelet.service"]).await?;
    }
    Ok(())
}

/// Ends the runtime's pods, and says what of that failed.
async fn end_pods(socket: &Path, listed: &[Pod], reporter: &Reporter) -> Vec<Error> {
    if listed.is_empty() {
        return Vec::new();
    }
    // The kubelet may have ended some, or made others, since they were listed.
    let pods = match sandboxes::pods(socket, POD_LIMIT).await {
        Ok(pods) => pods,
        Err(trouble) => return vec![Error::failed("list the pods of the container runtime", trouble)],
    };
    let mut failures = Vec::new();
    for Pod { namespace, name, id } in pods {
        reporter.waiting("pods", &format!("{namespace}/{name} to end"));
        if let Err(trouble) = sandboxes::remove_pod(socket, &id, POD_LIMIT).await {
            failures.push(Error::failed(format!("end the pod {namespace}/{name}"), trouble));
        }
    }
    failures
}

/// Removes a folder of hoist's, or of pods that are gone: but never what is still mounted in it, which may be a user's.
async fn remove_folder(host: &Host, folder: &Path) -> Result<()> {
    // A folder around it may be a link, and the kernel tells of places by their own names.
    let own = host.inside(&host.resolve(&host.inside(folder)));
    let mounts = || Mounts::of(host).within(&own);
    for place in mounts().into_iter().rev() {
        let place = place.display().to_string();
        host.world().run("umount", &[&place], POD_LIMIT).await?;
    }
    if let Some(place) = mounts().first() {
        let cause = format!("something is still mounted at {}", place.display());
        return Err(Error::failed(format!("remove {}", folder.display()), cause));
    }
    files::remove_dir(folder).map(drop)
}
