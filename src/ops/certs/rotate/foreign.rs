//! What is not hoist's to rotate: a key or CA of the user's, and files that flags name and hoist does not write.

use crate::api::rotation::Workload;
use crate::base::error::Finding;

/// Where API servers, controller managers and members of etcd have their files.
pub(super) const MOUNTED: &str = "/etc/kubernetes/secrets";

/// Why what `field` of cluster.yaml names is not hoist's: a `what` that stays where it is taken out.
pub(super) fn of_user(field: &str, what: &str) -> Finding {
    let message = format!("cluster.yaml names a {what} of yours, and `hoist render` would bring it back");
    Finding::new(field, message).remedy(format!(
        "take {field} out of cluster.yaml, and run `hoist render` and `hoist start`: the {what} stays in tls/"
    ))
}

/// Why the files of what runs at `place` are not hoist's: the first of `flags` that names others than the file beside it.
pub(super) fn flag(place: &str, found: &Workload, flags: &[(&str, &str)]) -> Option<Finding> {
    let named = flags.iter().map(|(flag, file)| (*flag, format!("{MOUNTED}/{file}")));
    let (flag, path) = named.into_iter().find(|(flag, path)| found.flags(flag) != [path])?;
    let message = format!("its flag --{flag} names another file than {path}, which is not hoist's to rotate");
    Some(Finding::new(place, message).remedy("`hoist start` brings the flags of the asset directory"))
}
