//! A kubeconfig: whatever is found fit makes a client.

use hoist::api;
use hoist::desired::kubeconfig;

/// Panics where hoist is wrong about `data`.
pub fn check(data: &[u8]) {
    if !kubeconfig::check("kubeconfig", data, None).is_empty() {
        return;
    }
    let text = std::str::from_utf8(data).unwrap_or_else(|error| panic!("{error}"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.unwrap_or_else(|error| panic!("{error}"));
    let client = runtime.block_on(api::connect(text, ([127, 0, 0, 1], 1).into()));
    client.map(drop).unwrap_or_else(|error| panic!("{error}"));
}
