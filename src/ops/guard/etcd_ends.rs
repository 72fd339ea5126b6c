//! Before etcd of this controller ends and begins again: the others take over first, as they do before the machine is switched
//! off. The kubelet asks for it, by the preStop hook of etcd's static pod, when the manifest was changed or taken away, and
//! ends etcd when it has its answer.
//!
//! etcd that is told to end refuses all calls at once, and moves its leadership seconds later: whatever an API server has taken
//! in by then fails.
//!
//! Whoever reaches loopback on this machine may ask. So nothing is done unless the manifest is younger than the etcd that runs.

use std::future::Future;
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, SystemTime};

use tokio::sync::Mutex;

use super::observer::ASK_LIMIT;
use super::shutdown;
use crate::base::error::{Error, Result};
use crate::base::report::Reporter;
use crate::desired::config::API_PORT;
use crate::node::host::Host;
use crate::node::processes;
use crate::plane::kept_copy::Copy;
use crate::plane::leaving::{self, Why};

/// Where the kubelet asks, beside the metrics; etcd's manifest has it, too.
const PATH: &str = "/etcd-ends";
const MANIFEST: &str = "etcd.yaml";

/// Who is asked.
pub(super) struct EtcdEnds<'a> {
    host: &'a Host,
    reporter: &'a Reporter,
    /// Somebody has asked, and has no answer yet.
    at_work: Mutex<()>,
}

impl<'a> EtcdEnds<'a> {
    pub(super) fn new(host: &'a Host, reporter: &'a Reporter) -> Self {
        Self { host, reporter, at_work: Mutex::default() }
    }

    /// What whoever asks for this path waits for, if it is this one.
    pub(super) fn asked<'s>(&'s self, path: &str) -> Option<impl Future<Output = ()> + use<'s, 'a>> {
        (path == PATH).then(|| self.others_take_over())
    }

    async fn others_take_over(&self) {
        let _at_work = self.at_work.lock().await;
        let done = async {
            if !is_to_end(self.host)? {
                return Ok("its manifest is not younger than it is");
            }
            let Some(copy) = Copy::load(self.host)? else { return Ok("there is no copy of the bridge") };
            let _mark = Mark(self);
            let serves = serves(self.host, &copy).await?;
            shutdown::others_take_over(self.host, &copy, Why::Etcd, serves, self.reporter).await
        };
        match done.await {
            Ok("") => self.reporter.note("etcd may end here: the others serve"),
            Ok(why) => self.reporter.note(&format!("nothing is handed over before etcd ends: {why}")),
            Err(error) => self.reporter.note(&error.to_string()),
        }
    }
}

/// That this controller leaves, until this is over, whatever ends it.
struct Mark<'a>(&'a EtcdEnds<'a>);

impl Drop for Mark<'_> {
    fn drop(&mut self) {
        if let Err(error) = leaving::end(self.0.host, Why::Etcd) {
            self.0.reporter.note(&error.to_string());
        }
    }
}

/// How long the etcd runs that has done so for longest; `None` where none does.
pub(super) fn oldest(host: &Host) -> Result<Option<Duration>> {
    let proc = host.path("/proc");
    let running = processes::of(&proc, "etcd").map_err(|error| Error::io("read", &proc, error))?;
    Ok(running.iter().filter_map(|component| Some(component.process.as_ref()?.age)).max())
}

/// Whether the kubelet has a reason to end the etcd that runs: its manifest is gone, or was put there later.
pub(super) fn is_to_end(host: &Host) -> Result<bool> {
    let Some(oldest) = oldest(host)? else { return Ok(false) };
    let path = host.manifests().join(MANIFEST);
    match std::fs::metadata(&path) {
        Ok(meta) => {
            // Not when it was written, but when it came there.
            let came = Duration::new(meta.ctime().unsigned_abs(), meta.ctime_nsec().try_into().unwrap_or_default());
            let age = SystemTime::from(host.world().now()).duration_since(SystemTime::UNIX_EPOCH + came);
            // One of the future: the clock was set back.
            Ok(age.unwrap_or_default() < oldest)
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(true),
        Err(error) => Err(Error::io("look at", &path, error)),
    }
}

/// Whether clients are served at this controller's address, by whichever API server.
async fn serves(host: &Host, copy: &Copy) -> Result<bool> {
    let (_, controller) = copy.cluster()?;
    let tls = copy.assets.tls();
    let probe = host.world().probe(tls.get("ca.crt").map(Vec::as_slice).unwrap_or_default())?;
    Ok(probe.get(SocketAddr::new(controller.address, API_PORT), "/readyz", ASK_LIMIT).await.is_ready())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;
    use crate::base::report::Output;
    use crate::node::system;

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
        let manifest = host.manifests().join(MANIFEST);
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

    #[tokio::test]
    async fn whoever_asks_is_answered_where_there_is_nothing_to_hand_over() {
        let root = tempfile::tempdir().unwrap();
        let host = system::host(root.path(), Path::new("/etc/kubernetes/manifests"));
        fs::create_dir_all(host.path("/proc")).unwrap();
        let reporter = Reporter::stdout(Output::Text, false);
        let ends = EtcdEnds::new(&host, &reporter);
        assert!(ends.asked("/metrics").is_none());
        ends.asked(PATH).unwrap().await;
        assert!(!leaving::is_so(&host));
    }
}
