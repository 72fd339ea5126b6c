//! What a cluster holds that stands in the way of another version: objects that it cannot read, and disks without room for its images.

use futures::future::join_all;

use crate::api::disk::{self, Room};
use crate::api::skew::Kubelet;
use crate::api::stored::{self, Unread};
use crate::base::error::{Error, Finding, Result};
use kube::Client;

/// What a kubelet leaves free at least, by its defaults, before it evicts pods (`evictionHard`): of all, in hundredths.
const LEAST_FREE: [(&str, u64); 2] = [("nodefs", 10), ("imagefs", 15)];
/// What images of a control plane take, unpacked, and a snapshot of etcd.
const NEEDED: u64 = 1 << 30;

/// Looks. `from` and `to` are minor versions of Kubernetes 1, `kubelets` those of the nodes that get new images.
///
/// # Errors
/// The API server's word.
pub(super) async fn look(client: &Client, from: u32, to: u32, kubelets: &[&Kubelet]) -> Result<Vec<Finding>> {
    let mut findings: Vec<_> = stored::unread(client, from, to).await?.iter().map(unread).collect();
    findings.extend(stored::lost_versions(client).await?.iter().map(|(crd, lost)| lost_version(crd, lost)));
    let asked = kubelets
        .iter()
        .filter(|kubelet| kubelet.ready)
        .map(async |kubelet| (kubelet.node.clone(), disk::room(client, &kubelet.node).await));
    findings.extend(kubelets.iter().filter(|kubelet| kubelet.disk_pressure).map(|kubelet| pressure(&kubelet.node)));
    findings.extend(join_all(asked).await.into_iter().flat_map(|(node, rooms)| full(&node, rooms)));
    Ok(findings)
}

fn unread(Unread { kind, gone_in }: &Unread) -> Finding {
    let message = format!("objects of it are there, and Kubernetes 1.{gone_in} cannot read them");
    let remedy = format!("`kubectl get {kind} -A` shows them; delete them, or write them in a newer version");
    Finding::new(kind.clone(), message).remedy(remedy)
}

fn lost_version(crd: &str, lost: &[String]) -> Finding {
    let message = format!(
        "status.storedVersions has {}, which spec.versions has no more: objects that are stored so cannot be read",
        lost.join(", ")
    );
    let remedy =
        "bring the version back (served: false), write each object once, and take it out of status.storedVersions";
    Finding::new(format!("CRD {crd}"), message).remedy(remedy).warning()
}

fn pressure(node: &str) -> Finding {
    Finding::new(format!("node {node}"), "says DiskPressure: it takes no new pods, and evicts those that are there")
        .remedy("make room on its disk; `crictl rmi --prune` removes images that nobody uses")
}

fn full(node: &str, rooms: Result<Vec<Room>, Error>) -> Vec<Finding> {
    let place = format!("node {node}");
    let rooms = match rooms {
        Ok(rooms) => rooms,
        Err(error) => return vec![Finding::new(place, error.to_string()).warning()],
    };
    let too_full = |room: &Room| {
        let percent = LEAST_FREE.iter().find(|(name, _)| *name == room.name).map_or(0, |(_, percent)| *percent);
        let kept = room.all / 100 * percent;
        (room.free < kept + NEEDED).then(|| {
            let message = format!(
                "{} has {} MiB free of {}: new images take about {} MiB, and below {percent} % the kubelet evicts pods",
                room.name,
                room.free >> 20,
                room.all >> 20,
                NEEDED >> 20
            );
            Finding::new(place.clone(), message)
                .remedy("make room on its disk; `crictl rmi --prune` removes images that nobody uses")
                .warning()
        })
    };
    rooms.iter().filter_map(too_full).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_on_which_new_images_would_have_pods_evicted_is_named() {
        let room = |name, free_mib: u64| Room { name, free: free_mib << 20, all: 100_000 << 20 };
        let said = |rooms: Vec<Room>| full("c1", Ok(rooms)).iter().map(ToString::to_string).collect::<Vec<_>>();
        assert!(said(vec![room("nodefs", 11_100), room("imagefs", 16_100)]).is_empty());
        let found = said(vec![room("nodefs", 11_000), room("imagefs", 16_000)]);
        assert_eq!(found.len(), 2);
        assert!(found[0].contains("nodefs has 11000 MiB free of 100000"), "{found:?}");
        assert!(found[1].contains("below 15 %"), "{found:?}");
        let silent = full("c1", Err(Error::failed("ask", "no")));
        assert_eq!(silent.len(), 1, "what is not known is said");
    }
}
