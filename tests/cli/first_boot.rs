//! `hoist render --first-boot`: what stands in the files. Whom they are for reads them in tests/e2e/first_boot.rs.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use crate::support::{CLUSTER, Folder};

const SECOND: &str = "- name: c2\n  address: 198.51.100.11\n";

fn render(folder: &Folder, format: &str) -> String {
    let option = format!("--first-boot={format}");
    folder.run(&["render", "--config", "cluster.yaml", "--asset-dir", "assets", &option]).ok()
}

/// Every file that `name` needs of the asset directory, by its path on a controller.
fn expected(folder: &Folder, name: &str, dir: &str) -> BTreeMap<String, Vec<u8>> {
    let root = folder.path("assets");
    let needed = |path: &str| {
        let hidden = path.rsplit('/').next().unwrap().starts_with('.') || path.starts_with("first-boot/");
        let others = ["tls/etcd/c", "tls/kubelet/c"].iter().any(|folder| {
            path.strip_prefix(folder).is_some_and(|rest| !rest.starts_with(&name[1..]) && rest.contains('/'))
        });
        !hidden && !others
    };
    let files = folder.tree().into_iter().filter(|(path, _)| path.is_file()).filter_map(|(path, (.., content))| {
        let path = path.strip_prefix(&root).ok()?.to_str()?.to_owned();
        needed(&path).then(|| (format!("{dir}/{path}"), content))
    });
    files.collect()
}

fn cloud_init(text: &str) -> (Value, BTreeMap<String, Vec<u8>>) {
    assert!(text.starts_with("#cloud-config\n"), "{text}");
    let config: Value = serde_yaml::from_str(text).unwrap();
    let content = |entry: &Value| match entry["encoding"].as_str() {
        Some("b64") => STANDARD.decode(entry["content"].as_str().unwrap()).unwrap(),
        _ => entry["content"].as_str().unwrap().as_bytes().to_vec(),
    };
    let mut files = BTreeMap::new();
    for entry in config["write_files"].as_array().unwrap() {
        let path = entry["path"].as_str().unwrap().to_owned();
        let mode = if path.starts_with("/etc/systemd/") { "0644" } else { "0600" };
        assert_eq!(entry["permissions"], mode, "{path}");
        assert!(files.insert(path, content(entry)).is_none(), "{entry}");
    }
    (config, files)
}

fn ignition(text: &str) -> (Value, BTreeMap<String, Vec<u8>>) {
    let config: Value = serde_json::from_str(text).unwrap();
    let entries = |part: &str| config["storage"][part].as_array().unwrap().clone();
    let mut folders: Vec<_> = entries("directories");
    folders.retain(|folder| folder["mode"] == 0o700);
    let mut files = BTreeMap::new();
    for entry in entries("files") {
        let path = entry["path"].as_str().unwrap().to_owned();
        assert_eq!((&entry["mode"], &entry["overwrite"]), (&0o600.into(), &true.into()), "{path}");
        let parent = path.rsplit_once('/').unwrap().0;
        assert!(folders.iter().any(|folder| folder["path"] == parent), "{parent} is for root alone");
        let source = entry["contents"]["source"].as_str().unwrap().strip_prefix("data:;base64,").unwrap();
        files.insert(path, STANDARD.decode(source).unwrap());
    }
    (config, files)
}

#[test]
fn each_controller_gets_what_it_needs_and_the_users_edits() {
    let folder = Folder::rendered(&format!("{CLUSTER}{SECOND}"));
    folder.put("assets/manifests/mine.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: ünï}\n");
    folder.put("assets/manifests/mine/binary", [0xff, 0x00, b'\n']);
    folder.edit("assets/systemd/hoist.service", "RestartSec=15", "RestartSec=60");
    for (format, end) in [("cloud-init", "cloud-init.yaml"), ("ignition", "ign")] {
        let said = render(&folder, format);
        assert!(said.contains(&format!("wrote first-boot/c2.{end}: ")) && said.contains("with keys in it"), "{said}");
        assert!(said.contains("kept your own systemd/hoist.service"), "{said}");
        for name in ["c1", "c2"] {
            let file = format!("assets/first-boot/{name}.{end}");
            assert_eq!(fs::metadata(folder.path(&file)).unwrap().permissions().mode() & 0o777, 0o600);
            let text = folder.read(&file);
            let (config, mut files) = if format == "ignition" { ignition(&text) } else { cloud_init(&text) };
            let unit = match files.remove("/etc/systemd/system/hoist.service") {
                Some(unit) => String::from_utf8(unit).unwrap(),
                None => config["systemd"]["units"][0]["contents"].as_str().unwrap().to_owned(),
            };
            assert_eq!(unit, folder.read("assets/systemd/hoist.service"));
            let expected = expected(&folder, name, "/etc/hoist/assets");
            assert!(expected.contains_key(&format!("/etc/hoist/assets/tls/etcd/{name}/server.key")));
            assert_eq!(files.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>());
            assert!(files == expected, "{file}");
        }
    }
    assert_eq!(fs::metadata(folder.path("assets/first-boot")).unwrap().permissions().mode() & 0o777, 0o700);
    // Again, it is the same; without the option, it stays and is said.
    folder
        .unchanged(|| {
            folder.run(&["render", "--config", "cluster.yaml", "--asset-dir", "assets", "--first-boot=ignition"])
        })
        .ok();
    let said = folder.unchanged(|| folder.render()).ok();
    assert!(said.contains("left first-boot/ as it was: --first-boot writes it anew\n"), "{said}");
}

#[test]
fn the_unit_is_enabled_and_starts() {
    let folder = Folder::rendered(&format!("{CLUSTER}hoist: {{assetDir: /srv/assets}}\n"));
    render(&folder, "cloud-init");
    let (config, files) = cloud_init(&folder.read("assets/first-boot/c1.cloud-init.yaml"));
    assert_eq!(config["bootcmd"].to_string(), r#"[["install","-d","-m","0700","/srv/assets"]]"#);
    assert_eq!(
        config["runcmd"].to_string(),
        r#"[["systemctl","daemon-reload"],["systemctl","enable","hoist.service"],["systemctl","start","--no-block","hoist.service"]]"#
    );
    assert!(files.contains_key("/srv/assets/cluster.yaml"));
    render(&folder, "ignition");
    let (config, files) = ignition(&folder.read("assets/first-boot/c1.ign"));
    assert_eq!(config["ignition"]["version"], "3.0.0");
    let unit = &config["systemd"]["units"][0];
    assert_eq!((&unit["name"], &unit["enabled"]), (&"hoist.service".into(), &true.into()));
    assert!(files.contains_key("/srv/assets/cluster.yaml"));
}

#[test]
fn an_asset_directory_without_the_unit() {
    let folder = Folder::rendered(CLUSTER);
    fs::remove_file(folder.path("assets/systemd/hoist.service")).unwrap();
    // Rendering brings it back, as all that is not a manifest.
    let said = render(&folder, "ignition");
    assert!(said.ends_with("assets: 82 files, 1 of them written\n"), "{said}");
    let ran = folder.run(&["render", "--config", "cluster.yaml", "--asset-dir", "assets", "--first-boot=kickstart"]);
    ran.failed_saying(2, &["invalid value 'kickstart'", "cloud-init, ignition"]);
}
