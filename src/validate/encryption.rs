//! The bridge and the self-hosted API server read each other's Secrets; and who may ask either without credentials.

use super::inventory::Inventory;
use crate::error::Finding;
use crate::known_flags::Program::ApiServer;
use crate::pki::ENCRYPTION;

const FLAG: &str = "encryption-provider-config";

/// Each has the same keys in the same order.
pub(super) fn agrees(inventory: &Inventory<'_>) -> Vec<Finding> {
    let running = inventory.running();
    let of = |is_bridge| running.iter().find(|run| run.program == ApiServer && run.is_bridge() == is_bridge);
    let (Some(bridge), Some(own), Some(controller)) = (of(true), of(false), inventory.cluster.controllers.first())
    else {
        return Vec::new();
    };
    let both = inventory.content(bridge, FLAG, controller).zip(inventory.content(own, FLAG, controller));
    let Some((bridge, own)) = both.filter(|(bridge, own)| bridge.bytes != own.bytes) else { return Vec::new() };
    let message = format!(
        "the API server's Secrets are encrypted by another file than tls/{ENCRYPTION}: the bridge could not read them"
    );
    let remedy = "`hoist render` brings an edit of that file into the Secret of the API server; if it is another file, give both the same";
    let place = if bridge.tls.is_some() { own } else { bridge };
    vec![Finding::new(place.place, message).at(place.position).remedy(remedy)]
}

/// Without a list of paths, anonymous requests reach whatever RBAC lets them.
pub(super) fn anonymous(inventory: &Inventory<'_>) -> Vec<Finding> {
    let is_open = |run: &&super::inventory::Running<'_>| {
        run.program == ApiServer
            && run.value("authentication-config").is_none()
            && run.value("anonymous-auth") != Some("false")
    };
    let finding = |run: &super::inventory::Running<'_>| {
        run.finding(
            "authentication-config",
            "is not set, and requests without credentials reach whatever RBAC lets them",
        )
        .remedy(
            "`hoist render` sets it, unless extraArgs has oidc-*: those issuers belong to authentication.yaml in \
                 manifests/kube-apiserver/config.yaml",
        )
        .warning()
    };
    inventory.running().iter().filter(is_open).map(finding).collect()
}
