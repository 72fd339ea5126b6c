//! The bridge and the self-hosted control plane must act as one control plane: their flags agree.

use std::collections::BTreeSet;

use super::inventory::{Inventory, Running, text};
use crate::base::error::{Finding, Severity};
use crate::base::yaml::child;
use crate::desired::known_flags::Program::{self, ApiServer, ControllerManager, Etcd, Kubelet, Scheduler};
use crate::desired::node_endpoint;
use crate::plane::bridge::GUARD;
use crate::plane::guard_pod;

/// Flags in which the two must differ, or may.
const OWN: [&str; 14] = [
    "audit-log-path",
    "bind-address",
    "secure-port",
    "permit-port-sharing",
    "tls-cert-file",
    "tls-private-key-file",
    "permit-address-sharing",
    "shutdown-delay-duration",
    "shutdown-send-retry-after",
    "shutdown-watch-termination-grace-period",
    "leader-elect-lease-duration",
    "leader-elect-retry-period",
    "master",
    "v",
];

/// Flags of which two values make two clusters: what one writes, signs or leads, the other does not find.
const ONE_CLUSTER: [&str; 14] = [
    "api-audiences",
    "authentication-config",
    "cluster-cidr",
    "cluster-name",
    "encryption-provider-config",
    "endpoint-reconciler-type",
    "etcd-prefix",
    "etcd-servers",
    "leader-elect",
    "leader-elect-resource-lock",
    "leader-elect-resource-name",
    "leader-elect-resource-namespace",
    "service-account-issuer",
    "service-cluster-ip-range",
];

/// `known` is what was found before: a flag that is wrong by itself is not said to differ, too.
pub(super) fn check(inventory: &Inventory<'_>, known: &[Finding]) -> Vec<Finding> {
    let running = inventory.running();
    let mut findings = Vec::new();
    for program in [ApiServer, ControllerManager, Scheduler] {
        let of = |is_bridge| running.iter().filter(move |run| run.program == program && run.is_bridge() == is_bridge);
        for bridge in of(true) {
            for own in of(false) {
                findings.extend(flags(bridge, own, known));
                findings.extend(image(bridge, own));
            }
        }
        let path = format!("bootstrap-manifests/bridge-{}.yaml", program.name());
        if of(true).next().is_none() {
            findings.extend(runs_nothing(inventory, program, &path));
        }
        if of(false).next().is_none() {
            findings.push(
                Finding::new(inventory.place("manifests"), format!("no manifest runs {}", program.name()))
                    .remedy(
                        "`hoist render --replace FILE` restores what was removed, unless you apply it by other means",
                    )
                    .warning(),
            );
        }
    }
    let local = matches!(inventory.cluster.etcd, crate::desired::config::Etcd::Local { .. });
    if local && !running.iter().any(|run| run.program == Etcd && run.is_bridge()) {
        findings.extend(runs_nothing(inventory, Etcd, "bootstrap-manifests/etcd.yaml"));
    }
    findings.extend(no_guard(inventory));
    findings.extend(no_endpoint(inventory));
    findings
}

/// Guard's file without guard in it.
fn no_guard(inventory: &Inventory<'_>) -> Option<Finding> {
    let is_guard = |object: &&super::inventory::Object| object.is_static() && object.name() == "hoist-guard";
    let is_missing = guard_pod::is_wanted(inventory.assets) && inventory.objects.iter().find(is_guard).is_none();
    is_missing.then(|| {
        let path = format!("bootstrap-manifests/{GUARD}");
        Finding::new(inventory.place(&path), "holds no static pod hoist-guard".to_owned())
            .remedy(format!("`hoist render --replace {path}` brings it back; without the file there will be no guard"))
    })
}

/// What an asset directory with endpoints on nodes lacks of them. One that an older hoist rendered has nothing of them.
fn no_endpoint(inventory: &Inventory<'_>) -> Option<Finding> {
    let is_its = |object: &&super::inventory::Object| object.is_static() && object.name() == "hoist-endpoint";
    let is_rendered = inventory.assets.files.keys().any(|path| path.starts_with("manifests/hoist-endpoint/"));
    let is_wanted = inventory.cluster.node_endpoint().is_some() && is_rendered;
    (is_wanted && inventory.objects.iter().find(is_its).is_none()).then(|| {
        let path = node_endpoint::RENDERED;
        Finding::new(inventory.place(path), "no static pod hoist-endpoint: the clients of each node would ask nobody")
            .remedy(format!("`hoist render --replace {path}` brings it back; `endpoint.nodeLocal: false` does without"))
    })
}

/// A file that is missing was reported.
fn runs_nothing(inventory: &Inventory<'_>, program: Program, path: &str) -> Option<Finding> {
    inventory.assets.files.contains_key(path).then(|| {
        Finding::new(inventory.place(path), format!("does not run {}", program.name()))
            .remedy(format!("`hoist render --replace {path}` restores hoist's own"))
    })
}

fn flags(bridge: &Running<'_>, own: &Running<'_>, known: &[Finding]) -> Vec<Finding> {
    let names: BTreeSet<_> = bridge.args.iter().chain(&own.args).map(|arg| arg.name.as_str()).collect();
    let values = |run: &Running<'_>, name: &str| {
        let values: Vec<_> = run.args.iter().filter(|arg| arg.name == name).map(|arg| arg.value.clone()).collect();
        values.join(" ")
    };
    let differs = |name: &&str| !OWN.contains(name) && values(bridge, name) != values(own, name);
    let is_known = |name: &str, severity: Severity| {
        let here = [bridge.finding(name, ""), own.finding(name, "")];
        let same = |a: &Finding, b: &Finding| {
            (&a.place, a.position) == (&b.place, b.position) && a.message.starts_with(b.message.trim_end())
        };
        let is_worse = |found: &Finding| found.severity == Severity::Error || severity == Severity::Warning;
        known.iter().any(|found| is_worse(found) && here.iter().any(|here| same(found, here)))
    };
    let one = |name: &str| {
        let has = |run: &Running<'_>| match run.arg(name) {
            Some(arg) => arg.value.clone(),
            None => "not set".to_owned(),
        };
        let message =
            format!("is {} here, and {} in the bridge ({})", has(own), has(bridge), bridge.pod.object.place());
        let remedy = format!(
            "give both the same value: best by {}.extraArgs of cluster.yaml, and `hoist render`",
            section(own.program)
        );
        let finding = own.finding(name, message).remedy(remedy);
        let finding = if ONE_CLUSTER.contains(&name) { finding } else { finding.warning() };
        (!is_known(name, finding.severity)).then_some(finding)
    };
    names.into_iter().filter(differs).filter_map(one).collect()
}

fn section(program: Program) -> &'static str {
    match program {
        ApiServer => "apiServer",
        ControllerManager => "controllerManager",
        Scheduler => "scheduler",
        Etcd => "etcd.local",
        Kubelet => "kubelet",
    }
}

fn image(bridge: &Running<'_>, own: &Running<'_>) -> Option<Finding> {
    let (a, b) = (text(bridge.container, "image")?, text(own.container, "image")?);
    (a != b).then(|| {
        let message = format!("is {b}, and the bridge's is {a} ({})", bridge.pod.object.place());
        let finding = own.pod.object.finding(&child(&own.path, "image"), message);
        finding.remedy("give both the same one: by `images` of cluster.yaml, and `hoist render`").warning()
    })
}
