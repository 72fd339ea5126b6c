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

#[test]
fn what_cannot_be_read_is_named() {
    let folder = Folder::with("apiVersion: hoist/v1alpha1\nkind: Cluster\ncontrollers: []\n");
    let ran = folder.run(&["images", "list", "--config", "cluster.yaml"]);
    ran.failed_saying(3, &["cluster.yaml:3:14: controllers: it is required"]);
}
