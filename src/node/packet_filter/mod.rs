//! The packet filter of kube-proxy and flannel: nftables if this kernel has it, iptables otherwise. The manifests say
//! nftables; another value of the user's is left alone. Also the nftables chains of this kernel.

mod chains;

use std::borrow::Cow;
use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, setsockopt, socket, sockopt,
};
use nix::sys::time::TimeVal;
use serde_json::Value;

use crate::desired::assets::Manifest;
use crate::desired::config::{Cluster, ProxyMode};

pub use chains::{BaseChain, Family, Hook, base_chains};

/// The least kernel that kube-proxy uses nftables of (NFTablesKubeProxyKernelVersion in Kubernetes' pkg/util/kernel).
const LEAST_KERNEL: (u32, u32) = (5, 13);
/// The kernel answers at once.
const ANSWER_LIMIT: Duration = Duration::from_secs(1);

/// Where the choice stands: namespace and name of a ConfigMap, the key in it, a line there without its quotes, and what
/// takes its place.
const PLACES: [(&str, &str, &str, &str, &str); 2] = [
    ("kube-system", "kube-proxy", "config.conf", "mode: nftables", "mode: iptables"),
    ("kube-flannel", "kube-flannel-cfg", "net-conf.json", "EnableNFTables: true,", "\"EnableNFTables\": false,"),
];

/// The manifests as they fit this machine's kernel, and what is to be said of the choice. Where cluster.yaml has chosen,
/// or nobody of `manifests` filters packets, nothing is asked and nothing is said.
pub fn fit<'a>(
    manifests: &'a [Manifest],
    cluster: &Cluster,
    nftables: impl FnOnce() -> Result<(), String>,
) -> (Cow<'a, [Manifest]>, Option<String>) {
    let unchanged = Cow::Borrowed(manifests);
    let is_chosen = matches!(cluster.kube_proxy.mode, ProxyMode::Nftables | ProxyMode::Iptables);
    let users: Vec<_> = manifests.iter().filter_map(with_iptables).collect();
    if is_chosen || users.is_empty() {
        return (unchanged, None);
    }
    match nftables() {
        Ok(()) => (unchanged, Some("packets are filtered by nftables: this kernel has it".into())),
        Err(reason) => {
            let fitted = manifests.iter().map(|manifest| with_iptables(manifest).unwrap_or_else(|| manifest.clone()));
            let said = format!("packets are filtered by iptables: this kernel {reason}");
            (Cow::Owned(fitted.collect()), Some(said))
        }
    }
}

/// The manifest with iptables in it, if it is one that says nftables.
fn with_iptables(manifest: &Manifest) -> Option<Manifest> {
    let text = |pointer: &str| manifest.object.pointer(pointer).and_then(Value::as_str);
    let is_at = |(namespace, name, ..): &&(&str, &str, &str, &str, &str)| {
        (text("/kind"), text("/metadata/namespace"), text("/metadata/name"))
            == (Some("ConfigMap"), Some(*namespace), Some(*name))
    };
    let (.., key, nftables, iptables) = PLACES.iter().find(is_at)?;
    let old = manifest.object.get("data")?.get(*key)?.as_str()?;
    let line = |line: &str| {
        let (indent, rest) = line.split_at(line.len() - line.trim_start().len());
        if rest.replace('"', "") == *nftables { format!("{indent}{iptables}") } else { line.to_owned() }
    };
    let new = old.split('\n').map(line).collect::<Vec<_>>().join("\n");
    if new == old {
        return None;
    }
    let mut fitted = manifest.clone();
    fitted.object["data"][*key] = new.into();
    Some(fitted)
}

/// Whether the kernel of this machine has nftables, and is one that kube-proxy takes.
///
/// # Errors
/// Why not, as the end of a sentence that begins with the kernel.
pub fn nftables() -> Result<(), String> {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    judge(release.trim(), ask())
}

fn judge(release: &str, answer: io::Result<()>) -> Result<(), String> {
    let number = |part: Option<&str>| part.and_then(|part| part.parse::<u32>().ok());
    let mut parts = release.split(|c: char| !c.is_ascii_digit());
    if let (Some(major), Some(minor)) = (number(parts.next()), number(parts.next()))
        && (major, minor) < LEAST_KERNEL
    {
        let (major, minor) = LEAST_KERNEL;
        return Err(format!("is {release}, and kube-proxy uses nftables from {major}.{minor} on"));
    }
    answer.map_err(|error| format!("has no nftables: {error}"))
}

/// Asks the kernel for the number of its set of rules; one that has nftables as a module loads it for that.
fn ask() -> io::Result<()> {
    let socket = open()?;
    let fd = std::os::fd::AsRawFd::as_raw_fd(&socket);
    send(fd, &question(), MsgFlags::empty())?;
    let mut answer = [0; 1024];
    let length = recv(fd, &mut answer, MsgFlags::empty())?;
    read(answer.get(..length).unwrap_or_default())
}

/// A way to the kernel's packet filter, on which an answer comes soon or not at all.
fn open() -> io::Result<OwnedFd> {
    let socket = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkNetFilter)?;
    let limit = TimeVal::new(ANSWER_LIMIT.as_secs().try_into().unwrap_or(1), 0);
    setsockopt(&socket, sockopt::ReceiveTimeout, &limit)?;
    Ok(socket)
}

/// The subsystem of nftables among the messages of netfilter (linux/netfilter/nfnetlink.h), and two of its messages
/// (linux/netfilter/nf_tables.h).
const NFTABLES: u16 = 10 << 8;
const NEW_GENERATION: u16 = NFTABLES | 15;
const GET_GENERATION: u16 = NFTABLES | 16;
/// A message of netlink itself (linux/netlink.h).
const ERROR: u16 = 2;
const REQUEST: u16 = 1;

/// A header of netlink's, with length, type, flags, a number and nobody's port, and one of netfilter's.
fn question() -> Vec<u8> {
    const LENGTH: u32 = 20;
    let mut message = LENGTH.to_ne_bytes().to_vec();
    message.extend(GET_GENERATION.to_ne_bytes());
    message.extend(REQUEST.to_ne_bytes());
    message.extend([0; 12]);
    message
}

fn read(answer: &[u8]) -> io::Result<()> {
    let kind = answer.get(4..6).and_then(|bytes| bytes.try_into().ok()).map(u16::from_ne_bytes);
    let error = answer.get(16..20).and_then(|bytes| bytes.try_into().ok()).map(i32::from_ne_bytes);
    match (kind, error) {
        (Some(NEW_GENERATION), _) => Ok(()),
        (Some(ERROR), Some(error)) => Err(io::Error::from_raw_os_error(-error)),
        _ => Err(io::Error::other("it gives an answer that nobody knows")),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use serde_json::json;

    use super::*;

    const LACKS: fn() -> Result<(), String> = || Err("has none".into());

    fn cluster(more: &str) -> Cluster {
        const CLUSTER: &str =
            "apiVersion: hoist/v1alpha1\nkind: Cluster\ncontrollers: [{name: c1, address: 192.0.2.10}]\n";
        crate::desired::config::parse("f", &format!("{CLUSTER}{more}"), Path::new("/")).unwrap()
    }

    /// What `render` makes of a cluster, as `start` reads it.
    fn manifests(cluster: &Cluster) -> Vec<Manifest> {
        let tls = crate::desired::pki::issue(
            cluster,
            &Default::default(),
            &Default::default(),
            crate::check::preflight::testing::now(),
        );
        let set = crate::desired::render::render(cluster, &tls.unwrap().files, "abcdef.0123456789abcdef").unwrap();
        set.manifests(Path::new("/")).unwrap().0
    }

    /// The lines of the manifests' choices.
    fn choices(manifests: &[Manifest]) -> Vec<String> {
        let text = |pointer| manifests.iter().filter_map(move |m| m.object.pointer(pointer)?.as_str());
        let lines = text("/data/config.conf").chain(text("/data/net-conf.json")).flat_map(str::lines);
        let chosen = lines.map(str::trim).filter(|line| line.starts_with("mode") || line.contains("NFT"));
        chosen.map(str::to_owned).collect()
    }

    #[test]
    fn a_kernel_without_nftables_gets_iptables() {
        for more in ["", "kubeProxy: {config: {conntrack: {maxPerCore: 0}}}\n"] {
            let cluster = cluster(more);
            let rendered = manifests(&cluster);
            let (fitted, said) = fit(&rendered, &cluster, LACKS);
            assert_eq!(choices(&fitted), ["mode: iptables", "\"EnableNFTables\": false,"], "{more}");
            assert_eq!(said.unwrap(), "packets are filtered by iptables: this kernel has none");
            let (fitted, said) = fit(&rendered, &cluster, || Ok(()));
            assert!(matches!(fitted, Cow::Borrowed(same) if same == rendered));
            assert_eq!(said.unwrap(), "packets are filtered by nftables: this kernel has it");
        }
    }

    #[test]
    fn what_is_written_stands() {
        let never = || panic!("nobody needs to know");
        for (mode, expected) in [
            ("nftables", ["mode: \"nftables\"", "\"EnableNFTables\": true,"]),
            ("iptables", ["mode: \"iptables\"", "\"EnableNFTables\": false,"]),
        ] {
            let cluster = cluster(&format!("kubeProxy: {{mode: {mode}}}\n"));
            let rendered = manifests(&cluster);
            let (fitted, said) = fit(&rendered, &cluster, never);
            assert_eq!((choices(&fitted), said), (expected.map(str::to_owned).to_vec(), None));
        }
        // Nobody filters packets.
        let cluster = cluster("kubeProxy: {mode: none}\nnetwork: {plugin: none}\n");
        let rendered = manifests(&cluster);
        assert_eq!(fit(&rendered, &cluster, never).1, None);
        // A ConfigMap of the same name elsewhere.
        let object = json!({"kind": "ConfigMap", "metadata": {"name": "kube-proxy", "namespace": "mine"},
            "data": {"config.conf": "mode: nftables"}});
        let mine = [Manifest { path: "f".into(), line: 1, object }];
        assert_eq!(fit(&mine, &cluster, never).1, None);
    }

    #[test]
    fn kernels_and_what_they_answer() {
        assert_eq!(judge("6.18.44-fc", Ok(())), Ok(()));
        assert_eq!(judge("5.13.0", Ok(())), Ok(()));
        assert_eq!(judge("", Ok(())), Ok(()), "unknown, but it answers");
        let old = judge("5.4.0-generic", Ok(())).unwrap_err();
        assert_eq!(old, "is 5.4.0-generic, and kube-proxy uses nftables from 5.13 on");
        let lacks = judge("6.1.0", Err(io::Error::from_raw_os_error(22))).unwrap_err();
        assert!(lacks.starts_with("has no nftables: Invalid argument"), "{lacks}");

        let answer = |kind: u16, error: i32| {
            let mut answer = question();
            answer[4..6].copy_from_slice(&kind.to_ne_bytes());
            answer[16..20].copy_from_slice(&error.to_ne_bytes());
            read(&answer)
        };
        assert!(answer(NEW_GENERATION, 0).is_ok());
        assert_eq!(answer(ERROR, -95).unwrap_err().raw_os_error(), Some(95));
        assert!(answer(7, 0).is_err() && read(&[]).is_err());
        assert_eq!(question().len(), 20);
    }
}
