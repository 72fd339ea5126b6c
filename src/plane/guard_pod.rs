//! Guard on this controller's disk: its copy of the bridge, hoist's binary, its static pod. `start` puts them there
//! before it lowers the bridge for the first time; the DaemonSet `hoist-guard` does if a node becomes a controller
//! later.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::base::error::{Error, Finding, Result};
use crate::base::files;
use crate::desired::assets::AssetSet;
use crate::desired::config::Controller;
use crate::node::etcd_data::{self, Data};
use crate::node::etcd_manifest::NAME as ETCD;
use crate::node::host::Host;
use crate::node::images::{self, Missing};
use crate::node::kubelet;
use crate::node::lock;
use crate::node::processes;
use crate::node::static_pods::StaticPods;
use crate::plane::bridge::{Bridge, GUARD, Plan, Raised};
use crate::plane::endpoint_pod;
use crate::plane::kept_copy::{self, Copy};
use crate::plane::leaving::{self, Why};
use crate::plane::member;
use crate::plane::{renewal, serving};

/// What of the copy's file tells that it is another.
pub type Mark = Option<(SystemTime, u64)>;

/// The same in the asset directory; a user who removes it there wants no guard.
const RENDERED: &str = "bootstrap-manifests/hoist-guard.yaml";
/// Where the rendered manifest has the kubelet's folder.
const FOLDER: &str = "/etc/kubernetes/manifests";

/// Whether there shall be a guard, by an asset directory.
pub fn is_wanted(assets: &AssetSet) -> bool {
    assets.files.contains_key(RENDERED)
}

/// Whether guard is on the host already, with a copy that says what this one does, and with the binary `binary`: after an
/// upgrade of hoist it is not. Where that cannot be read, any is taken for it.
pub fn stands(host: &Host, copy: &Copy, binary: &Path) -> bool {
    let own = host.binary();
    is_there(host) && own.is_file() && files::have_same_content(binary, &own).unwrap_or(true) && copy.stands(host)
}

/// Tells whether guard's copy on the host is another than it was.
pub fn mark(host: &Host) -> Mark {
    let meta = std::fs::metadata(kept_copy::path(host)).ok()?;
    Some((meta.modified().ok()?, meta.len()))
}

/// Whether guard is on the host, with whatever copy.
pub fn is_there(host: &Host) -> bool {
    StaticPods::new(host.manifests()).has(GUARD)
}

/// Puts guard on the host, its static pod last, and says whether anything changed. `binary` is hoist's own.
///
/// # Errors
/// The system's refusal; running it again goes on.
pub fn install(host: &Host, copy: &Copy, binary: &Path) -> Result<bool> {
    let own = host.binary();
    files::make_dir(own.parent().unwrap_or(Path::new("/")), 0o755)?;
    let mut changed = files::copy_program(binary, &own)?;
    leaving::end(host, Why::Unmade)?;
    changed |= copy.store(host)?;
    let folder = host.inside(host.manifests());
    let text = copy.assets.text(RENDERED)?.replace(FOLDER, &folder.to_string_lossy());
    Ok(StaticPods::new(host.manifests()).install_lasting(GUARD, &text)? || changed)
}

/// Takes the bridge, guard's copy of it and guard itself from the host. Keys go first. A guard that starts after it was cut
/// short knows by a mark that it is to go on ([`leaving::is_unmade`]); what is left without guard is no secret.
///
/// # Errors
/// The system's refusal; running it again goes on.
pub fn remove(host: &Host) -> Result<()> {
    let bridge = Bridge::new(host);
    bridge.lower_api_server()?;
    bridge.lower_controllers()?;
    let folder = kept_copy::path(host).parent().map(Path::to_owned).unwrap_or_default();
    if folder.is_dir() {
        leaving::begin(host, Why::Unmade)?;
        let mark = leaving::path(host, Why::Unmade);
        let entries = std::fs::read_dir(&folder).map_err(|error| Error::io("read", &folder, error))?;
        for path in entries.filter_map(std::result::Result::ok).map(|entry| entry.path()).filter(|path| *path != mark) {
            if path.is_dir() {
                files::remove_dir(&path)?
            } else {
                files::remove(&path)?
            };
        }
    }
    bridge.clean_up()?;
    StaticPods::new(host.manifests()).remove(GUARD)?;
    // The endpoint stays, as long as the machine is a node.
    if !endpoint_pod::mounts_binary(host) {
        files::remove_dir(host.binary().parent().unwrap_or(Path::new("/")))?;
    }
    // Whoever holds it goes on holding what is there.
    if let Ok(lock) = lock::try_take(host) {
        lock.remove()?;
    }
    files::remove_dir(&folder).map(drop)
}

/// Takes guard and its copy of the bridge from the host, and leaves a bridge as it is: for whoever takes its place, and
/// would be taken for a mishap.
///
/// # Errors
/// The system's refusal; running it again goes on.
pub fn withdraw(host: &Host) -> Result<()> {
    StaticPods::new(host.manifests()).remove(GUARD)?;
    kept_copy::path(host).parent().map_or(Ok(()), |folder| files::remove_dir(folder).map(drop))
}

/// Every file that [`install`] may make.
pub fn footprint(host: &Host) -> Vec<PathBuf> {
    vec![host.binary(), kept_copy::path(host), host.manifests().join(GUARD)]
}

/// Removes what a process that was killed has left beside of files of guard's: some of them are keys. If it was about to leave,
/// that begins anew.
///
/// # Errors
/// The system's refusal.
pub fn sweep(host: &Host) -> Result<()> {
    let all = footprint(host).into_iter().chain(serving::footprint(host)).chain([host.etcd_pki().join("server.key")]);
    let folders: BTreeSet<_> = all.filter_map(|path| path.parent().map(Path::to_owned)).collect();
    leaving::end(host, Why::Label)?;
    leaving::end(host, Why::Shutdown)?;
    folders.iter().try_for_each(|folder| files::sweep(folder))
}

/// Raises the bridge from `copy`, by the images that are `present` on this machine, as far as that is known. etcd is left as
/// it stands; it is put back where its manifest is gone, and begins no cluster.
///
/// # Errors
/// A copy that lacks a file; the system's refusal.
pub fn raise(host: &Host, copy: &Copy, present: Option<&[String]>) -> Result<Raised> {
    Bridge::new(host).raise(&plan(host, copy, present)?, &host.binary())
}

/// What [`raise`] puts on the disk.
fn plan(host: &Host, copy: &Copy, present: Option<&[String]>) -> Result<Plan> {
    let (cluster, controller) = copy.cluster()?;
    let bridge = Bridge::new(host);
    let plan = match bridge.has_etcd() {
        true => bridge.plan_beside_etcd(&copy.assets, &cluster, &controller)?,
        false => bridge.plan(&copy.assets, &cluster, &controller)?,
    };
    Ok(plan.with_images(|component, named| images::choose(named, copy.images.get(component), present)))
}

/// The images that this machine lacks, of those that a raise from `copy` would take.
///
/// # Errors
/// A copy that cannot be used.
pub fn lacks(host: &Host, copy: &Copy, present: &[String]) -> Result<Vec<Missing>> {
    Ok(images::missing(plan(host, copy, Some(present))?.texts(), present))
}

/// The images that this machine has; `None` where its container runtime does not say.
pub async fn present(host: &Host, copy: &Copy) -> Option<Vec<String>> {
    let socket = kubelet::runtime_socket(host, &copy.assets).ok()?;
    images::present(&socket).await.ok()
}

/// Before the kubelet starts, where no etcd runs: its manifest gets the condition that its data is there. So an etcd that
/// an older hoist has set up gets it without an outage.
///
/// # Errors
/// The system's refusal.
fn keep_etcd(host: &Host) -> Result<()> {
    let pods = StaticPods::new(host.manifests());
    let Some(text) = pods.read(ETCD).filter(|_| pods.has_own(ETCD)) else { return Ok(()) };
    let Some(dir) = pods.host_path(ETCD, "data") else { return Ok(()) };
    let data = Data::at(host, &dir);
    if data.is_there() {
        data.begin()?;
    }
    if processes::running(&host.path("/proc")).others.contains("etcd") {
        return Ok(());
    }
    pods.install_lasting(ETCD, &etcd_data::guarded(&text))?;
    pods.settle(true).map(drop)
}

/// Before the kubelet starts: where no API server runs on this host, as after a boot, the bridge's manifests shall stand
/// before the kubelet first looks. Says whether it raised.
///
/// # Errors
/// A copy that cannot be used; the system's refusal.
pub async fn boot(host: &Host) -> Result<bool> {
    let present = match Copy::load(host) {
        Ok(Some(copy)) => present(host, &copy).await,
        _ => None,
    };
    boot_with(host, present.as_deref())
}

fn boot_with(host: &Host, present: Option<&[String]>) -> Result<bool> {
    if !is_there(host) {
        return Ok(false);
    }
    // Whoever holds it knows better.
    let Ok(_lock) = lock::try_take(host) else { return Ok(false) };
    // The machine is on again.
    leaving::end(host, Why::Shutdown)?;
    let kept = keep_etcd(host);
    let Some(copy) = Copy::load(host)? else { return kept.map(|()| false) };
    if member::is_in_the_making(host, &copy) {
        return kept.map(|()| false);
    }
    let running = processes::running(&host.path("/proc"));
    if running.others.contains("kube-apiserver") {
        return kept.map(|()| false);
    }
    // Nothing that has ended lets anybody in; what cannot be renewed is raised as it is.
    let renewed = renewal::at_boot(host, copy.clone(), host.world().now());
    let copy = renewed.as_ref().map_or(copy, Clone::clone);
    // What became of etcd's manifest is no reason to raise nothing.
    let raised = raise(host, &copy, present)?;
    kept?;
    renewed?;
    if raised.any {
        return Ok(true);
    }
    // It stood already: the power was cut while it did. Who led then is dead, too.
    let is_cold = running.bridge.is_empty();
    if is_cold {
        Bridge::new(host).raise_anew(host.world().now().into())?;
    }
    Ok(is_cold)
}

/// Puts guard on the host by the bridge of the cluster's Secret, at `from`: for a node that became a controller. Its own
/// certificates for etcd, which no Secret has, must have been put there.
///
/// # Errors
/// A Secret that is none; the system's refusal.
pub fn install_from(host: &Host, from: &Path, binary: &Path, controller: Controller) -> Result<bool> {
    let text = files::read_if_there(from)?.unwrap_or_default();
    let refuse = |why| Error::Input(vec![Finding::new(from.display().to_string(), why)]);
    let shared = Copy::parse(&text).map_err(refuse)?;
    // One that is torn is as good as none.
    let own = Copy::load(host).ok().flatten();
    let own = own.unwrap_or_else(|| Copy { controller: Some(controller), ..shared.clone() });
    install(host, &shared.completed(&own), binary)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::fs::{self, File};
    use std::io::ErrorKind;
    use std::time::{Duration, SystemTime};

    use super::*;
    use crate::node::system;

    /// A controller that guard keeps, with the bridge lowered.
    fn controller() -> (tempfile::TempDir, Host) {
        controller_with("")
    }

    /// The same with `more` in its cluster.yaml.
    fn controller_with(more: &str) -> (tempfile::TempDir, Host) {
        // In memory where there is such a place: it is filled over and over.
        let memory = Path::new("/dev/shm");
        let root = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.unwrap();
        let host = system::host(root.path(), Path::new("/etc/kubernetes/manifests"));
        fs::create_dir(root.path().join("run")).unwrap();
        let binary = root.path().join("hoist");
        fs::write(&binary, "").unwrap();
        let text = "apiVersion: hoist/v1alpha1\nkind: Cluster\ncontrollers:\n- {name: c1, address: 10.0.0.1}\n";
        let text = format!("{text}{more}");
        let cluster = crate::desired::config::parse("cluster.yaml", &text, Path::new("/")).unwrap();
        let now = time::OffsetDateTime::now_utc();
        let pki = crate::desired::pki::issue(&cluster, &Default::default(), &Default::default(), now).unwrap();
        let assets = crate::desired::render::render(&cluster, &pki.files, "abcdef.0123456789abcdef").unwrap();
        assert!(!boot_with(&host, None).unwrap(), "without guard");
        install(&host, &Copy::new(&assets, &cluster, &cluster.controllers[0]), &binary).unwrap();
        (root, host)
    }

    /// The kubelet's unit runs the binary of the disk before there are pods; guard goes on without it.
    #[test]
    fn a_raise_needs_the_binary_of_the_disk_only_where_no_image_has_it() {
        for (more, needs_it) in [("", true), ("images: {hoist: 'localhost/hoist:1'}\n", false)] {
            let (_root, host) = controller_with(more);
            let copy = Copy::load(&host).unwrap().unwrap();
            fs::remove_file(host.binary()).unwrap();
            assert_eq!(raise(&host, &copy, None).is_err(), needs_it, "{more}");
            assert!(!stands(&host, &copy, Path::new("")), "start puts it back");
        }
    }

    #[test]
    fn a_newer_hoist_brings_its_binary() {
        let (root, host) = controller();
        let copy = Copy::load(&host).unwrap().unwrap();
        let binary = root.path().join("hoist");
        assert!(stands(&host, &copy, &binary) && stands(&host, &copy, Path::new("")));
        fs::write(&binary, "newer").unwrap();
        assert!(!stands(&host, &copy, &binary));
        assert!(install(&host, &copy, &binary).unwrap() && stands(&host, &copy, &binary));
    }

    #[test]
    fn a_bridge_that_stood_before_a_boot_is_raised_by_it_all_the_same() {
        let (_root, host) = controller();
        assert!(boot_with(&host, None).unwrap(), "nothing stood");
        let manifest = File::options().write(true).open(host.manifests().join("bridge-kube-apiserver.yaml")).unwrap();
        let long_ago = SystemTime::now() - Duration::from_secs(3600);
        manifest.set_modified(long_ago).unwrap();
        assert_eq!(Bridge::new(&host).raised_at(), Some(long_ago));
        assert!(boot_with(&host, None).unwrap(), "it stood");
        assert!(Bridge::new(&host).raised_at().unwrap() > long_ago + Duration::from_secs(3000));
    }

    #[test]
    fn another_clusters_api_server_on_the_host_keeps_no_boot_from_raising() {
        let (_root, host) = controller();
        let proc = host.path("/proc/7");
        fs::create_dir_all(&proc).unwrap();
        fs::write(proc.join("cmdline"), "kube-apiserver\0--secure-port=6443\0").unwrap();
        assert!(!boot_with(&host, None).unwrap(), "a kubelet that was restarted");
        fs::write(proc.join("cmdline"), "kube-apiserver\0--secure-port=7443\0").unwrap();
        assert!(boot_with(&host, None).unwrap());
    }

    /// What the kubelet and its pods see below a folder: what is not whole yet has a name that begins with a dot.
    fn seen(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
        let mut found = BTreeMap::new();
        for path in fs::read_dir(folder).into_iter().flatten().map(|entry| entry.unwrap().path()) {
            match path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.')) {
                true => {}
                false if path.is_dir() => found.extend(seen(&path)),
                false => drop(found.insert(path.clone(), fs::read(&path).unwrap())),
            }
        }
        found
    }

    fn lower(host: &Host) -> Result<()> {
        let bridge = Bridge::new(host);
        bridge.lower_controllers()?;
        bridge.lower_api_server()?;
        bridge.clean_up()
    }

    /// A torn copy has lost this controller's own certificates of etcd, which stand on the disk, and in no Secret.
    #[test]
    fn the_secrets_copy_in_place_of_a_torn_one_raises_beside_etcd() {
        let (root, host) = controller();
        let copy = Copy::load(&host).unwrap().unwrap();
        raise(&host, &copy, None).unwrap();
        lower(&host).unwrap();
        let secret = root.path().join("bridge.json");
        fs::write(&secret, copy.shared().to_json()).unwrap();
        fs::write(kept_copy::path(&host), "{").unwrap();
        let controller = copy.controller.clone().unwrap();
        assert!(install_from(&host, &secret, &root.path().join("hoist"), controller).unwrap());
        assert!(raise(&host, &Copy::load(&host).unwrap().unwrap(), None).unwrap().any);
        assert!(Bridge::new(&host).standing().is_all());
    }

    /// Nothing more is written from one change of the disk on, for each in turn; then the machine boots.
    #[test]
    fn a_power_cut_at_any_change_of_the_disk_leaves_one_that_boots() {
        let (root, host) = controller();
        let folder = root.path().join("etc/kubernetes");
        boot_with(&host, None).unwrap();
        let whole = seen(&folder);
        assert!(whole.len() > 20 && whole.keys().any(|path| path.ends_with("bridge-kube-apiserver.yaml")), "{whole:?}");
        let put_up = |host: &Host| raise(host, &Copy::load(host)?.unwrap(), None).map(drop);
        let cut = |what: &str, begin: &dyn Fn(&Host) -> Result<()>, act: &dyn Fn(&Host) -> Result<()>| {
            for room in 0.. {
                begin(&host).unwrap();
                let mut left = room;
                files::watch(Some(Box::new(move |_, _| match left {
                    0 => Err(ErrorKind::StorageFull.into()),
                    _ => {
                        left -= 1;
                        Ok(())
                    }
                })));
                let done = act(&host).is_ok();
                files::watch(None);
                boot_with(&host, None).unwrap();
                assert!(seen(&folder) == whole, "{what}, cut after {room} changes: {:?}", seen(&folder).keys());
                if done {
                    assert!(room > 3, "{what}: {room}");
                    break;
                }
            }
        };
        cut("raise", &lower, &put_up);
        cut("lower", &put_up, &lower);
    }

    /// An etcd that an older hoist has set up, whose disk is missing at one boot.
    #[test]
    fn an_etcd_that_has_begun_waits_for_its_data_from_the_next_boot_on() {
        let (root, host) = controller();
        boot_with(&host, None).unwrap();
        let pods = StaticPods::new(host.manifests());
        let guarded = pods.read("etcd.yaml").unwrap();
        let data = Data::at(&host, "/var/lib/etcd");
        assert!(!data.mark().exists(), "guard begins no cluster");
        let bare = |text: &str| {
            let parts: Vec<_> = text.split("    - name: began\n").collect();
            format!("{}{}", parts[0], parts[1].split_once("readOnly: true\n").unwrap().1)
        };
        let older = guarded.replace(
            "  - name: began\n    hostPath:\n      path: \"/var/lib/etcd/member/hoist-began\"\n      type: File\n",
            "",
        );
        let older = bare(&older);
        assert!(etcd_data::is_alike(&older, &guarded) && etcd_data::guarded(&older) != older);
        pods.install("etcd.yaml", &older).unwrap();
        boot_with(&host, None).unwrap();
        assert!(etcd_data::guarded(&pods.read("etcd.yaml").unwrap()) == pods.read("etcd.yaml").unwrap());
        assert!(!data.mark().exists(), "its disk is missing");
        fs::create_dir_all(root.path().join("var/lib/etcd/member/snap")).unwrap();
        fs::write(root.path().join("var/lib/etcd/member/snap/db"), "x").unwrap();
        boot_with(&host, None).unwrap();
        assert!(data.mark().is_file());
        // One that runs is left alone.
        pods.install("etcd.yaml", &older).unwrap();
        raise(&host, &Copy::load(&host).unwrap().unwrap(), None).unwrap();
        assert_eq!(pods.read("etcd.yaml").unwrap(), older);
    }

    #[test]
    fn the_bridge_is_raised_from_images_that_are_there() {
        let (_root, host) = controller();
        let api_server = "bridge-kube-apiserver.yaml";
        let image = || {
            images::of_container(&StaticPods::new(host.manifests()).read(api_server).unwrap(), "kube-apiserver")
                .unwrap()
        };
        boot_with(&host, None).unwrap();
        let named = image();
        let other = format!("{named}-1");
        let present = |images: &[&String]| images.iter().map(|image| (*image).clone()).collect::<Vec<_>>();
        boot_with(&host, Some(&present(&[&other]))).unwrap();
        assert_eq!(image(), other, "the other is gone");
        boot_with(&host, Some(&present(&[&named, &other]))).unwrap();
        assert_eq!(image(), named);
        let copy = Copy::load(&host).unwrap().unwrap();
        let missing = lacks(&host, &copy, &present(&[&named])).unwrap();
        assert!(!missing.iter().any(|missing| missing.image == named) && missing.len() > 2, "{missing:?}");
    }
}
