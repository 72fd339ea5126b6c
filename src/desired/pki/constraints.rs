//! The names that a CA may sign (RFC 5280, 4.2.1.10), as Go and rustls enforce them: if a server's certificate has
//! one name that its CA may not sign, clients reject the server under every name.

use std::net::IpAddr;

use x509_parser::extensions::{GeneralName, GeneralSubtree};

use super::parse;

/// Why nobody would trust a certificate with these names from the first of `path`, for what it or those above it constrain;
/// completes "its name constraints …". `None`: nothing constrains them.
pub(super) fn broken(path: &[Vec<u8>], names: &[String]) -> Option<String> {
    let mut excluded: Vec<&str> = Vec::new();
    for certificate in path.iter().filter_map(|der| parse::x509(der).ok()) {
        if let Ok(Some(constraints)) = certificate.name_constraints() {
            let permitted = constraints.value.permitted_subtrees.as_deref().unwrap_or_default();
            let forbidden = constraints.value.excluded_subtrees.as_deref().unwrap_or_default();
            let is_of_directories =
                |subtree: &GeneralSubtree<'_>| matches!(subtree.base, GeneralName::DirectoryName(_));
            // Go passes over them, unless they are critical; rustls, by which hoist asks, knows none, and refuses all.
            if permitted.iter().chain(forbidden).any(is_of_directories) {
                return Some("are of directory names, and no certificate under them is trusted".to_owned());
            }
            if constraints.critical && permitted.iter().chain(forbidden).any(|subtree| !is_known(&subtree.base)) {
                return Some("are of a kind that no component of Kubernetes knows, and critical".to_owned());
            }
            let is_broken = |name: &&String| !may_sign(name, permitted, forbidden);
            excluded.extend(names.iter().filter(is_broken).map(String::as_str));
        }
    }
    excluded.sort_unstable();
    excluded.dedup();
    (!excluded.is_empty()).then(|| format!("exclude {}", excluded.join(", ")))
}

/// What Go judges names by.
fn is_known(base: &GeneralName<'_>) -> bool {
    matches!(
        base,
        GeneralName::DNSName(_) | GeneralName::IPAddress(_) | GeneralName::RFC822Name(_) | GeneralName::URI(_)
    )
}

/// A name must be in one of the permitted subtrees of its kind, if there are any, and in none of the excluded.
fn may_sign(name: &str, permitted: &[GeneralSubtree<'_>], excluded: &[GeneralSubtree<'_>]) -> bool {
    let address: Option<IpAddr> = name.parse().ok();
    let fits = |subtree: &GeneralSubtree<'_>| match (&subtree.base, address) {
        (GeneralName::DNSName(domain), None) => Some(is_below(name, domain)),
        (GeneralName::IPAddress(net), Some(address)) => Some(is_in(address, net)),
        _ => None,
    };
    let mut of_kind = permitted.iter().filter_map(fits).peekable();
    let is_permitted = of_kind.peek().is_none() || of_kind.any(|fits| fits);
    is_permitted && !excluded.iter().filter_map(fits).any(|fits| fits)
}

fn is_below(name: &str, domain: &str) -> bool {
    let (name, domain) = (name.to_ascii_lowercase(), domain.to_ascii_lowercase());
    // With a dot in front, the domain itself is not meant.
    let bare = domain.trim_start_matches('.');
    let rest = name.strip_suffix(bare);
    bare.is_empty() || rest.is_some_and(|rest| rest.ends_with('.') || rest.is_empty() && bare == domain)
}

/// `net` is an address and a mask, one behind the other.
fn is_in(address: IpAddr, net: &[u8]) -> bool {
    let octets = match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    };
    let (base, mask) = net.split_at(net.len() / 2);
    base.len() == octets.len()
        && octets.iter().zip(base).zip(mask).all(|((octet, base), mask)| octet & mask == base & mask)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn domains_and_subnets() {
        for (name, domain, expected) in [
            ("api.example.com", "example.com", true),
            ("API.example.com", "EXAMPLE.com", true),
            ("example.com", "example.com", true),
            ("example.com", ".example.com", false),
            ("a.example.com", ".example.com", true),
            ("anexample.com", "example.com", false),
            ("kubernetes", "example.com", false),
            ("kubernetes", "", true),
        ] {
            assert_eq!(is_below(name, domain), expected, "{name} below {domain:?}");
        }
        let net = [10, 96, 0, 0, 255, 240, 0, 0];
        assert!(is_in("10.96.0.1".parse().unwrap(), &net) && !is_in("192.0.2.1".parse().unwrap(), &net));
        assert!(!is_in("::1".parse().unwrap(), &net) && is_in("::1".parse().unwrap(), &[0; 32]));
    }
}
