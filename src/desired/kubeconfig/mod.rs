//! kubeconfig files, each with one cluster, one user and one context.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use kube::config::Kubeconfig;
use rustls::InconsistentKeys;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::{CertifiedKey, SigningKey};
use serde_json::Value;

use crate::base::error::{Error, Finding};
use crate::base::input;
use crate::base::yaml;

mod access;

pub use access::Access;

/// What a kubeconfig says. There is no `Debug`: it would print the credentials.
#[derive(Clone, Copy)]
pub struct KubeConfig<'a> {
    /// The cluster's name.
    pub cluster_name: &'a str,
    /// `https://host:port`.
    pub server: &'a str,
    /// The CA certificates (PEM) that the server's certificate is checked against.
    pub ca_pem: &'a [u8],
    /// The user's name.
    pub user: &'a str,
    /// How the user proves to be the one.
    pub credentials: Credentials<'a>,
}

/// How a user proves to be the one.
#[derive(Clone, Copy)]
pub enum Credentials<'a> {
    /// A client certificate.
    ClientCertificate {
        /// The certificate (PEM).
        cert_pem: &'a [u8],
        /// Its key (PEM).
        key_pem: &'a [u8],
    },
    /// The path of a file with both, on the machine of whoever uses the kubeconfig.
    ClientCertificateFile(&'a str),
    /// The same in two files. Whoever uses the kubeconfig reads them again when they change.
    ClientCertificateFiles {
        /// The path of the certificate.
        cert: &'a str,
        /// The path of its key.
        key: &'a str,
    },
    /// A bearer token.
    Token(&'a str),
}

impl KubeConfig<'_> {
    /// The file's text. It needs no other file but those that its credentials name.
    pub fn to_yaml(&self) -> String {
        let cluster = quoted(self.cluster_name);
        let server = quoted(self.server);
        let ca = STANDARD.encode(self.ca_pem);
        let user = quoted(self.user);
        let context = quoted(&format!("{}@{}", self.user, self.cluster_name));
        let credentials = match self.credentials {
            Credentials::ClientCertificate { cert_pem, key_pem } => format!(
                "client-certificate-data: {}\n    client-key-data: {}",
                STANDARD.encode(cert_pem),
                STANDARD.encode(key_pem)
            ),
            Credentials::ClientCertificateFile(path) => {
                format!("client-certificate: {path}\n    client-key: {path}", path = quoted(path))
            }
            Credentials::ClientCertificateFiles { cert, key } => {
                format!("client-certificate: {}\n    client-key: {}", quoted(cert), quoted(key))
            }
            Credentials::Token(token) => format!("token: {}", quoted(token)),
        };
        format!(
            "\
apiVersion: v1
kind: Config
clusters:
- name: {cluster}
  cluster:
    server: {server}
    certificate-authority-data: {ca}
users:
- name: {user}
  user:
    {credentials}
contexts:
- name: {context}
  context:
    cluster: {cluster}
    user: {user}
current-context: {context}
"
        )
    }
}

/// A kubeconfig as kube has it; several documents are brought together as kubectl does with files. kube could read it,
/// too, but has a YAML reader of its own for that, which would be a second one in the binary.
///
/// # Errors
/// Why it is none.
pub fn read(text: &str) -> Result<Kubeconfig, String> {
    let documents = yaml::documents("the kubeconfig", text)
        .map_err(|findings| findings.first().map(Finding::to_string).unwrap_or_default())?;
    let all = documents.into_iter().try_fold(Kubeconfig::default(), |all, document| {
        all.merge(parsed(document.value)?).map_err(|error| error.to_string())
    })?;
    for (index, named) in all.clusters.iter().enumerate() {
        if let Some(server) = named.cluster.as_ref().and_then(|cluster| cluster.server.as_deref()) {
            has_scheme(server).map_err(|why| format!("clusters[{index}].cluster.server: {why}"))?;
        }
    }
    Ok(all)
}

/// kube's client takes a URL for granted (5.0.0): without a scheme it panics.
fn has_scheme(server: &str) -> Result<(), String> {
    let uri = server.parse::<hyper::Uri>().map_err(|error| format!("`{server}` is no URL: {error}"))?;
    match (uri.scheme_str(), uri.authority()) {
        (Some("https" | "http"), Some(_)) => Ok(()),
        _ => Err(format!("`{server}` is no URL of an API server, such as https://192.0.2.10:6443")),
    }
}

fn parsed(value: Value) -> Result<Kubeconfig, String> {
    // serde_json quotes what it found, and that may be a secret.
    serde_json::from_value(value).map_err(|error| error.to_string().split(": ").next().unwrap_or_default().to_owned())
}

/// What keeps hoist from using the kubeconfig `content`: it must hold its own credentials, name nothing to run, and
/// trust the CA in `ca_pem`, if that is known. `place` names it in findings.
pub fn check(place: &str, content: &[u8], ca_pem: Option<&[u8]>) -> Vec<Finding> {
    const ANEW: &str = "move it away and run `hoist render` again: it is made anew";
    let finding = |at: Option<yaml::Position>, message: String| Finding::new(place, message).at(at).remedy(ANEW);
    let read = input::text(place, content).map_err(|finding| vec![finding]);
    let documents = match read.and_then(|text| yaml::documents(place, text)) {
        Ok(documents) => documents,
        Err(findings) => return findings.into_iter().map(|finding| finding.remedy(ANEW)).collect(),
    };
    let [document] = &documents[..] else {
        let at = documents.get(1).and_then(|document| document.positions.get(""));
        return vec![finding(at, format!("holds {} documents, where a kubeconfig is one", documents.len()))];
    };
    let at = |path: &str| document.positions.nearest(path);
    let value = &document.value;
    // A kubeconfig's reader wants its shape, whatever of it is used.
    if let Err(reason) = parsed(value.clone()) {
        return vec![finding(at(""), format!("is not a kubeconfig: {reason}"))];
    }
    if value.get("kind").and_then(Value::as_str) != Some("Config") {
        return vec![finding(at("kind"), "is not a kubeconfig: its kind is not Config".to_owned())];
    }
    let mut findings = Vec::new();
    let named = |list: &str, name: &str| {
        let index = value.get(list)?.as_array()?.iter().position(|item| item["name"].as_str() == Some(name))?;
        Some((yaml::item(list, index), &value[list][index]))
    };
    let Some(current) = value.get("current-context").and_then(Value::as_str) else {
        return vec![finding(at("current-context"), "names no current-context".to_owned())];
    };
    let Some((path, context)) = named("contexts", current) else {
        return vec![finding(
            at("current-context"),
            format!("its current context, {current}, is not among the contexts"),
        )];
    };
    for (field, list) in [("cluster", "clusters"), ("user", "users")] {
        let path = format!("{path}.context.{field}");
        let found = context["context"][field].as_str().and_then(|name| named(list, name));
        let Some((path, entry)) = found else {
            findings.push(finding(at(&path), format!("{path}: names none of the {list}")));
            continue;
        };
        let at = |field: &str| at(&yaml::child(&path, field));
        let (path, entry) = (yaml::child(&path, field), &entry[field]);
        let names = entry.as_object().into_iter().flatten().filter(|(_, value)| !value.is_null());
        for (name, value) in names {
            let at = document.positions.key(&yaml::child(&path, name));
            let why = match name.as_str() {
                "exec" | "auth-provider" => "would run a program to get credentials",
                "certificate-authority" | "client-certificate" | "client-key" | "tokenFile" => {
                    "names a file, where the kubeconfig must hold it"
                }
                "insecure-skip-tls-verify" if value == &Value::Bool(true) => "trusts any server",
                "proxy-url" => "goes through a proxy, and the API server is on this machine",
                "username" | "password" => "is a kind of credentials that Kubernetes no longer accepts",
                "certificate-authority-data" if !holds(value, ca_pem) => "is not the CA in tls/ca.crt",
                "certificate-authority-data" if !trusts(value) => "holds no CA",
                "client-certificate-data" if certificates(value).is_none() => "holds no certificate",
                "client-key-data" if key(value).is_none() => "holds no private key",
                _ => continue,
            };
            findings.push(finding(at, format!("{path}.{name}: {why}")));
        }
        let has = |name: &str| entry[name].as_str().is_some_and(|text| !text.is_empty());
        let is_https = |url: &str| {
            let url = url.parse::<hyper::Uri>();
            url.is_ok_and(|url| url.scheme_str() == Some("https") && url.host().is_some_and(|host| !host.is_empty()))
        };
        if field == "cluster" && !entry["server"].as_str().is_some_and(is_https) {
            findings.push(finding(at(field), format!("{path}.server: is not an https:// URL")));
        }
        if field == "cluster" && !has("certificate-authority-data") {
            findings.push(finding(at(field), format!("{path}.certificate-authority-data: it is required")));
        }
        if field == "user" && !has("token") && !(has("client-certificate-data") && has("client-key-data")) {
            findings.push(finding(
                at(field),
                format!("{path}: holds neither a token nor a client certificate with its key"),
            ));
        }
        if let (Some(certificates), Some(key)) =
            (certificates(&entry["client-certificate-data"]), key(&entry["client-key-data"]))
            && !matches!(
                CertifiedKey::new(certificates, key).keys_match(),
                // Not every kind of key can tell.
                Ok(()) | Err(rustls::Error::InconsistentKeys(InconsistentKeys::Unknown))
            )
        {
            findings.push(finding(at(field), format!("{path}.client-key-data: is not the key of the certificate")));
        }
    }
    // Whatever else keeps a client from being made of it: what kube reads of it may be told only by kube.
    if findings.is_empty()
        && let Err(error) = parsed(value.clone())
            .map_err(|reason| Error::failed("use the kubeconfig", reason))
            .and_then(access::is_usable)
    {
        findings.push(finding(at(""), error.to_string()));
    }
    findings
}

/// The certificates (PEM) in the base64 text in `value`.
fn certificates(value: &Value) -> Option<Vec<CertificateDer<'static>>> {
    let pem = decoded(value)?;
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    certificates.ok().filter(|certificates| !certificates.is_empty())
}

/// Whether the certificates in `value` can be trusted as a CA's.
fn trusts(value: &Value) -> bool {
    let mut roots = rustls::RootCertStore::empty();
    certificates(value).is_some_and(|all| all.into_iter().all(|certificate| roots.add(certificate).is_ok()))
}

/// The private key (PEM) in the base64 text in `value`, as it will sign.
fn key(value: &Value) -> Option<Arc<dyn SigningKey>> {
    let key = PrivateKeyDer::from_pem_slice(&decoded(value)?).ok()?;
    rustls::crypto::ring::sign::any_supported_type(&key).ok()
}

/// Whether the base64 text in `value` is `pem`, or that is not known.
fn holds(value: &Value, pem: Option<&[u8]>) -> bool {
    decoded(value).is_some_and(|decoded| pem.is_none_or(|pem| decoded == pem))
}

/// What the base64 text in `value` holds.
fn decoded(value: &Value) -> Option<Vec<u8>> {
    input::base64(value.as_str()?)
}

/// A string as JSON has it, which is as YAML has it: `on` and `1_000` stay strings.
fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    const CA: &[u8] = b"-----BEGIN CERTIFICATE-----\nca\n";

    fn config(credentials: Credentials<'_>) -> String {
        KubeConfig {
            cluster_name: "on",
            server: "https://[fd00::1]:6443",
            ca_pem: CA,
            user: "system:\"x\" # 1",
            credentials,
        }
        .to_yaml()
    }

    fn kube_reads(text: &str) -> Value {
        serde_json::to_value(Kubeconfig::from_yaml(text).unwrap()).unwrap()
    }

    #[test]
    fn several_documents_are_one_and_what_is_none_is_told_without_its_secrets() {
        let first = config(Credentials::Token("a"));
        let text = format!("{first}---\n{}", first.replace("token: \"a\"", "token: b").replace("\"on\"", "\"off\""));
        let both = read(&text).unwrap();
        assert_eq!((both.auth_infos.len(), both.clusters.len()), (1, 2));
        assert_eq!(serde_json::to_value(&both).unwrap(), kube_reads(&text));

        let error = read(&first.replace("token: \"a\"", "token: [secret]")).unwrap_err();
        assert!(!error.contains("secret") && !error.is_empty(), "{error}");
        assert!(read("a: [").is_err());
        for server in ["192.0.2.10:6443", "192.0.2.10", "api.example.com:6443", "unix:/x", "https://"] {
            let error = read(&first.replace("https://[fd00::1]:6443", server)).unwrap_err();
            assert!(error.starts_with("clusters[0].cluster.server: `"), "{error}");
        }
    }

    #[test]
    fn what_no_client_can_be_made_of_is_found() {
        let ca = crate::base::probe::testing::Authority::new().pem();
        let text = KubeConfig {
            cluster_name: "a",
            server: "https://192.0.2.1:6443",
            ca_pem: ca.as_bytes(),
            user: "b",
            credentials: Credentials::Token("secret"),
        }
        .to_yaml();
        let found = |text: &str| check("f", text.as_bytes(), None);
        assert_eq!(found(&text), []);
        // The second is what another reader of PEM passes over.
        let other = STANDARD.encode(format!("{ca}-----BEGIN X-----\n?\n-----END X-----\n"));
        for (from, to) in [
            ("    server:", "    tls-server-name: \"a b\"\n    server:"),
            (&*STANDARD.encode(&ca), &*other),
            ("\"secret\"", "\"secret\\a\""),
            ("    token:", "    as: \"d\\a\"\n    token:"),
        ] {
            let text = text.replace(from, to);
            let findings = found(&text);
            assert!(findings.len() == 1 && !findings[0].to_string().contains("secret"), "{text}: {findings:?}");
        }
    }

    #[test]
    fn kube_reads_a_client_certificate() {
        let text = config(Credentials::ClientCertificate { cert_pem: b"-----cert", key_pem: b"-----key" });
        let read = read(&text).unwrap();
        assert_eq!(serde_json::to_value(&read).unwrap(), kube_reads(&text));
        assert_eq!(read.current_context.as_deref(), Some("system:\"x\" # 1@on"));
        let context = read.contexts[0].context.as_ref().unwrap();
        assert_eq!(read.contexts[0].name, "system:\"x\" # 1@on");
        assert_eq!((&*context.cluster, context.user.as_deref()), ("on", Some("system:\"x\" # 1")));
        let cluster = read.clusters[0].cluster.as_ref().unwrap();
        assert_eq!(read.clusters[0].name, "on");
        assert_eq!(cluster.server.as_deref(), Some("https://[fd00::1]:6443"));
        assert_eq!(cluster.certificate_authority_data, Some(STANDARD.encode(CA)));
        let user = read.auth_infos[0].auth_info.as_ref().unwrap();
        assert_eq!(read.auth_infos[0].name, "system:\"x\" # 1");
        assert_eq!(user.client_certificate_data, Some(STANDARD.encode("-----cert")));
        let json = serde_json::to_value(user).unwrap();
        assert_eq!(json["client-key-data"], STANDARD.encode("-----key"));
    }

    #[test]
    fn kube_reads_a_token() {
        let text = config(Credentials::Token("012345.0123456789012345"));
        let read = read(&text).unwrap();
        assert_eq!(serde_json::to_value(&read).unwrap(), kube_reads(&text));
        let json = serde_json::to_value(read.auth_infos[0].auth_info.as_ref().unwrap()).unwrap();
        assert_eq!(json, serde_json::json!({ "token": "012345.0123456789012345" }));
    }
}
