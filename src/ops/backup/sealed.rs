//! Encryption of an archive to recipients, in age's format (age-encryption.org/v1), piece by piece.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::Path;

use age::{Decryptor, Encryptor, IdentityFile, stream::StreamWriter, x25519};

use crate::base::error::{Error, Finding, Result};

/// How every file of age's begins; one that is written as text begins otherwise.
const MAGIC: &[u8] = b"age-encryption.org/";
const ARMOR: &[u8] = b"-----BEGIN AGE ENCRYPTED FILE-----";

/// Whom an archive is for: a public key of age's, as `age-keygen` prints it.
#[derive(Clone)]
pub struct Recipient(x25519::Recipient);

impl std::fmt::Debug for Recipient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl std::str::FromStr for Recipient {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let why = if text.starts_with("AGE-SECRET-KEY-") {
            "that is the secret key; name the public one, which begins with age1"
        } else {
            "it must be a public key of age's (X25519), as `age-keygen` prints it: age1…"
        };
        text.parse().map(Self).map_err(|_| why.to_owned())
    }
}

/// Where an archive is written to: as it is, or encrypted.
pub enum Output<W: Write> {
    /// As it is.
    Plain(W),
    /// Encrypted.
    Sealed(Box<StreamWriter<W>>),
}

impl<W: Write> Output<W> {
    /// Encrypts to `recipients`; without any, nothing is encrypted.
    ///
    /// # Errors
    /// What is wrong with the recipients, or the system's refusal to write.
    pub fn new(out: W, recipients: &[Recipient]) -> io::Result<Self> {
        if recipients.is_empty() {
            return Ok(Self::Plain(out));
        }
        let recipients = recipients.iter().map(|recipient| &recipient.0 as &dyn age::Recipient);
        let encryptor = Encryptor::with_recipients(recipients).map_err(io::Error::other)?;
        Ok(Self::Sealed(Box::new(encryptor.wrap_output(out)?)))
    }

    /// Ends it: before this, an encrypted archive is torn.
    ///
    /// # Errors
    /// The system's refusal to write.
    pub fn finish(self) -> io::Result<W> {
        match self {
            Self::Plain(out) => Ok(out),
            Self::Sealed(out) => out.finish(),
        }
    }
}

impl<W: Write> Write for Output<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(out) => out.write(bytes),
            Self::Sealed(out) => out.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(out) => out.flush(),
            Self::Sealed(out) => out.flush(),
        }
    }
}

/// Opens an archive; `identity` is a file with the secret keys that it may be encrypted to.
///
/// # Errors
/// A file that cannot be read, or not decrypted.
pub fn open(path: &Path, identity: Option<&Path>) -> Result<Box<dyn Read>> {
    let mut file = BufReader::new(open_file(path)?);
    let head = file.fill_buf().map_err(|error| Error::io("read", path, error))?;
    let refuse = |place: &Path, message: String, remedy: &str| {
        Err(Error::Input(vec![Finding::new(place.display().to_string(), message).remedy(remedy)]))
    };
    if head.starts_with(ARMOR) {
        return refuse(path, "is encrypted, as text".into(), "`age --decrypt` makes an unencrypted archive of it");
    }
    if !head.starts_with(MAGIC) {
        return Ok(Box::new(file));
    }
    const IDENTITY: &str = "name the file with the secret key (AGE-SECRET-KEY-1…): --identity FILE";
    let Some(identity) = identity else {
        return refuse(path, "is encrypted".into(), IDENTITY);
    };
    let keys = IdentityFile::from_buffer(BufReader::new(open_file(identity)?))
        .map_err(|error| error.to_string())
        .and_then(|file| file.into_identities().map_err(|error| error.to_string()));
    let keys = match keys {
        Ok(keys) if !keys.is_empty() => keys,
        Ok(_) => return refuse(identity, "holds no secret key of age's".into(), IDENTITY),
        Err(why) => return refuse(identity, format!("holds no secret key of age's: {why}"), IDENTITY),
    };
    let decryptor = match Decryptor::new_buffered(file) {
        Ok(decryptor) => decryptor,
        Err(why) => return refuse(path, format!("is torn or damaged: {why}"), super::OTHER_BACKUP),
    };
    match decryptor.decrypt(keys.iter().map(|key| &**key as &dyn age::Identity)) {
        Ok(reader) => Ok(Box::new(reader)),
        Err(age::DecryptError::NoMatchingKeys) => {
            refuse(identity, "holds no key that this archive is encrypted to".into(), IDENTITY)
        }
        Err(why) => refuse(path, format!("cannot be decrypted: {why}"), super::OTHER_BACKUP),
    }
}

/// Opens a file that is one: to open a pipe may wait for ever.
///
/// # Errors
/// One that is not there, or is none.
pub fn open_file(path: &Path) -> Result<File> {
    let refuse = |message: &str| {
        let finding = Finding::new(path.display().to_string(), message);
        Err(Error::Input(vec![finding.remedy("correct the path")]))
    };
    match std::fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => refuse("there is no such file"),
        Ok(meta) if !meta.is_file() => refuse("is no file"),
        _ => File::open(path).map_err(|error| Error::io("read", path, error)),
    }
}
