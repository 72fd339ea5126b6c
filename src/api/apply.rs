//! Applies the manifests of an asset directory: in stages that build on each other, concurrently within a stage,
//! server-side.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, DynamicObject, ListParams, Patch, PatchParams, ValidationDirective};
use kube::core::{ApiResource, GroupVersion};
use kube::discovery::{self, Scope};
use kube::{Client, ResourceExt};
use serde_json::{Map, Value};

use super::{FIELD_MANAGER, explain, is_not_found, is_refusal};
use crate::assets::Manifest;
use crate::error::{Error, Finding, Result};
use crate::files;

/// How many requests are under way at once.
const CONCURRENT: usize = 16;
/// From so many manifests of a kind in a namespace on, one list says what stands instead of a question for each.
const LIST_FROM: usize = 16;
/// How many objects a list may have at once.
const PAGE: u32 = 500;
/// How long a CRD may take to be established before the whole apply is tried again, in seconds.
const ESTABLISH_LIMIT: u64 = 10;

/// Says which manifest an object was applied from. While that is unchanged, what a user has edited since stands.
pub(super) const MANIFEST_SUM: &str = "hoist/manifest-sha256";

const OWN_NAMESPACES: [&str; 5] = ["", "default", "kube-node-lease", "kube-public", "kube-system"];

/// What an API server said to the manifests.
#[derive(Debug, Default)]
pub struct Outcome {
    /// How many objects stand as their manifests have it.
    pub applied: usize,
    /// Objects that it refused, each with its file.
    pub refused: Vec<Refusal>,
}

/// An object that the API server refused.
#[derive(Debug, Clone)]
pub struct Refusal {
    /// Its kind.
    pub kind: String,
    /// Its namespace; empty where there is none.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// File, line and reason.
    pub finding: Finding,
}

/// The stage an object belongs to; a stage begins when the one before it is done.
fn stage(kind: &str) -> usize {
    match kind {
        "Namespace" => 0,
        "CustomResourceDefinition" => 1,
        "ServiceAccount" | "Role" | "RoleBinding" | "ClusterRole" | "ClusterRoleBinding" | "PriorityClass" => 2,
        "Secret" | "ConfigMap" => 3,
        _ => 4,
    }
}

/// Applies `manifests`, but for those that their objects were applied from already, unless `force` says so. One that is
/// refused does not stop the others.
///
/// # Errors
/// A lost connection or an overloaded API server: what was not applied is applied by calling again.
pub async fn apply(client: &Client, manifests: &[Manifest], force: bool) -> Result<Outcome> {
    let mut outcome = Outcome::default();
    let mut known = Resources::default();
    for number in 0..=4 {
        let of_stage: Vec<_> = manifests.iter().filter(|manifest| stage(text(manifest, "/kind")) == number).collect();
        known.discover(client, &of_stage).await?;
        known.await_custom(client, &of_stage).await?;
        let standing = Standing::list(client, &known, &of_stage).await?;
        let requests = of_stage.iter().map(|manifest| apply_one(client, &known, &standing, manifest, force));
        let mut answers = futures::stream::iter(requests).buffer_unordered(CONCURRENT);
        while let Some(answer) = answers.next().await {
            match answer? {
                None => outcome.applied += 1,
                Some(refusal) => outcome.refused.push(refusal),
            }
        }
        drop(answers);
        for manifest in of_stage.iter().filter(|_| number == 1) {
            if establish(client, text(manifest, "/metadata/name")).await? {
                known.expect(manifest);
            }
        }
    }
    outcome.refused.sort_by(|a, b| a.finding.place.cmp(&b.finding.place));
    Ok(outcome)
}

async fn apply_one<'a>(
    client: &Client,
    known: &Resources,
    standing: &Standing<'a>,
    manifest: &'a Manifest,
    force: bool,
) -> Result<Option<Refusal>> {
    let (kind, namespace, name) =
        (text(manifest, "/kind"), text(manifest, "/metadata/namespace"), text(manifest, "/metadata/name"));
    let refuse = |reason: String| {
        let finding = Finding::new(&manifest.path, reason).at(Some((manifest.line, 1)));
        Ok(Some(Refusal { kind: kind.into(), namespace: namespace.into(), name: name.into(), finding }))
    };
    let Some(api) = known.api(client, manifest) else {
        return refuse(format!("the API server knows no {kind} of {}", text(manifest, "/apiVersion")));
    };
    let failed = |error: &kube::Error| Error::failed(format!("apply {}", manifest.path), explain(error));
    let sum = files::sha256(manifest.object.to_string().as_bytes());
    let unchanged = match standing.of(manifest) {
        _ if force => false,
        Some(sums) => sums.get(name) == Some(&sum),
        None => {
            let there = api.get_metadata_opt(name).await.map_err(|error| failed(&error))?;
            there.is_some_and(|there| there.annotations().get(MANIFEST_SUM) == Some(&sum))
        }
    };
    if unchanged {
        return Ok(None);
    }
    let mut object = manifest.object.clone();
    // What is no object here is refused by the API server.
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        let annotations = metadata.entry("annotations").or_insert(Value::Null);
        if annotations.is_null() {
            *annotations = Value::Object(Map::new());
        }
        if let Some(annotations) = annotations.as_object_mut() {
            annotations.insert(MANIFEST_SUM.into(), sum.into());
        }
    }
    // Its own check of the fields would make the API server parse each object twice, for warnings that nobody reads: an
    // unknown field is refused in any case, and `assets` has reported duplicate keys.
    let mut params = PatchParams::apply(FIELD_MANAGER).force();
    params.field_validation = Some(ValidationDirective::Ignore);
    // All of the object need not come back.
    match api.patch_metadata(name, &params, &Patch::Apply(&object)).await {
        Ok(_) => Ok(None),
        // The API server makes these namespaces itself, moments after its start; any other that is missing stays so.
        Err(error) if is_not_found(&error) && OWN_NAMESPACES.contains(&namespace) => Err(failed(&error)),
        Err(error) if is_not_found(&error) && known.is_custom(manifest) => Err(failed(&error)),
        Err(error) if is_refusal(&error) || is_not_found(&error) => refuse(explain(&error)),
        Err(error) => Err(failed(&error)),
    }
}

/// Waits until a CRD is established; false when there is none.
async fn establish(client: &Client, name: &str) -> Result<bool> {
    // Of all that a CRD says, its conditions: its type in full is a hundred others that nothing else here reads.
    let api: Api<DynamicObject> = Api::all_with(client.clone(), &ApiResource::erase::<CustomResourceDefinition>(&()));
    for _ in 0..ESTABLISH_LIMIT * 10 {
        match api.get_opt(name).await {
            Ok(Some(crd)) => {
                let conditions = crd.data.pointer("/status/conditions").and_then(Value::as_array);
                if conditions.is_some_and(|all| all.iter().any(|c| c["type"] == "Established" && c["status"] == "True"))
                {
                    return Ok(true);
                }
            }
            // Refused a moment ago, and reported as such.
            Ok(None) => return Ok(false),
            Err(error) => return Err(Error::failed(format!("read the CRD {name}"), explain(&error))),
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Err(Error::failed(format!("use the CRD {name}"), "it is not established yet"))
}

/// The resources that the API server serves, of the groups that the manifests name.
#[derive(Default)]
struct Resources {
    asked: BTreeSet<String>,
    found: BTreeMap<(String, String), (ApiResource, Scope)>,
    /// Versions and kinds that established CRDs make: those that are not served yet will be.
    custom: BTreeSet<(String, String)>,
}

impl Resources {
    /// Asks for the groups of these manifests that were not asked for before.
    async fn discover(&mut self, client: &Client, manifests: &[&Manifest]) -> Result<()> {
        let versions: BTreeSet<_> = manifests.iter().map(|manifest| text(manifest, "/apiVersion").to_owned()).collect();
        for version in versions.difference(&self.asked.clone()) {
            let Ok(group) = version.parse::<GroupVersion>() else { continue };
            let resources = match discovery::pinned_group(client, &group).await {
                Ok(found) => found.versioned_resources(&group.version),
                Err(error) if is_not_found(&error) => Vec::new(),
                Err(error) => return Err(Error::failed(format!("learn about {version}"), explain(&error))),
            };
            for (resource, capabilities) in resources {
                self.found.insert((version.clone(), resource.kind.clone()), (resource, capabilities.scope));
            }
            self.asked.insert(version.clone());
        }
        Ok(())
    }

    /// Notes what an established CRD makes.
    fn expect(&mut self, crd: &Manifest) {
        let (group, kind) = (text(crd, "/spec/group"), text(crd, "/spec/names/kind"));
        let versions = crd.object.pointer("/spec/versions").and_then(serde_json::Value::as_array);
        for version in versions.into_iter().flatten().filter(|version| version["served"] == true) {
            let name = version["name"].as_str().unwrap_or_default();
            self.custom.insert((format!("{group}/{name}"), kind.to_owned()));
        }
    }

    /// Waits until the kinds of these manifests are served that established CRDs make: they are moments later.
    async fn await_custom(&mut self, client: &Client, manifests: &[&Manifest]) -> Result<()> {
        for _ in 0..ESTABLISH_LIMIT * 10 {
            let late = manifests.iter().filter(|manifest| self.is_custom(manifest) && self.get(manifest).is_none());
            let late: BTreeSet<_> = late.map(|manifest| text(manifest, "/apiVersion").to_owned()).collect();
            if late.is_empty() {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
            self.asked.retain(|version| !late.contains(version));
            self.discover(client, manifests).await?;
        }
        Err(Error::failed("use the kinds of the CRDs", "they are not served yet"))
    }

    fn is_custom(&self, manifest: &Manifest) -> bool {
        self.custom.contains(&key(manifest))
    }

    fn get(&self, manifest: &Manifest) -> Option<(&ApiResource, &Scope)> {
        self.found.get(&key(manifest)).map(|(resource, scope)| (resource, scope))
    }

    /// Where a manifest's object is; `None` for a kind that is not served.
    fn api(&self, client: &Client, manifest: &Manifest) -> Option<Api<DynamicObject>> {
        let (resource, scope) = self.get(manifest)?;
        Some(match (scope, text(manifest, "/metadata/namespace")) {
            (Scope::Cluster, _) => Api::all_with(client.clone(), resource),
            (Scope::Namespaced, "") => Api::default_namespaced_with(client.clone(), resource),
            (Scope::Namespaced, namespace) => Api::namespaced_with(client.clone(), namespace, resource),
        })
    }
}

/// What identifies the list that an object is in: apiVersion, kind and namespace.
type Group<'a> = (&'a str, &'a str, &'a str);

/// From which manifests the objects were applied that stand already, of groups with many manifests.
#[derive(Default)]
struct Standing<'a>(BTreeMap<Group<'a>, BTreeMap<String, String>>);

impl<'a> Standing<'a> {
    async fn list(client: &Client, known: &Resources, manifests: &[&'a Manifest]) -> Result<Self> {
        let mut groups: BTreeMap<Group<'a>, Vec<&'a Manifest>> = BTreeMap::new();
        for manifest in manifests {
            groups.entry(group(manifest)).or_default().push(manifest);
        }
        groups.retain(|_, manifests| manifests.len() >= LIST_FROM);
        let lists = groups.into_iter().filter_map(|(group, manifests)| {
            let api = known.api(client, manifests.first()?)?;
            Some(async move { Ok::<_, Error>((group, sums(&api, &manifests).await?)) })
        });
        let mut lists = futures::stream::iter(lists).buffer_unordered(CONCURRENT);
        let mut standing = Self::default();
        while let Some(list) = lists.next().await {
            if let (group, Some(sums)) = list? {
                standing.0.insert(group, sums);
            }
        }
        Ok(standing)
    }

    /// The sums of a manifest's group, by name; `None` where they were not listed.
    fn of(&self, manifest: &'a Manifest) -> Option<&BTreeMap<String, String>> {
        self.0.get(&group(manifest))
    }
}

/// The sums that the objects of `manifests` bear, page by page; `None` where the API server does not let them be listed.
async fn sums(api: &Api<DynamicObject>, manifests: &[&Manifest]) -> Result<Option<BTreeMap<String, String>>> {
    let names: BTreeSet<_> = manifests.iter().map(|manifest| text(manifest, "/metadata/name")).collect();
    let mut sums = BTreeMap::new();
    let mut params = ListParams::default().limit(PAGE);
    loop {
        let page = match api.list_metadata(&params).await {
            Err(error) if is_refusal(&error) || is_not_found(&error) => return Ok(None),
            page => page.map_err(|error| Error::failed("read what stands already", explain(&error)))?,
        };
        // There may be many more objects than manifests.
        for object in page.items.iter().filter(|object| names.contains(&*object.name_any())) {
            if let Some(sum) = object.annotations().get(MANIFEST_SUM) {
                sums.insert(object.name_any(), sum.clone());
            }
        }
        match page.metadata.continue_ {
            Some(token) if !token.is_empty() => params = params.continue_token(&token),
            _ => return Ok(Some(sums)),
        }
    }
}

fn key(manifest: &Manifest) -> (String, String) {
    (text(manifest, "/apiVersion").to_owned(), text(manifest, "/kind").to_owned())
}

fn group(manifest: &Manifest) -> Group<'_> {
    (text(manifest, "/apiVersion"), text(manifest, "/kind"), text(manifest, "/metadata/namespace"))
}

fn text<'a>(manifest: &'a Manifest, pointer: &str) -> &'a str {
    manifest.object.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

#[cfg(test)]
mod tests;
