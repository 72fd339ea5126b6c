//! What is too large for one object.

use crate::support::{Directory, findings};

fn found(edit: impl FnOnce(&mut Directory)) -> Vec<String> {
    let mut directory = Directory::new();
    edit(&mut directory);
    findings(&directory.set)
}

fn object(kind: &str, more: &str) -> String {
    format!("apiVersion: v1\nkind: {kind}\nmetadata: {{name: a, namespace: kube-system}}\n{more}\n")
}

#[test]
fn objects_are_held_against_the_limits_of_the_api_and_of_etcd() {
    let at = |path: &str, text: String| found(|directory| directory.put(path, text));
    for path in ["manifests/a.yaml", "addons/a.yaml"] {
        for (kind, field, size, said) in [
            ("ConfigMap", "data", 1 << 20, ""),
            ("ConfigMap", "data", (1 << 20) + 1024, "data: the ConfigMap has 1025 KiB, and 1024 KiB are the limit"),
            (
                "Secret",
                "stringData",
                (1 << 20) + 1024,
                "stringData: the Secret has 1025 KiB, and 1024 KiB are the limit",
            ),
            // Base64 of three quarters of that.
            ("Secret", "data", 1 << 20, ""),
            ("Secret", "data", (1 << 21) - 4, "data: the Secret has 1535 KiB, and 1024 KiB are the limit"),
        ] {
            let found = at(path, object(kind, &format!("{field}: {{x: {}}}", "a".repeat(size))));
            let expected = if said.is_empty() { 0 } else { 1 };
            assert_eq!(found.len(), expected, "{path} {kind} {size}: {found:?}");
            assert!(
                found.iter().all(|line| line.contains(&format!("assets/{path}:4")) && line.ends_with(said)),
                "{found:?}"
            );
        }
        let annotated = |size: usize| {
            let text = object("ConfigMap", "");
            at(path, text.replace("name: a,", &format!("name: a, annotations: {{x: {}}},", "a".repeat(size))))
        };
        assert!(annotated(255 << 10).is_empty());
        let many = annotated(256 << 10);
        assert!(many.len() == 1 && many[0].contains("metadata.annotations: have 256 KiB"), "{many:?}");
    }
    let crd = |limit: &str| {
        found(|directory| {
            let text = "apiVersion: example.com/v1\nkind: Widget\nmetadata: {name: a}\nspec: {x: ";
            directory.put("addons/a.yaml", format!("{text}{}}}\n", "a".repeat(1600 << 10)));
            if !limit.is_empty() {
                let text = directory.text("cluster.yaml");
                let at = text.find("etcd:\n  local:\n").unwrap() + "etcd:\n  local:\n".len();
                let args = format!("    extraArgs:\n    - {{name: max-request-bytes, value: \"{limit}\"}}\n");
                directory.put(
                    "cluster.yaml",
                    format!("{}{args}{}", &text[..at], text[at..].replace("    extraArgs: []\n", "")),
                );
            }
        })
    };
    let large = crd("");
    assert!(large.len() == 1 && large[0].contains("the Widget has 1600 KiB, and etcd takes 1536 KiB"), "{large:?}");
    let allowed = crd("4194304");
    assert!(!allowed.iter().any(|line| line.contains("Widget")), "{allowed:?}");
}

#[test]
fn what_finds_no_room_in_guards_copy_is_told() {
    let large = |directory: &mut Directory| {
        for name in ["one", "two"] {
            let maps: Vec<_> = (0..9)
                .map(|i| {
                    object("ConfigMap", &format!("data: {{x: {}}}", "a".repeat(1 << 20)))
                        .replace("name: a", &format!("name: {name}-{i}"))
                })
                .collect();
            directory.put(&format!("manifests/{name}.yaml"), maps.join("---\n"));
        }
    };
    let found = found(large);
    assert_eq!(found, ["assets/manifests/two.yaml: warning: does not fit into guard's copy, which has 16 MiB"]);
}

#[test]
fn the_inventory_of_add_ons_is_one_object() {
    let with = |count: usize| {
        let maps: Vec<_> =
            (0..count).map(|i| object("ConfigMap", "").replace("name: a", &format!("name: a{i:0>200}"))).collect();
        found(|directory| directory.put("addons/a.yaml", maps.join("---\n")))
    };
    assert_eq!(with(4000), [""; 0]);
    assert_eq!(
        with(5000),
        ["assets/addons: the inventory of add-ons, a ConfigMap, would have 1162 KiB, and 1024 KiB are the limit"]
    );
}
