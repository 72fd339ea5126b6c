//! How clients reach an API server that serves.

pub mod balance;
pub mod forward;
pub mod quiet;
mod sockets;
