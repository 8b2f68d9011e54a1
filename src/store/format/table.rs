//! Pure. The frame of a table file: what lies where, and the checksums.
//!
//! ```text
//! file   = data block *, index block, filter block, props block, zeros to a page boundary, footer page
//! block  = payload, type u8 (1 data 2 index 3 filter 4 props), compression u8 (0 none), payload_len u32, crc u32
//!          crc32 over: table id u64, offset of the block in the file u64, then the block up to the crc
//! props  = entries varint, tombstones varint, min hlc u64, min origin u32, max hlc u64, max origin u32,
//!          smallest_len varint, smallest, largest_len varint, largest
//! footer = 4096 bytes at the very end
//!   0 "KVTABLE\0"   8 version u64 = 1   16 table id u64   24 file bytes u64
//!  32 index   44 filter   56 props             each: offset u64, bytes u32 with the block's trailer
//!  68 zeros ...   4092 crc32 of the 4092 bytes before
//! ```
//!
//! The file ends on a page because files are written with direct I/O. Checksums cover id and offset too, so a
//! block of another file, or one written to a wrong place, is as bad as a flipped bit. Every length is checked
//! against the length of the file before anything is allocated.

use super::block::Corrupt;
use super::edit::TableMeta;
use crate::base::codec::{Cursor, put_prefixed, put_varint};
use crate::base::limits::DISK_PAGE_BYTES;
use crate::base::planted::{self, Bug};
use crate::base::version::Version;

/// Where a block lies in its file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockHandle {
    pub offset: u64,
    /// On disk, trailer included.
    pub bytes: u32,
}

impl BlockHandle {
    /// Offset of the first byte behind the block; `None` when that is beyond any file.
    #[must_use]
    pub fn end(self) -> Option<u64> {
        self.offset.checked_add(u64::from(self.bytes))
    }
}

/// What a block holds. The number is the byte on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum BlockType {
    Data = 1,
    Index = 2,
    Filter = 3,
    Props = 4,
}

/// Bytes behind the payload of a block on disk.
pub const BLOCK_TRAILER_BYTES: usize = 10;
const COMPRESSION_NONE: u8 = 0;

/// Turns a payload into a block of `table` at `offset`.
pub fn seal(payload: &mut Vec<u8>, kind: BlockType, table: u64, offset: u64) {
    let len = u32::try_from(payload.len()).expect("a block is shorter than 4 GiB");
    payload.push(kind as u8);
    payload.push(COMPRESSION_NONE);
    payload.extend_from_slice(&len.to_le_bytes());
    let crc = block_crc(payload, table, offset);
    payload.extend_from_slice(&crc.to_le_bytes());
}

/// The payload of a block read from `offset` of `table`.
pub fn unseal(block: &[u8], kind: BlockType, table: u64, offset: u64) -> Result<&[u8], Corrupt> {
    let short = Corrupt("a block shorter than its trailer");
    let (signed, crc) = block.split_last_chunk::<4>().ok_or(short)?;
    let sound = block_crc(signed, table, offset) == u32::from_le_bytes(*crc);
    if !sound && !planted::is(Bug::BlockUnchecked) {
        return Err(Corrupt("checksum of a block"));
    }
    let (payload, trailer) = signed.split_last_chunk::<6>().ok_or(short)?;
    let [of_kind, compression, len @ ..] = *trailer;
    if of_kind != kind as u8 || compression != COMPRESSION_NONE {
        return Err(Corrupt("a block of another kind"));
    }
    if u32::from_le_bytes(len) as usize != payload.len() {
        return Err(Corrupt("a block of another length"));
    }
    Ok(payload)
}

fn block_crc(signed: &[u8], table: u64, offset: u64) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&table.to_le_bytes());
    hasher.update(&offset.to_le_bytes());
    hasher.update(signed);
    hasher.finalize()
}

/// The last page of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Footer {
    pub table: u64,
    pub file_bytes: u64,
    pub index: BlockHandle,
    pub filter: BlockHandle,
    pub props: BlockHandle,
}

pub const FOOTER_BYTES: usize = DISK_PAGE_BYTES;
const MAGIC: &[u8; 8] = b"KVTABLE\0";
const FORMAT_VERSION: u64 = 1;

impl Footer {
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(FOOTER_BYTES);
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&FORMAT_VERSION.to_le_bytes());
        out.extend_from_slice(&self.table.to_le_bytes());
        out.extend_from_slice(&self.file_bytes.to_le_bytes());
        for handle in [self.index, self.filter, self.props] {
            out.extend_from_slice(&handle.offset.to_le_bytes());
            out.extend_from_slice(&handle.bytes.to_le_bytes());
        }
        out.resize(FOOTER_BYTES - 4, 0);
        let crc = crc32fast::hash(&out);
        out.extend_from_slice(&crc.to_le_bytes());
        out
    }

    /// The footer of `table`, whose file is `file_bytes` long, from the last page of that file.
    pub fn decode(page: &[u8], table: u64, file_bytes: u64) -> Result<Footer, Corrupt> {
        if page.len() != FOOTER_BYTES || !page.starts_with(MAGIC) {
            return Err(Corrupt("no table footer"));
        }
        let (signed, crc) = page.split_last_chunk::<4>().ok_or(Corrupt("no footer"))?;
        if crc32fast::hash(signed) != u32::from_le_bytes(*crc) {
            return Err(Corrupt("checksum of the footer"));
        }
        let mut cursor = Cursor::new(&signed[MAGIC.len()..]);
        if cursor.u64()? != FORMAT_VERSION {
            return Err(Corrupt("a table format this version does not know"));
        }
        let footer = Footer {
            table: cursor.u64()?,
            file_bytes: cursor.u64()?,
            index: handle(&mut cursor)?,
            filter: handle(&mut cursor)?,
            props: handle(&mut cursor)?,
        };
        if footer.table != table || footer.file_bytes != file_bytes {
            return Err(Corrupt("the footer of another file"));
        }
        let body_end = file_bytes.checked_sub(FOOTER_BYTES as u64);
        let chained = footer.index.end() == Some(footer.filter.offset)
            && footer.filter.end() == Some(footer.props.offset)
            && footer.props.end().is_some_and(|end| Some(end) <= body_end);
        if !chained {
            return Err(Corrupt("the footer points outside the file"));
        }
        Ok(footer)
    }
}

fn handle(cursor: &mut Cursor<'_>) -> Result<BlockHandle, Corrupt> {
    Ok(BlockHandle {
        offset: cursor.u64()?,
        bytes: cursor.u32()?,
    })
}

/// Appends the payload of the props block: `meta` without what the footer says.
pub fn encode_props(meta: &TableMeta, out: &mut Vec<u8>) {
    put_varint(out, meta.entries);
    put_varint(out, meta.tombstones);
    for version in [meta.min_version, meta.max_version] {
        out.extend_from_slice(&version.hlc.to_le_bytes());
        out.extend_from_slice(&version.origin.to_le_bytes());
    }
    put_prefixed(out, &meta.smallest);
    put_prefixed(out, &meta.largest);
}

/// What a table says about itself.
pub fn decode_props(payload: &[u8], footer: &Footer) -> Result<TableMeta, Corrupt> {
    let mut cursor = Cursor::new(payload);
    let meta = TableMeta {
        id: footer.table,
        bytes: footer.file_bytes,
        entries: cursor.varint()?,
        tombstones: cursor.varint()?,
        min_version: version(&mut cursor)?,
        max_version: version(&mut cursor)?,
        smallest: cursor.prefixed()?.to_vec(),
        largest: cursor.prefixed()?.to_vec(),
    };
    match cursor.is_empty() {
        true => Ok(meta),
        false => Err(Corrupt("bytes behind the properties")),
    }
}

fn version(cursor: &mut Cursor<'_>) -> Result<Version, Corrupt> {
    Ok(Version {
        hlc: cursor.u64()?,
        origin: cursor.u32()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn footer() -> Footer {
        let handle = |offset, bytes| BlockHandle { offset, bytes };
        Footer {
            table: 7,
            file_bytes: 8192,
            index: handle(1000, 100),
            filter: handle(1100, 200),
            props: handle(1300, 300),
        }
    }

    #[test]
    fn footers_round_trip_and_point_inside_their_file() {
        let good = footer();
        assert_eq!(Footer::decode(&good.encode(), 7, 8192), Ok(good));
        assert!(Footer::decode(&good.encode(), 8, 8192).is_err());
        assert!(Footer::decode(&good.encode(), 7, 12288).is_err());
        assert!(Footer::decode(&good.encode()[1..], 7, 8192).is_err());
        let wrong: [fn(&mut Footer); 5] = [
            |footer| footer.index.offset = 1001,
            |footer| footer.filter.bytes = 201,
            |footer| footer.props.bytes = 3000,
            |footer| footer.props.offset = u64::MAX,
            |footer| footer.index.offset = u64::MAX - 50,
        ];
        for (i, spoil) in wrong.iter().enumerate() {
            let mut footer = footer();
            spoil(&mut footer);
            assert!(Footer::decode(&footer.encode(), 7, 8192).is_err(), "{i}");
        }
    }

    #[test]
    fn another_version_of_the_format_is_named_as_such() {
        let mut page = footer().encode();
        page[8] = 2;
        let crc = crc32fast::hash(&page[..FOOTER_BYTES - 4]);
        page[FOOTER_BYTES - 4..].copy_from_slice(&crc.to_le_bytes());
        let Err(Corrupt(why)) = Footer::decode(&page, 7, 8192) else {
            panic!("version 2 was read");
        };
        assert!(why.contains("format"), "{why}");
    }
}
