//! The state of the manifests' objects in the cluster: from which manifest each was applied. For groups with many
//! manifests, one list replaces a request for each object.

use std::collections::{BTreeMap, BTreeSet};

use futures::StreamExt;
use kube::api::{Api, DynamicObject, ListParams, PartialObjectMeta};
use kube::{Client, ResourceExt};

use super::{CONCURRENT, MANIFEST_SUM};
use crate::api::resources::Resources;
use crate::api::{Verdict, pages, verdict};
use crate::base::error::{Error, Result};
use crate::desired::assets::Manifest;

/// From so many manifests of a kind in a namespace on, one list says what stands instead of a question for each.
const LIST_FROM: usize = 16;
/// How many objects a list may have at once.
const PAGE: u32 = 500;

/// An object that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LiveObject {
    /// The sum of the manifest that it was applied from, if it was applied from one.
    pub sum: Option<String>,
    /// Its resourceVersion.
    pub version: String,
}

impl LiveObject {
    fn of(object: &PartialObjectMeta<DynamicObject>) -> Self {
        let sum = object.annotations().get(MANIFEST_SUM).cloned();
        Self { sum, version: object.resource_version().unwrap_or_default() }
    }
}

/// What identifies the list that an object is in: apiVersion, kind and namespace.
type Group<'a> = (&'a str, &'a str, &'a str);

/// What is there of the objects of `manifests`, in their order; `None` for one that is not, or of a kind that is not
/// served.
///
/// # Errors
/// The API server's word.
pub(super) async fn live_objects(
    client: &Client,
    known: &Resources,
    manifests: &[&Manifest],
) -> Result<Vec<Option<LiveObject>>> {
    let mut groups: BTreeMap<Group<'_>, Vec<&Manifest>> = BTreeMap::new();
    for manifest in manifests {
        groups.entry(group(manifest)).or_default().push(manifest);
    }
    groups.retain(|_, manifests| manifests.len() >= LIST_FROM);
    let lists = groups.into_iter().filter_map(|(group, manifests)| {
        let api = known.api(client, manifests.first()?)?;
        Some(async move { Ok::<_, Error>((group, list(&api, &manifests).await?)) })
    });
    let mut lists = futures::stream::iter(lists).buffer_unordered(CONCURRENT);
    let mut listed = BTreeMap::new();
    while let Some(list) = lists.next().await {
        if let (group, Some(there)) = list? {
            listed.insert(group, there);
        }
    }
    drop(lists);
    let listed = &listed;
    let questions = manifests.iter().map(|manifest| async move {
        let name = manifest.text("/metadata/name");
        if let Some(there) = listed.get(&group(manifest)) {
            return Ok(there.get(name).cloned());
        }
        let Some(api) = known.api(client, manifest) else { return Ok(None) };
        let there = api.get_metadata_opt(name).await;
        let there = there.map_err(|error| crate::api::failed(format!("apply {}", manifest.path), &error))?;
        Ok(there.as_ref().map(LiveObject::of))
    });
    let answers: Vec<Result<_>> = futures::stream::iter(questions).buffered(CONCURRENT).collect().await;
    answers.into_iter().collect()
}

/// What is there of the objects of `manifests`, page by page; `None` where the API server does not let them be listed.
async fn list(api: &Api<DynamicObject>, manifests: &[&Manifest]) -> Result<Option<BTreeMap<String, LiveObject>>> {
    let names: BTreeSet<_> = manifests.iter().map(|manifest| manifest.text("/metadata/name")).collect();
    let mut found = BTreeMap::new();
    let params = ListParams::default().limit(PAGE);
    let listed = pages::each(
        params,
        async |params| api.list_metadata(params).await,
        |object| {
            // There may be many more objects than manifests.
            if names.contains(&*object.name_any()) {
                found.insert(object.name_any(), LiveObject::of(&object));
            }
        },
    );
    match listed.await {
        Ok(()) => Ok(Some(found)),
        Err(error) if matches!(verdict(&error), Verdict::Refused | Verdict::Missing) => Ok(None),
        Err(error) => Err(crate::api::failed("read what stands already", &error)),
    }
}

fn group(manifest: &Manifest) -> Group<'_> {
    (manifest.text("/apiVersion"), manifest.text("/kind"), manifest.text("/metadata/namespace"))
}
