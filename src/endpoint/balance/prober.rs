//! Asks one target how it is, several times a second.
//!
//! ```text
//!        a quarter of a second, or: the kept connection ends, or a client's connection fails
//!   ┌─────────────────────────────────────────────────────────────────────────────────────┐
//!   └─► the kept connection ──200────────────────────────────────────────────► ready ─────┘
//!         └─something else, or nothing for 0.25 s─► a new connection ─► its answer
//!                                                    └─nothing after 0.7 s in all─► silent
//! ```
//! A target that does not answer in time is asked for its version as well, for which it needs no etcd: one that tells it waits
//! for an etcd that hangs, or reaches no majority.
//!
//! A target that hangs is found out within 0.95 s, and loses its open connections 0.7 s later. One that is killed is found out
//! at once, for the kernel ends its connections. The kept connection saves both sides a handshake. What it says but "ready"
//! counts only while it is new, for it may lead to an instance that is leaving while new connections already reach the next
//! one. It is made anew now and then in any case, which proves that new ones are served.

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout_at};

use super::board::{Board, Signs};
use super::health::Meanwhile;
use crate::base::probe::{Answer, Kept, Probe};

/// Between two questions.
const INTERVAL: Duration = Duration::from_millis(250);
/// The same while nothing listens there, which costs next to nothing: clients may be waiting.
const AWAY: Duration = Duration::from_millis(100);
/// Between two questions in any case: connections that fail one after the other make no storm.
const LEAST: Duration = Duration::from_millis(20);
/// When the kept connection has not answered by then, a new one is asked beside it.
const SECOND: Duration = Duration::from_millis(250);
/// When nothing has answered by then, that is the answer.
const LIMIT: Duration = Duration::from_millis(700);
/// A kept connection is made anew after so long.
const FRESH: Duration = Duration::from_secs(30);
/// For so long, all that it says counts: a target that is not ready needs no handshake for each question.
const NEW: Duration = Duration::from_secs(1);
const READYZ: &str = "/readyz";
/// What an API server answers that waits for its etcd.
const VERSION: &str = "/version";

/// Asks the target at `address`, for ever; `probe` is the newest way to ask.
pub async fn watch(board: Arc<Board>, address: SocketAddr, probe: watch::Receiver<Probe>) {
    let Some(signs) = board.signs(address) else { return };
    let mut kept: Option<(Kept, Instant)> = None;
    loop {
        kept = kept.filter(|(_, since)| since.elapsed() < FRESH);
        let now = probe.borrow().clone();
        let (answer, meanwhile) = ask(&now, address, &mut kept, &signs).await;
        board.seen(address, &answer, meanwhile, Instant::now());
        let again = Instant::now() + LEAST;
        let ended = async {
            match &mut kept {
                Some((kept, _)) => kept.ended().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = sleep(pause(&answer, meanwhile)) => {}
            () = ended => kept = None,
            () = signs.hurry.notified() => {}
        }
        tokio::time::sleep_until(again).await;
    }
}

/// Until the next question. What is silent is asked again at once: a second silence costs it its open connections.
fn pause(answer: &Answer, meanwhile: Meanwhile) -> Duration {
    match (answer, meanwhile) {
        (Answer::Refused, _) => AWAY,
        (Answer::TimedOut, Meanwhile::Nothing) => LEAST,
        _ => INTERVAL,
    }
}

/// One look: the answer, and what came from the target on other connections while it said nothing.
async fn ask(
    probe: &Probe,
    address: SocketAddr,
    kept: &mut Option<(Kept, Instant)>,
    signs: &Signs,
) -> (Answer, Meanwhile) {
    let begun = Instant::now();
    let old = kept.take();
    let (tell, told) = tokio::sync::oneshot::channel::<()>();
    // Completes only with what counts.
    let mut first = pin!(async move {
        if let Some((mut old, since)) = old {
            let answer = old.get(READYZ).await;
            let is_new = matches!(answer, Answer::Http { .. }) && since.elapsed() < NEW;
            if answer.is_ready() || is_new {
                return (answer, Some((old, since)));
            }
        }
        let _ = tell.send(());
        std::future::pending().await
    });
    let mut second = pin!(async {
        // Told, or there was nobody to tell.
        let _ = timeout_at(begun + SECOND, told).await;
        match probe.open(address).await {
            Ok(mut new) => {
                let answer = new.get(READYZ).await;
                (answer, Some((new, Instant::now())))
            }
            Err(answer) => (answer, None),
        }
    });
    let mut either = pin!(async {
        tokio::select! {
            biased;
            found = &mut first => found,
            found = &mut second => found,
        }
    });
    let mut found = timeout_at(begun + SECOND, &mut either).await.ok();
    // What was on its way when the target stopped has come by now.
    let before = signs.heard.load(Ordering::Relaxed);
    let mut waits = false;
    if found.is_none() {
        let mut version = pin!(probe.get(address, VERSION, LIMIT - SECOND));
        let both = async {
            tokio::select! {
                biased;
                found = &mut either => return Some(found),
                answer = &mut version => waits = answer.is_answered(),
            }
            Some(either.await)
        };
        found = timeout_at(begun + LIMIT, both).await.unwrap_or_default();
    }
    match found {
        Some((answer, connection)) => {
            *kept = connection;
            (answer, Meanwhile::Nothing)
        }
        None if waits => (Answer::TimedOut, Meanwhile::Version),
        None if signs.heard.load(Ordering::Relaxed) != before => (Answer::TimedOut, Meanwhile::Bytes),
        None => (Answer::TimedOut, Meanwhile::Nothing),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::probe::testing::{Authority, Server};
    use crate::endpoint::balance::health::State;

    const SOON: Duration = Duration::from_secs(20);

    struct Watched {
        board: Arc<Board>,
        server: Server,
        task: tokio::task::JoinHandle<()>,
        _probe: watch::Sender<Probe>,
    }

    impl Drop for Watched {
        fn drop(&mut self) {
            self.task.abort();
        }
    }

    async fn watched() -> Watched {
        let ca = Authority::new();
        let server = Server::start("api", &ca).await;
        server.keep_alive();
        let board = Board::new(None, 1);
        board.set(&[server.addr].into(), Instant::now());
        let (_probe, newest) = watch::channel(Probe::new(ca.pem().as_bytes()).unwrap());
        let task = tokio::spawn(super::watch(board.clone(), server.addr, newest));
        let watched = Watched { board, server, task, _probe };
        watched.until(State::Good).await;
        watched
    }

    impl Watched {
        async fn until(&self, state: State) {
            let begun = Instant::now();
            while self.board.seats(Instant::now())[0].state != state {
                assert!(begun.elapsed() < SOON, "it is never {state}: {:?}", self.board.seats(Instant::now()));
                sleep(Duration::from_millis(5)).await;
            }
        }
    }

    #[tokio::test]
    async fn at_rest_it_asks_on_one_connection() {
        let watched = watched().await;
        while watched.server.requests().len() < 6 {
            sleep(INTERVAL).await;
        }
        assert_eq!(watched.server.connections(), 1);
    }

    #[tokio::test]
    async fn a_server_that_hangs_is_silent_and_good_again_when_it_goes_on() {
        let watched = watched().await;
        watched.server.hang(true);
        watched.until(State::Silent).await;
        watched.server.hang(false);
        watched.until(State::Good).await;
    }

    /// It answers nobody who asks how it is, and bytes come from it all the same.
    #[tokio::test]
    async fn a_server_from_which_bytes_come_is_only_slow() {
        let watched = watched().await;
        let signs = watched.board.signs(watched.server.addr).unwrap();
        let bytes = tokio::spawn(async move {
            loop {
                signs.heard.fetch_add(1, Ordering::Relaxed);
                sleep(Duration::from_millis(20)).await;
            }
        });
        watched.server.hang(true);
        sleep(LIMIT * 3).await;
        assert_eq!(watched.board.seats(Instant::now())[0].state, State::Good);
        bytes.abort();
        watched.until(State::Silent).await;
    }

    #[tokio::test]
    async fn what_a_kept_connection_says_of_shutting_down_is_asked_again_on_a_new_one() {
        let watched = watched().await;
        sleep(NEW).await;
        let before = watched.server.connections();
        watched.server.answer(500, "[-]shutdown failed: reason withheld");
        watched.until(State::Leaving).await;
        assert!(watched.server.connections() > before);
    }
}
