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

use tokio::sync::Mutex;

use super::observer::ASK_LIMIT;
use super::shutdown;
use crate::base::error::Result;
use crate::base::report::Reporter;
use crate::desired::config::API_PORT;
use crate::node::etcd_manifest::is_to_end;
use crate::node::host::Host;
use crate::plane::kept_copy::Copy;
use crate::plane::leaving::{self, Why};

/// Where the kubelet asks, beside the metrics; etcd's manifest has it, too.
const PATH: &str = "/etcd-ends";

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
