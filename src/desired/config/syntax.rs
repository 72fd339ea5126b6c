//! The syntax of single values: names, hosts, versions, durations. Each check returns what is wrong, as the end of a
//! sentence that begins with the value.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use super::{API_PORT, Endpoint, Version};

/// A DNS-1123 subdomain: the names of nodes and most other objects, and host names.
///
/// # Errors
/// What is wrong, as the end of a sentence that begins with the name.
pub fn subdomain(name: &str) -> Result<(), String> {
    let label = |label: &str| {
        label.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
            && label.len() <= 63
            && !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    if name.len() <= 253 && name.split('.').all(label) {
        Ok(())
    } else {
        Err("is not a DNS name: lower-case letters, digits, `-` and `.`, beginning and ending with a letter or digit"
            .to_owned())
    }
}

/// The name of a controller: of its Node, and of a folder in tls/etcd/.
pub(super) fn node_name(name: &str) -> Result<(), String> {
    /// The kubelet gives the Node a label with this value.
    const MAX: usize = 63;
    subdomain(name)?;
    if name.len() > MAX {
        return Err(format!("is longer than the {MAX} characters that the name of a node may have"));
    }
    if ["ca.crt", "ca.key", "healthcheck-client.crt", "healthcheck-client.key"].contains(&name) {
        return Err("is the name of a file in tls/etcd/".to_owned());
    }
    Ok(())
}

/// The domain of Services, as far as the API server's own name in it is one.
pub(super) fn dns_domain(name: &str) -> Result<(), String> {
    const MAX: usize = 253 - "kubernetes.default.svc.".len();
    subdomain(name)?;
    if name.len() > MAX {
        Err(format!("is longer than the {MAX} characters that leave room for Services"))
    } else {
        Ok(())
    }
}

/// A DNS name or an IP address. Digits and dots only are an address, right or wrong.
pub(super) fn host(host: &str) -> Result<(), String> {
    if host.parse::<IpAddr>().is_ok() {
        return Ok(());
    }
    if host.rsplit('.').next().is_some_and(|label| !label.is_empty() && label.bytes().all(|b| b.is_ascii_digit())) {
        return Err("is not an IP address".to_owned());
    }
    subdomain(host)
}

/// A name or address in a certificate: a host, or a DNS name whose first label is `*`.
pub(super) fn alternative_name(text: &str) -> Result<(), String> {
    match text.strip_prefix("*.") {
        Some(rest) if rest.parse::<IpAddr>().is_ok() => Err("has a wildcard before an IP address".to_owned()),
        Some(rest) => host(rest),
        None => host(text),
    }
}

/// `host`, `host:port`, `[v6]` or `[v6]:port`.
pub(super) fn endpoint(text: &str) -> Result<Endpoint, String> {
    if text.parse::<Ipv6Addr>().is_ok() {
        return Err(format!("is an IPv6 address without brackets: write [{text}]"));
    }
    let (name, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (address, port) = rest.split_once(']').ok_or("has a bracket that is not closed")?;
            address.parse::<Ipv6Addr>().map_err(|_| "has something else than an IPv6 address in its brackets")?;
            let port = match port {
                "" => None,
                port => Some(port.strip_prefix(':').ok_or("has something else than a port after its bracket")?),
            };
            (address, port)
        }
        None => match text.split_once(':') {
            Some((name, port)) => (name, Some(port)),
            None => (text, None),
        },
    };
    host(name).map_err(|why| format!("has a host that {why}"))?;
    let port = match port {
        None => API_PORT,
        Some(port) => match port.parse() {
            Ok(port) if port > 0 => port,
            _ => return Err("has a port that is not a number from 1 to 65535".to_owned()),
        },
    };
    Ok(Endpoint { host: name.to_owned(), port })
}

/// `https://host[:port]`, as etcd's clients take it.
pub(super) fn https_url(text: &str) -> Result<(), String> {
    let rest = text.strip_prefix("https://").ok_or("is not an https:// URL")?;
    endpoint(rest.strip_suffix('/').unwrap_or(rest)).map(drop)
}

/// A qualified name, such as the key of a taint: `name` or `dns.prefix/name`.
pub(super) fn qualified_name(text: &str) -> Result<(), String> {
    let (prefix, name) = match text.split_once('/') {
        Some((prefix, name)) => (Some(prefix), name),
        None => (None, text),
    };
    let valid = !name.is_empty() && label_value(name).is_ok() && prefix.is_none_or(|p| subdomain(p).is_ok());
    if valid { Ok(()) } else { Err("is not a name or a DNS name, `/` and a name".to_owned()) }
}

/// The value of a label or a taint.
pub(super) fn label_value(text: &str) -> Result<(), String> {
    let inner = text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
    let ends = [text.bytes().next(), text.bytes().last()].iter().flatten().all(u8::is_ascii_alphanumeric);
    if inner && ends && text.len() <= 63 {
        Ok(())
    } else {
        Err("is not up to 63 letters, digits, `-`, `_` and `.`, beginning and ending with a letter or digit".to_owned())
    }
}

/// A reference to an image. Only what is surely wrong is refused; registries know the rest.
/// # Errors
/// What it is instead, or lacks.
pub fn image(text: &str) -> Result<(), String> {
    // A colon before the last slash is the registry's port.
    let name = text.rfind('/').map_or(0, |slash| slash + 1);
    let end = text[name..].find([':', '@']).map_or(text.len(), |i| name + i);
    let (repository, tag) = text.split_at(end);
    image_repository(repository)?;
    match tag {
        "" => Err("has neither a tag nor a digest".to_owned()),
        ":" | "@" => Err("has an empty tag".to_owned()),
        tag if tag.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.:@".contains(&b)) => Ok(()),
        _ => Err("has characters that no tag has".to_owned()),
    }
}

/// Where images lie: `registry.example.com:5000/path`.
pub(super) fn image_repository(text: &str) -> Result<(), String> {
    if text.contains("://") {
        return Err("is a URL: an image begins with the registry's host".to_owned());
    }
    let allowed = |c: char| c.is_ascii_alphanumeric() || "-_.:@/[]".contains(c);
    if !text.chars().all(allowed) || text.split('/').any(str::is_empty) {
        return Err("is not a registry's host and a path".to_owned());
    }
    let tagged = match text.split_once('/') {
        Some((_, path)) => path.contains([':', '@']),
        // With no path, a number after a colon is a port, and `[::1]` an address.
        None => text.rsplit_once(':').is_some_and(|(_, port)| !port.bytes().all(|b| b.is_ascii_digit() || b == b']')),
    };
    if tagged { Err("has a tag or digest".to_owned()) } else { Ok(()) }
}

/// An absolute path that a unit of systemd can name as it stands: nothing in it needs quoting.
pub(super) fn unit_path(text: &str) -> Result<(), String> {
    let plain = |part: &str| {
        !["", ".", ".."].contains(&part) && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.@+".contains(&b))
    };
    match text.strip_prefix('/') {
        Some(rest) if rest.split('/').all(plain) => Ok(()),
        _ => Err("is not an absolute path of letters, digits, `-`, `_`, `.`, `@` and `+`".to_owned()),
    }
}

/// `v1.37.2`, with or without the `v`.
pub(super) fn version(text: &str) -> Result<Version, String> {
    let number = |part: &str| match part.parse() {
        Ok(n) if part == format!("{n}") => Some(n),
        _ => None,
    };
    let parts: Vec<Option<u32>> = text.strip_prefix('v').unwrap_or(text).split('.').map(number).collect();
    match parts[..] {
        [Some(major), Some(minor), Some(patch)] => Ok(Version { major, minor, patch }),
        _ => Err("is not a release of Kubernetes, such as v1.37.2".to_owned()),
    }
}

/// A duration in Go's form, such as `8760h` or `1h30m`.
pub fn duration(text: &str) -> Result<Duration, String> {
    const FORM: &str = "is not a duration such as 8760h or 1h30m";
    const UNITS: [(&str, u64); 7] = [
        // `ms` comes before `m`, of which it would otherwise be taken for the beginning.
        ("ns", 1),
        ("us", 1_000),
        ("µs", 1_000),
        ("ms", 1_000_000),
        ("s", 1_000_000_000),
        ("m", 60_000_000_000),
        ("h", 3_600_000_000_000),
    ];
    let mut rest = text;
    let mut total: u128 = 0;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or(FORM)?;
        let (number, unit) = rest.split_at(end);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if number.is_empty() || number == "." || fraction.contains('.') || number.len() > 20 {
            return Err(FORM.to_owned());
        }
        let (name, nanos) = UNITS.iter().find(|(name, _)| unit.starts_with(name)).ok_or(FORM)?;
        let digits = |text: &str| if text.is_empty() { Ok(0) } else { text.parse::<u128>() };
        let (whole, part) = (digits(whole).map_err(|_| FORM)?, digits(fraction).map_err(|_| FORM)?);
        let scale = 10_u128.pow(fraction.len().try_into().unwrap_or(u32::MAX));
        let nanos = u128::from(*nanos);
        total = total.saturating_add(whole.saturating_mul(nanos)).saturating_add(part.saturating_mul(nanos) / scale);
        rest = &unit[name.len()..];
    }
    // Go keeps durations as nanoseconds in 64 bits, signed.
    match u64::try_from(total) {
        _ if text.is_empty() => Err(FORM.to_owned()),
        Ok(0) => Err("is zero".to_owned()),
        Ok(nanos) if nanos <= i64::MAX as u64 => Ok(Duration::from_nanos(nanos)),
        _ => Err("is longer than 2562047h, the longest possible duration".to_owned()),
    }
}

/// A duration as Go writes it: `8760h0m0s`.
pub(super) fn write_duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let mut text = format!("{}h{}m{}", seconds / 3600, seconds / 60 % 60, seconds % 60);
    if duration.subsec_nanos() > 0 {
        let _ = write!(text, ".{:09}", duration.subsec_nanos());
        text.truncate(text.trim_end_matches('0').len());
    }
    text.push('s');
    text
}
