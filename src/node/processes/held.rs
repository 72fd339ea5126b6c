//! One process, held by a descriptor: a signal reaches this process and never a later one with the same pid.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, kill_process, pidfd_open, pidfd_send_signal};

pub use rustix::process::Signal;

use super::{Process, process};

/// A process that is held.
#[derive(Debug)]
pub struct Held(Way);

#[derive(Debug)]
enum Way {
    /// By pidfd_open(2), of Linux 5.3.
    Descriptor(OwnedFd),
    /// By its number, where the kernel, or the container's filter of system calls, has no better.
    Number(Pid),
}

/// Holds the process that was seen as `seen`; `None` where it has ended, and its number may be another's.
///
/// # Errors
/// The system's refusal.
pub fn hold(proc: &Path, seen: &Process) -> io::Result<Option<Held>> {
    let Some(pid) = Pid::from_raw(seen.pid) else { return Ok(None) };
    let way = match pidfd_open(pid, PidfdFlags::empty()) {
        Ok(fd) => Way::Descriptor(fd),
        Err(Errno::SRCH) => return Ok(None),
        Err(Errno::NOSYS | Errno::PERM) => Way::Number(pid),
        Err(error) => return Err(error.into()),
    };
    // Looked at after it was opened: from now on the descriptor is that process's, whatever becomes of the number.
    let is_it = process(proc, &seen.pid.to_string()).is_some_and(|now| now.is(seen));
    Ok(is_it.then_some(Held(way)))
}

/// Sends a signal to the process that was seen as `seen`; false where it has ended.
///
/// # Errors
/// The system's refusal.
pub fn signal(proc: &Path, seen: &Process, signal: Signal) -> io::Result<bool> {
    hold(proc, seen)?.map_or(Ok(false), |held| held.signal(signal))
}

impl Held {
    /// Sends it a signal; false where it has ended.
    ///
    /// # Errors
    /// The system's refusal.
    pub fn signal(&self, signal: Signal) -> io::Result<bool> {
        let sent = match &self.0 {
            Way::Descriptor(fd) => pidfd_send_signal(fd, signal),
            Way::Number(pid) => kill_process(*pid, signal),
        };
        match sent {
            Ok(()) => Ok(true),
            Err(Errno::SRCH) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;
    use std::process::Command;

    use super::*;

    #[test]
    fn a_signal_reaches_the_process_that_was_seen_and_no_other() {
        let proc = Path::new("/proc");
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let seen = process(proc, &child.id().to_string()).unwrap();
        let another = Process { began: seen.began - 1, ..seen };
        assert!(hold(proc, &another).unwrap().is_none(), "its number was another's before");
        let held = hold(proc, &seen).unwrap().unwrap();
        assert!(child.try_wait().unwrap().is_none());
        assert!(held.signal(Signal::QUIT).unwrap());
        assert_eq!(child.wait().unwrap().signal(), Some(3));
        assert!(!held.signal(Signal::KILL).unwrap(), "it has ended");
        assert!(hold(proc, &seen).unwrap().is_none());
    }
}
