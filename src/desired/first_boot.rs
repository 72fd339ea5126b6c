//! User data for cloud-init and configs for Ignition, which make a fresh machine a controller at its first boot. Each
//! puts the asset directory and hoist's unit on the disk and enables the unit. Pure: nothing is written here.
//! `join.rs` does the same for workers.
//!
//! They do not hold the binary, which is some hundred times larger than user data may be. The binary is in the image,
//! or another part of the user's configuration fetches it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::base::error::Result;
use crate::base::files::File;
use crate::base::yaml;
use crate::desired::assets::{AssetSet, CLUSTER_ID};
use crate::desired::config::{Cluster, Controller};

/// Where the files stand, below the asset directory.
pub const FOLDER: &str = "first-boot";

const UNIT: &str = "systemd/hoist.service";
/// Where systemd has an admin's units.
const UNITS: &str = "/etc/systemd/system";

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
        let (name, dir) = (&controller.name, &cluster.hoist.asset_dir);
        let own = assets.files.iter().filter(|(path, _)| is_for(path, controller));
        let machine = Machine {
            title: format!(
                "Makes a machine the controller {name}. It holds the cluster's keys. Written by hoist render."
            ),
            private: Some(dir),
            files: own.map(|(path, file)| (format!("{dir}/{path}"), 0o600, &*file.content)).collect(),
            unit: ("hoist.service", &unit),
            verb: "start",
        };
        (format!("{FOLDER}/{}", format.file_name(name)), File::private(machine.text(format)))
    };
    Ok(cluster.controllers.iter().map(file).collect())
}

/// Whether a controller needs this file: not other controllers' keys. By those of the CAs its guard renews certificates.
fn is_for(path: &str, controller: &Controller) -> bool {
    let below = ["tls/etcd/", "tls/kubelet/"].iter().find_map(|folder| path.strip_prefix(folder));
    let is_own = below.and_then(|below| below.split_once('/')).is_none_or(|(name, _)| name == controller.name);
    // A fresh machine begins a cluster of its own.
    is_own && path != CLUSTER_ID
}

impl Format {
    /// The name of the file that makes a machine `name`.
    pub fn file_name(self, name: &str) -> String {
        match self {
            Self::CloudInit => format!("{name}.cloud-init.yaml"),
            Self::Ignition => format!("{name}.ign"),
        }
    }
}

/// What a fresh machine shall have after its first boot.
pub struct Machine<'a> {
    /// What it makes of the machine, as a comment where there may be one.
    pub title: String,
    /// A folder that only root may enter, with those in it.
    pub private: Option<&'a str>,
    /// Absolute path, mode and content of each file.
    pub files: Vec<(String, u32, &'a [u8])>,
    /// Name and text of systemd's unit that is enabled.
    pub unit: (&'a str, &'a str),
    /// What systemctl does with the unit at once: `start` or `restart`.
    pub verb: &'a str,
}

impl Machine<'_> {
    /// It as its reader wants it.
    pub fn text(&self, format: Format) -> String {
        match format {
            Format::CloudInit => self.cloud_init(),
            Format::Ignition => self.ignition(),
        }
    }

    fn cloud_init(&self) -> String {
        let entry = |(path, mode, content): &(String, u32, &[u8])| {
            let permissions = format!("{mode:04o}");
            match std::str::from_utf8(content) {
                Ok(text) => json!({"path": path, "permissions": permissions, "content": text}),
                Err(_) => {
                    json!({"path": path, "permissions": permissions, "encoding": "b64", "content": STANDARD.encode(content)})
                }
            }
        };
        let (unit, text) = self.unit;
        let mut written: Vec<_> = self.files.iter().map(entry).collect();
        written.push(json!({"path": format!("{UNITS}/{unit}"), "permissions": "0644", "content": text}));
        let mut config = serde_json::Map::new();
        if let Some(dir) = self.private {
            // Before the files are written, and at every boot: it changes nothing then.
            config.insert("bootcmd".into(), json!([["install", "-d", "-m", "0700", dir]]));
        }
        config.insert("write_files".into(), written.into());
        // Not to its end: cloud-init is not to wait for a cluster, nor to end it when it is restarted.
        let commands = json!([
            ["systemctl", "daemon-reload"],
            ["systemctl", "enable", unit],
            ["systemctl", self.verb, "--no-block", unit],
        ]);
        config.insert("runcmd".into(), commands);
        // The first line is what cloud-init knows it by.
        format!("#cloud-config\n# {}\n{}", self.title, yaml::to_string(&Value::Object(config)))
    }

    fn ignition(&self) -> String {
        let private = |path: &&Path| self.private.is_some_and(|dir| path.starts_with(dir));
        let folders = self.files.iter().flat_map(|(path, ..)| Path::new(path).ancestors().skip(1));
        let folders: BTreeSet<_> = folders.filter(private).collect();
        let entry = |(path, mode, content): &(String, u32, &[u8])| {
            json!({
                "path": path,
                "mode": mode,
                "overwrite": true,
                "contents": {"source": format!("data:;base64,{}", STANDARD.encode(content))},
            })
        };
        let (unit, text) = self.unit;
        let config = json!({
            "ignition": {"version": "3.0.0"},
            "storage": {
                "directories": folders.iter().map(|path| json!({"path": path, "mode": 0o700})).collect::<Vec<_>>(),
                "files": self.files.iter().map(entry).collect::<Vec<_>>(),
            },
            "systemd": {"units": [{"name": unit, "enabled": true, "contents": text}]},
        });
        format!("{config:#}\n")
    }
}
