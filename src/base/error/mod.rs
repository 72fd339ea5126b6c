//! What can go wrong, as the user sees it: what failed, the likely cause, what to type next, and an exit code
//! that scripts can rely on. A test in `tests/cli/exit_codes.rs` holds docs/reference/exit-codes.md against the
//! table of exit codes.

mod explanation;
#[cfg(test)]
pub(crate) mod testing;

use std::fmt;
use std::path::{Path, PathBuf};

pub use explanation::{Explanation, Why};

/// Every exit code, and what it says: the table of docs/reference/exit-codes.md and of the man page.
pub const EXIT_CODES: [(&str, &str); 11] = [
    ("0", "done; for `start`: the cluster serves itself; for `unpivot`: static pods serve it"),
    (
        "1",
        "any failure without a code of its own: the system refused a read or a write, a program failed; for `reset`: the question was not answered with yes; for `status`: the cluster is not healthy; for `hosting status`: a tenant is not ready; for `certs list --within`: a certificate ends within that time; for `certs rotate`, `upgrade node` and `upgrade hoist`: what was waited for did not come in time",
    ),
    ("2", "wrong usage: an unknown command or flag; `render --diff`, `apply --diff`: something would change"),
    (
        "3",
        "the input is not valid (cluster.yaml, the asset directory, a manifest; for `unpivot`: a workload that cannot be a static pod; for `upgrade`: something of the cluster stands in the way); nothing was changed",
    ),
    (
        "4",
        "this machine is not ready (`hoist preflight` checks the same): not root, a file that this user may not read, a port in use, a foreign static pod or etcd data, no kubelet …; nothing was changed",
    ),
    ("5", "another hoist is at work on this node; for `upgrade`: on this cluster"),
    ("6", "timed out; the API is served at that moment"),
    ("7", "timed out; the API is not served at that moment"),
    ("8", "the API server refused objects, which hoist names; all objects that do not depend on them were applied"),
    ("9", "`render`: certificates are awaited from a CA whose key is elsewhere; the requests are written"),
    (
        "128+n",
        "ended by signal n between two steps: 129 is SIGHUP (unless nohup keeps it away), 130 SIGINT, 143 SIGTERM; run the same command again to continue",
    ),
];

/// What to do about certificates that are wanted.
const PUT_SIGNED: &str = "put each certificate at its path, and run the same command again";
/// What to do about refused objects.
const APPLY_CORRECTED: &str = "correct the file and run `hoist apply`";

/// The result of everything in hoist that can fail.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// One thing that is wrong with an input, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The file, as the user named it, or another name of the place (a flag, a port).
    pub place: String,
    /// Line and column, both from 1, where there are any.
    pub position: Option<(usize, usize)>,
    /// What is wrong, as one sentence without a full stop.
    pub message: String,
    /// What to do about it, if that is known.
    pub remedy: Option<String>,
    /// Whether it stands in the way.
    pub severity: Severity,
}

/// How bad a [`Finding`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Severity {
    /// It stands in the way.
    #[default]
    Error,
    /// It may be meant.
    Warning,
}

impl Finding {
    /// A finding about a place as a whole.
    pub fn new(place: impl Into<String>, message: impl Into<String>) -> Self {
        Self { place: place.into(), position: None, message: message.into(), remedy: None, severity: Severity::Error }
    }

    /// The same finding as one that does not stand in the way.
    #[must_use]
    pub fn warning(mut self) -> Self {
        self.severity = Severity::Warning;
        self
    }

    /// The same finding at a line and a column, both from 1.
    #[must_use]
    pub fn at(mut self, position: Option<(usize, usize)>) -> Self {
        self.position = position;
        self
    }

    /// The same finding with what to do about it.
    #[must_use]
    pub fn remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = Some(remedy.into());
        self
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", Shown(&self.place))?;
        if let Some((line, column)) = self.position {
            write!(f, ":{line}:{column}")?;
        }
        let warning = if self.severity == Severity::Warning { "warning: " } else { "" };
        write!(f, ": {warning}{}", Shown(&self.message))?;
        match &self.remedy {
            Some(remedy) => write!(f, "\n    {}", Shown(remedy)),
            None => Ok(()),
        }
    }
}

/// Text that may repeat what stands in a file: as much of it as anybody reads, and nothing that moves a terminal's
/// cursor.
struct Shown<'a>(&'a str);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const ENOUGH: usize = 1000;
        for (i, c) in self.0.chars().enumerate() {
            match c {
                _ if i == ENOUGH => return f.write_str("…"),
                '\n' => f.write_str("\n")?,
                c if c.is_control() => write!(f, "{}", c.escape_default())?,
                c => write!(f, "{c}")?,
            }
        }
        Ok(())
    }
}

/// Everything that ends a command without success.
#[derive(Debug)]
pub enum Error {
    /// An input file or flag says something that cannot be; nothing was changed.
    Input(Vec<Finding>),
    /// This machine is not ready for it; nothing was changed.
    Preflight(Vec<Finding>),
    /// Another hoist is at work on this node, or upgrades this cluster.
    Locked {
        /// What is known of the holder.
        holder: String,
    },
    /// A time limit passed.
    TimedOut {
        /// What had not come about.
        waiting_for: String,
        /// Whether NODE_IP still serves the API.
        api_served: bool,
        /// Details worth reading: the pod, its reason, its last lines.
        details: Vec<String>,
        /// The command to type next.
        next: String,
    },
    /// The API server refused objects.
    Refused(Vec<Finding>),
    /// CAs whose keys are elsewhere have yet to sign certificates; all else that can be done without them is done.
    Unsigned(Vec<Finding>),
    /// An operating-system call failed.
    Io {
        /// What hoist was doing: completes "cannot …".
        action: String,
        /// The file or folder.
        path: PathBuf,
        /// The system's word on it.
        source: std::io::Error,
    },
    /// A signal ended it at a safe point.
    Interrupted {
        /// The signal's number.
        signal: u8,
        /// What stands and how to go on.
        state: String,
    },
    /// Anything else: completes "cannot …", with its cause.
    Failed {
        /// What hoist was doing.
        action: String,
        /// Why it failed.
        cause: String,
        /// What to do next, if that is known.
        next: Option<String>,
    },
    /// A server that says when it may be asked again; otherwise as [`Error::Failed`].
    Later {
        /// What hoist was doing.
        action: String,
        /// Why it failed.
        cause: String,
        /// How long it wants to be left alone.
        after: std::time::Duration,
    },
}

impl Error {
    /// An operating-system error on `path` while doing `action` ("write", "read", …).
    pub fn io(action: impl Into<String>, path: &Path, source: std::io::Error) -> Self {
        Self::Io { action: action.into(), path: path.to_owned(), source }
    }

    /// A failure with its cause and no known remedy.
    pub fn failed(action: impl Into<String>, cause: impl fmt::Display) -> Self {
        Self::Failed { action: action.into(), cause: cause.to_string(), next: None }
    }

    /// Whether the same may go well a moment later: something outside did not do what it was asked.
    pub fn is_passing(&self) -> bool {
        matches!(self, Self::Failed { .. } | Self::Later { .. })
    }

    /// How long a server wants to be left alone, where it has said so.
    pub fn after(&self) -> Option<std::time::Duration> {
        match self {
            Self::Later { after, .. } => Some(*after),
            _ => None,
        }
    }

    /// The exit code of the process, stable across versions.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Io { .. } | Self::Failed { .. } | Self::Later { .. } => 1,
            // 2 is clap's, for usage.
            Self::Input(_) => 3,
            Self::Preflight(_) => 4,
            Self::Locked { .. } => 5,
            Self::TimedOut { api_served: true, .. } => 6,
            Self::TimedOut { api_served: false, .. } => 7,
            Self::Refused(_) => 8,
            Self::Unsigned(_) => 9,
            Self::Interrupted { signal, .. } => 128 + signal,
        }
    }
}

fn list(f: &mut fmt::Formatter<'_>, title: &str, findings: &[Finding]) -> fmt::Result {
    write!(f, "{title}")?;
    for finding in findings {
        write!(f, "\n  {finding}")?;
    }
    Ok(())
}

/// What the user is told of a panic: it is nobody's mistake but hoist's.
pub fn mistake(panic: impl fmt::Display) -> String {
    format!(
        "a bug in hoist {} ended it: {panic}\n  \
         next: run the same command again, which is safe at any point; if it ends like this again, report these lines",
        env!("CARGO_PKG_VERSION")
    )
}

/// What to do about the system's refusal, where there is something.
fn advice(error: &std::io::Error, path: &Path) -> Option<String> {
    use std::io::ErrorKind as Kind;
    let folder = path.parent().filter(|folder| *folder != Path::new("")).unwrap_or(Path::new(".")).display();
    Some(match error.kind() {
        Kind::StorageFull => {
            format!("`df -h {folder}` shows what is full: make room there, and run the same command again")
        }
        Kind::QuotaExceeded => "make room within this user's quota, and run the same command again".to_owned(),
        Kind::ReadOnlyFilesystem => {
            format!(
                "name a folder that can be written; if this one should be, `findmnt -T {folder}` and `dmesg` say why it is not"
            )
        }
        Kind::PermissionDenied => format!("run it as root, or as the user who owns {folder}"),
        Kind::IsADirectory => "a folder is in the place of the file: move it away".to_owned(),
        Kind::NotADirectory => "a file is in the place of the folder: move it away, or name another folder".to_owned(),
        Kind::InvalidFilename => "use shorter names".to_owned(),
        Kind::NotFound => "correct the path".to_owned(),
        _ if error.raw_os_error() == Some(nix::libc::ELOOP) => {
            "a symbolic link leads back to itself: remove it".to_owned()
        }
        _ => return None,
    })
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Input(findings) => list(f, "the input is not valid; nothing was changed", findings),
            Self::Preflight(findings) => list(f, "this machine is not ready; nothing was changed", findings),
            Self::Refused(findings) => {
                list(
                    f,
                    "the API server refused objects; all objects that do not depend on them are applied",
                    findings,
                )?;
                write!(f, "\n  next: {APPLY_CORRECTED}")
            }
            Self::Unsigned(findings) => {
                list(f, "certificates are awaited that only the holders of the CAs' keys can sign", findings)?;
                write!(f, "\n  next: {PUT_SIGNED}")
            }
            Self::Locked { holder } => write!(f, "another hoist is at work: {holder}"),
            Self::TimedOut { waiting_for, api_served, details, next } => {
                write!(f, "timed out waiting for {waiting_for}")?;
                for line in details {
                    write!(f, "\n  {line}")?;
                }
                let api = if *api_served { "the API is served" } else { "the API is NOT served" };
                write!(f, "\n  {api}\n  next: {next}")
            }
            Self::Io { action, path, source } => {
                write!(f, "cannot {action} {}: {source}", path.display())?;
                match advice(source, path) {
                    Some(next) => write!(f, "\n  next: {next}"),
                    None => Ok(()),
                }
            }
            Self::Interrupted { state, .. } => write!(f, "interrupted\n  {state}"),
            Self::Later { action, cause, .. } => write!(f, "cannot {action}: {cause}"),
            Self::Failed { action, cause, next } => {
                write!(f, "cannot {action}: {cause}")?;
                match next {
                    Some(next) => write!(f, "\n  next: {next}"),
                    None => Ok(()),
                }
            }
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io { source, .. } => Some(source),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_file_says_moves_no_cursor_and_fills_no_screen() {
        let finding = Finding::new("f\u{7}", format!("\u{1b}[2J{}", "x".repeat(5000))).remedy("a\tb");
        let text = finding.to_string();
        assert!(text.starts_with("f\\u{7}: \\u{1b}[2Jxxx") && text.ends_with("xxx…\n    a\\tb"), "{text}");
        assert!(text.len() < 1100);
    }

    #[test]
    fn a_panic_is_said_to_be_hoists_mistake() {
        let text = mistake("panicked at src/x.rs:1:2");
        assert!(text.contains(" ended it: panicked at src/x.rs:1:2\n  next: run the same command"), "{text}");
    }

    #[test]
    fn the_systems_refusals_say_what_is_next() {
        use std::io::ErrorKind as Kind;
        for (kind, next) in [
            (Kind::StorageFull, "next: `df -h /a`"),
            (Kind::ReadOnlyFilesystem, "next: name a folder that can be written"),
            (Kind::PermissionDenied, "next: run it as root, or as the user who owns /a"),
            (Kind::NotADirectory, "next: a file is in the place of the folder"),
        ] {
            let text = Error::io("write", Path::new("/a/b"), kind.into()).to_string();
            assert!(text.contains(next), "{text}");
        }
    }
}
