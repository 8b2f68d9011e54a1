//! What the errors of the parts become at the public face: one line that names the file.

use std::fmt;
use std::io;
use std::path::Path;

use super::table::TableError;
use super::unreadable::Unreadable;
use super::{OpenError, ReadError};

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<TableError> for OpenError {
    fn from(error: TableError) -> OpenError {
        let kind = match &error {
            TableError::Io(error) => Some(error.kind()),
            TableError::Corrupt { .. } => None,
        };
        OpenError(error.to_string(), kind)
    }
}

impl From<TableError> for ReadError {
    fn from(error: TableError) -> ReadError {
        ReadError(error.to_string())
    }
}

impl From<Unreadable> for OpenError {
    fn from(error: Unreadable) -> OpenError {
        let kind = match &error {
            Unreadable::Io { error, .. } => Some(error.kind()),
            Unreadable::Corrupt { .. } => None,
        };
        OpenError(error.to_string(), kind)
    }
}

impl OpenError {
    /// For `map_err`: an I/O error at `path`.
    pub(crate) fn io(path: &Path) -> impl FnOnce(io::Error) -> OpenError {
        move |error| OpenError(format!("{}: {error}", path.display()), Some(error.kind()))
    }
}
