//! `start` while it waits for users' objects: nobody is kept from the node meanwhile, and what it ends with is what it sees
//! then.

use std::time::Duration;

use hoist::node::lock;
use hoist::plane::guard_pod;
use serde_json::json;

use crate::history::{History, in_world};
use crate::random::Random;
use crate::world::{MANIFESTS, Machine, key};

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

impl History {
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
