//! What a process takes, by the kernel's own account.

use std::path::Path;

/// In a second, for what the kernel says about a process (USER_HZ of Linux).
const TICKS: f64 = 100.0;

/// The processor time that a process (its folder in /proc) has taken, in seconds; `None` once it has ended.
pub fn processor_seconds(process: &Path) -> Option<f64> {
    let text = std::fs::read_to_string(process.join("stat")).ok()?;
    // Behind the name, which may have spaces in it; user and system are the fields 14 and 15 of all.
    let fields: Vec<_> = text.rsplit_once(") ")?.1.split(' ').collect();
    Some((fields.get(11)?.parse::<f64>().ok()? + fields.get(12)?.parse::<f64>().ok()?) / TICKS)
}

/// A field of one of its files, such as `VmRSS:` of `status`, in bytes.
pub fn memory(process: &Path, file: &str, field: &str) -> Option<u64> {
    let text = std::fs::read_to_string(process.join(file)).ok()?;
    let value = text.lines().find_map(|line| line.strip_prefix(field))?;
    Some(value.trim().strip_suffix(" kB")?.parse::<u64>().ok()? * 1024)
}
