//! Pure. The bytes of a data directory: what each file is called and what lies in it. No I/O.
//!
//! ```text
//! <data>/NODE, NODE.bak            identity (store/identity.rs)
//! <data>/shards/0000/
//!     CURRENT                      names the manifest in force; made before NODE, and never missing after it
//!     MANIFEST-000007              log of edits: frame + edit
//!     wal/00000000000000a1.wal     log of writes: frame + record
//!     sst/00000000000004d2.sst     table
//!     *.tmp                        leftovers of a crash, removed at open
//! ```
//!
//! Every format is frozen by golden files in `tests/golden/format`. Bytes from disk are never trusted: each
//! decoder checks lengths before it allocates, and answers with an error that says what is wrong.

pub mod block;
pub mod bloom;
pub mod edit;
pub mod frame;
pub mod index;
pub mod record;
pub mod table;
pub mod walk;

use std::path::{Path, PathBuf};

/// Whose log this is. Written into the header of every log file, so that a file copied from another node or
/// moved between shard folders is refused instead of replayed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    /// The `node_uuid` of the NODE file.
    pub node: u128,
    pub shard: u16,
}

/// The file that names the manifest in force.
pub const CURRENT: &str = "CURRENT";
/// What CURRENT names in a shard that has never been opened.
pub const NO_MANIFEST: &str = "EMPTY";
/// Ending of files that do not count yet; removed at open.
pub const TMP_SUFFIX: &str = ".tmp";

/// Folder of one shard below the data directory.
#[must_use]
pub fn shard_dir(shard: u16) -> String {
    format!("shards/{shard:04}")
}

/// A shard that has never been opened: its one file, below the data directory, and what that says. The file is
/// durable before NODE is, so a shard without a CURRENT has lost its files and is not taken for an empty one.
#[must_use]
pub fn newborn(shard: u16) -> (PathBuf, Vec<u8>) {
    let path = Path::new(&shard_dir(shard)).join(CURRENT);
    (path, current_line(NO_MANIFEST))
}

/// What CURRENT holds when `name` is in force.
#[must_use]
pub fn current_line(name: &str) -> Vec<u8> {
    format!("{name} {:08x}\n", crc32fast::hash(name.as_bytes())).into_bytes()
}

/// Name of a WAL segment.
#[must_use]
pub fn segment_name(id: u64) -> String {
    format!("{id:016x}.wal")
}

/// The id in a WAL segment's name; `None` for any other name.
#[must_use]
pub fn segment_id(name: &str) -> Option<u64> {
    hex_id(name.strip_suffix(".wal")?)
}

/// Name of a table.
#[must_use]
pub fn table_name(id: u64) -> String {
    format!("{id:016x}.sst")
}

/// The id in a table's name; `None` for any other name.
#[must_use]
pub fn table_id(name: &str) -> Option<u64> {
    hex_id(name.strip_suffix(".sst")?)
}

/// Name of a manifest.
#[must_use]
pub fn manifest_name(id: u64) -> String {
    format!("MANIFEST-{id:06}")
}

/// The id in a manifest's name; `None` for any other name.
#[must_use]
pub fn manifest_id(name: &str) -> Option<u64> {
    let digits = name.strip_prefix("MANIFEST-")?;
    let id = digits.parse().ok()?;
    (manifest_name(id) == name).then_some(id)
}

fn hex_id(digits: &str) -> Option<u64> {
    let id = u64::from_str_radix(digits, 16).ok()?;
    (format!("{id:016x}") == digits).then_some(id)
}

/// Golden files: bytes in hex, `#` starts a comment line.
#[cfg(test)]
pub(crate) mod golden {
    /// The bytes a golden file spells.
    pub(crate) fn bytes(file: &str) -> Vec<u8> {
        file.lines()
            .filter(|line| !line.starts_with('#'))
            .flat_map(str::split_whitespace)
            .map(|word| u8::from_str_radix(word, 16).unwrap())
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip_and_near_misses_are_not_ours() {
        for id in [0, 1, 0xa1, 999_999, 1_000_000, u64::MAX] {
            assert_eq!(segment_id(&segment_name(id)), Some(id));
            assert_eq!(table_id(&table_name(id)), Some(id));
            assert_eq!(manifest_id(&manifest_name(id)), Some(id));
        }
        for name in [
            "a1.wal",
            "+0000000000000a1.wal",
            "00000000000000A1.wal",
            "x.sst",
        ] {
            assert_eq!((segment_id(name), table_id(name)), (None, None), "{name}");
        }
        for name in [
            "MANIFEST-7",
            "MANIFEST-0000007",
            "MANIFEST-",
            "MANIFEST-000007.tmp",
        ] {
            assert_eq!(manifest_id(name), None, "{name}");
        }
        assert_eq!(shard_dir(12), "shards/0012");
        let (path, line) = newborn(12);
        assert_eq!(path, Path::new("shards/0012/CURRENT"));
        assert_eq!(line, b"EMPTY 9f93ff74\n");
    }
}
