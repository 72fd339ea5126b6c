//! The add-ons that a tenant's object names: manifests in ConfigMaps and Secrets of its namespace, applied in the tenant
//! by the ranks of `hoist apply`.

use std::path::Path;
use std::time::Duration;

use kube::Client;
use serde_json::Value;
use time::OffsetDateTime;

use super::TENANT_LABEL;
use super::inside::{Applied, sum};
use super::live;
use super::tenant::{Addon, Tenant};
use super::trouble::{self, Trouble};
use crate::base::error::{Error, Finding};
use crate::base::files::File;
use crate::base::input;
use crate::base::report::{Clock, Reporter};
use crate::desired::assets::{AssetSet, Manifest};
use crate::plane::addons::{self, Options, Order};

/// How long a turn waits for what a later rank builds on: the next turn continues.
const PROGRESS: Duration = Duration::from_secs(2);
/// How long a turn takes for add-ons altogether.
const TOTAL: Duration = Duration::from_secs(6);
/// How much of what is wrong is said.
const MOST: usize = 2000;
/// What the files of a Secret are called.
const OF_SECRET: &str = "addons/secret-";

/// The manifests of a tenant's add-ons, and what is wrong with those that it names and that are not among them.
#[derive(Debug, Default)]
pub struct Read {
    manifests: Vec<Manifest>,
    wrong: Vec<Trouble>,
}

/// Reads what a tenant's object names.
pub async fn read(client: &Client, tenant: &Tenant) -> Read {
    let mut read = Read::default();
    for addon in &tenant.spec.addons {
        let there = live::get(client, &addon.kind, &tenant.namespace, &addon.name).await;
        let manifests = match there {
            Ok(there) => of_object(tenant, addon, there.as_ref()),
            Err(error) => Err(trouble::of_refusal(tenant, &format!("the {}", title(addon)), &error)),
        };
        match manifests {
            Ok(manifests) => read.manifests.extend(manifests),
            Err(trouble) => read.wrong.push(trouble),
        }
    }
    // Of two manifests of one object each would undo what the other has done.
    if let Some(twice) = twice(&read.manifests) {
        read.manifests.clear();
        read.wrong.push(twice);
    }
    read
}

fn title(addon: &Addon) -> String {
    format!("{} {} of spec.addons", addon.kind, addon.name)
}

/// The manifests in the object that `addon` names.
fn of_object(tenant: &Tenant, addon: &Addon, there: Option<&Value>) -> Result<Vec<Manifest>, Trouble> {
    let title = title(addon);
    let wrong = |reason, message: String| Err(Trouble { reason, message });
    let Some(object) = there else {
        let remedy = format!("Make it in the namespace {}, or take it out of spec.addons", tenant.namespace);
        return wrong("NotFound", format!("the {title} is not there. {remedy}"));
    };
    if object["metadata"]["labels"].get(TENANT_LABEL).is_some() {
        return wrong("Invalid", format!("the {title} is the operator's own: it holds a tenant's keys, and no add-on"));
    }
    let mut set = AssetSet { is_part: true, ..AssetSet::default() };
    for (key, value) in object["data"].as_object().into_iter().flatten() {
        let text = value.as_str().unwrap_or_default();
        let is_manifest = [".yaml", ".yml", ".json"].iter().any(|end| key.ends_with(end));
        let content = if addon.kind == "Secret" { input::base64(text) } else { Some(text.as_bytes().to_vec()) };
        if let Some(content) = content.filter(|_| is_manifest) {
            let path = format!("addons/{}-{}/{key}", addon.kind.to_lowercase(), addon.name);
            set.files.insert(path, File::private(content));
        }
    }
    if set.files.is_empty() {
        return wrong("Invalid", format!("the {title} has no key that ends in .yaml, .yml or .json"));
    }
    let manifests = set.manifests(Path::new("")).map(|(_, addons)| addons);
    let ranked = manifests.and_then(|manifests| Order::of(&manifests).map(drop).map(|()| manifests));
    ranked.map_err(|error| Trouble { reason: "Invalid", message: said(&error) })
}

/// What is wrong where two manifests make one object.
fn twice(manifests: &[Manifest]) -> Option<Trouble> {
    let of = |manifest: &Manifest| {
        let version = manifest.text("/apiVersion");
        let group = version.split_once('/').map_or("", |(group, _)| group).to_owned();
        let texts = ["/kind", "/metadata/namespace", "/metadata/name"].map(|pointer| manifest.text(pointer).to_owned());
        (group, texts)
    };
    let mut seen = std::collections::BTreeMap::new();
    manifests.iter().find_map(|manifest| {
        let first = seen.insert(of(manifest), &manifest.path)?;
        let [kind, _, name] = of(manifest).1;
        let message = format!("{first} and {} both make the {kind} {name}. Take it out of one", manifest.path);
        Some(Trouble { reason: "Invalid", message })
    })
}

/// Applies what was read and is not there, and says what is not applied and why. `applied` is what was applied last.
pub async fn turn(client: &Client, read: Read, applied: &mut Option<Applied>) -> Option<Trouble> {
    let Read { manifests, mut wrong } = read;
    let sum = sum(&manifests);
    if !Applied::stands(applied.as_ref(), &sum) {
        let outcome = match Order::of(&manifests) {
            Ok(order) => {
                let clock = Clock::new(OffsetDateTime::now_utc(), || Duration::ZERO);
                let reporter = Reporter::plain(Box::new(std::io::sink()), clock);
                addons::apply(client, &order, &[], &options(), &reporter).await
            }
            Err(error) => Err(error),
        };
        match outcome {
            Ok(_) => *applied = Some(Applied::now(sum)),
            Err(error) => {
                *applied = None;
                wrong.push(unapplied(&error));
            }
        }
    }
    let reason = wrong.first()?.reason;
    let message: Vec<_> = wrong.into_iter().map(|one| one.message).collect();
    Some(Trouble { reason, message: message.join("; ").chars().take(MOST).collect() })
}

/// What its user has edited in the tenant stands, as with `hoist apply`.
fn options() -> Options {
    Options {
        force_conflicts: false,
        prune: false,
        wait: false,
        tell_each: false,
        progress_timeout: PROGRESS,
        timeout: TOTAL,
    }
}

/// What an error of applying means.
fn unapplied(error: &Error) -> Trouble {
    match error {
        Error::Refused(_) => Trouble { reason: "Refused", message: said(error) },
        Error::TimedOut { waiting_for, .. } => Trouble {
            reason: "NotReady",
            message: format!("what builds on it waits for {}", without_secrets(waiting_for)),
        },
        _ => Trouble { reason: "Failed", message: format!("{}. It is tried again", said(error)) },
    }
}

/// An error in a line. Of what stands in a Secret only the place is said: the status is read by more people.
fn said(error: &Error) -> String {
    let line = |finding: &Finding| {
        let mut finding = finding.clone();
        if finding.place.trim_start_matches('/').starts_with(OF_SECRET) {
            finding.message = "is not applied; what is wrong with it may repeat what the Secret holds".into();
            finding.remedy = Some("`hoist apply --tenant` of that manifest says it".into());
        }
        finding.to_string().replace("\n    ", ". ")
    };
    match error {
        Error::Input(findings) | Error::Refused(findings) => findings.iter().map(line).collect::<Vec<_>>().join("; "),
        other => without_secrets(other.to_string().lines().next().unwrap_or_default()),
    }
}

/// A text up to the first file of a Secret: what follows may repeat what stands in it.
fn without_secrets(text: &str) -> String {
    let Some((before, after)) = text.split_once(OF_SECRET) else { return text.to_owned() };
    let path = after.split(": ").next().unwrap_or_default();
    format!("{before}{OF_SECRET}{path}")
}

#[cfg(test)]
mod tests {
    use base64::Engine;
    use serde_json::json;

    use super::super::tenant::tests::object;
    use super::*;

    fn tenant() -> Tenant {
        let addons = json!([{"kind": "ConfigMap", "name": "metrics"}, {"kind": "Secret", "name": "tokens"}]);
        Tenant::read(&object(&json!({"addons": addons}))).unwrap()
    }

    const MAP: &str = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n";

    #[test]
    fn the_manifests_of_an_object_are_its_keys_that_are_called_so() {
        let tenant = tenant();
        let [map, secret] = &tenant.spec.addons[..] else { panic!() };
        let there = json!({"data": {"a.yaml": MAP, "README": "no: manifest"}});
        let manifests = of_object(&tenant, map, Some(&there)).unwrap();
        assert_eq!(manifests.len(), 1);
        assert_eq!(manifests[0].path, "addons/configmap-metrics/a.yaml");
        let encoded = base64::engine::general_purpose::STANDARD.encode(MAP);
        let there = json!({"data": {"a.yml": encoded}});
        assert_eq!(of_object(&tenant, secret, Some(&there)).unwrap()[0].text("/metadata/name"), "a");

        let wrong = |addon: &Addon, there: Option<Value>| of_object(&tenant, addon, there.as_ref()).unwrap_err();
        let missing = wrong(map, None);
        assert_eq!(missing.reason, "NotFound");
        assert!(missing.message.contains("ConfigMap metrics of spec.addons is not there"), "{}", missing.message);
        let own = json!({"metadata": {"labels": {TENANT_LABEL: "b"}}, "data": {"encryption.yaml": encoded}});
        assert!(wrong(secret, Some(own)).message.contains("the operator's own"));
        assert!(wrong(map, Some(json!({"data": {"README": "x"}}))).message.contains("no key that ends in"));
    }

    #[test]
    fn what_is_wrong_is_said_with_its_place_and_nothing_that_stands_in_a_secret() {
        let tenant = tenant();
        let [map, secret] = &tenant.spec.addons[..] else { panic!() };
        let bad = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\nhidden-word: 1\n";
        let said = of_object(&tenant, map, Some(&json!({"data": {"a.yaml": bad}}))).unwrap_err();
        assert!(
            said.message.contains("addons/configmap-metrics/a.yaml:4") && said.message.contains("hidden-word"),
            "{said:?}"
        );
        let encoded = base64::engine::general_purpose::STANDARD.encode(bad);
        let said = of_object(&tenant, secret, Some(&json!({"data": {"a.yaml": encoded}}))).unwrap_err();
        assert!(said.message.contains("addons/secret-tokens/a.yaml:4"), "{said:?}");
        assert!(!said.message.contains("hidden-word"), "{said:?}");

        let refused = Error::Refused(vec![Finding::new("addons/secret-tokens/a.yaml", "hidden-word is invalid")]);
        let said = unapplied(&refused);
        assert!(said.reason == "Refused" && !said.message.contains("hidden-word"), "{said:?}");
        let late = Error::TimedOut {
            waiting_for: "Deployment x of addons/configmap-metrics/a.yaml: 0 of 1 available".into(),
            api_served: true,
            details: Vec::new(),
            next: String::new(),
        };
        let said = unapplied(&late);
        assert!(said.reason == "NotReady" && said.message.ends_with("0 of 1 available"), "{said:?}");
        let failed = Error::failed("apply addons/secret-tokens/a.yaml", "hidden-word cannot be taken now");
        let said = unapplied(&failed);
        let expected = "cannot apply addons/secret-tokens/a.yaml. It is tried again";
        assert!(said.reason == "Failed" && said.message == expected, "{said:?}");
    }

    #[test]
    fn an_object_that_two_add_ons_make_is_named() {
        let manifest = |path: &str, version: &str| Manifest {
            path: path.into(),
            line: 1,
            object: json!({"apiVersion": version, "kind": "Widget", "metadata": {"name": "a"}}),
        };
        let said = twice(&[manifest("one", "e.com/v1"), manifest("two", "e.com/v2")]).unwrap();
        assert!(said.message.starts_with("one and two both make the Widget a"), "{said:?}");
        assert_eq!(twice(&[manifest("one", "e.com/v1"), manifest("two", "f.com/v1")]), None);
    }
}
