//! The CA of etcd is changed on one controller while clients are at work, which wait while etcd begins again.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use super::{ABORT_ETCD, FINISH_ETCD, LIMIT, READY, ROTATE_ETCD, begin, copy, is_the_page, killed, run, until_said};
use crate::support::command::Ended;
use crate::support::controller::Controller;
use crate::support::several::etcdctl;
use crate::support::traffic::Traffic;
use crate::support::{eventually, hoist};

/// How long a request may take: etcd begins again meanwhile, and nobody else serves.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long the API may be without an answer.
const GAP: Duration = Duration::from_secs(20);
/// In this time guard has told the cluster of itself, and looked at its copy there.
const HEARTBEATS: Duration = Duration::from_secs(130);
/// The CA that a cluster begins with.
const OLD: &str = "etcd-ca";

#[test]
fn the_ca_of_etcd_is_rotated() {
    is_the_page();
    let controller = Controller::up("rotetcd1");
    let kubectl = &controller.kubectl;
    kubectl.run(&["create", "configmap", "-n", "default", "written-before"]).ok();
    let directory = controller.cluster.assets.clone();
    let older = directory.with_extension("older");
    let _ = fs::remove_dir_all(&older);
    copy(&directory, &older);
    assert_eq!(trusted(&controller), [OLD]);
    let hoist = hoist().display().to_string();
    let of_hoist = |words: &[&str], dir: &Path| {
        let dir = dir.display().to_string();
        let words = [&hoist].into_iter().map(String::as_str).chain(words.iter().copied());
        controller.node.spawn(words.chain(["--asset-dir", &*dir])).wait(LIMIT)
    };
    of_hoist(&["backup", "--output-file", "/root/before.tar"], &directory).ok();
    kubectl.run(&["create", "configmap", "-n", "default", "written-after"]).ok();
    let clients = || Traffic::begin(controller.cluster.client().patient(PATIENCE));
    let traffic = clients();

    let said = run(&controller, &format!("{ROTATE_ETCD} --plan")).ok();
    assert!(said.contains("etcd-ca is the only CA, and no rotation is under way"), "{said}");
    for command in [FINISH_ETCD, ABORT_ETCD] {
        let said = run(&controller, command).ok();
        assert!(said.contains("no rotation is under way"), "{command}: {said}");
    }

    // Killed before etcd knows of it, and led back.
    let begun = Instant::now();
    let running = begin(&controller, ROTATE_ETCD);
    killed(&controller, until_said(running, "the Secret kube-apiserver: etcd-ca-"));
    let said = run(&controller, ABORT_ETCD).ok();
    eprintln!("led back in {:.0?}:\n{said}", begun.elapsed());
    assert!(said.contains("etcd-ca: etcd-ca is the only CA") && !said.contains("etcd begins again"), "{said}");
    assert_eq!(trusted(&controller), [OLD]);

    // Killed when etcd is to begin again, and gone on with.
    let begun = Instant::now();
    let running = begin(&controller, ROTATE_ETCD);
    killed(&controller, until_said(running, "etcd begins again"));
    let said = run(&controller, &format!("{ROTATE_ETCD} --continue")).ok();
    eprintln!("rotated in {:.0?}:\n{said}", begun.elapsed());
    assert!(said.contains("etcd and the API server trust etcd-ca-"), "{said}");
    let [.., new] = &trusted(&controller)[..] else { panic!("etcd trusts nobody") };
    let new = new.clone();
    assert!(new != OLD && said.contains(&new) && trusted(&controller) == [OLD, &new], "{said}");
    assert_eq!((issuer(&controller, 2379), issuer(&controller, 2380)), (new.clone(), new.clone()));
    shown(&controller, &older).ok();
    of_hoist(&["validate"], &directory).ok();
    of_hoist(&["backup", "--output-file", "/root/meanwhile.tar"], &directory).ok();
    of_hoist(&["start", "--timeout=180s"], &older).expect(3).says(&[
        "tls/etcd/ca.crt",
        "and lacks",
        "docs/rotation.md",
    ]);
    of_hoist(&["start", "--timeout=180s"], &directory).expect(0);
    assert_eq!(trusted(&controller), [OLD, &new], "a start changes nothing");

    no_request_failed("rotated", traffic);

    let traffic = clients();
    let begun = Instant::now();
    let said = run(&controller, FINISH_ETCD).ok();
    eprintln!("finished in {:.0?}:\n{said}", begun.elapsed());
    assert!(said.contains(&format!("{new} is the only CA")) && said.contains("etcd begins again"), "{said}");
    assert_eq!(trusted(&controller), std::slice::from_ref(&new));
    // Who has a certificate of the old CA is refused, and all that etcd had it has.
    let refused = shown(&controller, &older);
    assert!(refused.code != Some(0), "{refused}");
    shown(&controller, &directory).ok();
    kubectl.get(&["configmap", "-n", "default", "written-before"]);
    of_hoist(&["validate"], &directory).ok();
    of_hoist(&["start", "--timeout=180s"], &older).expect(3).says(&["tls/etcd/ca.crt", "and lacks"]);
    of_hoist(&["start", "--timeout=180s"], &directory).expect(0);
    let listed = controller.node.spawn([&*hoist, "certs", "list", "-o", "json"]).wait(READY).ok();
    assert!(listed.contains(&format!("CN={new}")) && !listed.contains("CN=etcd-ca\""), "{listed}");

    no_request_failed("finished", traffic);

    // It boots with what it has.
    controller.node.power_cut();
    controller.node.boot();
    eventually("it serves after a power cut", READY, || controller.is_served().then_some(()));
    controller.until_self_hosted();
    kubectl.get(&["configmap", "-n", "default", "written-before"]);
    assert_eq!(trusted(&controller), std::slice::from_ref(&new));
    let said = run(&controller, &format!("{ROTATE_ETCD} --plan")).ok();
    assert!(said.contains("is the only CA"), "{said}");

    // What was saved before and meanwhile comes back with the keys of now.
    for (backup, has_it) in [("/root/before.tar", false), ("/root/meanwhile.tar", true)] {
        let begun = Instant::now();
        let said = of_hoist(&["recover", "--backup", backup], &directory).expect(0);
        eprintln!("recovered {backup} in {:.0?}:\n{said}", begun.elapsed());
        controller.until_self_hosted();
        kubectl.get(&["configmap", "-n", "default", "written-before"]);
        assert_eq!(kubectl.run(&["get", "configmap", "-n", "default", "written-after"]).code == Some(0), has_it);
        // guard has had its time to take the cluster's copy.
        std::thread::sleep(HEARTBEATS);
        assert!(controller.is_served() && controller.self_hosted_is_ready(), "{backup}");
        assert_eq!((trusted(&controller), issuer(&controller, 2379)), (vec![new.clone()], new.clone()), "{backup}");
        let said = run(&controller, &format!("{ROTATE_ETCD} --plan")).ok();
        assert!(said.contains(&format!("{new} is the only CA, and no rotation")), "{said}");
    }
}

/// No request has failed of clients that wait, and none has waited for long.
#[track_caller]
fn no_request_failed(when: &str, traffic: Traffic) {
    let record = traffic.end().unwrap();
    eprintln!("{when}: {}", record.summary());
    assert_eq!(record.failures().count(), 0, "{record}");
    assert!(record.longest_gap().0 < GAP, "{record}");
}

/// The names of the CAs whose clients etcd says that it takes.
fn trusted(controller: &Controller) -> Vec<String> {
    let said = controller.node.sh("openssl s_client -connect 127.0.0.1:2379 </dev/null 2>/dev/null || true");
    let names = said.lines().skip_while(|line| !line.starts_with("Acceptable client certificate CA names")).skip(1);
    let names =
        names.map_while(|line| line.strip_prefix("CN")).map(|name| name.trim_start_matches([' ', '=']).to_owned());
    names.collect()
}

/// The CA that has issued what etcd shows at a port.
fn issuer(controller: &Controller, port: u16) -> String {
    let address = controller.node.address;
    let said =
        controller.node.sh(&format!("openssl s_client -connect {address}:{port} </dev/null 2>/dev/null || true"));
    let issuer = said.lines().find_map(|line| line.strip_prefix("issuer=")).unwrap_or_default();
    issuer.trim_start_matches(['C', 'N', ' ', '=']).to_owned()
}

/// What etcd answers to who shows the API servers' certificate of an asset directory.
fn shown(controller: &Controller, dir: &Path) -> Ended {
    let tls = dir.join("tls").display().to_string();
    let pair = format!("--cert={tls}/apiserver-etcd-client.crt --key={tls}/apiserver-etcd-client.key");
    etcdctl(&controller.node, &format!("{pair} get /registry/configmaps/default/written-before --keys-only"))
}
