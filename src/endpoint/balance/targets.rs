//! Which targets there are: remembered ∪ configured ∪ discovered, and never none.
//!
//! What was discovered is remembered on the disk, so that a node that boots reaches the cluster although the API server by
//! which it joined is gone for good. A remembered target is forgotten once the cluster does not publish it any more
//! *and* it has not been good for a long time. Configured targets are never forgotten.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio::time::sleep;
use tracing::warn;

use crate::base::error::{Error, Finding, Result};
use crate::base::files::{self, File};
use crate::base::input;
use crate::desired::config::API_PORT;

/// A target that is not published any more is forgotten when it has not been good for so long: longer than a
/// controller's reboot takes, or an upgrade of its machine.
pub const FORGET: Duration = Duration::from_secs(15 * 60);
/// Between two tries to write the file.
const AGAIN: Duration = Duration::from_secs(10);
/// As many as there could ever be: what the cluster publishes is data.
const MOST: usize = 64;

const HEAD: &str = "\
# The API servers that this node has learned of: `hoist endpoint` keeps this file.
";

/// An address of a target: `ADDRESS` or `ADDRESS:PORT`, by default port 6443.
///
/// # Errors
/// Why it is none, for the command line.
pub fn parse(text: &str) -> Result<SocketAddr, String> {
    let with_port = |_| text.parse::<IpAddr>().map(|address| SocketAddr::new(address, API_PORT));
    let address =
        text.parse().or_else(with_port).map_err(|_| "is not an address such as 192.0.2.10:6443".to_owned())?;
    if address.ip().is_unspecified() || address.port() == 0 { Err("nothing can be there".into()) } else { Ok(address) }
}

/// The targets, and why each is one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Targets {
    configured: BTreeSet<SocketAddr>,
    remembered: BTreeSet<SocketAddr>,
    /// What the cluster published when it was last asked with success.
    discovered: BTreeSet<SocketAddr>,
}

impl Targets {
    /// Those that are configured, and those that the file at `path` remembers, if there is one. `own` is where the
    /// endpoint itself listens, which is no target.
    ///
    /// # Errors
    /// No target at all, or the endpoint itself.
    pub fn load(configured: impl IntoIterator<Item = SocketAddr>, path: &Path, own: SocketAddr) -> Result<Self> {
        let configured: BTreeSet<_> = configured.into_iter().collect();
        if configured.contains(&own) {
            let finding = Finding::new("--target", format!("{own} is where this endpoint itself listens"));
            return Err(Error::Input(vec![finding.remedy("give the address of an API server")]));
        }
        let mut remembered = remembered(path);
        remembered.remove(&own);
        let targets = Self { configured, remembered, discovered: BTreeSet::new() };
        if targets.all().is_empty() {
            let message = format!("no API server is known: none is configured, and {} has none", path.display());
            let finding = Finding::new("--target", message).remedy("give the address of one API server at least");
            return Err(Error::Input(vec![finding]));
        }
        Ok(targets)
    }

    /// All of them.
    pub fn all(&self) -> BTreeSet<SocketAddr> {
        self.configured.iter().chain(&self.remembered).chain(&self.discovered).copied().collect()
    }

    /// The cluster publishes these now. An empty answer says nothing.
    pub fn discovered(&mut self, published: impl IntoIterator<Item = SocketAddr>, own: SocketAddr) {
        let published: BTreeSet<_> = published.into_iter().filter(|address| *address != own).take(MOST).collect();
        if !published.is_empty() {
            self.remembered.extend(&published);
            self.discovered = published;
        }
    }

    /// Forgets those that are published no more and have not been good for a long time, as `bad_for` says, and returns
    /// them. While nothing was ever discovered, nothing is forgotten; one target stays in any case.
    pub fn forget(&mut self, bad_for: impl Fn(SocketAddr) -> Option<Duration>) -> Vec<SocketAddr> {
        if self.discovered.is_empty() {
            return Vec::new();
        }
        let is_gone = |address: &SocketAddr| {
            !self.discovered.contains(address) && bad_for(*address).is_some_and(|time| time >= FORGET)
        };
        let gone: Vec<_> = self.remembered.iter().copied().filter(is_gone).collect();
        for address in &gone {
            self.remembered.remove(address);
        }
        gone
    }

    /// The file that remembers them.
    pub fn file(&self) -> File {
        let lines = self.remembered.iter().map(|address| format!("{address}\n"));
        File::public(HEAD.to_owned() + &lines.collect::<String>())
    }
}

/// What a file remembers. A file that cannot be used is said, and remembers nothing: the endpoint works without.
fn remembered(path: &Path) -> BTreeSet<SocketAddr> {
    let content = match input::read(path, input::CONFIG_LIMIT) {
        Ok(content) => content,
        Err(unread) if unread.is_missing(path) => return BTreeSet::new(),
        Err(unread) => {
            warn!("remembering no targets: {}", unread.into_error(path));
            return BTreeSet::new();
        }
    };
    let mut found = BTreeSet::new();
    for line in String::from_utf8_lossy(&content).lines().map(str::trim) {
        match parse(line) {
            _ if line.is_empty() || line.starts_with('#') => {}
            Ok(address) if found.len() < MOST => drop(found.insert(address)),
            Ok(_) => {}
            Err(reason) => warn!("{}: {line:?} {reason}", path.display()),
        }
    }
    found
}

/// Writes each further `file` to `path`, for ever. What fails is tried again, and said once.
pub async fn remember(path: PathBuf, mut file: watch::Receiver<File>) {
    let mut said = String::new();
    while file.changed().await.is_ok() {
        loop {
            let (to, now) = (path.clone(), file.borrow_and_update().clone());
            // The disk may take its time.
            let saved = spawn_blocking(move || save(&to, &now)).await;
            match saved {
                Ok(Err(error)) => {
                    let error = error.to_string();
                    if said != error {
                        warn!("targets are not remembered, still trying: {error}");
                        said = error;
                    }
                    sleep(AGAIN).await;
                }
                _ => {
                    said.clear();
                    break;
                }
            }
        }
    }
}

/// Writes the file, with its folder, and says whether it changed.
///
/// # Errors
/// The system's refusal.
fn save(path: &Path, file: &File) -> Result<bool> {
    if let Some(folder) = path.parent() {
        files::make_dir(folder, 0o755)?;
    }
    files::write(path, file)
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: SocketAddr = SocketAddr::new(IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 7443);

    fn at(last: u8) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, last], 6443))
    }

    fn set(last: &[u8]) -> BTreeSet<SocketAddr> {
        last.iter().map(|last| at(*last)).collect()
    }

    #[test]
    fn an_address_has_the_port_of_api_servers_unless_it_says_another() {
        assert_eq!(parse("10.0.0.1"), Ok(at(1)));
        assert_eq!(parse("10.0.0.1:443"), Ok("10.0.0.1:443".parse().unwrap()));
        assert_eq!(parse("fd00::1"), Ok("[fd00::1]:6443".parse().unwrap()));
        for bad in ["", "c1.example:6443", "0.0.0.0", "[::]:6443", "10.0.0.1:0"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_was_discovered_is_there_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("endpoint/targets");
        let mut targets = Targets::load([at(1)], &path, OWN).unwrap();
        targets.discovered([at(2), at(3), OWN], OWN);
        assert_eq!(targets.all(), set(&[1, 2, 3]));
        assert!(save(&path, &targets.file()).unwrap());
        assert!(!save(&path, &targets.file()).unwrap());
        // By now it is configured no more.
        assert_eq!(Targets::load([], &path, OWN).unwrap().all(), set(&[2, 3]));
    }

    #[test]
    fn there_is_always_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("targets");
        let none = Targets::load([], &path, OWN).unwrap_err();
        assert!(matches!(&none, Error::Input(findings) if findings[0].place == "--target"), "{none}");
        assert!(matches!(Targets::load([OWN, at(1)], &path, OWN), Err(Error::Input(_))));
        let mut targets = Targets::load([at(1)], &path, OWN).unwrap();
        targets.discovered([], OWN);
        assert_eq!(targets.all(), set(&[1]));
    }

    #[test]
    fn what_the_file_has_besides_addresses_does_no_harm() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("targets");
        std::fs::write(&path, "# a comment\n\n10.0.0.1:6443\r\nnonsense\n10.0.0.2\n127.0.0.1:7443\n\u{0}\n").unwrap();
        assert_eq!(Targets::load([], &path, OWN).unwrap().all(), set(&[1, 2]));
        std::fs::remove_file(&path).unwrap();
        std::fs::create_dir(&path).unwrap();
        assert_eq!(Targets::load([at(1)], &path, OWN).unwrap().all(), set(&[1]));
    }

    #[test]
    fn only_what_is_published_no_more_and_bad_for_long_is_forgotten() {
        let folder = tempfile::tempdir().unwrap();
        let mut targets = Targets::load([at(1)], &folder.path().join("targets"), OWN).unwrap();
        let long_bad = |_| Some(FORGET);
        assert_eq!(targets.forget(long_bad), []);
        targets.discovered([at(1), at(2), at(3)], OWN);
        targets.discovered([at(4)], OWN);
        let short = |address| (address != at(2)).then_some(FORGET / 2);
        assert_eq!(targets.forget(short), []);
        assert_eq!(targets.all(), set(&[1, 2, 3, 4]));
        let mut forgotten = targets.clone();
        assert_eq!(forgotten.forget(long_bad), [at(1), at(2), at(3)]);
        // The first is configured, the last is published.
        assert_eq!(forgotten.all(), set(&[1, 4]));
        // A cluster that cannot be asked, or publishes nothing, takes nothing away.
        targets.discovered([], OWN);
        assert!(targets.all().contains(&at(4)));
    }
}
