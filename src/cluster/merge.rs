//! Pure. Merges the pages of all streams of one scan: smallest key first, per key the greatest version.
//!
//! ```text
//!  stream 0 (node a, shard 0): a3 c1 | upto c   ─┐     a: 3 wins over 2, and stream 1 is stale
//!  stream 1 (node b, shard 0): a2 b4 | upto k   ─┼─▶   b: waits for nobody: 0 and 2 have examined past it
//!  stream 2 (node a, shard 1):       | upto h   ─┘     c: leaves next; then stream 0 must say what follows c
//! ```
//!
//! A key may lie in any number of streams. A row leaves only when every stream that has not ended has examined
//! past its key, whether it showed a row there or not: only then is it known that no other stream holds a newer
//! version, perhaps a tombstone, and that no smaller key comes. A tombstone that wins hides its key and is
//! dropped here.
//!
//! Each stream has one place in the order: its first row, or else the key it has examined up to, just behind the
//! rows of that key. A tournament over the places keeps the smallest on top; a row there may leave, an
//! examined-up-to there means waiting. Rejected: `BinaryHeap`, in which the place of a waiting stream cannot be
//! moved when its page comes. One step costs log2(streams) comparisons of keys and moves no row: the one that
//! leaves is lent from its page, which stays until the next step.
//!
//! The next page of a stream is wanted when its last row enters the tournament, so the wait overlaps with the
//! rows of the others. Memory: two pages per stream, the second when the last row of the first is at hand.
//!
//! What it does not do: it knows neither the ends of the range nor limits, and says nothing of stale replicas
//! of keys that a tombstone hides.

use std::cmp::Ordering;

use crate::base::record::Row;
use crate::base::rows::Rows;

/// What comes next.
#[derive(Debug, PartialEq, Eq)]
pub enum Next<'a> {
    /// The live row of the smallest key left.
    Row(Row<'a>, StaleSet),
    /// A page must arrive first.
    Blocked,
    /// No row is left anywhere.
    Done,
}

/// Who did not agree on a row. A stream which should hold the key and showed nothing is in neither: the reader
/// of R replicas sees it by `agreed` below R.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct StaleSet {
    /// Streams which showed an older version.
    pub older: Vec<usize>,
    /// Number of streams which showed the row itself.
    pub agreed: usize,
}

/// A page that cannot be the answer to what was asked: not asked for, not in key order, not after the page
/// before, or examined less far than its rows. Its stream is to be given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Disorder;

/// The merge of one scan; owned by the core that answers it.
pub struct Merge {
    streams: Vec<Stream>,
    /// A complete binary tree: `tree[1]` is the stream on top, children of n are 2n and 2n + 1, and the last
    /// `width` nodes, one per stream, are not stored.
    tree: Vec<usize>,
    /// `streams` rounded up to a power of two.
    width: usize,
    /// Streams to ask for a page; the driver takes them.
    wanted: Vec<usize>,
    /// Streams which showed the winner of the key at hand; kept for its memory.
    agreed: Vec<usize>,
    /// Streams whose page is used up. The row given out last may lie in it, so it goes at the next step.
    spent: Vec<usize>,
    /// Memory of all pages held.
    held_bytes: usize,
}

#[derive(Default)]
struct Stream {
    page: Rows,
    /// The row of `page` at hand.
    at: usize,
    /// The page after it; empty until it has come.
    following: Rows,
    /// Last key examined, and where the next page starts (exclusive). `None` before the first page.
    upto: Option<Box<[u8]>>,
    phase: Phase,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Phase {
    /// Rows are left and no page is on its way.
    #[default]
    Fed,
    /// In the list of wanted.
    Wanted,
    /// A page is on its way.
    Asked,
    /// No page follows.
    Ended,
}

/// Where a stream stands. The order of the variants and fields is the order of the merge.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Place<'a> {
    /// Has not shown anything: everything waits for it.
    Unheard,
    /// At a key: with a row, or having examined up to it, which is behind all rows of that key.
    At(&'a [u8], What),
    /// Nothing follows.
    Ended,
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum What {
    Row,
    Examined,
}

/// A row on its way out: where it lies until the next step.
#[derive(Clone, Copy)]
struct Taken {
    stream: usize,
    /// Of the page at hand.
    row: usize,
}

impl Merge {
    /// Of streams 0 to `streams` - 1; all are wanted.
    #[must_use]
    pub fn new(streams: usize) -> Merge {
        let width = streams.next_power_of_two();
        let mut merge = Merge {
            streams: (0..streams).map(|_| Stream::default()).collect(),
            tree: vec![0; width],
            width,
            wanted: Vec::with_capacity(streams),
            agreed: Vec::new(),
            spent: Vec::new(),
            held_bytes: 0,
        };
        for stream in 0..streams {
            merge.want(stream);
        }
        for node in (1..width).rev() {
            merge.tree[node] = merge.smaller(node);
        }
        merge
    }

    /// Takes one page request: which stream, and after which key it is to go on.
    pub fn wanted(&mut self) -> Option<(usize, Option<Box<[u8]>>)> {
        let at = self.wanted.pop()?;
        let stream = &mut self.streams[at];
        stream.phase = Phase::Asked;
        Some((at, stream.upto.clone()))
    }

    /// Adds a page that was wanted. `resume`: the last key examined, `None` if the stream ends here.
    pub fn add(
        &mut self,
        at: usize,
        rows: Rows,
        resume: Option<Box<[u8]>>,
    ) -> Result<(), Disorder> {
        self.turn_spent();
        let stream = self.streams.get_mut(at).ok_or(Disorder)?;
        if stream.phase != Phase::Asked || !stream.fits(&rows, resume.as_deref()) {
            return Err(Disorder);
        }
        let moves = stream.left() == 0;
        self.held_bytes += rows.memory_bytes();
        stream.take_page(rows);
        match resume {
            Some(_) => {
                stream.upto = resume;
                stream.phase = Phase::Fed;
            }
            None => stream.phase = Phase::Ended,
        }
        if moves {
            self.replay(at);
        }
        self.want(at);
        Ok(())
    }

    /// The next live row, if it is known.
    #[expect(
        clippy::should_implement_trait,
        reason = "an iterator that ends may not go on, and this one waits for pages"
    )]
    pub fn next(&mut self) -> Next<'_> {
        loop {
            self.turn_spent();
            let Some(first) = self.top() else {
                return Next::Done;
            };
            match self.streams[first].place() {
                Place::At(_, What::Row) => {}
                Place::At(_, What::Examined) | Place::Unheard => return Next::Blocked,
                Place::Ended => return Next::Done,
            }
            let (winner, stale) = self.take_key(first);
            if self.row(winner).entry.value().is_some() {
                return Next::Row(self.row(winner), stale);
            }
        }
    }

    /// Memory of the pages that wait.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        self.held_bytes
    }

    /// No row is left in any stream, and no page follows. Rows that are left may all be dead ones.
    #[must_use]
    pub fn is_exhausted(&self) -> bool {
        self.streams.iter().all(|s| s.place() == Place::Ended)
    }

    /// Takes the rows of the smallest key out of all streams; `first` is on top with one. What is known of a
    /// key is complete when it is on top: a stream that has no row there stands behind it.
    fn take_key(&mut self, first: usize) -> (Taken, StaleSet) {
        let mut winner = self.take_row(first);
        let mut older = Vec::new();
        self.agreed.clear();
        self.agreed.push(first);
        // The keys of one stream ascend: once it is on top again, the key is done.
        while let Some(at) = self.top().filter(|at| *at != first)
            && let Some(row) = self.streams[at].front()
            && let held = self.row(winner)
            && row.key == held.key
        {
            let order = row.entry.order(&held.entry);
            let row = self.take_row(at);
            match order {
                Ordering::Less => older.push(at),
                Ordering::Equal => self.agreed.push(at),
                Ordering::Greater => {
                    winner = row;
                    older.append(&mut self.agreed);
                    self.agreed.push(at);
                }
            }
        }
        let agreed = self.agreed.len();
        (winner, StaleSet { older, agreed })
    }

    #[inline]
    fn take_row(&mut self, at: usize) -> Taken {
        let stream = &mut self.streams[at];
        let row = stream.at;
        stream.at += 1;
        if stream.at == stream.page.len() {
            self.spent.push(at);
        }
        self.replay(at);
        self.want(at);
        Taken { stream: at, row }
    }

    #[inline]
    fn row(&self, taken: Taken) -> Row<'_> {
        let row = self.streams[taken.stream].page.get(taken.row);
        row.expect("it was there, and its page stays until the next step")
    }

    /// Lets go of the pages that are used up.
    #[inline]
    fn turn_spent(&mut self) {
        while let Some(at) = self.spent.pop() {
            let stream = &mut self.streams[at];
            self.held_bytes -= stream.page.memory_bytes();
            stream.page = std::mem::take(&mut stream.following);
            stream.at = 0;
        }
    }

    /// Wants a page when no row is left behind the one in the tournament.
    #[inline]
    fn want(&mut self, at: usize) {
        let stream = &mut self.streams[at];
        if stream.left() <= 1 && stream.phase == Phase::Fed {
            stream.phase = Phase::Wanted;
            self.wanted.push(at);
        }
    }

    /// The stream with the smallest place.
    fn top(&self) -> Option<usize> {
        let at = self.winner(1);
        (at < self.streams.len()).then_some(at)
    }

    /// Plays the games of a stream again, after its place has changed.
    fn replay(&mut self, at: usize) {
        let mut node = (self.width + at) / 2;
        while node > 0 {
            self.tree[node] = self.smaller(node);
            node /= 2;
        }
    }

    /// Which stream came up to this node; one beyond the last where the tree is wider than the streams.
    fn winner(&self, node: usize) -> usize {
        if node < self.width {
            self.tree[node]
        } else {
            node - self.width
        }
    }

    /// The game of a node: of equal places the left goes on, which is the stream with the smaller number.
    fn smaller(&self, node: usize) -> usize {
        let (left, right) = (self.winner(2 * node), self.winner(2 * node + 1));
        match (self.streams.get(left), self.streams.get(right)) {
            (Some(mine), Some(theirs)) if theirs.place() < mine.place() => right,
            _ => left,
        }
    }
}

impl Stream {
    /// The row at hand.
    #[inline]
    fn front(&self) -> Option<Row<'_>> {
        self.page.get(self.at).or_else(|| self.following.get(0))
    }

    /// Rows that have not left.
    #[inline]
    fn left(&self) -> usize {
        self.page.len() - self.at + self.following.len()
    }

    /// A page that was wanted, so no more than one row of the page before is left.
    fn take_page(&mut self, rows: Rows) {
        if self.left() == 0 {
            (self.page, self.at) = (rows, 0);
        } else {
            assert!(self.following.is_empty(), "no page is asked for twice");
            self.following = rows;
        }
    }

    fn place(&self) -> Place<'_> {
        match (self.front(), &self.upto) {
            (Some(row), _) => Place::At(row.key, What::Row),
            (None, _) if self.phase == Phase::Ended => Place::Ended,
            (None, Some(upto)) => Place::At(upto, What::Examined),
            (None, None) => Place::Unheard,
        }
    }

    /// Whether a page can follow what is here. A page comes from another node: rows out of order would come
    /// out out of order, and a `resume` that stands still would be asked for without end.
    fn fits(&self, rows: &Rows, resume: Option<&[u8]>) -> bool {
        let mut last = self.upto.as_deref();
        for row in rows.iter() {
            if last.is_some_and(|last| row.key <= last) {
                return false;
            }
            last = Some(row.key);
        }
        match (resume, last) {
            (Some(resume), Some(last)) if rows.is_empty() => resume > last,
            (Some(resume), Some(last)) => resume >= last,
            _ => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::record::{OwnedEntry, OwnedRow, OwnedState};
    use crate::base::version::Version;
    use std::collections::BTreeMap;

    type Held = BTreeMap<Vec<u8>, OwnedEntry>;

    fn entry(hlc: u64, value: Option<&str>) -> OwnedEntry {
        OwnedEntry {
            version: Version { hlc, origin: 0 },
            state: match value {
                None => OwnedState::Deleted,
                Some(value) => OwnedState::Live {
                    value: value.as_bytes().into(),
                    text: true,
                },
            },
        }
    }

    /// `a3` is key a of version 3, `a3!` its tombstone.
    fn rows(text: &str) -> Rows {
        let mut rows = Rows::default();
        for word in text.split_whitespace() {
            let (key, rest) = word.split_at(1);
            let version = rest.trim_end_matches('!');
            let live = (version == rest).then_some(version);
            rows.push(Row {
                key: key.as_bytes(),
                entry: entry(version.parse().expect("a version"), live).as_entry(),
            });
        }
        rows
    }

    fn key(text: &str) -> Option<Box<[u8]>> {
        Some(text.as_bytes().into())
    }

    fn merge_of(streams: usize) -> Merge {
        let mut merge = Merge::new(streams);
        assert_eq!(wanted(&mut merge), (0..streams).collect::<Vec<_>>());
        merge
    }

    fn wanted(merge: &mut Merge) -> Vec<usize> {
        let mut streams: Vec<usize> = std::iter::from_fn(|| merge.wanted())
            .map(|(stream, _)| stream)
            .collect();
        streams.sort_unstable();
        streams
    }

    /// What comes until the merge stops: `a3` per row, with `<` and the streams that are older.
    fn all(merge: &mut Merge) -> String {
        let mut out = String::new();
        loop {
            match merge.next() {
                Next::Blocked => return out + "..",
                Next::Done => return out + "end",
                Next::Row(row, stale) => {
                    out += &String::from_utf8_lossy(row.key);
                    out += &row.entry.version.hlc.to_string();
                    for stream in stale.older {
                        out += &format!("<{stream}");
                    }
                    out += " ";
                }
            }
        }
    }

    #[test]
    fn a_row_leaves_only_when_every_stream_has_spoken() {
        let mut merge = merge_of(2);
        assert_eq!(merge.add(1, rows("b1 d1"), key("d")), Ok(()));
        assert_eq!(all(&mut merge), "..");
        assert_eq!(merge.add(0, rows("a1 e1"), None), Ok(()));
        assert_eq!(all(&mut merge), "a1 b1 d1 ..");
        assert_eq!(merge.wanted(), Some((1, key("d"))));
        assert_eq!(merge.wanted(), None);
        assert_eq!(merge.add(1, rows(""), None), Ok(()));
        assert!(!merge.is_exhausted());
        assert_eq!(all(&mut merge), "e1 end");
        assert!(merge.is_exhausted());
    }

    #[test]
    fn no_streams_are_the_end() {
        let mut merge = merge_of(0);
        assert_eq!(merge.next(), Next::Done);
        assert!(merge.is_exhausted());
    }

    /// The picture at the top of this file.
    #[test]
    fn an_empty_page_lets_pass_what_it_has_examined() {
        let mut merge = merge_of(3);
        assert_eq!(merge.add(0, rows("a3 c1"), key("c")), Ok(()));
        assert_eq!(merge.add(1, rows("a2 b4"), key("k")), Ok(()));
        assert_eq!(all(&mut merge), "..");
        assert_eq!(merge.add(2, rows(""), key("h")), Ok(()));
        assert_eq!(all(&mut merge), "a3<1 b4 c1 ..");
        assert_eq!(wanted(&mut merge), [0, 1, 2]);
        assert_eq!(merge.add(0, rows("i1"), None), Ok(()));
        assert_eq!(all(&mut merge), "..", "i is past h");
        assert_eq!(merge.add(2, rows(""), key("i")), Ok(()));
        assert_eq!(all(&mut merge), "i1 ..", "k of stream 1 is past i");
    }

    #[test]
    fn a_tombstone_hides_what_is_older_wherever_it_lies() {
        let mut merge = merge_of(3);
        assert_eq!(merge.add(0, rows("a1 b1 c2!"), None), Ok(()));
        assert_eq!(merge.add(1, rows("a2! b1! d1"), None), Ok(()));
        assert_eq!(all(&mut merge), "..");
        assert_eq!(merge.add(2, rows("b2 c3"), None), Ok(()));
        assert_eq!(all(&mut merge), "b2<0<1 c3<0 d1 end");
    }

    #[test]
    fn those_who_agree_are_counted() {
        let mut merge = merge_of(4);
        for (stream, page) in ["a1", "a2", "a1", "a2"].into_iter().enumerate() {
            assert_eq!(merge.add(stream, rows(page), None), Ok(()));
        }
        let Next::Row(row, stale) = merge.next() else {
            panic!("a row is known");
        };
        assert_eq!(row.entry.version.hlc, 2);
        assert_eq!(stale.agreed, 2);
        assert_eq!(stale.older, [0, 2]);
    }

    /// The page is asked for while the last row of the one before still waits, and not twice.
    #[test]
    fn a_page_is_wanted_when_the_last_row_enters_the_merge() {
        let mut merge = merge_of(2);
        assert_eq!(merge.add(0, rows("a1 b1 c1"), key("c")), Ok(()));
        assert_eq!(merge.add(1, rows("d1 e1"), key("e")), Ok(()));
        assert_eq!(wanted(&mut merge), [0; 0]);
        assert!(matches!(merge.next(), Next::Row(..)));
        assert_eq!(wanted(&mut merge), [0; 0]);
        assert!(matches!(merge.next(), Next::Row(..)));
        assert_eq!(merge.wanted(), Some((0, key("c"))));
        assert!(matches!(merge.next(), Next::Row(..)));
        assert_eq!(wanted(&mut merge), [0; 0]);
        assert_eq!(merge.next(), Next::Blocked);
    }

    #[test]
    fn a_page_that_answers_nothing_asked_is_refused() {
        let mut merge = Merge::new(1);
        assert_eq!(merge.add(0, rows("a1"), None), Err(Disorder), "not taken");
        assert_eq!(wanted(&mut merge), [0]);
        assert_eq!(merge.add(1, rows(""), None), Err(Disorder), "no stream 1");
        assert_eq!(merge.add(0, rows("b1 a1"), None), Err(Disorder));
        assert_eq!(merge.add(0, rows("a1 a2"), None), Err(Disorder));
        assert_eq!(merge.add(0, rows("a1 c1"), key("b")), Err(Disorder));
        assert_eq!(merge.add(0, rows("a1"), key("b")), Ok(()));
        assert_eq!(wanted(&mut merge), [0]);
        assert_eq!(merge.add(0, rows("b1"), None), Err(Disorder), "shown");
        assert_eq!(merge.add(0, rows(""), key("b")), Err(Disorder), "no step");
        assert_eq!(merge.add(0, rows(""), key("c")), Ok(()));
        assert_eq!(wanted(&mut merge), [0]);
        assert_eq!(merge.add(0, rows(""), None), Ok(()));
        assert_eq!(merge.add(0, rows(""), None), Err(Disorder), "has ended");
        assert_eq!(all(&mut merge), "a1 end");
    }

    /// Streams with random versions of random keys, live and dead, some stale, some without the key.
    fn random_streams(rng: &mut fastrand::Rng) -> Vec<Held> {
        let mut streams: Vec<Held> = (0..rng.usize(1..9)).map(|_| Held::new()).collect();
        for _ in 0..rng.usize(0..60) {
            let key = format!("k{:03}", rng.u16(0..200)).into_bytes();
            // What version 3 of a key says is the same in every stream, now and then not even then.
            let newest = rng.u64(1..5);
            for held in &mut streams {
                if rng.u8(0..3) == 0 {
                    continue;
                }
                let hlc = rng.u64(1..=newest);
                let value = format!("{hlc}{}", rng.u8(0..20) / 19);
                let dead = (hlc + u64::from(key[3])).is_multiple_of(3);
                held.insert(key.clone(), entry(hlc, (!dead).then_some(&value)));
            }
        }
        streams
    }

    /// The next page of a stream: some rows, perhaps none, and examined up to somewhere before the next row.
    fn random_page(
        rng: &mut fastrand::Rng,
        held: &Held,
        after: Option<&[u8]>,
    ) -> (Rows, Option<Box<[u8]>>) {
        let left: Vec<(&Vec<u8>, &OwnedEntry)> = held
            .iter()
            .filter(|(key, _)| after.is_none_or(|after| key.as_slice() > after))
            .collect();
        let (now, later) = left.split_at(rng.usize(0..=left.len().min(6)));
        let rows = now
            .iter()
            .map(|(key, entry)| Row {
                key: key.as_slice(),
                entry: entry.as_entry(),
            })
            .collect();
        if later.is_empty() && rng.bool() {
            return (rows, None);
        }
        // Behind the last row there may be keys which the store has examined and left out.
        let mut upto = now.last().map(|(key, _)| key.to_vec());
        if upto.is_none() || rng.bool() {
            let base = upto.or(after.map(<[u8]>::to_vec)).unwrap_or_default();
            upto = Some([&base[..], &[0]].concat());
        }
        (rows, upto.map(Vec::into_boxed_slice))
    }

    /// Per key the greatest of all streams, those which are older and how many agree.
    fn model(streams: &[Held]) -> Vec<(OwnedRow, StaleSet)> {
        let mut keys: Vec<&Vec<u8>> = streams.iter().flat_map(Held::keys).collect();
        keys.sort_unstable();
        keys.dedup();
        keys.into_iter()
            .map(|key| {
                let held = || {
                    let all = streams.iter().enumerate();
                    all.filter_map(|(at, held)| Some((at, held.get(key)?)))
                };
                let (_, best) = held()
                    .max_by(|(_, a), (_, b)| a.as_entry().order(&b.as_entry()))
                    .expect("some stream has it");
                let older: Vec<usize> = held()
                    .filter(|(_, entry)| *entry != best)
                    .map(|(at, _)| at)
                    .collect();
                let agreed = held().count() - older.len();
                let row = OwnedRow {
                    key: key.as_slice().into(),
                    entry: best.clone(),
                };
                (row, StaleSet { older, agreed })
            })
            .filter(|(row, _)| row.entry.as_entry().value().is_some())
            .collect()
    }

    /// Random streams, random pages, random order of arrival: always the model, and no row before every stream
    /// has been heard about its key.
    #[test]
    fn merges_to_the_model_in_any_order_of_arrival() {
        for seed in 0..2000 {
            let mut rng = fastrand::Rng::with_seed(seed);
            let streams = random_streams(&mut rng);
            let mut merge = Merge::new(streams.len());
            let mut in_flight = Vec::new();
            let mut heard: Vec<Option<Vec<u8>>> = vec![None; streams.len()];
            let mut ended = vec![false; streams.len()];
            let mut got = Vec::new();
            loop {
                in_flight.extend(std::iter::from_fn(|| merge.wanted()));
                if rng.bool() || in_flight.is_empty() {
                    match merge.next() {
                        Next::Done => break,
                        Next::Blocked => {
                            in_flight.extend(std::iter::from_fn(|| merge.wanted()));
                            assert!(!in_flight.is_empty(), "seed {seed}: for ever");
                        }
                        Next::Row(row, mut stale) => {
                            let known =
                                |at: usize| ended[at] || heard[at].as_deref() >= Some(row.key);
                            assert!(
                                (0..streams.len()).all(known),
                                "seed {seed}: {row:?} too early"
                            );
                            stale.older.sort_unstable();
                            let row = OwnedRow {
                                key: row.key.into(),
                                entry: row.entry.to_owned(),
                            };
                            got.push((row, stale));
                        }
                    }
                    continue;
                }
                let (at, after) = in_flight.swap_remove(rng.usize(0..in_flight.len()));
                assert_eq!(after.as_deref(), heard[at].as_deref(), "seed {seed}");
                let (rows, resume) = random_page(&mut rng, &streams[at], after.as_deref());
                ended[at] = resume.is_none();
                heard[at] = resume.as_deref().map(<[u8]>::to_vec);
                assert_eq!(merge.add(at, rows, resume), Ok(()), "seed {seed}");
            }
            assert!(merge.is_exhausted());
            assert_eq!(merge.held_bytes(), 0, "seed {seed}");
            assert_eq!(got, model(&streams), "seed {seed}");
        }
    }
}
