//! A snapshot as `etcdctl snapshot save` writes it: etcd's database, whose pages are a multiple of 512 bytes, and behind
//! it the SHA-256 of all that.

use std::io::Read;

use sha2::{Digest, Sha256};

/// The length of the sum at the end.
pub const SUM: usize = 32;
/// What the length of a database is a multiple of.
const BLOCK: u64 = 512;
const PIECE: usize = 64 * 1024;

/// Checks a snapshot that comes piece by piece.
#[derive(Default)]
pub struct Check {
    database: Sha256,
    whole: Sha256,
    /// The last bytes so far: they may be the sum.
    end: Vec<u8>,
    length: u64,
}

impl Check {
    /// The next piece.
    pub fn update(&mut self, piece: &[u8]) {
        self.whole.update(piece);
        self.length += piece.len() as u64;
        self.end.extend_from_slice(piece);
        let known = self.end.len().saturating_sub(SUM);
        self.database.update(&self.end[..known]);
        self.end.drain(..known);
    }

    /// So many bytes have come.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// The SHA-256 of the whole file, sum and all, if it is a snapshot.
    ///
    /// # Errors
    /// Why it is none.
    pub fn finish(self) -> Result<[u8; SUM], String> {
        if self.length % BLOCK != SUM as u64 || self.length < BLOCK {
            return Err("has no checksum at its end: it is torn, or no file of `etcdctl snapshot save`".into());
        }
        if self.database.finalize()[..] != self.end[..] {
            return Err("is damaged: its content does not have the checksum that stands at its end".into());
        }
        Ok(self.whole.finalize().into())
    }
}

/// Reads a snapshot to its end: its length, and the SHA-256 of the whole file.
///
/// # Errors
/// The system's refusal to read it. The inner one says why it is no snapshot.
pub fn read(mut from: impl Read) -> std::io::Result<Result<(u64, [u8; SUM]), String>> {
    let mut check = Check::default();
    let mut piece = vec![0; PIECE];
    loop {
        match from.read(&mut piece)? {
            0 => {
                let length = check.length();
                return Ok(check.finish().map(|sum| (length, sum)));
            }
            count => check.update(&piece[..count]),
        }
    }
}

/// A sum in hexadecimal digits.
pub fn hex(sum: &[u8]) -> String {
    sum.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A file that has the form of a snapshot, of `blocks` blocks.
    pub(crate) fn some(blocks: usize) -> Vec<u8> {
        let mut content: Vec<u8> = (0..blocks * 512).map(|i| (i * 7 % 251) as u8).collect();
        let sum = Sha256::digest(&content);
        content.extend_from_slice(&sum);
        content
    }

    #[test]
    fn a_snapshot_is_known_by_the_sum_at_its_end() {
        let content = some(300);
        let (length, sum) = read(&content[..]).unwrap().unwrap();
        assert_eq!((length, sum[..].to_vec()), (content.len() as u64, Sha256::digest(&content).to_vec()));
        // However it is cut into pieces.
        let mut check = Check::default();
        content.chunks(7).for_each(|piece| check.update(piece));
        assert_eq!(check.finish().unwrap(), sum);

        for (i, why) in [(0, "damaged"), (153_600, "damaged"), (153_631, "damaged")] {
            let mut other = content.clone();
            other[i] ^= 1;
            assert!(read(&other[..]).unwrap().unwrap_err().contains(why), "{i}");
        }
        for length in [0, 32, 512, content.len() - 1, content.len() - SUM] {
            assert!(read(&content[..length]).unwrap().unwrap_err().contains("no checksum"), "{length}");
        }
        assert!(read(&content[512..]).unwrap().unwrap_err().contains("damaged"), "torn at a block");
    }
}
