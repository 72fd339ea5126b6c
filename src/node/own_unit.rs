//! hoist's own unit, hoist.service. If it is enabled, systemd runs `hoist start` at each boot, and again some seconds
//! after a failed run.

use crate::base::error::Result;
use crate::node::host::Host;
use crate::node::kubelet::{is_systemd, systemctl};

/// Its name.
pub const UNIT: &str = "hoist.service";
/// Where units are, the one that counts first.
const FOLDERS: [&str; 3] = ["/etc/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system"];

/// What [`disable`] found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Was {
    /// systemd would have run it at the next boot.
    pub enabled: bool,
    /// It ran, or would have within seconds.
    pub started: bool,
}

/// Keeps systemd from running it: at the next boot, and now where one runs or waits to run again. Says what it was.
///
/// # Errors
/// systemd's refusal.
pub async fn disable(host: &Host) -> Result<Was> {
    if !is_systemd(host) {
        return Ok(Was::default());
    }
    let enabled = property(host, "UnitFileState").await? == "enabled";
    if enabled {
        systemctl(host, &["disable", UNIT]).await?;
    }
    // One that has done its work is "active" for good.
    let started = ["activating", "reloading"].contains(&property(host, "ActiveState").await?.as_str());
    if started {
        systemctl(host, &["stop", UNIT]).await?;
    }
    Ok(Was { enabled, started })
}

/// Lets systemd run it at boots again.
///
/// # Errors
/// systemd's refusal.
pub async fn enable(host: &Host) -> Result<()> {
    systemctl(host, &["enable", UNIT]).await.map(drop)
}

/// The program that it runs, by the unit of the machine, or of a package; `None` where there is no unit.
pub fn program(host: &Host) -> Option<String> {
    let text = FOLDERS.iter().find_map(|folder| std::fs::read_to_string(host.path(folder).join(UNIT)).ok())?;
    let command = text.lines().find_map(|line| line.trim().strip_prefix("ExecStart="))?;
    command.split_whitespace().next().map(str::to_owned)
}

async fn property(host: &Host, name: &str) -> Result<String> {
    Ok(systemctl(host, &["show", UNIT, "--value", "--property", name]).await?.trim().to_owned())
}
