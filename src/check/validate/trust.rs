//! Whether the peers of each component trust the certificate that it presents, and whether keys fit each other.

use std::collections::{BTreeMap, BTreeSet};

use super::faults::{AGAIN, Faults};
use super::files::Resolved;
use super::inventory::Inventory;
use super::kubeconfigs;
use super::presented::Presented;
use crate::base::yaml::Position;
use crate::desired::certificates::{self, CertificateCopy};
use crate::desired::known_flags::Program::{self, ApiServer, ControllerManager, Etcd, Kubelet, Scheduler};
use crate::desired::pki::verify;

/// Who trusts what: the certificate of the first two is trusted by the CA of the last two.
const TRUST: [(Program, &str, Program, &str); 9] = [
    (ApiServer, "etcd-certfile", Etcd, "trusted-ca-file"),
    (Etcd, "cert-file", ApiServer, "etcd-cafile"),
    (Etcd, "peer-cert-file", Etcd, "peer-trusted-ca-file"),
    (ApiServer, "kubelet-client-certificate", Kubelet, ""),
    (ApiServer, "proxy-client-cert-file", ApiServer, "requestheader-client-ca-file"),
    (ApiServer, "proxy-client-cert-file", ControllerManager, "requestheader-client-ca-file"),
    (ApiServer, "proxy-client-cert-file", Scheduler, "requestheader-client-ca-file"),
    (ApiServer, "tls-cert-file", ControllerManager, "root-ca-file"),
    (ControllerManager, "cluster-signing-cert-file", ApiServer, "client-ca-file"),
];

/// Holds what is shown against who is to trust it, and keys against each other.
pub(super) fn check(inventory: &Inventory<'_>, presented: &Presented<'_>, faults: &mut Faults) {
    let mut judged = BTreeMap::new();
    for cert in &presented.certs {
        let controller = &inventory.cluster.controllers[cert.controller];
        let trusting = TRUST.iter().filter(|(program, flag, ..)| (*program, *flag) == (cert.program, cert.flag));
        for (_, _, by, ca_flag) in trusting {
            for ca in presented.contents(inventory, *by, ca_flag, controller) {
                let key = (cert.source.bytes.clone(), ca.bytes.clone());
                let trusted = *judged
                    .entry(key)
                    .or_insert_with(|| faults.read(&ca).is_none_or(|roots| verify::is_trusted(&cert.chain, &roots)));
                if !trusted {
                    let finding = cert.source.finding(format!("was not issued by {}", ca.place));
                    faults
                        .add("chain", finding.at(cert.source.position.or(Some((cert.chain[0].line, 1)))).remedy(AGAIN));
                }
            }
        }
    }
    signing_ca(presented, faults);
    front_proxy(inventory, presented, faults);
    service_accounts(inventory, presented, faults);
    kubeconfigs::check(inventory, presented, faults);
}

/// kube-controller-manager takes one certificate to sign with, and exits on more.
fn signing_ca(presented: &Presented<'_>, faults: &mut Faults) {
    for cert in presented.certs.iter().filter(|cert| cert.flag == "cluster-signing-cert-file" && cert.chain.len() > 1) {
        let finding = cert.source.finding("holds several certificates, and kube-controller-manager signs with one");
        faults.add("several", finding.remedy("leave only the first one in it"));
    }
}

/// The API server's own name is among those that it lets speak for others.
fn front_proxy(inventory: &Inventory<'_>, presented: &Presented<'_>, faults: &mut Faults) {
    for run in presented.running.iter().filter(|run| run.program == ApiServer) {
        let Some(allowed) = run.value("requestheader-allowed-names").filter(|names| !names.is_empty()) else {
            continue;
        };
        for controller in &inventory.cluster.controllers {
            let Some(source) = inventory.content(run, "proxy-client-cert-file", controller) else { continue };
            let Some(chain) = faults.read(&source) else { continue };
            let subject = &chain[0].info.subject;
            let is_allowed = |name: &str| subject.split(", ").any(|part| part == format!("CN={name}"));
            if !allowed.split(',').any(is_allowed) {
                let message = format!("{} is of {subject}, which is not among these names", source.place);
                faults
                    .add("allowed", run.finding("requestheader-allowed-names", message).remedy("add its common name"));
            }
        }
    }
}

/// Every token that anything here signs is good for every API server here.
fn service_accounts(inventory: &Inventory<'_>, presented: &Presented<'_>, faults: &mut Faults) {
    let Some(controller) = inventory.cluster.controllers.first() else { return };
    let mut signing = presented.contents(inventory, ApiServer, "service-account-signing-key-file", controller);
    signing.extend(presented.contents(inventory, ControllerManager, "service-account-private-key-file", controller));
    for run in presented.running.iter().filter(|run| run.program == ApiServer) {
        let named = run.args.iter().filter(|arg| arg.name == "service-account-key-file");
        let public: Vec<_> = named
            .filter_map(|arg| match inventory.resolve(run, &arg.value, controller) {
                Resolved::Content(source) => Some(source),
                _ => None,
            })
            .collect();
        let Some(first) = public.first() else { continue };
        for key in &signing {
            let mut good = false;
            for public in &public {
                match verify::signs_for(&key.place, &key.bytes, &public.place, &public.bytes) {
                    Ok(fits) => good |= fits,
                    Err(finding) => {
                        faults.add("unreadable", finding);
                        good = true;
                    }
                }
            }
            if !good {
                let finding = first.finding(format!("does not hold the public key of {}", key.place));
                faults.add(
                    "sa",
                    finding.remedy("every token would be refused; move it away and run `hoist render` again"),
                );
            }
        }
    }
}

/// The certificates that stand elsewhere than in tls/, and are none of its: in Secrets, ConfigMaps, webhooks and kubeconfigs; each
/// with its position.
pub(super) fn copies(inventory: &Inventory<'_>) -> Vec<(CertificateCopy, Option<Position>)> {
    let known = inventory.contents.tls.values().flat_map(|content| certificates::in_pem("", "", content));
    let known: BTreeSet<_> = known.map(|copy| copy.pem).collect();
    let files: Vec<_> = kubeconfigs::all(inventory).into_iter().filter_map(|file| file.object).collect();
    let mut found = Vec::new();
    for object in inventory.objects.iter().chain(&files) {
        for (path, content) in certificates::fields(object.value()) {
            let copies = certificates::copies(object.place(), "", "", &content).into_iter();
            let position = object.position(&path);
            found.extend(copies.filter(|copy| !known.contains(&copy.pem)).map(|copy| (copy, position)));
        }
    }
    found
}
