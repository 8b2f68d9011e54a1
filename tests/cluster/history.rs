//! Pure. What clients saw of a cluster with R + W > N, and whether it kept its promises to them.
//!
//! Per key: a version stands for one state, every state was written and not refused, and a read shows at least the
//! version of every write that was answered, and of every read that was over, before it began.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::time::Instant;

use kvstore::base::version::Version;

/// One request of one client.
#[derive(Clone, Debug)]
pub(crate) struct Op {
    pub(crate) key: usize,
    pub(crate) start: Instant,
    pub(crate) end: Instant,
    pub(crate) act: Act,
}

/// A value that is `None` is a deletion, or was never there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Act {
    Write(Option<String>, Outcome),
    Read(Option<String>, Version),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Acked(Version),
    /// Certainly not done.
    NotApplied,
    Unknown,
}

impl Op {
    /// What it proves to be there once it is over.
    fn proves(&self) -> Option<Version> {
        match self.act {
            Act::Write(_, Outcome::Acked(version)) | Act::Read(_, version) => Some(version),
            Act::Write(..) => None,
        }
    }
}

/// The first broken promise.
pub(crate) fn check(history: &[Op]) -> Result<(), String> {
    let mut keys: BTreeMap<usize, Vec<&Op>> = BTreeMap::new();
    for op in history {
        keys.entry(op.key).or_default().push(op);
    }
    for ops in keys.values() {
        check_states(ops)?;
        check_order(ops)?;
    }
    Ok(())
}

/// One state per version, one version per value, and nothing that nobody wrote.
fn check_states(ops: &[&Op]) -> Result<(), String> {
    let mut states: BTreeMap<Version, &Option<String>> = BTreeMap::from([(Version::ZERO, &None)]);
    let mut versions: BTreeMap<&str, Version> = BTreeMap::new();
    for op in ops {
        let (Act::Write(value, Outcome::Acked(version)) | Act::Read(value, version)) = &op.act
        else {
            continue;
        };
        if *states.entry(*version).or_insert(value) != value {
            return broken("one version, two states", op, &states[version]);
        }
        if let Some(value) = value
            && versions.entry(value).or_insert(*version) != version
        {
            return broken("one value, two versions", op, &versions[value.as_str()]);
        }
    }
    for op in ops {
        let Act::Read(value, version) = &op.act else {
            continue;
        };
        let explains = |other: &&&Op| match &other.act {
            Act::Write(written, outcome) if written == value && other.start < op.end => {
                match outcome {
                    Outcome::Acked(acked) => acked == version,
                    Outcome::Unknown => true,
                    Outcome::NotApplied => false,
                }
            }
            _ => false,
        };
        if *version != Version::ZERO && ops.iter().find(explains).is_none() {
            return broken("nobody wrote this, or it was refused", op, &"");
        }
    }
    Ok(())
}

/// A read shows at least what was proven before it began.
fn check_order(ops: &[&Op]) -> Result<(), String> {
    let mut proofs: Vec<(&Op, Version)> = ops
        .iter()
        .filter_map(|op| Some((*op, op.proves()?)))
        .collect();
    proofs.sort_by_key(|(op, _)| op.end);
    let mut reads: Vec<(&Op, Version)> = ops
        .iter()
        .filter(|op| matches!(op.act, Act::Read(..)))
        .filter_map(|op| Some((*op, op.proves()?)))
        .collect();
    reads.sort_by_key(|(op, _)| op.start);
    let mut proofs = proofs.into_iter().peekable();
    let mut newest: Option<(&Op, Version)> = None;
    for (read, shown) in reads {
        while let Some(proof) = proofs.next_if(|(op, _)| op.end < read.start) {
            newest = newest
                .filter(|(_, version)| *version >= proof.1)
                .or(Some(proof));
        }
        if let Some((proof, _)) = newest.filter(|(_, version)| *version > shown) {
            return broken("shows less than was there before", read, proof);
        }
    }
    Ok(())
}

fn broken(what: &str, op: &Op, other: &dyn Debug) -> Result<(), String> {
    Err(format!("{what}:\n  {op:?}\n  {other:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    /// `0-1 put a v5`, `no`, `open`; `2-3 get a v5`; `-` is absence.
    fn judge(story: &str) -> String {
        let zero = Instant::now();
        let ops: Vec<Op> = story
            .split(", ")
            .map(|line| {
                let words: Vec<&str> = line.split(' ').collect();
                let (start, end) = words[0].split_once('-').expect("two times");
                let at = |ms: &str| zero + Duration::from_millis(ms.parse().expect("a time"));
                let value = Some(words[2].to_owned()).filter(|value| value != "-");
                let version = words[3].strip_prefix('v').map_or(Version::ZERO, |digits| {
                    Version::at_ms(digits.parse().expect("a version"))
                });
                let outcome = match words[3] {
                    "no" => Outcome::NotApplied,
                    "open" => Outcome::Unknown,
                    _ => Outcome::Acked(version),
                };
                let act = match words[1] {
                    "put" => Act::Write(value, outcome),
                    _ => Act::Read(value, version),
                };
                let (start, end) = (at(start), at(end));
                Op {
                    key: 0,
                    start,
                    end,
                    act,
                }
            })
            .collect();
        let verdict = check(&ops).err().unwrap_or_default();
        verdict.lines().next().unwrap_or("fine").to_owned()
    }

    #[test]
    fn what_a_register_explains_and_what_not() {
        for (story, verdict) in [
            (
                "0-1 get - v0, 2-3 put a v5, 4-5 get a v5, 6-7 put - v6, 8-9 get - v6",
                "fine",
            ),
            ("0-1 put a v5, 2-3 get - v0", "shows less"),
            ("0-1 put a v5, 2-3 put b v6, 4-5 get a v5", "shows less"),
            ("0-1 put a v5, 2-5 put b v6, 4-6 get a v5", "fine"),
            ("0-9 put a open, 0-1 get a v5, 2-3 get - v0", "shows less"),
            ("0-9 put a open, 0-2 get a v5, 1-3 get - v0", "fine"),
            ("0-1 put a no, 2-3 get a v5", "nobody wrote this"),
            ("4-5 put a v5, 2-3 get a v5", "nobody wrote this"),
            ("0-1 put a v5, 2-3 get b v6", "nobody wrote this"),
            ("0-1 put a v5, 2-3 get - v6", "nobody wrote this"),
            ("0-1 put a v5, 2-3 put - open, 4-5 get - v6", "fine"),
            ("0-1 put a v5, 0-1 put b v5", "one version"),
            ("0-9 put a open, 2-3 get a v5, 4-5 get a v6", "one value"),
            // A later write with an older version stays hidden: clocks may differ.
            ("0-1 put a v5, 2-3 put b v4, 4-5 get a v5", "fine"),
        ] {
            let found = judge(story);
            assert!(found.starts_with(verdict), "{story}: {found}");
        }
    }
}
