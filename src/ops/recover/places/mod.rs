//! The place of etcd's data, and its exchange for other data. At every moment one of the two is there whole, and the
//! old data is never removed.
//!
//! ```text
//!  dataDir.hoist-restore/data    restored ─► marked ─┐               ┌─► dataDir.before-TIME
//!                                                    ├─ exchanged ───┤
//!  dataDir                       what was there ─────┘               └─► unmarked: etcd may start on it
//! ```
//!
//! The mark, a file in the restored folder, tells the state after a power cut: restored but not in place, or in place
//! with the old data still under the restored one's name. A mount point cannot be renamed: if dataDir is one, all of
//! this is done with the folder member in it. If dataDir is a link, all of this is done at its target, and the link
//! stays.

use std::fs;
use std::path::{Path, PathBuf};

use time::OffsetDateTime;

use crate::base::error::{Error, Result};
use crate::base::files::{self, File};
use crate::node::etcd_data;
use crate::node::host::Host;
use crate::node::mounts::Mounts;

/// The mark: it holds the SHA-256 of the snapshot.
const MARK: &str = ".hoist-restored";

/// How far an earlier restore has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// There was none, or nothing is left of it.
    None,
    /// It was cut short: what is restored is not whole.
    Unfinished,
    /// The snapshot with this sum is restored whole, and not in place.
    Restored(String),
    /// It is in place; what was there before is perhaps not moved aside yet.
    Exchanged(String),
}

/// The folders of one restore.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Places {
    /// For the snapshot and what is made of it.
    pub work: PathBuf,
    /// What etcdutl makes.
    pub new: PathBuf,
    /// What it is to be exchanged for.
    pub place: PathBuf,
    /// etcd's data, whether it is `place` or around it.
    data_dir: PathBuf,
}

impl Places {
    /// The places around etcd's `data_dir`.
    pub fn of(host: &Host, data_dir: &str) -> Self {
        let data_dir = host.resolve(Path::new(data_dir));
        if Mounts::of(host).is_point(&host.inside(&data_dir)) {
            let work = data_dir.join(".hoist-restore");
            return Self { new: work.join("data/member"), place: data_dir.join("member"), work, data_dir };
        }
        let work = beside(&data_dir, ".hoist-restore");
        Self { new: work.join("data"), place: data_dir.clone(), work, data_dir }
    }

    /// The snapshot, for the pod that restores it.
    pub fn snapshot(&self) -> PathBuf {
        self.work.join("snapshot.db")
    }

    /// Whether there is etcd's data.
    pub fn has_data(&self) -> bool {
        self.data_dir.join("member/snap/db").is_file()
    }

    /// etcd's database, which a living etcd has open.
    pub fn database(&self) -> PathBuf {
        self.data_dir.join("member/snap/db")
    }

    /// How far an earlier restore has come.
    pub fn state(&self) -> State {
        let mark = |dir: &Path| fs::read_to_string(dir.join(MARK)).ok().map(|text| text.trim().to_owned());
        match (mark(&self.place), mark(&self.new)) {
            (Some(sum), _) => State::Exchanged(sum),
            (None, Some(sum)) => State::Restored(sum),
            (None, None) if self.work.exists() => State::Unfinished,
            (None, None) => State::None,
        }
    }

    /// A name for what is in place now, that nothing has.
    pub fn aside(&self, now: OffsetDateTime) -> PathBuf {
        let (day, time) = (now.date(), now.time());
        let time = format!(
            "{:04}{:02}{:02}T{:02}{:02}{:02}Z",
            day.year(),
            u8::from(day.month()),
            day.day(),
            time.hour(),
            time.minute(),
            time.second()
        );
        let named = |number: u32| match number {
            1 => beside(&self.place, &format!(".before-{time}")),
            more => beside(&self.place, &format!(".before-{time}-{more}")),
        };
        (1..).map(named).find(|path| fs::symlink_metadata(path).is_err()).unwrap_or_else(|| named(1))
    }

    /// Marks what was restored as whole, on the disk.
    ///
    /// # Errors
    /// The system's refusal.
    pub fn mark(&self, sum: &str) -> Result<()> {
        // etcd may begin on it: without this its pod would wait for other data.
        let joined = etcd_data::joined_marks(&self.data_dir);
        for mark in joined.iter().map(String::as_str).chain([etcd_data::MARK]) {
            files::write(&self.work.join("data").join(mark), &etcd_data::mark())?;
        }
        files::sync_tree(&self.new)?;
        files::write(&self.new.join(MARK), &File::private(format!("{sum}\n"))).map(drop)
    }

    /// Puts what was restored, and is marked, in place. Nothing may use either of the two.
    ///
    /// # Errors
    /// The system's refusal; one of the two is then in place, whole.
    pub fn exchange(&self, now: OffsetDateTime) -> Result<()> {
        // A new machine may have it, and nothing in it.
        files::remove_empty_dir(&self.place)?;
        if fs::symlink_metadata(&self.place).is_err() {
            return files::rename(&self.new, &self.place);
        }
        if !files::exchange(&self.new, &self.place)? {
            // The file system cannot do it at once. In between, the mark says to go on.
            files::rename(&self.place, &self.aside(now))?;
            files::rename(&self.new, &self.place)?;
        }
        Ok(())
    }

    /// Ends what [`Self::exchange`] has begun, and says where the data is that was in place before, if it was moved now.
    ///
    /// # Errors
    /// The system's refusal; it may be called again.
    pub fn settle(&self, now: OffsetDateTime) -> Result<Option<PathBuf>> {
        if !matches!(self.state(), State::Exchanged(_)) {
            return Ok(None);
        }
        let aside = match fs::symlink_metadata(&self.new) {
            Ok(_) => {
                let aside = self.aside(now);
                files::rename(&self.new, &aside)?;
                Some(aside)
            }
            Err(_) => None,
        };
        self.clear()?;
        files::remove(&self.place.join(MARK))?;
        Ok(aside)
    }

    /// Removes what a restore has made that is not in place.
    ///
    /// # Errors
    /// The system's refusal.
    pub fn clear(&self) -> Result<()> {
        if matches!(self.state(), State::Exchanged(_)) && fs::symlink_metadata(&self.new).is_ok() {
            // It is what was in place before.
            let why = "the data from before the restore is in it";
            return Err(Error::failed(format!("remove {}", self.work.display()), why));
        }
        files::remove_dir(&self.work).map(drop)
    }
}

/// A path with `end` behind its last part.
fn beside(path: &Path, end: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(end);
    PathBuf::from(name)
}

#[cfg(test)]
mod tests;
