//! The CA of etcd: whom a member trusts, as it says in its handshakes, and whom an API server trusts, which says so to nobody.
//!
//! An API server reads the file once, when it begins. What it has read is what its files were then, if they have not changed since.
//! As they do change, what was seen once is noted at its pod, together with the container: another container reads anew.

use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use kube::Client;

use super::foreign::{self, MOUNTED};
use super::front_proxy::trusted;
use super::scene::{SERVER, Scene, passing};
use crate::api::rotation::Workload;
use crate::api::{controllers, rotation};
use crate::base::error::{Error, Finding, Result};
use crate::base::files::{self, File};
use crate::base::probe;
use crate::desired::config::{API_PORT, Cluster, Etcd};
use crate::desired::pki;
use crate::desired::rotation::etcd_ca::{MEMBER, has_only_to_read};
use crate::desired::rotation::{ETCD_CA, ETCD_CLIENTS, Word};
use crate::desired::secrets::Tls;
use crate::etcd::{alarms, members};
use crate::node::cri::pods::Pods;
use crate::node::etcd_manifest::{self, NAME as MANIFEST};
use crate::node::host::Host;
use crate::node::static_pods::StaticPods;
use crate::node::{kubelet, lock, processes};
use crate::plane::kept_copy::Copy;

/// What the CAs are called there: an API server's, and a member's.
const OF_SERVER: &str = "etcd-ca.crt";
const OF_MEMBER: &str = "ca.crt";
/// The flags that name their files.
const SERVERS_FLAGS: [(&str, &str); 3] =
    [("etcd-cafile", OF_SERVER), ("etcd-certfile", ETCD_CLIENTS[0]), ("etcd-keyfile", "apiserver-etcd-client.key")];
const MEMBERS_FLAGS: [(&str, &str); 6] = [
    ("cert-file", "server.crt"),
    ("key-file", "server.key"),
    ("peer-cert-file", "peer.crt"),
    ("peer-key-file", "peer.key"),
    ("peer-trusted-ca-file", OF_MEMBER),
    ("trusted-ca-file", OF_MEMBER),
];
const BY_HAND: &str = "docs/rotation.md#the-ca-of-etcd says what is rotated";
/// What the kubelet lets a volume's files lead to: another folder each time that they change.
const CURRENT: &str = "..data";
/// How long a member may take for a handshake.
const LIMIT: Duration = Duration::from_secs(10);
/// How long etcd may take to end before it is killed: it refuses all calls as soon as it is told to end, and would take seven seconds for
/// watches that are open.
const GRACE: Duration = Duration::from_secs(2);

/// Whether it is hoist's to rotate.
///
/// # Errors
/// Where it is not, with why.
pub(super) async fn check(host: &Host, cluster: &Cluster, client: &Client) -> Result<()> {
    let nodes: Vec<_> = controllers::list(client).await?.into_iter().map(|node| node.name).collect();
    let servers = rotation::workload(client, SERVER).await?;
    let member = etcds(&StaticPods::new(host.manifests()).read(MANIFEST).unwrap_or_default());
    let place = host.inside(&host.manifests().join(MANIFEST)).display().to_string();
    refusal(cluster, &nodes, &servers, (&place, &member)).map_or(Ok(()), |finding| Err(Error::Input(vec![finding])))
}

/// Why it is not, where these are the controllers, the API servers' command, and the member's with where it stands.
fn refusal(cluster: &Cluster, nodes: &[String], servers: &Workload, member: (&str, &Workload)) -> Option<Finding> {
    if matches!(cluster.etcd, Etcd::External { .. }) {
        return Some(Finding::new("etcd.external", "etcd is not hoist's, and neither is its CA").remedy(BY_HAND));
    }
    if cluster.pki.etcd_ca.is_some() {
        return Some(foreign::of_user("pki.etcdCA", "CA"));
    }
    if nodes.len() != 1 {
        let message = format!("there are several ({}), and hoist rotates the CA of an only etcd", nodes.join(", "));
        return Some(Finding::new("controllers", message).remedy(BY_HAND));
    }
    let of_servers = foreign::flag(&format!("kube-system/{SERVER}"), servers, &SERVERS_FLAGS);
    of_servers.or_else(|| foreign::flag(member.0, member.1, &MEMBERS_FLAGS))
}

/// What etcd's manifest starts.
fn etcds(manifest: &str) -> Workload {
    Workload { command: etcd_manifest::command(manifest), rollout: None }
}

/// The file `name` of the volume at `dir`, if a process that is `age` old at `now` has read it as it is: nothing in the volume has changed
/// since it began.
fn began_with(dir: &Path, name: &str, age: Duration, now: SystemTime) -> Option<Vec<u8>> {
    let meta = std::fs::symlink_metadata(dir.join(CURRENT)).ok()?;
    let changed = Duration::new(meta.ctime().unsigned_abs(), meta.ctime_nsec().try_into().ok()?);
    let is_older = now.duration_since(SystemTime::UNIX_EPOCH + changed).ok()? > age;
    let content = std::fs::read(dir.join(name)).ok()?;
    // It has not been changed while it was read.
    let after = std::fs::symlink_metadata(dir.join(CURRENT)).ok()?;
    (is_older && after.ino() == meta.ino()).then_some(content)
}

impl Scene<'_> {
    /// The CAs that the API server of this controller trusts etcd by, behind an empty name, which is that of the CA of what it shows: that
    /// it reads anew. Nothing stands behind it where nobody knows.
    ///
    /// # Errors
    /// Why it does not say.
    pub async fn trusts_etcd_by(&self, kept: &Tls, may_note: bool) -> Result<Vec<String>> {
        let said = |names: Vec<String>| Ok([String::new()].into_iter().chain(names).collect());
        let pod = rotation::server_pod(&self.client, &self.controller.name).await?;
        if let Some(names) = pod.noted() {
            return said(names);
        }
        let proc = self.host.path("/proc");
        let address = SocketAddr::new(self.controller.address, API_PORT);
        let process = processes::only_listener(&proc, address).filter(|it| processes::is_own_api_server(&proc, it));
        let process = process.ok_or_else(|| passing("the self-hosted API server is not the only one that listens"))?;
        let dir = proc.join(process.pid.to_string()).join("root").join(MOUNTED.trim_start_matches('/'));
        let read = began_with(&dir, OF_SERVER, process.age, self.host.world().now().into());
        let kept = pki::ca_names(kept.get(ETCD_CA).map(Vec::as_slice).unwrap_or_default());
        match read.map(|pem| pki::ca_names(&pem)) {
            Some(names) => {
                let is_same =
                    rotation::server_pod(&self.client, &self.controller.name).await?.container == pod.container;
                if !is_same {
                    return Err(passing("it has begun again"));
                }
                if may_note {
                    rotation::note(&self.client, &pod, &names).await?;
                }
                said(names)
            }
            // There is no other that it could trust.
            None if kept.len() == 1 => said(kept),
            None => said(Vec::new()),
        }
    }

    /// The CA that has issued what the member here shows, and behind that those that it trusts, where guard's Secret has `kept`.
    pub async fn member(&self, kept: &Tls) -> Word {
        let said = async {
            let mut ports = Vec::new();
            for port in [alarms::PORT, members::PEER_PORT] {
                let address = SocketAddr::new(self.controller.address, port);
                let trusts = trusted(address).await.map_err(|error| error.to_string())?;
                let shown = probe::served_certificate(address, LIMIT).await?;
                let issuer = pki::inspect(&shown).map(|info| info.issuer).unwrap_or_default();
                ports.push((issuer.strip_prefix("CN=").unwrap_or(&issuer).to_owned(), trusts));
            }
            match &ports[..] {
                [(of_clients, one), (of_peers, other)] if one == other => {
                    // What it shows is all of one CA, or it is not as far.
                    let issuer = if of_clients == of_peers { of_clients.clone() } else { String::new() };
                    Ok([issuer].into_iter().chain(one.clone()).collect())
                }
                _ => Err("it begins again just now".to_owned()),
            }
        };
        let said = said.await;
        let reloads = said.as_ref().is_ok_and(|said: &Vec<String>| has_only_to_read(said, kept));
        Word { component: MEMBER, node: self.controller.name.clone(), said, reloads }
    }

    /// Has the member here trust the CAs that guard keeps: they are put into its file, and it begins again.
    ///
    /// # Errors
    /// The system's word, and the container runtime's. Done again, it goes on.
    pub async fn member_begins_again(&self) -> Result<()> {
        // guard, for a moment.
        let _lock = lock::try_take(self.host).map_err(|error| passing(&error.to_string()))?;
        let copy = Copy::load(self.host)?.ok_or_else(|| passing("guard's copy is gone"))?;
        let cas = copy.assets.tls().remove(ETCD_CA).ok_or_else(|| passing("guard keeps no CA of etcd"))?;
        files::write(&self.host.etcd_pki().join(OF_MEMBER), &File::private(cas))?;
        let runtime = Pods::new(&kubelet::runtime_socket(self.host, &copy.assets)?);
        let pod = format!("{MEMBER}-{}", self.controller.name);
        match runtime.begin_again("kube-system", &pod, MEMBER, GRACE).await? {
            true => Ok(()),
            false => Err(passing(&format!("the container runtime runs no etcd of the pod {pod}"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_has_changed_since_a_process_began_says_nothing_of_it() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path();
        let put = |folder: &str, content: &str| {
            std::fs::create_dir(dir.join(folder)).unwrap();
            std::fs::write(dir.join(folder).join(OF_SERVER), content).unwrap();
            std::os::unix::fs::symlink(folder, dir.join("..next")).unwrap();
            std::fs::rename(dir.join("..next"), dir.join(CURRENT)).unwrap();
        };
        let later = |seconds| SystemTime::now() + Duration::from_secs(seconds);
        let read = |age, now| began_with(dir, OF_SERVER, Duration::from_secs(age), now);
        assert_eq!(read(1, later(100)), None, "nothing is mounted");
        put("..1", "one");
        std::os::unix::fs::symlink(format!("{CURRENT}/{OF_SERVER}"), dir.join(OF_SERVER)).unwrap();
        assert_eq!(read(50, later(100)).as_deref(), Some(&b"one"[..]), "it began 50 s after");
        put("..2", "two");
        assert_eq!(read(150, later(100)), None, "it began before");
        assert_eq!(read(50, later(100)).as_deref(), Some(&b"two"[..]));
        // The clock was set back.
        assert_eq!(read(1, SystemTime::UNIX_EPOCH), None);
    }

    #[test]
    fn what_is_not_hoists_is_refused_by_its_name() {
        let cluster = |more: &str| {
            let text = format!(
                "apiVersion: hoist/v1alpha1\nkind: Cluster\ncontrollers:\n- {{name: c1, address: 192.0.2.10}}\n{more}"
            );
            crate::desired::config::parse("f", &text, Path::new("/")).unwrap()
        };
        let tls = pki::issue(&cluster(""), &Default::default(), &Default::default(), time::OffsetDateTime::now_utc());
        let rendered =
            crate::desired::render::render(&cluster(""), &tls.unwrap().files, "abcdef.0123456789abcdef").unwrap();
        let manifest = rendered.text("bootstrap-manifests/etcd.yaml").unwrap();
        let servers = |edit: (&str, &str)| {
            let flags = SERVERS_FLAGS.map(|(flag, file)| format!("--{flag}={MOUNTED}/{file}").replace(edit.0, edit.1));
            Workload { command: flags.into(), rollout: None }
        };
        let as_is = ("", "");
        let said = |more: &str, nodes: &[&str], server: (&str, &str), member: (&str, &str)| {
            let nodes: Vec<_> = nodes.iter().map(|name| (*name).to_owned()).collect();
            let member = etcds(&manifest.replace(member.0, member.1));
            refusal(&cluster(more), &nodes, &servers(server), ("etcd.yaml", &member)).map(|it| it.to_string())
        };
        assert_eq!(said("", &["c1"], as_is, as_is), None);
        let ca = "pki: {etcdCA: {certificate: /a.crt, key: /a.key}}\n";
        let external =
            "etcd: {external: {endpoints: ['https://192.0.2.20:2379'], caFile: /a, certFile: /b, keyFile: /c}}\n";
        for (found, part) in [
            (said(external, &["c1"], as_is, as_is), "etcd.external: etcd is not hoist's"),
            (said(ca, &["c1"], as_is, as_is), "pki.etcdCA: cluster.yaml names a CA of yours"),
            (said("", &["c1", "c2"], as_is, as_is), "controllers: there are several (c1, c2)"),
            (said("", &["c1"], ("etcd-ca.crt", "my.crt"), as_is), "kube-system/kube-apiserver: its flag --etcd-cafile"),
            (
                said("", &["c1"], as_is, ("--peer-trusted-ca-file=", "--peer-trusted-ca-file=/my")),
                "etcd.yaml: its flag --peer-trusted-ca-file",
            ),
        ] {
            assert!(found.as_ref().is_some_and(|said| said.contains(part)), "{part}: {found:?}");
        }
    }

    #[test]
    fn a_members_flags_are_those_of_its_manifest() {
        let text = "apiVersion: v1\nkind: Pod\nspec:\n  containers:\n  - name: etcd\n    command: [etcd, --trusted-ca-file=/a]\n    args: [--trusted-ca-file=/b]\n";
        assert_eq!(etcds(text).flags("trusted-ca-file"), ["/a", "/b"]);
        assert!(etcds("").command.is_empty());
    }
}
