//! hoist brings up a self-hosted Kubernetes control plane from nothing but a kubelet, and keeps it up.
//!
//! ```text
//! render:  config ─► pki ─► render ─► assets (disk)
//! start:   assets ─► preflight ─► loop { observe ─► decide ─► act ─► report }
//!                                        api, static_pods   bridge, api
//! ```
//! Arrows run one way; CONTRIBUTING.md has the map.

pub mod config;
pub mod error;
pub mod forward;
pub mod kubeconfig;
pub mod pki;
pub mod probe;
pub mod report;
pub mod yaml;
