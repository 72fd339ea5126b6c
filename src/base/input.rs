//! Reads the files that users give to hoist: only regular files, only up to a size, only valid text. Everything else
//! is refused with its cause and a remedy, in little time and memory.

use std::fs::{self, FileType, OpenOptions};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;

use base64::Engine;
use nix::libc;

use crate::base::error::{Error, Finding};

const MIB: u64 = 1 << 20;
/// The most that a cluster.yaml may have. A large one has a few thousand bytes.
pub const CONFIG_LIMIT: u64 = MIB / 4;
/// The most that a file of keys or certificates may have. A kubelet's or API server's has a few thousand bytes.
pub const PEM_LIMIT: u64 = MIB;
/// The most that one file of an asset directory may have: several times what the largest bundles of CRDs have.
pub const ASSET_LIMIT: u64 = 16 * MIB;
/// The most that all files of an asset directory may have: they are held in memory.
pub const ASSETS_LIMIT: u64 = 128 * MIB;

/// Why a file was not read.
#[derive(Debug)]
pub struct Unread {
    /// What the user is told.
    pub finding: Finding,
    /// The system's word on it, if it had one.
    pub source: Option<io::Error>,
}

impl Unread {
    fn because(path: &Path, message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { finding: Finding::new(path.display().to_string(), message).remedy(remedy), source: None }
    }

    fn system(path: &Path, error: io::Error) -> Self {
        let (message, remedy) = match error.kind() {
            ErrorKind::NotFound if fs::symlink_metadata(path).is_ok() => (
                "is a symbolic link to a file that is not there".to_owned(),
                "put the file where the link leads, or remove the link",
            ),
            ErrorKind::NotFound | ErrorKind::NotADirectory => ("there is no such file".to_owned(), "correct the path"),
            ErrorKind::PermissionDenied => {
                ("this user may not read it".to_owned(), "run hoist as root, or as the user whose file it is")
            }
            _ if error.raw_os_error() == Some(libc::ELOOP) => {
                ("is a symbolic link that leads back to itself".to_owned(), "put the file in its place")
            }
            _ => (format!("cannot be read: {error}"), "`dmesg` shows what the system says of its disk"),
        };
        Self { source: Some(error), ..Self::because(path, message, remedy) }
    }

    /// Whether there is nothing at the path, not even a link.
    pub fn is_missing(&self, path: &Path) -> bool {
        let missing = [Some(ErrorKind::NotFound), Some(ErrorKind::NotADirectory)];
        missing.contains(&self.source.as_ref().map(io::Error::kind)) && fs::symlink_metadata(path).is_err()
    }

    /// The error that ends a command for it.
    pub fn into_error(self, path: &Path) -> Error {
        match self.source {
            Some(source) if source.kind() == ErrorKind::PermissionDenied => Error::Preflight(vec![self.finding]),
            Some(source) if source.kind() != ErrorKind::NotFound && source.raw_os_error() != Some(libc::ELOOP) => {
                Error::io("read", path, source)
            }
            _ => Error::Input(vec![self.finding]),
        }
    }
}

/// The content of the file at `path`, of which there may be `limit` bytes. Links are followed.
///
/// # Errors
/// What is no regular file, is too large, or that the system will not read. None of it takes longer than asking.
pub fn read(path: &Path, limit: u64) -> Result<Vec<u8>, Unread> {
    // Asked before it is opened: to open a device may do something, and to open a pipe may wait for ever.
    let check = |meta: &fs::Metadata| match kind(meta.file_type()) {
        Some(what) => {
            Err(Unread::because(path, format!("is {what}, not a file"), "put the file there, or correct the path"))
        }
        None if meta.len() > limit => Err(too_large(&path.display().to_string(), limit)),
        None => Ok(()),
    };
    check(&fs::metadata(path).map_err(|error| Unread::system(path, error))?)?;
    let open = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path);
    let file = open.map_err(|error| Unread::system(path, error))?;
    check(&file.metadata().map_err(|error| Unread::system(path, error))?)?;
    read_stream(&path.display().to_string(), file, limit).map_err(|unread| match unread.source {
        Some(error) => Unread::system(path, error),
        None => unread,
    })
}

/// All that `stream` has, of which there may be `limit` bytes.
///
/// # Errors
/// A stream that has more, or that the system will not read.
pub fn read_stream(place: &str, stream: impl Read, limit: u64) -> Result<Vec<u8>, Unread> {
    let mut content = Vec::new();
    match stream.take(limit + 1).read_to_end(&mut content) {
        Err(error) => Err(Unread::system(Path::new(place), error)),
        Ok(read) if read as u64 > limit => Err(too_large(place, limit)),
        Ok(_) => Ok(content),
    }
}

fn too_large(place: &str, limit: u64) -> Unread {
    let most = if limit < MIB { format!("{} KiB", limit >> 10) } else { format!("{} MiB", limit / MIB) };
    let message = format!("is too large: hoist reads at most {most} of such a file");
    Unread::because(Path::new(place), message, "name the right file; or, if it is the right one, split it")
}

/// What a thing in the file system is, if it is no regular file.
fn kind(kind: FileType) -> Option<&'static str> {
    if kind.is_file() {
        None
    } else if kind.is_dir() {
        Some("a folder")
    } else if kind.is_fifo() {
        Some("a pipe")
    } else if kind.is_socket() {
        Some("a socket")
    } else {
        Some("a device")
    }
}

/// The text that `content` is.
///
/// # Errors
/// What is not UTF-8, with the place where it is not.
pub fn text<'a>(place: &str, content: &'a [u8]) -> Result<&'a str, Finding> {
    if content.starts_with(b"\xff\xfe") || content.starts_with(b"\xfe\xff") {
        let finding = Finding::new(place, "is text in UTF-16, where UTF-8 is expected").at(Some((1, 1)));
        return Err(finding.remedy(format!("write it anew: iconv -f UTF-16 -t UTF-8 {place}")));
    }
    std::str::from_utf8(content).map_err(|error| {
        let good = String::from_utf8_lossy(content.get(..error.valid_up_to()).unwrap_or_default());
        let finding = Finding::new(place, "is not text in UTF-8").at(Some(position(&good, good.len())));
        finding.remedy("is it the right file? If it is text in another encoding, write it anew with `iconv -t UTF-8`")
    })
}

/// `content` with the ends of lines that Unix has, if it is text: git may have given it others (`core.autocrlf`).
pub fn unix(content: Vec<u8>) -> Vec<u8> {
    let is_text = || !content.contains(&0) && std::str::from_utf8(&content).is_ok();
    // Most have none, and this is looked for at once.
    if !content.contains(&b'\r') || !is_text() {
        return content;
    }
    let mut bytes = content.iter().copied().peekable();
    let mut unix = Vec::with_capacity(content.len());
    while let Some(byte) = bytes.next() {
        if byte != b'\r' || bytes.peek() != Some(&b'\n') {
            unix.push(byte);
        }
    }
    unix
}

/// What the Base64 in `text` says, as Go reads it: ends of lines in it mean nothing. `None` where it is none.
pub fn base64(text: &str) -> Option<Vec<u8>> {
    let standard = base64::engine::general_purpose::STANDARD;
    match text.contains(['\n', '\r']) {
        true => standard.decode(text.replace(['\n', '\r'], "")).ok(),
        false => standard.decode(text).ok(),
    }
}

/// The line and column, both from 1, of the byte `at` of a text.
pub fn position(text: &str, at: usize) -> (usize, usize) {
    let before = text.get(..at).unwrap_or(text);
    let column = before.chars().rev().take_while(|c| *c != '\n').count();
    (1 + before.matches('\n').count(), 1 + column)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(result: Result<Vec<u8>, Unread>) -> String {
        result.unwrap_err().finding.message
    }

    #[test]
    fn only_a_file_of_the_size_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        fs::write(path("file"), "1234").unwrap();
        std::os::unix::fs::symlink("file", path("link")).unwrap();
        std::os::unix::fs::symlink("none", path("dangling")).unwrap();
        std::os::unix::fs::symlink("loop", path("loop")).unwrap();
        nix::unistd::mkfifo(&path("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        let _listener = std::os::unix::net::UnixListener::bind(path("socket")).unwrap();
        assert_eq!(read(&path("link"), 4).unwrap(), b"1234");
        for (name, limit, expected) in [
            ("file", 3, "is too large: hoist reads at most 0 KiB of such a file"),
            ("pipe", 4, "is a pipe, not a file"),
            ("socket", 4, "is a socket, not a file"),
            (".", 4, "is a folder, not a file"),
            ("/dev/zero", 4, "is a device, not a file"),
            ("none", 4, "there is no such file"),
            ("file/none", 4, "there is no such file"),
            ("dangling", 4, "is a symbolic link to a file that is not there"),
            ("loop", 4, "is a symbolic link that leads back to itself"),
        ] {
            assert_eq!(message(read(&path(name), limit)), expected, "{name}");
        }
        assert!(read(&path("none"), 4).unwrap_err().is_missing(&path("none")));
        assert!(!read(&path("dangling"), 4).unwrap_err().is_missing(&path("dangling")));
        assert!(message(read_stream("f", io::repeat(b'x'), 4)).starts_with("is too large"));
        assert_eq!(read_stream("f", &b"1234"[..], 4).unwrap(), b"1234");
    }

    #[test]
    fn text_is_utf_8() {
        for (content, place) in [
            (&b"\xff\xfea\0"[..], "f:1:1: is text in UTF-16, where"),
            (b"a\nb\xe4", "f:2:2: is not text in UTF-8"),
            (b"\x7fELF\x80", "f:1:5: is not text in UTF-8"),
        ] {
            assert!(text("f", content).unwrap_err().to_string().starts_with(place));
        }
        assert_eq!(text("f", "ä\r\n".as_bytes()), Ok("ä\r\n"));
        assert_eq!(position("ä\nöx", 5), (2, 2));
        for (content, expected) in [
            (&b"a\r\nb\n\r\n"[..], &b"a\nb\n\n"[..]),
            (b"a\rb\r", b"a\rb\r"),
            (b"a\0\r\n", b"a\0\r\n"),
            (b"\xff\r\n", b"\xff\r\n"),
            (b"", b""),
        ] {
            assert_eq!(unix(content.to_vec()), expected);
        }
        assert_eq!(base64("aGVs\r\nbG8=\n").as_deref(), Some(&b"hello"[..]));
        assert_eq!((base64("aGVs bG8="), base64("aGVsbG8")), (None, None));
    }
}
