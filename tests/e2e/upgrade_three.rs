//! Another version of Kubernetes for three controllers, one of which loses its power meanwhile.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::support::cluster::{Cluster, render};
use crate::support::command::{Ended, Running};
use crate::support::controller::LATER;
use crate::support::node::Node;
use crate::support::several::Several;
use crate::support::{eventually, hoist};

const OLD: &str = "1.36.3";
const NEW: &str = "1.37.2";
/// How long an upgrade of three controllers may take on a busy machine.
const UPGRADE: Duration = Duration::from_secs(1500);
/// How long after a power cut a request may still be sent that fails: etcd drops what it takes in during an election.
const GAP: Duration = Duration::from_secs(8);

#[test]
fn three_controllers_are_upgraded_while_one_loses_its_power() {
    let first = Node::of_version("ut-1", OLD);
    let cluster = Cluster::to_render(&first, first.address);
    let declaration = Several::declaration(&first);
    render(&declaration, &cluster.assets).ok();
    let several = Several::of("ut", first, cluster, 1);
    several.make_three();
    // kube-proxy follows on workers, too.
    several.controllers.iter().chain(&several.workers).for_each(|node| node.has_images_of(NEW));
    let worker = &several.workers[0];
    let assets = several.cluster.assets.clone();
    // What the test has put into it stays: it is the user's.
    render(&declaration.replace(OLD, NEW), &assets).ok();
    // The last one has just come: until all is as it should be, an upgrade is refused.
    eventually("nothing stands in the way", LATER, || (plan(&assets).code == Some(0)).then_some(()));
    let traffic = several.traffic(worker);

    // The power of one that is not replaced yet is cut once the first one is.
    let mut running = upgrade(&assets);
    let (one, last) = (&several.controllers[0], &several.controllers[2]);
    let started = std::time::Instant::now();
    eventually("the first API server is on trial", UPGRADE, || {
        assert!(!running.has_ended(), "the upgrade has ended: {}", running.said());
        (version(&several, one)["emulationMinor"] == "36" && version(&several, one)["minor"] == "37").then_some(())
    });
    last.power_cut();
    eprintln!("the power of {} is cut, {:.0?} after the upgrade began", last.name, started.elapsed());
    std::thread::sleep(Duration::from_secs(15));
    last.boot();
    let ended = running.wait(UPGRADE);
    eprintln!("{}{}", ended.stdout, ended.stderr);
    match ended.code {
        Some(0) => {}
        // It goes back by itself where it sees no end of it; then all of it is the old one, and the next run comes to its end.
        Some(1) => {
            several.until_whole();
            several.controllers.iter().for_each(|node| assert_eq!(version(&several, node)["minor"], "36"));
            let ended = upgrade(&assets).wait(UPGRADE);
            eprintln!("{}{}", ended.stdout, ended.stderr);
            assert_eq!(ended.code, Some(0));
        }
        other => panic!("{other:?}"),
    }
    several.until_whole();
    for node in &several.controllers {
        let said = version(&several, node);
        assert_eq!((&said["gitVersion"], &said["emulationMinor"]), (&"v1.37.2".into(), &"37".into()), "{said}");
        let pod = several.kubectl(node).get(&["-n", "kube-system", "pod", &format!("etcd-{}", node.name)]);
        let image = pod["spec"]["containers"][0]["image"].as_str().unwrap();
        assert!(image.contains(":3.7."), "{image}");
    }

    let record = traffic.end().unwrap();
    eprintln!("{}", record.summary());
    let outages = record.outages();
    eprintln!("outages: {outages:?}");
    let names: Vec<_> = record.acknowledged().into_iter().map(str::to_owned).collect();
    for node in &several.controllers {
        assert_eq!(several.lacks(node, &names), Vec::<String>::new(), "{} has lost what was acknowledged", node.name);
    }
    // The power cut costs what it costs without an upgrade, and the upgrade nothing.
    assert!(outages.len() <= 1 && outages.iter().all(|(_, lasted)| *lasted < GAP), "{record}");
}

fn upgrade(assets: &Path) -> Running {
    let mut command = Command::new(hoist());
    Running::spawn(command.args(["upgrade", "apply", "--asset-dir"]).arg(assets), "")
}

fn plan(assets: &Path) -> Ended {
    let mut command = Command::new(hoist());
    Running::spawn(command.args(["upgrade", "plan", "--asset-dir"]).arg(assets), "").wait(LATER)
}

/// What the API server at a controller's own address says of its version.
fn version(several: &Several, node: &Node) -> Value {
    let said = eventually("its version", LATER, || {
        let said = several.kubectl(node).run(&["get", "--raw", "/version"]);
        (said.code == Some(0)).then_some(said.stdout)
    });
    serde_json::from_str(&said).unwrap()
}
