//! Which target a connection gets, and where targets come from.

use std::collections::BTreeMap;

use super::*;
use crate::base::error::Error;
use crate::base::probe::{Answer, Probe};
use crate::desired::kubeconfig::{Credentials, KubeConfig};

#[tokio::test]
async fn two_thousand_connections_spread_over_three_targets() {
    let ca = Authority::new();
    let [a, b, c] = servers(&ca, ["a", "b", "c"]).await;
    let running = Running::before(&ca, &[a.addr, b.addr, c.addr]);
    for name in ["a", "b", "c"] {
        running.to(name).await;
    }
    let mut open = Vec::new();
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for _ in 0..2000 {
        let mut client = TcpStream::connect(running.listen).await.unwrap();
        *counts.entry(ask(&mut client).await.unwrap()).or_default() += 1;
        open.push(client);
    }
    assert_eq!(counts.len(), 3);
    // Not quite a third each: those that were waited for may still be counted.
    assert!(counts.values().all(|count| (660..=674).contains(count)), "{counts:?}");
    for client in &mut open {
        ask(client).await.unwrap();
    }
    running.ended().await;
}

#[tokio::test]
async fn the_preferred_target_gets_all_while_it_is_good() {
    let ca = Authority::new();
    let [a, b, own] = servers(&ca, ["a", "b", "own"]).await;
    let running = Running::with(&ca, &[a.addr, b.addr], |options| options.prefer = Some(own.addr));
    let mut open = running.to("own").await;
    for _ in 0..20 {
        assert_eq!(running.who().await.unwrap(), "own");
    }
    own.answer(500, "[-]shutdown failed: reason withheld");
    running.only(&["a", "b"], 20).await;
    assert_eq!(ask(&mut open).await.unwrap(), "own:ping");
    own.answer(200, "ok");
    running.only(&["own"], 20).await;
    running.ended().await;
}

#[tokio::test]
async fn a_half_closed_connection_is_answered() {
    let ca = Authority::new();
    let [a] = servers(&ca, ["a"]).await;
    let running = Running::before(&ca, &[a.addr]);
    let mut client = running.to("a").await;
    client.shutdown().await.unwrap();
    let mut rest = String::new();
    client.read_to_string(&mut rest).await.unwrap();
    assert_eq!(rest, "bye");
    // The same before the target has said anything.
    let mut client = TcpStream::connect(running.listen).await.unwrap();
    client.write_all(b"all").await.unwrap();
    client.shutdown().await.unwrap();
    client.read_to_string(&mut rest).await.unwrap();
    assert_eq!(rest, "byea:allbye");
    running.ended().await;
}

#[tokio::test]
async fn tls_passes_untouched() {
    let ca = Authority::new();
    let [a] = servers(&ca, ["a"]).await;
    let running = Running::before(&ca, &[a.addr]);
    running.to("a").await;
    a.answer(200, &"x".repeat(3000));
    let probe = Probe::new(ca.pem().as_bytes()).unwrap();
    let answer = probe.get(running.listen, "/version", SOON).await;
    assert!(matches!(&answer, Answer::Http { status: 200, body } if body.len() == 3000), "{answer}");
    running.ended().await;
}

/// A cluster that publishes these addresses, whatever it is asked.
fn published(addresses: &[&str]) -> String {
    let endpoints: Vec<_> = addresses.iter().map(|address| serde_json::json!({"addresses": [address]})).collect();
    let slice = serde_json::json!({
        "kind": "EndpointSlice", "apiVersion": "discovery.k8s.io/v1", "addressType": "IPv4",
        "metadata": {"name": "kubernetes", "namespace": "default"},
        "endpoints": endpoints, "ports": [{"name": "https", "port": 6443, "protocol": "TCP"}],
    });
    slice.to_string()
}

#[tokio::test]
async fn what_the_cluster_publishes_is_remembered_and_used_when_nothing_else_is_known() {
    let ca = Authority::new();
    let [a] = servers(&ca, ["a"]).await;
    a.answer(200, &published(&["192.0.2.11", "192.0.2.12"]));
    let folder = tempfile::tempdir().unwrap();
    let kubeconfig = folder.path().join("kubeconfig");
    let ca_pem = ca.pem();
    let config = KubeConfig {
        cluster_name: "kubernetes",
        server: "https://192.0.2.1:6443",
        ca_pem: ca_pem.as_bytes(),
        user: "node",
        credentials: Credentials::Token("t"),
    };
    std::fs::write(&kubeconfig, config.to_yaml()).unwrap();
    let metrics = deserted();
    let running = Running::within(folder, &ca, &[a.addr], |options| {
        options.kubeconfig = Some(kubeconfig);
        options.metrics = Some(metrics);
    });
    let file = running.folder.path().join("endpoint/targets");
    let begun = Instant::now();
    let text = loop {
        match std::fs::read_to_string(&file) {
            Ok(text) => break text,
            Err(_) => assert!(begun.elapsed() < SOON, "nothing is remembered"),
        }
        sleep(Duration::from_millis(20)).await;
    };
    let addresses: Vec<_> = text.lines().filter(|line| !line.starts_with('#')).collect();
    assert_eq!(addresses, ["192.0.2.11:6443", "192.0.2.12:6443"]);
    assert!(a.requests().iter().any(|line| line.contains("/namespaces/default/endpointslices/kubernetes")));

    // Its metrics know both, and the good one.
    let mut scrape = TcpStream::connect(metrics).await.unwrap();
    scrape.write_all(b"GET /metrics HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await.unwrap();
    let mut text = String::new();
    scrape.read_to_string(&mut text).await.unwrap();
    let good = format!("hoist_endpoint_target_state{{target=\"{}\",state=\"good\"}} 1", a.addr);
    assert!(text.contains(&good) && text.contains("target=\"192.0.2.12:6443\""), "{text}");

    // The next boot: nothing is configured, and there is no API.
    let Running { folder, stop, task, .. } = running;
    stop.send(()).unwrap();
    timeout(SOON, task).await.unwrap().unwrap().unwrap();
    let running = Running::within(folder, &ca, &[], |_| {});
    sleep(Duration::from_millis(300)).await;
    assert!(!running.task.is_finished(), "it has what it remembers");
    running.ended().await;
}

#[tokio::test]
async fn what_cannot_be_meant_is_refused() {
    let ca = Authority::new();
    let target = SocketAddr::from(([192, 0, 2, 1], 6443));
    for (what, running) in [
        ("no target", Running::before(&ca, &[])),
        ("itself", Running::with(&ca, &[target], |options| options.prefer = Some(options.listen))),
        ("all the world", Running::with(&ca, &[target], |options| options.listen = "0.0.0.0:7443".parse().unwrap())),
    ] {
        let ended = timeout(SOON, running.task).await.unwrap().unwrap();
        assert!(matches!(ended, Err(Error::Input(_))), "{what}: {ended:?}");
    }
}
