//! Collects what is wrong with a cluster.yaml, each with its place.

use std::path::Path;

use super::{KeyPairFiles, raw};
use crate::base::error::{Finding, Severity};
use crate::base::yaml::{Fields, Positions, child};

/// Where the form of every field is shown.
pub(super) const SEE: &str = "`hoist config default` shows an example";

/// Collects what is wrong, each with its place.
pub(super) struct Check<'a> {
    pub place: &'a str,
    pub positions: &'a Positions,
    /// Where relative paths of files begin.
    pub base_dir: &'a Path,
    pub findings: Vec<Finding>,
}

impl Check<'_> {
    /// `message` about the value at `path`.
    pub fn wrong(&mut self, path: &str, message: impl AsRef<str>, remedy: impl Into<Option<String>>) {
        let finding = Finding::new(self.place, format!("{path}: {}", message.as_ref()));
        let finding = finding.at(self.positions.nearest(path));
        self.findings.push(Finding { remedy: remedy.into(), ..finding });
    }

    /// `message` about the value at `path`, which may be meant.
    pub fn warn(&mut self, path: &str, message: impl AsRef<str>, remedy: String) {
        self.wrong(path, message, remedy);
        if let Some(finding) = self.findings.last_mut() {
            finding.severity = Severity::Warning;
        }
    }

    /// `message` about the presence of `path`: its position is that of the key.
    pub fn wrong_key(&mut self, path: &str, message: impl AsRef<str>, remedy: impl Into<Option<String>>) {
        let finding = Finding::new(self.place, format!("{path}: {}", message.as_ref()));
        let finding = finding.at(self.positions.key(path).or_else(|| self.positions.nearest(path)));
        self.findings.push(Finding { remedy: remedy.into(), ..finding });
    }

    /// `message` about the presence of `path`, which has no effect.
    pub fn without_effect(&mut self, path: &str, message: impl AsRef<str>, remedy: Option<String>) {
        self.wrong_key(path, message, remedy.unwrap_or_else(|| "remove it".to_owned()));
        if let Some(finding) = self.findings.last_mut() {
            finding.severity = Severity::Warning;
        }
    }

    /// The outcome of a check of [`syntax`] on `value` at `path`; `example` is one that would pass.
    pub fn value<T>(&mut self, path: &str, value: &str, result: Result<T, String>, example: &str) -> Option<T> {
        result.map_err(|why| self.wrong(path, format!("`{}` {why}", value), format!("write it like {example}"))).ok()
    }

    /// The field `name` of `path`, which must be there and not empty.
    pub fn required<'v>(&mut self, path: &str, name: &str, value: Option<&'v str>) -> Option<&'v str> {
        let field = child(path, name);
        match value {
            // `value: ""` is how a flag or a taint has an empty value.
            Some("") if name != "value" => self.wrong(&field, "it is empty", SEE.to_owned()),
            None => self.wrong(&field, "it is required", format!("add {name}: …; {SEE}")),
            value => return value,
        }
        None
    }

    /// Whether the file has a value at `path`.
    pub fn has(&self, path: &str) -> bool {
        self.positions.get(path).is_some()
    }

    /// The path of a file on this machine, made absolute.
    pub fn file(&mut self, path: &str, name: &str, value: Option<&str>) -> Option<String> {
        let value = self.required(path, name, value)?;
        self.absolute(&child(path, name), value, "/etc/pki/ca.crt")
    }

    pub fn absolute(&mut self, path: &str, value: &str, example: &str) -> Option<String> {
        // Joining component by component leaves out `./`.
        let absolute = self.base_dir.join(value).components().collect::<std::path::PathBuf>();
        let result = absolute.into_os_string().into_string();
        let result = result.map_err(|_| "lies in a folder whose name is not UTF-8".to_owned());
        self.value(path, value, result, example)
    }

    pub fn files(&mut self, path: &str, raw: Option<&Fields<raw::KeyPair>>) -> Option<KeyPairFiles> {
        let raw = raw?;
        let certificate = self.file(path, "certificate", raw.certificate.as_deref());
        let key = raw.key.as_deref().map(|key| self.file(path, "key", Some(key)));
        let key = match key {
            Some(key) => Some(key?),
            None => None,
        };
        Some(KeyPairFiles { certificate: certificate?, key })
    }
}
