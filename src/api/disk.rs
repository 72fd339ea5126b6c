//! The room on a node's disks, as its kubelet measures it (k8s.io/kubelet/pkg/apis/stats/v1alpha1).

use kube::Client;
use serde_json::Value;

use super::page;
use crate::base::error::{Error, Result};

/// One file system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Room {
    /// What the kubelet has there: `nodefs` or `imagefs`.
    pub name: &'static str,
    /// Free bytes.
    pub free: u64,
    /// All bytes.
    pub all: u64,
}

/// The file systems of `node`: the kubelet's own, and the images' where that is another one.
///
/// # Errors
/// A kubelet that does not answer, or not with its figures.
pub async fn room(client: &Client, node: &str) -> Result<Vec<Room>> {
    let action = format!("ask the kubelet of {node} for the room on its disks");
    let text = page(client, &format!("/api/v1/nodes/{node}/proxy/stats/summary"), &action).await?;
    let summary: Value = serde_json::from_str(&text).map_err(|error| Error::failed(&*action, error))?;
    let found = rooms(&summary);
    if found.is_empty() { Err(Error::failed(action, "it has no figures yet")) } else { Ok(found) }
}

fn rooms(summary: &Value) -> Vec<Room> {
    let room = |name, at: &str| {
        let system = summary.pointer(at)?;
        Some(Room { name, free: system["availableBytes"].as_u64()?, all: system["capacityBytes"].as_u64()? })
    };
    let mut found: Vec<_> = room("nodefs", "/node/fs").into_iter().collect();
    let images = room("imagefs", "/node/runtime/imageFs");
    let is_another = |images: &Room| !found.iter().any(|own| (own.free, own.all) == (images.free, images.all));
    found.extend(images.filter(is_another));
    found
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn one_file_system_for_both_is_said_once() {
        let system = |free: u64| json!({"availableBytes": free, "capacityBytes": 100, "usedBytes": 1});
        let of = |own: Value, images: Value| {
            let found = rooms(&json!({"node": {"fs": own, "runtime": {"imageFs": images}}}));
            found.iter().map(|room| (room.name, room.free)).collect::<Vec<_>>()
        };
        assert_eq!(of(system(7), system(7)), [("nodefs", 7)]);
        assert_eq!(of(system(7), system(9)), [("nodefs", 7), ("imagefs", 9)]);
        assert_eq!(of(json!({}), Value::Null), []);
    }
}
