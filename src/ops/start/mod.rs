//! `hoist start`: raise the bridge, apply the self-hosted control plane, prove that it serves, lower the bridge.
//!
//! ```text
//!          ┌──────────────────────────────────────────────┐
//!          ▼                                              │
//!   observe (observer) ─► decide (pure) ─► act (acts) ─► report      run: the loop
//!                                                                   memory: what a run remembers
//! ```
//!
//! The machine: each step is done by what is seen, not by what was done, so that a run begins at the first one that is
//! not. `decide` has it row by row, the second half by plane/hand_over.
//!
//! ```text
//!  nothing serves ──raise──► bridge serves ──apply──► objects, Node ──► successors ready
//!        ▲                       ▲                                          │ lower the controllers
//!        │ stop, roll back       │ raise again, exit non-zero               ▼
//!        └── no kubelet answers  └──── not proved in time ◄──── self-hosted API server ready, required pods ready
//!                                                                           │ lower the API server
//!                                            done ◄──prove: Leases renewed──┘
//! ```

mod acts;
pub mod decide;
mod hand_over;
mod input;
mod memory;
mod next_step;
mod node_endpoint;
mod observer;
mod progress;
mod run;
mod session;
mod steps;

pub use hand_over::{HandOver, Stepped};
pub use input::{Input, Options};
pub(crate) use input::{check, goes_on, older_keys};
pub use memory::Mode;
pub use next_step::{NextStep, next_step};
pub use run::{start, start_with};
pub use session::{Ending, Session};
