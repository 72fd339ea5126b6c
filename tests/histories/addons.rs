//! Users' objects. `start` while it waits for them: nobody is kept from the node meanwhile, and what it ends with is what it
//! sees then. `apply`, killed at every moment and run again: it comes to the same, and leaves nothing behind.

use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures::FutureExt;
use hoist::node::lock;
use hoist::plane::addons::{AssetDir, Options, apply_asset_dir};
use hoist::plane::guard_pod;
use serde_json::json;

use crate::history::{Ended, History, Rest, Stop, assert_same, in_world, input_with_addons};
use crate::random::Random;
use crate::world::{Faults, IP, MANIFESTS, Machine, key};
use crate::{LONG, each};

/// A Deployment that no node suits, and what comes after it.
const ADDONS: &str = "\
apiVersion: apps/v1
kind: Deployment
metadata: {name: slow, namespace: user}
spec:
  selector: {matchLabels: {app: slow}}
  template:
    metadata: {labels: {app: slow}}
    spec: {nodeSelector: {no: node}, containers: [{name: app, image: example.com/app}]}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: after, namespace: user, annotations: {hoist/rank: \"3500\"}}
";
const STUCK: Duration = Duration::from_secs(120);
const CRDS: &str = "customresourcedefinitions.apiextensions.k8s.io";

/// What is applied first: a kind, an object of it, what is changed later, and what no later version has.
const BEFORE: &str = "\
apiVersion: v1
kind: ConfigMap
metadata: {name: changes, namespace: user}
data: {a: \"1\"}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: goes, namespace: user}
---
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: gadgets.example.com}
spec:
  group: example.com
  names: {kind: Gadget, plural: gadgets}
  scope: Namespaced
  versions:
  - {name: v1, served: true, storage: true, schema: {openAPIV3Schema: {type: object}}}
---
apiVersion: example.com/v1
kind: Gadget
metadata: {name: goes, namespace: user}
";
/// The next version: another kind, ranks that wait for one another, and a Job that takes itself away.
const AFTER: &str = "\
apiVersion: v1
kind: ConfigMap
metadata: {name: changes, namespace: user}
data: {a: \"2\"}
---
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: doodads.example.com}
spec:
  group: example.com
  names: {kind: Doodad, plural: doodads}
  scope: Namespaced
  versions:
  - {name: v1, served: true, storage: true, schema: {openAPIV3Schema: {type: object}}}
---
apiVersion: example.com/v1
kind: Doodad
metadata: {name: new, namespace: user}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: slow, namespace: user, annotations: {hoist/rank: \"3000\"}}
spec:
  selector: {matchLabels: {app: slow}}
  template:
    metadata: {labels: {app: slow}}
    spec: {nodeSelector: {no: node}, containers: [{name: app, image: example.com/app}]}
---
apiVersion: batch/v1
kind: Job
metadata: {name: once, namespace: user, annotations: {hoist/rank: \"3500\"}}
spec:
  ttlSecondsAfterFinished: 60
  template: {spec: {restartPolicy: Never, containers: [{name: app, image: example.com/app}]}}
";

impl History {
    /// One run of `hoist apply --prune`.
    async fn apply(&self, addons: &str) -> Ended {
        self.say("apply".into());
        let (input, reporter) = (input_with_addons(addons), self.reporter());
        let host = self.host();
        let work = async {
            let client = host.world().connect("", format!("{IP}:6443").parse().unwrap()).await?;
            let all = AssetDir { manifests: input.manifests(), addons: input.addons(), addons_only: false };
            let options = Options {
                force_conflicts: false,
                prune: true,
                wait: false,
                tell_each: true,
                progress_timeout: STUCK,
                timeout: LONG,
            };
            apply_asset_dir(&client, &all, &options, &reporter).await.map(drop)
        };
        let ready = async {
            loop {
                tokio::time::sleep(Duration::from_secs(2)).await;
                self.play_controllers();
            }
        };
        let ended = self.until_killed(async {
            tokio::select! {
                biased;
                ended = AssertUnwindSafe(work).catch_unwind().map(Ended::of) => ended,
                () = ready => unreachable!(),
            }
        });
        let ended = ended.await;
        self.say(format!("apply ended: {ended:?}"));
        ended
    }

    /// The cluster with what was applied first.
    async fn with_the_version_before(&self) {
        let ended = self.run(Stop::Never, LONG, STUCK).await;
        assert!(matches!(ended, Ended::Done), "{ended:?}");
        self.pass(Duration::from_secs(5)).await;
        {
            let mut world = self.world().lock().unwrap();
            world.faults = Faults::default();
            world.may_take_away = true;
        }
        let ended = self.apply(BEFORE).await;
        assert!(matches!(ended, Ended::Done), "{ended:?}");
        assert!(self.has("gadgets.example.com", "goes") && self.has("configmaps", "goes"));
        self.world().lock().unwrap().faults = Faults::default();
    }

    /// A run that must succeed, and one after it that finds nothing to do.
    async fn with_the_version_after(&self) -> Rest {
        self.world().lock().unwrap().heal();
        let ended = self.apply(AFTER).await;
        assert!(matches!(ended, Ended::Done), "{ended:?}");
        for (resource, name) in [("configmaps", "goes"), ("gadgets.example.com", "goes")] {
            assert!(!self.has(resource, name), "{resource} {name} is still there");
        }
        assert!(!self.world().lock().unwrap().store.has(CRDS, "", "gadgets.example.com"));
        let writes = self.world().lock().unwrap().writes;
        let ended = self.apply(AFTER).await;
        assert!(matches!(ended, Ended::Done), "{ended:?}");
        assert_eq!(writes, self.world().lock().unwrap().writes, "an apply with nothing to do changed something");
        self.pass(Duration::from_secs(10)).await;
        self.assert_nothing_wrong();
        self.rest()
    }

    fn has(&self, resource: &str, name: &str) -> bool {
        self.world().lock().unwrap().store.has(resource, "user", name)
    }

    /// Until the start waits for the Deployment.
    async fn until_it_waits(&self) {
        while !self.has("deployments.apps", "slow") {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        tokio::time::sleep(Duration::from_secs(3)).await;
        assert!(!self.has("configmaps", "after"));
    }

    fn make_it_ready(&self) {
        let status = json!({"observedGeneration": 1, "updatedReplicas": 1, "availableReplicas": 1, "replicas": 1});
        let at = key("deployments.apps", "user", "slow");
        self.world().lock().unwrap().store.change(at, &json!({"status": status}));
    }

    /// What becomes of a user's Deployment and Job: the one is ready, the other done, and a moment later gone.
    fn play_controllers(&self) {
        if self.has("deployments.apps", "slow") {
            self.make_it_ready();
        }
        let at = key("jobs.batch", "user", "once");
        let store = &mut self.world().lock().unwrap().store;
        match store.get(&at).map(|job| job["status"].is_object()) {
            Some(true) => drop(store.remove(&at)),
            Some(false) => {
                let status = json!({"conditions": [{"type": "Complete", "status": "True"}]});
                store.change(at, &json!({"status": status}));
            }
            None => {}
        }
    }

    fn bridge_stands(&self) -> bool {
        let names = std::fs::read_dir(self.host().path(&format!("/{MANIFESTS}"))).unwrap();
        names.into_iter().any(|entry| entry.unwrap().file_name().to_string_lossy().starts_with("bridge-"))
    }
}

#[test]
fn guard_raises_while_a_start_waits_for_add_ons_and_the_start_goes_on_through_the_bridge() {
    in_world("guard beside add-ons", Machine::Bare, Random::new(1), async |history| {
        let beside = async {
            history.until_it_waits().await;
            assert_eq!(lock::holder(&history.host()), None);
            drop(lock::try_take(&history.host()).unwrap());
            history.world().lock().unwrap().take_api_server();
            // As guard does: under the lock.
            assert!(guard_pod::boot(&history.host()).await.unwrap(), "it did not raise");
            tokio::time::sleep(Duration::from_secs(30)).await;
            assert!(history.bridge_stands() && !history.has("configmaps", "after"));
            history.make_it_ready();
        };
        let start = history.start_with_addons(ADDONS, STUCK);
        let (ended, ()) = history.beside(async { tokio::join!(start, beside) }).await;
        ended.unwrap();
        // That the cluster serves itself holds at the end, too.
        assert!(history.has("configmaps", "after") && !history.bridge_stands());
        history.assert_nothing_wrong();
    });
}

#[test]
fn two_starts_apply_add_ons_at_the_same_time() {
    in_world("two starts with add-ons", Machine::Bare, Random::new(2), async |history| {
        let beside = async {
            history.until_it_waits().await;
            // Not in step with the other: what is applied between its look and its apply neither of them can see.
            tokio::time::sleep(Duration::from_millis(370)).await;
            let ready = async {
                tokio::time::sleep(Duration::from_secs(20)).await;
                history.make_it_ready();
            };
            tokio::join!(history.start_with_addons(ADDONS, STUCK), ready).0.unwrap();
        };
        let first = history.start_with_addons(ADDONS, STUCK);
        let (ended, ()) = history.beside(async { tokio::join!(first, beside) }).await;
        ended.unwrap();
        assert!(history.has("configmaps", "after"));
        history.assert_nothing_wrong();
    });
}

#[test]
fn the_exit_code_is_what_is_seen_at_the_end() {
    for (goes, code) in [(false, 6), (true, 7)] {
        in_world("add-ons that do not get ready", Machine::Bare, Random::new(3), async |history| {
            let beside = async {
                history.until_it_waits().await;
                if goes {
                    let mut world = history.world().lock().unwrap();
                    world.systemctl(&["stop", "kubelet.service"]);
                    world.take_api_server();
                }
            };
            let start = history.start_with_addons(ADDONS, STUCK);
            let (ended, ()) = history.beside(async { tokio::join!(start, beside) }).await;
            let error = ended.unwrap_err();
            assert_eq!(error.exit_code(), code, "{error}");
            let served = error.to_string().contains("the API is served");
            assert_eq!(served, !goes, "{error}");
            assert_eq!(lock::holder(&history.host()), None);
        });
    }
}

#[test]
fn apply_that_is_killed_at_every_moment_goes_on() {
    let machine = Machine::ByHand;
    let (reference, count) = in_world("the reference", machine, Random::new(1), async |history| {
        history.with_the_version_before().await;
        let ended = history.apply(AFTER).await;
        assert!(matches!(ended, Ended::Done), "{ended:?}");
        let count = history.world().lock().unwrap().faults.moments;
        (history.with_the_version_after().await, count)
    });
    assert!(count > 12, "{count} moments");
    each(1..=count, |moment| {
        let what = format!("apply, killed at moment {moment} of {count}");
        in_world(&what, machine, Random::new(1), async |history| {
            history.with_the_version_before().await;
            history.world().lock().unwrap().faults.kill = Some(moment);
            let ended = history.apply(AFTER).await;
            assert!(matches!(ended, Ended::Killed), "{ended:?}");
            history.pass(Duration::from_millis(moment * 7 % 3000)).await;
            assert_same(&history.with_the_version_after().await, &reference);
        });
    });
}
