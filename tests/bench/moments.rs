//! How long something takes to be so, and when a node's kubelet was started.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::support::node::Node;

const INTERVAL: Duration = Duration::from_millis(25);
/// How long anything may be watched.
const LIMIT: Duration = Duration::from_secs(300);

/// How many seconds after `begun` it was so.
pub async fn until(begun: Instant, is_so: impl AsyncFn() -> bool) -> f64 {
    while !is_so().await {
        assert!(begun.elapsed() < LIMIT, "not within {LIMIT:?}");
        tokio::time::sleep(INTERVAL).await;
    }
    begun.elapsed().as_secs_f64()
}

/// How many seconds after `since` systemd started the kubelet for the first time: a node's clock is this machine's.
pub fn kubelet_started(node: &Node, since: SystemTime) -> f64 {
    let since = since.duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
    let journal = format!("journalctl -u kubelet -q --no-pager -o short-unix --since=@{since:.6}");
    let line = format!("{journal} | grep -m1 'systemd\\[1\\]: Started ' | cut -d' ' -f1");
    node.sh(&line).trim().parse::<f64>().unwrap() - since
}
