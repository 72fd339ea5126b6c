//! Kinds must be served by the API server's version, and the configurations of the kubelet and of kube-proxy readable
//! by their versions.

use serde_json::Value;

use super::inventory::{Inventory, Object, Running};
use crate::base::error::Finding;
use crate::base::yaml::{self, Position, child};
use crate::desired::known_flags::Program;
use crate::desired::schema::{self, Config, Problem};

/// The kubelets' configurations, of controllers and of workers.
const KUBELET: [&str; 2] = ["kubelet/config.yaml", "kubelet/worker-config.yaml"];
/// The key of kube-proxy's in its ConfigMap.
const PROXY: &str = "config.conf";

pub(super) fn check(inventory: &Inventory<'_>) -> Vec<Finding> {
    let mut findings = served(inventory);
    for path in KUBELET {
        let text = inventory.assets.text(path);
        if let Some(file) = text.ok().and_then(|text| Object::of_file(inventory.dir, path, &text)) {
            let version = inventory.cluster.kubernetes_version;
            let problems = schema::check_config(Config::Kubelet, file.value(), version, "");
            findings.extend(problems.into_iter().map(|problem| {
                let position = if problem.is_unknown { file.key(&problem.path) } else { file.position(&problem.path) };
                finding(file.place(), &problem.path.clone(), problem, "the kubelet").at(position)
            }));
        }
    }
    findings.extend(kube_proxy(inventory));
    findings
}

/// What the component that reads it exits on is an error; what it passes over may have been meant for another version.
fn finding(place: &str, path: &str, problem: Problem, who: &str) -> Finding {
    let passed_over = if problem.is_unknown { format!(": {who} passes over it") } else { String::new() };
    let finding = Finding::new(place, format!("{path}: {}{passed_over}", problem.message));
    let remedy =
        problem.remedy.unwrap_or_else(|| "see the reference of that configuration at kubernetes.io".to_owned());
    if problem.is_unknown { finding.warning().remedy(remedy) } else { finding.remedy(remedy) }
}

/// Objects of kinds that the API server does not serve.
fn served(inventory: &Inventory<'_>) -> Vec<Finding> {
    let running = inventory.running();
    let servers: Vec<_> = running.iter().filter(|run| run.program == Program::ApiServer && !run.is_bridge()).collect();
    let version = servers.first().map_or(inventory.cluster.kubernetes_version, |run| run.version(inventory.cluster));
    // Without a server here, nothing is known of its flags.
    let is_on = |version: &str| servers.is_empty() || servers.iter().any(|run| switches_on(run, version));
    let objects = || inventory.objects.iter().chain(&inventory.addons).filter(|object| !object.is_static());
    // What a custom resource or another API server adds to a group.
    let added: Vec<_> = objects()
        .filter(|object| ["CustomResourceDefinition", "APIService"].contains(&object.kind()))
        .filter_map(|object| object.value().pointer("/spec/group")?.as_str())
        .collect();
    let mut findings = Vec::new();
    for object in objects().filter(|object| !added.contains(&object.api_group())) {
        if let Some(unserved) = schema::unserved(object.value(), version, is_on) {
            let remedy = unserved.remedy.unwrap_or_else(|| "`kubectl api-resources` names what is served".to_owned());
            findings.push(object.finding(unserved.field, unserved.message).remedy(remedy));
        }
    }
    findings
}

/// Whether an API server's `runtime-config` switches an apiVersion on.
fn switches_on(run: &Running<'_>, api_version: &str) -> bool {
    let stage = if api_version.contains("alpha") { "api/alpha" } else { "api/beta" };
    let configs = run.args.iter().filter(|arg| arg.name == "runtime-config");
    configs.flat_map(|arg| arg.value.split(',')).any(|entry| {
        let (name, value) = entry.split_once('=').unwrap_or((entry, "true"));
        // A resource of it can be named, too.
        let is_it = name.strip_prefix(api_version).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        value != "false" && (is_it || name == stage || name == "api/all" || name.contains('$'))
    })
}

/// kube-proxy's configuration, which is a text in a ConfigMap.
fn kube_proxy(inventory: &Inventory<'_>) -> Vec<Finding> {
    let Some(map) = inventory.object("ConfigMap", "kube-system", "kube-proxy") else { return Vec::new() };
    let Some(text) = map.value().pointer("/data/config.conf").and_then(Value::as_str) else { return Vec::new() };
    let path = child("data", PROXY);
    let at = |position: Option<Position>| inside(inventory, map, &path, position).or_else(|| map.position(&path));
    let documents = match yaml::documents(map.place(), text) {
        Ok(documents) => documents,
        Err(findings) => {
            let placed = |found: Finding| {
                let position = at(found.position);
                found.at(position)
            };
            return findings.into_iter().map(placed).collect();
        }
    };
    let mut findings = Vec::new();
    for document in documents.iter().take(1) {
        let version = inventory.cluster.kubernetes_version;
        for problem in schema::check_config(Config::KubeProxy, &document.value, version, "") {
            let position = if problem.is_unknown {
                document.positions.key(&problem.path)
            } else {
                document.positions.nearest(&problem.path)
            };
            let path = format!("{path}: {}", problem.path);
            findings.push(finding(map.place(), &path, problem, "kube-proxy").at(at(position)));
        }
    }
    findings
}

/// Where in its file a position of a text is that stands there as a block (`|`).
fn inside(inventory: &Inventory<'_>, object: &Object, path: &str, position: Option<Position>) -> Option<Position> {
    let (line, column) = position?;
    let (first, _) = object.key(path)?;
    let text = inventory.assets.text(object.path()).ok()?;
    let is_block = text.lines().nth(first.checked_sub(1)?)?.trim_end().ends_with(['|', '-', '+']);
    let below = text.lines().skip(first).find(|line| !line.trim().is_empty())?;
    is_block.then(|| (first + line, below.len() - below.trim_start().len() + column))
}
