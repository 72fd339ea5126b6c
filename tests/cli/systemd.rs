//! What systemd makes of the rendered units, and what hoist tells it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::support::{CLUSTER, Folder};

/// Units that every unit depends on.
const STOCK: [&str; 5] = ["basic", "multi-user", "network-online", "shutdown", "sysinit"];

/// What `systemd-analyze verify` says of the units of `folder`'s assets on a host that has the programs they name.
fn verify(folder: &Folder, hoist: &str) -> String {
    let host = tempfile::tempdir().unwrap();
    let put = |path: &str, content: &[u8], mode: u32| {
        let path = host.path().join(path.trim_start_matches('/'));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    };
    for name in STOCK {
        put(&format!("/usr/lib/systemd/system/{name}.target"), b"[Unit]\n", 0o644);
    }
    for program in [hoist, "/usr/bin/kubelet"] {
        put(program, b"#!/bin/sh\n", 0o755);
    }
    for unit in ["systemd/hoist.service", "kubelet/kubelet.service"] {
        let name = Path::new(unit).file_name().unwrap().to_str().unwrap();
        put(&format!("/etc/systemd/system/{name}"), folder.read(&format!("assets/{unit}")).as_bytes(), 0o644);
    }
    let mut command = Command::new("systemd-analyze");
    command.args(["verify", "--man=no", "hoist.service", "kubelet.service"]).arg("--root").arg(host.path());
    let output = command.output().unwrap_or_else(|error| panic!("systemd-analyze (Debian's package systemd): {error}"));
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success() || !said.is_empty(), "{:?}", output.status);
    said
}

#[test]
fn the_rendered_units_are_valid() {
    let folder = Folder::rendered(CLUSTER);
    assert_eq!(verify(&folder, "/usr/local/bin/hoist"), "");
    let elsewhere = format!("{CLUSTER}hoist: {{binary: /opt/bin/hoist-1.0+x, assetDir: /srv/a_b/assets}}\n");
    let folder = Folder::rendered(&elsewhere);
    assert_eq!(verify(&folder, "/opt/bin/hoist-1.0+x"), "");
    let unit = folder.read("assets/systemd/hoist.service");
    assert!(unit.contains("\nExecStart=/opt/bin/hoist-1.0+x start --asset-dir /srv/a_b/assets\n"), "{unit}");
    assert!(unit.contains("\nConditionPathExists=/srv/a_b/assets/cluster.yaml\n"), "{unit}");
    // It would say so if they were not.
    folder.edit("assets/systemd/hoist.service", "RestartSec=", "RestartSeconds=");
    let said = verify(&folder, "/opt/bin/hoist");
    assert!(said.contains("Unknown key") && said.contains("is not executable"), "{said}");
}

#[test]
fn systemd_is_told_how_a_run_ends() {
    let folder = Folder::rendered(CLUSTER);
    let socket = UnixDatagram::bind(folder.path("notify")).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    // Another controller's name: it is refused before anything of this machine is looked at.
    let args = ["start", "--asset-dir", "assets", "--node-name", "none"];
    let ran = folder.ran(folder.command(&args).env("NOTIFY_SOCKET", folder.path("notify")));
    assert_eq!(ran.code, Some(4), "{ran:?}");
    let mut told = vec![0; 4096];
    let length = socket.recv(&mut told).unwrap();
    let told = String::from_utf8_lossy(&told[..length]);
    assert!(told.starts_with("STATUS=failed after 0."), "{told}");
    assert!(
        told.trim_end()
            .ends_with(": --node-name: no controller of cluster.yaml is called none; there are c1 (198.51.100.10)"),
        "{told}"
    );
}
