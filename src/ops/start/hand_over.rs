//! The second half of a start, one step at a time, for guard: between any two steps, guard checks whether the bridge
//! should rather stay.

use tokio::time::Instant;

use super::decide::{Act, Decision, Target, decide};
use super::memory::{Fixed, Run};
use super::observer::Observer;
use super::run::{INTERVAL, LONG_INTERVAL};
use crate::api::observe::{NodeView, Required};
use crate::base::backoff::{Backoff, Retries};
use crate::base::error::Result;
use crate::base::report::Reporter;
use crate::desired::assets::AssetSet;
use crate::desired::config::{Cluster, Controller};
use crate::node::host::Host;
use crate::node::lock;
use crate::plane::lease_holders::Holders;

/// What a step came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stepped {
    /// Something was done.
    Acted,
    /// What it waits for.
    Waits(String),
    /// The self-hosted control plane serves, and nothing is left to do.
    Done,
    /// The self-hosted control plane did not prove itself in time, with a part of the bridge lowered.
    Failed,
}

/// A raised bridge on its way to be lowered.
pub struct HandOver<'a> {
    run: Run<'a>,
    observer: Observer,
    retries: Retries<Vec<Act>>,
}

impl<'a> HandOver<'a> {
    /// Begins, or goes on where an earlier one, or a start, stopped. `kubeconfig` is guard's; `required` are the
    /// workloads whose pods must be ready first.
    ///
    /// # Errors
    /// A CA that is none.
    pub fn new(
        host: &'a Host,
        (cluster, controller): (&'a Cluster, &'a Controller),
        kubeconfig: &'a str,
        required: &'a [Required],
        nothing: &'a AssetSet,
        ca: &[u8],
    ) -> Result<Self> {
        let mut run = Run::new(Fixed::without_assets(
            host,
            (cluster, controller),
            required,
            kubeconfig,
            nothing,
            Target::SelfHosted,
        ));
        // What a start does before is done, and the kubelet is systemd's.
        (run.applied, run.made_token, run.kept_copy, run.raised) = (true, true, true, Some(false));
        let retries = Retries::new(Backoff::new(INTERVAL, LONG_INTERVAL, run.seed()));
        Ok(Self { run, observer: Observer::new(host, ca)?, retries })
    }

    /// Tells it what was seen of the Leases' holders since the bridge was raised.
    pub fn knows(&mut self, holders: &Holders) {
        self.observer.holders = holders.clone();
    }

    /// Observes, decides and acts once.
    ///
    /// # Errors
    /// What could not be done, which the next step tries again.
    pub async fn step(&mut self, reporter: &Reporter) -> Result<Stepped> {
        let (step, acts) = match self.decide().await? {
            Decision::Wait(_, what) => return Ok(Stepped::Waits(what)),
            // What was read a moment ago is enough to wait by, and for nothing else.
            _ if self.observer.is_stale() => {
                self.observer.forget();
                return Ok(Stepped::Acted);
            }
            Decision::Done => return Ok(Stepped::Done),
            Decision::Do(step, acts) => (step, acts),
        };
        // Raising is guard's own.
        if acts.iter().any(|act| matches!(act, Act::Raise | Act::RaiseAndFail)) {
            return Ok(Stepped::Failed);
        }
        if let Some(why) = self.retries.waits(&acts, Instant::now()) {
            return Ok(Stepped::Waits(why.to_owned()));
        }
        let _lock = lock::try_take(self.run.fixed.host)?;
        // A start may have had the lock, and changed what was seen.
        self.observer.forget();
        if self.decide().await? != Decision::Do(step, acts.clone()) {
            return Ok(Stepped::Acted);
        }
        for act in &acts {
            if let Err(error) = self.run.act(act, self.observer.client(), reporter).await {
                self.retries.failed(acts, &error, Instant::now());
                return Err(error);
            }
        }
        self.retries.succeeded();
        Ok(Stepped::Acted)
    }

    async fn decide(&mut self) -> Result<Decision> {
        let mut observed = self.observer.observe(&self.run, Instant::now()).await?;
        // Whether this node is a controller is others' to say: guard never makes it one.
        if let Some(view) = &mut observed.view {
            view.node = NodeView::Adopted;
        }
        Ok(decide(&observed))
    }
}
