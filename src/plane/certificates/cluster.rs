//! The copies in the cluster's Secrets and ConfigMaps.

use super::copy::{self, CertificateCopy};
use super::disk;
use crate::api::certificates::Object;
use crate::api::guard;
use crate::plane::kept_copy::Copy;

/// The certificates that `objects` hold. The Secret of guard's copy holds a whole asset directory.
pub fn in_cluster(objects: &[Object]) -> Vec<CertificateCopy> {
    let mut found = Vec::new();
    for object in objects {
        for (key, content) in &object.files {
            match key == guard::FILE {
                true => {
                    let kept = Copy::parse(content);
                    found.extend(kept.iter().flat_map(|kept| disk::of_assets(&object.place, "guard", &kept.assets)));
                }
                false => found.extend(copy::copies(&object.place, key, object.holder, content)),
            }
        }
    }
    found
}
