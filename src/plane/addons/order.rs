//! The order in which add-ons are applied: pure. The ranks are those of CKE, whose list has no webhooks and custom
//! resources; hoist applies these last, after the workloads that serve them.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::base::error::{Error, Finding, Result};
use crate::desired::assets::{Manifest, helm};

/// Where a user says the rank; the first that is there counts.
const ANNOTATIONS: [&str; 2] = ["hoist/rank", "cke.cybozu.com/rank"];

/// The groups that Kubernetes itself serves.
const OWN_GROUPS: [&str; 23] = [
    "",
    "admissionregistration.k8s.io",
    "apiextensions.k8s.io",
    "apiregistration.k8s.io",
    "apps",
    "authentication.k8s.io",
    "authorization.k8s.io",
    "autoscaling",
    "batch",
    "certificates.k8s.io",
    "coordination.k8s.io",
    "discovery.k8s.io",
    "events.k8s.io",
    "flowcontrol.apiserver.k8s.io",
    "internal.apiserver.k8s.io",
    "networking.k8s.io",
    "node.k8s.io",
    "policy",
    "rbac.authorization.k8s.io",
    "resource.k8s.io",
    "scheduling.k8s.io",
    "storage.k8s.io",
    "storagemigration.k8s.io",
];

/// Add-ons by rank.
#[derive(Debug, Default)]
pub struct Order<'a>(pub(super) BTreeMap<u32, Vec<&'a Manifest>>);

impl<'a> Order<'a> {
    /// The order of `manifests`.
    ///
    /// # Errors
    /// Ranks that are no numbers.
    pub fn of(manifests: &'a [Manifest]) -> Result<Self> {
        let mut ranks: BTreeMap<u32, Vec<&Manifest>> = BTreeMap::new();
        let mut findings = Vec::new();
        for manifest in manifests {
            match rank(manifest) {
                Ok(rank) => ranks.entry(rank).or_default().push(manifest),
                Err(finding) => findings.push(finding),
            }
        }
        if findings.is_empty() { Ok(Self(ranks)) } else { Err(Error::Input(findings)) }
    }

    /// All of them, in their order.
    pub(super) fn all(&self) -> impl Iterator<Item = &'a Manifest> {
        self.0.values().flatten().copied()
    }

    /// The CRDs among them.
    pub(super) fn crds(&self) -> impl Iterator<Item = &'a Manifest> {
        self.all().filter(|manifest| manifest.text("/kind") == "CustomResourceDefinition")
    }

    /// Whether a workload that serves `service` (namespace and name) comes after `rank`: what asks it cannot work before.
    pub(super) fn is_served_after(&self, rank: u32, (namespace, name): (&str, &str)) -> bool {
        let is_in = |manifest: &Manifest| namespace_of(manifest) == namespace;
        let services = self.all().filter(|manifest| manifest.text("/kind") == "Service" && is_in(manifest));
        let service = services.filter(|manifest| manifest.text("/metadata/name") == name).last();
        let selector = service.and_then(|service| service.object.pointer("/spec/selector")).and_then(Value::as_object);
        let later = || self.0.range(rank + 1..).flat_map(|(_, manifests)| manifests);
        if let Some(service) = service
            && later().any(|manifest| std::ptr::eq(*manifest, service))
        {
            return true;
        }
        let Some(selector) = selector else { return false };
        let serves = |manifest: &Manifest| {
            let labels = manifest.object.pointer("/spec/template/metadata/labels");
            is_in(manifest)
                && labels.is_some_and(|labels| selector.iter().all(|(key, value)| labels.get(key) == Some(value)))
        };
        later().any(|manifest| serves(manifest))
    }
}

/// The namespace that an object with one is in.
pub(super) fn namespace_of(manifest: &Manifest) -> &str {
    match manifest.text("/metadata/namespace") {
        "" => "default",
        namespace => namespace,
    }
}

/// The add-on that a manifest is of: its folder in addons/, or its file.
pub(super) fn addon(manifest: &Manifest) -> &str {
    let below = manifest.path.strip_prefix("addons/").unwrap_or(&manifest.path);
    below.split('/').next().unwrap_or_default()
}

/// The rank of a manifest: what its annotation says, or its kind.
///
/// # Errors
/// An annotation that is no number.
fn rank(manifest: &Manifest) -> Result<u32, Finding> {
    let annotations = manifest.object.pointer("/metadata/annotations");
    let said = ANNOTATIONS.iter().find_map(|name| Some((*name, annotations?.get(name)?)));
    let Some((name, value)) = said else { return Ok(by_hook(manifest).unwrap_or_else(|| by_kind(manifest))) };
    let parsed = value.as_str().and_then(|text| text.parse().ok());
    parsed.filter(|rank| *rank < u32::MAX).ok_or_else(|| {
        let finding = Finding::new(&manifest.path, format!("{name}: {value} is not a rank"));
        finding.at(Some((manifest.line, 1))).remedy(format!("write a number in quotes, as {name}: \"3000\""))
    })
}

/// Hooks of Helm that run something: before all that is waited for, and after everything else, by their weights.
fn by_hook(manifest: &Manifest) -> Option<u32> {
    const MOST: i64 = 99;
    let by = |rank: u32, weight: i64| u32::try_from(i64::from(rank) + weight.clamp(-MOST, MOST)).unwrap_or(rank);
    match helm::hook(&manifest.object).filter(|_| ["Job", "Pod"].contains(&manifest.text("/kind")))? {
        helm::Hook::Before(weight) => Some(by(2900, weight)),
        helm::Hook::After(weight) => Some(by(6000, weight)),
        helm::Hook::Installed | helm::Hook::Elsewhere(_) => None,
    }
}

fn by_kind(manifest: &Manifest) -> u32 {
    let (kind, version) = (manifest.text("/kind"), manifest.text("/apiVersion"));
    let group = version.split_once('/').map_or("", |(group, _)| group);
    if !OWN_GROUPS.contains(&group) {
        return 5000;
    }
    match kind {
        "Namespace" => 10,
        "ServiceAccount" => 20,
        "CustomResourceDefinition" => 30,
        "ClusterRole" => 40,
        "ClusterRoleBinding" => 50,
        // They ask workloads: whatever comes while these are not there is refused.
        "APIService" | "MutatingWebhookConfiguration" | "ValidatingWebhookConfiguration" => 4000,
        "Role" => 2000,
        "RoleBinding" => 2010,
        "NetworkPolicy" => 2020,
        "Secret" => 2030,
        "ConfigMap" => 2040,
        _ if is_of_cluster(group, kind) => 1000,
        _ => 3000,
    }
}

/// Whether a kind of Kubernetes' own has no namespaces.
fn is_of_cluster(group: &str, kind: &str) -> bool {
    match group {
        "" => matches!(kind, "Node" | "PersistentVolume"),
        "networking.k8s.io" => matches!(kind, "IngressClass" | "IPAddress" | "ServiceCIDR"),
        "storage.k8s.io" => kind != "CSIStorageCapacity",
        "resource.k8s.io" => matches!(kind, "DeviceClass" | "DeviceTaintRule" | "ResourceSlice"),
        "coordination.k8s.io" | "discovery.k8s.io" | "events.k8s.io" | "apps" | "autoscaling" | "batch" | "policy" => {
            false
        }
        "rbac.authorization.k8s.io" => kind.starts_with("Cluster"),
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn manifest(version: &str, kind: &str, annotations: Value) -> Manifest {
        let metadata = json!({"name": "a", "annotations": annotations});
        Manifest {
            path: "addons/one/a.yaml".into(),
            line: 7,
            object: json!({"apiVersion": version, "kind": kind, "metadata": metadata}),
        }
    }

    #[test]
    fn kinds_have_the_ranks_of_cke_and_what_asks_workloads_comes_after_them() {
        let order = [
            ("v1", "Namespace"),
            ("v1", "ServiceAccount"),
            ("apiextensions.k8s.io/v1", "CustomResourceDefinition"),
            ("rbac.authorization.k8s.io/v1", "ClusterRole"),
            ("rbac.authorization.k8s.io/v1", "ClusterRoleBinding"),
            ("storage.k8s.io/v1", "StorageClass"),
            ("rbac.authorization.k8s.io/v1", "Role"),
            ("rbac.authorization.k8s.io/v1", "RoleBinding"),
            ("networking.k8s.io/v1", "NetworkPolicy"),
            ("v1", "Secret"),
            ("v1", "ConfigMap"),
            ("apps/v1", "Deployment"),
            ("admissionregistration.k8s.io/v1", "ValidatingWebhookConfiguration"),
            ("cert-manager.io/v1", "ClusterIssuer"),
        ];
        let ranks: Vec<_> =
            order.iter().map(|(version, kind)| rank(&manifest(version, kind, json!({}))).unwrap()).collect();
        assert_eq!(ranks, [10, 20, 30, 40, 50, 1000, 2000, 2010, 2020, 2030, 2040, 3000, 4000, 5000]);
        for (version, kind, expected) in [
            ("v1", "Service", 3000),
            ("networking.k8s.io/v1", "Ingress", 3000),
            ("networking.k8s.io/v1", "IngressClass", 1000),
            ("scheduling.k8s.io/v1", "PriorityClass", 1000),
            ("admissionregistration.k8s.io/v1", "ValidatingAdmissionPolicy", 1000),
            ("gateway.networking.k8s.io/v1", "Gateway", 5000),
        ] {
            assert_eq!(rank(&manifest(version, kind, json!({}))).unwrap(), expected, "{kind}");
        }
    }

    #[test]
    fn helms_hooks_run_before_and_after_the_rest_by_their_weights() {
        let of = |kind: &str, event: &str, weight: &str| {
            let annotations = json!({"helm.sh/hook": event, "helm.sh/hook-weight": weight});
            rank(&manifest(if kind == "Job" { "batch/v1" } else { "v1" }, kind, annotations)).unwrap()
        };
        assert_eq!(of("Job", "pre-install,pre-upgrade", "-5"), 2895);
        assert_eq!(of("Job", "post-install", "1"), 6001);
        assert_eq!(of("Pod", "post-upgrade", "10000"), 6099);
        assert_eq!(of("ConfigMap", "pre-install", "-5"), 2040, "what runs nothing comes by its kind");
        let said = json!({"helm.sh/hook": "post-install", "hoist/rank": "7"});
        assert_eq!(rank(&manifest("batch/v1", "Job", said)).unwrap(), 7);
    }

    #[test]
    fn an_annotation_counts_for_more_hoists_own_for_most() {
        let of = |annotations| rank(&manifest("v1", "Service", annotations));
        assert_eq!(of(json!({"cke.cybozu.com/rank": "2100"})).unwrap(), 2100);
        assert_eq!(of(json!({"cke.cybozu.com/rank": "2100", "hoist/rank": "7"})).unwrap(), 7);
        for wrong in [json!("soon"), json!(""), json!("-1"), json!("4294967295")] {
            let finding = of(json!({"hoist/rank": wrong})).unwrap_err().to_string();
            assert!(
                finding.starts_with("addons/one/a.yaml:7:1: hoist/rank: ") && finding.contains("in quotes"),
                "{finding}"
            );
        }
        let wrong = [manifest("v1", "Service", json!({"hoist/rank": "x"}))];
        assert!(matches!(Order::of(&wrong), Err(Error::Input(findings)) if findings.len() == 1));
    }

    #[test]
    fn an_add_on_is_a_folder_or_a_file() {
        let of = |path: &str| {
            let manifest = Manifest { path: path.into(), line: 1, object: json!({}) };
            addon(&manifest).to_owned()
        };
        assert_eq!(
            [of("addons/x/deep/a.yaml"), of("addons/y.yaml"), of("manifests/z.yaml")],
            ["x", "y.yaml", "manifests"]
        );
    }

    #[test]
    fn a_service_is_served_once_its_workload_was_applied() {
        let deployment = |rank: &str| Manifest {
            object: json!({"apiVersion": "apps/v1", "kind": "Deployment",
                "metadata": {"name": "hook", "namespace": "demo", "annotations": {"hoist/rank": rank}},
                "spec": {"template": {"metadata": {"labels": {"app": "hook", "more": "x"}}}}}),
            ..manifest("", "", json!({}))
        };
        let service = Manifest {
            object: json!({"apiVersion": "v1", "kind": "Service",
                "metadata": {"name": "hook", "namespace": "demo", "annotations": {"hoist/rank": "20"}},
                "spec": {"selector": {"app": "hook"}}}),
            ..manifest("", "", json!({}))
        };
        let after = |rank: &str, asked, name| {
            let all = [service.clone(), deployment(rank)];
            Order::of(&all).unwrap().is_served_after(asked, ("demo", name))
        };
        assert!(after("30", 10, "hook"), "the Service itself is to come");
        assert!(after("30", 20, "hook"), "its workload is to come");
        assert!(!after("30", 30, "hook"));
        assert!(!after("30", 10, "of-somebody-else"));
    }
}
