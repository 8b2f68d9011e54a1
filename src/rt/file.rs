//! Files: direct I/O in whole pages, explicit syncs, explicit directory syncs.
//!
//! What a crash may take back: every write not followed by a finished [`File::sync`] (or made through
//! [`Mode::WriteDurable`]), and every create, rename or remove not followed by [`Rt::sync_dir`]. The
//! simulated disk takes exactly that back, sector by sector.

use std::io;
use std::ops::{Deref, DerefMut};
use std::path::Path;

use super::{Inner, Rt, either, sim, uring};
use crate::base::limits::DISK_PAGE_BYTES;

/// How a file is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// An existing file, for `read_at` only.
    Read,
    /// A new empty file (an existing one is truncated), for writing and reading.
    Create,
    /// An existing file, for overwriting; each `write_at` is on stable storage when it returns (O_DSYNC).
    /// The bytes written must have been written before (pre-zeroed), or the size change costs a journal commit.
    WriteDurable,
}

/// An open file. Closed when dropped. Operations on one file may overlap; the caller orders what must be ordered.
pub struct File(FileInner);

enum FileInner {
    Uring(uring::File),
    Sim(sim::File),
}

/// A page-aligned, zero-filled buffer for one write. Length is a multiple of [`DISK_PAGE_BYTES`].
pub struct Buf(BufInner);

pub(in crate::rt) enum BufInner {
    Dma(uring::Buf),
    Plain(Vec<u8>),
}

/// A whole file as bytes, for recovery and tools: a memory map in production. Never used while serving
/// (a page fault would stop the core).
pub struct Mapped(MappedInner);

pub(in crate::rt) enum MappedInner {
    Map(uring::Mapped),
    Plain(Vec<u8>),
}

impl Rt {
    /// Opens `path` for direct I/O.
    pub async fn open(&self, path: &Path, mode: Mode) -> io::Result<File> {
        Ok(File(match &self.0 {
            Inner::Uring(core) => FileInner::Uring(core.open(path, mode).await?),
            Inner::Sim(process) => FileInner::Sim(process.open(path, mode).await?),
        }))
    }

    /// Maps an existing file read-only.
    pub async fn map(&self, path: &Path) -> io::Result<Mapped> {
        Ok(Mapped(match &self.0 {
            Inner::Uring(core) => MappedInner::Map(core.map(path).await?),
            Inner::Sim(process) => MappedInner::Plain(process.read_whole(path).await?),
        }))
    }

    /// Reads a small file of any length (identity files, CURRENT, manifests).
    pub async fn read_whole(&self, path: &Path) -> io::Result<Vec<u8>> {
        either!(&self.0, it => it.read_whole(path).await)
    }

    /// Atomically and durably replaces `path`: temporary file beside it, fsync, rename, directory fsync.
    /// After a crash at any point the old or the new bytes are there, whole.
    pub async fn replace(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        either!(&self.0, it => it.replace(path, bytes).await)
    }

    /// Names (not paths) in a directory, sorted.
    pub async fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        either!(&self.0, it => it.list(dir).await)
    }

    /// Creates the directory and its parents, durably. Succeeds when it exists.
    pub async fn create_dir(&self, dir: &Path) -> io::Result<()> {
        either!(&self.0, it => it.create_dir(dir).await)
    }

    /// Renames within one file system, replacing `to`. Durable after `sync_dir` of the parent(s).
    pub async fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        either!(&self.0, it => it.rename(from, to).await)
    }

    /// Unlinks a file. Durable after `sync_dir` of the parent.
    pub async fn remove(&self, path: &Path) -> io::Result<()> {
        either!(&self.0, it => it.remove(path).await)
    }

    /// Makes creates, renames and removes in `dir` durable.
    pub async fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        either!(&self.0, it => it.sync_dir(dir).await)
    }
}

impl File {
    /// Length in bytes: as found at open, grown by writes.
    #[must_use]
    pub fn len(&self) -> u64 {
        match &self.0 {
            FileInner::Uring(file) => file.len(),
            FileInner::Sim(file) => file.len(),
        }
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Exactly `len` bytes from `pos` (any alignment; whole pages are read and the range is copied out).
    /// Fewer bytes in the file: `UnexpectedEof`.
    pub async fn read_at(&self, pos: u64, len: usize) -> io::Result<Vec<u8>> {
        match &self.0 {
            FileInner::Uring(file) => file.read_at(pos, len).await,
            FileInner::Sim(file) => file.read_at(pos, len).await,
        }
    }

    /// A zero-filled buffer of `len` bytes, a multiple of [`DISK_PAGE_BYTES`].
    #[must_use]
    pub fn alloc(&self, len: usize) -> Buf {
        assert!(
            len.is_multiple_of(DISK_PAGE_BYTES) && len > 0,
            "direct I/O writes whole pages, not {len} bytes"
        );
        Buf(match &self.0 {
            FileInner::Uring(file) => BufInner::Dma(file.alloc(len)),
            FileInner::Sim(_) => BufInner::Plain(vec![0; len]),
        })
    }

    /// Writes the whole buffer at page-aligned `pos`. A short write is an error (`StorageFull` when the disk
    /// is full). A write must not be dropped half way when its outcome matters: it may still reach the disk.
    pub async fn write_at(&self, buf: Buf, pos: u64) -> io::Result<()> {
        assert!(
            pos.is_multiple_of(DISK_PAGE_BYTES as u64),
            "direct I/O writes at page boundaries, not at {pos}"
        );
        match (&self.0, buf.0) {
            (FileInner::Uring(file), BufInner::Dma(buf)) => file.write_at(buf, pos).await,
            (FileInner::Sim(file), BufInner::Plain(bytes)) => file.write_at(bytes, pos).await,
            _ => unreachable!("a buffer is written to a file of the backend that allocated it"),
        }
    }

    /// Everything written before is on stable storage when this returns Ok. After an error nothing may be
    /// assumed and the sync must not be retried on this file.
    pub async fn sync(&self) -> io::Result<()> {
        match &self.0 {
            FileInner::Uring(file) => file.sync().await,
            FileInner::Sim(file) => file.sync().await,
        }
    }
}

impl Deref for Buf {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        match &self.0 {
            BufInner::Dma(buf) => buf.as_slice(),
            BufInner::Plain(bytes) => bytes,
        }
    }
}

impl DerefMut for Buf {
    fn deref_mut(&mut self) -> &mut [u8] {
        match &mut self.0 {
            BufInner::Dma(buf) => buf.as_mut_slice(),
            BufInner::Plain(bytes) => bytes,
        }
    }
}

impl Deref for Mapped {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        match &self.0 {
            MappedInner::Map(map) => map.as_slice(),
            MappedInner::Plain(bytes) => bytes,
        }
    }
}
