//! cluster.yaml: what stands in it, and what stands in its place.

use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::process::Stdio;

use super::{Row, Table};
use crate::support::{CLUSTER, Folder, sparse};

const DNS: &str =
    "is not a DNS name: lower-case letters, digits, `-` and `.`, beginning and ending with a letter or digit";

/// What stands in cluster.yaml, and what is said of it.
fn texts() -> Vec<(&'static str, Vec<u8>, Vec<String>)> {
    let long = "a".repeat(64);
    let labels = [&long[1..]; 4].join(".");
    let bomb: String = (1..10).fold("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned(), |text, i| {
        let aliases = format!("*a{}, ", i - 1).repeat(10);
        text + &format!("a{i}: &a{i} [{aliases}]\n")
    });
    let whole: Vec<(&str, Vec<u8>, Vec<String>)> = vec![
        ("empty", b"".to_vec(), vec!["cluster.yaml: it is empty\n    `hoist config default` shows".into()]),
        ("comments only", b"# nothing\n\n".to_vec(), vec!["cluster.yaml: it is empty".into()]),
        (
            "UTF-16",
            [&b"\xff\xfe"[..], &CLUSTER.encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<_>>()].concat(),
            vec!["cluster.yaml:1:1: is text in UTF-16".into(), "iconv -f UTF-16 -t UTF-8 cluster.yaml".into()],
        ),
        (
            "UTF-16 without a byte-order mark",
            CLUSTER.encode_utf16().flat_map(u16::to_le_bytes).collect(),
            vec!["cluster.yaml:1:2: holds the character U+0000, which YAML does not allow".into()],
        ),
        (
            "Latin-1",
            b"kind: Cluster\nclusterName: \xe4\n".to_vec(),
            vec!["cluster.yaml:2:14: is not text in UTF-8".into()],
        ),
        (
            "a program",
            b"\x7fELF\x02\x01\x01\0\0\0\xb0\xff".to_vec(),
            vec!["cluster.yaml:1:11: is not text in UTF-8".into()],
        ),
        (
            "another kind of file",
            b"apiVersion: v1\nkind: Pod\n".to_vec(),
            vec![
                "cluster.yaml:1:13: apiVersion: \"v1\" is not known\n    write apiVersion: hoist/v1alpha1".into(),
                "cluster.yaml:2:7: kind: \"Pod\" is not known\n    write kind: Cluster".into(),
            ],
        ),
        ("no apiVersion", b"kind: Cluster\n".to_vec(), vec!["cluster.yaml:1:1: apiVersion: it is required".into()]),
        ("a list", b"- a\n- b\n".to_vec(), vec!["cluster.yaml:1:1: expected a map, found a list".into()]),
        ("a text", b"hello\n".to_vec(), vec!["cluster.yaml:1:1: expected a map, found \"hello\"".into()]),
        ("aliases that grow", bomb.into_bytes(), vec!["aliases expand to too many values".into()]),
        ("nested in brackets", "[".repeat(200_000).into_bytes(), vec!["nested more than 100 levels deep".into()]),
        ("nested in dashes", "- ".repeat(100_000).into_bytes(), vec!["nested more than 100 levels deep".into()]),
        (
            "a long key around many values",
            format!("? {}\n: [{}]\n", "k".repeat(100_000), "a,".repeat(60_000)).into_bytes(),
            vec!["too many values, with too long keys around them".into()],
        ),
    ];
    let more = |name, more: &str, says: &[&str]| {
        let says = says.iter().map(|text| (*text).to_owned()).collect();
        (name, format!("{CLUSTER}{more}").into_bytes(), says)
    };
    let mut rows = whole;
    rows.extend([
        more("tabs", "networking:\n\tpodSubnet: 10.0.0.0/16\n", &["cluster.yaml:7:", "indent with spaces"]),
        more("NUL", "clusterName: a\0b\n", &["cluster.yaml:6:15: holds the character U+0000, which YAML does not allow"]),
        more("an escape sequence", "clusterName: \"\\e[2J\"\n", &["cluster.yaml:6:14: clusterName: `\\u{1b}[2J` is not made of"]),
        more("an open bracket", "clusterName: [\n", &["cluster.yaml:7:1: not valid YAML: ", "look at the lines up to there"]),
        more("an open quote", "clusterName: 'a\n", &["cluster.yaml:", "not valid YAML: "]),
        more("a duplicate key", "clusterName: a\nclusterName: b\n", &["cluster.yaml:7:1: duplicate key `clusterName`, first on line 6\n    keep one of them"]),
        more("a second document", "---\nkind: Cluster\n", &["cluster.yaml:7:1: a second document begins here\n    only one is expected"]),
        more("an unknown field", "networking:\n  podsubnet: 10.0.0.0/16\n", &["cluster.yaml:7:3: networking.podsubnet: unknown field\n    did you mean `podSubnet`?"]),
        more("a merge key of no map", "networking: {<<: 1}\n", &["cluster.yaml:6:14: a merge key (`<<`) takes a map, or a list of maps"]),
        more("a tag", "clusterName: !!binary aGVsbG8=\n", &["cluster.yaml:6:14: the tag ", " is not supported here"]),
        more("an alias of itself", "networking: &a {x: *a}\n", &["cluster.yaml:6:20: this alias refers to a value around itself"]),
        more("a list for a key", "? [a]\n: b\n", &["cluster.yaml:6:3: a key must be a string"]),
        more("a number for a key", "1: b\n", &["cluster.yaml:6:1: 1: unknown field"]),
        more("a boolean of YAML 1.1", "clusterName: on\n", &["cluster.yaml:6:14: clusterName: expected a string, found true\n    write it in quotes"]),
        more("a number for a text", "kubernetesVersion: 1.36\n", &["cluster.yaml:6:20: kubernetesVersion: expected a string, found 1.36\n    write it in quotes"]),
        more("infinity", "kubelet: {config: {maxPods: .inf}}\n", &["cluster.yaml:6:29: `.inf` is not a number that JSON can hold"]),
        more("a text for a list", "apiServer: {certSANs: a.example.com}\n", &["cluster.yaml:6:23: apiServer.certSANs: expected a list, found \"a.example.com\"\n    write each item on a line"]),
        more("a list for a map", "networking: [10.0.0.0/16]\n", &["cluster.yaml:6:13: networking: expected a map, found a list"]),
        more("a name in capitals", "- {name: C2, address: 198.51.100.11}\n", &[&format!("cluster.yaml:6:10: controllers[1].name: `C2` {DNS}\n    write it like controller-1")]),
        more("a name with an underscore", "- {name: c_2, address: 198.51.100.11}\n", &["cluster.yaml:6:10: controllers[1].name: `c_2` is not a DNS name"]),
        more("a name that leads elsewhere", "- {name: ../c2, address: 198.51.100.11}\n", &["cluster.yaml:6:10: controllers[1].name: `../c2` is not a DNS name"]),
        more("a name that is too long", &format!("- {{name: {}.a, address: 198.51.100.11}}\n", &long[1..]), &["is longer than the 63 characters that the name of a node may have"]),
        more("a name of a file beside it", "- {name: ca.crt, address: 198.51.100.11}\n", &["cluster.yaml:6:10: controllers[1].name: `ca.crt` is the name of a file in tls/etcd/"]),
        more("a name twice", "- {name: c1, address: 198.51.100.11}\n", &["cluster.yaml:6:10: controllers[1].name: `c1` is the name of another controller already"]),
        more("no name", "- {address: 198.51.100.11}\n", &["cluster.yaml:6:3: controllers[1].name: it is required\n    add name: "]),
        more("an empty name", "- {name: '', address: 198.51.100.11}\n", &["cluster.yaml:6:10: controllers[1].name: it is empty"]),
        more("an address twice", "- {name: c2, address: 198.51.100.10}\n", &["cluster.yaml:6:23: controllers[1].address: 198.51.100.10 is the address of controllers[0] already"]),
        more("a name for an address", "- {name: c2, address: c2.example.com}\n", &["controllers[1].address: `c2.example.com` is not an IP address\n    write it like 10.0.0.11"]),
        more("an address in octal", "- {name: c2, address: 198.051.100.011}\n", &["`198.051.100.011` is not an IP address"]),
        more("IPv6 where IPv4 is", "- {name: c2, address: 'fd00::2'}\n", &["cluster.yaml:6:23: controllers[1].address: fd00::2 is IPv6, the first service subnet is IPv4"]),
        more("a loopback address", "- {name: c2, address: 127.0.0.1}\n", &["127.0.0.1 is a loopback address\n    give the address that the other nodes"]),
        more("any address", "- {name: c2, address: 0.0.0.0}\n", &["0.0.0.0 stands for any address"]),
        more("pods on IPv6 alone", "networking: {podSubnet: 'fd00::/48'}\n", &["cluster.yaml:6:25: networking.podSubnet: pods have IPv6 subnets and Services have IPv4 subnets"]),
        more("subnets that overlap", "networking: {podSubnet: 10.96.0.0/16}\n", &["cluster.yaml:6:25: networking.podSubnet: 10.96.0.0/16 overlaps the service subnet 10.96.0.0/12\n    choose another range"]),
        more("a subnet around a controller", "networking: {podSubnet: 198.51.0.0/16}\n", &["cluster.yaml:5:12: controllers[0].address: 198.51.100.10 lies in networking.podSubnet, 198.51.0.0/16"]),
        more("an address for a subnet", "networking: {podSubnet: 10.1.2.3/16}\n", &["10.1.2.3/16 is an address in a subnet, not the subnet\n    write 10.1.0.0/16"]),
        more("no subnet", "networking: {podSubnet: 10.0.0.0/33}\n", &["`10.0.0.0/33` is not a subnet\n    write it like 10.244.0.0/16"]),
        more("a domain that is too long", &format!("networking: {{dnsDomain: {}}}\n", &labels[20..]), &["is longer than the 230 characters that leave room for Services"]),
        more("a domain that is none", "networking: {dnsDomain: cluster..local}\n", &[&format!("`cluster..local` {DNS}\n    write it like cluster.local")]),
        more("a version that is too old", "kubernetesVersion: v1.33.9\n", &["cluster.yaml:6:20: kubernetesVersion: v1.33.9 is not supported\n    supported: 1.34, 1.35, 1.36, 1.37"]),
        more("a version that is too new", "kubernetesVersion: v1.99.0\n", &["v1.99.0 is not supported"]),
        more("a channel for a version", "kubernetesVersion: stable\n", &["`stable` is not a release of Kubernetes, such as v1.37.2"]),
        more("a huge version", "kubernetesVersion: v1.99999999999999999999.0\n", &["is not a release of Kubernetes"]),
        more("an image without a tag", "images: {pause: registry.k8s.io/pause}\n", &["`registry.k8s.io/pause` has neither a tag nor a digest\n    write it like"]),
        more("a URL for a repository", "imageRepository: https://registry.k8s.io\n", &["is a URL: an image begins with the registry's host"]),
        more("a URL for an endpoint", "controlPlaneEndpoint: https://api.example.com/\n", &["cluster.yaml:6:23: controlPlaneEndpoint: `https://api.example.com/` is a URL, not a host or host:port\n    write it like api.example.com; without a port, it is 6443"]),
        more("a URL with a port for an endpoint", "controlPlaneEndpoint: https://[fd00::1]:443\n", &["is a URL, not a host or host:port\n    write it like [fd00::1]:443"]),
        more("an endpoint on loopback", "controlPlaneEndpoint: 127.0.0.1:6443\n", &["cluster.yaml:6:23: controlPlaneEndpoint: 127.0.0.1 is the machine itself, and an API server answers there only on a controller\n    give the address or name"]),
        more("an endpoint on loopback by its name", "controlPlaneEndpoint: localhost\n", &["controlPlaneEndpoint: localhost is the machine itself, and an API server"]),
        more("an endpoint on loopback of IPv6", "controlPlaneEndpoint: '[::1]'\n", &["controlPlaneEndpoint: ::1 is the machine itself, and an API server"]),
        more("an endpoint on loopback as IPv6 writes it", "controlPlaneEndpoint: '[::ffff:127.0.0.1]:6443'\n", &["is the machine itself, and an API server"]),
        more("any address for an endpoint", "controlPlaneEndpoint: 0.0.0.0:443\n", &["controlPlaneEndpoint: 0.0.0.0 stands for any address"]),
        more("a multicast endpoint", "controlPlaneEndpoint: 224.0.0.1\n", &["controlPlaneEndpoint: 224.0.0.1 is a multicast address"]),
        more("a link-local endpoint of IPv6", "controlPlaneEndpoint: '[fe80::1]'\n", &["controlPlaneEndpoint: fe80::1 means another machine on each network"]),
        more("a Service for an endpoint", "controlPlaneEndpoint: 10.96.0.1:443\n", &["controlPlaneEndpoint: 10.96.0.1 lies in networking.serviceSubnet, 10.96.0.0/12, which exists only once the cluster does"]),
        more("cluster DNS asks itself", "dns: {upstreams: [192.0.2.53, 10.96.0.10]}\n", &["cluster.yaml:6:31: dns.upstreams[1]: 10.96.0.10 is cluster DNS itself, which would ask itself\n    name the servers that your machines ask"]),
        more("cluster DNS asks itself where the caches do", "dns: {upstreams: ['10.96.0.11:53']}\n", &["dns.upstreams[0]: 10.96.0.11:53 is cluster DNS itself"]),
        more("the caches ask themselves", "dns: {upstreams: [169.254.20.10]}\n", &["dns.upstreams[0]: 169.254.20.10 is the cache of each node, which would ask itself"]),
        more("CoreDNS asks its own pod", "dns: {upstreams: [127.0.0.1], nodeLocal: {enabled: false}}\n", &["dns.upstreams[0]: 127.0.0.1 is each pod of CoreDNS itself, which would ask itself"]),
        more("cluster DNS asks the API", "dns: {upstreams: [10.96.0.1]}\n", &["dns.upstreams[0]: 10.96.0.1 is the API's address, where no DNS answers"]),
        more("room for one node and two controllers", "- {name: c2, address: 198.51.100.11}\nnetworking: {podSubnet: 10.244.0.0/24}\n", &["cluster.yaml:7:25: networking.podSubnet: 10.244.0.0/24 has room for 1 node, each with a /24 of it, and there are 2 controllers\n    give it a prefix of /23 at most, or give nodes less by controllerManager.extraArgs: node-cidr-mask-size-ipv4"]),
        more("an authorization file beside modes", "apiServer: {extraArgs: [{name: authorization-config, value: /a}, {name: authorization-mode, value: 'Node,RBAC'}]}\n", &["apiServer.extraArgs[1].name: `authorization-mode` cannot be set beside `authorization-config`: the API server would exit\n    remove it, and set it in the file"]),
        more("an authentication file beside OpenID Connect", "apiServer: {extraArgs: [{name: oidc-issuer-url, value: 'https://a'}, {name: authentication-config, value: /a}]}\n", &["apiServer.extraArgs[0].name: `oidc-issuer-url` cannot be set beside `authentication-config`"]),
        more("a plugin on and off", "apiServer: {extraArgs: [{name: disable-admission-plugins, value: NodeRestriction}]}\n", &["apiServer.extraArgs[0].value: NodeRestriction is in enable-admission-plugins, which hoist sets: the API server would exit\n    to go without"]),
        more("plugins in two ways", "apiServer: {extraArgs: [{name: admission-control, value: NodeRestriction}]}\n", &["cluster.yaml:6:32: apiServer.extraArgs[0].name: `admission-control` cannot be set beside `enable-admission-plugins`, which hoist sets: the API server would exit\n    give enable-admission-plugins a value instead"]),
        more("a plugin that is none", "apiServer: {extraArgs: [{name: enable-admission-plugins, value: 'NodeRestrction,ResourceQuota'}]}\n", &["apiServer.extraArgs[0].value: `NodeRestrction,ResourceQuota` has `NodeRestrction`, which is no admission plugin of Kubernetes (did you mean NodeRestriction?), and kube-apiserver would exit"]),
        more("a mode without its file", "apiServer: {extraArgs: [{name: authorization-mode, value: 'Node,RBAC,Webhook'}]}\n", &["cluster.yaml:6:59: apiServer.extraArgs[0].value: Webhook needs `authorization-webhook-config-file`: the API server would exit\n    add authorization-webhook-config-file, or take Webhook out"]),
        more("a file without its mode", "apiServer: {extraArgs: [{name: authorization-policy-file, value: /a}]}\n", &["cluster.yaml:6:32: apiServer.extraArgs[0].name: `authorization-policy-file` needs ABAC in `authorization-mode`: the API server would exit\n    add {name: authorization-mode, value: \"Node,RBAC,ABAC\"}, or remove it"]),
        more("a mode twice", "apiServer: {extraArgs: [{name: authorization-mode, value: 'Node,RBAC,Node'}]}\n", &["apiServer.extraArgs[0].value: Node is in it twice: the API server would exit"]),
        more("more values that no flag takes", "apiServer: {extraArgs: [{name: v, value: high}, {name: service-node-port-range, value: '30000:32767'}, {name: tls-cipher-suites, value: 'AES128-SHA'}]}\n", &[
            "apiServer.extraArgs[0].value: `high` is not a whole number",
            "apiServer.extraArgs[1].value: `30000:32767` is not a range of ports such as 30000-32767",
            "apiServer.extraArgs[2].value: `AES128-SHA` has `AES128-SHA`, which is no cipher suite of Go",
        ]),
        more("values that no flag takes", "apiServer: {extraArgs: [{name: event-ttl, value: 2d}, {name: profiling, value: yes please}, {name: audit-log-maxage, value: month}, {name: feature-gates, value: A=on}, {name: tls-min-version, value: '1.3'}]}\netcd: {local: {extraArgs: [{name: quota-backend-bytes, value: 8GiB}]}}\n", &[
            "apiServer.extraArgs[0].value: `2d` is not a duration such as 90s or 1h30m, and kube-apiserver would exit\n    correct the value of event-ttl",
            "apiServer.extraArgs[1].value: `yes please` is not true or false",
            "apiServer.extraArgs[2].value: `month` is not a whole number",
            "apiServer.extraArgs[3].value: `A=on` has the gate `A=on`, which is not written NAME=true or NAME=false",
            "apiServer.extraArgs[4].value: `1.3` is none of VersionTLS10, VersionTLS11, VersionTLS12, VersionTLS13",
            "cluster.yaml:7:63: etcd.local.extraArgs[0].value: `8GiB` is not a whole number, and etcd would exit",
        ]),
        more("DNS of hoist's, elsewhere", "kubelet: {config: {clusterDNS: [192.0.2.53]}}\n", &["cluster.yaml:6:20: kubelet.config.clusterDNS: it is set by hoist: it follows from `networking.serviceSubnet`, unless `dns.plugin` is none\n    remove it"]),
        more("DNS of the user's, nowhere", "dns: {plugin: none}\nkubelet: {config: {clusterDNS: [here]}}\n", &["cluster.yaml:7:33: kubelet.config.clusterDNS[0]: \"here\" is not an IP address"]),
        more("a port that is none", "controlPlaneEndpoint: api.example.com:65536\n", &["has a port that is not a number from 1 to 65535"]),
        more("a SAN that is none", "apiServer: {certSANs: ['*.*.example.com', 'a b']}\n", &["cluster.yaml:6:24: apiServer.certSANs[0]: ", "cluster.yaml:6:43: apiServer.certSANs[1]: "]),
        more("a flag that is hoist's", "apiServer:\n  extraArgs:\n  - {name: secure-port, value: '443'}\n", &["cluster.yaml:8:12: apiServer.extraArgs[0].name: `secure-port` is set by hoist: ", "remove it"]),
        more("a flag that is none", "apiServer: {extraArgs: [{name: 'a b', value: ''}]}\n", &["`a b` is not a flag: lower-case letters"]),
        more("a flag with its dashes", "apiServer: {extraArgs: [{name: --v=2, value: ''}]}\n", &["`--v=2` is not the bare name of a flag\n    write name: v, value: \"2\""]),
        more("a kubelet field that is hoist's", "kubelet: {config: {staticPodPath: /x}}\n", &["cluster.yaml:6:20: kubelet.config.staticPodPath: it is set by hoist: "]),
        more("a kubelet field of another type", "kubelet: {config: {maxPods: '200'}}\n", &["cluster.yaml:6:29: kubelet.config.maxPods: expected an integer of 32 bits, found \"200\"\n    write it without quotes"]),
        more("a duration without its unit", "kubeProxy: {config: {configSyncPeriod: 10}}\n", &["cluster.yaml:6:40: kubeProxy.config.configSyncPeriod: expected a duration, found 10\n    write it with its unit, like 10s"]),
        more("a taint that is none", "- name: c2\n  address: 198.51.100.11\n  taints: [{key: a, effect: Never}]\n", &["`Never` is not the effect of a taint\n    known: NoSchedule"]),
        more("both etcds", "etcd: {local: {}, external: {endpoints: ['https://a'], caFile: a, certFile: b, keyFile: c}}\n", &["cluster.yaml:6:7: etcd: both `local` and `external` are given\n    remove one"]),
        more("an etcd without TLS", "etcd: {external: {endpoints: ['http://10.0.0.5:2379'], caFile: a, certFile: b, keyFile: c}}\n", &["`http://10.0.0.5:2379` is not an https:// URL"]),
        more("a data directory that is relative", "etcd: {local: {dataDir: ../etcd}}\n", &["`../etcd` cannot be etcd's data directory\n    give an absolute path"]),
        more("a negative duration", "pki: {certificateValidityPeriod: -1h}\n", &["`-1h` is not a duration such as 8760h or 1h30m\n    write it like 8760h"]),
        more("no time at all", "pki: {bootstrapTokenTTL: 0s}\n", &["`0s` is zero"]),
        more("a duration that is too long", "pki: {caCertificateValidityPeriod: 99999999h}\n", &["is longer than 2562047h, the longest possible duration"]),
        more("a leaf that outlives its CA", "pki: {caCertificateValidityPeriod: 1h}\n", &["certificates would be valid for 8760h0m0s, their CA only for 1h0m0s"]),
        more("several at once", "kubernetesVersion: v1.20.0\nnetworking: {podSubnet: 10.96.0.0/16}\n", &["cluster.yaml:6:20: kubernetesVersion: v1.20.0", "cluster.yaml:7:25: networking.podSubnet: 10.96.0.0/16"]),
    ]);
    rows
}

#[test]
fn what_stands_in_it() {
    let mut table = Table::default();
    for (name, content, says) in texts() {
        let folder = Folder::new();
        folder.put("cluster.yaml", &content);
        let says: Vec<_> = says.iter().map(String::as_str).collect();
        table.row(&Row { name, code: 3, says: &says }, &folder, || folder.bounded_render());
    }
}

#[test]
fn what_stands_in_its_place() {
    let mut table = Table::default();
    let folder = Folder::new();
    folder.put("folder/file", "");
    let path = |name: &str| folder.path(name);
    sparse(&path("huge"), 100 << 20);
    symlink("none", path("dangling")).unwrap();
    symlink("loop", path("loop")).unwrap();
    symlink("other", path("one")).unwrap();
    symlink("one", path("other")).unwrap();
    nix::unistd::mkfifo(&path("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    let _listener = UnixListener::bind(path("socket")).unwrap();
    for (name, says) in [
        ("none", "none: there is no such file\n    `hoist config default > cluster.yaml` makes one to begin with"),
        ("folder/file/x", "folder/file/x: there is no such file"),
        ("folder", "folder: is a folder, not a file\n    put the file there, or correct the path"),
        ("pipe", "pipe: is a pipe, not a file"),
        ("socket", "socket: is a socket, not a file"),
        ("/dev/zero", "/dev/zero: is a device, not a file"),
        ("huge", "huge: is too large: hoist reads at most 256 KiB of such a file"),
        ("dangling", "dangling: is a symbolic link to a file that is not there"),
        ("loop", "loop: is a symbolic link that leads back to itself"),
        ("one", "one: is a symbolic link that leads back to itself"),
    ] {
        let run = || folder.bounded(&["render", "--config", name, "--asset-dir", "assets"]);
        table.row(&Row { name, code: 3, says: &[says] }, &folder, run);
    }
}

#[test]
fn a_stream_without_an_end() {
    let mut table = Table::default();
    let folder = Folder::new();
    let run = || {
        let mut command = folder.bounded_command(&["render", "--config", "-", "--asset-dir", "assets"]);
        folder.ran(command.stdin(Stdio::from(std::fs::File::open("/dev/zero").unwrap())))
    };
    table.row(
        &Row { name: "stdin", code: 3, says: &["standard input: is too large: hoist reads at most 256 KiB"] },
        &folder,
        run,
    );
}

/// What looks odd and is none of it wrong.
#[test]
fn what_is_fine() {
    for (name, text) in [
        ("CRLF", CLUSTER.replace('\n', "\r\n")),
        ("a byte-order mark", format!("\u{feff}{CLUSTER}")),
        ("a document's marks", format!("---\n{CLUSTER}...\n")),
        ("no newline at the end", CLUSTER.trim_end().to_owned()),
        ("names twice in a certificate", format!("{CLUSTER}apiServer: {{certSANs: [a.example.com, a.example.com, 10.0.0.1, 10.0.0.1, localhost]}}\n")),
        ("JSON", r#"{"apiVersion": "hoist/v1alpha1", "kind": "Cluster", "controllers": [{"name": "c1", "address": "198.51.100.10"}]}"#.to_owned()),
        ("anchors", format!("{CLUSTER}scheduler: &a {{extraArgs: [{{name: v, value: '2'}}]}}\ncontrollerManager: *a\n")),
        ("a name of the longest", CLUSTER.replace("c1", &"a".repeat(63))),
    ] {
        let folder = Folder::with(&text);
        let said = folder.render().ok();
        assert!(said.ends_with(" of them written\n"), "{name}: {said}");
    }
    // What a shell makes of `<(command)`.
    let folder = Folder::with(CLUSTER);
    let mut command = folder.command(&["render", "--config", "/dev/stdin", "--asset-dir", "assets"]);
    let (reader, mut writer) = std::io::pipe().unwrap();
    std::io::Write::write_all(&mut writer, CLUSTER.as_bytes()).unwrap();
    drop(writer);
    folder.ran(command.stdin(reader)).ok();
}
