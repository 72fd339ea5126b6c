//! What an upgrade does next: a pure function of what was observed. The first row that is not fulfilled decides.
//!
//! | | forth | back |
//! |---|---|---|
//! | 1 | the images of the new version are on each controller | the controller manager and the scheduler are the old ones |
//! | 2 | each API server is on trial, one after the other | each API server is the old one, one after the other |
//! | 3 | the controller manager and the scheduler are on trial | |
//! | 4 | all of it has served for the time of the soak | |
//! | 5 | guard's copy is of the new version, on each controller | |
//! | 6 | each API server emulates nothing any more, one after the other; then the controllers | |
//! | 7 | the etcd of each controller has the new image and is ready, one after the other | |
//! | 8 | all manifests are applied, and rolled out | |
//!
//! Between any two acts that replace an API server stands the gate ([`gate`]). Row 5 is the commit: from there on no way
//! leads back.

use std::time::Duration;

/// What becomes of the control plane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// To the new version.
    Forth,
    /// To the old one.
    Back,
}

/// The steps, as users see them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub enum Step {
    /// The new images are on each controller.
    Images,
    /// API servers are replaced.
    ApiServers,
    /// Controller manager and scheduler are replaced.
    Controllers,
    /// All of it serves for a while.
    Soak,
    /// guard's copy changes, and nothing is emulated any more.
    Commit,
    /// etcd is exchanged.
    Etcd,
    /// All else that the asset directory has.
    Rest,
}

impl Step {
    /// Its name in a run's progress: those of the way back are others.
    pub fn id(self, way: Way) -> &'static str {
        match (self, way) {
            (Self::ApiServers, Way::Back) => "api-servers-back",
            (Self::Controllers, Way::Back) => "controllers-back",
            (step, _) => step.name(),
        }
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Images => "images",
            Self::ApiServers => "api-servers",
            Self::Controllers => "controllers",
            Self::Soak => "soak",
            Self::Commit => "commit",
            Self::Etcd => "etcd",
            Self::Rest => "rest",
        }
    }

    /// What holds once it is done.
    pub fn title(self, way: Way) -> &'static str {
        match (self, way) {
            (Self::Images, _) => "the new images are on each controller",
            (Self::ApiServers, Way::Forth) => "each API server runs the new version, on trial",
            (Self::ApiServers, Way::Back) => "each API server runs the old version",
            (Self::Controllers, Way::Forth) => "the controller manager and the scheduler run the new version, on trial",
            (Self::Controllers, Way::Back) => "the controller manager and the scheduler run the old version",
            (Self::Soak, _) => "all of it serves for a while",
            (Self::Commit, _) => "the new version is committed",
            (Self::Etcd, _) => "the etcd of each controller has its new image",
            (Self::Rest, _) => "kube-proxy, DNS and all other manifests follow",
        }
    }
}

/// Which form of a workload stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Form {
    /// That of the old version.
    Old,
    /// The new program, which emulates the old minor version.
    Trial,
    /// That of the new version.
    New,
}

/// A pod of a component.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pod {
    /// Its name.
    pub name: String,
    /// Its node.
    pub node: String,
    /// It is ready.
    pub ready: bool,
    /// Why not.
    pub reason: String,
    /// It runs what its workload says.
    pub is_current: bool,
}

/// A component.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// Its name.
    pub component: &'static str,
    /// Its form.
    pub form: Form,
    /// It replaces a pod only when somebody deletes it.
    pub is_held: bool,
    /// Its pods.
    pub pods: Vec<Pod>,
    /// What its roll-out waits for.
    pub waits: Option<String>,
}

/// The etcd of a controller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// The controller.
    pub node: String,
    /// It has the new image.
    pub is_new: bool,
    /// Why it is not ready, where it is not.
    pub waits: Option<String>,
}

/// etcd, where it is to be exchanged.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Members {
    /// Each controller's.
    pub members: Vec<Member>,
    /// The controller whose guard is told to exchange its own.
    pub ordered: Option<String>,
    /// Why that guard does not, or has put the old one back.
    pub refused: Option<String>,
}

/// Whether the new images are on the controllers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pulled {
    /// Nobody has asked for them.
    Unasked,
    /// They are being pulled.
    Waits(String),
    /// They are there.
    Done,
}

/// What all depends on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Observed {
    /// guard's Secret has the new version.
    pub is_committed: bool,
    /// The minor version changes: the new one is tried first.
    pub has_trial: bool,
    /// The API servers.
    pub api_servers: Part,
    /// The controller manager and the scheduler.
    pub controllers: Vec<Part>,
    /// The new images.
    pub pulled: Pulled,
    /// The controllers on which a bridge stands.
    pub bridges: Vec<String>,
    /// What an API server that was asked at its own address does not say as it should, by its node.
    pub amiss: Vec<(String, String)>,
    /// Why both leaders are not known to lead.
    pub leaderless: Option<String>,
    /// For how long all of it has served, in this run.
    pub served_for: Duration,
    /// For how long it must.
    pub soak: Duration,
    /// The controllers whose guard does not say that it has the new copy.
    pub outdated_guards: Vec<String>,
    /// etcd, as soon as its turn has come; `None` where it stays as it is.
    pub etcd: Option<Members>,
    /// What the rest waits for; `None` once all manifests stand and are rolled out.
    pub rest: Option<Rest>,
}

impl Observed {
    /// All components.
    pub fn parts(&self) -> impl Iterator<Item = &Part> {
        [&self.api_servers].into_iter().chain(&self.controllers)
    }
}

/// What of the rest is to come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rest {
    /// Manifests are to be applied.
    Unapplied,
    /// A roll-out is under way.
    Waits(String),
}

/// One thing to do. Each may be done twice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Act {
    /// Have each controller pull the new images.
    Pull,
    /// Take away what has pulled them.
    EndPull,
    /// Apply a form of a component's manifests; an API server's replace no pod yet if it is held.
    Apply {
        /// The component.
        component: &'static str,
        /// The form.
        form: Form,
        /// Whether it is held.
        is_held: bool,
    },
    /// Delete a pod, which its workload makes anew.
    Replace {
        /// The pod.
        pod: String,
        /// Its node.
        node: String,
    },
    /// Have guard keep a copy of the new version.
    Commit,
    /// Have guard of this controller exchange its etcd.
    OrderEtcd(String),
    /// No etcd is to be exchanged any more.
    EndEtcd,
    /// Apply all manifests.
    ApplyRest,
}

/// What is next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Do this, and observe again.
    Do(Step, Act),
    /// Wait, for this.
    Wait(Step, String),
    /// All is as it should be.
    Done,
}

use Decision::{Do, Done, Wait};

/// Decides.
pub fn decide(way: Way, seen: &Observed) -> Decision {
    let next = match way {
        Way::Back => back(seen),
        Way::Forth if seen.is_committed => committed(seen),
        Way::Forth => forth(seen),
    };
    next.unwrap_or(Done)
}

/// Up to the commit.
fn forth(seen: &Observed) -> Option<Decision> {
    let wanted = if seen.has_trial { Form::Trial } else { Form::New };
    if seen.api_servers.form == Form::Old {
        return Some(match &seen.pulled {
            Pulled::Unasked => Do(Step::Images, Act::Pull),
            Pulled::Waits(what) => Wait(Step::Images, what.clone()),
            Pulled::Done => apply(Step::ApiServers, &seen.api_servers, wanted, true),
        });
    }
    // Once the controllers are being replaced, what an API server waits for is their step's.
    let is_next = seen.controllers.iter().all(|part| part.form == Form::Old);
    let step = if is_next { Step::ApiServers } else { Step::Controllers };
    end_pull(step, seen)
        .or_else(|| roll(step, seen))
        .or_else(|| controllers(Step::Controllers, seen, |form| form != Form::Old, wanted))
        .or_else(|| {
            let what = format!("it to serve for {} s", seen.soak.as_secs());
            (seen.served_for < seen.soak).then_some(Wait(Step::Soak, what))
        })
        .or(Some(Do(Step::Commit, Act::Commit)))
}

/// From the commit on.
fn committed(seen: &Observed) -> Option<Decision> {
    if !seen.outdated_guards.is_empty() {
        let what = format!("guard on {} to take the copy of the new version", seen.outdated_guards.join(", "));
        return Some(Wait(Step::Commit, what));
    }
    let api = &seen.api_servers;
    if api.form != Form::New {
        return Some(apply(Step::Commit, api, Form::New, true));
    }
    end_pull(Step::Commit, seen)
        .or_else(|| roll(Step::Commit, seen))
        .or_else(|| controllers(Step::Commit, seen, |form| form == Form::New, Form::New))
        .or_else(|| api.is_held.then(|| apply(Step::Commit, api, Form::New, false)))
        .or_else(|| etcd(seen))
        .or_else(|| match seen.rest.as_ref()? {
            Rest::Unapplied => Some(Do(Step::Rest, Act::ApplyRest)),
            Rest::Waits(what) => Some(Wait(Step::Rest, what.clone())),
        })
        .or_else(|| gate(seen, None).map(|what| Wait(Step::Rest, what)))
}

/// One etcd after the other, each once all that is there serves.
fn etcd(seen: &Observed) -> Option<Decision> {
    let Members { members, ordered, .. } = seen.etcd.as_ref()?;
    let next = members.iter().find(|member| !member.is_new);
    if let Some(next) = next.filter(|next| ordered.as_ref() == Some(&next.node)) {
        return Some(Wait(Step::Etcd, format!("guard on {} to exchange its etcd", next.node)));
    }
    let waits = members.iter().find_map(|member| Some(format!("etcd on {}: {}", member.node, member.waits.as_ref()?)));
    let waits = waits.or_else(|| next.is_some().then(|| gate(seen, None)).flatten());
    match (waits, next) {
        (Some(what), _) => Some(Wait(Step::Etcd, what)),
        (None, Some(next)) => Some(Do(Step::Etcd, Act::OrderEtcd(next.node.clone()))),
        (None, None) => ordered.is_some().then_some(Do(Step::Etcd, Act::EndEtcd)),
    }
}

/// The way back, which a commit closes.
fn back(seen: &Observed) -> Option<Decision> {
    let api = &seen.api_servers;
    end_pull(Step::Controllers, seen)
        .or_else(|| controllers(Step::Controllers, seen, |form| form == Form::Old, Form::Old))
        .or_else(|| (api.form != Form::Old).then(|| apply(Step::ApiServers, api, Form::Old, true)))
        .or_else(|| roll(Step::ApiServers, seen))
        .or_else(|| api.is_held.then(|| apply(Step::ApiServers, api, Form::Old, false)))
        .or_else(|| gate(seen, None).map(|what| Wait(Step::ApiServers, what)))
}

fn apply(step: Step, part: &Part, form: Form, is_held: bool) -> Decision {
    Do(step, Act::Apply { component: part.component, form, is_held })
}

fn end_pull(step: Step, seen: &Observed) -> Option<Decision> {
    (seen.pulled != Pulled::Unasked).then_some(Do(step, Act::EndPull))
}

/// Replaces the API servers that do not run what their workload says, one at a time: one that does not serve first.
fn roll(step: Step, seen: &Observed) -> Option<Decision> {
    let pods = &seen.api_servers.pods;
    let old = pods.iter().filter(|pod| !pod.is_current).min_by_key(|pod| pod.ready);
    let Some(next) = old else { return gate(seen, None).map(|what| Wait(step, what)) };
    if let Some(what) = gate(seen, Some(next)) {
        return Some(Wait(step, what));
    }
    Some(Do(step, Act::Replace { pod: next.name.clone(), node: next.node.clone() }))
}

/// The controller manager and the scheduler, which roll by themselves and side by side.
fn controllers(step: Step, seen: &Observed, is_right: impl Fn(Form) -> bool, wanted: Form) -> Option<Decision> {
    let wrong = seen.controllers.iter().find(|part| !is_right(part.form));
    let waits = || seen.controllers.iter().find_map(|part| Some((part.component, part.waits.as_ref()?)));
    wrong
        .map(|part| apply(step, part, wanted, false))
        .or_else(|| waits().map(|(component, what)| Wait(step, format!("{component}: {what}"))))
}

/// What stands in the way of replacing the API server `next`, or any: every other one is ready, and has said so itself with
/// the version that it should have; no bridge stands but where `next` does not serve; both leaders lead.
pub fn gate(seen: &Observed, next: Option<&Pod>) -> Option<String> {
    let pods = &seen.api_servers.pods;
    if pods.is_empty() {
        return Some("an API server to be there".into());
    }
    let is_excused = |node: &str| next.is_some_and(|next| next.node == node && !next.ready);
    if let Some(pod) = pods.iter().find(|pod| !pod.ready && !is_excused(&pod.node)) {
        return Some(format!("{} on {}: {}", pod.name, pod.node, pod.reason));
    }
    if let Some(node) = seen.bridges.iter().find(|node| !is_excused(node)) {
        return Some(format!("guard to lower the bridge on {node}"));
    }
    if let Some((node, why)) = seen.amiss.iter().find(|(node, _)| !is_excused(node)) {
        return Some(format!("the API server of {node}: {why}"));
    }
    seen.leaderless.clone()
}

#[cfg(test)]
mod tests;
