//! Ways to lose a controller of several, and what clients see of it meanwhile.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use super::command::run;
use super::controller::LATER;
use super::eventually;
use super::node::{EXEC_LIMIT, Node, init_of};
use super::several::{Complaints, LABEL, Several};
use super::traffic::Record;

/// How long a member may take until it has what the others have.
const IN_SYNC: Duration = Duration::from_secs(20);

/// How much longer than at an endpoint requests may fail through the `kubernetes` Service: a dead address leaves it after 3 s,
/// and every kube-proxy hears of it then.
const SERVICE_LATER: Duration = Duration::from_secs(8);

/// What the clients saw of one event.
pub struct Saw {
    /// At a worker's endpoint.
    pub record: Record,
    /// In a pod, through the `kubernetes` Service.
    pub service: Record,
    /// When it was, by the first record's clock.
    pub at: Duration,
    event: Instant,
    /// How long it took until all was as it was.
    pub whole: Duration,
    what: String,
    complaints: Complaints,
}

impl Saw {
    /// The longest time without a success from the event on.
    pub fn gap(&self) -> Duration {
        self.record.longest_gap_within(self.at..self.record.lasted).0
    }

    pub fn nothing_failed(&self) {
        for record in [&self.record, &self.service] {
            self.complain(record, record.failures().count() == 0, "a request failed".into());
        }
    }

    /// Nothing failed but what etcd itself drops where leadership moves, while a write is on its way to the leader: one of a
    /// client's.
    pub fn nothing_failed_but_what_etcd_drops(&self) {
        for record in [&self.record, &self.service] {
            self.complain(
                record,
                record.fails_by_etcd_alone(),
                format!("{} requests failed", record.failures().count()),
            );
        }
    }

    /// No request failed that was sent later than that.
    pub fn fails_no_longer_than(&self, limit: Duration) {
        for (record, limit) in [(&self.record, limit), (&self.service, limit + SERVICE_LATER)] {
            let until = record.fails_until(event_of(record, self.event));
            self.complain(record, until <= limit, format!("a request failed that was sent {until:.2?} after it"));
        }
    }

    pub fn gap_is_no_longer_than(&self, limit: Duration) {
        for record in [&self.record, &self.service] {
            let (gap, _) = record.longest_gap_within(event_of(record, self.event)..record.lasted);
            self.complain(record, gap <= limit, format!("{gap:.2?} without a success"));
        }
    }

    fn complain(&self, record: &Record, is_right: bool, why: String) {
        if !is_right {
            let at = if std::ptr::eq(record, &self.service) { "the Service" } else { "the endpoint" };
            self.complaints.borrow_mut().push(format!("{}: at {at}: {why}: {record}", self.what));
        }
    }
}

/// When it was, by a record's clock.
fn event_of(record: &Record, event: Instant) -> Duration {
    event.saturating_duration_since(record.ready)
}

impl Several {
    /// Does it while clients ask at the first worker's endpoint, and until all is as it was; every write that was acknowledged
    /// is in every member then.
    #[track_caller]
    pub fn during(&self, what: &str, act: impl FnOnce(), until: impl FnOnce()) -> Saw {
        self.during_at(what, &self.controllers.iter().collect::<Vec<_>>(), act, until)
    }

    /// The same where these alone are controllers in the end.
    #[track_caller]
    pub fn during_at(&self, what: &str, controllers: &[&Node], act: impl FnOnce(), until: impl FnOnce()) -> Saw {
        self.until_known();
        let elections = self.elections();
        let in_pod = self.traffic_of_pod();
        let traffic = self.traffic(&self.workers[0]);
        let event = Instant::now();
        act();
        let acted = event.elapsed();
        until();
        let whole = event.elapsed();
        std::thread::sleep(Duration::from_secs(1));
        let (record, service) = (traffic.end().unwrap(), in_pod.end().expect("the Service has answered"));
        eprintln!("{what}: the act took {acted:.2?}, whole after {whole:.1?}");
        eprintln!("  elections seen by each member, before and after: {elections:?}, {:?}", self.elections());
        for (at, record) in [("the endpoint", &record), ("the Service", &service)] {
            let event = event_of(record, event);
            let (gap, end) = record.longest_gap_within(event..record.lasted);
            eprintln!(
                "  at {at}: {} failed, the last one sent {:.2?} after it; longest time without a success {gap:.2?}, ended \
                 {:.2?} after it\n    {}",
                record.failures().count(),
                record.fails_until(event),
                end.saturating_sub(event),
                record.to_string().replace('\n', "\n    ")
            );
            self.nothing_is_lost(record, controllers);
        }
        let at = event_of(&record, event);
        Saw { record, service, at, event, whole, what: what.to_owned(), complaints: self.complaints.clone() }
    }

    /// Every write that was acknowledged is in the member of each of these.
    #[track_caller]
    pub fn nothing_is_lost(&self, record: &Record, controllers: &[&Node]) {
        let written: Vec<_> = record.acknowledged().into_iter().map(str::to_owned).collect();
        assert!(written.len() > 20, "too few writes to show anything: {record}");
        for node in controllers {
            let (begun, mut lacks) = (Instant::now(), self.lacks(node, &written));
            while !lacks.is_empty() && begun.elapsed() < IN_SYNC {
                std::thread::sleep(Duration::from_millis(500));
                lacks = self.lacks(node, &written);
            }
            assert!(lacks.is_empty(), "acknowledged, and not in the member of {}: {lacks:?}", node.name);
        }
    }

    /// Another flag of the API server's, until all of them have it.
    #[track_caller]
    pub fn edit(&self, flag: &str) {
        let path = "/spec/template/spec/containers/0/command/-";
        let patch = serde_json::json!([{"op": "add", "path": path, "value": flag}]).to_string();
        let args = ["patch", "-n", "kube-system", "daemonset/kube-apiserver", "--type=json", "-p", &patch];
        let kubectl = self.kubectl_of_any();
        kubectl.run(&args).ok();
        eventually("the edit is rolled out", LATER * 2, || {
            let args = ["get", "-n", "kube-system", "daemonset/kube-apiserver", "-o", "json"];
            let set: serde_json::Value = serde_json::from_str(&kubectl.run(&args).stdout).ok()?;
            let status = &set["status"];
            let is_seen = status["observedGeneration"] == set["metadata"]["generation"];
            let are_all = |field: &str| status[field] == self.controllers.len();
            (is_seen && are_all("updatedNumberScheduled") && are_all("numberAvailable")).then_some(())
        });
    }

    /// Makes a worker of a controller.
    #[track_caller]
    pub fn unlabel(&self, name: &str) {
        self.kubectl_of_any().run(&["label", "node", name, &format!("{LABEL}-")]).ok();
    }
}

/// As an administrator changes a flag of etcd's on one controller: docs/controllers.md. Waits until etcd has it.
#[track_caller]
pub fn edit_etcd(node: &Node, from: &str, to: &str) {
    let edit = format!(
        "sed 's/{from}/{to}/' etcd.yaml >/etc/kubernetes/etcd.yaml.new && mv /etc/kubernetes/etcd.yaml.new etcd.yaml"
    );
    node.sh(&format!("cd /etc/kubernetes/manifests && grep -q -e {from} etcd.yaml && {edit}"));
    eventually("etcd runs with its new flag", LATER, || {
        node.exec(["pgrep", "-f", &format!("^etcd .*{to}")]).code.eq(&Some(0)).then_some(())
    });
}

/// Sends a signal to every process of a program in a node.
pub fn signal(node: &Node, signal: &str, program: &str) {
    node.sh(&format!("pkill -{signal} -x {program}"));
}

/// Cuts the power of a node: the cable goes first, so that nobody hears of it.
pub fn lose(node: &Node) {
    let address = node.address.to_string();
    let link = format!("hoist-{}", address.rsplit('.').next().unwrap());
    run(Command::new("ip").args(["link", "set", &link, "down"]), EXEC_LIMIT).ok();
    node.power_cut();
}

/// As an administrator reboots a machine.
pub fn reboot(node: &Node) {
    let init = init_of(node);
    node.exec(["systemctl", "reboot"]);
    eventually("the node is off", LATER, || (!Path::new("/proc").join(&init).exists()).then_some(()));
    node.boot();
}

/// Cuts a node off from others, so that nobody is told, or lets it be reached again.
pub fn cut_off(node: &Node, others: &[&Node], is_one_way: bool, is_cut: bool) {
    let act = if is_cut { "-I" } else { "-D" };
    for other in others {
        node.sh(&format!("iptables -w {act} INPUT -s {} -j DROP", other.address));
        if !is_one_way {
            node.sh(&format!("iptables -w {act} OUTPUT -d {} -j DROP", other.address));
        }
    }
}
