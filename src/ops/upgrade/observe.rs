//! What an upgrade decides by, looked at afresh each round.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use kube::Client;
use serde_json::Value;
use tokio::time::Instant;

use crate::api::apply::{Applier, How, stands};
use crate::api::controllers::{self, ControllerNode};
use crate::api::etcd_roll;
use crate::api::observe::{LEASES, LeaseView, lease, pods_in};
use crate::api::rollout::{self, Rollout};
use crate::api::{FIELD_MANAGER, guard, self_hosted};
use crate::base::error::{Error, Result};
use crate::base::probe::{Answer, Probe};
use crate::desired::assets::Manifest;
use crate::desired::config::{API_PORT, Version};
use crate::desired::upgrade::{emulates, image, is_held, says_otherwise};
use crate::plane::addons;

use super::act::PULL;
use super::decide::{Form, Member, Members, Observed, Part, Pod, Pulled, Rest, gate};
use super::releases::{Releases, Subject};

/// How long an API server may take to say which version it is.
const ASK: Duration = Duration::from_secs(5);
/// A leader that has not renewed its Lease for so long may be none.
const RENEWED_WITHIN: Duration = Duration::from_secs(20);
const API_SERVER: &str = "kube-apiserver";
const CONTROLLERS: [&str; 2] = ["kube-controller-manager", "kube-scheduler"];

/// What a run remembers of what it saw.
#[derive(Default)]
pub(super) struct Memory {
    leases: BTreeMap<&'static str, (Option<LeaseView>, Instant, bool)>,
    serves_since: Option<Instant>,
}

impl Memory {
    /// Why a Lease, as it is now, does not say that somebody leads: by this machine's clock alone.
    fn note(&mut self, name: &'static str, seen: Option<LeaseView>, now: Instant) -> Option<String> {
        let is_held = seen.as_ref().is_some_and(|lease| !lease.holder.is_empty());
        let (at, was_renewed) = match self.leases.get(name) {
            Some((before, at, was_renewed)) if *before == seen => (*at, *was_renewed),
            Some(_) => (now, true),
            None => (now, false),
        };
        self.leases.insert(name, (seen, at, was_renewed));
        let leads = is_held && was_renewed && now - at < RENEWED_WITHIN;
        (!leads).then(|| format!("the leader of {name} to renew its Lease"))
    }
}

/// What a run wants.
#[derive(Clone, Copy)]
pub(super) struct Wants {
    /// For how long the new version serves on trial.
    pub soak: Duration,
    /// Whether etcd follows.
    pub etcd: bool,
}

/// Looks.
///
/// # Errors
/// The first request that failed: what is not known is never taken for absent.
pub(super) async fn observe(
    subject: &Subject,
    releases: &Releases,
    wants: Wants,
    memory: &mut Memory,
) -> Result<Observed> {
    let client = &subject.client;
    let nodes = controllers::list(client).await?;
    let mut parts = Vec::new();
    for component in CONTROLLERS {
        parts.push(part(component, read(client, component).await?, releases));
    }
    let api = read(client, API_SERVER).await?;
    let amiss = amiss(subject, &nodes, &api).await?;
    let mut leaderless = None;
    for name in LEASES {
        let why = memory.note(name, lease(client, name).await?, Instant::now());
        leaderless = leaderless.or(why);
    }
    let is_committed = releases.old.is_none();
    let new = releases.new.version.to_string();
    let mut outdated_guards = Vec::new();
    if is_committed {
        for node in &nodes {
            let kept = guard::kept(client, &node.name).await?;
            outdated_guards.extend((kept.version.as_ref() != Some(&new)).then(|| node.name.clone()));
        }
    }
    let api_servers = part(API_SERVER, api, releases);
    let comes_last = is_committed
        && api_servers.form == Form::New
        && !api_servers.is_held
        && parts.iter().all(|part| part.form == Form::New);
    let mut seen = Observed {
        is_committed,
        has_trial: releases.emulated().is_some(),
        api_servers,
        controllers: parts,
        pulled: pulled(client).await?,
        bridges: rollout::bridges(client).await?,
        amiss,
        leaderless,
        served_for: Duration::ZERO,
        soak: wants.soak,
        outdated_guards,
        etcd: match Releases::etcd(subject).filter(|_| comes_last && wants.etcd) {
            Some(image) => Some(etcd(client, image).await?),
            None => None,
        },
        rest: if comes_last { rest(client, subject.input.manifests()).await? } else { Some(Rest::Unapplied) },
    };
    let serves = gate(&seen, None).is_none()
        && seen.api_servers.form != Form::Old
        && seen.api_servers.pods.iter().all(|pod| pod.is_current)
        && seen.controllers.iter().all(|part| part.form != Form::Old && part.waits.is_none());
    let now = Instant::now();
    let since = memory.serves_since.filter(|_| serves).unwrap_or(now);
    memory.serves_since = serves.then_some(since);
    seen.served_for = now - since;
    Ok(seen)
}

async fn read(client: &Client, component: &str) -> Result<Rollout> {
    let there = rollout::read(client, component).await?;
    there.ok_or_else(|| Error::Failed {
        action: "upgrade the control plane".into(),
        cause: format!("{component} is not in the cluster"),
        next: Some("`hoist recover` on a controller brings back what is missing".into()),
    })
}

fn part(component: &'static str, rollout: Rollout, releases: &Releases) -> Part {
    let template = &rollout.live["spec"]["template"]["spec"];
    let form = match image(template, component) == releases.new.image(component) {
        true if emulates(template, component) => Form::Trial,
        true => Form::New,
        false => Form::Old,
    };
    let pods = rollout.pods.into_iter().map(|(view, is_current)| Pod {
        node: view.node.unwrap_or_else(|| "no node yet".into()),
        name: view.name,
        ready: view.ready,
        reason: view.reason,
        is_current,
    });
    Part {
        component,
        form,
        is_held: is_held(&rollout.live),
        pods: pods.collect(),
        waits: addons::unready(Some(&rollout.live)),
    }
}

/// What API servers do not say as they should, each asked at its controller's own address.
async fn amiss(subject: &Subject, nodes: &[ControllerNode], api: &Rollout) -> Result<Vec<(String, String)>> {
    let probe = Probe::new(&subject.ca_pem)?;
    let template = &api.live["spec"]["template"]["spec"];
    let expected = image(template, API_SERVER).and_then(crate::desired::config::version::of_image);
    let is_trial = emulates(template, API_SERVER);
    let asked = nodes.iter().filter_map(|node| {
        let pod = api.pods.iter().find(|(pod, _)| pod.node.as_deref() == Some(&*node.name));
        // One that comes and goes is told by its pod.
        let (_, is_current) = pod.filter(|(pod, _)| pod.ready)?;
        let expected = expected.filter(|_| *is_current);
        let probe = &probe;
        Some(async move {
            let Some(address) = node.address else { return Some((node.name.clone(), "it has no address".to_owned())) };
            let at = SocketAddr::new(address, API_PORT);
            let ready = probe.get(at, "/readyz", ASK).await;
            if !ready.is_ready() {
                return Some((node.name.clone(), format!("{at} says {ready}")));
            }
            let said = probe.get(at, "/version", ASK).await;
            differs(&said, expected, is_trial).map(|why| (node.name.clone(), format!("{at} {why}")))
        })
    });
    Ok(futures::future::join_all(asked).await.into_iter().flatten().collect())
}

/// What an answer to /version does not say as it should.
fn differs(said: &Answer, expected: Option<(u32, u32, u32)>, is_trial: bool) -> Option<String> {
    let (major, minor, patch) = expected?;
    let Answer::Http { status: 200, body } = said else { return Some(format!("says {said}")) };
    let info: Value = serde_json::from_str(body).unwrap_or_default();
    says_otherwise(&info, Version { major, minor, patch }, is_trial)
}

async fn etcd(client: &Client, image: &str) -> Result<Members> {
    let pods = etcd_roll::pods(client).await?.into_iter();
    let members = pods.map(|pod| Member {
        is_new: pod.image == image,
        waits: (!pod.ready).then(|| if pod.reason.is_empty() { "it is not ready".into() } else { pod.reason.clone() }),
        node: pod.node,
    });
    let members = members.collect();
    let Some(order) = etcd_roll::order(client).await? else { return Ok(Members { members, ..Members::default() }) };
    let refused = etcd_roll::refused(client, &order.node).await?.filter(|refused| refused.order == order);
    Ok(Members { members, ordered: Some(order.node), refused: refused.map(|refused| refused.why) })
}

async fn pulled(client: &Client) -> Result<Pulled> {
    let Some(live) = self_hosted::workload(client, "DaemonSet", PULL).await? else { return Ok(Pulled::Unasked) };
    let Some(why) = addons::unready(Some(&live)) else { return Ok(Pulled::Done) };
    let pods = pods_in(client, "kube-system", Some(&format!("app.kubernetes.io/name={PULL}"))).await?;
    let waits = pods.into_iter().find(|pod| !pod.ready);
    Ok(Pulled::Waits(
        waits
            .map_or(why, |pod| format!("{} on {}: {}", pod.name, pod.node.as_deref().unwrap_or("no node"), pod.reason)),
    ))
}

/// What of the manifests is to come.
async fn rest(client: &Client, manifests: &[Manifest]) -> Result<Option<Rest>> {
    let all: Vec<_> = manifests.iter().collect();
    let mut applier = Applier::new(client, How { manager: FIELD_MANAGER, force_conflicts: true });
    let there = applier.look(&all).await?;
    if all.iter().zip(&there).any(|(manifest, there)| !stands(manifest, there)) {
        return Ok(Some(Rest::Unapplied));
    }
    for manifest in all.iter().filter(|manifest| matches!(manifest.text("/kind"), "DaemonSet" | "Deployment")) {
        if let Some(why) = addons::unready(applier.get(manifest).await?.as_ref()) {
            return Ok(Some(Rest::Waits(format!("{}: {why}", crate::api::apply::Name::of(manifest)))));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_leader_is_known_once_its_lease_was_seen_to_change() {
        let (mut memory, begun) = (Memory::default(), Instant::now());
        let view = |holder: &str, version: &str| {
            Some(LeaseView { holder: holder.into(), resource_version: version.into(), ..LeaseView::default() })
        };
        let mut note = |seen, seconds| memory.note("kube-scheduler", seen, begun + Duration::from_secs(seconds));
        assert!(note(view("a", "1"), 0).is_some(), "whatever it says of itself");
        assert!(note(view("a", "2"), 2).is_none());
        assert!(note(view("a", "2"), 21).is_none());
        assert!(note(view("a", "2"), 22).is_some());
        assert!(note(view("", "3"), 23).is_some(), "it was released");
        assert!(note(view("b", "4"), 24).is_none());
        assert!(note(None, 25).is_some());
    }

    #[test]
    fn an_api_server_is_what_it_says_itself() {
        let said = |text: &str| Answer::Http { status: 200, body: text.into() };
        let new = Some((1, 37, 2));
        let trial = said(r#"{"gitVersion": "v1.37.2", "emulationMajor": "1", "emulationMinor": "36"}"#);
        let plain = said(r#"{"gitVersion": "v1.37.2", "emulationMajor": "1", "emulationMinor": "37"}"#);
        let silent = said(r#"{"gitVersion": "v1.37.2"}"#);
        let older = said(r#"{"gitVersion": "v1.36.3"}"#);
        assert_eq!(differs(&trial, new, true), None);
        assert_eq!(differs(&plain, new, false), None);
        assert_eq!(differs(&silent, new, false), None);
        assert_eq!(differs(&older, None, false), None, "nothing is expected of one that is yet to be replaced");
        assert!(differs(&older, new, true).unwrap().contains("is v1.36.3"));
        assert!(differs(&trial, new, false).unwrap().contains("emulates 1.36 still"));
        assert!(differs(&plain, new, true).unwrap().contains("no older version"));
        assert!(differs(&Answer::Refused, new, true).unwrap().contains("refused"));
    }
}
