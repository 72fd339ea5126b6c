//! The add-ons that cluster.yaml names, as files of the asset directory.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use super::secrecy::holds_secrets;
use super::{existing, is_manifest, objects, problems};
use crate::base::error::{Error, Finding, Result};
use crate::base::files::File;
use crate::base::input::{self, ASSET_LIMIT};
use crate::desired::config::Version;
use crate::desired::schema::Reader as ReadBy;

/// What the folders and files at `sources` make in addons/ of an asset directory: their manifests, by path below the
/// asset directory. A file with a Secret in it is private.
///
/// # Errors
/// All that cannot be read, that holds no manifest, or whose manifests do not parse or do not fit their types.
pub fn addons(sources: &[String], version: Version) -> Result<BTreeMap<String, File>> {
    let mut files = BTreeMap::new();
    let mut findings = Vec::new();
    for source in sources {
        match read(Path::new(source)) {
            Ok(found) => {
                for (place, path, content) in found {
                    findings.extend(wrong(&path, &place, &content, version));
                    let is_secret = holds_secrets(&content);
                    files.insert(path, if is_secret { File::private(content) } else { File::public(content) });
                }
            }
            Err(Error::Input(found)) => findings.extend(found),
            Err(error) => return Err(error),
        }
    }
    if findings.is_empty() { Ok(files) } else { Err(Error::Input(findings)) }
}

/// The manifests at `source`: where each stands, its path in the asset directory, its content.
fn read(source: &Path) -> Result<Vec<(String, String, Vec<u8>)>> {
    let name = source.file_name().unwrap_or_default().to_string_lossy();
    let place = source.display().to_string();
    let none = |message: &str, remedy: &str| Err(Error::Input(vec![Finding::new(&*place, message).remedy(remedy)]));
    if !fs::metadata(source).is_ok_and(|meta| meta.is_dir()) {
        let content = input::read(source, ASSET_LIMIT).map_err(|unread| unread.into_error(source))?;
        if !is_manifest(&name) {
            return none("is not a manifest by its name", "let it end in .yaml, .yml or .json");
        }
        return Ok(vec![(place.clone(), format!("addons/{name}"), content)]);
    }
    let below = existing(source, "")?.into_iter().filter(|(path, _)| is_manifest(path));
    let found: Vec<_> = below
        .map(|(path, content)| (source.join(&path).display().to_string(), format!("addons/{name}/{path}"), content))
        .collect();
    if found.is_empty() {
        return none("holds no manifest", "put some there, ending in .yaml, .yml or .json, or correct addons");
    }
    Ok(found)
}

/// What is wrong with a manifest by itself.
fn wrong(path: &str, place: &str, content: &[u8], version: Version) -> Vec<Finding> {
    let read = input::text(place, content).map_err(|finding| vec![finding]);
    match read.and_then(|text| objects(path, place, text)) {
        Ok(documents) => {
            documents.iter().flat_map(|document| problems(place, document, Some(version), ReadBy::ApiServer)).collect()
        }
        Err(findings) => findings,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VERSION: Version = Version { major: 1, minor: 36, patch: 3 };
    const MAP: &str = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n";

    #[test]
    fn folders_and_files_are_read_by_their_names() {
        let dir = tempfile::tempdir().unwrap();
        let put = |name: &str, text: &str| {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        put("one/deep/a.yaml", MAP);
        put("one/README.md", "no manifest");
        put("one/.hidden.yaml", "no: manifest");
        put("two.json", r#"{"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}}"#);
        let source = |name: &str| dir.path().join(name).display().to_string();
        let files = addons(&[source("one"), source("two.json")], VERSION).unwrap();
        let modes: Vec<_> = files.iter().map(|(path, file)| (&**path, file.mode)).collect();
        assert_eq!(modes, [("addons/one/deep/a.yaml", 0o644), ("addons/two.json", 0o600)]);

        put("one/b.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {nmae: b}\n");
        put("three/notes", "");
        let Err(Error::Input(findings)) =
            addons(&[source("one"), source("three"), source("three/notes"), source("four")], VERSION)
        else {
            panic!()
        };
        let said: Vec<_> = findings.iter().map(|finding| finding.message.as_str()).collect();
        let expected = ["unknown field `nmae`", "needs metadata.name", "holds no", "is not a manifest", "no such file"];
        for text in expected {
            assert!(said.iter().any(|said| said.contains(text)), "{text}: {said:?}");
        }
    }
}
