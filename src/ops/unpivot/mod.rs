//! `hoist unpivot`: the way back. The control plane becomes static pods for good, as the self-hosted one is now.
//!
//! ```text
//! observe ─► decide (pure) ─► act: prepare · raise · delete the self-hosted one · put the static one in
//!    └─ when all of it is put in ─► start's loop: hand over · lower · prove ─► tidy
//! ```
//! The bridge serves from before the first deletion until the static API server has proved that it does.

mod convert;
mod decide;
mod run;

pub use run::unpivot;
