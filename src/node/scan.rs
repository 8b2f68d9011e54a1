//! Pure. One range scan: merges the pages of all shards and spells the answer as JSON.
//!
//! ```text
//!  shard 0: page ▶ page ▶ ..  ─┐
//!  shard 1: page ▶ page ▶ ..  ─┼─ smallest key first ─▶ {"a":"1","b":"2"} + newline
//!  shard 2: page ▶ end        ─┘
//! ```
//!
//! Shards hold disjoint keys, so the merge has no ties. A row may leave only when every shard that is not at
//! its end has a row waiting: only then is the smallest key known. The next page of a shard is asked for when
//! its last buffered row enters the merge, so the wait overlaps with the rows of the other shards.
//!
//! Memory: one page per shard plus the caller's buffer. Not a snapshot of one moment: each row was current at
//! some moment of the scan, and a key present throughout is never missed.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

use super::json;
use crate::base::limits::SCAN_PAGE_ROWS;
use crate::base::record::OwnedState;
use crate::store::{Page, Row, ScanRange};

/// The merge of one scan.
pub(crate) struct Scan {
    from: Option<Box<[u8]>>,
    to: Option<Box<[u8]>>,
    sources: Vec<Source>,
    /// The next row of each source that has one, smallest key on top.
    heads: BinaryHeap<Reverse<Head>>,
    /// Shards to ask for a page; the driver takes them.
    wanted: Vec<u16>,
    /// Sources that keep the merge from going on.
    starved: usize,
    rows_left: u64,
    opened: bool,
    last_key: Box<[u8]>,
    /// Keys and values of rows that have come and not been written.
    held_bytes: usize,
}

/// The stream of one shard.
#[derive(Default)]
struct Source {
    rows: VecDeque<Row>,
    /// Where the next page starts (exclusive).
    after: Option<Box<[u8]>>,
    /// A page is wanted or on its way.
    asked: bool,
    /// No page follows.
    ended: bool,
    /// A row of it is among the heads.
    has_head: bool,
}

struct Head {
    row: Row,
    shard: u16,
}

/// How far [`Scan::write`] came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// A page must arrive first.
    Blocked,
    /// The buffer is as long as asked for.
    Full,
    /// The object is complete. `cut`: the limit ended it and rows may follow [`Scan::last_key`].
    Done { cut: bool },
}

impl Scan {
    /// Both ends inclusive, `None` open. `rows_max`: end after so many rows.
    pub(crate) fn new(
        from: Option<Box<[u8]>>,
        to: Option<Box<[u8]>>,
        rows_max: Option<u64>,
        shards: u16,
    ) -> Scan {
        let reversed = matches!((&from, &to), (Some(from), Some(to)) if from > to);
        let rows_left = rows_max.unwrap_or(u64::MAX);
        let mut scan = Scan {
            from,
            to,
            sources: (0..shards).map(|_| Source::default()).collect(),
            heads: BinaryHeap::new(),
            wanted: Vec::new(),
            starved: usize::from(shards),
            rows_left,
            opened: false,
            last_key: Box::default(),
            held_bytes: 0,
        };
        if reversed || rows_left == 0 {
            scan.sources.clear();
            scan.starved = 0;
        }
        for shard in 0..scan.sources.len() {
            scan.settle(shard);
        }
        scan
    }

    /// Takes one page request: which shard, which part of the range, how many rows at most.
    pub(crate) fn next_wanted(&mut self) -> Option<(u16, ScanRange, usize)> {
        let shard = self.wanted.pop()?;
        let range = ScanRange {
            from: self.from.clone(),
            after: self.sources[usize::from(shard)].after.clone(),
            to: self.to.clone(),
        };
        Some((shard, range, self.page_rows()))
    }

    /// With a limit, each of S shards holds about limit/S of the answer; three standard deviations more make
    /// a second page rare, and a short scan over many shards does not read 256 rows from each.
    fn page_rows(&self) -> usize {
        let share = self.rows_left as f64 / self.sources.len() as f64;
        let guess = share + 3.0 * share.sqrt() + 1.0;
        (guess.ceil() as usize).clamp(1, SCAN_PAGE_ROWS)
    }

    /// Adds a page that was wanted.
    pub(crate) fn add(&mut self, shard: u16, page: Page) {
        let shard = usize::from(shard);
        let Some(source) = self.sources.get_mut(shard) else {
            return;
        };
        source.asked = false;
        self.held_bytes += page.rows.iter().map(row_bytes).sum::<usize>();
        source.rows.extend(page.rows);
        source.ended = page.resume.is_none();
        source.after = page.resume;
        let starved = !source.has_head;
        self.settle(shard);
        let source = &self.sources[shard];
        if starved && (source.has_head || source.ended) {
            self.starved -= 1;
        }
    }

    /// Moves the next row of a source into the merge and wants a page when none is left behind it.
    fn settle(&mut self, shard: usize) {
        let source = &mut self.sources[shard];
        if !source.has_head
            && let Some(row) = source.rows.pop_front()
        {
            source.has_head = true;
            let shard = shard as u16;
            self.heads.push(Reverse(Head { row, shard }));
        }
        if source.rows.is_empty() && !source.ended && !source.asked {
            source.asked = true;
            self.wanted.push(shard as u16);
        }
    }

    /// Appends as much of the answer as is known, until `out` has `bytes_max`.
    pub(crate) fn write(&mut self, out: &mut Vec<u8>, bytes_max: usize) -> Progress {
        loop {
            if self.starved > 0 && self.rows_left > 0 {
                return Progress::Blocked;
            }
            let head = if self.rows_left > 0 {
                self.heads.pop()
            } else {
                None
            };
            let Some(Reverse(Head { row, shard })) = head else {
                out.extend_from_slice(if self.opened { b"}\n" } else { b"{}\n" });
                let cut = self.rows_left == 0 && !self.is_exhausted();
                return Progress::Done { cut };
            };
            out.push(if self.opened { b',' } else { b'{' });
            self.opened = true;
            self.rows_left -= 1;
            put_row(out, &row);
            self.held_bytes -= row_bytes(&row);
            self.last_key = row.key;
            let shard = usize::from(shard);
            self.sources[shard].has_head = false;
            self.settle(shard);
            let source = &self.sources[shard];
            if !source.has_head && !source.ended {
                self.starved += 1;
            }
            if out.len() >= bytes_max {
                return Progress::Full;
            }
        }
    }

    /// Ends the answer with the rows written so far, as a limit would.
    pub(crate) fn cut(&mut self) {
        self.rows_left = 0;
    }

    /// Memory of rows that wait in the merge.
    pub(crate) fn held_bytes(&self) -> usize {
        self.held_bytes
    }

    /// Key of the last row written.
    pub(crate) fn last_key(&self) -> &[u8] {
        &self.last_key
    }

    /// No row is left anywhere.
    fn is_exhausted(&self) -> bool {
        self.heads.is_empty() && self.sources.iter().all(|source| source.ended)
    }
}

fn row_bytes(row: &Row) -> usize {
    row.key.len() + row.entry.as_entry().value().map_or(0, <[u8]>::len)
}

fn put_row(out: &mut Vec<u8>, row: &Row) {
    json::put_string(out, &row.key);
    out.push(b':');
    match &row.entry.state {
        OwnedState::Live { value, text: true } => json::put_text(out, value),
        OwnedState::Live { value, text: false } => json::put_string(out, value),
        // Pages hold live rows only; a tombstone would be a bug of the store, and null says so.
        OwnedState::Deleted => out.extend_from_slice(b"null"),
    }
}

impl Ord for Head {
    fn cmp(&self, other: &Head) -> std::cmp::Ordering {
        self.row.key.cmp(&other.row.key)
    }
}

impl PartialOrd for Head {
    fn partial_cmp(&self, other: &Head) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Head {
    fn eq(&self, other: &Head) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Head {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::record::OwnedEntry;
    use crate::base::version::Version;
    use std::collections::BTreeMap;

    fn row(key: &str, value: &str) -> Row {
        Row {
            key: key.as_bytes().into(),
            entry: OwnedEntry {
                version: Version::ZERO,
                state: OwnedState::Live {
                    value: value.as_bytes().into(),
                    text: true,
                },
            },
        }
    }

    fn page(keys: &[&str], more: bool) -> Page {
        Page {
            rows: keys.iter().map(|key| row(key, key)).collect(),
            resume: keys
                .last()
                .filter(|_| more)
                .map(|key| key.as_bytes().into()),
        }
    }

    fn wanted(scan: &mut Scan) -> Vec<u16> {
        let mut shards: Vec<u16> = std::iter::from_fn(|| scan.next_wanted())
            .map(|(shard, _, _)| shard)
            .collect();
        shards.sort_unstable();
        shards
    }

    #[test]
    fn a_row_leaves_only_when_every_shard_has_spoken() {
        let mut scan = Scan::new(None, None, None, 2);
        let mut out = Vec::new();
        assert_eq!(wanted(&mut scan), [0, 1]);
        scan.add(1, page(&["b", "d"], true));
        assert_eq!(scan.write(&mut out, 999), Progress::Blocked);
        assert!(out.is_empty());
        scan.add(0, page(&["a", "e"], false));
        assert_eq!(scan.write(&mut out, 999), Progress::Blocked);
        assert_eq!(out, br#"{"a":"a","b":"b","d":"d""#);
        let (shard, range, _) = scan.next_wanted().expect("shard 1 ran dry");
        assert_eq!((shard, range.after.as_deref()), (1, Some(&b"d"[..])));
        scan.add(1, page(&[], false));
        assert_eq!(scan.write(&mut out, 999), Progress::Done { cut: false });
        assert_eq!(out, b"{\"a\":\"a\",\"b\":\"b\",\"d\":\"d\",\"e\":\"e\"}\n");
    }

    #[test]
    fn empty_and_reversed_ranges_ask_nothing_in_vain() {
        let mut out = Vec::new();
        let mut scan = Scan::new(Some(b"b"[..].into()), Some(b"a"[..].into()), None, 3);
        assert_eq!(wanted(&mut scan), [0; 0]);
        assert_eq!(scan.write(&mut out, 999), Progress::Done { cut: false });
        assert_eq!(out, b"{}\n");
    }

    #[test]
    fn a_limit_cuts_and_knows_whether_more_follows() {
        for (rows_max, want, cut) in [
            (1, "{\"a\":\"a\"}\n", true),
            (2, "{\"a\":\"a\",\"b\":\"b\"}\n", false),
        ] {
            let mut scan = Scan::new(None, None, Some(rows_max), 1);
            let mut out = Vec::new();
            assert_eq!(wanted(&mut scan), [0]);
            scan.add(0, page(&["a", "b"], false));
            assert_eq!(scan.write(&mut out, 999), Progress::Done { cut });
            assert_eq!(String::from_utf8(out).expect("JSON"), want);
        }
    }

    /// Random maps over random shards, random pages, random arrival: always the map itself, in order.
    #[test]
    fn merges_to_the_model_in_any_order_of_arrival() {
        for seed in 0..500 {
            let mut rng = fastrand::Rng::with_seed(seed);
            let shards = rng.u16(1..6);
            let mut model = BTreeMap::new();
            let mut data: Vec<Vec<Row>> = (0..shards).map(|_| Vec::new()).collect();
            for _ in 0..rng.usize(0..60) {
                model.insert(format!("k{:03}", rng.u16(0..200)), rng.u16(..).to_string());
            }
            for (key, value) in &model {
                data[rng.usize(0..usize::from(shards))].push(row(key, value));
            }
            let mut scan = Scan::new(None, None, None, shards);
            let mut in_flight = Vec::new();
            let mut out = Vec::new();
            loop {
                in_flight.extend(std::iter::from_fn(|| scan.next_wanted()));
                match scan.write(&mut out, rng.usize(1..400)) {
                    Progress::Done { .. } => break,
                    Progress::Full => continue,
                    Progress::Blocked => {
                        in_flight.extend(std::iter::from_fn(|| scan.next_wanted()))
                    }
                }
                assert!(!in_flight.is_empty(), "seed {seed}: blocked for ever");
                let (shard, _, rows_max) = in_flight.swap_remove(rng.usize(0..in_flight.len()));
                let left = &mut data[usize::from(shard)];
                let rows: Vec<Row> = left
                    .drain(..rng.usize(0..=rows_max.min(left.len())))
                    .collect();
                let resume = (!left.is_empty()).then(|| Box::from(&b"resume"[..]));
                scan.add(shard, Page { rows, resume });
            }
            let got: BTreeMap<String, String> = serde_json::from_slice(&out).expect("valid JSON");
            assert_eq!(got, model, "seed {seed}");
            let keys: Vec<_> = model.keys().map(|key| format!("{key:?}:")).collect();
            let text = String::from_utf8(out).expect("JSON");
            let places: Vec<_> = keys.iter().map(|key| text.find(key.as_str())).collect();
            assert!(places.is_sorted(), "seed {seed}: {text}");
        }
    }
}
