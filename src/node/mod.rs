//! The machine that hoist runs on: its folders, its kubelet, its processes, its container runtime. Each outside thing has
//! one owner here.

pub mod cri;
pub mod etcd_data;
pub mod etcd_manifest;
pub mod host;
pub mod images;
pub mod interfaces;
pub mod kubelet;
pub mod kubelet_kubeconfig;
pub mod lock;
pub mod mounts;
pub mod own_unit;
pub mod packet_filter;
pub mod processes;
pub mod pulls;
pub mod rollback;
pub mod static_pods;
pub mod system;
pub mod world;
