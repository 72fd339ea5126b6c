//! Which flags and kubelet fields users may set, and which only hoist sets.

use serde_json::{Map, Value};

use super::check::Check;
use super::{Arg, Version, raw};
use crate::base::yaml::{Fields, child, item};
use crate::desired::known_flags::{self, Program, Verdict};
use crate::desired::schema::{self, Config};

use Program::{ApiServer, ControllerManager, Etcd, Scheduler};

const ADDRESS: &str = "it lets the bridge and the self-hosted API server share one address";
const PROBED: &str = "hoist probes it there";
const LEASE: &str = "hoist follows leadership from the bridge to the self-hosted cluster by this Lease";
const TARGET: &str = "the bridge and the self-hosted one talk to different API servers";
const ETCD: &str = "it follows from `etcd`";
const PKI: &str = "hoist issues and mounts these files; see `pki`";
const MEMBER: &str = "it follows from the controller that etcd runs on";
const POD_SUBNET: &str = "it follows from `networking.podSubnet`";
const SERVICE_SUBNET: &str = "it follows from `networking.serviceSubnet`";

/// Flags that `extraArgs` may not set, and why. A `*` at the end stands for any rest.
const OWNED: &[(&[Program], &str, &str)] = &[
    (&[ApiServer], "advertise-address", "each controller's API server advertises the address of its node"),
    (&[ApiServer], "bind-address", ADDRESS),
    (&[ApiServer], "secure-port", ADDRESS),
    (&[ApiServer], "permit-port-sharing", ADDRESS),
    (&[ApiServer], "permit-address-sharing", ADDRESS),
    (&[ApiServer], "endpoint-reconciler-type", "hoist keeps the endpoints of the `kubernetes` Service right"),
    (&[ApiServer], "anonymous-auth", "kubelets and hoist ask /readyz and /livez without credentials"),
    (&[ApiServer], "shutdown-*", "the bridge and the self-hosted one take over from each other in that time"),
    (&[ApiServer], "etcd-servers", ETCD),
    (&[ApiServer], "etcd-cafile", ETCD),
    (&[ApiServer], "etcd-certfile", ETCD),
    (&[ApiServer], "etcd-keyfile", ETCD),
    (&[ApiServer], "client-ca-file", PKI),
    (&[ApiServer], "tls-cert-file", PKI),
    (&[ApiServer], "tls-private-key-file", PKI),
    (&[ApiServer], "kubelet-client-certificate", PKI),
    (&[ApiServer], "kubelet-client-key", PKI),
    (&[ApiServer], "proxy-client-cert-file", PKI),
    (&[ApiServer], "proxy-client-key-file", PKI),
    (&[ApiServer], "requestheader-client-ca-file", PKI),
    (&[ApiServer], "service-account-key-file", PKI),
    (&[ApiServer], "service-account-signing-key-file", PKI),
    (&[ApiServer, ControllerManager], "service-cluster-ip-range", SERVICE_SUBNET),
    (&[ControllerManager], "cluster-cidr", POD_SUBNET),
    (&[ControllerManager], "cluster-name", "it follows from `clusterName`"),
    (&[ControllerManager], "cluster-signing-cert-file", PKI),
    (&[ControllerManager], "cluster-signing-key-file", PKI),
    (&[ControllerManager], "root-ca-file", PKI),
    (&[ControllerManager], "service-account-private-key-file", PKI),
    (&[ControllerManager, Scheduler], "bind-address", PROBED),
    (&[ControllerManager, Scheduler], "secure-port", PROBED),
    (&[ControllerManager, Scheduler], "permit-port-sharing", "a new pod starts beside the old one, on the same port"),
    (
        &[ControllerManager, Scheduler],
        "permit-address-sharing",
        "a new pod starts beside the old one, on the same port",
    ),
    (&[ControllerManager, Scheduler], "leader-elect", LEASE),
    (&[ControllerManager, Scheduler], "leader-elect-resource-*", LEASE),
    (&[ControllerManager, Scheduler], "master", TARGET),
    (&[ControllerManager, Scheduler], "kubeconfig", TARGET),
    (&[ControllerManager, Scheduler], "authentication-kubeconfig", TARGET),
    (&[ControllerManager, Scheduler], "authorization-kubeconfig", TARGET),
    (&[Etcd], "name", MEMBER),
    (&[Etcd], "listen-*", MEMBER),
    (&[Etcd], "advertise-client-urls", MEMBER),
    (&[Etcd], "initial-*", MEMBER),
    (&[Etcd], "discovery*", MEMBER),
    (&[Etcd], "force-new-cluster", "it discards the other members for good"),
    (&[Etcd], "config-file", "etcd ignores all flags beside it"),
    (&[Etcd], "data-dir", "it follows from `etcd.local.dataDir`"),
    (&[Etcd], "wal-dir", "it follows from `etcd.local.dataDir`"),
    (&[Etcd], "cert-file", PKI),
    (&[Etcd], "key-file", PKI),
    (&[Etcd], "trusted-ca-file", PKI),
    (&[Etcd], "client-cert-auth", PKI),
    (&[Etcd], "peer-*", PKI),
];

/// Where the kubelet's pods find cluster DNS.
const CLUSTER_DNS: &[&str] = &["clusterDNS"];

/// Fields that `kubelet.config` may not set, and why.
const OWNED_KUBELET_FIELDS: &[(&[&str], &str)] = &[
    (&["apiVersion"], "hoist writes it"),
    (&["kind"], "hoist writes it"),
    (&["staticPodPath"], "hoist raises the bridge in this folder"),
    (&["staticPodURL"], "static pods come from hoist's folder only"),
    (&["authentication", "x509", "clientCAFile"], PKI),
    (CLUSTER_DNS, "it follows from `networking.serviceSubnet`, unless `dns.plugin` is none"),
    (&["clusterDomain"], "it follows from `networking.dnsDomain`"),
    (&["rotateCertificates"], "without it static pods wait for TLS bootstrap, which waits for them"),
];

/// Fields that `kubeProxy.config` may not set, and why.
const OWNED_PROXY_FIELDS: &[(&[&str], &str)] = &[
    (&["apiVersion"], "hoist writes it"),
    (&["kind"], "hoist writes it"),
    (&["mode"], "it follows from `kubeProxy.mode`"),
    (&["clusterCIDR"], POD_SUBNET),
    (
        &["clientConnection", "kubeconfig"],
        "it leads to `controlPlaneEndpoint`, never to the Service that kube-proxy makes",
    ),
    (&["hostnameOverride"], "it is the name of each pod's own node"),
];

/// Why `flag` of `program` is not the user's to set.
fn owned(program: Program, flag: &str) -> Option<&'static str> {
    let matches = |pattern: &str| match pattern.strip_suffix('*') {
        Some(beginning) => flag.starts_with(beginning),
        None => flag == pattern,
    };
    OWNED.iter().find(|(programs, pattern, _)| programs.contains(&program) && matches(pattern)).map(|(_, _, why)| *why)
}

/// Checks the `extraArgs` list at `path`; which flags there are is known of a valid `version` only.
pub(super) fn extra_args(
    check: &mut Check<'_>,
    path: &str,
    program: Program,
    version: Option<Version>,
    raw: Option<&Vec<Fields<raw::Arg>>>,
) -> Vec<Arg> {
    let mut args = Vec::new();
    for (i, arg) in raw.into_iter().flatten().enumerate() {
        let path = item(path, i);
        let name = check.required(&path, "name", arg.name.as_deref());
        let value = check.required(&path, "value", arg.value.as_deref());
        if let (Some(name), Some(value)) = (name, value) {
            flag(check, &child(&path, "name"), program, version, name);
            if let Err(why) = known_flags::fits(program, name, value) {
                let message = format!("`{value}` {why}, and {} would exit", program.name());
                check.wrong(&child(&path, "value"), message, format!("correct the value of {name}"));
            }
            args.push(Arg { name: name.to_owned(), value: value.to_owned() });
        }
    }
    args
}

/// Plugins that hoist's cluster is made for, and what is lost without each. All but the first are on by default.
const ADMISSION: [(&str, &str); 5] = [
    ("NodeRestriction", "every kubelet could change the other nodes and their pods"),
    ("ServiceAccount", "pods would get no token, and cluster DNS and the network not reach the API"),
    ("Priority", "the control plane's pods would have no priority over others"),
    ("PodSecurity", "`podSecurity` and the labels of namespaces would restrict nothing"),
    ("NamespaceLifecycle", "namespaces that are being deleted would still accept objects"),
];

/// What the API server's flags say together.
pub(super) fn together(check: &mut Check<'_>, path: &str, args: &[Arg]) {
    let find = |name: &str| args.iter().rposition(|arg| arg.name == name);
    let field = |i: usize, name: &str| child(&item(path, i), name);
    for (file, of_flags) in [
        ("authorization-config", &["authorization-mode", "authorization-webhook-"][..]),
        ("authentication-config", &["oidc-"]),
    ] {
        let is_beside = |arg: &Arg| of_flags.iter().any(|beginning| arg.name.starts_with(beginning));
        for (i, arg) in args.iter().enumerate().filter(|(_, arg)| is_beside(arg) && find(file).is_some()) {
            let message = format!("`{}` cannot be set beside `{file}`: the API server would exit", arg.name);
            check.wrong(&field(i, "name"), message, format!("remove it, and set it in the file that {file} names"));
        }
    }
    if let Some(i) = find("admission-control") {
        let message = "`admission-control` cannot be set beside `enable-admission-plugins`, which hoist sets: the API server would exit";
        let remedy = "give enable-admission-plugins a value instead, with NodeRestriction in it";
        check.wrong(&field(i, "name"), message, remedy.to_owned());
    }
    authorizers(check, path, args);
    let list = |name: &str| {
        let at = find(name)?;
        Some((at, args[at].value.split(',').map(str::trim).collect::<Vec<_>>()))
    };
    let (enabled, disabled) = (list("enable-admission-plugins"), list("disable-admission-plugins"));
    let (first, lost) = ADMISSION[0];
    if let Some((i, plugins)) = enabled.as_ref().filter(|(_, plugins)| !plugins.contains(&first)) {
        let remedy = format!(
            "unless that is meant, write {}",
            [first].iter().chain(plugins.iter().filter(|p| !p.is_empty())).copied().collect::<Vec<_>>().join(",")
        );
        check.warn(&field(*i, "value"), format!("{first} is not in it: {lost}"), remedy);
    }
    let Some((i, plugins)) = disabled else { return };
    for plugin in &plugins {
        if enabled.as_ref().is_some_and(|(_, enabled)| enabled.contains(plugin)) {
            let message = format!("{plugin} is in enable-admission-plugins, too: the API server would exit");
            check.wrong(&field(i, "value"), message, "take it out of one of the two".to_owned());
        } else if let Some((_, lost)) = ADMISSION.iter().find(|(name, _)| name == plugin)
            && (enabled.is_some() || *plugin != first)
        {
            check.warn(
                &field(i, "value"),
                format!("without {plugin}, {lost}"),
                format!("unless that is meant, take {plugin} out"),
            );
        }
    }
    // Where the list of those that are on is hoist's own.
    if enabled.is_none() && plugins.contains(&first) {
        let message = format!("{first} is in enable-admission-plugins, which hoist sets: the API server would exit");
        check.wrong(&field(i, "value"), message, "to go without it, also set enable-admission-plugins".to_owned());
    }
}

/// Modes of authorization need their files, and files their modes (BuiltInAuthorizationOptions.Validate of
/// pkg/kubeapiserver/options/authorization.go).
fn authorizers(check: &mut Check<'_>, path: &str, args: &[Arg]) {
    const MODE: &str = "authorization-mode";
    let find = |name: &str| args.iter().rposition(|arg| arg.name == name);
    let field = |i: usize, name: &str| child(&item(path, i), name);
    if find("authorization-config").is_some() {
        return;
    }
    let at = find(MODE);
    // Without a value of the user's it is hoist's.
    let modes: Vec<_> = at.map_or("Node,RBAC", |i| &args[i].value).split(',').collect();
    for (mode, file) in [("ABAC", "authorization-policy-file"), ("Webhook", "authorization-webhook-config-file")] {
        match (at.filter(|_| modes.contains(&mode)), find(file).filter(|i| !args[*i].value.is_empty())) {
            (Some(i), None) => {
                let message = format!("{mode} needs `{file}`: the API server would exit");
                check.wrong(&field(i, "value"), message, format!("add {file}, or take {mode} out"));
            }
            (None, Some(i)) => {
                let message = format!("`{file}` needs {mode} in `{MODE}`: the API server would exit");
                let remedy = format!("add {{name: {MODE}, value: \"{},{mode}\"}}, or remove it", modes.join(","));
                check.wrong(&field(i, "name"), message, remedy);
            }
            _ => {}
        }
    }
    let is_twice = |mode: &&str| modes.iter().filter(|other| other == &mode).count() > 1;
    if let (Some(i), Some(mode)) = (at, modes.iter().find(|mode| is_twice(mode))) {
        let message = format!("{mode} is in it twice: the API server would exit");
        check.wrong(&field(i, "value"), message, "write it once".to_owned());
    }
}

fn flag(check: &mut Check<'_>, path: &str, program: Program, version: Option<Version>, name: &str) {
    let bare = name.trim_start_matches('-');
    let (bare, value) = bare.split_once('=').map_or((bare, None), |(bare, value)| (bare, Some(value)));
    // kube-apiserver and its kin take `_` for `-`, which would slip past the table of owned flags.
    let bare = bare.replace('_', "-");
    let well_formed = bare.starts_with(|c: char| c.is_ascii_lowercase())
        && bare.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    if !well_formed {
        let message = format!("`{}` is not a flag: lower-case letters, digits and `-`", name);
        check.wrong(path, message, "write the flag's name without its dashes, like event-ttl".to_owned());
    } else if let Some(why) = owned(program, &bare) {
        check.wrong(path, format!("`{bare}` is set by hoist: {why}"), "remove it".to_owned());
    } else if name != bare {
        let value = value.map(|value| format!(", value: {}", Value::from(value))).unwrap_or_default();
        check.wrong(path, format!("`{name}` is not the bare name of a flag"), format!("write name: {bare}{value}"));
    } else if let Some(version) = version
        && let Verdict::Unknown { why, closest } = known_flags::verdict(program, version, &bare)
    {
        let remedy = closest.map_or("remove it".to_owned(), |closest| format!("did you mean `{closest}`?"));
        check.wrong(path, format!("`{bare}` {why}"), remedy);
    }
}

/// Checks the map of KubeletConfiguration fields at `path`. Where cluster DNS is the user's (`has_own_dns`), so is its
/// address. What fields there are is known of a valid `version` only.
pub(super) fn kubelet_config(
    check: &mut Check<'_>,
    path: &str,
    version: Option<Version>,
    config: &Map<String, Value>,
    has_own_dns: bool,
) {
    let owned: Vec<_> =
        OWNED_KUBELET_FIELDS.iter().filter(|(keys, _)| !has_own_dns || *keys != CLUSTER_DNS).copied().collect();
    fields(check, path, config, &owned);
    types(check, path, Config::Kubelet, version, config);
    let Some(addresses) = config.get(CLUSTER_DNS[0]).filter(|_| has_own_dns) else { return };
    let path = child(path, CLUSTER_DNS[0]);
    let is_address = |value: &Value| value.as_str().is_some_and(|text| text.parse::<std::net::IpAddr>().is_ok());
    match addresses.as_array() {
        None => check.wrong(&path, "it is not a list of addresses", "write it like [10.96.0.10]".to_owned()),
        Some(list) => {
            for (i, value) in list.iter().enumerate().filter(|(_, value)| !is_address(value)) {
                let message = format!("{value} is not an IP address");
                check.wrong(&item(&path, i), message, "write it like 10.96.0.10".to_owned());
            }
        }
    }
}

/// Checks the map of KubeProxyConfiguration fields at `path`, as [`kubelet_config`] does.
pub(super) fn proxy_config(check: &mut Check<'_>, path: &str, version: Option<Version>, config: &Map<String, Value>) {
    fields(check, path, config, OWNED_PROXY_FIELDS);
    types(check, path, Config::KubeProxy, version, config);
}

/// Fields of another type than the component reads are violations: it would exit. Those that it does not know it passes
/// over.
fn types(check: &mut Check<'_>, path: &str, of: Config, version: Option<Version>, config: &Map<String, Value>) {
    let Some(version) = version else { return };
    for problem in schema::check_config(of, &Value::Object(config.clone()), version, path) {
        if problem.is_unknown {
            check.without_effect(&problem.path, problem.message, problem.remedy);
        } else {
            check.wrong(&problem.path, problem.message, problem.remedy);
        }
    }
}

fn fields(check: &mut Check<'_>, path: &str, config: &Map<String, Value>, owned: &[(&[&str], &str)]) {
    for (keys, why) in owned {
        let mut path = path.to_owned();
        let mut here = Some(config);
        for (i, key) in keys.iter().enumerate() {
            path = child(&path, key);
            let value = here.and_then(|map| map.get(*key));
            if i + 1 == keys.len() && value.is_some() {
                check.wrong_key(&path, format!("it is set by hoist: {why}"), "remove it".to_owned());
            }
            here = value.and_then(Value::as_object);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    #[test]
    fn flags_that_a_version_does_not_take() {
        let refused = |version: &str| {
            let text = format!(
                "apiVersion: hoist/v1alpha1\nkind: Cluster\ncontrollers: [{{name: c1, address: 192.0.2.1}}]\n\
                 kubernetesVersion: {version}\n\
                 apiServer: {{extraArgs: [{{name: tls-curve-preferences, value: X25519}}]}}\n\
                 scheduler: {{extraArgs: [{{name: etcd-servers, value: a}}]}}\n\
                 etcd: {{local: {{extraArgs: [{{name: quota-backend-byte, value: '1'}}]}}}}\n"
            );
            crate::desired::config::parse("f", &text, Path::new("/")).unwrap_err().to_string()
        };
        let unknown = "  f:6:32: scheduler.extraArgs[0].name: `etcd-servers` is not a flag of kube-scheduler 1.36\n    remove it\n  \
            f:7:35: etcd.local.extraArgs[0].name: `quota-backend-byte` is not a flag of etcd for Kubernetes 1.36\n    \
            did you mean `quota-backend-bytes`?";
        assert!(refused("v1.36.3").ends_with(unknown), "{}", refused("v1.36.3"));
        let newer = "  f:5:32: apiServer.extraArgs[0].name: `tls-curve-preferences` was added in Kubernetes 1.36, and kube-apiserver is of 1.35\n";
        assert!(refused("v1.35.4").contains(newer), "{}", refused("v1.35.4"));
        assert!(!refused("v1.36.3").contains("tls-curve-preferences"));
    }
}
