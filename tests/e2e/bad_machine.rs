//! Machines that are not ready: `start` says what is wrong and what to do, and has changed nothing.

use std::net::IpAddr;
use std::time::Duration;

use crate::support::cluster::Cluster;
use crate::support::command::Ended;
use crate::support::eventually;
use crate::support::hoist;
use crate::support::node::Node;

#[test]
fn bad_machine() {
    let node = Node::plain("bad");
    let cluster = Cluster::render(&node);
    preflight_finds_nothing(&node, &cluster);
    firewalls_drop_what_pods_send(&node, &cluster);
    another_network_comes_first(&node, &cluster);
    programs_cannot_be_run_where_hoists_is(&node, &cluster);
    a_drop_in_has_the_last_word(&node, &cluster);
    a_port_is_held(&node, &cluster);
    the_runtime_is_away(&node, &cluster);
    the_cgroup_drivers_differ(&node, &Cluster::render(&node));
    a_foreign_manifest_stands_there(&node, &cluster);
    the_address_is_not_of_this_machine(&node);
    the_user_is_not_root(&node, &Cluster::render(&node));
    the_kubelet_is_masked(&node, &cluster);
    the_kubelet_ends(&node, &cluster);
    there_is_no_kubelet(&node, &cluster);
}

/// Where `start` writes.
const FOLDERS: &str = "/etc/kubernetes /etc/systemd/system /var/lib/kubelet /var/lib/etcd /var/lib/hoist";

/// Runs `start`, or another command in its place, and asserts that it has touched nothing.
fn refused(node: &Node, command: Vec<String>) -> Ended {
    unchanged(node, command, "-printf '%p %M %s %T@\\n'")
}

/// The same of one that puts things back as they were: by that, the time of a folder changes.
fn undone(node: &Node, command: Vec<String>) -> Ended {
    unchanged(node, command, "-type d -printf '%p %M\\n' -o -printf '%p %M %s %T@\\n'")
}

fn unchanged(node: &Node, command: Vec<String>, shown: &str) -> Ended {
    let files = &format!("find {FOLDERS} {shown} | sort");
    let (before, began) = (node.sh(files), kubelet(node));
    let start = node.exec(command);
    eprintln!("{start}");
    let (after, ended) = (node.sh(files), kubelet(node));
    let lines = |text: &str| text.lines().map(str::to_owned).collect::<std::collections::BTreeSet<_>>();
    let (before, after) = (lines(&before), lines(&after));
    let changed: Vec<_> = before.symmetric_difference(&after).take(20).collect();
    assert!(changed.is_empty(), "changed (the first 20): {changed:#?} by {start}");
    assert_eq!(began, ended, "the kubelet was touched by {start}");
    start
}

fn kubelet(node: &Node) -> String {
    node.sh("systemctl show kubelet --property=ActiveState,UnitFileState,MainPID")
}

/// `hoist preflight`.
fn preflight_of(cluster: &Cluster, args: &[&str]) -> Vec<String> {
    cluster.command("preflight", args)
}

/// The whole truth about a good machine.
fn preflight_finds_nothing(node: &Node, cluster: &Cluster) {
    let preflight = refused(node, preflight_of(cluster, &["--output=json"])).expect(0);
    let report: serde_json::Value = serde_json::from_str(&preflight.stdout).unwrap();
    assert_eq!((&report["schema"], &report["ready"]), (&"hoist.preflight/v1".into(), &true.into()));
    // Those by which the others would be worth nothing.
    let looked_at = ["CRI", "CgroupDriver", "KubeletVersion", "Service-Kubelet", "KubeletCommand", "Hostname", "Clock"];
    let of_networks = ["CNIConfiguration", "FirewallForward", "FirewallInput"];
    for name in looked_at.into_iter().chain(of_networks) {
        let check = report["checks"].as_array().unwrap().iter().find(|check| check["name"] == name).unwrap();
        assert_eq!(check["outcome"], "ok", "{check:#}");
    }
}

/// What a check that only warns says of a machine that is ready in spite of it.
fn warned(node: &Node, cluster: &Cluster, name: &str) -> String {
    let preflight = refused(node, preflight_of(cluster, &["--output=json"])).expect(0);
    let report: serde_json::Value = serde_json::from_str(&preflight.stdout).unwrap();
    let check = report["checks"].as_array().unwrap().iter().find(|check| check["name"] == name).unwrap();
    let of = |finding: &serde_json::Value| {
        let text = |field: &str| finding[field].as_str().unwrap_or_default().to_owned();
        format!("{}: {}: {}\n", text("place"), text("message"), text("remedy"))
    };
    check["findings"].as_array().unwrap().iter().map(of).collect()
}

/// As docker leaves a machine, and as a user of nft may.
fn firewalls_drop_what_pods_send(node: &Node, cluster: &Cluster) {
    node.sh("iptables -P FORWARD DROP");
    let said = warned(node, cluster, "FirewallForward");
    assert!(
        said.contains("the chain FORWARD of iptables drops by its policy every packet that no rule accepts"),
        "{said}"
    );
    assert!(said.contains("`iptables -P FORWARD ACCEPT`"), "{said}");
    // Its other remedy, as it stands there.
    let rules: Vec<_> = said.split('`').filter(|text| text.starts_with("iptables -I FORWARD -")).collect();
    assert_eq!(rules.len(), 2, "{said}");
    node.sh(&rules.join("\n"));
    assert_eq!(warned(node, cluster, "FirewallForward"), "");
    node.sh("iptables -F FORWARD; iptables -A FORWARD -j REJECT; iptables -P FORWARD ACCEPT");
    let said = warned(node, cluster, "FirewallForward");
    assert!(said.contains("drops by `-A FORWARD -j REJECT"), "{said}");
    node.sh("iptables -F FORWARD; iptables-legacy -P FORWARD DROP");
    let said = warned(node, cluster, "FirewallForward");
    assert!(said.contains("the chain FORWARD of iptables-legacy drops by its policy"), "{said}");
    node.sh("iptables-legacy -P FORWARD ACCEPT");
    assert_eq!(warned(node, cluster, "FirewallForward"), "");

    node.sh("nft add table inet mine
        nft add chain inet mine through '{ type filter hook forward priority 0; policy drop; }'
        nft add chain inet mine arriving '{ type filter hook input priority 0; policy drop; }'
        nft add rule inet mine arriving iif lo accept
        nft add rule inet mine arriving ct state established,related accept
        nft add rule inet mine arriving tcp dport '{ 22, 6443 }' accept");
    let said = warned(node, cluster, "FirewallForward");
    assert!(said.contains("the chain through of the table inet mine drops by its policy"), "{said}");
    let said = warned(node, cluster, "FirewallInput");
    assert!(said.contains("the chain arriving of the table inet mine drops by its policy"), "{said}");
    assert!(said.contains("names 10250/tcp"), "{said}");
    node.sh("nft delete table inet mine");
    assert_eq!(warned(node, cluster, "FirewallInput"), "");
}

fn another_network_comes_first(node: &Node, cluster: &Cluster) {
    let path = "/etc/cni/net.d/05-old.conflist";
    node.sh(&format!(
        "mkdir -p /etc/cni/net.d; echo '{{\"name\": \"old\", \"plugins\": [{{\"type\": \"bridge\"}}]}}' >{path}"
    ));
    let said = warned(node, cluster, "CNIConfiguration");
    assert!(said.starts_with(&format!("{path}: is the configuration of the network old, and comes before")), "{said}");
    let remedy = said.split('`').nth(1).unwrap();
    node.sh(remedy);
    assert_eq!(warned(node, cluster, "CNIConfiguration"), "");
    node.sh(&format!("rm {path}.off"));
}

fn programs_cannot_be_run_where_hoists_is(node: &Node, cluster: &Cluster) {
    node.sh("mount --bind /var/lib/hoist /var/lib/hoist; mount -o remount,bind,noexec /var/lib/hoist");
    let said = warned(node, cluster, "DirExecutable");
    assert!(said.starts_with("/var/lib/hoist: is on /var/lib/hoist, which is mounted noexec"), "{said}");
    node.sh("umount /var/lib/hoist");
}

fn a_drop_in_has_the_last_word(node: &Node, cluster: &Cluster) {
    let path = "/etc/systemd/system/kubelet.service.d/90-local.conf";
    let put = |line: &str| {
        node.sh(&format!(
            "mkdir -p $(dirname {path}); printf '[Service]\nExecStart=\n{line}\n' >{path}; systemctl daemon-reload"
        ));
    };
    put("ExecStart=/usr/local/bin/kubelet --v=1");
    let start = refused(node, cluster.start_command(&[])).expect(4);
    start.says(&[
        path,
        "sets how the kubelet is run, in place of hoist",
        "systemctl cat kubelet",
        "nothing was changed",
    ]);
    put("ExecStart=/usr/local/bin/kubelet --config=/var/lib/kubelet/config.yaml");
    let said = warned(node, cluster, "KubeletCommand");
    assert!(said.starts_with(&format!("{path}: sets how the kubelet is run")), "{said}");
    node.sh(&format!("rm {path}; rmdir $(dirname {path}) || true; systemctl daemon-reload"));
}

fn the_runtime_is_away(node: &Node, cluster: &Cluster) {
    node.sh("systemctl stop containerd");
    let start = refused(node, cluster.start_command(&[])).expect(4);
    start.says(&[
        "CRI: unix:///run/containerd/containerd.sock: no container runtime",
        "systemctl",
        "nothing was changed",
    ]);
    node.sh("systemctl start containerd");
    refused(node, preflight_of(cluster, &[])).expect(0);
}

fn the_cgroup_drivers_differ(node: &Node, cluster: &Cluster) {
    let path = cluster.assets.join("kubelet/config.yaml");
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(text.contains("cgroupDriver: cgroupfs"), "{text}");
    std::fs::write(&path, text.replace("cgroupDriver: cgroupfs", "cgroupDriver: systemd")).unwrap();
    let start = refused(node, cluster.start_command(&[])).expect(4);
    start.says(&["CgroupDriver: the kubelet's cgroup driver is systemd, and that of containerd 1.", "is cgroupfs"]);
    std::fs::write(&path, text).unwrap();
}

fn a_port_is_held(node: &Node, cluster: &Cluster) {
    let holder = node.spawn(["busybox", "nc", "-l", "-p", "6443"]);
    let pid = eventually("the port is held", Duration::from_secs(10), || {
        let listener = node.sh("ss -ltnpH 'sport = :6443'");
        listener.split_once("pid=").map(|(_, rest)| rest.split(',').next().unwrap().to_owned())
    });
    let start = refused(node, cluster.start_command(&[])).expect(4);
    start.says(&["port 6443", "busybox", &format!("pid {pid}"), "nothing was changed"]);
    let preflight = refused(node, preflight_of(cluster, &[])).expect(4);
    assert!(preflight.stdout.contains("error    Port-6443"), "{preflight}");
    let skipping = refused(node, preflight_of(cluster, &["--skip-preflight=Port-6443"])).expect(0);
    assert!(skipping.stdout.contains("skipped  Port-6443"), "{skipping}");
    let ignoring = refused(node, preflight_of(cluster, &["--ignore-preflight-errors=all"])).expect(0);
    assert!(ignoring.stdout.contains("warning: port 6443 is held by busybox"), "{ignoring}");
    holder.kill();
    eventually("the port is free", Duration::from_secs(10), || {
        node.sh("ss -ltnH 'sport = :6443'").is_empty().then_some(())
    });
}

fn a_foreign_manifest_stands_there(node: &Node, cluster: &Cluster) {
    let path = "/etc/kubernetes/manifests/kube-apiserver.yaml";
    node.sh(&format!(
        "mkdir -p /etc/kubernetes/manifests
        cat >{path} <<END
apiVersion: v1
kind: Pod
metadata: {{name: kube-apiserver, namespace: kube-system}}
spec: {{containers: [{{name: kube-apiserver, image: example.com/kube-apiserver, command: [kube-apiserver]}}]}}
END"
    ));
    refused(node, cluster.start_command(&[])).expect(4).says(&[path, "kube-apiserver", "nothing was changed"]);
    node.sh(&format!("rm {path}"));
}

fn the_address_is_not_of_this_machine(node: &Node) {
    // Of the node's own network, and given to no node: the highest is given last.
    let IpAddr::V4(own) = node.address else { panic!("{}", node.address) };
    let [a, b, c, _] = own.octets();
    let cluster = Cluster::render_at(node, IpAddr::from([a, b, c, 254]));
    let start = refused(node, cluster.start_command(&[])).expect(4);
    start.says(&["no interface of this machine", &cluster.address.to_string(), "nothing was changed"]);
}

fn the_user_is_not_root(node: &Node, cluster: &Cluster) {
    // A copy that everybody can read, so that nothing but the user is wrong.
    let (assets, binary) = (cluster.assets.display(), hoist());
    node.sh(&format!(
        "mkdir /opt/nobody; cp -r {assets} /opt/nobody/assets; cp {} /opt/nobody/hoist; chmod -R a+rX /opt/nobody",
        binary.display()
    ));
    let command =
        "setpriv --reuid=65534 --regid=65534 --clear-groups /opt/nobody/hoist start --asset-dir /opt/nobody/assets";
    let start = refused(node, command.split(' ').map(str::to_owned).collect()).expect(4);
    start.says(&["root", "sudo", "nothing was changed"]);
}

/// An administrator has said that it must not run.
fn the_kubelet_is_masked(node: &Node, cluster: &Cluster) {
    node.sh("systemctl mask kubelet");
    let start = refused(node, cluster.start_command(&["--timeout=10s"])).expect(4);
    start.says(&["kubelet", "masked", "systemctl unmask kubelet", "nothing was changed"]);
    node.sh("systemctl unmask kubelet");
}

/// It ends whenever it is started, as with a flag that it does not know. That shows only after a while, and what was
/// installed meanwhile is taken back.
fn the_kubelet_ends(node: &Node, cluster: &Cluster) {
    let version = &node.kubernetes;
    node.sh(&format!(
        "rm /usr/local/bin/kubelet
        cat >/usr/local/bin/kubelet <<'END'
#!/bin/sh
[ \"$1\" = --version ] && echo Kubernetes v{version}
END
        chmod 755 /usr/local/bin/kubelet"
    ));
    let start = undone(node, cluster.start_command(&["--timeout=10s"]));
    // Nobody serves the API.
    start.expect(7).says(&["no kubelet answers", "journalctl -u kubelet", "the API is NOT served"]);
}

fn there_is_no_kubelet(node: &Node, cluster: &Cluster) {
    node.sh("rm -r /usr/local/bin/kubelet /lib/systemd/system/kubelet.service*; systemctl daemon-reload");
    let start = refused(node, cluster.start_command(&["--timeout=10s"])).expect(4);
    start.says(&["kubelet", "install"]);
}
