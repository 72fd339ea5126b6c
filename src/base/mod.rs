//! The foundation of all other groups, independent of Kubernetes: errors, files, input, YAML, reports, time.

pub mod backoff;
pub mod error;
pub mod exposition;
pub mod files;
pub mod grpc;
pub mod holders;
pub mod input;
pub mod limits;
pub mod log;
pub mod probe;
pub mod progress;
pub mod report;
pub mod time;
pub mod watched;
pub mod yaml;
