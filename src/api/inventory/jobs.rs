//! Jobs that Kubernetes deletes after they have finished (`ttlSecondsAfterFinished`): pure. A Job that is gone has
//! run, if hoist has recorded that it applied the Job. The record is beside the inventory of add-ons.

use std::collections::BTreeMap;

use crate::desired::assets::Manifest;

/// Whether the object of a manifest is a Job that takes itself away.
pub fn goes(manifest: &Manifest) -> bool {
    let is_job = manifest.text("/kind") == "Job" && manifest.text("/apiVersion").starts_with("batch/");
    is_job && manifest.object.pointer("/spec/ttlSecondsAfterFinished").is_some_and(|ttl| !ttl.is_null())
}

/// Such Jobs by namespace and name, each with the sum of the manifest that it was last applied from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Jobs(BTreeMap<(String, String), String>);

impl Jobs {
    /// Reads what [`Jobs::text`] wrote. A line that is none of it says nothing: its Job is run once more.
    pub fn parse(text: &str) -> Self {
        let job = |line: &str| {
            let mut fields = line.split(' ').map(str::to_owned);
            Some(((fields.next()?, fields.next()?), fields.next()?))
        };
        Self(text.lines().filter_map(job).collect())
    }

    /// A line for each: namespace, name, sum.
    pub fn text(&self) -> String {
        self.0.iter().map(|((namespace, name), sum)| format!("{namespace} {name} {sum}\n")).collect()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Notes that a Job was applied from this manifest.
    pub fn note(&mut self, manifest: &Manifest) {
        self.0.insert(key(manifest), manifest.sum());
    }

    /// Whether a Job that takes itself away was applied from this manifest as it is.
    pub fn hold(&self, manifest: &Manifest) -> bool {
        goes(manifest) && self.0.get(&key(manifest)).is_some_and(|there| *there == manifest.sum())
    }
}

fn key(manifest: &Manifest) -> (String, String) {
    let namespace = match manifest.text("/metadata/namespace") {
        "" => "default",
        namespace => namespace,
    };
    (namespace.to_owned(), manifest.text("/metadata/name").to_owned())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn job(namespace: Value, ttl: Value, image: &str) -> Manifest {
        let object = json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "a", "namespace": namespace},
            "spec": {"ttlSecondsAfterFinished": ttl, "image": image}});
        Manifest { path: "addons/a.yaml".into(), line: 1, object }
    }

    #[test]
    fn one_that_was_applied_has_run_until_its_manifest_changes() {
        let mut jobs = Jobs::default();
        let first = job(json!("demo"), json!(0), "a");
        assert!(!jobs.hold(&first));
        jobs.note(&first);
        jobs.note(&job(Value::Null, json!(60), "a"));
        let read = Jobs::parse(&format!("{}nonsense\n", jobs.text()));
        assert_eq!(read, jobs);
        assert!(read.hold(&first) && !read.hold(&job(json!("demo"), json!(0), "b")));
        assert!(read.hold(&job(Value::Null, json!(60), "a")) && !read.hold(&job(json!("x"), json!(60), "a")));
        // Without a time to live, it is there as long as nobody deletes it.
        jobs.note(&job(json!("y"), Value::Null, "a"));
        assert!(!jobs.hold(&job(json!("y"), Value::Null, "a")));
    }
}
