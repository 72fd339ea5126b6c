//! A client of name servers: one question in one packet, and one that never pauses.

use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use super::beside::Beside;
use super::node::{enter, inside};

/// Resolvers wait longer and ask again; who asks once must not.
const LIMIT: Duration = Duration::from_secs(1);
/// Between two questions of one that never pauses.
const INTERVAL: Duration = Duration::from_millis(20);
const HEADER: usize = 12;

/// The IPv4 addresses of `name`, as the server has them.
///
/// # Errors
/// No answer in time, or one that says why there are none.
pub fn ask(server: SocketAddr, name: &str) -> Result<Vec<Ipv4Addr>, String> {
    let failed = |error: std::io::Error| format!("{name} at {server}: {error}");
    let socket = UdpSocket::bind("0.0.0.0:0").map_err(failed)?;
    socket.set_read_timeout(Some(LIMIT)).map_err(failed)?;
    socket.connect(server).map_err(failed)?;
    socket.send(&question(name)).map_err(failed)?;
    let mut buffer = [0; 1500];
    let length = socket.recv(&mut buffer).map_err(failed)?;
    answers(&buffer[..length]).map_err(|why| format!("{name} at {server}: {why}"))
}

/// The same from inside of another network than this machine's.
pub fn ask_in(network: File, server: SocketAddr, name: &str) -> Result<Vec<Ipv4Addr>, String> {
    let name = name.to_owned();
    inside(network, move || ask(server, &name))
}

/// A question for IPv4 addresses, with recursion asked for (RFC 1035, section 4).
fn question(name: &str) -> Vec<u8> {
    let mut packet = vec![0x48, 0x6f, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.trim_end_matches('.').split('.') {
        packet.push(label.len() as u8);
        packet.extend(label.as_bytes());
    }
    packet.extend([0, 0, 1, 0, 1]);
    packet
}

fn answers(packet: &[u8]) -> Result<Vec<Ipv4Addr>, String> {
    let number = |at: usize| packet.get(at..at + 2).map(|two| usize::from(two[0]) << 8 | usize::from(two[1]));
    let cut = || "a packet that is cut off".to_owned();
    match packet.get(3).ok_or_else(cut)? & 0xf {
        0 => {}
        2 => return Err("SERVFAIL".into()),
        3 => return Err("NXDOMAIN".into()),
        other => return Err(format!("response code {other}")),
    }
    let count = number(6).ok_or_else(cut)?;
    let mut at = end_of_name(packet, HEADER).ok_or_else(cut)? + 4;
    let mut addresses = Vec::new();
    for _ in 0..count {
        at = end_of_name(packet, at).ok_or_else(cut)?;
        let (kind, length) = (number(at).ok_or_else(cut)?, number(at + 8).ok_or_else(cut)?);
        let data = packet.get(at + 10..at + 10 + length).ok_or_else(cut)?;
        if let (1, [a, b, c, d]) = (kind, data) {
            addresses.push(Ipv4Addr::new(*a, *b, *c, *d));
        }
        at += 10 + length;
    }
    Ok(addresses)
}

/// Where a name ends that begins there: after its last label, or after what refers to another.
fn end_of_name(packet: &[u8], mut at: usize) -> Option<usize> {
    loop {
        match packet.get(at)? {
            0 => return Some(at + 1),
            length if length & 0xc0 != 0 => return Some(at + 2),
            length => at += 1 + usize::from(*length),
        }
    }
}

/// What came of all questions.
#[derive(Debug, Default)]
pub struct Asked {
    /// How long each took that was answered.
    pub took: Vec<Duration>,
    /// When, from the first on, and why each failed that was not.
    pub failures: Vec<(Duration, String)>,
}

/// Asks for a name every 20 ms from inside of a network, without a retry, until it is ended.
pub fn never_pause(network: File, server: SocketAddr, name: &'static str) -> Beside<Asked> {
    Beside::begin(move |told| {
        enter(network);
        let (mut asked, begun) = (Asked::default(), Instant::now());
        while !told.to_stop() {
            let at = begun.elapsed();
            match ask(server, name) {
                Ok(addresses) if addresses.is_empty() => asked.failures.push((at, "no address".into())),
                Ok(_) => asked.took.push(begun.elapsed() - at),
                Err(why) => asked.failures.push((at, why)),
            }
            std::thread::sleep(INTERVAL);
        }
        asked
    })
}
