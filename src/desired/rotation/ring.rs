//! All keys of a kind that a place has, and which of them is to stay: what every kind of key has in common.

use super::decide::{Asked, Level};

/// The keys, the newest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Ring<K> {
    keys: Vec<K>,
    /// Which of these is to stay.
    stays: usize,
    is_back: bool,
}

impl<K: PartialEq> Ring<K> {
    /// That of `keys`, the newest first, of which there is one at least.
    pub fn new(keys: Vec<K>, asked: Asked) -> Self {
        let is_back = asked == Asked::Abort && keys.len() > 1;
        Self { stays: usize::from(is_back), keys, is_back }
    }

    /// It with a new key, which is to stay.
    pub fn begun(mut self, key: K) -> Self {
        self.keys.insert(0, key);
        Self { stays: 0, is_back: false, ..self }
    }

    /// All of them.
    pub fn all(&self) -> &[K] {
        &self.keys
    }

    /// The one that is to stay.
    pub fn stays(&self) -> &K {
        &self.keys[self.stays]
    }

    /// Those at the end, the one that stays first.
    pub fn alone(&self) -> Vec<&K> {
        match self.is_back {
            // Those that were there before the newest.
            true => self.keys.iter().skip(1).collect(),
            false => vec![self.stays()],
        }
    }

    /// Those that go.
    pub fn going(&self) -> impl Iterator<Item = &K> {
        let alone = self.alone();
        self.keys.iter().filter(move |key| !alone.contains(key))
    }

    /// Those that a place has at a level: the first is used.
    pub fn at(&self, level: Level) -> Vec<&K> {
        let stays = self.stays();
        let others = self.keys.iter().filter(|key| *key != stays);
        match level {
            Level::Lacks | Level::Knows => others.chain([stays]).collect(),
            Level::Uses => [stays].into_iter().chain(others).collect(),
            Level::Alone => self.alone(),
        }
    }
}
