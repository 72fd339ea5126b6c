//! How a command shows one thing: `--output`.

use serde::Serialize;

use crate::base::error::{Error, Result};
use crate::base::yaml;

/// What `--output` asks for of a command that prints one thing. A run, which prints events as it goes, has
/// [`report::Output`](crate::base::report::Output).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub(super) enum Output {
    /// Text for people.
    #[default]
    Text,
    /// A JSON document.
    Json,
    /// The same as YAML.
    Yaml,
}

/// `value` as `output` asks for it.
///
/// # Errors
/// What cannot be serialised.
pub(super) fn shown(value: &(impl Serialize + ToString), output: Output) -> Result<String> {
    match output {
        Output::Text => Ok(value.to_string()),
        Output::Json => {
            Ok(serde_json::to_string_pretty(value).map_err(|error| Error::failed("write JSON", error))? + "\n")
        }
        Output::Yaml => yaml(value),
    }
}

/// `value` as a YAML document, which readers of YAML 1.1, as Kubernetes', and of YAML 1.2 read alike: `on` and `1_000` are
/// quoted.
///
/// # Errors
/// What cannot be serialised.
pub(super) fn yaml(value: &impl Serialize) -> Result<String> {
    let value = serde_json::to_value(value).map_err(|error| Error::failed("write YAML", error))?;
    Ok(yaml::to_string(&value))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn what_looks_like_another_type_stays_text() {
        let said = json!({"on": "yes", "size": "1_000", "mode": "0644", "half": "1e3", "none": "null", "number": 7});
        let text = yaml(&said).unwrap();
        assert_eq!(serde_yaml::from_str::<Value>(&text).unwrap(), said, "{text}");
        for quoted in ["'on'", "'yes'", "'1_000'", "'0644'"] {
            let double = quoted.replace('\'', "\"");
            assert!(text.contains(quoted) || text.contains(&double), "{quoted} in {text}");
        }
    }
}
