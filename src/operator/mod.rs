//! Hosted control planes: a HostedControlPlane of this cluster declares the control plane of another, the tenant. What of
//! Kubernetes' objects follows from it is decided purely; the loop of kube-runtime, which nothing else uses, acts.
//!
//! ```text
//! HostedControlPlane ─► tenant ─► (services) ─► addresses ─► cluster ─► keys ─► objects ─► put
//!                                                       live, pods, events ─► conditions ─► status
//! ```

pub mod addons;
pub mod apply;
pub mod approvals;
pub mod conditions;
pub mod delete;
pub mod describe;
pub mod differs;
pub mod inside;
pub mod install;
pub mod keys;
pub mod leader;
pub mod live;
pub mod members;
pub mod objects;
pub mod put;
pub mod reconcile;
pub mod restore;
pub mod run;
pub mod snapshots;
pub mod tenant;
pub mod tenant_assets;
pub mod trouble;
pub mod upgrade;

/// The API group and version of its objects.
pub const API_VERSION: &str = "hoist.dev/v1alpha1";
/// Their kind.
pub const KIND: &str = "HostedControlPlane";
/// The field manager of all that the operator applies.
pub const MANAGER: &str = "hoist-operator";
/// What every object of a tenant bears, with the tenant's name.
pub const TENANT_LABEL: &str = "hoist.dev/tenant";
/// The namespace of the operator itself.
pub const NAMESPACE: &str = "hoist-hosting";

/// The namespace of tenants, unless something else is said.
pub const TENANTS: &str = "tenants";

/// The resource of its objects.
pub fn resource() -> kube::core::ApiResource {
    let (group, version) = API_VERSION.split_once('/').unwrap_or_default();
    kube::core::ApiResource::from_gvk_with_plural(
        &kube::core::GroupVersionKind::gvk(group, version, KIND),
        "hostedcontrolplanes",
    )
}
