//! The changes of a render, as a unified diff. For secret files, the diff names the changed fields and never shows
//! their content, on lines that begin with `#`, which `patch` ignores.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use diffy::{DiffOptions, PatchFormatter};
use serde_json::Value;

use super::plan::Plan;
use super::secrecy::holds_secrets;
use crate::base::files::{self, File};
use crate::base::yaml;
use crate::desired::pki::{self, Issued};

const BOLD: &str = "\x1b[1m";
const PLAIN: &str = "\x1b[0m";

/// How much of a checksum is shown: enough to tell two files from each other.
const SHOWN: usize = 16;

impl Plan<'_> {
    /// What it would change; empty if there is nothing to be said. `issued` are the keys and certificates that are new in
    /// it: as they are made by chance, another run makes others.
    pub fn diff(&self, issued: &[Issued], is_coloured: bool) -> String {
        let mut shown = BTreeMap::new();
        let diff = Diff {
            issued: issued.iter().map(|issued| (format!("tls/{}", issued.path), issued)).collect(),
            is_by_chance: issued.iter().any(|issued| !issued.is_copied),
            is_coloured,
        };
        let said = |text: &str| diff.note(text, &[]);
        for put in &self.put {
            let mut text = diff.changed(put.path, put.there.as_deref(), Some(&put.file));
            if put.own.is_some() {
                text.insert_str(0, &said(&format!("{}: your edit stays in it", put.path)));
            }
            shown.insert(put.path, text);
        }
        for (path, there) in &self.gone {
            shown.insert(path, diff.changed(path, Some(there), None));
        }
        let written = &self.written;
        for (paths, what) in [
            (&written.kept, "kept, with your edit"),
            (&written.left_out, "left out: you removed it"),
            (&written.unused, "left, though this cluster does not use it"),
        ] {
            shown.extend(paths.iter().map(|path| (path, said(&format!("{path}: {what}")))));
        }
        let mut text: String = shown.into_values().collect();
        if self.was_interrupted {
            text.insert_str(0, &said("the last render was interrupted; this one would complete it"));
        }
        text
    }
}

struct Diff<'a> {
    /// By path in the asset directory.
    issued: BTreeMap<String, &'a Issued>,
    /// Something in the new files is made by chance.
    is_by_chance: bool,
    is_coloured: bool,
}

impl Diff<'_> {
    /// A line for people, with more below it.
    fn note(&self, text: &str, more: &[String]) -> String {
        let mut note = if self.is_coloured { format!("{BOLD}# {text}{PLAIN}\n") } else { format!("# {text}\n") };
        for line in more {
            let _ = writeln!(note, "#   {line}");
        }
        note
    }

    /// From `old` to `new`, one of which is there.
    fn changed(&self, path: &str, old: Option<&[u8]>, new: Option<&File>) -> String {
        let after = new.map(|file| &*file.content);
        let is_secret = new.is_some_and(File::is_private) || [old, after].into_iter().flatten().any(holds_secrets);
        if let (Some(old), Some(new)) = (old, new)
            && old == new.content
        {
            return self.note(&format!("{path}: gets the mode {:04o}", new.mode), &[]);
        }
        let text = |bytes: Option<&[u8]>| String::from_utf8(bytes.unwrap_or_default().to_vec());
        match (text(old), text(after)) {
            _ if path.starts_with("tls/") => self.of_tls(path, old, after),
            (Ok(old_text), Ok(new_text)) if is_secret || path.starts_with("auth/") => {
                let is_changed = old.is_some() && new.is_some();
                let fields = if is_changed { fields_changed(&old_text, &new_text) } else { Vec::new() };
                self.note(&format!("{path}: {}", self.fingerprints(path, old, after)), &fields)
            }
            (Ok(old_text), Ok(new_text)) => {
                let label = |side: &str, bytes: Option<&[u8]>| match bytes {
                    Some(_) => Cow::Owned(format!("{side}/{path}")),
                    None => Cow::Borrowed("/dev/null"),
                };
                let mut options = DiffOptions::new();
                options.set_original_filename(label("a", old)).set_modified_filename(label("b", after));
                let patch = options.create_patch(&old_text, &new_text);
                let formatter = PatchFormatter::new().suppress_blank_empty(false);
                let formatter = if self.is_coloured { formatter.with_color() } else { formatter };
                formatter.fmt_patch(&patch).to_string()
            }
            _ => self.note(&format!("{path}: {}", self.fingerprints(path, old, after)), &[]),
        }
    }

    fn fingerprints(&self, path: &str, old: Option<&[u8]>, new: Option<&[u8]>) -> String {
        let sum = |bytes: &[u8]| format!("sha256 {}", &files::sha256(bytes)[..SHOWN]);
        let is_known = !self.is_by_chance || self.issued.get(path).is_some_and(|issued| issued.is_copied);
        let new_sum = |bytes: &[u8]| if is_known { sum(bytes) } else { "made when it is rendered".to_owned() };
        match (old, new) {
            (Some(old), Some(new)) => format!("changes: {} -> {}", sum(old), new_sum(new)),
            (None, Some(new)) => format!("new: {}", new_sum(new)),
            (Some(old), None) => format!("removed: {}", sum(old)),
            (None, None) => String::new(),
        }
    }

    /// Keys, certificates and requests.
    fn of_tls(&self, path: &str, old: Option<&[u8]>, new: Option<&[u8]>) -> String {
        let issued = self.issued.get(path);
        let what = match issued {
            Some(issued) if issued.is_copied => issued.reason.clone(),
            Some(issued) if path.ends_with(".crt") => format!("issued anew: {}", issued.reason),
            Some(issued) if path.ends_with(".csr") => issued.reason.clone(),
            _ => self.fingerprints(path, old, new),
        };
        let is_new = old.is_none() && issued.is_some_and(|issued| issued.reason == "new");
        let what = if is_new { "new".to_owned() } else { what };
        let is_by_chance = issued.is_some_and(|issued| !issued.is_copied);
        let mut lines = Vec::new();
        if path.ends_with(".crt") {
            lines.extend(old.and_then(|pem| certificate(pem, false)).map(|text| format!("- {text}")));
            lines.extend(new.and_then(|pem| certificate(pem, is_by_chance)).map(|text| format!("+ {text}")));
        }
        self.note(&format!("{path}: {what}"), &lines)
    }
}

/// What a certificate says, in a line.
fn certificate(pem: &[u8], is_by_chance: bool) -> Option<String> {
    let info = pki::inspect(pem).ok()?;
    let serial = if is_by_chance { "made when it is issued" } else { &*info.serial };
    let mut text = format!(
        "{}; valid from {} to {}; serial {serial}",
        info.subject,
        info.not_before.date(),
        info.not_after.date()
    );
    if !info.sans.is_empty() {
        let _ = write!(text, "; names {}", info.sans.join(", "));
    }
    Some(text)
}

/// The fields of kubeconfigs and Secrets that are no secret: all others are named only.
const OPEN: [&str; 8] = ["apiVersion", "kind", "name", "namespace", "server", "cluster", "user", "current-context"];

/// Which fields differ between two texts of YAML, with their values where these are no secret.
fn fields_changed(old: &str, new: &str) -> Vec<String> {
    let (old, new) = (fields(old), fields(new));
    let paths: BTreeSet<_> = old.keys().chain(new.keys()).collect();
    let differ = paths.into_iter().filter(|path| old.get(*path) != new.get(*path));
    differ
        .map(|path| match (old.get(path), new.get(path)) {
            (None, _) => format!("+ {path}"),
            (_, None) => format!("- {path}"),
            (Some(old), Some(new)) if is_open(path) => format!("{path}: {old} -> {new}"),
            _ => format!("{path} changes"),
        })
        .collect()
}

fn is_open(path: &str) -> bool {
    let name = path.rsplit('.').next().unwrap_or_default();
    let is_data = path.split(['.', '[', ']']).any(|part| part == "data" || part == "stringData");
    !is_data && OPEN.contains(&name)
}

/// Every value that is no map and no list, by its path; of several documents, the path begins with their number.
fn fields(text: &str) -> BTreeMap<String, Value> {
    fn collect(path: &str, value: &Value, into: &mut BTreeMap<String, Value>) {
        match value {
            Value::Object(map) => map.iter().for_each(|(key, value)| collect(&yaml::child(path, key), value, into)),
            Value::Array(list) => {
                list.iter().enumerate().for_each(|(at, value)| collect(&yaml::item(path, at), value, into));
            }
            value => drop(into.insert(path.to_owned(), value.clone())),
        }
    }
    let mut found = BTreeMap::new();
    for (number, document) in yaml::documents("", text).unwrap_or_default().iter().enumerate() {
        let path = if number == 0 { String::new() } else { yaml::item("", number) };
        collect(&path, &document.value, &mut found);
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_that_a_user_put_anywhere_is_one() {
        for text in [
            "kind: Secret\n",
            "kind: \"Secret\"\n",
            "- {\"kind\": 'Secret', data: {}}\n",
            "# x\n-----BEGIN EC PRIVATE KEY-----\n",
        ] {
            assert!(holds_secrets(text.as_bytes()), "{text}");
        }
        assert!(!holds_secrets(b"kind: DaemonSet\nsecretName: kube-apiserver\n"));
    }

    #[test]
    fn fields_are_named_and_only_open_ones_shown() {
        let old = "server: a\nusers: [{name: u1, token: t1}]\ndata: {server: s1, gone: x}\nstringData: {name: p1}\n";
        let new = "server: b\nusers: [{name: u2, token: t2}]\ndata: {server: s2}\nstringData: {name: p2}\nmore: s3\n";
        assert_eq!(
            fields_changed(old, new),
            [
                "- data.gone",
                "data.server changes",
                "+ more",
                "server: \"a\" -> \"b\"",
                "stringData.name changes",
                "users[0].name: \"u1\" -> \"u2\"",
                "users[0].token changes",
            ]
        );
    }
}
