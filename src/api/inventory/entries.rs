//! The inventory of applied add-ons: pure. It is the ConfigMap `hoist-inventory` of kube-system, a list of exact
//! names. Labels are unsuitable: controllers copy an object's labels to the objects that they make (a Service's to
//! its EndpointSlices), and pruning by label would remove those, too.

use std::collections::BTreeMap;
use std::fmt;

use crate::desired::assets::Manifest;

/// An object of an add-on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Where it came in the order.
    pub rank: u32,
    /// Its apiVersion, when it was applied.
    pub version: String,
    /// Its kind.
    pub kind: String,
    /// Its namespace; empty where its manifest names none.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

/// By what two entries are one object's: group, kind, namespace, name.
type Identity = (String, String, String, String);

impl Entry {
    /// The entry of a manifest's object.
    pub fn of(rank: u32, manifest: &Manifest) -> Self {
        let text = |pointer| manifest.text(pointer).to_owned();
        Self {
            rank,
            version: text("/apiVersion"),
            kind: text("/kind"),
            namespace: text("/metadata/namespace"),
            name: text("/metadata/name"),
        }
    }

    /// Its group; empty for Kubernetes' first one.
    pub fn group(&self) -> &str {
        self.version.split_once('/').map_or("", |(group, _)| group)
    }

    fn identity(&self) -> Identity {
        // Where a manifest names no namespace, its object is in `default`, if it is in any.
        let namespace = if self.namespace == "default" { "" } else { &self.namespace };
        (self.group().to_owned(), self.kind.clone(), namespace.to_owned(), self.name.clone())
    }

    /// Whether all that it holds goes with it.
    pub fn holds_others(&self) -> bool {
        matches!((self.group(), &*self.kind), ("", "Namespace") | ("apiextensions.k8s.io", "CustomResourceDefinition"))
    }

    /// Whether `other` goes with it.
    pub fn holds(&self, other: &Self) -> bool {
        match (self.group(), &*self.kind) {
            ("", "Namespace") => self.name == other.namespace,
            // Its name ends with the group of its kind; objects of another kind of that group are taken for its own.
            ("apiextensions.k8s.io", "CustomResourceDefinition") => {
                self.name.split_once('.').is_some_and(|(_, group)| group == other.group())
            }
            _ => false,
        }
    }
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, namespace, name, .. } = self;
        match (self.group(), &**kind) {
            ("", "Namespace") => write!(f, "{kind} {name}, with all that is in it"),
            ("apiextensions.k8s.io", "CustomResourceDefinition") => {
                write!(f, "{kind} {name}, with all objects of its kind")
            }
            _ if namespace.is_empty() => write!(f, "{kind} {name}"),
            _ => write!(f, "{kind} {namespace}/{name}"),
        }
    }
}

/// All of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Inventory(BTreeMap<Identity, Entry>);

impl Inventory {
    /// Reads what [`Inventory::text`] wrote.
    ///
    /// # Errors
    /// The first line that is none of it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let entry = |line: &str| {
            let mut fields = line.splitn(5, ' ');
            let rank = fields.next()?.parse().ok()?;
            let mut field = || fields.next().filter(|field| !field.is_empty()).map(str::to_owned);
            let (version, kind, namespace, name) = (field()?, field()?, field()?, field()?);
            let namespace = if namespace == "-" { String::new() } else { namespace };
            Some(Entry { rank, version, kind, namespace, name })
        };
        let entries = text.lines().map(|line| entry(line).ok_or_else(|| format!("`{line}` is not an entry")));
        entries.collect::<Result<Vec<_>, _>>().map(Self::from_iter)
    }

    /// A line for each: rank, apiVersion, kind, namespace or `-`, name.
    pub fn text(&self) -> String {
        let line = |entry: &Entry| {
            let Entry { rank, version, kind, namespace, name } = entry;
            let namespace = if namespace.is_empty() { "-" } else { namespace };
            format!("{rank} {version} {kind} {namespace} {name}\n")
        };
        self.0.values().map(line).collect()
    }

    /// These, and those of `other`; of one that is in both, the other's.
    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        self.0.extend(other.0);
        self
    }

    /// These without those of `other`.
    #[must_use]
    pub fn without(mut self, other: &Self) -> Self {
        self.0.retain(|identity, _| !other.0.contains_key(identity));
        self
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// In the order in which they are taken away: the last applied first; at the very end what holds others.
    pub fn backwards(&self) -> Vec<&Entry> {
        let mut entries: Vec<_> = self.0.values().collect();
        entries.sort_by_key(|entry| (entry.holds_others(), std::cmp::Reverse(entry.rank)));
        entries
    }
}

impl FromIterator<Entry> for Inventory {
    fn from_iter<T: IntoIterator<Item = Entry>>(entries: T) -> Self {
        Self(entries.into_iter().map(|entry| (entry.identity(), entry)).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "10 v1 Namespace - demo\n3000 apps/v1 Deployment demo web\n40 rbac.authorization.k8s.io/v1 ClusterRole - demo:a b\n";

    #[test]
    fn what_is_written_is_read_back_the_same() {
        let inventory = Inventory::parse(TEXT).unwrap();
        assert_eq!(Inventory::parse(&inventory.text()).unwrap(), inventory);
        assert_eq!(inventory.0.len(), 3);
        assert_eq!(inventory.backwards()[1].name, "demo:a b");
        for wrong in ["x v1 Namespace - demo", "10 v1 Namespace -", "10 v1  - demo", ""] {
            assert!(Inventory::parse(&format!("{wrong}\n")).is_err(), "{wrong:?}");
        }
        assert!(Inventory::parse("").unwrap().is_empty());
    }

    #[test]
    fn an_object_is_the_same_in_another_version_or_with_its_namespace_named() {
        let old = Inventory::parse("3000 x/v1beta1 Y default a\n3000 x/v1 Y other a\n").unwrap();
        let new = Inventory::parse("3000 x/v1 Y - a\n").unwrap();
        assert_eq!(old.clone().without(&new).text(), "3000 x/v1 Y other a\n");
        assert_eq!(old.and(new).text(), "3000 x/v1 Y - a\n3000 x/v1 Y other a\n");
    }

    #[test]
    fn what_holds_others_goes_last() {
        let text = "7000 v1 Namespace - demo\n30 apiextensions.k8s.io/v1 CustomResourceDefinition - a.x\n5000 x/v1 A demo a\n3000 apps/v1 Deployment demo web\n";
        let inventory = Inventory::parse(text).unwrap();
        let kinds: Vec<_> = inventory.backwards().iter().map(|entry| entry.kind.as_str()).collect();
        assert_eq!(kinds, ["A", "Deployment", "Namespace", "CustomResourceDefinition"]);
        assert_eq!(inventory.backwards()[2].to_string(), "Namespace demo, with all that is in it");
    }
}
