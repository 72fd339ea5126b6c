//! keepalived, which moves the virtual address: hoist renders its configuration, and does not install it.

use super::Facts;
use crate::base::error::Finding;

/// Where keepalived has its configuration.
const PATH: &str = "/etc/keepalived/keepalived.conf";

/// A configuration that does not have the address: kubelets, workers and users would ask where nobody is.
pub(super) fn keepalived(facts: &Facts) -> Vec<Finding> {
    let Some(address) = facts.cluster.virtual_address() else { return Vec::new() };
    let address = address.to_string();
    let configured = facts.read(PATH);
    if configured.lines().any(|line| line.trim() == address) {
        return Vec::new();
    }
    let finding = Finding::new(PATH, format!("does not have {address}, the cluster's virtual address"));
    vec![finding.remedy(
        "install keepalived, copy keepalived/keepalived.conf of the asset directory there, and `systemctl restart keepalived`",
    )]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::preflight::testing::{Machine, cluster, said};

    #[test]
    fn keepalived_must_have_the_address() {
        let machine = Machine::new();
        let mut facts = machine.facts("");
        assert!(keepalived(&facts).is_empty(), "there is none");
        facts.cluster = cluster("endpoint: {virtualAddress: 192.0.2.9, interface: eth0}\n");
        let expected =
            ["/etc/keepalived/keepalived.conf: does not have 192.0.2.9, the cluster's virtual address".to_owned()];
        assert_eq!(said(&keepalived(&facts)), expected);
        machine.put(PATH, "    virtual_ipaddress {\n        192.0.2.99\n    }\n");
        assert_eq!(said(&keepalived(&facts)), expected);
        machine.put(PATH, "    virtual_ipaddress {\n        192.0.2.9\n    }\n");
        assert!(keepalived(&facts).is_empty());
    }
}
