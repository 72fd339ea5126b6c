//! hoist brings up a self-hosted Kubernetes control plane from nothing but a kubelet, and keeps it up.
//!
//! ```text
//! render:  config ─► pki ─► render ─► assets (disk)
//! start:   assets ─► preflight ─► loop { observe ─► decide ─► act ─► report }
//!                                        api, static_pods   bridge, api
//! ```
//! Arrows run one way; CONTRIBUTING.md has the map.

pub mod addons;
pub mod api;
pub mod approve;
pub mod assets;
pub mod backoff;
pub mod backup;
pub mod bridge;
pub mod cli;
pub mod config;
pub mod cri;
pub mod error;
pub mod etcd;
pub mod explain;
pub mod files;
pub mod first_boot;
pub mod forward;
pub mod grpc;
pub mod guard;
pub mod host;
pub mod images;
pub mod input;
pub mod join;
pub mod known_flags;
pub mod kubeconfig;
pub mod kubelet;
pub mod limits;
pub mod lock;
pub mod log;
pub mod mounts;
pub mod outside;
pub mod own_unit;
pub mod packet_filter;
pub mod permanent;
pub mod pki;
pub mod preflight;
pub mod probe;
pub mod processes;
pub mod progress;
// Chance that can be had again: random histories are told by tests of several rooms.
#[cfg(test)]
#[path = "../tests/histories/random.rs"]
mod random;
pub mod recover;
pub mod render;
pub mod report;
pub mod reset;
pub mod schema;
pub mod secrets;
pub mod server_config;
pub mod snapshot;
pub mod start;
pub mod static_pods;
pub mod status;
pub mod template;
pub mod tokens;
pub mod undo;
pub mod unpivot;
pub mod validate;
pub mod yaml;
