//! What other commands share with `start`: its observer, its bridge, its limits, and its hand-over.

use std::path::Path;
use std::pin::Pin;
use std::time::Duration;

use kube::Client;
use tokio::time::Instant;

use super::decide::{Decision, Step};
use super::input::{Input, Options, check};
use super::memory::Mode;
use super::memory::{Fixed, Run};
use super::observer::Observer;
use super::progress::Progress;
use super::run::{INTERVAL, see_through, timed_out};
use crate::api::observe::Required;
use crate::base::error::{Error, Result};
use crate::base::progress::Limits;
use crate::base::report::Reporter;
use crate::desired::config::Controller;
use crate::node::host::Host;
use crate::node::lock::Lock;
use crate::node::pulls::pulled;
use crate::plane::bridge::Bridge;
use crate::plane::hand_over::{Act, Observed, Target};

/// One run of a command that raises the bridge for something of its own.
pub struct Session<'a> {
    run: Run<'a>,
    observer: Observer,
    progress: Progress,
    limits: Limits,
}

/// What a run needs to the end of it.
#[derive(Clone, Copy)]
pub struct Ending<'a> {
    /// The workloads whose pods must be ready before the bridge is lowered.
    pub required: &'a [Required],
    /// The administrator's kubeconfig.
    pub kubeconfig: &'a str,
    /// The asset directory, as an absolute path.
    pub asset_dir: &'a Path,
    /// What the bridge is lowered for.
    pub target: Target,
}

impl Input {
    /// Which controller this machine is, if the asset directory goes together and the machine is ready.
    ///
    /// # Errors
    /// All that is wrong with either.
    pub async fn check<'a>(
        &'a self,
        host: &'a Host,
        options: &'a Options,
        reporter: &Reporter,
    ) -> Result<&'a Controller> {
        check(host, self, options, reporter).await.map(|checked| checked.controller)
    }

    /// A text of the asset directory.
    ///
    /// # Errors
    /// There is no such file.
    pub fn text(&self, path: &str) -> Result<String> {
        self.assets.text(path)
    }
}

impl<'a> Session<'a> {
    /// A run that begins now, on `controller`. Its limits, and hoist's binary, are those of `options`.
    ///
    /// # Errors
    /// A CA that cannot be used; files of a killed run that cannot be removed.
    pub fn new(
        host: &'a Host,
        input: &'a Input,
        controller: &'a Controller,
        options: &'a Options,
        ending: Ending<'a>,
    ) -> Result<Self> {
        let mut run = Run::new(Fixed {
            host,
            cluster: &input.cluster,
            controller,
            required: ending.required,
            kubeconfig: ending.kubeconfig,
            asset_dir: ending.asset_dir,
            assets: &input.assets,
            manifests: &input.manifests,
            binary: &options.binary,
            mode: Mode::Start,
            target: ending.target,
            may_begin: false,
        });
        // What stands in the cluster is not applied again, and lets nobody in; guard is taken away.
        (run.applied, run.made_token, run.kept_copy, run.guard) = (true, true, true, None);
        run.sweep()?;
        let ca = input.assets.tls().remove("ca.crt").unwrap_or_default();
        let now = Instant::now();
        let limits = Limits { begun: now, total: options.timeout, progress: options.progress_timeout };
        Ok(Self { run, observer: Observer::new(host, &ca)?, progress: Progress::new(now), limits })
    }

    /// The same with the lock, which it keeps until [`Session::release`].
    #[must_use]
    pub fn holding(mut self, lock: Lock) -> Self {
        self.run.lock = Some(lock);
        self
    }

    /// Gives the lock back: what is waited for now keeps nobody else from this node.
    pub fn release(&mut self) {
        self.run.lock = None;
    }

    /// Takes the lock again, if it was given back.
    ///
    /// # Errors
    /// Who has it; the system's refusal.
    pub fn hold(&mut self) -> Result<()> {
        self.run.may_act().map(drop)
    }

    /// Looks, unless `stop` completes first.
    ///
    /// # Errors
    /// [`Error::Interrupted`]; a kubeconfig that cannot be used.
    pub async fn observe(&mut self, mut stop: Pin<&mut impl Future<Output = u8>>) -> Result<Observed> {
        self.observer.forget();
        let observed = tokio::select! {
            biased;
            signal = &mut stop => return Err(self.run.interrupted(signal)),
            observed = self.observer.observe(&self.run, Instant::now()) => observed?,
        };
        self.run.keep_logs(observed.view.as_ref());
        Ok(observed)
    }

    /// The client, once the API has answered.
    pub fn client(&self) -> Option<&Client> {
        self.observer.client()
    }

    /// Why the API could not be read, the last time it could not.
    pub fn trouble(&self) -> Option<&str> {
        self.observer.trouble.as_deref()
    }

    /// Pauses for a moment; ends the run if it has waited for `what` for too long.
    ///
    /// # Errors
    /// [`Error::TimedOut`], with all that explains it.
    pub async fn pause(&mut self, observed: &Observed, what: &str) -> Result<()> {
        self.pause_for(INTERVAL, observed, what).await
    }

    /// The same for so long.
    ///
    /// # Errors
    /// The same.
    pub async fn pause_for(&mut self, pause: Duration, observed: &Observed, what: &str) -> Result<()> {
        let waits = Decision::Wait(Step::Api, what.to_owned());
        let stuck_for = self.progress.note(observed, &waits, pulled(self.run.fixed.host), Instant::now());
        if self.limits.are_over(stuck_for) {
            return Err(timed_out(&self.run, &self.observer, observed, &waits).await);
        }
        tokio::time::sleep(pause).await;
        Ok(())
    }

    /// Raises the bridge beside what runs here; what stands of it already is left alone.
    ///
    /// # Errors
    /// An asset directory that lacks a file; the system's refusal.
    pub async fn raise(&mut self) -> Result<()> {
        let bridge = Bridge::new(self.run.fixed.host);
        let plan = bridge.plan(self.run.fixed.assets, self.run.fixed.cluster, self.run.fixed.controller)?;
        bridge.raise(&self.run.with_images(plan).await, self.run.fixed.binary)?;
        self.run.raised = Some(false);
        Ok(())
    }

    /// Does one of the things of the hand-over.
    ///
    /// # Errors
    /// Its failure.
    pub async fn act(&mut self, act: &Act, reporter: &Reporter) -> Result<()> {
        let client = self.observer.client().ok_or_else(|| Error::failed("reach the API", "there is no connection"));
        self.run.hand_over(act, client, reporter).await
    }

    /// Hands over from the raised bridge, lowers it, and proves that what it was lowered for serves.
    ///
    /// # Errors
    /// See [`Error`]; whatever it is, an API that was served still is.
    pub async fn see_through(
        &mut self,
        reporter: &Reporter,
        stop: Pin<&mut impl Future<Output = u8>>,
    ) -> Result<(), Error> {
        see_through(&mut self.run, &mut self.observer, self.limits, reporter, stop).await?;
        self.run.outcome()
    }
}
