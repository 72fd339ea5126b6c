//! What must be true of every asset directory.

use std::collections::BTreeSet;
use std::net::IpAddr;

use base64::Engine;
use hoist::desired::assets::AssetSet;
use serde_json::Value;

use crate::support::{
    Files, NAMES, TOKEN, all, cluster, documents, is_manifest, is_secret, issue, parse, render, text,
};

fn decoded(text: &str) -> String {
    let bytes = base64::engine::general_purpose::STANDARD.decode(text).unwrap_or_default();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Every string in a value, and what those in base64 stand for.
fn strings(value: &Value) -> Vec<String> {
    match value {
        Value::String(text) => vec![text.clone(), decoded(text)],
        Value::Array(list) => list.iter().flat_map(strings).collect(),
        Value::Object(map) => {
            map.iter().flat_map(|(key, value)| [vec![key.clone()], strings(value)].concat()).collect()
        }
        _ => Vec::new(),
    }
}

/// The files of what every node runs, and which asks the API before any Service leads there.
const ASK_THE_ENDPOINT: [&str; 2] = ["manifests/flannel/config-map.yaml", "manifests/kube-proxy/config-map.yaml"];

#[test]
fn no_manifest_names_a_controller() {
    for (cluster, set) in all() {
        for path in set.files.keys().filter(|path| path.starts_with("manifests/")) {
            let mut text = text(&set, path);
            if ASK_THE_ENDPOINT.contains(&path.as_str()) {
                let server = cluster.server_of_nodes();
                assert_eq!(text.matches(&server).count(), 1, "{path}");
                text = text.replace(&server, "");
            }
            let mut said: Vec<_> =
                documents(path, &text).iter().flat_map(|document| strings(&document.value)).collect();
            said.push(text);
            // Machines that are no controllers are told where the API is, which is the first one's address by default.
            let endpoint = cluster.endpoint().to_string();
            let told = [format!("server: https://{endpoint}"), format!("controlPlaneEndpoint: \"{endpoint}\"")];
            said.iter_mut().for_each(|text| told.iter().for_each(|told| *text = text.replace(told, "")));
            for controller in &cluster.controllers {
                for name in [controller.name.clone(), controller.address.to_string()] {
                    assert!(!said.iter().any(|text| text.contains(&name)), "{path} names {name}");
                }
            }
        }
    }
}

#[test]
fn keys_are_nowhere_but_where_they_belong() {
    for (_, set) in all() {
        for (path, file) in &set.files {
            let text = String::from_utf8_lossy(&file.content).into_owned();
            let words: String = text.split(['"', ' ', '\n']).map(decoded).collect();
            let has_key = [&text, &words].iter().any(|text| text.contains("PRIVATE KEY"));
            let has_token = text.contains(TOKEN);
            if has_key || has_token {
                assert!(is_secret(path) && file.is_private(), "{path}");
            }
            assert_eq!(has_token, path == "auth/kubeconfig-kubelet", "{path}");
            let is_public = path.ends_with(".crt") || path.ends_with(".pub") || !is_secret(path);
            assert_eq!(file.is_private(), !is_public, "{path}");
        }
    }
}

#[test]
fn nothing_is_bound_to_cluster_admin() {
    for (_, set) in all() {
        for path in set.files.keys().filter(|path| is_manifest(path)) {
            let text = text(&set, path);
            for word in ["cluster-admin", "system:masters", "serviceaccount"] {
                // An audit policy names whom it is about, and binds nobody.
                let is_policy = path == hoist::desired::server_config::PATH && word == "serviceaccount";
                assert!(is_policy || !text.contains(word), "{path} says {word}");
            }
            for document in documents(path, &text) {
                let account = document.value.pointer("/spec/template/spec/automountServiceAccountToken");
                assert_ne!(account, Some(&Value::Bool(true)), "{path}");
                assert!(!document.value["rules"].to_string().contains('*'), "{path}");
            }
        }
    }
}

/// The command of the first container of a component.
fn command(set: &AssetSet, path: &str) -> Vec<String> {
    let value = documents(path, &text(set, path)).remove(0).value;
    let spec = value.pointer("/spec/template/spec").unwrap_or(&value["spec"]);
    let list = spec.pointer("/containers/0/command").and_then(Value::as_array).unwrap();
    list.iter().map(|word| word.as_str().unwrap().to_owned()).collect()
}

fn name(flag: &str) -> &str {
    flag.split('=').next().unwrap()
}

const COMPONENTS: [(&str, &str); 3] =
    [("kube-apiserver", "daemonset"), ("kube-controller-manager", "deployment"), ("kube-scheduler", "deployment")];

#[test]
fn the_bridge_and_the_self_hosted_control_plane_share_their_flags() {
    // What makes the one the bridge's and the other the self-hosted one.
    const OWN: [&str; 10] = [
        "--audit-log-path",
        "--bind-address",
        "--leader-elect-lease-duration",
        "--leader-elect-retry-period",
        "--master",
        "--permit-port-sharing",
        "--secure-port",
        "--shutdown-",
        "--tls-cert-file",
        "--tls-private-key-file",
    ];
    let is_own =
        |flag: &String| OWN.iter().any(|own| name(flag) == *own || own.ends_with('-') && flag.starts_with(own));
    for (_, set) in all() {
        for (component, kind) in COMPONENTS {
            let shared = |path: String| -> Vec<String> {
                command(&set, &path).into_iter().filter(|flag| !is_own(flag)).collect()
            };
            let bridge = shared(format!("bootstrap-manifests/bridge-{component}.yaml"));
            assert_eq!(bridge, shared(format!("manifests/{component}/{kind}.yaml")));
            assert_eq!(bridge[0], component);
        }
    }
}

/// Whoever checks a service account's token asks the API server where its keys are.
#[test]
fn the_bridge_names_the_port_that_clients_know() {
    let minimal = std::fs::read_to_string(crate::support::golden().join("minimal.yaml")).unwrap();
    let named =
        |host| parse(&format!("{minimal}apiServer: {{extraArgs: [{{name: external-hostname, value: '{host}'}}]}}\n"));
    for (cluster, expected) in [
        (parse(&minimal), "$(HOST_IP):6443"),
        (crate::support::ipv6(), "[$(HOST_IP)]:6443"),
        (named("api.example.com"), "api.example.com:6443"),
        (named("api.example.com:443"), "api.example.com:443"),
        (named("2001:db8::1"), "[2001:db8::1]:6443"),
        (named("[2001:db8::1]:443"), "[2001:db8::1]:443"),
    ] {
        let command = command(&render(&cluster), "bootstrap-manifests/bridge-kube-apiserver.yaml");
        let expected = format!("--service-account-jwks-uri=https://{expected}/openid/v1/jwks");
        assert!(command.contains(&expected), "{expected}: {command:?}");
    }
}

#[test]
fn a_users_flag_takes_the_place_of_hoists() {
    let cluster = cluster("full");
    let set = render(&cluster);
    let hoist::desired::config::Etcd::Local { extra_args: etcd, .. } = &cluster.etcd else { panic!("etcd is local") };
    let mut commands = vec![(etcd, "bootstrap-manifests/etcd.yaml".to_owned())];
    let args = [&cluster.api_server.extra_args, &cluster.controller_manager.extra_args, &cluster.scheduler.extra_args];
    for ((component, kind), args) in COMPONENTS.into_iter().zip(args) {
        commands.push((args, format!("bootstrap-manifests/bridge-{component}.yaml")));
        commands.push((args, format!("manifests/{component}/{kind}.yaml")));
    }
    for (args, path) in commands {
        let command = command(&set, &path);
        let users: Vec<_> = args.iter().map(|arg| format!("--{}={}", arg.name, arg.value)).collect();
        assert!(command.ends_with(&users), "{path}: {command:?}");
        let mut seen = BTreeSet::new();
        for flag in command.iter().filter(|flag| name(flag) != "--feature-gates") {
            assert!(seen.insert(name(flag)), "{path} has {flag} twice");
        }
    }
}

#[test]
fn a_render_depends_on_nothing_but_its_input() {
    for golden in NAMES {
        let cluster = cluster(golden);
        let tls = issue(&cluster, &Files::new()).files;
        let first = hoist::desired::render::render(&cluster, &tls, TOKEN).unwrap();
        assert!(first == hoist::desired::render::render(&cluster, &tls, TOKEN).unwrap());
        // Other keys at another time change nothing that is reviewed.
        let second = render(&cluster);
        for (path, file) in first.files.iter().filter(|(path, _)| !is_secret(path)) {
            let is_of_the_ca = path == "manifests/kubeadm/cluster-info.yaml";
            // It tells machines that join which CA is the cluster's.
            assert_eq!(second.files[path] == *file, !is_of_the_ca, "{path}");
        }
        // What was resolved is an input that makes the same.
        let resolved = parse(&text(&first, "cluster.yaml"));
        assert!(first == hoist::desired::render::render(&resolved, &tls, TOKEN).unwrap());
    }
}

#[test]
fn another_controller_changes_only_what_must_change() {
    let text = std::fs::read_to_string(crate::support::golden().join("minimal.yaml")).unwrap();
    let one = parse(&text);
    let two = parse(&format!("{text}- name: minimal-2\n  address: 192.0.2.11\n"));
    let pki = issue(&one, &Files::new());
    let before = hoist::desired::render::render(&one, &pki.files, TOKEN).unwrap();
    let after = hoist::desired::render::render(&two, &issue(&two, &pki.files).files, TOKEN).unwrap();
    let changed = |path: &&String| before.files.get(*path) != after.files.get(*path);
    let changed: Vec<_> = after.files.keys().filter(changed).map(String::as_str).collect();
    let expected = [
        // The members of etcd.
        "bootstrap-manifests/etcd.yaml",
        "cluster.yaml",
        // The API server's names.
        "manifests/kube-apiserver/secret.yaml",
        // One replica for each controller.
        "tls/apiserver.crt",
        "tls/etcd/minimal-2/peer.crt",
        "tls/etcd/minimal-2/peer.key",
        "tls/etcd/minimal-2/server.crt",
        "tls/etcd/minimal-2/server.key",
        "tls/kubelet/minimal-2/client.crt",
        "tls/kubelet/minimal-2/client.key",
    ];
    assert_eq!(changed, expected);
    assert!(before.files.keys().all(|path| after.files.contains_key(path)));
}

#[test]
fn kubeconfigs_lead_where_they_should() {
    for (cluster, set) in all() {
        let server = |text: &str| documents("kubeconfig", text)[0].value["clusters"][0]["cluster"]["server"].clone();
        let endpoint = format!("https://{}", cluster.endpoint());
        let kubeconfigs = ["auth/kubeconfig", "auth/kubeconfig-kubelet"];
        for path in kubeconfigs.into_iter().take(if cluster.has_external_ca() { 1 } else { 2 }) {
            assert_eq!(server(&text(&set, path)), Value::from(endpoint.clone()), "{path}");
        }
        for path in ASK_THE_ENDPOINT.into_iter().filter(|path| set.files.contains_key(*path)) {
            let map = &documents(path, &text(&set, path))[0].value;
            let kubeconfig = map["data"]["kubeconfig.conf"].as_str().unwrap();
            assert_eq!(server(kubeconfig), Value::from(cluster.server_of_nodes()), "{path}");
        }
        for (component, _) in &COMPONENTS[1..] {
            let path = format!("manifests/{component}/secret.yaml");
            let data = documents(&path, &text(&set, &path))[0].value["data"]["kubeconfig"].clone();
            let host = if matches!(cluster.loopback(), IpAddr::V6(_)) { "[::1]" } else { "127.0.0.1" };
            assert_eq!(server(&decoded(data.as_str().unwrap())), Value::from(format!("https://{host}:6443")), "{path}");
        }
    }
}

/// A ConfigMap's value, parsed.
fn value_of(set: &AssetSet, path: &str, key: &str) -> Value {
    let map = documents(path, &text(set, path)).remove(0).value;
    documents(key, map["data"][key].as_str().unwrap()).remove(0).value
}

#[test]
fn the_network_is_the_one_that_is_declared() {
    for (cluster, set) in all() {
        let (flannel, proxy) = (&ASK_THE_ENDPOINT[0], &ASK_THE_ENDPOINT[1]);
        let is_there = |folder: &str| set.files.keys().any(|path| path.starts_with(&format!("manifests/{folder}/")));
        let has_flannel = cluster.network.plugin != hoist::desired::config::Plugin::None;
        let has_proxy = cluster.kube_proxy.mode != hoist::desired::config::ProxyMode::None;
        assert_eq!((is_there("flannel"), is_there("kube-proxy")), (has_flannel, has_proxy));
        let subnets = &cluster.networking.pod_subnets;
        if has_flannel {
            let net = value_of(&set, flannel, "net-conf.json");
            let made: Vec<_> = ["Network", "IPv6Network"].iter().filter_map(|key| net[key].as_str()).collect();
            assert_eq!(made, subnets.iter().map(ToString::to_string).collect::<Vec<_>>());
            assert_eq!(net["EnableIPv4"] != false, subnets.iter().any(|net| net.network().is_ipv4()));
            assert_eq!(net["EnableIPv6"] == true, subnets.iter().any(|net| net.network().is_ipv6()));
            value_of(&set, flannel, "cni-conf.json");
        }
        if has_proxy {
            let config = value_of(&set, proxy, "config.conf");
            let joined = subnets.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
            assert_eq!(config["clusterCIDR"], joined);
            for (field, value) in &cluster.kube_proxy.config {
                assert_eq!(config[field], *value);
            }
        }
    }
}

/// While only the bridge serves, `controlPlaneEndpoint` leads to it where it is an address of the controller's.
#[test]
fn the_forwarder_listens_where_the_endpoint_may_lead() {
    let own = ["--listen=$(HOST_IP):6443"];
    let extra = |arg: &'static str| vec![own[0], arg];
    for (endpoint, expected) in [
        ("", own.to_vec()),
        ("10.0.0.1", own.to_vec()),
        ("192.0.2.9", extra("--listen=192.0.2.9:6443")),
        ("192.0.2.9:6443", extra("--listen=192.0.2.9:6443")),
        ("'[fd00::9]'", extra("--listen=[fd00::9]:6443")),
        ("api.example.com", extra("--listen-everywhere")),
        ("endpoint: {virtualAddress: 192.0.2.9, interface: eth0}", extra("--listen=192.0.2.9:6443")),
        // Whatever listens there passes on to 6443.
        ("192.0.2.9:443", own.to_vec()),
        ("api.example.com:443", own.to_vec()),
    ] {
        let line = match endpoint {
            "" => String::new(),
            section if section.starts_with("endpoint:") => format!("{section}\n"),
            endpoint => format!("controlPlaneEndpoint: {endpoint}\n"),
        };
        let head = "apiVersion: hoist/v1alpha1\nkind: Cluster\ncontrollers:\n- {name: c1, address: 10.0.0.1}\n";
        let set = render(&parse(&format!("{head}{line}")));
        let path = "bootstrap-manifests/bridge-kube-apiserver.yaml";
        let pod = documents(path, &text(&set, path)).remove(0).value;
        let command = pod.pointer("/spec/containers/1/command").unwrap().as_array().unwrap();
        let listens: Vec<_> =
            command.iter().filter_map(Value::as_str).filter(|arg| arg.starts_with("--listen")).collect();
        assert_eq!(listens, expected, "{endpoint}");
    }
}
