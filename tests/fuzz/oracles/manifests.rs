//! Manifests: what is read is what another reader reads and what is read back once written; then it is held against its
//! Kubernetes type.

use std::path::Path;

use hoist::base::files::File;
use hoist::base::yaml;
use hoist::desired::assets::AssetSet;
use serde::Deserialize;
use serde_json::Value;

/// Panics where hoist is wrong about `data`.
pub fn check(data: &[u8]) {
    let mut set = AssetSet::default();
    set.files.insert("manifests/m.yaml".into(), File::public(data));
    let _ = set.manifests(Path::new("/assets"));
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(documents) = yaml::documents("m.yaml", text) else { return };
    for document in &documents {
        let written = yaml::to_string(&document.value);
        let again = yaml::documents("m.yaml", &written).unwrap_or_else(|e| panic!("{e:?}\n{written}"));
        assert_eq!(again.len(), 1, "{written}");
        assert_eq!(again[0].value, document.value, "{written}");
    }
}

/// The same, and panics where serde_yaml reads `data` in another way. Each reader has corners of its own that no manifest
/// comes near, and a fuzzer finds those within seconds: so this is for the corpus.
#[allow(dead_code)]
pub fn check_with_others(data: &[u8]) {
    check(data);
    let Ok(text) = std::str::from_utf8(data) else { return };
    // How blanks behind the last line count in a block is such a corner.
    let text = format!("{}\n", text.trim_end());
    if let Ok(documents) = yaml::documents("m.yaml", &text) {
        others(&text, &documents);
    }
}

/// Holds the documents against what serde_yaml makes of them, where it reads them at all.
#[allow(dead_code)]
fn others(text: &str, documents: &[yaml::Document]) {
    // What may be in the name of an anchor or a tag is another matter to each reader, and no manifest's.
    if text.contains(['&', '*', '!']) {
        return;
    }
    let theirs: Result<Vec<serde_yaml::Value>, _> =
        serde_yaml::Deserializer::from_str(text).map(serde_yaml::Value::deserialize).collect();
    let Ok(mut theirs) = theirs else { return };
    theirs.retain(|value| !value.is_null());
    // An empty document is null to one and nothing to the other; `~` and tags make nulls of their own.
    if theirs.len() != documents.len() {
        let nulls = documents.len() < theirs.len() && theirs.iter().any(|v| !v.is_mapping() && !v.is_sequence());
        assert!(
            nulls || documents.iter().any(|d| !d.value.is_object() && !d.value.is_array()),
            "{documents:?} {theirs:?}"
        );
        return;
    }
    for (document, theirs) in documents.iter().zip(&theirs) {
        assert!(agree(&document.value, theirs), "{:?}\n{theirs:?}", document.value);
    }
}

/// The same shape and the same strings. Which plain scalars are numbers or booleans is where YAML 1.1 and 1.2 differ.
#[allow(dead_code)]
fn agree(ours: &Value, theirs: &serde_yaml::Value) -> bool {
    match (ours, theirs) {
        (Value::Object(a), serde_yaml::Value::Mapping(b)) => {
            a.len() == b.len()
                && b.iter().zip(a).all(|((their_key, their_value), (key, value))| {
                    their_key.as_str().is_none_or(|k| k == key || !is_text(key)) && agree(value, their_value)
                })
        }
        (Value::Array(a), serde_yaml::Value::Sequence(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| agree(a, b))
        }
        (Value::String(a), serde_yaml::Value::String(b)) => a == b,
        (_, serde_yaml::Value::Tagged(tagged)) => agree(ours, &tagged.value),
        (Value::Object(_) | Value::Array(_), _) => false,
        (_, serde_yaml::Value::Mapping(_) | serde_yaml::Value::Sequence(_)) => false,
        _ => true,
    }
}

/// Whether a key was a string to begin with, and no `on` or `0x1`.
fn is_text(key: &str) -> bool {
    key != "true" && key != "false" && key.parse::<f64>().is_err()
}
