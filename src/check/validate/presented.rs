//! The certificates that components present to each other, according to the flags and kubeconfigs on the disk.

use std::collections::BTreeMap;

use serde_json::Value;

use super::faults::Faults;
use super::files::{KUBELET_CA, Source};
use super::inventory::{Inventory, Object, Running, text};
use crate::desired::config::Controller;
use crate::desired::known_flags::Program::{self, ApiServer, ControllerManager, Etcd, Kubelet};
use crate::desired::pki::verify::{self, Certificate, Needed};

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
pub(super) struct Presented<'a> {
    pub running: Vec<Running<'a>>,
    pub certs: Vec<Cert>,
}

impl<'a> Presented<'a> {
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
