//! The kubelet's program: which one runs, whether another one takes its flags and its configuration, and exchanging it.
//!
//! The program that was there stays beside the new one, under another name, until the new one has proved itself: the way back.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use time::OffsetDateTime;

use super::{property, systemctl};
use crate::base::error::{Error, Result};
use crate::base::files;
use crate::desired::config::Version;
use crate::desired::config::version::numbers;
use crate::node::host::Host;
use crate::node::processes;
use crate::node::world::Ran;

/// How long a program may take to say its version, or that it takes its flags.
const LIMIT: Duration = Duration::from_secs(30);
/// The program that was there, until the new one has proved itself.
const WAY_BACK: &str = "kubelet.hoist-way-back";
/// The program that was there before the one that has proved itself.
const PREVIOUS: &str = "kubelet.hoist-previous";
/// A kubelet that is to give way to another one wants a file to lock. It says that it has none after it has read and judged its
/// flags and its configuration, and before it does anything (cmd/kubelet/app/server.go, 1.34 to 1.37).
const LOCK: &str = "--exit-on-lock-contention";
/// How it says so.
const NO_LOCK: &str = "no lock file specified";
/// How it says that it leaves out what it does not know of its configuration.
const LENIENT: &str = "lenient decoding";
/// Flags of the running kubelet that the one which is asked does not get: it locks nothing, and reaches nobody.
const LEFT_OUT: [&str; 5] = ["lock-file", "exit-on-lock-contention", "bootstrap-kubeconfig", "kubeconfig", "cert-dir"];

/// The kubelet that systemd runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Running {
    /// Its command: its program, and its flags.
    pub command: Vec<String>,
    /// When it began.
    pub began: OffsetDateTime,
    /// The file of its program, which has a mark where the name is another file's by now.
    program: PathBuf,
}

impl Running {
    /// The value of a flag.
    pub fn flag(&self, name: &str) -> Option<&str> {
        processes::flag(&self.command, name)
    }

    /// Whether its program is the file `program` of this host, and not one that had this name before.
    pub fn is_of(&self, host: &Host, program: &Path) -> bool {
        host.path(&self.program.to_string_lossy()) == host.resolve(&host.inside(program))
    }
}

/// The kubelet that systemd runs; `None` while none runs.
///
/// # Errors
/// systemd's refusal.
pub async fn running(host: &Host) -> Result<Option<Running>> {
    let pid = property(host, "MainPID").await?;
    let proc = host.path("/proc");
    let now = host.world().now();
    let found = || {
        let command = processes::command(&proc, &pid)?;
        let process = processes::process(&proc, &pid)?;
        let program = fs::read_link(proc.join(&pid).join("exe")).ok()?;
        Some(Running { command, began: now - process.age, program })
    };
    // There is no process 0.
    Ok(if pid == "0" || pid.is_empty() { None } else { found() })
}

/// How often systemd has started it by itself, since somebody had it started.
///
/// # Errors
/// systemd's refusal.
pub async fn restarts(host: &Host) -> Result<usize> {
    Ok(property(host, "NRestarts").await?.parse().unwrap_or_default())
}

/// Starts the kubelet anew, also where systemd has given it up.
///
/// # Errors
/// systemd's refusal.
pub async fn start_anew(host: &Host) -> Result<()> {
    // A unit that has failed too often is left alone.
    if property(host, "ActiveState").await? == "failed" {
        systemctl(host, &["reset-failed", "kubelet.service"]).await?;
    }
    super::restart(host).await
}

/// The version that the kubelet `program` says it has.
///
/// # Errors
/// A program that is none, or does not say.
pub async fn version(host: &Host, program: &Path) -> Result<Version> {
    let ran = run(host, program, &["--version"]).await?;
    let said = ran.stdout.trim();
    let version = said.strip_prefix("Kubernetes ").and_then(numbers).filter(|_| ran.success);
    let (major, minor, patch) = version.ok_or_else(|| {
        let said = if said.is_empty() { ran.stderr.trim() } else { said };
        Error::Failed {
            action: format!("ask {} for its version", program.display()),
            cause: format!("a kubelet says \"Kubernetes v1.…\", and this program: {said:?}"),
            next: Some("name the program of a kubelet".into()),
        }
    })?;
    Ok(Version { major, minor, patch })
}

/// Runs a program by the name `kubelet`, whatever its file is called: some programs are several, and go by their names.
async fn run(host: &Host, program: &Path, args: &[&str]) -> Result<Ran> {
    let folder = tempfile::tempdir().map_err(|error| Error::failed("make a folder", error))?;
    let link = folder.path().join("kubelet");
    files::link(&link, program)?;
    host.world().run(&link.to_string_lossy(), args, LIMIT).await
}

/// What a kubelet says of flags and a configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// Why it does not take them, where it does not.
    pub refusal: Option<String>,
    /// What of its configuration it does not know, and leaves out.
    pub unknown: Option<String>,
}

/// What the kubelet `program` says of the flags and the configuration of the one that runs. It is run for that, and ends before it
/// does anything.
///
/// # Errors
/// A program that cannot be run, or does not end.
pub async fn judge(host: &Host, program: &Path, running: &Running) -> Result<Verdict> {
    let folder = tempfile::tempdir().map_err(|error| Error::failed("make a folder", error))?;
    let mut args = kept_flags(&running.command);
    // Should it ever go on, it finds no credentials, and ends.
    for flag in ["cert-dir", "root-dir"] {
        args.push(format!("--{flag}={}", folder.path().display()));
    }
    args.push(format!("--kubeconfig={}", folder.path().join("none").display()));
    args.push(LOCK.to_owned());
    let args: Vec<_> = args.iter().map(String::as_str).collect();
    let ran = run(host, program, &args).await?;
    Ok(verdict(&ran.stderr))
}

fn verdict(said: &str) -> Verdict {
    let lenient = said.lines().find(|line| line.contains(LENIENT));
    Verdict {
        refusal: (!said.contains(NO_LOCK)).then(|| last_words(said)),
        unknown: lenient.map(|line| of_error(line).to_owned()),
    }
}

/// The flags of a command, but for those that are left out.
fn kept_flags(command: &[String]) -> Vec<String> {
    let mut kept = Vec::new();
    let mut words = command.iter().skip(1).filter(|word| !word.is_empty()).peekable();
    while let Some(word) = words.next() {
        let name = word.trim_start_matches('-');
        let (name, has_value) = name.split_once('=').map_or((name, false), |(name, _)| (name, true));
        if !LEFT_OUT.contains(&name) {
            kept.push(word.clone());
        } else if !has_value {
            // Its value is the next word, if that is none of its own.
            words.next_if(|next| !next.starts_with('-'));
        }
    }
    kept
}

/// Why a kubelet has ended, of what it wrote: what it panicked for, or its last line that names an error, or its last line.
fn last_words(text: &str) -> String {
    let panic = text.lines().find_map(|line| line.strip_prefix("panic: "));
    let error = || text.lines().rev().find(|line| line.contains("err="));
    let line = panic.or_else(error).or_else(|| text.lines().rev().find(|line| !line.is_empty()));
    let line = line.unwrap_or("it says nothing").trim();
    of_error(line).to_owned()
}

/// What a line of a log says of an error.
fn of_error(line: &str) -> &str {
    line.split_once("err=").map_or(line, |(_, error)| error.trim_matches('"'))
}

/// The place of the kubelet's program.
pub struct Place {
    path: PathBuf,
}

impl Place {
    /// That which the kubelet's unit names.
    ///
    /// # Errors
    /// There is no kubelet.
    pub async fn find(host: &Host) -> Result<Self> {
        let found = super::program(host).await.ok_or_else(|| Error::Failed {
            action: "find the kubelet's program".into(),
            cause: "no kubelet.service names one that is there, and there is none on PATH".into(),
            next: Some("`systemctl cat kubelet` shows what it names".into()),
        })?;
        Ok(Self { path: host.path(&found.to_string_lossy()) })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where the program of before is, once the new one has proved itself.
    pub fn previous(&self) -> PathBuf {
        self.path.with_file_name(PREVIOUS)
    }

    /// Where the program of before waits while the new one proves itself.
    pub fn way_back(&self) -> PathBuf {
        self.path.with_file_name(WAY_BACK)
    }

    /// Whether an exchange is under way: the program of before waits beside the new one.
    pub fn has_way_back(&self) -> bool {
        fs::symlink_metadata(self.way_back()).is_ok()
    }

    /// Whether `program` stands there.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub fn is(&self, program: &Path) -> Result<bool> {
        files::have_same_content(&self.path, program).map_err(|error| Error::io("read", program, error))
    }

    /// Puts `program` there, at once, and keeps what was there: also a link to it. An exchange that was not ended keeps what was
    /// there before it.
    ///
    /// # Errors
    /// The system's refusal; all is then as it was.
    pub fn put(&self, program: &Path) -> Result<()> {
        let way_back = self.way_back();
        if !self.has_way_back() {
            let kept = fs::hard_link(&self.path, &way_back);
            kept.map_err(|error| Error::io("keep the kubelet as", &way_back, error))?;
        }
        files::copy_program(program, &self.path).map(drop)
    }

    /// Puts back what was there before.
    ///
    /// # Errors
    /// The system's refusal.
    pub fn put_back(&self) -> Result<()> {
        files::replace(&self.way_back(), &self.path)
    }

    /// The new program has proved itself: there is no way back any more, and what was there before is kept for whoever wants it.
    ///
    /// # Errors
    /// The system's refusal.
    pub fn settle(&self) -> Result<()> {
        if self.has_way_back() { files::replace(&self.way_back(), &self.previous()) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kubelet_that_is_asked_gets_the_flags_of_the_one_that_runs() {
        let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        let command = words(
            "/usr/bin/kubelet --config=/c.yaml --kubeconfig /k.conf --lock-file=/l --exit-on-lock-contention --v 2 --bootstrap-kubeconfig=/b --node-ip=10.0.0.1",
        );
        assert_eq!(kept_flags(&command), words("--config=/c.yaml --v 2 --node-ip=10.0.0.1"));
    }

    #[test]
    fn what_it_says_last_is_why() {
        let said = "I0101 a line\nE0101 run.go:72] \"command failed\" err=\"failed to load kubelet config file, path: /c.yaml, error: strict decoding error: unknown field \\\"x\\\"\"\n";
        assert!(last_words(said).starts_with("failed to load kubelet config file"), "{}", last_words(said));
        assert!(last_words(said).ends_with("unknown field \\\"x\\"), "{}", last_words(said));
        assert_eq!(
            last_words("I0101 err=\"a\"\npanic: unrecognized feature gate: X\n\ngoroutine 1:\nmain.go:43"),
            "unrecognized feature gate: X"
        );
        assert_eq!(last_words("a\nb\n\n"), "b");
        assert_eq!(last_words(""), "it says nothing");
    }

    #[test]
    fn what_it_does_not_know_and_leaves_out_is_no_refusal() {
        let lenient = "W1130 configfile.go:110] \"Using lenient decoding as strict decoding failed\" err=\"unknown field \\\"x\\\"\"\n";
        let taken = "E1130 run.go:72] \"command failed\" err=\"failed to run Kubelet: cannot exit on lock file contention: no lock file specified\"\n";
        let said = verdict(&format!("{lenient}{taken}"));
        assert_eq!(said.refusal, None);
        assert!(said.unknown.unwrap().contains("unknown field"));
        assert_eq!(verdict(taken), Verdict { refusal: None, unknown: None });
        let refused = verdict("E1130 run.go:72] \"command failed\" err=\"unrecognized feature gate: X\"\n");
        assert_eq!(refused.refusal.as_deref(), Some("unrecognized feature gate: X"));
    }

    #[test]
    fn a_program_is_exchanged_and_put_back_also_where_a_link_was() {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str| dir.path().join(name);
        fs::write(file("old"), "old").unwrap();
        fs::write(file("new"), "new").unwrap();
        fs::write(file("newer"), "newer").unwrap();
        std::os::unix::fs::symlink(file("old"), file("kubelet")).unwrap();
        let place = Place { path: file("kubelet") };
        place.put(&file("new")).unwrap();
        assert!(place.is(&file("new")).unwrap() && place.has_way_back());
        // Cut short and begun again with another one, it leads back to the first.
        place.put(&file("newer")).unwrap();
        assert!(place.is(&file("newer")).unwrap());
        place.put_back().unwrap();
        assert_eq!(fs::read_link(file("kubelet")).unwrap(), file("old"));
        assert!(!place.has_way_back());
        place.put(&file("new")).unwrap();
        place.settle().unwrap();
        place.settle().unwrap();
        assert!(place.is(&file("new")).unwrap() && !place.has_way_back());
        assert_eq!(fs::read(place.previous()).unwrap(), b"old");
        assert_eq!(fs::read(file("old")).unwrap(), b"old", "what a link led to stays");
    }
}
