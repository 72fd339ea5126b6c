//! Keys and certificates that cluster.yaml names. tests/pki has what only openssl can make.

use std::collections::BTreeMap;
use std::path::Path;

use hoist::desired::pki::{self, Pki};
use time::{Duration, OffsetDateTime};

use super::{Row, Table};
use crate::support::{CLUSTER, Folder, sparse};

/// Keys and certificates that were made `ago`.
fn made(ago: Duration) -> BTreeMap<String, Vec<u8>> {
    let text = format!("{CLUSTER}pki: {{caCertificateValidityPeriod: 48h, certificateValidityPeriod: 24h}}\n");
    let cluster = hoist::desired::config::parse("f", &text, Path::new("/")).unwrap();
    let now = OffsetDateTime::now_utc() - ago;
    let Pki { files, .. } = pki::issue(&cluster, &BTreeMap::new(), &Default::default(), now).unwrap();
    files
}

#[test]
fn a_ca_of_the_users() {
    let mut table = Table::default();
    let today = made(Duration::ZERO);
    let (past, future) = (made(Duration::days(3)), made(Duration::days(-2)));
    let (crt, key) = (&today["ca.crt"][..], &today["ca.key"][..]);
    let der = pem::parse(crt).unwrap().into_contents();
    let two = [crt, &b"-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n"[..]].concat();
    let both = [crt, key].concat();
    let rows: Vec<(&str, &[u8], &[u8], &[&str])> = vec![
        (
            "expired",
            &past["ca.crt"],
            &past["ca.key"],
            &["  DIR/ca.crt: expired ", ", and hoist replaces no CA\n    put a renewed certificate"],
        ),
        (
            "not valid yet",
            &future["ca.crt"],
            &future["ca.key"],
            &["  DIR/ca.crt: is not valid before ", "\n    check this machine's clock"],
        ),
        ("a key that does not match", crt, &today["sa.key"], &["  DIR/ca.key: is not the key of DIR/ca.crt\n"]),
        (
            "a leaf",
            &today["apiserver.crt"],
            &today["apiserver.key"],
            &[
                "  DIR/ca.crt: the first certificate (CN=kube-apiserver) is not a CA: it may not issue certificates\n    put a CA's certificate there, with basicConstraints CA:TRUE",
            ],
        ),
        ("the key in both", key, key, &["  DIR/ca.crt:1:1: holds a PRIVATE KEY, where only certificates may be\n"]),
        ("the certificate in both", crt, crt, &["  DIR/ca.key: holds no private key\n    put the key there"]),
        (
            "a certificate with its key",
            &both,
            key,
            &["  DIR/ca.crt:", ": holds a PRIVATE KEY, where only certificates may be\n    leave nothing but"],
        ),
        ("a public key", crt, &today["sa.pub"], &["  DIR/ca.key: holds no private key\n"]),
        ("empty", b"", b"", &["  DIR/ca.crt: is not a PEM file: there is no -----BEGIN line\n"]),
        ("DER", &der, key, &["  DIR/ca.crt: is not a PEM file: ", "convert it: `openssl x509`"]),
        ("cut off", &crt[..crt.len() - 40], key, &["  DIR/ca.crt: is not valid PEM: "]),
        ("a certificate that is none", &two, key, &["  DIR/ca.crt:", "certificate 2 cannot be read: "]),
        (
            "a key that is none",
            crt,
            b"-----BEGIN PRIVATE KEY-----\nMAA=\n-----END PRIVATE KEY-----\n",
            &["  DIR/ca.key: is not a key that hoist can use: "],
        ),
        (
            "a key with a passphrase",
            crt,
            b"-----BEGIN ENCRYPTED PRIVATE KEY-----\nMAA=\n-----END ENCRYPTED PRIVATE KEY-----\n",
            &["  DIR/ca.key: is an encrypted key", "decrypt it: openssl pkey"],
        ),
        ("YAML", CLUSTER.as_bytes(), key, &["  DIR/ca.crt: is not a PEM file: "]),
        ("UTF-16", b"\xff\xfe-\0-\0", key, &["  DIR/ca.crt: is not a PEM file: "]),
    ];
    for (name, certificate, key, says) in rows {
        let folder = Folder::with(&format!("{CLUSTER}pki: {{ca: {{certificate: ca.crt, key: ca.key}}}}\n"));
        folder.put("ca.crt", certificate);
        folder.put("ca.key", key);
        table.row(&Row { name, code: 3, says }, &folder, || folder.bounded_render());
    }
}

#[test]
fn a_service_account_key_of_the_users() {
    let mut table = Table::default();
    let mut row = |name: &str, make: fn(&Folder), says: &str| {
        let folder = Folder::with(&format!("{CLUSTER}pki: {{serviceAccountKey: sa.key}}\n"));
        make(&folder);
        table.row(&Row { name, code: 3, says: &[says] }, &folder, || folder.bounded_render());
    };
    row("missing", |_| {}, "  DIR/sa.key: there is no such file\n    pki.serviceAccountKey names it: correct the path");
    row(
        "a folder",
        |folder| folder.put("sa.key/x", ""),
        "  DIR/sa.key: is a folder, not a file\n    pki.serviceAccountKey names it",
    );
    row(
        "huge",
        |folder| sparse(&folder.path("sa.key"), 100 << 20),
        "  DIR/sa.key: is too large: hoist reads at most 1 MiB",
    );
    row(
        "a device",
        |folder| std::os::unix::fs::symlink("/dev/zero", folder.path("sa.key")).unwrap(),
        "  DIR/sa.key: is a device, not a file",
    );
    row(
        "a pipe",
        |folder| nix::unistd::mkfifo(&folder.path("sa.key"), nix::sys::stat::Mode::S_IRWXU).unwrap(),
        "  DIR/sa.key: is a pipe, not a file",
    );
    row(
        "dashes without an end",
        |folder| folder.put("sa.key", "-----BEGIN ".repeat(90_000)),
        "  DIR/sa.key: is not valid PEM: ",
    );
}

/// hoist goes on: a copy of its own is private, and it may be meant.
#[test]
fn a_key_that_everybody_may_read_is_told() {
    use std::os::unix::fs::PermissionsExt;
    let folder = Folder::with(&format!("{CLUSTER}pki: {{serviceAccountKey: sa.key}}\n"));
    folder.put("sa.key", &made(Duration::ZERO)["sa.key"]);
    std::fs::set_permissions(folder.path(""), std::fs::Permissions::from_mode(0o755)).unwrap();
    let ran = folder.render();
    let told = "DIR/sa.key: warning: other users of this machine may read this key\n    `chmod go= DIR/sa.key` keeps them out\n";
    assert_eq!((ran.code, &*ran.stderr), (Some(0), told));
    std::fs::set_permissions(folder.path("sa.key"), std::fs::Permissions::from_mode(0o600)).unwrap();
    folder.render().ok();
}
