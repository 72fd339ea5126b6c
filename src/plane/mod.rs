//! What a control plane is made of: the bridge, the static control plane, what stands beside them on a
//! controller, and what is applied once it serves.

pub mod addons;
pub mod bridge;
pub mod certificates;
pub mod endpoint_pod;
pub mod guard_pod;
pub mod hand_over;
pub mod kept_copy;
pub mod lease_holders;
pub mod leaving;
pub mod member;
pub mod remembered;
pub mod renewal;
pub mod requests;
pub mod serving;
pub mod static_plane;
