//! Renews leaves: in guard's copy and the cluster's first, then wherever else they are.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use kube::Client;
use time::OffsetDateTime;
use tokio::time::Instant;

use crate::api::turn::Turn;
use crate::api::{self, certificates as api_certificates, guard, write};
use crate::base::error::{Error, Result};
use crate::desired::config::API_PORT;
use crate::desired::pki;
use crate::desired::renewal::{self, Leaf, Observed};
use crate::desired::secrets::{self, COMPONENTS};
use crate::node::host::Host;
use crate::node::lock;
use crate::plane::certificates::{self, Listener};
use crate::plane::kept_copy::Copy;
use crate::plane::renewal as on_disk;

/// A client with guard's own certificate of this controller's API server, if that says that it is ready.
pub async fn client(host: &Host, copy: &Copy) -> Option<Client> {
    let (cluster, controller) = copy.cluster().ok()?;
    let kubeconfig = secrets::of_guard(&cluster, &copy.assets.tls()).ok()?;
    let address = SocketAddr::new(controller.address, API_PORT);
    let client = host.world().connect(&kubeconfig, address).await.ok()?;
    api::is_served(&client).await.then_some(client)
}

/// What is gone by on this controller.
///
/// # Errors
/// A copy that names no controller.
pub fn observed(copy: &Copy, now: OffsetDateTime, api_answers: bool, is_asked_for: bool) -> Result<Observed> {
    let (cluster, controller) = copy.cluster()?;
    Ok(Observed {
        now,
        lifetime: cluster.pki.certificate_validity,
        api_answers,
        jitter: renewal::jitter(&controller.name),
        is_asked_for,
    })
}

/// The name of a leaf of guard's copy, as `hoist certs list` shows it.
pub fn name(copy: &Copy, leaf: &Leaf) -> String {
    let path = format!("tls/{}.crt", leaf.stem);
    let info = copy.assets.files.get(&path).and_then(|file| pki::inspect(&file.content).ok());
    info.map_or_else(|| leaf.stem.clone(), |info| certificates::name(&path, &info))
}

/// What [`renew`] has done.
pub enum Done {
    /// These leaves are renewed, by their names, each once.
    Renewed(BTreeSet<String>),
    /// It is another controller's turn. What is this controller's alone is renewed.
    Waits,
}

/// Renews what of guard's copy `wanted` names, by their stems, or all that is due: first where the cluster and this
/// controller keep them. While the API is asked, nobody is kept from working on this node.
///
/// # Errors
/// Another hoist at work; a leaf that cannot be renewed, past which it goes on; the system's and the API server's word.
/// Running it again goes on.
pub async fn renew(
    host: &Host,
    seen: &Observed,
    wanted: Option<&BTreeSet<String>>,
    client: Option<&Client>,
    turn: &mut Turn,
) -> Result<Done> {
    let (copy, mut done, failed) = renew_own(host, seen, wanted)?;
    let leaves = renewal::leaves(&copy.assets.tls());
    let is_shared = !renewal::plan(chosen(&leaves, wanted), seen).for_all.is_empty();
    if let Some(client) = client.filter(|_| is_shared) {
        if !turn.take(client, Instant::now(), host.world().now()).await? {
            return Ok(Done::Waits);
        }
        let renewed = renew_for_all(host, seen, wanted, client, &copy).await;
        let given_back = turn.give_back(client).await;
        done.extend(renewed?);
        given_back?;
    }
    match failed.into_iter().next() {
        Some(error) => Err(error),
        None => Ok(Done::Renewed(done)),
    }
}

/// Guard's copy as it is now.
fn load(host: &Host) -> Result<Copy> {
    Copy::load(host)?.ok_or_else(|| Error::failed("renew certificates", "there is no copy of the bridge"))
}

fn names(copy: &Copy, leaves: &[&Leaf]) -> BTreeSet<String> {
    leaves.iter().map(|leaf| name(copy, leaf)).collect()
}

fn renew_own(
    host: &Host,
    seen: &Observed,
    wanted: Option<&BTreeSet<String>>,
) -> Result<(Copy, BTreeSet<String>, Vec<Error>)> {
    let _lock = lock::try_take(host)?;
    let copy = load(host)?;
    let leaves = renewal::leaves(&copy.assets.tls());
    let here = renewal::plan(chosen(&leaves, wanted), seen).here;
    if here.is_empty() {
        return Ok((copy, BTreeSet::new(), Vec::new()));
    }
    let done = names(&copy, &here);
    let (copy, failed) = on_disk::renew(host, &copy, &here, host.world().now())?;
    Ok((copy, done, failed))
}

async fn renew_for_all(
    host: &Host,
    seen: &Observed,
    wanted: Option<&BTreeSet<String>>,
    client: &Client,
    copy: &Copy,
) -> Result<BTreeSet<String>> {
    let agreed = agreed(client, copy).await?;
    // Another controller has renewed some of them meanwhile.
    let leaves = renewal::leaves(&agreed.assets.tls());
    let for_all = renewal::plan(chosen(&leaves, wanted), seen).for_all;
    let (assets, failed) = renewal::renewed(&agreed.assets, &for_all, seen.lifetime, host.world().now());
    let renewed = Copy { assets, ..agreed };
    let shared = renewed.shared();
    write::guard_copy(client, &shared.to_json(), &shared.sum()).await?;
    let _lock = lock::try_take(host)?;
    // Not the one that was read before: it may have been written since.
    let there = load(host)?;
    let (newer, _) = there.with_newer(&renewed);
    newer.store(host)?;
    match failed.into_iter().next() {
        Some(error) => Err(error),
        None => Ok(names(&renewed, &for_all)),
    }
}

fn chosen<'a>(leaves: &'a [Leaf], wanted: Option<&'a BTreeSet<String>>) -> impl Iterator<Item = &'a Leaf> {
    leaves.iter().filter(move |leaf| wanted.is_none_or(|wanted| wanted.contains(&leaf.stem)))
}

/// The cluster's copy with what is this controller's alone, and with those leaves of `own` that are newer.
async fn agreed(client: &Client, own: &Copy) -> Result<Copy> {
    let Some(text) = guard::copy(client).await? else { return Ok(own.clone()) };
    Ok(Copy::of_secret(&text)?.completed(own).with_newer(own).0)
}

/// Has the cluster's Secrets hold the leaves of `copy` where they hold what these succeed; names the Secrets that have changed.
///
/// # Errors
/// The API server's word; running it again goes on.
pub async fn spread(client: &Client, copy: &Copy) -> Result<Vec<String>> {
    let mut changed = Vec::new();
    let (sum, shared) = (guard::copy_sum(client).await?, copy.shared());
    if sum.is_some_and(|sum| sum != shared.sum()) {
        let text = guard::copy(client).await?.unwrap_or_default();
        let (newer, was_older) = Copy::of_secret(&text)?.with_newer(&shared);
        if was_older {
            write::guard_copy(client, &newer.to_json(), &newer.sum()).await?;
            changed.push(guard::NAME.to_owned());
        }
    }
    let leaves = renewal::texts(&copy.assets);
    for name in COMPONENTS {
        let keys = api_certificates::replace(client, name, |_, held| renewal::refreshed(held, &leaves)).await?;
        if !keys.is_empty() {
            changed.push(name.to_owned());
        }
    }
    Ok(changed)
}

/// The listeners that serve something else than the file that they read, with why.
pub async fn not_served(host: &Host, loopback: IpAddr, node_ip: IpAddr) -> BTreeMap<SocketAddr, String> {
    let mut wrong = BTreeMap::new();
    let of_guards = |listener: &Listener| matches!(listener.holder, "kube-apiserver" | "bridge" | "etcd");
    let listeners: Vec<_> = certificates::listeners(host, loopback, node_ip).into_iter().filter(of_guards).collect();
    for served in certificates::served(&listeners).await {
        let Some(file) = &served.listener.file else { continue };
        let Ok(there) = std::fs::read(file) else { continue };
        let is_same = |pem: &[u8]| pki::certificates_of(&there).starts_with(&pki::certificates_of(pem));
        let place = host.inside(file).display().to_string();
        let why = match &served.certificate {
            Ok(copy) if is_same(&copy.pem) => continue,
            Ok(copy) => {
                let hint = match on_disk::has_another_name(file) {
                    true => "; the file has another name, a hard link, which keeps servers from seeing that it changes",
                    false => "",
                };
                format!("it serves one that ends {}, and not {place}{hint}", copy.info.not_after)
            }
            Err(why) => format!("it shows no certificate: {why}"),
        };
        wrong.insert(served.listener.address, format!("{}: {why}", served.listener.holder));
    }
    wrong
}
