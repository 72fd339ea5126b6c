//! The command with which systemd would run the kubelet, once hoist's unit or drop-in is there. Another drop-in may
//! override it. See systemd.unit(5).

use std::collections::BTreeMap;

use super::Facts;
use crate::base::error::Finding;
use crate::node::host::Host;
use crate::node::kubelet;

/// Where systemd looks for units and their drop-ins: of files of one name, the first one counts.
const FOLDERS: [&str; 7] = [
    "/etc/systemd/system.control",
    "/run/systemd/system.control",
    "/etc/systemd/system",
    "/run/systemd/system",
    "/usr/local/lib/systemd/system",
    "/usr/lib/systemd/system",
    "/lib/systemd/system",
];
/// The drop-ins of the kubelet's unit, and those of all services.
const OF_UNITS: [&str; 2] = ["kubelet.service.d", "service.d"];
/// What tells the kubelet its Node's name and address.
const ENVIRONMENT: &str = "/etc/kubernetes/kubelet.env";
/// Without one of these the kubelet knows no folder of static pods.
const STATIC_PODS: [&str; 2] = ["--config", "--pod-manifest-path"];

pub(super) fn command(facts: &Facts) -> Vec<Finding> {
    if !kubelet::is_systemd(&facts.host) {
        return Vec::new();
    }
    let is_drop_in = has_other_unit(&facts.host);
    let own = kubelet::DROP_IN.rsplit('/').next().unwrap_or_default();
    // hoist's own takes back what comes before it.
    let comes_after = |name: &str| name != own && (!is_drop_in || name > own);
    let later = drop_ins(&facts.host).into_iter().filter(|(name, _)| comes_after(name));
    let mut run = Run { commands: vec![Command::Hoists], emptied_by: None, unnamed_by: None };
    for (_, file) in later {
        run.read(&file, &facts.read(&file));
    }
    let rename = if is_drop_in { format!(", or give it a name that sorts before {own}") } else { String::new() };
    let remedy = format!(
        "take ExecStart and EnvironmentFile out of it{rename}: settings of the kubelet belong into kubelet.config in cluster.yaml. `systemctl cat kubelet` shows what systemd reads"
    );
    run.judge().map(|finding| finding.remedy(remedy)).into_iter().collect()
}

/// Whether hoist installs a drop-in, for there is a unit of somebody else's; otherwise it installs the unit.
fn has_other_unit(host: &Host) -> bool {
    let begins =
        |path: &str| std::fs::read_to_string(host.path(path)).is_ok_and(|text| text.starts_with(kubelet::UNIT_BEGINS));
    let has_unit = |folder: &&str| host.path(folder).join("kubelet.service").is_file();
    !begins(kubelet::UNIT) && FOLDERS.iter().any(has_unit)
}

/// The drop-ins of the kubelet's unit in systemd's order, by their names: in whichever folder they are.
fn drop_ins(host: &Host) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for folder in OF_UNITS.iter().flat_map(|unit| FOLDERS.map(|folder| format!("{folder}/{unit}"))) {
        for entry in std::fs::read_dir(host.path(&folder)).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.ends_with(".conf") {
                found.entry(name.clone()).or_insert_with(|| format!("{folder}/{name}"));
            }
        }
    }
    found
}

/// A command of the unit.
#[derive(Debug, PartialEq, Eq)]
enum Command {
    /// hoist's.
    Hoists,
    /// That of a drop-in.
    Of { file: String, line: String },
}

/// What systemd makes of all of them.
struct Run {
    commands: Vec<Command>,
    /// Which drop-in has taken the commands away.
    emptied_by: Option<String>,
    /// Which drop-in has taken away what tells the kubelet its name.
    unnamed_by: Option<String>,
}

impl Run {
    fn read(&mut self, file: &str, text: &str) {
        for (key, value) in assignments(text) {
            match (key.as_str(), value.as_str()) {
                ("ExecStart", "") => {
                    self.commands.clear();
                    self.emptied_by = Some(file.to_owned());
                }
                ("ExecStart", line) => {
                    self.commands.push(Command::Of { file: file.to_owned(), line: line.to_owned() });
                }
                ("EnvironmentFile", "") => self.unnamed_by = Some(file.to_owned()),
                ("EnvironmentFile", path) if path.trim_start_matches('-') == ENVIRONMENT => self.unnamed_by = None,
                _ => {}
            }
        }
    }

    fn judge(self) -> Option<Finding> {
        let refused = "systemd refuses such a unit, and the kubelet does not run";
        match (&self.commands[..], self.emptied_by, self.unnamed_by) {
            ([Command::Hoists], _, None) => None,
            ([Command::Hoists], _, Some(file)) => {
                let message = format!(
                    "takes {ENVIRONMENT} away from the kubelet, which then does not get its Node's name and address"
                );
                Some(Finding::new(file, message).warning())
            }
            ([Command::Of { file, line }], ..) => {
                let message = format!("sets how the kubelet is run, in place of hoist: {line}");
                if finds_static_pods(line) {
                    return Some(Finding::new(file, message).warning());
                }
                let message = format!("{message}; a kubelet without --config runs no static pod");
                Some(Finding::new(file, message))
            }
            ([], file, _) => {
                let message = format!("takes away the command of the kubelet's unit: {refused}");
                Some(Finding::new(file.unwrap_or_default(), message))
            }
            ([.., last], ..) => {
                let file = match last {
                    Command::Of { file, .. } => file.as_str(),
                    Command::Hoists => "",
                };
                let message = format!("adds a command to that of the kubelet's unit: {refused}");
                Some(Finding::new(file, message))
            }
        }
    }
}

/// Whether a command may tell the kubelet where static pods are. One with variables, or of another program, may.
fn finds_static_pods(line: &str) -> bool {
    let program = line.split_whitespace().next().unwrap_or_default().trim_start_matches(['-', '@', ':', '+', '!']);
    program.rsplit('/').next() != Some("kubelet")
        || line.contains('$')
        || STATIC_PODS.iter().any(|flag| line.contains(flag))
}

/// The assignments of the section Service, in order: a line may go on in the next.
fn assignments(text: &str) -> Vec<(String, String)> {
    let (mut found, mut is_service, mut begun) = (Vec::new(), false, String::new());
    for line in text.lines().map(str::trim) {
        if line.starts_with(['#', ';']) {
            continue;
        }
        if let Some(begins) = line.strip_suffix('\\') {
            begun = format!("{begun}{begins} ");
            continue;
        }
        let line = std::mem::take(&mut begun) + line;
        if line.starts_with('[') {
            is_service = line == "[Service]";
        } else if let Some((key, value)) = line.split_once('=').filter(|_| is_service) {
            let value = value.split_whitespace().collect::<Vec<_>>().join(" ");
            found.push((key.trim().to_owned(), value));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Machine, said};
    use super::*;

    const PACKAGES: &str = "[Unit]\nDescription=kubelet\n[Service]\nExecStart=/usr/bin/kubelet\n";
    const KUBEADMS: &str = "# Note\n[Service]\nEnvironmentFile=-/etc/default/kubelet\nExecStart=\nExecStart=/usr/bin/kubelet $KUBELET_CONFIG_ARGS $KUBELET_EXTRA_ARGS\n";

    /// A machine that systemd runs, with these drop-ins and the unit of a package, if it has one.
    fn machine(has_unit: bool, drop_ins: &[(&str, &str)]) -> Machine {
        let machine = Machine::new();
        machine.put("/run/systemd/system/x", "");
        if has_unit {
            machine.put("/usr/lib/systemd/system/kubelet.service", PACKAGES);
        }
        for (path, text) in drop_ins {
            machine.put(path, text);
        }
        machine
    }

    fn found(has_unit: bool, drop_ins: &[(&str, &str)]) -> Vec<String> {
        said(&command(&machine(has_unit, drop_ins).facts("")))
    }

    #[test]
    fn what_comes_before_hoists_or_leaves_the_command_alone_passes() {
        const KUBEADM: &str = "/usr/lib/systemd/system/kubelet.service.d/10-kubeadm.conf";
        const LATER: &str = "/etc/systemd/system/kubelet.service.d/override.conf";
        assert!(found(false, &[]).is_empty() && found(true, &[]).is_empty());
        assert!(found(true, &[(KUBEADM, KUBEADMS)]).is_empty(), "hoist's sorts after it");
        for text in [
            "",
            "[Service]\nEnvironment=A=1\nRestartSec=5\n",
            "[Install]\nExecStart=/bin/x\n",
            "[Service]\n#ExecStart=\n",
        ] {
            assert!(found(true, &[(LATER, text)]).is_empty(), "{text}");
        }
        // The machine's own, of an earlier run.
        let own = [(kubelet::DROP_IN, "[Service]\nExecStart=\nExecStart=/usr/bin/kubelet --config=x\n")];
        assert!(found(true, &own).is_empty());
        // One in /etc stands for those of its name elsewhere, and there it is masked.
        let masked = [(LATER, ""), ("/usr/lib/systemd/system/kubelet.service.d/override.conf", KUBEADMS)];
        assert!(found(true, &masked).is_empty());
        let machine = Machine::new();
        machine.put(LATER, KUBEADMS);
        assert!(command(&machine.facts("")).is_empty(), "nothing is run by systemd");
    }

    #[test]
    fn a_command_of_somebody_elses_that_comes_later() {
        const LATER: &str = "/etc/systemd/system/kubelet.service.d/90-local.conf";
        let says = |text: &str| found(true, &[(LATER, text)]);
        let theirs = "sets how the kubelet is run, in place of hoist";
        assert_eq!(
            says("[Service]\nExecStart=\nExecStart=/usr/bin/kubelet \\\n  --config=/k \\\n  --v=2\n"),
            [format!("{LATER}: warning: {theirs}: /usr/bin/kubelet --config=/k --v=2")]
        );
        assert_eq!(
            says("[Service]\nExecStart=\nExecStart=-/usr/bin/kubelet --v=2\n"),
            [format!("{LATER}: {theirs}: -/usr/bin/kubelet --v=2; a kubelet without --config runs no static pod")]
        );
        assert!(says("[Service]\nExecStart=\nExecStart=/opt/run-kubelet\n")[0].contains(": warning: "));
        assert!(says("[Service]\nExecStart=\n")[0].contains("takes away the command of the kubelet's unit"));
        assert!(says("[Service]\nExecStart=/usr/bin/kubelet --config=/k\n")[0].contains("adds a command to that"));
        assert!(says("[Service]\nEnvironmentFile=\n")[0].contains("warning: takes /etc/kubernetes/kubelet.env away"));
        let again = "[Service]\nEnvironmentFile=\nEnvironmentFile=-/etc/kubernetes/kubelet.env\n";
        assert!(says(again).is_empty());
        for folder in ["/run/systemd/system/kubelet.service.d", "/usr/lib/systemd/system/service.d"] {
            let path = format!("{folder}/20-later.conf");
            assert_eq!(found(true, &[(&path, KUBEADMS)]).len(), 1, "{path}");
        }
    }

    #[test]
    fn beside_hoists_own_unit_every_command_is_later() {
        const KUBEADM: &str = "/etc/systemd/system/kubelet.service.d/10-kubeadm.conf";
        let left = machine(false, &[(KUBEADM, KUBEADMS)]);
        let findings = command(&left.facts(""));
        assert!(
            said(&findings)[0].starts_with(&format!("{KUBEADM}: warning: sets how the kubelet is run")),
            "{findings:?}"
        );
        assert!(!findings[0].remedy.as_ref().unwrap().contains("sorts before"), "no name would help: {findings:?}");
        left.put(kubelet::UNIT, format!("{}. Where\n", kubelet::UNIT_BEGINS));
        assert_eq!(command(&left.facts("")), findings);
        left.put(kubelet::UNIT, PACKAGES);
        assert!(command(&left.facts("")).is_empty(), "it is a drop-in that hoist puts beside it");
    }
}
