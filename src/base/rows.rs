//! Pure. Rows end to end in one buffer: what a page of a scan is, on its way between tasks, cores and nodes.
//!
//! ```text
//! bytes  = key value | key value | ..
//! places = per row: where it starts, two lengths, version, kind
//! ```
//!
//! A page of a hundred rows is two allocations, not two hundred, and dropping it is two frees.

use super::record::{Entry, Row, State};
use super::version::Version;

/// A list of rows that owns its bytes. It knows no order: whoever fills it does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rows {
    bytes: Vec<u8>,
    places: Vec<Place>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    start: usize,
    key_len: u32,
    value_len: u32,
    version: Version,
    kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Deleted,
    Live { text: bool },
}

impl Rows {
    /// Makes room for `rows` more rows of `bytes` bytes, keys and values, in all.
    pub fn reserve(&mut self, rows: usize, bytes: usize) {
        self.places.reserve(rows);
        self.bytes.reserve(bytes);
    }

    /// Gives back what was reserved and will not be used, if that is most of it.
    pub fn trim(&mut self) {
        if self.places.len() < self.places.capacity() / 2 {
            self.places.shrink_to_fit();
            self.bytes.shrink_to_fit();
        }
    }

    /// Memory it takes, used or not.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        self.bytes.capacity() + self.places.capacity() * size_of::<Place>()
    }

    /// Copies a row to the end.
    #[inline]
    pub fn push(&mut self, row: Row<'_>) {
        let (kind, value) = match row.entry.state {
            State::Deleted => (Kind::Deleted, &[][..]),
            State::Live { value, text } => (Kind::Live { text }, value),
        };
        let short = |len| u32::try_from(len).expect("keys and values are bounded by base::limits");
        self.places.push(Place {
            start: self.bytes.len(),
            key_len: short(row.key.len()),
            value_len: short(value.len()),
            version: row.entry.version,
            kind,
        });
        self.bytes.extend_from_slice(row.key);
        self.bytes.extend_from_slice(value);
    }

    /// Row number `at`, from 0.
    #[must_use]
    #[inline]
    pub fn get(&self, at: usize) -> Option<Row<'_>> {
        self.places.get(at).map(|place| self.show(place))
    }

    #[must_use]
    pub fn last(&self) -> Option<Row<'_>> {
        self.places.last().map(|place| self.show(place))
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.places.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// Length of all keys and values.
    #[must_use]
    pub fn byte_len(&self) -> usize {
        self.bytes.len()
    }

    /// First row to last.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = Row<'_>> + ExactSizeIterator {
        self.places.iter().map(|place| self.show(place))
    }

    #[inline]
    fn show(&self, place: &Place) -> Row<'_> {
        let (key, rest) = self.bytes[place.start..].split_at(place.key_len as usize);
        let state = match place.kind {
            Kind::Deleted => State::Deleted,
            Kind::Live { text } => State::Live {
                value: &rest[..place.value_len as usize],
                text,
            },
        };
        let version = place.version;
        Row {
            key,
            entry: Entry { version, state },
        }
    }
}

impl<'a> FromIterator<Row<'a>> for Rows {
    fn from_iter<I: IntoIterator<Item = Row<'a>>>(rows: I) -> Rows {
        let mut all = Rows::default();
        for row in rows {
            all.push(row);
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_come_back_as_they_went_in() {
        let version = |hlc| Version { hlc, origin: 3 };
        let row = |key, hlc, state| Row {
            key,
            entry: Entry {
                version: version(hlc),
                state,
            },
        };
        let live = |value, text| State::Live { value, text };
        let want = [
            row(b"a".as_slice(), 1, live(b"one".as_slice(), true)),
            row(b"", 2, live(b"", false)),
            row(b"gone", 3, State::Deleted),
            row(b"b", 4, live(b"\xff", false)),
        ];
        let rows: Rows = want.into_iter().collect();
        assert_eq!(rows.iter().collect::<Vec<_>>(), want);
        assert_eq!((rows.len(), rows.byte_len()), (4, 10));
        assert_eq!((rows.get(2), rows.get(4)), (Some(want[2]), None));
        assert_eq!((rows.last(), Rows::default().last()), (Some(want[3]), None));
        assert!(!rows.is_empty() && Rows::default().is_empty());
    }
}
