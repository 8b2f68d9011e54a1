//! One page of a range: rows in key order, merged over memtables and tables.
//!
//! A page reads one picture of the tree. The next page takes a new picture and goes on strictly after the
//! last key examined, so a scan holds nothing between pages: each key appears at most once, in order; keys
//! present throughout are never missed; it is not a snapshot of one instant.

use std::rc::Rc;

use super::memtable::MemtableCursor;
use super::merge::{LevelCursor, Merge, Source};
use super::pick::LEVELS;
use super::{Page, ReadError, ScanRange, Store};
use crate::base::hash::KeyHash;
use crate::base::record::Row;
use crate::base::slices::Slice;

/// Entries examined per page, tombstones included: a page over a graveyard ends early instead of holding
/// the core, perhaps without a row.
const EXAMINED_MAX: usize = 4096;

/// Entries a memtable is read ahead at a time.
const REFILL_MIN: usize = 16;
const REFILL_MAX: usize = 128;

impl Store {
    /// One page of the range: at most `rows_max` rows, ended early by `bytes_max`.
    pub async fn scan(
        &self,
        range: &ScanRange,
        rows_max: usize,
        bytes_max: usize,
    ) -> Result<Page, ReadError> {
        let rows_max = rows_max.min(EXAMINED_MAX);
        let after = range.after.as_deref();
        let from = after.max(range.from.as_deref()).unwrap_or_default();
        let mut merge = Merge::seek(self.sources(rows_max, range.apart), from).await?;
        let mut page = Page::default();
        let mut examined = 0;
        while let Some((key, held)) = merge.head() {
            if range.to.as_deref().is_some_and(|to| key > to) {
                break;
            }
            if after.is_none_or(|after| key > after) {
                let value = held.entry.value();
                if (value.is_some() || range.dead) && range.holds(key) {
                    if page.rows.is_empty() {
                        // Rows of a range are mostly alike: the first tells what the page will take.
                        let row = key.len() + value.unwrap_or_default().len();
                        let bytes = row.saturating_mul(rows_max).min(bytes_max);
                        page.rows.reserve(rows_max, bytes + bytes / 8);
                    }
                    let entry = held.entry;
                    page.rows.push(Row { key, entry });
                }
                examined += 1;
                let full = page.rows.len() >= rows_max || page.rows.byte_len() >= bytes_max;
                if full || examined >= EXAMINED_MAX {
                    page.resume = Some(key.into());
                    return Ok(page);
                }
            }
            if !merge.step()? {
                merge.advance().await?;
            }
        }
        page.rows.trim();
        Ok(page)
    }

    fn sources(&self, rows_max: usize, apart: bool) -> Vec<Source> {
        let state = self.state.borrow();
        let cache = (!apart).then(|| Rc::clone(self.shared.cache()));
        // What a memtable shows of the page if all sources are alike, and the key it begins behind.
        let tables = (0..LEVELS).map(|level| match level {
            0 => state.levels.level(0).len(),
            _ => usize::from(!state.levels.level(level).is_empty()),
        });
        let count = state.memtables().count() + tables.sum::<usize>();
        let refill = (rows_max / count + 1).clamp(REFILL_MIN, REFILL_MAX);
        let mut sources: Vec<Source> = state
            .memtables()
            .map(|memtable| Source::Memtable(MemtableCursor::new(memtable, refill)))
            .collect();
        sources.extend(
            state
                .levels
                .level(0)
                .iter()
                .map(|table| Source::Table(table.cursor(cache.clone()))),
        );
        for level in 1..LEVELS {
            let tables = state.levels.level(level);
            if !tables.is_empty() {
                sources.push(Source::Level(LevelCursor::new(
                    tables.to_vec(),
                    cache.clone(),
                )));
            }
        }
        sources
    }
}

impl ScanRange {
    /// Whether the slices asked for include the key's.
    fn holds(&self, key: &[u8]) -> bool {
        self.slices
            .as_ref()
            .is_none_or(|slices| slices.contains(Slice::of(KeyHash::of(key).token())))
    }
}
