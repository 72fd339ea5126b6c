//! Who shows which certificate to whom, as flags and kubeconfigs on the disk say.

use std::collections::BTreeMap;

use serde_json::Value;

use super::certificates::{AGAIN, Faults, field};
use super::files::{KUBELET_CA, Resolved, Source};
use super::inventory::{Inventory, Object, Running, text};
use super::kubeconfigs;
use crate::desired::config::Controller;
use crate::desired::known_flags::Program::{self, ApiServer, ControllerManager, Etcd, Kubelet, Scheduler};
use crate::desired::pki::verify::{self, Certificate, Needed};
use crate::desired::secrets::COMPONENTS;

/// Flags that name a certificate and its key, and the leaf in tls/ that is meant (of etcd's, the controller's own).
const PAIRS: [(Program, &str, &str, &str); 7] = [
    (ApiServer, "tls-cert-file", "tls-private-key-file", "apiserver"),
    (ApiServer, "etcd-certfile", "etcd-keyfile", "apiserver-etcd-client"),
    (ApiServer, "kubelet-client-certificate", "kubelet-client-key", "apiserver-kubelet-client"),
    (ApiServer, "proxy-client-cert-file", "proxy-client-key-file", "front-proxy-client"),
    (ControllerManager, "cluster-signing-cert-file", "cluster-signing-key-file", "ca"),
    (Etcd, "cert-file", "key-file", "server"),
    (Etcd, "peer-cert-file", "peer-key-file", "peer"),
];

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

pub(super) const KUBELET_CONFIG: &str = "kubelet/config.yaml";

/// A certificate that a flag names.
pub(super) struct Cert {
    pub program: Program,
    pub flag: &'static str,
    pub controller: usize,
    pub source: Source,
    pub chain: Vec<Certificate>,
}

/// All of them, and the programs.
pub(super) struct Shown<'a> {
    pub running: Vec<Running<'a>>,
    pub certs: Vec<Cert>,
}

impl<'a> Shown<'a> {
    /// Reads every certificate that a flag names, and holds each against its key and its purpose.
    pub fn of(inventory: &'a Inventory<'_>, faults: &mut Faults) -> Self {
        let needed: BTreeMap<_, _> =
            verify::needed(inventory.cluster).into_iter().map(|needed| (needed.stem.clone(), needed)).collect();
        let running = inventory.running();
        let mut certs = Vec::new();
        for run in &running {
            for (_, flag, key_flag, leaf) in PAIRS.into_iter().filter(|(program, ..)| *program == run.program) {
                for (controller_index, controller) in inventory.cluster.controllers.iter().enumerate() {
                    let Some(source) = inventory.content(run, flag, controller) else { continue };
                    let Some(chain) = faults.read(&source) else { continue };
                    if let Some(key) = inventory.content(run, key_flag, controller) {
                        faults.key(&chain[0], &source, &key);
                    }
                    let stem = match run.program {
                        Etcd => format!("etcd/{}/{leaf}", controller.name),
                        _ => leaf.to_owned(),
                    };
                    if let Some(needed) = needed.get(&stem) {
                        purpose(faults, run, flag, &source, &chain, needed);
                    }
                    certs.push(Cert { program: run.program, flag, controller: controller_index, source, chain });
                }
            }
        }
        Self { running, certs }
    }

    /// What the flag `flag` of each `program` names on a controller.
    pub fn contents(
        &self,
        inventory: &Inventory<'_>,
        program: Program,
        flag: &str,
        controller: &Controller,
    ) -> Vec<Source> {
        if program == Kubelet {
            // What `start` puts where the kubelet's configuration names it.
            let kubelet = inventory.kubelet_config();
            let pointer = "/authentication/x509/clientCAFile";
            let named = kubelet.as_ref().and_then(|object| object.value().pointer(pointer)?.as_str());
            return (named == Some(KUBELET_CA)).then(|| inventory.tls_source("ca.crt")).flatten().into_iter().collect();
        }
        let of = |run: &&Running<'_>| run.program == program;
        self.running.iter().filter(of).filter_map(|run| inventory.content(run, flag, controller)).collect()
    }
}

/// Holds a certificate against what a flag uses it for. One of tls/ that is the one meant was judged there; where the
/// flag names another of tls/, it is the flag that is wrong.
fn purpose(
    faults: &mut Faults,
    run: &Running<'_>,
    flag: &str,
    source: &Source,
    chain: &[Certificate],
    needed: &Needed,
) {
    match &source.tls {
        Some(path) if *path == format!("{}.crt", needed.stem) => {}
        Some(path) => {
            faults
                .purpose(&chain[0], needed, |message| run.finding(flag, format!("names tls/{path}, which {message}")));
        }
        None => faults.purpose(&chain[0], needed, |message| source.finding(message)),
    }
}

/// Holds what is shown against who is to trust it, and keys against each other.
pub(super) fn check(inventory: &Inventory<'_>, shown: &Shown<'_>, faults: &mut Faults) {
    let mut judged = BTreeMap::new();
    for cert in &shown.certs {
        let controller = &inventory.cluster.controllers[cert.controller];
        let trusting = TRUST.iter().filter(|(program, flag, ..)| (*program, *flag) == (cert.program, cert.flag));
        for (_, _, by, ca_flag) in trusting {
            for ca in shown.contents(inventory, *by, ca_flag, controller) {
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
    signing_ca(shown, faults);
    front_proxy(inventory, shown, faults);
    service_accounts(inventory, shown, faults);
    kubeconfigs::check(inventory, shown, faults);
}

/// kube-controller-manager takes one certificate to sign with, and exits on more.
fn signing_ca(shown: &Shown<'_>, faults: &mut Faults) {
    for cert in shown.certs.iter().filter(|cert| cert.flag == "cluster-signing-cert-file" && cert.chain.len() > 1) {
        let finding = cert.source.finding("holds several certificates, and kube-controller-manager signs with one");
        faults.add("several", finding.remedy("leave only the first one in it"));
    }
}

/// The API server's own name is among those that it lets speak for others.
fn front_proxy(inventory: &Inventory<'_>, shown: &Shown<'_>, faults: &mut Faults) {
    for run in shown.running.iter().filter(|run| run.program == ApiServer) {
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
fn service_accounts(inventory: &Inventory<'_>, shown: &Shown<'_>, faults: &mut Faults) {
    let Some(controller) = inventory.cluster.controllers.first() else { return };
    let mut signing = shown.contents(inventory, ApiServer, "service-account-signing-key-file", controller);
    signing.extend(shown.contents(inventory, ControllerManager, "service-account-private-key-file", controller));
    for run in shown.running.iter().filter(|run| run.program == ApiServer) {
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

/// Certificates of the control plane that stand elsewhere than in tls/, and are not the same: in Secrets and kubeconfigs.
pub(super) fn copies(inventory: &Inventory<'_>) -> Vec<Source> {
    let mut copies: Vec<Source> = Vec::new();
    let Some(controller) = inventory.cluster.controllers.first() else { return copies };
    let mut add = |bytes: Vec<u8>, object: &Object, path: &str| {
        let text = String::from_utf8_lossy(&bytes);
        let is_certificate = text.trim_start().starts_with("-----BEGIN CERTIFICATE");
        let is_part = |content: &Vec<u8>| String::from_utf8_lossy(content).contains(text.trim());
        if is_certificate && !inventory.contents.tls.values().any(is_part) {
            copies.push(inventory.source(&bytes, controller, object.place(), object.position(path)));
        }
    };
    for name in COMPONENTS {
        let Some(object) = inventory.object("Secret", "kube-system", name) else { continue };
        let data = object.value().get("data").and_then(Value::as_object);
        for (key, _) in data.into_iter().flatten() {
            let path = crate::base::yaml::child("data", key);
            let Some(bytes) = field(&object.value()["data"], &format!("/{key}")) else { continue };
            add(bytes, object, &path);
        }
    }
    for file in kubeconfigs::all(inventory) {
        for (bytes, path) in [(&file.ca, file.ca_path()), (&file.certificate, file.certificate_path())] {
            if let (Some(bytes), Some(object)) = (bytes, &file.object) {
                add(bytes.clone(), object, &path);
            }
        }
    }
    copies
}

impl Inventory<'_> {
    /// The kubelet's configuration.
    pub fn kubelet_config(&self) -> Option<Object> {
        Object::of_file(self.dir, KUBELET_CONFIG, &self.assets.text(KUBELET_CONFIG).ok()?)
    }
}

/// The text at a pointer.
pub(super) fn at<'v>(value: &'v Value, pointer: &str, key: &str) -> Option<&'v str> {
    text(value.pointer(pointer)?, key)
}
