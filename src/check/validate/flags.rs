//! Flags must be known to the version of the program that gets them.

use super::inventory::{Arg, Inventory, flags};
use crate::base::error::Finding;
use crate::base::yaml::Position;
use crate::desired::known_flags::{Program, Verdict, fits, verdict};

/// Flags that say of themselves that they are deprecated, and that kubeadm and hoist use: there is no other way, but a file.
const NO_OTHER_WAY: [(Program, &str); 2] = [(Program::Scheduler, "kubeconfig"), (Program::Scheduler, "profiling")];

pub(super) const UNIT: &str = "kubelet/kubelet.service";

pub(super) fn check(inventory: &Inventory<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    for running in &inventory.running() {
        let version = running.version(inventory.cluster);
        for arg in &running.args {
            let position = running.pod.object.position(&arg.path);
            let place = running.pod.object.place();
            findings.extend(judge(running.program, version, arg).map(|finding| named(finding, place).at(position)));
        }
        for (path, word) in &running.strays {
            let message = format!("{} takes no arguments, and would exit on this", running.program.name());
            let finding = Finding::new(running.pod.object.place(), format!("`{word}`: {message}"));
            findings.push(finding.at(running.pod.object.position(path)).remedy("write --FLAG=VALUE"));
        }
    }
    findings.extend(kubelet(inventory));
    findings
}

fn named(mut finding: Finding, place: &str) -> Finding {
    place.clone_into(&mut finding.place);
    finding
}

fn judge(program: Program, version: crate::desired::config::Version, arg: &Arg) -> Option<Finding> {
    let name = &*arg.name;
    let verdict = verdict(program, version, name);
    if let (Verdict::Known | Verdict::Deprecated, Err(why)) = (&verdict, fits(program, name, &arg.value)) {
        let message = format!("--{name}: `{}` {why}: {} would exit", arg.value, program.name());
        return Some(Finding::new("", message).remedy("correct the value"));
    }
    match verdict {
        Verdict::Known => None,
        Verdict::Deprecated if NO_OTHER_WAY.contains(&(program, name)) => None,
        Verdict::Deprecated => {
            let of = if program == Program::Etcd { "etcd for Kubernetes" } else { program.name() };
            let message = format!("--{name}: is deprecated in {of} 1.{}", version.minor);
            let remedy = format!("`{} --help` and the release notes say what replaces it", program.name());
            Some(Finding::new("", message).remedy(remedy).warning())
        }
        Verdict::Unknown { why, closest } => {
            let remedy = closest.map_or("remove it".to_owned(), |closest| format!("did you mean --{closest}?"));
            Some(Finding::new("", format!("--{name}: {why}")).remedy(remedy))
        }
    }
}

/// The flags that the kubelet's unit gives it.
fn kubelet(inventory: &Inventory<'_>) -> Vec<Finding> {
    let version = inventory.cluster.kubernetes_version;
    let place = inventory.place(UNIT);
    let judged = |arg: &Arg| Some(named(judge(Program::Kubelet, version, arg)?, &place).at(position(arg)));
    of_unit(inventory).unwrap_or_default().iter().filter_map(judged).collect()
}

/// The flags of the kubelet's unit, if it is there and runs a kubelet.
pub(super) fn of_unit(inventory: &Inventory<'_>) -> Option<Vec<Arg>> {
    let text = inventory.assets.text(UNIT).ok()?;
    let mut words: Vec<(String, String)> = Vec::new();
    let mut is_command = false;
    for (i, line) in text.lines().enumerate() {
        is_command |= line.starts_with("ExecStart=");
        if is_command {
            // A word's path is where it stands.
            for word in line.split_whitespace().filter(|word| *word != "\\") {
                let column = word.as_ptr() as usize - line.as_ptr() as usize + 1;
                words.push((format!("{}:{column}", i + 1), word.to_owned()));
            }
            is_command = line.trim_end().ends_with('\\');
        }
    }
    let at = words.iter().position(|(_, word)| word.rsplit(['/', '=']).next() == Some("kubelet"))?;
    Some(flags(Program::Kubelet, words.split_off(at + 1)).0)
}

/// Where a flag of the unit stands.
pub(super) fn position(arg: &Arg) -> Option<Position> {
    let (line, column) = arg.path.split_once(':')?;
    Some((line.parse().ok()?, column.parse().ok()?))
}
