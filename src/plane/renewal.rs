//! Renewed leaves on this controller's disk: in guard's copy first, and from there in the files that servers read.
//!
//! What is read from a file is replaced by a rename over what its path leads to, never by another link: servers watch the file
//! itself. The key beside it stays, so that the two are a pair at any moment.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use time::OffsetDateTime;

use crate::base::error::{Error, Result};
use crate::base::files::{self, File};
use crate::desired::renewal::{self, Leaf, Observed};
use crate::node::host::Host;
use crate::node::kubelet;
use crate::plane::kept_copy::Copy;

/// What [`refresh`] has done.
#[derive(Debug, Default)]
pub struct Refreshed {
    /// The files that hold a renewed leaf now.
    pub changed: Vec<PathBuf>,
    /// What could not be replaced, and why.
    pub failed: Vec<Error>,
}

/// `copy` with these leaves renewed, on this controller's disk; and what could not be renewed.
///
/// # Errors
/// The system's refusal. What stood there stands.
pub fn renew(host: &Host, copy: &Copy, leaves: &[&Leaf], now: OffsetDateTime) -> Result<(Copy, Vec<Error>)> {
    let (cluster, _) = copy.cluster()?;
    let (assets, failed) = renewal::renewed(&copy.assets, leaves, cluster.pki.certificate_validity, now);
    let renewed = Copy { assets, ..copy.clone() };
    renewed.store(host)?;
    Ok((renewed, failed))
}

/// Before anything starts that needs the API: `copy` with whatever of it has ended, and this controller's own that is due,
/// renewed, and the files of servers and of the kubelet too. A clock that is behind the copy renews nothing.
///
/// # Errors
/// As [`renew`], or a file that could not be replaced.
pub fn at_boot(host: &Host, copy: Copy, now: OffsetDateTime) -> Result<Copy> {
    let (cluster, controller) = copy.cluster()?;
    let leaves = renewal::leaves(&copy.assets.tls());
    let seen = Observed {
        now,
        lifetime: cluster.pki.certificate_validity,
        api_answers: false,
        jitter: renewal::jitter(&controller.name),
        is_asked_for: false,
    };
    let here = renewal::plan(&leaves, &seen).here;
    let (copy, failed) = if here.is_empty() { (copy, Vec::new()) } else { renew(host, &copy, &here, now)? };
    kubelet::replace_ended(host, &controller.name, &copy.assets.tls(), seen.lifetime, now)?;
    match refresh(host, &copy).failed.into_iter().chain(failed).next() {
        Some(error) => Err(error),
        None => Ok(copy),
    }
}

/// Puts the leaves of `copy` into the files of this controller's servers, where those hold what they succeed. It goes on
/// past a file that cannot be replaced.
pub fn refresh(host: &Host, copy: &Copy) -> Refreshed {
    let leaves = renewal::texts(&copy.assets);
    let mut done = Refreshed::default();
    for folder in [host.etcd_pki(), host.serving_pki(), host.bridge()] {
        for path in below(&folder) {
            match replace(&path, &leaves) {
                Ok(true) => done.changed.push(path),
                Ok(false) => {}
                Err(error) => done.failed.push(error),
            }
        }
    }
    done
}

fn replace(path: &Path, leaves: &[Vec<u8>]) -> Result<bool> {
    let content = fs::read(path).map_err(|error| Error::io("read", path, error))?;
    let Some(content) = renewal::refreshed(&content, leaves) else { return Ok(false) };
    let real = fs::canonicalize(path).map_err(|error| Error::io("read", path, error))?;
    let meta = fs::metadata(&real).map_err(|error| Error::io("read", &real, error))?;
    let own = nix::unistd::geteuid().as_raw();
    if meta.uid() != own {
        let cause = format!("it belongs to the user {}, and only files of the user {own} are replaced", meta.uid());
        return Err(Error::failed(format!("renew {}", path.display()), cause));
    }
    files::write(&real, &File { content, mode: meta.mode() & 0o777 })
}

/// Whether a file has another name, by which its servers would not see that it is replaced.
pub fn has_another_name(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|meta| meta.nlink() > 1)
}

/// The files below a folder that are whole, in order.
fn below(folder: &Path) -> impl Iterator<Item = PathBuf> {
    let is_whole = |path: &PathBuf| path.file_name().is_some_and(|name| !name.to_string_lossy().starts_with('.'));
    files::below(folder).into_iter().filter(is_whole)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::OnceLock;
    use std::time::Duration;

    use super::*;
    use crate::base::files::Operation;
    use crate::desired::assets::AssetSet;
    use crate::desired::config::Cluster;
    use crate::desired::pki;
    use crate::desired::secrets;
    use crate::node::system;
    use crate::plane::bridge::Bridge;
    use crate::plane::serving;

    const DAY: Duration = Duration::from_hours(24);

    fn begun() -> OffsetDateTime {
        OffsetDateTime::from_unix_timestamp(1_782_907_200).unwrap()
    }

    fn rendered() -> &'static (Cluster, AssetSet) {
        static RENDERED: OnceLock<(Cluster, AssetSet)> = OnceLock::new();
        RENDERED.get_or_init(|| {
            let text = "apiVersion: hoist/v1alpha1\nkind: Cluster\ncontrollers:\n- {name: c1, address: 10.0.0.1}\n";
            let cluster = crate::desired::config::parse("cluster.yaml", text, Path::new("/")).unwrap();
            let tls = pki::issue(&cluster, &Default::default(), &Default::default(), begun()).unwrap().files;
            let assets = crate::desired::render::render(&cluster, &tls, "abcdef.0123456789abcdef").unwrap();
            (cluster, assets)
        })
    }

    /// A controller with all that a raised bridge and etcd read.
    fn controller() -> (tempfile::TempDir, Host, Copy) {
        let root = tempfile::tempdir().unwrap();
        let host = system::host(root.path(), Path::new("/etc/kubernetes/manifests"));
        let binary = root.path().join("hoist");
        fs::write(&binary, "").unwrap();
        let (cluster, assets) = rendered();
        let bridge = Bridge::new(&host);
        let controller = &cluster.controllers[0];
        bridge.raise(&bridge.plan(assets, cluster, controller).unwrap(), &binary).unwrap();
        serving::install(&host, controller, &assets.tls()).unwrap();
        let copy = Copy::new(assets, cluster, controller);
        copy.store(&host).unwrap();
        (root, host, copy)
    }

    fn contents(host: &Host) -> BTreeMap<PathBuf, Vec<u8>> {
        let folders = [host.etcd_pki(), host.serving_pki(), host.bridge()];
        let paths = folders.iter().flat_map(|folder| below(folder));
        paths.map(|path| (path.clone(), fs::read(path).unwrap())).collect()
    }

    /// Each certificate that lies beside a key of its name is that key's.
    fn pairs(host: &Host) -> usize {
        let all = contents(host);
        let mut count = 0;
        for (path, crt) in all.iter().filter(|(path, _)| path.extension().is_some_and(|end| end == "crt")) {
            let Some(key) = all.get(&path.with_extension("key")) else { continue };
            let chain = pki::verify::certificates("", crt).unwrap();
            assert!(pki::verify::key_fits(&chain[0], "", key).unwrap(), "{}", path.display());
            count += 1;
        }
        count
    }

    #[test]
    fn a_controller_that_was_off_for_longer_than_its_certificates_live_boots_with_new_ones() {
        let (_root, host, copy) = controller();
        let before = contents(&host);
        let now = begun() + DAY * 400;
        let kubelet = host.kubelet_certificate();
        fs::create_dir_all(kubelet.parent().unwrap()).unwrap();
        fs::write(&kubelet, secrets::of_kubelet("c1", &copy.assets.tls()).unwrap()).unwrap();
        let renewed = at_boot(&host, copy, now).unwrap();
        assert!(renewal::leaves(&renewed.assets.tls()).iter().all(|leaf| leaf.ends == now + DAY * 365));
        assert!(Copy::load(&host).unwrap().unwrap() == renewed);
        let after = contents(&host);
        let changed: Vec<_> = before.iter().filter(|(path, old)| after[*path] != **old).map(|(path, _)| path).collect();
        let changed: Vec<_> = changed.iter().map(|path| host.inside(path).display().to_string()).collect();
        assert_eq!(
            changed,
            [
                "/etc/kubernetes/bridge/kube-apiserver/apiserver-etcd-client.crt",
                "/etc/kubernetes/bridge/kube-apiserver/apiserver-kubelet-client.crt",
                "/etc/kubernetes/bridge/kube-apiserver/apiserver.crt",
                "/etc/kubernetes/bridge/kube-apiserver/front-proxy-client.crt",
                "/etc/kubernetes/bridge/kube-controller-manager/client.crt",
                "/etc/kubernetes/bridge/kube-scheduler/client.crt",
                "/etc/kubernetes/pki/apiserver/apiserver.crt",
                "/etc/kubernetes/pki/etcd/peer.crt",
                "/etc/kubernetes/pki/etcd/server.crt",
            ]
        );
        assert_eq!(pki::inspect(&fs::read(&kubelet).unwrap()).unwrap().not_after, now + DAY * 365);
        // They are what a raise from the copy would put there.
        let (cluster, _) = renewed.cluster().unwrap();
        let tls = renewed.assets.tls();
        let files = secrets::of_component("kube-scheduler", &cluster, &tls, secrets::Server::Bridge).unwrap();
        for (name, content) in files {
            assert_eq!(after[&host.bridge().join("kube-scheduler").join(&name)], content, "{name}");
        }
        // Done once, it is done.
        assert!(at_boot(&host, renewed.clone(), now).unwrap() == renewed);
        assert!(refresh(&host, &renewed).changed.is_empty());
    }

    #[test]
    fn the_kubelet_of_a_controller_that_a_label_made_gets_its_own_certificate_renewed() {
        let (_root, host, copy) = controller();
        let now = begun() + DAY * 400;
        let own = secrets::of_kubelet("c1", &copy.assets.tls()).unwrap();
        let mut without = copy.clone();
        without.assets.files.retain(|path, _| !path.starts_with("tls/kubelet/"));
        let kubelet = host.kubelet_certificate();
        fs::create_dir_all(kubelet.parent().unwrap()).unwrap();
        // Another Node's, and one whose CA has its key elsewhere, stay.
        let other = secrets::of_kubelet("c1", &copy.assets.tls()).unwrap();
        let mut elsewhere = without.clone();
        elsewhere.assets.files.remove("tls/ca.key");
        let mut renamed = without.clone();
        renamed.controller.as_mut().unwrap().name = "c2".into();
        for (copy, is_renewed) in [(&elsewhere, false), (&renamed, false), (&without, true)] {
            fs::write(&kubelet, &other).unwrap();
            let tls = copy.assets.tls();
            let name = &copy.controller.as_ref().unwrap().name;
            assert_eq!(kubelet::replace_ended(&host, name, &tls, DAY * 365, now).unwrap(), is_renewed);
            let there = fs::read(&kubelet).unwrap();
            let key = |pem: &[u8]| pem::parse_many(pem).unwrap().into_iter().find(|block| block.tag() != "CERTIFICATE");
            assert_eq!(key(&there), key(&own), "the key stays");
            let info = pki::inspect(&there).unwrap();
            assert_eq!(info.not_after == now + DAY * 365, is_renewed);
            assert_eq!(info.subject, "O=system:nodes, CN=system:node:c1");
            assert!(!kubelet::replace_ended(&host, name, &tls, DAY * 365, begun()).unwrap(), "it has not ended");
        }
    }

    #[test]
    fn nothing_is_renewed_before_its_time_or_by_a_clock_that_is_behind() {
        let (_root, host, copy) = controller();
        for now in [begun(), begun() + DAY * 200, begun() - DAY * 20_000] {
            assert!(at_boot(&host, copy.clone(), now).unwrap() == copy, "{now}");
        }
        // What is its own alone waits for nobody.
        let renewed = at_boot(&host, copy, begun() + DAY * 250).unwrap();
        let all = renewal::leaves(&renewed.assets.tls());
        let new: Vec<_> = all.iter().filter(|leaf| leaf.ends > begun() + DAY * 366).map(|leaf| &*leaf.stem).collect();
        assert_eq!(new, ["etcd/c1/peer", "etcd/c1/server", "kubelet/c1/client"]);
    }

    #[test]
    fn a_kill_or_a_refusal_at_any_act_leaves_pairs_and_the_next_run_goes_on() {
        let now = begun() + DAY * 400;
        for refused in 0.. {
            let (_root, host, copy) = controller();
            let count = pairs(&host);
            let mut left = refused;
            files::watch(Some(Box::new(move |_: Operation, _: &Path| {
                left -= 1;
                if left < 0 { Err(std::io::ErrorKind::StorageFull.into()) } else { Ok(()) }
            })));
            let done = at_boot(&host, copy, now);
            files::watch(None);
            assert_eq!(pairs(&host), count, "{refused}");
            let kept = Copy::load(&host).unwrap().unwrap();
            let all_done = done.is_ok();
            let renewed = at_boot(&host, kept, now).unwrap();
            assert!(refresh(&host, &renewed).changed.is_empty() && pairs(&host) == count);
            for file in ["pki/etcd/server.crt", "pki/apiserver/apiserver.crt"] {
                let there = fs::read(host.path(&format!("/etc/kubernetes/{file}"))).unwrap();
                assert_eq!(pki::inspect(&there).unwrap().not_after, now + DAY * 365, "{refused} {file}");
            }
            if all_done {
                assert!(refused > 20, "{refused}");
                return;
            }
        }
    }

    #[test]
    fn a_link_stays_one_and_what_a_user_has_put_there_is_the_users() {
        let (root, host, copy) = controller();
        let (linked, real) = (host.etcd_pki().join("server.crt"), root.path().join("real.crt"));
        fs::rename(&linked, &real).unwrap();
        std::os::unix::fs::symlink(&real, &linked).unwrap();
        // Another key's.
        let other = fs::read(host.etcd_pki().join("server.key")).unwrap();
        let users = fs::read(host.bridge().join("kube-apiserver/apiserver.crt")).unwrap();
        fs::write(host.etcd_pki().join("peer.crt"), &users).unwrap();
        let renewed = renew(
            &host,
            &copy,
            &renewal::leaves(&copy.assets.tls()).iter().filter(|leaf| leaf.is_own).collect::<Vec<_>>(),
            begun() + DAY * 100,
        )
        .unwrap()
        .0;
        let done = refresh(&host, &renewed);
        assert!(done.failed.is_empty() && done.changed == [linked.clone()], "{done:?}");
        assert!(fs::symlink_metadata(&linked).unwrap().is_symlink());
        assert_eq!(fs::read(&real).unwrap(), renewed.assets.tls()["etcd/c1/server.crt"]);
        assert_eq!(fs::read(host.etcd_pki().join("peer.crt")).unwrap(), users);
        assert_eq!(fs::read(host.etcd_pki().join("server.key")).unwrap(), other);
        assert!(!has_another_name(&real));
        fs::hard_link(&real, root.path().join("other.crt")).unwrap();
        assert!(has_another_name(&real));
    }
}
