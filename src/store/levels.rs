//! Which tables hold which keys: an immutable picture of the tree, replaced whole.
//!
//! A reader clones the `Rc` and keeps its picture for as long as it likes; tables that a compaction replaced
//! are closed and unlinked when the last picture that names them goes.

use std::rc::Rc;

use super::format::edit::TableMeta;
use super::pick::LEVELS;
use super::table::Table;

/// One state of the tree. `levels[0]` newest first; deeper levels disjoint and in key order.
pub(crate) struct Levels {
    levels: Vec<Vec<Rc<Table>>>,
}

impl Levels {
    /// The tables in any order, with their levels.
    pub(crate) fn new(tables: impl IntoIterator<Item = (u8, Rc<Table>)>) -> Levels {
        let mut levels: Vec<Vec<Rc<Table>>> = (0..LEVELS).map(|_| Vec::new()).collect();
        for (level, table) in tables {
            levels[usize::from(level)].push(table);
        }
        for (level, tables) in levels.iter_mut().enumerate() {
            if level == 0 {
                // Flushes run one after the other, so a larger id is a newer table.
                tables.sort_by_key(|table| std::cmp::Reverse(table.meta().id));
            } else {
                tables.sort_by(|a, b| a.meta().smallest.cmp(&b.meta().smallest));
                let disjoint = tables
                    .windows(2)
                    .all(|pair| pair[0].meta().largest < pair[1].meta().smallest);
                assert!(disjoint, "tables of level {level} overlap");
            }
        }
        Levels { levels }
    }

    /// The picture after an edit: `removed` ids gone, `added` in their levels.
    pub(crate) fn edited(&self, removed: &[u64], added: Vec<(u8, Rc<Table>)>) -> Levels {
        let kept = self
            .with_levels()
            .filter(|(_, table)| !removed.contains(&table.meta().id));
        Levels::new(
            kept.map(|(level, table)| (level, Rc::clone(table)))
                .chain(added),
        )
    }

    /// Every table with its level.
    pub(crate) fn with_levels(&self) -> impl Iterator<Item = (u8, &Rc<Table>)> {
        (0u8..)
            .zip(&self.levels)
            .flat_map(|(level, tables)| tables.iter().map(move |table| (level, table)))
    }

    /// Tables that may hold `key`, newest source first.
    pub(crate) fn holding<'a>(&'a self, key: &'a [u8]) -> impl Iterator<Item = &'a Rc<Table>> {
        self.levels
            .iter()
            .enumerate()
            .flat_map(move |(level, tables)| {
                let tables = if level == 0 {
                    tables.as_slice()
                } else {
                    let at = tables.partition_point(|table| table.meta().largest.as_slice() < key);
                    tables.get(at..=at).unwrap_or_default()
                };
                tables.iter().filter(move |table| {
                    let meta = table.meta();
                    meta.smallest.as_slice() <= key && key <= meta.largest.as_slice()
                })
            })
    }

    /// Tables of one level, in that level's order.
    pub(crate) fn level(&self, level: usize) -> &[Rc<Table>] {
        self.levels.get(level).map_or(&[], Vec::as_slice)
    }

    /// The metadata view that `pick` decides on.
    pub(crate) fn metas(&self) -> Vec<Vec<&TableMeta>> {
        self.levels
            .iter()
            .map(|tables| tables.iter().map(|table| table.meta()).collect())
            .collect()
    }
}
