//! What applying would do, by the API server's dry run, which passes admission and validation and is not stored.

use futures::StreamExt;
use kube::api::Patch;
use serde_json::Value;

use super::{Answer, Applier, CONCURRENT, Name, Refusal, marked};
use crate::api::is_not_found;
use crate::base::error::{Error, Result};
use crate::desired::assets::Manifest;

/// What would become of one object.
#[derive(Debug)]
pub enum Preview {
    /// It would be as this; and how it is, if it is there.
    Change {
        /// How it is.
        live: Option<Value>,
        /// How it would be.
        after: Value,
    },
    /// Nobody can tell before its namespace or its kind is there, which the same set makes.
    Unasked,
    /// It would be refused.
    Refused(Refusal),
}

impl Applier<'_> {
    /// What applying `manifests` would do, in their order; `makes` says whether a namespace is made by the same set.
    ///
    /// # Errors
    /// The API server's word.
    pub async fn preview(&mut self, manifests: &[&Manifest], makes: impl Fn(&str) -> bool) -> Result<Vec<Preview>> {
        self.known.discover(self.client, manifests).await?;
        let requests = manifests.iter().map(|manifest| self.preview_one(manifest, &makes));
        let answers: Vec<_> = futures::stream::iter(requests).buffered(CONCURRENT).collect().await;
        answers.into_iter().collect()
    }

    async fn preview_one(&self, manifest: &Manifest, makes: &impl Fn(&str) -> bool) -> Result<Preview> {
        let (name, namespace) = (manifest.text("/metadata/name"), manifest.text("/metadata/namespace"));
        let Some(api) = self.known.api(self.client, manifest) else {
            return Ok(match self.unserved(manifest) {
                Answer::Refused(refusal) => Preview::Refused(refusal),
                _ => Preview::Unasked,
            });
        };
        let live = self.get(manifest).await?;
        match api.patch(name, &self.params().dry_run(), &Patch::Apply(&marked(manifest))).await {
            Ok(after) => {
                let after = serde_json::to_value(after)
                    .map_err(|error| Error::failed(format!("read {}", Name::of(manifest)), error))?;
                Ok(Preview::Change { live, after })
            }
            Err(error) if is_not_found(&error) && makes(namespace) => Ok(Preview::Unasked),
            Err(error) => match self.judge(manifest, &error) {
                Answer::Refused(refusal) => Ok(Preview::Refused(refusal)),
                _ => Err(crate::api::failed(format!("try {}", manifest.path), &error)),
            },
        }
    }
}
