//! The second half of a start, one step at a time, for guard: between any two steps, guard checks whether the bridge
//! should rather stay.

use tokio::time::Instant;

use super::memory::{Fixed, Run};
use super::observer::Observer;
use super::run::{INTERVAL, LONG_INTERVAL};
use crate::api::observe::Required;
use crate::base::backoff::{Backoff, Retries};
use crate::base::error::{Error, Result};
use crate::base::report::Reporter;
use crate::desired::assets::AssetSet;
use crate::desired::config::{Cluster, Controller};
use crate::node::host::Host;
use crate::node::lock;
use crate::plane::hand_over::{Act, Decision, Target, decide};
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
    /// The self-hosted control plane did not prove itself in time, with a part of the bridge lowered, or there is no bridge:
    /// it is to be raised.
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
        // What a start does before is done.
        run.applied = true;
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
            Decision::Unraised | Decision::Late => return Ok(Stepped::Failed),
            Decision::Do(step, acts) => (step, acts),
        };
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
            let client = self.observer.client();
            let client = client.ok_or_else(|| Error::failed("reach the API", "there is no connection"));
            if let Err(error) = self.run.hand_over(act, client, reporter).await {
                self.retries.failed(acts, &error, Instant::now());
                return Err(error);
            }
        }
        self.retries.succeeded();
        Ok(Stepped::Acted)
    }

    async fn decide(&mut self) -> Result<Decision> {
        let observed = self.observer.observe(&self.run, Instant::now()).await?;
        Ok(decide(&observed, self.observer.lowered_for()))
    }
}
