//! Add-ons on the disk, and `hoist apply` as far as it gets without a cluster.

use std::fs;

use crate::support::{CLUSTER, Folder};

const MAP: &str = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a, namespace: default}\ndata: {a: b}\n";
const SECRET: &str = "apiVersion: v1\nkind: Secret\nmetadata: {name: s}\nstringData: {password: hunter2}\n";

/// A folder with add-ons, and a cluster.yaml that names them.
fn with_addons() -> Folder {
    let folder = Folder::with(&format!("{CLUSTER}addons: [mine, single.yaml]\n"));
    folder.put("mine/deep/map.yaml", MAP);
    folder.put("mine/secret.yml", SECRET);
    folder.put("mine/README.md", "no manifest");
    folder.put("single.yaml", MAP.replace("name: a", "name: b"));
    folder
}

fn addons(folder: &Folder) -> Vec<String> {
    let root = folder.path("assets/addons");
    let files =
        folder.tree().into_iter().filter(|(path, entry)| path.starts_with(&root) && entry.0 & 0o170_000 == 0o100_000);
    files
        .map(|(path, entry)| format!("{} {:o}", path.strip_prefix(&root).unwrap().display(), entry.0 & 0o777))
        .collect()
}

#[test]
fn render_copies_what_cluster_yaml_names_and_keeps_what_a_user_does_to_it() {
    let folder = with_addons();
    folder.render().ok();
    assert_eq!(addons(&folder), ["mine/deep/map.yaml 644", "mine/secret.yml 600", "single.yaml 644"]);
    // A user's own file, an edit, a change in the source of other lines, and a file that the user does without.
    folder.put("assets/addons/own.yaml", MAP.replace("name: a", "name: own"));
    folder.edit("assets/addons/mine/deep/map.yaml", "data: {a: b}", "data: {a: edited}");
    folder.edit("mine/deep/map.yaml", "apiVersion: v1", "# From elsewhere.\n\napiVersion: v1");
    fs::remove_file(folder.path("assets/addons/single.yaml")).unwrap();
    let said = folder.render().ok();
    assert!(
        said.contains("merged addons/mine/deep/map.yaml") && said.contains("left out addons/single.yaml"),
        "{said}"
    );
    let merged = folder.read("assets/addons/mine/deep/map.yaml");
    assert!(merged.starts_with("# From elsewhere.") && merged.contains("a: edited"), "{merged}");
    assert_eq!(addons(&folder), ["mine/deep/map.yaml 644", "mine/secret.yml 600", "own.yaml 644"]);

    folder.edit("mine/secret.yml", "hunter2", "hunter3");
    let diff = folder.run(&["render", "--config", "cluster.yaml", "--asset-dir", "assets", "--diff"]);
    assert!(diff.code == Some(2) && diff.stdout.contains("# addons/mine/secret.yml: changes"), "{diff:?}");
    assert!(!diff.stdout.contains("hunter"), "{diff:?}");

    folder.edit("cluster.yaml", "addons: [mine, single.yaml]", "addons: []");
    let said = folder.render().ok();
    assert!(
        said.contains("removed addons/mine/secret.yml") && said.contains("left addons/mine/deep/map.yaml"),
        "{said}"
    );
    assert_eq!(addons(&folder), ["mine/deep/map.yaml 644", "own.yaml 644"]);
}

#[test]
fn what_is_wrong_with_an_add_on_is_said_before_anything_is_written() {
    let folder = with_addons();
    folder.edit("mine/deep/map.yaml", "\ndata:", "\ndta:");
    fs::remove_file(folder.path("single.yaml")).unwrap();
    folder.unchanged(|| folder.render()).failed(
        3,
        "hoist: the input is not valid; nothing was changed\n  \
         DIR/mine/deep/map.yaml:4:1: dta: unknown field `dta`\n    `kubectl explain configmap` names the fields and their types\n  \
         DIR/single.yaml: there is no such file\n    correct the path\n",
    );
}

#[test]
fn what_is_wrong_in_addons_stops_start_and_apply() {
    let folder = with_addons();
    folder.render().ok();
    folder.put("assets/addons/bad/rank.yaml", MAP.replace("{name: a,", "{name: c, annotations: {hoist/rank: late},"));
    let said = "addons/bad/rank.yaml:1:1: hoist/rank: \"late\" is not a rank\n    write a number in quotes";
    folder.start(&[]).failed_saying(3, &[said]);
    folder.as_nobody(&["apply", "--asset-dir", "assets"]).failed_saying(3, &[said]);
    folder.put("assets/addons/bad/rank.yaml", MAP);
    let twice = "ConfigMap a is in DIR/assets/addons/bad/rank.yaml:1 already";
    folder.start(&[]).failed_saying(3, &[twice, "DIR/assets/addons/mine/deep/map.yaml:1:1"]);
}

#[test]
fn apply_without_a_cluster() {
    let folder = with_addons();
    folder.run(&["apply", "--asset-dir", "assets"]).failed_saying(3, &["DIR/assets: there is no such folder"]);
    folder.edit("cluster.yaml", "addons:", "controlPlaneEndpoint: 127.0.0.1:1\naddons:");
    folder.render().ok();
    let reach = ["cannot reach the API server at ", "next: check whether it is served (`hoist status`"];
    for more in [&[][..], &["--prune"], &["--addons-only", "--force-conflicts"], &["--dry-run"], &["--diff"]] {
        let args = [&["apply", "--asset-dir", "assets"], more].concat();
        folder.unchanged(|| folder.run(&args)).failed_saying(1, &reach);
    }
    folder.run(&["apply", "--asset-dir", "assets", "--dry-run=client"]).failed_saying(2, &["server"]);
    folder
        .run(&["apply", "--asset-dir", "assets", "--kubeconfig", "none"])
        .failed_saying(3, &["none: there is no such file"]);
}

/// docs/examples/ingress as docs/ingress.md has it named: nothing is wrong with it, and keepalived's file stays where it is.
#[test]
fn the_example_of_an_ingress_is_an_addon() {
    let folder = Folder::with(&format!("{CLUSTER}addons: [ingress]\nendpoint: {{nodeLocal: true}}\n"));
    let example = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/examples/ingress");
    for entry in fs::read_dir(example).unwrap() {
        let path = entry.unwrap().path();
        folder.put(&format!("ingress/{}", path.file_name().unwrap().to_str().unwrap()), fs::read(&path).unwrap());
    }
    folder.render().ok();
    assert_eq!(addons(&folder), ["ingress/namespace.yaml 644", "ingress/rbac.yaml 644", "ingress/traefik.yaml 644"]);
    folder.run(&["validate", "--asset-dir", "assets"]).ok();
}

#[test]
fn every_command_of_the_page_about_an_ingress_is_run_by_a_test() {
    let page = include_str!("../../docs/ingress.md");
    let test = include_str!("../e2e/ingress.rs");
    let outside = page.split("```").step_by(2).flat_map(str::lines);
    let commands: Vec<_> = outside.filter(|line| line.starts_with("    ")).map(str::trim_start).collect();
    assert!(commands.len() > 15, "{commands:?}");
    let missing: Vec<_> = commands.iter().filter(|command| !test.contains(&format!("{command:?}"))).collect();
    assert!(missing.is_empty(), "no test runs {missing:?}");
}
