//! Direct I/O through glommio or, for durable writes, the ring beside it; and the path operations that run on the blocking thread.
//!
//! Traps of glommio 0.9.0 kept out here: `DmaFile::create` opens write-only (its first read probe would fail),
//! `read_at` returns stale bytes behind the end of a file, `file_size` asks by path and is wrong after a
//! rename, `alloc_dma_buffer` returns old memory, `write_at` may be short, `Directory::sync` is fdatasync.
//! Dropping a `DmaFile` queues its close on the ring: no descriptor is leaked.

#![expect(unsafe_code, reason = "fstat on a borrowed descriptor, mmap")]

use std::cell::Cell;
use std::io::{self, Write};
use std::mem::ManuallyDrop;
use std::os::fd::{AsRawFd, FromRawFd};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use glommio::GlommioError;
use glommio::io::{DmaBuffer, DmaFile, OpenOptions};

use super::bus::Watched;
use super::durable::Ring;
use super::turn;
use crate::base::limits::DISK_PAGE_BYTES;
use crate::rt::file::Mode;

const PAGE: u64 = DISK_PAGE_BYTES as u64;

pub(in crate::rt) struct File {
    file: Rc<DmaFile>,
    len: Cell<u64>,
    /// Where writes go that are durable when they return, if they can.
    ring: Option<Rc<Ring>>,
}

pub(in crate::rt) struct Buf(DmaBuffer);

/// A file in memory. While it lives, a page of it that the disk cannot give ends the process with its name.
pub(in crate::rt) struct Mapped {
    map: memmap2::Mmap,
    _watched: Watched,
}

impl File {
    pub(super) async fn open(path: &Path, mode: Mode, ring: Option<&Rc<Ring>>) -> io::Result<File> {
        // glommio unwraps a statfs of the path as given: a relative one depends on the working directory.
        let path = std::path::absolute(path)?;
        let mut how = OpenOptions::new();
        how.read(true);
        match mode {
            Mode::Read => {}
            Mode::Create => {
                how.write(true).create(true).truncate(true);
            }
            Mode::WriteDurable => {
                how.write(true).custom_flags(libc::O_DSYNC);
            }
        }
        let _under_way = turn::queued();
        let opened = how.dma_open(&path).await.map_err(plain);
        let file = opened.map_err(|error| named("open", &path, &error))?;
        let len = Cell::new(length(&file)?);
        Ok(File {
            file: Rc::new(file),
            len,
            ring: ring.filter(|_| mode == Mode::WriteDurable).cloned(),
        })
    }

    pub(in crate::rt) fn len(&self) -> u64 {
        self.len.get()
    }

    pub(in crate::rt) async fn read_at(&self, pos: u64, len: usize) -> io::Result<Vec<u8>> {
        let end = pos
            .checked_add(len as u64)
            .and_then(|end| end.checked_next_multiple_of(PAGE))
            .ok_or(io::ErrorKind::UnexpectedEof)?;
        if len == 0 {
            return Ok(Vec::new());
        }
        let first = pos - pos % PAGE;
        let head = usize::try_from(pos - first).expect("less than a page");
        let span = usize::try_from(end - first).map_err(|_| io::ErrorKind::UnexpectedEof)?;
        let _under_way = turn::queued();
        let pages = self
            .file
            .read_at_aligned(first, span)
            .await
            .map_err(plain)?;
        // Copied: a ReadResult pins a buffer of the small registered pool.
        match pages.get(head..head + len) {
            Some(bytes) => Ok(bytes.to_vec()),
            None => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }

    pub(in crate::rt) fn alloc(&self, len: usize) -> Buf {
        let mut buf = self.file.alloc_dma_buffer(len);
        buf.as_bytes_mut().fill(0);
        Buf(buf)
    }

    pub(in crate::rt) async fn write_at(&self, buf: Buf, pos: u64) -> io::Result<()> {
        let len = buf.0.len();
        let begun = match &self.ring {
            Some(ring) => ring.begin(&self.file, buf.0, pos),
            None => Err(buf.0),
        };
        let count = match begun {
            Ok(writing) => writing.await?,
            Err(buf) => {
                let _under_way = turn::queued();
                self.file.write_at(buf, pos).await.map_err(plain)?
            }
        };
        if count < len {
            // A full disk, or a limit of file sizes. Not repeated for the rest: the caller
            // must not believe that what follows is one write.
            return Err(io::Error::new(
                io::ErrorKind::StorageFull,
                format!("only {count} of {len} bytes written"),
            ));
        }
        self.len.set(self.len.get().max(pos + len as u64));
        Ok(())
    }

    pub(in crate::rt) async fn sync(&self) -> io::Result<()> {
        let _under_way = turn::queued();
        self.file.fdatasync().await.map_err(plain)
    }
}

impl Buf {
    pub(in crate::rt) fn as_slice(&self) -> &[u8] {
        self.0.as_bytes()
    }

    pub(in crate::rt) fn as_mut_slice(&mut self) -> &mut [u8] {
        self.0.as_bytes_mut()
    }
}

impl Mapped {
    #[expect(clippy::disallowed_methods, reason = "files are rt's business")]
    pub(super) fn open(path: &Path) -> io::Result<Mapped> {
        let file = std::fs::File::open(path).map_err(|error| named("open", path, &error))?;
        let watched = Watched::begin(path);
        // SAFETY: the folder is locked by this process (locks.rs) and a file is mapped only in recovery, before
        // anything writes to it or truncates it; the map outlives the descriptor by design of mmap.
        let map = unsafe { memmap2::Mmap::map(&file) }?;
        // Read from one end to the other, and not again.
        map.advise(memmap2::Advice::Sequential).unwrap_or_default();
        Ok(Mapped {
            map,
            _watched: watched,
        })
    }

    pub(in crate::rt) fn as_slice(&self) -> &[u8] {
        &self.map
    }
}

fn length(file: &DmaFile) -> io::Result<u64> {
    // SAFETY: the descriptor is open for as long as `file` lives; ManuallyDrop leaves closing it to `file`.
    let borrowed = ManuallyDrop::new(unsafe { std::fs::File::from_raw_fd(file.as_raw_fd()) });
    Ok(borrowed.metadata()?.len())
}

/// What the system said, and nothing of the library's own words: the callers know the file.
fn plain(error: GlommioError<()>) -> io::Error {
    match error {
        GlommioError::IoError(source) | GlommioError::EnhancedIoError { source, .. } => source,
        other => io::Error::from(other),
    }
}

fn named(what: &str, path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{what} {}: {error}", path.display()))
}

#[expect(clippy::disallowed_methods, reason = "files are rt's business")]
pub(super) fn read_whole(path: &Path) -> io::Result<Vec<u8>> {
    std::fs::read(path).map_err(|error| named("read", path, &error))
}

#[expect(clippy::disallowed_methods, reason = "files are rt's business")]
pub(super) fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".tmp");
    let beside = PathBuf::from(beside);
    let write = || {
        let mut file = std::fs::File::create(&beside)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        std::fs::rename(&beside, path)
    };
    write().map_err(|error| named("replace", path, &error))?;
    sync_dir(parent(path))
}

#[expect(clippy::disallowed_methods, reason = "files are rt's business")]
pub(super) fn list(dir: &Path) -> io::Result<Vec<String>> {
    let entries = std::fs::read_dir(dir).map_err(|error| named("list", dir, &error))?;
    let mut names = entries
        .map(|entry| entry.map(|entry| entry.file_name().to_string_lossy().into_owned()))
        .collect::<io::Result<Vec<_>>>()?;
    names.sort_unstable();
    Ok(names)
}

/// Each directory made is synced into its parent before the next one is made in it.
pub(super) fn create_dir(dir: &Path) -> io::Result<()> {
    if dir.is_dir() {
        return Ok(());
    }
    let above = parent(dir);
    if above != dir {
        create_dir(above)?;
    }
    match std::fs::create_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && !dir.is_dir() => {
            let error = io::ErrorKind::NotADirectory.into();
            Err(named("create", dir, &error))
        }
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            Err(named("create", dir, &error))
        }
        _ => sync_dir(above),
    }
}

#[expect(clippy::disallowed_methods, reason = "files are rt's business")]
pub(super) fn rename(from: &Path, to: &Path) -> io::Result<()> {
    std::fs::rename(from, to).map_err(|error| named("rename", from, &error))
}

#[expect(clippy::disallowed_methods, reason = "files are rt's business")]
pub(super) fn remove(path: &Path) -> io::Result<()> {
    std::fs::remove_file(path).map_err(|error| named("remove", path, &error))
}

/// fsync, not fdatasync: POSIX does not promise that the latter makes directory entries durable.
#[expect(clippy::disallowed_methods, reason = "files are rt's business")]
pub(super) fn sync_dir(dir: &Path) -> io::Result<()> {
    std::fs::File::open(dir)
        .and_then(|dir| dir.sync_all())
        .map_err(|error| named("sync", dir, &error))
}

fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(dir) if dir.as_os_str().is_empty() => Path::new("."),
        Some(dir) => dir,
        None => path,
    }
}
