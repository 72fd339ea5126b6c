//! The files with which a machine becomes a worker: public files and a bootstrap token, nothing else. Pure.

use std::net::IpAddr;

use crate::base::error::{Error, Finding, Result};
use crate::base::files::File;
use crate::desired::assets::AssetSet;
use crate::desired::config::Cluster;
use crate::desired::first_boot::{Format, Machine};
use crate::desired::kubeconfig::{Credentials, KubeConfig};
use crate::desired::node_endpoint;
use crate::desired::render::{WORKER_CONFIG, WORKER_UNIT};
use crate::desired::static_uid;

/// The unit of the kubelet.
const UNIT: &str = "kubelet.service";
/// Where kubeadm's packages have a machine's own flags of the kubelet: on Debian and its like, and where packages are RPMs.
const EXTRA_ARGS: [&str; 2] = ["/etc/default/kubelet", "/etc/sysconfig/kubelet"];
/// What a folder with the files is called where no node is named.
pub const ANY: &str = "worker";

/// One worker, or any.
pub struct Worker<'a> {
    /// A bootstrap token.
    pub token: &'a str,
    /// The name of its Node; otherwise its kubelet takes the machine's hostname.
    pub node: Option<&'a str>,
    /// The address of its Node; otherwise its kubelet takes that of the default route.
    pub node_ip: Option<IpAddr>,
}

/// The files of a worker, by their absolute paths there: where kubeadm has them. The kubelet's unit is not among them.
///
/// # Errors
/// A cluster in which nobody signs; an asset directory that lacks a file.
pub fn files(worker: &Worker<'_>, assets: &AssetSet, cluster: &Cluster) -> Result<Vec<(String, File)>> {
    if cluster.has_external_ca() {
        let finding = Finding::new(
            "pki.ca",
            "the key of the cluster's CA is elsewhere: nothing in the cluster can sign a worker's certificate",
        );
        return Err(Error::Input(vec![finding.remedy("have one signed for system:node:NAME in system:nodes, and give it to the kubelet in /etc/kubernetes/kubelet.conf")]));
    }
    let ca = assets.text("tls/ca.crt")?;
    let bootstrap = KubeConfig {
        cluster_name: &cluster.cluster_name,
        server: &node_endpoint::server(assets, cluster),
        ca_pem: ca.as_bytes(),
        user: "kubelet-bootstrap",
        credentials: Credentials::Token(worker.token),
    };
    let mut files = vec![
        ("/etc/kubernetes/pki/ca.crt".to_owned(), File::public(ca.clone())),
        ("/etc/kubernetes/bootstrap-kubelet.conf".to_owned(), File::private(bootstrap.to_yaml())),
        ("/var/lib/kubelet/config.yaml".to_owned(), File::private(assets.text(WORKER_CONFIG)?)),
    ];
    if let Some(manifest) = node_endpoint::manifest(assets, cluster)? {
        let manifest = static_uid::to_copy(node_endpoint::NAME, &manifest);
        files.push((node_endpoint::WORKERS.to_owned(), File::private(manifest)));
    }
    let name = worker.node.map(|name| format!("--hostname-override={name}"));
    let address = worker.node_ip.map(|address| format!("--node-ip={address}"));
    let flags: Vec<_> = name.into_iter().chain(address).collect();
    if !flags.is_empty() {
        let text = format!("KUBELET_EXTRA_ARGS=\"{}\"\n", flags.join(" "));
        files.extend(EXTRA_ARGS.map(|path| (path.to_owned(), File::public(text.as_str()))));
    }
    Ok(files)
}

/// The kubelet's unit and its path.
///
/// # Errors
/// An asset directory that lacks it.
pub fn unit(assets: &AssetSet) -> Result<(String, File)> {
    Ok((format!("/etc/systemd/system/{UNIT}"), File::public(assets.text(WORKER_UNIT)?)))
}

/// All of it for a machine's first boot.
///
/// # Errors
/// As [`files`].
pub fn first_boot(format: Format, worker: &Worker<'_>, assets: &AssetSet, cluster: &Cluster) -> Result<File> {
    let files = files(worker, assets, cluster)?;
    let unit = assets.text(WORKER_UNIT)?;
    let mode = |file: &File| if file.is_private() { 0o600 } else { 0o644 };
    let who = worker.node.map_or_else(|| "a worker".to_owned(), |name| format!("the worker {name}"));
    let machine = Machine {
        title: format!("Makes a machine {who}. It holds a bootstrap token. Written by hoist join-assets."),
        private: None,
        files: files.iter().map(|(path, file)| (path.clone(), mode(file), &*file.content)).collect(),
        unit: (UNIT, &unit),
        // A package may have started it without a configuration.
        verb: "restart",
    };
    Ok(File::private(machine.text(format)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: &str = "abcdef.0123456789abcdef";

    fn rendered(more: &str) -> (AssetSet, Cluster) {
        let text = format!(
            "apiVersion: hoist/v1alpha1\nkind: Cluster\n{more}controllers:\n- {{name: c1, address: 10.0.0.1}}\n"
        );
        let cluster = crate::desired::config::parse("cluster.yaml", &text, std::path::Path::new("/")).unwrap();
        let now = time::OffsetDateTime::now_utc();
        let pki = crate::desired::pki::issue(&cluster, &Default::default(), &Default::default(), now).unwrap();
        (crate::desired::render::render(&cluster, &pki.files, "fedcba.0123456789abcdef").unwrap(), cluster)
    }

    #[test]
    fn a_worker_gets_what_is_public_and_its_token() {
        let (assets, cluster) = rendered("controlPlaneEndpoint: api.example.com\n");
        let worker = Worker { token: TOKEN, node: Some("w1"), node_ip: Some("10.0.0.7".parse().unwrap()) };
        let files = files(&worker, &assets, &cluster).unwrap();
        let paths: Vec<_> = files.iter().map(|(path, file)| (path.as_str(), file.is_private())).collect();
        let expected = [
            ("/etc/kubernetes/pki/ca.crt", false),
            ("/etc/kubernetes/bootstrap-kubelet.conf", true),
            ("/var/lib/kubelet/config.yaml", true),
            ("/etc/default/kubelet", false),
            ("/etc/sysconfig/kubelet", false),
        ];
        assert_eq!(paths, expected);
        let text = |index: usize| String::from_utf8(files[index].1.content.clone()).unwrap();
        assert!(text(1).contains("https://api.example.com:6443") && text(1).contains(TOKEN));
        assert!(text(2).contains("serverTLSBootstrap: true\n") && text(2).contains("rotateCertificates: true\n"));
        assert!(!text(2).contains("staticPodPath"), "nothing on a worker runs pods but the API");
        for (number, path) in [(3, EXTRA_ARGS[0]), (4, EXTRA_ARGS[1])] {
            assert_eq!(text(number), "KUBELET_EXTRA_ARGS=\"--hostname-override=w1 --node-ip=10.0.0.7\"\n");
            let unit = unit(&assets).unwrap().1;
            let reads = format!("EnvironmentFile=-{path}\n");
            assert!(String::from_utf8(unit.content).unwrap().contains(&reads), "{reads}");
        }
        for format in [Format::CloudInit, Format::Ignition] {
            let made = first_boot(format, &worker, &assets, &cluster).unwrap();
            assert!(made.is_private());
            let text = String::from_utf8(made.content).unwrap();
            let paths = ["/var/lib/kubelet/config.yaml", "kubelet.service", EXTRA_ARGS[0], EXTRA_ARGS[1]];
            assert!(paths.iter().all(|path| text.contains(path)), "{text}");
        }
    }

    /// Its kubelet runs it before anybody has let it in.
    #[test]
    fn where_nodes_have_an_endpoint_a_worker_gets_it_and_asks_there() {
        let (assets, cluster) = rendered("controlPlaneEndpoint: api.example.com\nendpoint: {nodeLocal: true}\n");
        let worker = Worker { token: TOKEN, node: None, node_ip: None };
        let files = files(&worker, &assets, &cluster).unwrap();
        let text = |path: &str| {
            let file = files.iter().find(|(there, _)| there == path).map(|(_, file)| file.content.clone());
            String::from_utf8(file.unwrap_or_else(|| panic!("{path}"))).unwrap()
        };
        assert!(text("/etc/kubernetes/bootstrap-kubelet.conf").contains("server: \"https://127.0.0.1:7443\"\n"));
        assert!(text("/var/lib/kubelet/config.yaml").contains("\nstaticPodPath: /etc/kubernetes/manifests\n"));
        let manifest = text("/etc/kubernetes/manifests/hoist-endpoint.yaml");
        assert!(manifest.contains("- \"--target=10.0.0.1:6443\"\n"), "{manifest}");
        assert!(manifest.contains("\n  uid: \""), "a kubelet of another minor version would start it anew: {manifest}");
        // An older hoist has rendered none.
        let mut older = assets.clone();
        older.files.remove(node_endpoint::RENDERED);
        let files = super::files(&worker, &older, &cluster).unwrap();
        assert!(!files.iter().any(|(path, _)| path == node_endpoint::WORKERS));
        assert!(files.iter().any(|(_, file)| file.content.windows(20).any(|part| part == b"//api.example.com:64")));
    }

    /// Whatever the asset directory holds of keys and credentials.
    #[test]
    fn nothing_else_of_the_asset_directory_is_handed_out() {
        let (assets, cluster) = rendered("");
        let worker = Worker { token: TOKEN, node: None, node_ip: None };
        let all: String = files(&worker, &assets, &cluster)
            .unwrap()
            .iter()
            .map(|(_, file)| String::from_utf8_lossy(&file.content).into_owned())
            .collect();
        assert!(!all.contains("PRIVATE KEY") && !all.contains("client-key") && !all.contains("fedcba"), "{all}");
        assert!(!all.contains("extra_args") && !all.contains("KUBELET_EXTRA_ARGS"));
        let keys = assets.files.iter().filter(|(path, _)| path.ends_with(".key"));
        let mut count = 0;
        for (path, file) in keys {
            use base64::Engine;
            let encoded = base64::engine::general_purpose::STANDARD.encode(&file.content);
            assert!(!all.contains(&encoded), "{path}");
            count += 1;
        }
        assert!(count > 5, "there are keys to hand out");
    }

    #[test]
    fn where_nobody_signs_a_token_leads_nowhere() {
        let (assets, mut cluster) = rendered("");
        let ca = crate::desired::config::KeyPairFiles { certificate: "ca.crt".into(), key: None };
        cluster.pki.ca = Some(ca);
        let worker = Worker { token: TOKEN, node: None, node_ip: None };
        let Err(Error::Input(findings)) = files(&worker, &assets, &cluster) else { panic!() };
        assert!(findings[0].message.contains("nothing in the cluster can sign"));
    }
}
