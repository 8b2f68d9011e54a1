//! One node's drive, and the fault model.
//!
//! What a power loss (`World::crash`, [`Disk::crash_at`]) does, all at once and drawn from the seed:
//! - Each 512-byte sector written since the last sync of its file is, independently, as before, as one of the
//!   writes left it, or (in some crashes) zeroes or garbage. So is each sector of a write still in flight,
//!   durable or not. Sectors are never split.
//! - A file that grew since its last sync has its old length, its new one, or one between.
//! - A file truncated since its last sync is truncated or back as it was.
//! - Each create, rename and remove since the last directory sync of its parent is kept or lost: all, none, a
//!   prefix in the order they were made, or any subset. A lost rename leaves the old name; two renames never mix.
//! - Some crashes lose everything unsynced and some lose nothing: both extremes are drawn often.
//!
//! What always holds: bytes covered by a sync (or durable write) that returned `Ok` stay until overwritten; so do
//! names covered by a directory sync; `create_dir` is durable when it returns. A SIGKILL (`World::kill`) loses
//! only writes in flight.
//!
//! Faults by operation number (every await on the disk is one operation, `replace` is five, numbered from 0 over
//! the drive's whole life): [`Disk::crash_at`] stops the node dead there, the operation half done;
//! [`Disk::fail_at`] and [`Disk::fail_from`] answer with an error after doing part of it, or flip a bit of what is
//! read. After a failed sync the bytes it covered are lost to every later sync, though still seen by reads.
//! [`Disk::rot_reads`] flips a bit in some reads of some files, without an end. Beyond [`Disk::set_capacity`] bytes writes are `StorageFull`, after writing what fits.
//!
//! [`Disk::lie`] makes syncs of some paths do nothing and say that they did. It stands for a forgotten sync in the
//! code under test: tests show that every sync the code makes is one it needs.
//!
//! Not modelled: writes to the wrong place, decay at rest (tests use [`Disk::flip`]).

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use super::Shared;
use super::inode::{Inode, Loss};

pub(super) type Link = Rc<RefCell<Inode>>;

/// One kind of operation on a drive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    Open,
    ReadWhole,
    List,
    CreateDir,
    Rename,
    Remove,
    SyncDir,
    Read,
    Write,
    Sync,
}

/// What goes wrong with one operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The device reports an error; a write may have been done in part.
    Io,
    /// No space is left; a write is done in part. Operations that need no space succeed.
    Full,
    /// One bit of the bytes read is wrong, this once.
    FlipRead,
}

impl Fault {
    /// The error an operation reports, `None` when this fault does not concern it.
    pub(super) fn error(self, takes_space: bool) -> Option<io::Error> {
        match self {
            // EIO
            Fault::Io => Some(io::Error::from_raw_os_error(5)),
            Fault::Full => takes_space.then(|| io::ErrorKind::StorageFull.into()),
            Fault::FlipRead => None,
        }
    }
}

/// A handle on one node's drive, for tests: everything here happens at once and takes no virtual time.
pub struct Disk {
    shared: Rc<Shared>,
    node: u16,
}

impl Disk {
    pub(super) fn new(shared: Rc<Shared>, node: u16) -> Disk {
        Disk { shared, node }
    }

    fn with<T>(&self, act: impl FnOnce(&mut Drive) -> T) -> T {
        let mut drives = self.shared.drives.borrow_mut();
        act(drives.entry(self.node).or_default())
    }

    /// Operations begun so far, over all incarnations.
    #[must_use]
    pub fn ops(&self) -> u64 {
        self.with(|drive| drive.log.len() as u64)
    }

    /// The kinds of those operations, in order: to choose where to hurt.
    #[must_use]
    pub fn log(&self) -> Vec<Op> {
        self.with(|drive| drive.log.clone())
    }

    /// Stops the node dead at operation number `op`.
    pub fn crash_at(&self, op: u64) {
        self.with(|drive| drive.crash_at = Some(op));
    }

    /// Operation number `op` fails.
    pub fn fail_at(&self, op: u64, fault: Fault) {
        self.with(|drive| drive.faults.insert(op, fault));
    }

    /// Operation number `op` and every later one fails.
    pub fn fail_from(&self, op: u64, fault: Fault) {
        self.with(|drive| drive.fail_from = Some((op, fault)));
    }

    /// From now on a `Sync` or `SyncDir` of a path that contains `part` (`$` is its end) does nothing, and a durable
    /// `Write` to it is an ordinary one.
    pub fn lie(&self, kind: Op, part: &str) {
        self.with(|drive| drive.lies.push((kind, part.to_owned())));
    }

    /// From now on one in so many reads of files whose path contains `part` has a wrong bit.
    pub fn rot_reads(&self, part: &str, one_in: u32) {
        self.with(|drive| drive.rot = Some((part.to_owned(), one_in)));
    }

    /// Reads are what was written, but for single faults asked for.
    pub fn end_rot(&self) {
        self.with(|drive| drive.rot = None);
    }

    /// Reads that had a wrong bit because of [`Disk::rot_reads`].
    #[must_use]
    pub fn rotten_reads(&self) -> u64 {
        self.with(|drive| drive.rotten_reads)
    }

    /// Forgets every crash and failure asked for (lies go on); the capacity becomes unlimited.
    pub fn heal(&self) {
        self.with(|drive| {
            drive.crash_at = None;
            drive.faults.clear();
            drive.fail_from = None;
            drive.rot = None;
            drive.capacity_bytes = None;
        });
    }

    /// Bytes the drive can hold in all its files.
    pub fn set_capacity(&self, bytes: u64) {
        self.with(|drive| drive.capacity_bytes = Some(bytes));
    }

    /// Every file as processes see it, with its length in bytes, sorted by path.
    #[must_use]
    pub fn files(&self) -> Vec<(PathBuf, u64)> {
        self.with(|drive| {
            let sized =
                |(path, link): (&PathBuf, &Link)| (path.clone(), link.borrow().seen().len() as u64);
            drive.names.iter().map(sized).collect()
        })
    }

    /// The bytes of a file as processes see it.
    #[must_use]
    pub fn read(&self, path: &Path) -> Option<Vec<u8>> {
        self.with(|drive| Some(drive.names.get(path)?.borrow().seen().to_vec()))
    }

    /// The bytes of a file that a total loss of everything unsynced would leave.
    #[must_use]
    pub fn read_durable(&self, path: &Path) -> Option<Vec<u8>> {
        self.with(|drive| Some(drive.kept.get(path)?.borrow().kept().to_vec()))
    }

    /// Stores a file, durably, with its directory.
    pub fn write(&self, path: &Path, bytes: &[u8]) {
        self.with(|drive| {
            drive.make_dirs(parent(path));
            let link: Link = Rc::new(RefCell::new(Inode::stored(bytes)));
            drive.names.insert(path.to_path_buf(), Rc::clone(&link));
            drive.kept.insert(path.to_path_buf(), link);
        });
    }

    /// Inverts the bits of `mask` in one stored byte, durably. False when there is no such byte.
    pub fn flip(&self, path: &Path, pos: u64, mask: u8) -> bool {
        self.with(|drive| {
            let Some(link) = drive.names.get(path) else {
                return false;
            };
            let mut bytes = link.borrow().seen().to_vec();
            let byte = usize::try_from(pos).ok().and_then(|pos| bytes.get_mut(pos));
            let Some(byte) = byte else {
                return false;
            };
            *byte ^= mask;
            link.replace(Inode::stored(&bytes));
            true
        })
    }

    /// Removes a file, durably. False when there is none.
    pub fn remove(&self, path: &Path) -> bool {
        self.with(|drive| {
            drive.kept.remove(path);
            drive.names.remove(path).is_some()
        })
    }
}

/// The drive itself. Outlives the processes of its node.
#[derive(Default)]
pub(super) struct Drive {
    /// Names as processes see them.
    pub(super) names: BTreeMap<PathBuf, Link>,
    /// Names on stable storage.
    kept: BTreeMap<PathBuf, Link>,
    /// Name changes not yet on stable storage, oldest first.
    changes: Vec<Change>,
    stamp: u64,
    pub(super) dirs: BTreeSet<PathBuf>,
    /// Writes begun and not finished.
    pub(super) flights: BTreeMap<u64, Flight>,
    /// Operations begun, oldest first.
    log: Vec<Op>,
    crash_at: Option<u64>,
    faults: BTreeMap<u64, Fault>,
    fail_from: Option<(u64, Fault)>,
    pub(super) capacity_bytes: Option<u64>,
    lies: Vec<(Op, String)>,
    /// Part of a path, and one in how many reads of such files is wrong.
    rot: Option<(String, u32)>,
    rotten_reads: u64,
}

pub(super) struct Flight {
    pub(super) link: Link,
    pub(super) pos: usize,
    pub(super) bytes: Vec<u8>,
}

struct Change {
    dir: PathBuf,
    stamp: u64,
    act: Act,
}

enum Act {
    Link {
        path: PathBuf,
        link: Link,
    },
    Unlink {
        path: PathBuf,
        link: Link,
    },
    Rename {
        from: PathBuf,
        to: PathBuf,
        link: Link,
    },
}

pub(super) fn parent(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new(""))
}

fn not_found() -> io::Error {
    io::ErrorKind::NotFound.into()
}

impl Drive {
    /// Counts an operation and says what happens to it: `Err` is the crash asked for.
    pub(super) fn begin(&mut self, kind: Op) -> Result<Option<Fault>, ()> {
        let op = self.log.len() as u64;
        self.log.push(kind);
        if self.crash_at == Some(op) {
            self.crash_at = None;
            return Err(());
        }
        let lasting = self.fail_from.filter(|(from, _)| *from <= op);
        Ok(self.faults.remove(&op).or(lasting.map(|(_, fault)| fault)))
    }

    /// Whether this operation on `path` is one that only pretends.
    pub(super) fn pretends(&self, kind: Op, path: &Path) -> bool {
        let path = format!("{}$", path.display());
        let mut lies = self.lies.iter();
        lies.any(|(of, part)| *of == kind && path.contains(part.as_str()))
    }

    /// Whether this read of `path` has a wrong bit.
    pub(super) fn rots(&mut self, path: &Path, chance: impl FnOnce(u32) -> bool) -> bool {
        let Some((part, one_in)) = &self.rot else {
            return false;
        };
        let rots = path.to_string_lossy().contains(part.as_str()) && chance(*one_in);
        self.rotten_reads += u64::from(rots);
        rots
    }

    /// Bytes by which files may still grow.
    pub(super) fn free_bytes(&self) -> u64 {
        let Some(capacity) = self.capacity_bytes else {
            return u64::MAX;
        };
        let used: usize = self
            .names
            .values()
            .map(|link| link.borrow().seen().len())
            .sum();
        capacity.saturating_sub(used as u64)
    }

    fn has_dir(&self, dir: &Path) -> bool {
        dir == Path::new("") || dir == Path::new("/") || self.dirs.contains(dir)
    }

    pub(super) fn make_dirs(&mut self, dir: &Path) {
        for ancestor in dir.ancestors() {
            self.dirs.insert(ancestor.to_path_buf());
        }
    }

    /// Names in a directory, sorted.
    pub(super) fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        if !self.has_dir(dir) {
            return Err(not_found());
        }
        let paths = self.names.keys().chain(self.dirs.iter());
        let inside = paths.filter(|path| path.parent() == Some(dir));
        let names: BTreeSet<String> = inside
            .filter_map(|path| Some(path.file_name()?.to_str()?.to_owned()))
            .collect();
        Ok(names.into_iter().collect())
    }

    pub(super) fn find(&self, path: &Path) -> io::Result<Link> {
        self.names.get(path).cloned().ok_or_else(not_found)
    }

    pub(super) fn create(&mut self, path: &Path) -> io::Result<Link> {
        if let Some(link) = self.names.get(path) {
            link.borrow_mut().truncate();
            return Ok(Rc::clone(link));
        }
        if !self.has_dir(parent(path)) {
            return Err(not_found());
        }
        let link = Link::default();
        self.names.insert(path.to_path_buf(), Rc::clone(&link));
        self.change(
            parent(path),
            Act::Link {
                path: path.to_path_buf(),
                link: Rc::clone(&link),
            },
        );
        Ok(link)
    }

    pub(super) fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        if !self.has_dir(parent(to)) {
            return Err(not_found());
        }
        let link = self.names.remove(from).ok_or_else(not_found)?;
        self.names.insert(to.to_path_buf(), Rc::clone(&link));
        self.change(
            parent(to),
            Act::Rename {
                from: from.to_path_buf(),
                to: to.to_path_buf(),
                link,
            },
        );
        Ok(())
    }

    pub(super) fn remove(&mut self, path: &Path) -> io::Result<()> {
        let link = self.names.remove(path).ok_or_else(not_found)?;
        self.change(
            parent(path),
            Act::Unlink {
                path: path.to_path_buf(),
                link,
            },
        );
        Ok(())
    }

    fn change(&mut self, dir: &Path, act: Act) {
        self.stamp += 1;
        self.changes.push(Change {
            dir: dir.to_path_buf(),
            stamp: self.stamp,
            act,
        });
    }

    /// The point up to which a directory sync that begins now will reach.
    pub(super) fn dir_mark(&self, dir: &Path) -> io::Result<u64> {
        self.has_dir(dir)
            .then_some(self.stamp)
            .ok_or_else(not_found)
    }

    pub(super) fn sync_dir(&mut self, dir: &Path, mark: u64) {
        for change in std::mem::take(&mut self.changes) {
            if change.dir == dir && change.stamp <= mark {
                self.keep(change.act);
            } else {
                self.changes.push(change);
            }
        }
    }

    /// Puts one name change on stable storage.
    fn keep(&mut self, act: Act) {
        match act {
            Act::Link { path, link } => {
                self.kept.insert(path, link);
            }
            Act::Unlink { path, link } => self.unkeep(&path, &link),
            Act::Rename { from, to, link } => {
                self.unkeep(&from, &link);
                self.kept.insert(to, link);
            }
        }
    }

    fn unkeep(&mut self, path: &Path, link: &Link) {
        if self
            .kept
            .get(path)
            .is_some_and(|kept| Rc::ptr_eq(kept, link))
        {
            self.kept.remove(path);
        }
    }

    /// The processes using this drive are gone; with the power, so is what was not synced.
    pub(super) fn end(&mut self, power_lost: bool, rng: &mut fastrand::Rng) {
        for flight in std::mem::take(&mut self.flights).into_values() {
            if power_lost || rng.bool() {
                flight.link.borrow_mut().write(flight.pos, &flight.bytes);
            }
        }
        if !power_lost {
            return;
        }
        let loss = Loss::draw(rng);
        let changes = std::mem::take(&mut self.changes);
        let prefix = rng.bool().then(|| rng.usize(..=changes.len()));
        for (index, change) in changes.into_iter().enumerate() {
            let kept = match (loss, prefix) {
                (Loss::Mixed | Loss::Torn, Some(prefix)) => index < prefix,
                _ => loss.spares(rng),
            };
            if kept {
                self.keep(change.act);
            }
        }
        for link in self.kept.values() {
            link.borrow_mut().tear(loss, rng);
        }
        self.names = self.kept.clone();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::rt::Rt;
    use crate::rt::file::{File, Mode};
    use crate::rt::sim::{Crashed, World};

    const SEEDS: u64 = 400;
    const PAGE: usize = 4096;

    async fn fill(file: &File, pos: u64, byte: u8) -> io::Result<()> {
        let mut buf = file.alloc(PAGE);
        buf.fill(byte);
        file.write_at(buf, pos).await
    }

    /// A world with `/d/old` of two synced pages of 1s.
    fn prepared(seed: u64) -> (World, Rt) {
        let world = World::new(seed);
        world.disk(1).write(Path::new("/d/old"), &[1; 2 * PAGE]);
        let rt = world.boot(1, 1).remove(0);
        (world, rt)
    }

    /// How often each outcome came up over all seeds.
    fn tally(outcome: impl Fn(u64) -> &'static str) -> BTreeMap<&'static str, u64> {
        let mut counts = BTreeMap::new();
        for seed in 0..SEEDS {
            *counts.entry(outcome(seed)).or_default() += 1;
        }
        counts
    }

    fn crashed(world: &World, rt: &Rt, work: impl Future<Output = ()>) {
        world.run(rt, work);
        world.crash(1);
    }

    /// Which of the bytes a sector may hold this one does.
    fn kind(sector: &[u8]) -> &'static str {
        match sector[0] {
            byte if sector.iter().any(|other| *other != byte) => "garbage",
            0 => "zero",
            1 => "old",
            2 => "new",
            _ => "alien",
        }
    }

    #[test]
    fn unsynced_sectors_are_old_new_zero_or_garbage_and_synced_ones_stay() {
        let mut seen = BTreeSet::new();
        for seed in 0..SEEDS {
            let (world, rt) = prepared(seed);
            crashed(&world, &rt, async {
                let file = rt
                    .open(Path::new("/d/old"), Mode::WriteDurable)
                    .await
                    .unwrap();
                fill(&file, PAGE as u64, 2).await.unwrap();
                let file = rt.open(Path::new("/d/new"), Mode::Create).await.unwrap();
                fill(&file, 0, 1).await.unwrap();
                fill(&file, PAGE as u64, 1).await.unwrap();
                file.sync().await.unwrap();
                rt.sync_dir(Path::new("/d")).await.unwrap();
                fill(&file, 0, 2).await.unwrap();
            });
            let disk = world.disk(1);
            let durable = disk.read(Path::new("/d/old")).unwrap();
            assert!(durable[..PAGE].iter().all(|b| *b == 1), "seed {seed}");
            assert!(durable[PAGE..].iter().all(|b| *b == 2), "seed {seed}");
            let torn = disk.read(Path::new("/d/new")).unwrap();
            assert_eq!(torn.len(), 2 * PAGE, "seed {seed}");
            assert!(torn[PAGE..].iter().all(|b| *b == 1), "seed {seed}");
            let kinds: BTreeSet<_> = torn[..PAGE].chunks(512).map(kind).collect();
            seen.insert(kinds);
        }
        for kinds in [
            &["old"][..],
            &["new"],
            &["new", "old"],
            &["garbage", "new", "old", "zero"],
        ] {
            let kinds = kinds.iter().copied().collect();
            assert!(seen.contains(&kinds), "{kinds:?} never happened: {seen:?}");
        }
        assert!(
            seen.iter().flatten().all(|kind| *kind != "alien"),
            "{seen:?}"
        );
    }

    #[test]
    fn a_durable_write_in_flight_is_torn() {
        let counts = tally(|seed| {
            let (world, rt) = prepared(seed);
            world.disk(1).crash_at(1);
            let out = world.try_run(&rt, async {
                let file = rt
                    .open(Path::new("/d/old"), Mode::WriteDurable)
                    .await
                    .unwrap();
                fill(&file, 0, 2).await.unwrap();
            });
            assert_eq!(out, Err(Crashed));
            let bytes = world.disk(1).read(Path::new("/d/old")).unwrap();
            assert_eq!(bytes.len(), 2 * PAGE);
            assert!(bytes[PAGE..].iter().all(|b| *b == 1), "seed {seed}");
            let kinds: BTreeSet<_> = bytes[..PAGE].chunks(512).map(kind).collect();
            match kinds.len() {
                1 => kinds.into_iter().next().unwrap(),
                _ => "mixed",
            }
        });
        assert!(
            counts["old"] > 20 && counts["new"] > 20 && counts["mixed"] > 20,
            "{counts:?}"
        );
    }

    #[test]
    fn growth_and_truncation_may_be_lost() {
        let grown = tally(|seed| {
            let (world, rt) = prepared(seed);
            crashed(&world, &rt, async {
                let file = rt.open(Path::new("/d/old"), Mode::Create).await.unwrap();
                assert_eq!(file.len(), 0);
                fill(&file, 0, 2).await.unwrap();
                file.sync().await.unwrap();
                fill(&file, 2 * PAGE as u64, 2).await.unwrap();
                assert_eq!(file.len(), 3 * PAGE as u64);
            });
            match world.disk(1).read(Path::new("/d/old")).unwrap().len() {
                PAGE => "old",
                len if len == 3 * PAGE => "new",
                len if len > PAGE && len < 3 * PAGE => "between",
                len => panic!("seed {seed}: {len} bytes"),
            }
        });
        assert!(
            grown.len() == 3 && grown.values().all(|n| *n > 20),
            "{grown:?}"
        );
        let cut = tally(|seed| {
            let (world, rt) = prepared(seed);
            crashed(&world, &rt, async {
                rt.open(Path::new("/d/old"), Mode::Create).await.unwrap();
            });
            match &world.disk(1).read(Path::new("/d/old")).unwrap()[..] {
                [] => "cut",
                bytes if bytes == [1; 2 * PAGE] => "whole",
                bytes => panic!("seed {seed}: {} bytes", bytes.len()),
            }
        });
        assert!(cut.len() == 2 && cut.values().all(|n| *n > 50), "{cut:?}");
    }

    #[test]
    fn names_are_kept_or_lost_until_the_directory_is_synced() {
        let outcome = |seed, sync: bool| {
            let (world, rt) = prepared(seed);
            world.disk(1).write(Path::new("/d/doomed"), b"x");
            crashed(&world, &rt, async {
                rt.open(Path::new("/d/made"), Mode::Create).await.unwrap();
                rt.rename(Path::new("/d/old"), Path::new("/d/renamed"))
                    .await
                    .unwrap();
                rt.remove(Path::new("/d/doomed")).await.unwrap();
                if sync {
                    rt.sync_dir(Path::new("/d")).await.unwrap();
                }
            });
            let names: Vec<_> = world
                .disk(1)
                .files()
                .into_iter()
                .map(|(path, _)| path)
                .collect();
            let has = |name: &str| names.iter().any(|path| path.ends_with(name));
            assert!(has("old") != has("renamed"), "seed {seed}: {names:?}");
            (has("made"), has("renamed"), has("doomed"))
        };
        let unsynced: BTreeSet<_> = (0..SEEDS).map(|seed| outcome(seed, false)).collect();
        assert_eq!(unsynced.len(), 8, "{unsynced:?}");
        let synced: BTreeSet<_> = (0..SEEDS).map(|seed| outcome(seed, true)).collect();
        assert_eq!(synced, BTreeSet::from([(true, true, false)]));
    }

    #[test]
    fn replace_is_old_or_new_at_every_crash_point() {
        let mut whole = BTreeSet::new();
        for seed in 0..SEEDS {
            for op in 0..=5 {
                let (world, rt) = prepared(seed);
                world.disk(1).crash_at(op);
                let out = world.try_run(&rt, async {
                    rt.replace(Path::new("/d/old"), b"short").await.unwrap();
                });
                assert_eq!(out.is_ok(), op == 5, "replace is five operations");
                world.crash(1);
                let bytes = world.disk(1).read(Path::new("/d/old")).unwrap();
                let new = bytes == b"short";
                assert!(new || bytes == [1; 2 * PAGE], "seed {seed} op {op}");
                assert!(new || op < 5, "seed {seed}: an answered replace was lost");
                whole.insert((op, new));
            }
        }
        assert!(
            whole.contains(&(4, false)) && whole.contains(&(4, true)),
            "{whole:?}"
        );
    }

    #[test]
    fn a_failed_sync_saves_nothing_now_or_later() {
        let mut lost = false;
        for seed in 0..SEEDS {
            let (world, rt) = prepared(seed);
            world.disk(1).fail_at(1, Fault::Io);
            crashed(&world, &rt, async {
                let file = rt.open(Path::new("/d/old"), Mode::Create).await.unwrap();
                let error = fill(&file, 0, 2).await.unwrap_err();
                assert_eq!(error.raw_os_error(), Some(5));
                fill(&file, 0, 2).await.unwrap();
                world.disk(1).fail_at(3, Fault::Io);
                assert!(file.sync().await.is_err());
                assert!(file.sync().await.is_ok());
            });
            let bytes = world.disk(1).read(Path::new("/d/old")).unwrap();
            lost |= bytes.iter().all(|byte| *byte != 2);
        }
        assert!(
            lost,
            "a sync after a failed one must not save the bytes for certain"
        );
    }

    #[test]
    fn space_runs_out_and_bits_flip() {
        let (world, rt) = prepared(3);
        let disk = world.disk(1);
        disk.set_capacity(3 * PAGE as u64);
        world.run(&rt, async {
            let file = rt.open(Path::new("/d/new"), Mode::Create).await.unwrap();
            fill(&file, 0, 2).await.unwrap();
            let full = fill(&file, PAGE as u64, 2).await.unwrap_err();
            assert_eq!(full.kind(), io::ErrorKind::StorageFull);
            fill(&file, 0, 3).await.unwrap();
            disk.heal();
            fill(&file, PAGE as u64, 2).await.unwrap();
            disk.fail_from(disk.ops(), Fault::Full);
            let full = file.sync().await.unwrap_err();
            assert_eq!(full.kind(), io::ErrorKind::StorageFull);
            assert!(file.read_at(0, 10).await.is_ok());
            assert!(rt.remove(Path::new("/d/new")).await.is_ok());
            disk.heal();
            disk.fail_at(disk.ops(), Fault::FlipRead);
            let old = rt.open(Path::new("/d/old"), Mode::Read).await.unwrap();
            disk.fail_at(disk.ops(), Fault::FlipRead);
            let bytes = old.read_at(5, 1000).await.unwrap();
            let wrong: u32 = bytes.iter().map(|byte| (byte ^ 1).count_ones()).sum();
            assert_eq!(wrong, 1);
            assert_eq!(old.read_at(5, 1000).await.unwrap(), [1; 1000]);
        });
    }

    #[test]
    fn errors_of_the_facade_and_direct_access() {
        let (world, rt) = prepared(4);
        let disk = world.disk(1);
        let old = Path::new("/d/old");
        assert!(disk.flip(old, 7, 0x80) && !disk.flip(old, 2 * PAGE as u64, 1));
        assert_eq!(disk.read_durable(old).unwrap()[7], 0x81);
        world.run(&rt, async {
            let missing = rt.open(Path::new("/d/no"), Mode::Read).await.err().unwrap();
            assert_eq!(missing.kind(), io::ErrorKind::NotFound);
            let stray = rt
                .open(Path::new("/no/f"), Mode::Create)
                .await
                .err()
                .unwrap();
            assert_eq!(stray.kind(), io::ErrorKind::NotFound);
            let file = rt.open(old, Mode::Read).await.unwrap();
            let short = file.read_at(2 * PAGE as u64 - 1, 2).await.unwrap_err();
            assert_eq!(short.kind(), io::ErrorKind::UnexpectedEof);
            assert!(fill(&file, 0, 1).await.is_err(), "opened for reading");
            assert_eq!(rt.list(Path::new("/d")).await.unwrap(), ["old"]);
            assert!(rt.list(Path::new("/no")).await.is_err());
            assert_eq!(rt.read_whole(old).await.unwrap().len(), 2 * PAGE);
        });
        assert_eq!(disk.log()[..2], [Op::Open, Op::Open]);
        assert!(disk.remove(old) && !disk.remove(old));
        assert_eq!(disk.files(), []);
    }

    #[test]
    fn a_kill_keeps_what_a_crash_may_lose() {
        for seed in 0..SEEDS {
            let (world, rt) = prepared(seed);
            world.run(&rt, async {
                let file = rt.open(Path::new("/d/new"), Mode::Create).await.unwrap();
                fill(&file, 0, 2).await.unwrap();
            });
            world.kill(1);
            let bytes = world.disk(1).read(Path::new("/d/new")).unwrap();
            assert_eq!(bytes, [2; PAGE], "seed {seed}");
        }
    }

    #[test]
    fn a_dropped_write_may_still_happen() {
        let counts = tally(|seed| {
            let (world, rt) = prepared(seed);
            world.run(&rt, async {
                let file = rt
                    .open(Path::new("/d/old"), Mode::WriteDurable)
                    .await
                    .unwrap();
                let mut write = Box::pin(fill(&file, 0, 2));
                std::future::poll_fn(|cx| {
                    assert!(write.as_mut().poll(cx).is_pending());
                    std::task::Poll::Ready(())
                })
                .await;
                drop(write);
                rt.sleep(Duration::from_secs(1)).await;
                match file.read_at(0, 1).await.unwrap()[0] {
                    1 => "not done",
                    _ => "done",
                }
            })
        });
        assert!(
            counts.len() == 2 && counts.values().all(|n| *n > 100),
            "{counts:?}"
        );
    }

    #[test]
    fn a_sync_covers_only_what_was_written_before_it_began() {
        let mut later_lost = false;
        for seed in 0..SEEDS {
            let (world, rt) = prepared(seed);
            crashed(&world, &rt, async {
                let file = Rc::new(rt.open(Path::new("/d/new"), Mode::Create).await.unwrap());
                rt.sync_dir(Path::new("/d")).await.unwrap();
                fill(&file, 0, 2).await.unwrap();
                let racing = Rc::clone(&file);
                rt.spawn(async move { fill(&racing, PAGE as u64, 2).await.unwrap() });
                file.sync().await.unwrap();
            });
            let bytes = world.disk(1).read(Path::new("/d/new")).unwrap();
            assert!(bytes[..PAGE].iter().all(|byte| *byte == 2), "seed {seed}");
            later_lost |= bytes.len() == PAGE;
        }
        assert!(later_lost);
    }
}
