//! The desired state: cluster.yaml, the CAs and certificates, the asset directory. Pure, except for reading and
//! writing that directory; nothing here asks a cluster or looks at the machine.

pub mod assets;
pub mod certificates;
pub mod config;
pub mod first_boot;
pub mod join;
pub mod known_flags;
pub mod kubeconfig;
pub mod kubelet_config;
pub mod node_endpoint;
pub mod pki;
pub mod render;
pub mod renewal;
pub mod rotation;
pub mod schema;
pub mod secrets;
pub mod server_config;
pub mod static_uid;
pub mod template;
pub mod tokens;
pub mod upgrade;
