//! Applies manifests server-side, concurrently. [`apply`] applies those of the control plane, in stages that build on
//! each other. [`Applier`] applies any manifests, in the caller's order.

mod live;
mod preview;

use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::Client;
use kube::ResourceExt;
use kube::api::{Api, DynamicObject, Patch, PatchParams, ValidationDirective};
use kube::core::ApiResource;
use serde_json::{Map, Value};

use super::inventory::{self, Jobs};
use super::resources::Resources;
use super::{FIELD_MANAGER, Verdict, explain, failed, verdict};
use crate::base::error::{Error, Finding, Result};
use crate::desired::assets::Manifest;

pub use live::LiveObject;
pub use preview::Preview;

/// How many requests are under way at once.
const CONCURRENT: usize = 16;

/// Says which manifest an object was applied from. While that is unchanged, what a user has edited since stands.
pub(super) const MANIFEST_SUM: &str = "hoist/manifest-sha256";

const OWN_NAMESPACES: [&str; 5] = ["", "default", "kube-node-lease", "kube-public", "kube-system"];

/// What an API server said to the manifests.
#[derive(Debug, Default)]
pub struct Outcome {
    /// How many objects stand as their manifests have it.
    pub applied: usize,
    /// What became of those that did not stand before.
    pub changes: Vec<Applied>,
    /// Objects that it refused, each with its file.
    pub refused: Vec<Refusal>,
}

impl Outcome {
    /// Refuses where the API server has refused any.
    ///
    /// # Errors
    /// All that it has refused.
    pub fn accepted(self) -> Result<Self> {
        match self.refused.is_empty() {
            true => Ok(self),
            false => Err(Error::Refused(self.refused.into_iter().map(|refusal| refusal.finding).collect())),
        }
    }
}

/// An object as people name it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Name {
    /// Its kind.
    pub kind: String,
    /// Its namespace; empty where there is none.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

/// An object that was applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applied {
    /// Which.
    pub name: Name,
    /// What that did to it.
    pub change: Change,
}

/// What applying did to an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// It was not there.
    Created,
    /// It was there and differed.
    Configured,
    /// It was there, and as it should be.
    Unchanged,
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

/// What came of one object.
#[derive(Debug)]
pub enum Answer {
    /// It stands.
    Applied(Applied),
    /// Asking again cannot help.
    Refused(Refusal),
    /// Asking again may help.
    Failed(Error),
}

/// By whom manifests are applied, and over whom.
#[derive(Debug, Clone, Copy)]
pub struct How {
    /// The field manager.
    pub manager: &'static str,
    /// Whether fields are taken over that other managers own.
    pub force_conflicts: bool,
}

impl std::fmt::Display for Name {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { kind, namespace, name } = self;
        match namespace.as_str() {
            "" => write!(f, "{kind} {name}"),
            _ => write!(f, "{kind} {namespace}/{name}"),
        }
    }
}

impl Name {
    /// How it is typed for kubectl.
    pub fn kubectl(&self) -> String {
        let Self { kind, namespace, name } = self;
        let namespace = if namespace.is_empty() { String::new() } else { format!("-n {namespace} ") };
        format!("{namespace}{}/{name}", kind.to_lowercase())
    }

    /// What a manifest's object is called.
    pub fn of(manifest: &Manifest) -> Self {
        let text = |pointer| manifest.text(pointer).to_owned();
        Self { kind: text("/kind"), namespace: text("/metadata/namespace"), name: text("/metadata/name") }
    }
}

/// The stage an object belongs to; a stage begins when the one before it is done.
fn stage(kind: &str) -> usize {
    match kind {
        "Namespace" => 0,
        "CustomResourceDefinition" => 1,
        "ServiceAccount" | "Role" | "RoleBinding" | "ClusterRole" | "ClusterRoleBinding" | "PriorityClass" => 2,
        "ValidatingAdmissionPolicy" | "ValidatingAdmissionPolicyBinding" => 2,
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
    let mut applier = Applier::new(client, How { manager: FIELD_MANAGER, force_conflicts: true });
    // Those that have gone by themselves are not run again.
    let is_asked = !force && manifests.iter().any(inventory::goes);
    let ran = if is_asked { inventory::read(client).await?.jobs } else { Jobs::default() };
    for number in 0..=4 {
        let of_stage: Vec<_> = manifests.iter().filter(|manifest| stage(manifest.text("/kind")) == number).collect();
        applier.known.discover(client, &of_stage).await?;
        applier.known.await_custom(client, &of_stage).await?;
        let there = if force { vec![None; of_stage.len()] } else { applier.look(&of_stage).await? };
        let stands =
            |(manifest, there): &(&Manifest, _)| stands(manifest, there) || there.is_none() && ran.hold(manifest);
        let wanted: Vec<_> = of_stage.iter().copied().zip(there).filter(|one| !stands(one)).collect();
        outcome.applied += of_stage.len() - wanted.len();
        let (mut jobs, mut first) = (Vec::new(), None);
        let answers = applier.apply(&wanted).await?;
        for ((manifest, _), answer) in wanted.iter().zip(answers) {
            match answer {
                Answer::Applied(applied) => {
                    jobs.extend(Some(*manifest).filter(|manifest| inventory::goes(manifest)));
                    outcome.applied += 1;
                    outcome.changes.push(applied);
                }
                Answer::Refused(refusal) => outcome.refused.push(refusal),
                Answer::Failed(error) => first = first.or(Some(error)),
            }
        }
        if !jobs.is_empty() {
            inventory::update(client, |kept| jobs.iter().for_each(|job| kept.jobs.note(job))).await?;
        }
        if let Some(error) = first {
            return Err(error);
        }
        for manifest in of_stage.iter().filter(|_| number == 1) {
            if establish(client, manifest.text("/metadata/name")).await? {
                applier.expect(manifest);
            }
        }
    }
    outcome.refused.sort_by(|a, b| a.finding.place.cmp(&b.finding.place));
    Ok(outcome)
}

/// Whether an object was applied from this manifest.
pub fn stands(manifest: &Manifest, there: &Option<LiveObject>) -> bool {
    there.as_ref().is_some_and(|there| there.sum.as_deref() == Some(&*manifest.sum()))
}

/// Applies what it is given.
pub struct Applier<'a> {
    client: &'a Client,
    how: How,
    known: Resources,
}

impl<'a> Applier<'a> {
    /// One that knows nothing of the cluster yet.
    pub fn new(client: &'a Client, how: How) -> Self {
        Self { client, how, known: Resources::default() }
    }

    /// Notes that a CRD makes its kinds, now or soon: they are waited for, and not refused.
    pub fn expect(&mut self, crd: &Manifest) {
        self.known.expect(crd);
    }

    /// What is there of the objects of `manifests`, in their order.
    ///
    /// # Errors
    /// The API server's word.
    pub async fn look(&mut self, manifests: &[&Manifest]) -> Result<Vec<Option<LiveObject>>> {
        self.known.discover(self.client, manifests).await?;
        live::live_objects(self.client, &self.known, manifests).await
    }

    /// Applies manifests, each with what was there of its object, and says in their order what came of each.
    ///
    /// # Errors
    /// The API server does not say what it serves.
    pub async fn apply(&mut self, manifests: &[(&Manifest, Option<LiveObject>)]) -> Result<Vec<Answer>> {
        let all: Vec<_> = manifests.iter().map(|(manifest, _)| *manifest).collect();
        self.known.discover(self.client, &all).await?;
        let requests = manifests.iter().map(|(manifest, there)| self.apply_one(manifest, there.as_ref()));
        Ok(futures::stream::iter(requests).buffered(CONCURRENT).collect().await)
    }

    /// A manifest's object as it is; `None` where it is not, or its kind is not served.
    ///
    /// # Errors
    /// The API server's word.
    pub async fn get(&self, manifest: &Manifest) -> Result<Option<Value>> {
        let name = manifest.text("/metadata/name");
        let Some(api) = self.known.api(self.client, manifest) else { return Ok(None) };
        let object = api.get_opt(name).await;
        let object = object.map_err(|error| failed(format!("read {}", Name::of(manifest)), &error))?;
        Ok(object.and_then(|object| serde_json::to_value(object).ok()))
    }

    async fn apply_one(&self, manifest: &Manifest, there: Option<&LiveObject>) -> Answer {
        let Some(api) = self.known.api(self.client, manifest) else { return self.unserved(manifest) };
        // All of the object need not come back.
        let (name, object) = (manifest.text("/metadata/name"), marked(manifest));
        match api.patch_metadata(name, &self.params(), &Patch::Apply(&object)).await {
            Ok(object) => {
                let change = match there {
                    None => Change::Created,
                    Some(there) if object.resource_version().as_deref() == Some(&*there.version) => Change::Unchanged,
                    Some(_) => Change::Configured,
                };
                Answer::Applied(Applied { name: Name::of(manifest), change })
            }
            Err(error) => self.judge(manifest, &error),
        }
    }

    /// Its own check of the fields would make the API server parse each object twice, for warnings that nobody reads: an
    /// unknown field is refused in any case, and `assets` has reported duplicate keys.
    fn params(&self) -> PatchParams {
        let mut params = PatchParams::apply(self.how.manager);
        params.force = self.how.force_conflicts;
        params.field_validation = Some(ValidationDirective::Ignore);
        params
    }

    /// What becomes of a manifest whose kind is not served.
    fn unserved(&self, manifest: &Manifest) -> Answer {
        let (kind, version) = (manifest.text("/kind"), manifest.text("/apiVersion"));
        if self.known.is_custom(manifest) {
            let cause = format!("the API server does not serve {kind} of {version} yet");
            return Answer::Failed(Error::failed(format!("apply {}", manifest.path), cause));
        }
        refuse(manifest, format!("the API server knows no {kind} of {version}"), None)
    }

    fn judge(&self, manifest: &Manifest, error: &kube::Error) -> Answer {
        let again = || Answer::Failed(failed(format!("apply {}", manifest.path), error));
        // The API server makes these namespaces itself, moments after its start; any other that is missing stays so.
        let is_made = OWN_NAMESPACES.contains(&manifest.text("/metadata/namespace"));
        let bound = binding(manifest, error);
        match verdict(error) {
            Verdict::Conflict => {
                let remedy = "leave those fields out of the file, or take them over: `hoist apply --force-conflicts`";
                refuse(manifest, explain(error), Some(remedy.to_owned()))
            }
            Verdict::Missing if is_made || self.known.is_custom(manifest) => again(),
            Verdict::Missing => refuse(manifest, explain(error), None),
            Verdict::Refused => refuse(manifest, explain(error), bound),
            // It will never again be as the file has it.
            Verdict::Stale if bound.is_some() => refuse(manifest, explain(error), bound),
            Verdict::Stale | Verdict::Again(_) => again(),
        }
    }
}

/// What to do about a manifest that is of one object of one cluster, as `kubectl get -o yaml` writes it, where it is
/// refused for that.
fn binding(manifest: &Manifest, error: &kube::Error) -> Option<String> {
    let text = explain(error);
    let is_for_that = verdict(error) == Verdict::Stale
        || ["uid mismatch", "UID in precondition", "managedFields must be nil"].iter().any(|said| text.contains(said));
    let fields: Vec<_> = manifest.exported().into_iter().map(|field| format!("metadata.{field}")).collect();
    (is_for_that && !fields.is_empty())
        .then(|| format!("leave {} out of the file: no other object has that", fields.join(" and ")))
}

fn refuse(manifest: &Manifest, reason: String, remedy: Option<String>) -> Answer {
    let Name { kind, namespace, name } = Name::of(manifest);
    let finding = Finding::new(&manifest.path, reason).at(Some((manifest.line, 1)));
    let finding = Finding { remedy, ..finding };
    Answer::Refused(Refusal { kind, namespace, name, finding })
}

/// A manifest's object with the sum of the manifest in it.
fn marked(manifest: &Manifest) -> Value {
    let mut object = manifest.object.clone();
    // What is no object here is refused by the API server.
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        let annotations = metadata.entry("annotations").or_insert(Value::Null);
        if annotations.is_null() {
            *annotations = Value::Object(Map::new());
        }
        if let Some(annotations) = annotations.as_object_mut() {
            annotations.insert(MANIFEST_SUM.into(), manifest.sum().into());
        }
    }
    object
}

/// Waits until a CRD is established; false when there is none.
async fn establish(client: &Client, name: &str) -> Result<bool> {
    // Of all that a CRD says, its conditions: its type in full is a hundred others that nothing else here reads.
    let api: Api<DynamicObject> = Api::all_with(client.clone(), &ApiResource::erase::<CustomResourceDefinition>(&()));
    for _ in 0..super::resources::ESTABLISH_LIMIT * 10 {
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
            Err(error) => return Err(failed(format!("read the CRD {name}"), &error)),
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Err(Error::failed(format!("use the CRD {name}"), "it is not established yet"))
}

#[cfg(test)]
mod tests;
