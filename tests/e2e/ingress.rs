//! docs/ingress.md, as it stands there: the example of traefik as an add-on on two workers, Debian's keepalived in front of them
//! and of three controllers, and an application whose users never stop. Every command of the page is run.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::node_endpoint::joined;
use crate::support::cluster::{Cluster, declaration};
use crate::support::command::{Ended, run};
use crate::support::controller::{Controller, LATER, SOON};
use crate::support::keepalived::{self, holder, others};
use crate::support::losses::{lose, signal};
use crate::support::node::{EXEC_LIMIT, Node, disk};
use crate::support::several::LABEL;
use crate::support::traffic::Record;
use crate::support::visitors::Visitors;
use crate::support::{cache, eventually, hoist, repository};

const PAGE: &str = include_str!("../../docs/ingress.md");
/// No nodes': they have those from .11 on.
const USERS: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 10, 0, 8));
const CONTROLLERS: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 10, 0, 9));
const HOST: &str = "demo.example.org";
const SAYS: &str = "hello from demo-";
/// Another name of the same application.
const OTHER: &str = "apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: other}
spec:
  rules:
  - host: other.example.org
    http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: demo, port: {number: 80}}}}]}
";

/// The first build takes minutes.
const BUILD: Duration = Duration::from_secs(1200);
/// How long users may be without the page after a loss, on a machine that is busy. What it takes is printed.
const GAP: Duration = Duration::from_secs(10);
/// Requests that are under way at the very moment when the address moves end with it.
const UNDER_WAY: usize = 2;

#[test]
fn an_ingress_outlives_a_controller_and_a_worker() {
    run(&mut Command::new(repository().join("scripts/ingress")), BUILD).ok();
    let site = Site::up();
    site.has_ingress();
    site.has_demo();

    site.a_controller_is_lost();
    let [worker, other] = &site.workers;
    site.give(worker);
    site.a_worker_is_lost(worker);
    site.give(other);
    site.a_worker_is_lost(worker);
    site.a_worker_is_taken_out(worker);
    site.traefik_is_replaced();
    site.traefik_crashes(worker);
    site.no_controller_is_left();

    let commands = commands().map(str::to_owned).collect::<BTreeSet<_>>();
    let ran = site.ran.take();
    assert_eq!(commands.symmetric_difference(&ran).collect::<Vec<_>>(), Vec::<&String>::new(), "not run, or not there");
}

/// The page's commands: what is set in by four, or by seven in a list.
fn commands() -> impl Iterator<Item = &'static str> {
    let mut is_fenced = false;
    PAGE.lines().filter_map(move |line| {
        let text = line.trim_start();
        is_fenced ^= text.starts_with("```");
        let is_command = !is_fenced && line.starts_with("    ") && !text.is_empty();
        is_command.then_some(text)
    })
}

/// The page's file of this name, without what sets it in.
fn file(name: &str) -> String {
    let from = PAGE.find(&format!("# {name}\n")).unwrap();
    let margin = " ".repeat(from - PAGE[..from].rfind('\n').unwrap() - 1);
    let text = &PAGE[from..from + PAGE[from..].find("```").unwrap()];
    text.lines().fold(String::new(), |text, line| text + line.strip_prefix(&margin).unwrap_or_default() + "\n")
}

/// A cluster as the page describes it, and a folder of its administrator's.
struct Site {
    controller: Controller,
    controllers: [Node; 2],
    workers: [Node; 2],
    folder: PathBuf,
    /// What has been run of the page.
    ran: RefCell<BTreeSet<String>>,
}

impl Site {
    fn up() -> Self {
        let node = Node::plain("in-1");
        let folder = folder();
        let mut cluster = Cluster::to_render(&node, CONTROLLERS);
        cluster.assets = folder.join("assets");
        let mut ran = BTreeSet::new();
        let mut page = |command: &str| {
            here(&folder, &command.replace("ADDRESS", &USERS.to_string())).ok();
            ran.insert(command.to_owned());
        };
        page("cp -r docs/examples/ingress addons/");
        page("sed -i 's/192\\.0\\.2\\.8/ADDRESS/' addons/ingress/*");
        let own = file("cluster.yaml").replace("192.0.2.9", &CONTROLLERS.to_string());
        fs::write(folder.join("cluster.yaml"), declaration(&node, node.address) + &own).unwrap();
        page("hoist render --config cluster.yaml --asset-dir assets");
        keepalived::of_controllers(&node, &cluster.assets);
        let controller = Controller::start(node, cluster);
        symlink(&controller.kubectl.program, folder.join("bin/kubectl")).unwrap();

        let [second, third, one, other] = ["in-2", "in-3", "in-w1", "in-w2"].map(|name| joined(name, &controller));
        let controllers = [second, third];
        controllers.iter().for_each(|node| keepalived::of_controllers(node, &controller.cluster.assets));
        let site = Self { controller, controllers, workers: [one, other], folder, ran: RefCell::new(ran) };
        let [second, third] = &site.controllers;
        site.controller.kubectl.run(&["label", "node", &second.name, &third.name, &format!("{LABEL}=")]).ok();
        site.page("kubectl taint node C2 C3 node-role.kubernetes.io/control-plane:NoSchedule");
        site.controller.until_made_of(&site.all());
        site
    }

    fn all(&self) -> [&Node; 3] {
        let [second, third] = &self.controllers;
        [&self.controller.node, second, third]
    }

    fn workers(&self) -> [&Node; 2] {
        self.workers.each_ref()
    }

    // --- the page ---

    /// Runs a command of the page, where the administrator has cluster.yaml.
    #[track_caller]
    fn page(&self, command: &str) -> String {
        here(&self.folder, &self.read(command)).ok()
    }

    /// The same until it says this.
    #[track_caller]
    fn page_says(&self, command: &str, says: &str) {
        let command = self.read(command);
        let (mut last, begun) = (here(&self.folder, &command), Instant::now());
        while !last.stdout.contains(says) {
            assert!(begun.elapsed() < SOON, "it does not say {says:?}: {last}");
            std::thread::sleep(Duration::from_millis(500));
            last = here(&self.folder, &command);
        }
    }

    /// Runs a command of the page on a worker, beside the file that was brought there.
    #[track_caller]
    fn page_on(&self, node: &Node, command: &str) -> String {
        let command = self.read(command);
        node.sh(&format!("cd {}/addons/ingress; {command}", self.folder.display()))
    }

    /// A command of the page with this cluster's names in it.
    #[track_caller]
    fn read(&self, command: &str) -> String {
        self.ran.borrow_mut().insert(command.to_owned());
        let [second, third] = &self.controllers;
        let [one, other] = &self.workers;
        let names = [("C2", second), ("C3", third), ("W1", one), ("W2", other)];
        let read = command.replace("ADDRESS", &USERS.to_string());
        names.iter().fold(read, |text, (name, node)| text.replace(name, &node.name))
    }

    // --- what the page sets up ---

    #[track_caller]
    fn has_ingress(&self) {
        self.page("hoist apply --asset-dir assets");
        let image = cache().join("ingress/traefik.tar");
        for node in &self.workers {
            // What a registry would have.
            fs::copy(&image, disk(node).join("opt/traefik.tar")).unwrap();
            node.sh("ctr -n k8s.io images import /opt/traefik.tar; rm /opt/traefik.tar");
            // Debian's, by way of the folder that nodes see.
            self.read("apt-get install keepalived curl");
            keepalived::unpack(node, &self.controller.cluster.assets);
            self.page_on(node, "install -D -m 644 keepalived.conf /etc/keepalived/keepalived.conf");
            node.sh("keepalived --config-test");
            self.page_on(node, "systemctl enable --now keepalived");
            assert!(!keepalived::has(node, USERS), "no traefik serves there");
        }
        self.page("kubectl label node W1 W2 node-role.kubernetes.io/ingress=");
        self.is_rolled_out();
        let pods = self.page("kubectl -n ingress get pods -o wide");
        assert!(self.workers.iter().all(|node| pods.contains(&node.name)), "{pods}");
        self.page("kubectl -n ingress logs daemonset/traefik");
        let holder = self.holder();
        assert!(self.page_on(holder, "ip address show to ADDRESS").contains("eth0"));
        assert_eq!(self.page_on(holder, "curl http://127.0.0.1:9000/ping"), "OK");
    }

    #[track_caller]
    fn has_demo(&self) {
        self.page("openssl req -x509 -newkey rsa:2048 -nodes -days 30 -subj /CN=demo.example.org -addext subjectAltName=DNS:demo.example.org -keyout demo.key -out demo.crt");
        fs::write(self.folder.join("demo.yaml"), file("demo.yaml")).unwrap();
        self.page("kubectl create secret tls demo --cert=demo.crt --key=demo.key");
        self.page("kubectl apply -f demo.yaml");
        self.is_rolled_out();
        self.page_says("curl --resolve demo.example.org:80:ADDRESS http://demo.example.org/", SAYS);
        self.page_says("curl --resolve demo.example.org:443:ADDRESS --cacert demo.crt https://demo.example.org/", SAYS);
        eventually("the Ingress has its address", SOON, || {
            let ingress = self.controller.kubectl.get(&["ingress", "demo"]);
            (ingress["status"]["loadBalancer"]["ingress"][0]["ip"] == USERS.to_string()).then_some(())
        });
    }

    /// traefik is ready on each worker, and a pod of the application.
    #[track_caller]
    fn is_rolled_out(&self) {
        let kubectl = &self.controller.kubectl;
        eventually("both are ready on each worker", LATER, || {
            let pods = kubectl.run(&["get", "pods", "-A", "-l", "app in (demo)", "-o", "json"]).stdout;
            let demo = on(&pods, &self.workers());
            let pods = ["get", "pods", "-n", "ingress", "-l", "app.kubernetes.io/name=traefik", "-o", "json"];
            let traefik = on(&kubectl.run(&pods).stdout, &self.workers());
            let has_demo = self.folder.join("demo.yaml").exists();
            (traefik && (demo || !has_demo)).then_some(())
        });
        eventually("one worker has the address", SOON, || holder(&self.workers(), USERS).map(drop));
    }

    #[track_caller]
    fn holder(&self) -> &Node {
        eventually("one worker has the address", SOON, || holder(&self.workers(), USERS))
    }

    /// Has the other worker's keepalived let go of the address for a moment.
    #[track_caller]
    fn give(&self, to: &Node) {
        let others = others(&self.workers(), to);
        others[0].sh("systemctl stop keepalived");
        eventually("it has the address", SOON, || keepalived::has(to, USERS).then_some(()));
        others[0].sh("systemctl start keepalived");
    }

    // --- losses ---

    /// What users see meanwhile.
    #[track_caller]
    fn during(&self, what: &str, act: impl FnOnce()) -> Saw {
        let visitors = Visitors::begin(USERS, HOST, SAYS);
        std::thread::sleep(Duration::from_secs(2));
        let event = Instant::now();
        act();
        std::thread::sleep(Duration::from_secs(2));
        let record = visitors.end();
        let at = event - record.ready;
        let gap = record.longest_gap_within(at..record.lasted).0;
        eprintln!(
            "{what}: {} failed, the last one sent {:.2?} after it; longest time without a page {gap:.2?}\n  {record}",
            record.failures().count(),
            record.fails_until(at),
        );
        Saw { record, at, gap }
    }

    /// Nobody notices; and what is new is served, too.
    #[track_caller]
    fn a_controller_is_lost(&self) {
        let all = self.all();
        let lost = eventually("one controller has the address", SOON, || holder(&all, CONTROLLERS));
        let saw = self.during(&format!("the power of {} cut, a controller", lost.name), || {
            lose(lost);
            let begun = Instant::now();
            eventually("the API answers", LATER, || self.controller.is_served().then_some(()));
            eprintln!("the API answers at its address {:.1?} after the loss", begun.elapsed());
            eventually("a new Ingress is taken", LATER, || {
                fs::write(self.folder.join("other.yaml"), OTHER).unwrap();
                (here(&self.folder, "kubectl apply -f other.yaml").code == Some(0)).then_some(())
            });
            let applied = Instant::now();
            eventually("it is served", SOON, || {
                let command =
                    format!("curl -s --max-time 5 --resolve other.example.org:80:{USERS} http://other.example.org/");
                here(&self.folder, &command).stdout.contains(SAYS).then_some(())
            });
            eprintln!("a new Ingress is served {:.1?} after it was applied", applied.elapsed());
        });
        assert_eq!(saw.record.failures().count(), 0, "{}", saw.record);
        lost.boot();
        self.controller.until_made_of(&all);
    }

    #[track_caller]
    fn a_worker_is_lost(&self, lost: &Node) {
        let has_it = self.holder().name == lost.name;
        let kubectl = &self.controller.kubectl;
        let saw = self.during(&format!("the power of {} cut, which has the address: {has_it}", lost.name), || {
            lose(lost);
            let cut = Instant::now();
            let [left] = others(&self.workers(), lost)[..] else { panic!("one is left") };
            eventually("the other one has the address", SOON, || keepalived::has(left, USERS).then_some(()));
            eprintln!("{} has the address {:.2?} after that, or sooner", left.name, cut.elapsed());
            // Until then, its pods are listed as good.
            let args = ["get", "node", &lost.name, "-o", r#"jsonpath={.status.conditions[?(@.type=="Ready")].status}"#];
            eventually("the worker is missed", LATER, || (kubectl.run(&args).stdout == "Unknown").then_some(()));
            eprintln!("it is missed {:.1?} after that", cut.elapsed());
        });
        assert!(saw.gap < GAP && saw.record.fails_until(saw.at) < GAP, "{}", saw.record);
        lost.boot();
        self.is_rolled_out();
    }

    #[track_caller]
    fn a_worker_is_taken_out(&self, worker: &Node) {
        self.give(worker);
        let left = others(&self.workers(), worker)[0];
        let saw = self.during("the label taken from the worker that has the address", || {
            self.page("kubectl label node W1 node-role.kubernetes.io/ingress-");
            eventually("the other one has the address", SOON, || keepalived::has(left, USERS).then_some(()));
            std::thread::sleep(Duration::from_secs(15));
        });
        assert!(saw.record.failures().count() <= UNDER_WAY, "{}", saw.record);
        self.page("kubectl label node W1 W2 node-role.kubernetes.io/ingress=");
        self.is_rolled_out();
    }

    #[track_caller]
    fn traefik_is_replaced(&self) {
        let path = self.folder.join("addons/ingress/traefik.yaml");
        let text = fs::read_to_string(&path).unwrap();
        let changed = text.replace("        - --ping=true\n", "        - --ping=true\n        - --log.level=INFO\n");
        assert_ne!(text, changed);
        fs::write(&path, changed).unwrap();
        let saw = self.during("traefik replaced on both workers", || {
            self.page("hoist render --config cluster.yaml --asset-dir assets");
            self.page("hoist apply --asset-dir assets");
            let args = ["rollout", "status", "-n", "ingress", "--timeout=115s", "daemonset/traefik"];
            self.controller.kubectl.run(&args).ok();
        });
        assert!(saw.record.failures().count() <= 2 * UNDER_WAY, "{}", saw.record);
        self.is_rolled_out();
    }

    #[track_caller]
    fn traefik_crashes(&self, worker: &Node) {
        self.give(worker);
        let saw = self.during("traefik killed where the address is", || {
            signal(worker, "KILL", "traefik");
            std::thread::sleep(Duration::from_secs(10));
        });
        assert!(saw.gap < GAP && saw.record.fails_until(saw.at) < GAP, "{}", saw.record);
        self.is_rolled_out();
    }

    /// The last one: nothing brings the API back.
    #[track_caller]
    fn no_controller_is_left(&self) {
        let saw = self.during("the power of all controllers cut", || {
            self.all().into_iter().for_each(lose);
            std::thread::sleep(Duration::from_secs(20));
        });
        assert_eq!(saw.record.failures().count(), 0, "{}", saw.record);
    }
}

struct Saw {
    record: Record,
    /// When it happened, by the record's clock.
    at: Duration,
    /// The longest time without a page from then on.
    gap: Duration,
}

/// Whether a pod of this list is ready on each node.
fn on(pods: &str, nodes: &[&Node]) -> bool {
    let pods: serde_json::Value = serde_json::from_str(pods).unwrap_or_default();
    let is_ready = |pod: &serde_json::Value| {
        let conditions = pod["status"]["conditions"].as_array().cloned().unwrap_or_default();
        pod["metadata"]["deletionTimestamp"].is_null()
            && conditions.iter().any(|one| one["type"] == "Ready" && one["status"] == "True")
    };
    let pods = pods["items"].as_array().cloned().unwrap_or_default();
    nodes.iter().all(|node| pods.iter().any(|pod| pod["spec"]["nodeName"] == node.name && is_ready(pod)))
}

/// Where the administrator works: with the repository's docs, and hoist and kubectl that a shell finds.
fn folder() -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("e2e-in-1-site");
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(folder.join("addons")).unwrap();
    fs::create_dir(folder.join("bin")).unwrap();
    symlink(repository().join("docs"), folder.join("docs")).unwrap();
    symlink(hoist(), folder.join("bin/hoist")).unwrap();
    folder
}

/// A shell's command in the administrator's folder.
fn here(folder: &Path, command: &str) -> Ended {
    let path = std::env::var("PATH").unwrap_or_default();
    let mut shell = Command::new("sh");
    shell.args(["-euc", command]).current_dir(folder).env("KUBECONFIG", folder.join("assets/auth/kubeconfig"));
    shell.env("PATH", format!("{}:{path}", folder.join("bin").display()));
    run(&mut shell, EXEC_LIMIT * 3)
}
