//! Leaves that are renewed before they end. Pure: [`leaves`] reads them in tls/, [`decide`] says what becomes of each,
//! [`renewed`] makes successors, and [`refreshed`] puts them into whatever text holds what they succeed.
//!
//! A renewal keeps the key. A certificate and its key are two files, which nothing replaces at one moment: as the key stays, each
//! file is a pair with the other at any moment, and so is each copy in another place with its own.

mod decide;
mod refresh;
mod signed;

use std::time::Duration;

use time::OffsetDateTime;

use crate::base::error::{Error, Result};
use crate::base::files::File;
use crate::desired::assets::AssetSet;
use crate::desired::pki;
use crate::desired::secrets::Tls;

pub use decide::{Leaf, Observed, Step, decide, due, jitter};
pub use refresh::refreshed;
pub use signed::{misfit, with};

/// The CAs, by the names of their files in tls/.
const CAS: [&str; 3] = ["ca", "front-proxy-ca", ETCD_CA];
/// That of etcd.
const ETCD_CA: &str = "etcd/ca";
/// The folders of tls/ that have one for each controller below them.
const PER_CONTROLLER: [&str; 3] = ["apiserver/", "etcd/", "kubelet/"];

/// The leaves in tls/ that CAs in tls/ have issued.
pub fn leaves(tls: &Tls) -> Vec<Leaf> {
    let of = |(path, crt): (&String, &Vec<u8>)| {
        let stem = path.strip_suffix(".crt")?;
        let info = pki::inspect(crt).ok().filter(|info| !info.is_ca)?;
        let issued = CAS.into_iter().find(|ca| issuer(tls, ca).is_some_and(|ca| pki::is_issued_by(ca, crt)));
        let ca = issued.or_else(|| is_of_another(tls, stem).then_some(ETCD_CA))?;
        Some(Leaf {
            stem: stem.to_owned(),
            ca,
            begins: info.not_before,
            ends: info.not_after,
            ca_ends: pki::inspect(issuer(tls, ca)?).ok()?.not_after,
            can_sign: tls.contains_key(&format!("{ca}.key")),
            is_own: PER_CONTROLLER
                .iter()
                .any(|folder| path.strip_prefix(folder).is_some_and(|rest| rest.contains('/'))),
            is_of_another: issued.is_none() || is_of_another(tls, stem),
        })
    };
    tls.iter().filter_map(of).collect()
}

/// Whether a member of etcd serves with it, or shows it to its peers, and the first of etcd's CAs, which issues, has not issued it. Where
/// the key of that CA is elsewhere, whoever has it issues.
fn is_of_another(tls: &Tls, stem: &str) -> bool {
    let is_members = stem.strip_prefix("etcd/").is_some_and(|rest| rest.contains('/'));
    let crt = tls.get(&format!("{stem}.crt")).map(Vec::as_slice).unwrap_or_default();
    is_members && first_ca(tls).is_some_and(|ca| ca.key.is_some() && !pki::is_issued_by(ca.crt.as_bytes(), crt))
}

/// The CA that issues for etcd, with its key if that is here.
fn first_ca(tls: &Tls) -> Option<pki::Ca> {
    let file = |end: &str| tls.get(&format!("{ETCD_CA}.{end}")).map(Vec::as_slice).unwrap_or_default();
    pki::cas(file("crt"), file("key")).into_iter().next()
}

/// `assets` with those leaves of etcd's members issued anew that another CA than the first of etcd's has issued, whichever controllers
/// they are of.
///
/// # Errors
/// The first that cannot be issued.
pub fn by_first_ca(assets: &AssetSet, lifetime: Duration, now: OffsetDateTime) -> Result<AssetSet> {
    let all = leaves(&assets.tls());
    let others: Vec<_> = all.iter().filter(|leaf| leaf.is_of_another).collect();
    let (assets, failed) = renewed(assets, &others, lifetime, now);
    failed.into_iter().next().map_or(Ok(assets), Err)
}

fn issuer<'a>(tls: &'a Tls, ca: &str) -> Option<&'a [u8]> {
    tls.get(&format!("{ca}.crt")).map(Vec::as_slice)
}

/// What becomes of several leaves.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Plan<'a> {
    /// Renewed in this controller's copy alone.
    pub here: Vec<&'a Leaf>,
    /// Renewed in the cluster's copy.
    pub for_all: Vec<&'a Leaf>,
    /// Due, and their CA's key is elsewhere.
    pub await_their_ca: Vec<&'a Leaf>,
    /// Due, and they end with their CA.
    pub end_with_their_ca: Vec<&'a Leaf>,
}

/// What becomes of `leaves`.
pub fn plan<'a>(leaves: impl IntoIterator<Item = &'a Leaf>, seen: &Observed) -> Plan<'a> {
    let mut plan = Plan::default();
    for leaf in leaves {
        match decide(leaf, seen) {
            Step::Keep => {}
            Step::Awaits => plan.await_their_ca.push(leaf),
            Step::EndsWithItsCa => plan.end_with_their_ca.push(leaf),
            Step::Renew => plan.here.push(leaf),
            Step::RenewForAll => plan.for_all.push(leaf),
        }
    }
    plan
}

/// The certificates (PEM) of all leaves that `assets` holds.
pub fn texts(assets: &AssetSet) -> Vec<Vec<u8>> {
    let leaves = assets.files.iter().filter(|(path, _)| is_leaf(path));
    leaves.map(|(_, file)| file.content.clone()).collect()
}

/// `assets` with a successor of each of these leaves that lives for `lifetime` from `now` on, in tls/ and wherever else it holds
/// them; and what cannot be renewed, which stays.
pub fn renewed(assets: &AssetSet, leaves: &[&Leaf], lifetime: Duration, now: OffsetDateTime) -> (AssetSet, Vec<Error>) {
    let tls = assets.tls();
    let mut renewed = assets.clone();
    let mut failed = Vec::new();
    for leaf in leaves {
        match successor(&tls, leaf, lifetime, now) {
            Ok(made) => {
                if let Some(file) = renewed.files.get_mut(&format!("tls/{}.crt", leaf.stem)) {
                    file.content = made;
                }
            }
            Err(error) => failed.push(error),
        }
    }
    follow(&mut renewed);
    (renewed, failed)
}

fn successor(tls: &Tls, leaf: &Leaf, lifetime: Duration, now: OffsetDateTime) -> Result<Vec<u8>> {
    let file = |path: String| {
        tls.get(&path)
            .ok_or_else(|| Error::failed(format!("renew {}.crt", leaf.stem), format!("there is no tls/{path}")))
    };
    let (crt, ca) = (file(format!("{}.crt", leaf.stem))?, file(format!("{}.crt", leaf.ca))?);
    if let Some(ca) = first_ca(tls).filter(|_| leaf.is_of_another) {
        return pki::reissue_by(crt, &ca, lifetime, now);
    }
    pki::reissue(crt, ca, file(format!("{}.key", leaf.ca))?, lifetime, now)
}

/// `assets` with those leaves of `other` that are theirs renewed; says whether there were any. A leaf of a CA that `assets` has left
/// behind is none.
pub fn with_newer(mut assets: AssetSet, other: &AssetSet) -> (AssetSet, bool) {
    let mut any = false;
    let cas: Vec<_> = CAS
        .iter()
        .filter_map(|ca| assets.files.get(&format!("tls/{ca}.crt")))
        .map(|file| pki::first_certificate(&file.content))
        .collect();
    let is_of_another =
        |own: &[u8], theirs: &[u8]| cas.iter().any(|ca| pki::is_issued_by(ca, own) && !pki::is_issued_by(ca, theirs));
    for (path, theirs) in other.files.iter().filter(|(path, _)| is_leaf(path)) {
        let is_newer = |own: &&mut File| {
            pki::is_newer(&theirs.content, &own.content) && !is_of_another(&own.content, &theirs.content)
        };
        if let Some(own) = assets.files.get_mut(path).filter(is_newer) {
            own.content.clone_from(&theirs.content);
            any = true;
        }
    }
    if any {
        follow(&mut assets);
    }
    (assets, any)
}

fn is_leaf(path: &str) -> bool {
    let stem = path.strip_prefix("tls/").and_then(|path| path.strip_suffix(".crt"));
    stem.is_some_and(|stem| !CAS.contains(&stem))
}

/// Whatever else holds leaves gets those of tls/.
fn follow(assets: &mut AssetSet) {
    let leaves = texts(assets);
    let holders =
        assets.files.iter_mut().filter(|(path, _)| path.starts_with("auth/") || path.ends_with("/secret.yaml"));
    for (_, file) in holders {
        if let Some(text) = refreshed(&file.content, &leaves) {
            file.content = text;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::desired::{config, render};

    /// The asset directory of a cluster, and when it was rendered.
    fn made() -> (OffsetDateTime, config::Cluster, AssetSet) {
        let begun = OffsetDateTime::from_unix_timestamp(1_782_907_200).unwrap();
        let text = "apiVersion: hoist/v1alpha1\nkind: Cluster\ncontrollers:\n- {name: c1, address: 192.0.2.10}\n";
        let cluster = config::parse("f", text, Path::new("/")).unwrap();
        let tls = pki::issue(&cluster, &Default::default(), &Default::default(), begun).unwrap().files;
        let assets = render::render(&cluster, &tls, "abcdef.0123456789abcdef").unwrap();
        (begun, cluster, assets)
    }

    #[test]
    fn a_renewed_directory_is_the_one_that_a_render_would_make_of_its_leaves() {
        let (begun, cluster, assets) = made();
        let all = leaves(&assets.tls());
        let names: Vec<_> = all.iter().map(|leaf| (&*leaf.stem, leaf.ca, leaf.is_own)).collect();
        assert_eq!(
            names,
            [
                ("admin", "ca", false),
                ("apiserver-etcd-client", "etcd/ca", false),
                ("apiserver-kubelet-client", "ca", false),
                ("apiserver", "ca", false),
                ("etcd/c1/peer", "etcd/ca", true),
                ("etcd/c1/server", "etcd/ca", true),
                ("etcd/healthcheck-client", "etcd/ca", false),
                ("front-proxy-client", "front-proxy-ca", false),
                ("guard", "ca", false),
                ("kube-controller-manager", "ca", false),
                ("kube-scheduler", "ca", false),
                ("kubelet/c1/client", "ca", true),
            ]
        );
        let later = begun + Duration::from_hours(24 * 300);
        let (renewed, failed) = renewed(&assets, &all.iter().collect::<Vec<_>>(), Duration::from_hours(8760), later);
        assert!(failed.is_empty(), "{failed:?}");
        let rendered = render::render(&cluster, &renewed.tls(), "abcdef.0123456789abcdef").unwrap();
        for (path, file) in &rendered.files {
            assert!(renewed.files[path] == *file, "{path}");
        }
        assert_eq!(renewed.files.len(), rendered.files.len());
        for leaf in leaves(&renewed.tls()) {
            assert_eq!(leaf.ends, later + Duration::from_hours(8760), "{}", leaf.stem);
        }
        // One that cannot be renewed keeps none from being renewed.
        let mut broken = assets.clone();
        let key = broken.files["tls/ca.key"].clone();
        broken.files.insert("tls/front-proxy-ca.key".into(), key);
        let (some, failed) =
            super::renewed(&broken, &all.iter().collect::<Vec<_>>(), Duration::from_hours(8760), later);
        assert_eq!(failed.len(), 1, "{failed:?}");
        let ends = later + Duration::from_hours(8760);
        let old: Vec<_> = leaves(&some.tls()).into_iter().filter(|leaf| leaf.ends < ends).collect();
        assert_eq!(old.iter().map(|leaf| &*leaf.stem).collect::<Vec<_>>(), ["front-proxy-client"]);
        // What was newer in one is then in both, and nothing older ever.
        assert!(with_newer(assets.clone(), &renewed) == (renewed.clone(), true));
        assert!(with_newer(renewed.clone(), &assets) == (renewed, false));
    }

    #[test]
    fn what_a_member_of_etcd_shows_is_issued_anew_by_the_first_of_its_cas() {
        let (begun, _, assets) = made();
        let tls = assets.tls();
        let day = Duration::from_hours(24);
        let (crt, key) = pki::etcd_ca(day * 3650, begun + day).unwrap();
        let with = |names: [&str; 2], parts: [&[u8]; 4]| {
            let mut changed = assets.clone();
            let mut put = |name: &str, content: Vec<u8>| {
                changed.files.insert(format!("tls/{name}"), File::private(content));
            };
            put(names[0], [parts[0], parts[1]].concat());
            put(names[1], [parts[2], parts[3]].concat());
            changed
        };
        let (old, old_key) = (&*tls["etcd/ca.crt"], &*tls["etcd/ca.key"]);
        let names = ["etcd/ca.crt", "etcd/ca.key"];
        let of_another = |assets: &AssetSet| {
            let all = leaves(&assets.tls()).into_iter().filter(|leaf| leaf.is_of_another);
            all.map(|leaf| leaf.stem).collect::<Vec<_>>()
        };
        let members = ["etcd/c1/peer", "etcd/c1/server"];
        let trusts = with(names, [old, crt.as_bytes(), old_key, key.as_bytes()]);
        assert!(of_another(&assets).is_empty() && of_another(&trusts).is_empty(), "the old one issues");
        let uses = with(names, [crt.as_bytes(), old, key.as_bytes(), old_key]);
        let alone = with(names, [crt.as_bytes(), b"", key.as_bytes(), b""]);
        let elsewhere = with(names, [crt.as_bytes(), old, b"", old_key]);
        assert!(of_another(&elsewhere).is_empty(), "whoever has the key issues");
        for assets in [&uses, &alone] {
            assert_eq!(of_another(assets), members);
            let anew = by_first_ca(assets, day * 365, begun + day).unwrap();
            for stem in members {
                let (path, new) = (format!("tls/{stem}.crt"), &anew.tls()[&format!("{stem}.crt")]);
                assert!(pki::is_issued_by(crt.as_bytes(), new) && pki::is_newer(new, &assets.files[&path].content));
            }
            assert!(of_another(&anew).is_empty() && by_first_ca(&anew, day * 365, begun + day).unwrap() == anew);
            // Nobody brings the old ones back.
            assert!(with_newer(anew.clone(), &trusts) == (anew.clone(), false));
            assert!(with_newer(trusts.clone(), &anew).0.tls()["etcd/c1/peer.crt"] == trusts.tls()["etcd/c1/peer.crt"]);
        }
    }

    #[test]
    fn a_leaf_of_a_ca_that_is_left_behind_is_no_newer_one() {
        let begun = OffsetDateTime::from_unix_timestamp(1_782_907_200).unwrap();
        let day = Duration::from_hours(24);
        let (key, _) = pki::signing_pair().unwrap();
        let [old, new] = [begun, begun + day].map(|at| {
            let (crt, key) = pki::front_proxy_ca(day * 3650, at).unwrap();
            pki::cas(crt.as_bytes(), key.as_bytes()).remove(0)
        });
        let client =
            |ca: &pki::Ca, days: u32| pki::front_proxy_client(key.as_bytes(), ca, day * days, begun, begun).unwrap();
        let of = |cas: &[&pki::Ca], crt: &[u8]| {
            let bundle: String = cas.iter().map(|ca| ca.crt.as_str()).collect();
            let files = [("tls/front-proxy-ca.crt", bundle.into_bytes()), ("tls/front-proxy-client.crt", crt.to_vec())];
            AssetSet {
                files: files.map(|(path, content)| (path.to_owned(), File::private(content))).into(),
                is_part: true,
            }
        };
        let (last, first) = (client(&old, 300), client(&new, 200));
        assert!(pki::is_newer(&last, &first));
        for cas in [&[&new][..], &[&new, &old]] {
            let own = of(cas, &first);
            assert!(with_newer(own.clone(), &of(&[&old], &last)) == (own, false), "the first of its CAs issues");
        }
        let renewed = client(&new, 250);
        assert!(with_newer(of(&[&new], &first), &of(&[&new], &renewed)) == (of(&[&new], &renewed), true));
    }
}
