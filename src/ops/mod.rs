//! What commands do, each an observation, a decision and acts.

pub mod backup;
pub mod certs;
pub mod explain;
pub mod guard;
pub mod image;
pub mod join;
pub mod recover;
pub mod reset;
pub mod start;
pub mod status;
pub mod unpivot;
pub mod upgrade;
