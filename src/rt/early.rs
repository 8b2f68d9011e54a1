//! Files before the cores start: small, blocking, on the calling thread.
//!
//! Used by the command line only (settings, identity of the data directory). Once cores run, files go through
//! [`super::file`], where nothing blocks.

#![expect(
    clippy::disallowed_methods,
    reason = "the one place above which std::fs must not be named"
)]

use std::fs;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, ToSocketAddrs};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;

/// A file this large is not a settings or identity file.
const SMALL_FILE_BYTES_MAX: u64 = 1 << 20;

/// The whole file, `None` when there is none. Larger than a MiB: `InvalidData`. A pipe, which would make a start
/// wait for somebody to write, is `InvalidInput`; /dev/null is an empty file.
pub fn read_small(path: &Path) -> io::Result<Option<Vec<u8>>> {
    read_within(path, SMALL_FILE_BYTES_MAX)
}

/// The same for a file of at most so many bytes.
pub fn read_within(path: &Path, bytes_max: u64) -> io::Result<Option<Vec<u8>>> {
    let mut how = fs::OpenOptions::new();
    how.read(true).custom_flags(libc::O_NONBLOCK);
    let file = match how.open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let kind = file.metadata()?.file_type();
    if kind.is_fifo() {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "a pipe, not a file",
        ));
    }
    let mut bytes = Vec::new();
    file.take(bytes_max + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > bytes_max {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("larger than {} MiB", bytes_max >> 20),
        ));
    }
    Ok(Some(bytes))
}

/// The addresses of a `host:port`; asks the resolver, so it may take seconds.
pub fn resolve(name: &str) -> io::Result<Vec<SocketAddr>> {
    name.to_socket_addrs().map(Iterator::collect)
}

/// Atomically and durably replaces `path`: temporary file beside it, fsync, rename, fsync of the directory.
pub fn replace_small(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let tmp = path.with_extension("tmp");
    let mut file = fs::File::create(&tmp)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&tmp, path)?;
    // The folder of a bare name is the one we are in.
    let dir = match path.parent() {
        Some(dir) if dir != Path::new("") => dir,
        _ => Path::new("."),
    };
    sync_dir(dir)
}

/// Makes a folder and those above it. Each is durable once its parent is synced.
pub fn create_dir(dir: &Path) -> io::Result<()> {
    fs::create_dir_all(dir)
}

/// Makes the names in a folder durable.
pub fn sync_dir(dir: &Path) -> io::Result<()> {
    fs::File::open(dir)?.sync_all()
}

/// Names in a folder; none when it does not exist.
pub fn list(dir: &Path) -> io::Result<Vec<String>> {
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    entries
        .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_files_round_trip_and_missing_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let nested = dir.path().join("a");
        assert!(list(&nested).unwrap().is_empty());
        create_dir(&nested).unwrap();
        assert!(list(&nested).unwrap().is_empty());
        let path = nested.join("NODE");
        assert_eq!(read_small(&path).unwrap(), None);
        replace_small(&path, b"one").unwrap();
        replace_small(&path, b"two").unwrap();
        assert_eq!(read_small(&path).unwrap().as_deref(), Some(&b"two"[..]));
        assert_eq!(list(&nested).unwrap(), ["NODE"]);
        fs::write(&path, vec![0; (1 << 20) + 1]).unwrap();
        assert_eq!(
            read_small(&path).unwrap_err().kind(),
            io::ErrorKind::InvalidData
        );
    }
}
