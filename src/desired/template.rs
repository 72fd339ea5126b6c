//! The templates embedded in the binary, and how they become text. A template is valid YAML as it is: logic is behind
//! `#%`, and each value is in a double-quoted scalar, for which it is escaped.

use std::collections::BTreeMap;

use include_dir::{Dir, include_dir};
use minijinja::syntax::SyntaxConfig;
use minijinja::{AutoEscape, Environment, Output, State, UndefinedBehavior, Value};

use crate::base::error::{Error, Result};
use crate::desired::config::Arg;

static ASSETS: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/assets");
static BOOTSTRAP_MANIFESTS: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/bootstrap-manifests");
static MANIFESTS: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/manifests");

/// Every template of the asset directory's part `part` ("bootstrap-manifests", "manifests", "kubelet" or
/// "systemd"), by its
/// path below it.
pub fn templates(part: &str) -> BTreeMap<String, &'static str> {
    let folder = match part {
        "bootstrap-manifests" => Some(&BOOTSTRAP_MANIFESTS),
        "manifests" => Some(&MANIFESTS),
        other => ASSETS.get_dir(other),
    };
    let mut found = BTreeMap::new();
    if let Some(folder) = folder {
        collect(folder, folder.path(), &mut found);
    }
    found
}

/// A file of assets/ that is embedded as it stands.
pub fn asset(path: &str) -> Option<&'static str> {
    ASSETS.get_file(path)?.contents_utf8()
}

fn collect(dir: &Dir<'static>, root: &std::path::Path, found: &mut BTreeMap<String, &'static str>) {
    for file in dir.files() {
        let path = file.path().strip_prefix(root).unwrap_or(file.path());
        if let Some(text) = file.contents_utf8() {
            found.insert(path.to_string_lossy().into_owned(), text);
        }
    }
    for dir in dir.dirs() {
        collect(dir, root, found);
    }
}

/// Renders `source`, the template called `name`, with the values in `context`.
///
/// `#% include "flags/X.yaml"` puts a list of flags in at its own indentation. A flag that `extra_args` names (by
/// the component X) is left out of the list, and of the command that begins with X: the user's takes its place.
///
/// # Errors
/// A template that names a value which is not in `context`, or does not parse: a bug in hoist itself.
pub fn render(name: &str, source: &str, extra_args: &BTreeMap<&str, &[Arg]>, context: &Value) -> Result<String> {
    let mut environment = Environment::new();
    let syntax = SyntaxConfig::builder().line_statement_prefix("#%").build();
    environment.set_syntax(syntax.map_err(|error| failed(name, &error))?);
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_auto_escape_callback(|_| AutoEscape::None);
    environment.set_formatter(escape);
    let source = splice(name, source, extra_args)?;
    let text = environment.render_named_str(name, &source, context).map_err(|error| failed(name, &error))?;
    // minijinja drops the last newline: of a template that ends in a statement it is the statement's.
    let ends_in_statement = source.lines().last().is_some_and(|line| line.trim_start().starts_with("#%"));
    Ok(if ends_in_statement { text } else { text + "\n" })
}

fn failed(name: &str, error: &minijinja::Error) -> Error {
    Error::failed(format!("render the template {name}"), format!("{error:#}"))
}

/// Writes a value as the inside of a double-quoted YAML scalar; JSON's escapes are YAML's too.
fn escape(out: &mut Output<'_>, state: &mut State<'_, '_>, value: &Value) -> Result<(), minijinja::Error> {
    match value.as_str() {
        Some(text) => {
            let quoted = serde_json::Value::from(text).to_string();
            out.write_str(&quoted[1..quoted.len() - 1]).map_err(Into::into)
        }
        None => minijinja::escape_formatter(out, state, value),
    }
}

fn splice(name: &str, source: &str, extra_args: &BTreeMap<&str, &[Arg]>) -> Result<String> {
    let mut lines = Vec::new();
    let mut users: &[Arg] = &[];
    for line in source.lines() {
        // The first word of a command says whose flags follow.
        if let Some(args) = line.trim_start().strip_prefix("- ").and_then(|word| extra_args.get(word)) {
            users = args;
        }
        let directive =
            line.trim_start().strip_prefix("#% include \"flags/").and_then(|rest| rest.strip_suffix(".yaml\""));
        let Some(component) = directive else {
            add(&mut lines, line.to_owned(), users);
            continue;
        };
        let flags = ASSETS.get_file(format!("flags/{component}.yaml")).and_then(|file| file.contents_utf8());
        let flags = flags
            .ok_or_else(|| Error::failed(format!("render the template {name}"), format!("no flags for {component}")))?;
        let indent = &line[..line.len() - line.trim_start().len()];
        // The first line is the list's own title.
        for flag in flags.lines().skip(1) {
            add(&mut lines, format!("{indent}{flag}"), extra_args.get(component).copied().unwrap_or_default());
        }
    }
    Ok(lines.join("\n") + "\n")
}

/// Adds a line, unless it sets a flag that the user sets; then the comment before it goes, too.
fn add(lines: &mut Vec<String>, line: String, users: &[Arg]) {
    if !users.iter().any(|arg| sets(&line, &arg.name)) {
        lines.push(line);
        return;
    }
    while lines.last().is_some_and(|line| line.trim_start().starts_with("# ")) {
        lines.pop();
    }
}

/// Whether a line of a command sets the flag `name`.
fn sets(line: &str, name: &str) -> bool {
    let flag = line.trim_start().trim_start_matches("- ").trim_start_matches('"');
    flag.strip_prefix("--").and_then(|rest| rest.strip_prefix(name)).is_some_and(|rest| rest.starts_with('='))
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[test]
    fn every_template_is_yaml_as_it_stands() {
        for part in ["bootstrap-manifests", "manifests", "flags", "hosting"] {
            let found = templates(part);
            assert!(!found.is_empty(), "{part}");
            for (name, text) in found {
                for document in serde_yaml::Deserializer::from_str(text) {
                    // Not our own reader: a template's `{{ n }}` is a map to YAML, with a map for a key.
                    let parsed = serde_yaml::Value::deserialize(document);
                    parsed.unwrap_or_else(|error| panic!("{part}/{name}: {error}"));
                }
            }
        }
    }

    #[test]
    fn values_are_escaped_and_lists_take_the_users_flag() {
        let args = [Arg { name: "leader-elect".into(), value: "say \"no\"".into() }];
        let extra = BTreeMap::from([("kube-scheduler", &args[..])]);
        let context = minijinja::context! { loopback => "127.0.0.1", tls_cipher_suites => "", extra_args => minijinja::context! {
        kube_scheduler => [minijinja::context! { name => "leader-elect", value => "say \"no\"" }] } };
        let text = render("t", "a:\n  #% include \"flags/kube-scheduler.yaml\"\n", &extra, &context).unwrap();
        assert!(text.contains("  - \"--leader-elect=say \\\"no\\\"\"\n"), "{text}");
        assert_eq!(text.matches("leader-elect").count(), 1, "{text}");
        assert!(text.contains("  - \"--bind-address=127.0.0.1\"\n"), "{text}");
    }

    #[test]
    fn a_command_takes_the_users_flag() {
        let args = [Arg { name: "b".into(), value: "2".into() }];
        let extra = BTreeMap::from([("etcd", &args[..])]);
        let source = "x:\n- other\n- --b=1\ny:\n- etcd\n- --a=1\n# Why\n# b.\n- --b=1\n- --bc=1\n";
        let text = render("t", source, &extra, &minijinja::context! {}).unwrap();
        assert_eq!(text, "x:\n- other\n- --b=1\ny:\n- etcd\n- --a=1\n- --bc=1\n");
    }

    #[test]
    fn an_unknown_value_is_an_error() {
        let error = render("t", "a: \"{{ b }}\"\n", &BTreeMap::new(), &minijinja::context! {}).unwrap_err();
        assert!(error.to_string().contains("undefined"), "{error}");
    }
}
