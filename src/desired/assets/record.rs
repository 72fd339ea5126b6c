//! The record of the last render. It has a checksum of every file, to distinguish a user's edit from hoist's own
//! text, and the text of the files that may be edited, to merge the edit into the next text. It never holds the text
//! of a secret.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::AssetSet;
use crate::base::error::Result;
use crate::base::files::{self, File};
use crate::base::input;

/// The checksums of the last render.
pub(super) const RENDERED: &str = ".rendered";
/// Its texts.
pub(super) const TEXTS: &str = ".rendered-texts";
/// What a render that is under way may write.
pub(super) const RENDERING: &str = ".rendering";

/// Checksums of rendered files by path; more than one where an interrupted render was followed by another.
#[derive(Clone, Default)]
pub(super) struct Record(BTreeMap<String, BTreeSet<String>>);

impl Record {
    pub fn of(set: &AssetSet) -> Self {
        let sum = |file: &File| BTreeSet::from([files::sha256(&file.content)]);
        Self(set.files.iter().map(|(path, file)| (path.clone(), sum(file))).collect())
    }

    pub fn read(path: &Path) -> Result<Self> {
        let content = files::read_if_there(path)?.unwrap_or_default();
        let mut record = Self::default();
        let text = String::from_utf8_lossy(&content);
        let sums = text.lines().take_while(|line| !line.starts_with(HEAD));
        for (sum, path) in sums.filter_map(|line| line.split_once("  ")) {
            record.0.entry(path.to_owned()).or_default().insert(sum.to_owned());
        }
        Ok(record)
    }

    pub fn and(mut self, other: &Self) -> Self {
        for (path, sums) in &other.0 {
            self.0.entry(path.clone()).or_default().extend(sums.iter().cloned());
        }
        self
    }

    /// This one, but where the other has a file, what the other says of it.
    pub fn under(mut self, other: Self) -> Self {
        self.0.extend(other.0);
        self
    }

    pub fn without(mut self, paths: &[String]) -> Self {
        self.0.retain(|path, _| !paths.contains(path));
        self
    }

    pub fn holds(&self, path: &str, content: &[u8]) -> bool {
        let Some(sums) = self.0.get(path) else { return false };
        // Made of one that git has written with other ends of lines, or made with such ends before git changed them.
        let has = |content: &[u8]| sums.contains(&files::sha256(content));
        if has(content) {
            return true;
        }
        let unix = input::unix(content.to_vec());
        unix != content && has(&unix) || has(String::from_utf8_lossy(&unix).replace('\n', "\r\n").as_bytes())
    }

    pub fn has(&self, path: &str) -> bool {
        self.0.contains_key(path)
    }

    pub fn paths(&self) -> impl Iterator<Item = &String> {
        self.0.keys()
    }

    /// In the form of sha256sum, so that `sha256sum -c .rendered` shows what was edited.
    pub fn text(&self) -> String {
        let lines = self.0.iter().flat_map(|(path, sums)| sums.iter().map(move |sum| format!("{sum}  {path}\n")));
        lines.collect()
    }
}

/// What stands in front of a text: its length in bytes and its name.
const HEAD: &str = "==> ";

/// Several texts in one file that people can read.
#[derive(Clone, Default)]
pub(super) struct Texts(pub BTreeMap<String, String>);

impl Texts {
    /// The texts of `set` that a user may edit: of no secret, and not of the resolved configuration.
    pub fn of(set: &AssetSet) -> Self {
        let text = |(path, file): (&String, &File)| {
            let may_be_edited = !file.is_private() && !path.starts_with("tls/") && path != "cluster.yaml";
            let text = String::from_utf8(file.content.clone()).ok().filter(|_| may_be_edited)?;
            Some((path.clone(), text))
        };
        Self(set.files.iter().filter_map(text).collect())
    }

    /// What cannot be read counts as not there: an edit that meets a change is then the user's to carry over.
    pub fn read(path: &Path) -> Result<Self> {
        let mut content = files::read_if_there(path)?.unwrap_or_default();
        // Its own lines end as hoist wrote them, unless git has changed all of them: then lengths would not fit.
        if content.iter().position(|byte| *byte == b'\n').is_some_and(|at| content[..at].ends_with(b"\r")) {
            content = input::unix(content);
        }
        let text = String::from_utf8_lossy(&content);
        let mut texts = BTreeMap::new();
        let mut rest = &*text;
        while let Some(at) = if rest.starts_with(HEAD) { Some(0) } else { rest.find("\n==> ").map(|at| at + 1) } {
            let Some((head, after)) = rest[at + HEAD.len()..].split_once('\n') else { break };
            let Some((length, name)) = head.split_once(' ') else { break };
            let Some((text, after)) = length.parse().ok().and_then(|length| after.split_at_checked(length)) else {
                break;
            };
            texts.insert(name.to_owned(), text.to_owned());
            rest = after;
        }
        Ok(Self(texts))
    }

    pub fn text(&self) -> String {
        self.0.iter().map(|(name, text)| format!("{HEAD}{} {name}\n{text}\n", text.len())).collect()
    }

    /// As a file of the asset directory.
    pub fn to_file(&self) -> File {
        File::public(format!(
            "# What hoist render made last of each file that you may edit: by it, it tells your edits from its changes.\n{}",
            self.text()
        ))
    }
}

/// What earlier renders made: the last one that came to its end, and those after it that did not.
pub(super) struct History {
    /// What the last whole one made.
    pub rendered: Record,
    /// What it and those that were cut short may have written.
    pub written: Record,
    texts: Texts,
    /// Of a render that was cut short: hoist's own text in what it merged with an edit.
    merged: Texts,
}

impl History {
    pub fn read(dir: &Path) -> Result<Self> {
        let rendered = Record::read(&dir.join(RENDERED))?;
        let written = Record::read(&dir.join(RENDERING))?.and(&rendered);
        let texts = Texts::read(&dir.join(TEXTS))?;
        let merged = Texts::read(&dir.join(RENDERING))?;
        Ok(Self { rendered, written, texts, merged })
    }

    /// What hoist had made when a user's edit of it came to be `there`, if that is known.
    pub fn base(&self, path: &str, there: &[u8]) -> Option<&String> {
        let merged = self.merged.0.get(&merged_name(path, there));
        merged.or_else(|| self.texts.0.get(path).filter(|text| self.written.holds(path, text.as_bytes())))
    }

    /// Whether `content` is what a render that was cut short made of an edit.
    pub fn has_merged(&self, path: &str, content: &[u8]) -> bool {
        self.merged.0.contains_key(&merged_name(path, content))
    }

    /// What is noted while files are being written: what may stand on the disk from now on, and for what is `merged`
    /// (by path: the result, hoist's own text in it) whence it comes.
    pub fn journal<'a>(&self, after: &Record, merged: impl Iterator<Item = (&'a String, &'a [u8], &'a [u8])>) -> File {
        let mut texts = self.merged.clone();
        for (path, result, own) in merged {
            texts.0.insert(merged_name(path, result), String::from_utf8_lossy(own).into_owned());
        }
        File::public(self.written.clone().and(after).text() + &texts.text())
    }

    /// The texts with those of `other` in place of its own, for what `record` has.
    pub fn texts_with(&self, other: Texts, record: &Record) -> Texts {
        let mut texts = self.texts.clone();
        texts.0.extend(other.0);
        texts.0.retain(|path, text| record.holds(path, text.as_bytes()));
        texts
    }
}

fn merged_name(path: &str, content: &[u8]) -> String {
    format!("{} {path}", files::sha256(content))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_read_as_they_were_written() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("texts");
        let all = [("a", "one\n"), ("b", ""), ("c d", "no end"), ("e", "==> 3 x\nü\n\n"), ("f", "==> 99 f\n")];
        let texts = Texts(all.map(|(name, text)| (name.to_owned(), text.to_owned())).into());
        files::write(&path, &texts.to_file()).unwrap();
        assert_eq!(Texts::read(&path).unwrap().0, texts.0);
        let by_git = texts.to_file().content;
        std::fs::write(&path, String::from_utf8(by_git).unwrap().replace('\n', "\r\n")).unwrap();
        assert_eq!(Texts::read(&path).unwrap().0, texts.0);
    }

    #[test]
    fn a_file_of_texts_that_is_damaged_is_read_as_far_as_it_goes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("texts");
        for (text, expected) in [
            ("", 0),
            ("==>", 0),
            ("==> x", 0),
            ("==> 9 a\nshort", 0),
            ("==> -1 a\nx\n", 0),
            ("==> 1 a\nü\n", 0),
            ("==> 1 a\nx\n==> 5 b\n", 1),
            ("garbage\n==> 1 a\nx\n==> 1 b\nx\n", 2),
        ] {
            std::fs::write(&path, text).unwrap();
            assert_eq!(Texts::read(&path).unwrap().0.len(), expected, "{text:?}");
        }
    }
}
