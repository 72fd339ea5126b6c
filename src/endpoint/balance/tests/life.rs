//! Targets that are killed, hang, end in good order, start and come back.

use super::*;

/// What clients see that connect anew all the time.
struct Clients(JoinHandle<(usize, Vec<String>)>, oneshot::Sender<()>);

impl Clients {
    fn of(running: &Running) -> Self {
        let listen = running.listen;
        let (over, mut is_over) = oneshot::channel();
        let task = tokio::spawn(async move {
            let (mut served, mut failed) = (0, Vec::new());
            while is_over.try_recv().is_err() {
                let asked = async {
                    let mut client = TcpStream::connect(listen).await?;
                    ask(&mut client).await
                };
                match asked.await {
                    Ok(_) => served += 1,
                    Err(error) => failed.push(error.to_string()),
                }
                sleep(Duration::from_millis(5)).await;
            }
            (served, failed)
        });
        Self(task, over)
    }

    /// None has failed; how many there were.
    async fn all_served(self) -> usize {
        let _ = self.1.send(());
        let (served, failed) = self.0.await.unwrap();
        assert_eq!(failed, Vec::<String>::new(), "beside {served} that were served");
        served
    }
}

#[tokio::test]
async fn no_client_notices_that_a_target_is_killed_and_it_is_back_in_use_when_it_returns() {
    let ca = Authority::new();
    let [a, b] = servers(&ca, ["a", "b"]).await;
    let running = Running::before(&ca, &[a.addr, b.addr]);
    running.to("a").await;
    running.to("b").await;
    let clients = Clients::of(&running);
    let addr = a.addr;
    // Nobody asks it at the moment: what it was sent dies with it.
    a.kill().await;
    running.only(&["b"], 20).await;
    let a = Server::start_on(addr, "a again", &ca).await;
    a.keep_alive();
    running.to("a again").await;
    let served = clients.all_served().await;
    assert!(served > 20, "{served}");
    running.ended().await;
}

#[tokio::test]
async fn a_watch_on_a_target_that_hangs_is_closed_and_no_new_client_notices() {
    let ca = Authority::new();
    let [a, b] = servers(&ca, ["a", "b"]).await;
    let running = Running::before(&ca, &[a.addr, b.addr]);
    let (mut on_a, mut on_b) = (running.to("a").await, running.to("b").await);
    let clients = Clients::of(&running);
    let begun = Instant::now();
    a.hang(true);
    is_closed(&mut on_a).await;
    println!("closed after {:?}", begun.elapsed());
    running.only(&["b"], 20).await;
    assert_eq!(ask(&mut on_b).await.unwrap(), "b:ping");
    a.hang(false);
    running.to("a").await;
    clients.all_served().await;
    running.ended().await;
}

/// As a machine looks that has no processor for it. Whoever connects meanwhile is served elsewhere.
#[tokio::test]
async fn a_target_that_says_nothing_for_a_second_keeps_what_it_was_asked() {
    let ca = Authority::new();
    let [a, b] = servers(&ca, ["a", "b"]).await;
    let running = Running::before(&ca, &[a.addr, b.addr]);
    let mut on_a = running.to("a").await;
    // So that a new one leads to a.
    let on_b = [running.to("b").await, running.to("b").await];
    a.hang(true);
    let asked = tokio::spawn(async move { ask(&mut on_a).await });
    assert_eq!(running.who().await.unwrap(), "b", "it was sent on");
    let clients = Clients::of(&running);
    a.hang(false);
    assert_eq!(asked.await.unwrap().unwrap(), "a:ping");
    clients.all_served().await;
    drop(on_b);
    running.ended().await;
}

/// It says so, serves on for a while, listens no more, serves what is open, and is gone.
#[tokio::test]
async fn an_api_server_that_ends_in_good_order_keeps_what_it_has_and_gets_nothing_new() {
    let ca = Authority::new();
    let [a, b] = servers(&ca, ["a", "b"]).await;
    let running = Running::before(&ca, &[a.addr, b.addr]);
    let mut on_a = running.to("a").await;
    running.to("b").await;
    let clients = Clients::of(&running);
    a.answer(500, "[+]ping ok\n[-]shutdown failed: reason withheld\nreadyz check failed\n");
    running.only(&["b"], 40).await;
    assert!(stays_open(&mut on_a).await);
    assert_eq!(ask(&mut on_a).await.unwrap(), "a:ping");
    a.close_listener();
    assert!(stays_open(&mut on_a).await);
    assert_eq!(ask(&mut on_a).await.unwrap(), "a:ping");
    let addr = a.addr;
    a.kill().await;
    is_closed(&mut on_a).await;
    let a = Server::start_on(addr, "a again", &ca).await;
    a.keep_alive();
    running.to("a again").await;
    clients.all_served().await;
    running.ended().await;
}

/// Of a single API server that is not ready all is kept: it may be slow, or its etcd away.
#[tokio::test]
async fn where_no_target_is_good_connections_stay_and_new_ones_are_tried() {
    let ca = Authority::new();
    let [a, b] = servers(&ca, ["a", "b"]).await;
    let running = Running::before(&ca, &[a.addr, b.addr]);
    let (mut on_a, mut on_b) = (running.to("a").await, running.to("b").await);
    for server in [&a, &b] {
        server.answer(500, "[-]etcd failed: reason withheld");
    }
    sleep(A_WHILE).await;
    for (client, name) in [(&mut on_a, "a:ping"), (&mut on_b, "b:ping")] {
        assert_eq!(ask(client).await.unwrap(), name);
    }
    // A second while in which none may be closed.
    sleep(A_WHILE).await;
    running.who().await.unwrap();
    // One hangs besides: it has its connections until the other is good.
    a.hang(true);
    assert!(stays_open(&mut on_a).await);
    b.answer(200, "ok");
    is_closed(&mut on_a).await;
    assert_eq!(ask(&mut on_b).await.unwrap(), "b:ping");
    running.ended().await;
}

#[tokio::test]
async fn the_only_target_keeps_its_connections_while_it_hangs() {
    let ca = Authority::new();
    let [a] = servers(&ca, ["a"]).await;
    let running = Running::before(&ca, &[a.addr]);
    let mut on_a = running.to("a").await;
    a.hang(true);
    assert!(stays_open(&mut on_a).await);
    let listen = running.listen;
    let waiting = tokio::spawn(async move { ask(&mut TcpStream::connect(listen).await?).await });
    sleep(A_WHILE).await;
    a.hang(false);
    assert_eq!(waiting.await.unwrap().unwrap(), "a:ping");
    assert_eq!(ask(&mut on_a).await.unwrap(), "a:ping");
    running.ended().await;
}

/// As at a boot: the endpoint is there before any API server. A kubelet that is refused starts its static pods.
#[tokio::test]
async fn the_first_clients_are_refused_and_once_an_api_server_starts_they_wait_until_it_is_ready() {
    let ca = Authority::new();
    let addr = deserted();
    let running = Running::before(&ca, &[addr]);
    let listen = running.listen;
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(1) {
        let refused = TcpStream::connect(listen).await.unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
        sleep(Duration::from_millis(10)).await;
    }
    let server = Server::start_on(addr, "a", &ca).await;
    server.answer(500, "[-]poststarthook/rbac/bootstrap-roles failed: reason withheld");
    let mut client = loop {
        match TcpStream::connect(listen).await {
            Ok(client) => break client,
            Err(_) => sleep(Duration::from_millis(10)).await,
        }
        assert!(begun.elapsed() < SOON, "it never listens");
    };
    let early = tokio::spawn(async move { ask(&mut client).await });
    let asked = server.requests().len();
    while server.requests().len() < asked + 3 {
        sleep(Duration::from_millis(10)).await;
    }
    assert!(!early.is_finished(), "it is not ready yet");
    server.answer(200, "ok");
    assert_eq!(early.await.unwrap().unwrap(), "a:ping");
    running.ended().await;
}

#[tokio::test]
async fn clients_wait_while_an_api_server_was_ready_lately_and_are_refused_later() {
    let ca = Authority::new();
    let [a] = servers(&ca, ["a"]).await;
    let running = Running::before(&ca, &[a.addr]);
    drop(running.to("a").await);
    let begun = Instant::now();
    drop(a);
    running.who().await.unwrap_err();
    assert!(begun.elapsed() >= crate::endpoint::balance::open::HOLD, "{:?}", begun.elapsed());
    while TcpStream::connect(running.listen).await.is_ok() {
        assert!(begun.elapsed() < SOON, "it listens still");
        sleep(Duration::from_millis(10)).await;
    }
    running.ended().await;
}

#[tokio::test]
async fn a_target_that_refuses_from_the_beginning_or_has_a_foreign_certificate_is_passed_over() {
    let ca = Authority::new();
    let [a] = servers(&ca, ["a"]).await;
    let [foreign] = servers(&Authority::new(), ["foreign"]).await;
    let running = Running::before(&ca, &[deserted(), foreign.addr, a.addr]);
    running.to("a").await;
    for _ in 0..30 {
        assert_eq!(running.who().await.unwrap(), "a");
    }
    running.ended().await;
}

#[tokio::test]
async fn on_stop_open_connections_live_on_and_new_ones_reach_the_endpoint_beside_it() {
    let ca = Authority::new();
    let [a, b] = servers(&ca, ["a", "b"]).await;
    let old = Running::with(&ca, &[a.addr], |options| options.drain_timeout = SOON);
    let mut on_a = old.to("a").await;
    let listen = old.listen;
    let new = Running::with(&ca, &[b.addr], |options| options.listen = listen);
    new.to("b").await;
    let clients = Clients::of(&new);
    let ended = old.stop();
    new.only(&["b"], 20).await;
    assert_eq!(ask(&mut on_a).await.unwrap(), "a:ping");
    assert!(!ended.is_finished());
    drop(on_a);
    timeout(SOON, ended).await.unwrap().unwrap().unwrap();
    clients.all_served().await;
    new.ended().await;
}

#[tokio::test]
async fn the_drain_time_out_cuts_what_is_open() {
    let ca = Authority::new();
    let [a] = servers(&ca, ["a"]).await;
    let running = Running::before(&ca, &[a.addr]);
    let mut on_a = running.to("a").await;
    running.ended().await;
    is_closed(&mut on_a).await;
}
