//! What `render` makes has no finding, and neither has it after what a user may well do to it.

use std::path::Path;

use time::OffsetDateTime;

use crate::rendered;
use crate::support::{Directory, all, findings};

#[test]
fn rendered_clusters() {
    for (cluster, set) in rendered::all() {
        assert_eq!(findings(&set), [""; 0], "{}", cluster.cluster_name);
    }
}

#[test]
fn every_version() {
    for version in ["v1.34.4", "v1.35.4", "v1.36.3"] {
        let mut cluster = rendered::cluster("minimal");
        let text = cluster.to_yaml().replace("v1.36.3", version);
        cluster = rendered::parse(&text);
        assert_eq!(findings(&rendered::render(&cluster)), [""; 0], "{version}");
    }
}

#[test]
fn a_start_looks_at_its_own_controller_and_not_at_the_clock() {
    let (cluster, mut set) = rendered::all().remove(1);
    let decisive = |set: &_| hoist::validate::decisive(set, &cluster, &cluster.controllers[1], Path::new("assets"));
    set.files.retain(|path, _| !path.starts_with("tls/etcd/full-1.example.com/"));
    assert!(decisive(&set).is_empty(), "{:?}", decisive(&set));
    set.files.remove("tls/etcd/full-2.example.com/peer.key");
    assert_eq!(decisive(&set).len(), 1);

    let directory = Directory::new();
    let cluster = directory.set.cluster(Path::new("/")).unwrap();
    let late = OffsetDateTime::now_utc() + time::Duration::days(400);
    assert!(!all(&directory.set, late).is_empty());
    let decisive = hoist::validate::decisive(&directory.set, &cluster, &cluster.controllers[0], Path::new("assets"));
    assert!(decisive.is_empty(), "{decisive:?}");
}
