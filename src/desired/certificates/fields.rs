//! Where an object keeps files: a kubeconfig, a Secret, a ConfigMap, whatever has a `caBundle`.

use serde_json::Value;

use crate::base::input;
use crate::base::yaml::{child, item};

/// The files that `object` holds, each with its path in it. What is no base64 where base64 must be is no file.
pub fn fields(object: &Value) -> Vec<(String, Vec<u8>)> {
    let mut found = Vec::new();
    let encoded = |value: &Value| value.as_str().and_then(input::base64);
    let plain = |value: &Value| value.as_str().map(|text| text.as_bytes().to_vec());
    for (list, field, part) in
        [("users", "user", "client-certificate-data"), ("clusters", "cluster", "certificate-authority-data")]
    {
        for (i, entry) in object[list].as_array().into_iter().flatten().enumerate() {
            let path = child(&child(&item(list, i), field), part);
            found.extend(encoded(&entry[field][part]).map(|content| (path, content)));
        }
    }
    let mut of_map = |name: &str, read: &dyn Fn(&Value) -> Option<Vec<u8>>| {
        for (key, value) in object[name].as_object().into_iter().flatten() {
            found.extend(read(value).map(|content| (child(name, key), content)));
        }
    };
    match object["kind"].as_str() {
        Some("Secret") => {
            of_map("data", &encoded);
            of_map("stringData", &plain);
        }
        Some("ConfigMap") => {
            of_map("data", &plain);
            of_map("binaryData", &encoded);
        }
        _ => bundles(object, "", &mut found),
    }
    found
}

/// Every `caBundle`, however deep.
fn bundles(value: &Value, path: &str, found: &mut Vec<(String, Vec<u8>)>) {
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                let path = if path.is_empty() { key.clone() } else { child(path, key) };
                match value.as_str().filter(|_| key == "caBundle").and_then(input::base64) {
                    Some(content) => found.push((path, content)),
                    None => bundles(value, &path, found),
                }
            }
        }
        Value::Array(items) => {
            items.iter().enumerate().for_each(|(i, value)| bundles(value, &item(path, i), found));
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn each_kind_of_object_has_files_where_it_keeps_them() {
        // "x" in base64.
        for (object, expected) in [
            (
                json!({"kind": "Secret", "data": {"a": "eA==", "b": "%"}, "stringData": {"c": "x"}}),
                vec!["data.a", "stringData.c"],
            ),
            (
                json!({"kind": "ConfigMap", "data": {"a": "x"}, "binaryData": {"b": "eA=="}}),
                vec!["data.a", "binaryData.b"],
            ),
            (
                json!({"kind": "ValidatingWebhookConfiguration", "webhooks": [{}, {"clientConfig": {"caBundle": "eA=="}}]}),
                vec!["webhooks[1].clientConfig.caBundle"],
            ),
            (
                json!({"kind": "APIService", "spec": {"caBundle": "eA==", "insecureSkipTLSVerify": false}}),
                vec!["spec.caBundle"],
            ),
            (
                json!({"kind": "Config", "users": [{"user": {"client-certificate-data": "eA=="}}],
                    "clusters": [{"cluster": {"certificate-authority-data": "eA=="}}]}),
                vec!["users[0].user.client-certificate-data", "clusters[0].cluster.certificate-authority-data"],
            ),
            (json!({"kind": "Pod", "data": {"a": "eA=="}}), vec![]),
        ] {
            let found = fields(&object);
            assert!(found.iter().all(|(_, content)| content == b"x"), "{object}");
            assert_eq!(found.into_iter().map(|(path, _)| path).collect::<Vec<_>>(), expected, "{object}");
        }
    }
}
