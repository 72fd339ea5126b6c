//! Writes an asset directory from a backup: beside its place, and then renamed in as a whole.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::base::error::{Error, Result};
use crate::base::files::{self, File};

/// Writes `files` to the folder `to`, which is not there, or empty.
///
/// # Errors
/// The system's refusal; nothing is left then.
pub(super) fn unpack(files: &BTreeMap<String, File>, to: &Path) -> Result<()> {
    let parent = to.parent().unwrap_or(Path::new("/"));
    files::make_dir(parent, 0o700)?;
    let mut options = tempfile::Builder::new();
    options.prefix(files::BESIDE).permissions(fs::Permissions::from_mode(0o700));
    let beside = options.tempdir_in(parent).map_err(|error| Error::io("write in", parent, error.kind().into()))?;
    for path in files.keys() {
        // All of it is root's: whoever else may look into a part of it is for the user to say.
        files::make_dir(beside.path().join(path).parent().unwrap_or(beside.path()), 0o700)?;
    }
    files::write_all(files.iter().map(|(path, file)| (beside.path().join(path), file)))?;
    files::remove_empty_dir(to)?;
    files::rename(beside.path(), to)?;
    // It has another name by now.
    let _ = beside.keep();
    Ok(())
}
