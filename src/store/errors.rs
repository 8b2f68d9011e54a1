//! What the errors of the parts become at the public face: one line that names the file.

use std::fmt;

use super::table::TableError;
use super::{OpenError, ReadError};

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.file, self.why)
    }
}

impl From<TableError> for ReadError {
    fn from(error: TableError) -> ReadError {
        match error {
            TableError::Io { file, error } => ReadError {
                file,
                why: error.to_string(),
            },
            TableError::Corrupt { file, offset, why } => ReadError {
                file,
                why: format!("damaged at byte {offset}: {why}"),
            },
        }
    }
}
