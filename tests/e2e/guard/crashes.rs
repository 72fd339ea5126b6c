//! The API server and etcd crash, hang and are away, again and again.

use std::fs;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};

use super::{Controller, LATER, SOON, long, never_away_for_longer, signal};
use crate::support::eventually;
use crate::support::node::disk;

/// Between two kills.
const INTERVAL: Duration = Duration::from_secs(10);
/// An API server starts within it, however busy the machine is; how soon is the benchmark's to say.
const START: Duration = Duration::from_secs(30);
/// What lasts longer was no single request that was under way: nobody served.
const GAP: Duration = Duration::from_secs(3);

#[test]
fn guard_crashes() {
    let controller = Controller::up("guard-crashes");
    etcd_restarts(&controller);
    etcd_hangs(&controller);
    etcd_is_stopped(&controller);
    it_hangs(&controller);
    it_is_killed(&controller);
}

/// Nothing can serve without etcd: a bridge would not help.
fn etcd_restarts(controller: &Controller) {
    let (raises, traffic) = (controller.raises(), controller.traffic());
    signal(controller.process("etcd", ""), Signal::SIGKILL);
    std::thread::sleep(Duration::from_secs(5));
    eventually("the API is served again", SOON, || controller.is_served().then_some(()));
    controller.until_self_hosted();
    eprintln!("etcd killed:");
    let record = controller.nothing_is_lost(traffic);
    // What is asked of a database that is not there fails; the kubelet starts it again.
    never_away_for_longer(&record, START);
    assert_eq!(controller.raises(), raises, "{}", controller.guard_said());
    assert!(controller.is_lowered());
}

/// The API server waits for it: that is no reason to end it.
fn etcd_hangs(controller: &Controller) {
    let (server, etcd) = (controller.api_server().unwrap(), controller.process("etcd", ""));
    let raised = |controller: &Controller| {
        let causes = ["silent", "not-ready", "gone"].map(|cause| format!("raises_total{{cause=\"{cause}\"}}"));
        causes.map(|cause| controller.metric(&cause))
    };
    let raises = raised(controller);
    signal(etcd, Signal::SIGSTOP);
    std::thread::sleep(Duration::from_secs(12));
    signal(etcd, Signal::SIGCONT);
    eventually("the API is served again", SOON, || controller.is_served().then_some(()));
    controller.until_lowered();
    controller.until_self_hosted();
    let said = controller.guard_said();
    assert!(!said.contains("was ended"), "{said}");
    assert_eq!(controller.api_server(), Some(server), "{said}");
    assert_eq!(raised(controller), raises, "no bridge would serve better: {said}");
}

fn etcd_is_stopped(controller: &Controller) {
    let (raises, away) = (controller.raises(), long(30, 60));
    let etcd = disk(&controller.node).join("private/etc-kubernetes/manifests/etcd.yaml");
    let aside = disk(&controller.node).join("private/etc-kubernetes/etcd.yaml");
    fs::rename(&etcd, &aside).unwrap();
    std::thread::sleep(away);
    assert_eq!(controller.raises(), raises, "{}", controller.guard_said());
    assert_eq!(controller.manifests(), ["hoist-guard.yaml"], "{}", controller.guard_said());
    fs::rename(&aside, &etcd).unwrap();
    eventually("the API is served again", LATER, || controller.is_served().then_some(()));
    controller.until_lowered();
    let more = controller.raises() - raises;
    eprintln!("etcd stopped for {away:.0?}: {more} raises");
    // Its API server may have given up meanwhile, and be on its way back when etcd is.
    assert!(more <= 1.0, "{more} raises: {}", controller.guard_said());
}

/// It keeps its port open and says nothing: whoever has a connection to it would wait in vain, the kubelet too.
fn it_hangs(controller: &Controller) {
    let traffic = controller.traffic();
    let server = controller.api_server().unwrap();
    let begun = Instant::now();
    signal(server, Signal::SIGSTOP);
    controller.until_raised();
    eprintln!("the API server stopped: raised after {:.1?}", begun.elapsed());
    eventually("the API is served", SOON, || controller.is_served().then_some(()));
    eprintln!("served after {:.1?}", begun.elapsed());
    eventually("it was ended", SOON, || kill(server, None).is_err().then_some(()));
    eventually("guard says so", SOON, || controller.guard_said().contains("was ended").then_some(()));
    controller.until_lowered();
    let record = controller.nothing_is_lost(traffic);
    // Until it is believed to hang, and until another serves.
    never_away_for_longer(&record, Duration::from_secs(6) + START);
    let open =
        controller.metric("raises_total{cause=\"silent\"}") + controller.metric("raises_total{cause=\"not-ready\"}");
    assert!(open >= 1.0, "{}", controller.guard_said());
    eventually("an event of its Node tells it", SOON, || {
        let events = controller.kubectl.list(&["events", "-n", "default"]);
        events.iter().any(|event| event["reason"] == "HungServerEnded").then_some(())
    });
}

/// The first crash makes a gap until the bridge stands. While it stands no further one does.
fn it_is_killed(controller: &Controller) {
    let lasts = long(40, 120);
    let (raises, traffic) = (controller.raises(), controller.traffic());
    let (begun, mut kills) = (Instant::now(), 0);
    while begun.elapsed() < lasts {
        if let Some(server) = controller.api_server() {
            signal(server, Signal::SIGKILL);
            kills += 1;
        }
        std::thread::sleep(INTERVAL);
    }
    let more = controller.raises() - raises;
    eventually("the API is served", SOON, || controller.is_served().then_some(()));
    controller.until_self_hosted();
    eprintln!(
        "{kills} kills in {lasts:.0?}, {more} raises, lowered only after {} s",
        controller.metric("hold_seconds")
    );
    let record = controller.nothing_is_lost(traffic);
    // A process that is killed says nothing before.
    never_away_for_longer(&record, START);
    assert!((1.0..=f64::from(kills)).contains(&more), "{more} raises: {}", controller.guard_said());
    let gaps = record.outages().into_iter().filter(|(_, lasted)| *lasted > GAP).count();
    assert!(gaps as f64 <= more, "{gaps} gaps, and {more} raises: {record}");
    assert!(controller.metric("hold_seconds") <= 600.0);
    if super::full() {
        controller.until_lowered();
    }
}
