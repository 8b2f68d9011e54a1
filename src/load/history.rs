//! Pure. What many clients did to the keys of a cluster, and whether one register per key explains it.
//!
//! ```text
//! per key:  absent ── put#1 v3 ── delete v5 ── put#7 v9        what the key may be: one state per write
//!              ≤         ≤           ≤                          known versions order states
//!           put#1 acked before read#9 began, which saw v9       v3 ≤ v9: a read meets what was there before it
//! ```
//!
//! Every promise is an edge "the version of A is at most that of B" between two states; the history is explained
//! if the edges have no cycle. So a write whose version nobody was told (a batch, a broken connection) takes part
//! like any other, and a violation is a cycle that can be read out loud. The promises:
//!
//! - A read shows absence or a write to its key: with exactly that value, begun before the read ended, not refused,
//!   and always under the same version. No two writes of a key share a version.
//! - A read of R replicas meets a write acknowledged by W of them, if R + W > N; and so it meets what an earlier
//!   read has seen, for that is on one replica at least, or on N - R + 1 if a `get` of a majority has seen it.
//! - With one copy ([`Rules::ordered`]) a write is newer than all that were acknowledged before it began.
//! - After everything is healed each replica alone holds all that was acknowledged, all that was ever seen, and the
//!   same as the others. A deletion is a version, so what was deleted stays so unless somebody writes again.
//!
//! An absence that names no version may be any deletion: it is held to what all of them have in common.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;

use crate::base::time::Instant;
use crate::base::version::Version;

/// One operation on one key, as its client saw it. A batch is one per key, and so is a scan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    pub client: u16,
    pub key: u16,
    /// Replicas it asked for.
    pub quorum: u16,
    pub invoke: Instant,
    /// When the answer was there. Without meaning for a write of unknown outcome: that never ends.
    pub complete: Instant,
    pub act: Act,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Act {
    Write {
        /// Unique; `None`: a delete.
        value: Option<u64>,
        outcome: Outcome,
    },
    Read {
        how: How,
        /// What the client demanded to see at least.
        after: Version,
        seen: Seen,
    },
}

/// How a write ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// As many replicas as it asked for have it. Under the version, if the answer told it.
    Acked(Option<Version>),
    /// Nobody has it, or ever will.
    NotApplied,
    Unknown,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    Get,
    /// Repairs nothing before it answers, and tells no versions.
    Scan,
    /// One replica alone, when everything that was kept for it must have reached it.
    Healed,
    /// One replica alone, when all of them have been compared.
    Last,
}

/// What a read has seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    pub value: Option<u64>,
    /// As far as it was told: that of the value, or of the deletion.
    pub version: Option<Version>,
}

/// What was promised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// Replicas of each key (N).
    pub copies: u16,
    /// Writes of one key pass through one clock, so that later ones have greater versions.
    pub ordered: bool,
    /// A `get` that finds a deletion tells its version.
    pub deletions_told: bool,
}

/// What no register can have answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unexplained {
    pub key: u16,
    /// Which operations contradict each other, and why.
    pub text: String,
}

/// Whether one register per key explains all of it.
pub fn check(history: &[Record], rules: &Rules) -> Result<(), Unexplained> {
    let keys: BTreeSet<u16> = history.iter().map(|record| record.key).collect();
    for key in keys {
        let of_key = |record: &&Record| record.key == key;
        let records: Vec<&Record> = history.iter().filter(of_key).collect();
        let mut register = Register::new(records, *rules);
        register.check().map_err(|text| Unexplained { key, text })?;
    }
    Ok(())
}

/// One key.
struct Register<'h> {
    records: Vec<&'h Record>,
    rules: Rules,
    /// The first is absence.
    states: Vec<State>,
    by_value: BTreeMap<u64, usize>,
    /// Why the version of one state is at most that of another.
    edges: BTreeMap<(usize, usize), Why>,
}

/// Something the key may be.
#[derive(Clone, Copy, Debug)]
struct State {
    /// The record of the write; `None`: absence, or a deletion that was seen and belongs to some open delete.
    write: Option<usize>,
    version: Option<Version>,
    deleted: bool,
}

#[derive(Clone, Copy, Debug)]
enum Why {
    Versions,
    /// The later record began after the earlier one had ended.
    Began {
        earlier: usize,
        later: usize,
    },
    /// The read demanded it.
    Demanded {
        later: usize,
    },
}

const ABSENT: usize = 0;

/// What a read tells of the state it has seen.
#[derive(Clone, Copy, Debug, Default)]
struct Sight {
    /// At most this state.
    most: Option<usize>,
    /// This state and no other.
    exact: Option<usize>,
}

impl<'h> Register<'h> {
    fn new(records: Vec<&'h Record>, rules: Rules) -> Register<'h> {
        let absent = State {
            write: None,
            version: Some(Version::ZERO),
            deleted: true,
        };
        Register {
            records,
            rules,
            states: vec![absent],
            by_value: BTreeMap::new(),
            edges: BTreeMap::new(),
        }
    }

    fn check(&mut self) -> Result<(), String> {
        self.learn_writes();
        self.learn_values()?;
        self.learn_deletions()?;
        self.order_versions()?;
        self.order_writes();
        self.order_reads();
        if let Some(cycle) = self.cycle() {
            return Err(self.tell(&cycle));
        }
        self.compare_last()
    }

    fn learn_writes(&mut self) {
        for (at, record) in self.records.iter().enumerate() {
            let Act::Write { value, outcome } = record.act else {
                continue;
            };
            if let Some(value) = value {
                self.by_value.insert(value, self.states.len());
            }
            self.states.push(State {
                write: Some(at),
                version: match outcome {
                    Outcome::Acked(version) => version,
                    Outcome::NotApplied | Outcome::Unknown => None,
                },
                deleted: value.is_none(),
            });
        }
    }

    fn reads(&self) -> Vec<(usize, &'h Record, Seen)> {
        let numbered = self.records.iter().enumerate();
        let reads = numbered.filter_map(|(at, record)| match &record.act {
            Act::Read { seen, .. } => Some((at, *record, *seen)),
            Act::Write { .. } => None,
        });
        reads.collect()
    }

    /// Every value that was read belongs to a write that may have happened by then, and tells its version.
    fn learn_values(&mut self) -> Result<(), String> {
        for (_, record, seen) in self.reads() {
            let Some(value) = seen.value else { continue };
            let Some(&state) = self.by_value.get(&value) else {
                return Err(format!("{record}, which nobody has written to this key"));
            };
            self.may_have_happened(state, record)?;
            match (self.states[state].version, seen.version) {
                (None, told) => self.states[state].version = told,
                (Some(known), Some(told)) if known != told => {
                    return Err(format!("{record}, which was written as {known}"));
                }
                (Some(_), _) => {}
            }
        }
        Ok(())
    }

    fn may_have_happened(&self, state: usize, read: &Record) -> Result<(), String> {
        let Some(write) = self.states[state].write.map(|at| self.records[at]) else {
            return Ok(());
        };
        if self.is_refused(state) {
            return Err(format!("{read}, which was refused: {write}"));
        }
        if write.invoke >= read.complete {
            return Err(format!("{read} before it was written: {write}"));
        }
        Ok(())
    }

    fn is_refused(&self, state: usize) -> bool {
        let write = self.states[state].write.map(|at| &self.records[at].act);
        matches!(
            write,
            Some(Act::Write {
                outcome: Outcome::NotApplied,
                ..
            })
        )
    }

    /// Every deletion that was read by its version is an acknowledged one, or there is an open one for it.
    fn learn_deletions(&mut self) -> Result<(), String> {
        let mut strange: BTreeMap<Version, &Record> = BTreeMap::new();
        for (_, record, seen) in self.reads() {
            let (None, Some(version)) = (seen.value, seen.version) else {
                continue;
            };
            match self.state_of(version) {
                Some(state) if self.states[state].deleted => {
                    self.may_have_happened(state, record)?;
                }
                Some(_) => return Err(format!("{record}, which is the version of a value")),
                None => {
                    let first = strange.entry(version).or_insert(record);
                    if record.complete < first.complete {
                        *first = record;
                    }
                }
            }
        }
        let mut open: Vec<Instant> = self.open_deletes().map(|write| write.invoke).collect();
        open.sort_unstable();
        let mut seen: Vec<(Version, &Record)> = strange.into_iter().collect();
        seen.sort_by_key(|(_, first)| first.complete);
        for (nth, (version, first)) in seen.into_iter().enumerate() {
            if open.get(nth).is_none_or(|invoke| *invoke >= first.complete) {
                return Err(format!("{first}, which no delete can have left"));
            }
            self.states.push(State {
                write: None,
                version: Some(version),
                deleted: true,
            });
        }
        Ok(())
    }

    fn state_of(&self, version: Version) -> Option<usize> {
        let mut states = self.states.iter();
        states.position(|state| state.version == Some(version))
    }

    /// Deletes whose version nobody was told.
    fn open_deletes(&self) -> impl Iterator<Item = &'h Record> {
        self.records.iter().copied().filter(|record| {
            matches!(
                record.act,
                Act::Write {
                    value: None,
                    outcome: Outcome::Unknown | Outcome::Acked(None)
                }
            )
        })
    }

    fn order_versions(&mut self) -> Result<(), String> {
        let mut known: Vec<(Version, usize)> = (0..)
            .zip(&self.states)
            .filter_map(|(at, state)| Some((state.version?, at)))
            .collect();
        known.sort_unstable();
        for pair in known.windows(2) {
            let ((older, a), (newer, b)) = (pair[0], pair[1]);
            if older == newer {
                let (a, b) = (self.name(a), self.name(b));
                return Err(format!("one version for two writes: {a} and {b}"));
            }
            self.edge(a, b, Why::Versions);
        }
        for state in 1..self.states.len() {
            self.edge(ABSENT, state, Why::Versions);
        }
        Ok(())
    }

    fn order_writes(&mut self) {
        if !self.rules.ordered {
            return;
        }
        let writes: Vec<(usize, usize)> = (0..)
            .zip(&self.states)
            .filter_map(|(state, of)| Some((state, of.write?)))
            .collect();
        for &(a, earlier) in &writes {
            for &(b, later) in &writes {
                let over = self.is_acked(earlier) && !self.is_refused(b);
                if over && self.records[earlier].complete < self.records[later].invoke {
                    self.edge(a, b, Why::Began { earlier, later });
                }
            }
        }
    }

    fn is_acked(&self, write: usize) -> bool {
        let act = &self.records[write].act;
        matches!(act, Act::Write { outcome, .. } if matches!(outcome, Outcome::Acked(_)))
    }

    fn order_reads(&mut self) {
        let mut earlier: Vec<(usize, usize)> = (0..)
            .zip(&self.states)
            .filter_map(|(state, of)| Some((of.write?, state)))
            .filter(|(write, _)| self.is_acked(*write))
            .collect();
        let sights: Vec<(usize, &Record, Sight)> = self
            .reads()
            .into_iter()
            .map(|(at, record, seen)| (at, record, self.sight(record, seen)))
            .collect();
        let exact = |(at, _, sight): &(usize, &Record, Sight)| Some((*at, sight.exact?));
        earlier.extend(sights.iter().filter_map(exact));
        for (later, read, sight) in sights {
            let Some(most) = sight.most else { continue };
            for &(earlier, state) in &earlier {
                let before = self.records[earlier].complete < read.invoke;
                if before && self.meets(self.records[earlier], read) {
                    self.edge(state, most, Why::Began { earlier, later });
                }
            }
            if let Act::Read { after, .. } = read.act
                && let Some(demanded) = self.state_of(after)
            {
                self.edge(demanded, most, Why::Demanded { later });
            }
        }
    }

    fn sight(&self, read: &Record, seen: Seen) -> Sight {
        let known = |state: Option<usize>| Sight {
            most: state,
            exact: state,
        };
        if let Some(value) = seen.value {
            return known(self.by_value.get(&value).copied());
        }
        if let Some(version) = seen.version {
            return known(self.state_of(version));
        }
        let told = !matches!(read.act, Act::Read { how: How::Scan, .. });
        if told && self.rules.deletions_told {
            return known(Some(ABSENT));
        }
        let may_be_it = |write: &Record| write.invoke < read.complete;
        if self.open_deletes().any(may_be_it) {
            return Sight::default();
        }
        let deletions = (1..self.states.len()).filter(|&state| {
            let write = self.states[state].write.map(|at| self.records[at]);
            let begun = write.is_some_and(may_be_it);
            begun && self.states[state].deleted && !self.is_refused(state)
        });
        let newest = deletions.max_by_key(|&state| self.states[state].version);
        Sight {
            most: Some(newest.unwrap_or(ABSENT)),
            exact: newest.is_none().then_some(ABSENT),
        }
    }

    /// Whether the later read must have met what the earlier operation wrote or saw.
    fn meets(&self, earlier: &Record, later: &Record) -> bool {
        let copies = self.rules.copies;
        let is_write = matches!(earlier.act, Act::Write { .. });
        let held_by = match earlier.act {
            Act::Write { .. } => earlier.quorum,
            // A get of a majority answers with what it has put on so many replicas.
            Act::Read { how: How::Get, .. } if 2 * earlier.quorum > copies => {
                copies + 1 - earlier.quorum
            }
            Act::Read { .. } => 1,
        };
        match later.act {
            Act::Read {
                how: How::Healed, ..
            } => is_write,
            Act::Read { how: How::Last, .. } => true,
            Act::Read { .. } | Act::Write { .. } => held_by + later.quorum > copies,
        }
    }

    fn edge(&mut self, from: usize, to: usize, why: Why) {
        if from != to {
            self.edges.entry((from, to)).or_insert(why);
        }
    }

    /// The states of a shortest cycle.
    fn cycle(&self) -> Option<Vec<usize>> {
        let mut left: BTreeSet<(usize, usize)> = self.edges.keys().copied().collect();
        // A state that nothing precedes is in no cycle, nor is one that only such states precede.
        let mut before = vec![0_usize; self.states.len()];
        for edge in &left {
            before[edge.1] += 1;
        }
        let mut free: Vec<usize> = (0..before.len()).filter(|at| before[*at] == 0).collect();
        while let Some(state) = free.pop() {
            for &(_, next) in left.range((state, 0)..=(state, usize::MAX)) {
                before[next] -= 1;
                if before[next] == 0 {
                    free.push(next);
                }
            }
        }
        left.retain(|edge| before[edge.0] > 0);
        let cycles = left.iter().filter_map(|edge| path(&left, edge.1, edge.0));
        cycles.min_by_key(Vec::len)
    }

    /// All replicas tell the same in the end.
    fn compare_last(&self) -> Result<(), String> {
        let last = |record: &Record| matches!(record.act, Act::Read { how: How::Last, .. });
        let mut reads = self
            .reads()
            .into_iter()
            .filter(|(_, record, _)| last(record));
        let Some((_, first, seen)) = reads.next() else {
            return Ok(());
        };
        match reads.find(|(_, _, other)| *other != seen) {
            None => Ok(()),
            Some((_, other, _)) => Err(format!("replicas differ for good: {first}; {other}")),
        }
    }

    fn name(&self, state: usize) -> String {
        let of = self.states[state];
        match (of.write, of.version) {
            (Some(at), _) => self.records[at].to_string(),
            (None, Some(version)) if version > Version::ZERO => format!("a delete as {version}"),
            (None, _) => "absence".to_owned(),
        }
    }

    fn tell(&self, cycle: &[usize]) -> String {
        let mut text = "no order explains this:".to_owned();
        for (at, &a) in cycle.iter().enumerate() {
            let b = cycle[(at + 1) % cycle.len()];
            let why = match self.edges.get(&(a, b)) {
                Some(Why::Began { earlier, later }) => {
                    let (earlier, later) = (self.records[*earlier], self.records[*later]);
                    format!("[{earlier}] was over when [{later}] began")
                }
                Some(Why::Demanded { later }) => {
                    format!("[{}] demanded it", self.records[*later])
                }
                Some(Why::Versions) | None => "by their versions".to_owned(),
            };
            let (a, b) = (self.name(a), self.name(b));
            text.push_str(&format!("\n    [{a}] is not newer than [{b}]: {why}"));
        }
        text
    }
}

/// The states on a shortest way, both ends included.
fn path(edges: &BTreeSet<(usize, usize)>, from: usize, to: usize) -> Option<Vec<usize>> {
    let mut came_from = BTreeMap::from([(from, from)]);
    let mut waiting = VecDeque::from([from]);
    while let Some(at) = waiting.pop_front() {
        if at == to {
            let mut way = vec![to];
            while let Some(&state) = way.last()
                && state != from
            {
                way.push(came_from[&state]);
            }
            way.reverse();
            return Some(way);
        }
        for &(_, next) in edges.range((at, 0)..=(at, usize::MAX)) {
            if let std::collections::btree_map::Entry::Vacant(entry) = came_from.entry(next) {
                entry.insert(at);
                waiting.push_back(next);
            }
        }
    }
    None
}

impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (start, end) = (self.invoke.0 / 1_000, self.complete.0 / 1_000);
        write!(f, "client {} {start}..{end} us ", self.client)?;
        let quorum = self.quorum;
        match &self.act {
            Act::Write { value, outcome } => {
                match value {
                    Some(value) => write!(f, "put k{} #{value} w={quorum}", self.key)?,
                    None => write!(f, "delete k{} w={quorum}", self.key)?,
                }
                match outcome {
                    Outcome::Acked(Some(version)) => write!(f, " ok {version}"),
                    Outcome::Acked(None) => write!(f, " ok"),
                    Outcome::NotApplied => write!(f, " not applied"),
                    Outcome::Unknown => write!(f, " unknown"),
                }
            }
            Act::Read { how, after, seen } => {
                write!(f, "{how:?} k{} r={quorum}", self.key)?;
                if *after > Version::ZERO {
                    write!(f, " after {after}")?;
                }
                match seen.value {
                    Some(value) => write!(f, " saw #{value}")?,
                    None => write!(f, " saw nothing")?,
                }
                match seen.version {
                    Some(version) => write!(f, " {version}"),
                    None => Ok(()),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const THREE: Rules = Rules {
        copies: 3,
        ordered: false,
        deletions_told: true,
    };
    const ALONE: Rules = Rules {
        copies: 1,
        ordered: true,
        deletions_told: false,
    };

    fn version(digits: &str) -> Version {
        Version {
            hlc: digits.parse().expect("a number"),
            origin: 1,
        }
    }

    /// `0-1 put #7 v5`, `0-1 put #7 no|open|ok`, `2-3 del v6`, `4-5 get #7 v5 >v4`, also scan, healed, last;
    /// `q1`: one replica instead of two.
    fn record(line: &str) -> Record {
        let words: Vec<&str> = line.split_whitespace().collect();
        let tail = |mark: &str| words.iter().find_map(|word| word.strip_prefix(mark));
        let (invoke, complete) = words[0].split_once('-').expect("two times");
        let time = |digits: &str| Instant(digits.parse().expect("a number"));
        let told = tail("v").map(version);
        let value = tail("#").map(|digits| digits.parse().expect("a number"));
        let outcome = match () {
            () if words.contains(&"no") => Outcome::NotApplied,
            () if words.contains(&"open") => Outcome::Unknown,
            () => Outcome::Acked(told),
        };
        let read = |how| Act::Read {
            how,
            after: tail(">v").map_or(Version::ZERO, version),
            seen: Seen {
                value,
                version: told,
            },
        };
        Record {
            client: 0,
            key: 0,
            quorum: tail("q").map_or(2, |digits| digits.parse().expect("a number")),
            invoke: time(invoke),
            complete: time(complete),
            act: match words[1] {
                "put" | "del" => Act::Write { value, outcome },
                "get" => read(How::Get),
                "scan" => read(How::Scan),
                "healed" => read(How::Healed),
                "last" => read(How::Last),
                other => panic!("{other}?"),
            },
        }
    }

    /// The verdict on records separated by commas.
    fn judge(rules: &Rules, story: &str) -> String {
        let records: Vec<Record> = story.split(',').map(record).collect();
        match check(&records, rules) {
            Ok(()) => "fine".to_owned(),
            Err(unexplained) => unexplained.text,
        }
    }

    #[track_caller]
    fn fine(rules: &Rules, story: &str) {
        assert_eq!(judge(rules, story), "fine", "{story}");
    }

    #[track_caller]
    fn broken(rules: &Rules, story: &str, what: &str) {
        let verdict = judge(rules, story);
        assert!(verdict.contains(what), "{story}: {verdict}");
    }

    #[test]
    fn a_read_shows_what_was_written_as_it_was_written() {
        fine(&THREE, "0-1 put #1 v5, 2-3 get #1 v5");
        broken(&THREE, "0-1 put #1 v5, 2-3 get #2 v5", "nobody has written");
        broken(&THREE, "0-1 put #1 v5, 2-3 get #1 v6", "was written as");
        broken(
            &THREE,
            "0-1 put #1 open, 2-3 get #1 v5, 2-3 get #1 v6",
            "was written as",
        );
        broken(
            &THREE,
            "4-5 put #1 v5, 2-3 get #1 v5",
            "before it was written",
        );
        fine(&THREE, "2-5 put #1 v5, 2-3 get #1 v5");
        broken(
            &THREE,
            "0-1 put #1 v5, 0-1 put #2 v5",
            "one version for two",
        );
        broken(&THREE, "0-1 put #1 v5, 2-3 get v5", "version of a value");
    }

    #[test]
    fn a_refused_write_is_never_seen_and_an_open_one_may_be() {
        broken(&THREE, "0-1 put #1 no, 2-3 get #1 v5", "was refused");
        fine(&THREE, "0-1 put #1 open, 2-3 get #1 v5");
        fine(&THREE, "0-1 put #1 open, 2-3 get");
        // It may even be applied later.
        fine(&THREE, "0-1 put #1 open, 2-3 get, 4-5 get #1 v5");
    }

    #[test]
    fn overlapping_quorums_see_what_was_acknowledged_or_something_newer() {
        let old = "0-1 put #1 v5, 2-3 put #2 v6, 4-5 get #1 v5";
        broken(&THREE, old, "was over when");
        fine(&THREE, "0-1 put #1 v5, 2-3 put #2 v6, 4-5 get q1 #1 v5");
        fine(&THREE, "0-1 put #1 v5, 2-3 put q1 #2 v6, 4-5 get #1 v5");
        broken(
            &THREE,
            "0-1 put #1 v5, 2-3 put q1 #2 v6, 4-5 get q3 #1 v5",
            "was over when",
        );
        // While the write is under way, both are right.
        fine(&THREE, "0-1 put #1 v5, 2-6 put #2 v6, 4-5 get #1 v5");
        // Skewed clocks: the later write is the older one, and stays hidden.
        fine(&THREE, "0-1 put #1 v5, 2-3 put #2 v4, 4-5 get #1 v5");
        broken(&THREE, "0-1 put #1 v5, 2-3 get", "was over when");
        broken(&THREE, "0-1 put #1 v5, 2-3 scan", "was over when");
    }

    #[test]
    fn a_majority_that_has_seen_something_is_not_followed_by_one_that_has_not() {
        let back = "0-1 put #1 v5, 0-9 put #2 open, 2-3 get #2 v6, 4-5 get #1 v5";
        broken(&THREE, back, "was over when");
        for unproven in ["scan #2", "get q1 #2 v6", "get q3 #2 v6"] {
            let story = format!(
                "0-1 put #1 v5, 0-9 put #2 open, 2-3 {unproven}, 4-5 get #1 v5, 6-7 get #2 v6"
            );
            fine(&THREE, &story);
            let all = story.replace("4-5 get", "4-5 get q3");
            broken(&THREE, &all, "was over when");
        }
        fine(
            &THREE,
            "0-1 put #1 v5, 0-9 put #2 open, 2-4 get #2 v6, 3-5 get #1 v5",
        );
    }

    #[test]
    fn writes_without_a_version_are_ordered_by_what_is_seen() {
        // Either order of #1 and the batch is possible, but not both.
        fine(&THREE, "0-1 put #1 v5, 2-3 put #2 ok, 4-5 scan #1");
        fine(&THREE, "0-1 put #1 v5, 2-3 put #2 ok, 4-5 scan #2");
        broken(
            &THREE,
            "0-1 put #1 v5, 2-3 put #2 ok, 4-5 scan #1, 6-7 scan #2",
            "no order explains",
        );
    }

    #[test]
    fn deletions_are_versions() {
        broken(
            &THREE,
            "0-1 put #1 v5, 2-3 del v6, 4-5 get #1 v5",
            "was over when",
        );
        fine(&THREE, "0-1 put #1 v5, 2-3 del v6, 4-5 get v6");
        broken(
            &THREE,
            "0-1 put #1 v5, 2-3 del v6, 4-5 get",
            "[absence]: [client 0 0..0 us",
        );
        fine(&THREE, "0-1 put #1 v5, 2-3 del v6, 4-5 scan");
        fine(&THREE, "0-1 put #1 v5, 2-3 del v4, 4-5 get #1 v5");
        // The scan's absence must be newer than the put, and no delete is.
        broken(&THREE, "0-1 put #1 v5, 2-3 del v4, 4-5 scan", "was over");
        broken(
            &THREE,
            "0-1 put #1 v5, 2-3 del no, 4-5 get v6",
            "no delete can have left",
        );
        fine(&THREE, "0-1 put #1 v5, 2-3 del open, 4-5 get v6");
        broken(
            &THREE,
            "0-1 put #1 v5, 2-3 del open, 4-5 get v6, 6-7 get v7",
            "no delete can have left",
        );
        broken(
            &THREE,
            "0-1 put #1 v5, 6-9 del open, 4-5 get v6",
            "no delete can have left",
        );
        broken(
            &THREE,
            "0-1 put #1 v5, 2-3 del open, 4-5 get v6, 6-7 get #1 v5",
            "was over when",
        );
        broken(&THREE, "4-5 del v6, 2-3 get v6", "before it was written");
    }

    #[test]
    fn what_the_client_demanded_is_met() {
        let story = "0-1 put #1 v5, 0-1 put q1 #2 v6, 2-3 get q1 >v6 #1 v5";
        broken(&THREE, story, "demanded it");
        fine(&THREE, &story.replace("#1 v5 ", "").replace(">v6", ">v5"));
        fine(&THREE, "0-1 put q1 #2 v6, 2-3 get q1 >v6 #2 v6");
    }

    #[test]
    fn healed_replicas_hold_what_was_acknowledged_and_in_the_end_agree() {
        let two = "0-1 put #1 v5, 2-3 put q1 #2 v6, 2-3 put #3 open";
        fine(&THREE, &format!("{two}, 8-9 healed q1 #2 v6"));
        broken(
            &THREE,
            &format!("{two}, 8-9 healed q1 #1 v5"),
            "was over when",
        );
        // What only a read has seen need not have come everywhere, but in the end it has.
        let seen = format!("{two}, 4-5 get #3 v7");
        fine(&THREE, &format!("{seen}, 8-9 healed q1 #2 v6"));
        broken(&THREE, &format!("{seen}, 8-9 last q1 #2 v6"), "was over");
        fine(
            &THREE,
            &format!("{seen}, 8-9 last q1 #3 v7, 8-9 last q1 #3 v7"),
        );
        broken(
            &THREE,
            &format!("{two}, 8-9 last q1 #2 v6, 8-9 last q1 #3 v7"),
            "replicas differ for good",
        );
    }

    #[test]
    fn one_copy_is_written_in_order() {
        fine(&ALONE, "0-1 put q1 #1 ok, 2-3 put q1 #2 ok, 4-5 get q1 #2");
        let back = "0-1 put q1 #1 ok, 2-3 put q1 #2 ok, 4-5 get q1 #1";
        broken(&ALONE, back, "no order explains");
        broken(
            &ALONE,
            "0-1 put q1 #1 v5, 2-3 put q1 #2 v4",
            "no order explains",
        );
        // An absence without a version is the newest deletion there may be.
        fine(&ALONE, "0-1 put q1 #1 v5, 2-3 del q1 v6, 4-5 get q1");
        broken(
            &ALONE,
            "0-1 put q1 #1 v5, 2-3 del q1 v6, 4-5 get q1, 6-7 get q1 #1 v5",
            "was over when",
        );
        broken(
            &ALONE,
            "0-1 del q1 v4, 0-1 put q1 #1 v5, 4-5 get q1",
            "was over when",
        );
        fine(
            &ALONE,
            "0-1 put q1 #1 v5, 2-3 del q1 open, 4-5 get q1, 6-7 get q1 #1 v5",
        );
    }

    #[test]
    fn keys_are_apart_and_named() {
        let mut records: Vec<Record> = ["0-1 put #1 v5", "2-3 get #1 v5"].map(record).into();
        records[1].key = 4;
        let verdict = check(&records, &THREE).expect_err("the other key");
        assert_eq!(verdict.key, 4, "{}", verdict.text);
    }
}
