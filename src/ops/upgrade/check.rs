//! What an upgrade would change, in its order, and all that stands in the way, at once.

use std::fmt;
use std::net::SocketAddr;

use serde::Serialize;
use time::OffsetDateTime;

use crate::api::FIELD_MANAGER;
use crate::api::apply::{Applier, How, Preview};
use crate::api::etcd_roll::{self, EtcdPod};
use crate::api::observe::cluster_id;
use crate::api::skew::{self, Asked, Hashed, Kubelet};
use crate::base::error::{Error, Finding, Result, Severity};
use crate::check::validate;
use crate::desired::assets;
use crate::desired::config::Version;
use crate::desired::config::version::numbers;
use crate::desired::secrets::COMPONENTS;
use crate::desired::upgrade::{EMULATION, emulates};

use crate::ops::start::older_keys;

use super::decide::{Decision, Form, Observed, Step, Way, decide, gate};
use super::holds;
use super::observe::{Memory, Wants, observe};
use super::releases::{Releases, Subject};

/// The version of the form of the JSON: fields may be added to it, never changed or taken away.
const SCHEMA: &str = "hoist.upgrade-plan/v1";
/// What to do about a static pod without a uid of its own.
pub(super) const GIVE_UID: &str = "hoist gives its own static pods one at the next boot; for others, write one into the manifest, which restarts them once";
/// How many minor versions a kubelet may be behind its API servers, by Kubernetes' version skew policy.
pub(super) const KUBELET_BEHIND: u32 = 3;

/// A plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Plan {
    schema: &'static str,
    /// The version that guard's copy has: that of the way back.
    pub from: String,
    /// The asset directory's.
    pub to: String,
    /// What would be done, or is left to do.
    pub steps: Vec<Line>,
    /// What an upgrade leaves as it is.
    pub left: Vec<String>,
    /// What stands in the way.
    pub in_the_way: Vec<Said>,
    /// What does not.
    pub warnings: Vec<Said>,
}

/// One step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Line {
    /// Its name.
    pub step: &'static str,
    /// What it does.
    pub does: String,
}

/// A finding.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Said {
    /// What it is about.
    pub place: String,
    /// What is so.
    pub message: String,
    /// What to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
}

/// What is known of the cluster.
struct Facts<'a> {
    releases: &'a Releases,
    seen: &'a Observed,
    kubelets: &'a [Kubelet],
    asked: &'a [Asked],
    etcd: &'a [EtcdPod],
    /// The image that etcd has in the asset directory.
    new_etcd: Option<&'a str>,
}

/// Looks at the cluster, and changes nothing. `connect` makes an admin's client of one API server.
///
/// # Errors
/// A cluster that does not answer, or has no guard; an asset directory that is not of this cluster.
pub async fn plan(
    subject: &Subject,
    force_conflicts: bool,
    connect: impl AsyncFn(SocketAddr) -> Result<kube::Client>,
) -> Result<Plan> {
    let client = &subject.client;
    is_of_this_cluster(subject, &cluster_id(client).await?)?;
    let releases = Releases::read(subject).await?;
    let mut memory = Memory::default();
    let wants = Wants { soak: std::time::Duration::ZERO, etcd: true };
    let mut seen = observe(subject, &releases, wants, &mut memory).await?;
    // Whether leaders lead is not known at a first look, and `apply` waits for it.
    seen.leaderless = None;
    let kubelets = skew::kubelets(client).await?;
    let asked = skew::deprecated(client, connect).await?;
    let etcd = etcd_roll::pods(client).await?;
    let new_etcd = Releases::etcd(subject);
    let from = releases.old.as_ref().map_or(releases.new.version, |old| old.version);
    let pulling: Vec<_> =
        kubelets.iter().filter(|kubelet| seen.api_servers.pods.iter().any(|pod| pod.node == kubelet.node)).collect();
    let held = holds::look(client, from.minor, releases.new.version.minor, &pulling).await?;
    let facts = Facts { releases: &releases, seen: &seen, kubelets: &kubelets, asked: &asked, etcd: &etcd, new_etcd };
    let mut findings = subject.findings.clone();
    findings.extend(judge(&facts));
    findings.extend(held);
    // A commit would bring them back.
    findings.extend(older_keys(&releases.copy, subject.input.assets(), &subject.dir));
    findings.extend(validate::validate(subject.input.assets(), &subject.dir, OffsetDateTime::now_utc()));
    if seen.api_servers.form == Form::Old {
        findings.extend(edits(subject, &releases, force_conflicts).await?);
    }
    findings.extend(skew::hashed_static_pods(client).await?.iter().filter_map(|pod| {
        let kubelet = kubelets.iter().find(|kubelet| kubelet.node == pod.node)?;
        made_anew(pod, kubelet, releases.new.version)
    }));
    let (in_the_way, warnings): (Vec<_>, Vec<_>) =
        findings.into_iter().partition(|finding| finding.severity == Severity::Error);
    let of = |finding: Finding| Said { place: finding.place, message: finding.message, remedy: finding.remedy };
    Ok(Plan {
        schema: SCHEMA,
        from: releases.copy.kubernetes.clone(),
        to: releases.new.version.to_string(),
        steps: steps(&facts),
        left: left(&kubelets, releases.new.version),
        in_the_way: in_the_way.into_iter().map(of).collect(),
        warnings: warnings.into_iter().map(of).collect(),
    })
}

impl Plan {
    /// Refuses what stands in the way.
    ///
    /// # Errors
    /// All of it.
    pub fn verdict(&self) -> Result<()> {
        let finding = |said: &Said| Finding {
            remedy: said.remedy.clone(),
            ..Finding::new(said.place.clone(), said.message.clone())
        };
        match self.in_the_way.is_empty() {
            true => Ok(()),
            false => Err(Error::Input(self.in_the_way.iter().map(finding).collect())),
        }
    }
}

fn is_of_this_cluster(subject: &Subject, id: &str) -> Result<()> {
    match assets::cluster_id(subject.input.assets()) {
        Some(known) if known != id => Err(Error::Input(vec![
            Finding::new(
                subject.dir.display().to_string(),
                format!("is of the cluster {known}, and the one that answers is {id}"),
            )
            .remedy("--kubeconfig names the cluster, --asset-dir its asset directory"),
        ])),
        _ => Ok(()),
    }
}

/// What the facts say.
fn judge(facts: &Facts<'_>) -> Vec<Finding> {
    let Facts { releases, seen, kubelets, asked, etcd, new_etcd } = facts;
    let new = releases.new.version;
    let mut findings = Vec::new();
    if let Some(old) = &releases.old {
        let (from, to) = (old.version, new);
        if to < from {
            let message = format!("a way from {from} to {to} is none: data may be there that {to} cannot read");
            findings.push(
                Finding::new("kubernetesVersion", message).remedy("`hoist recover` with a backup of that version"),
            );
        } else if to.minor > from.minor + 1 {
            let message = format!(
                "from {from} to {to} are {} minor versions, and one at a time is supported",
                to.minor - from.minor
            );
            findings.push(
                Finding::new("kubernetesVersion", message).remedy(format!("render a v1.{} first", from.minor + 1)),
            );
        }
        if seen.has_trial {
            findings.extend(COMPONENTS.into_iter().filter_map(|component| emulating(releases, component)));
        }
    } else if seen.api_servers.form == Form::Old {
        let message = format!("guard's copy is of {new} already, and the API servers are not: no way leads back");
        findings.push(Finding::new("Secret kube-system/hoist-guard", message).warning());
    }
    findings.extend(kubelets.iter().filter_map(|kubelet| kubelet_skew(kubelet, new)));
    for Asked { what, gone_in } in asked.iter().filter(|asked| asked.gone_in <= new.minor) {
        let message = format!("somebody asks for it, and Kubernetes 1.{gone_in} does not have it any more");
        findings.push(Finding::new(what.clone(), message).remedy(
            "the API servers' audit log says who; use a newer version of it. The metric apiserver_requested_deprecated_apis begins anew with each API server",
        ));
    }
    findings.extend(etcd.iter().zip(new_etcd.iter().cycle()).filter_map(|(pod, new)| etcd_skew(pod, new)));
    // A way that is under way has reasons of its own to wait.
    if seen.api_servers.form == Form::Old
        && let Some(what) = gate(seen, None)
    {
        findings.push(Finding::new("control plane", format!("an upgrade would wait for {what}")));
    }
    for part in seen.controllers.iter().filter(|part| part.form == Form::Old) {
        if let Some(what) = &part.waits {
            findings.push(Finding::new(part.component, format!("is not rolled out: {what}")));
        }
    }
    findings
}

fn emulating(releases: &Releases, component: &str) -> Option<Finding> {
    let workload = releases.new.workload(component)?;
    emulates(&workload.object["spec"]["template"]["spec"], component).then(|| {
        Finding::new(workload.path.clone(), format!("{component} has {EMULATION}, which an upgrade sets itself"))
            .remedy("leave it out of the extraArgs of cluster.yaml")
    })
}

fn kubelet_skew(kubelet: &Kubelet, new: Version) -> Option<Finding> {
    let finding = |message: String| Finding::new(format!("node {}", kubelet.node), message);
    let Some((_, minor, _)) = numbers(&kubelet.version) else {
        return Some(finding(format!("its kubelet says that it is {:?}", kubelet.version)).warning());
    };
    if minor + KUBELET_BEHIND < new.minor {
        let least = new.minor - KUBELET_BEHIND;
        return Some(
            finding(format!(
                "its kubelet is {}, and an API server of {new} takes 1.{least} and newer",
                kubelet.version
            ))
            .remedy("upgrade the kubelet first"),
        );
    }
    if minor > new.minor {
        return Some(finding(format!("its kubelet is {}, and may not be newer than the API servers", kubelet.version)));
    }
    (!kubelet.ready).then(|| finding("is not ready".into()).warning())
}

/// etcd goes to the next minor version at most, and never back: its data is written for the newer one.
fn etcd_skew(pod: &EtcdPod, new: &str) -> Option<Finding> {
    let (old, wanted) = (tag(&pod.image)?, tag(new)?);
    let finding = |message: String| Finding::new(format!("etcd of {}", pod.node), message);
    if (wanted.0, wanted.1) < (old.0, old.1) {
        let message =
            format!("is {}, and {new} is of an older minor version, which may not be able to read its data", pod.image);
        return Some(finding(message).remedy("leave images.etcd of cluster.yaml as it is, or `--etcd-upgrade=false`"));
    }
    if (wanted.0, wanted.1) > (old.0, old.1 + 1) {
        let message = format!("is {}, and {new} is more than one minor version newer", pod.image);
        return Some(finding(message).remedy(format!(
            "name one of {}.{} in images.etcd of cluster.yaml first",
            old.0,
            old.1 + 1
        )));
    }
    None
}

/// Major and minor version by the tag of an image of etcd's, as `3.6.8-0` or `v3.6.8`.
fn tag(image: &str) -> Option<(u32, u32)> {
    let tag = image.split('@').next()?.rsplit('/').next()?.split_once(':')?.1;
    let mut numbers = tag.trim_start_matches('v').split(['.', '-']).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

/// A static pod without a uid of its own, where the kubelet's minor version is to change.
fn made_anew(pod: &Hashed, kubelet: &Kubelet, new: Version) -> Option<Finding> {
    let (_, minor, _) = numbers(&kubelet.version)?;
    let message = format!(
        "{} has no metadata.uid: a kubelet of v1.{} makes it anew, and its containers are restarted",
        pod.pod, new.minor
    );
    (minor != new.minor).then(|| Finding::new(format!("node {}", pod.node), message).remedy(GIVE_UID).warning())
}

/// Where somebody has edited in the cluster what the new manifests would change.
async fn edits(subject: &Subject, releases: &Releases, force_conflicts: bool) -> Result<Vec<Finding>> {
    let mut applier = Applier::new(&subject.client, How { manager: FIELD_MANAGER, force_conflicts });
    let workloads: Vec<_> = COMPONENTS.into_iter().filter_map(|component| releases.new.workload(component)).collect();
    let previews = applier.preview(&workloads, |_| false).await?;
    let refused = previews.into_iter().filter_map(|preview| match preview {
        Preview::Refused(refusal) => Some(Finding {
            remedy: Some(
                "write the edit into the asset directory, and `hoist upgrade apply --force-conflicts` takes the fields over".into(),
            ),
            ..refusal.finding
        }),
        _ => None,
    });
    Ok(refused.collect())
}

fn steps(facts: &Facts<'_>) -> Vec<Line> {
    let Facts { releases, seen, etcd, new_etcd, .. } = *facts;
    if decide(Way::Forth, seen) == Decision::Done {
        return Vec::new();
    }
    let nodes: Vec<_> = seen.api_servers.pods.iter().map(|pod| pod.node.as_str()).collect();
    let mut lines = Vec::new();
    let mut line = |step: Step, does: String| lines.push(Line { step: step.name(), does });
    let changed = releases.images().into_iter().filter_map(|(component, (old, new))| Some((component, old, new?)));
    let changed: Vec<_> = changed.filter(|(_, old, new)| old.is_none_or(|old| old != *new)).collect();
    let nodes = nodes.join(", ");
    if let Some(old) = &releases.old {
        let images: Vec<_> = changed.iter().map(|(_, _, image)| *image).chain(new_etcd).collect();
        if seen.api_servers.form == Form::Old {
            line(Step::Images, format!("pull {} on {nodes}", images.join(", ")));
        }
        let trial = releases.emulated().map_or_else(String::new, |old| format!(", with {EMULATION}={old}"));
        line(Step::ApiServers, format!("replace {nodes} one at a time, under a bridge of {}{trial}", old.version));
        line(Step::Controllers, format!("roll kube-controller-manager, kube-scheduler{trial}"));
        line(Step::Soak, "watch that all of it serves; until here, `hoist upgrade rollback` leads back".into());
    }
    let then = match seen.has_trial {
        true => format!("; then replace {nodes} one at a time without {EMULATION}, and roll the controllers"),
        false => String::new(),
    };
    line(Step::Commit, format!("guard keeps a bridge of {}{then}", releases.new.version));
    let old: Vec<_> = etcd.iter().filter(|pod| Some(&*pod.image) != new_etcd).map(|pod| pod.node.as_str()).collect();
    if let (Some(image), false) = (new_etcd, old.is_empty()) {
        line(
            Step::Etcd,
            format!("exchange the etcd of {} for {image}, one at a time, after a snapshot", old.join(", ")),
        );
    }
    line(Step::Rest, "apply what else the asset directory has: kube-proxy, CoreDNS, flannel".into());
    lines
}

/// What stays as it is.
fn left(kubelets: &[Kubelet], new: Version) -> Vec<String> {
    let behind = kubelets.iter().filter(|kubelet| !new.is(&kubelet.version));
    behind
        .map(|kubelet| format!("the kubelet of {}: {} (`hoist upgrade node`, there)", kubelet.node, kubelet.version))
        .collect()
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.steps.is_empty() {
            writeln!(f, "The control plane has {}.", self.to)?;
        } else {
            writeln!(f, "{} to {}:", self.from, self.to)?;
        }
        for (number, line) in self.steps.iter().enumerate() {
            writeln!(f, "  {}. {:<12} {}", number + 1, line.step, line.does)?;
        }
        let mut list = |title: &str, said: &[Said]| {
            if said.is_empty() {
                return Ok(());
            }
            writeln!(f, "{title}")?;
            said.iter().try_for_each(|said| {
                writeln!(f, "  {}: {}", said.place, said.message)?;
                said.remedy.as_ref().map_or(Ok(()), |remedy| writeln!(f, "      {remedy}"))
            })
        };
        list("In the way:", &self.in_the_way)?;
        list("Worth knowing:", &self.warnings)?;
        if !self.left.is_empty() {
            writeln!(f, "Left as it is:")?;
            self.left.iter().try_for_each(|left| writeln!(f, "  {left}"))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn etcd_goes_one_minor_version_forth_and_none_back() {
        let said = |old: &str, new: &str| {
            let pod = EtcdPod { node: "c1".into(), image: old.into(), ready: true, reason: String::new() };
            etcd_skew(&pod, new).map(|finding| finding.message)
        };
        let of = |tag: &str| format!("registry.k8s.io/etcd:{tag}");
        assert_eq!(said(&of("3.6.8-0"), &of("3.7.0-0")), None);
        assert_eq!(said(&of("3.6.8-0"), "here:5000/etcd:v3.6.5"), None, "patch versions go both ways");
        assert!(said(&of("3.7.0-0"), &of("3.6.8-0")).unwrap().contains("older minor version"));
        assert!(said(&of("3.5.9-0"), &of("3.7.0-0")).unwrap().contains("more than one minor version newer"));
        // Nothing is known of what bears no version.
        assert_eq!(said("etcd@sha256:aa", &of("3.6.8-0")), None);
        assert_eq!(said(&of("latest"), &of("3.6.8-0")), None);
    }
}
