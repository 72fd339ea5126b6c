//! What the version of a cluster knows: fields, kinds, and the configurations of the kubelet and of kube-proxy.

use crate::rendered;
use crate::support::{Directory, Row, check, findings};

const DEPLOYMENT: &str = "manifests/kube-scheduler/deployment.yaml";
const PROXY: &str = "manifests/kube-proxy/config-map.yaml";

#[test]
fn what_the_api_server_refuses() {
    check(&[
        Row {
            path: DEPLOYMENT,
            from: "minReadySeconds: 10",
            to: "minReadySeconds: \"10\"",
            at: "minReadySeconds",
            message: "spec.minReadySeconds: expected an integer of 32 bits, found \"10\"",
        },
        Row {
            path: DEPLOYMENT,
            from: "        - name: HOST_IP",
            to: "        - {name: A, value: b}\n        - {name: A, value: c}\n        - name: HOST_IP",
            at: "{name: A, value: c}",
            message: "spec.template.spec.containers[0].env[1]: has name A as spec.template.spec.containers[0].env[0] has: \
                the API server takes that once",
        },
    ]);
}

#[test]
fn configurations_that_their_components_do_not_read() {
    check(&[
        Row {
            path: "kubelet/config.yaml",
            from: "readOnlyPort: 0",
            to: "readOnlyPort: 0\nmaxPods: \"200\"",
            at: "\"200\"",
            message: "maxPods: expected an integer of 32 bits, found \"200\"",
        },
        Row {
            path: "kubelet/worker-config.yaml",
            from: "readOnlyPort: 0",
            to: "readOnlyPort: 0\nevictionHard:\n  memory.available: 100",
            at: "100",
            message: "evictionHard[\"memory.available\"]: expected a string, found 100",
        },
        Row {
            path: "kubelet/config.yaml",
            from: "readOnlyPort: 0",
            to: "readOnlyPort: 0\nmaxPod: 200",
            at: "maxPod: 200",
            message: "warning: maxPod: unknown field `maxPod`: the kubelet passes over it",
        },
        Row {
            path: PROXY,
            from: "    clusterCIDR:",
            to: "    conntrack:\n      maxPerCore: \"0\"\n    clusterCIDR:",
            at: "\"0\"",
            message: "data[\"config.conf\"]: conntrack.maxPerCore: expected an integer of 32 bits, found \"0\"",
        },
        Row {
            path: PROXY,
            from: "    clusterCIDR:",
            to: "    conntrak: {}\n    clusterCIDR:",
            at: "conntrak",
            message: "warning: data[\"config.conf\"]: conntrak: unknown field `conntrak`: kube-proxy passes over it",
        },
    ]);
}

/// The findings about one more manifest, in a cluster of `version`.
fn about(version: &str, more: &[(&str, &str)]) -> Vec<String> {
    let mut cluster = rendered::cluster("minimal");
    cluster.kubernetes_version = hoist_version(version);
    let mut directory = Directory { set: rendered::render(&cluster) };
    for image in ["kube-apiserver", "kube-controller-manager", "kube-scheduler", "kube-proxy"] {
        let paths: Vec<_> = directory.set.files.keys().filter(|path| rendered::is_manifest(path)).cloned().collect();
        for path in paths {
            let text = directory.text(&path);
            let from = format!("/{image}:{}", hoist::desired::config::KUBERNETES_VERSION);
            if text.contains(&from) {
                directory.put(&path, text.replace(&from, &format!("/{image}:v{version}")));
            }
        }
    }
    for (path, text) in more {
        directory.put(path, *text);
    }
    findings(&directory.set)
}

fn hoist_version(text: &str) -> hoist::desired::config::Version {
    let numbers: Vec<_> = text.split('.').map(|number| number.parse().unwrap()).collect();
    hoist::desired::config::Version { major: numbers[0], minor: numbers[1], patch: numbers[2] }
}

#[test]
fn fields_and_kinds_of_another_version() {
    let pod = "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec:\n  containers: [{name: a, image: b}]\n  volumes:\n  \
        - {name: c, projected: {sources: [{podCertificate: {keyType: ED25519, userAnnotations: {a: b}}}]}}\n";
    let policy = "apiVersion: admissionregistration.k8s.io/v1\nkind: MutatingAdmissionPolicy\nmetadata: {name: a}\n";
    let class = "apiVersion: resource.k8s.io/v1beta1\nkind: DeviceClass\nmetadata: {name: a}\n";
    let other = "apiVersion: example.com/v1beta1\nkind: Thing\nmetadata: {name: a}\nanything: 1\n";
    let more =
        [("addons/a/pod.yaml", pod), ("manifests/b.yaml", policy), ("addons/c.yaml", class), ("addons/d.yaml", other)];
    assert_eq!(
        about("1.34.4", &more),
        [
            "assets/addons/a/pod.yaml:7:73: spec.volumes[0].projected.sources[0].podCertificate.userAnnotations: \
             `userAnnotations` was added in Kubernetes 1.35, and this cluster is of 1.34",
            "assets/addons/c.yaml:1:13: apiVersion: resource.k8s.io/v1beta1 is off by default",
            "assets/manifests/b.yaml:1:13: apiVersion: MutatingAdmissionPolicy of admissionregistration.k8s.io/v1 was added in Kubernetes 1.36, and this cluster is of 1.34",
        ]
    );
    let off = "assets/addons/c.yaml:1:13: apiVersion: resource.k8s.io/v1beta1 is off by default";
    assert_eq!(about("1.36.3", &more), [off]);

    // What the API server's flags switch on, and what others add.
    let mut directory = Directory::new();
    directory.put("addons/c.yaml", class);
    assert_eq!(findings(&directory.set), [off]);
    let api_server = "manifests/kube-apiserver/daemonset.yaml";
    let flag = "- --allow-privileged=true";
    directory.edit(api_server, flag, &format!("{flag}\n        - --runtime-config=resource.k8s.io/v1beta1=true"));
    // The bridge has no use for it.
    assert!(!findings(&directory.set).contains(&off.to_owned()));
    let mut directory = Directory::new();
    let snapshot = "apiVersion: storage.k8s.io/v9\nkind: Thing\nmetadata: {name: a}\n";
    directory.put("addons/a.yaml", snapshot);
    assert_eq!(
        findings(&directory.set),
        ["assets/addons/a.yaml:1:13: apiVersion: Kubernetes 1.37 does not serve storage.k8s.io/v9"]
    );
    let service = "apiVersion: apiregistration.k8s.io/v1\nkind: APIService\nmetadata: {name: v9.storage.k8s.io}\n\
        spec: {group: storage.k8s.io, version: v9, groupPriorityMinimum: 1, versionPriority: 1}\n";
    directory.put("addons/b.yaml", service);
    assert!(findings(&directory.set).is_empty(), "{:?}", findings(&directory.set));
}

#[test]
fn a_custom_resource_definition_of_1_36() {
    let crd = "apiVersion: apiextensions.k8s.io/v1\nkind: CustomResourceDefinition\nmetadata: {name: as.example.com}\nspec:\n  \
        group: example.com\n  scope: Namespaced\n  names: {kind: A, plural: as}\n  versions:\n  \
        - {name: v1, served: true, storage: true, schema: {openAPIV3Schema: {type: object}}}\nstatus:\n  \
        observedGeneration: 1\n  acceptedNames: {kind: A, plural: as}\n  storedVersions: [v1]\n  conditions:\n  \
        - {type: Established, status: \"True\", observedGeneration: 1, lastTransitionTime: null, reason: a, message: b}\n";
    assert!(about("1.36.3", &[("manifests/crd.yaml", crd)]).is_empty());
    assert_eq!(
        about("1.34.4", &[("manifests/crd.yaml", crd)]),
        ["observedGeneration", "conditions[0].observedGeneration"].map(|field| {
            let at = if field.starts_with('c') { "15:41" } else { "11:3" };
            format!(
                "assets/manifests/crd.yaml:{at}: status.{field}: `observedGeneration` was added in Kubernetes 1.35, and this cluster is of 1.34"
            )
        })
    );
}
