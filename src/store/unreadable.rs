//! Why a log or an identity file could not be read. One type for the WAL, the manifest and NODE.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// The store does not open. Nothing was modified.
#[derive(Debug)]
pub enum Unreadable {
    /// The disk refused; the bytes may be fine. Start again once it answers.
    Io { file: PathBuf, error: io::Error },
    /// The bytes are damaged, missing or not ours. An operator must decide; starting anyway would lose data.
    Corrupt {
        file: PathBuf,
        offset: u64,
        why: String,
    },
}

impl Unreadable {
    pub(crate) fn corrupt(file: &Path, offset: u64, why: impl Into<String>) -> Unreadable {
        Unreadable::Corrupt {
            file: file.to_path_buf(),
            offset,
            why: why.into(),
        }
    }

    /// The same, told by its path below the data directory `dir`: that names the shard, and is short.
    pub(crate) fn below(mut self, dir: &Path) -> Unreadable {
        let (Unreadable::Io { file, .. } | Unreadable::Corrupt { file, .. }) = &mut self;
        if let Ok(short) = file.strip_prefix(dir) {
            *file = short.to_path_buf();
        }
        self
    }

    /// For `map_err`: an I/O error on `file`.
    pub(crate) fn io(file: &Path) -> impl FnOnce(io::Error) -> Unreadable {
        let file = file.to_path_buf();
        |error| Unreadable::Io { file, error }
    }
}

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unreadable::Io { file, error } => write!(f, "{}: {error}", file.display()),
            Unreadable::Corrupt { file, offset, why } => {
                write!(f, "{} at offset {offset}: {why}", file.display())
            }
        }
    }
}

impl std::error::Error for Unreadable {}
