use std::time::Duration;

use serde_json::json;

use super::*;
use crate::base::error::testing::same;

mod network;
mod values;

const MINIMAL: &str = "\
apiVersion: hoist/v1alpha1
kind: Cluster
controllers:
- name: c1
  address: 192.0.2.10
";

fn read(text: &str) -> Result<Cluster, String> {
    parse("f", text, Path::new("/base")).map_err(|error| match error {
        Error::Input(findings) => {
            findings.iter().map(|f| f.to_string().replace("\n    ", " | ")).collect::<Vec<_>>().join("\n")
        }
        other => other.to_string(),
    })
}

/// The minimal configuration with `more` from line 6 on.
fn with(more: &str) -> Result<Cluster, String> {
    read(&format!("{MINIMAL}{more}"))
}

#[track_caller]
fn refused(more: &str, expected: &[&str]) {
    let found = with(more).expect_err(more);
    same(&found.lines().collect::<Vec<_>>(), expected);
}

#[test]
fn what_is_not_written_has_its_default() {
    let cluster = with("").unwrap();
    assert_eq!(
        cluster,
        Cluster {
            cluster_name: "kubernetes".into(),
            kubernetes_version: Version { major: 1, minor: 37, patch: 2 },
            networking: Networking {
                pod_subnets: vec!["10.244.0.0/16".parse().unwrap()],
                service_subnets: vec!["10.96.0.0/12".parse().unwrap()],
                dns_domain: "cluster.local".into(),
            },
            network: Network { plugin: Plugin::Flannel(FlannelBackend::Vxlan), cni_bin_dir: "/opt/cni/bin".into() },
            kube_proxy: KubeProxy { mode: ProxyMode::Auto, config: serde_json::Map::new() },
            dns: Dns {
                has_coredns: true,
                upstreams: None,
                autoscaler: Autoscaler { min: 2, nodes_per_replica: 16, cores_per_replica: 256 },
                node_local: Some([169, 254, 20, 10].into()),
            },
            control_plane_endpoint: None,
            images: Images {
                kube_apiserver: "registry.k8s.io/kube-apiserver:v1.37.2".into(),
                kube_controller_manager: "registry.k8s.io/kube-controller-manager:v1.37.2".into(),
                kube_scheduler: "registry.k8s.io/kube-scheduler:v1.37.2".into(),
                kube_proxy: "registry.k8s.io/kube-proxy:v1.37.2".into(),
                etcd: "registry.k8s.io/etcd:3.7.0-0".into(),
                coredns: "registry.k8s.io/coredns/coredns:v1.14.6".into(),
                pause: "registry.k8s.io/pause:3.10.2".into(),
                flannel: "ghcr.io/flannel-io/flannel:v0.28.10".into(),
                hoist: None,
                flannel_cni_plugin: "ghcr.io/flannel-io/flannel-cni-plugin:v1.9.1-flannel3".into(),
            },
            api_server: ApiServer::default(),
            controller_manager: Component::default(),
            scheduler: Component::default(),
            etcd: Etcd::Local { data_dir: "/var/lib/etcd".into(), defragmentation: true, extra_args: vec![] },
            controllers: vec![Controller {
                name: "c1".into(),
                address: [192, 0, 2, 10].into(),
                taints: vec![Taint {
                    key: "node-role.kubernetes.io/control-plane".into(),
                    value: None,
                    effect: "NoSchedule".into(),
                }],
            }],
            kubelet_config: serde_json::Map::new(),
            api_endpoint: ApiEndpoint { node_local: false, virtual_address: None },
            pod_security: PodSecurity { enforce: Level::Privileged, audit: Level::Baseline, warn: Level::Baseline },
            hoist: HoistPaths { binary: "/usr/local/bin/hoist".into(), asset_dir: "/etc/hoist/assets".into() },
            addons: Vec::new(),
            pki: PkiConfig {
                ca_validity: Duration::from_hours(87600),
                certificate_validity: Duration::from_hours(8760),
                bootstrap_token_ttl: Duration::from_hours(24),
                ca: None,
                etcd_ca: None,
                front_proxy_ca: None,
                service_account_key: None,
            },
        }
    );
    assert_eq!(cluster.endpoint().to_string(), "192.0.2.10:6443");
    assert_eq!(cluster.server_of_nodes(), "https://192.0.2.10:6443");
    // A section whose fields are all commented out is as good as none.
    assert_eq!(with("networking:\netcd:\n  local:\npki: {}\nkubelet:\n  config:\n").unwrap(), cluster);
}

/// A configuration with every field set to something other than its default.
const FULL: &str = r#"
apiVersion: hoist/v1alpha1
kind: Cluster
clusterName: "on"
kubernetesVersion: 1.34.4
networking: {podSubnet: "10.10.0.0/16, fd00:10::/56", serviceSubnet: "10.20.0.0/16,fd00:20::/112", dnsDomain: k8s.test}
network: {plugin: flannel, flannel: {backend: host-gw}, cniBinDir: /usr/lib/cni}
kubeProxy: {mode: iptables, config: {metricsBindAddress: "0.0.0.0:10249", conntrack: {maxPerCore: 0}}}
dns:
  upstreams: [192.0.2.53, "[fd00::53]:5353"]
  autoscaler: {min: 1, nodesPerReplica: 8, coresPerReplica: 128}
  nodeLocal: {enabled: true, address: 169.254.25.10}
controlPlaneEndpoint: "[fd00::5]:443"
endpoint: {nodeLocal: true, virtualAddress: 192.0.2.9, interface: eno1.100, virtualRouterID: 51}
imageRepository: localhost:5000
images: {kubeAPIServer: "localhost:5000/a/b@sha256:00ff", etcd: "etcd:1"}
apiServer:
  certSANs: [api.example.com, "*.example.com", "fd00::6"]
  extraArgs: [{name: v, value: "4"}, {name: vmodule, value: ""}]
controllerManager: {extraArgs: [{name: node-cidr-mask-size-ipv4, value: "26"}]}
scheduler: {extraArgs: [{name: vmodule, value: "on"}]}
etcd: {local: {dataDir: /data/etcd, defragmentation: false, extraArgs: [{name: quota-backend-bytes, value: "1_000"}]}}
controllers:
- {name: c1, address: 192.0.2.10, taints: []}
- {name: c2.example.com, address: 192.0.2.11, taints: [{key: a.b/c, value: D, effect: NoExecute}, {key: x, effect: NoSchedule}]}
- {name: c3, address: 192.0.2.12}
kubelet: {config: {maxPods: 200, evictionHard: {"nodefs.available": "5%"}, featureGates: {A: true}, x: null}}
podSecurity: {enforce: baseline, audit: restricted, warn: privileged}
hoist: {binary: /opt/bin/hoist, assetDir: /var/lib/hoist/assets}
addons: [./ingress/, ../more/metrics.yaml, /abs/x]
pki:
  caCertificateValidityPeriod: 100h30m
  certificateValidityPeriod: 1h0m0.5s
  bootstrapTokenTTL: 90m
  ca: {certificate: ./ca.crt, key: keys/ca.key}
  etcdCA: {certificate: /abs/etcd.crt, key: ../etcd.key}
  frontProxyCA: {certificate: f.crt, key: f.key}
  serviceAccountKey: sa.key
"#;

#[test]
fn every_field_is_read() {
    let cluster = read(FULL).unwrap();
    assert_eq!(cluster.kubernetes_version.to_string(), "v1.34.4");
    assert_eq!(cluster.images.kube_apiserver, "localhost:5000/a/b@sha256:00ff");
    assert_eq!(cluster.images.kube_scheduler, "localhost:5000/kube-scheduler:v1.34.4");
    assert_eq!(cluster.images.etcd, "etcd:1");
    // As kubeadm has it: only Kubernetes' own registry has a folder for it.
    assert_eq!(cluster.images.coredns, "localhost:5000/coredns:v1.12.1");
    assert_eq!(cluster.images.pause, "localhost:5000/pause:3.10.1");
    assert_eq!(cluster.images.flannel, "localhost:5000/flannel:v0.28.10");
    assert_eq!(cluster.network.plugin, Plugin::Flannel(FlannelBackend::HostGw));
    assert_eq!(cluster.network.cni_bin_dir, "/usr/lib/cni");
    assert_eq!(cluster.kube_proxy.mode, ProxyMode::Iptables);
    assert_eq!(cluster.kube_proxy.config["conntrack"], json!({"maxPerCore": 0}));
    assert_eq!(cluster.endpoint().to_string(), "[fd00::5]:443");
    assert_eq!(cluster.server_of_nodes(), "https://127.0.0.1:7443");
    let virtual_address = cluster.api_endpoint.virtual_address.as_ref().unwrap();
    assert_eq!((virtual_address.interface.as_str(), virtual_address.router_id), ("eno1.100", 51));
    assert_eq!(cluster.api_service_addresses(), [[10, 20, 0, 1].into(), "fd00:20::1".parse::<IpAddr>().unwrap()]);
    assert_eq!(cluster.controllers[0].taints, []);
    assert_eq!(cluster.controllers[1].taints[0].value.as_deref(), Some("D"));
    assert_eq!(cluster.controllers[2].taints.len(), 1);
    assert_eq!(cluster.kubelet_config["evictionHard"], json!({"nodefs.available": "5%"}));
    assert_eq!(cluster.hoist.binary, "/opt/bin/hoist");
    assert_eq!(cluster.addons, ["/base/ingress", "/base/../more/metrics.yaml", "/abs/x"]);
    assert_eq!(cluster.hoist.asset_dir, "/var/lib/hoist/assets");
    assert_eq!(cluster.pki.certificate_validity, Duration::from_millis(3_600_500));
    let pair =
        |certificate: &str, key: &str| Some(KeyPairFiles { certificate: certificate.into(), key: Some(key.into()) });
    assert_eq!(cluster.pki.ca, pair("/base/ca.crt", "/base/keys/ca.key"));
    assert_eq!(cluster.pki.etcd_ca, pair("/abs/etcd.crt", "/base/../etcd.key"));
    assert_eq!(cluster.pki.service_account_key.as_deref(), Some("/base/sa.key"));
}

#[test]
fn what_is_written_is_read_back_the_same() {
    let external = "etcd:
  external: {endpoints: ['https://e1:2379', 'https://[fd00::1]:2379/'], caFile: a, certFile: b, keyFile: c}\n";
    let ipv6 = MINIMAL.replace("192.0.2.10", "fd00::1")
        + "networking: {podSubnet: 'fd00:10::/48', serviceSubnet: 'fd00:20::/108'}\n";
    let no_cache = format!("{MINIMAL}dns: {{plugin: none, upstreams: [], nodeLocal: {{enabled: false}}}}\n");
    for text in [MINIMAL, FULL, &format!("{MINIMAL}{external}"), &ipv6, &no_cache] {
        let cluster = read(text).unwrap();
        let written = cluster.to_yaml();
        // What is written has no relative path left.
        assert_eq!(parse("g", &written, Path::new("/elsewhere")).unwrap(), cluster, "{written}");
        assert_eq!(parse("g", &written, Path::new("/")).unwrap().to_yaml(), written);
    }
    insta::assert_snapshot!(with("").unwrap().to_yaml());
}

/// Takes the first `#` out of the lines that `is_setting` says are commented-out settings.
fn uncomment(text: &str, is_setting: impl Fn(&str) -> bool) -> String {
    text.lines().map(|line| if is_setting(line) { line.replacen('#', "", 1) } else { line.to_owned() } + "\n").collect()
}

#[test]
fn the_commented_example_says_the_truth() {
    let as_it_is = read(DEFAULT).unwrap();
    assert_eq!(as_it_is, read(&MINIMAL.replace("c1", "controller-1")).unwrap());

    // Prose is `# ` and a word; a setting is `#` and its own indentation.
    let prose = |line: &str| line.starts_with("# ") && !line.starts_with("#  ");
    let settings = uncomment(DEFAULT, |line| line.len() > 1 && line.starts_with('#') && !prose(line));
    assert_eq!(read(&settings).unwrap(), as_it_is, "{settings}");

    // The examples are commented out a second time; all at once they contradict one another in one point only.
    let examples = uncomment(&settings, |line| {
        let text = line.trim_start();
        text.starts_with('#') && !text.starts_with("# ") && text.len() > 1 || text.starts_with("#  ")
    });
    let findings = read(&examples).unwrap_err();
    assert!(findings.ends_with("etcd: both `local` and `external` are given | remove one of them"), "{findings}");
    assert_eq!(findings.lines().count(), 1, "{findings}");

    // No field is missing: every key of the fullest configuration is named, whichever section it is in.
    let cluster = read(FULL).unwrap();
    let written = yaml::documents("w", &cluster.to_yaml()).unwrap().remove(0).value;
    let mut keys = vec!["imageRepository".to_owned(), "endpoints".into(), "caFile".into(), "keyFile".into()];
    collect_keys(&written, &mut keys);
    for key in keys {
        assert!(
            examples.lines().any(|line| line.trim_start_matches([' ', '-']).starts_with(&format!("{key}:"))),
            "{key}"
        );
    }
}

fn collect_keys(value: &serde_json::Value, keys: &mut Vec<String>) {
    match value {
        serde_json::Value::Object(map) => {
            for (key, value) in map {
                keys.push(key.clone());
                // What stands in kubelet.config is the kubelet's affair.
                if key != "config" {
                    collect_keys(value, keys);
                }
            }
        }
        serde_json::Value::Array(list) => list.iter().for_each(|value| collect_keys(value, keys)),
        _ => {}
    }
}

#[test]
fn misfits_are_reported_together() {
    refused(
        "kubernetesVersion: 1.36
networking:
  podsubnet: 10.0.0.0/8
apiServer:
  extraArgs:
  - {name: v, value: 4}
  certSans: []
controlPlaneEndpoint: [a]
",
        &[
            "f:6:20: kubernetesVersion: expected a string, found 1.36 | write it in quotes",
            "f:8:3: networking.podsubnet: unknown field | did you mean `podSubnet`?",
            "f:11:22: apiServer.extraArgs[0].value: expected a string, found 4 | write it in quotes",
            "f:12:3: apiServer.certSans: unknown field | did you mean `certSANs`?",
            "f:13:23: controlPlaneEndpoint: expected a string, found a list",
        ],
    );
}

#[test]
fn violations_are_reported_together_in_the_order_of_the_file() {
    refused(
        "pki: {certificateValidityPeriod: 1y}\nclusterName: ''\nkubernetesVersion: v1.30.1\n",
        &[
            "f:6:34: pki.certificateValidityPeriod: `1y` is not a duration such as 8760h or 1h30m",
            "f:7:14: clusterName: `` is not made of letters, digits, `-`, `_`, `.` and `@`",
            "f:8:20: kubernetesVersion: v1.30.1 is not supported | supported: 1.34, 1.35, 1.36, 1.37",
        ],
    );
}

#[test]
fn versions_and_images() {
    for text in ["v1.36", "latest", "v1.36.0-rc.1", "1.036.0", "1.36.+3"] {
        let expected = format!("f:6:20: kubernetesVersion: `{text}` is not a release of Kubernetes, such as v1.37.2");
        refused(&format!("kubernetesVersion: '{text}'\n"), &[&expected]);
    }
    for (text, why) in [
        ("https://registry.k8s.io", "is a URL: an image begins with the registry's host"),
        ("a.b/c:v1", "has a tag or digest"),
        ("a:v1", "has a tag or digest"),
        ("a//b", "is not a registry's host and a path"),
        ("", "is not a registry's host and a path"),
    ] {
        refused(&format!("imageRepository: '{text}'\n"), &[&format!("f:6:18: imageRepository: `{text}` {why}")]);
    }
    for (text, why) in [
        ("a.b:5000/etcd", "has neither a tag nor a digest"),
        ("etcd:", "has an empty tag"),
        ("etcd:a b", "has characters that no tag has"),
        (":3", "is not a registry's host and a path"),
    ] {
        refused(&format!("images: {{etcd: '{text}'}}\n"), &[&format!("f:6:16: images.etcd: `{text}` {why}")]);
    }
    for text in ["[fd00::1]:5000", "localhost:5000", "a.b/c/d", "a.b:80/c"] {
        with(&format!("imageRepository: '{text}'\nimages: {{etcd: '{text}/etcd:3'}}\n")).unwrap();
    }
}

#[test]
fn subnets() {
    let large = "choose another range";
    for (pods, services, expected) in [
        ("10.244.0.0", "10.96.0.0/12", "6:25: networking.podSubnet: `10.244.0.0` is not a subnet | write it like 10.244.0.0/16".to_owned()),
        ("", "10.96.0.0/12", "6:25: networking.podSubnet: `` is not a subnet | write it like 10.244.0.0/16".to_owned()),
        ("10.244.1.0/16", "10.96.0.0/12", "6:25: networking.podSubnet: 10.244.1.0/16 is an address in a subnet, not the subnet | write 10.244.0.0/16".to_owned()),
        ("10.244.0.0/25", "10.96.0.0/12", "6:25: networking.podSubnet: 10.244.0.0/25 is too small: each node takes a /24 of it | its prefix must be /24 at most".to_owned()),
        ("10.0.0.0/7", "192.168.0.0/16", "6:25: networking.podSubnet: 10.0.0.0/7 is too large: each node takes a /24 of it | its prefix must be /8 at least".to_owned()),
        ("10.96.0.0/16", "10.96.0.0/12", format!("6:25: networking.podSubnet: 10.96.0.0/16 overlaps the service subnet 10.96.0.0/12 | {large}")),
        ("10.244.0.0/16,10.245.0.0/16", "10.96.0.0/12", "6:25: networking.podSubnet: 10.245.0.0/16 is a second IPv4 subnet | write one subnet, or one of each family".to_owned()),
        ("10.244.0.0/16,fd00::/48", "10.96.0.0/12", "6:25: networking.podSubnet: pods have IPv4 and IPv6 subnets and Services have IPv4 subnets | give podSubnet and serviceSubnet the same address families".to_owned()),
        ("10.244.0.0/16", "10.96.0.0/11", "7:18: networking.serviceSubnet: 10.96.0.0/11 is too large for Services | its prefix must be /12 at least".to_owned()),
        ("10.244.0.0/16", "10.96.0.0/29", "7:18: networking.serviceSubnet: 10.96.0.0/29 is too small for Services | its prefix must be /28 at most".to_owned()),
        ("10.244.0.0/16,fd00::/65", "10.96.0.0/12,fd01::/108", "6:25: networking.podSubnet: fd00::/65 is too small: each node takes a /64 of it | its prefix must be /64 at most".to_owned()),
        ("10.244.0.0/16,fd00::/56", "10.96.0.0/12,fd01::/64", "7:18: networking.serviceSubnet: fd01::/64 is too large for Services | its prefix must be /108 at least".to_owned()),
    ] {
        let more = format!("networking: {{podSubnet: '{pods}',\n  serviceSubnet: '{services}'}}\n");
        refused(&more, &[&format!("f:{expected}")]);
    }
    refused(
        "networking:\n  serviceSubnet: 10.240.0.0/12\n  dnsDomain: Cluster.local\n",
        &[
            "f:7:18: networking.serviceSubnet: 10.240.0.0/12 overlaps the pod subnet 10.244.0.0/16 | choose another range",
            "f:8:14: networking.dnsDomain: `Cluster.local` is not a DNS name: lower-case letters, digits, `-` and `.`, beginning and ending with a letter or digit",
        ],
    );
    // The node's share is the controller manager's to say.
    with("networking: {podSubnet: 10.244.0.0/25}\ncontrollerManager: {extraArgs: [{name: node-cidr-mask-size, value: '26'}]}\n").unwrap();
    with("networking: {podSubnet: 10.244.0.0/25}\nnetwork: {plugin: none}\ncontrollerManager: {extraArgs: [{name: allocate-node-cidrs, value: 'false'}]}\n").unwrap();
}

#[test]
fn controllers() {
    let head = "apiVersion: hoist/v1alpha1\nkind: Cluster\n";
    for (text, expected) in [
        (
            "clusterName: a\n",
            "f:1:1: controllers: it is required | give the name and address of at least one controller",
        ),
        (
            "controllers: []\n",
            "f:3:14: controllers: it is required | give the name and address of at least one controller",
        ),
        (
            "controllers:\n- {name: c1}\n- {address: 192.0.2.1}\n- {name: '', address: 192.0.2}\n",
            "f:4:3: controllers[0].address: it is required\n\
             f:5:3: controllers[1].name: it is required\n\
             f:6:10: controllers[2].name: it is empty\n\
             f:6:23: controllers[2].address: `192.0.2` is not an IP address",
        ),
        (
            "controllers:\n- {name: c1, address: 192.0.2.1}\n- {name: c1, address: 192.0.2.1}\n",
            "f:5:10: controllers[1].name: `c1` is the name of another controller already\n\
             f:5:23: controllers[1].address: 192.0.2.1 is the address of controllers[0] already",
        ),
        (
            "controllers:\n- {name: a, address: 127.0.0.1}\n- {name: b, address: 0.0.0.0}\n- {name: c, address: 224.0.0.1}\n",
            "f:4:22: controllers[0].address: 127.0.0.1 is a loopback address | give the address that the other nodes reach this controller at\n\
             f:5:22: controllers[1].address: 0.0.0.0 stands for any address | give the address that the other nodes reach this controller at\n\
             f:6:22: controllers[2].address: 224.0.0.1 is a multicast address | give the address that the other nodes reach this controller at",
        ),
        (
            "controllers:\n- {name: a, address: 10.96.0.5}\n- {name: b, address: 10.244.1.1}\n- {name: c, address: 'fd00::1'}\n",
            "f:4:22: controllers[0].address: 10.96.0.5 lies in networking.serviceSubnet, 10.96.0.0/12 | choose another range for the subnet\n\
             f:5:22: controllers[1].address: 10.244.1.1 lies in networking.podSubnet, 10.244.0.0/16 | choose another range for the subnet\n\
             f:6:22: controllers[2].address: fd00::1 is IPv6, the first service subnet is IPv4 | put an IPv6 subnet first in networking.serviceSubnet, or give an IPv4 address",
        ),
        (
            "controllers:\n- name: Node_1\n  address: 192.0.2.1\n  taints: [{key: a b, effect: Never}, {key: k, value: '-', effect: NoSchedule}, {key: k, effect: NoSchedule}, {}]\n",
            "f:4:9: controllers[0].name: `Node_1` is not a DNS name: lower-case letters, digits, `-` and `.`, beginning and ending with a letter or digit\n\
             f:6:18: controllers[0].taints[0].key: `a b` is not a name or a DNS name, `/` and a name\n\
             f:6:31: controllers[0].taints[0].effect: `Never` is not the effect of a taint | known: NoSchedule, PreferNoSchedule, NoExecute\n\
             f:6:55: controllers[0].taints[1].value: `-` is not up to 63 letters, digits, `-`, `_` and `.`, beginning and ending with a letter or digit\n\
             f:6:81: controllers[0].taints[2]: a taint `k` of effect NoSchedule is there already\n\
             f:6:111: controllers[0].taints[3].key: it is required\n\
             f:6:111: controllers[0].taints[3].effect: it is required",
        ),
    ] {
        let found = read(&format!("{head}{text}")).unwrap_err();
        same(&found.lines().collect::<Vec<_>>(), &expected.lines().collect::<Vec<_>>());
    }
}

#[test]
fn flags() {
    refused(
        "apiServer:
  extraArgs:
  - {name: --v, value: '4'}
  - {name: --secure-port=443, value: ''}
  - {name: bind_address, value: '::'}
  - {name: max_requests, value: '1'}
  - {name: Ä, value: '1'}
  - {name: '', value: '1'}
  - {}
  - {name: '--v=4', value: ''}
",
        &[
            "f:8:12: apiServer.extraArgs[0].name: `--v` is not the bare name of a flag | write name: v",
            "f:9:12: apiServer.extraArgs[1].name: `secure-port` is set by hoist: it lets the bridge and the self-hosted API server share one address | remove it",
            "f:10:12: apiServer.extraArgs[2].name: `bind-address` is set by hoist: it lets the bridge and the self-hosted API server share one address | remove it",
            "f:11:12: apiServer.extraArgs[3].name: `max_requests` is not the bare name of a flag | write name: max-requests",
            "f:12:12: apiServer.extraArgs[4].name: `Ä` is not a flag: lower-case letters, digits and `-`",
            "f:13:12: apiServer.extraArgs[5].name: it is empty",
            "f:14:5: apiServer.extraArgs[6].name: it is required",
            "f:14:5: apiServer.extraArgs[6].value: it is required",
            "f:15:12: apiServer.extraArgs[7].name: `--v=4` is not the bare name of a flag | write name: v, value: \"4\"",
        ],
    );
    for (section, flags) in [
        (
            "apiServer",
            "advertise-address etcd-servers service-cluster-ip-range tls-cert-file permit-port-sharing shutdown-delay-duration",
        ),
        ("controllerManager", "leader-elect leader-elect-resource-name master kubeconfig cluster-cidr secure-port"),
        ("scheduler", "leader-elect kubeconfig bind-address permit-port-sharing"),
        ("etcd: local", "name data-dir listen-peer-urls listen-metrics-urls initial-cluster-state peer-key-file"),
    ] {
        for flag in flags.split(' ') {
            let more = match section.split_once(": ") {
                Some((a, b)) => format!("{a}: {{{b}: {{extraArgs: [{{name: {flag}, value: a}}]}}}}\n"),
                None => format!("{section}: {{extraArgs: [{{name: {flag}, value: a}}]}}\n"),
            };
            let found = with(&more).unwrap_err();
            assert!(found.contains(&format!("`{flag}` is set by hoist: ")), "{found}");
        }
    }
    // Whose flag it is makes a difference.
    with("scheduler: {extraArgs: [{name: client-ca-file, value: a}]}\n").unwrap();
}

#[test]
fn etcd() {
    refused(
        "etcd:\n  local: {dataDir: data}\n  external:\n    endpoints: ['http://a', 'https://', 'https://a:x']\n    keyFile: ''\n",
        &[
            "f:7:3: etcd: both `local` and `external` are given | remove one of them",
            "f:8:3: etcd.external.caFile: it is required",
            "f:8:3: etcd.external.certFile: it is required",
            "f:9:17: etcd.external.endpoints[0]: `http://a` is not an https:// URL",
            "f:9:29: etcd.external.endpoints[1]: `https://` has a host that is not a DNS name: lower-case letters, digits, `-` and `.`, beginning and ending with a letter or digit",
            "f:9:41: etcd.external.endpoints[2]: `https://a:x` has a port that is not a number from 1 to 65535",
            "f:10:14: etcd.external.keyFile: it is empty",
        ],
    );
    refused(
        "etcd:\n  external: {caFile: a, certFile: b, keyFile: c}\n",
        &["f:7:3: etcd.external.endpoints: it is required | give at least one URL like https://10.0.0.5:2379"],
    );
    for path in ["data", "/", "/a/../b", ""] {
        let remedy = "give an absolute path on the controllers, without `..`";
        let expected = format!("f:6:25: etcd.local.dataDir: `{path}` cannot be etcd's data directory | {remedy}");
        refused(&format!("etcd: {{local: {{dataDir: '{path}'}}}}\n"), &[&expected]);
    }
}

#[test]
fn where_hoist_is() {
    for path in ["hoist", "/", "/a/", "/a//b", "/a/../b", "/a b", "/a%n", "/a$b", "/a\\"] {
        let why = "is not an absolute path of letters, digits, `-`, `_`, `.`, `@` and `+`";
        let expected = |column: usize, field: &str| format!("f:6:{column}: hoist.{field}: `{path}` {why}");
        refused(&format!("hoist: {{binary: '{path}'}}\n"), &[&expected(17, "binary")]);
        refused(&format!("hoist: {{assetDir: '{path}'}}\n"), &[&expected(19, "assetDir")]);
    }
}
