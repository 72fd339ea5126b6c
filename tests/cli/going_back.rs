//! `hoist unpivot` and `hoist reset`, as far as they need no node.

use crate::support::{CLUSTER, Folder};

#[test]
fn without_root_nothing_is_reset() {
    let folder = Folder::new();
    for args in [&["reset"][..], &["reset", "--force"], &["reset", "--dry-run", "--remove-etcd-data"]] {
        folder.as_nobody(args).failed_saying(4, &["hoist reset: must run as root"]);
    }
}

#[test]
fn unpivot_says_what_keeps_it_from_its_work() {
    let folder = Folder::rendered(CLUSTER);
    let said = ["no interface of this machine has the address of one of them: c1 (198.51.100.10)"];
    folder.as_nobody(&["unpivot", "--asset-dir", "assets"]);
    folder.unchanged(|| folder.as_nobody(&["unpivot", "--asset-dir", "assets"])).failed_saying(4, &said);
    folder.as_nobody(&["unpivot", "--asset-dir", "none"]).failed_saying(3, &["DIR/none: there is no such folder"]);
}
