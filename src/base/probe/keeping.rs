//! Asks the same addresses again and again, each on a connection that is kept for the next question: a handshake costs more
//! than a question.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, timeout};

use super::{Answer, Kept, Probe};

/// Keeps a connection for each address at which an API server was ready.
pub struct Keeping {
    probe: Probe,
    kept: Mutex<BTreeMap<SocketAddr, Kept>>,
}

impl Keeping {
    /// One that asks as `probe` does.
    pub fn new(probe: Probe) -> Self {
        Self { probe, kept: Mutex::default() }
    }

    /// One GET, answered or given up within `limit`. Only that an API server is ready is believed of a connection that was there
    /// before: for everything else a new one is made, which may lead to another instance.
    pub async fn get(&self, address: SocketAddr, path: &str, limit: Duration) -> Answer {
        let end = Instant::now() + limit;
        let before = self.all().remove(&address);
        if let Some(mut kept) = before
            && let Ok(answer) = timeout(limit / 2, kept.get(path)).await
            && answer.is_ready()
        {
            self.all().insert(address, kept);
            return answer;
        }
        let ask = async {
            let mut kept = self.probe.open(address).await?;
            let answer = kept.get(path).await;
            Ok((answer, kept))
        };
        match timeout(end - Instant::now(), ask).await {
            Ok(Ok((answer, kept))) => {
                if answer.is_ready() {
                    self.all().insert(address, kept);
                }
                answer
            }
            Ok(Err(answer)) => answer,
            Err(_) => Answer::TimedOut,
        }
    }

    fn all(&self) -> std::sync::MutexGuard<'_, BTreeMap<SocketAddr, Kept>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Authority, Server};
    use super::*;

    const LIMIT: Duration = Duration::from_secs(10);

    #[tokio::test]
    async fn one_connection_serves_until_it_says_anything_but_ready() {
        let ca = Authority::new();
        let server = Server::start("first", &ca).await;
        server.keep_alive();
        let keeping = Keeping::new(Probe::new(ca.pem().as_bytes()).unwrap());
        let addr = server.addr;
        for _ in 0..3 {
            assert!(keeping.get(addr, "/readyz", LIMIT).await.is_ready());
        }
        assert_eq!(server.connections(), 1);
        server.answer(500, "[-]shutdown failed");
        assert!(keeping.get(addr, "/readyz", LIMIT).await.is_shutting_down());
        assert_eq!(server.connections(), 2, "it was asked anew: another may serve there");
        server.kill().await;
        assert_eq!(keeping.get(addr, "/readyz", LIMIT).await, Answer::Refused);
        let next = Server::start_on(addr, "second", &ca).await;
        assert!(keeping.get(addr, "/readyz", LIMIT).await.is_ready());
        next.hang(true);
        assert_eq!(keeping.get(addr, "/readyz", Duration::from_millis(200)).await, Answer::TimedOut);
    }
}
