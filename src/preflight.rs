//! Whether this machine is ready for `start`, before anything of it is touched.

use std::io::Read;
use std::net::{IpAddr, SocketAddr};

use crate::assets::AssetSet;
use crate::bridge::Bridge;
use crate::config::{API_PORT, Cluster, Controller, Etcd};
use crate::error::{Error, Finding, Result};
use crate::host::Host;
use crate::secrets::{self, BRIDGE_PORT, COMPONENTS, Server};
use crate::static_pods::StaticPods;
use crate::{kubelet, processes};

/// The ports of a controller, and the programs of its own that may hold them. Names as /proc has them: 15 letters.
const PORTS: [(u16, &[&str]); 9] = [
    (API_PORT, &["kube-apiserver", "hoist"]),
    (BRIDGE_PORT, &["kube-apiserver"]),
    (2379, &["etcd"]),
    (2380, &["etcd"]),
    (2381, &["etcd"]),
    (10257, &["kube-controller"]),
    (10259, &["kube-scheduler"]),
    (10267, &["kube-controller"]),
    (10269, &["kube-scheduler"]),
];

/// Which of the cluster's controllers this machine is: the one called `name`, or the one whose address it has.
///
/// # Errors
/// A machine that is none of them, or more than one.
pub fn controller<'a>(cluster: &'a Cluster, name: Option<&str>, own: &[IpAddr]) -> Result<&'a Controller> {
    let known =
        || cluster.controllers.iter().map(|c| format!("{} ({})", c.name, c.address)).collect::<Vec<_>>().join(", ");
    let refuse = |place: &str, message: String, remedy: &str| {
        Err(Error::Preflight(vec![Finding::new(place, message).remedy(remedy)]))
    };
    if let Some(name) = name {
        let Some(found) = cluster.controllers.iter().find(|c| c.name == name) else {
            return refuse(
                "--node-name",
                format!("no controller of cluster.yaml is called {name}; there are {}", known()),
                "name one of them",
            );
        };
        if !own.contains(&found.address) {
            let message = format!("no interface of this machine has {}, the address of {name}", found.address);
            return refuse(
                "cluster.yaml: controllers",
                message,
                "run it on that machine, or correct the address and render again",
            );
        }
        return Ok(found);
    }
    let mut here = cluster.controllers.iter().filter(|c| own.contains(&c.address));
    match (here.next(), here.next()) {
        (Some(found), None) => Ok(found),
        (Some(_), Some(_)) => {
            refuse("cluster.yaml: controllers", "several of them are this machine".into(), "say which with --node-name")
        }
        (None, _) => refuse(
            "cluster.yaml: controllers",
            format!("no interface of this machine has the address of one of them: {}", known()),
            "run it on a controller, or correct the address and render again",
        ),
    }
}

/// Everything that stands in the way of raising the bridge on this machine, all at once; but first what the asset
/// directory lacks, for that is mended elsewhere.
///
/// # Errors
/// What stands in the way; nothing was changed.
pub async fn check(host: &Host, assets: &AssetSet, cluster: &Cluster, controller: &Controller) -> Result<()> {
    let missing = missing_files(assets, cluster, controller);
    if !missing.is_empty() {
        return Err(Error::Input(missing));
    }
    let mut findings = Vec::new();
    if !host.outside().is_root() {
        findings.push(Finding::new("user", "hoist start must run as root").remedy("run it with sudo"));
    }
    findings.extend(StaticPods::new(host.manifests()).foreign(&Bridge::manifest_names())?);
    findings.extend(ports(host, controller.address));
    findings.extend(etcd_data(host, cluster));
    findings.extend(own_binary());
    findings.extend(kubelet::unit_problem(host).await);
    if findings.is_empty() { Ok(()) } else { Err(Error::Preflight(findings)) }
}

/// Ports of a controller that a program of somebody else's holds.
fn ports(machine: &Host, address: IpAddr) -> Vec<Finding> {
    let loopback: IpAddr =
        if address.is_ipv6() { std::net::Ipv6Addr::LOCALHOST.into() } else { std::net::Ipv4Addr::LOCALHOST.into() };
    let mut findings = Vec::new();
    for (port, own) in PORTS {
        let taken =
            [address, loopback].into_iter().find(|host| !machine.outside().is_free(SocketAddr::new(*host, port)));
        let Some(host) = taken else { continue };
        let holder = processes::listener(&machine.path("/proc"), host, port);
        if holder.as_ref().is_some_and(|(name, _)| own.contains(&name.as_str())) {
            continue;
        }
        let by = holder.map_or("another process".into(), |(name, pid)| format!("{name} (pid {pid})"));
        findings.push(
            Finding::new(format!("port {port}"), format!("is held by {by}"))
                .remedy(format!("stop it; `ss -ltnp sport = :{port}` shows it")),
        );
    }
    findings
}

/// etcd data without hoist's etcd: of an earlier cluster, whose objects would come back to life.
fn etcd_data(host: &Host, cluster: &Cluster) -> Option<Finding> {
    let Etcd::Local { data_dir, .. } = &cluster.etcd else { return None };
    let member = host.path(data_dir).join("member");
    let finding = || {
        Finding::new(
            member.display().to_string(),
            "holds the data of an earlier etcd, and hoist's etcd is not installed here",
        )
        .remedy("move the folder away to begin a new cluster")
    };
    (member.exists() && !Bridge::new(host).has_etcd()).then(finding)
}

/// The binary is mounted into an image without libraries, so it must be static.
fn own_binary() -> Option<Finding> {
    let path = std::env::current_exe().ok()?;
    // What tells stands in front of all else, and the rest is large.
    let mut head = Vec::new();
    let read = std::fs::File::open(&path).and_then(|file| file.take(64 * 1024).read_to_end(&mut head));
    let needs_loader = read.is_ok() && has_interpreter(&head);
    needs_loader.then(|| {
        Finding::new(path.display().to_string(), "is not a static binary, so the bridge's pods could not run it")
            .remedy(
                "build it with `cargo build --release` in hoist's repository, whose .cargo/config.toml makes it static",
            )
    })
}

/// Whether a 64-bit little-endian ELF file asks for a dynamic loader (program header PT_INTERP; see elf(5)).
fn has_interpreter(elf: &[u8]) -> bool {
    const PT_INTERP: u32 = 3;
    let number = |at: usize, len: usize| {
        elf.get(at..at + len).map(|bytes| bytes.iter().rev().fold(0u64, |sum, byte| sum << 8 | u64::from(*byte)))
    };
    let headers = || Some((number(0x20, 8)?, number(0x36, 2)?, number(0x38, 2)?));
    let Some((offset, size, count)) = headers() else { return false };
    (0..count).any(|index| number((offset + index * size) as usize, 4) == Some(PT_INTERP.into()))
}

/// Files of the asset directory that `start` needs on this controller and that are not there.
fn missing_files(assets: &AssetSet, cluster: &Cluster, controller: &Controller) -> Vec<Finding> {
    let tls = assets.tls();
    let local = matches!(cluster.etcd, Etcd::Local { .. });
    let of_components = COMPONENTS.map(|name| secrets::of_component(name, cluster, &tls, Server::Bridge).map(drop));
    let of_etcd = local.then(|| secrets::of_etcd(&controller.name, &tls).map(drop));
    let manifests = Bridge::manifest_names().into_iter().filter(|name| local || *name != "etcd.yaml");
    let is_external = cluster.has_external_ca();
    let of_kubelet = secrets::of_kubelet(&controller.name, &tls).map(drop);
    let texts = ["auth/kubeconfig", "auth/kubeconfig-kubelet", "kubelet/config.yaml", "kubelet/kubelet.service"]
        .into_iter()
        .filter(|path| !is_external || *path != "auth/kubeconfig-kubelet")
        .map(str::to_owned)
        .chain(manifests.map(|name| format!("bootstrap-manifests/{name}")))
        .map(|path| assets.text(&path).map(drop));

    let mut findings = Vec::new();
    for result in of_components.into_iter().chain([of_kubelet]).chain(of_etcd).chain(texts) {
        if let Err(Error::Input(found)) = result {
            findings.extend(found.into_iter().filter(|finding| !findings.contains(finding)).collect::<Vec<_>>());
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn a_static_binary_is_told_from_a_dynamic_one() {
        assert!(has_interpreter(&std::fs::read("/bin/ls").unwrap()));
        assert!(!has_interpreter(b"#!/bin/sh\n"));
        let mut elf = vec![0u8; 0x40 + 2 * 0x38];
        (elf[0x20], elf[0x36], elf[0x38]) = (0x40, 0x38, 2);
        assert!(!has_interpreter(&elf));
        elf[0x40 + 0x38] = 3;
        assert!(has_interpreter(&elf));
    }
    const CLUSTER: &str = "apiVersion: hoist/v1alpha1\nkind: Cluster\ncontrollers:\n\
        - {name: c1, address: 192.0.2.10}\n- {name: c2, address: 192.0.2.11}\n";

    fn cluster(more: &str) -> Cluster {
        crate::config::parse("f", &format!("{CLUSTER}{more}"), Path::new("/")).unwrap()
    }

    #[test]
    fn which_controller_this_machine_is() {
        let cluster = cluster("");
        for (name, own, expected) in [
            (None, "127.0.0.1 192.0.2.10 fd00::1", "c1"),
            (None, "192.0.2.11", "c2"),
            (Some("c2"), "192.0.2.11", "c2"),
            (Some("c2"), "192.0.2.10 192.0.2.11", "c2"),
            (
                None,
                "127.0.0.1 192.0.2.1",
                "cluster.yaml: controllers: no interface of this machine has the address of one of them: c1 (192.0.2.10), c2 (192.0.2.11)\n    run it on a controller, or correct the address and render again",
            ),
            (
                None,
                "192.0.2.10 192.0.2.11",
                "cluster.yaml: controllers: several of them are this machine\n    say which with --node-name",
            ),
            (
                Some("c3"),
                "192.0.2.10",
                "--node-name: no controller of cluster.yaml is called c3; there are c1 (192.0.2.10), c2 (192.0.2.11)\n    name one of them",
            ),
            (
                Some("c2"),
                "192.0.2.10",
                "cluster.yaml: controllers: no interface of this machine has 192.0.2.11, the address of c2\n    run it on that machine, or correct the address and render again",
            ),
        ] {
            let own: Vec<IpAddr> = own.split(' ').map(|address| address.parse().unwrap()).collect();
            let found = match controller(&cluster, name, &own) {
                Ok(controller) => controller.name.clone(),
                Err(Error::Preflight(findings)) if findings.len() == 1 => findings[0].to_string(),
                Err(error) => panic!("{error:?}"),
            };
            assert_eq!(found, expected);
        }
    }

    /// Files of an asset directory without which `start` can do its work on the first controller.
    const SPARE: [&str; 9] = [
        "cluster.yaml",
        "manifests/",
        "systemd/",
        "tls/admin.",
        "tls/front-proxy-ca.key",
        "tls/etcd/ca.key",
        "tls/etcd/c2/",
        "tls/kubelet/c2/",
        "tls/etcd/healthcheck-client.",
    ];

    #[test]
    fn every_file_that_start_needs_is_missed() {
        let cluster = cluster("");
        let now = time::OffsetDateTime::now_utc();
        let pki = crate::pki::issue(&cluster, &Default::default(), &Default::default(), now).unwrap();
        let whole = crate::render::render(&cluster, &pki.files, "abcdef.0123456789abcdef").unwrap();
        let missing = |assets: &AssetSet| -> Vec<String> {
            let found = missing_files(assets, &cluster, &cluster.controllers[0]);
            assert!(
                found.iter().all(|finding| finding.remedy.as_ref().is_some_and(|text| text.contains("hoist render")))
            );
            found.into_iter().map(|finding| finding.place).collect()
        };
        assert_eq!(missing(&whole), [""; 0]);
        for path in whole.files.keys() {
            let mut assets = whole.clone();
            assets.files.remove(path);
            let is_spare = SPARE.iter().any(|spare| path.starts_with(spare));
            let expected: &[&String] = if is_spare { &[] } else { &[path] };
            assert_eq!(missing(&assets).iter().collect::<Vec<_>>(), expected, "{path}");
        }
        assert_eq!(missing(&AssetSet::default()).len(), 32, "all at once");
    }

    #[test]
    fn with_a_ca_elsewhere_the_kubelets_certificate_is_needed_and_no_token() {
        let now = time::OffsetDateTime::now_utc();
        let mut tls = crate::pki::issue(&cluster(""), &Default::default(), &Default::default(), now).unwrap().files;
        tls.remove("ca.key");
        let of_kubelet = ["kubelet/c1/client.crt", "kubelet/c1/client.key"];
        tls.extend(of_kubelet.map(|path| (path.to_owned(), b"PEM".to_vec())));
        let cluster = cluster("pki: {ca: {certificate: ca.crt}}\n");
        let missing = |assets: &AssetSet| -> Vec<String> {
            missing_files(assets, &cluster, &cluster.controllers[0]).into_iter().map(|finding| finding.place).collect()
        };
        let mut assets = crate::render::render(&cluster, &tls, "abcdef.0123456789abcdef").unwrap();
        assert!(!assets.files.contains_key("auth/kubeconfig-kubelet"));
        assert_eq!(missing(&assets), [""; 0]);
        for path in of_kubelet {
            assets.files.remove(&format!("tls/{path}"));
        }
        assert_eq!(missing(&assets), of_kubelet.map(|path| format!("tls/{path}")));
    }
}
