//! `hoist images list`

use serde_json::Value;

use crate::support::{CLUSTER, Folder};

#[test]
fn images_are_listed_one_a_line_and_for_programs() {
    let folder = Folder::with(&format!("{CLUSTER}imageRepository: registry.example.com/k8s\n"));
    let text = folder.run(&["images", "list", "--config", "cluster.yaml"]).ok();
    let lines: Vec<_> = text.lines().collect();
    assert!(lines.contains(&"registry.example.com/k8s/flannel:v0.28.10"), "{text}");
    assert!(lines.contains(&"registry.example.com/k8s/kube-proxy:v1.37.2"), "{text}");

    let json = folder.run(&["images", "list", "--config", "cluster.yaml", "--output", "json"]).ok();
    let object: Value = serde_json::from_str(&json).unwrap();
    assert_eq!((&object["schema"], &object["images"]), (&"hoist.images/v1".into(), &lines.into()));

    // Without a cluster, those of the default one.
    let default = folder.run(&["images", "list"]).ok();
    assert!(default.contains("ghcr.io/flannel-io/flannel:v0.28.10\n"), "{default}");
    assert!(default.contains("registry.k8s.io/kube-apiserver:v1.37.2\n"), "{default}");
}

/// Everything that a rendered cluster runs is in the list, and nothing else.
#[test]
fn the_list_is_what_is_rendered() {
    for more in ["", "network: {plugin: none}\nkubeProxy: {mode: none}\n"] {
        let folder = Folder::rendered(&format!("{CLUSTER}{more}"));
        let mut rendered: Vec<String> = Vec::new();
        for path in folder.tree().into_keys().filter(|path| path.extension().is_some_and(|end| end == "yaml")) {
            let path = path.to_string_lossy().into_owned();
            if path.contains("manifests/") {
                let text = folder.read(&path);
                let images =
                    text.lines().filter_map(|line| line.trim_start_matches([' ', '-']).strip_prefix("image: "));
                rendered.extend(images.map(|image| image.trim_matches('"').to_owned()));
            }
        }
        rendered.sort();
        rendered.dedup();
        let list = folder.run(&["images", "list", "--config", "assets/cluster.yaml"]).ok();
        assert_eq!(list.lines().collect::<Vec<_>>(), rendered);
    }
}

/// The default stays as it was; `images.hoist` is listed where it is set, and is what guard and the forwarder run.
#[test]
fn hoists_own_image_is_listed_where_it_is_set() {
    const IMAGE: &str = "localhost/hoist:0.1.0";
    let list = ["images", "list", "--config", "cluster.yaml"];
    let without = Folder::with(CLUSTER).run(&list).ok();
    assert!(!without.contains("hoist"), "{without}");
    let folder = Folder::rendered(&format!("{CLUSTER}images: {{hoist: '{IMAGE}'}}\n"));
    let with = folder.run(&list).ok();
    let more: Vec<_> = with.lines().filter(|image| !without.lines().any(|there| there == *image)).collect();
    assert_eq!(more, [IMAGE]);
    for file in [
        "bootstrap-manifests/hoist-guard",
        "bootstrap-manifests/bridge-kube-apiserver",
        "manifests/hoist-guard/daemonset",
    ] {
        let text = folder.read(&format!("assets/{file}.yaml"));
        assert!(text.contains(&format!("image: \"{IMAGE}\"")) && !text.contains("/var/lib/hoist/bin"), "{text}");
    }
    assert!(folder.read("assets/cluster.yaml").contains(&format!("hoist: {IMAGE}")));
}

#[test]
fn hoists_own_image_is_saved_to_a_file_or_to_standard_output() {
    let folder = Folder::with(CLUSTER);
    let said = folder.run(&["image", "save", "hoist.tar"]).ok();
    let name = concat!("localhost/hoist:", env!("CARGO_PKG_VERSION"));
    assert_eq!(said, format!("hoist.tar has the image {name}\n"));
    folder.run(&["images", "save", "again.tar", "--name", name]).ok();
    let read = |file: &str| std::fs::read(folder.path(file)).unwrap();
    let saved = read("hoist.tar");
    assert!(saved == read("again.tar"), "the same bytes");
    let output = folder.command(&["image", "save", "-"]).output().unwrap();
    assert!(output.stdout == saved, "{} bytes, {} in the file", output.stdout.len(), saved.len());
    folder.run(&["image", "save", "other.tar", "--name", "registry.example.com/hoist:1"]).ok();
    assert!(saved != read("other.tar"));

    let ran = folder.run(&["image", "save", "none.tar", "--name", "hoist"]);
    ran.failed_saying(2, &["--name", "has neither a tag nor a digest", "write it like localhost/hoist:1.0"]);
    folder.run(&["image", "save", "no/such/folder.tar"]).failed_saying(1, &["no/such"]);
    assert!(!folder.path("none.tar").exists());
}

#[test]
fn what_cannot_be_read_is_named() {
    let folder = Folder::with("apiVersion: hoist/v1alpha1\nkind: Cluster\ncontrollers: []\n");
    let ran = folder.run(&["images", "list", "--config", "cluster.yaml"]);
    ran.failed_saying(3, &["cluster.yaml:3:14: controllers: it is required"]);
}
