//! The bridge and the self-hosted API server can read each other's Secrets; and which paths both serve without
//! credentials.

use serde_json::Value;

use super::inventory::{Inventory, Running};
use crate::base::error::Finding;
use crate::base::yaml;
use crate::desired::known_flags::{self, Program::ApiServer};
use crate::desired::pki::ENCRYPTION;

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
    let is_open = |run: &&Running<'_>| {
        run.program == ApiServer
            && run.value("authentication-config").is_none()
            && run.value("anonymous-auth").and_then(known_flags::boolean) != Some(false)
    };
    let finding = |run: &Running<'_>| {
        run.finding("authentication-config", "is not set, so RBAC alone restricts requests without credentials")
            .remedy(
                "`hoist render` sets it, unless extraArgs has oidc-*: those issuers belong to authentication.yaml in \
                 manifests/kube-apiserver/config.yaml",
            )
            .warning()
    };
    let running = inventory.running();
    let of_flags = running.iter().filter(is_open).map(finding);
    // The bridge reads the same file.
    let servers = running.iter().filter(|run| run.program == ApiServer && !run.is_bridge());
    of_flags.chain(servers.filter_map(|run| by_file(inventory, run))).collect()
}

/// What an AuthenticationConfiguration says of requests without credentials.
fn by_file(inventory: &Inventory<'_>, run: &Running<'_>) -> Option<Finding> {
    const NEEDED: [&str; 2] = ["/livez", "/readyz"];
    const REMEDY: &str =
        "write anonymous: {enabled: true, conditions: [{path: /livez}, {path: /readyz}, …]}, as hoist's own has it";
    let source = inventory.content(run, "authentication-config", inventory.cluster.controllers.first()?)?;
    let document = yaml::documents("", std::str::from_utf8(&source.bytes).ok()?).ok()?.into_iter().next()?;
    let Some(anonymous) = document.value.get("anonymous") else {
        let message = "has no field anonymous, so RBAC alone restricts requests without credentials";
        return Some(source.finding(message).remedy(REMEDY).warning());
    };
    let conditions = anonymous.get("conditions").and_then(Value::as_array);
    let is_asked = |path: &&&str| conditions.is_none_or(|all| all.iter().any(|condition| condition["path"] == **path));
    let lacks: Vec<_> = match anonymous.get("enabled") {
        Some(Value::Bool(true)) => NEEDED.iter().filter(|path| !is_asked(path)).copied().collect(),
        _ => NEEDED.to_vec(),
    };
    (!lacks.is_empty()).then(|| {
        let message = format!(
            "does not let requests without credentials reach {}, and kubelets and hoist send such requests",
            lacks.join(" and ")
        );
        source.finding(message).remedy(REMEDY)
    })
}
