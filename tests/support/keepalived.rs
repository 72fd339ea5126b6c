//! Debian's own keepalived on a node, and which node has the address.

use std::net::IpAddr;
use std::path::Path;
use std::process::Command;

use super::command::run;
use super::node::{EXEC_LIMIT, Node};
use super::unpacked;

/// Where cgroups are v1 and share out what runs before all others, a service has nothing of that by itself.
const FIRST: &str = "[Service]
ExecStartPre=-/bin/sh -c \"cd /sys/fs/cgroup/cpu; for group in system.slice system.slice/keepalived.service; do \\
  echo 100000 >$$group/cpu.rt_period_us; echo 7500 >$$group/cpu.rt_runtime_us; done\"
";

/// Installs the package as apt-get would, by way of a folder that nodes see.
pub fn unpack(node: &Node, folder: &Path) {
    let package = folder.with_extension("keepalived");
    if !package.exists() {
        run(Command::new("cp").arg("-a").arg(unpacked("keepalived")).arg(&package), EXEC_LIMIT).ok();
    }
    let package = package.display();
    node.sh(&format!(
        "cp -a {package}/usr/. /usr/; cp -a {package}/lib/. /usr/lib/; cp -a {package}/etc/. /etc/
        mkdir -p /etc/systemd/system/keepalived.service.d
        echo '{FIRST}' >/etc/systemd/system/keepalived.service.d/first.conf
        systemctl daemon-reload"
    ));
}

/// The same with what an asset directory has for a controller.
pub fn of_controllers(node: &Node, assets: &Path) {
    unpack(node, assets);
    node.sh(&format!(
        "cp {}/keepalived/keepalived.conf /etc/keepalived/keepalived.conf
        keepalived --config-test
        systemctl enable --quiet keepalived; systemctl start keepalived",
        assets.display()
    ));
}

/// Whether a node has an address.
pub fn has(node: &Node, address: IpAddr) -> bool {
    let shown = node.exec(["ip", "-brief", "address", "show", "eth0"]).stdout;
    shown.contains(&format!(" {address}/32"))
}

/// The one node that has an address, if it is one.
pub fn holder<'a>(nodes: &[&'a Node], address: IpAddr) -> Option<&'a Node> {
    let having: Vec<_> = nodes.iter().copied().filter(|node| has(node, address)).collect();
    if let [one] = having[..] { Some(one) } else { None }
}

/// All but one.
pub fn others<'a>(nodes: &[&'a Node], one: &Node) -> Vec<&'a Node> {
    nodes.iter().filter(|node| node.name != one.name).copied().collect()
}
