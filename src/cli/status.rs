//! `hoist status`

use std::io::Write;
use std::path::{Path, PathBuf};

use super::output::{self, Output};
use crate::base::error::{Error, Finding, Result};
use crate::check::preflight;
use crate::desired::assets::{self, AssetSet};
use crate::desired::config::{self, Cluster, Controller, Etcd};
use crate::node::host::Host;
use crate::node::kubelet_kubeconfig;
use crate::node::system;
use crate::ops::status::{self, Subject};

/// `hoist status`
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The folder that `hoist render` wrote; its auth/kubeconfig is used, and its certificates are shown
    #[arg(long, value_name = "DIR", conflicts_with = "kubeconfig")]
    asset_dir: Option<PathBuf>,
    /// An admin's kubeconfig, if there is no asset directory any more; it must hold its credentials or name their files
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// The kubelet's folder of static pods
    #[arg(long, value_name = "DIR", default_value = "/etc/kubernetes/manifests")]
    pod_manifest_path: PathBuf,
    /// Which controller of cluster.yaml this machine is [default: the one whose address this machine has]
    #[arg(long, value_name = "NAME", requires = "asset_dir")]
    node_name: Option<String>,
    /// How it is shown
    #[arg(long, short, value_enum, default_value = "text")]
    output: Output,
}

pub(super) async fn run(args: &Args, out: &mut dyn Write) -> Result<u8> {
    let host = system::host(Path::new("/"), &args.pod_manifest_path);
    let status = match &args.asset_dir {
        Some(dir) => {
            let dir = assets::absolute(dir)?;
            let assets = AssetSet::load(&dir)?;
            let cluster = assets.cluster(&dir)?;
            let own = host.world().addresses()?;
            status::look(&Subject {
                host: &host,
                cluster: &cluster,
                controller: preflight::controller(&cluster, args.node_name.as_deref(), &own)?,
                assets: Some(&assets),
                kubeconfig: Some(&assets.text("auth/kubeconfig")?),
                ca: assets.tls().get("ca.crt").map(Vec::as_slice).unwrap_or_default(),
            })
            .await?
        }
        None => {
            let cluster = installed(&host)?;
            let ca = host.path("/etc/kubernetes/pki/ca.crt");
            let read = |path: &Path| std::fs::read(path).map_err(|error| Error::io("read", path, error));
            let kubeconfig = args.kubeconfig.as_deref().map(read).transpose()?;
            let kubeconfig = kubeconfig.as_deref().map(String::from_utf8_lossy);
            status::look(&Subject {
                host: &host,
                cluster: &cluster,
                controller: &cluster.controllers[0],
                assets: None,
                kubeconfig: kubeconfig.as_deref(),
                ca: &read(&ca)?,
            })
            .await?
        }
    };
    super::print(out, &output::shown(&status, args.output)?)?;
    Ok(if status.healthy { 0 } else { 1 })
}

/// The cluster of this controller, as far as `start` has written it down here for the kubelet.
fn installed(host: &Host) -> Result<Cluster> {
    let path = host.path("/etc/kubernetes/kubelet.env");
    let Some((name, address)) = kubelet_kubeconfig::named(host) else {
        let finding = Finding::new(path.display().to_string(), "does not say which controller this machine is");
        let remedy = "run it on a controller that `hoist start` has set up, or name its --asset-dir";
        return Err(Error::Preflight(vec![finding.remedy(remedy)]));
    };
    // What else cluster.yaml says shows in no status.
    let mut cluster = config::parse("the default cluster.yaml", config::DEFAULT, Path::new("/"))?;
    cluster.controllers = vec![Controller { name, address, taints: Vec::new() }];
    if !host.manifests().join("etcd.yaml").is_file() {
        let none = String::new;
        cluster.etcd = Etcd::External { endpoints: Vec::new(), ca_file: none(), cert_file: none(), key_file: none() };
    }
    Ok(cluster)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_start_has_written_for_the_kubelet_says_who_this_is() {
        let dir = tempfile::tempdir().unwrap();
        let host = system::host(dir.path(), Path::new("/etc/kubernetes/manifests"));
        let Err(Error::Preflight(findings)) = installed(&host) else { panic!() };
        assert!(findings[0].place.ends_with("/etc/kubernetes/kubelet.env"));

        std::fs::create_dir_all(host.manifests()).unwrap();
        let env = host.path("/etc/kubernetes/kubelet.env");
        std::fs::write(&env, "# Written by hoist start.\nNODE_NAME=c1\nNODE_IP=fd00::1\n").unwrap();
        let cluster = installed(&host).unwrap();
        assert_eq!((&*cluster.controllers[0].name, cluster.loopback().is_ipv6()), ("c1", true));
        assert!(matches!(cluster.etcd, Etcd::External { .. }));
        std::fs::write(host.manifests().join("etcd.yaml"), "").unwrap();
        assert!(matches!(installed(&host).unwrap().etcd, Etcd::Local { .. }));
    }
}
