//! The API resources of the manifests' kinds, as the API server serves them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use kube::Client;
use kube::api::{Api, DynamicObject};
use kube::core::{ApiResource, GroupVersion};
use kube::discovery::{self, Scope};
use serde_json::Value;

use crate::api::is_not_found;
use crate::base::error::{Error, Result};
use crate::desired::assets::Manifest;

/// How long a CRD may take to be established, and its kinds to be served, before the whole apply is tried again, in
/// seconds.
pub(super) const ESTABLISH_LIMIT: u64 = 10;

/// The resources that the API server serves, of the groups that the manifests name.
#[derive(Default)]
pub(in crate::api) struct Resources {
    asked: BTreeSet<String>,
    found: BTreeMap<(String, String), (ApiResource, Scope)>,
    /// Versions and kinds that CRDs of the set make: those that are not served yet will be.
    custom: BTreeSet<(String, String)>,
}

impl Resources {
    /// Asks for the groups of these manifests that were not asked for before, and again for those whose kinds CRDs of the
    /// set make and that were not served then.
    pub async fn discover(&mut self, client: &Client, manifests: &[&Manifest]) -> Result<()> {
        let late = manifests.iter().filter(|manifest| self.is_custom(manifest) && self.get(manifest).is_none());
        let late: BTreeSet<_> = late.map(|manifest| manifest.text("/apiVersion").to_owned()).collect();
        self.asked.retain(|version| !late.contains(version));
        let versions: BTreeSet<_> = manifests.iter().map(|manifest| manifest.text("/apiVersion").to_owned()).collect();
        for version in versions {
            self.ask(client, &version).await?;
        }
        Ok(())
    }

    /// Asks for a group and version, if that was not done before.
    pub async fn ask(&mut self, client: &Client, version: &str) -> Result<()> {
        if self.asked.contains(version) {
            return Ok(());
        }
        let Ok(group) = version.parse::<GroupVersion>() else { return Ok(()) };
        let resources = match discovery::pinned_group(client, &group).await {
            Ok(found) => found.versioned_resources(&group.version),
            Err(error) if is_not_found(&error) => Vec::new(),
            Err(error) => return Err(crate::api::failed(format!("learn about {version}"), &error)),
        };
        for (resource, capabilities) in resources {
            self.found.insert((version.to_owned(), resource.kind.clone()), (resource, capabilities.scope));
        }
        self.asked.insert(version.to_owned());
        Ok(())
    }

    /// Notes what a CRD makes, or will make once it is established.
    pub fn expect(&mut self, crd: &Manifest) {
        let (group, kind) = (crd.text("/spec/group"), crd.text("/spec/names/kind"));
        let versions = crd.object.pointer("/spec/versions").and_then(Value::as_array);
        for version in versions.into_iter().flatten().filter(|version| version["served"] == true) {
            let name = version["name"].as_str().unwrap_or_default();
            self.custom.insert((format!("{group}/{name}"), kind.to_owned()));
        }
    }

    /// Waits until the kinds of these manifests are served that established CRDs make: they are moments later.
    pub async fn await_custom(&mut self, client: &Client, manifests: &[&Manifest]) -> Result<()> {
        for _ in 0..ESTABLISH_LIMIT * 10 {
            if !manifests.iter().any(|manifest| self.is_custom(manifest) && self.get(manifest).is_none()) {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
            self.discover(client, manifests).await?;
        }
        Err(Error::failed("use the kinds of the CRDs", "they are not served yet"))
    }

    pub fn is_custom(&self, manifest: &Manifest) -> bool {
        self.custom.contains(&(manifest.text("/apiVersion").to_owned(), manifest.text("/kind").to_owned()))
    }

    fn get(&self, manifest: &Manifest) -> Option<&(ApiResource, Scope)> {
        self.found.get(&(manifest.text("/apiVersion").to_owned(), manifest.text("/kind").to_owned()))
    }

    /// Where a manifest's object is; `None` for a kind that is not served.
    pub fn api(&self, client: &Client, manifest: &Manifest) -> Option<Api<DynamicObject>> {
        self.api_of(client, manifest.text("/apiVersion"), manifest.text("/kind"), manifest.text("/metadata/namespace"))
    }

    /// The same by its parts; the namespace may be empty.
    pub fn api_of(&self, client: &Client, version: &str, kind: &str, namespace: &str) -> Option<Api<DynamicObject>> {
        let (resource, scope) = self.found.get(&(version.to_owned(), kind.to_owned()))?;
        Some(match (scope, namespace) {
            (Scope::Cluster, _) => Api::all_with(client.clone(), resource),
            (Scope::Namespaced, "") => Api::default_namespaced_with(client.clone(), resource),
            (Scope::Namespaced, namespace) => Api::namespaced_with(client.clone(), namespace, resource),
        })
    }
}
