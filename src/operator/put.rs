//! Brings objects to what they shall be, and writes nothing where they are.

use kube::api::{Patch, PatchParams, PostParams};
use kube::{Client, Error};
use serde_json::Value;

use super::differs::{self, Why};
use super::{MANAGER, live};

/// An object as it is now, and whether that took a write.
#[derive(Debug)]
pub struct Put {
    /// As the API server has it.
    pub object: Value,
    /// Why it was written, if it was.
    pub why: Option<Why>,
}

/// Brings an object to what `wanted` says, whoever else has changed it.
///
/// # Errors
/// The API server's word.
pub async fn put(client: &Client, wanted: &Value) -> Result<Put, Error> {
    let text = |pointer: &str| wanted.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    let (kind, namespace, name) = (text("/kind"), text("/metadata/namespace"), text("/metadata/name"));
    let there = live::get(client, kind, namespace, name).await?;
    let Some(why) = differs::why(there.as_ref(), wanted) else {
        return Ok(Put { object: there.unwrap_or_default(), why: None });
    };
    let version = |object: &Value| object["metadata"]["resourceVersion"].clone();
    let before = there.as_ref().map(version);
    let params = PatchParams::apply(MANAGER).force();
    let object = live::api(client, kind, namespace).patch(name, &params, &Patch::Apply(wanted)).await?;
    let object = serde_json::to_value(object).unwrap_or_default();
    // What is written in another way means the same to the API server.
    let is_written = before != Some(version(&object));
    Ok(Put { object, why: Some(why).filter(|_| is_written) })
}

/// Makes the Secret with a tenant's keys, or writes it where it was read: of two that do so at once, one is refused.
///
/// # Errors
/// The API server's word.
pub async fn keys(client: &Client, there: Option<&Value>, wanted: &Value) -> Result<(), Error> {
    let text = |pointer: &str| wanted.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    let api = live::api(client, "Secret", text("/metadata/namespace"));
    let mut object = wanted.clone();
    let params = PostParams { field_manager: Some(MANAGER.into()), ..PostParams::default() };
    match there {
        None => {
            let object = serde_json::from_value(object).map_err(Error::SerdeError)?;
            api.create(&params, &object).await?;
        }
        Some(there) => {
            object["metadata"]["resourceVersion"] = there["metadata"]["resourceVersion"].clone();
            let object = serde_json::from_value(object).map_err(Error::SerdeError)?;
            api.replace(text("/metadata/name"), &params, &object).await?;
        }
    }
    Ok(())
}
