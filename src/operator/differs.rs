//! Whether an object of the API is as it shall be. Pure.

use serde_json::Value;

use crate::base::files;

/// Says of an object which text it was applied from.
pub const SUM: &str = "hoist.dev/applied";

/// Why an object has to be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// It is not there.
    Missing,
    /// Something else is wanted than before.
    Changed,
    /// The same is wanted, and somebody has changed it.
    Drifted,
}

/// `wanted` with the sum of what it says.
#[must_use]
pub fn marked(mut wanted: Value) -> Value {
    let sum = files::sha256(wanted.to_string().as_bytes());
    wanted["metadata"]["annotations"][SUM] = sum.into();
    wanted
}

/// Why `live` has to be written, if it does; `wanted` is marked.
pub fn why(live: Option<&Value>, wanted: &Value) -> Option<Why> {
    let Some(live) = live else { return Some(Why::Missing) };
    let sum = |object: &Value| object["metadata"]["annotations"][SUM].clone();
    match () {
        () if sum(live) != sum(wanted) => Some(Why::Changed),
        () if !holds(live, wanted) => Some(Why::Drifted),
        () => None,
    }
}

/// Whether `live` has all that `wanted` says. The API server adds defaults to maps, and nothing to lists.
fn holds(live: &Value, wanted: &Value) -> bool {
    match (live, wanted) {
        (Value::Object(live), Value::Object(wanted)) => {
            wanted.iter().all(|(key, wanted)| holds(live.get(key).unwrap_or(&Value::Null), wanted))
        }
        (Value::Array(live), Value::Array(wanted)) => {
            live.len() == wanted.len() && live.iter().zip(wanted).all(|(live, wanted)| holds(live, wanted))
        }
        // What is empty is left out.
        (Value::Null, Value::Object(wanted)) => wanted.is_empty(),
        (Value::Null, Value::Array(wanted)) => wanted.is_empty(),
        (Value::Null, Value::Bool(wanted)) => !wanted,
        (live, wanted) => live == wanted,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_object_is_written_where_it_is_not_as_it_shall_be_and_else_not() {
        let wanted = marked(json!({"metadata": {"name": "a"}, "spec": {"list": [{"x": 1}], "none": {}, "no": false}}));
        assert_eq!(why(None, &wanted), Some(Why::Missing));
        let mut live = wanted.clone();
        live["metadata"]["uid"] = json!("u");
        live["spec"]["list"][0]["default"] = json!(true);
        live["spec"].as_object_mut().unwrap().retain(|key, _| key == "list");
        assert_eq!(why(Some(&live), &wanted), None, "what the API server adds and leaves out is no difference");

        for (pointer, value) in [("/spec/list/0/x", json!(2)), ("/spec/list", json!([{"x": 1}, {"x": 2}]))] {
            let mut edited = live.clone();
            *edited.pointer_mut(pointer).unwrap() = value;
            assert_eq!(why(Some(&edited), &wanted), Some(Why::Drifted), "{pointer}");
        }
        let other = marked(json!({"metadata": {"name": "a"}, "spec": {"list": []}}));
        assert_eq!(why(Some(&live), &other), Some(Why::Changed));
        // Less is wanted: what is there has all of it, and too much.
        let less = marked(json!({"metadata": {"name": "a"}, "spec": {}}));
        assert_eq!(why(Some(&live), &less), Some(Why::Changed));
    }
}
