//! A cluster, a clock, a folder for openssl.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use hoist::base::error::Error;
use hoist::desired::config::{
    ApiEndpoint, ApiServer, Autoscaler, Cluster, Component, Controller, Dns, Endpoint, Etcd, HoistPaths, Images,
    KeyPairFiles, KubeProxy, Level, Network, Networking, PkiConfig, Plugin, PodSecurity, ProxyMode, Version,
};
use hoist::desired::pki::{self, Pki, UserFiles};
use tempfile::TempDir;
use time::OffsetDateTime;

pub type Files = BTreeMap<String, Vec<u8>>;

const DAY: u64 = 24 * 60 * 60;

pub fn controller(name: &str, address: &str) -> Controller {
    Controller { name: name.into(), address: address.parse().unwrap(), taints: Vec::new() }
}

/// One controller, dual stack, an endpoint and a SAN of the user's.
pub fn cluster() -> Cluster {
    let image = String::new;
    Cluster {
        cluster_name: "test".into(),
        kubernetes_version: Version { major: 1, minor: 36, patch: 3 },
        networking: Networking {
            pod_subnets: vec!["10.244.0.0/16".parse().unwrap()],
            service_subnets: vec!["10.96.0.0/16".parse().unwrap(), "fd00:96::/112".parse().unwrap()],
            dns_domain: "cluster.local".into(),
        },
        network: Network { plugin: Plugin::None, cni_bin_dir: "/opt/cni/bin".into() },
        kube_proxy: KubeProxy { mode: ProxyMode::None, config: serde_json::Map::new() },
        dns: Dns {
            has_coredns: true,
            upstreams: None,
            autoscaler: Autoscaler { min: 2, nodes_per_replica: 16, cores_per_replica: 256 },
            node_local: None,
        },
        control_plane_endpoint: Some(Endpoint { host: "API.example.com.".into(), port: 6443 }),
        api_endpoint: ApiEndpoint { node_local: false, virtual_address: None },
        images: Images {
            kube_apiserver: image(),
            kube_controller_manager: image(),
            kube_scheduler: image(),
            kube_proxy: image(),
            etcd: image(),
            coredns: image(),
            pause: image(),
            flannel: image(),
            flannel_cni_plugin: image(),
            hoist: None,
        },
        api_server: ApiServer { extra_args: Vec::new(), cert_sans: vec!["203.0.113.7".into(), "localhost".into()] },
        controller_manager: Component::default(),
        scheduler: Component::default(),
        etcd: Etcd::Local { data_dir: "/var/lib/etcd".into(), defragmentation: true, extra_args: Vec::new() },
        controllers: vec![controller("c1", "192.0.2.1")],
        kubelet_config: serde_json::Map::new(),
        pod_security: PodSecurity { enforce: Level::Privileged, audit: Level::Baseline, warn: Level::Baseline },
        hoist: HoistPaths { binary: "/usr/local/bin/hoist".into(), asset_dir: "/etc/hoist/assets".into() },
        addons: Vec::new(),
        pki: PkiConfig {
            ca_validity: Duration::from_secs(3650 * DAY),
            certificate_validity: Duration::from_secs(365 * DAY),
            bootstrap_token_ttl: Duration::from_secs(DAY),
            ca: None,
            etcd_ca: None,
            front_proxy_ca: None,
            service_account_key: None,
        },
    }
}

/// The machine's time: openssl compares with it.
pub fn now() -> OffsetDateTime {
    OffsetDateTime::now_utc()
}

pub fn days(n: i64) -> time::Duration {
    time::Duration::days(n)
}

pub fn issue(cluster: &Cluster, existing: &Files) -> Pki {
    issue_at(cluster, existing, now())
}

pub fn issue_at(cluster: &Cluster, existing: &Files, now: OffsetDateTime) -> Pki {
    let user = pki::read_user_files(cluster).unwrap();
    pki::issue(cluster, existing, &user, now).unwrap()
}

/// The message of an issue that fails for its input.
pub fn refused(cluster: &Cluster, existing: &Files) -> String {
    refused_at(cluster, existing, now())
}

pub fn refused_at(cluster: &Cluster, existing: &Files, now: OffsetDateTime) -> String {
    let user = pki::read_user_files(cluster).unwrap();
    match pki::issue(cluster, existing, &user, now) {
        Err(error @ Error::Input(_)) => error.to_string(),
        Err(error) => panic!("not an error of the input: {error}"),
        Ok(pki) => panic!("it was issued: {pki:?}"),
    }
}

/// Paths and reasons of what was issued.
pub fn reasons(pki: &Pki) -> Vec<(&str, &str)> {
    pki.issued.iter().map(|i| (&*i.path, &*i.reason)).collect()
}

/// The paths whose contents differ.
pub fn changed(before: &Files, after: &Files) -> Vec<String> {
    let all: std::collections::BTreeSet<_> = before.keys().chain(after.keys()).collect();
    all.into_iter().filter(|path| before.get(*path) != after.get(*path)).cloned().collect()
}

pub fn info(files: &Files, path: &str) -> pki::CertificateInfo {
    pki::inspect(&files[path]).unwrap()
}

/// A folder in which openssl runs.
pub struct Folder(TempDir);

impl Folder {
    pub fn new() -> Self {
        Self(TempDir::new().unwrap())
    }

    pub fn of(files: &Files) -> Self {
        let folder = Self::new();
        for (path, bytes) in files {
            let path = folder.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, bytes).unwrap();
        }
        folder
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    pub fn read(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.path().join(name)).unwrap()
    }

    /// The absolute path of a file here, as cluster.yaml would name it.
    pub fn name(&self, name: &str) -> String {
        self.path().join(name).to_str().unwrap().to_owned()
    }

    pub fn pair(&self, certificate: &str, key: &str) -> Option<KeyPairFiles> {
        Some(KeyPairFiles { certificate: self.name(certificate), key: Some(self.name(key)) })
    }

    /// Runs openssl here: one string, words split at spaces. It must succeed.
    pub fn openssl(&self, args: &str) -> String {
        let output = Command::new("openssl")
            .args(args.split_whitespace())
            .current_dir(self.path())
            .output()
            .expect("these tests need the openssl command");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        assert!(output.status.success(), "openssl {args}: {}{}", text(&output.stdout), text(&output.stderr));
        text(&output.stdout)
    }

    /// A self-signed CA in `<name>.crt` of the key that is in `<name>.key`.
    pub fn self_sign(&self, name: &str, subject: &str) {
        self.openssl(&format!("req -x509 -new -key {name}.key -out {name}.crt -days 3650 -subj {subject} -addext keyUsage=critical,keyCertSign,cRLSign"));
    }
}

/// No file of the user's.
pub fn none() -> UserFiles {
    UserFiles::default()
}
