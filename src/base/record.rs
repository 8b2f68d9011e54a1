//! One version of one key: the unit everything stores, ships and compares.

use std::cmp::Ordering;

use super::version::Version;

/// What a version of a key says, borrowed from wherever it lies (arena, block, request).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    pub version: Version,
    pub state: State<'a>,
}

/// A value, or a typed tombstone. No value is special: deletion is never a magic string.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State<'a> {
    /// The key is deleted as of this version.
    Deleted,
    /// `text` says that the bytes are valid UTF-8, checked once at the door so that reads need not.
    Live { value: &'a [u8], text: bool },
}

/// A key and one version of it, borrowed; tombstones are rows too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row<'a> {
    pub key: &'a [u8],
    pub entry: Entry<'a>,
}

impl<'a> Entry<'a> {
    /// The value, or `None` for a tombstone.
    #[must_use]
    pub fn value(&self) -> Option<&'a [u8]> {
        match self.state {
            State::Live { value, .. } => Some(value),
            State::Deleted => None,
        }
    }

    /// Which of two versions of one key wins: the larger version; on a tie (which honest clocks never
    /// produce) a tombstone over a value, then the greater bytes, so that every replica decides alike.
    #[must_use]
    pub fn order(&self, other: &Entry<'_>) -> Ordering {
        self.version
            .cmp(&other.version)
            .then_with(|| match (self.value(), other.value()) {
                (None, None) => Ordering::Equal,
                (None, Some(_)) => Ordering::Greater,
                (Some(_), None) => Ordering::Less,
                (Some(mine), Some(theirs)) => mine.cmp(theirs),
            })
    }

    /// A copy that owns its bytes.
    #[must_use]
    pub fn to_owned(&self) -> OwnedEntry {
        OwnedEntry {
            version: self.version,
            state: match self.state {
                State::Deleted => OwnedState::Deleted,
                State::Live { value, text } => OwnedState::Live {
                    value: value.into(),
                    text,
                },
            },
        }
    }
}

/// An [`Entry`] that owns its bytes: what crosses cores and awaits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnedEntry {
    pub version: Version,
    pub state: OwnedState,
}

/// The owning twin of [`Row`]: a row of a batch, of what crosses cores.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnedRow {
    pub key: Box<[u8]>,
    pub entry: OwnedEntry,
}

/// The owning twin of [`State`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OwnedState {
    Deleted,
    Live { value: Box<[u8]>, text: bool },
}

impl OwnedRow {
    /// The borrowed view.
    #[must_use]
    pub fn as_row(&self) -> Row<'_> {
        Row {
            key: &self.key,
            entry: self.entry.as_entry(),
        }
    }
}

impl OwnedEntry {
    /// The borrowed view.
    #[must_use]
    pub fn as_entry(&self) -> Entry<'_> {
        Entry {
            version: self.version,
            state: match &self.state {
                OwnedState::Deleted => State::Deleted,
                OwnedState::Live { value, text } => State::Live { value, text: *text },
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn live(hlc: u64, value: &[u8]) -> Entry<'_> {
        Entry {
            version: Version { hlc, origin: 1 },
            state: State::Live { value, text: true },
        }
    }

    #[test]
    fn larger_version_wins_and_ties_are_decided_alike_everywhere() {
        assert_eq!(live(2, b"a").order(&live(1, b"z")), Ordering::Greater);
        assert_eq!(live(1, b"a").order(&live(1, b"b")), Ordering::Less);
        let grave = Entry {
            version: Version { hlc: 1, origin: 1 },
            state: State::Deleted,
        };
        assert_eq!(grave.order(&live(1, b"b")), Ordering::Greater);
        assert_eq!(live(1, b"b").order(&grave), Ordering::Less);
        assert_eq!(grave.order(&grave), Ordering::Equal);
    }
}
