//! An asset directory to break, and what is found in it.

use std::path::Path;

use hoist::base::error::{Finding, Severity};
use hoist::base::files::File;
use hoist::desired::assets::AssetSet;
use time::OffsetDateTime;

use crate::rendered;

/// A rendered cluster of one controller, in memory.
pub struct Directory {
    pub set: AssetSet,
}

pub fn all(set: &AssetSet, now: OffsetDateTime) -> Vec<Finding> {
    hoist::check::validate::validate(set, Path::new("assets"), now)
}

/// Findings as lines, without remedies.
pub fn lines(findings: Vec<Finding>) -> Vec<String> {
    let line = |mut finding: Finding| {
        finding.remedy = None;
        finding.to_string()
    };
    findings.into_iter().map(line).collect()
}

pub fn findings(set: &AssetSet) -> Vec<String> {
    lines(all(set, OffsetDateTime::now_utc()))
}

impl Directory {
    pub fn new() -> Self {
        Self { set: rendered::render(&rendered::cluster("minimal")) }
    }

    pub fn text(&self, path: &str) -> String {
        rendered::text(&self.set, path)
    }

    pub fn put(&mut self, path: &str, content: impl Into<Vec<u8>>) {
        self.set.files.insert(path.to_owned(), File::public(content));
    }

    /// Replaces the one `from` in a file.
    #[track_caller]
    pub fn edit(&mut self, path: &str, from: &str, to: &str) {
        let text = self.text(path);
        assert_eq!(text.matches(from).count(), 1, "{path} has one {from}");
        self.put(path, text.replace(from, to));
    }

    /// The line and column of `needle` in a file, as findings have them.
    #[track_caller]
    pub fn position(&self, path: &str, needle: &str) -> String {
        let text = self.text(path);
        let at = text.find(needle).unwrap_or_else(|| panic!("{path} has no {needle}"));
        let before = &text[..at];
        let column = before.len() - before.rfind('\n').map_or(0, |at| at + 1) + 1;
        format!("{}:{column}", before.matches('\n').count() + 1)
    }
}

/// One thing that is broken: a file, what is replaced by what in it, where the finding is (in the broken file), and
/// what it says; with `warning: ` in front for one.
pub struct Row {
    pub path: &'static str,
    pub from: &'static str,
    pub to: &'static str,
    pub at: &'static str,
    pub message: &'static str,
}

/// Breaks one thing after the other, each in a directory of its own, and expects exactly one finding each time.
pub fn check(rows: &[Row]) {
    let whole = Directory::new();
    let mut wrong = Vec::new();
    for Row { path, from, to, at, message } in rows {
        let mut directory = Directory { set: whole.set.clone() };
        directory.edit(path, from, to);
        let found = all(&directory.set, OffsetDateTime::now_utc());
        assert!(found.iter().all(|finding| finding.remedy.is_some()), "no remedy: {found:?}");
        let warns = found.iter().any(|finding| finding.severity == Severity::Warning);
        assert_eq!(warns, message.starts_with("warning: "), "{found:?}");
        let found = lines(found);
        let expected = format!("assets/{path}:{}: {message}", directory.position(path, at));
        if found != [expected.clone()] {
            wrong.push(format!("{from} → {to}\n  expected: {expected}\n  found:    {}", found.join("\n            ")));
        }
    }
    assert!(wrong.is_empty(), "{} of {} rows:\n{}", wrong.len(), rows.len(), wrong.join("\n"));
}
