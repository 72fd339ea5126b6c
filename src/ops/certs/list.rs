//! The list of certificates: every copy, and beside it what its listener serves. [`List::of`] is pure.

use std::collections::BTreeSet;
use std::path::Path;

use kube::Client;
use serde::Serialize;
use time::{Duration, OffsetDateTime};

use crate::api::{self, certificates as api_certificates};
use crate::base::error::Result;
use crate::base::time::rfc3339;
use crate::desired::assets::AssetSet;
use crate::desired::config;
use crate::desired::pki;
use crate::node::host::Host;
use crate::node::kubelet_kubeconfig;
use crate::plane::certificates::{self, CertificateCopy, KeyCopy};
use crate::plane::kept_copy::Copy;

/// The version of what is written as JSON: fields may be added to it, never changed or taken away.
const SCHEMA: &str = "hoist.certificates/v1";

/// Where to look.
pub struct Subject<'a> {
    /// This machine.
    pub host: &'a Host,
    /// The asset directory, if there is one, and where it is.
    pub assets: Option<(&'a Path, &'a AssetSet)>,
    /// An administrator's kubeconfig. Without it, that of the asset directory or of guard's copy is used.
    pub kubeconfig: Option<&'a str>,
}

/// All of them.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct List {
    /// `hoist.certificates/v1`
    pub schema: &'static str,
    /// Every copy, leaves first.
    pub certificates: Vec<Certificate>,
    /// Every copy of the keys that no certificate belongs to; they have no end.
    pub keys: Vec<Key>,
    /// What could not be asked, and why.
    pub not_asked: Vec<String>,
}

/// One copy of a certificate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Certificate {
    /// Its name, kubeadm's where kubeadm has one.
    pub name: String,
    /// It may issue others.
    pub is_ca: bool,
    /// The file, the object or the address that has it.
    pub place: String,
    /// The component that uses this copy.
    pub holder: String,
    /// As in `CN=kube-apiserver`.
    pub subject: String,
    /// The name of the CA that issued it; `null` where none of this list did.
    pub authority: Option<String>,
    /// Its serial number in hexadecimal, with colons.
    pub serial: String,
    /// From when it is valid, as RFC 3339 has it.
    pub not_before: String,
    /// Its end, as RFC 3339 has it.
    pub not_after: String,
    /// Seconds until then; less than nothing once it is over.
    pub remaining_seconds: i64,
    /// The key of its CA is kept elsewhere; `null` where that is not known.
    pub externally_managed: Option<bool>,
    /// What the listener that reads this file serves; `null` where none does.
    pub served: Option<Served>,
}

/// One copy of a key that no certificate belongs to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Key {
    /// `service-account` or `encryption-key`.
    pub name: String,
    /// Which of several it is: a service account key's as tokens name it (`kid`), an encryption key's in its configuration.
    pub id: String,
    /// The file or the object that has it.
    pub place: String,
    /// The component that uses this copy.
    pub holder: String,
}

/// What a listener serves beside the file that it reads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Served {
    /// The listener.
    pub address: String,
    /// It serves this copy; `null` where it did not answer.
    pub is_this: Option<bool>,
    /// The end of what it serves.
    pub not_after: Option<String>,
}

/// Looks at this machine, its listeners and, where there are credentials for it, the cluster.
///
/// # Errors
/// A machine on which there is no certificate.
pub async fn look(subject: &Subject<'_>, now: OffsetDateTime) -> Result<List> {
    let Subject { host, assets, .. } = *subject;
    let mut not_asked = Vec::new();
    let copy = Copy::load(host).unwrap_or_else(|error| {
        not_asked.push(error.to_string());
        None
    });
    let mut copies = certificates::on_disk(host);
    let mut keys = certificates::keys_on_disk(host);
    if let Some(copy) = &copy {
        copies.extend(certificates::in_guards_copy(host, copy));
        keys.extend(certificates::keys_in_guards_copy(host, copy));
    }
    if let Some((dir, assets)) = assets {
        let dir = dir.display().to_string();
        copies.extend(certificates::of_assets(&dir, "administrator", assets));
        keys.extend(certificates::keys_of_assets(&dir, "administrator", assets));
    }
    match client(subject, copy.as_ref()).await {
        Ok(client) => {
            let (objects, unread) = api_certificates::objects(&client).await;
            copies.extend(certificates::in_cluster(&objects));
            keys.extend(certificates::keys_in_cluster(&objects));
            not_asked.extend(unread);
        }
        Err(why) => not_asked.push(format!("the cluster's Secrets, ConfigMaps and webhooks were not read: {why}")),
    }
    // A controller that a label made has no such file of `start`'s.
    let own = copy.as_ref().and_then(|copy| copy.controller.as_ref()).map(|controller| controller.address);
    let served = match kubelet_kubeconfig::named(host).map(|(_, node_ip)| node_ip).or(own) {
        Some(node_ip) => {
            certificates::served(&certificates::listeners(host, config::loopback_beside(node_ip), node_ip)).await
        }
        None => {
            not_asked.push(
                "no listener was asked: neither /etc/kubernetes/kubelet.env nor guard's copy names this machine".into(),
            );
            Vec::new()
        }
    };
    if !host.world().is_root() {
        not_asked.push("only root reads keys and certificates of others: run it with sudo".into());
    }
    let mut signers = BTreeSet::new();
    for files in copy.iter().map(|copy| &copy.assets).chain(assets.map(|(_, assets)| assets)) {
        let has = |stem: &str| files.files.contains_key(&format!("tls/{stem}.key"));
        signers.extend(["ca", "front-proxy-ca"].into_iter().filter(|stem| has(stem)));
        signers.extend(has("etcd/ca").then_some("etcd-ca"));
    }
    let signers = (copy.is_some() || assets.is_some()).then_some(signers);
    Ok(List { keys: shown(keys), ..List::of(host, copies, &served, signers.as_ref(), not_asked, now) })
}

fn shown(mut keys: Vec<KeyCopy>) -> Vec<Key> {
    keys.sort();
    keys.dedup();
    keys.into_iter().map(|KeyCopy { name, id, place, holder }| Key { name, id, place, holder }).collect()
}

/// A client with the credentials that there are.
async fn client(subject: &Subject<'_>, copy: Option<&Copy>) -> Result<Client, String> {
    const PATH: &str = "auth/kubeconfig";
    let own = || {
        let of_assets = subject.assets.and_then(|(_, assets)| assets.text(PATH).ok());
        // What guard has is renewed.
        copy.and_then(|copy| copy.assets.text(PATH).ok()).or(of_assets)
    };
    let text = subject.kubeconfig.map(str::to_owned).or_else(own);
    let text = text.ok_or("there is no kubeconfig: name --kubeconfig or --asset-dir")?;
    let client = api::admin(&text).await.map_err(|error| error.to_string())?.client;
    match api::is_served(&client).await {
        true => Ok(client),
        false => Err("the API server does not say that it is ready".into()),
    }
}

impl List {
    /// The list of `copies` beside what is `served`. `keys` are the CAs whose keys are here, if that is known.
    pub fn of(
        host: &Host,
        copies: Vec<CertificateCopy>,
        served: &[certificates::Served],
        keys: Option<&BTreeSet<&str>>,
        mut not_asked: Vec<String>,
        now: OffsetDateTime,
    ) -> Self {
        let mut authorities: Vec<(&str, &[u8])> = Vec::new();
        for copy in copies.iter().filter(|copy| copy.info.is_ca) {
            if !authorities.iter().any(|(_, pem)| *pem == copy.pem) {
                authorities.push((&copy.name, &copy.pem));
            }
        }
        let certificate = |copy: &CertificateCopy, served: Option<Served>| {
            let of = authorities.iter().find(|(_, ca)| pki::is_issued_by(ca, &copy.pem));
            let authority = of.filter(|_| !copy.info.is_ca).map(|(name, _)| (*name).to_owned());
            let signer = if copy.info.is_ca { Some(copy.name.as_str()) } else { authority.as_deref() };
            Certificate {
                externally_managed: keys.zip(signer).map(|(keys, signer)| !keys.contains(signer)),
                name: copy.name.clone(),
                is_ca: copy.info.is_ca,
                place: copy.place.clone(),
                holder: copy.holder.clone(),
                subject: copy.info.subject.clone(),
                authority,
                serial: copy.info.serial.clone(),
                not_before: rfc3339(copy.info.not_before),
                not_after: rfc3339(copy.info.not_after),
                remaining_seconds: (copy.info.not_after - now).whole_seconds(),
                served,
            }
        };
        let mut all: Vec<Certificate> = Vec::new();
        for copy in &copies {
            let file = |served: &&certificates::Served| {
                let file = served.listener.file.as_ref();
                file.is_some_and(|file| host.inside(file).display().to_string() == copy.place)
            };
            let served = served.iter().find(file).map(|served| {
                let seen = served.certificate.as_ref().ok();
                Served {
                    address: served.listener.address.to_string(),
                    is_this: seen.map(|seen| seen.pem == copy.pem),
                    not_after: seen.map(|seen| rfc3339(seen.info.not_after)),
                }
            });
            all.push(certificate(copy, served));
        }
        // Who serves from no file that is here makes its own.
        for served in served {
            let file = served.listener.file.as_ref().map(|file| host.inside(file).display().to_string());
            let is_shown = file.is_some_and(|file| all.iter().any(|copy| copy.place == file));
            match &served.certificate {
                Ok(copy) if !is_shown => {
                    let address = served.listener.address.to_string();
                    let not_after = Some(rfc3339(copy.info.not_after));
                    let shown = Served { address, is_this: Some(true), not_after };
                    let name = format!("{}-serving", served.listener.holder);
                    all.push(Certificate { name, ..certificate(copy, Some(shown)) });
                }
                Ok(_) => {}
                Err(why) => not_asked.push(format!(
                    "{} at {} shows no certificate: {why}",
                    served.listener.holder, served.listener.address
                )),
            }
        }
        all.sort_by(|a, b| (a.is_ca, &a.name, &a.place).cmp(&(b.is_ca, &b.name, &b.place)));
        all.dedup();
        Self { schema: SCHEMA, certificates: all, keys: Vec::new(), not_asked }
    }

    /// Whether one of them ends within `time`, or has ended.
    pub fn ends_within(&self, time: Duration) -> bool {
        self.certificates.iter().any(|one| one.remaining_seconds <= time.whole_seconds())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::preflight::testing::{Machine, tls};
    use crate::plane::certificates::{Listener, on_disk};

    fn made() -> OffsetDateTime {
        OffsetDateTime::from_unix_timestamp(1_782_907_200).unwrap()
    }

    /// etcd's files on a disk, what is served at 2379 and 10257, and the list of them.
    fn list(served: &str, keys: Option<&BTreeSet<&str>>, now: OffsetDateTime) -> List {
        let assets = tls(made());
        let machine = Machine::new();
        for file in ["etcd/c1/server.crt", "etcd/c1/peer.crt", "etcd/ca.crt"] {
            let to = format!("/etc/kubernetes/pki/etcd/{}", file.rsplit('/').next().unwrap());
            machine.put(&to, assets.text(&format!("tls/{file}")).unwrap());
        }
        let host = machine.host();
        let copies = on_disk(&host);
        let at =
            |holder, port, file| Listener { holder, address: std::net::SocketAddr::from(([127, 0, 0, 1], port)), file };
        let seen = |path: &str| {
            let text = assets.text(path).unwrap();
            certificates::of_assets("", "", &assets).into_iter().find(|copy| text.as_bytes() == copy.pem).unwrap()
        };
        let etcd = at("etcd", 2379, Some(host.etcd_pki().join("server.crt")));
        let served = [
            certificates::Served { listener: etcd, certificate: Ok(seen(served)) },
            certificates::Served {
                listener: at("kube-controller-manager", 10257, None),
                certificate: Ok(seen("tls/admin.crt")),
            },
            certificates::Served { listener: at("kube-scheduler", 10259, None), certificate: Err("refused".into()) },
        ];
        List::of(&host, copies, &served, keys, Vec::new(), now)
    }

    #[test]
    fn each_copy_stands_beside_what_its_listener_serves() {
        let keys = BTreeSet::from(["etcd-ca"]);
        let found = list("tls/etcd/c1/server.crt", Some(&keys), made());
        let said: Vec<_> = found
            .certificates
            .iter()
            .map(|one| (&*one.name, one.authority.as_deref(), one.externally_managed, one.served.as_ref()))
            .map(|(name, ca, elsewhere, served)| (name, ca, elsewhere, served.and_then(|served| served.is_this)))
            .collect();
        assert_eq!(
            said,
            [
                ("etcd-peer", Some("etcd-ca"), Some(false), None),
                ("etcd-server", Some("etcd-ca"), Some(false), Some(true)),
                ("kube-controller-manager-serving", None, None, Some(true)),
                ("etcd-ca", None, Some(false), None),
            ]
        );
        assert_eq!(found.not_asked, ["kube-scheduler at 127.0.0.1:10259 shows no certificate: refused"]);
        let other = list("tls/apiserver.crt", Some(&BTreeSet::new()), made());
        let server = other.certificates.iter().find(|one| one.name == "etcd-server").unwrap();
        assert_eq!((server.externally_managed, server.served.as_ref().unwrap().is_this), (Some(true), Some(false)));
        assert_eq!(list("tls/apiserver.crt", None, made()).certificates[0].externally_managed, None, "nobody knows");
    }

    #[test]
    fn the_end_of_one_is_that_of_the_list() {
        let found = list("tls/etcd/c1/server.crt", None, made() + Duration::days(340));
        assert!(found.ends_within(Duration::days(26)) && !found.ends_within(Duration::days(24)));
        assert!(list("tls/etcd/c1/server.crt", None, made() + Duration::days(366)).ends_within(Duration::ZERO));
    }

    #[test]
    fn people_see_kubeadms_columns_first() {
        let keys = BTreeSet::from(["etcd-ca"]);
        let mut list = list("tls/apiserver.crt", Some(&keys), made() + Duration::days(1));
        let key = |name: &str, id: &str, place: &str| {
            let (name, id, place) = (name.to_owned(), id.to_owned(), place.to_owned());
            KeyCopy { name, id, place, holder: "guard".into() }
        };
        let sa = key("service-account", "kid", "/b");
        list.keys = shown(vec![sa.clone(), key("encryption-key", "key1", "/a"), sa]);
        insta::assert_snapshot!(list.to_string());
    }
}
