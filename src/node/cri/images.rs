//! The images that a runtime has.

use std::path::Path;
use std::time::Duration;

use super::Trouble;
use super::messages::{ListImagesRequest, ListImagesResponse};
use crate::base::grpc::Connection;

/// The service of CRI that keeps images.
const SERVICE: &str = "runtime.v1.ImageService";

/// Every name that an image of the runtime at `socket` has: by tag, by digest, and its id.
///
/// # Errors
/// What kept it from answering within `limit`.
pub async fn list(socket: &Path, limit: Duration) -> Result<Vec<String>, Trouble> {
    let answer = async {
        let connection = Connection::unix(socket).await;
        let mut connection = connection.map_err(|error| Trouble::Unreachable(error.to_string()))?;
        let list = connection.call(SERVICE, "ListImages", &ListImagesRequest {}).await;
        let list: ListImagesResponse = list.map_err(|failure| Trouble::Refused(failure.to_string()))?;
        let names = list.images.into_iter().flat_map(|image| {
            let id = image.id;
            image.repo_tags.into_iter().chain(image.repo_digests).chain([id])
        });
        Ok(names.collect())
    };
    tokio::time::timeout(limit, answer).await.unwrap_or(Err(Trouble::Silent))
}
