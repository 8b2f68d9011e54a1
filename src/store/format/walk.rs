//! Pure. Reads the groups of one log file in order, and judges how the file ends.
//!
//! ```text
//! group n expected at page p:
//!   valid, numbered n, linked to n-1            -> taken
//!   else look at all later pages, and at what is known from outside (`promised`):
//!     somebody promised n                       -> BROKEN   answered data is damaged: refuse
//!     the next valid group continues the chain  -> go on there (only a SEAL was damaged: nothing lost)
//!     later groups, but none promises n         -> TORN     n was in flight: nobody was told
//!     nothing, and p is blank or left over,     -> CLEAN
//!       or a SEAL stands before it
//!     nothing, and p is something else          -> TORN     (or the last answered group rotted before it
//!                                                  was sealed: the one case bytes cannot tell apart)
//! ```
//!
//! Truncating silently here is how other engines lost data; appending behind a torn tail is how they lost
//! more. This code only reads, and nothing is ever appended to a file that was recovered.

use super::frame::{GroupHead, Header, Kind, NoGroup, group_bytes};
use crate::base::limits::DISK_PAGE_BYTES;

/// One DATA group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Group<'a> {
    pub seq: u64,
    pub records: u32,
    pub body: &'a [u8],
}

/// How a file ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Nothing was being written.
    Clean,
    /// By a ROLL: there must be a successor.
    Rolled,
    /// A write was cut off; it was never answered. `first`: what lies there.
    Torn { offset: u64, first: [u8; 16] },
    /// A group that had been promised is damaged or missing.
    Broken { offset: u64, why: &'static str },
}

/// Iterator over the DATA groups of a file; ask [`Walk::end`] afterwards.
pub struct Walk<'a> {
    file: &'a [u8],
    header: Header,
    /// Highest number known from outside to have been durable (the manifest, the next file).
    promised: u64,
    /// Groups above belong to the next file, which knows better.
    limit: u64,
    at: usize,
    next_seq: u64,
    prev_body_crc: u32,
    /// The last group taken was a SEAL. What follows it may be the middle of a group of an earlier use of the file.
    sealed: bool,
    end: Option<End>,
}

impl<'a> Walk<'a> {
    /// `file`: the whole file, header page included.
    #[must_use]
    pub fn new(file: &'a [u8], header: Header, promised: u64, limit: u64) -> Walk<'a> {
        Walk {
            file,
            header,
            promised,
            limit,
            at: DISK_PAGE_BYTES,
            next_seq: header.first_seq,
            prev_body_crc: 0,
            sealed: false,
            end: None,
        }
    }

    /// Number the next DATA group would have.
    #[must_use]
    pub fn next_seq(&self) -> u64 {
        self.next_seq
    }

    /// Where the next group would lie, bytes from the start of the file.
    #[must_use]
    pub fn at(&self) -> u64 {
        self.at as u64
    }

    /// Once the iterator is at its end: how the file ended.
    #[must_use]
    pub fn end(&self) -> End {
        self.end.unwrap_or(End::Clean)
    }

    /// The group at the current page, if it is the one that belongs there.
    fn group_here(&self) -> Result<(GroupHead, &'a [u8]), NoGroup> {
        let here = self.file.get(self.at..).unwrap_or(&[]);
        if here.is_empty() {
            return Err(NoGroup::Unwritten);
        }
        let head = GroupHead::decode(here, &self.header)?;
        let body = head.body(here, &self.header).ok_or(NoGroup::Damaged)?;
        if self.continues(&head) {
            Ok((head, body))
        } else {
            Err(NoGroup::Damaged)
        }
    }

    fn continues(&self, head: &GroupHead) -> bool {
        let seq = match head.kind {
            Kind::Data => self.next_seq,
            Kind::Seal | Kind::Roll => self.next_seq - 1,
        };
        head.seq == seq && head.prev_body_crc == self.prev_body_crc
    }

    /// Decides about a page that holds no valid next group: `Some` ends the walk, `None` goes on elsewhere.
    fn judge(&mut self, found: NoGroup) -> Option<End> {
        let offset = self.at as u64;
        let mut promised = self.promised;
        let mut first_later = None;
        let mut at = self.at;
        while let Some(page) = self.file.get(at..).filter(|rest| !rest.is_empty()) {
            if let Ok(head) = GroupHead::decode(page, &self.header) {
                promised = promised.max(head.durable_seq);
                if at > self.at && first_later.is_none() {
                    first_later = Some((at, head));
                }
            }
            at += DISK_PAGE_BYTES;
        }
        if promised >= self.next_seq {
            let why = "a group that had been answered is damaged or missing";
            return Some(End::Broken { offset, why });
        }
        if let Some((at, head)) = first_later
            && self.continues(&head)
        {
            self.at = at;
            return None;
        }
        if (found == NoGroup::Unwritten || self.sealed) && first_later.is_none() {
            return Some(End::Clean);
        }
        let mut first = [0; 16];
        let here = self.file.get(self.at..).unwrap_or(&[]);
        for (to, from) in first.iter_mut().zip(here) {
            *to = *from;
        }
        Some(End::Torn { offset, first })
    }
}

impl<'a> Iterator for Walk<'a> {
    type Item = Group<'a>;

    fn next(&mut self) -> Option<Group<'a>> {
        while self.end.is_none() {
            match self.group_here() {
                Ok((head, body)) => {
                    if head.kind == Kind::Data && self.next_seq > self.limit {
                        self.end = Some(End::Clean);
                        break;
                    }
                    self.at += group_bytes(body.len());
                    self.sealed = head.kind == Kind::Seal;
                    match head.kind {
                        Kind::Seal => {}
                        Kind::Roll => self.end = Some(End::Rolled),
                        Kind::Data => {
                            self.next_seq += 1;
                            self.prev_body_crc = head.body_crc;
                            return Some(Group {
                                seq: head.seq,
                                records: head.records,
                                body,
                            });
                        }
                    }
                }
                Err(_) if self.next_seq > self.limit => self.end = Some(End::Clean),
                Err(found) => self.end = self.judge(found),
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::format::Owner;
    use crate::store::format::frame::{Chain, Log};

    const PAGE: usize = DISK_PAGE_BYTES;

    fn header() -> Header {
        Header {
            log: Log::Wal,
            owner: Owner { node: 9, shard: 0 },
            id: 4,
            bytes: 0,
            salt: 77,
            first_seq: 10,
            prev_id: 0,
        }
    }

    /// Three DATA groups, the second two pages long, then `marks`, then two blank pages.
    fn file(marks: &[Kind]) -> Vec<u8> {
        let bodies: [&[u8]; 3] = [b"first", &[7; 5000], b"third"];
        let mut file = vec![0; PAGE];
        header().encode(&mut file);
        let mut chain = Chain::new(&header());
        for body in bodies {
            let at = file.len();
            file.resize(at + group_bytes(body.len()), 0);
            chain.data(1, body, &mut file[at..]);
        }
        for kind in marks {
            let at = file.len();
            file.resize(at + PAGE, 0);
            chain.mark(*kind, &mut file[at..]);
        }
        file.resize(file.len() + 2 * PAGE, 0);
        file
    }

    fn walk(file: &[u8], promised: u64) -> (Vec<u64>, End) {
        let mut walk = Walk::new(file, header(), promised, u64::MAX);
        let seqs = walk.by_ref().map(|group| group.seq).collect();
        (seqs, walk.end())
    }

    #[test]
    fn whole_files_end_as_they_were_left() {
        assert_eq!(walk(&file(&[]), 12), (vec![10, 11, 12], End::Clean));
        assert_eq!(
            walk(&file(&[Kind::Seal]), 0),
            (vec![10, 11, 12], End::Clean)
        );
        let rolled = file(&[Kind::Seal, Kind::Roll]);
        assert_eq!(walk(&rolled, 0), (vec![10, 11, 12], End::Rolled));
        assert_eq!(walk(&file(&[])[..PAGE], 0), (vec![], End::Clean));
    }

    #[test]
    fn damage_before_a_promise_is_corruption_and_after_the_last_one_a_torn_tail() {
        for (group, page) in [(10, 1), (11, 2), (11, 3)] {
            let mut bytes = file(&[]);
            bytes[page * PAGE + 60] ^= 1;
            let (seqs, end) = walk(&bytes, 0);
            assert_eq!(seqs.len() as u64, group - 10);
            let offset = (group - 9) * PAGE as u64;
            assert!(
                matches!(end, End::Broken { offset: at, .. } if at == offset),
                "group {group}: {end:?}"
            );
        }
        let mut bytes = file(&[]);
        bytes[4 * PAGE + 60] ^= 1;
        let (seqs, end) = walk(&bytes, 0);
        assert_eq!(seqs, [10, 11]);
        assert!(matches!(end, End::Torn { offset, .. } if offset == 4 * PAGE as u64));
        assert!(matches!(walk(&bytes, 12).1, End::Broken { .. }));
        let mut sealed = file(&[Kind::Seal]);
        sealed[4 * PAGE + 60] ^= 1;
        assert!(matches!(walk(&sealed, 0).1, End::Broken { .. }));
    }

    #[test]
    fn a_damaged_seal_loses_nothing() {
        let mut bytes = file(&[Kind::Seal, Kind::Roll]);
        bytes[5 * PAGE + 5] ^= 1;
        assert_eq!(walk(&bytes, 0), (vec![10, 11, 12], End::Rolled));
    }

    #[test]
    fn leftovers_behind_a_seal_are_no_torn_tail() {
        let mut bytes = file(&[Kind::Seal]);
        bytes[6 * PAGE..7 * PAGE].fill(7);
        assert_eq!(walk(&bytes, 0), (vec![10, 11, 12], End::Clean));
        let mut unsealed = file(&[]);
        unsealed[5 * PAGE..6 * PAGE].fill(7);
        assert!(matches!(walk(&unsealed, 0).1, End::Torn { .. }));
    }

    #[test]
    fn groups_above_the_limit_are_left_to_the_next_file() {
        let bytes = file(&[]);
        let mut walk = Walk::new(&bytes, header(), 11, 11);
        assert_eq!(walk.by_ref().count(), 2);
        assert_eq!((walk.end(), walk.next_seq()), (End::Clean, 12));
    }

    /// Never wrong data: what is read is a prefix, and a shorter prefix is either reported as corruption or
    /// lacks only the last group, which nothing sealed.
    fn check(bytes: &[u8], sealed: bool, what: &dyn std::fmt::Display) {
        let whole = file(&[]);
        let mut expected = Walk::new(&whole, header(), 0, u64::MAX);
        let mut walk = Walk::new(bytes, header(), 0, u64::MAX);
        let mut read = 0;
        for group in walk.by_ref() {
            assert_eq!(Some(group), expected.next(), "{what}");
            read += 1;
        }
        let broken = matches!(walk.end(), End::Broken { .. });
        assert!(
            broken || read == 3 || (read == 2 && !sealed),
            "{what}: {read} read"
        );
    }

    #[test]
    fn every_bit_flip_is_noticed_or_harmless() {
        for marks in [&[][..], &[Kind::Seal]] {
            let bytes = file(marks);
            for bit in PAGE * 8..bytes.len() * 8 {
                let mut flipped = bytes.clone();
                flipped[bit / 8] ^= 1 << (bit % 8);
                // Scanning 5,000 identical body bytes bit by bit teaches nothing new.
                if bit / 8 % PAGE < 128 || bit % 1024 < 8 {
                    check(&flipped, !marks.is_empty(), &format_args!("bit {bit}"));
                }
            }
        }
    }

    #[test]
    fn every_truncation_yields_a_prefix() {
        let bytes = file(&[Kind::Seal]);
        for cut in 0..bytes.len() {
            let whole = file(&[]);
            let expected = Walk::new(&whole, header(), 0, u64::MAX);
            let walk = Walk::new(&bytes[..cut], header(), 0, u64::MAX);
            assert!(walk.zip(expected).all(|(a, b)| a == b), "cut at {cut}");
        }
    }

    #[test]
    fn leftovers_of_an_earlier_use_are_no_groups() {
        let old = file(&[]);
        let new = Header {
            id: 9,
            salt: 78,
            first_seq: 10,
            ..header()
        };
        let mut walk = Walk::new(&old, new, 9, u64::MAX);
        assert_eq!((walk.next(), walk.end()), (None, End::Clean));
        let mut mixed = old.clone();
        mixed[PAGE..2 * PAGE].fill(0);
        Chain::new(&new).data(1, b"new", &mut mixed[PAGE..2 * PAGE]);
        let mut walk = Walk::new(&mixed, new, 0, u64::MAX);
        assert_eq!(
            walk.by_ref()
                .map(|group| group.body.to_vec())
                .collect::<Vec<_>>(),
            [b"new"]
        );
        assert_eq!(walk.end(), End::Clean);
    }
}
