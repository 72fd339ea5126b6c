//! An asset directory that bootkube rendered (v0.14, the last): how hoist recognises it, why hoist does not start it,
//! and how to take its CA and keys into a directory that hoist starts. docs/from-bootkube.md has the steps.

use std::path::Path;

use crate::base::error::Finding;
use crate::base::input;
use crate::base::yaml;

/// Files that bootkube writes and hoist does not. One alone may be a coincidence.
const SIGNS: [&str; 6] = [
    "bootstrap-manifests/bootstrap-apiserver.yaml",
    "bootstrap-manifests/bootstrap-controller-manager.yaml",
    "bootstrap-manifests/bootstrap-scheduler.yaml",
    "tls/service-account.key",
    "manifests/kube-system-rbac-role-binding.yaml",
    "manifests/pod-checkpointer.yaml",
];

/// API versions of bootkube's time that Kubernetes no longer serves, and since when.
const GONE: [(&str, &str); 6] = [
    ("extensions/v1beta1", "1.22"),
    ("apps/v1beta1", "1.16"),
    ("apps/v1beta2", "1.16"),
    ("apiextensions.k8s.io/v1beta1", "1.22"),
    ("rbac.authorization.k8s.io/v1beta1", "1.22"),
    ("policy/v1beta1", "1.25"),
];

/// What there is to say of `dir` if bootkube rendered it; nothing otherwise.
pub(super) fn findings(dir: &Path) -> Vec<Finding> {
    let there: Vec<_> = SIGNS.into_iter().filter(|sign| dir.join(sign).is_file()).collect();
    if there.len() < 2 {
        return Vec::new();
    }
    let at = |path: &str| dir.join(path).display().to_string();
    let tls = dir.join("tls");
    let message = format!("was rendered by bootkube ({}), and hoist cannot start it", there.join(", "));
    let mut findings = vec![Finding::new(dir.display().to_string(), message).remedy(format!(
        "render a new asset directory with its CA and key: in a cluster.yaml, pki: {{ca: {{certificate: {0}/ca.crt, key: \
         {0}/ca.key}}, serviceAccountKey: {0}/service-account.key}}; then copy your own manifests into its manifests/. \
         Step by step: docs/from-bootkube.md",
        tls.display()
    ))];
    let bootstrap = "bootstrap-manifests/bootstrap-apiserver.yaml";
    if dir.join(bootstrap).is_file() {
        let finding =
            Finding::new(at(bootstrap), "this API server takes the port of the self-hosted one until it is torn down");
        findings.push(finding.remedy("leave bootstrap-manifests/ out: `hoist render` makes the bridge instead"));
    }
    findings.extend(manifests(&dir.join("manifests")));
    findings
}

/// What in the manifests is not to be carried over as it is.
fn manifests(dir: &Path) -> Vec<Finding> {
    let mut paths: Vec<_> = std::fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    paths.sort();
    let mut findings = Vec::new();
    for path in paths {
        let place = path.display().to_string();
        // What cannot be read is no part of the reason.
        let Ok(content) = input::read(&path, input::ASSET_LIMIT) else { continue };
        let documents = input::text(&place, &content).ok().and_then(|text| yaml::documents(&place, text).ok());
        for document in documents.unwrap_or_default() {
            let text = |pointer: &str| document.value.pointer(pointer).and_then(serde_json::Value::as_str);
            if text("/roleRef/name") == Some("cluster-admin")
                && text("/subjects/0/name") == Some("default")
                && text("/subjects/0/namespace") == Some("kube-system")
            {
                let finding =
                    Finding::new(&place, "gives all rights to every pod in kube-system without an account of its own");
                let finding = finding.at(document.positions.get("roleRef.name"));
                findings.push(finding.remedy("leave it out; give your pods there accounts and roles of their own"));
            }
            let gone = GONE.iter().find(|(version, _)| text("/apiVersion") == Some(version));
            if let Some((version, since)) = gone {
                let finding = Finding::new(&place, format!("{version} is not served since Kubernetes {since}"));
                let finding = finding.at(document.positions.get("apiVersion"));
                findings.push(
                    finding.remedy("if it is yours, write it in the version that followed; otherwise leave it out"),
                );
            }
        }
    }
    findings
}
