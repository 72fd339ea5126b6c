//! One run of `start`: its parameters, and what it remembers of its own acts. What it observes is
//! [`Observed`](crate::plane::hand_over::Observed).

use std::path::Path;
use std::time::Duration;

use tokio::time::Instant;

use super::decide::Memory;
use crate::api::apply::Refusal;
use crate::api::observe::Required;
use crate::desired::assets::{AssetSet, Manifest};
use crate::desired::config::{Cluster, Controller};
use crate::node::host::Host;
use crate::node::kubelet::UnitState;
use crate::node::lock::Lock;
use crate::node::rollback::Before;
use crate::ops::explain::PodLogs;
use crate::plane::hand_over::Target;
use crate::plane::{guard_pod, kept_copy};

/// What a run takes for granted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// A cluster that is up is as it should be: nothing is done.
    Start,
    /// Something of it may be missing, whatever serves now: the bridge is raised, and what is missing is put back.
    Recover {
        /// What was edited in the cluster does not stand.
        force_manifests: bool,
    },
}

impl Mode {
    /// The command that a user types for it.
    pub(super) fn command(self) -> &'static str {
        match self {
            Self::Start => "hoist start",
            Self::Recover { .. } => "hoist recover",
        }
    }
}

/// One run: what is fixed, and the little that it knows of its own doings.
pub(super) struct Run<'a> {
    pub(super) fixed: Fixed<'a>,
    /// What guard shall keep of them; `None` where there shall be no guard.
    pub(super) guard: Option<kept_copy::Copy>,
    /// This run has kept it in the cluster, too.
    pub(super) kept_copy: bool,
    /// Why what it did last came to nothing.
    pub(super) trouble: Option<String>,
    /// The ends of logs that the kubelet may delete before anybody explains by them.
    pub(super) pod_logs: PodLogs,
    pub(super) applied: bool,
    pub(super) made_token: bool,
    /// When this run last started the kubelet.
    pub(super) kubelet_since: Option<Instant>,
    /// This run has started the kubelet anew for the API's sake.
    pub(super) kubelet_knows: bool,
    /// This run has raised the bridge; whether that left the kubelet with something to wait for.
    pub(super) raised: Option<bool>,
    pub(super) has_replaced: bool,
    pub(super) has_lowered: bool,
    pub(super) refused: Vec<Refusal>,
    /// Keeps others from this node, while this run changes it; see [`Run::may_act`].
    pub(super) lock: Option<Lock>,
    /// How the disk and the kubelet's unit stood before this run's first raise.
    pub(super) before: Option<(Before, Option<UnitState>)>,
}

/// What is fixed of a run.
#[derive(Clone, Copy)]
pub(super) struct Fixed<'a> {
    pub(super) host: &'a Host,
    pub(super) cluster: &'a Cluster,
    pub(super) controller: &'a Controller,
    pub(super) required: &'a [Required],
    pub(super) kubeconfig: &'a str,
    pub(super) asset_dir: &'a Path,
    pub(super) assets: &'a AssetSet,
    pub(super) manifests: &'a [Manifest],
    pub(super) binary: &'a Path,
    pub(super) mode: Mode,
    pub(super) target: Target,
    /// Where there is no data of etcd's, it begins a cluster.
    pub(super) may_begin: bool,
}

impl<'a> Fixed<'a> {
    /// A run towards `target` that has nothing to apply: `nothing` is an empty asset directory.
    pub(super) fn without_assets(
        host: &'a Host,
        (cluster, controller): (&'a Cluster, &'a Controller),
        required: &'a [Required],
        kubeconfig: &'a str,
        nothing: &'a AssetSet,
        target: Target,
    ) -> Self {
        Self {
            host,
            cluster,
            controller,
            required,
            kubeconfig,
            asset_dir: Path::new(""),
            assets: nothing,
            manifests: &[],
            binary: Path::new(""),
            mode: Mode::Start,
            target,
            may_begin: false,
        }
    }
}

impl<'a> Run<'a> {
    /// One that has done nothing yet.
    pub(super) fn new(fixed: Fixed<'a>) -> Self {
        let Fixed { assets, cluster, controller, .. } = fixed;
        let wanted = guard_pod::is_wanted(assets);
        Self {
            fixed,
            guard: wanted.then(|| {
                let copy = kept_copy::Copy::new(assets, cluster, controller);
                kept_copy::Copy { asset_dir: Some(fixed.asset_dir.to_owned()), ..copy }
            }),
            kept_copy: !wanted,
            trouble: None,
            pod_logs: PodLogs::default(),
            applied: false,
            // Where nothing in the cluster signs, a token leads to no certificate.
            made_token: cluster.has_external_ca(),
            kubelet_since: None,
            kubelet_knows: false,
            raised: None,
            has_replaced: false,
            has_lowered: false,
            refused: Vec::new(),
            lock: None,
            before: None,
        }
    }
}

impl Run<'_> {
    /// What is typed to go on.
    pub(super) fn command(&self) -> &'static str {
        match self.fixed.target {
            Target::Static => self.fixed.target.command(),
            Target::SelfHosted => self.fixed.mode.command(),
        }
    }

    /// What it decides by, beside what was observed; `lowered_for` says since when it has had the bridge lowered.
    pub(super) fn memory(&self, lowered_for: Option<Duration>) -> Memory {
        Memory {
            raises_first: matches!(self.fixed.mode, Mode::Recover { .. }),
            has_raised: self.raised.is_some(),
            applied: self.applied,
            made_token: self.made_token,
            kept_copy: self.kept_copy,
            lowered_for,
        }
    }

    /// Chance for this run, which others on other machines do not share.
    pub(super) fn seed(&self) -> u64 {
        let now = self.fixed.host.world().now();
        now.unix_timestamp().unsigned_abs().rotate_left(32) ^ u64::from(now.nanosecond())
    }

    /// Whether the API server has refused the object that is so called: by kind, namespace and name.
    pub(super) fn is_refused(&self, name: &str) -> bool {
        self.refused.iter().any(|no| format!("{} {}/{}", no.kind, no.namespace, no.name) == name)
    }
}
