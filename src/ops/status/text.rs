//! The status for people.

use std::fmt;

use super::{Certificate, Endpoint, EtcdStatus, Member, Pod, Server, Status};
use crate::plane::hand_over::Target;

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "node {} at {}", self.node.name, self.node.address)?;
        for condition in &self.node.conditions {
            writeln!(f, "  {:<20} {:<8} {}", condition.kind, condition.status, condition.message)?;
        }
        writeln!(f, "API: {}", served_by(self.api.served_by))?;
        for Endpoint { name, address, answer, .. } in &self.api.endpoints {
            writeln!(f, "  {:<12} {:<22} {answer}", name, address.to_string())?;
        }
        writeln!(f, "bridge: {}", self.bridge.state)?;
        self.bridge_parts().iter().try_for_each(|part| writeln!(f, "  {part}"))?;
        section(f, "pods of the control plane", &self.pods, pod)?;
        section(f, "leaders", &self.leaders, |leader| {
            let ago = leader.renewed_seconds_ago.map_or("never".to_owned(), |ago| format!("{ago} s ago"));
            let holder = if leader.holder.is_empty() { "nobody" } else { &leader.holder };
            let word = if leader.alive { "alive" } else { "gone" };
            format!("{:<24} {holder}, renewed {ago}: {word}", leader.lease)
        })?;
        if let Some(EtcdStatus { alarms, size, quota, members }) = &self.etcd {
            writeln!(f, "etcd: {}{}", database(*size, *quota), raised(alarms))?;
            members.iter().try_for_each(|one| writeln!(f, "  {}", member(one)))?;
        }
        section(f, "certificates", &self.certificates, certificate)?;
        section(f, "warnings", &self.warnings, String::clone)?;
        if let Some(next) = &self.next {
            let command = if self.is_static() { Target::Static.command() } else { Target::SelfHosted.command() };
            writeln!(f, "next step of `{command}`: {}", next.what)?;
        }
        match (self.healthy, self.is_static()) {
            (true, false) => return writeln!(f, "the cluster is self-hosted and healthy"),
            (true, true) => return writeln!(f, "the control plane is static pods, and healthy"),
            (false, false) => writeln!(f, "this is no healthy self-hosted cluster:")?,
            (false, true) => writeln!(f, "this is no healthy control plane of static pods:")?,
        }
        self.problems.iter().try_for_each(|problem| writeln!(f, "  - {problem}"))
    }
}

impl Status {
    fn is_static(&self) -> bool {
        self.control_plane == Target::Static.name()
    }

    /// What there is of a bridge that is not gone.
    fn bridge_parts(&self) -> Vec<String> {
        let bridge = &self.bridge;
        let manifests = match (bridge.api_server, bridge.controllers) {
            (false, 0) => None,
            (true, count) => Some(format!("manifests: the API server's, and {count} of 2 controllers'")),
            (false, count) => Some(format!("manifests: {count} of 2 controllers'")),
        };
        let processes = (!bridge.processes.is_empty()).then(|| format!("processes: {}", bridge.processes.join(", ")));
        let files = bridge.files.then(|| "its keys and hoist's binary are on the disk".to_owned());
        manifests.into_iter().chain(processes).chain(files).collect()
    }
}

fn section<T>(f: &mut fmt::Formatter<'_>, title: &str, items: &[T], line: impl Fn(&T) -> String) -> fmt::Result {
    if items.is_empty() {
        return Ok(());
    }
    writeln!(f, "{title}:")?;
    items.iter().try_for_each(|item| writeln!(f, "  {}", line(item)))
}

fn served_by(server: Server) -> &'static str {
    match server {
        Server::SelfHosted => "served by the self-hosted API server",
        Server::Static => "served by the API server that is a static pod for good",
        Server::Bridge => "served by the bridge, through the forwarder",
        Server::Other => "served by a program that hoist does not know",
        Server::Nobody => "served by nobody",
    }
}

fn pod(pod: &Pod) -> String {
    let kind = if pod.is_static { "static" } else { "self-hosted" };
    let state = pod.reason.clone().unwrap_or_else(|| "ready".into());
    format!("{:<46} {kind:<12} {state}, restarts: {}", pod.name, pod.restarts)
}

fn database(size: i64, quota: i64) -> String {
    format!("{} MiB of {} MiB", size >> 20, quota >> 20)
}

fn raised(alarms: &[String]) -> String {
    if alarms.is_empty() { String::new() } else { format!(", alarms: {}", alarms.join(", ")) }
}

fn member(member: &Member) -> String {
    let role = if member.leader { "voter, leads" } else { member.role };
    let database = match member.size.zip(member.quota) {
        Some((size, quota)) => {
            let in_use = member.size_in_use.map_or_else(String::new, |in_use| format!(", {} MiB in use", in_use >> 20));
            format!("{}{in_use}", database(size, quota))
        }
        None => "does not answer".to_owned(),
    };
    let behind = match member.behind {
        None | Some(0) => String::new(),
        Some(entries) => format!(", {entries} entries behind"),
    };
    format!("{:<24} {role:<14} {database}{behind}{}", member.name, raised(&member.alarms))
}

fn certificate(certificate: &Certificate) -> String {
    let Certificate { place, subject, remaining_days, expired, .. } = certificate;
    let left = if *expired { "expired".to_owned() } else { format!("{remaining_days} days") };
    format!("{left:>10}  {place}  ({subject})")
}

#[cfg(test)]
mod tests {
    use super::super::bridge_status;
    use super::super::judge::tests::well;
    use crate::plane::bridge::State;

    #[test]
    fn people_see_it_all_on_one_page() {
        let mut status = well();
        insta::assert_snapshot!("healthy", status.to_string());
        insta::assert_snapshot!("json", serde_json::to_string_pretty(&status).unwrap());
        status.healthy = false;
        status.problems = vec!["nobody serves 10.0.0.1:6443".into()];
        (status.leaders, status.pods, status.node.conditions) = Default::default();
        status.certificates[0].expired = true;
        let processes = ["forwarder", "kube-apiserver"].map(str::to_owned).into();
        status.bridge = bridge_status(&State { api_server: true, controllers: 0, processes, files: true });
        insta::assert_snapshot!("broken", status.to_string());
    }
}
