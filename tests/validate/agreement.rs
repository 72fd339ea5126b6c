//! Components that are told different things.

use crate::rendered;
use crate::support::{Directory, Row, check, findings};

const API_SERVER: &str = "manifests/kube-apiserver/daemonset.yaml";
const CONTROLLERS: &str = "manifests/kube-controller-manager/deployment.yaml";
const SCHEDULER: &str = "manifests/kube-scheduler/deployment.yaml";
const BRIDGE: &str = "bootstrap-manifests/bridge-kube-apiserver.yaml";
const ETCD: &str = "bootstrap-manifests/etcd.yaml";
const KUBELET: &str = "kubelet/config.yaml";

const fn row(path: &'static str, from: &'static str, to: &'static str, at: &'static str, message: &'static str) -> Row {
    Row { path, from, to, at, message }
}

#[test]
fn subnets_and_names() {
    check(&[
        row(
            API_SERVER,
            "service-cluster-ip-range=10.96.0.0/12",
            "service-cluster-ip-range=10.112.0.0/12",
            "\"--service-cluster-ip-range",
            "--service-cluster-ip-range: is 10.112.0.0/12, and networking.serviceSubnet of cluster.yaml is 10.96.0.0/12",
        ),
        row(
            CONTROLLERS,
            "service-cluster-ip-range=10.96.0.0/12",
            "service-cluster-ip-range=10.112.0.0/12",
            "\"--service-cluster-ip-range",
            "--service-cluster-ip-range: is 10.112.0.0/12, and networking.serviceSubnet of cluster.yaml is 10.96.0.0/12",
        ),
        row(
            CONTROLLERS,
            "cluster-cidr=10.244.0.0/16",
            "cluster-cidr=10.245.0.0/16",
            "\"--cluster-cidr",
            "--cluster-cidr: is 10.245.0.0/16, and networking.podSubnet of cluster.yaml is 10.244.0.0/16",
        ),
        row(
            KUBELET,
            "10.96.0.10",
            "169.254.20.10",
            "\"169.254",
            "warning: clusterDNS[0]: 169.254.20.10 lies in no service subnet of cluster.yaml",
        ),
        row(KUBELET, "10.96.0.10", "dns", "\"dns\"", "clusterDNS[0]: dns lies in no service subnet of cluster.yaml"),
        row(
            KUBELET,
            "clusterDomain: \"cluster.local\"",
            "clusterDomain: k8s.test",
            "k8s.test",
            "clusterDomain: is k8s.test, and networking.dnsDomain of cluster.yaml is cluster.local",
        ),
    ]);
}

#[test]
fn the_kubelet() {
    check(&[
        row(
            "kubelet/kubelet.service",
            "--config=/var/lib/kubelet/config.yaml",
            "--config=/etc/kubelet.yaml",
            "--config=/etc",
            "--config: is /etc/kubelet.yaml, and hoist start gives the kubelet /var/lib/kubelet/config.yaml",
        ),
        row(
            KUBELET,
            "rotateCertificates: true",
            "rotateCertificates: false",
            "false\n# What it serves",
            "rotateCertificates: is false, and should be true: the place of the CA's key decides what renews its certificate",
        ),
        row(
            KUBELET,
            "/etc/kubernetes/pki/ca.crt",
            "/etc/ca.crt",
            "/etc/ca.crt",
            "authentication.x509.clientCAFile: is \"/etc/ca.crt\", and should be \"/etc/kubernetes/pki/ca.crt\": hoist start puts the cluster's CA there",
        ),
        row(
            KUBELET,
            "serverTLSBootstrap: true",
            "serverTLSBootstrap: false",
            "false\nstaticPodPath",
            "warning: serverTLSBootstrap: is false, and should be true: the API server accepts no self-signed certificate of the kubelet: logs and exec would fail",
        ),
        row(
            KUBELET,
            "webhook:\n    enabled: true",
            "webhook:\n    enabled: false",
            "false\n  x509",
            "warning: authentication.webhook.enabled: is false, and should be true: metrics and tests call the kubelet with a token",
        ),
    ]);
}

/// What is written in another way is the same.
#[test]
fn other_spellings() {
    for (path, from, to) in [
        (API_SERVER, "--permit-port-sharing=true", "--permit-port-sharing"),
        (API_SERVER, "- --secure-port=6443", "- --secure-port\n        - \"6443\""),
        (API_SERVER, "bind-address=0.0.0.0", "bind_address=::"),
        (CONTROLLERS, "--leader-elect=true", "--leader-elect=1"),
        (ETCD, "--client-cert-auth=true", "-client-cert-auth"),
        ("kubelet/kubelet.service", "--node-ip=${NODE_IP}", "--node-ip ${NODE_IP}"),
    ] {
        let mut directory = Directory::new();
        directory.edit(path, from, to);
        assert_eq!(findings(&directory.set), [""; 0], "{to}");
    }
}

#[test]
fn etcd() {
    check(&[
        row(
            API_SERVER,
            "etcd-servers=https://127.0.0.1:2379",
            "etcd-servers=https://127.0.0.1:2378",
            "\"--etcd-servers",
            "--etcd-servers: etcd does not listen on https://127.0.0.1:2378, which is not in its --listen-client-urls",
        ),
        row(
            ETCD,
            "advertise-client-urls=https://$(HOST_IP):2379",
            "advertise-client-urls=https://$(HOST_IP):2399",
            "\"--advertise-client-urls",
            "--advertise-client-urls: https://192.0.2.10:2399 is not in --listen-client-urls, so nothing answers there",
        ),
        row(
            ETCD,
            "initial-cluster=minimal-1=",
            "initial-cluster=minimal-2=",
            "\"--initial-cluster=",
            "--initial-cluster: lacks minimal-1=https://192.0.2.10:2380, the etcd of the controller minimal-1",
        ),
        row(
            ETCD,
            "--client-cert-auth=true",
            "--client-cert-auth=false",
            "--client-cert-auth",
            "--client-cert-auth: is not true: anybody could write to etcd",
        ),
        row(
            ETCD,
            "path: /livez\n        port: 2381",
            "path: /livez\n        port: 2380",
            "2380\n      failureThreshold",
            "spec.containers[0].livenessProbe.httpGet.port: is 2380, and etcd listens on 2381, 2379, 2379",
        ),
    ]);
}

#[test]
fn the_api_servers() {
    check(&[
        row(
            API_SERVER,
            "--permit-port-sharing=true",
            "--permit-port-sharing=false",
            "--permit-port-sharing",
            "--permit-port-sharing: is not true: the self-hosted API server could not listen beside the forwarder",
        ),
        row(
            API_SERVER,
            "bind-address=0.0.0.0",
            "bind-address=127.0.0.1",
            "\"--bind-address",
            "--bind-address: is 127.0.0.1, but the self-hosted API server must listen on 0.0.0.0: so the two share an address",
        ),
        row(
            BRIDGE,
            "bind-address=127.0.0.1",
            "bind-address=0.0.0.0",
            "\"--bind-address",
            "--bind-address: is 0.0.0.0, but the bridge's API server must listen on 127.0.0.1: so the two share an address",
        ),
        row(
            API_SERVER,
            "--endpoint-reconciler-type=none",
            "--endpoint-reconciler-type=lease",
            "--endpoint-reconciler-type",
            "--endpoint-reconciler-type: is lease, but hoist keeps the endpoints of the `kubernetes` Service right",
        ),
        row(
            API_SERVER,
            "--advertise-address=$(HOST_IP)",
            "--advertise-address=192.0.2.99",
            "--advertise-address",
            "--advertise-address: is 192.0.2.99, and the controller minimal-1 is 192.0.2.10",
        ),
        row(
            API_SERVER,
            "        - --allow-privileged=true\n",
            "",
            "kube-apiserver\n        # A file",
            "warning: --allow-privileged: is not set, but network plugins and kube-proxy are privileged pods",
        ),
        row(
            API_SERVER,
            "--authorization-mode=Node,RBAC",
            "--authorization-mode=RBAC",
            "--authorization-mode",
            "--authorization-mode: lacks Node, by which kubelets and hoist's objects get their rights",
        ),
        row(
            BRIDGE,
            "--enable-bootstrap-token-auth=true",
            "--enable-bootstrap-token-auth=false",
            "--enable-bootstrap-token-auth",
            "--enable-bootstrap-token-auth: is false, but a kubelet gets its first certificate with a bootstrap token",
        ),
        row(
            API_SERVER,
            "--requestheader-allowed-names=front-proxy-client",
            "--requestheader-allowed-names=other",
            "--requestheader-allowed-names",
            "--requestheader-allowed-names: assets/tls/front-proxy-client.crt is of CN=front-proxy-client, which is not among these names",
        ),
        row(
            API_SERVER,
            "path: /readyz\n            port: 6443\n            scheme: HTTPS",
            "path: /readyz\n            port: 6443\n            scheme: HTTP",
            "HTTP\n",
            "spec.template.spec.containers[0].readinessProbe.httpGet.scheme: port 6443 speaks HTTPS",
        ),
        row(
            API_SERVER,
            "hostNetwork: true",
            "hostNetwork: false",
            "false\n      nodeSelector",
            "spec.template.spec.hostNetwork: is not true: the control plane runs where there is no pod network",
        ),
        row(
            API_SERVER,
            "node-role.kubernetes.io/control-plane: \"\"",
            "node-role.kubernetes.io/master: \"\"",
            "\"\"\n      priorityClassName",
            "warning: spec.template.spec.nodeSelector[\"node-role.kubernetes.io/master\"]: hoist start gives a controller no such label: the pod may stay Pending",
        ),
        row(
            BRIDGE,
            "listen=$(HOST_IP):6443",
            "listen=$(HOST_IP):443",
            "\"--listen",
            "--listen: is $(HOST_IP):443, but 192.0.2.10:6443 is where clients connect on minimal-1",
        ),
        row(
            API_SERVER,
            "runAsUser: 0",
            "runAsUser: 65534",
            "65534",
            "spec.template.spec.containers[0].securityContext.runAsUser: is 65534, and the forwarder's is 0 (assets/bootstrap-manifests/bridge-kube-apiserver.yaml): only one user's programs may share a port",
        ),
        row(
            BRIDGE,
            "ca-file=/etc/kubernetes/secrets/ca.crt\n    env:\n    - name: HOIST_BRIDGE\n      value: forwarder",
            "ca-file=/etc/kubernetes/secrets/ca.pem\n    env:\n    - name: HOIST_BRIDGE\n      value: forwarder",
            "--ca-file",
            "--ca-file: there will be no file /etc/kubernetes/secrets/ca.pem: hoist start puts no /etc/kubernetes/bridge/forwarder/ca.pem on a controller",
        ),
        row(
            BRIDGE,
            "target=127.0.0.1:6444",
            "target=127.0.0.1:6443",
            "\"--target",
            "--target: is 127.0.0.1:6443, but 127.0.0.1:6444 is where the bridge's API server listens on minimal-1",
        ),
    ]);
}

#[test]
fn the_controllers() {
    check(&[
        row(
            CONTROLLERS,
            "--leader-elect=true",
            "--leader-elect=false",
            "--leader-elect",
            "--leader-elect: is false, but hoist follows leadership from the bridge to the self-hosted cluster",
        ),
        row(
            CONTROLLERS,
            "--controllers=*,bootstrapsigner,tokencleaner",
            "--controllers=*,bootstrapsigner",
            "--controllers",
            "warning: --controllers: lacks tokencleaner: an expired bootstrap token would stay",
        ),
        row(
            SCHEDULER,
            "master=https://$(HOST_IP):6443",
            "master=https://$(HOST_IP):6444",
            "\"--master",
            "--master: https://$(HOST_IP):6444 is not where the API servers answer, https://…:6443",
        ),
        row(
            SCHEDULER,
            "host: \"127.0.0.1\"\n            path: /readyz",
            "host: \"192.0.2.10\"\n            path: /readyz",
            "\"192.0.2.10\"",
            "spec.template.spec.containers[0].readinessProbe.httpGet.host: is 192.0.2.10, and kube-scheduler listens on 127.0.0.1 on minimal-1",
        ),
        row(
            SCHEDULER,
            "path: /readyz\n            port: 10259",
            "path: /readyz\n            port: 10251",
            "10251",
            "spec.template.spec.containers[0].readinessProbe.httpGet.port: is 10251, and kube-scheduler listens on 10259",
        ),
    ]);
}

#[test]
fn the_bridge() {
    check(&[
        row(
            API_SERVER,
            "- --allow-privileged=true",
            "- --allow-privileged=true\n        - --event-ttl=2h",
            "--event-ttl",
            "warning: --event-ttl: is 2h here, and not set in the bridge (assets/bootstrap-manifests/bridge-kube-apiserver.yaml)",
        ),
        row(
            API_SERVER,
            "service-account-issuer=https://kubernetes.default.svc.cluster.local",
            "service-account-issuer=https://issuer.example.com",
            "\"--service-account-issuer",
            "--service-account-issuer: is https://issuer.example.com here, and https://kubernetes.default.svc.cluster.local in the bridge (assets/bootstrap-manifests/bridge-kube-apiserver.yaml)",
        ),
        row(
            CONTROLLERS,
            "cluster-name=kubernetes",
            "cluster-name=other",
            "\"--cluster-name",
            "--cluster-name: is other here, and kubernetes in the bridge (assets/bootstrap-manifests/bridge-kube-controller-manager.yaml)",
        ),
        row(
            API_SERVER,
            "kube-apiserver:v1.37.2",
            "kube-apiserver:v1.37.1",
            "\"registry.k8s.io",
            "warning: spec.template.spec.containers[0].image: is registry.k8s.io/kube-apiserver:v1.37.1, and the bridge's is registry.k8s.io/kube-apiserver:v1.37.2 (assets/bootstrap-manifests/bridge-kube-apiserver.yaml)",
        ),
    ]);
}

#[test]
fn kubeconfigs() {
    check(&[
        row(
            "auth/kubeconfig",
            "https://192.0.2.10:6443",
            "https://192.0.2.99:6443",
            "\"https://",
            "clusters[0].cluster.server: assets/tls/apiserver.crt lacks the name 192.0.2.99, so clients would refuse it",
        ),
        row(
            "auth/kubeconfig",
            "https://192.0.2.10:6443",
            "https://192.0.2.10:443",
            "\"https://",
            "clusters[0].cluster.server: no API server listens on port 443 of 192.0.2.10",
        ),
        row(
            "auth/kubeconfig-kubelet",
            "https://192.0.2.10:6443",
            "http://192.0.2.10:6443",
            "\"http://",
            "clusters[0].cluster.server: http://192.0.2.10:6443 is not an https URL",
        ),
        row(
            "auth/kubeconfig-kubelet",
            "abcdef.0123456789abcdef",
            "abcdef",
            "\"abcdef\"",
            "users[0].user.token: is not a bootstrap token, 6 and 16 lower-case letters and digits",
        ),
    ]);
}

/// What the API server would exit on, and what nobody notices.
#[test]
fn authorizers_and_admission() {
    const MODE: &str = "--authorization-mode=Node,RBAC";
    check(&[row(
        API_SERVER,
        "--audit-log-maxage=30",
        "--audit-log-maxage=month",
        "--audit-log-maxage",
        "--audit-log-maxage: `month` is not a whole number: kube-apiserver would exit",
    )]);
    let mut directory = Directory::new();
    for path in [API_SERVER, BRIDGE] {
        directory.edit(
            path,
            "--enable-admission-plugins=NodeRestriction",
            "--enable-admission-plugins=AlwaysPullImages",
        );
    }
    let found = findings(&directory.set);
    assert!(
        found.len() == 2
            && found.iter().all(|line| line.contains("warning: --enable-admission-plugins: lacks NodeRestriction")),
        "{found:?}"
    );

    let mut directory = Directory::new();
    let file = "--authorization-config=/etc/kubernetes/config/authorization.yaml";
    for path in [API_SERVER, BRIDGE] {
        directory.edit(path, MODE, file);
    }
    let with = |directory: &mut Directory, authorizers: &str| {
        let path = "manifests/kube-apiserver/config.yaml";
        let text = Directory::new().text(path);
        let own = format!(
            "\ndata:\n  authorization.yaml: |\n    apiVersion: apiserver.config.k8s.io/v1\n    kind: AuthorizationConfiguration\n    authorizers:\n{authorizers}"
        );
        directory.put(path, text.replacen("\ndata:\n", &own, 1));
        findings(&directory.set)
    };
    let node = "    - {type: Node, name: node}\n";
    let rbac = "    - {type: RBAC, name: rbac}\n";
    assert_eq!(with(&mut directory, &format!("{node}{rbac}")), [""; 0]);
    let found = with(&mut directory, rbac);
    assert!(
        !found.is_empty() && found.iter().all(|line| line.contains("has no authorizer Node, by which kubelets")),
        "{found:?}"
    );
    for path in [API_SERVER, BRIDGE] {
        let text = directory.text(path);
        let at = text.find(file).unwrap();
        let indent = text[..at].rsplit('\n').next().unwrap().to_owned();
        directory.put(path, text.replacen(file, &format!("{file}\n{indent}{MODE}"), 1));
    }
    let found = with(&mut directory, &format!("{node}{rbac}"));
    assert!(
        found.len() == 2
            && found
                .iter()
                .all(|line| line.contains("--authorization-config: cannot be set beside --authorization-mode")),
        "{found:?}"
    );
}

/// What is right on the first one may be wrong on the others.
#[test]
fn an_address_that_only_the_first_controller_has_is_found() {
    const BRIDGE: &str = "bootstrap-manifests/bridge-kube-apiserver.yaml";
    const SCHEDULER: &str = "manifests/kube-scheduler/deployment.yaml";
    let mut directory = Directory { set: rendered::render(&rendered::cluster("full")) };
    let before = findings(&directory.set);
    let cluster = rendered::cluster("full");
    let [first, second] = [&cluster.controllers[0], &cluster.controllers[1]];
    directory.edit(BRIDGE, "--listen=$(HOST_IP):6443", &format!("--listen={}:6443", first.address));
    let scheduler = directory.text(SCHEDULER).replace("bind-address=127.0.0.1", "bind-address=$(HOST_IP)");
    let scheduler = scheduler.replace("host: \"127.0.0.1\"", &format!("host: \"{}\"", first.address));
    directory.put(SCHEDULER, scheduler);
    let found: Vec<_> = findings(&directory.set).into_iter().filter(|line| !before.contains(line)).collect();
    let says = |text: String| found.iter().any(|line| line.contains(&text));
    let listen = format!("but {}:6443 is where clients connect on {}", second.address, second.name);
    assert!(says(listen), "{found:#?}");
    let probe = format!("is {}, and kube-scheduler listens on {}", first.address, second.address);
    assert!(says(probe), "{found:#?}");
}
