//! `NODE`: what a data directory is, written once when it is created.
//!
//! ```text
//! {"format":1,"node_uuid":"9f86d081884c7d659a2feaa0c55ad015","shards":2,"created_ms":1764000000000}\n
//! crc32:1a2b3c4d\n                                 see base/sealed.rs
//! ```
//!
//! The number of shards decides which shard a key lies in, so it is fixed here for the life of the directory:
//! a different `-shards` later is refused, a different number of cores is not (cores only own shards).
//! A directory that holds shards but no NODE is refused: it is a wrong mount or a damaged one, and serving an
//! empty store over it would look like loss. `NODE.bak` has the same bytes; either copy suffices, and a bad one is
//! written anew from the other.
//!
//! Order of the first start: a `CURRENT` in every shard's folder, all of them durable, then NODE. So where there
//! is a NODE a shard without CURRENT has lost its files, and does not open; where a crash came first there are
//! newborn shards alone, and the next start makes them anew.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::StartError;
use super::settings::Source;
use crate::base::limits::SHARDS_MAX;
use crate::base::sealed;
use crate::rt::early;
use crate::rt::uring::remedy;
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

/// What [`open`] found.
#[derive(Debug, PartialEq, Eq)]
pub struct Found {
    pub identity: Identity,
    /// The directory had none: it is new.
    pub created: bool,
    /// A copy was damaged or missing, and what was done about it.
    pub warning: Option<String>,
}

/// Why one copy is of no use.
#[derive(Debug, PartialEq, Eq)]
enum Bad {
    Absent,
    Useless(sealed::Bad),
    Unreadable(io::ErrorKind, String),
}

/// Reads the identity of `dir`, or creates one. `wanted`: `-shards` and where it was read; `cores`: what it is when
/// absent. Call with the directory's lock held.
pub fn open(
    dir: &Path,
    wanted: Option<(u16, Source)>,
    cores: usize,
    now_ms: u64,
) -> Result<Found, StartError> {
    let paths = [dir.join("NODE"), dir.join("NODE.bak")];
    let [one, two] = paths.each_ref().map(|path| read(path));
    let (identity, warning) = match (one, two) {
        (Ok((one, _)), Ok((two, _))) if one != two => {
            return Err(StartError::new(
                format!(
                    "{} and {} are of different nodes",
                    paths[0].display(),
                    paths[1].display()
                ),
                "one of them was copied here: remove that one",
            ));
        }
        (Ok((identity, _)), Ok(_)) => (identity, None),
        (Ok((identity, bytes)), Err(bad)) => {
            (identity, Some(repair(&bad, &paths[1], &paths[0], &bytes)))
        }
        (Err(bad), Ok((identity, bytes))) => {
            (identity, Some(repair(&bad, &paths[0], &paths[1], &bytes)))
        }
        (Err(Bad::Absent), Err(Bad::Absent)) => {
            let shards = wanted.map(|(shards, _)| shards);
            return create(dir, &paths, shards, cores, now_ms);
        }
        (Err(one), Err(two)) => return Err(none_is_good(&paths, &one, &two)),
    };
    check(dir, identity, wanted)?;
    Ok(Found {
        identity,
        created: false,
        warning,
    })
}

fn create(
    dir: &Path,
    paths: &[PathBuf],
    wanted: Option<u16>,
    cores: usize,
    now_ms: u64,
) -> Result<Found, StartError> {
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
    Ok(Found {
        identity,
        created: true,
        warning: None,
    })
}

/// One copy: what it says, and its bytes.
fn read(path: &Path) -> Result<(Identity, Vec<u8>), Bad> {
    match early::read_small(path) {
        Ok(Some(bytes)) => decode(&bytes).map(|identity| (identity, bytes)),
        Ok(None) => Err(Bad::Absent),
        Err(error) => Err(Bad::Unreadable(error.kind(), error.to_string())),
    }
}

/// Writes the good copy over the bad one. A failure is no reason not to start: one copy suffices.
fn repair(bad: &Bad, path: &Path, good: &Path, bytes: &[u8]) -> String {
    let done = match early::replace_small(path, bytes) {
        Ok(()) => "written anew".to_string(),
        Err(error) => format!("and cannot be written anew ({error})"),
    };
    format!("{}: {bad}; {done} from {}", path.display(), good.display())
}

fn none_is_good(paths: &[PathBuf; 2], one: &Bad, two: &Bad) -> StartError {
    let error = format!(
        "{}: {one}; {}: {two}",
        paths[0].display(),
        paths[1].display()
    );
    let hint = match (one, two) {
        (Bad::Useless(sealed::Bad::Newer { .. }), _)
        | (_, Bad::Useless(sealed::Bad::Newer { .. })) => {
            "use a newer kvstore for this directory; it is left as it is"
        }
        (Bad::Unreadable(kind, _), _) | (_, Bad::Unreadable(kind, _)) => remedy(*kind),
        _ => {
            "restore NODE or NODE.bak of this directory from a backup; they are written once and never change"
        }
    };
    StartError::new(error, hint)
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
    StartError::new(format!("{}: {error}", path.display()), remedy(error.kind()))
}

fn check(dir: &Path, identity: Identity, wanted: Option<(u16, Source)>) -> Result<(), StartError> {
    let shards = identity.shards;
    match wanted {
        Some((wanted, source)) if wanted != shards => Err(StartError::new(
            format!(
                "KVSTORE_SHARDS ({source}): {} was created with {shards} {}, not {wanted}",
                dir.display(),
                if shards == 1 { "shard" } else { "shards" }
            ),
            format!(
                "leave KVSTORE_SHARDS and -shards out, or say {shards}; the number of cores may change freely"
            ),
        )),
        _ => Ok(()),
    }
}

fn encode(identity: Identity, created_ms: u64) -> Vec<u8> {
    let line = Line {
        format: FORMAT,
        node_uuid: format!("{:032x}", identity.node_uuid),
        shards: identity.shards,
        created_ms,
    };
    sealed::encode(&line)
}

fn decode(bytes: &[u8]) -> Result<Identity, Bad> {
    let line: Line = sealed::decode(bytes, FORMAT).map_err(Bad::Useless)?;
    let damaged = |why: String| Bad::Useless(sealed::Bad::Damaged(why));
    if line.shards == 0 || line.shards > SHARDS_MAX {
        return Err(damaged(format!("{} shards are impossible", line.shards)));
    }
    let node_uuid =
        u128::from_str_radix(&line.node_uuid, 16).map_err(|error| damaged(error.to_string()))?;
    Ok(Identity {
        node_uuid,
        shards: line.shards,
    })
}

impl fmt::Display for Bad {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Bad::Absent => f.write_str("missing"),
            Bad::Useless(bad @ sealed::Bad::Damaged(_)) => write!(f, "damaged: {bad}"),
            Bad::Useless(bad @ sealed::Bad::Newer { .. }) => write!(f, "{bad}"),
            Bad::Unreadable(_, why) => write!(f, "cannot be read: {why}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn created_once_then_read_back_whatever_the_cores() {
        let dir = tempfile::tempdir().unwrap();
        let made = open(dir.path(), None, 1, 7).unwrap();
        assert_eq!((made.identity.shards, made.created), (1, true));
        let again = open(dir.path(), Some((1, Source::Environment)), 8, 8).unwrap();
        assert_eq!(
            (again.identity, again.created, again.warning),
            (made.identity, false, None)
        );
        let refused = open(dir.path(), Some((3, Source::Environment)), 1, 8).unwrap_err();
        assert!(
            refused.error.starts_with("KVSTORE_SHARDS (environment): "),
            "{refused:?}"
        );
        assert!(
            refused.error.contains("created with 1 shard, not 3"),
            "{refused:?}"
        );
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "the test damages files")]
    fn either_copy_suffices_and_the_other_is_repaired() {
        let dir = tempfile::tempdir().unwrap();
        let made = open(dir.path(), Some((5, Source::Default)), 2, 7).unwrap();
        let copies = ["NODE", "NODE.bak"].map(|name| dir.path().join(name));
        let bytes = std::fs::read(&copies[0]).unwrap();
        let damages: [fn(&Path); 2] = [
            |path| std::fs::write(path, b"").unwrap(),
            |path| std::fs::remove_file(path).unwrap(),
        ];
        for copy in &copies {
            for damage in damages {
                damage(copy);
                let found = open(dir.path(), None, 2, 7).unwrap();
                assert_eq!(found.identity, made.identity);
                let warning = found.warning.expect("somebody must hear of it");
                assert!(
                    warning.starts_with(&format!("{}: ", copy.display())),
                    "{warning}"
                );
                assert_eq!(std::fs::read(copy).unwrap(), bytes, "{warning}");
                assert_eq!(open(dir.path(), None, 2, 7).unwrap().warning, None);
            }
        }
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "the test damages files")]
    fn two_bad_copies_are_both_named_and_the_hint_fits() {
        let dir = tempfile::tempdir().unwrap();
        let copies = ["NODE", "NODE.bak"].map(|name| dir.path().join(name));
        let sealed = |line: &str| format!("{line}crc32:{:08x}\n", crc32fast::hash(line.as_bytes()));
        let newer = sealed("{\"format\":2,\"name\":\"x\"}\n");
        for (one, two, error, hint) in [
            ("{}\n", "", "checksum does not match", "from a backup"),
            (&newer, &newer, "written in format 2", "a newer kvstore"),
        ] {
            for (path, text) in copies.iter().zip([one, two]) {
                std::fs::write(path, text).unwrap();
            }
            let refused = open(dir.path(), None, 2, 7).unwrap_err();
            for path in &copies {
                let named = format!("{}: ", path.display());
                assert!(refused.error.contains(&named), "{refused:?}");
            }
            assert!(refused.error.contains(error), "{refused:?}");
            assert!(refused.hint.contains(hint), "{refused:?}");
            assert_eq!(std::fs::read(&copies[0]).unwrap(), one.as_bytes());
        }
        let other = |node_uuid| {
            encode(
                Identity {
                    node_uuid,
                    shards: 2,
                },
                7,
            )
        };
        for (path, node_uuid) in copies.iter().zip([1, 2]) {
            std::fs::write(path, other(node_uuid)).unwrap();
        }
        let refused = open(dir.path(), None, 2, 7).unwrap_err();
        assert!(refused.error.contains("different nodes"), "{refused:?}");
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
        open(dir.path(), Some((3, Source::Default)), 2, 7).unwrap();
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
        open(dir.path(), Some((3, Source::Default)), 2, 7).unwrap();
        assert!((0..3).all(|shard| current(shard).exists()));
        // With NODE there, nothing is made any more.
        std::fs::remove_file(current(1)).unwrap();
        open(dir.path(), Some((3, Source::Default)), 2, 7).unwrap();
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
