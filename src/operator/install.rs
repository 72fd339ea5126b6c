//! What the operator takes in the cluster in which it runs: the CRD, its rights, itself. Pure.

use std::path::Path;

use minijinja::context;

use super::NAMESPACE;
use crate::base::error::{Error, Finding, Result};
use crate::base::files::File;
use crate::desired::assets::{AssetSet, Manifest};
use crate::desired::config::{self, Cluster};
use crate::desired::render;
use crate::desired::template;

/// The texts of all objects, by the names of their files, in the order in which they are applied: those of the operator, and
/// of the namespaces in which it may act.
///
/// # Errors
/// A namespace that no namespace can be; a template that does not fit (a bug in hoist).
pub fn texts(cluster: &Cluster, namespaces: &[String]) -> Result<Vec<(String, String)>> {
    let mut all = vec![("crd.yaml".to_owned(), template::asset("hosting/crd.yaml").unwrap_or_default().to_owned())];
    all.extend(render::hosted("hosting/install", cluster, context! { operator_namespace => NAMESPACE })?);
    for namespace in namespaces {
        if config::subdomain(namespace).is_err() || namespace.contains('.') || namespace == NAMESPACE {
            let finding = Finding::new("--tenant-namespace", format!("`{namespace}` cannot be a namespace of tenants"));
            return Err(Error::Input(vec![finding.remedy("give the name of a namespace of its own, such as tenants")]));
        }
        let over = context! { operator_namespace => NAMESPACE, tenant_namespace => namespace };
        let texts = render::hosted("hosting/namespace", cluster, over)?;
        all.extend(texts.into_iter().map(|(name, text)| (format!("{namespace}-{name}"), text)));
    }
    Ok(all)
}

/// The same as they are applied.
///
/// # Errors
/// As [`texts`].
pub fn manifests(cluster: &Cluster, namespaces: &[String]) -> Result<Vec<Manifest>> {
    let texts = texts(cluster, namespaces)?.into_iter();
    let files = texts.map(|(name, text)| (format!("manifests/hosting/{name}"), File::public(text))).collect();
    let set = AssetSet { files, is_part: true };
    Ok(set.manifests(Path::new("hosting"))?.0)
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
    use serde_json::Value;

    use super::*;

    fn cluster() -> Cluster {
        let text = "apiVersion: hoist/v1alpha1\nkind: Cluster\ncontrollers:\n- {name: c1, address: 10.0.0.1}\n";
        config::parse("cluster.yaml", text, Path::new("/")).unwrap()
    }

    fn crd() -> Value {
        let manifests = manifests(&cluster(), &[]).unwrap();
        manifests.iter().find(|one| one.text("/kind") == "CustomResourceDefinition").unwrap().object.clone()
    }

    #[test]
    fn the_crd_is_one_and_every_field_is_explained() {
        let mut unknown = Vec::new();
        let read: Result<CustomResourceDefinition, _> =
            serde_ignored::deserialize(crd(), |path| unknown.push(path.to_string()));
        assert_eq!(unknown, Vec::<String>::new());
        assert_eq!(read.unwrap().spec.group, "hoist.dev");
        let schema = &crd()["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
        let mut bare = Vec::new();
        unexplained(schema, "", &mut bare);
        assert_eq!(bare, Vec::<String>::new());
    }

    fn unexplained(schema: &Value, path: &str, bare: &mut Vec<String>) {
        for (name, field) in schema["properties"].as_object().into_iter().flatten() {
            let path = format!("{path}.{name}");
            if !field["description"].as_str().is_some_and(|text| text.ends_with('.')) {
                bare.push(path.clone());
            }
            unexplained(field, &path, bare);
            unexplained(&field["items"], &path, bare);
        }
    }

    /// What cluster.yaml would refuse as unknown must not be in the schema, and what the schema drops must not be read.
    #[test]
    fn the_schema_has_the_fields_that_are_read() {
        let schema = crd();
        let spec = &schema["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"];
        let mut fields: Vec<&str> = spec.as_object().unwrap().keys().map(String::as_str).collect();
        fields.sort_unstable();
        let mut read = super::super::tenant::fields();
        read.sort_unstable();
        assert_eq!(fields, read);
    }

    #[test]
    fn what_no_namespace_of_tenants_can_be_is_refused() {
        for name in ["", "a.b", "A", NAMESPACE] {
            let error = texts(&cluster(), &[name.to_owned()]).unwrap_err();
            assert!(error.to_string().contains("--tenant-namespace"), "{error}");
        }
        let texts = texts(&cluster(), &["one".to_owned(), "two".to_owned()]).unwrap();
        let names: Vec<_> = texts.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["crd.yaml", "operator.yaml", "one-tenants.yaml", "two-tenants.yaml"]);
    }
}
