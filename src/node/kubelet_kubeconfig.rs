//! Who this host's kubelet is, and, by its kubeconfig, where it asks.

use std::net::IpAddr;

use crate::base::error::{Error, Result};
use crate::base::files::{self, File};
use crate::base::yaml;
use crate::node::host::Host;

/// The name and the address of this machine's Node, as `start` has written them down for the kubelet.
pub fn named(host: &Host) -> Option<(String, IpAddr)> {
    let text = std::fs::read_to_string(host.path("/etc/kubernetes/kubelet.env")).ok()?;
    let value = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
    Some((value("NODE_NAME")?.to_owned(), value("NODE_IP")?.parse().ok()?))
}

/// Where this host's kubelet asks, by its kubeconfig.
pub fn server(host: &Host) -> Option<String> {
    let text = std::fs::read_to_string(host.kubelet_kubeconfig()).ok()?;
    let document = yaml::documents("kubelet.conf", &text).ok()?.into_iter().next()?;
    document.value.pointer("/clusters/0/cluster/server")?.as_str().map(str::to_owned)
}

/// Has this host's kubelet ask at `server` from its next start on, and says whether that is another place than before. All
/// else of its kubeconfig stays.
///
/// # Errors
/// The system's refusal; a kubeconfig that names no server.
pub fn lead(host: &Host, server: &str) -> Result<bool> {
    let path = host.kubelet_kubeconfig();
    let text = std::fs::read_to_string(&path).map_err(|error| Error::io("read", &path, error))?;
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    let line = lines.iter_mut().find(|line| line.trim_start().starts_with("server: "));
    let line = line.ok_or_else(|| Error::failed(format!("read {}", path.display()), "it names no server"))?;
    let indent = &line[..line.len() - line.trim_start().len()];
    *line = format!("{indent}server: {}", serde_json::Value::from(server));
    files::write(&path, &File::private(lines.join("\n") + "\n"))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::node::system;

    /// As a kubelet writes it after its bootstrap, and as hoist and kubeadm do.
    #[test]
    fn a_kubelet_is_led_elsewhere_and_all_else_stays() {
        let root = tempfile::tempdir().unwrap();
        let host = system::host(root.path(), Path::new("/etc/kubernetes/manifests"));
        assert_eq!(server(&host), None);
        assert!(lead(&host, "https://127.0.0.1:7443").is_err());
        std::fs::create_dir_all(host.kubelet_kubeconfig().parent().unwrap()).unwrap();
        for server_line in ["    server: https://10.0.0.1:6443", "    server: \"https://10.0.0.1:6443\""] {
            let text = |line: &str| {
                format!(
                    "apiVersion: v1\nclusters:\n- cluster:\n    certificate-authority-data: YQ==\n{line}\n  name: default-cluster\nkind: Config\nusers:\n- name: default-auth\n  user:\n    client-certificate: /a.pem\n"
                )
            };
            std::fs::write(host.kubelet_kubeconfig(), text(server_line)).unwrap();
            assert_eq!(server(&host).as_deref(), Some("https://10.0.0.1:6443"));
            assert!(lead(&host, "https://127.0.0.1:7443").unwrap());
            assert_eq!(server(&host).as_deref(), Some("https://127.0.0.1:7443"));
            let led = std::fs::read_to_string(host.kubelet_kubeconfig()).unwrap();
            assert_eq!(led, text("    server: \"https://127.0.0.1:7443\""));
            assert!(!lead(&host, "https://127.0.0.1:7443").unwrap());
        }
    }
}
