//! Tenants as `hoist hosting status` shows them. Pure but for one list.

use kube::Client;
use kube::api::{Api, DynamicObject, ListParams};
use serde_json::Value;

use super::{conditions, live, resource};
use crate::api::{self, Verdict};
use crate::base::error::{Error, Result};
use crate::base::input;

/// All tenants, or those of a namespace.
///
/// # Errors
/// There is no operator; the API server's word.
pub async fn list(client: &Client, namespace: Option<&str>) -> Result<Vec<Value>> {
    let api: Api<DynamicObject> = match namespace {
        Some(namespace) => Api::namespaced_with(client.clone(), namespace, &resource()),
        None => Api::all_with(client.clone(), &resource()),
    };
    let list = api.list(&ListParams::default()).await.map_err(|error| match api::verdict(&error) {
        Verdict::Missing => Error::Failed {
            action: "list hosted control planes".into(),
            cause: "this cluster does not know them".into(),
            next: Some("`hoist hosting install` teaches it".into()),
        },
        _ => api::failed("list hosted control planes", &error),
    })?;
    Ok(list.items.into_iter().filter_map(|object| serde_json::to_value(object).ok()).collect())
}

/// The admin's kubeconfig of a tenant.
///
/// # Errors
/// There is none yet; the API server's word.
pub async fn kubeconfig(client: &Client, namespace: &str, name: &str) -> Result<String> {
    let what = format!("read the kubeconfig of {namespace}/{name}");
    let secret = live::get(client, "Secret", namespace, &format!("{name}-kubeconfig")).await;
    let secret = secret.map_err(|error| api::failed(&*what, &error))?;
    let text = secret.and_then(|secret| input::base64(secret["data"]["kubeconfig"].as_str()?));
    text.and_then(|text| String::from_utf8(text).ok()).ok_or_else(|| Error::Failed {
        action: what,
        cause: "there is none".into(),
        next: Some(format!("`hoist hosting status --namespace {namespace}` shows the tenants, and what they wait for")),
    })
}

/// The Ready condition of a tenant.
fn ready(tenant: &Value) -> Option<&Value> {
    tenant["status"]["conditions"].as_array()?.iter().find(|one| one["type"] == conditions::READY)
}

/// Whether a tenant is ready, and said to be so of what its spec is now.
pub fn is_ready(tenant: &Value) -> bool {
    let of_now = |one: &Value| one["observedGeneration"] == tenant["metadata"]["generation"];
    ready(tenant).is_some_and(|one| one["status"] == "True" && of_now(one))
}

/// Tenants for people: a line for each, and beneath it what is not as it shall be.
pub fn text(tenants: &[Value]) -> String {
    let or = |value: &Value| match value {
        Value::String(text) => text.chars().filter(|c| !c.is_control()).collect(),
        Value::Number(number) => number.to_string(),
        _ => "-".to_owned(),
    };
    let mut rows = vec![["NAMESPACE", "NAME", "VERSION", "READY", "ADDRESS", "NODES"].map(str::to_owned)];
    for tenant in tenants {
        let (metadata, status) = (&tenant["metadata"], &tenant["status"]);
        let ready = if is_ready(tenant) { "yes" } else { "no" }.to_owned();
        let of = [&metadata["namespace"], &metadata["name"], &status["version"]].map(or);
        let [namespace, name, version] = of;
        rows.push([namespace, name, version, ready, or(&status["endpoint"]), or(&status["nodes"])]);
    }
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or_default();
    let widths: Vec<_> = (0..rows[0].len()).map(width).collect();
    let mut said = String::new();
    for (number, row) in rows.iter().enumerate() {
        let line: Vec<_> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        said.push_str(line.join("   ").trim_end());
        said.push('\n');
        let Some(tenant) = number.checked_sub(1).and_then(|number| tenants.get(number)) else { continue };
        let all = tenant["status"]["conditions"].as_array().into_iter().flatten();
        for one in all.filter(|one| one["type"] != conditions::READY && one["status"] != "True") {
            said.push_str(&format!("    {}: {}: {}\n", or(&one["type"]), or(&one["reason"]), or(&one["message"])));
        }
        if tenant["status"]["conditions"].is_null() {
            said.push_str(
                "    no operator has looked at it: `kubectl -n hoist-hosting get pods` shows whether there is one\n",
            );
        }
    }
    said
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_line_for_each_and_what_is_not_as_it_shall_be() {
        let one = json!({"metadata": {"namespace": "n", "name": "a", "generation": 1}, "status": {"version": "v1.37.2",
            "endpoint": "192.0.2.7:30443", "nodes": 2, "conditions": [
                {"type": "Ready", "status": "True", "observedGeneration": 1}]}});
        let mut other = one.clone();
        other["metadata"]["name"] = json!("bb");
        other["status"] = json!({"conditions": [{"type": "EtcdReady", "status": "False", "reason": "NotMounted",
            "message": "make the folder"}, {"type": "Ready", "status": "False", "observedGeneration": 1}]});
        let text = super::text(&[one.clone(), other]);
        assert_eq!(
            text,
            "\
NAMESPACE   NAME   VERSION   READY   ADDRESS           NODES
n           a      v1.37.2   yes     192.0.2.7:30443   2
n           bb     -         no      -                 -
    EtcdReady: NotMounted: make the folder
"
        );
        let mut edited = one;
        edited["metadata"]["generation"] = json!(2);
        assert!(!is_ready(&edited), "what was said is about an older spec");
    }
}
