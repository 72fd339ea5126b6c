//! Single values, and the file around them.

use super::*;

#[test]
fn a_virtual_address_is_nobodys_and_at_an_interface() {
    let with_address = |text: &str| format!("endpoint: {{virtualAddress: '{text}', interface: eth0}}\n");
    let remedy = "give an address of the controllers' network that no machine has";
    for (text, expected) in [
        ("api.example.com", "`api.example.com` is not an IP address | write it like 192.0.2.9".to_owned()),
        ("192.0.2.10", format!("192.0.2.10 is the address of c1, which keeps it | {remedy}")),
        ("fd00::9", format!("fd00::9 is not of the family of c1, 192.0.2.10 | {remedy}")),
        (
            "10.96.0.9",
            format!(
                "10.96.0.9 lies in networking.serviceSubnet, 10.96.0.0/12, which exists only once the cluster does | {remedy}"
            ),
        ),
        (
            "127.0.0.1",
            format!("127.0.0.1 is the machine itself, and an API server answers there only on a controller | {remedy}"),
        ),
        ("0.0.0.0", format!("0.0.0.0 stands for any address | {remedy}")),
    ] {
        refused(&with_address(text), &[&format!("f:6:28: endpoint.virtualAddress: {expected}")]);
    }
    refused(
        "endpoint: {virtualAddress: 192.0.2.9, interface: 'eth0 }', virtualRouterID: 256}\n",
        &[
            "f:6:50: endpoint.interface: `eth0 }` is not the name of a network interface | write it like eth0",
            "f:6:77: endpoint.virtualRouterID: `256` is not between 1 and 255 | write it like 51",
        ],
    );
    refused(
        "endpoint: {virtualAddress: 192.0.2.9}\n",
        &["f:6:1: endpoint.interface: it is required | add interface: …; `hoist config default` shows an example"],
    );

    let cluster = with(&with_address("192.0.2.9")).unwrap();
    assert_eq!(cluster.endpoint().to_string(), "192.0.2.9:6443");
    assert_eq!(cluster.api_endpoint.virtual_address.unwrap().router_id, 9);
    let cluster = with(&format!("controlPlaneEndpoint: api.example.com\n{}", with_address("192.0.3.0"))).unwrap();
    assert_eq!(cluster.endpoint().to_string(), "api.example.com:6443");
    assert_eq!(cluster.api_endpoint.virtual_address.unwrap().router_id, 1, "0 is none");
}

#[test]
fn endpoints_and_names() {
    for (text, expected) in [
        ("fd00::1", "is an IPv6 address without brackets: write [fd00::1]"),
        ("[fd00::1", "has a bracket that is not closed"),
        ("[a]:1", "has something else than an IPv6 address in its brackets"),
        ("[fd00::1]6443", "has something else than a port after its bracket"),
        ("a:0", "has a port that is not a number from 1 to 65535"),
        ("a:65536", "has a port that is not a number from 1 to 65535"),
        ("a:", "has a port that is not a number from 1 to 65535"),
        ("10.0.0.256", "has a host that is not an IP address"),
        ("https://a", "is a URL, not a host or host:port"),
        (
            "",
            "has a host that is not a DNS name: lower-case letters, digits, `-` and `.`, beginning and ending with a letter or digit",
        ),
    ] {
        let more = format!("controlPlaneEndpoint: '{text}'\n");
        refused(&more, &[&format!("f:6:23: controlPlaneEndpoint: `{text}` {expected}")]);
    }
    for (text, host, port) in [
        ("api.example.com", "api.example.com", 6443),
        ("10.0.0.5:443", "10.0.0.5", 443),
        ("[fd00::1]", "fd00::1", 6443),
        ("[fd00::1]:443", "fd00::1", 443),
    ] {
        let endpoint = with(&format!("controlPlaneEndpoint: '{text}'\n")).unwrap().endpoint();
        assert_eq!(endpoint, Endpoint { host: host.into(), port });
    }
    refused(
        "apiServer:\n  certSANs: [a.b, '*.a.b', 'fd00::1', a.*, '*.10.0.0.1', 'a:1']\n",
        &[
            "f:7:39: apiServer.certSANs[3]: `a.*` is not a DNS name: lower-case letters, digits, `-` and `.`, beginning and ending with a letter or digit",
            "f:7:44: apiServer.certSANs[4]: `*.10.0.0.1` has a wildcard before an IP address",
            "f:7:58: apiServer.certSANs[5]: `a:1` is not a DNS name: lower-case letters, digits, `-` and `.`, beginning and ending with a letter or digit",
        ],
    );
}

#[test]
fn durations() {
    let nanos = Duration::from_nanos;
    for (text, duration) in [
        ("8760h0m0s", Duration::from_hours(8760)),
        ("1h30m", Duration::from_mins(90)),
        ("1.5h", Duration::from_mins(90)),
        (".5s", Duration::from_millis(500)),
        ("1ms2us3ns", nanos(1_002_003)),
        ("4µs", nanos(4_000)),
        ("2562047h", Duration::from_hours(2_562_047)),
    ] {
        assert_eq!(syntax::duration(text), Ok(duration), "{text}");
        assert_eq!(syntax::duration(&syntax::write_duration(duration)), Ok(duration));
    }
    for text in ["", "1", "h", "1d", "-1h", "1h ", ".h", "1.2.3h", "1e3h", "9999999999999999999999h"] {
        assert!(syntax::duration(text).unwrap_err().starts_with("is not a duration"), "{text}");
    }
    assert!(syntax::duration("2562048h").unwrap_err().contains("longest"));
    assert_eq!(syntax::write_duration(Duration::from_hours(8760)), "8760h0m0s");
    assert_eq!(syntax::write_duration(nanos(1_500_000)), "0h0m0.0015s");
}

#[test]
fn a_file_is_read_with_paths_beside_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cluster.yaml");
    std::fs::write(&path, format!("{MINIMAL}pki: {{serviceAccountKey: sa.key}}\n")).unwrap();
    let key = load(&path, Rendered::Never).unwrap().cluster.pki.service_account_key.unwrap();
    assert_eq!(Path::new(&key), folder.path().join("sa.key"));

    let missing = folder.path().join("none.yaml");
    assert!(
        load(&missing, Rendered::Never)
            .unwrap_err()
            .to_string()
            .ends_with("there is no such file\n    `hoist config default > cluster.yaml` makes one to begin with")
    );
    std::fs::write(&path, b"kind: x\nname: \xff\n").unwrap();
    assert!(load(&path, Rendered::Never).unwrap_err().to_string().contains("cluster.yaml:2:7: is not text in UTF-8"));
    std::fs::write(&path, "kind: x\n").unwrap();
    assert!(load(&path, Rendered::Never).unwrap_err().to_string().contains("cluster.yaml:1:7: kind: "));
}

/// Cut off anywhere, or with any one character replaced, a text is read or refused.
#[test]
fn no_text_makes_it_panic() {
    let read = |text: &str| {
        if let Err(error) = parse("f", text, Path::new("/")) {
            assert_eq!(error.exit_code(), 3);
            assert!(!error.to_string().is_empty());
        }
    };
    for (at, old) in FULL.char_indices() {
        read(&FULL[..at]);
        for new in
            ["", "\0", "\t", "\n", "\u{feff}", "\u{85}", "ä", ":", "-", "[", "{", "&a ", "*a", "\"", "!", "|", "9"]
        {
            if at % 7 == new.len() % 7 {
                read(&format!("{}{new}{}", &FULL[..at], &FULL[at + old.len_utf8()..]));
            }
        }
    }
}

#[test]
fn dns_asks_addresses_and_lives_at_one_of_the_nodes_own() {
    refused(
        "dns: {upstreams: [192.0.2.53, ns.example.com], autoscaler: {min: 0}, nodeLocal: {address: 10.96.0.53}}\n",
        &[
            "f:6:31: dns.upstreams[1]: `ns.example.com` is not an address, or address and port | write it like 192.0.2.53 or 192.0.2.53:5353",
            "f:6:66: dns.autoscaler.min: `0` is not between 1 and 100000 | write it like 2",
            "f:6:91: dns.nodeLocal.address: 10.96.0.53 lies in 10.96.0.0/12, from which others get theirs | give an address of the nodes' own like 169.254.20.10",
        ],
    );
    refused("dns: {plugin: bind}\n", &["f:6:15: dns.plugin: `bind` is not known | known: coredns, none"]);
    refused(
        "dns: {nodeLocal: {address: fd00::53}}\n",
        &[
            "f:6:28: dns.nodeLocal.address: fd00::53 is not of the family of the service subnet, IPv4 | give an address of the nodes' own like 169.254.20.10",
        ],
    );
}

#[test]
fn nodes_have_an_endpoint_where_an_image_brings_hoist_to_them() {
    let node_local = |more: &str| with(more).unwrap().api_endpoint.node_local;
    assert!(!node_local(""));
    assert!(node_local("images: {hoist: 'localhost/hoist:1'}\n"));
    assert!(!node_local("images: {hoist: 'localhost/hoist:1'}\nendpoint: {nodeLocal: false}\n"));
    assert!(node_local("endpoint: {nodeLocal: true}\n"));
}

#[test]
fn levels_of_the_pod_security_standards() {
    let cluster = read(FULL).unwrap();
    let expected = PodSecurity { enforce: Level::Baseline, audit: Level::Restricted, warn: Level::Privileged };
    assert_eq!(cluster.pod_security, expected);
    assert_eq!(with("podSecurity: {warn: restricted}\n").unwrap().pod_security.enforce, Level::Privileged);
    refused(
        "podSecurity: {enforce: Baseline}\n",
        &[
            "f:6:24: podSecurity.enforce: `Baseline` is not a level of the Pod Security Standards | known: privileged, baseline, restricted",
        ],
    );
}

#[test]
fn the_kind_of_file_comes_first() {
    assert_eq!(
        read("nonsense: 1\n").unwrap_err(),
        "f:1:1: apiVersion: it is required | write apiVersion: hoist/v1alpha1\n\
         f:1:1: kind: it is required | write kind: Cluster"
    );
    assert_eq!(
        read("apiVersion: kubeadm.k8s.io/v1beta4\nkind: ClusterConfiguration\nnonsense: 1\n").unwrap_err(),
        "f:1:13: apiVersion: \"kubeadm.k8s.io/v1beta4\" is not known | write apiVersion: hoist/v1alpha1\n\
         f:2:7: kind: \"ClusterConfiguration\" is not known | write kind: Cluster"
    );
    same(&[read("").unwrap_err()], &["f: it is empty"]);
}

#[test]
fn an_add_on_has_a_name_of_its_own() {
    refused(
        "addons: [a/x, b/x, '', '..', c/.git, /]\n",
        &[
            "f:6:15: addons[1]: `b/x` has the name of another add-on already | rename one of them",
            "f:6:20: addons[2]: `` has no name that could stand in addons/ | name a folder of manifests, or a manifest",
            "f:6:24: addons[3]: `..` has no name that could stand in addons/ | name a folder of manifests, or a manifest",
            "f:6:30: addons[4]: `c/.git` has no name that could stand in addons/ | name a folder of manifests, or a manifest",
            "f:6:38: addons[5]: `/` has no name that could stand in addons/ | name a folder of manifests, or a manifest",
        ],
    );
}

#[test]
fn pki() {
    refused(
        "pki:\n  certificateValidityPeriod: 87601h\n  bootstrapTokenTTL: 0s\n  ca: {certificate: a, key: ''}\n  etcdCA: {key: b}\n  serviceAccountKey: ''\n",
        &[
            "f:7:30: pki.certificateValidityPeriod: certificates would be valid for 87601h0m0s, their CA only for 87600h0m0s | give the CA the longer validity",
            "f:8:22: pki.bootstrapTokenTTL: `0s` is zero",
            "f:9:29: pki.ca.key: it is empty",
            "f:10:3: pki.etcdCA.certificate: it is required",
            "f:11:22: pki.serviceAccountKey: it is empty",
        ],
    );
    refused(
        "pki: {caCertificateValidityPeriod: 24h}\n",
        &[
            "f:6:36: pki.caCertificateValidityPeriod: certificates would be valid for 8760h0m0s, their CA only for 24h0m0s | give the CA the longer validity",
        ],
    );
}
