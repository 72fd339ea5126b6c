//! The configuration files of kube-apiserver: the audit policy, the paths for requests without credentials, the
//! defaults of admission. They are in a ConfigMap of the asset directory, which the self-hosted API server mounts.
//! The bridge mounts the same files from the controller's disk, so an edit reaches both.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::base::error::{Error, Result};
use crate::base::yaml;
use crate::desired::assets::AssetSet;
use crate::desired::secrets::SecretFiles;

/// The ConfigMap's file in the asset directory.
pub const PATH: &str = "manifests/kube-apiserver/config.yaml";
/// The ConfigMap, and the folder of the bridge with the same files.
pub const NAME: &str = "kube-apiserver-config";
/// Where both API servers write their audit logs on a controller.
pub const AUDIT_LOGS: &str = "/var/log/kubernetes/audit";

/// The files, by name; none in the asset directory of an older hoist, whose API servers are not told to read any.
///
/// # Errors
/// A file that is not YAML.
pub fn files(assets: &AssetSet) -> Result<SecretFiles> {
    if !assets.files.contains_key(PATH) {
        return Ok(SecretFiles::new());
    }
    let documents = yaml::documents(PATH, &assets.text(PATH)?).map_err(Error::Input)?;
    let is_it = |value: &&Value| value["kind"] == "ConfigMap" && value["metadata"]["name"] == NAME;
    let found = documents.iter().map(|document| &document.value).find(is_it);
    let data = found.and_then(|value| value["data"].as_object()).into_iter().flatten();
    let file = |(name, text): (&String, &Value)| Some((name.clone(), text.as_str()?.as_bytes().to_vec()));
    Ok(data.filter_map(file).collect::<BTreeMap<_, _>>())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::files::File;

    fn names(text: Option<&str>) -> Vec<String> {
        let mut assets = AssetSet::default();
        assets.files.extend(text.map(|text| (PATH.to_owned(), File::public(text))));
        files(&assets).unwrap().into_keys().collect()
    }

    #[test]
    fn the_files_are_those_of_the_config_map_alone() {
        const OTHER: &str = "kind: ConfigMap\nmetadata: {name: mine}\ndata: {a: b}\n";
        assert_eq!(names(None), [""; 0]);
        assert_eq!(names(Some(OTHER)), [""; 0]);
        let both =
            format!("{OTHER}---\nkind: ConfigMap\nmetadata: {{name: kube-apiserver-config}}\ndata: {{x.yaml: text}}\n");
        assert_eq!(names(Some(&both)), ["x.yaml"]);
    }
}
