//! `hoist certs renew`: the same renewal as guard's, when somebody asks for it.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::renew::{self, Done};
use crate::api::turn::Turn;
use crate::base::error::{Error, Finding, Result};
use crate::base::time::rfc3339;
use crate::desired::renewal::{self, Leaf};
use crate::node::host::Host;
use crate::plane::kept_copy::Copy;
use crate::plane::renewal as on_disk;

/// Every leaf, as kubeadm has it.
const ALL: &str = "all";
/// How long another controller's turn is waited for.
const TURN: Duration = Duration::from_secs(60);
/// How long servers may take to serve what is in their files.
const SERVED_WITHIN: Duration = Duration::from_secs(60);

/// What is asked for.
pub struct ByHand<'a> {
    /// The controller.
    pub host: &'a Host,
    /// Names, as `hoist certs list` shows them; none for all.
    pub names: &'a [String],
    /// Nothing is changed.
    pub is_dry_run: bool,
}

/// Renews, and says line by line what it does; it has ended once the renewed certificates are seen on the wire.
///
/// # Errors
/// A machine without guard's copy, a name of none, a certificate that cannot be renewed here and now; what is not served in
/// time.
pub async fn by_hand(asked: &ByHand<'_>, say: &mut dyn FnMut(&str) -> Result<()>) -> Result<()> {
    let host = asked.host;
    let copy = Copy::load(host)?.ok_or_else(|| Error::Failed {
        action: "renew certificates".into(),
        cause: "guard keeps none on this machine".into(),
        next: Some(
            "run it as root on a controller whose cluster has guard; elsewhere, `hoist render` renews what has ended"
                .into(),
        ),
    })?;
    let (cluster, controller) = copy.cluster()?;
    let leaves = renewal::leaves(&copy.assets.tls());
    let chosen = chosen(&copy, &leaves, asked.names)?;
    let client = renew::client(host, &copy).await;
    let now = host.world().now();
    let seen = renew::observed(&copy, now, client.is_some(), true)?;
    let plan = renewal::plan(chosen.iter().copied(), &seen);
    let renewed_now: Vec<&Leaf> = plan.here.iter().chain(&plan.for_all).copied().collect();
    let mut kept = Vec::new();
    for leaf in &chosen {
        let why = match () {
            () if plan.await_their_ca.contains(leaf) => "the key of its CA is not here",
            () if plan.end_with_their_ca.contains(leaf) => {
                "it would end no later: its CA ends, or certificateValidityPeriod is short"
            }
            () if !renewed_now.contains(leaf) => "every controller shares it, and the API does not answer",
            () => continue,
        };
        kept.push(format!("{}: {why}", renew::name(&copy, leaf)));
    }
    if asked.is_dry_run {
        for leaf in &renewed_now {
            let end =
                seen.now.saturating_add(time::Duration::try_from(seen.lifetime).unwrap_or_default()).min(leaf.ca_ends);
            let name = renew::name(&copy, leaf);
            say(&format!("{name}: would be renewed; ends {}, then {}", rfc3339(leaf.ends), rfc3339(end)))?;
        }
        return kept.iter().try_for_each(|line| say(&format!("{line}: would not be renewed")));
    }
    if !renewed_now.is_empty() {
        let wanted: BTreeSet<_> = renewed_now.iter().map(|leaf| leaf.stem.clone()).collect();
        let mut turn = Turn::of_process(&format!("{}_renew", controller.name), now);
        let begun = Instant::now();
        let names = loop {
            match renew::renew(host, &seen, Some(&wanted), client.as_ref(), &mut turn).await? {
                Done::Renewed(names) => break names,
                Done::Waits if begun.elapsed() < TURN => sleep(Duration::from_secs(1)).await,
                Done::Waits => {
                    return Err(Error::failed(
                        "renew certificates",
                        "another controller has had the turn for a minute",
                    ));
                }
            }
        };
        let copy = Copy::load(host)?.unwrap_or(copy);
        let refreshed = on_disk::refresh(host, &copy);
        if let Some(client) = &client {
            renew::spread(client, &copy).await?;
        }
        if let Some(error) = refreshed.failed.into_iter().next() {
            return Err(error);
        }
        let ends = renewal::leaves(&copy.assets.tls());
        for name in &names {
            let leaf = ends.iter().find(|leaf| renew::name(&copy, leaf) == *name);
            say(&format!("{name}: renewed, ends {}", leaf.map(|leaf| rfc3339(leaf.ends)).unwrap_or_default()))?;
        }
        let begun = Instant::now();
        loop {
            let wrong = renew::not_served(host, cluster.loopback(), controller.address).await;
            if wrong.is_empty() {
                say("every listener of this controller serves what is in its file")?;
                break;
            }
            if begun.elapsed() >= SERVED_WITHIN {
                let list: Vec<_> = wrong.iter().map(|(address, why)| format!("{address} ({why})")).collect();
                return Err(Error::Failed {
                    action: "see renewed certificates served".into(),
                    cause: list.join("; "),
                    next: Some("`hoist certs list` shows what each listener serves".into()),
                });
            }
            sleep(Duration::from_millis(500)).await;
        }
    }
    match kept.is_empty() {
        true => Ok(()),
        false => Err(Error::failed("renew all of them", kept.join("; "))),
    }
}

fn chosen<'a>(copy: &Copy, leaves: &'a [Leaf], names: &[String]) -> Result<Vec<&'a Leaf>> {
    if names.is_empty() || names.iter().any(|name| name == ALL) {
        return Ok(leaves.iter().collect());
    }
    let known: BTreeSet<_> = leaves.iter().map(|leaf| renew::name(copy, leaf)).collect();
    let unknown = names.iter().filter(|name| !known.contains(*name));
    let list = known.iter().cloned().collect::<Vec<_>>().join(", ");
    let finding = |name: &String| {
        Finding::new(name.clone(), "is no certificate that guard keeps").remedy(format!("there are: {list}"))
    };
    let findings: Vec<_> = unknown.map(finding).collect();
    match findings.is_empty() {
        true => Ok(leaves.iter().filter(|leaf| names.contains(&renew::name(copy, leaf))).collect()),
        false => Err(Error::Input(findings)),
    }
}
