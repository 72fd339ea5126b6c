//! The asset directory: its content in memory ([`AssetSet`]), and how it comes from the disk and gets there.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::base::error::{Error, Finding, Result};
use crate::base::files::{self, File};
use crate::base::input;
use crate::base::yaml;
use crate::desired::config::{self, Cluster, Rendered, Version};
use crate::desired::kubeconfig;
use crate::desired::schema::{self, Reader as ReadBy};
use crate::desired::secrets::Tls;

mod addons;
mod bootkube;
mod diff;
pub mod helm;
mod lists;
mod merge;
mod plan;
mod read;
mod record;
mod secrecy;
mod write;

use read::Reader;

pub use addons::addons;
pub use plan::{Choices, Plan, Written};
pub use write::check_target;

/// The resolved configuration, below the asset directory.
const CLUSTER: &str = "cluster.yaml";

/// The file with the id of the cluster that was brought up from an asset directory: the uid of its namespace kube-system,
/// which is made by chance once and goes into every snapshot. (etcd's own id of a cluster follows from its members' URLs:
/// a second cluster at the same address has the same.) `start` writes it.
pub const CLUSTER_ID: &str = "cluster-id";

/// The id of the cluster that was brought up from `assets`, if one was.
pub fn cluster_id(assets: &AssetSet) -> Option<String> {
    let text = String::from_utf8_lossy(&assets.files.get(CLUSTER_ID)?.content).trim().to_owned();
    (!text.is_empty()).then_some(text)
}

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
    pub object: Value,
}

/// Fields of metadata that bind a manifest to one object of one cluster, or to one state of it: `kubectl get -o yaml`
/// writes them. Elsewhere the API server refuses the manifest for them.
pub const EXPORTED: [&str; 3] = ["uid", "resourceVersion", "managedFields"];

impl Manifest {
    /// The SHA-256 of what the manifest says, as its object bears it once it was applied.
    pub fn sum(&self) -> String {
        files::sha256(self.object.to_string().as_bytes())
    }

    /// Those of [`EXPORTED`] that it has.
    pub fn exported(&self) -> Vec<&'static str> {
        exported(&self.object)
    }

    /// The text at a JSON pointer; empty where there is none.
    pub fn text(&self, pointer: &str) -> &str {
        self.object.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
    }
}

/// One document of a manifest, with the place of everything in it.
pub struct Parsed {
    /// The file it stands in, below the asset directory.
    pub path: String,
    /// The same file as messages name it.
    pub place: String,
    /// What it says and where.
    pub document: yaml::Document,
}

/// Those of [`EXPORTED`] that an object has.
pub fn exported(object: &Value) -> Vec<&'static str> {
    let has = |field: &&str| object["metadata"].get(field).is_some_and(|value| !value.is_null() && value != "");
    EXPORTED.into_iter().filter(has).collect()
}

impl Parsed {
    /// Whether it goes to the API server.
    pub fn is_applied(&self) -> bool {
        is_applied(&self.path) && self.skipped().is_none()
    }

    /// The events that it is a hook of Helm's for, if it goes to no API server for that.
    pub fn skipped(&self) -> Option<&str> {
        helm::skipped(&self.document.value).filter(|_| is_applied(&self.path))
    }
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
        if !write::was_rendered(dir) {
            let findings = bootkube::findings(dir);
            if !findings.is_empty() {
                return Err(Error::Input(findings));
            }
        }
        let has_configuration = std::fs::symlink_metadata(dir.join("cluster.yaml")).is_ok();
        if !has_configuration && dir.join("tls/ca.crt").is_file() && !write::was_interrupted(dir) {
            return refuse(
                "waits for certificates to be signed",
                "run `hoist render` again: it names each, and continues once they are there",
            );
        }
        if !has_configuration {
            return refuse("is not an asset directory: it has no cluster.yaml", MAKE);
        }
        if write::was_interrupted(dir) {
            return refuse("is incomplete: the last `hoist render` was interrupted", "run `hoist render` again");
        }
        let mut reader = Reader::new(dir);
        reader.file(&dir.join("cluster.yaml"));
        if std::fs::symlink_metadata(dir.join(CLUSTER_ID)).is_ok() {
            reader.file(&dir.join(CLUSTER_ID));
        }
        for part in ["auth", "tls", "bootstrap-manifests", "manifests", "addons", "kubelet", "systemd", "keepalived"] {
            reader.folder(&dir.join(part))?;
        }
        reader.done()
    }

    /// The resolved configuration.
    ///
    /// # Errors
    /// A cluster.yaml that is not valid.
    pub fn cluster(&self, dir: &Path) -> Result<Cluster> {
        self.cluster_and_warnings(dir).map(|(cluster, _)| cluster)
    }

    /// The resolved configuration, with what of it may not be meant.
    ///
    /// # Errors
    /// A cluster.yaml that is not valid.
    pub fn cluster_and_warnings(&self, dir: &Path) -> Result<(Cluster, Vec<Finding>)> {
        let place = dir.join("cluster.yaml");
        config::parse_and_warn(&place.display().to_string(), &self.text("cluster.yaml")?, dir)
    }

    /// What is in tls/, by path below it.
    pub fn tls(&self) -> Tls {
        let below =
            |(path, file): (&String, &File)| Some((path.strip_prefix("tls/")?.to_owned(), file.content.clone()));
        self.files.iter().filter_map(below).collect()
    }

    /// What others than root can do to this asset directory, whose files were read from `dir`. None of it stands in the
    /// way: it may be meant.
    pub fn exposed(&self, dir: &Path) -> Vec<Finding> {
        let is_secret = |path: &str, file: &File| {
            path.ends_with(".key")
                || path == "tls/encryption.yaml"
                || path.starts_with("auth/")
                || path.ends_with("/secret.yaml")
                || path.ends_with("-kubeconfig")
                || path.starts_with("addons/") && secrecy::holds_secrets(&file.content)
        };
        let open = self.files.iter().filter(|(path, file)| is_secret(path, file)).map(|(path, _)| path);
        let open: Vec<_> = open.filter(|path| files::is_exposed(&dir.join(path))).collect();
        let mut findings = Vec::new();
        if let [first, more @ ..] = &open[..] {
            let more = if more.is_empty() {
                String::new()
            } else {
                format!(", and {} more of this folder's keys", more.len())
            };
            let finding = Finding::new(
                dir.join(first).display().to_string(),
                format!("other users of this machine may read it{more}"),
            );
            findings.push(finding.warning().remedy(format!("`chmod 700 {}` keeps them out", dir.display())));
        }
        let owner = std::fs::metadata(dir).map_or(0, |meta| std::os::unix::fs::MetadataExt::uid(&meta));
        if nix::unistd::geteuid().is_root() && owner != 0 {
            let message = format!("belongs to the user {owner}, who can change what root is about to run");
            let finding = Finding::new(dir.display().to_string(), message);
            findings
                .push(finding.warning().remedy(format!("`chown -R root: {}`, unless that is meant", dir.display())));
        }
        findings
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
        input::text(path, &file.content).map(str::to_owned).map_err(|finding| Error::Input(vec![finding]))
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
                let message = format!("`hoist render` makes no {path} from this configuration");
                findings.push(
                    Finding::new(option, message).remedy(
                        "name a file by its path below the asset directory, such as manifests/kubelet/rbac.yaml",
                    ),
                );
            }
        }
        if findings.is_empty() { Ok(found) } else { Err(Error::Input(findings)) }
    }

    /// The kubeconfigs hold together: what `start` reads of them is in them, and nothing that it would have to run.
    ///
    /// # Errors
    /// All that is wrong with them.
    pub fn check_kubeconfigs(&self, dir: &Path) -> Result<()> {
        let ca = self.files.get("tls/ca.crt").map(|file| file.content.as_slice());
        let mut findings = Vec::new();
        for path in ["auth/kubeconfig", "auth/kubeconfig-kubelet"] {
            if let Some(file) = self.files.get(path) {
                findings.extend(kubeconfig::check(&dir.join(path).display().to_string(), &file.content, ca));
            }
        }
        if findings.is_empty() { Ok(()) } else { Err(Error::Input(findings)) }
    }

    /// Every object that `start` applies, in the order of the files' names: those in manifests/, and those in addons/.
    ///
    /// # Errors
    /// Every manifest that does not parse or does not fit its type, those of the static pods too, all at once.
    pub fn manifests(&self, dir: &Path) -> Result<(Vec<Manifest>, Vec<Manifest>)> {
        let (parsed, findings) = self.parsed(dir);
        if !findings.is_empty() {
            return Err(Error::Input(findings));
        }
        let applied = parsed.into_iter().filter(Parsed::is_applied);
        let manifest =
            |parsed: Parsed| Manifest { path: parsed.path, line: parsed.document.line, object: parsed.document.value };
        Ok(applied.map(manifest).partition(|manifest| manifest.path.starts_with("manifests/")))
    }

    /// Every document in manifests/, addons/ and bootstrap-manifests/ that is YAML, and what is wrong with any of them by
    /// itself.
    pub fn parsed(&self, dir: &Path) -> (Vec<Parsed>, Vec<Finding>) {
        let mut all = Vec::new();
        let mut findings = Vec::new();
        let is_ours = |path: &str| is_applied(path) || path.starts_with("bootstrap-manifests/");
        for (path, file) in self.files.iter().filter(|(path, _)| is_manifest(path) && is_ours(path)) {
            let place = dir.join(path).display().to_string();
            let read = input::text(&place, &file.content).map_err(|finding| vec![finding]);
            match read.and_then(|text| objects(path, &place, text)) {
                Err(found) => findings.push((path.clone(), found)),
                Ok(documents) => {
                    let parsed = |document| Parsed { path: path.clone(), place: place.clone(), document };
                    all.extend(documents.into_iter().map(parsed));
                }
            }
        }
        // Which version they are for stands in one of them.
        let version = self.version(dir, &all);
        findings.extend(
            all.iter().map(|Parsed { path, place, document }| {
                (path.clone(), problems(place, document, version, read_by(path)))
            }),
        );
        findings.sort_by(|(a, _), (b, _)| a.cmp(b));
        let mut findings: Vec<_> = findings.into_iter().flat_map(|(_, findings)| findings).collect();
        findings.extend(twice(&all));
        (all, findings)
    }

    /// The version of Kubernetes that these manifests are for: that of the API server among them by its image's tag, or
    /// else cluster.yaml's; `None` where neither says.
    fn version(&self, dir: &Path, parsed: &[Parsed]) -> Option<Version> {
        let self_hosted = parsed.iter().filter(|parsed| parsed.path.starts_with("manifests/"));
        let containers = self_hosted.filter_map(|parsed| {
            parsed.document.value.pointer("/spec/template/spec/containers").and_then(Value::as_array)
        });
        let mut images = containers.flatten().filter_map(|container| container.get("image")?.as_str());
        images.find_map(|image| tagged(image, "kube-apiserver")).or_else(|| {
            self.files
                .contains_key("cluster.yaml")
                .then(|| self.cluster(dir).ok())?
                .map(|cluster| cluster.kubernetes_version)
        })
    }
}

/// The version that the tag of `image` says, for an image of `program`.
fn tagged(image: &str, program: &str) -> Option<Version> {
    let (name, _) = image.rsplit_once(":v")?;
    let (major, minor, patch) = config::version::of_image(image)?;
    (name.rsplit('/').next() == Some(program)).then_some(Version { major, minor, patch })
}

/// The private files that stand in `part` of an asset directory, by path below the part.
///
/// # Errors
/// A file that cannot be read.
pub fn existing(dir: &Path, part: &str) -> Result<BTreeMap<String, Vec<u8>>> {
    let root = dir.join(part);
    let mut reader = Reader::new(&root);
    reader.folder(&root)?;
    Ok(reader.done()?.files.into_iter().map(|(path, file)| (path, file.content)).collect())
}

/// The version of Kubernetes that `dir` was rendered with, by its cluster.yaml. One that its user put there, and that
/// names none, only matters where it `is_replaced`: a render refuses it otherwise.
pub fn rendered_version(dir: &Path, is_replaced: bool) -> Rendered {
    let read = input::read(&dir.join(CLUSTER), input::CONFIG_LIMIT);
    // A render that was cut short has not got to it yet; one that awaits certificates makes none.
    let has_made_it = || record::Record::read(&dir.join(record::RENDERED)).is_ok_and(|record| record.has(CLUSTER));
    match read {
        Err(_) if has_made_it() => Rendered::Unknown,
        Err(_) => Rendered::Never,
        Ok(_) if !write::was_rendered(dir) => Rendered::Never,
        Ok(bytes) => match Rendered::of(&String::from_utf8_lossy(&bytes)) {
            Rendered::Unknown if !is_replaced => Rendered::Never,
            rendered => rendered,
        },
    }
}

/// Half of an asset directory is for its owner's eyes only.
fn unreadable(path: &Path, error: std::io::Error) -> Error {
    if error.kind() != std::io::ErrorKind::PermissionDenied {
        return Error::io("read", path, error);
    }
    Error::Preflight(vec![not_for_us(Finding::new(path.display().to_string(), "this user may not read it"))])
}

fn not_for_us(finding: Finding) -> Finding {
    finding.remedy("run hoist as root, or as the user who rendered the asset directory")
}

/// Whether what stands in the file goes to the API server.
fn is_applied(path: &str) -> bool {
    path.starts_with("manifests/") || path.starts_with("addons/")
}

/// What reads it.
fn read_by(path: &str) -> ReadBy {
    if path.starts_with("bootstrap-manifests/") { ReadBy::Kubelet } else { ReadBy::ApiServer }
}

fn is_manifest(path: &str) -> bool {
    [".yaml", ".yml", ".json"].iter().any(|end| path.ends_with(end))
}

/// The objects that the text of a manifest makes, wherever it is in an asset directory; `place` names it in findings. What
/// the kubelet reads by itself may be no list.
fn objects(path: &str, place: &str, text: &str) -> Result<Vec<yaml::Document>, Vec<Finding>> {
    let documents = yaml::documents(place, text)?;
    Ok(if is_applied(path) { documents.into_iter().flat_map(lists::flatten).collect() } else { documents })
}

/// Objects that two manifests make: the second would undo the first.
fn twice(parsed: &[Parsed]) -> Vec<Finding> {
    let mut seen = BTreeMap::new();
    let mut findings = Vec::new();
    for Parsed { place, document, .. } in parsed.iter().filter(|parsed| parsed.is_applied()) {
        let text = |pointer: &str| document.value.pointer(pointer).and_then(Value::as_str);
        // Another version of a group is another form of the same object.
        let group = text("/apiVersion").and_then(|version| version.split_once('/')).map_or("", |(group, _)| group);
        let (kind, name) = (text("/kind").unwrap_or_default(), text("/metadata/name").unwrap_or_default());
        let namespace = text("/metadata/namespace").unwrap_or("default");
        match seen.entry((group, kind, namespace, name)) {
            Entry::Vacant(entry) => {
                entry.insert((place, document.line));
            }
            Entry::Occupied(first) if !name.is_empty() => {
                let (file, line) = first.get();
                let message = format!("{kind} {name} is in {file}:{line} already");
                let finding = Finding::new(place, message).at(Some((document.line, 1)));
                findings.push(finding.remedy("keep one of them, or give it another name or namespace"));
            }
            Entry::Occupied(_) => {}
        }
    }
    findings
}

/// What is wrong with one document by itself, for what reads it in `version`.
fn problems(place: &str, document: &yaml::Document, version: Option<Version>, read_by: ReadBy) -> Vec<Finding> {
    let at = |path: &str| document.positions.nearest(path).or(Some((document.line, 1)));
    let text = |pointer: &str| document.value.pointer(pointer).and_then(Value::as_str);
    let mut findings = Vec::new();
    let mut said = Vec::new();
    for (pointer, field) in [("/apiVersion", "apiVersion"), ("/kind", "kind"), ("/metadata/name", "metadata.name")] {
        let finding = match document.value.pointer(pointer) {
            Some(Value::String(text)) if !text.is_empty() => continue,
            Some(other @ (Value::Number(_) | Value::Bool(_))) => {
                Finding::new(place, format!("{field}: expected a string, found {other}")).remedy("write it in quotes")
            }
            _ => Finding::new(place, format!("a manifest needs {field}")).remedy(match field {
                "metadata.name" if text("/metadata/generateName").is_some() => {
                    "give it a name instead of generateName: start applies the same object each time"
                }
                "metadata.name" if document.value.get("items").is_some() => {
                    "if it is a list, its kind ends with List, and items: is a list; a static pod stands alone"
                }
                "metadata.name" => "give the object a name: metadata: {name: …}",
                _ => {
                    "write it as the documentation of the kind has it; a file that is not a manifest belongs elsewhere"
                }
            }),
        };
        findings.push(finding.at(at(field)));
        said.push(field);
    }
    let kind = text("/kind").unwrap_or_default().to_lowercase();
    let found = schema::check(&document.value, version, read_by).into_iter();
    for problem in found.filter(|problem| !said.contains(&problem.path.as_str())) {
        let at = document.positions.key(&problem.path).or_else(|| at(&problem.path));
        let finding = Finding::new(place, format!("{}: {}", problem.path, problem.message)).at(at);
        let explain = || format!("`kubectl explain {kind}` names the fields and their types");
        findings.push(finding.remedy(problem.remedy.unwrap_or_else(explain)));
    }
    findings
}

/// The asset directory as an absolute path, as messages and copies need it.
///
/// # Errors
/// A current folder that is gone.
pub fn absolute(dir: &Path) -> Result<PathBuf> {
    std::path::absolute(dir).map_err(|error| Error::io("find", dir, error))
}
