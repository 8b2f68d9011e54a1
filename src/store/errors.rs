//! What the errors of the parts become at the public face: one line that names the file.

use std::fmt;

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
        OpenError(error.to_string())
    }
}

impl From<TableError> for ReadError {
    fn from(error: TableError) -> ReadError {
        ReadError(error.to_string())
    }
}

impl From<Unreadable> for OpenError {
    fn from(error: Unreadable) -> OpenError {
        OpenError(error.to_string())
    }
}
