//! Pipes by which the kernel passes bytes from one connection to another without handing them over (splice).
//!
//! A pipe costs two open files, and where there are few bytes it takes longer than copying them. So there are only some, which all
//! connections of the thread share, and only a direction with much under way borrows one, for as long as the pipe holds
//! bytes.

use std::cell::RefCell;
use std::io;
use std::os::fd::OwnedFd;

use nix::fcntl::{FcntlArg, OFlag, SpliceFFlags, fcntl, splice};
use nix::unistd::pipe2;
use tokio::io::Interest;
use tokio::net::TcpStream;

/// So many at most: their files are of those that are left for all but connections.
const MOST: usize = 16;
/// What one is to hold, in bytes. The kernel may give less.
const SIZE: i32 = 256 * 1024;

thread_local! {
    static POOL: RefCell<Pool> = RefCell::default();
}

#[derive(Default)]
struct Pool {
    free: Vec<Ends>,
    made: usize,
}

struct Ends {
    out: OwnedFd,
    into: OwnedFd,
}

/// A pipe that holds bytes of one direction.
pub struct Pipe {
    /// `None` once it was given back.
    ends: Option<Ends>,
    holds: usize,
}

impl Pipe {
    /// An empty one; `None` where all are in use, or none can be had.
    pub fn take() -> Option<Self> {
        let take = |pool: &mut Pool| {
            if let Some(ends) = pool.free.pop() {
                return Some(ends);
            }
            if pool.made == MOST {
                return None;
            }
            let (out, into) = pipe2(OFlag::O_NONBLOCK | OFlag::O_CLOEXEC).ok()?;
            // It works with less, too.
            let _ = fcntl(&into, FcntlArg::F_SETPIPE_SZ(SIZE));
            pool.made += 1;
            Some(Ends { out, into })
        };
        POOL.with_borrow_mut(take).map(|ends| Self { ends: Some(ends), holds: 0 })
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.holds == 0
    }

    /// Takes what has come from a connection: how much, 0 at its end.
    ///
    /// # Errors
    /// The system's refusal; `WouldBlock` where nothing has come.
    pub fn fill(&mut self, from: &TcpStream) -> io::Result<usize> {
        let Some(ends) = &self.ends else { return Ok(0) };
        let count = from.try_io(Interest::READABLE, || pass(from, &ends.into, SIZE as usize))?;
        self.holds += count;
        Ok(count)
    }

    /// Passes on what it holds, as far as the connection takes it.
    ///
    /// # Errors
    /// The system's refusal; `WouldBlock` where nothing is taken now.
    pub fn empty(&mut self, to: &TcpStream) -> io::Result<()> {
        let Some(ends) = &self.ends else { return Ok(()) };
        self.holds -= to.try_io(Interest::WRITABLE, || pass(&ends.out, to, self.holds))?;
        Ok(())
    }
}

fn pass(from: impl std::os::fd::AsFd, to: impl std::os::fd::AsFd, most: usize) -> io::Result<usize> {
    Ok(splice(from, None, to, None, most, SpliceFFlags::SPLICE_F_MOVE | SpliceFFlags::SPLICE_F_NONBLOCK)?)
}

impl Drop for Pipe {
    fn drop(&mut self) {
        let (ends, is_empty) = (self.ends.take(), self.holds == 0);
        // At the end of the thread there is no pool any more.
        let _ = POOL.try_with(|pool| {
            let mut pool = pool.borrow_mut();
            match ends {
                Some(ends) if is_empty => pool.free.push(ends),
                // What it holds is nobody else's: it is closed.
                _ => pool.made -= 1,
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_only_some_and_an_empty_one_is_used_again() {
        let mut pipes: Vec<_> = std::iter::from_fn(Pipe::take).collect();
        assert_eq!(pipes.len(), MOST);
        pipes.pop();
        pipes.extend(Pipe::take());
        assert!(Pipe::take().is_none());
        // One that broke with bytes in it is replaced.
        pipes[0].holds = 1;
        drop(pipes);
        assert_eq!(POOL.with_borrow(|pool| (pool.free.len(), pool.made)), (MOST - 1, MOST - 1));
    }
}
