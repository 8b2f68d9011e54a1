//! The manifest: which tables are the shard, as a log of edits.
//!
//! ```text
//! CURRENT                "MANIFEST-000007 5c1f3a90\n": name and its crc32; replaced atomically.
//!                        "EMPTY ..": made with the data directory, not opened yet. Missing: refused
//! MANIFEST-000007        |header|DATA snapshot|SEAL|DATA edit|SEAL|DATA edit|SEAL|zeros ...|
//!                                                                               ^at
//! roll: MANIFEST-000008.tmp with the whole state -> sync -> rename -> sync dir -> CURRENT -> remove old ones
//! ```
//!
//! Framing is the WAL's (format/frame.rs): one edit per group, a SEAL behind each, so that rot of any edit,
//! the last one included, cannot pass for a torn write. The file is written full of zeros at its final length
//! first: an append is one overwrite, and a truncated file is noticed.
//!
//! Invariants
//! - An edit is in force when `append` returns Ok, and never again in doubt.
//! - Nothing is written to a file after a failed write, nor to a file of an earlier boot: the state goes to a
//!   new manifest instead.
//! - Replay must reach the state sum each edit claims.
//!
//! What it does not do: look at table files (recover.rs), serialise the decisions of its callers.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::poll_fn;
use std::io;
use std::path::{Path, PathBuf};
use std::task::{Poll, Waker};

use super::format::edit::{Edit, TableMeta, state_term};
use super::format::frame::{BadHeader, Chain, Header, Kind, Log, group_bytes};
use super::format::walk::{End, Walk};
use super::format::{
    CURRENT, NO_MANIFEST, Owner, TMP_SUFFIX, current_line, manifest_id, manifest_name, segment_id,
    table_id,
};
use super::unreadable::Unreadable;
use crate::base::limits::DISK_PAGE_BYTES;
use crate::base::version::Version;
use crate::rt::Rt;
use crate::rt::file::{File, Mode};

const PAGE: usize = DISK_PAGE_BYTES;
/// Length of a manifest whose snapshot is small: room for about 120 edits before the next roll.
const MANIFEST_BYTES_MIN: usize = 1 << 20;
/// A manifest is at least this many times as long as its snapshot, so that rolling stays rare.
const SNAPSHOT_SHARE: usize = 4;

/// What a manifest says after its last edit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Recovered {
    /// Tables by level, by id within a level.
    pub(crate) levels: Vec<Vec<TableMeta>>,
    /// Every WAL group up to here is in tables.
    pub(crate) flushed_seq: u64,
    /// Every file id below is taken.
    pub(crate) next_file_id: u64,
    pub(crate) sealed_max: Version,
    /// Largest version in any table, or `sealed_max` if that is larger.
    pub(crate) max_version: Version,
    /// Where the next compaction of a level starts.
    pub(crate) cursors: BTreeMap<u8, Vec<u8>>,
}

/// The manifest of one open shard.
pub(crate) struct Manifest {
    rt: Rt,
    dir: PathBuf,
    owner: Owner,
    /// Absent while an append is under way.
    inner: Cell<Option<Inner>>,
    waiting: RefCell<Vec<Waker>>,
}

struct Inner {
    state: State,
    /// `None` after a failed write: the next append starts a new file.
    log: Option<OpenLog>,
    /// What CURRENT names for certain; `None`: nothing, or unknown after a failure.
    current: Option<u64>,
    next_id: u64,
}

struct OpenLog {
    file: File,
    bytes: usize,
    at: usize,
    chain: Chain,
}

/// Why an edit is not in force.
#[derive(Debug)]
pub(crate) enum AppendError {
    /// Nothing of it was written and the log is as it was: the files it adds may go, it may be tried again.
    Unwritten(io::Error),
    /// It may be in force, or the log cannot go on.
    Unknown(io::Error),
}

/// A shard's manifest that was read, and not written to yet.
pub(crate) struct Found {
    dir: PathBuf,
    owner: Owner,
    state: State,
    current: Option<u64>,
    names: Vec<String>,
}

impl Found {
    /// Reads the manifest of the shard folder `dir`. Changes nothing.
    pub(crate) async fn read(rt: &Rt, dir: &Path, owner: Owner) -> Result<Found, Unreadable> {
        let current = current(rt, dir).await?;
        let names = rt.list(dir).await.map_err(Unreadable::io(dir))?;
        let ids: Vec<u64> = names.iter().filter_map(|name| manifest_id(name)).collect();
        let state = match current {
            Some(id) => read(rt, dir, owner, id).await?,
            None => {
                refuse_remains(rt, dir, owner, &ids).await?;
                State::default()
            }
        };
        Ok(Found {
            dir: dir.to_path_buf(),
            owner,
            state,
            current,
            names,
        })
    }

    pub(crate) fn recovered(&self) -> Recovered {
        self.state.recovered()
    }

    /// Starts a new manifest file, to be written from now on.
    pub(crate) async fn begin(self, rt: &Rt) -> Result<Manifest, Unreadable> {
        let ids = self.names.iter().filter_map(|name| manifest_id(name));
        let mut inner = Inner {
            state: self.state,
            log: None,
            current: self.current,
            next_id: ids.max().map_or(1, |last| last + 1),
        };
        for name in &self.names {
            let stale = manifest_id(name).is_some_and(|id| Some(id) != self.current);
            if stale || name.ends_with(TMP_SUFFIX) {
                discard(rt, &self.dir.join(name)).await;
            }
        }
        let manifest = Manifest {
            rt: rt.clone(),
            dir: self.dir,
            owner: self.owner,
            inner: Cell::new(None),
            waiting: RefCell::default(),
        };
        let rolled = manifest.roll(&mut inner, &Edit::default()).await;
        rolled.map_err(Unreadable::io(&manifest.dir))?;
        manifest.inner.set(Some(inner));
        Ok(manifest)
    }
}

impl Manifest {
    /// Makes `edit` durable. Calls may overlap; they take effect one after the other.
    ///
    /// `Unknown` of kind `InvalidInput`: the edit contradicts the state (it removes a table that is not there, or
    /// adds one twice); nothing was written. Otherwise `Unknown`: no manifest could be written, and whether the
    /// edit is in force is unknown until a later append succeeds (then it is not). Until then the caller keeps
    /// the files the edit adds as well as those it removes.
    pub(crate) async fn append(&self, edit: &Edit) -> Result<(), AppendError> {
        let mut turn = self.turn().await;
        let sum = turn.inner.state.sum_after(edit).map_err(|why| {
            AppendError::Unknown(io::Error::new(io::ErrorKind::InvalidInput, why))
        })?;
        let mut body = Vec::new();
        edit.encode(sum, &mut body);
        match turn.inner.log.take() {
            Some(log) if log.fits(body.len()) => turn.inner.log = log.append(&body).await.ok(),
            Some(full) => {
                let begun = self.create(&mut turn.inner, edit).await;
                if begun.is_err() {
                    // The full log is sound and still the current one.
                    turn.inner.log = Some(full);
                }
                let begun = begun.map_err(AppendError::Unwritten)?;
                self.enforce(&mut turn.inner, begun)
                    .await
                    .map_err(AppendError::Unknown)?;
            }
            None => {}
        }
        if turn.inner.log.is_none() {
            // After a failed write. The new file reports what is wrong with the disk.
            self.roll(&mut turn.inner, edit)
                .await
                .map_err(AppendError::Unknown)?;
        }
        turn.inner.state.apply(edit);
        Ok(())
    }

    async fn turn(&self) -> Turn<'_> {
        let inner = poll_fn(|cx| match self.inner.take() {
            Some(inner) => Poll::Ready(inner),
            None => {
                self.waiting.borrow_mut().push(cx.waker().clone());
                Poll::Pending
            }
        });
        Turn {
            manifest: self,
            inner: inner.await,
        }
    }

    /// Starts a new manifest that holds the state after `edit`, and makes it the current one.
    async fn roll(&self, inner: &mut Inner, edit: &Edit) -> io::Result<()> {
        let begun = self.create(inner, edit).await?;
        self.enforce(inner, begun).await
    }

    /// Makes a manifest the current one.
    async fn enforce(&self, inner: &mut Inner, (id, log): (u64, OpenLog)) -> io::Result<()> {
        let old = inner.current.take();
        let current = self.dir.join(CURRENT);
        let line = current_line(&manifest_name(id));
        self.rt.replace(&current, &line).await?;
        if let Some(old) = old {
            discard(&self.rt, &self.dir.join(manifest_name(old))).await;
        }
        inner.current = Some(id);
        inner.log = Some(log);
        Ok(())
    }

    /// Writes a new manifest that holds the state after `edit`. It does not count yet; after an error no file stays.
    async fn create(&self, inner: &mut Inner, edit: &Edit) -> io::Result<(u64, OpenLog)> {
        let mut state = inner.state.clone();
        state.apply(edit);
        let id = inner.next_id;
        inner.next_id += 1;
        let name = manifest_name(id);
        let written = self.write(id, &name, &state.snapshot()).await;
        if written.is_err() {
            for name in [format!("{name}{TMP_SUFFIX}"), name] {
                discard(&self.rt, &self.dir.join(name)).await;
            }
        }
        Ok((id, written?))
    }

    async fn write(&self, id: u64, name: &str, snapshot: &[u8]) -> io::Result<OpenLog> {
        let snapshot_bytes = group_bytes(snapshot.len());
        let bytes = (SNAPSHOT_SHARE * snapshot_bytes).max(MANIFEST_BYTES_MIN);
        let header = Header {
            log: Log::Manifest,
            owner: self.owner,
            id,
            bytes: bytes as u64,
            salt: self.rt.entropy(),
            first_seq: 1,
            prev_id: 0,
        };
        let tmp = self.dir.join(format!("{name}{TMP_SUFFIX}"));
        let path = self.dir.join(name);
        let file = self.rt.open(&tmp, Mode::Create).await?;
        let mut buf = file.alloc(bytes);
        let mut chain = Chain::new(&header);
        header.encode(&mut buf);
        let at = PAGE + snapshot_bytes;
        chain.data(1, snapshot, &mut buf[PAGE..at]);
        chain.mark(Kind::Seal, &mut buf[at..]);
        file.write_at(buf, 0).await?;
        file.sync().await?;
        self.rt.rename(&tmp, &path).await?;
        self.rt.sync_dir(&self.dir).await?;
        Ok(OpenLog {
            file: self.rt.open(&path, Mode::WriteDurable).await?,
            bytes,
            at: at + PAGE,
            chain,
        })
    }
}

/// The right to append; passed on when dropped, at whatever await that happens.
struct Turn<'a> {
    manifest: &'a Manifest,
    inner: Inner,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let inner = Inner {
            state: std::mem::take(&mut self.inner.state),
            log: self.inner.log.take(),
            current: self.inner.current,
            next_id: self.inner.next_id,
        };
        self.manifest.inner.set(Some(inner));
        for waker in self.manifest.waiting.take() {
            waker.wake();
        }
    }
}

impl OpenLog {
    fn fits(&self, body_len: usize) -> bool {
        self.at + group_bytes(body_len) + PAGE <= self.bytes
    }

    /// Writes an edit, then its SEAL. After an error the file is not written again.
    async fn append(mut self, body: &[u8]) -> io::Result<OpenLog> {
        let mut group = self.file.alloc(group_bytes(body.len()));
        let len = group.len();
        self.chain.data(1, body, &mut group);
        self.file.write_at(group, self.at as u64).await?;
        let mut seal = self.file.alloc(PAGE);
        self.chain.mark(Kind::Seal, &mut seal);
        self.file.write_at(seal, (self.at + len) as u64).await?;
        self.at += len + PAGE;
        Ok(self)
    }
}

/// What the edits so far add up to.
#[derive(Clone, Debug, Default)]
struct State {
    tables: BTreeMap<u64, (u8, TableMeta)>,
    sum: u64,
    flushed_seq: u64,
    next_file_id: u64,
    sealed_max: Version,
    cursors: BTreeMap<u8, Vec<u8>>,
}

impl State {
    /// The sum `apply` would lead to, or why the edit does not fit.
    fn sum_after(&self, edit: &Edit) -> Result<u64, &'static str> {
        let mut sum = self.sum;
        let mut changed: BTreeMap<u64, bool> = BTreeMap::new();
        for (level, id) in &edit.removed {
            let here = self.tables.get(id).is_some_and(|(at, _)| at == level);
            if !here || changed.insert(*id, false).is_some() {
                return Err("an edit removes a table that is not there");
            }
            sum = sum.wrapping_sub(state_term(*level, *id));
        }
        for (level, table) in &edit.added {
            let there = match changed.insert(table.id, true) {
                Some(added) => added,
                None => self.tables.contains_key(&table.id),
            };
            if there {
                return Err("an edit adds a table that is already there");
            }
            sum = sum.wrapping_add(state_term(*level, table.id));
        }
        Ok(sum)
    }

    /// Takes an edit that fits.
    fn apply(&mut self, edit: &Edit) {
        for (level, id) in &edit.removed {
            self.tables.remove(id);
            self.sum = self.sum.wrapping_sub(state_term(*level, *id));
        }
        for (level, table) in &edit.added {
            self.tables.insert(table.id, (*level, table.clone()));
            self.sum = self.sum.wrapping_add(state_term(*level, table.id));
        }
        self.flushed_seq = self.flushed_seq.max(edit.flushed_seq.unwrap_or(0));
        self.next_file_id = self.next_file_id.max(edit.next_file_id);
        self.sealed_max = self.sealed_max.max(edit.sealed_max);
        self.cursors.extend(edit.cursors.iter().cloned());
    }

    /// The state as one edit on nothing, encoded.
    fn snapshot(&self) -> Vec<u8> {
        let edit = Edit {
            added: self.tables.values().cloned().collect(),
            removed: Vec::new(),
            flushed_seq: Some(self.flushed_seq),
            next_file_id: self.next_file_id,
            sealed_max: self.sealed_max,
            cursors: self.cursors.clone().into_iter().collect(),
        };
        let mut out = Vec::new();
        edit.encode(self.sum, &mut out);
        out
    }

    fn recovered(&self) -> Recovered {
        let mut levels: Vec<Vec<TableMeta>> = Vec::new();
        for (level, table) in self.tables.values() {
            let level = usize::from(*level);
            if levels.len() <= level {
                levels.resize(level + 1, Vec::new());
            }
            levels[level].push(table.clone());
        }
        let versions = self.tables.values().map(|(_, table)| table.max_version);
        Recovered {
            levels,
            flushed_seq: self.flushed_seq,
            next_file_id: self.next_file_id,
            sealed_max: self.sealed_max,
            max_version: versions.fold(self.sealed_max, Version::max),
            cursors: self.cursors.clone(),
        }
    }
}

/// Removes a file that does not count. One that stays only costs space until the next open.
async fn discard(rt: &Rt, path: &Path) {
    rt.remove(path).await.ok();
}

/// The manifest CURRENT names; `None` when the shard has never been opened.
async fn current(rt: &Rt, dir: &Path) -> Result<Option<u64>, Unreadable> {
    let path = dir.join(CURRENT);
    let bytes = match rt.read_whole(&path).await {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let why = "the file is missing; it was made with the data directory, so files of this shard are lost";
            return Err(Unreadable::corrupt(&path, 0, why));
        }
        read => read.map_err(Unreadable::io(&path))?,
    };
    if bytes == current_line(NO_MANIFEST) {
        return Ok(None);
    }
    let name = bytes.split(|byte| *byte == b' ').next();
    let id = name
        .and_then(|name| std::str::from_utf8(name).ok())
        .filter(|name| current_line(name) == bytes)
        .and_then(manifest_id);
    match id {
        Some(id) => Ok(Some(id)),
        None => Err(Unreadable::corrupt(&path, 0, "it does not name a manifest")),
    }
}

/// A CURRENT that names nothing stands for an empty shard. What a crash during the very first open leaves (a
/// manifest of nothing) counts as empty; tables, log segments or a manifest that says something do not.
async fn refuse_remains(rt: &Rt, dir: &Path, owner: Owner, ids: &[u64]) -> Result<(), Unreadable> {
    for (below, is_data) in [
        ("sst", table_id as fn(&str) -> Option<u64>),
        ("wal", segment_id),
    ] {
        let below = dir.join(below);
        let names = match rt.list(&below).await {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            names => names.map_err(Unreadable::io(&below))?,
        };
        if names.iter().any(|name| is_data(name).is_some()) {
            let why = "CURRENT says that the shard is new, and there is data it should tell of";
            return Err(Unreadable::corrupt(&below, 0, why));
        }
    }
    for id in ids {
        let state = read(rt, dir, owner, *id).await?;
        if !state.tables.is_empty() || state.flushed_seq > 0 {
            let why = "CURRENT says that the shard is new, and this manifest tells of data";
            return Err(Unreadable::corrupt(&dir.join(manifest_name(*id)), 0, why));
        }
    }
    Ok(())
}

/// Replays one manifest.
async fn read(rt: &Rt, dir: &Path, owner: Owner, id: u64) -> Result<State, Unreadable> {
    let path = dir.join(manifest_name(id));
    let corrupt = |offset: u64, why: &str| Unreadable::corrupt(&path, offset, why);
    let file = match rt.read_whole(&path).await {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(corrupt(0, "CURRENT names this manifest, and it is missing"));
        }
        file => file.map_err(Unreadable::io(&path))?,
    };
    let header = match Header::decode(Log::Manifest, owner, &file) {
        Ok(header) => header,
        Err(BadHeader::UnknownFormat(format)) => {
            let why = format!("format {format}, and this program reads format 1");
            return Err(corrupt(0, &why));
        }
        Err(BadHeader::Foreign(owner)) => {
            let (shard, node) = (owner.shard, owner.node);
            let why = format!("the manifest belongs to shard {shard} of node {node:032x}");
            return Err(corrupt(0, &why));
        }
        Err(BadHeader::Blank | BadHeader::Damaged) => {
            return Err(corrupt(0, "the header is damaged"));
        }
    };
    if header.id != id || header.bytes != file.len() as u64 {
        return Err(corrupt(
            0,
            "the file has another name or length than its header says",
        ));
    }
    let mut state = State::default();
    let mut walk = Walk::new(&file, header, 1, u64::MAX);
    loop {
        let at = walk.at();
        let Some(group) = walk.next() else {
            break;
        };
        let decoded = Edit::decode(group.body);
        let (edit, sum) = decoded.map_err(|_| corrupt(at, "a group does not hold an edit"))?;
        if state.sum_after(&edit).map_err(|why| corrupt(at, why))? != sum {
            return Err(corrupt(at, "an edit before this one is missing"));
        }
        state.apply(&edit);
    }
    match walk.end() {
        End::Clean | End::Torn { .. } => Ok(state),
        End::Broken { offset, why } => Err(corrupt(offset, why)),
        End::Rolled => Err(corrupt(walk.at(), "a manifest does not roll")),
    }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use super::*;
    use crate::rt::sim::World;
    use crate::rt::sim::disk::Fault;

    const OWNER: Owner = Owner { node: 7, shard: 1 };
    const DIR: &str = "/data/shards/0001";
    const NODE: u16 = 1;

    /// A world with a shard that was made and not opened.
    fn made(seed: u64) -> World {
        let world = World::new(seed);
        let current = Path::new(DIR).join(CURRENT);
        world.disk(NODE).write(&current, &current_line(NO_MANIFEST));
        world
    }

    async fn open(rt: &Rt) -> Result<(Manifest, Recovered), Unreadable> {
        let found = Found::read(rt, Path::new(DIR), OWNER).await?;
        let recovered = found.recovered();
        Ok((found.begin(rt).await?, recovered))
    }

    fn table(id: u64, key_len: usize) -> TableMeta {
        let version = |hlc| Version { hlc, origin: 0 };
        TableMeta {
            id,
            bytes: 4096 * id,
            smallest: vec![b'a'; key_len],
            largest: vec![b'b'; key_len],
            entries: 10,
            tombstones: 1,
            min_version: version(id),
            max_version: version(id + 5),
        }
    }

    /// Edit number `n` of a history: adds table `n`, removes the one before from level 0 and puts it into level 1.
    fn edit(n: u64, key_len: usize) -> Edit {
        let mut edit = Edit {
            added: vec![(0, table(n, key_len))],
            flushed_seq: Some(10 * n),
            next_file_id: n + 1,
            sealed_max: Version { hlc: n, origin: 0 },
            ..Edit::default()
        };
        if n > 1 {
            edit.removed.push((0, n - 1));
            edit.added.push((1, table(n - 1, key_len)));
            edit.cursors.push((1, vec![n as u8]));
        }
        edit
    }

    /// What must be recovered after edits 1 to `n`.
    fn expected(n: u64, key_len: usize) -> Recovered {
        let mut state = State::default();
        for n in 1..=n {
            let edit = edit(n, key_len);
            state.sum_after(&edit).unwrap();
            state.apply(&edit);
        }
        state.recovered()
    }

    #[test]
    fn edits_add_up_over_restarts() {
        let world = made(1);
        for boot in 0..4u64 {
            let rt = world.boot(NODE, 1).remove(0);
            world.run(&rt, async {
                let (manifest, recovered) = open(&rt).await.unwrap();
                assert_eq!(recovered, expected(3 * boot, 3));
                for n in 3 * boot + 1..=3 * boot + 3 {
                    manifest.append(&edit(n, 3)).await.unwrap();
                }
            });
        }
        let last = expected(12, 3);
        assert_eq!((last.flushed_seq, last.next_file_id), (120, 13));
        assert_eq!(last.max_version.hlc, 17);
        assert_eq!(
            last.levels.iter().map(Vec::len).collect::<Vec<_>>(),
            [1, 11]
        );
    }

    #[test]
    fn a_full_manifest_rolls_and_the_old_one_goes() {
        let world = made(2);
        let rt = world.boot(NODE, 1).remove(0);
        world.run(&rt, async {
            let (manifest, _) = open(&rt).await.unwrap();
            for n in 1..=300 {
                manifest.append(&edit(n, 100)).await.unwrap();
            }
            let names = rt.list(Path::new(DIR)).await.unwrap();
            assert_eq!(names, [CURRENT, "MANIFEST-000003"]);
        });
        let rt = world.boot(NODE, 1).remove(0);
        let (_, recovered) = world.run(&rt, open(&rt)).unwrap();
        assert_eq!(recovered, expected(300, 100));
    }

    #[test]
    fn edits_that_contradict_the_state_are_refused_and_change_nothing() {
        let world = made(3);
        let rt = world.boot(NODE, 1).remove(0);
        world.run(&rt, async {
            let (manifest, _) = open(&rt).await.unwrap();
            manifest.append(&edit(1, 3)).await.unwrap();
            let removed = |removed| Edit {
                removed,
                ..Edit::default()
            };
            let twice = Edit {
                added: vec![(1, table(1, 3))],
                ..Edit::default()
            };
            let wrong = [
                removed(vec![(1, 1)]),
                removed(vec![(0, 1), (0, 1)]),
                removed(vec![(0, 9)]),
                twice,
            ];
            for edit in wrong {
                let refused = manifest.append(&edit).await;
                assert!(matches!(
                    refused,
                    Err(AppendError::Unknown(error)) if error.kind() == io::ErrorKind::InvalidInput
                ));
            }
            manifest.append(&edit(2, 3)).await.unwrap();
            let (_, recovered) = open(&rt).await.unwrap();
            assert_eq!(recovered, expected(2, 3));
        });
    }

    #[test]
    fn overlapping_appends_take_turns() {
        let world = made(4);
        let rt = world.boot(NODE, 1).remove(0);
        world.run(&rt, async {
            let manifest = Rc::new(open(&rt).await.unwrap().0);
            let done = Rc::new(Cell::new(0));
            for id in 1..=20 {
                let (manifest, done) = (Rc::clone(&manifest), Rc::clone(&done));
                rt.spawn(async move {
                    let added = vec![(0, table(id, 3))];
                    let edit = Edit {
                        added,
                        ..Edit::default()
                    };
                    manifest.append(&edit).await.unwrap();
                    done.set(done.get() + 1);
                });
            }
            while done.get() < 20 {
                rt.yield_now().await;
                rt.sleep(std::time::Duration::from_millis(1)).await;
            }
            let (_, recovered) = open(&rt).await.unwrap();
            assert_eq!(recovered.levels[0].len(), 20);
        });
    }

    #[test]
    fn a_failed_write_leads_to_a_new_manifest_or_an_error_and_never_to_a_damaged_one() {
        for fault in [Fault::Io, Fault::Full] {
            for skip in 0..14 {
                let what = format!("{fault:?} after {skip} operations");
                let world = made(skip);
                let rt = world.boot(NODE, 1).remove(0);
                let disk = world.disk(NODE);
                world.run(&rt, async {
                    let (manifest, _) = open(&rt).await.unwrap();
                    manifest.append(&edit(1, 3)).await.unwrap();
                    disk.fail_at(disk.ops() + skip, fault);
                    manifest.append(&edit(2, 3)).await.unwrap();
                    manifest.append(&edit(3, 3)).await.unwrap();
                    // All that follows fails, then the disk recovers.
                    disk.fail_from(disk.ops() + skip % 7, fault);
                    let mut n = 4;
                    while manifest.append(&edit(n, 3)).await.is_ok() {
                        n += 1;
                    }
                    disk.heal();
                    manifest.append(&edit(n, 3)).await.expect(&what);
                    let (_, recovered) = open(&rt).await.expect(&what);
                    assert_eq!(recovered, expected(n, 3), "{what}");
                });
            }
        }
    }

    /// Opens, appends large edits so that the file rolls, and counts the acknowledged ones in `acked`.
    async fn life(rt: &Rt, acked: &Cell<u64>) {
        let (manifest, recovered) = open(rt).await.unwrap();
        let in_force = recovered.next_file_id.saturating_sub(1);
        assert!(
            [0, 1].contains(&(in_force - acked.get())),
            "lost or invented"
        );
        acked.set(in_force);
        for n in in_force + 1..=in_force + 12 {
            manifest.append(&edit(n, 30_000)).await.unwrap();
            acked.set(n);
        }
    }

    #[test]
    fn a_crash_at_any_operation_loses_no_edit() {
        let world = made(5);
        let rt = world.boot(NODE, 1).remove(0);
        world.run(&rt, life(&rt, &Cell::new(0)));
        let ops = world.disk(NODE).ops();
        assert!(ops > 40, "{ops}");
        for at in 0..ops {
            let world = made(5);
            let disk = world.disk(NODE);
            let acked = Cell::new(0);
            for boot in 0..2 {
                disk.crash_at(if boot == 0 { at } else { disk.ops() + at % 20 });
                let rt = world.boot(NODE, 1).remove(0);
                assert!(world.try_run(&rt, life(&rt, &acked)).is_err(), "{at}");
                disk.heal();
            }
            let rt = world.boot(NODE, 1).remove(0);
            let (_, recovered) = world
                .run(&rt, open(&rt))
                .unwrap_or_else(|why| panic!("crash at {at}: {why}"));
            let n = recovered.next_file_id.saturating_sub(1);
            assert!(
                n == acked.get() || n == acked.get() + 1,
                "crash at {at}: {n}"
            );
            assert_eq!(recovered, expected(n, 30_000), "crash at {at}");
        }
    }

    #[test]
    fn damage_is_noticed_or_harmless() {
        let world = made(6);
        let rt = world.boot(NODE, 1).remove(0);
        world.run(&rt, async {
            let (manifest, _) = open(&rt).await.unwrap();
            for n in 1..=3 {
                manifest.append(&edit(n, 3)).await.unwrap();
            }
        });
        let disk = world.disk(NODE);
        let names = [CURRENT, "MANIFEST-000001"].map(|name| Path::new(DIR).join(name));
        let whole = names.clone().map(|path| disk.read(&path).unwrap());
        let rt = world.boot(NODE, 1).remove(0);
        let check = |what: &str| match world.run(&rt, read_current(&rt)) {
            Ok(state) => assert_eq!(state.recovered(), expected(3, 3), "{what}"),
            Err(Unreadable::Corrupt { .. }) => {}
            Err(error) => panic!("{what}: {error}"),
        };
        for (path, whole) in names.iter().zip(&whole) {
            let bytes = (0..whole.len().min(10 * PAGE)).filter(|byte| byte % PAGE < 160);
            for byte in bytes {
                let mask = 1 << (byte % 8);
                assert!(disk.flip(path, byte as u64, mask));
                check(&format!("{} bit {mask} of {byte}", path.display()));
                disk.flip(path, byte as u64, mask);
            }
            for cut in (0..whole.len()).filter(|cut| cut % 4096 == 0 || *cut < 100) {
                disk.write(path, &whole[..cut]);
                check(&format!("{} cut at {cut}", path.display()));
            }
            disk.remove(path);
            check(&format!("{} removed", path.display()));
            disk.write(path, whole);
        }
        check("nothing wrong");
    }

    async fn read_current(rt: &Rt) -> Result<State, Unreadable> {
        let dir = Path::new(DIR);
        match current(rt, dir).await? {
            Some(id) => read(rt, dir, OWNER, id).await,
            None => {
                refuse_remains(rt, dir, OWNER, &[1]).await?;
                Ok(State::default())
            }
        }
    }

    fn refusal(world: &World) -> String {
        let rt = world.boot(NODE, 1).remove(0);
        let refused = world.run(&rt, open(&rt)).map(|_| ());
        refused.unwrap_err().to_string()
    }

    #[test]
    fn a_shard_is_empty_only_when_its_current_says_so_and_nothing_else_is_there() {
        for file in ["sst/0000000000000001.sst", "wal/0000000000000001.wal"] {
            let world = made(7);
            world.disk(NODE).write(&Path::new(DIR).join(file), b"data");
            let refused = refusal(&world);
            assert!(refused.contains("CURRENT says that"), "{refused}");
        }
        // Nothing at all, not even the folder; then a folder that lost its CURRENT.
        let missing = "shards/0001/CURRENT at offset 0: the file is missing";
        let refused = refusal(&World::new(7));
        assert!(refused.contains(missing), "{refused}");
        let world = made(7);
        let rt = world.boot(NODE, 1).remove(0);
        world.run(&rt, open(&rt)).map(|_| ()).unwrap();
        world.disk(NODE).remove(&Path::new(DIR).join(CURRENT));
        let refused = refusal(&world);
        assert!(refused.contains(missing), "{refused}");
    }

    #[test]
    fn the_manifest_of_another_shard_is_refused() {
        let world = made(8);
        let rt = world.boot(NODE, 1).remove(0);
        world.run(&rt, open(&rt)).map(|_| ()).unwrap();
        let other = Owner { shard: 2, ..OWNER };
        let refused = world.run(&rt, Found::read(&rt, Path::new(DIR), other));
        assert!(refused.is_err_and(|why| why.to_string().contains("belongs to shard 1")));
    }
}
