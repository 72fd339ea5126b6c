//! The default levels of the Pod Security Standards, for namespaces whose labels name none.

use super::check::Check;
use super::raw;
use crate::base::yaml::child;

/// A level of the Pod Security Standards.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// Nothing is held against a pod.
    Privileged,
    /// What is known to lead to more privileges.
    Baseline,
    /// Whatever hardening asks for.
    Restricted,
}

const LEVELS: [(&str, Level); 3] =
    [("privileged", Level::Privileged), ("baseline", Level::Baseline), ("restricted", Level::Restricted)];

impl Level {
    /// As Kubernetes writes it.
    pub fn name(self) -> &'static str {
        LEVELS.iter().find(|(_, level)| *level == self).map_or("privileged", |(name, _)| name)
    }
}

/// The levels of namespaces without labels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PodSecurity {
    /// Pods beyond it are refused.
    pub enforce: Level,
    /// Pods beyond it are noted in the audit log.
    pub audit: Level,
    /// Whoever makes pods beyond it is warned.
    pub warn: Level,
}

impl Default for PodSecurity {
    /// Nothing that runs elsewhere is refused.
    fn default() -> Self {
        Self { enforce: Level::Privileged, audit: Level::Baseline, warn: Level::Baseline }
    }
}

/// The levels that `raw` names.
pub(super) fn pod_security(check: &mut Check<'_>, raw: Option<&raw::PodSecurity>) -> PodSecurity {
    let default = PodSecurity::default();
    let Some(raw) = raw else { return default };
    let mut level = |field: &str, value: &Option<String>, default: Level| {
        let Some(value) = value else { return default };
        let known = LEVELS.iter().find(|(name, _)| name == value);
        if known.is_none() {
            let remedy = "known: privileged, baseline, restricted".to_owned();
            let message = format!("`{value}` is not a level of the Pod Security Standards");
            check.wrong(&child("podSecurity", field), message, remedy);
        }
        known.map_or(default, |(_, level)| *level)
    };
    PodSecurity {
        enforce: level("enforce", &raw.enforce, default.enforce),
        audit: level("audit", &raw.audit, default.audit),
        warn: level("warn", &raw.warn, default.warn),
    }
}
