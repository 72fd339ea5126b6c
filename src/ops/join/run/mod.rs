//! The loop: look, do at most one thing on this machine and make at most one change of the members, and again.

mod defragment;

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use kube::Client;
use tokio::time::{Instant, sleep, timeout};

use super::addresses::Watched;
use super::decide::{Observed, Step, decide};
use super::look::{Reports, Seen, Way, addresses};
use super::{ASK_LIMIT, CALL_LIMIT, leave};
use crate::api::controllers::{self, Report};
use crate::api::endpoints::{self, Retracted};
use crate::api::turn::Turn;
use crate::base::error::{Error, Result};
use crate::base::files::File;
use crate::base::probe::Answer;
use crate::base::report::{News, Reporter};
use crate::desired::config::{API_PORT, Cluster, Controller, Etcd};
use crate::desired::pki;
use crate::desired::secrets::Tls;
use crate::etcd::alarms;
use crate::etcd::client::Member;
use crate::etcd::members::{self, Act, Asked, Watch, peer_url};
use crate::node::etcd_data::Data;
use crate::node::host::Host;
use crate::node::lock;
use crate::node::world::Ask;
use crate::plane::kept_copy::Copy;
use crate::plane::remembered::Remembered;
use crate::plane::{guard_pod, member, serving};

/// Between two rounds at rest, and while something is under way.
const AT_REST: Duration = Duration::from_secs(10);
const BUSY: Duration = Duration::from_secs(1);
/// How long a round may take, with a change in it.
const LIMIT: Duration = Duration::from_secs(60);
/// Between two reports of an empty data directory.
const REPORT_AGAIN: Duration = Duration::from_secs(5);

/// Makes and unmakes controllers, for ever. What fails is tried again, and said once.
pub async fn run(host: &Host, node: &str, reporter: &Reporter) -> Infallible {
    let mut join = Join::new(host, node, reporter);
    loop {
        let round = timeout(LIMIT, join.round()).await;
        let is_busy =
            match round.unwrap_or_else(|_| Err(Error::failed("look after the controllers", "no answer in time"))) {
                Ok(is_busy) => is_busy,
                Err(error) => {
                    join.way.lose();
                    join.say(error.to_string());
                    true
                }
            };
        join.watch_addresses(if is_busy { BUSY } else { AT_REST }).await;
    }
}

/// Whether the members are the controllers: what is waited for then is a machine that is away, however long that is.
fn is_as_wanted(observed: &members::Observed) -> bool {
    let Some(list) = observed.lists.first() else { return false };
    let is_wanted = |member: &Member| observed.wanted.iter().any(|wanted| member.peer_urls.contains(&wanted.peer_url));
    list.members.len() == observed.wanted.len()
        && list.members.values().all(|member| !member.is_learner && is_wanted(member))
}

struct Join<'a> {
    host: &'a Host,
    node: &'a str,
    reporter: &'a Reporter,
    own: Option<Arc<Own>>,
    way: Way,
    remembered: Remembered,
    /// Since when etcd's data directory has been empty, on the file system on which the data was.
    emptied: Option<Instant>,
    watch: Watch,
    reports: Reports,
    turn: Turn,
    has_turn: bool,
    /// When the data directory was last reported to be empty, and how often.
    reported: Option<(Instant, u64)>,
    /// When this controller's member was last defragmented.
    defragmented: Option<Instant>,
    /// How many controllers served when the replicas were last looked at.
    scaled: Option<usize>,
    /// The addresses of the `kubernetes` Service in the last round, if this controller is one of those that serve.
    published: Vec<IpAddr>,
    watched: Watched,
    news: News,
}

/// What guard's copy says of this controller. It is read again when it is another file.
struct Own {
    mark: guard_pod::Mark,
    copy: Copy,
    cluster: Cluster,
    controller: Controller,
    tls: Tls,
    /// Asks API servers by the cluster's CA.
    probe: Box<dyn Ask>,
}

impl Own {
    fn load(host: &Host) -> Result<Option<Self>> {
        let mark = guard_pod::mark(host);
        let Some(copy) = Copy::load(host)? else { return Ok(None) };
        let (cluster, controller) = copy.cluster()?;
        let tls = copy.assets.tls();
        let probe = host.world().keeping_probe(tls.get("ca.crt").map(Vec::as_slice).unwrap_or_default())?;
        Ok(Some(Self { mark, copy, cluster, controller, tls, probe }))
    }
}

impl<'a> Join<'a> {
    /// One that has looked at nothing yet.
    fn new(host: &'a Host, node: &'a str, reporter: &'a Reporter) -> Self {
        let remembered = Remembered::load(host);
        Self {
            host,
            node,
            reporter,
            own: None,
            way: Way::of(remembered.others.iter().copied()),
            remembered,
            emptied: None,
            watch: Watch::default(),
            reports: Reports::default(),
            turn: Turn::of_process(node, host.world().now()),
            has_turn: false,
            reported: None,
            defragmented: None,
            scaled: None,
            published: Vec::new(),
            watched: Watched::default(),
            news: News::default(),
        }
    }

    /// What guard's copy says now.
    fn own(&mut self) -> Result<Option<Arc<Own>>> {
        let mark = guard_pod::mark(self.host);
        if self.own.as_ref().is_none_or(|own| own.mark != mark) {
            self.own = Own::load(self.host)?.map(Arc::new);
            // guard's certificate may be another.
            self.way.lose();
        }
        Ok(self.own.clone())
    }

    /// Whether this controller is one in the making. One whose certificates were rendered may serve at once.
    fn is_made_here(&self, of: &Own) -> Result<bool> {
        let made_here = member::is_in_the_making(self.host, &of.copy);
        if !made_here && !serving::is_there(self.host) {
            serving::install(self.host, &of.controller, &of.tls)?;
        }
        Ok(made_here)
    }

    /// One round; says whether the next one shall come soon.
    async fn round(&mut self) -> Result<bool> {
        let Some(of) = self.own()? else { return Ok(false) };
        let made_here = self.is_made_here(&of)?;
        let client = self.way.client(self.host, &of.copy).await;
        let seen = match &client {
            Ok(client) => Some(self.way.look(client, &of.cluster).await?),
            Err(_) if made_here => None,
            Err(_) => return Ok(false),
        };
        let is_local = member::is_local(&of.cluster);
        let asked = match is_local {
            true => self.ask(&of, seen.as_ref()).await,
            false => Asked::default(),
        };
        let mut is_busy = made_here;
        if made_here || is_local {
            is_busy |= self.make(&of, seen.as_ref(), &asked, client.as_ref().ok()).await?;
        }
        let (Ok(client), Some(seen)) = (client, seen) else { return Ok(is_busy) };
        is_busy |= seen.node(self.node).is_none();
        if is_local {
            is_busy |= self.change(&of, &client, &seen, asked).await?;
        }
        is_busy |= self.scale(&client, &seen).await?;
        let serves = seen.published.contains(&of.controller.address);
        self.published = if serves { seen.published } else { Vec::new() };
        Ok(is_busy)
    }

    async fn ask(&self, of: &Own, seen: Option<&Seen>) -> Asked {
        let own = SocketAddr::new(of.cluster.loopback(), alarms::PORT);
        let others = addresses(&of.cluster, self.way.known(), seen, alarms::PORT);
        let others: Vec<_> = others.into_iter().filter(|address| address.ip() != of.controller.address).collect();
        members::ask(own, &others, &of.tls, CALL_LIMIT).await
    }

    /// The next thing on this machine, of what makes it a controller, and a member again where its data is gone; says whether
    /// there is more to come.
    async fn make(&mut self, of: &Own, seen: Option<&Seen>, asked: &Asked, client: Option<&Client>) -> Result<bool> {
        let own = asked.this.and_then(|id| asked.answers.get(&id)).map(|answer| answer.status.clone());
        let data = Data::of(self.host, &of.cluster);
        let data = data.as_ref();
        let has_data = data.is_some_and(Data::is_there);
        if let Some(data) = data {
            self.remember(of, data, own.as_ref().map(|own| own.cluster))?;
        }
        let observed = Observed {
            name: of.controller.name.clone(),
            peer_url: peer_url(of.controller.address),
            serves: serving::is_there(self.host),
            has_label: seen.map(|seen| seen.node(self.node).is_some()),
            has_certificates: member::has_own_certificates(&of.copy, &of.controller),
            is_local: member::is_local(&of.cluster),
            list: asked.lists.first().cloned(),
            is_agreed: asked.lists.windows(2).all(|pair| pair[0].agrees(&pair[1])),
            has_data,
            is_empty: data.is_some_and(Data::is_empty),
            has_manifest: member::has_manifest(self.host),
            has_mark: data.is_some_and(|data| data.mark().is_file()),
            lost_for: self.emptied.map(|since| since.elapsed()),
            is_put_aside: data.is_some_and(|data| data.is_empty() && data.has_aside()),
            was_in: self.remembered.cluster.as_deref().and_then(|id| u64::from_str_radix(id, 16).ok()),
            own,
        };
        let step = decide(&observed);
        let begins = match observed.serves {
            true => "this controller's etcd begins anew",
            false => "this node becomes a controller",
        };
        let _lock = match &step {
            Step::Done | Step::Wait(_) | Step::Report => None,
            _ => Some(lock::try_take(self.host)?),
        };
        // What was said of the directory is not so any more: from its beginning on it is not empty, whatever becomes of the rest.
        let node = seen.and_then(|seen| seen.node(self.node));
        let is_said = match &step {
            Step::Report | Step::Wait(_) => false,
            // By a guard before this one, perhaps.
            Step::Begin(_) => self.reported.is_some() || node.is_some_and(|node| node.report.is_some()),
            _ => self.reported.is_some(),
        };
        if is_said {
            if let Some(client) = client {
                controllers::report(client, self.node, None).await?;
            }
            self.reported = None;
        }
        let is_busy = step != Step::Done;
        match step {
            Step::Done => {}
            Step::Wait(what) => self.say(format!("{begins}: waiting for {what}")),
            Step::MakeCertificates => {
                let made = pki::own(&of.cluster, &of.controller, &of.tls, self.host.world().now())?;
                let mut copy = of.copy.clone();
                let files = made.into_iter().map(|(path, text)| (format!("tls/{path}"), File::private(text)));
                copy.assets.files.extend(files);
                copy.store(self.host)?;
                self.say("this node becomes a controller: its certificates are made".into());
            }
            Step::Report => {
                if let (Some(client), Some(seen)) = (client, seen) {
                    self.report(client, seen).await?;
                }
                self.say(match observed.serves {
                    true => {
                        "this controller's etcd has lost its data: its member is to be removed, and added anew".into()
                    }
                    false => "this node becomes a controller: its etcd member is to be added".into(),
                });
            }
            Step::Begin(initial) => {
                member::begin(self.host, &of.copy, &initial)?;
                self.say(format!("{begins}: its etcd joins {initial}"));
            }
            Step::BeginAnew(id, initial) => {
                member::begin_anew(self.host, &of.copy, id, &initial)?;
                self.say(format!(
                    "{begins}: its etcd joins {initial}. A kubelet that has reached no API server since its start takes that up when it reaches one, or is restarted"
                ));
            }
            Step::Mark => {
                if let Some(data) = data {
                    data.begin()?;
                }
                self.say("this controller's etcd votes again".into());
                if let Some(client) = client {
                    controllers::replace_failing_api_server(client, self.node).await?;
                }
            }
            Step::PutAside => {
                if let Some(aside) = member::put_aside(self.host, &of.cluster, self.host.world().now())? {
                    self.say(format!("the data of an etcd member that was removed is now in {}", aside.display()));
                }
            }
            Step::Serve => {
                serving::install(self.host, &of.controller, &of.tls)?;
                self.say("this node becomes a controller: its etcd member votes, and its API server may serve".into());
                if let Some(client) = client {
                    controllers::replace_waiting_api_server(client, self.node).await?;
                }
            }
            Step::Remove => {
                self.say("this node is not to become a controller any more: what was made for it is removed".into());
                leave::unmake(self.host, &of.cluster)?;
            }
        }
        Ok(is_busy)
    }

    /// Remembers what is needed after a reboot, and since when the data directory is empty.
    fn remember(&mut self, of: &Own, data: &Data, cluster: Option<u64>) -> Result<()> {
        let mut now = self.remembered.clone();
        now.others = self.way.known().iter().copied().filter(|address| *address != of.controller.address).collect();
        now.cluster = cluster.filter(|id| *id != 0).map(|id| format!("{id:x}")).or(now.cluster);
        let mount = data.mount(self.host);
        if data.is_there() && mount.is_some() {
            now.data_mount.clone_from(&mount);
        }
        let is_where_it_was = mount.is_some() && mount == now.data_mount;
        let is_lost = is_where_it_was && cluster.is_none() && data.is_empty();
        self.emptied = if is_lost { self.emptied.or(Some(Instant::now())) } else { None };
        if now != self.remembered {
            now.store(self.host)?;
            self.remembered = now;
        }
        Ok(())
    }

    /// Says that the data directory is empty, now and then.
    async fn report(&mut self, client: &Client, seen: &Seen) -> Result<()> {
        let Some(node) = seen.node(self.node) else { return Ok(()) };
        let now = Instant::now();
        let count = match self.reported {
            Some((at, _)) if now - at < REPORT_AGAIN => return Ok(()),
            Some((_, count)) => count + 1,
            None => node.report.as_ref().map_or(0, |report| report.count) + 1,
        };
        let report = Report { uid: node.uid.clone(), count, is_empty: true };
        controllers::report(client, self.node, Some(&report)).await?;
        self.reported = Some((now, count));
        Ok(())
    }

    /// The next change of the members, if there is one; says whether there is more to come.
    async fn change(&mut self, of: &Own, client: &Client, seen: &Seen, asked: Asked) -> Result<bool> {
        let own = (self.node, self.reported.is_some());
        let members = asked.lists.iter().flat_map(|list| list.members.values()).flat_map(|member| &member.peer_urls);
        let members = members.map(String::as_str).collect();
        let wanted = self.reports.wanted(seen, &members, own, Instant::now());
        let observed = self.watch.observed(asked, wanted, Instant::now());
        match members::decide(&observed) {
            Act::Nothing => {
                let is_due = members::is_due(&observed, self.defragmented.map(|at| at.elapsed()));
                let is_wanted = matches!(of.cluster.etcd, Etcd::Local { defragmentation: true, .. });
                match is_due && is_wanted {
                    true if self.has_turn => self.defragment(of).await?,
                    true => {
                        self.has_turn = self.turn.take(client, Instant::now(), self.host.world().now()).await?;
                        return Ok(true);
                    }
                    false => {}
                }
                self.give_back(client).await?;
                Ok(false)
            }
            Act::Wait(why) => {
                self.give_back(client).await?;
                self.say(format!("etcd's members: {why}"));
                Ok(!is_as_wanted(&observed))
            }
            Act::Make { .. } if !self.has_turn => {
                self.has_turn = self.turn.take(client, Instant::now(), self.host.world().now()).await?;
                // What was seen before may have been changed by whoever had it.
                Ok(true)
            }
            Act::Make { at, change, why } => {
                self.has_turn = self.turn.take(client, Instant::now(), self.host.world().now()).await?;
                if !self.has_turn {
                    return Ok(true);
                }
                let made = members::make(&observed, at, &change, &of.tls, CALL_LIMIT).await;
                self.watch.came_to(at, &made);
                match made {
                    Ok(()) => self.say(format!("etcd's members: {why}: {change}")),
                    Err(failed) => self.say(format!("etcd's members: {why}; not done yet: {failed}")),
                }
                Ok(true)
            }
        }
    }

    async fn give_back(&mut self, client: &Client) -> Result<()> {
        if self.has_turn {
            self.turn.give_back(client).await?;
            self.has_turn = false;
        }
        Ok(())
    }

    /// Until the next round: takes out addresses of the `kubernetes` Service at which no API server serves any more.
    async fn watch_addresses(&mut self, until: Duration) {
        let end = Instant::now() + until;
        while Instant::now() < end {
            sleep(BUSY.min(until)).await;
            if let Err(error) = self.take_out_the_dead().await {
                self.way.lose();
                self.say(error.to_string());
                return;
            }
        }
    }

    async fn take_out_the_dead(&mut self) -> Result<()> {
        if self.published.len() < 2 {
            return Ok(());
        }
        let Some(of) = self.own()? else { return Ok(()) };
        let all = self.published.clone();
        let asked = all.iter().map(|address| of.probe.get(SocketAddr::new(*address, API_PORT), "/readyz", ASK_LIMIT));
        let answers = join_all(asked).await;
        let now = Instant::now();
        if !answers.iter().any(Answer::is_ready) {
            self.watched.nobody_is_ready();
            return Ok(());
        }
        for (address, answer) in all.into_iter().zip(&answers) {
            if address == of.controller.address || !self.watched.note(address, answer, now) {
                continue;
            }
            let client = self.way.client(self.host, &of.copy).await?;
            if endpoints::retract(&client, address).await? == Retracted::Done {
                self.watched.removed(address, now);
                self.published.retain(|published| *published != address);
                self.say(format!(
                    "no API server serves at {address} any more ({answer}): taken out of the kubernetes Service"
                ));
            }
        }
        Ok(())
    }

    /// One controller manager and one scheduler for each controller that serves; says whether there is more to come.
    async fn scale(&mut self, client: &Client, seen: &Seen) -> Result<bool> {
        let serving = seen.published.len();
        if serving == 0 || self.scaled == Some(serving) {
            return Ok(false);
        }
        let is_serving = |address: &IpAddr| seen.published.contains(address);
        let serves = seen.controllers.iter().filter(|node| node.address.as_ref().is_some_and(is_serving));
        let names: Vec<_> = serves.map(|node| node.name.as_str()).collect();
        // Whoever makes the pods is to see that first.
        if names.len() == serving && controllers::delete_idle(client, &names).await? {
            return Ok(true);
        }
        let changed = controllers::scale(client, serving).await?;
        self.scaled = Some(serving);
        if !changed.is_empty() {
            self.say(format!("{} have {serving} replicas now, one for each controller", changed.join(" and ")));
        }
        Ok(false)
    }

    /// Says what was not said last.
    fn say(&mut self, text: String) {
        self.news.note(self.reporter, text);
    }
}

#[cfg(test)]
mod tests;
