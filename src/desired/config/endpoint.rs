//! How clients reach the API where there are several API servers.

use std::net::{IpAddr, SocketAddr};

use super::check::Check;
use super::{API_PORT, Cluster, Controller, ENDPOINT_PORT, Endpoint, Images, Networking, networking, raw};
use crate::base::yaml::child;

const PATH: &str = "endpoint";

/// How clients reach the API where there are several API servers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiEndpoint {
    /// Each node has an endpoint at a loopback address, which its own clients ask.
    pub node_local: bool,
    /// An address that moves between the controllers, if there is one.
    pub virtual_address: Option<VirtualAddress>,
}

/// An address that one of the controllers has at a time, by VRRP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VirtualAddress {
    /// The address.
    pub address: IpAddr,
    /// The network interface of the controllers at which it is.
    pub interface: String,
    /// VRRP's number for it, its own on that network; never 0.
    pub router_id: u8,
}

impl Cluster {
    /// Where a node's own clients reach the API through the endpoint of that node, if nodes have one.
    pub fn node_endpoint(&self) -> Option<SocketAddr> {
        self.api_endpoint.node_local.then(|| SocketAddr::new(self.loopback(), ENDPOINT_PORT))
    }

    /// Where the clients of a node reach the API that are the same on each node: its endpoint, if nodes have one.
    pub fn server_of_nodes(&self) -> String {
        let endpoint = || self.endpoint().to_string();
        format!("https://{}", self.node_endpoint().map_or_else(endpoint, |address| address.to_string()))
    }

    /// Where admins reach the API, and nodes that have no endpoint of their own.
    pub fn endpoint(&self) -> Endpoint {
        self.control_plane_endpoint.clone().unwrap_or_else(|| {
            let first = || self.controllers.first().map(|controller| controller.address);
            let address = self.virtual_address().or_else(first);
            Endpoint { host: address.map(|address| address.to_string()).unwrap_or_default(), port: API_PORT }
        })
    }

    /// The address that moves between the controllers, if there is one.
    pub fn virtual_address(&self) -> Option<IpAddr> {
        self.api_endpoint.virtual_address.as_ref().map(|of| of.address)
    }
}

/// What `raw` says. Without a word of it, nodes have an endpoint of their own where an image brings hoist to them: nobody has
/// to copy a file.
pub(super) fn endpoint(
    check: &mut Check<'_>,
    raw: Option<&raw::Endpoint>,
    controllers: &[Option<Controller>],
    networking: &Networking,
    images: Option<&Images>,
) -> ApiEndpoint {
    let none = raw::Endpoint::default();
    let raw = raw.unwrap_or(&none);
    let has_image = images.is_some_and(|images| images.hoist.is_some());
    ApiEndpoint {
        node_local: raw.node_local.unwrap_or(has_image),
        virtual_address: virtual_address(check, raw, controllers, networking),
    }
}

fn virtual_address(
    check: &mut Check<'_>,
    raw: &raw::Endpoint,
    controllers: &[Option<Controller>],
    networking: &Networking,
) -> Option<VirtualAddress> {
    let Some(text) = raw.virtual_address.as_deref() else {
        let fields = [("interface", raw.interface.is_some()), ("virtualRouterID", raw.virtual_router_id.is_some())];
        for (name, _) in fields.into_iter().filter(|(_, is_there)| *is_there) {
            check.without_effect(&child(PATH, name), "there is no endpoint.virtualAddress", None);
        }
        return None;
    };
    let path = child(PATH, "virtualAddress");
    let parsed = text.parse().map_err(|_| "is not an IP address".to_owned());
    let address = check.value(&path, text, parsed, "192.0.2.9");
    if let Some(address) = address {
        judge(check, &path, address, controllers, networking);
    }
    let interface = check.required(PATH, "interface", raw.interface.as_deref());
    if let Some(interface) = interface {
        check.value(&child(PATH, "interface"), interface, interface_name(interface), "eth0");
    }
    let router_id = match raw.virtual_router_id {
        None => address.map(default_router_id),
        Some(number) => {
            let result = u8::try_from(number).ok().filter(|number| *number > 0);
            let result = result.ok_or_else(|| "is not between 1 and 255".to_owned());
            check.value(&child(PATH, "virtualRouterID"), &number.to_string(), result, "51")
        }
    };
    Some(VirtualAddress { address: address?, interface: interface?.to_owned(), router_id: router_id? })
}

/// It is nobody's, and API servers listen at it.
fn judge(
    check: &mut Check<'_>,
    path: &str,
    address: IpAddr,
    controllers: &[Option<Controller>],
    networking: &Networking,
) {
    const REMEDY: &str = "give an address of the controllers' network that no machine has";
    networking::endpoint(check, path, &Endpoint { host: address.to_string(), port: API_PORT }, networking, REMEDY);
    if let Some(controller) = controllers.iter().flatten().find(|controller| controller.address == address) {
        let message = format!("{address} is the address of {}, which keeps it", controller.name);
        check.wrong(path, message, REMEDY.to_owned());
    }
    let other = controllers.iter().flatten().find(|controller| controller.address.is_ipv6() != address.is_ipv6());
    if let Some(controller) = other {
        let message = format!("{address} is not of the family of {}, {}", controller.name, controller.address);
        check.wrong(path, message, REMEDY.to_owned());
    }
}

/// The last byte of the address: two clusters of one network have different ones, unless it is larger than a /24.
fn default_router_id(address: IpAddr) -> u8 {
    let last = match address {
        IpAddr::V4(address) => address.octets().last().copied(),
        IpAddr::V6(address) => address.octets().last().copied(),
    };
    last.filter(|last| *last > 0).unwrap_or(1)
}

/// What Linux takes for a name, and keepalived's configuration without quotes.
fn interface_name(name: &str) -> Result<(), String> {
    const LONGEST: usize = 15;
    if name.len() > LONGEST {
        return Err(format!("is longer than {LONGEST} bytes"));
    }
    let is_plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.@".contains(&b);
    if name.bytes().all(is_plain) { Ok(()) } else { Err("is not the name of a network interface".to_owned()) }
}
