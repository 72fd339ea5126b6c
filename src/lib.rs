//! hoist brings up a self-hosted Kubernetes control plane from nothing but a kubelet, and keeps it up.
//!
//! ```text
//! render:  config ─► pki ─► render ─► assets (disk)
//! start:   assets ─► preflight ─► loop { observe ─► decide ─► act ─► report }
//!                                        api, static_pods   bridge, api
//! ```
//! Arrows run one way; CONTRIBUTING.md has the map.

pub mod api;
pub mod base;
pub mod check;
pub mod cli;
pub mod desired;
pub mod endpoint;
pub mod etcd;
pub mod node;
pub mod operator;
pub mod ops;
pub mod plane;
// Chance that can be had again: random histories are told by tests of several rooms.
#[cfg(test)]
#[path = "../tests/histories/random.rs"]
mod random;
