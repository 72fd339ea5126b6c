//! Requests for certificates whose CA's key is elsewhere, on this controller's disk, laid out as tls/ is: `NAME.csr` is what guard asks
//! for, and `NAME.crt` beside it is what was signed, until it is taken.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use time::OffsetDateTime;

use crate::base::error::{Error, Result};
use crate::base::files::{self, File};
use crate::base::input::{self, PEM_LIMIT};
use crate::desired::certificates;
use crate::desired::pki;
use crate::desired::renewal::{self, Leaf, Observed};
use crate::node::host::Host;
use crate::plane::kept_copy::{self, Copy};

/// The folder, as the host has it.
pub fn folder(host: &Host) -> PathBuf {
    kept_copy::path(host).parent().unwrap_or(Path::new("/")).join("requests")
}

/// Has a request there for each of `awaited`, which await their CA, and none for what waits no more. Says whether anything changed.
///
/// # Errors
/// A key that is not there; the system's refusal.
pub fn write(host: &Host, copy: &Copy, awaited: &[&Leaf]) -> Result<bool> {
    let folder = folder(host);
    let wanted: Vec<_> = awaited.iter().map(|leaf| folder.join(format!("{}.csr", leaf.stem))).collect();
    let mut changed = false;
    for path in files::below(&folder) {
        let request = path.with_extension("csr");
        let is_ours = path.extension().is_some_and(|end| end == "csr" || end == "crt");
        if is_ours && !wanted.contains(&request) {
            changed |= files::remove(&path)?;
        }
    }
    let tls = copy.assets.tls();
    for (leaf, path) in awaited.iter().zip(&wanted) {
        let file = |end: &str| tls.get(&format!("{}.{end}", leaf.stem)).map(Vec::as_slice).unwrap_or_default();
        let there = files::read_if_there(path)?;
        if !there.is_some_and(|there| pki::asks_for(&there, file("crt"))) {
            files::make_dir(path.parent().unwrap_or(&folder), 0o700)?;
            changed |= files::write(path, &File::public(pki::ask(file("crt"), file("key"))?))?;
        }
    }
    Ok(changed)
}

/// What awaits its CA at the time `now`, by name, with its end.
pub fn awaited(copy: &Copy, now: OffsetDateTime) -> BTreeMap<String, OffsetDateTime> {
    let Ok((cluster, controller)) = copy.cluster() else { return BTreeMap::new() };
    let leaves = renewal::leaves(&copy.assets.tls());
    let seen = Observed {
        now,
        lifetime: cluster.pki.certificate_validity,
        api_answers: true,
        jitter: renewal::jitter(&controller.name),
        is_asked_for: false,
    };
    let mut awaited = BTreeMap::new();
    for leaf in renewal::plan(&leaves, &seen).await_their_ca {
        let path = format!("tls/{}.crt", leaf.stem);
        let info = copy.assets.files.get(&path).and_then(|file| pki::inspect(&file.content).ok());
        let name = info.map_or_else(|| leaf.stem.clone(), |info| certificates::name(&path, &info));
        awaited.insert(name, leaf.ends);
    }
    awaited
}

/// What was signed of `awaited`, by its stem; and what lies there and cannot be taken, with why.
pub fn signed(
    host: &Host,
    copy: &Copy,
    awaited: &[&Leaf],
    now: OffsetDateTime,
) -> (Vec<(String, Vec<u8>)>, Vec<Error>) {
    let (mut fit, mut misfits) = (Vec::new(), Vec::new());
    for leaf in awaited {
        let path = folder(host).join(format!("{}.crt", leaf.stem));
        if !path.exists() {
            continue;
        }
        let place = host.inside(&path).display().to_string();
        let refuse = |cause: String| Error::failed(format!("take {place}"), cause);
        match input::read(&path, PEM_LIMIT) {
            Err(unread) => misfits.push(unread.into_error(&path)),
            Ok(content) => match renewal::misfit(&copy.assets, leaf, &content, now) {
                Some(why) => misfits.push(refuse(format!("it {why}"))),
                None => fit.push((leaf.stem.clone(), input::unix(content))),
            },
        }
    }
    (fit, misfits)
}

/// `copy` with what was signed, on this controller's disk.
///
/// # Errors
/// The system's refusal. What stood there stands.
pub fn take(host: &Host, copy: &Copy, signed: &[(String, Vec<u8>)]) -> Result<Copy> {
    let taken = Copy { assets: renewal::with(copy.assets.clone(), signed), ..copy.clone() };
    taken.store(host)?;
    Ok(taken)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::time::Duration;

    use super::*;
    use crate::desired::renewal::plan;
    use crate::node::system;

    const DAY: Duration = Duration::from_hours(24);

    /// A controller whose copy lacks the key of the cluster's CA; and that key.
    fn controller() -> (tempfile::TempDir, Host, Copy, Vec<u8>, OffsetDateTime) {
        let begun = OffsetDateTime::from_unix_timestamp(1_782_907_200).unwrap();
        let text = "apiVersion: hoist/v1alpha1\nkind: Cluster\ncontrollers:\n- {name: c1, address: 10.0.0.1}\n";
        let cluster = crate::desired::config::parse("cluster.yaml", text, Path::new("/")).unwrap();
        let tls = pki::issue(&cluster, &Default::default(), &Default::default(), begun).unwrap().files;
        let mut assets = crate::desired::render::render(&cluster, &tls, "abcdef.0123456789abcdef").unwrap();
        let key = assets.files.remove("tls/ca.key").unwrap().content;
        let root = tempfile::tempdir().unwrap();
        let host = system::host(root.path(), Path::new("/etc/kubernetes/manifests"));
        let copy = Copy::new(&assets, &cluster, &cluster.controllers[0]);
        copy.store(&host).unwrap();
        (root, host, copy, key, begun)
    }

    #[test]
    fn what_awaits_its_ca_is_asked_for_and_taken_once_it_is_signed() {
        let (_root, host, copy, key, begun) = controller();
        let seen = |now| Observed { now, lifetime: DAY * 365, api_answers: true, jitter: 0.0, is_asked_for: false };
        let now = begun + DAY * 300;
        let leaves = renewal::leaves(&copy.assets.tls());
        let awaited = plan(&leaves, &seen(now)).await_their_ca;
        let stems: Vec<_> = awaited.iter().map(|leaf| &*leaf.stem).collect();
        let ours = [
            "admin",
            "apiserver-kubelet-client",
            "apiserver",
            "guard",
            "kube-controller-manager",
            "kube-scheduler",
            "kubelet/c1/client",
        ];
        assert_eq!(stems, ours, "those of the other CAs are renewed here");
        assert!(write(&host, &copy, &awaited).unwrap() && !write(&host, &copy, &awaited).unwrap());
        let request = fs::read(folder(&host).join("kubelet/c1/client.csr")).unwrap();
        assert!(String::from_utf8_lossy(&request).starts_with("-----BEGIN CERTIFICATE REQUEST-----\n"));
        let (fit, misfits) = signed(&host, &copy, &awaited, now);
        assert!(fit.is_empty() && misfits.is_empty(), "{misfits:?}");
        assert_eq!(super::awaited(&copy, now).len(), awaited.len());
        assert_eq!(super::awaited(&copy, begun), BTreeMap::new());

        // Signed, where the key is; one of them by another CA, and one that is nothing.
        let tls = copy.assets.tls();
        let sign =
            |stem: &str| pki::reissue(&tls[&format!("{stem}.crt")], &tls["ca.crt"], &key, DAY * 365, now).unwrap();
        let put = |stem: &str, content: &[u8]| fs::write(folder(&host).join(format!("{stem}.crt")), content).unwrap();
        for stem in ["apiserver", "guard", "kubelet/c1/client"] {
            put(stem, &sign(stem));
        }
        put("admin", &tls["front-proxy-client.crt"]);
        put("kube-scheduler", b"nothing");
        put("kube-controller-manager", &tls["kube-controller-manager.crt"]);
        let (fit, misfits) = signed(&host, &copy, &awaited, now);
        assert_eq!(
            fit.iter().map(|(stem, _)| &**stem).collect::<Vec<_>>(),
            ["apiserver", "guard", "kubelet/c1/client"]
        );
        let said: Vec<_> = misfits.iter().map(ToString::to_string).collect();
        let is_said = |text: &str| assert!(said.iter().any(|line| line.contains(text)), "{text}: {said:?}");
        is_said(
            "cannot take /var/lib/hoist/guard/requests/admin.crt: it was not issued by tls/ca.crt, but by CN=front-proxy-ca",
        );
        is_said("kube-scheduler.crt: it is no certificate");
        is_said("kube-controller-manager.crt: it ends no later than the one that serves");
        let taken = take(&host, &copy, &fit).unwrap();
        assert!(Copy::load(&host).unwrap().unwrap() == taken);
        let ends = |copy: &Copy, stem: &str| {
            renewal::leaves(&copy.assets.tls()).into_iter().find(|leaf| leaf.stem == stem).unwrap().ends
        };
        assert_eq!((ends(&taken, "apiserver"), ends(&taken, "admin")), (now + DAY * 365, begun + DAY * 365));
        // What a Secret's manifest holds, too.
        let secret = taken.assets.text("manifests/kube-apiserver/secret.yaml").unwrap();
        assert_ne!(secret, copy.assets.text("manifests/kube-apiserver/secret.yaml").unwrap());

        // What waits no more leaves no request.
        let leaves = renewal::leaves(&taken.assets.tls());
        let awaited = plan(&leaves, &seen(now)).await_their_ca;
        assert_eq!(awaited.len(), ours.len() - 3);
        assert!(write(&host, &taken, &awaited).unwrap());
        let left: Vec<_> =
            files::below(&folder(&host)).iter().map(|path| host.inside(path).display().to_string()).collect();
        assert!(!left.iter().any(|path| path.contains("guard.c") || path.contains("/apiserver.c")), "{left:?}");
        assert!(write(&host, &taken, &[]).unwrap() && files::below(&folder(&host)).is_empty());
    }

    #[test]
    fn a_request_asks_for_what_is_there() {
        let (_root, _host, copy, _, begun) = controller();
        let tls = copy.assets.tls();
        let (crt, key) = (&tls["apiserver.crt"], &tls["apiserver.key"]);
        let request = pki::ask(crt, key).unwrap();
        assert!(pki::asks_for(&request, crt) && !pki::asks_for(&request, &tls["admin.crt"]));
        assert!(
            pki::ask(crt, &tls["admin.key"])
                .unwrap_err()
                .to_string()
                .contains("the key is not that of CN=kube-apiserver")
        );
        let later = pki::inspect(crt).unwrap().not_after;
        assert!(later > begun);
    }
}
