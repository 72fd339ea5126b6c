//! The addresses of this machine's network interfaces.

use std::net::IpAddr;

/// Each address with the name of its interface.
///
/// # Errors
/// The system's refusal to list them.
pub fn addresses() -> nix::Result<impl Iterator<Item = (String, IpAddr)>> {
    Ok(nix::ifaddrs::getifaddrs()?.filter_map(|interface| {
        let storage = interface.address?;
        let v4 = storage.as_sockaddr_in().map(|address| IpAddr::V4(address.ip()));
        let address = v4.or_else(|| storage.as_sockaddr_in6().map(|address| IpAddr::V6(address.ip())))?;
        Some((interface.interface_name, address))
    }))
}
