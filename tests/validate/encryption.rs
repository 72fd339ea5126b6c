//! The bridge and the self-hosted API server read each other's Secrets; who may ask either without credentials.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::support::{Directory, findings};

const KEYS: &str = "tls/encryption.yaml";
const SECRET: &str = "manifests/kube-apiserver/secret.yaml";

#[test]
fn an_edit_of_the_keys_is_to_be_rendered() {
    let mut directory = Directory::new();
    let old = directory.text(KEYS);
    let new = old.replace("key1", "mine");
    directory.put(KEYS, new.clone());
    let said = format!(
        "assets/{SECRET}:{}: the API server's Secrets are encrypted by another file than {KEYS}: the bridge could not read them",
        directory.position(SECRET, "\"encryption.yaml\"")
    );
    let found = findings(&directory.set);
    assert_eq!(found.len(), 1, "{found:?}");
    // The value stands behind its name.
    assert_eq!(found[0].split(':').next(), said.split(':').next());
    assert!(found[0].ends_with(said.split(": ").skip(1).collect::<Vec<_>>().join(": ").as_str()), "{found:?}");
    directory.edit(SECRET, &STANDARD.encode(&old), &STANDARD.encode(&new));
    assert_eq!(findings(&directory.set), [""; 0]);
}

#[test]
fn without_its_keys_the_bridge_does_not_start() {
    let mut directory = Directory::new();
    directory.set.files.remove(KEYS);
    let found = findings(&directory.set);
    let said = "--encryption-provider-config:";
    assert!(found.iter().any(|line| line.contains("bridge-kube-apiserver.yaml") && line.contains(said)), "{found:?}");
}

#[test]
fn anonymous_requests_without_a_list_are_told() {
    let mut directory = Directory::new();
    for path in ["manifests/kube-apiserver/daemonset.yaml", "bootstrap-manifests/bridge-kube-apiserver.yaml"] {
        directory.edit(
            path,
            "authentication-config=/etc/kubernetes/config/authentication.yaml",
            "oidc-issuer-url=https://a",
        );
    }
    let found = findings(&directory.set);
    assert_eq!(found.len(), 2, "{found:?}");
    for line in found {
        assert!(line.contains(": warning: --authentication-config: is not set"), "{line}");
    }
}

/// A kubelet would kill an API server that answers its probes with 401.
#[test]
fn probes_are_answered_without_credentials() {
    const CONFIG: &str = "manifests/kube-apiserver/config.yaml";
    let said = |from: &str, to: &str| {
        let mut directory = Directory::new();
        directory.edit(CONFIG, from, to);
        findings(&directory.set)
    };
    let lets = |path: &str| {
        format!("does not let requests without credentials reach {path}, and kubelets and hoist send such requests")
    };
    let found = said("      enabled: true\n      conditions:\n", "      enabled: false\n      other:\n");
    assert!(found.len() == 1 && found[0].ends_with(&lets("/livez and /readyz")), "{found:?}");
    let found = said("      - path: /readyz\n", "");
    assert!(found.len() == 1 && found[0].ends_with(&lets("/readyz")), "{found:?}");
    let found = said("    anonymous:\n", "    other:\n");
    assert!(found.len() == 1 && found[0].contains(": warning: has no field anonymous"), "{found:?}");
}
