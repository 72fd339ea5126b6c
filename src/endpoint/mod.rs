//! How clients reach an API server that serves.

pub mod forward;
mod sockets;
