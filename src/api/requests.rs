//! Requests for serving certificates: the pending ones, the addresses of the Nodes, and the approval.

use std::collections::BTreeMap;

use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use k8s_openapi::api::core::v1::Node;
use kube::api::{Api, ListParams, Patch, PatchParams};
use kube::{Client, ResourceExt};
use serde_json::json;

use super::{FIELD_MANAGER, Verdict, pages, verdict};
use crate::api::approve::{Addresses, Asked, SIGNER};
use crate::base::error::Result;

/// How many objects are read at once: Nodes are large, and the reader is to stay small.
const PAGE: u32 = 25;

/// A request that nobody has answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pending {
    /// The object's name.
    pub name: String,
    /// For answering exactly this state of it.
    pub resource_version: String,
    /// What it says.
    pub asked: Asked,
}

/// The requests for serving certificates of kubelets that nobody has answered.
///
/// # Errors
/// The API server's word.
pub async fn pending(client: &Client) -> Result<Vec<Pending>> {
    let api: Api<CertificateSigningRequest> = Api::all(client.clone());
    let params = ListParams::default().limit(PAGE).fields(&format!("spec.signerName={SIGNER}"));
    let mut found = Vec::new();
    let listed = pages::each(
        params,
        async |params| api.list(params).await,
        |csr: CertificateSigningRequest| {
            if is_pending(&csr) {
                found.push(Pending {
                    name: csr.name_any(),
                    resource_version: csr.resource_version().unwrap_or_default(),
                    asked: Asked {
                        username: csr.spec.username.unwrap_or_default(),
                        groups: csr.spec.groups.unwrap_or_default(),
                        usages: csr.spec.usages.unwrap_or_default(),
                        request: csr.spec.request.0,
                    },
                });
            }
        },
    );
    listed.await.map_err(|error| super::failed("list requests for certificates", &error))?;
    Ok(found)
}

fn is_pending(csr: &CertificateSigningRequest) -> bool {
    let status = csr.status.as_ref();
    // Approved, denied or failed: each is an answer.
    let is_answered = status.and_then(|status| status.conditions.as_ref()).is_some_and(|all| !all.is_empty());
    csr.spec.signer_name == SIGNER && !is_answered && status.is_none_or(|status| status.certificate.is_none())
}

/// What one Node says of its addresses; `None` where there is no such Node.
///
/// # Errors
/// The API server's word.
pub async fn node_addresses(client: &Client, name: &str) -> Result<Option<Addresses>> {
    // The name is as whoever asks has it, and becomes part of a path.
    let is_name = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'.');
    if !name.bytes().all(is_name) || name.starts_with('.') {
        return Ok(None);
    }
    let api: Api<Node> = Api::all(client.clone());
    let node = api.get_opt(name).await;
    let node = node.map_err(|error| super::failed(format!("read the node {name}"), &error))?;
    Ok(node.map(|node| of(node).1))
}

fn of(node: Node) -> (String, Addresses) {
    let name = node.name_any();
    let addresses = node.status.and_then(|status| status.addresses).unwrap_or_default();
    (name, addresses.into_iter().map(|address| (address.type_, address.address)).collect())
}

/// What every Node says of its addresses.
///
/// # Errors
/// The API server's word.
pub async fn addresses(client: &Client) -> Result<BTreeMap<String, Addresses>> {
    let api: Api<Node> = Api::all(client.clone());
    let mut found = BTreeMap::new();
    let params = ListParams::default().limit(PAGE);
    let listed = pages::each(params, async |params| api.list(params).await, |node: Node| found.extend([of(node)]));
    listed.await.map_err(|error| super::failed("list the nodes", &error))?;
    Ok(found)
}

/// Approves a request as it was read.
///
/// # Errors
/// The API server's word; one that was answered meanwhile is left so.
pub async fn approve(client: &Client, pending: &Pending) -> Result<()> {
    let api: Api<CertificateSigningRequest> = Api::all(client.clone());
    let patch = json!({
        "metadata": { "resourceVersion": pending.resource_version },
        "status": { "conditions": [{
            "type": "Approved",
            "status": "True",
            "reason": "HoistGuardApprove",
            "message": "hoist guard: the names and addresses are this Node's alone.",
        }] },
    });
    let params = PatchParams { field_manager: Some(FIELD_MANAGER.into()), ..PatchParams::default() };
    match api.patch_approval(&pending.name, &params, &Patch::Merge(&patch)).await {
        Ok(_) => Ok(()),
        // Another controller's guard was faster.
        Err(error) if matches!(verdict(&error), Verdict::Missing | Verdict::Stale) => Ok(()),
        Err(error) => Err(super::failed(format!("approve the request {}", pending.name), &error)),
    }
}
