//! Checks whether this machine is ready for `start`, before anything on it is changed.
//!
//! ```text
//! catalogue: every check, by name ─► run: all at once, each bounded in time ─► Report ─► start, or `hoist preflight`
//!     └─ machine, disk, network, runtime, kubelet, leftovers, clock: what a check reads ─► findings
//! ```

mod assets;
mod catalogue;
mod clock;
mod cni;
mod controller;
mod disk;
mod drop_ins;
mod etcd;
mod firewall;
mod kubelet;
mod leftovers;
mod machine;
mod members;
mod network;
mod report;
mod runtime;
#[cfg(test)]
pub(crate) mod testing;
mod virtual_address;

use std::ffi::OsString;
use std::sync::Arc;
use std::time::Duration;

use futures::future::{BoxFuture, join_all};
use serde_json::Value;
use time::OffsetDateTime;
use tokio::sync::{OnceCell, oneshot};

use crate::base::error::{Error, Finding, Result, Severity};
use crate::base::yaml;
use crate::desired::assets::AssetSet;
use crate::desired::config::{Cluster, Controller};
use crate::node::cri::{Runtime, Trouble};
use crate::node::host::Host;

pub(crate) use assets::missing_files;
pub use catalogue::{ALL, CHECKS, known};
pub use controller::controller;
pub(crate) use disk::known_by;
pub use machine::not_static;
pub(crate) use members::{Said, said};
pub use report::{Outcome, Report, list};

/// How long one check may take. They run at once, so that all of them take no longer.
const LIMIT: Duration = Duration::from_millis(900);
/// The check without which the others mislead.
const ROOT: &str = "IsPrivilegedUser";

/// All that checks may look at.
pub struct Facts {
    host: Host,
    assets: AssetSet,
    cluster: Cluster,
    controller: Controller,
    /// The configuration that the kubelet is going to run with.
    kubelet: Value,
    now: OffsetDateTime,
    is_root: bool,
    /// A new cluster is begun, whatever was here before.
    new_cluster: bool,
    /// `PATH`.
    path: OsString,
    /// `HTTPS_PROXY` and `NO_PROXY`, in either case of letters.
    proxy: [Option<String>; 2],
    /// The runtime's answer: several checks judge it, and one asks.
    runtime: OnceCell<Result<Runtime, Trouble>>,
    /// What etcd's other members say of this machine's: two checks judge it.
    member: OnceCell<Said>,
}

/// Something that must hold, or had better.
pub struct Check {
    /// Its name, stable across versions; kubeadm's where that has one.
    pub name: &'static str,
    /// What holds where it finds nothing.
    pub title: &'static str,
    /// The worst that it finds.
    pub severity: Severity,
    look: Look,
}

/// How a check looks. Its findings are about the machine as a whole where their place is empty.
enum Look {
    /// It reads files: on a thread of its own, for a disk may hang.
    Reads(fn(&Facts) -> Vec<Finding>),
    /// It asks a program or a server.
    Asks(for<'a> fn(&'a Facts) -> BoxFuture<'a, Vec<Finding>>),
}

/// Which checks a user knows better than.
#[derive(Debug, Clone, Default)]
pub struct Choice {
    /// Those that are not run.
    pub skip: Vec<&'static str>,
    /// Those whose errors are shown as warnings; [`ALL`] is every one.
    pub ignore: Vec<&'static str>,
    /// A new cluster is begun, whatever was here before.
    pub new_cluster: bool,
}

impl Choice {
    fn ignores(&self, name: &str) -> bool {
        self.ignore.iter().any(|ignored| *ignored == ALL || *ignored == name)
    }
}

impl Facts {
    /// What there is to look at on `host`, at the time `now`.
    ///
    /// # Errors
    /// A kubelet configuration in the asset directory that does not parse.
    pub fn new(
        host: &Host,
        assets: &AssetSet,
        cluster: &Cluster,
        controller: &Controller,
        now: OffsetDateTime,
    ) -> Result<Self> {
        let path = "kubelet/config.yaml";
        let documents = yaml::documents(path, &assets.text(path)?).map_err(Error::Input)?;
        Ok(Self {
            host: host.clone(),
            assets: assets.clone(),
            cluster: cluster.clone(),
            controller: controller.clone(),
            kubelet: documents.into_iter().next().map(|document| document.value).unwrap_or_default(),
            now,
            is_root: host.world().is_root(),
            new_cluster: false,
            path: std::env::var_os("PATH").unwrap_or_default(),
            proxy: ["HTTPS_PROXY", "NO_PROXY"].map(variable),
            runtime: OnceCell::new(),
            member: OnceCell::new(),
        })
    }

    /// The text of a file of the kernel's; nothing where there is none.
    fn read(&self, path: &str) -> String {
        std::fs::read_to_string(self.host.path(path)).unwrap_or_default()
    }
}

/// Whether everything is there for raising the bridge on this machine; but first what the asset directory lacks, for
/// that is mended elsewhere.
///
/// # Errors
/// What the asset directory lacks. What is wrong with the machine is in the report.
pub async fn check(
    host: &Host,
    assets: &AssetSet,
    cluster: &Cluster,
    controller: &Controller,
    choice: &Choice,
) -> Result<Report> {
    let missing = assets::missing_files(assets, cluster, controller);
    if !missing.is_empty() {
        return Err(Error::Input(missing));
    }
    let mut facts = Facts::new(host, assets, cluster, controller, host.world().now())?;
    facts.new_cluster = choice.new_cluster;
    Ok(run(CHECKS, Arc::new(facts), choice, LIMIT).await)
}

/// Runs these checks, all at once, each for at most `limit`.
async fn run(checks: &'static [Check], facts: Arc<Facts>, choice: &Choice, limit: Duration) -> Report {
    // What a user who is not root cannot see looks like what is not there.
    let blind = !facts.is_root && !choice.skip.contains(&ROOT) && !choice.ignores(ROOT);
    let results = checks.iter().map(|check| {
        let facts = facts.clone();
        async move {
            let outcome = if choice.skip.contains(&check.name) {
                Outcome::Skipped
            } else if blind && check.name != ROOT {
                Outcome::NotRun
            } else {
                let found = match tokio::time::timeout(limit, check.look(facts)).await {
                    Ok(found) => found,
                    Err(_) => vec![unknown(&format!("it did not end within {} s", limit.as_secs_f64()))],
                };
                let only_warns = check.severity == Severity::Warning || choice.ignores(check.name);
                let demoted = |finding: Finding| if only_warns { finding.warning() } else { finding };
                Outcome::Ran(found.into_iter().map(demoted).collect())
            };
            (check, outcome)
        }
    });
    Report { results: join_all(results).await }
}

impl Check {
    const fn reads(
        name: &'static str,
        title: &'static str,
        severity: Severity,
        look: fn(&Facts) -> Vec<Finding>,
    ) -> Self {
        Self { name, title, severity, look: Look::Reads(look) }
    }

    const fn asks(
        name: &'static str,
        title: &'static str,
        severity: Severity,
        look: for<'a> fn(&'a Facts) -> BoxFuture<'a, Vec<Finding>>,
    ) -> Self {
        Self { name, title, severity, look: Look::Asks(look) }
    }

    async fn look(&self, facts: Arc<Facts>) -> Vec<Finding> {
        match self.look {
            Look::Asks(look) => look(&facts).await,
            Look::Reads(look) => {
                // No task of the runtime's: it would wait at its end for one that hangs.
                let (done, result) = oneshot::channel();
                let thread = std::thread::Builder::new().spawn(move || drop(done.send(look(&facts))));
                match thread {
                    Ok(_) => result.await.unwrap_or_else(|_| vec![unknown("it failed, which is a bug in hoist")]),
                    Err(error) => vec![unknown(&error.to_string())],
                }
            }
        }
    }
}

/// A variable of the environment, in capitals or, as curl has it, in small letters.
fn variable(name: &str) -> Option<String> {
    let found = std::env::var(name).or_else(|_| std::env::var(name.to_lowercase())).ok();
    found.filter(|value| !value.is_empty())
}

/// What stands in the report of a check that came to no end.
fn unknown(why: &str) -> Finding {
    Finding::new("", format!("could not be checked: {why}")).warning()
}

#[cfg(test)]
mod tests {
    use super::testing::Machine;
    use super::*;

    const CHECKS: &[Check] = &[
        Check::reads(ROOT, "root", Severity::Error, |facts| {
            if facts.is_root { Vec::new() } else { vec![Finding::new("", "is not root")] }
        }),
        Check::reads("Bad", "it is good", Severity::Error, |_| {
            vec![Finding::new("/x", "is bad").remedy("mend it"), Finding::new("", "is strange").warning()]
        }),
        Check::reads("Odd", "it is even", Severity::Warning, |_| vec![Finding::new("", "is odd")]),
        Check::reads("Hangs", "it ends", Severity::Error, |_| {
            std::thread::sleep(Duration::from_secs(60));
            Vec::new()
        }),
        Check::asks("Waits", "it comes", Severity::Error, |_| Box::pin(futures::future::pending())),
        Check::asks("Well", "it is well", Severity::Error, |_| Box::pin(async { Vec::new() })),
    ];

    async fn verdict(skip: &[&'static str], ignore: &[&'static str], is_root: bool) -> Result<Vec<String>> {
        let mut facts = Machine::new().facts("");
        facts.is_root = is_root;
        let choice = Choice { skip: skip.to_vec(), ignore: ignore.to_vec(), new_cluster: false };
        run(CHECKS, Arc::new(facts), &choice, Duration::from_millis(200)).await.verdict()
    }

    #[tokio::test]
    async fn all_is_said_at_once_and_nothing_hangs() {
        let begun = std::time::Instant::now();
        let Err(Error::Preflight(findings)) = verdict(&[], &[], true).await else { panic!() };
        assert!(begun.elapsed() < Duration::from_secs(30), "it waited for the one that hangs");
        let said: Vec<_> = findings.iter().map(ToString::to_string).collect();
        let none = "could not be checked: it did not end within 0.2 s";
        let expected = [
            "Bad: /x: is bad\n    mend it".to_owned(),
            "Bad: warning: is strange".to_owned(),
            "Odd: warning: is odd".to_owned(),
            format!("Hangs: warning: {none}"),
            format!("Waits: warning: {none}"),
            "--ignore-preflight-errors Bad: continues in spite of it, if you know better".to_owned(),
        ];
        assert_eq!(said, expected);
    }

    #[tokio::test]
    async fn what_is_skipped_or_ignored_stands_not_in_the_way_and_is_said() {
        let said = verdict(&["Bad", "Hangs", "Waits"], &[], true).await.unwrap();
        assert_eq!(said, ["Odd: warning: is odd", "preflight checks that were skipped: Bad, Hangs, Waits"]);
        for ignored in ["Bad", ALL] {
            let said = verdict(&["Odd", "Hangs", "Waits"], &[ignored], true).await.unwrap();
            assert_eq!(said[0], "Bad: /x: warning: is bad\n    mend it", "{ignored}");
        }
    }

    #[tokio::test]
    async fn without_root_nothing_else_is_asked() {
        let Err(Error::Preflight(findings)) = verdict(&[], &[], false).await else { panic!() };
        assert_eq!(findings.len(), 1, "{findings:?}");
        let Err(Error::Preflight(findings)) = verdict(&[ROOT], &[], false).await else { panic!() };
        assert_eq!(findings[0].place, "Bad: /x");
        let Err(Error::Preflight(findings)) = verdict(&[], &[ROOT], false).await else { panic!() };
        let said: Vec<_> = findings.iter().map(ToString::to_string).collect();
        assert!(said.contains(&"IsPrivilegedUser: warning: is not root".to_owned()), "{said:?}");
    }
}
