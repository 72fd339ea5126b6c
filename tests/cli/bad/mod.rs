//! Bad input, as a table: for each row the exit code, what is said, that a remedy is, that nothing was changed, and
//! that it took little memory and time.

mod assets;
mod bootkube;
mod config;
mod flags;
mod host;
mod kubeconfigs;
mod pem;

use crate::support::{Folder, Ran};

/// One bad input and the answer to it.
pub struct Row<'a> {
    pub name: &'a str,
    pub code: i32,
    /// What standard error has, each with the place in front where there is one.
    pub says: &'a [&'a str],
}

pub const INVALID: &str = "hoist: the input is not valid; nothing was changed\n";
const NOT_READY: &str = "hoist: this machine is not ready; nothing was changed\n";

/// Rows that were run, and what was wrong with hoist's answers.
#[derive(Default)]
pub struct Table(Vec<String>);

impl Table {
    /// Runs hoist on the folder, where the bad input is, by `run`.
    pub fn row(&mut self, row: &Row<'_>, folder: &Folder, run: impl FnOnce() -> Ran) {
        let before = folder.tree();
        let ran = run();
        let problems = &mut self.0;
        let mut wrong = |what: &str| problems.push(format!("{}: {what}\n{ran:#?}", row.name));
        if folder.tree() != before {
            wrong("it changed something");
        }
        // The limits of `Folder::bounded` end a process by a signal, which leaves no code.
        if ran.code != Some(row.code) {
            wrong(&format!("not code {}", row.code));
        }
        for text in row.says.iter().filter(|text| !ran.stderr.contains(**text)) {
            wrong(&format!("it does not say {text:?}"));
        }
        if ran.stderr.len() > 20_000 {
            wrong("nobody reads all that");
        }
        if ran.stderr.chars().any(|c| c.is_control() && c != '\n') {
            wrong("it says what moves the cursor");
        }
        if let Some(problem) = lacks_remedy(row.code, &ran.stderr) {
            wrong(&problem);
        }
    }
}

/// A table that is dropped has been looked at.
impl Drop for Table {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            assert!(self.0.is_empty(), "{} wrong answers\n\n{}", self.0.len(), self.0.join("\n\n"));
        }
    }
}

/// Every finding has its remedy, and every other failure says what is next.
fn lacks_remedy(code: i32, stderr: &str) -> Option<String> {
    let title = match code {
        1 => return (!stderr.contains("\n  next: ")).then(|| "no remedy".to_owned()),
        2 => return (!stderr.contains("--help")).then(|| "no remedy".to_owned()),
        3 => INVALID,
        _ => NOT_READY,
    };
    let Some(findings) = stderr.strip_prefix(title) else { return Some(format!("it does not begin with {title}")) };
    let lines: Vec<_> = findings.lines().collect();
    let is_whole = |pair: &[&str]| {
        let is_finding = pair[0].starts_with("  ") && !pair[0].starts_with("   ");
        is_finding && pair.get(1).is_some_and(|line| line.starts_with("    ") && line.len() > 8)
    };
    if lines.is_empty() {
        return Some("no finding".to_owned());
    }
    lines.chunks(2).find(|pair| !is_whole(pair)).map(|pair| format!("no remedy behind {}", pair[0]))
}
