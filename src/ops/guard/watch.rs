//! What guard observes beside the API servers, to report it: whether etcd's data is there and etcd takes writes,
//! whether this machine has the images that a raise needs, and which images the copy of the bridge follows.
//! [`follow`] is pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use tokio::time::Instant;

use crate::desired::config::version;
use crate::desired::secrets::COMPONENTS;
use crate::node::host::Host;
use crate::node::images::{Followed, Images};
use crate::plane::certificates;
use crate::plane::guard_pod;
use crate::plane::kept_copy::Copy;
use crate::plane::requests;

/// Between two looks at etcd's alarms and at images while nothing is wrong, and while something is.
const MINUTE: Duration = Duration::from_secs(60);
const SOON: Duration = Duration::from_secs(10);
/// How long etcd may take to say its alarms.
const LIMIT: Duration = Duration::from_secs(2);

/// What there is to say of a controller: each with a word for its event.
pub type Said = BTreeSet<(&'static str, String)>;

/// What was seen lately.
#[derive(Debug, Default)]
pub struct Watch {
    due: Option<Instant>,
    /// What was said last.
    pub said: Said,
    /// How many alarms etcd has raised; `None` where it did not say.
    pub alarms: Option<usize>,
    /// How many images of a raise are missing; `None` where the runtime did not say.
    pub missing: Option<usize>,
    /// The first end of the copies of each certificate on this controller, in seconds since 1970.
    pub ends: BTreeMap<String, i64>,
    /// The ends of the certificates that await a CA whose key is elsewhere, in seconds since 1970.
    pub awaited: BTreeMap<String, i64>,
}

impl Watch {
    /// Looks, if it is time, and returns what was not said before. `waits` says that the bridge stands and does not serve.
    pub async fn look(&mut self, host: &Host, copy: &Copy, etcd: Option<SocketAddr>, waits: bool) -> Said {
        let now = Instant::now();
        if self.due.is_some_and(|due| now < due) {
            return Said::new();
        }
        self.ends = certificates::ends(host, copy);
        let awaited = requests::awaited(copy, host.world().now()).into_iter();
        self.awaited = awaited.map(|(name, end)| (name, end.unix_timestamp())).collect();
        let mut said = Said::new();
        let node = copy.controller.as_ref().map(|controller| controller.name.clone()).unwrap_or_default();
        let health = match etcd {
            Some(address) => host.world().etcd(address, &copy.assets.tls(), LIMIT).await.ok(),
            None => None,
        };
        for (what, remedy) in health.iter().flat_map(|health| health.said(&node)) {
            said.insert(("EtcdAlarm", format!("{what}; {remedy}")));
        }
        self.alarms = health.map(|health| health.alarms.len());
        let missing = match guard_pod::present(host, copy).await {
            Some(present) => guard_pod::lacks(host, copy, &present).ok(),
            None => None,
        };
        for missing in missing.iter().flatten() {
            said.insert(("ImageMissing", format!("{missing}; {}", missing.remedy())));
        }
        self.missing = missing.map(|missing| missing.len());
        self.due = Some(Instant::now() + if said.is_empty() && !waits { MINUTE } else { SOON });
        let news = said.difference(&self.said).cloned().collect();
        self.said = said;
        news
    }
}

/// Which images the copy of the bridge is raised from, after the self-hosted control plane has proved itself with those in
/// `runs`, by component, on an API server of the minor version `serves`; and why some are not followed. `named` is what the
/// copy's own manifests name, for Kubernetes of the minor version `ours`: flags of one minor version are not another's.
pub fn follow(
    images: &Images,
    named: impl Fn(&str) -> Option<String>,
    runs: &[(String, String)],
    serves: (u32, u32),
    ours: (u32, u32),
) -> (Images, Vec<String>) {
    let mut followed = images.clone();
    let mut left = Vec::new();
    let version = |(major, minor): (u32, u32)| format!("{major}.{minor}");
    for component in COMPONENTS {
        let mut of_it = runs.iter().filter(|(name, _)| name == component).map(|(_, image)| image);
        // In the middle of a rollout nothing is proved.
        let (Some(runs), None) = (of_it.next(), of_it.next()) else { continue };
        let Some(named) = named(component) else { continue };
        let minor = version::of_image(runs).map_or(serves, |(major, minor, _)| (major, minor));
        if minor != ours {
            left.push(format!(
                "{component} runs Kubernetes {}, and the copy of its bridge is of {}, whose flags may be others: set kubernetesVersion in cluster.yaml, `hoist render`, and `hoist upgrade apply`",
                version(minor),
                version(ours)
            ));
        } else if named == *runs {
            followed.remove(component);
        } else {
            followed.insert(component.into(), Followed { from: named, to: runs.clone() });
        }
    }
    (followed, left)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_copy_follows_what_has_proved_itself_within_a_minor_version() {
        let named = |component: &str| Some(format!("r/{component}:v1.36.3"));
        let runs = |images: &[(&str, &str)]| -> Vec<(String, String)> {
            images.iter().map(|(name, image)| ((*name).to_owned(), (*image).to_owned())).collect()
        };
        let (api, scheduler) = ("kube-apiserver", "kube-scheduler");
        let follow =
            |images: &Images, seen: &[(&str, &str)], serves| super::follow(images, named, &runs(seen), serves, (1, 36));
        let (images, left) = follow(
            &Images::new(),
            &[(api, "r/kube-apiserver:v1.36.4"), (scheduler, "r/kube-scheduler:v1.36.3")],
            (1, 36),
        );
        assert_eq!(
            (images.len(), left.len(), &*images[api].to, &*images[api].from),
            (1, 0, "r/kube-apiserver:v1.36.4", "r/kube-apiserver:v1.36.3")
        );
        // Undone.
        assert!(follow(&images, &[(api, "r/kube-apiserver:v1.36.3")], (1, 36)).0.is_empty());
        // A rollout under way, and nothing known.
        assert_eq!(
            follow(&images, &[(api, "r/kube-apiserver:v1.36.3"), (api, "r/kube-apiserver:v1.36.4")], (1, 36)).0,
            images
        );
        assert_eq!(follow(&images, &[], (1, 36)).0, images);
        // Another minor version, by the tag or by what the API server says.
        for (image, serves) in [
            ("r/kube-apiserver:v1.37.2", (1, 37)),
            ("r/kube-apiserver@sha256:aa", (1, 37)),
            ("r/kube-apiserver:v1.37.2", (1, 36)),
        ] {
            let (same, left) = follow(&images, &[(api, image)], serves);
            assert!(same == images && left.len() == 1 && left[0].contains("runs Kubernetes 1.37"), "{image}: {left:?}");
        }
        let (by_digest, _) = follow(&Images::new(), &[(api, "r/kube-apiserver@sha256:aa")], (1, 36));
        assert_eq!(by_digest[api].to, "r/kube-apiserver@sha256:aa");
    }
}
