//! The flags that each program of a control plane takes, in each supported version of Kubernetes.
//! `scripts/known-flags` reads them from the programs themselves.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use crate::desired::config::Version;

mod values;

pub use values::{boolean, fits};

/// A program whose flags are known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Program {
    /// kube-apiserver.
    ApiServer,
    /// kube-controller-manager.
    ControllerManager,
    /// kube-scheduler.
    Scheduler,
    /// The kubelet.
    Kubelet,
    /// etcd, of the version that goes with Kubernetes'.
    Etcd,
}

impl Program {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::ApiServer, Self::ControllerManager, Self::Scheduler, Self::Kubelet, Self::Etcd];

    /// Its name, as commands have it.
    pub fn name(self) -> &'static str {
        match self {
            Self::ApiServer => "kube-apiserver",
            Self::ControllerManager => "kube-controller-manager",
            Self::Scheduler => "kube-scheduler",
            Self::Kubelet => "kubelet",
            Self::Etcd => "etcd",
        }
    }

    fn table(self) -> &'static BTreeMap<&'static str, Flag> {
        &TABLES[self as usize]
    }
}

/// What a flag's value is, as far as it matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Bool,
    Int,
    Uint,
    Float,
    Duration,
}

/// A flag, and how it changed. Versions are minor versions of Kubernetes 1.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Flag {
    kind: Option<Kind>,
    deprecated: Option<u32>,
    since: Option<u32>,
    until: Option<u32>,
}

/// What a version says to a flag.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It takes it.
    Known,
    /// It takes it, but not for much longer.
    Deprecated,
    /// It does not take it: why, and what was likely meant.
    Unknown {
        /// Completes "`--flag` …".
        why: String,
        /// The closest name that it does take.
        closest: Option<&'static str>,
    },
}

/// What `program` of `version` says to `flag`, a name without dashes in front.
pub fn verdict(program: Program, version: Version, flag: &str) -> Verdict {
    let found = program.table().get(&*canonical(program, flag));
    let is_there =
        |flag: &Flag| flag.since.is_none_or(|v| version.minor >= v) && flag.until.is_none_or(|v| version.minor <= v);
    match found {
        Some(flag) if is_there(flag) => match flag.deprecated {
            Some(from) if version.minor >= from => Verdict::Deprecated,
            _ => Verdict::Known,
        },
        found => {
            // etcd is of another version, which goes with Kubernetes'.
            let name = if program == Program::Etcd { "etcd for Kubernetes" } else { program.name() };
            let minor = version.minor;
            let why = match found {
                Some(Flag { since: Some(since), .. }) if minor < *since => {
                    format!("was added in Kubernetes 1.{since}, and {name} is of 1.{minor}")
                }
                Some(Flag { until: Some(until), .. }) => {
                    format!("was removed in Kubernetes 1.{}, and {name} is of 1.{minor}", until + 1)
                }
                _ => format!("is not a flag of {name} 1.{minor}"),
            };
            let likeness = |other: &str| strsim::jaro_winkler(flag, other);
            let known = program.table().iter().filter(|(_, flag)| is_there(flag)).map(|(name, _)| *name);
            let closest = known.max_by(|a, b| likeness(a).total_cmp(&likeness(b)));
            Verdict::Unknown { why, closest: closest.filter(|name| likeness(name) > 0.85) }
        }
    }
}

/// Whether a flag may stand without a value: the word behind it is another argument then.
pub fn is_bool(program: Program, flag: &str) -> bool {
    kind(program, flag) == Some(Kind::Bool)
}

fn kind(program: Program, flag: &str) -> Option<Kind> {
    program.table().get(&*canonical(program, flag))?.kind
}

/// Every flag of `program` in Kubernetes 1.`minor`, and whether it is deprecated there.
pub fn all(program: Program, minor: u32) -> impl Iterator<Item = (&'static str, bool)> {
    let there = move |flag: &Flag| flag.since.is_none_or(|v| minor >= v) && flag.until.is_none_or(|v| minor <= v);
    let table = program.table().iter().filter(move |(_, flag)| there(flag));
    table.map(move |(name, flag)| (*name, flag.deprecated.is_some_and(|from| minor >= from)))
}

/// Kubernetes' programs take `_` for `-`.
fn canonical(program: Program, flag: &str) -> String {
    if program == Program::Etcd { flag.to_owned() } else { flag.replace('_', "-") }
}

static TABLES: LazyLock<[BTreeMap<&'static str, Flag>; 5]> = LazyLock::new(|| {
    [
        include_str!("../../../assets/known-flags/kube-apiserver"),
        include_str!("../../../assets/known-flags/kube-controller-manager"),
        include_str!("../../../assets/known-flags/kube-scheduler"),
        include_str!("../../../assets/known-flags/kubelet"),
        include_str!("../../../assets/known-flags/etcd"),
    ]
    .map(|text| text.lines().filter(|line| !line.starts_with('#')).filter_map(parse).collect())
});

fn parse(line: &'static str) -> Option<(&'static str, Flag)> {
    let mut words = line.split(' ');
    let name = words.next()?;
    let mut flag = Flag::default();
    for word in words {
        let (key, value) = word.split_once('=').unwrap_or((word, ""));
        let minor = value.strip_prefix("1.").and_then(|minor| minor.parse().ok());
        match key {
            "bool" => flag.kind = Some(Kind::Bool),
            "int" => flag.kind = Some(Kind::Int),
            "uint" => flag.kind = Some(Kind::Uint),
            "float" => flag.kind = Some(Kind::Float),
            "duration" => flag.kind = Some(Kind::Duration),
            "deprecated" => flag.deprecated = minor,
            "since" => flag.since = minor,
            "until" => flag.until = minor,
            _ => return None,
        }
    }
    Some((name, flag))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(program: Program, minor: u32, flag: &str) -> Verdict {
        verdict(program, Version { major: 1, minor, patch: 0 }, flag)
    }

    #[test]
    fn every_line_of_the_tables_is_understood() {
        for program in Program::ALL {
            let text = std::fs::read_to_string(format!("assets/known-flags/{}", program.name())).unwrap();
            assert_eq!(program.table().len(), text.lines().count() - 1, "{program:?}");
            assert!(program.table().len() > 50, "{program:?}");
        }
    }

    #[test]
    fn flags_come_and_go_with_versions() {
        let unknown = |why: &str, closest| Verdict::Unknown { why: why.to_owned(), closest };
        for (program, minor, flag, expected) in [
            (Program::ApiServer, 36, "tls-curve-preferences", Verdict::Known),
            (
                Program::ApiServer,
                35,
                "tls-curve-preferences",
                unknown("was added in Kubernetes 1.36, and kube-apiserver is of 1.35", None),
            ),
            (Program::Kubelet, 34, "pod-infra-container-image", Verdict::Deprecated),
            (
                Program::Kubelet,
                35,
                "pod-infra-container-image",
                unknown("was removed in Kubernetes 1.35, and kubelet is of 1.35", None),
            ),
            (Program::Kubelet, 36, "containerd", Verdict::Deprecated),
            (
                Program::Kubelet,
                37,
                "containerd",
                unknown("was removed in Kubernetes 1.37, and kubelet is of 1.37", None),
            ),
            (
                Program::ControllerManager,
                37,
                "concurrent-service-syncs",
                unknown("was removed in Kubernetes 1.37, and kube-controller-manager is of 1.37", None),
            ),
            (
                Program::Etcd,
                37,
                "experimental-compaction-batch-limit",
                unknown("was removed in Kubernetes 1.37, and etcd for Kubernetes is of 1.37", None),
            ),
            (Program::ApiServer, 36, "audit_log_maxage", Verdict::Known),
            (Program::Etcd, 36, "data_dir", unknown("is not a flag of etcd for Kubernetes 1.36", Some("data-dir"))),
            (
                Program::Scheduler,
                36,
                "leader-elct",
                unknown("is not a flag of kube-scheduler 1.36", Some("leader-elect")),
            ),
            (Program::Scheduler, 36, "x", unknown("is not a flag of kube-scheduler 1.36", None)),
        ] {
            let found = of(program, minor, flag);
            // The closest name matters where a slip is likely.
            match (&found, &expected) {
                (Verdict::Unknown { why, .. }, Verdict::Unknown { why: wanted, closest: None }) => {
                    assert_eq!(why, wanted)
                }
                _ => assert_eq!(found, expected, "{flag}"),
            }
        }
    }

    #[test]
    fn a_flag_of_two_words() {
        assert!(is_bool(Program::ApiServer, "allow-privileged"));
        assert!(!is_bool(Program::ApiServer, "secure-port"));
        assert!(is_bool(Program::Etcd, "client-cert-auth"));
    }
}
