//! Pure. What was asked of a store, what it acknowledged, and therefore what it may answer.
//!
//! ```text
//! per key, by version:   ZERO absent(sure)   v3 put(sure)   v5 delete(open)   v9 put(open)
//!                                             ▲ floor: what is read is this or something newer
//! ```
//!
//! - A write is *open* from the moment it is handed over, *sure* once acknowledged or once anybody has read it
//!   (what is visible must be durable), gone when refused.
//! - A read may answer with the newest sure cell at its start or with anything newer; nothing else.
//! - Recovery decides every open write once: [`Ledger::settle`] takes a full reading, checks that no sure write
//!   is missing and that no write of several keys shows on one and is missing on another, and from then on
//!   what was read is all there is.
//!
//! Values are never equal by accident: the session puts the ticket into each.

use std::collections::{BTreeMap, BTreeSet};

use crate::base::record::{OwnedEntry, OwnedState};
use crate::base::version::Version;

/// A key of the workload.
pub type Key = Box<[u8]>;

/// What one reading found under a key: an entry (tombstones included), or nothing.
pub type Seen = Option<OwnedEntry>;

/// A broken promise, told so that it can be understood without the run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation(pub String);

/// Everything asked and answered.
#[derive(Debug, Default)]
pub struct Ledger {
    histories: BTreeMap<Key, BTreeMap<Version, Cell>>,
    writes: BTreeMap<u64, Write>,
    acked: u64,
}

#[derive(Debug)]
struct Cell {
    ticket: u64,
    state: OwnedState,
}

#[derive(Debug, Default)]
struct Write {
    sure: bool,
    cells: Vec<(Key, Version)>,
}

/// What a reading says about one cell of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sign {
    Applied,
    Missing,
    /// A newer write hides it, or two deletes look alike.
    Hidden,
}

impl Ledger {
    /// Writes acknowledged so far.
    #[must_use]
    pub fn acked(&self) -> u64 {
        self.acked
    }

    /// Writes handed over whose outcome is open.
    #[must_use]
    pub fn open(&self) -> usize {
        self.writes.values().filter(|write| !write.sure).count()
    }

    /// A write is about to be handed over.
    pub fn asked(&mut self, ticket: u64, ops: &[(Key, OwnedEntry)]) {
        let write = self.writes.entry(ticket).or_default();
        for (key, entry) in ops {
            write.cells.push((key.clone(), entry.version));
            let cell = Cell {
                ticket,
                state: entry.state.clone(),
            };
            let history = self.histories.entry(key.clone()).or_default();
            history.insert(entry.version, cell);
        }
    }

    /// The write was refused: nothing of it exists.
    pub fn refused(&mut self, ticket: u64) {
        for (key, version) in self.writes.remove(&ticket).unwrap_or_default().cells {
            if let Some(history) = self.histories.get_mut(&key) {
                history.remove(&version);
            }
        }
    }

    /// The write was acknowledged.
    pub fn confirmed(&mut self, ticket: u64) -> Result<(), Violation> {
        match self.writes.get_mut(&ticket) {
            Some(write) => {
                write.sure = true;
                self.acked += 1;
                Ok(())
            }
            None => Err(Violation(format!(
                "ticket {ticket} was answered but never accepted"
            ))),
        }
    }

    /// The newest version of `key` that must be there; zero when nothing need be.
    #[must_use]
    pub fn floor(&self, key: &[u8]) -> Version {
        let history = self.histories.get(key);
        let sure = history.and_then(|history| {
            let mut newest_first = history.iter().rev();
            newest_first.find(|(_, cell)| self.is_sure(cell.ticket))
        });
        sure.map_or(Version::ZERO, |(version, _)| *version)
    }

    /// All keys ever written.
    pub fn keys(&self) -> impl Iterator<Item = &Key> {
        self.histories.keys()
    }

    /// Checks an answer to a read of `key` that began when its floor was `floor`.
    pub fn saw(&mut self, key: &[u8], floor: Version, seen: &Seen) -> Result<(), Violation> {
        match self.sources(key, floor, seen)[..] {
            [] => Err(self.impossible(key, floor, seen)),
            // Exactly one write explains what was read, so that write must survive from now on.
            [version] => {
                let ticket = self.histories.get(key).and_then(|all| all.get(&version));
                if let Some(write) = ticket.and_then(|cell| self.writes.get_mut(&cell.ticket)) {
                    write.sure = true;
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Checks a full reading after a recovery, and takes it as the whole truth from now on.
    pub fn settle(&mut self, reading: &BTreeMap<Key, Seen>) -> Result<(), Violation> {
        let mut sources = BTreeMap::new();
        for key in self.histories.keys() {
            let seen = reading.get(key).unwrap_or(&None);
            let floor = self.floor(key);
            let versions = self.sources(key, floor, seen);
            if versions.is_empty() {
                return Err(self.impossible(key, floor, seen));
            }
            sources.insert(key.clone(), versions);
        }
        if let Some((key, seen)) = reading.iter().find(|(key, _)| !sources.contains_key(*key)) {
            return Err(Violation(format!(
                "{} was never written: {seen:?}",
                show(key)
            )));
        }
        for (ticket, write) in &self.writes {
            self.check_whole(*ticket, write, &sources)?;
        }
        self.writes.clear();
        for (key, versions) in sources {
            let kept = versions.first().copied().unwrap_or(Version::ZERO);
            if let Some(history) = self.histories.get_mut(&key) {
                history.retain(|version, _| *version == kept);
            }
        }
        Ok(())
    }

    fn is_sure(&self, ticket: u64) -> bool {
        self.writes.get(&ticket).is_none_or(|write| write.sure)
    }

    /// The versions, oldest first, that explain an answer.
    fn sources(&self, key: &[u8], floor: Version, seen: &Seen) -> Vec<Version> {
        let history = self.histories.get(key);
        let newer = history
            .into_iter()
            .flat_map(|history| history.range(floor..));
        let explains = |version: &Version, cell: &Cell| match seen {
            Some(entry) => entry.version == *version && entry.state == cell.state,
            None => cell.state == OwnedState::Deleted,
        };
        let mut versions: Vec<Version> = newer
            .filter(|(version, cell)| explains(version, cell))
            .map(|(version, _)| *version)
            .collect();
        if floor == Version::ZERO && seen.is_none() {
            versions.insert(0, Version::ZERO);
        }
        versions
    }

    /// A write shows on all of its keys or on none.
    fn check_whole(
        &self,
        ticket: u64,
        write: &Write,
        sources: &BTreeMap<Key, Vec<Version>>,
    ) -> Result<(), Violation> {
        let signs: BTreeSet<_> = write
            .cells
            .iter()
            .map(|(key, version)| {
                sign(*version, sources.get(key).map_or(&[], |all| &all[..])) as u8
            })
            .collect();
        let missing = signs.contains(&(Sign::Missing as u8));
        let applied = signs.contains(&(Sign::Applied as u8));
        if missing && (applied || write.sure) {
            return Err(Violation(format!(
                "write {ticket} is there in part only (sure: {}): {:?}",
                write.sure,
                write
                    .cells
                    .iter()
                    .map(|(key, _)| show(key))
                    .collect::<Vec<_>>()
            )));
        }
        Ok(())
    }

    fn impossible(&self, key: &[u8], floor: Version, seen: &Seen) -> Violation {
        let mut text = format!("{} answered {}; possible:", show(key), show_seen(seen));
        if floor == Version::ZERO {
            text.push_str(" nothing,");
        }
        for (version, cell) in self.histories.get(key).into_iter().flatten() {
            let mark = match (*version < floor, self.is_sure(cell.ticket)) {
                (true, _) => "past",
                (false, true) => "sure",
                (false, false) => "open",
            };
            text.push_str(&format!(
                " {version} {mark} #{} {},",
                cell.ticket,
                show_state(&cell.state)
            ));
        }
        Violation(text)
    }
}

fn sign(version: Version, sources: &[Version]) -> Sign {
    match (sources.first(), sources.last()) {
        (Some(first), Some(last)) if first == last && *first == version => Sign::Applied,
        (_, Some(last)) if *last < version => Sign::Missing,
        _ => Sign::Hidden,
    }
}

fn show(key: &[u8]) -> String {
    String::from_utf8_lossy(key).into_owned()
}

fn show_state(state: &OwnedState) -> String {
    match state {
        OwnedState::Deleted => "deleted".to_owned(),
        OwnedState::Live { value, .. } => {
            format!(
                "{} bytes {:02x?}",
                value.len(),
                value.get(..8).unwrap_or(value)
            )
        }
    }
}

fn show_seen(seen: &Seen) -> String {
    match seen {
        None => "nothing".to_owned(),
        Some(entry) => format!("{} {}", entry.version, show_state(&entry.state)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(hlc: u64) -> Version {
        Version { hlc, origin: 1 }
    }

    fn put(hlc: u64) -> OwnedEntry {
        OwnedEntry {
            version: at(hlc),
            state: OwnedState::Live {
                value: hlc.to_le_bytes().into(),
                text: false,
            },
        }
    }

    fn delete(hlc: u64) -> OwnedEntry {
        OwnedEntry {
            version: at(hlc),
            state: OwnedState::Deleted,
        }
    }

    fn key(name: &str) -> Key {
        name.as_bytes().into()
    }

    fn ledger(writes: &[(u64, &[(&str, OwnedEntry)])]) -> Ledger {
        let mut ledger = Ledger::default();
        for (ticket, ops) in writes {
            let ops: Vec<_> = ops
                .iter()
                .map(|(name, entry)| (key(name), entry.clone()))
                .collect();
            ledger.asked(*ticket, &ops);
        }
        ledger
    }

    fn settle(ledger: &mut Ledger, rows: &[(&str, Seen)]) -> Result<(), Violation> {
        let reading = rows
            .iter()
            .map(|(name, seen)| (key(name), seen.clone()))
            .collect();
        ledger.settle(&reading)
    }

    #[test]
    fn an_open_write_may_or_may_not_be_read_an_acknowledged_one_must() {
        let mut books = ledger(&[(1, &[("a", put(1))]), (2, &[("a", put(2))])]);
        let floor = books.floor(b"a");
        assert!(books.saw(b"a", floor, &None).is_ok());
        books.confirmed(1).unwrap();
        let floor = books.floor(b"a");
        assert!(
            books.saw(b"a", floor, &None).is_err(),
            "an acknowledged write is lost"
        );
        assert!(
            books.saw(b"a", floor, &Some(put(3))).is_err(),
            "never written"
        );
        assert!(books.saw(b"a", floor, &Some(put(1))).is_ok());
        assert!(books.saw(b"a", floor, &Some(put(2))).is_ok());
        assert_eq!(books.open(), 0, "what was read must survive");
        let floor = books.floor(b"a");
        assert!(
            books.saw(b"a", floor, &Some(put(1))).is_err(),
            "went back in time"
        );
        let mut torn = put(2);
        torn.state = put(7).state;
        assert!(
            books.saw(b"a", floor, &Some(torn)).is_err(),
            "right version, wrong bytes"
        );
        assert!(books.confirmed(9).is_err());
    }

    #[test]
    fn deletes_and_refusals() {
        let mut books = ledger(&[(1, &[("a", put(1))]), (2, &[("a", delete(2))])]);
        books.confirmed(1).unwrap();
        books.confirmed(2).unwrap();
        let floor = books.floor(b"a");
        assert!(books.saw(b"a", floor, &None).is_ok());
        assert!(books.saw(b"a", floor, &Some(delete(2))).is_ok());
        assert!(
            books.saw(b"a", floor, &Some(put(1))).is_err(),
            "the deleted came back"
        );
        books.asked(3, &[(key("a"), put(3))]);
        books.refused(3);
        assert!(books.saw(b"a", floor, &Some(put(3))).is_err());
    }

    #[test]
    fn a_write_of_two_keys_is_there_whole_or_not_at_all() {
        let both: &[(&str, OwnedEntry)] = &[("a", put(5)), ("b", put(6))];
        for (a, b, fine) in [
            (None, None, true),
            (Some(put(5)), Some(put(6)), true),
            (Some(put(5)), None, false),
            (None, Some(put(6)), false),
        ] {
            let mut books = ledger(&[(1, both)]);
            assert_eq!(
                settle(&mut books, &[("a", a.clone()), ("b", b.clone())]).is_ok(),
                fine
            );
        }
        let mut hidden = ledger(&[(1, both), (2, &[("a", put(7))])]);
        assert!(settle(&mut hidden, &[("a", Some(put(7))), ("b", None)]).is_ok());
    }

    #[test]
    fn what_recovery_decided_stays_decided() {
        let mut books = ledger(&[(1, &[("a", put(1))])]);
        settle(&mut books, &[("a", None)]).unwrap();
        assert!(
            settle(&mut books, &[("a", Some(put(1)))]).is_err(),
            "rose from the dead"
        );
        let mut books = ledger(&[(1, &[("a", put(1))])]);
        settle(&mut books, &[("a", Some(put(1)))]).unwrap();
        assert!(
            settle(&mut books, &[("a", None)]).is_err(),
            "was there, and is lost"
        );
        assert!(settle(&mut books, &[("a", Some(put(1))), ("b", None)]).is_err());
    }
}
