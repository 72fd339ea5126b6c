//! `hoist join-assets` and `hoist token`, as far as there needs to be no cluster: real ones are in tests/e2e/workers.rs.

use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

use crate::support::{CLUSTER, Folder, Ran};

const TOKEN: &str = "abcdef.0123456789abcdef";
/// Nothing listens there.
const NOWHERE: &str = "controlPlaneEndpoint: 127.0.0.1:1\n";

fn folder() -> Folder {
    Folder::rendered(&format!("{CLUSTER}{NOWHERE}"))
}

fn join(folder: &Folder, more: &[&str]) -> Ran {
    let args = ["join-assets", "--asset-dir", "assets", "--token", TOKEN, "--output-dir", "out"];
    folder.run(&[&args[..], more].concat())
}

fn mode(folder: &Folder, path: &str) -> u32 {
    std::fs::metadata(folder.path(path)).unwrap().permissions().mode() & 0o777
}

#[test]
fn a_worker_is_prepared_where_the_cluster_cannot_be_reached() {
    let folder = folder();
    for _ in 0..2 {
        let ran = join(&folder, &["--node", "w1"]);
        assert_eq!(ran.code, Some(0), "{ran:?}");
        assert!(ran.stderr.contains("warning: was not checked") && ran.stderr.contains("hoist token list"), "{ran:?}");
        assert!(!ran.stderr.contains("0123456789"), "{ran:?}");
    }
    let expected = [
        ("out", 0o700),
        ("out/etc/kubernetes/pki/ca.crt", 0o644),
        ("out/etc/kubernetes/bootstrap-kubelet.conf", 0o600),
        ("out/var/lib/kubelet/config.yaml", 0o600),
        ("out/etc/default/kubelet", 0o644),
        ("out/etc/sysconfig/kubelet", 0o644),
        ("out/etc/systemd/system/kubelet.service", 0o644),
    ];
    for (path, wanted) in expected {
        assert_eq!(mode(&folder, path), wanted, "{path}");
    }
    let files: Vec<_> = folder.tree().into_keys().filter(|path| path.is_file()).collect();
    let out = folder.path("out");
    assert_eq!(files.iter().filter(|path| path.starts_with(&out)).count(), expected.len() - 1, "{files:?}");
    assert_eq!(folder.read("out/etc/kubernetes/pki/ca.crt"), folder.read("assets/tls/ca.crt"));
    assert_eq!(folder.read("out/var/lib/kubelet/config.yaml"), folder.read("assets/kubelet/worker-config.yaml"));
}

#[test]
fn one_file_for_a_first_boot() {
    let folder = folder();
    for (format, name) in [("cloud-init", "worker.cloud-init.yaml"), ("ignition", "worker.ign")] {
        assert_eq!(join(&folder, &["--format", format]).code, Some(0));
        let text = folder.read(&format!("out/{name}"));
        assert_eq!(mode(&folder, &format!("out/{name}")), 0o600);
        assert!(!text.contains("PRIVATE KEY") && text.contains("/etc/kubernetes/bootstrap-kubelet.conf"), "{text}");
        let config: serde_json::Value = match format {
            "ignition" => serde_json::from_str(&text).unwrap(),
            _ => serde_yaml::from_str(&text).unwrap(),
        };
        let listed = match format {
            "ignition" => config["storage"]["files"].clone(),
            _ => config["write_files"].clone(),
        };
        let units = usize::from(format == "cloud-init");
        assert_eq!(listed.as_array().unwrap().len(), 3 + units, "{listed}");
    }
}

#[test]
fn another_ca_is_refused() {
    let folder = folder();
    // As the documentation of kubeadm has it.
    let script = "openssl x509 -pubkey -noout -in assets/tls/ca.crt | openssl pkey -pubin -outform der | sha256sum";
    let mut openssl = Command::new("sh");
    openssl.args(["-c", script]).current_dir(folder.path("")).stdin(Stdio::null());
    let hash = folder.ran(&mut openssl).ok();
    let hash = format!("sha256:{}", hash.split_whitespace().next().unwrap());
    assert_eq!(join(&folder, &["--discovery-token-ca-cert-hash", &hash]).code, Some(0));

    std::fs::remove_dir_all(folder.path("out")).unwrap();
    let ran = join(&folder, &["--discovery-token-ca-cert-hash", &hash[..hash.len() - 1]]);
    assert_eq!(ran.code, Some(3), "{ran:?}");
    assert!(ran.stderr.contains(&hash) && ran.stderr.contains("another cluster's"), "{ran:?}");
    assert!(!folder.path("out").exists(), "nothing is written");
}

#[test]
fn what_is_no_token_is_refused_and_not_told_to_standard_output() {
    let folder = folder();
    for args in [
        &["join-assets", "--asset-dir", "assets", "--token", "abcdef", "--output-dir", "out"][..],
        &["token", "create", "abcdef", "--asset-dir", "assets"],
        &["token", "delete", "abc", "--asset-dir", "assets"],
        &["token", "create", "--groups", "system:masters"],
        &["token", "create", "--usages", "all"],
        &["join-assets", "--asset-dir", "assets", "--token", TOKEN, "--output-dir", "out", "--node", "W_1"],
    ] {
        let ran = folder.run(args);
        assert_eq!((ran.code, &*ran.stdout), (Some(2), ""), "{args:?} {ran:?}");
    }
}

#[test]
fn a_cluster_that_is_not_there_is_told_with_what_to_do() {
    let folder = folder();
    let ran = folder.run(&["token", "list"]);
    assert_eq!(ran.code, Some(3), "{ran:?}");
    assert!(ran.stderr.contains("--kubeconfig") && ran.stderr.contains("auth/kubeconfig"), "{ran:?}");
    for args in [&["token", "list"][..], &["token", "create"], &["token", "delete", "abcdef"]] {
        let ran = folder.run(&[args, &["--asset-dir", "assets"]].concat());
        assert_eq!((ran.code, &*ran.stdout), (Some(1), ""), "{ran:?}");
        let said = ["cannot reach the API server at ", "next: check whether it is served"];
        assert!(said.iter().all(|text| ran.stderr.contains(text)), "{ran:?}");
    }
}

/// Nobody in such a cluster signs what a worker would ask for.
#[test]
fn a_cluster_whose_ca_is_elsewhere_has_no_workers_by_token() {
    let folder = folder();
    folder.edit("assets/cluster.yaml", "pki:\n", "pki:\n  ca: {certificate: ca.crt}\n");
    std::fs::copy(folder.path("assets/tls/ca.crt"), folder.path("assets/ca.crt")).unwrap();
    let ran = join(&folder, &[]);
    assert_eq!(ran.code, Some(3), "{ran:?}");
    assert!(ran.stderr.contains("nothing in the cluster can sign"), "{ran:?}");
}
