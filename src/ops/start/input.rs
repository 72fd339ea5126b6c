//! What `start` is told, what the asset directory says, and whether input and machine are as they should be.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::memory::Mode;
use crate::api::observe::Required;
use crate::base::error::{Error, Finding, Result};
use crate::base::report::Reporter;
use crate::check::preflight;
use crate::check::validate;
use crate::desired::assets::{self, AssetSet, Manifest};
use crate::desired::config::version::numbers;
use crate::desired::config::{Cluster, Controller, Version};
use crate::desired::pki::ENCRYPTION;
use crate::desired::rotation::{self, Keys};
use crate::node::etcd_data::Data;
use crate::node::host::Host;
use crate::plane::addons;
use crate::plane::kept_copy::Copy;

/// What `hoist start` was told.
#[derive(Debug, Clone)]
pub struct Options {
    /// The asset directory.
    pub asset_dir: PathBuf,
    /// Which controller this is, where its addresses do not tell.
    pub node_name: Option<String>,
    /// The checks of this machine that the user knows better than.
    pub preflight: preflight::Choice,
    /// Whether the asset directory must go together: references and certificates.
    pub validate: bool,
    /// The workloads whose pods must be ready before the bridge is lowered.
    pub required_pods: Vec<Required>,
    /// How long it may go without any progress.
    pub progress_timeout: Duration,
    /// How long the whole may take.
    pub timeout: Duration,
    /// hoist's own binary, for the bridge's pods.
    pub binary: PathBuf,
    /// What is taken for granted.
    pub mode: Mode,
}

/// What an asset directory says: read and checked.
pub struct Input {
    pub(super) assets: AssetSet,
    pub(super) cluster: Cluster,
    pub(super) manifests: Vec<Manifest>,
    pub(super) addons: Vec<Manifest>,
}

impl Input {
    /// Reads an asset directory.
    ///
    /// # Errors
    /// All that is wrong with it.
    pub fn load(asset_dir: &Path) -> Result<Self> {
        let dir = assets::absolute(asset_dir)?;
        Self::of(AssetSet::load(&dir)?, &dir)
    }

    /// Checks an asset directory that was read, from wherever; `place` is what messages call it.
    ///
    /// # Errors
    /// All that is wrong with it.
    pub fn of(assets: AssetSet, place: &Path) -> Result<Self> {
        assets.check_kubeconfigs(place)?;
        let cluster = assets.cluster(place)?;
        let (manifests, addons) = assets.manifests(place)?;
        addons::Order::of(&addons)?;
        Ok(Self { assets, cluster, manifests, addons })
    }

    /// Adds a controller that a label made: nobody rendered it.
    pub fn add(&mut self, controller: Controller) {
        if self.cluster.controllers.iter().all(|declared| declared.address != controller.address) {
            self.cluster.controllers.push(controller);
        }
    }

    /// The asset directory.
    pub fn assets(&self) -> &AssetSet {
        &self.assets
    }

    /// The objects that its manifests/ makes.
    pub fn manifests(&self) -> &[Manifest] {
        &self.manifests
    }

    /// The objects that its addons/ makes.
    pub fn addons(&self) -> &[Manifest] {
        &self.addons
    }

    /// What its cluster.yaml says.
    pub fn cluster(&self) -> &Cluster {
        &self.cluster
    }
}

/// A run whose input and machine are as they should be.
pub(crate) struct Checked<'a> {
    pub(super) host: &'a Host,
    pub(super) input: &'a Input,
    pub(super) options: &'a Options,
    pub(crate) controller: &'a Controller,
    pub(super) asset_dir: PathBuf,
    /// etcd has no data that could be gone later: it begins a cluster.
    pub(super) may_begin: bool,
}

/// Checks input and machine, and changes nothing.
///
/// # Errors
/// All that stands in the way.
pub(crate) async fn check<'a>(
    host: &'a Host,
    input: &'a Input,
    options: &'a Options,
    reporter: &Reporter,
) -> Result<Checked<'a>> {
    let Input { assets, cluster, .. } = input;
    let asset_dir = assets::absolute(&options.asset_dir)?;
    let controller = preflight::controller(cluster, options.node_name.as_deref(), &host.world().addresses()?)?;
    let broken =
        if options.validate { validate::decisive(assets, cluster, controller, &asset_dir) } else { Vec::new() };
    if !broken.is_empty() {
        return Err(Error::Input(broken));
    }
    if options.mode == Mode::Start {
        goes_on(host, assets, &asset_dir)?;
        if let Some(behind) = is_behind(host, assets, cluster, &asset_dir) {
            return Err(Error::Input(vec![behind]));
        }
    }
    let checked = preflight::check(host, assets, cluster, controller, &options.preflight).await?;
    checked.verdict()?.iter().for_each(|text| reporter.note(text));
    let may_begin =
        options.mode == Mode::Start && begins(host, assets, (cluster, controller), options.preflight.new_cluster).await;
    Ok(Checked { host, input, options, controller, asset_dir, may_begin })
}

/// guard's copy on this controller. Another cluster's says nothing of this one, and one that cannot be read is written anew.
fn kept_of_the_same(host: &Host, assets: &AssetSet) -> Option<Copy> {
    let copy = Copy::load(host).ok().flatten()?;
    (copy.assets.tls().get("ca.crt") == assets.tls().get("ca.crt")).then_some(copy)
}

/// Refuses an asset directory of before a rotation: it would bring keys back that the cluster has left behind, and take away
/// those that it has now.
///
/// # Errors
/// What is older in it.
pub(crate) fn goes_on(host: &Host, assets: &AssetSet, dir: &Path) -> Result<()> {
    let older = kept_of_the_same(host, assets).and_then(|copy| older_keys(&copy, assets, dir));
    older.map_or(Ok(()), |finding| Err(Error::Input(vec![finding])))
}

/// The keys of `assets` that would lead a cluster back whose guard keeps `copy`.
pub(crate) fn older_keys(copy: &Copy, assets: &AssetSet, dir: &Path) -> Option<Finding> {
    let (kept, own) = (copy.assets.tls(), assets.tls());
    let encryption = || rotation::encryption::leads_back(kept.get(ENCRYPTION)?, own.get(ENCRYPTION)?);
    let found = encryption().map(|why| (ENCRYPTION, Keys::EncryptionKey, why));
    let service_account =
        || Some((rotation::PUBLIC, Keys::ServiceAccount, rotation::service_account::leads_back(&kept, &own)?));
    let front_proxy = || Some((rotation::CA, Keys::FrontProxyCa, rotation::front_proxy::leads_back(&kept, &own)?));
    let etcd = || Some((rotation::ETCD_CA, Keys::EtcdCa, rotation::etcd_ca::leads_back(&kept, &own)?));
    let (file, keys, why) = found.or_else(service_account).or_else(front_proxy).or_else(etcd)?;
    let finding = Finding::new(dir.join("tls").join(file).display().to_string(), why);
    Some(finding.remedy(format!(
        "bring the cluster's own there, and run `hoist render`: docs/rotation.md#other-asset-directories has the command. `hoist certs rotate {} --abort` leads a cluster back to its old key",
        keys.name()
    )))
}

/// An asset directory of an older version than guard's copy on this controller: an upgrade has brought the copy, and what is
/// older would take the cluster back.
fn is_behind(host: &Host, assets: &AssetSet, cluster: &Cluster, asset_dir: &Path) -> Option<Finding> {
    let copy = kept_of_the_same(host, assets)?;
    let kept = copy.kubernetes;
    let (major, minor, patch) = numbers(&kept)?;
    let own = cluster.kubernetes_version;
    if own >= (Version { major, minor, patch }) {
        return None;
    }
    let finding = Finding::new(
        asset_dir.join("cluster.yaml").display().to_string(),
        format!("is of {own}, and the cluster was upgraded to {kept} since"),
    );
    Some(finding.remedy("copy the asset directory here that `hoist upgrade` has used"))
}

/// Whether etcd may begin here: it has no data, and none that could be is known of, or the other members wait for it. Whatever
/// checks were skipped or ignored, another cluster in the place of one that is known takes its own flag.
async fn begins(
    host: &Host,
    assets: &AssetSet,
    (cluster, controller): (&Cluster, &Controller),
    new_cluster: bool,
) -> bool {
    if Data::of(host, cluster).is_none_or(|data| data.is_there()) {
        return false;
    }
    new_cluster
        || preflight::known_by(host, assets).is_none()
        || preflight::said(cluster, controller, &assets.tls()).await == preflight::Said::Awaited
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::files::File;
    use crate::node::system;

    #[test]
    fn an_asset_directory_that_an_upgrade_has_left_behind_is_not_started() {
        let root = tempfile::tempdir().unwrap();
        let host = system::host(root.path(), Path::new("/etc/kubernetes/manifests"));
        let of = |version: &str| {
            let text = format!(
                "apiVersion: hoist/v1alpha1\nkind: Cluster\nkubernetesVersion: {version}\ncontrollers:\n- {{name: c1, address: 10.0.0.1}}\n"
            );
            crate::desired::config::parse("cluster.yaml", &text, Path::new("/")).unwrap()
        };
        let (old, new, dir) = (of("v1.36.3"), of("v1.37.2"), Path::new("/assets"));
        let none = AssetSet::default();
        assert_eq!(is_behind(&host, &none, &old, dir), None, "guard has none yet");
        Copy::new(&AssetSet::default(), &new, &new.controllers[0]).store(&host).unwrap();
        let finding = is_behind(&host, &none, &old, dir).unwrap().to_string();
        assert!(finding.contains("is of v1.36.3") && finding.contains("upgraded to v1.37.2"), "{finding}");
        assert_eq!(is_behind(&host, &none, &new, dir), None);
        Copy::new(&AssetSet::default(), &old, &old.controllers[0]).store(&host).unwrap();
        assert_eq!(is_behind(&host, &none, &new, dir), None, "guard's copy follows");
    }

    #[test]
    fn a_directory_of_before_a_rotation_is_refused() {
        let root = tempfile::tempdir().unwrap();
        let host = system::host(root.path(), Path::new("/etc/kubernetes/manifests"));
        let text = "apiVersion: hoist/v1alpha1\nkind: Cluster\ncontrollers:\n- {name: c1, address: 10.0.0.1}\n";
        let cluster = crate::desired::config::parse("cluster.yaml", text, Path::new("/")).unwrap();
        let key = |name: &str, letter: &str| format!("{{name: {name}, secret: {}=}}", letter.repeat(43));
        let (old, new) = (key("key1", "A"), key("key2", "E"));
        let assets = |keys: &[&str], ca: &str| {
            let text = format!(
                "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\nresources:\n- resources: [secrets]\n  providers:\n  - secretbox: {{keys: [{}]}}\n",
                keys.join(", ")
            );
            let mut assets = AssetSet::default();
            assets.files.insert(format!("tls/{ENCRYPTION}"), File::private(text));
            assets.files.insert("tls/ca.crt".into(), File::private(ca));
            assets
        };
        let dir = Path::new("/assets");
        assert!(goes_on(&host, &assets(&[&old], "ca"), dir).is_ok(), "guard keeps nothing");
        Copy::new(&assets(&[&new, &old], "ca"), &cluster, &cluster.controllers[0]).store(&host).unwrap();
        let error = goes_on(&host, &assets(&[&old], "ca"), dir).unwrap_err().to_string();
        assert!(error.contains("/assets/tls/encryption.yaml") && error.contains("lacks key2"), "{error}");
        assert!(!error.contains("EEE"), "{error}");
        assert!(goes_on(&host, &assets(&[&new, &old], "ca"), dir).is_ok());
        assert!(goes_on(&host, &assets(&[&old], "another"), dir).is_ok());
    }

    #[tokio::test]
    async fn in_the_place_of_a_cluster_that_is_known_none_is_begun_unasked() {
        let root = tempfile::tempdir().unwrap();
        let host = system::host(root.path(), Path::new("/etc/kubernetes/manifests"));
        let text = "apiVersion: hoist/v1alpha1\nkind: Cluster\ncontrollers:\n- {name: c1, address: 10.0.0.1}\n";
        let cluster = crate::desired::config::parse("cluster.yaml", text, Path::new("/")).unwrap();
        let this = (&cluster, &cluster.controllers[0]);
        let mut assets = AssetSet::default();
        assert!(begins(&host, &assets, this, false).await);
        assets.files.insert(assets::CLUSTER_ID.into(), File::public("uid\n"));
        assert!(!begins(&host, &assets, this, false).await && begins(&host, &assets, this, true).await);
        let data = root.path().join("var/lib/etcd/member/snap");
        std::fs::create_dir_all(&data).unwrap();
        std::fs::write(data.join("db"), "x").unwrap();
        assert!(!begins(&host, &assets, this, true).await, "it goes on");
    }
}
