//! The operator: leads, watches, and has a turn for each tenant of which something has changed.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::StreamExt;
use futures::future::{Either, select};
use futures::stream::FuturesUnordered;
use k8s_openapi::api::apps::v1::{Deployment, StatefulSet};
use k8s_openapi::api::core::v1::Service;
use kube::api::{Api, DynamicObject};
use kube::runtime::controller::{Action, Config, Controller};
use kube::runtime::events::{Recorder, Reporter};
use kube::runtime::watcher;
use time::OffsetDateTime;
use tokio::sync::{mpsc, oneshot};

use super::approvals::Approvals;
use super::delete::OwnImage;
use super::reconcile::{Context, reconcile};
use super::{MANAGER, NAMESPACE, TENANT_LABEL, leader, resource};
use crate::api::Clients;
use crate::api::turn::Turn;
use crate::base::error::Result;

/// How many tenants have their turn at once: twenty that are made at one moment must not starve those that are there.
const CONCURRENT: u16 = 4;
/// After a status could not be written.
const FAILED: Duration = Duration::from_secs(5);

/// Runs until `stop` completes.
///
/// # Errors
/// It leads no longer: the process ends, and begins anew as one of several.
pub async fn run(clients: Clients, name: &str, own: OwnImage, stop: impl Future<Output = u8>) -> Result<()> {
    let mut turn = Turn::of_operator(name, NAMESPACE, OffsetDateTime::now_utc());
    let stop = std::pin::pin!(stop);
    let Either::Left((_, stop)) = select(std::pin::pin!(leader::elected(&mut turn, &clients.requests)), stop).await
    else {
        return Ok(());
    };
    tracing::info!("this operator leads");
    {
        let work = std::pin::pin!(work(&clients, name, own));
        let lost = std::pin::pin!(leader::lost(&mut turn, &clients.requests));
        if let Either::Right((Either::Right((error, _)), _)) = select(stop, select(work, lost)).await {
            return Err(error);
        }
    }
    // The next one need not wait; and if this fails, it waits.
    if let Err(error) = turn.give_back(&clients.requests).await {
        tracing::warn!("{error}");
    }
    Ok(())
}

async fn work(clients: &Clients, name: &str, own: OwnImage) {
    let reporter = Reporter { controller: MANAGER.into(), instance: Some(name.into()) };
    let approvals = Arc::new(Approvals::default());
    let (ask, asked) = mpsc::unbounded_channel();
    let context = Context {
        client: clients.requests.clone(),
        recorder: Recorder::new(clients.requests.clone(), reporter),
        approvals: approvals.clone(),
        own,
        applied: Mutex::new(BTreeMap::new()),
    };
    let watches = || clients.watches.clone();
    let own = || watcher::Config::default().labels(TENANT_LABEL);
    let all: Api<DynamicObject> = Api::all_with(watches(), &resource());
    let controller = Controller::new_with(all, watcher::Config::default(), resource());
    let tenants = controller.store();
    let turns = controller
        .owns(Api::<StatefulSet>::all(watches()), own())
        .owns(Api::<Deployment>::all(watches()), own())
        .owns(Api::<Service>::all(watches()), own())
        .with_config(Config::default().concurrency(CONCURRENT))
        .run(hand_over, |_, _, _| Action::requeue(FAILED), Arc::new(ask))
        .for_each(async |turn| {
            if let Err(error) = turn {
                tracing::warn!("{error}");
            }
        });
    let is_there = |uid: &str| tenants.state().iter().any(|one| one.metadata.uid.as_deref() == Some(uid));
    futures::join!(turns, serve(asked, &context), approvals.run(is_there));
}

/// A tenant whose turn it is, and who waits for what comes of it.
type Asked = (Arc<DynamicObject>, oneshot::Sender<Result<Action, kube::Error>>);

/// Has a tenant's turn done by [`serve`]: kube-runtime would have it on any thread, and there is one.
async fn hand_over(object: Arc<DynamicObject>, ask: Arc<mpsc::UnboundedSender<Asked>>) -> Result<Action, kube::Error> {
    let (answer, answered) = oneshot::channel();
    match ask.send((object, answer)) {
        Ok(()) => answered.await.unwrap_or_else(|_| Ok(Action::requeue(FAILED))),
        Err(_) => Ok(Action::requeue(FAILED)),
    }
}

/// Has the turns that are asked for, side by side.
async fn serve(mut asked: mpsc::UnboundedReceiver<Asked>, context: &Context) {
    let mut turns = FuturesUnordered::new();
    loop {
        tokio::select! {
            Some((object, answer)) = asked.recv() => turns.push(async move {
                // Nobody waits any more where the operator ends.
                let _ = answer.send(reconcile(&object, context).await);
            }),
            Some(()) = turns.next() => {}
            else => return,
        }
    }
}
