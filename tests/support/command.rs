//! Programs that run for a limited time, with all that they said.

use std::fmt;
use std::fs::File;
use std::io::{Read, Seek, Write};
use std::os::unix::fs::FileExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// How often a child is asked whether it has ended.
const POLL: Duration = Duration::from_millis(5);

/// What came of a program.
#[derive(Debug)]
pub struct Ended {
    line: String,
    /// Its exit code; `None` if it was killed, by its time limit or by anybody else.
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
    pub took: Duration,
}

impl Ended {
    /// Standard output of a program that succeeded.
    #[track_caller]
    pub fn ok(self) -> String {
        assert!(self.code == Some(0), "{self}");
        self.stdout
    }

    /// The same of one that was to end with `code`.
    #[track_caller]
    pub fn expect(self, code: i32) -> Self {
        assert!(self.code == Some(code), "expected exit code {code}: {self}");
        self
    }

    /// Asserts that standard error holds each of `texts`.
    #[track_caller]
    pub fn says(&self, texts: &[&str]) {
        for text in texts {
            assert!(self.stderr.contains(text), "standard error does not say {text:?}: {self}");
        }
    }
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { line, code, stdout, stderr, took } = self;
        let code = code.map_or("a signal".into(), |code| format!("exit code {code}"));
        write!(f, "{line}\nended with {code} after {took:.1?}\nstdout: {stdout}\nstderr: {stderr}")
    }
}

/// A program that runs. Dropped, it is killed.
pub struct Running {
    line: String,
    child: Child,
    begun: Instant,
    // Files, not pipes: a grandchild that holds one open stops nobody.
    stdout: File,
    stderr: File,
}

impl Running {
    pub fn spawn(command: &mut Command, input: &str) -> Self {
        let line = std::iter::once(command.get_program()).chain(command.get_args());
        let line = line.map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ");
        let file = || tempfile::tempfile().unwrap();
        let (mut stdin, stdout, stderr) = (file(), file(), file());
        stdin.write_all(input.as_bytes()).unwrap();
        stdin.rewind().unwrap();
        let own = |file: &File| Stdio::from(file.try_clone().unwrap());
        let begun = Instant::now();
        let child = command.stdin(stdin).stdout(own(&stdout)).stderr(own(&stderr)).spawn();
        let child = child.unwrap_or_else(|error| panic!("cannot run {line}: {error}"));
        Self { line, child, begun, stdout, stderr }
    }

    pub fn begun(&self) -> Instant {
        self.begun
    }

    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// What it has said so far to standard output.
    pub fn said(&self) -> String {
        // Read where it stands: the place where the child writes next is shared with it.
        let mut bytes = vec![0; usize::try_from(self.stdout.metadata().unwrap().len()).unwrap()];
        let length = self.stdout.read_at(&mut bytes, 0).unwrap();
        String::from_utf8_lossy(&bytes[..length]).into_owned()
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: nix::sys::signal::Signal) {
        let pid = nix::unistd::Pid::from_raw(i32::try_from(self.child.id()).unwrap());
        nix::sys::signal::kill(pid, signal).unwrap();
    }

    /// SIGKILL.
    pub fn kill(mut self) -> Ended {
        // It may have ended a moment ago.
        let _ = self.child.kill();
        self.wait(Duration::from_secs(10))
    }

    /// Waits for its end; past `limit` it is killed.
    pub fn wait(self, limit: Duration) -> Ended {
        self.wait_with(limit, |_| ())
    }

    /// The same, with the most memory that it, or a process which it has started, ever had resident.
    pub fn wait_measuring(self, limit: Duration) -> (Ended, u64) {
        let mut peak = 0;
        let ended = self.wait_with(limit, |pid| peak = peak.max(peak_memory(pid)));
        (ended, peak)
    }

    fn wait_with(mut self, limit: Duration, mut look: impl FnMut(u32)) -> Ended {
        let mut status: Option<ExitStatus> = None;
        while status.is_none() && self.begun.elapsed() < limit.max(POLL) {
            status = self.child.try_wait().unwrap();
            look(self.child.id());
            std::thread::sleep(POLL);
        }
        let took = self.begun.elapsed();
        let status = status.unwrap_or_else(|| {
            let _ = self.child.kill();
            self.child.wait().unwrap()
        });
        let read = |file: &mut File| {
            let mut bytes = Vec::new();
            file.rewind().unwrap();
            file.read_to_end(&mut bytes).unwrap();
            String::from_utf8_lossy(&bytes).into_owned()
        };
        Ended {
            line: self.line.clone(),
            code: status.code(),
            stdout: read(&mut self.stdout),
            stderr: read(&mut self.stderr),
            took,
        }
    }
}

/// The kernel's high-water mark of a process and of its children, of which a command in a node is one; 0 for none. It
/// never falls, so that looking now and then misses nothing but the last moments.
fn peak_memory(parent: u32) -> u64 {
    let children = std::fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).unwrap_or_default();
    let peak = |pid: &str| {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let kibibytes = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?.trim().strip_suffix(" kB")?;
        Some(kibibytes.parse::<u64>().ok()? * 1024)
    };
    let own = parent.to_string();
    children.split_whitespace().chain([own.as_str()]).filter_map(peak).max().unwrap_or_default()
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs a program to its end.
pub fn run(command: &mut Command, limit: Duration) -> Ended {
    Running::spawn(command, "").wait(limit)
}
