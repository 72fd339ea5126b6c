//! The whole on real nodes: Kubernetes' own binaries, systemd, containerd. Nothing is mocked. Root, and minutes:
//! `scripts/test e2e [NAME]`.

// clippy.toml allows them in #[test] functions; these files are tests throughout.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr)]

#[path = "../support/mod.rs"]
mod support;

mod addons;
mod bad_machine;
mod certificates;
mod conformance;
mod controllers;
mod crash;
mod dns;
mod earlier;
mod etcd_members;
mod external_ca;
mod failing;
mod first_boot;
mod guard;
mod hang_up;
mod hosting;
mod ingress;
mod joins;
mod known_flags;
mod least_privilege;
mod losses;
mod metrics;
mod network;
mod node_endpoint;
mod package;
mod pivot;
mod quorum;
mod recover;
mod recovery;
mod renewal;
mod reset;
mod rotation;
mod schemas;
mod security;
mod serving;
mod taken_up;
mod terraform;
mod unpivot;
mod upgrade;
mod upgrade_hoist;
mod upgrade_node;
mod upgrade_plan;
mod upgrade_three;
mod user_manifests;
mod virtual_address;
mod workers;
