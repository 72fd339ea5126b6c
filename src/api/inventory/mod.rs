//! The inventory of add-ons in the cluster, and which of its objects still exist.

mod entries;
mod jobs;

use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, DeleteParams, DynamicObject, Patch, PatchParams, Preconditions};
use kube::{Client, ResourceExt, discovery};
use serde_json::json;

use super::resources::Resources;
use super::{ADDONS_MANAGER, FIELD_MANAGER, Verdict, failed, is_not_found, refused_or_failed, verdict};
use crate::base::error::{Error, Result};
use crate::desired::assets::helm;

pub use entries::{Entry, Inventory};
pub use jobs::{Jobs, goes};

/// The ConfigMap that it is.
pub const NAME: &str = "hoist-inventory";
const NAMESPACE: &str = "kube-system";
const KEY: &str = "objects";
const JOBS: &str = "jobs";
/// How often the inventory is read again, where somebody else writes it at the same time.
const TRIES: usize = 5;

/// The inventory as it was read.
#[derive(Debug, Clone, Default)]
pub struct StoredInventory {
    /// What is in it.
    pub inventory: Inventory,
    /// The Jobs beside it that may have gone by themselves.
    pub jobs: Jobs,
    /// For writing exactly this state of it.
    version: Option<String>,
}

/// Reads the inventory; one that is not there is empty.
///
/// # Errors
/// The API server's word; an inventory that somebody has edited.
pub async fn read(client: &Client) -> Result<StoredInventory> {
    let api: Api<ConfigMap> = Api::namespaced(client.clone(), NAMESPACE);
    let there = api.get_opt(NAME).await.map_err(|error| failed("read the inventory of add-ons", &error))?;
    let Some(there) = there else { return Ok(StoredInventory::default()) };
    let version = there.resource_version();
    let mut data = there.data.unwrap_or_default();
    let jobs = Jobs::parse(&data.remove(JOBS).unwrap_or_default());
    let text = data.remove(KEY).unwrap_or_default();
    let inventory = Inventory::parse(&text).map_err(|why| Error::Failed {
        action: format!("read the inventory of add-ons, the ConfigMap {NAMESPACE}/{NAME}"),
        cause: why,
        next: Some(format!(
            "take that line out (`kubectl -n {NAMESPACE} edit configmap {NAME}`): its object is never pruned then"
        )),
    })?;
    Ok(StoredInventory { inventory, jobs, version })
}

/// Whether there is one.
///
/// # Errors
/// The API server's word.
pub async fn is_there(client: &Client) -> Result<bool> {
    let api: Api<ConfigMap> = Api::namespaced(client.clone(), NAMESPACE);
    let there = api.get_metadata_opt(NAME).await;
    there.map(|there| there.is_some()).map_err(|error| failed("read the inventory of add-ons", &error))
}

/// Changes what is kept, as often as it takes where somebody else does so at the same time.
///
/// # Errors
/// The API server's word.
pub async fn update(client: &Client, change: impl Fn(&mut StoredInventory)) -> Result<()> {
    for _ in 0..TRIES {
        let before = read(client).await?;
        let mut after = before.clone();
        change(&mut after);
        if (&after.inventory, &after.jobs) == (&before.inventory, &before.jobs) || write(client, &after).await? {
            return Ok(());
        }
    }
    Err(Error::failed("write the inventory of add-ons", "another process keeps writing it"))
}

/// Writes what is kept, unless it has changed since it was read; false if so.
async fn write(client: &Client, kept: &StoredInventory) -> Result<bool> {
    let api: Api<ConfigMap> = Api::namespaced(client.clone(), NAMESPACE);
    let mut object = json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        // An empty version is that of an object that is not there.
        "metadata": { "name": NAME, "namespace": NAMESPACE, "resourceVersion": kept.version },
        "data": { (KEY): kept.inventory.text() },
    });
    if !kept.jobs.is_empty() {
        object["data"][JOBS] = kept.jobs.text().into();
    }
    match api.patch_metadata(NAME, &PatchParams::apply(FIELD_MANAGER).force(), &Patch::Apply(&object)).await {
        Ok(_) => Ok(true),
        Err(error) if matches!(verdict(&error), Verdict::Stale | Verdict::Conflict) => Ok(false),
        Err(error) => Err(failed("write the inventory of add-ons", &error)),
    }
}

/// An object of the inventory that is there.
#[derive(Debug, Clone)]
pub struct Found {
    uid: Option<String>,
    /// hoist's field manager of add-ons has applied it.
    pub is_ours: bool,
    /// It says of itself that it is to stay (`helm.sh/resource-policy: keep`).
    pub stays: bool,
    /// Who has yet to agree to its end.
    pub finalizers: Vec<String>,
}

/// Finds and deletes objects of the inventory.
pub struct Finder<'a> {
    client: &'a Client,
    known: Resources,
}

impl<'a> Finder<'a> {
    /// One that knows nothing of the cluster yet.
    pub fn new(client: &'a Client) -> Self {
        Self { client, known: Resources::default() }
    }

    /// What is there of an entry; `None` where nothing is, or its kind is not served any more.
    ///
    /// # Errors
    /// The API server's word.
    pub async fn find(&mut self, entry: &Entry) -> Result<Option<Found>> {
        let Some(api) = self.api(entry).await? else { return Ok(None) };
        let found = api.get_metadata_opt(&entry.name).await;
        let found = found.map_err(|error| failed(format!("read {entry}"), &error))?;
        Ok(found.map(|found| Found {
            uid: found.uid(),
            is_ours: found.metadata.managed_fields.iter().flatten().any(|fields| {
                fields.manager.as_deref() == Some(ADDONS_MANAGER) && fields.operation.as_deref() == Some("Apply")
            }),
            stays: helm::stays(found.annotations()),
            finalizers: found.finalizers().to_vec(),
        }))
    }

    /// Deletes what was found, and nothing that has taken its place.
    ///
    /// # Errors
    /// The API server's word.
    pub async fn delete(&mut self, entry: &Entry, found: &Found) -> Result<()> {
        let Some(api) = self.api(entry).await? else { return Ok(()) };
        let preconditions = Preconditions { uid: found.uid.clone(), resource_version: None };
        match api.delete(&entry.name, &DeleteParams::background().preconditions(preconditions)).await {
            Ok(_) => Ok(()),
            Err(error) if is_not_found(&error) => Ok(()),
            Err(error) => Err(refused_or_failed(&entry.to_string(), format!("delete {entry}"), &error)),
        }
    }

    /// Where an entry's object is, also where its version is not served any more and another one of its group is.
    async fn api(&mut self, entry: &Entry) -> Result<Option<Api<DynamicObject>>> {
        self.known.ask(self.client, &entry.version).await?;
        if let Some(api) = self.known.api_of(self.client, &entry.version, &entry.kind, &entry.namespace) {
            return Ok(Some(api));
        }
        let unknown = |error: kube::Error| failed(format!("learn about {}", entry.group()), &error);
        let group = match discovery::group(self.client, entry.group()).await {
            Ok(group) => group,
            Err(kube::Error::Discovery(_)) => return Ok(None),
            Err(error) if is_not_found(&error) => return Ok(None),
            Err(error) => return Err(unknown(error)),
        };
        let versions: Vec<_> = group
            .versions()
            .map(|version| match entry.group() {
                "" => version.to_owned(),
                name => format!("{name}/{version}"),
            })
            .collect();
        for version in versions {
            self.known.ask(self.client, &version).await?;
            if let Some(api) = self.known.api_of(self.client, &version, &entry.kind, &entry.namespace) {
                return Ok(Some(api));
            }
        }
        Ok(None)
    }
}
