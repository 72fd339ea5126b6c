//! The base chains of nftables, those of iptables-nft, firewalld and nft alike.

use std::collections::BTreeMap;
use std::fmt;
use std::io;

use nix::sys::socket::{MsgFlags, recv, send};

use super::{ERROR, NFTABLES, REQUEST, open};

/// Messages of nftables (linux/netfilter/nf_tables.h), and of netlink itself (linux/netlink.h).
const NEW_CHAIN: u16 = NFTABLES | 3;
const GET_CHAIN: u16 = NFTABLES | 4;
const DONE: u16 = 3;
const DUMP: u16 = 0x300;
/// Attributes of a chain, and of its hook.
const TABLE: u16 = 1;
const NAME: u16 = 3;
const HOOK: u16 = 4;
const POLICY: u16 = 5;
const HOOK_NUMBER: u16 = 1;
/// The policy that drops (linux/netfilter.h).
const DROP: u32 = 0;
/// The two bits of an attribute's type that are flags, and how large its header and that of a message are.
const FLAGS: u16 = 0xc000;
const ATTRIBUTE: usize = 4;
const MESSAGE: usize = 16;
const NETFILTER: usize = 4;
/// What one answer holds at most: the kernel splits a dump.
const BUFFER: usize = 64 << 10;

/// Which packets a table sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// Those of IPv4 and of IPv6.
    Inet,
    /// Those of IPv4.
    Ip,
    /// Those of IPv6.
    Ip6,
    /// Those that a bridge passes on.
    Bridge,
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Inet => "inet",
            Self::Ip => "ip",
            Self::Ip6 => "ip6",
            Self::Bridge => "bridge",
        })
    }
}

/// On which way packets meet a chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hook {
    /// To this machine itself.
    Input,
    /// Through it: to and from its pods.
    Forward,
}

/// A chain that the kernel sends packets to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BaseChain {
    /// That of its table.
    pub family: Family,
    /// Its table.
    pub table: String,
    /// Its name.
    pub name: String,
    /// Which packets meet it.
    pub hook: Hook,
    /// Whether it drops what none of its rules decides.
    pub drops: bool,
}

/// All base chains of this machine with one of the hooks. A kernel that has nftables as a module loads it for that.
///
/// # Errors
/// A kernel without nftables; its refusal to tell.
pub fn base_chains() -> io::Result<Vec<BaseChain>> {
    let socket = open()?;
    let fd = std::os::fd::AsRawFd::as_raw_fd(&socket);
    send(fd, &question(), MsgFlags::empty())?;
    let (mut chains, mut buffer) = (Vec::new(), vec![0; BUFFER]);
    loop {
        let length = recv(fd, &mut buffer, MsgFlags::empty())?;
        if length == 0 || read(buffer.get(..length).unwrap_or_default(), &mut chains)? {
            return Ok(chains);
        }
    }
}

fn question() -> Vec<u8> {
    let length = (MESSAGE + NETFILTER) as u32;
    let mut message = length.to_ne_bytes().to_vec();
    message.extend(GET_CHAIN.to_ne_bytes());
    message.extend((REQUEST | DUMP).to_ne_bytes());
    // A number, nobody's port, and tables of every family.
    message.extend([0; 12]);
    message
}

/// Reads the messages of one answer, and says whether it was the last.
fn read(mut answer: &[u8], chains: &mut Vec<BaseChain>) -> io::Result<bool> {
    while answer.len() >= MESSAGE {
        let length = native(answer, 0).map_or(0, |length| length as usize);
        let Some(message) = answer.get(..length).filter(|_| length >= MESSAGE) else {
            return Err(io::Error::other("it gives an answer that nobody knows"));
        };
        let kind = u16::from_ne_bytes([message[4], message[5]]);
        let body = &message[MESSAGE..];
        match kind {
            DONE => return Ok(true),
            ERROR => {
                let number = native(body, 0).map_or(0, u32::cast_signed);
                return Err(io::Error::from_raw_os_error(number.wrapping_neg()));
            }
            NEW_CHAIN => chains.extend(base_chain(body)),
            _ => {}
        }
        // Messages begin at multiples of four bytes.
        answer = answer.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(false)
}

fn base_chain(body: &[u8]) -> Option<BaseChain> {
    let family = match body.first()? {
        1 => Family::Inet,
        2 => Family::Ip,
        7 => Family::Bridge,
        10 => Family::Ip6,
        _ => return None,
    };
    let chain = attributes(body.get(NETFILTER..)?);
    let text = |kind: u16| {
        let bytes = chain.get(&kind)?;
        Some(String::from_utf8_lossy(bytes.strip_suffix(&[0]).unwrap_or(bytes)).into_owned())
    };
    let hook = match network(attributes(chain.get(&HOOK)?).get(&HOOK_NUMBER)?)? {
        1 => Hook::Input,
        2 => Hook::Forward,
        _ => return None,
    };
    let drops = chain.get(&POLICY).and_then(|policy| network(policy)) == Some(DROP);
    Some(BaseChain { family, table: text(TABLE)?, name: text(NAME)?, hook, drops })
}

/// The attributes of a message, or of one of its attributes, by their types.
fn attributes(mut bytes: &[u8]) -> BTreeMap<u16, &[u8]> {
    let mut found = BTreeMap::new();
    while let [a, b, c, d, ..] = bytes {
        let (length, kind) = (usize::from(u16::from_ne_bytes([*a, *b])), u16::from_ne_bytes([*c, *d]) & !FLAGS);
        let Some(value) = bytes.get(ATTRIBUTE..length) else { break };
        found.insert(kind, value);
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    found
}

fn native(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4)?.try_into().ok().map(u32::from_ne_bytes)
}

fn network(bytes: &[u8]) -> Option<u32> {
    bytes.get(..4)?.try_into().ok().map(u32::from_be_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
        let mut bytes = ((ATTRIBUTE + value.len()) as u16).to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    fn message(kind: u16, body: &[u8]) -> Vec<u8> {
        let mut bytes = ((MESSAGE + body.len()) as u32).to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.resize(MESSAGE, 0);
        bytes.extend(body);
        bytes
    }

    fn chain(family: u8, table: &str, name: &str, hook: Option<u32>, policy: u32) -> Vec<u8> {
        let mut body = vec![family, 0, 0, 0];
        body.extend(attribute(TABLE, format!("{table}\0").as_bytes()));
        body.extend(attribute(NAME, format!("{name}\0").as_bytes()));
        if let Some(hook) = hook {
            // The kernel marks what has attributes in it.
            body.extend(attribute(HOOK | 0x8000, &attribute(HOOK_NUMBER, &hook.to_be_bytes())));
            body.extend(attribute(POLICY, &policy.to_be_bytes()));
        }
        message(NEW_CHAIN, &body)
    }

    #[test]
    fn chains_are_read_as_the_kernel_tells_of_them() {
        let parts = [
            chain(2, "filter", "FORWARD", Some(2), 0),
            chain(1, "firewalld", "filter_INPUT", Some(1), 1),
            chain(2, "filter", "DOCKER", None, 0),
            chain(2, "nat", "POSTROUTING", Some(4), 1),
            chain(5, "netdev", "ingress", Some(0), 0),
        ];
        let mut chains = Vec::new();
        assert!(!read(&parts.concat(), &mut chains).unwrap(), "there is more");
        assert!(read(&[chain(10, "t", "abc", Some(1), 0), message(DONE, &[0; 4])].concat(), &mut chains).unwrap());
        let seen: Vec<_> = chains
            .iter()
            .map(|chain| format!("{} {} {} {:?} {}", chain.family, chain.table, chain.name, chain.hook, chain.drops))
            .collect();
        let expected =
            ["ip filter FORWARD Forward true", "inet firewalld filter_INPUT Input false", "ip6 t abc Input true"];
        assert_eq!(seen, expected);
        let refusal = read(&message(ERROR, &(-1i32).to_ne_bytes()), &mut chains).unwrap_err();
        assert_eq!(refusal.raw_os_error(), Some(1));
        assert!(read(&[0; 16], &mut chains).is_err());
        assert!(!read(&[], &mut chains).unwrap());
        assert_eq!(question().len(), 20);
    }
}
