//! How clients reach the API where there are several API servers.

use super::check::Check;
use super::{Images, raw};

/// How clients reach the API where there are several API servers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiEndpoint {
    /// Each node has an endpoint at a loopback address, which its own clients ask.
    pub node_local: bool,
}

/// What `raw` says. Without a word of it, nodes have an endpoint of their own where an image brings hoist to them: nobody has
/// to copy a file.
pub(super) fn endpoint(_: &mut Check<'_>, raw: Option<&raw::Endpoint>, images: Option<&Images>) -> ApiEndpoint {
    let has_image = images.is_some_and(|images| images.hoist.is_some());
    ApiEndpoint { node_local: raw.and_then(|raw| raw.node_local).unwrap_or(has_image) }
}
