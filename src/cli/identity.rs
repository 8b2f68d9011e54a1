//! `NODE`: what a data directory is, written once when it is created.
//!
//! ```text
//! {"format":1,"node_uuid":"9f86d081884c7d659a2feaa0c55ad015","shards":2,"created_ms":1764000000000}\n
//! crc32:1a2b3c4d\n                                 of the first line, its line break included
//! ```
//!
//! The number of shards decides which shard a key lies in, so it is fixed here for the life of the directory:
//! a different `-shards` later is refused, a different number of cores is not (cores only own shards).
//! A directory that holds shards but no NODE is refused: it is a wrong mount or a damaged one, and serving an
//! empty store over it would look like loss. `NODE.bak` has the same bytes; either copy suffices.
//!
//! Order of the first start: a `CURRENT` in every shard's folder, all of them durable, then NODE. So where there
//! is a NODE a shard without CURRENT has lost its files, and does not open; where a crash came first there are
//! newborn shards alone, and the next start makes them anew.

use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::StartError;
use crate::base::limits::SHARDS_MAX;
use crate::rt::early;
use crate::store::format::{CURRENT, TMP_SUFFIX, newborn};

/// Newest layout of a data directory this program reads and writes.
const FORMAT: u32 = 1;

/// Identity of a data directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    pub node_uuid: u128,
    pub shards: u16,
}

#[derive(Serialize, Deserialize)]
struct Line {
    format: u32,
    node_uuid: String,
    shards: u16,
    created_ms: u64,
}

/// Reads the identity of `dir`, or creates one. `wanted`: `-shards`; `cores`: what it is when absent.
/// Call with the directory's lock held.
pub fn open(
    dir: &Path,
    wanted: Option<u16>,
    cores: usize,
    now_ms: u64,
) -> Result<Identity, StartError> {
    let paths = [dir.join("NODE"), dir.join("NODE.bak")];
    let mut damage = None;
    for path in &paths {
        match early::read_small(path) {
            Ok(None) => {}
            Ok(Some(bytes)) => match decode(&bytes) {
                Ok(identity) => return check(dir, identity, wanted),
                Err(why) => damage = Some(format!("{}: {why}", path.display())),
            },
            Err(error) => damage = Some(format!("{}: {error}", path.display())),
        }
    }
    if let Some(damage) = damage {
        return Err(StartError::new(
            damage,
            "restore NODE or NODE.bak of this directory from a backup; they are written once and never change",
        ));
    }
    let shards_dir = dir.join("shards");
    if !is_unborn(&shards_dir).map_err(|error| unreadable(&shards_dir, &error))? {
        return Err(StartError::new(
            format!("{} holds shards but no NODE file", dir.display()),
            "restore its NODE file, or name an empty directory with -dir",
        ));
    }
    let shards =
        wanted.unwrap_or_else(|| u16::try_from(cores).map_or(SHARDS_MAX, |n| n.min(SHARDS_MAX)));
    let identity = Identity {
        node_uuid: u128::from(fastrand::u64(..)) << 64 | u128::from(fastrand::u64(..)),
        shards,
    };
    begin_shards(dir, shards).map_err(|error| unreadable(&shards_dir, &error))?;
    let bytes = encode(identity, now_ms);
    // NODE last: a crash between the two leaves a directory that either copy describes.
    for path in paths.iter().rev() {
        early::replace_small(path, &bytes).map_err(|error| unreadable(path, &error))?;
    }
    Ok(identity)
}

/// Whether nothing but newborn shards is there, whole or half made: what a crash before NODE leaves.
fn is_unborn(shards_dir: &Path) -> io::Result<bool> {
    for shard in early::list(shards_dir)? {
        let folder = shards_dir.join(shard);
        let names = early::list(&folder)?;
        let tmp = format!("{CURRENT}{TMP_SUFFIX}");
        let only_current = names.iter().all(|name| name == CURRENT || *name == tmp);
        let current = early::read_small(&folder.join(CURRENT))?;
        if !only_current || current.is_some_and(|bytes| bytes != newborn(0).1) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Makes every shard, durably but for the name of `shards/` itself: the sync that comes with NODE covers that.
fn begin_shards(dir: &Path, shards: u16) -> io::Result<()> {
    for shard in 0..shards {
        let (path, bytes) = newborn(shard);
        let path = dir.join(path);
        early::create_dir(path.parent().unwrap_or(dir))?;
        early::replace_small(&path, &bytes)?;
    }
    early::sync_dir(&dir.join("shards"))
}

fn unreadable(path: &Path, error: &io::Error) -> StartError {
    StartError::new(
        format!("{}: {error}", path.display()),
        "the data directory must be readable and writable by this user",
    )
}

fn check(dir: &Path, identity: Identity, wanted: Option<u16>) -> Result<Identity, StartError> {
    match wanted {
        Some(wanted) if wanted != identity.shards => Err(StartError::new(
            format!(
                "KVSTORE_SHARDS: {} was created with {} shards, not {wanted}",
                dir.display(),
                identity.shards
            ),
            format!(
                "leave -shards out or set it to {}; the number of cores may change freely",
                identity.shards
            ),
        )),
        _ => Ok(identity),
    }
}

fn encode(identity: Identity, created_ms: u64) -> Vec<u8> {
    let line = Line {
        format: FORMAT,
        node_uuid: format!("{:032x}", identity.node_uuid),
        shards: identity.shards,
        created_ms,
    };
    let mut text = serde_json::to_string(&line).expect("numbers and hex digits are JSON");
    text.push('\n');
    let crc = crc32fast::hash(text.as_bytes());
    text.push_str(&format!("crc32:{crc:08x}\n"));
    text.into_bytes()
}

/// The error says what is wrong with the bytes.
fn decode(bytes: &[u8]) -> Result<Identity, String> {
    let text = std::str::from_utf8(bytes).map_err(|_| "not UTF-8".to_string())?;
    let end = text.find('\n').ok_or("cut short")? + 1;
    let (line, crc) = text.split_at(end);
    if crc != format!("crc32:{:08x}\n", crc32fast::hash(line.as_bytes())) {
        return Err("checksum does not match".to_string());
    }
    let line: Line = serde_json::from_str(line).map_err(|error| error.to_string())?;
    if line.format != FORMAT {
        return Err(format!(
            "written in format {}, this program knows format {FORMAT}",
            line.format
        ));
    }
    if line.shards == 0 || line.shards > SHARDS_MAX {
        return Err(format!("{} shards are impossible", line.shards));
    }
    let node_uuid = u128::from_str_radix(&line.node_uuid, 16).map_err(|error| error.to_string())?;
    Ok(Identity {
        node_uuid,
        shards: line.shards,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn created_once_then_read_back_whatever_the_cores() {
        let dir = tempfile::tempdir().unwrap();
        let made = open(dir.path(), None, 2, 7).unwrap();
        assert_eq!(made.shards, 2);
        assert_eq!(open(dir.path(), None, 8, 8).unwrap(), made);
        assert_eq!(open(dir.path(), Some(2), 1, 8).unwrap(), made);
        let refused = open(dir.path(), Some(3), 1, 8).unwrap_err();
        assert!(
            refused.error.contains("created with 2 shards, not 3"),
            "{refused:?}"
        );
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "the test damages files")]
    fn either_copy_suffices_and_two_bad_ones_refuse() {
        let dir = tempfile::tempdir().unwrap();
        let made = open(dir.path(), Some(5), 2, 7).unwrap();
        std::fs::write(dir.path().join("NODE"), b"").unwrap();
        assert_eq!(open(dir.path(), None, 2, 7).unwrap(), made);
        std::fs::remove_file(dir.path().join("NODE")).unwrap();
        assert_eq!(open(dir.path(), None, 2, 7).unwrap(), made);
        std::fs::write(dir.path().join("NODE.bak"), b"{}\n").unwrap();
        assert!(open(dir.path(), None, 2, 7).is_err());
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "the test makes a directory")]
    fn shards_without_identity_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("shards/0000");
        std::fs::create_dir_all(&folder).unwrap();
        for (name, bytes) in [("CURRENT", "MANIFEST-000001 2c0a2d8c\n"), ("wal", "")] {
            std::fs::write(folder.join(name), bytes).unwrap();
            let refused = open(dir.path(), None, 2, 7).unwrap_err();
            assert!(refused.error.contains("no NODE file"), "{refused:?}");
            std::fs::remove_file(folder.join(name)).unwrap();
        }
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "the test undoes half a start")]
    fn shards_are_made_before_the_identity_and_a_start_that_was_cut_off_is_begun_again() {
        let dir = tempfile::tempdir().unwrap();
        open(dir.path(), Some(3), 2, 7).unwrap();
        let current = |shard| dir.path().join(newborn(shard).0);
        for shard in 0..3 {
            assert_eq!(std::fs::read(current(shard)).unwrap(), newborn(shard).1);
        }
        // As a crash before NODE leaves it: some shards whole, one half made, one not there.
        for name in ["NODE", "NODE.bak"] {
            std::fs::remove_file(dir.path().join(name)).unwrap();
        }
        std::fs::rename(current(1), current(1).with_extension("tmp")).unwrap();
        std::fs::remove_dir_all(dir.path().join("shards/0002")).unwrap();
        open(dir.path(), Some(3), 2, 7).unwrap();
        assert!((0..3).all(|shard| current(shard).exists()));
        // With NODE there, nothing is made any more.
        std::fs::remove_file(current(1)).unwrap();
        open(dir.path(), Some(3), 2, 7).unwrap();
        assert!(!current(1).exists());
    }

    #[test]
    fn every_flipped_bit_is_noticed_and_the_bytes_are_golden() {
        let identity = Identity {
            node_uuid: 0x9f86_d081_884c_7d65_9a2f_eaa0_c55a_d015,
            shards: 2,
        };
        let bytes = encode(identity, 1_764_000_000_000);
        assert_eq!(
            bytes,
            b"{\"format\":1,\"node_uuid\":\"9f86d081884c7d659a2feaa0c55ad015\",\"shards\":2,\"created_ms\":1764000000000}\ncrc32:8228c987\n"
        );
        assert_eq!(decode(&bytes), Ok(identity));
        for at in 0..bytes.len() * 8 {
            let mut bad = bytes.clone();
            bad[at / 8] ^= 1 << (at % 8);
            assert!(decode(&bad).is_err(), "bit {at}");
        }
        for len in 0..bytes.len() {
            assert!(decode(&bytes[..len]).is_err(), "cut at {len}");
        }
    }
}
