//! The asset directory: its content in memory ([`AssetSet`]), and how it comes from the disk and gets there.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crate::config::{self, Cluster};
use crate::error::{Error, Finding, Result};
use crate::files::File;
use crate::secrets::Tls;
use crate::{typed, yaml};

mod diff;
mod merge;
mod plan;
mod record;
mod write;

pub use plan::{Choices, Plan, Written};
pub use write::check_target;

/// Everything in an asset directory, by path below it.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct AssetSet {
    /// The files.
    pub files: BTreeMap<String, File>,
    /// It is not all that the directory holds: what else an earlier render made there stays.
    pub is_part: bool,
}

/// One object of a manifest in an asset directory.
#[derive(Debug, Clone, PartialEq)]
pub struct Manifest {
    /// The file it stands in, below the asset directory.
    pub path: String,
    /// The line it begins at.
    pub line: usize,
    /// The object.
    pub object: serde_json::Value,
}

impl AssetSet {
    /// Reads an asset directory.
    ///
    /// # Errors
    /// A folder that is none, one whose rendering was cut short, or a file that cannot be read.
    pub fn load(dir: &Path) -> Result<Self> {
        let refuse = |message: &str, remedy: &str| {
            Err(Error::Input(vec![Finding::new(dir.display().to_string(), message).remedy(remedy)]))
        };
        const MAKE: &str = "make one with `hoist render --config cluster.yaml --asset-dir DIR`";
        if !dir.exists() {
            return refuse("there is no such folder", MAKE);
        }
        let has_configuration = dir.join("cluster.yaml").is_file();
        if !has_configuration && dir.join("tls/ca.crt").is_file() && !write::was_interrupted(dir) {
            return refuse(
                "waits for certificates to be signed",
                "run `hoist render` again: it names each, and goes on once they are there",
            );
        }
        if !has_configuration {
            return refuse("is not an asset directory: it has no cluster.yaml", MAKE);
        }
        if write::was_interrupted(dir) {
            return refuse("is incomplete: the last `hoist render` was interrupted", "run `hoist render` again");
        }
        let mut set = Self::default();
        set.files.insert("cluster.yaml".into(), File::public(read(&dir.join("cluster.yaml"))?));
        for part in ["auth", "tls", "bootstrap-manifests", "manifests", "kubelet", "systemd"] {
            set.collect(dir, &dir.join(part))?;
        }
        Ok(set)
    }

    fn collect(&mut self, root: &Path, dir: &Path) -> Result<()> {
        let entries = match std::fs::read_dir(dir) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            entries => entries.map_err(|error| unreadable(dir, error))?,
        };
        for entry in entries {
            let path = entry.map_err(|error| Error::io("read", dir, error))?.path();
            let hidden = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
            if path.is_dir() {
                self.collect(root, &path)?;
            } else if !hidden {
                let name = path.strip_prefix(root).unwrap_or(&path).to_string_lossy().into_owned();
                self.files.insert(name, File::private(read(&path)?));
            }
        }
        Ok(())
    }

    /// The resolved configuration.
    ///
    /// # Errors
    /// A cluster.yaml that is not valid.
    pub fn cluster(&self, dir: &Path) -> Result<Cluster> {
        let place = dir.join("cluster.yaml");
        config::parse(&place.display().to_string(), &self.text("cluster.yaml")?, dir)
    }

    /// What is in tls/, by path below it.
    pub fn tls(&self) -> Tls {
        let below =
            |(path, file): (&String, &File)| Some((path.strip_prefix("tls/")?.to_owned(), file.content.clone()));
        self.files.iter().filter_map(below).collect()
    }

    /// The text of one file.
    ///
    /// # Errors
    /// A file that is not there or is no text.
    pub fn text(&self, path: &str) -> Result<String> {
        let file = self.files.get(path).ok_or_else(|| {
            Error::Input(vec![
                Finding::new(path, "the asset directory lacks this file")
                    .remedy("run `hoist render` with the cluster.yaml and this asset directory again"),
            ])
        })?;
        String::from_utf8(file.content.clone())
            .map_err(|_| Error::Input(vec![Finding::new(path, "is not text in UTF-8")]))
    }

    /// The paths below the asset directory of `names`, which `option` gave and which may have the path of `dir` in front.
    ///
    /// # Errors
    /// Every name that no file of the set has.
    pub fn named(&self, dir: &Path, option: &str, names: &[PathBuf]) -> Result<BTreeSet<String>> {
        let mut found = BTreeSet::new();
        let mut findings = Vec::new();
        for name in names {
            let whole = absolute(name)?;
            let path = whole.strip_prefix(dir).unwrap_or(name).to_string_lossy().into_owned();
            let must_fit = path == "cluster.yaml" || path.starts_with("tls/");
            if option == "--keep" && must_fit {
                let message = format!("{path} must fit the files that are made from it");
                findings.push(Finding::new(option, message).remedy("keep a copy of it elsewhere, and use --replace"));
            } else if self.files.contains_key(&path) {
                found.insert(path);
            } else {
                let message = format!("`hoist render` makes no {path} of this configuration");
                findings.push(
                    Finding::new(option, message).remedy(
                        "name a file by its path below the asset directory, such as manifests/kubelet/rbac.yaml",
                    ),
                );
            }
        }
        if findings.is_empty() { Ok(found) } else { Err(Error::Input(findings)) }
    }

    /// Every object that `start` applies: those in manifests/, in the order of the files' names.
    ///
    /// # Errors
    /// Every manifest that does not parse or does not fit its type, those of the static pods too, all at once.
    pub fn manifests(&self, dir: &Path) -> Result<Vec<Manifest>> {
        let mut manifests = Vec::new();
        let mut findings = Vec::new();
        let is_applied = |path: &str| path.starts_with("manifests/");
        let parsed = |path: &str| is_manifest(path) && (is_applied(path) || path.starts_with("bootstrap-manifests/"));
        for (path, file) in self.files.iter().filter(|(path, _)| parsed(path)) {
            let place = dir.join(path).display().to_string();
            let text = String::from_utf8_lossy(&file.content);
            match yaml::documents(&place, &text) {
                Err(found) => findings.extend(found),
                Ok(documents) => {
                    for document in documents {
                        findings.extend(problems(&place, &document));
                        manifests.push(Manifest { path: path.clone(), line: document.line, object: document.value });
                    }
                }
            }
        }
        manifests.retain(|manifest| is_applied(&manifest.path));
        if findings.is_empty() { Ok(manifests) } else { Err(Error::Input(findings)) }
    }
}

/// The private files that stand in `part` of an asset directory, by path below the part.
///
/// # Errors
/// A file that cannot be read.
pub fn existing(dir: &Path, part: &str) -> Result<BTreeMap<String, Vec<u8>>> {
    let mut set = AssetSet::default();
    set.collect(&dir.join(part), &dir.join(part))?;
    Ok(set.files.into_iter().map(|(path, file)| (path, file.content)).collect())
}

fn read(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).map_err(|error| unreadable(path, error))
}

/// Half of an asset directory is for its owner's eyes only.
fn unreadable(path: &Path, error: std::io::Error) -> Error {
    if error.kind() != std::io::ErrorKind::PermissionDenied {
        return Error::io("read", path, error);
    }
    let finding = Finding::new(path.display().to_string(), "this user may not read it");
    Error::Preflight(vec![finding.remedy("run hoist as root, or as the user who rendered the asset directory")])
}

fn is_manifest(path: &str) -> bool {
    [".yaml", ".yml", ".json"].iter().any(|end| path.ends_with(end))
}

fn problems(place: &str, document: &yaml::Document) -> Vec<Finding> {
    let named = |pointer: &str| {
        document.value.pointer(pointer).and_then(serde_json::Value::as_str).is_some_and(|s| !s.is_empty())
    };
    let mut findings = Vec::new();
    for (pointer, field) in [("/apiVersion", "apiVersion"), ("/kind", "kind"), ("/metadata/name", "metadata.name")] {
        if !named(pointer) {
            findings.push(Finding::new(place, format!("a manifest needs {field}")).at(Some((document.line, 1))));
        }
    }
    findings.extend(typed::check(&document.value).into_iter().map(|(path, message)| {
        Finding::new(place, format!("{path}: {message}")).at(document
            .positions
            .key(&path)
            .or_else(|| document.positions.nearest(&path))
            .or(Some((document.line, 1))))
    }));
    findings
}

/// The asset directory as an absolute path, as messages and copies need it.
///
/// # Errors
/// A current folder that is gone.
pub fn absolute(dir: &Path) -> Result<PathBuf> {
    std::path::absolute(dir).map_err(|error| Error::io("find", dir, error))
}
