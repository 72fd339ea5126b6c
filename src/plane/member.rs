//! This controller's member of etcd on its disk, where a label made the controller: begun as one that joins, put aside,
//! removed.

use std::path::PathBuf;

use serde_json::Value;
use time::OffsetDateTime;

use super::kept_copy::Copy;
use super::serving;
use crate::base::error::{Error, Result};
use crate::base::files;
use crate::base::yaml;
use crate::desired::config::{Cluster, Controller, Etcd};
use crate::desired::secrets::{self, own_serving};
use crate::etcd::client::MemberId;
use crate::node::etcd_data::{self, Data};
use crate::node::etcd_manifest::NAME as ETCD;
use crate::node::host::Host;
use crate::node::static_pods::StaticPods;

/// Snapshots of etcd from before its image was exchanged.
pub const SNAPSHOTS: &str = "/var/lib/hoist/etcd-snapshots";
/// The exchange of etcd's image that is under way.
pub const EXCHANGE: &str = "/var/lib/hoist/guard/etcd-exchange.json";

/// Whether the controller that `copy` is for is one in the making: nobody rendered its certificates, and its API server was
/// not let serve yet.
pub fn is_in_the_making(host: &Host, copy: &Copy) -> bool {
    let Some(controller) = &copy.controller else { return false };
    !serving::is_there(host) && !is_rendered(copy, controller)
}

/// Whether the certificates of a controller come from an asset directory.
fn is_rendered(copy: &Copy, controller: &Controller) -> bool {
    let has = |path: String| copy.assets.files.contains_key(&format!("tls/{path}"));
    let is_declared = || {
        let cluster = copy.cluster().map(|(cluster, _)| cluster);
        cluster.is_ok_and(|cluster| cluster.controllers.iter().any(|declared| declared.name == controller.name))
    };
    let of_etcd = has(format!("etcd/{}/server.crt", controller.name));
    let has_etcd = copy.assets.files.contains_key(&format!("bootstrap-manifests/{ETCD}"));
    !has_own_certificates(copy, controller) && if has_etcd { of_etcd } else { is_declared() }
}

/// Whether `copy` has certificates that were made on this controller.
pub fn has_own_certificates(copy: &Copy, controller: &Controller) -> bool {
    copy.assets.files.contains_key(&format!("tls/{}", own_serving(&controller.name, "apiserver.crt")))
}

/// Puts its member there, to join a cluster of these members: the value of `--initial-cluster`. The manifest comes last.
///
/// # Errors
/// A copy that lacks a file; the system's refusal. Running it again goes on.
pub fn begin(host: &Host, copy: &Copy, initial_cluster: &str) -> Result<()> {
    let Some((data, manifest)) = prepared(host, copy, initial_cluster)? else { return Ok(()) };
    files::remove(&host.path(EXCHANGE))?;
    files::make_dir(&data.dir(), 0o700)?;
    data.begin()?;
    StaticPods::new(host.manifests()).install_lasting(ETCD, &manifest).map(drop)
}

/// Puts a member there that was added anew as `id`, in place of one whose data is lost or put aside. The one before may have
/// been what began the cluster: what the kubelet still knows of it waits for another file, and does not start.
///
/// # Errors
/// A copy that lacks a file; the system's refusal. Running it again goes on.
pub fn begin_anew(host: &Host, copy: &Copy, id: MemberId, initial_cluster: &str) -> Result<()> {
    let Some((data, manifest)) = prepared(host, copy, initial_cluster)? else { return Ok(()) };
    files::remove(&host.path(EXCHANGE))?;
    let manifest = etcd_data::waiting_for(&manifest, &etcd_data::joined(id));
    StaticPods::new(host.manifests()).install_lasting(ETCD, &manifest)?;
    data.begin_anew(id)
}

/// Puts what a member that joins needs on the disk, but for its manifest, and says what that is; `None` where etcd is
/// elsewhere.
fn prepared(host: &Host, copy: &Copy, initial_cluster: &str) -> Result<Option<(Data, String)>> {
    let (cluster, controller) = copy.cluster()?;
    let Some(data) = Data::of(host, &cluster) else { return Ok(None) };
    serving::write(&host.etcd_pki(), secrets::of_etcd(&controller.name, &copy.assets.tls())?)?;
    let manifest = copy.assets.text(&format!("bootstrap-manifests/{ETCD}"))?;
    Ok(Some((data, joining(&etcd_data::guarded(&manifest), initial_cluster)?)))
}

/// Whether its member's manifest is there.
pub fn has_manifest(host: &Host) -> bool {
    host.manifests().join(ETCD).is_file()
}

/// Moves the data of a member that is none any more out of the way; says where it is now.
///
/// # Errors
/// The system's refusal.
pub fn put_aside(host: &Host, cluster: &Cluster, now: OffsetDateTime) -> Result<Option<PathBuf>> {
    StaticPods::new(host.manifests()).remove(ETCD)?;
    let Some(data) = Data::of(host, cluster).filter(|data| data.dir().join("member").is_dir()) else { return Ok(None) };
    let aside = data.dir().join(format!("{}{}", etcd_data::ASIDE, now.unix_timestamp()));
    let from = data.dir().join("member");
    files::rename(&from, &aside)?;
    Ok(Some(aside))
}

/// Takes the member's manifest, its keys and its data away, where etcd is on the controllers: once no voter counts it any
/// more.
///
/// # Errors
/// The system's refusal; running it again goes on.
pub fn remove(host: &Host, cluster: &Cluster) -> Result<()> {
    let Some(data) = Data::of(host, cluster) else { return Ok(()) };
    StaticPods::new(host.manifests()).remove(ETCD)?;
    files::remove(&host.path(EXCHANGE))?;
    files::remove_dir(&host.path(SNAPSHOTS))?;
    files::remove_dir(&host.etcd_pki())?;
    files::remove_dir(&data.dir().join("member")).map(drop)
}

/// Whether this cluster has etcd on its controllers.
pub fn is_local(cluster: &Cluster) -> bool {
    matches!(cluster.etcd, Etcd::Local { .. })
}

/// etcd's manifest as that of one that joins a cluster that is there. As text, where hoist has written it, so that what a
/// user wrote into it stays.
///
/// # Errors
/// A manifest that has no such flags.
fn joining(manifest: &str, initial_cluster: &str) -> Result<String> {
    let flags = [("--initial-cluster=", initial_cluster), ("--initial-cluster-state=", "existing")];
    let replaced = |line: &str| {
        let (indent, item) = line.split_once("- ")?;
        let bare = item.trim_end().trim_matches('"');
        let (flag, value) = flags.iter().find(|(flag, _)| bare.starts_with(flag))?;
        indent.trim().is_empty().then(|| format!("{indent}- {}", Value::from(format!("{flag}{value}"))))
    };
    let text: String = manifest.lines().map(|line| replaced(line).unwrap_or_else(|| line.to_owned()) + "\n").collect();
    let pod = yaml::documents("", &text).ok().and_then(|all| all.into_iter().next()).map(|document| document.value);
    let command = pod.as_ref().and_then(|pod| pod.pointer("/spec/containers/0/command")?.as_array());
    let has = |wanted: String| command.is_some_and(|all| all.iter().any(|arg| *arg == wanted));
    match flags.iter().all(|(flag, value)| has(format!("{flag}{value}"))) {
        true => Ok(text),
        false => Err(Error::Failed {
            action: "have etcd join".into(),
            cause: format!(
                "bootstrap-manifests/{ETCD} has no --initial-cluster and --initial-cluster-state on lines of their own"
            ),
            next: Some("write them there as `hoist render` does, and run `hoist start` on the first controller".into()),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_that_joins_has_the_flags_for_it_and_keeps_the_rest() {
        let manifest = "kind: Pod # mine\nspec:\n  containers:\n  - name: etcd\n    command:\n    - etcd\n    - \"--initial-cluster=c1=https://10.0.0.1:2380\"\n    - --initial-cluster-state=new\n    - --name=$(NODE_NAME)\n";
        let text = joining(manifest, "c1=https://10.0.0.1:2380,c2=https://10.0.0.2:2380").unwrap();
        assert!(
            text.contains("    - \"--initial-cluster=c1=https://10.0.0.1:2380,c2=https://10.0.0.2:2380\"\n"),
            "{text}"
        );
        assert!(text.contains("    - \"--initial-cluster-state=existing\"\n") && text.contains("kind: Pod # mine\n"));
        assert_eq!(joining(&text, "c1=https://10.0.0.1:2380,c2=https://10.0.0.2:2380").unwrap(), text);
        let error = joining("kind: Pod\n", "c1=x").unwrap_err();
        assert!(error.to_string().contains("--initial-cluster-state"), "{error}");
    }
}
