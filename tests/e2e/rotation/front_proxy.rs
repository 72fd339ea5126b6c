//! The CA of the front proxy is changed while an aggregated API server is asked without pause.

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use super::{ABORT_CA, FINISH_CA, LIMIT, READY, ROTATE_CA, begin, copy, is_the_page, killed, run, until_said};
use crate::addons::{ROUTING, certificates};
use crate::support::beside::Beside;
use crate::support::cluster::{Cluster, declaration, render};
use crate::support::command::run as on_this_machine;
use crate::support::controller::Controller;
use crate::support::http::runtime;
use crate::support::kubectl::Kubectl;
use crate::support::node::Node;
use crate::support::{eventually, hoist, repository};

/// What the aggregated API server says of the certificate that it was shown.
const ISSUER: &str = "/apis/probe.example.com/v1/issuer";
const CONFIG_MAP: &str = "extension-apiserver-authentication";
/// How often a client asks.
const ASKS: Duration = Duration::from_millis(50);
/// The CA that a cluster begins with.
const OLD: &str = "front-proxy-ca";

#[test]
fn the_ca_of_the_front_proxy_is_rotated() {
    is_the_page();
    let node = Node::up("rotfp1");
    let cluster = Cluster::to_render(&node, node.address);
    render(&(declaration(&node, node.address) + ROUTING), &cluster.assets).ok();
    let controller = Controller::start(node, cluster);
    let kubectl = &controller.kubectl;
    kubectl.apply(&aggregated(&controller.cluster));
    kubectl.run(&["wait", "--for=condition=Available", "--timeout=100s", "apiservice/v1.probe.example.com"]).ok();
    assert_eq!(issuer(kubectl).as_deref(), Some(OLD));
    let containers = containers(kubectl);
    assert!(containers.len() >= 4, "{containers:?}");
    let directory = controller.cluster.assets.clone();
    let older = directory.with_extension("older");
    let _ = fs::remove_dir_all(&older);
    copy(&directory, &older);
    let traffic = controller.traffic();
    let asked = ask(&controller);

    // The scheduler counts as there once it has been ready for a while.
    eventually("no rotation is under way", READY, || {
        let said = run(&controller, &format!("{ROTATE_CA} --plan")).ok();
        said.contains("front-proxy-ca is the only CA, and no rotation is under way").then_some(())
    });
    for command in [FINISH_CA, ABORT_CA] {
        let said = run(&controller, command).ok();
        assert!(said.contains("no rotation is under way"), "{command}: {said}");
    }

    // Led back when the new one issues already.
    let said = run(&controller, ROTATE_CA).ok();
    assert!(said.contains("a new CA is made"), "{said}");
    waited_for_all(&said);
    assert_eq!(trusted(kubectl), 2);
    let managers = kubectl.get(&["configmap", CONFIG_MAP, "-n", "kube-system", "--show-managed-fields"]);
    let managers = managers["metadata"]["managedFields"].as_array().unwrap();
    assert!(managers.iter().all(|one| one["manager"] != "hoist"), "API servers tell by themselves: {managers:?}");
    let begun = Instant::now();
    let said = run(&controller, ABORT_CA).ok();
    eprintln!("led back in {:.0?}:\n{said}", begun.elapsed());
    assert!(said.contains("front-proxy-ca: front-proxy-ca is the only CA"), "{said}");
    assert_eq!(trusted(kubectl), 1);
    eventually("API servers show what the old CA has issued", READY, || issuer(kubectl).filter(|name| name == OLD));

    // Killed in its middle, and gone on with.
    let begun = Instant::now();
    let running = begin(&controller, ROTATE_CA);
    killed(&controller, until_said(running, "the Secret kube-apiserver: front-proxy-ca-"));
    let said = run(&controller, &format!("{ROTATE_CA} --continue")).ok();
    eprintln!("rotated in {:.0?}:\n{said}", begun.elapsed());
    waited_for_all(&said);
    assert!(said.contains("API servers and aggregated ones trust front-proxy-ca-"), "{said}");
    assert_eq!(trusted(kubectl), 2);
    let new =
        eventually("API servers show what the new CA has issued", READY, || issuer(kubectl).filter(|name| name != OLD));
    assert!(said.contains(&new), "{new}: {said}");

    // Two CAs in a file are right for all who read it, and the first renews.
    let hoist = hoist().display().to_string();
    let assets = directory.display().to_string();
    controller.node.spawn([&*hoist, "validate", "--asset-dir", &assets]).wait(READY).ok();
    let listed = controller.node.spawn([&*hoist, "certs", "list", "-o", "json"]).wait(READY).ok();
    assert!(listed.contains(&format!("CN={new}")), "{listed}");
    controller.node.spawn([&*hoist, "certs", "renew", "front-proxy-client"]).wait(LIMIT).ok();
    let start = |assets: &std::path::Path| {
        let assets = assets.display().to_string();
        controller.node.spawn([&*hoist, "start", "--asset-dir", &assets, "--timeout=180s"]).wait(READY * 2)
    };
    start(&older).expect(3).says(&["tls/front-proxy-ca.crt", "and lacks", "docs/rotation.md"]);

    let begun = Instant::now();
    let said = run(&controller, FINISH_CA).ok();
    eprintln!("finished in {:.0?}:\n{said}", begun.elapsed());
    assert!(said.contains(&format!("{new} is the only CA")) && said.contains("are told to trust"), "{said}");
    assert_eq!(trusted(kubectl), 1);
    assert_eq!(issuer(kubectl), Some(new.clone()));
    start(&older).expect(3).says(&["tls/front-proxy-ca.crt", "and lacks"]);
    start(&directory).expect(0);

    let (count, issuers, failed) = asked.end();
    eprintln!("the aggregated API server: {count} requests, {} failed; issuers {issuers:?}", failed.len());
    assert!(count > 1000 && failed.is_empty(), "{count} {failed:?}");
    assert!(matches!(&issuers[..], [old, .., last] if old == OLD && *last == new), "{issuers:?}");
    let record = traffic.end().unwrap();
    eprintln!("{}", record.summary());
    assert_eq!(record.failures().count(), 0, "{record}");
    assert_eq!(self::containers(kubectl), containers, "something was started again");
}

/// A client that asks the aggregated API server without pause, through the API server, each time on a new connection: how often, by
/// whom the certificates were issued that it was shown, and which requests failed.
fn ask(controller: &Controller) -> Beside<(usize, Vec<String>, Vec<String>)> {
    let client = controller.cluster.client();
    Beside::begin(move |stop| {
        let (runtime, mut asked, mut issuers, mut failed) = (runtime(), 0, Vec::new(), Vec::new());
        while !stop.to_stop() {
            match runtime.block_on(client.get(ISSUER)) {
                Ok((200, body)) => {
                    let said: Value = serde_json::from_slice(&body).unwrap();
                    let issuer = said["issuer"].as_str().unwrap().to_owned();
                    if issuers.last() != Some(&issuer) {
                        issuers.push(issuer);
                    }
                }
                Ok((status, body)) => failed.push(format!("{asked}: {status} {}", String::from_utf8_lossy(&body))),
                Err(why) => failed.push(format!("{asked}: {why}")),
            }
            asked += 1;
            std::thread::sleep(ASKS);
        }
        (asked, issuers, failed)
    })
}

/// The command has waited for the aggregated API server, which reads late.
#[track_caller]
fn waited_for_all(said: &str) {
    assert!(said.contains("the aggregated API server of kube-system/aggregated at"), "nobody waited for it: {said}");
}

fn issuer(kubectl: &Kubectl) -> Option<String> {
    let said: Value = serde_json::from_str(&kubectl.run(&["get", "--raw", ISSUER]).stdout).ok()?;
    said["issuer"].as_str().map(str::to_owned)
}

/// How many CAs aggregated API servers are told to trust.
fn trusted(kubectl: &Kubectl) -> usize {
    let map = kubectl.get(&["configmap", CONFIG_MAP, "-n", "kube-system"]);
    map["data"]["requestheader-client-ca-file"].as_str().unwrap().matches("BEGIN CERTIFICATE").count()
}

/// The containers of the control plane and the aggregated API server.
fn containers(kubectl: &Kubectl) -> Vec<String> {
    let pods = kubectl.list(&["pods", "-n", "kube-system"]);
    let named = pods.iter().filter(|pod| {
        let name = pod["metadata"]["name"].as_str().unwrap();
        name.starts_with("kube-") || name.starts_with("aggregated")
    });
    let of = |pod: &Value| pod["status"]["containerStatuses"].as_array().cloned().unwrap_or_default();
    let mut ids: Vec<_> =
        named.flat_map(of).map(|container| container["containerID"].as_str().unwrap_or_default().to_owned()).collect();
    ids.sort();
    ids
}

/// The aggregated API server, built, with a certificate for its Service.
fn aggregated(cluster: &Cluster) -> String {
    let program = cluster.assets.with_extension("aggregated");
    let mut build = Command::new("go");
    build.current_dir(repository().join("tests/aggregated")).env("CGO_ENABLED", "0").env("GOFLAGS", "-mod=mod");
    let built = program.join("aggregated");
    on_this_machine(build.args(["build", "-trimpath", "-o"]).arg(built), Duration::from_secs(300)).ok();

    let (ca, certificate, key) = certificates("aggregated.kube-system.svc");
    let text = fs::read_to_string(repository().join("tests/e2e/rotation/aggregated.yaml")).unwrap();
    [
        (": CERTIFICATE\n", STANDARD.encode(certificate)),
        (": KEY\n", STANDARD.encode(key)),
        ("caBundle: CA\n", STANDARD.encode(ca)),
        ("path: PROGRAM}", program.display().to_string()),
    ]
    .into_iter()
    .fold(text, |text, (from, value)| {
        let (field, rest) = from.split_once(": ").unwrap();
        let end = if rest.ends_with('}') { "}" } else { "\n" };
        text.replace(from, &format!("{field}: {value}{end}"))
    })
}
