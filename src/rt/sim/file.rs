//! File operations of a simulated process: when each begins, how long it takes, what a fault leaves of it.
//!
//! ```text
//! begin: counted, crash point checked, writes enter `flights`   <- a crash from here on tears them
//! a random virtual pause                                         <- other tasks and operations go on
//! end:   the effect takes place
//! ```
//!
//! A future dropped during the pause leaves its write to chance: done, unsynced, or not done at all.

use std::cell::Cell;
use std::future::pending;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::Process;
use super::disk::{Drive, Fault, Flight, Link, Op, parent};
use super::exec::Sleep;
use super::inode::SECTOR_BYTES;
use crate::rt::file::Mode;

/// An open file of one incarnation.
pub(in crate::rt) struct File {
    process: Process,
    link: Link,
    path: PathBuf,
    mode: Mode,
    len: Cell<u64>,
}

/// A write in flight; resolved exactly once, by its end or by its drop.
struct InFlight<'a> {
    process: &'a Process,
    id: u64,
}

impl InFlight<'_> {
    fn land(&self) -> Option<Flight> {
        self.process.drive(|drive| drive.flights.remove(&self.id))
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        // A crash has emptied the table already; then nothing is left to decide.
        let Some(flight) = self.land() else {
            return;
        };
        if self.process.shared.exec.chance(fastrand::Rng::bool) {
            flight.link.borrow_mut().write(flight.pos, &flight.bytes);
        }
    }
}

impl Process {
    fn drive<T>(&self, act: impl FnOnce(&mut Drive) -> T) -> T {
        let mut drives = self.shared.drives.borrow_mut();
        act(drives.entry(self.node).or_default())
    }

    /// Starts an operation. When the node is to crash here, `half` is what the operation may have done by then.
    async fn begin(&self, kind: Op, half: impl FnOnce(&mut Drive)) -> Option<Fault> {
        self.live().await;
        let exec = &self.shared.exec;
        exec.note((kind as u64) << 32 | u64::from(self.node));
        let verdict = self.drive(|drive| drive.begin(kind));
        match verdict {
            Ok(fault) => fault,
            Err(()) => {
                if exec.chance(fastrand::Rng::bool) {
                    self.drive(half);
                }
                self.shared.end(self.node, true);
                pending().await
            }
        }
    }

    /// The time the device takes: mostly microseconds, now and then a stall.
    async fn device(&self) {
        let pause_ns = self.shared.exec.chance(|rng| match rng.u8(..32) {
            0 => rng.u64(1_000_000..20_000_000),
            _ => rng.u64(5_000..200_000),
        });
        Sleep::lasting(&self.shared.exec, Duration::from_nanos(pause_ns)).await;
        self.live().await;
    }

    /// One operation on names: all or nothing.
    async fn name_op<T>(
        &self,
        kind: Op,
        takes_space: bool,
        act: impl Fn(&mut Drive) -> io::Result<T>,
    ) -> io::Result<T> {
        let half = |drive: &mut Drive| drop(act(drive));
        let fault = self.begin(kind, half).await;
        self.device().await;
        match fault.and_then(|fault| fault.error(takes_space)) {
            Some(error) => Err(error),
            None => self.drive(&act),
        }
    }

    pub(in crate::rt) async fn open(&self, path: &Path, mode: Mode) -> io::Result<File> {
        let create = mode == Mode::Create;
        let link = self
            .name_op(Op::Open, create, |drive| match create {
                true => drive.create(path),
                false => drive.find(path),
            })
            .await?;
        let len = link.borrow().seen().len() as u64;
        Ok(File {
            process: self.clone(),
            link,
            path: path.to_path_buf(),
            mode,
            len: Cell::new(len),
        })
    }

    pub(in crate::rt) async fn read_whole(&self, path: &Path) -> io::Result<Vec<u8>> {
        let fault = self.begin(Op::ReadWhole, |_| ()).await;
        self.device().await;
        if let Some(error) = fault.and_then(|fault| fault.error(false)) {
            return Err(error);
        }
        let link = self.drive(|drive| drive.find(path))?;
        let bytes = link.borrow().seen().to_vec();
        Ok(self.damaged(bytes, fault))
    }

    pub(in crate::rt) async fn replace(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let mut name = path.as_os_str().to_owned();
        name.push(".tmp");
        let temporary = PathBuf::from(name);
        let file = self.open(&temporary, Mode::Create).await?;
        file.write_at(bytes.to_vec(), 0).await?;
        file.sync().await?;
        self.rename(&temporary, path).await?;
        self.sync_dir(parent(path)).await
    }

    pub(in crate::rt) async fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        self.name_op(Op::List, false, |drive| drive.list(dir)).await
    }

    pub(in crate::rt) async fn create_dir(&self, dir: &Path) -> io::Result<()> {
        self.name_op(Op::CreateDir, true, |drive| {
            drive.make_dirs(dir);
            Ok(())
        })
        .await
    }

    pub(in crate::rt) async fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.name_op(Op::Rename, false, |drive| drive.rename(from, to))
            .await
    }

    pub(in crate::rt) async fn remove(&self, path: &Path) -> io::Result<()> {
        self.name_op(Op::Remove, false, |drive| drive.remove(path))
            .await
    }

    pub(in crate::rt) async fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let fault = self.begin(Op::SyncDir, |_| ()).await;
        let mark = self.drive(|drive| drive.dir_mark(dir))?;
        self.device().await;
        match fault.and_then(|fault| fault.error(false)) {
            Some(error) => Err(error),
            None => {
                self.drive(|drive| {
                    if !drive.pretends(Op::SyncDir, dir) {
                        drive.sync_dir(dir, mark);
                    }
                });
                Ok(())
            }
        }
    }

    fn damaged(&self, mut bytes: Vec<u8>, fault: Option<Fault>) -> Vec<u8> {
        if fault == Some(Fault::FlipRead) && !bytes.is_empty() {
            let bit = self.shared.exec.chance(|rng| rng.usize(..bytes.len() * 8));
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
        bytes
    }
}

impl File {
    pub(in crate::rt) fn len(&self) -> u64 {
        self.len.get()
    }

    pub(in crate::rt) async fn read_at(&self, pos: u64, len: usize) -> io::Result<Vec<u8>> {
        let fault = self.process.begin(Op::Read, |_| ()).await;
        self.process.device().await;
        if let Some(error) = fault.and_then(|fault| fault.error(false)) {
            return Err(error);
        }
        let found = usize::try_from(pos)
            .ok()
            .and_then(|pos| self.link.borrow().seen().read(pos, len));
        let bytes = found.ok_or(io::ErrorKind::UnexpectedEof)?;
        let chance = |one_in| {
            self.process
                .shared
                .exec
                .chance(|rng| rng.u32(..one_in) == 0)
        };
        let rots = self.process.drive(|drive| drive.rots(&self.path, chance));
        let fault = if rots { Some(Fault::FlipRead) } else { fault };
        Ok(self.process.damaged(bytes, fault))
    }

    pub(in crate::rt) async fn write_at(&self, bytes: Vec<u8>, pos: u64) -> io::Result<()> {
        if self.mode == Mode::Read {
            // EBADF
            return Err(io::Error::from_raw_os_error(9));
        }
        let len = bytes.len();
        let end = pos + len as u64;
        let pos = usize::try_from(pos).map_err(|_| io::ErrorKind::FileTooLarge)?;
        let flight = Flight {
            link: self.link.clone(),
            pos,
            bytes,
        };
        let id = self.process.shared.exec.serial();
        let half = Cell::new(Some(flight));
        let fly = |drive: &mut Drive| {
            if let Some(flight) = half.take() {
                drive.flights.insert(id, flight);
            }
        };
        let fault = self.process.begin(Op::Write, fly).await;
        self.process.drive(fly);
        let flying = InFlight {
            process: &self.process,
            id,
        };
        self.process.device().await;
        let Some(flight) = flying.land() else {
            unreachable!("a living process finds its write where it left it")
        };
        let fits = self.fitting(&flight, fault);
        let bytes = &flight.bytes[..fits];
        match self.mode {
            Mode::WriteDurable if fits == len && !self.pretends(Op::Write) => {
                self.link.borrow_mut().write_through(pos, bytes);
            }
            _ => self.link.borrow_mut().write(pos, bytes),
        }
        if fits < len {
            let error = fault.and_then(|fault| fault.error(true));
            return Err(error.unwrap_or(io::ErrorKind::StorageFull.into()));
        }
        self.len.set(self.len.get().max(end));
        Ok(())
    }

    fn pretends(&self, kind: Op) -> bool {
        self.process.drive(|drive| drive.pretends(kind, &self.path))
    }

    /// How much of a write the device takes, in bytes.
    fn fitting(&self, flight: &Flight, fault: Option<Fault>) -> usize {
        let len = flight.bytes.len();
        let cut = || {
            let sectors = len.div_ceil(SECTOR_BYTES);
            let taken = self.process.shared.exec.chance(|rng| rng.usize(..sectors));
            taken * SECTOR_BYTES
        };
        if fault.is_some_and(|fault| fault.error(true).is_some()) {
            return cut();
        }
        let grown = (flight.pos + len).saturating_sub(flight.link.borrow().seen().len());
        if grown as u64 > self.process.drive(|drive| drive.free_bytes()) {
            return cut();
        }
        len
    }

    pub(in crate::rt) async fn sync(&self) -> io::Result<()> {
        let fault = self.process.begin(Op::Sync, |_| ()).await;
        let mark = self.link.borrow().mark();
        self.process.device().await;
        match fault.and_then(|fault| fault.error(true)) {
            Some(error) => {
                self.link.borrow_mut().abandon(mark);
                Err(error)
            }
            None => {
                if !self.pretends(Op::Sync) {
                    self.link.borrow_mut().sync(mark);
                }
                Ok(())
            }
        }
    }
}
