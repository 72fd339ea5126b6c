//! A changed file of tls/, wherever an asset directory has it.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::base::files;
use crate::desired::assets::AssetSet;
use crate::desired::pki::ENCRYPTION;
use crate::desired::secrets::Tls;

/// The files that a rotation changes: what all controllers share, and no renewal touches.
const KEYS: [&str; 6] = ["ca.crt", ENCRYPTION, "etcd/ca.crt", "front-proxy-ca.crt", "sa.key", "sa.pub"];

/// `assets` with another content of tls/`path`, there and in the manifests of Secrets.
pub fn put(assets: &AssetSet, path: &str, content: &[u8]) -> AssetSet {
    let mut changed = assets.clone();
    let Some(file) = changed.files.get_mut(&format!("tls/{path}")) else { return changed };
    let old = std::mem::replace(&mut file.content, content.to_vec());
    let (old, new) = (STANDARD.encode(old), STANDARD.encode(content));
    for (_, file) in changed.files.iter_mut().filter(|(path, _)| path.ends_with("/secret.yaml")) {
        if let Ok(text) = std::str::from_utf8(&file.content) {
            file.content = text.replace(&old, &new).into_bytes();
        }
    }
    changed
}

/// A checksum of the keys in `tls`, by which guards say which ones they keep.
pub fn sum(tls: &Tls) -> String {
    let mut text = String::new();
    for (path, content) in KEYS.iter().filter_map(|path| Some((path, tls.get(*path)?))) {
        text.push_str(&format!("{}  {path}\n", files::sha256(content)));
    }
    files::sha256(text.as_bytes())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::desired::{config, pki, render};

    #[test]
    fn a_changed_file_is_where_a_render_would_have_it() {
        let begun = time::OffsetDateTime::from_unix_timestamp(1_782_907_200).unwrap();
        let text = "apiVersion: hoist/v1alpha1\nkind: Cluster\ncontrollers:\n- {name: c1, address: 192.0.2.10}\n";
        let cluster = config::parse("f", text, Path::new("/")).unwrap();
        let mut tls = pki::issue(&cluster, &Default::default(), &Default::default(), begun).unwrap().files;
        let render = |tls: &Tls| render::render(&cluster, tls, "abcdef.0123456789abcdef").unwrap();
        let assets = render(&tls);
        let before = sum(&tls);
        tls.insert(ENCRYPTION.into(), b"another".to_vec());
        let changed = put(&assets, ENCRYPTION, b"another");
        assert!(changed.files == render(&tls).files);
        assert_eq!(sum(&changed.tls()), sum(&tls));
        assert_ne!(sum(&tls), before);
        // A renewal changes no key, and what is not there is not made.
        tls.insert("apiserver.crt".into(), b"renewed".to_vec());
        assert_eq!(sum(&changed.tls()), sum(&tls));
        assert!(put(&assets, "none", b"x").files == assets.files);
    }
}
