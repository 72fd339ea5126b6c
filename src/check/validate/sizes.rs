//! Objects that are too large. The API server and etcd have limits of their own, and report them late.

use std::path::Path;

use base64::Engine;
use serde_json::Value;

use super::inventory::{Inventory, Object};
use crate::api::inventory::{Entry, Inventory as Noted};
use crate::base::error::Finding;
use crate::desired::assets::{AssetSet, Parsed};
use crate::desired::config::{Cluster, Controller, Etcd};
use crate::plane::{guard_pod, kept_copy};

/// The data of a Secret or a ConfigMap (MaxSecretSize; a ConfigMap's limit is the same).
const DATA: usize = 1 << 20;
/// Keys and values of an object's annotations (TotalAnnotationSizeLimitB), hoist's own among them.
const ANNOTATIONS: usize = 256 << 10;
/// What hoist adds to them: a name and a SHA-256.
const OWN: usize = 100;
/// A request to etcd, unless --max-request-bytes says otherwise.
const REQUEST: usize = 1536 << 10;

/// Every object of the asset directory, add-ons included, that is larger than its limit.
pub(super) fn check(inventory: &Inventory<'_>) -> Vec<Finding> {
    let request = request_limit(inventory.cluster);
    let all = inventory.objects.iter().chain(&inventory.addons).map(|object| &object.0);
    let all = all.filter(|parsed| parsed.is_applied());
    all.flat_map(|parsed| of_object(parsed, request)).chain(kept_inventory(inventory)).collect()
}

/// What hoist notes of add-ons, in one ConfigMap: a line for each object.
fn kept_inventory(inventory: &Inventory<'_>) -> Option<Finding> {
    let of = |object: &Object| {
        let text = |pointer| object.value().pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
        Entry {
            rank: u32::MAX,
            version: text("/apiVersion"),
            kind: text("/kind"),
            namespace: text("/metadata/namespace"),
            name: text("/metadata/name"),
        }
    };
    let noted: Noted = inventory.addons.iter().filter(|object| object.0.is_applied()).map(of).collect();
    let size = noted.text().len();
    (size > DATA).then(|| {
        let message = format!(
            "the inventory of add-ons, a ConfigMap, would have {} KiB, and {} KiB are the limit",
            size >> 10,
            DATA >> 10
        );
        let finding = Finding::new(inventory.dir.join("addons").display().to_string(), message);
        finding.remedy("apply a part of the add-ons in another way, such as kubectl")
    })
}

/// What guard keeps on this controller and in the cluster.
pub(super) fn guards_copy(assets: &AssetSet, cluster: &Cluster, controller: &Controller, dir: &Path) -> Vec<Finding> {
    if !guard_pod::is_wanted(assets) {
        return Vec::new();
    }
    let (copy, left_out) = kept_copy::Copy::fitting(assets, cluster, controller, kept_copy::LIMIT);
    let mut findings: Vec<_> = left_out
        .iter()
        .map(|path| {
            let message = format!("does not fit into guard's copy, which has {} MiB", kept_copy::LIMIT >> 20);
            Finding::new(dir.join(path).display().to_string(), message).warning().remedy(
                "`hoist recover` lacks it if the asset directory is lost: keep a backup (`hoist backup`), or move what the control plane does not need to addons/",
            )
        })
        .collect();
    let size = copy.shared().to_json().len();
    if size > DATA {
        let message =
            format!("guard's copy, without manifests, has {} KiB, and a Secret {} KiB at most", size >> 10, DATA >> 10);
        let finding = Finding::new(dir.display().to_string(), message);
        findings
            .push(finding.remedy("make the files of tls/ and bootstrap-manifests/ smaller: the copy consists of them"));
    }
    findings
}

/// How many bytes etcd takes of a request.
fn request_limit(cluster: &Cluster) -> usize {
    let own = match &cluster.etcd {
        Etcd::Local { extra_args, .. } => extra_args.iter().rfind(|arg| arg.name == "max-request-bytes"),
        // Whoever runs it may have set another.
        Etcd::External { .. } => return usize::MAX,
    };
    own.and_then(|arg| arg.value.parse().ok()).unwrap_or(REQUEST)
}

fn of_object(parsed: &Parsed, request: usize) -> Vec<Finding> {
    let value = &parsed.document.value;
    let kind = value["kind"].as_str().unwrap_or_default();
    let finding = |field: &str, message: String, remedy: &str| {
        let at = parsed.document.positions.nearest(field).or(Some((parsed.document.line, 1)));
        Finding::new(&parsed.place, message).at(at).remedy(remedy)
    };
    let mut findings = Vec::new();
    let data = match kind {
        "Secret" | "ConfigMap" => data(value, kind),
        _ => 0,
    };
    if data > DATA {
        let mut fields = ["data", "stringData", "binaryData"].into_iter();
        let field = fields.find(|field| value.get(field).is_some()).unwrap_or("data");
        let message = format!("{field}: the {kind} has {} KiB, and {} KiB are the limit", data >> 10, DATA >> 10);
        findings.push(finding(
            field,
            message,
            "split it into several, or bring its content to the pods in an image or a volume",
        ));
    } else if strings(value) > request {
        // Strings alone: however it is written down, it is no shorter.
        let size = strings(value);
        let message = format!("the {kind} has {} KiB, and etcd takes {} KiB of one object", size >> 10, request >> 10);
        findings.push(finding(
            "",
            message,
            "split it, or raise max-request-bytes in etcd.local.extraArgs of cluster.yaml",
        ));
    }
    for path in ["/metadata/annotations", "/spec/template/metadata/annotations"] {
        let own = if path.starts_with("/metadata") { OWN } else { 0 };
        let entries = value.pointer(path).and_then(Value::as_object).into_iter().flatten();
        let size: usize = entries.map(|(key, value)| key.len() + value.as_str().map_or(0, str::len)).sum();
        if size + own > ANNOTATIONS {
            let field = path.trim_start_matches('/').replace('/', ".");
            let message = format!("{field}: have {} KiB, and {} KiB are the limit", size >> 10, ANNOTATIONS >> 10);
            findings.push(finding(
                &field,
                message,
                "leave out what a tool has stored there, such as kubectl.kubernetes.io/last-applied-configuration",
            ));
        }
    }
    findings
}

/// The bytes of a Secret's or ConfigMap's values, as the API server counts them.
fn data(value: &Value, kind: &str) -> usize {
    let of = |field: &str, is_encoded: bool| -> usize {
        let entries = value[field].as_object().into_iter().flatten();
        let size = |text: &str| match is_encoded {
            true => {
                let plain: String = text.chars().filter(|c| !c.is_ascii_whitespace()).collect();
                base64::engine::general_purpose::STANDARD.decode(plain).map_or(text.len() / 4 * 3, |bytes| bytes.len())
            }
            false => text.len(),
        };
        entries.map(|(_, value)| value.as_str().map_or(0, size)).sum()
    };
    match kind {
        "Secret" => of("data", true) + of("stringData", false),
        _ => of("data", false) + of("binaryData", true),
    }
}

/// The bytes of every string in `value`.
fn strings(value: &Value) -> usize {
    match value {
        Value::String(text) => text.len(),
        Value::Array(items) => items.iter().map(strings).sum(),
        Value::Object(fields) => fields.values().map(strings).sum(),
        _ => 0,
    }
}
