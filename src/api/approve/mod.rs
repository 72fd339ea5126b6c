//! Whether a kubelet may have the serving certificate that it asks for. Pure.
//!
//! The holder of a kubelet's client certificate can request one, and can also write its Node's addresses. So a name
//! in the Node is not enough: no other Node may have the name, and it must not be a name of the API server.

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::desired::config::Cluster;
use crate::desired::pki;

/// The signer whose certificates kubelets serve with.
pub const SIGNER: &str = "kubernetes.io/kubelet-serving";

/// A request, as the API shows it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Asked {
    /// Who has made it.
    pub username: String,
    /// His groups.
    pub groups: Vec<String>,
    /// What the certificate shall be good for.
    pub usages: Vec<String>,
    /// The request itself (PEM).
    pub request: Vec<u8>,
}

/// What a Node says of its addresses: type (`InternalIP`, `Hostname` …) and value.
pub type Addresses = Vec<(String, String)>;

/// What is said to a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The kubelet is who it says, at these addresses.
    Approve,
    /// Not now: the Node may say later what it does not say yet.
    Wait(String),
    /// Never. It is left as it is: an admin may see more in it.
    Refuse(String),
}

/// The names and addresses that the API server, and what else the cluster's CA vouches for, are known by.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Reserved {
    /// Those of the API server's certificate, in small letters; `*.` may stand for one label.
    names: Vec<String>,
    /// Controllers' own: their kubelets may have them.
    controllers: BTreeMap<String, IpAddr>,
    /// What every Service's name ends with.
    dns_domain: String,
}

impl Reserved {
    /// Those of `cluster`, whose API server serves with the certificate `apiserver_pem`.
    pub fn of(cluster: &Cluster, apiserver_pem: &[u8]) -> Self {
        let sans = pki::inspect(apiserver_pem).map(|info| info.sans).unwrap_or_default();
        Self {
            names: sans.iter().map(|name| name.to_ascii_lowercase()).collect(),
            controllers: cluster.controllers.iter().map(|one| (one.name.clone(), one.address)).collect(),
            dns_domain: cluster.networking.dns_domain.to_ascii_lowercase(),
        }
    }

    /// The same, and what is so now: the addresses `published` in the `kubernetes` Service, and the Nodes that the control
    /// plane's label makes `controllers`, by name. The address of one whose Node was deleted a moment ago is nobody else's.
    #[must_use]
    pub fn and_now(
        &self,
        controllers: impl IntoIterator<Item = (String, IpAddr)>,
        published: impl IntoIterator<Item = IpAddr>,
    ) -> Self {
        let mut now = self.clone();
        now.controllers.extend(controllers);
        now.names.extend(published.into_iter().map(|address| address.to_string()));
        now
    }

    fn has_name(&self, node: &str, name: &str) -> bool {
        if self.controllers.contains_key(node) && name == node {
            return false;
        }
        let is = |reserved: &String| match reserved.strip_prefix("*.") {
            Some(rest) => name.split_once('.').is_some_and(|(_, parent)| parent == rest),
            None => reserved == name,
        };
        let service = format!(".svc.{}", self.dns_domain);
        self.names.iter().any(is) || name.ends_with(".svc") || name.ends_with(&service) || name.contains('*')
    }

    fn has_address(&self, node: &str, address: IpAddr) -> bool {
        if self.controllers.get(node) == Some(&address) {
            return false;
        }
        let is_nobodys = address.is_loopback() || address.is_unspecified() || address.is_multicast();
        is_nobodys || self.names.iter().any(|name| name.parse() == Ok(address))
    }
}

/// The Node whose kubelet asks, by its name.
pub fn node_of(asked: &Asked) -> Option<&str> {
    asked.username.strip_prefix("system:node:").filter(|name| !name.is_empty())
}

/// Says whether `asked` shall have its certificate. `nodes` are all Nodes with their addresses.
pub fn judge(asked: &Asked, nodes: &BTreeMap<String, Addresses>, reserved: &Reserved) -> Verdict {
    use Verdict::{Approve, Refuse, Wait};
    const USAGES: [&[&str]; 2] =
        [&["digital signature", "server auth"], &["digital signature", "key encipherment", "server auth"]];
    let Some(name) = node_of(asked) else {
        return Refuse(format!("{} is not a kubelet", asked.username));
    };
    if !asked.groups.iter().any(|group| group == "system:nodes") {
        return Refuse(format!("{} is not in the group system:nodes", asked.username));
    }
    let mut usages: Vec<_> = asked.usages.iter().map(String::as_str).collect();
    usages.sort_unstable();
    if !USAGES.contains(&&*usages) {
        return Refuse(format!("it asks for the usages {}", usages.join(", ")));
    }
    let request = match pki::request(&asked.request) {
        Ok(request) => request,
        Err(why) => return Refuse(format!("the request {why}")),
    };
    if request.common_names != [asked.username.as_str()] || request.organizations != ["system:nodes"] {
        let (names, groups) = (request.common_names.join(", "), request.organizations.join(", "));
        return Refuse(format!("{} asks for the subject CN={names}, O={groups}", asked.username));
    }
    if request.dns_names.is_empty() && request.addresses.is_empty() {
        return Refuse("it asks for no name".into());
    }
    let Some(own) = nodes.get(name) else { return Wait(format!("there is no Node {name}")) };
    let names = request.dns_names.iter().map(|name| Name::Dns(name.trim_end_matches('.').to_ascii_lowercase()));
    for asked in names.chain(request.addresses.iter().copied().map(Name::Address)) {
        let is_reserved = match &asked {
            Name::Dns(dns) => reserved.has_name(name, dns),
            Name::Address(address) => reserved.has_address(name, *address),
        };
        if is_reserved {
            return Refuse(format!(
                "a worker may not have {asked}: it is a name or address of the API server or of a Service"
            ));
        }
        if !has(own, &asked) {
            return Wait(format!("the Node {name} has no address {asked}"));
        }
        if let Some((other, _)) = nodes.iter().find(|(other, there)| *other != name && has(there, &asked)) {
            return Refuse(format!("the Node {other} has {asked}, too"));
        }
    }
    Approve
}

enum Name {
    Dns(String),
    Address(IpAddr),
}

impl std::fmt::Display for Name {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Dns(name) => f.write_str(name),
            Self::Address(address) => write!(f, "{address}"),
        }
    }
}

/// Whether a Node has this name or address; a Node's hostname may be an address.
fn has(addresses: &Addresses, asked: &Name) -> bool {
    addresses.iter().any(|(kind, value)| match asked {
        Name::Dns(name) => {
            matches!(&**kind, "Hostname" | "InternalDNS" | "ExternalDNS") && value.to_ascii_lowercase() == *name
        }
        Name::Address(address) => {
            matches!(&**kind, "Hostname" | "InternalIP" | "ExternalIP") && value.parse() == Ok(*address)
        }
    })
}

#[cfg(test)]
mod tests;
