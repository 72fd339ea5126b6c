//! The network, and the fields of the kubelet's and kube-proxy's configurations that are not the user's.

use super::*;
use crate::base::error::Severity;

#[test]
fn what_is_chosen_is_written_and_read_back() {
    for (plugin, backend) in [("flannel", Some("vxlan")), ("flannel", Some("host-gw")), ("none", None)] {
        for mode in ["auto", "nftables", "iptables", "none"] {
            let flannel = backend.map(|backend| format!(", flannel: {{backend: {backend}}}")).unwrap_or_default();
            let text = format!("network: {{plugin: {plugin}{flannel}}}\nkubeProxy: {{mode: {mode}}}\n");
            let cluster = with(&text).unwrap();
            assert_eq!(cluster.network.plugin == Plugin::None, plugin == "none");
            assert_eq!(read(&cluster.to_yaml()).unwrap(), cluster, "{text}");
        }
    }
}

#[test]
fn what_is_not_to_be_had() {
    refused(
        "network: {plugin: calico, cniBinDir: opt/cni}\nkubeProxy: {mode: ipvs}\n",
        &[
            "f:6:19: network.plugin: `calico` is not known | known: flannel, none",
            "f:7:19: kubeProxy.mode: `ipvs` is not known | known: auto, nftables, iptables, none",
        ],
    );
    refused(
        "network: {flannel: {backend: udp}}\n",
        &["f:6:30: network.flannel.backend: `udp` is not known | known: vxlan, host-gw"],
    );
    refused(
        "network: {plugin: none, flannel: {backend: vxlan}, cniBinDir: opt/cni}\nkubeProxy: {mode: none, config: {a: 1}}\n",
        &[
            "f:6:25: network.flannel: the plugin is not flannel | remove it",
            "f:6:63: network.cniBinDir: `opt/cni` is not an absolute path of letters, digits, `-`, `_`, `.`, `@` and `+` | write it like /opt/cni/bin",
            "f:7:25: kubeProxy.config: there is no kube-proxy to configure | remove it",
        ],
    );
    let flag = "controllerManager: {extraArgs: [{name: allocate-node-cidrs, value: 'false'}]}\n";
    with(&format!("network: {{plugin: none}}\n{flag}")).unwrap();
    // As Go reads it; of several, the last counts.
    let none = "network: {plugin: none}\nnetworking: {podSubnet: 10.244.0.0/25}\n";
    for value in ["False", "f", "0"] {
        with(&format!("{none}{}", flag.replace("false", value))).unwrap();
    }
    let again = flag.replace("}]}", "}, {name: allocate-node-cidrs, value: 'true'}]}");
    assert!(with(&again).is_ok() && with(&format!("{none}{again}")).is_err());
    refused(
        flag,
        &[
            "f:6:32: controllerManager.extraArgs: flannel takes each node's subnet from the controller manager, whose allocate-node-cidrs is false | remove that flag, or write network.plugin: none",
        ],
    );
}

#[test]
fn images_are_those_that_are_used() {
    let images = |more: &str| with(more).unwrap().images().into_iter().map(str::to_owned).collect::<Vec<_>>();
    let all = images("");
    assert_eq!(all.len(), 9, "{all:?}");
    assert!(all.contains(&"ghcr.io/flannel-io/flannel:v0.28.10".to_owned()));
    let own = images("imageRepository: r.example.com/k8s\n");
    assert_eq!(own.len(), 9);
    assert!(own.iter().all(|image| image.starts_with("r.example.com/k8s/")), "{own:?}");
    let least = images(
        "network: {plugin: none}\nkubeProxy: {mode: none}\ndns: {plugin: none}\netcd: {external: {endpoints: ['https://a:1'], caFile: a, certFile: b, keyFile: c}}\n",
    );
    let names: Vec<_> = least.iter().map(|image| image.rsplit(['/', ':']).nth(1).unwrap()).collect();
    assert_eq!(names, ["kube-apiserver", "kube-controller-manager", "kube-scheduler", "pause"]);
}

#[test]
fn kubelet_fields_that_are_not_the_users() {
    refused(
        "kubelet:
  config:
    kind: KubeletConfiguration
    staticPodPath: /x
    clusterDNS: [10.96.0.10]
    authentication: {anonymous: {enabled: false}, x509: {clientCAFile: /x}}
    maxPods: 10
",
        &[
            "f:8:5: kubelet.config.kind: it is set by hoist: hoist writes it | remove it",
            "f:9:5: kubelet.config.staticPodPath: it is set by hoist: hoist raises the bridge in this folder | remove it",
            "f:10:5: kubelet.config.clusterDNS: it is set by hoist: it follows from `networking.serviceSubnet`, unless `dns.plugin` is none | remove it",
            "f:11:58: kubelet.config.authentication.x509.clientCAFile: it is set by hoist: hoist issues and mounts these files; see `pki` | remove it",
        ],
    );
    with("kubelet: {config: {authentication: {x509: {}}}}\n").unwrap();
}

#[test]
fn kube_proxy_fields_that_are_not_the_users() {
    refused(
        "kubeProxy:
  config:
    mode: iptables
    clusterCIDR: 10.0.0.0/8
    clientConnection: {kubeconfig: /x, qps: 10}
",
        &[
            "f:8:5: kubeProxy.config.mode: it is set by hoist: it follows from `kubeProxy.mode` | remove it",
            "f:9:5: kubeProxy.config.clusterCIDR: it is set by hoist: it follows from `networking.podSubnet` | remove it",
            "f:10:24: kubeProxy.config.clientConnection.kubeconfig: it is set by hoist: it leads to `controlPlaneEndpoint`, never to the Service that kube-proxy makes | remove it",
        ],
    );
}

#[test]
fn fields_that_a_component_would_pass_over_are_warned_of() {
    let said = |more: &str| {
        let text = format!("{MINIMAL}{more}");
        let (_, warnings) = parse_and_warn("f", &text, Path::new("/")).unwrap();
        assert!(warnings.iter().all(|finding| finding.severity == Severity::Warning));
        warnings.iter().map(|finding| finding.to_string().replace("\n    ", " | ")).collect::<Vec<_>>()
    };
    assert_eq!(
        said("kubelet: {config: {maxPod: 200}}\n"),
        ["f:6:20: warning: kubelet.config.maxPod: unknown field `maxPod` | did you mean `maxPods`?"]
    );
    assert_eq!(
        said("kubernetesVersion: v1.35.4\nkubelet: {config: {tlsCurvePreferences: [29]}}\n"),
        [
            "f:7:20: warning: kubelet.config.tlsCurvePreferences: `tlsCurvePreferences` was added in Kubernetes 1.36, and the kubelet is of 1.35 | remove it"
        ]
    );
}
