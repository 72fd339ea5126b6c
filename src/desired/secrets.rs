//! The files of tls/ that each component needs, by the names that its flags use. The same set makes the Secret of the
//! self-hosted component and the folder that the bridge mounts, so the two cannot drift apart.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use base64::Engine;

use crate::base::error::{Error, Finding, Result};
use crate::desired::config::Cluster;
use crate::desired::kubeconfig::{Credentials, KubeConfig};
use crate::desired::pki::ENCRYPTION;

/// The content of tls/, by path below it.
pub type Tls = BTreeMap<String, Vec<u8>>;
/// Where a component mounts its files.
const MOUNTED: &str = "/etc/kubernetes/secrets";
/// The pair that the kubeconfig beside it names: a renewed one is read without a restart.
const CLIENT: [&str; 2] = ["client.crt", "client.key"];
/// What a component mounts at /etc/kubernetes/secrets.
pub type SecretFiles = BTreeMap<String, Vec<u8>>;

/// Where a component's kubeconfig sends it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Server {
    /// The bridge's API server, on its own port.
    Bridge,
    /// The API server of the same controller.
    SelfHosted,
    /// That of a hosted control plane, at the address of its Service.
    Hosted(SocketAddr),
}

impl Server {
    /// The URL; that of a controller's own is on the loopback address of the cluster's family.
    pub fn url(self, cluster: &Cluster) -> String {
        let address = match self {
            Self::Bridge => SocketAddr::new(cluster.loopback(), BRIDGE_PORT),
            Self::SelfHosted => SocketAddr::new(cluster.loopback(), crate::desired::config::API_PORT),
            Self::Hosted(address) => address,
        };
        format!("https://{address}")
    }
}

/// Where the bridge's API server listens, on loopback.
pub const BRIDGE_PORT: u16 = 6444;

/// The components that mount secrets, as their files and flags name them.
pub const COMPONENTS: [&str; 3] = ["kube-apiserver", "kube-controller-manager", "kube-scheduler"];

/// The bridge's static pods, as their manifests name them; the mirror pods have the node's name behind.
pub const BRIDGE_PODS: [&str; 3] = ["bridge-kube-apiserver", "bridge-kube-controller-manager", "bridge-kube-scheduler"];

/// What `component` (one of [`COMPONENTS`]) mounts.
///
/// # Errors
/// Every file that tls/ lacks.
pub fn of_component(component: &str, cluster: &Cluster, tls: &Tls, server: Server) -> Result<SecretFiles> {
    match component {
        "kube-apiserver" => {
            let mut wanted = vec![
                ("ca.crt", "ca.crt"),
                ("apiserver.crt", "apiserver.crt"),
                ("apiserver.key", "apiserver.key"),
                ("apiserver-etcd-client.crt", "apiserver-etcd-client.crt"),
                ("apiserver-etcd-client.key", "apiserver-etcd-client.key"),
                ("apiserver-kubelet-client.crt", "apiserver-kubelet-client.crt"),
                ("apiserver-kubelet-client.key", "apiserver-kubelet-client.key"),
                ("etcd-ca.crt", "etcd/ca.crt"),
                ("front-proxy-ca.crt", "front-proxy-ca.crt"),
                ("front-proxy-client.crt", "front-proxy-client.crt"),
                ("front-proxy-client.key", "front-proxy-client.key"),
                ("sa.key", "sa.key"),
                ("sa.pub", "sa.pub"),
            ];
            // An asset directory of an older hoist has none.
            if tls.contains_key(ENCRYPTION) {
                wanted.push((ENCRYPTION, ENCRYPTION));
            }
            pick(tls, &wanted)
        }
        "kube-controller-manager" => {
            let mut files =
                vec![("ca.crt", "ca.crt"), ("front-proxy-ca.crt", "front-proxy-ca.crt"), ("sa.key", "sa.key")];
            if !cluster.has_external_ca() {
                files.push(("ca.key", "ca.key"));
            }
            let mut files = with_kubeconfig(pick(tls, &files), component, cluster, tls, server)?;
            if !cluster.has_external_ca() {
                // --cluster-signing-cert-file takes one certificate and exits on a chain.
                files.insert("signing-ca.crt".into(), first_certificate(&files["ca.crt"]));
            }
            Ok(files)
        }
        _ => {
            let files = [("ca.crt", "ca.crt"), ("front-proxy-ca.crt", "front-proxy-ca.crt")];
            with_kubeconfig(pick(tls, &files), component, cluster, tls, server)
        }
    }
}

/// What etcd on the controller `name` mounts.
///
/// # Errors
/// Every file that tls/ lacks.
pub fn of_etcd(name: &str, tls: &Tls) -> Result<SecretFiles> {
    let own = |file: &str| format!("etcd/{name}/{file}");
    pick(
        tls,
        &[
            ("ca.crt", "etcd/ca.crt"),
            ("peer.crt", &own("peer.crt")),
            ("peer.key", &own("peer.key")),
            ("server.crt", &own("server.crt")),
            ("server.key", &own("server.key")),
        ],
    )
}

/// The pair with which an API server serves, by its names in tls/.
pub const SERVING: [&str; 2] = ["apiserver.crt", "apiserver.key"];

/// Where tls/ has a file of one controller's API server alone. A controller that a label made has its own pair there; the
/// declared ones share a pair that names them all.
pub fn own_serving(controller: &str, file: &str) -> String {
    format!("apiserver/{controller}/{file}")
}

/// tls/ as the controller `name` has it: with its own serving pair, if it has one, in place of the shared one.
pub fn of_controller(name: &str, mut tls: Tls) -> Tls {
    for file in SERVING {
        if let Some(own) = tls.get(&own_serving(name, file)).cloned() {
            tls.insert(file.to_owned(), own);
        }
    }
    tls
}

/// What the self-hosted API server of the controller `name` serves with.
///
/// # Errors
/// Every file that tls/ lacks.
pub fn of_serving(name: &str, tls: &Tls) -> Result<SecretFiles> {
    pick(&of_controller(name, tls.clone()), &SERVING.map(|file| (file, file)))
}

/// Guard's kubeconfig. Like the bridge's controllers it depends on no load balancer: whoever uses it names the address.
///
/// # Errors
/// Every file that tls/ lacks.
pub fn of_guard(cluster: &Cluster, tls: &Tls) -> Result<String> {
    kubeconfig(cluster, tls, &Server::SelfHosted.url(cluster), "hoist:guard", "guard")
}

/// The client certificate and the key of the kubelet of the controller `name`, in one file as the kubelet keeps its own.
///
/// # Errors
/// Every file that tls/ lacks.
pub fn of_kubelet(name: &str, tls: &Tls) -> Result<Vec<u8>> {
    let (crt, key) = (format!("kubelet/{name}/client.crt"), format!("kubelet/{name}/client.key"));
    let files = pick(tls, &[("crt", &crt), ("key", &key)])?;
    Ok([&*files["crt"], b"\n", &*files["key"]].concat())
}

/// The text of a client certificate's kubeconfig for `user`, whose files in tls/ are `stem`.crt and `stem`.key.
///
/// # Errors
/// Every file that tls/ lacks.
pub fn kubeconfig(cluster: &Cluster, tls: &Tls, server: &str, user: &str, stem: &str) -> Result<String> {
    let (crt, key) = (format!("{stem}.crt"), format!("{stem}.key"));
    let files = pick(tls, &[("ca", "ca.crt"), ("crt", &crt), ("key", &key)])?;
    let config = KubeConfig {
        cluster_name: &cluster.cluster_name,
        server,
        ca_pem: &files["ca"],
        user,
        credentials: Credentials::ClientCertificate { cert_pem: &files["crt"], key_pem: &files["key"] },
    };
    Ok(config.to_yaml())
}

fn with_kubeconfig(
    files: Result<SecretFiles>,
    component: &str,
    cluster: &Cluster,
    tls: &Tls,
    server: Server,
) -> Result<SecretFiles> {
    let (crt, key) = (format!("{component}.crt"), format!("{component}.key"));
    let pair = pick(tls, &[(CLIENT[0], &crt), (CLIENT[1], &key)]);
    match (files, pair) {
        (Ok(mut files), Ok(pair)) => {
            let config = KubeConfig {
                cluster_name: &cluster.cluster_name,
                server: &server.url(cluster),
                ca_pem: &files["ca.crt"],
                user: &format!("system:{component}"),
                credentials: Credentials::ClientCertificateFiles {
                    cert: &format!("{MOUNTED}/{}", CLIENT[0]),
                    key: &format!("{MOUNTED}/{}", CLIENT[1]),
                },
            };
            let config = config.to_yaml();
            files.extend(pair);
            files.insert("kubeconfig".into(), config.into_bytes());
            Ok(files)
        }
        (Err(Error::Input(files)), Err(Error::Input(more))) => Err(Error::Input([files, more].concat())),
        (Err(error), _) | (_, Err(error)) => Err(error),
    }
}

fn first_certificate(text: &[u8]) -> Vec<u8> {
    let first = pem::parse_many(text).ok().and_then(|blocks| blocks.into_iter().next());
    let unix = pem::EncodeConfig::new().set_line_ending(pem::LineEnding::LF);
    first.map_or_else(|| text.to_vec(), |block| pem::encode_config(&block, unix).into_bytes())
}

fn pick(tls: &Tls, wanted: &[(&str, &str)]) -> Result<SecretFiles> {
    let mut files = SecretFiles::new();
    let mut missing = Vec::new();
    for (name, path) in wanted {
        match tls.get(*path) {
            Some(content) => {
                files.insert((*name).to_owned(), content.clone());
            }
            None => missing.push(
                Finding::new(format!("tls/{path}"), "the asset directory lacks this file")
                    .remedy("run `hoist render` with the cluster.yaml and this asset directory again"),
            ),
        }
    }
    if missing.is_empty() { Ok(files) } else { Err(Error::Input(missing)) }
}

/// The manifest of the Secret `name` in kube-system with these files.
pub fn manifest(name: &str, files: &SecretFiles) -> String {
    let mut text = format!(
        "# Keys of {name}: made by hoist render, for the cluster only. Never commit it.\n\
         apiVersion: v1\nkind: Secret\nmetadata:\n  name: {name}\n  namespace: kube-system\ntype: Opaque\ndata:\n"
    );
    for (file, content) in files {
        let encoded = base64::engine::general_purpose::STANDARD.encode(content);
        text.push_str(&format!("  \"{file}\": \"{encoded}\"\n"));
    }
    text
}
