//! The file that a new kubelet comes in: its program, or a package that has it. The machine's own tools unpack a package; it is not
//! installed.

use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::base::error::{Error, Finding, Result};
use crate::base::files;
use crate::node::host::Host;

/// Where a package is unpacked: a kubelet is run from there, which /tmp may forbid.
const FOLDER: &str = "/var/lib/hoist/kubelet-package";
/// A package of 100 MB on a slow machine.
const LIMIT: Duration = Duration::from_secs(180);

/// A kind of package, by how its file begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// An archive of ar(1), by deb(5).
    Deb,
    /// By the lead of the RPM file format, version 4.
    Rpm,
}

impl Kind {
    fn of(begin: &[u8]) -> Option<Self> {
        match begin {
            b"!<arch>\n" => Some(Self::Deb),
            [0xed, 0xab, 0xee, 0xdb, ..] => Some(Self::Rpm),
            _ => None,
        }
    }

    /// What unpacks the file `$1` in the folder `$2`.
    fn script(self) -> &'static str {
        match self {
            Self::Deb => "dpkg-deb --extract \"$1\" \"$2\"",
            Self::Rpm => "cd \"$2\" && rpm2cpio \"$1\" | cpio --extract --make-directories --quiet",
        }
    }

    fn tools(self) -> &'static str {
        match self {
            Self::Deb => "a .deb takes dpkg-deb",
            Self::Rpm => "an .rpm takes rpm2cpio and cpio",
        }
    }

    fn registers(self, file: &Path) -> String {
        let file = file.display();
        match self {
            Self::Deb => format!("dpkg does not know of it yet: `dpkg -i {file}` tells it"),
            Self::Rpm => format!("rpm does not know of it yet: `rpm -U {file}` tells it"),
        }
    }
}

/// The file of a kubelet's program; what was unpacked for it is gone when it is dropped.
#[derive(Debug)]
pub struct Source {
    program: PathBuf,
    unpacked: Option<PathBuf>,
    /// What is left to do for the machine's package manager, where the program came out of a package.
    pub registers: Option<String>,
}

impl Source {
    /// The program `file` itself, or the one in the package `file`.
    ///
    /// # Errors
    /// What is neither; a package that the machine cannot unpack, or that has not one file `kubelet` that may be run.
    pub async fn open(host: &Host, file: &Path) -> Result<Self> {
        let refused = |why: String| {
            let finding = Finding::new(file.display().to_string(), why);
            Error::Input(vec![
                finding.remedy("--kubelet names the program of the new kubelet, or a .deb or .rpm that has it"),
            ])
        };
        let Some(kind) = kind(file).map_err(refused)? else {
            return Ok(Self { program: file.to_owned(), unpacked: None, registers: None });
        };
        let folder = host.path(FOLDER);
        // One that was killed leaves its own.
        files::remove_dir(&folder)?;
        files::make_dir(&folder, 0o700)?;
        let mut source = Self { program: PathBuf::new(), unpacked: Some(folder.clone()), registers: None };
        let (from, to) = (file.to_string_lossy(), folder.to_string_lossy());
        let args = ["-o", "pipefail", "-c", kind.script(), "bash", &from, &to];
        let ran = host.world().run("bash", &args, LIMIT).await?;
        if !ran.success {
            return Err(Error::Failed {
                action: format!("unpack {}", file.display()),
                cause: ran.stderr.trim().to_owned(),
                next: Some(format!("{}; or name the program of the kubelet itself", kind.tools())),
            });
        }
        source.program = only_kubelet(&folder).map_err(refused)?;
        source.registers = Some(kind.registers(file));
        Ok(source)
    }

    /// Where the program is.
    pub fn program(&self) -> &Path {
        &self.program
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        if let Some(folder) = &self.unpacked {
            // The next one removes what this cannot.
            let _ = files::remove_dir(folder);
        }
    }
}

/// The kind of package that a file is; `None` where it is a program. Or why it is neither.
fn kind(file: &Path) -> std::result::Result<Option<Kind>, String> {
    let meta = fs::metadata(file).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => "there is no such file".to_owned(),
        _ => error.to_string(),
    })?;
    if !meta.is_file() {
        return Err("is no file".to_owned());
    }
    let mut begin = Vec::new();
    let read = fs::File::open(file).and_then(|file| file.take(8).read_to_end(&mut begin));
    read.map_err(|error| format!("cannot be read: {error}"))?;
    match Kind::of(&begin) {
        None if meta.permissions().mode() & 0o111 == 0 => Err("may not be run: `chmod 755` lets it".to_owned()),
        kind => Ok(kind),
    }
}

/// The one file `kubelet` below a folder that may be run.
fn only_kubelet(folder: &Path) -> std::result::Result<PathBuf, String> {
    let mut found = Vec::new();
    programs(folder, &mut found).map_err(|error| format!("cannot be read once it is unpacked: {error}"))?;
    match (found.len(), found.pop()) {
        (1, Some(program)) => Ok(program),
        (0, _) => Err("is a package without a program `kubelet`".to_owned()),
        (count, _) => Err(format!("is a package with {count} programs `kubelet`")),
    }
}

/// All files `kubelet` below a folder that may be run. A package's links may lead out of it, and are not followed.
fn programs(folder: &Path, found: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let meta = entry.metadata()?;
        if meta.is_dir() {
            programs(&entry.path(), found)?;
        } else if meta.is_file() && meta.permissions().mode() & 0o111 != 0 && entry.file_name() == "kubelet" {
            found.push(entry.path());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn program(path: &Path, mode: u32) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "#!/bin/sh\n").unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn what_is_neither_a_program_nor_a_package_is_said_before_it_is_run() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("kubelet");
        assert_eq!(kind(&file), Err("there is no such file".to_owned()));
        assert_eq!(kind(dir.path()), Err("is no file".to_owned()));
        fs::write(&file, "").unwrap();
        assert!(kind(&file).unwrap_err().starts_with("may not be run"));
        for (begin, expected) in [
            (b"!<arch>\ndebian-binary".as_slice(), Some(Kind::Deb)),
            (b"\xed\xab\xee\xdb\x03\x00\x00\x00\x00", Some(Kind::Rpm)),
        ] {
            fs::write(&file, begin).unwrap();
            assert_eq!(kind(&file), Ok(expected), "a package need not be run");
        }
        program(&file, 0o755);
        assert_eq!(kind(&file), Ok(None));
    }

    #[test]
    fn the_program_is_the_one_file_of_its_name_that_may_be_run() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        program(&path("usr/share/bash-completion/completions/kubelet"), 0o644);
        std::os::unix::fs::symlink("/bin/true", path("usr/kubelet")).unwrap();
        std::os::unix::fs::symlink(dir.path(), path("usr/all")).unwrap();
        assert_eq!(only_kubelet(dir.path()), Err("is a package without a program `kubelet`".to_owned()));
        program(&path("usr/bin/kubelet"), 0o755);
        assert_eq!(only_kubelet(dir.path()), Ok(path("usr/bin/kubelet")));
        program(&path("usr/local/bin/kubelet"), 0o755);
        assert_eq!(only_kubelet(dir.path()), Err("is a package with 2 programs `kubelet`".to_owned()));
    }
}
