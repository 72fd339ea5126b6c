//! `hoist start`: raise the bridge, apply the self-hosted control plane, prove that it serves, lower the bridge.
//!
//! ```text
//!          ┌──────────────────────────────────────────────┐
//!          ▼                                              │
//!   observe (observer) ─► decide (pure) ─► act (acts) ─► report      run: the loop
//! ```

mod acts;
pub mod decide;
mod hand_over;
mod next;
mod observer;
mod progress;
mod run;
mod session;

pub use acts::rfc3339;
pub use decide::Target;
pub use hand_over::{HandOver, Stepped};
pub use next::{Next, next};
pub(crate) use run::check;
pub use run::{Input, Mode, Options, start, start_with};
pub use session::{Ending, Session};
