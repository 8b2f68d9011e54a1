//! Pure. One range scan: asks streams for pages, merges them, and spells the answer as JSON.
//!
//! ```text
//!  this node, shard 0: page ▶ page ▶ ..  ─┐
//!  this node, shard 1: page ▶ page ▶ ..  ─┼─ Merge: smallest key, greatest version ─▶ {"a":"1","b":"2"} + newline
//!  peer n2, shard 0:   page ▶ end        ─┘
//! ```
//!
//! Alone, a node has one stream per shard. In a cluster each slice of the ring is read by R replicas, so a node's
//! streams cover the slices it was chosen for, tombstones included, and the merge decides.
//!
//! Memory: two pages per stream at most plus the caller's buffer. Not a snapshot of one moment: each row was current at
//! some moment of the scan, and a key present throughout is never missed.

use super::json;
use crate::base::limits::SCAN_PAGE_ROWS;
use crate::base::member::NodeId;
use crate::base::record::{Row, State};
use crate::base::rows::Rows;
use crate::base::slices::Slices;
use crate::cluster::merge::{Disorder, Merge, Next};
use crate::store::ScanRange;

/// Which data one stream of pages shows.
#[derive(Clone, Debug)]
pub(crate) struct Stream {
    /// `None`: this node.
    pub node: Option<NodeId>,
    pub shard: u16,
    /// `None`: all that is there.
    pub slices: Option<Box<Slices>>,
}

/// Whose pages are merged.
pub(crate) struct Sources {
    pub streams: Vec<Stream>,
    /// Streams that show each key (R): 1 alone, and then nobody needs to see tombstones.
    pub copies: u16,
}

/// The merge of one scan.
pub(crate) struct Scan {
    from: Option<Box<[u8]>>,
    to: Option<Box<[u8]>>,
    sources: Sources,
    merge: Merge,
    rows_left: u64,
    opened: bool,
    /// Kept where the answer may be cut.
    last_key: Vec<u8>,
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

impl Sources {
    /// Every shard of a node that is alone.
    pub(crate) fn alone(shards: u16) -> Sources {
        let stream = |shard| Stream {
            node: None,
            shard,
            slices: None,
        };
        Sources {
            streams: (0..shards).map(stream).collect(),
            copies: 1,
        }
    }
}

impl Scan {
    /// Both ends inclusive, `None` open. `rows_max`: end after so many rows.
    pub(crate) fn new(
        from: Option<Box<[u8]>>,
        to: Option<Box<[u8]>>,
        rows_max: Option<u64>,
        mut sources: Sources,
    ) -> Scan {
        let rows_left = rows_max.unwrap_or(u64::MAX);
        if matches!((&from, &to), (Some(from), Some(to)) if from > to) {
            sources.streams.clear();
        }
        Scan {
            from,
            to,
            merge: Merge::new(sources.streams.len()),
            sources,
            rows_left,
            opened: false,
            last_key: Vec::new(),
        }
    }

    /// Takes one page request: of which stream, which part of the range, how many rows at most.
    pub(crate) fn next_wanted(&mut self) -> Option<(usize, ScanRange, usize)> {
        let (at, after) = self.merge.wanted()?;
        let range = ScanRange {
            from: self.from.clone(),
            after,
            to: self.to.clone(),
            dead: self.sources.copies > 1,
            slices: self.sources.streams[at].slices.clone(),
            apart: false,
        };
        Some((at, range, self.page_rows()))
    }

    /// The stream of a shard of this node.
    pub(crate) fn own_stream(&self, shard: u16) -> Option<usize> {
        let mut streams = self.sources.streams.iter();
        streams.position(|stream| stream.node.is_none() && stream.shard == shard)
    }

    pub(crate) fn stream(&self, at: usize) -> Option<&Stream> {
        self.sources.streams.get(at)
    }

    /// With a limit, a row of the answer is in one of S streams with the chance R / S; three standard deviations
    /// more than its share make a second page rare, and a short scan over many shards does not read 256 rows from
    /// each. One row more tells whether any follows the last.
    fn page_rows(&self) -> usize {
        let streams = self.sources.streams.len() as f64;
        let chance = (f64::from(self.sources.copies) / streams).min(1.0);
        let share = self.rows_left as f64 * chance;
        let guess = share + 3.0 * (share * (1.0 - chance)).sqrt() + 1.0;
        (guess.ceil() as usize).clamp(1, SCAN_PAGE_ROWS)
    }

    /// Adds a page that was wanted. `Err`: it is none, and its stream cannot be trusted.
    pub(crate) fn add(
        &mut self,
        at: usize,
        rows: Rows,
        resume: Option<Box<[u8]>>,
    ) -> Result<(), Disorder> {
        let within = |row: Row<'_>| {
            self.from.as_ref().is_none_or(|from| *row.key >= **from)
                && self.to.as_ref().is_none_or(|to| *row.key <= **to)
        };
        // The merge sees to the order, so the ends speak for the rest.
        if !rows.get(0).is_none_or(within) || !rows.last().is_none_or(within) {
            return Err(Disorder);
        }
        self.merge.add(at, rows, resume)
    }

    /// Appends as much of the answer as is known, until `out` has `bytes_max`.
    pub(crate) fn write(&mut self, out: &mut Vec<u8>, bytes_max: usize) -> Progress {
        loop {
            if self.rows_left == 0 {
                let cut = !self.merge.is_exhausted();
                return self.end(out, cut);
            }
            let row = match self.merge.next() {
                Next::Row(row, _) => row,
                Next::Blocked => return Progress::Blocked,
                Next::Done => return self.end(out, false),
            };
            out.push(if self.opened { b',' } else { b'{' });
            self.opened = true;
            self.rows_left -= 1;
            put_row(out, row);
            let full = out.len() >= bytes_max;
            if full || self.rows_left == 0 {
                self.last_key.clear();
                self.last_key.extend_from_slice(row.key);
            }
            if full {
                return Progress::Full;
            }
        }
    }

    fn end(&mut self, out: &mut Vec<u8>, cut: bool) -> Progress {
        out.extend_from_slice(if self.opened { b"}\n" } else { b"{}\n" });
        Progress::Done { cut }
    }

    /// Ends the answer with the rows written so far, as a limit would.
    pub(crate) fn cut(&mut self) {
        self.rows_left = 0;
    }

    /// Memory of pages that wait in the merge.
    pub(crate) fn held_bytes(&self) -> usize {
        self.merge.held_bytes()
    }

    /// Key of the last row written, once a limit or [`Progress::Full`] has stopped there.
    pub(crate) fn last_key(&self) -> &[u8] {
        &self.last_key
    }
}

fn put_row(out: &mut Vec<u8>, row: Row<'_>) {
    json::put_string(out, row.key);
    out.push(b':');
    match row.entry.state {
        State::Live { value, text: true } => json::put_text(out, value),
        State::Live { value, text: false } => json::put_string(out, value),
        // The merge gives out live rows only; a tombstone would be a bug of it, and null says so.
        State::Deleted => out.extend_from_slice(b"null"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::record::Entry;
    use crate::base::version::Version;

    fn row<'a>(key: &'a str, value: &'a str) -> Row<'a> {
        Row {
            key: key.as_bytes(),
            entry: Entry {
                version: Version::ZERO,
                state: State::Live {
                    value: value.as_bytes(),
                    text: true,
                },
            },
        }
    }

    fn add(scan: &mut Scan, at: usize, keys: &[&str], more: bool) {
        let rows = keys.iter().map(|key| row(key, key)).collect();
        let last = keys.last().filter(|_| more);
        let resume = last.map(|key| key.as_bytes().into());
        scan.add(at, rows, resume).expect("in order");
    }

    fn wanted(scan: &mut Scan) -> Vec<usize> {
        let mut shards: Vec<usize> = std::iter::from_fn(|| scan.next_wanted())
            .map(|(shard, _, _)| shard)
            .collect();
        shards.sort_unstable();
        shards
    }

    #[test]
    fn a_row_leaves_only_when_every_shard_has_spoken() {
        let mut scan = Scan::new(None, None, None, Sources::alone(2));
        let mut out = Vec::new();
        assert_eq!(wanted(&mut scan), [0, 1]);
        add(&mut scan, 1, &["b", "d"], true);
        assert_eq!(scan.write(&mut out, 999), Progress::Blocked);
        assert!(out.is_empty());
        add(&mut scan, 0, &["a", "e"], false);
        assert_eq!(scan.write(&mut out, 999), Progress::Blocked);
        assert_eq!(out, br#"{"a":"a","b":"b","d":"d""#);
        let (shard, range, _) = scan.next_wanted().expect("shard 1 ran dry");
        assert_eq!((shard, range.after.as_deref()), (1, Some(&b"d"[..])));
        add(&mut scan, 1, &[], false);
        assert_eq!(scan.write(&mut out, 999), Progress::Done { cut: false });
        assert_eq!(out, b"{\"a\":\"a\",\"b\":\"b\",\"d\":\"d\",\"e\":\"e\"}\n");
    }

    #[test]
    fn empty_and_reversed_ranges_ask_nothing_in_vain() {
        let mut out = Vec::new();
        let mut scan = Scan::new(
            Some(b"b"[..].into()),
            Some(b"a"[..].into()),
            None,
            Sources::alone(3),
        );
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
            let mut scan = Scan::new(None, None, Some(rows_max), Sources::alone(1));
            let mut out = Vec::new();
            assert_eq!(wanted(&mut scan), [0]);
            add(&mut scan, 0, &["a", "b"], false);
            assert_eq!(scan.write(&mut out, 999), Progress::Done { cut });
            assert_eq!(String::from_utf8(out).expect("JSON"), want);
        }
    }

    /// One row beyond what a limit needs tells whether any follows; more are for streams that may have more than
    /// their share.
    #[test]
    fn a_page_is_no_longer_than_the_limit_needs() {
        for (shards, limit, want) in [(1, Some(100), 101), (4, Some(100), 39), (1, None, 256)] {
            let mut scan = Scan::new(None, None, limit, Sources::alone(shards));
            let (_, _, rows_max) = scan.next_wanted().expect("all are wanted");
            assert_eq!(rows_max, want, "{shards} {limit:?}");
        }
    }

    #[test]
    fn rows_outside_the_range_are_disorder() {
        let (from, to) = (Some(b"b"[..].into()), Some(b"d"[..].into()));
        let mut scan = Scan::new(from, to, None, Sources::alone(1));
        assert_eq!(wanted(&mut scan), [0]);
        assert!(
            scan.add(0, [row("a", "1")].into_iter().collect(), None)
                .is_err()
        );
        assert!(
            scan.add(0, [row("e", "1")].into_iter().collect(), None)
                .is_err()
        );
        assert!(
            scan.add(
                0,
                [row("b", "1"), row("d", "1")].into_iter().collect(),
                None
            )
            .is_ok()
        );
    }
}
