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

use std::cmp::Ordering;
use std::ops::Bound;
use std::rc::Rc;

use super::cache::Cache;
use super::memtable::{Held, MemtableCursor, Prefix, order, prefix};
use super::table::{Table, TableError};
use super::table_cursor::TableCursor;
use crate::base::planted::{self, Bug};
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
                cursor.seek(Bound::Included(from));
                Ok(())
            }
            Source::Table(cursor) => cursor.seek(from).await,
            Source::Level(cursor) => cursor.seek(from).await,
        }
    }

    #[inline]
    fn head(&self) -> Option<(&[u8], Held<'_>)> {
        match self {
            Source::Memtable(cursor) => cursor.head(),
            Source::Table(cursor) => table_head(cursor),
            Source::Level(cursor) => cursor.open.as_ref().and_then(table_head),
        }
    }

    /// Goes to the next entry if it is at hand. False: nothing moved, `advance` is needed.
    #[inline]
    fn step(&mut self) -> Result<bool, TableError> {
        match self {
            Source::Memtable(cursor) => {
                cursor.advance();
                Ok(true)
            }
            Source::Table(cursor) => cursor.advance_in_block(),
            Source::Level(cursor) => match &mut cursor.open {
                Some(open) => open.advance_in_block(),
                None => Ok(true), // at the end
            },
        }
    }

    /// Goes to the next entry after `step` could not.
    async fn advance(&mut self) -> Result<(), TableError> {
        match self {
            Source::Memtable(_) => Ok(()),
            Source::Table(cursor) => cursor.advance().await,
            Source::Level(cursor) => cursor.advance().await,
        }
    }
}

fn table_head(cursor: &TableCursor) -> Option<(&[u8], Held<'_>)> {
    cursor
        .head()
        .map(|(key, entry, late)| (key, Held { entry, late }))
}

/// What nearly always tells two heads apart, beside that of the others: the entries lie in as many places.
#[derive(Clone, Copy)]
struct Head {
    prefix: Prefix,
    key_len: usize,
    version: Version,
}

/// The merge. Positioned on a key after `seek`; `head` is that key's winner.
pub(crate) struct Merge {
    sources: Vec<Source>,
    /// Of each source, `None` at its end.
    heads: Vec<Option<Head>>,
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
            heads: vec![None; sources.len()],
            current: Vec::with_capacity(sources.len()),
            sources,
        };
        for at in 0..merge.sources.len() {
            merge.note_head(at);
        }
        merge.choose();
        Ok(merge)
    }

    /// The winning entry of the current key; `None` at the end.
    pub(crate) fn head(&self) -> Option<(&[u8], Held<'_>)> {
        self.sources.get(*self.current.first()?)?.head()
    }

    /// Goes to the next greater key if everything for that is at hand, without a future's detour. False: `advance`
    /// is needed, and only that.
    #[inline]
    pub(crate) fn step(&mut self) -> Result<bool, TableError> {
        while let Some(at) = self.current.pop() {
            if !self.sources[at].step()? {
                self.current.push(at);
                return Ok(false);
            }
            self.note_head(at);
        }
        self.choose();
        Ok(true)
    }

    /// Goes to the next greater key.
    pub(crate) async fn advance(&mut self) -> Result<(), TableError> {
        while !self.step()? {
            if let Some(at) = self.current.pop() {
                self.sources[at].advance().await?;
                self.note_head(at);
            }
        }
        Ok(())
    }

    /// After source `at` has moved.
    #[inline]
    fn note_head(&mut self, at: usize) {
        self.heads[at] = self.sources[at].head().map(|(key, held)| Head {
            prefix: prefix(key),
            key_len: key.len(),
            version: held.entry.version,
        });
    }

    /// How the key of source `at` stands to the current one, and how its entry to the winner so far.
    fn orders_in_full(&self, at: usize) -> (Ordering, Ordering) {
        match (self.sources[at].head(), self.head()) {
            (Some((key, mine)), Some((best_key, best))) => {
                (key.cmp(best_key), mine.entry.order(&best.entry))
            }
            _ => (Ordering::Greater, Ordering::Less),
        }
    }

    /// Finds the smallest key among the heads, every source that has it, and the winner among those.
    fn choose(&mut self) {
        let mut best: Option<Head> = None;
        for (at, mine) in self.heads.iter().enumerate() {
            let Some(mine) = *mine else {
                continue;
            };
            let by_key = best.map_or(Ordering::Less, |best| {
                let (own, other) = (mine.prefix, best.prefix);
                order(own, mine.key_len, other, best.key_len, || {
                    self.orders_in_full(at).0
                })
            });
            match by_key {
                Ordering::Less => {
                    best = Some(mine);
                    self.current.clear();
                    self.current.push(at);
                }
                Ordering::Greater => {}
                Ordering::Equal => {
                    let by_version = best.map_or(Ordering::Less, |best| {
                        let order = mine.version.cmp(&best.version);
                        order.then_with(|| self.orders_in_full(at).1)
                    });
                    if by_version == Ordering::Greater && !planted::is(Bug::FirstHitWins) {
                        best = Some(mine);
                        self.current.insert(0, at);
                    } else {
                        self.current.push(at);
                    }
                }
            }
        }
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
        cursor.advance().await?;
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
