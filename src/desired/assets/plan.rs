//! The plan of a render for an asset directory, before anything is written. It honours the user's changes since the
//! last render.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use super::merge::{Clash, merge};
use super::record::{History, RENDERED, RENDERING, Record, TEXTS, Texts};
use super::secrecy::holds_secrets;
use super::{AssetSet, is_applied, is_manifest, objects, problems, read_by};
use crate::base::error::{Error, Finding, Result};
use crate::base::files::{self, File};
use crate::base::input;

/// What Secrets are encrypted with, below the asset directory.
const ENCRYPTION: &str = "tls/encryption.yaml";

/// What becomes of files that their user edited or removed, by their paths below the asset directory.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Choices {
    /// They are written anew.
    pub replace: BTreeSet<String>,
    /// They stay as they are, whatever hoist would make of them now.
    pub keep: BTreeSet<String>,
}

/// What writing an [`AssetSet`] did, by paths below the asset directory.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Written {
    /// Files that are new or have another content or mode.
    pub changed: Vec<String>,
    /// Those of them that a user edited, with the edit in them.
    pub merged: Vec<String>,
    /// Files that a user edited, left as they are.
    pub kept: Vec<String>,
    /// Manifests that a user removed, not written again.
    pub left_out: Vec<String>,
    /// Files of an earlier render that this one does not make, removed.
    pub removed: Vec<String>,
    /// Files of an earlier render that this one does not make, left: keys and certificates, and what a user edited.
    pub unused: Vec<String>,
}

/// A file that is to be written.
pub(super) struct Put<'a> {
    pub path: &'a String,
    pub file: Cow<'a, File>,
    /// hoist's own text, where a user's edit is in the file, too.
    pub own: Option<&'a File>,
    /// What stands there.
    pub there: Option<Vec<u8>>,
}

/// What is to be done, and what is to be said about it.
pub struct Plan<'a> {
    /// In the order in which they appear on the disk.
    pub(super) put: Vec<Put<'a>>,
    /// The contents of those of an earlier render that are to be removed.
    pub(super) gone: Vec<(String, Vec<u8>)>,
    /// What will be said of it.
    pub written: Written,
    /// Edits that meet a change of hoist's: nothing is written while there is one.
    pub conflicts: Vec<Finding>,
    pub(super) history: History,
    pub(super) after: Record,
    pub(super) texts: Texts,
    /// Whether something besides the files is to be written: hoist's own notes of them.
    pub(super) notes_differ: bool,
    /// Whether the last render did not come to its end.
    pub(super) was_interrupted: bool,
}

/// What becomes of a file that `render` makes.
enum Fate {
    Write,
    Merge(File),
    Keep,
    LeaveOut,
    Conflict(Vec<Finding>),
}

impl AssetSet {
    /// What writing the set to `dir` would do, which need not exist.
    ///
    /// # Errors
    /// A folder that cannot be read; a key that would have to be replaced.
    pub fn plan(&self, dir: &Path, choices: &Choices) -> Result<Plan<'_>> {
        let history = History::read(dir)?;
        let mut written = Written::default();
        let mut conflicts = Vec::new();
        let mut put = Vec::new();
        let mut gone = Vec::new();
        for (path, file) in &self.files {
            let at = dir.join(path);
            // Ends of lines are no edit: git may have written them so.
            let there = files::read_if_there(&at)?.map(input::unix);
            let fate = match &there {
                _ if choices.replace.contains(path) => Fate::Write,
                Some(_) if choices.keep.contains(path) => Fate::Keep,
                there => fate(&at, path, file, there.as_deref(), &history),
            };
            match fate {
                Fate::Write if stands(&at, file, there.as_deref()) => {}
                Fate::Write if path.ends_with(".key") && there.as_ref().is_some_and(|there| *there != file.content) => {
                    return Err(Error::failed(format!("write {}", at.display()), "hoist never replaces a key"));
                }
                Fate::Write if path == ENCRYPTION && there.is_none() && is_lost(dir, path, choices, &history) => {
                    let message = "is missing, and nothing could read what it has encrypted in this cluster";
                    let remedy = format!(
                        "put it back, from a backup or from guard's copy on a controller; for a cluster that is yet to come, add --replace {path}"
                    );
                    return Err(Error::Input(vec![Finding::new(at.display().to_string(), message).remedy(remedy)]));
                }
                Fate::Write => put.push(Put { path, file: Cow::Borrowed(file), own: None, there }),
                Fate::Merge(merged) if there.as_deref() == Some(&*merged.content) => written.kept.push(path.clone()),
                Fate::Merge(merged) => {
                    written.merged.push(path.clone());
                    put.push(Put { path, file: Cow::Owned(merged), own: Some(file), there });
                }
                Fate::Keep => written.kept.push(path.clone()),
                Fate::LeaveOut => written.left_out.push(path.clone()),
                Fate::Conflict(found) => conflicts.extend(found),
            }
        }
        for path in history.written.paths().filter(|path| !self.files.contains_key(*path)) {
            // A request has served its turn where its certificate is there.
            let is_request = path.starts_with("tls/") && path.ends_with(".csr");
            match files::read_if_there(&dir.join(path))? {
                None => {}
                Some(_) if self.is_part && !is_request => {}
                Some(there) if (is_request || !path.starts_with("tls/")) && history.written.holds(path, &there) => {
                    gone.push((path.clone(), there));
                }
                Some(_) => written.unused.push(path.clone()),
            }
        }
        written.removed = gone.iter().map(|(path, _)| path.clone()).collect();
        written.changed = put.iter().map(|put| put.path.clone()).collect();
        // A key before its certificate, and all of tls/ before what is made from it: whatever an interrupted render
        // leaves, the next one can build on it.
        put.sort_by_key(|put| (!put.path.starts_with("tls/"), !put.path.ends_with(".key") && put.path != ENCRYPTION));
        let own = Record::of(self);
        let after = if self.is_part { history.written.clone().under(own).without(&written.removed) } else { own };
        let texts = history.texts_with(Texts::of(self), &after);
        let notes = [(RENDERED, File::public(after.text())), (TEXTS, texts.to_file())];
        let is_noted = |(name, file): &(&str, File)| {
            files::read_if_there(&dir.join(name))
                .is_ok_and(|there| there.map(input::unix).as_ref() == Some(&file.content))
        };
        let notes_differ = !notes.iter().all(is_noted);
        let was_interrupted = dir.join(RENDERING).exists();
        Ok(Plan { put, gone, written, conflicts, history, after, texts, notes_differ, was_interrupted })
    }
}

impl Plan<'_> {
    /// The asset directory after it, of what is there before it.
    pub fn result(&self, mut there: AssetSet) -> AssetSet {
        for (path, _) in &self.gone {
            there.files.remove(path);
        }
        there.files.extend(self.put.iter().map(|put| (put.path.clone(), File::clone(&put.file))));
        there
    }

    /// Whether it leaves every file as it is.
    pub fn is_empty(&self) -> bool {
        self.put.is_empty() && self.gone.is_empty() && !self.was_interrupted
    }
}

/// Whether an earlier render has made it for the cluster whose CA stands there, and it shall not be made anew.
fn is_lost(dir: &Path, path: &str, choices: &Choices, history: &History) -> bool {
    history.rendered.has(path) && !choices.replace.contains(path) && dir.join("tls/ca.crt").exists()
}

/// What becomes of the file `path`, of which `there` is what stands on the disk at `at`.
fn fate(at: &Path, path: &str, file: &File, there: Option<&[u8]>, history: &History) -> Fate {
    match there {
        // What belongs in tls/ was made from what stands there.
        _ if path.starts_with("tls/") => Fate::Write,
        // `start` needs all but the manifests, and a checkout of a repository lacks what is secret.
        None if history.rendered.has(path) && is_applied(path) && !file.is_private() => Fate::LeaveOut,
        None => Fate::Write,
        Some(there) if there == file.content || history.written.holds(path, there) => Fate::Write,
        // An edit that is kept there would describe another cluster than the files around it.
        Some(_) if path == "cluster.yaml" => Fate::Conflict(vec![configuration_edited(at)]),
        Some(there) if !history.has_merged(path, there) && history.rendered.holds(path, &file.content) => Fate::Keep,
        Some(there) => merged(at, path, file, there, history),
    }
}

/// An edit and a change that meet in one file.
fn merged(at: &Path, path: &str, file: &File, there: &[u8], history: &History) -> Fate {
    let place = at.display().to_string();
    let resolve =
        format!("write what you want into it and add --keep {path}; or add --replace {path} to drop your edit");
    let conflict = |finding: Finding| Fate::Conflict(vec![finding]);
    let both = std::str::from_utf8(there).ok().zip(std::str::from_utf8(&file.content).ok());
    let (Some((yours, new)), Some(base)) = (both.filter(|_| !file.is_private()), history.base(path, there)) else {
        let message = "was edited, and what hoist makes of it has changed since";
        return conflict(Finding::new(place, message).remedy(resolve));
    };
    let text = match merge(base, yours, new) {
        Ok(text) => text,
        Err(clashes) => {
            return Fate::Conflict(
                clashes.iter().map(|clash| clashing(&place, clash, &resolve, !holds_secrets(there))).collect(),
            );
        }
    };
    let broken = if is_manifest(path) { defects(path, &text) } else { Vec::new() };
    match broken.first() {
        None => Fate::Merge(File { content: text.into_bytes(), mode: file.mode }),
        Some(defect) => {
            // It may name the value that does not fit.
            let why = if holds_secrets(there) { String::new() } else { format!(": {}", defect.message) };
            let message = format!("was edited, and together with hoist's changes since it would be wrong{why}");
            conflict(Finding::new(place, message).remedy(resolve))
        }
    }
}

/// What is wrong with the text of a manifest.
fn defects(path: &str, text: &str) -> Vec<Finding> {
    match objects(path, path, text) {
        Err(findings) => findings,
        Ok(documents) if path.starts_with("kubelet/") => {
            if documents.is_empty() {
                vec![Finding::new(path, "it says nothing")]
            } else {
                Vec::new()
            }
        }
        // Which version they are for is said where all of them are read.
        Ok(documents) => documents.iter().flat_map(|document| problems(path, document, None, read_by(path))).collect(),
    }
}

fn clashing(place: &str, clash: &Clash, resolve: &str, is_shown: bool) -> Finding {
    const SHOWN: usize = 5;
    let side = |name: &str, text: &str| {
        let lines: Vec<_> = text.lines().collect();
        let mut shown = format!("{name}:");
        match &lines[..] {
            _ if !is_shown => shown.push_str(" (not shown: the file holds a Secret)"),
            [] => shown.push_str(" (nothing)"),
            [line] => shown.push_str(&format!(" {}", line.trim())),
            lines => {
                lines.iter().take(SHOWN).for_each(|line| shown.push_str(&format!("\n      {line}")));
                if lines.len() > SHOWN {
                    shown.push_str(&format!("\n      ... and {} lines more", lines.len() - SHOWN));
                }
            }
        }
        shown
    };
    let (yours, new) = (side("yours", &clash.yours), side("hoist's", &clash.new));
    Finding::new(place, "you edited lines that hoist now renders differently (cluster.yaml or hoist has changed)")
        .at(Some((clash.line, 1)))
        .remedy(format!("{yours}\n    {new}\n    {resolve}"))
}

fn configuration_edited(at: &Path) -> Finding {
    Finding::new(at.display().to_string(), "was edited, and `hoist render` writes the resolved configuration there").remedy(
        "to render from it, move it out of the asset directory and name it with --config; to drop what was edited, add --replace cluster.yaml",
    )
}

/// Whether `file` is at `at` already, whatever the ends of its lines are. Where a user put a link in its place, its mode is the user's business.
fn stands(at: &Path, file: &File, there: Option<&[u8]>) -> bool {
    let is_link = fs::symlink_metadata(at).is_ok_and(|meta| meta.is_symlink());
    let is_same = there == Some(&*file.content);
    files::stands(at, file) || is_same && (is_link || files::has_mode(at, file.mode))
}
