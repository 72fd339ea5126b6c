//! Every rendered document is held against its Kubernetes type, and is read by others as hoist reads it.

use serde_json::{Map, Value, json};

use crate::kubernetes_types;
use crate::support::{all, documents, is_manifest, text};
use hoist::base::yaml;
use hoist::desired::schema::{self, Reader};

/// Maps whose keys are the user's to choose.
const FREE: [&str; 6] = ["data", "labels", "matchLabels", "nodeSelector", "requests", "limits"];

/// The document once for each map in it, with a field there that no type has; and where.
fn with_typos(path: &str, value: &Value) -> Vec<(String, Value)> {
    let mut found = Vec::new();
    match value {
        Value::Object(map) => {
            let mut here = map.clone();
            here.insert("hoistTypo".into(), json!({}));
            found.push((yaml::child(path, "hoistTypo"), Value::Object(here)));
            for (key, inner) in map.iter().filter(|(key, _)| !FREE.contains(&key.as_str())) {
                for (at, changed) in with_typos(&yaml::child(path, key), inner) {
                    let mut map: Map<_, _> = map.clone();
                    map.insert(key.clone(), changed);
                    found.push((at, Value::Object(map)));
                }
            }
        }
        Value::Array(list) => {
            for (i, inner) in list.iter().enumerate() {
                for (at, changed) in with_typos(&yaml::item(path, i), inner) {
                    let mut list = list.clone();
                    list[i] = changed;
                    found.push((at, Value::Array(list)));
                }
            }
        }
        _ => {}
    }
    found
}

#[test]
fn every_manifest_fits_its_type_and_a_typo_anywhere_would_not() {
    let mut typos = 0;
    for (cluster, set) in all() {
        for path in set.files.keys().filter(|path| is_manifest(path)) {
            for document in documents(path, &text(&set, path)) {
                let own = |value: &Value| {
                    let found = schema::check(value, Some(cluster.kubernetes_version), Reader::ApiServer);
                    found.into_iter().map(|problem| (problem.path, problem.message)).collect::<Vec<_>>()
                };
                assert_eq!(kubernetes_types::check(&document.value), [], "{path}");
                assert_eq!(own(&document.value), [], "{path}");
                for (at, changed) in with_typos("", &document.value) {
                    // A map of strings has room for the name, and not for what it stands for.
                    for found in [kubernetes_types::check(&changed), own(&changed)] {
                        assert!(found.len() == 1 && found[0].0 == at, "{path}: {found:?}");
                    }
                    typos += 1;
                }
            }
        }
    }
    assert!(typos > 500, "{typos}");
}

#[test]
fn another_reader_of_yaml_reads_the_same() {
    for (cluster, set) in all() {
        for path in set.files.keys().filter(|path| path.ends_with(".yaml") || path.starts_with("auth/")) {
            let text = text(&set, path);
            let ours: Vec<_> = documents(path, &text).into_iter().map(|document| document.value).collect();
            let read = |document: serde_yaml::Deserializer<'_>| -> Value {
                let value: serde_yaml::Value = serde::Deserialize::deserialize(document).unwrap();
                serde_json::to_value(value).unwrap()
            };
            let theirs: Vec<_> = serde_yaml::Deserializer::from_str(&text).map(read).collect();
            assert_eq!(ours, theirs, "{} {path}", cluster.cluster_name);
        }
    }
}
