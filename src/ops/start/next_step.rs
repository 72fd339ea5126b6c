//! What a `start` would do next, without doing any of it.

use std::time::Duration;

use tokio::time::Instant;

use super::decide::{Decision, decide};
use super::memory::{Fixed, Run};
use super::observer::Observer;
use crate::api::observe::Required;
use crate::base::error::Result;
use crate::desired::assets::AssetSet;
use crate::desired::config::{Cluster, Controller};
use crate::node::host::Host;
use crate::plane::hand_over::{Observed, Target};

const INTERVAL: Duration = Duration::from_millis(200);
/// Leaders renew their Leases every 2 s: by then it has shown who lives.
const LIMIT: Duration = Duration::from_secs(5);

/// What a run that begins now would do first.
#[derive(Debug, Clone)]
pub struct NextStep {
    /// The step that it is at, as its events name it; `None` if it has nothing to do.
    pub step: Option<&'static str>,
    /// What it would do, or wait for.
    pub what: String,
    /// What it would see.
    pub observed: Observed,
    /// Why the API could not be read, if so.
    pub trouble: Option<String>,
}

/// What a `start` of this controller that begins now would do first. It is observed until there is something to do, or
/// until only time can tell.
///
/// # Errors
/// A CA or a kubeconfig that cannot be used.
pub async fn next_step(
    host: &Host,
    cluster: &Cluster,
    controller: &Controller,
    required: &[Required],
    kubeconfig: &str,
    ca: &[u8],
    target: Target,
) -> Result<NextStep> {
    let nothing = AssetSet::default();
    let run = Run::new(Fixed::without_assets(host, (cluster, controller), required, kubeconfig, &nothing, target));
    let mut observer = Observer::new(host, ca)?;
    let begun = Instant::now();
    loop {
        let observed = observer.observe(&run, Instant::now()).await?;
        let (step, what) = match decide(&observed, &run.memory(observer.lowered_for())) {
            Decision::Done if target == Target::Static => (None, "nothing: the static control plane serves".to_owned()),
            Decision::Done => (None, "nothing: the cluster serves itself".to_owned()),
            Decision::Do(step, _) => (Some(step.id(target)), step.title(target).to_owned()),
            // Without the API there is nothing that a second look could show.
            Decision::Wait(..) if begun.elapsed() < LIMIT && observed.view.is_some() => {
                tokio::time::sleep(INTERVAL).await;
                continue;
            }
            Decision::Wait(step, what) => (Some(step.id(target)), format!("wait for {what}")),
        };
        return Ok(NextStep { step, what, observed, trouble: observer.trouble.clone() });
    }
}
