//! Users of a web site who never stop: one comes every 50 ms, whatever became of those before, and makes a new connection.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use super::beside::{Beside, StopSignal};
use super::traffic::{Exchange, Record};

const EVERY: Duration = Duration::from_millis(50);
/// How long a visitor waits for the connection, and as long again for the page.
const PATIENCE: Duration = Duration::from_secs(10);

pub struct Visitors(Beside<Record>);

impl Visitors {
    /// They want the page of this host at this address, and that it says so.
    pub fn begin(address: IpAddr, host: &'static str, says: &'static str) -> Self {
        Self(Beside::begin(move |stop| come(SocketAddr::new(address, 80), host, says, &stop)))
    }

    /// The last ones have what they came for, or gave up.
    pub fn end(self) -> Record {
        self.0.end()
    }
}

fn come(address: SocketAddr, host: &'static str, says: &'static str, stop: &StopSignal) -> Record {
    let ready = Instant::now();
    let mut visits = Vec::new();
    for number in 1.. {
        if stop.to_stop() {
            break;
        }
        visits.push(std::thread::spawn(move || {
            let begun = Instant::now();
            let failure = visit(address, host, says).err();
            Exchange { at: begun - ready, took: begun.elapsed(), writes: None, failure }
        }));
        std::thread::sleep((EVERY * number).saturating_sub(ready.elapsed()));
    }
    let lasted = ready.elapsed();
    let mut exchanges: Vec<_> = visits.into_iter().map(|visit| visit.join().unwrap()).collect();
    exchanges.sort_by_key(|visit| visit.at + visit.took);
    Record { ready, exchanges, lasted }
}

fn visit(address: SocketAddr, host: &str, says: &str) -> Result<(), String> {
    let page = read(address, host).map_err(|error| error.to_string())?;
    let is_it = page.starts_with("HTTP/1.1 200") && page.contains(says);
    if is_it { Ok(()) } else { Err(format!("not the page: {}", page.lines().next().unwrap_or("nothing"))) }
}

fn read(address: SocketAddr, host: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    write!(stream, "GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")?;
    let mut page = String::new();
    stream.read_to_string(&mut page)?;
    Ok(page)
}
