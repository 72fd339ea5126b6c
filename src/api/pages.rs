//! Lists that may be long, page by page.

use kube::api::ListParams;
use kube::core::ObjectList;

/// Hands every object of a list to `take`, without ever having more of them than `params` lets a page have. `list` asks
/// for one page.
///
/// # Errors
/// What `list` says of a page.
pub(super) async fn each<K: Clone>(
    mut params: ListParams,
    list: impl AsyncFn(&ListParams) -> Result<ObjectList<K>, kube::Error>,
    take: impl FnMut(K),
) -> Result<(), kube::Error> {
    let mut take = take;
    loop {
        let page = list(&params).await?;
        params.continue_token = page.metadata.continue_.filter(|token| !token.is_empty());
        page.items.into_iter().for_each(&mut take);
        if params.continue_token.is_none() {
            return Ok(());
        }
    }
}
