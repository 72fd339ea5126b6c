//! Reads a kubelet's configuration.

/// Where containerd listens.
const RUNTIME: &str = "unix:///run/containerd/containerd.sock";

/// Where a kubelet's configuration says that the container runtime is.
pub fn runtime_endpoint(configuration: &serde_json::Value) -> &str {
    let endpoint = configuration.get("containerRuntimeEndpoint").and_then(serde_json::Value::as_str);
    endpoint.filter(|endpoint| !endpoint.is_empty()).unwrap_or(RUNTIME)
}
