//! Looks at what a round goes by: the API through any controller that serves, the Nodes, the members.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use kube::Client;
use tokio::time::{Instant, timeout};

use super::ASK_LIMIT;
use crate::api::controllers::{self, ControllerNode};
use crate::api::endpoints;
use crate::base::error::{Error, Result};
use crate::desired::config::{API_PORT, Cluster};
use crate::desired::secrets;
use crate::etcd::members::{Data, Report, Wanted, peer_url};
use crate::node::host::Host;
use crate::node::kubelet_kubeconfig;
use crate::plane::kept_copy::Copy;
use crate::plane::serving;

/// How long a report counts: three times as long as it takes to be made again.
const FRESH: Duration = Duration::from_secs(15);

/// What the API shows.
pub(super) struct Seen {
    /// The Nodes with the control plane's label.
    pub controllers: Vec<ControllerNode>,
    /// The addresses that are published.
    pub published: Vec<IpAddr>,
    /// The addresses of declared controllers that have not come yet: their members are there from the beginning.
    pub expected: Vec<IpAddr>,
}

impl Seen {
    /// The Node `name`, if it has the label.
    pub fn node(&self, name: &str) -> Option<&ControllerNode> {
        self.controllers.iter().find(|node| node.name == name)
    }
}

/// Which API servers there are, and a client of one.
#[derive(Default)]
pub(super) struct Way {
    /// Those of controllers, and those that were published, when that was last read.
    known: BTreeSet<IpAddr>,
    client: Option<Client>,
}

impl Way {
    /// One that knows of these.
    pub fn of(known: impl IntoIterator<Item = IpAddr>) -> Self {
        Self { known: known.into_iter().collect(), client: None }
    }

    /// The addresses that it knows of.
    pub fn known(&self) -> &BTreeSet<IpAddr> {
        &self.known
    }

    /// A client of an API server that says that it is ready: this controller's own, or else another's, or else the one by which
    /// this node's kubelet has joined: on a new controller all those that are declared may be gone.
    ///
    /// # Errors
    /// That there is none.
    pub async fn client(&mut self, host: &Host, copy: &Copy) -> Result<Client> {
        if let Some(client) = &self.client {
            return Ok(client.clone());
        }
        let own = copy.controller.as_ref().map(|controller| controller.address).filter(|_| serving::is_there(host));
        let client = match self.find(host, copy, own).await {
            Ok(client) => client,
            Err(error) => by_the_kubelets_server(host, copy).await?.ok_or(error)?,
        };
        Ok(self.client.insert(client).clone())
    }

    /// The same of another controller's.
    ///
    /// # Errors
    /// That there is none.
    pub async fn another(&self, host: &Host, copy: &Copy) -> Result<Client> {
        self.find(host, copy, None).await
    }

    async fn find(&self, host: &Host, copy: &Copy, first: Option<IpAddr>) -> Result<Client> {
        let (cluster, controller) = copy.cluster()?;
        let tls = copy.assets.tls();
        let probe = host.world().probe(tls.get("ca.crt").map(Vec::as_slice).unwrap_or_default())?;
        let declared = cluster.controllers.iter().map(|declared| declared.address);
        let others = self.known.iter().copied().chain(declared).filter(|address| *address != controller.address);
        let mut asked = BTreeSet::new();
        for address in first.into_iter().chain(others).filter(|address| asked.insert(*address)) {
            let address = SocketAddr::new(address, API_PORT);
            if probe.get(address, "/readyz", ASK_LIMIT).await.is_ready() {
                return host.world().connect(&secrets::of_guard(&cluster, &tls)?, address).await;
            }
        }
        Err(Error::failed("reach the API", "no controller's API server says that it is ready"))
    }

    /// The next question looks for one anew.
    pub fn lose(&mut self) {
        self.client = None;
    }

    /// Reads what a round goes by.
    ///
    /// # Errors
    /// The API server's word.
    pub async fn look(&mut self, client: &Client, cluster: &Cluster) -> Result<Seen> {
        let controllers = controllers::list(client).await?;
        let published = endpoints::published(client).await?;
        if !published.is_empty() {
            // One that is away is not published, and comes back.
            let labelled = controllers.iter().filter_map(|node| node.address);
            self.known = published.iter().copied().chain(labelled).collect();
        }
        let has_come = |name: &str| controllers.iter().any(|node| node.name == name);
        let missing = cluster.controllers.iter().filter(|declared| !has_come(&declared.name));
        let never = controllers::never_seen(client, missing.map(|declared| declared.name.as_str())).await?;
        let expected = cluster.controllers.iter().filter(|declared| never.contains(&declared.name.as_str()));
        let expected = expected.map(|declared| declared.address).collect();
        Ok(Seen { controllers, published, expected })
    }
}

/// A client of the API server that this node's kubelet asks, if that one says that it is ready.
async fn by_the_kubelets_server(host: &Host, copy: &Copy) -> Result<Option<Client>> {
    let Some((name, port)) = kubelet_kubeconfig::server(host).as_deref().and_then(place) else { return Ok(None) };
    let (cluster, _) = copy.cluster()?;
    let tls = copy.assets.tls();
    let probe = host.world().probe(tls.get("ca.crt").map(Vec::as_slice).unwrap_or_default())?;
    let Ok(Ok(addresses)) = timeout(ASK_LIMIT, tokio::net::lookup_host((name.as_str(), port))).await else {
        return Ok(None);
    };
    for address in addresses {
        if probe.get(address, "/readyz", ASK_LIMIT).await.is_ready() {
            return host.world().connect(&secrets::of_guard(&cluster, &tls)?, address).await.map(Some);
        }
    }
    Ok(None)
}

/// The host and port of a server's URL.
fn place(url: &str) -> Option<(String, u16)> {
    let url: hyper::Uri = url.parse().ok()?;
    let name = url.host()?.trim_start_matches('[').trim_end_matches(']').to_owned();
    Some((name, url.port_u16().unwrap_or(443)))
}

/// Where members of `cluster` may answer: at every controller that is declared, `known`, labelled or published.
pub(super) fn addresses(
    cluster: &Cluster,
    known: &BTreeSet<IpAddr>,
    seen: Option<&Seen>,
    port: u16,
) -> Vec<SocketAddr> {
    let declared = cluster.controllers.iter().map(|declared| declared.address);
    let labelled = seen.into_iter().flat_map(|seen| seen.controllers.iter().filter_map(|node| node.address));
    let published = seen.into_iter().flat_map(|seen| seen.published.iter().copied());
    let all: BTreeSet<_> = declared.chain(labelled).chain(published).chain(known.iter().copied()).collect();
    all.into_iter().map(|address| SocketAddr::new(address, port)).collect()
}

/// Which reports are new enough to go by: those whose count has risen lately, by this machine's clock.
#[derive(Default)]
pub(super) struct Reports(BTreeMap<String, Said>);

/// What a guard has said last.
struct Said {
    uid: String,
    count: u64,
    /// When it was seen to be new; `None` for what was there before this controller looked.
    at: Option<Instant>,
}

impl Reports {
    /// The members that there are to be: the controllers; and of `members`, by their peer URLs, those of declared controllers
    /// that are still to come, and of whoever is published still, so that none is removed before its address is. Of its own machine `own` this controller knows by itself whether its data directory is empty.
    pub fn wanted(&mut self, seen: &Seen, members: &BTreeSet<&str>, own: (&str, bool), now: Instant) -> Vec<Wanted> {
        let mut wanted = Vec::new();
        for node in &seen.controllers {
            let Some(address) = node.address else { continue };
            let is_empty = if node.name == own.0 { own.1 } else { self.says_empty(node, now) };
            wanted.push(Wanted {
                name: node.name.clone(),
                uid: node.uid.clone(),
                peer_url: peer_url(address),
                report: is_empty.then(|| Report { uid: node.uid.clone(), data: Data::Empty }),
            });
        }
        let of_nodes: BTreeSet<_> = seen.controllers.iter().filter_map(|node| node.address).collect();
        let others: BTreeSet<_> = seen.published.iter().chain(&seen.expected).collect();
        for address in others.into_iter().filter(|address| !of_nodes.contains(address)) {
            let (name, uid, peer_url) = (address.to_string(), String::new(), peer_url(*address));
            if members.contains(&*peer_url) {
                wanted.push(Wanted { name, uid, peer_url, report: None });
            }
        }
        wanted
    }

    /// Whether a controller's guard says, now and not some time ago, that its data directory is empty.
    fn says_empty(&mut self, node: &ControllerNode, now: Instant) -> bool {
        let Some(report) = node.report.as_ref().filter(|report| report.uid == node.uid) else {
            self.0.remove(&node.name);
            return false;
        };
        let at = match self.0.get(&node.name) {
            Some(said) if (&said.uid, said.count) == (&report.uid, report.count) => said.at,
            Some(_) => Some(now),
            None => None,
        };
        self.0.insert(node.name.clone(), Said { uid: report.uid.clone(), count: report.count, at });
        report.is_empty && at.is_some_and(|at| now.saturating_duration_since(at) < FRESH)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::controllers::Report as Told;

    fn node(name: &str, last: u8, report: Option<(&str, u64)>) -> ControllerNode {
        let report = report.map(|(uid, count)| Told { uid: uid.into(), count, is_empty: true });
        ControllerNode { name: name.into(), uid: "u".into(), address: Some(IpAddr::from([10, 0, 0, last])), report }
    }

    #[test]
    fn the_place_of_a_server() {
        assert_eq!(place("https://api.example.test:7443"), Some(("api.example.test".into(), 7443)));
        assert_eq!(place("https://10.0.0.1"), Some(("10.0.0.1".into(), 443)));
        assert_eq!(place("https://[fd00::1]:6443"), Some(("fd00::1".into(), 6443)));
        assert_eq!(place("/x"), None);
    }

    #[test]
    fn a_report_counts_while_it_is_renewed() {
        let begun = Instant::now();
        let mut reports = Reports::default();
        let mut is_empty = |report, seconds| {
            let controllers = vec![node("c2", 2, report)];
            let seen = Seen { controllers, published: Vec::new(), expected: Vec::new() };
            let wanted = reports.wanted(&seen, &BTreeSet::new(), ("c1", false), begun + Duration::from_secs(seconds));
            wanted[0].report.is_some()
        };
        assert!(!is_empty(None, 0));
        assert!(!is_empty(Some(("u", 1)), 1), "it may be of last year");
        assert!(is_empty(Some(("u", 2)), 6));
        assert!(is_empty(Some(("u", 2)), 20));
        assert!(!is_empty(Some(("u", 2)), 21), "its guard is away, or has something there now");
        assert!(is_empty(Some(("u", 3)), 30));
        assert!(!is_empty(Some(("other", 4)), 31), "of the machine that had the name before");
        assert!(!is_empty(None, 32));
    }

    #[test]
    fn whoever_is_published_or_still_to_come_keeps_its_member_and_this_machine_knows_itself() {
        let seen = Seen {
            controllers: vec![node("c1", 1, None), node("c2", 2, None)],
            published: vec![IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 3])],
            expected: [4, 5].map(|last| IpAddr::from([10, 0, 0, last])).into(),
        };
        let members = ["https://10.0.0.3:2380", "https://10.0.0.4:2380", "https://10.0.0.9:2380"].into();
        let wanted = Reports::default().wanted(&seen, &members, ("c2", true), Instant::now());
        let said: Vec<_> = wanted.iter().map(|one| (&*one.name, &*one.peer_url, one.report.is_some())).collect();
        let expected = [
            ("c1", "https://10.0.0.1:2380", false),
            ("c2", "https://10.0.0.2:2380", true),
            ("10.0.0.3", "https://10.0.0.3:2380", false),
            ("10.0.0.4", "https://10.0.0.4:2380", false),
        ];
        assert_eq!(said, expected);
    }
}
