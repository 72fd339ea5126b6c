//! What docs/security.md says of every rendered cluster, of the bridge and of the self-hosted control plane alike.

use std::collections::BTreeMap;
use std::path::Path;

use hoist::desired::assets::AssetSet;
use hoist::desired::config::{Arg, Cluster, Etcd};
use hoist::desired::secrets::{self, Server};
use hoist::desired::server_config;
use serde_json::Value;

use crate::support::{Files, TOKEN, all, cluster, documents, golden, is_manifest, issue, parse, render, text};

const API_SERVERS: [&str; 2] =
    ["bootstrap-manifests/bridge-kube-apiserver.yaml", "manifests/kube-apiserver/daemonset.yaml"];
const CONTROLLER_MANAGERS: [&str; 2] =
    ["bootstrap-manifests/bridge-kube-controller-manager.yaml", "manifests/kube-controller-manager/deployment.yaml"];
const SCHEDULERS: [&str; 2] =
    ["bootstrap-manifests/bridge-kube-scheduler.yaml", "manifests/kube-scheduler/deployment.yaml"];
const CIPHERS: &str = "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,\
    TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,\
    TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256";

/// The specification of the pods of a manifest.
fn pod(set: &AssetSet, path: &str) -> Value {
    let value = documents(path, &text(set, path)).remove(0).value;
    value.pointer("/spec/template/spec").unwrap_or(&value["spec"]).clone()
}

/// The flags of its first container.
fn flags(set: &AssetSet, path: &str) -> BTreeMap<String, String> {
    let pod = pod(set, path);
    let words = pod["containers"][0]["command"].as_array().unwrap().iter().skip(1);
    let flag = |word: &Value| {
        let (name, value) = word.as_str().unwrap().split_once('=').unwrap();
        (name.trim_start_matches("--").to_owned(), value.to_owned())
    };
    words.map(flag).collect()
}

/// Every file of `paths` has these flags, but for those that the user of the cluster sets.
fn have(paths: &[&str], users: impl Fn(&Cluster) -> Vec<Arg>, expected: &[(&str, &str)]) {
    for (cluster, set) in all() {
        for path in paths.iter().filter(|path| set.files.contains_key(**path)) {
            let flags = flags(&set, path);
            for (name, value) in expected {
                if !users(&cluster).iter().any(|arg| arg.name == *name) {
                    assert_eq!(flags.get(*name).map(String::as_str), Some(*value), "{path}: --{name}");
                }
            }
        }
    }
}

/// No file of `paths` has any of these flags.
fn have_not(paths: &[&str], refused: &[&str]) {
    for (_, set) in all() {
        for path in paths.iter().filter(|path| set.files.contains_key(**path)) {
            let flags = flags(&set, path);
            refused.iter().for_each(|name| assert!(!flags.contains_key(*name), "{path}: --{name}"));
        }
    }
}

fn api_server_args(cluster: &Cluster) -> Vec<Arg> {
    cluster.api_server.extra_args.clone()
}

#[test]
fn api_servers_authenticate_and_authorize() {
    have(
        &API_SERVERS,
        api_server_args,
        &[
            ("authentication-config", "/etc/kubernetes/config/authentication.yaml"),
            ("authorization-mode", "Node,RBAC"),
            ("client-ca-file", "/etc/kubernetes/secrets/ca.crt"),
            ("enable-admission-plugins", "NodeRestriction"),
            ("etcd-cafile", "/etc/kubernetes/secrets/etcd-ca.crt"),
            ("etcd-certfile", "/etc/kubernetes/secrets/apiserver-etcd-client.crt"),
            ("etcd-keyfile", "/etc/kubernetes/secrets/apiserver-etcd-client.key"),
            ("kubelet-client-certificate", "/etc/kubernetes/secrets/apiserver-kubelet-client.crt"),
            ("kubelet-client-key", "/etc/kubernetes/secrets/apiserver-kubelet-client.key"),
            ("profiling", "false"),
            ("service-account-key-file", "/etc/kubernetes/secrets/sa.pub"),
            ("tls-cipher-suites", CIPHERS),
            ("tls-min-version", "VersionTLS12"),
        ],
    );
    // The self-hosted one's pair is the controller's own.
    for (path, folder) in [
        ("bootstrap-manifests/bridge-kube-apiserver.yaml", "secrets"),
        ("manifests/kube-apiserver/daemonset.yaml", "serving"),
    ] {
        let pair = ["crt", "key"].map(|end| format!("/etc/kubernetes/{folder}/apiserver.{end}"));
        have(&[path], |_| Vec::new(), &[("tls-cert-file", &pair[0]), ("tls-private-key-file", &pair[1])]);
    }
    // The last two are on and not limited by default.
    have_not(
        &API_SERVERS,
        &[
            "anonymous-auth",
            "token-auth-file",
            "disable-admission-plugins",
            "service-account-lookup",
            "request-timeout",
        ],
    );
    for (_, set) in all() {
        for path in API_SERVERS {
            let plugins = &flags(&set, path)["enable-admission-plugins"];
            assert!(plugins.split(',').any(|plugin| plugin == "NodeRestriction"), "{path}");
            assert!(!plugins.contains("AlwaysAdmit"), "{path}");
        }
    }
}

#[test]
fn controllers_have_credentials_of_their_own() {
    have(
        &CONTROLLER_MANAGERS,
        |cluster| cluster.controller_manager.extra_args.clone(),
        &[
            ("profiling", "false"),
            ("root-ca-file", "/etc/kubernetes/secrets/ca.crt"),
            ("service-account-private-key-file", "/etc/kubernetes/secrets/sa.key"),
            ("tls-cipher-suites", CIPHERS),
            ("tls-min-version", "VersionTLS12"),
            ("use-service-account-credentials", "true"),
        ],
    );
    have(
        &SCHEDULERS,
        |cluster| cluster.scheduler.extra_args.clone(),
        &[("profiling", "false"), ("tls-cipher-suites", CIPHERS), ("tls-min-version", "VersionTLS12")],
    );
    for (cluster, set) in all() {
        for path in CONTROLLER_MANAGERS.iter().chain(&SCHEDULERS) {
            let address = flags(&set, path)["bind-address"].clone();
            assert_eq!(address, cluster.loopback().to_string(), "{path}");
        }
    }
}

#[test]
fn etcd_knows_its_clients_and_peers() {
    const ETCD: &str = "bootstrap-manifests/etcd.yaml";
    let users = |cluster: &Cluster| match &cluster.etcd {
        Etcd::Local { extra_args, .. } => extra_args.clone(),
        Etcd::External { .. } => Vec::new(),
    };
    have(
        &[ETCD],
        users,
        &[
            ("cert-file", "/etc/kubernetes/secrets/server.crt"),
            ("cipher-suites", CIPHERS),
            ("client-cert-auth", "true"),
            ("key-file", "/etc/kubernetes/secrets/server.key"),
            ("peer-cert-file", "/etc/kubernetes/secrets/peer.crt"),
            ("peer-client-cert-auth", "true"),
            ("peer-key-file", "/etc/kubernetes/secrets/peer.key"),
            ("tls-min-version", "TLS1.2"),
            ("trusted-ca-file", "/etc/kubernetes/secrets/ca.crt"),
        ],
    );
    have_not(&[ETCD], &["auto-tls", "peer-auto-tls"]);
    for (_, set) in all() {
        assert!(set.files["tls/etcd/ca.crt"] != set.files["tls/ca.crt"], "etcd trusts whom the API server trusts");
    }
    // It refuses a list of the suites of older versions where it speaks none of them.
    let text = std::fs::read_to_string(golden().join("minimal.yaml")).unwrap();
    let newer = "etcd: {local: {extraArgs: [{name: tls-min-version, value: TLS1.3}]}}\n";
    let flags = flags(&render(&parse(&format!("{text}{newer}"))), ETCD);
    assert_eq!((flags["tls-min-version"].as_str(), flags.contains_key("cipher-suites")), ("TLS1.3", false));
}

#[test]
fn kubelets_let_in_whom_the_api_server_lets_in() {
    for (cluster, set) in all() {
        let path = "kubelet/config.yaml";
        let config = documents(path, &text(&set, path)).remove(0).value;
        let suites: Vec<_> = CIPHERS.split(',').collect();
        let expected = [
            ("/authentication/anonymous/enabled", Value::from(false)),
            ("/authentication/webhook/enabled", true.into()),
            ("/authentication/x509/clientCAFile", "/etc/kubernetes/pki/ca.crt".into()),
            ("/authorization/mode", "Webhook".into()),
            ("/readOnlyPort", 0.into()),
            // Where nothing in the cluster signs, nobody would renew it.
            ("/rotateCertificates", (!cluster.has_external_ca()).into()),
            ("/tlsCipherSuites", suites.into()),
            ("/tlsMinVersion", "VersionTLS12".into()),
        ];
        for (pointer, value) in expected {
            let users = Value::Object(cluster.kubelet_config.clone());
            if users.pointer(pointer).is_none() {
                assert_eq!(config.pointer(pointer), Some(&value), "{pointer}");
            }
        }
        // Their defaults are what is wanted.
        for field in ["streamingConnectionIdleTimeout", "makeIPTablesUtilChains", "eventRecordQPS"] {
            assert!(config.get(field).is_none() || cluster.kubelet_config.contains_key(field), "{field}");
        }
    }
}

#[test]
fn audit_logs_are_kept_and_rotated_apart() {
    have(
        &API_SERVERS,
        api_server_args,
        &[
            ("audit-log-maxage", "30"),
            ("audit-log-maxbackup", "10"),
            ("audit-log-maxsize", "100"),
            ("audit-policy-file", "/etc/kubernetes/config/audit-policy.yaml"),
        ],
    );
    for (_, set) in all() {
        let logs = API_SERVERS.map(|path| flags(&set, path)["audit-log-path"].clone());
        assert_ne!(logs[0], logs[1]);
        for (log, path) in logs.iter().zip(API_SERVERS) {
            assert_eq!(Path::new(log).parent(), Some(Path::new(server_config::AUDIT_LOGS)), "{path}");
            // What rotation leaves of the one has not the beginning of the other's.
            let stem = |log: &str| log.strip_suffix(".log").unwrap().to_owned() + "-";
            assert!(!logs.iter().any(|other| other != log && other.starts_with(&stem(log))), "{logs:?}");
            let pod = pod(&set, path);
            let mounts = pod["containers"][0]["volumeMounts"].as_array().unwrap();
            let mount = mounts.iter().find(|mount| mount["mountPath"] == server_config::AUDIT_LOGS).unwrap();
            let volume = pod["volumes"].as_array().unwrap().iter().find(|volume| volume["name"] == mount["name"]);
            assert_eq!(volume.unwrap()["hostPath"]["path"], server_config::AUDIT_LOGS, "{path}");
        }
    }
}

/// A file of the API servers' ConfigMap.
fn config(set: &AssetSet, name: &str) -> Value {
    let bytes = server_config::files(set).unwrap().remove(name).unwrap_or_else(|| panic!("no {name}"));
    documents(name, std::str::from_utf8(&bytes).unwrap()).remove(0).value
}

/// A request, as the rules of an audit policy see it.
struct Request {
    user: &'static str,
    groups: &'static [&'static str],
    verb: &'static str,
    group: &'static str,
    resource: &'static str,
}

/// The level of a request by the first rule that fits, as k8s.io/apiserver's audit/policy has it.
fn level(policy: &Value, request: &Request) -> String {
    let names = |value: &Value, field: &str| -> Option<Vec<String>> {
        let list = value.get(field)?.as_array()?;
        Some(list.iter().map(|name| name.as_str().unwrap().to_owned()).collect())
    };
    let fits = |rule: &&Value| {
        let any = |field: &str, wanted: &[&str]| {
            names(rule, field).is_none_or(|names| names.iter().any(|name| wanted.contains(&name.as_str())))
        };
        let is_resource = |one: &Value| {
            one["group"] == request.group
                && names(one, "resources").is_none_or(|names| names.iter().any(|name| name == request.resource))
        };
        any("users", &[request.user])
            && any("userGroups", request.groups)
            && any("verbs", &[request.verb])
            && rule.get("nonResourceURLs").is_none()
            && rule.get("resources").is_none_or(|list| list.as_array().unwrap().iter().any(is_resource))
    };
    let rule = policy["rules"].as_array().unwrap().iter().find(fits).unwrap();
    rule["level"].as_str().unwrap().to_owned()
}

#[test]
fn the_audit_log_says_who_did_what_and_no_secret() {
    let policy = config(&render(&cluster("minimal")), "audit-policy.yaml");
    const CORE: &str = "";
    const NODE: (&str, &[&str]) = ("system:node:c1", &["system:nodes", "system:authenticated"]);
    const MANAGER: (&str, &[&str]) = ("system:kube-controller-manager", &["system:authenticated"]);
    const ADMIN: (&str, &[&str]) = ("kubernetes-admin", &["system:masters", "system:authenticated"]);
    const NOBODY: (&str, &[&str]) = ("system:anonymous", &["system:unauthenticated"]);
    let rbac = "rbac.authorization.k8s.io";
    let rows = [
        (ADMIN, "create", CORE, "secrets", "Metadata"),
        (ADMIN, "get", CORE, "secrets", "Metadata"),
        (MANAGER, "list", CORE, "secrets", "Metadata"),
        (NODE, "get", CORE, "secrets", "Metadata"),
        (ADMIN, "patch", CORE, "configmaps", "Metadata"),
        (NODE, "create", CORE, "serviceaccounts/token", "Metadata"),
        (NODE, "create", "authentication.k8s.io", "tokenreviews", "Metadata"),
        (ADMIN, "create", rbac, "clusterrolebindings", "RequestResponse"),
        (MANAGER, "update", rbac, "clusterroles", "RequestResponse"),
        (ADMIN, "list", rbac, "roles", "Metadata"),
        (ADMIN, "create", CORE, "pods", "Metadata"),
        (ADMIN, "create", CORE, "pods/exec", "Metadata"),
        (ADMIN, "get", CORE, "nodes/proxy", "Metadata"),
        (ADMIN, "update", "coordination.k8s.io", "leases", "Metadata"),
        (NOBODY, "list", CORE, "pods", "Metadata"),
        (NODE, "update", "coordination.k8s.io", "leases", "None"),
        (MANAGER, "update", "coordination.k8s.io", "leases", "None"),
        (("hoist:guard", &["system:authenticated"]), "patch", "coordination.k8s.io", "leases", "None"),
        (NODE, "patch", CORE, "nodes/status", "None"),
        (NODE, "create", CORE, "events", "None"),
        (MANAGER, "watch", CORE, "pods", "None"),
        (NODE, "create", CORE, "pods", "Metadata"),
        (("system:apiserver", &["system:masters"]), "create", rbac, "clusterroles", "None"),
    ];
    for ((user, groups), verb, group, resource, expected) in rows {
        let request = Request { user, groups, verb, group, resource };
        assert_eq!(level(&policy, &request), expected, "{user} {verb} {resource}");
    }
    // Bodies are written for RBAC alone.
    for rule in policy["rules"].as_array().unwrap() {
        if !matches!(rule["level"].as_str().unwrap(), "None" | "Metadata") {
            assert_eq!(rule["resources"], serde_json::json!([{"group": rbac}]));
        }
    }
}

#[test]
fn whoever_has_no_credentials_may_ask_what_is_listed() {
    for (_, set) in all() {
        let anonymous = config(&set, "authentication.yaml")["anonymous"].clone();
        let paths: Vec<_> =
            anonymous["conditions"].as_array().unwrap().iter().map(|c| c["path"].as_str().unwrap()).collect();
        let expected =
            ["/healthz", "/livez", "/readyz", "/version", "/api/v1/namespaces/kube-public/configmaps/cluster-info"];
        assert_eq!((anonymous["enabled"].clone(), paths), (true.into(), expected.to_vec()));
    }
}

/// The two exclude one another: an API server with both does not start.
#[test]
fn flags_of_openid_connect_take_the_place_of_the_list() {
    let text = std::fs::read_to_string(golden().join("minimal.yaml")).unwrap();
    let oidc = "apiServer: {extraArgs: [{name: oidc-issuer-url, value: 'https://issuer.example.com'}]}\n";
    let set = render(&parse(&format!("{text}{oidc}")));
    for path in API_SERVERS {
        let flags = flags(&set, path);
        assert!(flags.contains_key("oidc-issuer-url") && !flags.contains_key("authentication-config"), "{path}");
    }
}

#[test]
fn pods_are_held_against_a_standard() {
    for (cluster, set) in all() {
        let plugins = config(&set, "admission.yaml")["plugins"].clone();
        assert_eq!(plugins[0]["name"], "PodSecurity");
        let levels = &cluster.pod_security;
        let defaults = &plugins[0]["configuration"]["defaults"];
        for (mode, level) in [("enforce", levels.enforce), ("audit", levels.audit), ("warn", levels.warn)] {
            assert_eq!(defaults[mode], level.name(), "{mode}");
        }
        let path = "manifests/cluster/namespace-kube-system.yaml";
        let labels = documents(path, &text(&set, path))[0].value["metadata"]["labels"].clone();
        assert_eq!(labels["pod-security.kubernetes.io/enforce"], "privileged");
        for path in API_SERVERS {
            assert_eq!(
                flags(&set, path)["admission-control-config-file"],
                "/etc/kubernetes/config/admission.yaml",
                "{path}"
            );
        }
    }
}

/// The keys in tls/encryption.yaml, as they are written.
fn keys(set: &AssetSet) -> Vec<String> {
    let text = text(set, "tls/encryption.yaml");
    text.lines().filter_map(|line| Some(line.split_once("secret: ")?.1.to_owned())).collect()
}

fn first_provider(set: &AssetSet) -> String {
    let path = "tls/encryption.yaml";
    let group = documents(path, &text(set, path)).remove(0).value["resources"][0].clone();
    assert_eq!(group["resources"], serde_json::json!(["secrets"]));
    let providers = group["providers"].as_array().unwrap();
    assert_eq!(providers.len(), 2, "what is written in plain text is read, too");
    providers[0].as_object().unwrap().keys().next().unwrap().clone()
}

#[test]
fn secrets_are_encrypted_by_the_same_file_on_both_sides() {
    have(&API_SERVERS, api_server_args, &[("encryption-provider-config", "/etc/kubernetes/secrets/encryption.yaml")]);
    for (cluster, set) in all() {
        assert_eq!(first_provider(&set), "secretbox");
        let keys = keys(&set);
        assert!(keys.len() == 1 && keys[0].len() == 44);
        let whole = set.files["tls/encryption.yaml"].content.clone();
        let bridge = secrets::of_component("kube-apiserver", &cluster, &set.tls(), Server::Bridge).unwrap();
        assert!(bridge["encryption.yaml"] == whole);
        let own = secrets::of_component("kube-apiserver", &cluster, &set.tls(), Server::SelfHosted).unwrap();
        let manifest = text(&set, "manifests/kube-apiserver/secret.yaml");
        assert!(own["encryption.yaml"] == whole && manifest == secrets::manifest("kube-apiserver", &own));
        // Nothing that is reviewed holds a key.
        for (path, file) in &set.files {
            let has_key = String::from_utf8_lossy(&file.content).contains(&keys[0]);
            assert_eq!(has_key, path == "tls/encryption.yaml", "{path}");
            assert!(!has_key || file.is_private(), "{path}");
        }
    }
}

/// An asset directory of an older hoist, rendered again: nobody may write what another API server cannot read yet.
#[test]
fn a_cluster_that_has_run_without_encryption_learns_to_read_first() {
    let cluster = cluster("minimal");
    let mut older = issue(&cluster, &Files::new()).files;
    older.remove("encryption.yaml");
    let renewed = issue(&cluster, &older);
    let set = hoist::desired::render::render(&cluster, &renewed.files, TOKEN).unwrap();
    assert_eq!(first_provider(&set), "identity");
    let said: Vec<_> = renewed.issued.iter().map(|file| (file.path.as_str(), file.reason.as_str())).collect();
    let reason = "new; Secrets are written as plain text until its key is the first (docs/security.md)";
    assert_eq!(said, [("encryption.yaml", reason)]);
    // From then on it is the user's.
    let edited = text(&set, "tls/encryption.yaml").replace("key1", "mine");
    let mut files = renewed.files.clone();
    files.insert("encryption.yaml".into(), edited.clone().into_bytes());
    let again = issue(&cluster, &files);
    assert!(again.issued.is_empty() && again.files["encryption.yaml"] == edited.as_bytes());
}

/// What the network and DNS need: they change the node's own network, or are what a cluster asks.
const OF_THE_NETWORK: [&str; 4] =
    ["manifests/flannel/", "manifests/kube-proxy/", "manifests/coredns/", "manifests/node-local-dns/"];

#[test]
fn control_plane_pods_are_confined() {
    for (_, set) in all() {
        let is_of_network = |path: &String| OF_THE_NETWORK.iter().any(|folder| path.starts_with(folder));
        for path in set.files.keys().filter(|path| is_manifest(path) && !is_of_network(path)) {
            for document in documents(path, &text(&set, path)) {
                let spec = document.value.pointer("/spec/template/spec").unwrap_or(&document.value["spec"]);
                let Some(containers) = spec["containers"].as_array() else { continue };
                assert_eq!(spec["automountServiceAccountToken"], false, "{path}");
                assert_eq!(spec["securityContext"]["seccompProfile"]["type"], "RuntimeDefault", "{path}");
                for container in containers {
                    let context = &container["securityContext"];
                    assert_eq!(context["allowPrivilegeEscalation"], false, "{path}");
                    assert_eq!(context["readOnlyRootFilesystem"], true, "{path}");
                    assert_eq!(context["capabilities"]["drop"], serde_json::json!(["ALL"]), "{path}");
                    assert!(context["privileged"].is_null(), "{path}");
                    let kinds = serde_json::to_string(&container["env"]).unwrap();
                    assert!(!kinds.contains("secretKeyRef"), "{path}: Secrets are files");
                }
            }
        }
    }
}

/// Which capabilities each container of the network has; none is privileged but kube-proxy, which sets the kernel's values.
#[test]
fn pods_of_the_network_have_what_they_need() {
    for (_, set) in all() {
        let mut found = std::collections::BTreeMap::new();
        for path in set.files.keys().filter(|path| OF_THE_NETWORK.iter().any(|folder| path.starts_with(folder))) {
            for document in documents(path, &text(&set, path)) {
                let Some(spec) = document.value.pointer("/spec/template/spec") else { continue };
                let all =
                    ["initContainers", "containers"].map(|kind| spec[kind].as_array().cloned().unwrap_or_default());
                for container in all.concat() {
                    let context = &container["securityContext"];
                    let name = container["name"].as_str().unwrap_or_default().to_owned();
                    found.insert(name, (context["privileged"] == true, context["capabilities"]["add"].to_string()));
                }
            }
        }
        let expected = [
            ("address", false, r#"["NET_ADMIN"]"#),
            ("cache", false, r#"["NET_BIND_SERVICE"]"#),
            ("coredns", false, r#"["NET_BIND_SERVICE"]"#),
            ("install-cni", false, "null"),
            ("install-cni-plugin", false, "null"),
            ("kube-flannel", false, r#"["NET_ADMIN","NET_RAW"]"#),
            ("kube-proxy", true, "null"),
        ];
        for (name, has) in found {
            let of = expected.iter().find(|(expected, ..)| *expected == name);
            assert_eq!(of.map(|(_, privileged, add)| (*privileged, (*add).to_owned())), Some(has), "{name}");
        }
    }
}

/// The two exclude one another: an API server with both does not start.
#[test]
fn a_file_of_authorizers_takes_the_place_of_the_modes() {
    let text = std::fs::read_to_string(golden().join("minimal.yaml")).unwrap();
    let file =
        "apiServer: {extraArgs: [{name: authorization-config, value: /etc/kubernetes/config/authorization.yaml}]}\n";
    let set = render(&parse(&format!("{text}{file}")));
    for path in API_SERVERS {
        let flags = flags(&set, path);
        assert_eq!(flags["authorization-config"], "/etc/kubernetes/config/authorization.yaml", "{path}");
        assert!(!flags.contains_key("authorization-mode"), "{path}");
    }
}

/// Where cluster DNS is the user's, so is its address, for every kubelet.
#[test]
fn another_dns_has_the_address_that_is_given() {
    let minimal = std::fs::read_to_string(golden().join("minimal.yaml")).unwrap();
    let set =
        render(&parse(&format!("{minimal}dns: {{plugin: none}}\nkubelet: {{config: {{clusterDNS: [192.0.2.53]}}}}\n")));
    for path in ["kubelet/config.yaml", "kubelet/worker-config.yaml"] {
        let value = documents(path, &text(&set, path))[0].value.clone();
        assert_eq!(value["clusterDNS"], serde_json::json!(["192.0.2.53"]), "{path}");
    }
}
