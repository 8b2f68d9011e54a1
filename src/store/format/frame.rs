//! Pure. The frame of a log file: one header page, then groups. The WAL and the manifest share it.
//!
//! ```text
//! file = header page, group*            everything starts at a multiple of 4096 and is padded with zeros
//!
//! header page                                   group
//!  0  magic      8  "KVWALSEG" "KVMANIFS"        0  magic         u32  0x4752_5031 ("1PRG")
//!  8  format     u16 = 1                         4  head_crc      u32  of salt, bytes 8..56
//! 10  shard      u16                             8  body_crc      u32  of salt ^ seq, body
//! 12  zero       u32                            12  body_len      u32
//! 16  node       u128                           16  seq           u64
//! 32  id         u64  the file's own            24  durable_seq   u64  the promise
//! 40  bytes      u64  length of the file, 0:    32  prev_body_crc u32  of the last DATA group here, or 0
//!                     it grows                  36  records       u32
//! 48  salt       u64  random at each use        40  id            u64  the file's own
//! 56  first_seq  u64                            48  kind          u8   1 DATA, 2 SEAL, 3 ROLL
//! 64  prev_id    u64  0: first of a boot        49  zero          7
//! 72  crc        u32  of bytes 0..72            56  body
//!
//! a segment with two commits, then idle, then full:
//!   |header first_seq=8|DATA 8 dur=7 |DATA 9 dur=8 |SEAL 9 dur=9|DATA 10 dur=9|ROLL 10 dur=10|leftovers..
//! ```
//!
//! Integers are little-endian. DATA groups are numbered without gaps across files; SEAL and ROLL have no body
//! and repeat the number of the last DATA group (so that the first number of a file says exactly which
//! data came before it). `durable_seq` promises: all groups up to here were on stable storage, and may have
//! been answered, when this group was built. That promise is what tells a torn tail (nobody was told) from
//! rot (walk.rs judges). Group checksums start from the salt, so the groups of an earlier use of a recycled
//! segment are no groups. Acknowledged pages are never written again: a short group wastes the rest of its
//! page, because rewriting it would put answered bytes at risk.

use super::Owner;
use crate::base::codec::{Cursor, Short};
use crate::base::limits::DISK_PAGE_BYTES;
use crate::base::planted::{self, Bug};

/// Bytes of a group before its body.
pub const GROUP_HEAD_BYTES: usize = 56;
/// Bytes of a group before what its head checksum covers.
const CRC_FROM: usize = 8;
/// Bytes of the header page that mean something.
const HEADER_BYTES: usize = 76;
const GROUP_MAGIC: u32 = 0x4752_5031;
const FORMAT: u16 = 1;

/// Which log a file belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Log {
    Wal,
    Manifest,
}

impl Log {
    fn magic(self) -> [u8; 8] {
        match self {
            Log::Wal => *b"KVWALSEG",
            Log::Manifest => *b"KVMANIFS",
        }
    }
}

/// The first page of a log file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    pub log: Log,
    pub owner: Owner,
    /// The id in the file's name; another one says that the file was renamed and not used since.
    pub id: u64,
    /// Length of the file when it was prepared; 0 for a file that grows.
    pub bytes: u64,
    pub salt: u64,
    /// Number of the first DATA group.
    pub first_seq: u64,
    /// The file before this one; 0 when a boot starts here.
    pub prev_id: u64,
}

/// Why a page is no usable header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadHeader {
    /// All zero: prepared, never used.
    Blank,
    /// Too short, or the checksum does not fit.
    Damaged,
    /// Intact, but written by a version of this program we do not know.
    UnknownFormat(u16),
    /// Intact, but of another node or shard.
    Foreign(Owner),
}

impl Header {
    /// Fills the start of `page`, which is zero.
    pub fn encode(&self, page: &mut [u8]) {
        let fields: [&[u8]; 9] = [
            &self.log.magic(),
            &FORMAT.to_le_bytes(),
            &self.owner.shard.to_le_bytes(),
            &[0; 4],
            &self.owner.node.to_le_bytes(),
            &self.id.to_le_bytes(),
            &self.bytes.to_le_bytes(),
            &self.salt.to_le_bytes(),
            &self.first_seq.to_le_bytes(),
        ];
        put(page, 0, &fields);
        put(page, 64, &[&self.prev_id.to_le_bytes()]);
        let crc = crc32fast::hash(&page[..HEADER_BYTES - 4]);
        put(page, HEADER_BYTES - 4, &[&crc.to_le_bytes()]);
    }

    /// Reads the first page of a file of `owner`.
    pub fn decode(log: Log, owner: Owner, page: &[u8]) -> Result<Header, BadHeader> {
        let bytes = page.get(..HEADER_BYTES).ok_or(BadHeader::Damaged)?;
        if bytes.iter().all(|&byte| byte == 0) {
            return Err(BadHeader::Blank);
        }
        let (covered, crc) = bytes.split_at(HEADER_BYTES - 4);
        if crc32fast::hash(covered).to_le_bytes() != crc || !covered.starts_with(&log.magic()) {
            return Err(BadHeader::Damaged);
        }
        let (format, found, header) =
            Header::read(log, covered).map_err(|Short| BadHeader::Damaged)?;
        if format != FORMAT {
            return Err(BadHeader::UnknownFormat(format));
        }
        if header.first_seq == 0 {
            return Err(BadHeader::Damaged);
        }
        if found != owner {
            return Err(BadHeader::Foreign(found));
        }
        Ok(header)
    }

    fn read(log: Log, covered: &[u8]) -> Result<(u16, Owner, Header), Short> {
        let mut cursor = Cursor::new(covered);
        cursor.bytes(8)?;
        let format = cursor.u16()?;
        let shard = cursor.u16()?;
        cursor.u32()?;
        let node = u128::from(cursor.u64()?) | u128::from(cursor.u64()?) << 64;
        let owner = Owner { node, shard };
        let header = Header {
            log,
            owner,
            id: cursor.u64()?,
            bytes: cursor.u64()?,
            salt: cursor.u64()?,
            first_seq: cursor.u64()?,
            prev_id: cursor.u64()?,
        };
        Ok((format, owner, header))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Holds records.
    Data,
    /// "Everything so far is durable": written when the log falls idle and when it closes.
    Seal,
    /// The last group of a file that has a successor.
    Roll,
}

/// What stands before a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupHead {
    pub kind: Kind,
    pub seq: u64,
    /// Every group up to here was durable when this one was built.
    pub durable_seq: u64,
    pub prev_body_crc: u32,
    pub records: u32,
    pub body_len: u32,
    pub body_crc: u32,
}

/// Why no group starts at a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoGroup {
    /// Zeros, or a group of an earlier use of the file.
    Unwritten,
    /// Something else: a torn write, rot, or the middle of an earlier group.
    Damaged,
}

/// Length of a group on disk.
#[must_use]
pub fn group_bytes(body_len: usize) -> usize {
    (GROUP_HEAD_BYTES + body_len).next_multiple_of(DISK_PAGE_BYTES)
}

/// Whether `page` claims to start a group of file `id`. Not proof: used where the salt is lost.
#[must_use]
pub fn claims_group(page: &[u8], id: u64) -> bool {
    let read = |mut cursor: Cursor<'_>| -> Result<bool, Short> {
        let magic = cursor.u32()?;
        cursor.bytes(36)?;
        Ok(magic == GROUP_MAGIC && cursor.u64()? == id)
    };
    read(Cursor::new(page)).unwrap_or(false)
}

impl GroupHead {
    /// Reads the head at the start of `page`, for the file with this header.
    pub fn decode(page: &[u8], header: &Header) -> Result<GroupHead, NoGroup> {
        let head = page
            .first_chunk::<GROUP_HEAD_BYTES>()
            .ok_or(NoGroup::Damaged)?;
        if head.iter().all(|&byte| byte == 0) {
            return Err(NoGroup::Unwritten);
        }
        let (before, covered) = head.split_at(CRC_FROM);
        let crc = seeded_crc(header.salt, covered).to_le_bytes();
        if !before.starts_with(&GROUP_MAGIC.to_le_bytes()) || !before.ends_with(&crc) {
            let stale =
                before.starts_with(&GROUP_MAGIC.to_le_bytes()) && !claims_group(page, header.id);
            return Err(if stale {
                NoGroup::Unwritten
            } else {
                NoGroup::Damaged
            });
        }
        let (id, head) = GroupHead::read(covered).ok_or(NoGroup::Damaged)?;
        if id == header.id {
            Ok(head)
        } else {
            Err(NoGroup::Damaged)
        }
    }

    fn read(covered: &[u8]) -> Option<(u64, GroupHead)> {
        let mut cursor = Cursor::new(covered);
        let body_crc = cursor.u32().ok()?;
        let body_len = cursor.u32().ok()?;
        let seq = cursor.u64().ok()?;
        let durable_seq = cursor.u64().ok()?;
        let prev_body_crc = cursor.u32().ok()?;
        let records = cursor.u32().ok()?;
        let id = cursor.u64().ok()?;
        let kind = match cursor.u64().ok()? {
            1 => Kind::Data,
            2 => Kind::Seal,
            3 => Kind::Roll,
            _ => return None,
        };
        let head = GroupHead {
            kind,
            seq,
            durable_seq,
            prev_body_crc,
            records,
            body_len,
            body_crc,
        };
        Some((id, head))
    }

    /// The body behind the head, which starts at `group[0]`; `None` when it is cut or its checksum is wrong.
    #[must_use]
    pub fn body<'a>(&self, group: &'a [u8], header: &Header) -> Option<&'a [u8]> {
        let len = usize::try_from(self.body_len).ok()?;
        let body = group.get(GROUP_HEAD_BYTES..)?.get(..len)?;
        let sound = seeded_crc(header.salt ^ self.seq, body) == self.body_crc;
        (sound || planted::is(Bug::GroupUnchecked)).then_some(body)
    }
}

/// The writing end of one file: numbers groups and links each to the one before.
#[derive(Clone, Debug)]
pub struct Chain {
    salt: u64,
    id: u64,
    seq: u64,
    prev_body_crc: u32,
}

impl Chain {
    /// Starts behind this header.
    #[must_use]
    pub fn new(header: &Header) -> Chain {
        Chain {
            salt: header.salt,
            id: header.id,
            seq: header.first_seq - 1,
            prev_body_crc: 0,
        }
    }

    /// Number of the last DATA group written.
    #[must_use]
    pub fn seq(&self) -> u64 {
        self.seq
    }

    /// Writes the next DATA group into `page`, zero-filled and [`group_bytes`] long. Everything before it is
    /// durable: one write at a time is in flight.
    pub fn data(&mut self, records: u32, body: &[u8], page: &mut [u8]) {
        let durable_seq = self.seq;
        self.seq += 1;
        let body_crc = seeded_crc(self.salt ^ self.seq, body);
        let head = GroupHead {
            kind: Kind::Data,
            seq: self.seq,
            durable_seq,
            prev_body_crc: self.prev_body_crc,
            records,
            body_len: u32::try_from(body.len()).expect("limits::WAL_QUEUE_BYTES_MAX fits a u32"),
            body_crc,
        };
        self.put(&head, page);
        put(page, GROUP_HEAD_BYTES, &[body]);
        self.prev_body_crc = body_crc;
    }

    /// Writes a SEAL or ROLL into one zero-filled page. Everything before it is durable.
    pub fn mark(&self, kind: Kind, page: &mut [u8]) {
        debug_assert!(kind != Kind::Data, "a mark has no body");
        let head = GroupHead {
            kind,
            seq: self.seq,
            durable_seq: self.seq,
            prev_body_crc: self.prev_body_crc,
            records: 0,
            body_len: 0,
            body_crc: seeded_crc(self.salt ^ self.seq, &[]),
        };
        self.put(&head, page);
    }

    fn put(&self, head: &GroupHead, page: &mut [u8]) {
        let kind: u8 = match head.kind {
            Kind::Data => 1,
            Kind::Seal => 2,
            Kind::Roll => 3,
        };
        let fields: [&[u8]; 8] = [
            &head.body_crc.to_le_bytes(),
            &head.body_len.to_le_bytes(),
            &head.seq.to_le_bytes(),
            &head.durable_seq.to_le_bytes(),
            &head.prev_body_crc.to_le_bytes(),
            &head.records.to_le_bytes(),
            &self.id.to_le_bytes(),
            &u64::from(kind).to_le_bytes(),
        ];
        put(page, CRC_FROM, &fields);
        let crc = seeded_crc(self.salt, &page[CRC_FROM..GROUP_HEAD_BYTES]);
        put(page, 0, &[&GROUP_MAGIC.to_le_bytes(), &crc.to_le_bytes()]);
    }
}

/// Copies `fields` one after the other into `page` from `at` on.
fn put(page: &mut [u8], mut at: usize, fields: &[&[u8]]) {
    for field in fields {
        page[at..at + field.len()].copy_from_slice(field);
        at += field.len();
    }
}

/// CRC-32 (IEEE) of the seed's eight bytes, then `bytes`.
fn seeded_crc(seed: u64, bytes: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(&seed.to_le_bytes());
    crc.update(bytes);
    crc.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::format::golden;

    fn header() -> Header {
        let node = 0x0f0e_0d0c_0b0a_0908_0706_0504_0302_0100;
        Header {
            log: Log::Wal,
            owner: Owner { node, shard: 3 },
            id: 2,
            bytes: 1 << 20,
            salt: 0x1122_3344_5566_7788,
            first_seq: 8,
            prev_id: 1,
        }
    }

    /// These bytes are on disks. The golden file was made by tests/golden/format/frame.py, not by this code.
    #[test]
    fn golden_bytes() {
        let golden = golden::bytes(include_str!("../../../tests/golden/format/frame.txt"));
        let mut header_page = [0; DISK_PAGE_BYTES];
        header().encode(&mut header_page);
        let mut chain = Chain::new(&header());
        let mut pages = [[0; DISK_PAGE_BYTES]; 3];
        chain.data(2, b"abc", &mut pages[0]);
        chain.data(1, b"d", &mut pages[1]);
        chain.mark(Kind::Roll, &mut pages[2]);
        let wrote = [
            &header_page[..HEADER_BYTES],
            &pages[0][..GROUP_HEAD_BYTES + 3],
            &pages[1][..GROUP_HEAD_BYTES + 1],
            &pages[2][..GROUP_HEAD_BYTES],
        ];
        assert_eq!(wrote.concat(), golden);
        assert_eq!(
            Header::decode(Log::Wal, header().owner, &header_page),
            Ok(header())
        );
        let first = GroupHead::decode(&pages[0], &header()).unwrap();
        assert_eq!((first.seq, first.durable_seq, first.records), (8, 7, 2));
        assert_eq!(first.body(&pages[0], &header()), Some(&b"abc"[..]));
        let second = GroupHead::decode(&pages[1], &header()).unwrap();
        assert_eq!(second.prev_body_crc, first.body_crc);
        let roll = GroupHead::decode(&pages[2], &header()).unwrap();
        assert_eq!((roll.kind, roll.seq, roll.durable_seq), (Kind::Roll, 9, 9));
    }

    #[test]
    fn every_bit_of_a_header_counts() {
        let mut page = [0; DISK_PAGE_BYTES];
        header().encode(&mut page);
        for bit in 0..HEADER_BYTES * 8 {
            let mut flipped = page;
            flipped[bit / 8] ^= 1 << (bit % 8);
            let read = Header::decode(Log::Wal, header().owner, &flipped);
            assert_eq!(read, Err(BadHeader::Damaged), "bit {bit}");
        }
        for cut in 0..HEADER_BYTES {
            let read = Header::decode(Log::Wal, header().owner, &page[..cut]);
            assert_eq!(read, Err(BadHeader::Damaged), "cut at {cut}");
        }
    }

    #[test]
    fn headers_of_others_are_told_apart() {
        let mut page = [0; DISK_PAGE_BYTES];
        let blank = Header::decode(Log::Wal, header().owner, &page);
        assert_eq!(blank, Err(BadHeader::Blank));
        header().encode(&mut page);
        let other = Owner { node: 1, shard: 3 };
        let foreign = Header::decode(Log::Wal, other, &page);
        assert_eq!(foreign, Err(BadHeader::Foreign(header().owner)));
        let manifest = Header::decode(Log::Manifest, header().owner, &page);
        assert_eq!(manifest, Err(BadHeader::Damaged));
        put(&mut page, 8, &[&2u16.to_le_bytes()]);
        let crc = crc32fast::hash(&page[..HEADER_BYTES - 4]);
        put(&mut page, HEADER_BYTES - 4, &[&crc.to_le_bytes()]);
        let newer = Header::decode(Log::Wal, header().owner, &page);
        assert_eq!(newer, Err(BadHeader::UnknownFormat(2)));
    }

    #[test]
    fn every_bit_of_a_group_counts_and_another_salt_hides_it() {
        let mut page = [0; DISK_PAGE_BYTES];
        Chain::new(&header()).data(2, b"abc", &mut page);
        for bit in 0..(GROUP_HEAD_BYTES + 3) * 8 {
            let mut flipped = page;
            flipped[bit / 8] ^= 1 << (bit % 8);
            let body = GroupHead::decode(&flipped, &header())
                .ok()
                .and_then(|head| head.body(&flipped, &header()));
            assert_eq!(body, None, "bit {bit}");
        }
        let reused = Header {
            id: 5,
            salt: 1,
            ..header()
        };
        assert_eq!(GroupHead::decode(&page, &reused), Err(NoGroup::Unwritten));
        let same_id = Header {
            salt: 1,
            ..header()
        };
        assert_eq!(GroupHead::decode(&page, &same_id), Err(NoGroup::Damaged));
        assert_eq!(
            GroupHead::decode(&page[..55], &header()),
            Err(NoGroup::Damaged)
        );
        assert!(claims_group(&page, 2) && !claims_group(&page, 5));
    }
}
