//! What etcd holds: objects, each with the version at which it was last changed.

use std::collections::BTreeMap;

use serde_json::{Value, json};

/// Resource (`deployments.apps`; `pods`), namespace (empty where there is none), name.
pub type Key = (String, String, String);

pub fn key(resource: &str, namespace: &str, name: &str) -> Key {
    (resource.into(), namespace.into(), name.into())
}

#[derive(Debug, Clone, Default)]
pub struct Store {
    objects: BTreeMap<Key, Value>,
    version: u64,
    /// At which version something of a resource last changed.
    changed: BTreeMap<String, u64>,
}

impl Store {
    pub fn get(&self, key: &Key) -> Option<&Value> {
        self.objects.get(key)
    }

    pub fn has(&self, resource: &str, namespace: &str, name: &str) -> bool {
        self.objects.contains_key(&key(resource, namespace, name))
    }

    /// All of a resource, in one namespace or (empty) in all.
    pub fn list<'a>(&'a self, resource: &'a str, namespace: &'a str) -> impl Iterator<Item = (&'a Key, &'a Value)> {
        let from = key(resource, "", "");
        let mine = move |(key, _): &(&Key, &Value)| key.0 == resource;
        self.objects.range(from..).take_while(mine).filter(move |(key, _)| namespace.is_empty() || key.1 == namespace)
    }

    pub fn all(&self) -> impl Iterator<Item = (&Key, &Value)> {
        self.objects.iter()
    }

    /// Makes or changes an object. One that is the same as before keeps its version. Returns it as it is now.
    pub fn put(&mut self, key: Key, mut object: Value) -> Value {
        let metadata = &mut object["metadata"];
        metadata["name"] = key.2.clone().into();
        if !key.1.is_empty() {
            metadata["namespace"] = key.1.clone().into();
        }
        match self.objects.get(&key) {
            Some(before) => {
                metadata["resourceVersion"] = before["metadata"]["resourceVersion"].clone();
                metadata["uid"] = before["metadata"]["uid"].clone();
                if *before == object {
                    return object;
                }
            }
            // A cluster's id is written down, and shall be the same in every history.
            None if key.0 == "namespaces" => metadata["uid"] = format!("uid-{}", key.2).into(),
            None => metadata["uid"] = format!("uid-{}", self.version + 1).into(),
        }
        self.version += 1;
        self.changed.insert(key.0.clone(), self.version);
        object["metadata"]["resourceVersion"] = self.version.to_string().into();
        self.objects.insert(key, object.clone());
        object
    }

    pub fn remove(&mut self, key: &Key) -> Option<Value> {
        self.version += 1;
        self.changed.insert(key.0.clone(), self.version);
        self.objects.remove(key)
    }

    /// Lays `over` onto an object that is there.
    pub fn change(&mut self, key: Key, over: &Value) {
        let mut object = self.objects[&key].clone();
        merge(&mut object, over);
        self.put(key, object);
    }

    pub fn version(&self) -> u64 {
        self.version
    }

    pub fn version_of(&self, resource: &str) -> u64 {
        self.changed.get(resource).copied().unwrap_or_default()
    }
}

/// Lays `over` onto `base`: maps are merged, null removes, all else is replaced.
pub fn merge(base: &mut Value, over: &Value) {
    let (Value::Object(base), Value::Object(over)) = (&mut *base, over) else {
        *base = over.clone();
        return;
    };
    for (name, value) in over {
        if value.is_null() {
            base.remove(name);
        } else {
            merge(base.entry(name.clone()).or_insert(json!(null)), value);
        }
    }
}
