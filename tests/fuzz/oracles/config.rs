//! A cluster.yaml: whatever is accepted is written back as the same cluster, and renders.

use std::path::Path;

use hoist::desired::config;
use hoist::desired::pki;
use hoist::desired::render;
use time::OffsetDateTime;

/// Panics where hoist is wrong about `data`.
pub fn check(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(cluster) = config::parse("cluster.yaml", text, Path::new("/base")) else { return };
    let written = cluster.to_yaml();
    let again = config::parse("cluster.yaml", &written, Path::new("/base"));
    assert_eq!(again.unwrap_or_else(|error| panic!("{error}\n{written}")), cluster);
    // Files that it names are not there.
    let names_files = pki::read_user_files(&cluster).map_or(true, |files| !files.0.is_empty());
    if names_files {
        return;
    }
    let now = OffsetDateTime::from_unix_timestamp(1_800_000_000).unwrap_or(OffsetDateTime::UNIX_EPOCH);
    let issued = pki::issue(&cluster, &Default::default(), &Default::default(), now);
    let issued = issued.unwrap_or_else(|error| panic!("{error}\n{written}"));
    let set = render::render(&cluster, &issued.files, "abcdef.0123456789abcdef");
    let set = set.unwrap_or_else(|error| panic!("{error}\n{written}"));
    // What start does first with it.
    let again = set.cluster(Path::new("/base")).unwrap_or_else(|error| panic!("{error}\n{written}"));
    assert_eq!(again, cluster);
    set.manifests(Path::new("/base")).unwrap_or_else(|error| panic!("{error}\n{written}"));
}
