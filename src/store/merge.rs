//! Many sorted sources as one: the k-way merge under scans, flushes and compactions.
//!
//! ```text
//! memtable cursors ─┐
//! L0 table cursors ─┼─▶ Merge: smallest key first, of equal keys the greatest entry
//! level cursors    ─┘
//! ```
//!
//! Of equal keys the greatest by `Entry::order` wins, never "the first source": a late write may lie above a
//! newer one. The fan-in is small (level 0 plus one per level), so the minimum is found by looking at every
//! head; a loser tree would cost more than it saves below some sixteen sources.

use std::cell::RefCell;
use std::cmp::Ordering;
use std::ops::Bound;
use std::rc::Rc;

use super::cache::Cache;
use super::memtable::{Held, Memtable};
use super::table::{Table, TableError};
use super::table_cursor::TableCursor;
use crate::base::planted::{self, Bug};
use crate::base::record::{Entry, State};
use crate::base::version::Version;

/// One sorted input.
pub(crate) enum Source {
    Memtable(MemtableCursor),
    Table(TableCursor),
    Level(LevelCursor),
}

impl Source {
    async fn seek(&mut self, from: &[u8]) -> Result<(), TableError> {
        match self {
            Source::Memtable(cursor) => {
                cursor.refill(Bound::Included(from));
                Ok(())
            }
            Source::Table(cursor) => cursor.seek(from).await,
            Source::Level(cursor) => cursor.seek(from).await,
        }
    }

    fn head(&self) -> Option<(&[u8], Held<'_>)> {
        match self {
            Source::Memtable(cursor) => cursor.head(),
            Source::Table(cursor) => table_head(cursor),
            Source::Level(cursor) => cursor.open.as_ref().and_then(table_head),
        }
    }

    async fn advance(&mut self) -> Result<(), TableError> {
        match self {
            Source::Memtable(cursor) => {
                cursor.advance();
                Ok(())
            }
            Source::Table(cursor) => step(cursor).await,
            Source::Level(cursor) => cursor.advance().await,
        }
    }
}

fn table_head(cursor: &TableCursor) -> Option<(&[u8], Held<'_>)> {
    cursor
        .head()
        .map(|(key, entry, late)| (key, Held { entry, late }))
}

/// Within the block without a future's detour, else with one.
async fn step(cursor: &mut TableCursor) -> Result<(), TableError> {
    if cursor.advance_in_block()? {
        Ok(())
    } else {
        cursor.advance().await
    }
}

/// The merge. Positioned on a key after `seek`; `head` is that key's winner.
pub(crate) struct Merge {
    sources: Vec<Source>,
    /// Sources whose head is the current key; the winner is first.
    current: Vec<usize>,
}

impl Merge {
    /// Positions on the first key not below `from`.
    pub(crate) async fn seek(mut sources: Vec<Source>, from: &[u8]) -> Result<Merge, TableError> {
        for source in &mut sources {
            source.seek(from).await?;
        }
        let mut merge = Merge {
            current: Vec::with_capacity(sources.len()),
            sources,
        };
        merge.choose();
        Ok(merge)
    }

    /// The winning entry of the current key; `None` at the end.
    pub(crate) fn head(&self) -> Option<(&[u8], Held<'_>)> {
        self.sources.get(*self.current.first()?)?.head()
    }

    /// Goes to the next greater key.
    pub(crate) async fn advance(&mut self) -> Result<(), TableError> {
        for n in 0..self.current.len() {
            let at = self.current[n];
            self.sources[at].advance().await?;
        }
        self.choose();
        Ok(())
    }

    /// Finds the smallest key among the heads, every source that has it, and the winner among those.
    fn choose(&mut self) {
        self.current.clear();
        for (n, source) in self.sources.iter().enumerate() {
            let Some((key, held)) = source.head() else {
                continue;
            };
            let Some((best_key, best)) =
                self.current.first().and_then(|at| self.sources[*at].head())
            else {
                self.current.push(n);
                continue;
            };
            match key.cmp(best_key) {
                Ordering::Less => {
                    self.current.clear();
                    self.current.push(n);
                }
                Ordering::Greater => {}
                Ordering::Equal
                    if held.entry.order(&best.entry) == Ordering::Greater
                        && !planted::is(Bug::FirstHitWins) =>
                {
                    self.current.insert(0, n)
                }
                Ordering::Equal => self.current.push(n),
            }
        }
    }
}

/// Reads a memtable a few entries at a time: the table may take writes between two steps, and no iterator of
/// its tree may live over an await.
pub(crate) struct MemtableCursor {
    table: Rc<RefCell<Memtable>>,
    /// Keys and values of `copied`, end to end: one buffer for the life of the cursor, no box per entry.
    bytes: Vec<u8>,
    copied: Vec<Copied>,
    /// Index of the head in `copied`.
    at: usize,
}

/// One entry: its key starts at `start` of the buffer, and its value follows.
struct Copied {
    start: usize,
    key_len: usize,
    value_len: usize,
    version: Version,
    kind: Kind,
    late: bool,
}

#[derive(Clone, Copy)]
enum Kind {
    Deleted,
    Live { text: bool },
}

/// Entries copied per refill: amortises the descent into the tree, bounds the copy.
const REFILL_ENTRIES: usize = 64;
/// A refill ends early at this many bytes, so that large values are not copied far ahead.
const REFILL_BYTES: usize = 256 << 10;

impl MemtableCursor {
    pub(crate) fn new(table: &Rc<RefCell<Memtable>>) -> MemtableCursor {
        MemtableCursor {
            table: Rc::clone(table),
            bytes: Vec::new(),
            copied: Vec::new(),
            at: 0,
        }
    }

    fn refill(&mut self, from: Bound<&[u8]>) {
        self.bytes.clear();
        self.copied.clear();
        self.at = 0;
        let table = self.table.borrow();
        for (key, held) in table.range(from, Bound::Unbounded).take(REFILL_ENTRIES) {
            let start = self.bytes.len();
            let (kind, value) = match held.entry.state {
                State::Deleted => (Kind::Deleted, &[][..]),
                State::Live { value, text } => (Kind::Live { text }, value),
            };
            self.bytes.extend_from_slice(key);
            self.bytes.extend_from_slice(value);
            self.copied.push(Copied {
                start,
                key_len: key.len(),
                value_len: value.len(),
                version: held.entry.version,
                kind,
                late: held.late,
            });
            if self.bytes.len() >= REFILL_BYTES {
                break;
            }
        }
    }

    fn head(&self) -> Option<(&[u8], Held<'_>)> {
        let copied = self.copied.get(self.at)?;
        let (key, rest) = self.bytes[copied.start..].split_at(copied.key_len);
        let state = match copied.kind {
            Kind::Deleted => State::Deleted,
            Kind::Live { text } => State::Live {
                value: &rest[..copied.value_len],
                text,
            },
        };
        let entry = Entry {
            version: copied.version,
            state,
        };
        let late = copied.late;
        Some((key, Held { entry, late }))
    }

    fn advance(&mut self) {
        let Some((last, _)) = self.head() else {
            return;
        };
        if self.at + 1 < self.copied.len() {
            self.at += 1;
            return;
        }
        let last = last.to_vec();
        self.refill(Bound::Excluded(&last));
    }
}

/// The disjoint tables of one level, read one after the other.
pub(crate) struct LevelCursor {
    /// In key order.
    tables: Vec<Rc<Table>>,
    /// Table after the open one.
    next: usize,
    open: Option<TableCursor>,
    cache: Option<Rc<Cache>>,
}

impl LevelCursor {
    pub(crate) fn new(tables: Vec<Rc<Table>>, cache: Option<Rc<Cache>>) -> LevelCursor {
        LevelCursor {
            tables,
            next: 0,
            open: None,
            cache,
        }
    }

    async fn seek(&mut self, from: &[u8]) -> Result<(), TableError> {
        self.next = self
            .tables
            .partition_point(|table| table.meta().largest.as_slice() < from);
        self.open_next(from).await
    }

    async fn advance(&mut self) -> Result<(), TableError> {
        let Some(cursor) = &mut self.open else {
            return Ok(());
        };
        step(cursor).await?;
        if cursor.head().is_some() {
            Ok(())
        } else {
            self.open_next(b"").await
        }
    }

    async fn open_next(&mut self, from: &[u8]) -> Result<(), TableError> {
        self.open = None;
        while let Some(table) = self.tables.get(self.next) {
            self.next += 1;
            let mut cursor = table.cursor(self.cache.clone());
            cursor.seek(from).await?;
            if cursor.head().is_some() {
                self.open = Some(cursor);
                break;
            }
        }
        Ok(())
    }
}
