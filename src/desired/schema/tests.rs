use serde_json::{Value, json};

use super::table::{API, CONFIG, Shape};
use super::*;

fn version(minor: u32) -> Version {
    Version { major: 1, minor, patch: 0 }
}

/// The problems as lines, with their remedies.
fn lines(problems: Vec<Problem>) -> Vec<String> {
    let line = |problem: Problem| {
        format!(
            "{}: {}{}",
            problem.path,
            problem.message,
            problem.remedy.map(|r| format!(" | {r}")).unwrap_or_default()
        )
    };
    problems.into_iter().map(line).collect()
}

fn found(minor: u32, document: &Value) -> Vec<String> {
    lines(check(document, Some(version(minor)), Reader::ApiServer))
}

fn pod(spec: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}, "spec": spec})
}

#[test]
fn every_line_of_the_tables_is_understood() {
    for (name, table) in [("api", &*API), ("config", &*CONFIG)] {
        assert_eq!(table.misread, 0, "{name}");
        assert!(table.newest >= 36, "{name}: {}", table.newest);
        let text = std::fs::read_to_string(format!("assets/schemas/{name}")).unwrap();
        assert!(text.lines().count() > 250, "{name}");
        for kinds in table.kinds.values() {
            for (kind, of) in kinds {
                assert!(of.span.since.is_none() || of.span.since > Some(34), "{kind}");
            }
        }
    }
    // Fields are looked up by name.
    let mut at = 0;
    let mut types = 0;
    let is_type = |line: &&str| !line.starts_with([' ', '#']) && !line.starts_with("kind ");
    types += std::fs::read_to_string("assets/schemas/api").unwrap().lines().filter(is_type).count();
    while at < types {
        assert!(API.fields(at).is_sorted_by_key(|field| field.name), "{at}");
        at += 1;
    }
    assert!(matches!(API.fields(API.kind("v1", "Pod", None).unwrap())[0].shape, Shape::Scalar(_)));
}

#[test]
fn mistyped_fields_and_wrong_types_have_their_paths() {
    let spec = json!({"containers": [{"name": "a", "imgae": "b", "securityContext": {"privilged": true, "privileged": "true"},
        "resources": {"limits": {"cpu": 1, "memory": "512MB"}}, "args": ["--a", 1], "stdin": 1}]});
    assert_eq!(
        found(36, &pod(spec)),
        [
            "spec.containers[0].imgae: unknown field `imgae` | did you mean `image`?",
            "spec.containers[0].securityContext.privilged: unknown field `privilged` | did you mean `privileged`?",
            "spec.containers[0].securityContext.privileged: expected true or false, found \"true\" | write it without quotes",
            "spec.containers[0].resources.limits.memory: expected a quantity, found \"512MB\" | write it like 500m, 2, 64Mi or 1G",
            "spec.containers[0].args[1]: expected a string, found 1 | write it in quotes",
            "spec.containers[0].stdin: expected true or false, found 1",
        ]
    );
    assert_eq!(
        found(36, &pod(json!({"containers": "none", "hostNetwork": null, "zzz": {}}))),
        [
            "spec.containers: expected a list, found \"none\" | write each item on a line of its own, with `- ` before it",
            "spec.zzz: unknown field `zzz`",
        ]
    );
    let deployment = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "a"},
        "spec": {"replicas": "3", "minReadySeconds": 1.5, "revisionHistoryLimit": 5_000_000_000_i64,
            "selector": {"matchLabels": {"a": 1}}, "template": []}});
    assert_eq!(
        found(36, &deployment),
        [
            "spec.replicas: expected an integer of 32 bits, found \"3\" | write it without quotes",
            "spec.minReadySeconds: expected an integer of 32 bits, found 1.5",
            "spec.revisionHistoryLimit: expected an integer of 32 bits, found 5000000000",
            "spec.selector.matchLabels.a: expected a string, found 1 | write it in quotes",
            "spec.template: expected a map, found a list",
        ]
    );
}

#[test]
fn fields_come_and_go_with_versions() {
    let spec = json!({"containers": [{"name": "a", "image": "b"}], "volumes": [{"name": "v", "projected": {"sources": [
        {"podCertificate": {"signerName": "a/b", "keyType": "ED25519", "userAnnotations": {"a": "b"}}}]}}]});
    assert_eq!(
        found(34, &pod(spec.clone())),
        [
            "spec.volumes[0].projected.sources[0].podCertificate.userAnnotations: `userAnnotations` was added in Kubernetes 1.35, \
          and this cluster is of 1.34 | remove it"
        ]
    );
    assert!(found(36, &pod(spec.clone())).is_empty());
    // Nobody knows the fields of a version to come, and without a version those of all count.
    let newer = pod(json!({"containers": [{"name": "a", "image": "b", "fromTomorrow": 1, "stdin": "no"}]}));
    assert_eq!(found(99, &newer), ["spec.containers[0].stdin: expected true or false, found \"no\""]);
    assert!(check(&pod(spec), None, Reader::ApiServer).is_empty());
}

#[test]
fn a_custom_resource_definition_as_a_newer_cluster_exports_it() {
    let schema = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true, "properties": {
        "a": {"type": "array", "items": {"type": "string", "tpye": 1, "default": {"any": [1]}}, "default": 1, "enum": [1, "a"]},
        "b": {"additionalProperties": false, "maximum": 1.5}, "c": {"additionalProperties": {"maxLength": "a"}},
        "d": {"typo": 1}}});
    let mut crd = json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": "a.b"},
        "spec": {"group": "b", "scope": "Namespaced", "names": {"kind": "A", "plural": "a"},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema}}]},
        "status": {"observedGeneration": 1, "acceptedNames": {"kind": "", "plural": ""}, "storedVersions": null,
            "conditions": [{"type": "Established", "status": "True", "observedGeneration": 1}]}});
    let schema = "spec.versions[0].schema.openAPIV3Schema.properties";
    let wrong = [
        format!("{schema}.c.additionalProperties.maxLength: expected an integer, found \"a\""),
        format!("{schema}.d.typo: unknown field `typo` | did you mean `type`?"),
    ];
    assert_eq!(found(36, &crd), wrong);
    assert!(found(34, &crd).len() > 2, "{:?}", found(34, &crd));
    crd["status"] = json!(null);
    assert_eq!(found(34, &crd), wrong);
}

#[test]
fn items_with_one_key() {
    let spec = json!({"containers": [
        {"name": "a", "env": [{"name": "A", "value": "1"}, {"name": "B"}, {"name": "A"}],
            "ports": [{"containerPort": 53}, {"containerPort": 53, "protocol": "UDP"}, {"containerPort": 53, "protocol": "TCP"}]},
        {"name": "a"}]});
    let wrong = [
        "spec.containers[0].env[2]: has name A as spec.containers[0].env[0] has: the API server takes that once | keep one of them",
        "spec.containers[0].ports[2]: has containerPort 53, protocol TCP as spec.containers[0].ports[0] has: the API server takes \
         that once | keep one of them",
        "spec.containers[1]: has name a as spec.containers[0] has: the API server takes that once | keep one of them",
    ];
    assert_eq!(found(36, &pod(spec.clone())), wrong);
    // The kubelet applies nothing.
    assert!(check(&pod(spec), Some(version(36)), Reader::Kubelet).is_empty());
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount",
        "metadata": {"name": "a", "finalizers": ["a", "b", "a"]}, "secrets": [{"kind": "a"}, {"kind": "b"}]});
    assert_eq!(
        found(36, &account),
        [
            "metadata.finalizers[2]: has \"a\" as metadata.finalizers[0] has: the API server takes that once | keep one of them"
        ]
    );
}

#[test]
fn what_must_be_there() {
    assert_eq!(
        found(
            36,
            &json!({"apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": {"name": "a"},
            "spec": {"template": {"spec": {"containers": [{"image": "a"}]}}}})
        ),
        [
            "spec.template.spec.containers[0].name: it is required | add name: …",
            "spec.selector: it is required | add selector: …",
        ]
    );
    assert!(found(36, &json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": "a"}, "rules": null})).is_empty());
}

#[test]
fn kinds_of_others_are_not_judged() {
    assert!(found(36, &json!({"apiVersion": "x/v1", "kind": "Y", "anything": 1})).is_empty());
}

#[test]
fn fields_of_configurations() {
    let found = |config, fields: Value, minor| lines(check_config(config, &fields, version(minor), "kubelet.config"));
    let fields = json!({"maxPods": "200", "evictionHard": {"memory.available": 100}, "syncFrequency": "1d", "maxPod": 1,
        "featureGates": {"A": "true"}, "tlsCurvePreferences": [29], "cpuCFSQuotaPeriod": null, "fileCheckFrequency": null,
        "memoryThrottlingFactor": 0.5, "nodeStatusUpdateFrequency": 10, "logging": {"verbosity": -1, "flushFrequency": 5}});
    assert_eq!(
        found(Config::Kubelet, fields, 35),
        [
            "kubelet.config.maxPods: expected an integer of 32 bits, found \"200\" | write it without quotes",
            "kubelet.config.evictionHard[\"memory.available\"]: expected a string, found 100 | write it in quotes",
            "kubelet.config.syncFrequency: expected a duration, found \"1d\" | write it like 10s or 1h30m",
            "kubelet.config.maxPod: unknown field `maxPod` | did you mean `maxPods`?",
            "kubelet.config.featureGates.A: expected true or false, found \"true\" | write it without quotes",
            "kubelet.config.tlsCurvePreferences: `tlsCurvePreferences` was added in Kubernetes 1.36, and the kubelet is of 1.35 | remove it",
            "kubelet.config.fileCheckFrequency: expected a duration, found nothing | write it like 10s or 1h30m",
            "kubelet.config.nodeStatusUpdateFrequency: expected a duration, found 10 | write it with its unit, like 10s",
            "kubelet.config.logging.verbosity: expected an integer from 0 on, found -1",
        ]
    );
    assert_eq!(
        found(
            Config::KubeProxy,
            json!({"conntrack": {"maxPerCore": "0", "min": null}, "clientConnection": {"qps": 0.5}}),
            36
        ),
        ["kubelet.config.conntrack.maxPerCore: expected an integer of 32 bits, found \"0\" | write it without quotes"]
    );
}

#[test]
fn kinds_that_a_version_does_not_serve() {
    let said = |api_version: &str, kind: &str, minor, on: &[&str]| {
        let document = json!({"apiVersion": api_version, "kind": kind});
        let found = unserved(&document, version(minor), |version| on.contains(&version))?;
        Some(format!(
            "{}: {}{}",
            found.field,
            found.message,
            found.remedy.map(|r| format!(" | {r}")).unwrap_or_default()
        ))
    };
    for (api_version, kind, minor, expected) in [
        ("v1", "Pod", 36, None),
        ("v1", "PodList", 36, None),
        ("apps/v1", "Deployment", 36, None),
        ("example.com/v1", "Anything", 36, None),
        (
            "apps/v1",
            "Deploymnt",
            36,
            Some("kind: apps/v1 has no Deploymnt to apply in Kubernetes 1.36 | did you mean `Deployment`?"),
        ),
        (
            "v1",
            "Deployment",
            36,
            Some("apiVersion: v1 has no Deployment to apply in Kubernetes 1.36 | write apiVersion: apps/v1"),
        ),
        (
            "apps/v1beta2",
            "Deployment",
            36,
            Some("apiVersion: Kubernetes 1.36 does not serve apps/v1beta2 | write apiVersion: apps/v1"),
        ),
        (
            "extensions/v1beta1",
            "Ingress",
            36,
            Some(
                "apiVersion: Kubernetes 1.36 does not serve extensions/v1beta1 | write apiVersion: networking.k8s.io/v1",
            ),
        ),
        ("policy/v1beta1", "PodSecurityPolicy", 36, Some("apiVersion: Kubernetes 1.36 does not serve policy/v1beta1")),
        ("batch/v1beta1", "CronJob", 99, None),
        (
            "resource.k8s.io/v1beta1",
            "DeviceClass",
            36,
            Some("apiVersion: resource.k8s.io/v1beta1 is off by default | write apiVersion: resource.k8s.io/v1"),
        ),
        (
            "admissionregistration.k8s.io/v1",
            "MutatingAdmissionPolicy",
            35,
            Some(
                "apiVersion: MutatingAdmissionPolicy of admissionregistration.k8s.io/v1 was added in Kubernetes 1.36, and this cluster is of 1.35",
            ),
        ),
    ] {
        assert_eq!(said(api_version, kind, minor, &[]).as_deref(), expected, "{api_version} {kind}");
    }
    assert_eq!(said("resource.k8s.io/v1beta1", "DeviceClass", 36, &["resource.k8s.io/v1beta1"]), None);
}
