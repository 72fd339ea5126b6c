//! What guard costs while nothing happens, what it tells, and who may read what it keeps.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use base64::Engine;
use k8s_openapi::jiff::Timestamp;
use nix::sys::signal::Signal;
use serde_json::Value;

use super::{Controller, LATER, SOON, manifest, signal};
use crate::serving::assert_serves_itself;
use crate::support::cluster::Cluster;
use crate::support::eventually;
use crate::support::node::Node;
use crate::support::process::{memory, processor_seconds};

/// For so long it is watched, and so much it may take.
const WATCHED: Duration = Duration::from_secs(60);
/// What it has written to. It grows with what guard remembers.
const OWN: u64 = 4 * 1024 * 1024;
/// With the pages of the program's file, which the kernel maps around whatever runs, shares with the endpoint's process, and
/// drops when it wants them. They grow with the program, whichever of its commands does.
const MEMORY: u64 = 16 * 1024 * 1024;
const PROCESSOR: f64 = 0.005;
const WRITES: usize = 1;

/// Whatever guard asks of the API is written to the log of the API server.
const AUDIT: &str = "apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- {level: Metadata, users: [\"hoist:guard\"]}
- {level: None}
";

#[test]
fn guard_at_rest() {
    let node = Node::up("guard-rest");
    let cluster = Cluster::render(&node);
    audit(&cluster);
    let controller = Controller::start(node, cluster);

    let (own, resident) = takes_little(&controller);
    its_copy_is_its_own(&controller);
    tells_what_it_does(&controller);
    a_tampered_copy_is_not_raised(&controller);
    assert_serves_itself(&controller.node, &controller.cluster);
    assert!(own <= OWN, "{own} bytes are its own");
    assert!(resident <= MEMORY, "{resident} bytes are resident");
}

/// Edits the manifests, as a user would who wants an audit log.
fn audit(cluster: &Cluster) {
    let edit = |path: &str, edit: &dyn Fn(&str) -> String| {
        let path = manifest(cluster, path);
        fs::write(&path, edit(&fs::read_to_string(&path).unwrap())).unwrap();
    };
    edit("kube-apiserver/secret.yaml", &|text| {
        let policy = base64::engine::general_purpose::STANDARD.encode(AUDIT);
        assert!(text.contains("\ndata:\n"), "{}", text.lines().take(12).collect::<String>());
        text.replacen("\ndata:\n", &format!("\ndata:\n  audit.yaml: {policy}\n"), 1)
    });
    edit("kube-apiserver/daemonset.yaml", &|text| {
        // hoist's own log has nothing of Leases.
        let is_own = |line: &&str| !line.trim_start().starts_with("- --audit-");
        let text = text.lines().filter(is_own).map(|line| format!("{line}\n")).collect::<String>();
        let line = text.lines().find(|line| line.trim() == "- --permit-port-sharing=true").unwrap();
        let indent = &line[..line.find('-').unwrap()];
        let flags = ["--audit-policy-file=/etc/kubernetes/secrets/audit.yaml", "--audit-log-path=-"];
        let flags: String = flags.iter().map(|flag| format!("{indent}- {flag}\n")).collect();
        text.replacen(&format!("{line}\n"), &format!("{line}\n{flags}"), 1)
    });
}

/// What guard has written through the API: verb, path and time of each.
fn writes(controller: &Controller) -> Vec<String> {
    let log = controller.said("kube-system_kube-apiserver-", "kube-apiserver");
    let events = log.lines().filter_map(|line| line.split_once(" stdout F {").map(|(_, rest)| format!("{{{rest}")));
    let events = events.filter_map(|text| serde_json::from_str::<Value>(&text).ok());
    let of_guard = events.filter(|event| event["user"]["username"] == "hoist:guard");
    let writes = of_guard.filter(|event| !matches!(event["verb"].as_str().unwrap(), "get" | "list" | "watch"));
    let said = |event: Value| {
        format!(
            "{} {} {} {}",
            event["verb"], event["requestURI"], event["requestReceivedTimestamp"], event["responseStatus"]["code"]
        )
    };
    writes.map(said).collect()
}

/// Says how many bytes of memory are its own, and how many are resident.
fn takes_little(controller: &Controller) -> (u64, u64) {
    let before = eventually("guard has told the API of itself", LATER, || {
        let writes = writes(controller);
        (!writes.is_empty()).then_some(writes)
    });
    let guard = PathBuf::from(format!("/proc/{}", controller.guard_process()));
    let (begun, seconds) = (Instant::now(), processor_seconds(&guard).unwrap());
    std::thread::sleep(WATCHED);
    let share = (processor_seconds(&guard).unwrap() - seconds) / begun.elapsed().as_secs_f64();
    let memory = |field: &str| memory(&guard, "status", field).unwrap();
    let (own, resident) = (memory("RssAnon:"), memory("VmRSS:"));
    let writes = writes(controller).split_off(before.len());
    let mib = |bytes: u64| bytes as f64 / 1024.0 / 1024.0;
    eprintln!(
        "guard at rest: {:.1} MiB resident, {:.1} MiB of it its own and {:.1} MiB the program, {:.1} MiB at most, {:.2} % of a processor, {} writes in {WATCHED:?}",
        mib(resident),
        mib(own),
        mib(memory("RssFile:")),
        mib(memory("VmHWM:")),
        share * 100.0,
        writes.len()
    );
    assert!(share <= PROCESSOR, "{:.2} % of a processor", share * 100.0);
    assert!(writes.len() <= WRITES, "{writes:?}");
    (own, resident)
}

/// The Secret has keys of the cluster.
fn its_copy_is_its_own(controller: &Controller) {
    let nodes = "--as-group=system:nodes";
    let own = format!("--as=system:node:{}", controller.node.name);
    let may = |who: &[&str]| {
        let args = [&["auth", "can-i", "get", "secret/hoist-guard", "-n", "kube-system"], who].concat();
        let answer = controller.kubectl.run(&args);
        // A no may have its reason behind it.
        let word = answer.stdout.split_whitespace().next().unwrap_or_default();
        assert!(matches!(word, "yes" | "no"), "{answer}");
        word == "yes"
    };
    // Guard, and the kubelet of a controller, which mounts it for the DaemonSet's pod there.
    assert!(may(&["--as=hoist:guard"]));
    assert!(may(&[&own, nodes]));
    for who in [
        &["--as=system:node:another", nodes][..],
        &["--as=system:kube-scheduler"],
        &["--as=system:serviceaccount:kube-system:default"],
        &["--as=system:serviceaccount:kube-system:hoist-guard"],
        &["--as=kube-apiserver-kubelet-client"],
        &["--as=jane", "--as-group=system:authenticated"],
    ] {
        assert!(!may(who), "{who:?} may read the Secret");
    }
    // Who is nobody may not even ask whether.
    let get = ["get", "secret", "hoist-guard", "-n", "kube-system", "--as=system:anonymous"];
    controller.kubectl.run(&get).expect(1).says(&["Forbidden"]);
    let modes = controller.node.sh("stat -c '%a %U %n' /var/lib/hoist/guard /var/lib/hoist/guard/bridge.json");
    assert_eq!(modes, "700 root /var/lib/hoist/guard\n600 root /var/lib/hoist/guard/bridge.json\n");
}

fn tells_what_it_does(controller: &Controller) {
    let raises = controller.raises();
    // The kubelet starts one that has crashed once at once, before there is anything to do for guard.
    eventually("guard counts a raise", SOON, || {
        controller.api_server().into_iter().for_each(|server| signal(server, Signal::SIGKILL));
        (controller.raises() > raises).then_some(())
    });
    controller.until_lowered();
    eventually("guard counts that it was lowered", SOON, || (controller.metric("lowers_total") > 0.0).then_some(()));
    assert!(controller.metric("last_raise_timestamp_seconds") > 1_700_000_000.0, "{:?}", controller.metrics());
    eventually("the node's events tell it", SOON, || {
        let described = controller.kubectl.run(&["describe", "node", &controller.node.name]).ok();
        let tells = |reason: &str| described.lines().any(|line| line.contains(reason) && line.contains("hoist-guard"));
        (tells("BridgeRaised") && tells("BridgeLowered")).then_some(())
    });
    let said = controller.guard_said();
    assert!(said.contains("the bridge is raised: the self-hosted API server is gone"), "{said}");
    assert!(said.contains("the bridge is lowered: the self-hosted control plane serves"), "{said}");
}

fn a_tampered_copy_is_not_raised(controller: &Controller) {
    let path = controller.var("lib/hoist/guard/bridge.json");
    let whole = fs::read_to_string(&path).unwrap();
    let raises = controller.raises();
    fs::write(&path, whole.replace("--secure-port=6444", "--secure-port=6445")).unwrap();
    assert!(fs::read_to_string(&path).unwrap() != whole);
    eventually("guard sees it", SOON, || (controller.metric("copy_whole") == 0.0).then_some(()));
    signal(controller.api_server().unwrap(), Signal::SIGKILL);
    std::thread::sleep(Duration::from_secs(3));
    assert!(!controller.is_raised() && controller.raises() == raises, "{}", controller.guard_said());
    // The kubelet starts it again; then there is a Secret to compare with.
    eventually("the copy is that of the Secret", LATER, || (controller.metric("copy_whole") == 1.0).then_some(()));
    assert!(fs::read_to_string(&path).unwrap() == whole, "{}", Path::new(&path).display());
    let said = controller.guard_said();
    assert!(said.contains("was changed, and not by hoist"), "{said}");
    controller.until_lowered();
    // Without a bridge the API was away for longer than leaders bear: they have ended, and come back.
    controller.control_plane_is_rolled_out();
    let since = Timestamp::now();
    eventually("both Leases are renewed", SOON, || {
        ["kube-controller-manager", "kube-scheduler"]
            .into_iter()
            .all(|name| renewed(controller, name) > since)
            .then_some(())
    });
}

fn renewed(controller: &Controller, lease: &str) -> Timestamp {
    let lease = controller.kubectl.get(&["lease", "-n", "kube-system", lease]);
    lease["spec"]["renewTime"].as_str().and_then(|time| time.parse().ok()).unwrap_or(Timestamp::UNIX_EPOCH)
}
