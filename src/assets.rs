//! The asset directory: its content in memory ([`AssetSet`]), and how it comes from and gets to the disk.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::config::{self, Cluster};
use crate::error::{Error, Finding, Result};
use crate::files::{self, File};
use crate::secrets::Tls;
use crate::{typed, yaml};

/// Records what `render` wrote, so that the next one can tell a user's edit from its own text.
const RENDERED: &str = ".rendered";

/// Everything in an asset directory, by path below it.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct AssetSet {
    /// The files.
    pub files: BTreeMap<String, File>,
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

/// What writing an [`AssetSet`] did.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// Files that are new or have another content.
    pub changed: Vec<String>,
    /// Files that a user edited or removed, left as they are.
    pub kept: Vec<String>,
}

impl AssetSet {
    /// Reads an asset directory.
    ///
    /// # Errors
    /// A folder that is none, or a file that cannot be read.
    pub fn load(dir: &Path) -> Result<Self> {
        if !dir.join("cluster.yaml").is_file() {
            return Err(Error::Input(vec![
                Finding::new(dir.display().to_string(), "is not an asset directory: it has no cluster.yaml")
                    .remedy("make one with `hoist render --config cluster.yaml --asset-dir DIR`"),
            ]));
        }
        let mut set = Self::default();
        for name in ["cluster.yaml", RENDERED] {
            if let Some(content) = files::read_if_there(&dir.join(name))? {
                set.files.insert(name.into(), File::public(content));
            }
        }
        for part in ["auth", "tls", "bootstrap-manifests", "manifests", "kubelet"] {
            set.collect(dir, &dir.join(part))?;
        }
        Ok(set)
    }

    fn collect(&mut self, root: &Path, dir: &Path) -> Result<()> {
        let entries = match std::fs::read_dir(dir) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            entries => entries.map_err(|error| Error::io("read", dir, error))?,
        };
        for entry in entries {
            let path = entry.map_err(|error| Error::io("read", dir, error))?.path();
            let hidden = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
            if path.is_dir() {
                self.collect(root, &path)?;
            } else if !hidden {
                let name = path.strip_prefix(root).unwrap_or(&path).to_string_lossy().into_owned();
                let content = std::fs::read(&path).map_err(|error| Error::io("read", &path, error))?;
                self.files.insert(name, File { content, private: true });
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

    /// Every object in the manifests below `part`, in the order of the files' names.
    ///
    /// # Errors
    /// Every manifest that does not parse or does not fit its type, all at once.
    pub fn manifests(&self, dir: &Path, part: &str) -> Result<Vec<Manifest>> {
        let mut manifests = Vec::new();
        let mut findings = Vec::new();
        let below = self.files.iter().filter(|(path, _)| path.starts_with(&format!("{part}/")));
        for (path, file) in below.filter(|(path, _)| is_manifest(path)) {
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
        if findings.is_empty() { Ok(manifests) } else { Err(Error::Input(findings)) }
    }

    /// Writes the set to `dir`. A file that its user edited or removed since the last time is left alone.
    ///
    /// # Errors
    /// A folder that holds something else; an edited file that the new input wants to change; the system's refusal.
    /// Nothing is changed then.
    pub fn write(&self, dir: &Path) -> Result<Written> {
        let before = Rendered::read(dir)?;
        let mut written = Written::default();
        let mut conflicts = Vec::new();
        let mut wanted = Vec::new();
        for (path, file) in &self.files {
            let at = dir.join(path);
            let there = files::read_if_there(&at)?;
            let recorded = before.sums.get(path);
            let edited = match &there {
                // Keys and certificates are the one thing that render puts back when it is missing.
                None => recorded.is_some() && is_manifest(path) && !path.starts_with("auth/"),
                Some(content) => content != &file.content && recorded.is_some_and(|sum| sum != &sum_of(content)),
            };
            match (edited, recorded) {
                (true, Some(sum)) if sum == &sum_of(&file.content) => written.kept.push(path.clone()),
                (true, _) => conflicts.push(
                    Finding::new(at.display().to_string(), "was edited, and what it was rendered from has changed too").remedy(
                        "render into an empty folder, compare the two, carry your edit over, and move the file out of the way",
                    ),
                ),
                (false, _) => wanted.push((at, file)),
            }
        }
        if !conflicts.is_empty() {
            return Err(Error::Input(conflicts));
        }
        files::make_dir(dir, 0o755)?;
        for (path, file) in &wanted {
            let private = file.private && !path.starts_with(dir.join("manifests"));
            files::make_dir(path.parent().unwrap_or(dir), if private { 0o700 } else { 0o755 })?;
        }
        let record = File::public(Rendered::of(self).text());
        wanted.push((dir.join(RENDERED), &record));
        for path in files::write_all(wanted)? {
            let name = path.strip_prefix(dir).unwrap_or(&path).to_string_lossy().into_owned();
            if name != RENDERED {
                written.changed.push(name);
            }
        }
        Ok(written)
    }
}

/// Whether `render` may write to `dir`: an asset directory, an empty folder, or nothing yet.
///
/// # Errors
/// A folder that holds something else.
pub fn check_target(dir: &Path) -> Result<()> {
    if dir.join("cluster.yaml").is_file() && dir.join(RENDERED).is_file() {
        return Ok(());
    }
    let refuse = |what: &str| {
        Err(Error::Input(vec![
            Finding::new(dir.display().to_string(), what.to_owned())
                .remedy("name an empty folder, a new one, or one that `hoist render` wrote"),
        ]))
    };
    match std::fs::read_dir(dir) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::NotADirectory => refuse("is not a folder"),
        Err(error) => Err(Error::io("read", dir, error)),
        Ok(mut entries) => match entries.next() {
            None => Ok(()),
            Some(_) => refuse("holds files that `hoist render` did not write"),
        },
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

/// The checksums of what was rendered last, by path.
#[derive(Default)]
struct Rendered {
    sums: BTreeMap<String, String>,
}

impl Rendered {
    fn of(set: &AssetSet) -> Self {
        Self { sums: set.files.iter().map(|(path, file)| (path.clone(), sum_of(&file.content))).collect() }
    }

    fn read(dir: &Path) -> Result<Self> {
        let content = files::read_if_there(&dir.join(RENDERED))?.unwrap_or_default();
        let text = String::from_utf8_lossy(&content);
        let entry = |line: &str| line.split_once("  ").map(|(sum, path)| (path.to_owned(), sum.to_owned()));
        Ok(Self { sums: text.lines().filter_map(entry).collect() })
    }

    /// In the form of sha256sum, so that `sha256sum -c .rendered` shows what was edited.
    fn text(&self) -> String {
        self.sums.iter().map(|(path, sum)| format!("{sum}  {path}\n")).collect()
    }
}

fn sum_of(content: &[u8]) -> String {
    Sha256::digest(content).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The asset directory as an absolute path, as messages and copies need it.
///
/// # Errors
/// A current folder that is gone.
pub fn absolute(dir: &Path) -> Result<PathBuf> {
    std::path::absolute(dir).map_err(|error| Error::io("find", dir, error))
}
