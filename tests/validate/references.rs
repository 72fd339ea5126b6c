//! Names that lead nowhere.

use crate::support::{Directory, Row, check, findings};

const API_SERVER: &str = "manifests/kube-apiserver/daemonset.yaml";
const SCHEDULER: &str = "manifests/kube-scheduler/deployment.yaml";
const BRIDGE: &str = "bootstrap-manifests/bridge-kube-apiserver.yaml";

#[test]
fn of_the_control_plane() {
    check(&[
        Row {
            path: API_SERVER,
            from: "secretName: kube-apiserver",
            to: "secretName: kube-apiserve",
            at: "kube-apiserve\n",
            message: "spec.template.spec.volumes[2].secret.secretName: no manifest makes the Secret kube-apiserve of kube-system",
        },
        Row {
            path: API_SERVER,
            from: "serviceAccountName: kube-apiserver",
            to: "serviceAccountName: api",
            at: "api\n",
            message: "spec.template.spec.serviceAccountName: no manifest makes the ServiceAccount api of kube-system",
        },
        Row {
            path: API_SERVER,
            from: "system-node-critical",
            to: "node-critical",
            at: "node-critical",
            message: "spec.template.spec.priorityClassName: no manifest makes the PriorityClass node-critical",
        },
        Row {
            path: API_SERVER,
            from: "- name: secrets\n          mountPath",
            to: "- name: keys\n          mountPath",
            at: "keys\n          mountPath",
            message: "spec.template.spec.containers[0].volumeMounts[2].name: the pod has no volume keys",
        },
        Row {
            path: API_SERVER,
            from: "serving/apiserver.crt",
            to: "serving/server.crt",
            at: "--tls-cert-file",
            message: "--tls-cert-file: there will be no file /etc/kubernetes/serving/server.crt: hoist start puts no /etc/kubernetes/pki/apiserver/server.crt on a controller",
        },
        Row {
            path: API_SERVER,
            from: "/etc/kubernetes/config/audit-policy.yaml",
            to: "/etc/audit.yaml",
            at: "--audit-policy-file",
            message: "--audit-policy-file: there will be no file /etc/audit.yaml: no volume is mounted there",
        },
        Row {
            path: API_SERVER,
            from: "--shutdown-delay-duration=20s",
            to: "--shutdown-delay-duration=$(LONG)",
            at: "--shutdown-delay-duration",
            message: "--shutdown-delay-duration: LONG is not an environment variable of the container",
        },
        Row {
            path: API_SERVER,
            from: "matchLabels:\n      component: kube-apiserver",
            to: "matchLabels:\n      component: apiserver",
            at: "component: apiserver",
            message: "spec.selector.matchLabels: does not select the pods of the object's own template",
        },
        Row {
            path: BRIDGE,
            from: "/etc/kubernetes/bridge/kube-apiserver\n",
            to: "/etc/kubernetes/bridge/apiserver\n",
            at: "/etc/kubernetes/bridge/apiserver",
            message: "spec.volumes[2].hostPath.path: hoist start puts no /etc/kubernetes/bridge/apiserver on a controller",
        },
        Row {
            path: BRIDGE,
            from: "/var/lib/hoist/bin/hoist",
            to: "/var/lib/hoist/hoist",
            at: "/var/lib/hoist/hoist",
            message: "spec.volumes[4].hostPath.path: hoist start puts no /var/lib/hoist/hoist on a controller",
        },
        Row {
            path: BRIDGE,
            from: "secrets/sa.pub",
            to: "secrets/sa.pubic",
            at: "--service-account-key-file",
            message: "--service-account-key-file: there will be no file /etc/kubernetes/secrets/sa.pubic: hoist start puts no /etc/kubernetes/bridge/kube-apiserver/sa.pubic on a controller",
        },
        Row {
            path: BRIDGE,
            from: "  volumes:\n",
            to: "  volumes:\n  - name: token\n    secret:\n      secretName: kube-apiserver\n",
            at: "kube-apiserver\n  - name: audit\n    hostPath",
            message: "spec.volumes[0].secret.secretName: a static pod cannot use a Secret",
        },
        Row {
            path: BRIDGE,
            from: "  hostNetwork: true\n",
            to: "  hostNetwork: true\n  serviceAccountName: kube-apiserver\n",
            at: "kube-apiserver\n  priority:",
            message: "spec.serviceAccountName: a static pod cannot have a service account",
        },
        Row {
            path: "manifests/kube-scheduler/pod-disruption-budget.yaml",
            from: "component: kube-scheduler",
            to: "component: scheduler",
            at: "matchLabels",
            message: "warning: spec.selector: selects no pod that a manifest makes",
        },
        Row {
            path: SCHEDULER,
            from: "      serviceAccountName: kube-scheduler\n",
            to: "      serviceAccountName: kube-scheduler\n      imagePullSecrets:\n      - name: registry\n",
            at: "registry\n",
            message: "warning: spec.template.spec.imagePullSecrets[0].name: no manifest makes the Secret registry of kube-system",
        },
    ]);
}

/// A user's own manifest, which may count on what other tools make.
const OWN: &str = "\
apiVersion: apps/v1
kind: Deployment
metadata: {name: own, namespace: NAMESPACE}
spec:
  selector: {matchLabels: {a: b}}
  template:
    metadata: {labels: {a: b}}
    spec:
      serviceAccountName: ACCOUNT
      containers:
      - name: own
        image: own
        env:
        - name: A
          valueFrom: {secretKeyRef: {name: kube-scheduler, key: KEY}}
        envFrom:
        - configMapRef: {name: FROM}
        volumeMounts:
        - {name: all, mountPath: /all}
        - {name: some, mountPath: /some}
      volumes:
      - name: all
        configMap: {name: MAP}
      - name: some
        projected: {sources: [{configMap: {name: kube-root-ca.crt}}, {secret: {name: PROJECTED, optional: false}}]}
";

#[test]
fn of_a_user() {
    let good = [
        ("NAMESPACE", "kube-system"),
        ("ACCOUNT", "default"),
        ("KEY", "kubeconfig"),
        ("FROM", "mine"),
        ("MAP", "mine"),
        ("PROJECTED", "kube-apiserver"),
    ];
    let cases = [
        (
            "ACCOUNT",
            "warning: spec.template.spec.serviceAccountName: no manifest makes the ServiceAccount nothing of kube-system",
        ),
        (
            "KEY",
            "warning: spec.template.spec.containers[0].env[0].valueFrom.secretKeyRef.key: the Secret kube-scheduler (assets/manifests/kube-scheduler/secret.yaml) has no key nothing",
        ),
        (
            "FROM",
            "warning: spec.template.spec.containers[0].envFrom[0].configMapRef.name: no manifest makes the ConfigMap nothing of kube-system",
        ),
        (
            "MAP",
            "warning: spec.template.spec.volumes[0].configMap.name: no manifest makes the ConfigMap nothing of kube-system",
        ),
        (
            "PROJECTED",
            "warning: spec.template.spec.volumes[1].projected.sources[1].secret.name: no manifest makes the Secret nothing of kube-system",
        ),
    ];
    const PATH: &str = "manifests/own/own.yaml";
    let directory = |wrong: &str| {
        let mut directory = Directory::new();
        let fill = |text: String, (name, value): &(&str, &str)| {
            text.replace(name, if *name == wrong { "nothing" } else { value })
        };
        let text = good.iter().fold(OWN.to_owned(), fill);
        directory.put(PATH, text);
        directory.put(
            "manifests/own/map.yaml",
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: mine, namespace: kube-system}\n",
        );
        directory
    };
    assert_eq!(findings(&directory("").set), [""; 0]);
    for (wrong, message) in cases {
        let directory = directory(wrong);
        let position = directory.position(PATH, "nothing");
        assert_eq!(findings(&directory.set), [format!("assets/{PATH}:{position}: {message}")]);
    }
}

#[test]
fn of_objects_that_are_added() {
    let cases = [
        (
            "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: a\n  namespace: nowhere\n",
            "nowhere",
            "warning: metadata.namespace: no manifest makes the namespace nowhere",
        ),
        (
            "apiVersion: rbac.authorization.k8s.io/v1\nkind: RoleBinding\nmetadata: {name: a, namespace: default}\n\
             roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: view}\n\
             subjects: [{kind: ServiceAccount, name: nobody, namespace: kube-system}]\n",
            "nobody",
            "warning: subjects[0].name: no manifest makes the ServiceAccount nobody",
        ),
        (
            "apiVersion: v1\nkind: Service\nmetadata: {name: a, namespace: default}\nspec:\n  selector: {no: pod}\n",
            "{no: pod}",
            "warning: spec.selector: selects no pod that a manifest makes",
        ),
        (
            "apiVersion: v1\nkind: ServiceAccount\nmetadata: {name: kube-scheduler, namespace: kube-system}\n",
            "apiVersion",
            "ServiceAccount kube-scheduler is in assets/manifests/kube-scheduler/service-account.yaml:2 already",
        ),
        ("apiVersion: v1\nkind: ConfigMap\n", "apiVersion", "a manifest needs metadata.name"),
        ("a: [\n", "", "not valid YAML: while parsing a node, did not find expected node content"),
    ];
    for (text, at, message) in cases {
        let mut directory = Directory::new();
        // Behind all of hoist's own.
        const PATH: &str = "manifests/own.yaml";
        directory.put(PATH, text);
        let position = if at.is_empty() { "2:1".to_owned() } else { directory.position(PATH, at) };
        assert_eq!(findings(&directory.set), [format!("assets/{PATH}:{position}: {message}")]);
    }
}

#[test]
fn bindings() {
    let mut directory = Directory::new();
    let path = "manifests/kube-apiserver/rbac.yaml";
    directory.edit(path, "system:kubelet-api-admin", "my-own");
    let at = directory.position(path, "my-own");
    assert_eq!(
        findings(&directory.set),
        [
            "assets/manifests: warning: no manifest binds the ClusterRole system:kubelet-api-admin, by which the API server asks kubelets for logs and exec".to_owned(),
            format!("assets/{path}:{at}: warning: roleRef.name: no manifest makes the ClusterRole my-own"),
        ]
    );
    directory.put(
        "manifests/own.yaml",
        "apiVersion: rbac.authorization.k8s.io/v1\nkind: ClusterRole\nmetadata: {name: my-own}\nrules: []\n",
    );
    assert_eq!(findings(&directory.set).len(), 1);
}

#[test]
fn files_that_are_missing() {
    let whole = Directory::new();
    let lacks = |path: &str| format!("assets/{path}: the asset directory lacks this file");
    for path in
        ["tls/sa.key", "tls/etcd/minimal-1/peer.key", "auth/kubeconfig-kubelet", "bootstrap-manifests/etcd.yaml"]
    {
        let mut set = whole.set.clone();
        set.files.remove(path);
        assert_eq!(findings(&set), [lacks(path)]);
    }
    let mut set = whole.set.clone();
    set.files.remove("manifests/kube-scheduler/deployment.yaml");
    let path = "manifests/kube-scheduler/pod-disruption-budget.yaml";
    let at = whole.position(path, "matchLabels");
    assert_eq!(
        findings(&set),
        [
            "assets/manifests: warning: no manifest runs kube-scheduler".to_owned(),
            format!("assets/{path}:{at}: warning: spec.selector: selects no pod that a manifest makes"),
        ]
    );
}
