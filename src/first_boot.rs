//! What makes a fresh machine a controller at its first boot: user data for cloud-init, or a config for Ignition. Each
//! puts the asset directory and hoist's unit on the disk and enables the unit. Pure: nothing is written here.
//!
//! The binary is not in them: it is some hundred times what user data may be. It is in the image, or another part of
//! the user's own configuration fetches it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::assets::AssetSet;
use crate::config::{Cluster, Controller};
use crate::error::Result;
use crate::files::File;
use crate::yaml;

/// Where the files stand, below the asset directory.
pub const FOLDER: &str = "first-boot";

const UNIT: &str = "systemd/hoist.service";
const UNIT_PATH: &str = "/etc/systemd/system/hoist.service";

/// Who reads it at the first boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// User data of cloud-init: NAME.cloud-init.yaml for each controller
    CloudInit,
    /// A config of Ignition, version 3: NAME.ign for each controller
    Ignition,
}

/// One file for each controller of `cluster`, by its path below the asset directory; private, for it holds keys.
/// `assets` is the asset directory as it stands on the disk, with what its user has edited and added.
///
/// # Errors
/// An asset directory that lacks the unit.
pub fn files(format: Format, assets: &AssetSet, cluster: &Cluster) -> Result<BTreeMap<String, File>> {
    let unit = assets.text(UNIT)?;
    let file = |controller: &Controller| {
        let own: BTreeMap<_, _> = assets.files.iter().filter(|(path, _)| is_for(path, controller)).collect();
        let (name, dir) = (&controller.name, &cluster.hoist.asset_dir);
        let (end, text) = match format {
            Format::CloudInit => ("cloud-init.yaml", cloud_init(name, dir, &own, &unit)),
            Format::Ignition => ("ign", ignition(dir, &own, &unit)),
        };
        (format!("{FOLDER}/{name}.{end}"), File::private(text))
    };
    Ok(cluster.controllers.iter().map(file).collect())
}

/// Whether a controller needs this file: not other controllers' keys, nor those of CAs that sign nothing there.
fn is_for(path: &str, controller: &Controller) -> bool {
    let below = ["tls/etcd/", "tls/kubelet/"].iter().find_map(|folder| path.strip_prefix(folder));
    let is_own = below.and_then(|below| below.split_once('/')).is_none_or(|(name, _)| name == controller.name);
    is_own && !["tls/etcd/ca.key", "tls/front-proxy-ca.key"].contains(&path)
}

fn cloud_init(name: &str, dir: &str, own: &BTreeMap<&String, &File>, unit: &str) -> String {
    let entry = |(path, file): (&&String, &&File)| {
        let path = format!("{dir}/{path}");
        match std::str::from_utf8(&file.content) {
            Ok(text) => json!({"path": path, "permissions": "0600", "content": text}),
            Err(_) => {
                json!({"path": path, "permissions": "0600", "encoding": "b64", "content": STANDARD.encode(&file.content)})
            }
        }
    };
    let mut written: Vec<_> = own.iter().map(entry).collect();
    written.push(json!({"path": UNIT_PATH, "permissions": "0644", "content": unit}));
    let config = json!({
        // Before the files are written, and at every boot: it changes nothing then.
        "bootcmd": [["install", "-d", "-m", "0700", dir]],
        "write_files": written,
        // Not to its end: cloud-init is not to wait for a cluster, nor to end it when it is restarted.
        "runcmd": [
            ["systemctl", "daemon-reload"],
            ["systemctl", "enable", "hoist.service"],
            ["systemctl", "start", "--no-block", "hoist.service"],
        ],
    });
    // The first line is what cloud-init knows it by.
    format!(
        "#cloud-config\n# Makes a machine the controller {name}. It holds the cluster's keys. Written by hoist render.\n{}",
        yaml::to_string(&config)
    )
}

fn ignition(dir: &str, own: &BTreeMap<&String, &File>, unit: &str) -> String {
    let folders: BTreeSet<_> = own.keys().flat_map(|path| Path::new(path).ancestors().skip(1)).collect();
    let folder = |path: &&Path| {
        let path = Path::new(dir).join(path);
        json!({"path": path.to_string_lossy().trim_end_matches('/'), "mode": 0o700})
    };
    let entry = |(path, file): (&&String, &&File)| {
        json!({
            "path": format!("{dir}/{path}"),
            "mode": 0o600,
            "overwrite": true,
            "contents": {"source": format!("data:;base64,{}", STANDARD.encode(&file.content))},
        })
    };
    let config: Value = json!({
        "ignition": {"version": "3.0.0"},
        "storage": {
            "directories": folders.iter().map(folder).collect::<Vec<_>>(),
            "files": own.iter().map(entry).collect::<Vec<_>>(),
        },
        "systemd": {"units": [{"name": "hoist.service", "enabled": true, "contents": unit}]},
    });
    format!("{config:#}\n")
}
