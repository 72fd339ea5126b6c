//! Lists as kubectl reads them: each item is a manifest. A `List` holds objects of any kind. A `ConfigMapList` and
//! the like set the kind of items that have none.

use serde_json::Value;

use crate::base::yaml::Document;

/// `document`, or the items of the list that it is, those of lists among them too, in their order.
pub(super) fn flatten(document: Document) -> Vec<Document> {
    if !is_list(&document.value) {
        return vec![document];
    }
    let text = |field: &str| document.value.get(field).and_then(Value::as_str).unwrap_or_default().to_owned();
    let (version, kind) = (text("apiVersion"), text("kind"));
    let kind = kind.strip_suffix("List").unwrap_or_default();
    let mut flat = Vec::new();
    for mut item in document.split("items") {
        if let Some(object) = item.value.as_object_mut()
            && !kind.is_empty()
            && !["apiVersion", "kind"].iter().any(|field| object.contains_key(*field))
        {
            object.insert("apiVersion".into(), version.as_str().into());
            object.insert("kind".into(), kind.into());
        }
        flat.extend(flatten(item));
    }
    flat
}

/// An object of a kind that merely ends so has a name, and items that are no objects; a list that has a name is one by
/// what it holds.
fn is_list(value: &Value) -> bool {
    let kind = value.get("kind").and_then(Value::as_str).unwrap_or_default();
    let has_objects = |items: &[Value]| !items.is_empty() && items.iter().all(|item| item.get("metadata").is_some());
    let is_named = value.pointer("/metadata/name").is_some();
    kind.ends_with("List")
        && match value.get("items") {
            Some(Value::Array(items)) => !is_named || kind == "List" || has_objects(items),
            Some(Value::Null) => !is_named || kind == "List",
            _ => false,
        }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::yaml;

    fn flat(text: &str) -> Vec<Document> {
        yaml::documents("t", text).unwrap().into_iter().flat_map(flatten).collect()
    }

    #[test]
    fn items_are_manifests_with_their_places() {
        let text = "apiVersion: rbac.authorization.k8s.io/v1\nkind: RoleList\nitems:\n- metadata: {name: a}\n  rules: []\n- apiVersion: v1\n  kind: List\n  items:\n  - apiVersion: v1\n    kind: Secret\n    metadata:\n      name: b\n      labels: {x.y/z: w}\n- metadata: {name: c}\n---\nkind: ConfigMap\n";
        let found = flat(text);
        let said: Vec<_> = found.iter().map(|d| (d.line, d.value["kind"].as_str().unwrap())).collect();
        assert_eq!(said, [(4, "Role"), (9, "Secret"), (14, "Role"), (16, "ConfigMap")]);
        assert_eq!(found[0].value["apiVersion"], "rbac.authorization.k8s.io/v1");
        let places = |path: &str| found[1].positions.get(path);
        assert_eq!((places(""), places("metadata.name")), (Some((9, 5)), Some((12, 13))));
        assert_eq!(places("metadata.labels[\"x.y/z\"]"), Some((13, 23)));
        assert_eq!(found[1].positions.nearest("metadata.none"), Some((11, 5)));
    }

    #[test]
    fn an_empty_list_is_nothing_and_what_is_no_list_stays() {
        for nothing in ["items: []", "items:"] {
            assert!(flat(&format!("apiVersion: v1\nkind: List\n{nothing}\n")).is_empty(), "{nothing}");
        }
        for one in
            ["kind: AllowList\nmetadata: {name: a}\nitems: [x]\n", "kind: X\nitems: []\n", "kind: List\nitems: {}\n"]
        {
            assert_eq!(flat(one).len(), 1, "{one}");
        }
        for named in
            ["kind: List\nmetadata: {name: a}\nitems: []\n", "kind: RoleList\nmetadata: {name: a}\nitems: []\n"]
        {
            assert_eq!(flat(named).len(), usize::from(named.contains("Role")), "{named}");
        }
        let named = flat("apiVersion: v1\nkind: SecretList\nmetadata: {name: a}\nitems: [{metadata: {name: b}}]\n");
        assert_eq!((named.len(), named[0].value["kind"].as_str()), (1, Some("Secret")));
        let half = flat("apiVersion: v1\nkind: PodList\nitems: [{kind: Pod}, 5]\n");
        assert_eq!(half[0].value, serde_json::json!({"kind": "Pod"}), "kubectl completes no half, either");
        assert_eq!(half[1].value, 5);
    }
}
