//! guard's acts, each once it is decided.

use std::time::Duration;

use kube::Client;
use tokio::time::{Instant, sleep};

use super::decide::{Cause, Decision, LEADERLESS, Observed, Role, Server, Stands, decide, hold};
use super::run::Guard;
use super::{heartbeat, leave, virtual_address, watch};
use crate::api::observe::{CONTROL_PLANE_LABEL, Required};
use crate::api::{controllers, endpoints, write};
use crate::base::error::{Error, Result};
use crate::desired::config::version;
use crate::desired::secrets::{self, COMPONENTS};
use crate::node::etcd_manifest;
use crate::node::images;
use crate::node::lock;
use crate::node::processes::{self, Process, Signal};
use crate::node::static_pods::StaticPods;
use crate::ops::join;
use crate::ops::start::{HandOver, Stepped};
use crate::plane::bridge::Bridge;
use crate::plane::kept_copy::Copy;
use crate::plane::remembered::Remembered;
use crate::plane::{guard_pod, leaving, member};

/// Between two steps of a hand-over, and when it has been waiting for long.
const STEP: Duration = Duration::from_millis(150);
const LONG_STEP: Duration = Duration::from_secs(3);
const LONG: Duration = Duration::from_secs(30);
/// After so long a hand-over is begun anew, with all that was observed in it forgotten.
const HAND_OVER_LIMIT: Duration = Duration::from_secs(900);
/// What an API server that hangs has to say what it was doing.
const TO_QUIT: Duration = Duration::from_millis(500);
/// How long a change of etcd's members may take that another controller makes.
const TURN_LIMIT: Duration = Duration::from_secs(60);
const TURN_AGAIN: Duration = Duration::from_millis(500);
/// How long the bridge's API server may take to end: less than a turn lasts.
const END_LIMIT: Duration = Duration::from_secs(12);

/// Events are kept for an hour: what is still so is told again.
const TELL_AGAIN: Duration = Duration::from_secs(3500);

impl Guard<'_> {
    /// Says why guard does not leave a node whose label was taken off.
    pub(super) fn tell_that_it_stays(&mut self) {
        let text = format!(
            "this Node has no label {CONTROL_PLANE_LABEL}, and no other controller is published and answers: guard stays, and keeps the API served. To have this controller again: `kubectl label node {} {CONTROL_PLANE_LABEL}=`",
            self.node
        );
        self.tell_as_long_as_it_is_so("GuardStays", text);
    }

    /// Says what an event tells about once an hour.
    pub(super) fn tell_as_long_as_it_is_so(&mut self, reason: &'static str, text: String) {
        let now = Instant::now();
        if self.told.get(reason).is_none_or(|told| now - *told >= TELL_AGAIN) {
            self.told.insert(reason, now);
            self.reporter.note(&text);
            self.heartbeat.event(self.host.world().now(), reason, text, true);
        }
    }

    /// Says whether it could.
    pub(super) async fn raise(&mut self, cause: Cause) -> bool {
        if cause == Cause::Leaderless {
            match self.is_to_lead().await {
                Ok(true) => {}
                Ok(false) => return false,
                Err(error) => {
                    self.fail(&error);
                    return false;
                }
            }
        }
        let raised = async {
            let _lock = lock::try_take(self.host)?;
            let copy = Copy::load(self.host)?;
            let copy = copy.ok_or_else(|| Error::failed("raise the bridge", "its copy is gone"))?;
            let present = guard_pod::present(self.host, &copy).await;
            guard_pod::raise(self.host, &copy, present.as_deref())
        };
        match raised.await {
            Ok(_) => self.has_raised(cause),
            Err(error) => {
                self.fail(&error);
                return false;
            }
        }
        true
    }

    /// Whether this guard is the one that raises because nobody leads. One bridge is enough: of several controllers it is the
    /// one that has the turn, and only as long as nobody has begun to lead meanwhile.
    async fn is_to_lead(&mut self) -> Result<bool> {
        let Some(copy) = &self.copy else { return Ok(false) };
        let client = heartbeat::client(self.host, copy, self.at.node_ip).await?;
        if endpoints::published(&client).await?.len() < 2 {
            return Ok(true);
        }
        if !self.turn.take(&client, Instant::now(), self.host.world().now()).await? {
            self.say("nobody leads: another controller has the turn to raise its bridge".into());
            return Ok(false);
        }
        let so_long = self.heartbeat.leaderless_for(&client).await?;
        self.observer.leaderless(so_long);
        Ok(so_long >= LEADERLESS)
    }

    pub(super) fn has_raised(&mut self, cause: Cause) {
        let now = self.host.world().now();
        self.observer.raised(Instant::now());
        self.leases = None;
        self.metrics.set(|counts| {
            counts.last_raise = now.unix_timestamp();
            let of = Cause::ALL.iter().position(|one| *one == cause);
            of.and_then(|of| counts.raises.get_mut(of)).into_iter().for_each(|count| *count += 1);
        });
        let said = &self.observer.said;
        let said = if said.is_empty() { String::new() } else { format!(" ({said})") };
        let text = format!("the bridge is raised: {cause}{said}");
        self.say(text.clone());
        self.heartbeat.event(now, "BridgeRaised", text, true);
    }

    /// Ends an API server that hangs. The kubelet starts another.
    pub(super) async fn end(&mut self, hung: Process) {
        let proc = self.host.path("/proc");
        let failed = |error| Error::failed("end the API server that hangs", error);
        let held = match processes::hold(&proc, &hung) {
            Ok(Some(held)) => held,
            // It has ended by itself.
            Ok(None) => return,
            Err(error) => return self.fail(&failed(error)),
        };
        // It is held now, and no other can be taken for it: it must still be the one that listens.
        if !processes::only_listener(&proc, self.at.loopback).is_some_and(|listener| listener.is(&hung)) {
            return;
        }
        // Go's programs say what each of their threads was doing when they are told to quit.
        let told = held.signal(Signal::QUIT);
        sleep(TO_QUIT).await;
        let ended = told.and_then(|is_there| if is_there { held.signal(Signal::KILL) } else { Ok(false) });
        if let Err(error) = ended {
            return self.fail(&failed(error));
        }
        let text = format!("the self-hosted API server (pid {}) hung, with its port open, and was ended", hung.pid);
        self.say(text.clone());
        self.heartbeat.event(self.host.world().now(), "HungServerEnded", text, true);
    }

    /// Hands over to the self-hosted control plane, as long as it serves.
    pub(super) async fn lower(&mut self) -> Result<()> {
        let Some(copy) = self.copy.clone() else { return Ok(()) };
        let (cluster, controller) = copy.cluster()?;
        let tls = copy.assets.tls();
        let kubeconfig = secrets::of_guard(&cluster, &tls)?;
        let required = COMPONENTS.map(|name| Required { namespace: "kube-system".into(), name: name.into() });
        let nothing = Default::default();
        let ca = tls.get("ca.crt").map(Vec::as_slice).unwrap_or_default();
        let host = self.host;
        let mut hand_over = HandOver::new(host, (&cluster, &controller), &kubeconfig, &required, &nothing, ca)?;
        if let Some((leases, _)) = &self.leases {
            hand_over.knows(leases.holders());
        }
        let begun = Instant::now();
        while begun.elapsed() < HAND_OVER_LIMIT {
            let observed = self.look().await?;
            match decide(&observed) {
                Decision::Lower => {}
                // Lowered, and not proved yet.
                Decision::Rest(_) if observed.server == Server::Ready && observed.busy.is_none() => {}
                Decision::Raise(cause) => {
                    self.raise(cause).await;
                    return Ok(());
                }
                Decision::Leave => {
                    // Just before it leaves they are asked once more.
                    self.ask_others_at = Instant::now();
                    return Ok(());
                }
                Decision::Rest(_) | Decision::End(_) | Decision::Adopt => return Ok(()),
            }
            match hand_over.step(self.reporter).await {
                Ok(Stepped::Done) => {
                    let text = "the bridge is lowered: the self-hosted control plane serves".to_owned();
                    self.say(text.clone());
                    self.metrics.set(|counts| counts.lowers += 1);
                    self.heartbeat.event(self.host.world().now(), "BridgeLowered", text, false);
                    self.leases = None;
                    self.tidy().await;
                    return Ok(());
                }
                Ok(Stepped::Acted) => {}
                Ok(Stepped::Waits(what)) => self.say(format!("lowering the bridge: waiting for {what}")),
                Ok(Stepped::Failed) => {
                    self.raise(Cause::Unready).await;
                    return Ok(());
                }
                Err(error) => self.fail(&error),
            }
            self.talk(&observed, false).await;
            sleep(if begun.elapsed() < LONG { STEP } else { LONG_STEP }).await;
        }
        Ok(())
    }

    /// Gives the Node its label and taints again.
    pub(super) async fn adopt(&mut self) {
        let Some(copy) = &self.copy else { return };
        // What comes of it the API says the next time that it is heard.
        self.observer.adopted();
        let adopted = async {
            let (cluster, _) = copy.cluster()?;
            let own = cluster.controllers.iter().find(|controller| controller.name == self.node);
            let taints = own.map(|controller| controller.taints.clone()).unwrap_or_default();
            write::adopt_node(&heartbeat::client(self.host, copy, self.at.node_ip).await?, &self.node, &taints).await
        };
        match adopted.await {
            Ok(()) => {
                let text = format!("the Node was made anew, without the label {CONTROL_PLANE_LABEL}: it has it again");
                self.say(text.clone());
                self.heartbeat.event(self.host.world().now(), "LabelRestored", text, false);
                self.heartbeat.hurry(Instant::now());
            }
            Err(error) => self.fail(&error),
        }
    }

    /// Takes away what the kubelet refused to run, as it does while its Node lacks the label.
    async fn tidy(&mut self) {
        let Some(copy) = &self.copy else { return };
        let tidied = async {
            write::delete_refused_pods(&heartbeat::client(self.host, copy, self.at.node_ip).await?, &self.node).await
        };
        match tidied.await {
            Ok(names) if names.is_empty() => {}
            Ok(names) => {
                self.say(format!("the kubelet had refused {} for the Node's labels: deleted", names.join(", ")))
            }
            Err(error) => self.fail(&error),
        }
    }

    /// The copy follows the images of a control plane that has proved itself.
    pub(super) fn follow(&mut self, runs: &heartbeat::Runs, observed: &Observed) {
        let is_proved = observed.stands == Stands::Nothing
            && observed.server == Server::Ready
            && observed.server_for >= hold(observed.raises);
        let Some(copy) = self.copy.as_ref().filter(|_| is_proved) else { return };
        let Some((major, minor, _)) = version::numbers(&copy.kubernetes) else {
            return;
        };
        let named = |component: &str| {
            let text = copy.assets.text(&format!("bootstrap-manifests/bridge-{component}.yaml")).ok()?;
            images::of_container(&text, component)
        };
        let (followed, left) = watch::follow(&copy.images, named, &runs.images, runs.version, (major, minor));
        for text in left {
            if self.unfollowed.insert(text.clone()) {
                self.reporter.note(&text);
                self.heartbeat.event(self.host.world().now(), "BridgeOutdated", text, true);
            }
        }
        let Some(copy) = self.copy.clone().filter(|copy| copy.images != followed) else { return };
        let stored =
            lock::try_take(self.host).and_then(|_lock| Copy { images: followed.clone(), ..copy }.store(self.host));
        match stored {
            Ok(_) => {
                let images: Vec<_> = followed.values().map(|followed| followed.to.as_str()).collect();
                let of = if images.is_empty() { "its manifests".to_owned() } else { images.join(", ") };
                self.say(format!(
                    "the bridge is raised from the images that the self-hosted control plane has proved: {of}"
                ));
            }
            Err(error) => self.fail(&error),
        }
    }

    /// The pod of a static manifest that somebody has edited follows.
    pub(super) fn settle(&mut self) {
        let pods = StaticPods::new(self.host.manifests());
        let before = self.etcd.take();
        if let Some(before) = before.filter(|before| pods.read(etcd_manifest::NAME).as_ref() != Some(before)) {
            let cluster = self.copy.as_ref().and_then(|copy| copy.cluster().ok());
            let is_only = cluster.is_some_and(|(cluster, _)| Remembered::is_only(self.host, &cluster));
            match etcd_manifest::settle(self.host, &before, is_only) {
                Ok(true) => self.say("etcd.yaml was edited: etcd is to begin anew, in the same pod".into()),
                Ok(false) => {}
                Err(error) => self.fail(&error),
            }
        }
        match pods.settle(false) {
            Ok(edited) => edited.iter().for_each(|name| self.say(format!("{name} was edited: its pod is made anew"))),
            Err(error) => self.fail(&error),
        }
        self.etcd = pods.read(etcd_manifest::NAME);
    }

    /// Hears what the Node says of this controller: guard's rights are there then.
    pub(super) fn hear(&mut self, role: Role) {
        self.refused = None;
        self.told.remove("RightsMissing");
        self.observer.role(role, Instant::now());
        if role != Role::Absent {
            self.told.remove("NodeMissing");
        }
        match role {
            Role::Controller => drop(self.told.remove("GuardStays")),
            Role::Absent => {
                let text = format!(
                    "there is no Node {}: its kubelet registers it when it starts (`systemctl restart kubelet`)",
                    self.node
                );
                self.tell_as_long_as_it_is_so("NodeMissing", text);
            }
            Role::MadeAnew | Role::TakenOff => {}
        }
    }

    /// Takes this controller out of the cluster's addresses, and guard and its bridge from the node.
    pub(super) async fn leave(&mut self) -> Result<()> {
        let left = self.give_up().await;
        if left.is_err()
            && let Err(error) = leaving::end(self.host, leaving::Why::Label)
        {
            self.fail(&error);
        }
        left
    }

    async fn give_up(&mut self) -> Result<()> {
        let copy = self.copy.clone();
        let copy = &copy.ok_or_else(|| Error::failed("leave the node", "there is no copy of the bridge"))?;
        let own = self.at.node_ip;
        let (cluster, controller) = copy.cluster()?;
        // First, while all of this controller serves.
        if let Some(address) = cluster.virtual_address() {
            virtual_address::leave(self.host, address, self.reporter).await?;
        }
        self.way.set(None);
        let client = heartbeat::client(self.host, copy, own).await?;
        let others: Vec<_> = endpoints::published(&client).await?.into_iter().filter(|one| *one != own.ip()).collect();
        // Once the address is not published any more, whoever has the turn removes this controller's member: not before its API
        // server has answered what it was asked.
        self.until_it_is_its_turn(&client).await?;
        leave::retract(&client, own.ip()).await?;
        sleep(leave::TO_MOVE).await;
        let client = join::client_of_another(self.host, copy, &others).await?;
        self.until_it_is_its_turn(&client).await?;
        let running = leave::running(self.host, &[leave::API_SERVER])?;
        let bridge = Bridge::new(self.host);
        bridge.lower_controllers()?;
        bridge.lower_api_server()?;
        if !leave::until_ended(self.host, &[leave::API_SERVER], &running, END_LIMIT).await {
            self.reporter.note("the bridge's API server has not ended in time");
        }
        self.turn.give_back(&client).await?;
        if member::is_local(&cluster) {
            join::until_removed(&cluster, &controller, &copy.assets.tls(), &others).await?;
        }
        let client = join::client_of_another(self.host, copy, &others).await?;
        controllers::move_controllers(&client, &self.node).await?;
        self.reporter.note("this node is not a controller any more: guard, its bridge and its etcd member are removed");
        join::unmake(self.host, &cluster)
    }

    /// Takes the turn, or renews it.
    async fn until_it_is_its_turn(&mut self, client: &Client) -> Result<()> {
        let begun = Instant::now();
        while !self.turn.take(client, Instant::now(), self.host.world().now()).await? {
            if begun.elapsed() >= TURN_LIMIT {
                return Err(Error::failed("leave the node", "another controller changes the members of etcd just now"));
            }
            sleep(TURN_AGAIN).await;
        }
        Ok(())
    }
}
