//! kubeconfig files, each with one cluster, one user and one context.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

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
    /// A bearer token.
    Token(&'a str),
}

impl KubeConfig<'_> {
    /// The file's text. It needs no other file.
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

/// A string as JSON has it, which is as YAML has it: `on` and `1_000` stay strings.
fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use kube::config::Kubeconfig;

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

    #[test]
    fn kube_reads_a_client_certificate() {
        let text = config(Credentials::ClientCertificate { cert_pem: b"-----cert", key_pem: b"-----key" });
        let read = Kubeconfig::from_yaml(&text).unwrap();
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
        let read = Kubeconfig::from_yaml(&config(Credentials::Token("012345.0123456789012345"))).unwrap();
        let json = serde_json::to_value(read.auth_infos[0].auth_info.as_ref().unwrap()).unwrap();
        assert_eq!(json, serde_json::json!({ "token": "012345.0123456789012345" }));
    }
}
