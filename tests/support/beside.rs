//! What goes on beside a test: in a thread that ends with it, also where it fails.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

/// Work in a thread of its own.
pub struct Beside<T> {
    stop: Stop,
    thread: JoinHandle<T>,
}

/// Asked by the work, time and again.
pub struct StopSignal(Arc<AtomicBool>);

/// Dropped, it says so.
struct Stop(Arc<AtomicBool>);

impl<T: Send + 'static> Beside<T> {
    pub fn begin(work: impl FnOnce(StopSignal) -> T + Send + 'static) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let signal = StopSignal(stop.clone());
        Self { stop: Stop(stop), thread: std::thread::spawn(move || work(signal)) }
    }

    /// Whether the work has ended by itself.
    pub fn is_finished(&self) -> bool {
        self.thread.is_finished()
    }

    /// Ends it, and says what came of it.
    pub fn end(self) -> T {
        drop(self.stop);
        self.thread.join().unwrap()
    }
}

impl StopSignal {
    /// Whether the work shall end.
    pub fn to_stop(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

impl Drop for Stop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
