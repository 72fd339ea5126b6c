//! The virtual address leaves a controller that is to be none any more while that one still serves.

use std::net::IpAddr;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::base::error::{Error, Result};
use crate::base::report::Reporter;
use crate::endpoint::quiet::is_here;
use crate::node::host::Host;
use crate::plane::leaving::{self, Why};

/// keepalived's check has looked again by then.
const TO_NOTICE: Duration = Duration::from_secs(2);
/// How long the address may take to be gone: requests that are under way are answered first.
const LIMIT: Duration = Duration::from_secs(20);
const AGAIN: Duration = Duration::from_millis(50);

/// Has keepalived take `address` from this machine, if it has it, and waits until it is gone.
///
/// # Errors
/// An address that stays.
pub(super) async fn leave(host: &Host, address: IpAddr, reporter: &Reporter) -> Result<()> {
    let was_here = is_here(address);
    leaving::begin(host, Why::Label)?;
    if !was_here {
        sleep(TO_NOTICE).await;
    }
    let begun = Instant::now();
    while is_here(address) {
        if begun.elapsed() >= LIMIT {
            return Err(Error::failed(
                "leave the node",
                format!(
                    "it still has the virtual address {address}: keepalived must take it away (`systemctl status keepalived`; its configuration is keepalived/keepalived.conf of the asset directory)"
                ),
            ));
        }
        sleep(AGAIN).await;
    }
    if was_here {
        reporter.note(&format!("the virtual address {address} is another controller's now"));
    }
    Ok(())
}
