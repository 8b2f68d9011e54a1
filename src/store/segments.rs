//! The supply of WAL segments: files full of zeros, ready before they are needed.
//!
//! ```text
//!            keeper task (one, serial: ids are given out in the order files become ready)
//!  zeros -> segment.tmp -> sync -> rename to <id>.wal -> sync dir ─┐
//!  released segment ------------> rename to <id>.wal -> sync dir ─┴-> ready -> take() -> tape.rs
//! ```
//!
//! Why zeros are written, not just reserved: a reserved block turns into a written one on first use, which is
//! a metadata change, and every commit would wait for the file system's journal. Why a recycled segment is
//! not zeroed again: its old groups carry the old salt and the old id, nobody takes them for new ones.
//!
//! A file that carries a segment's name but no header with its own id has not been used yet. Segments start
//! small (a start must not wait for 64 MiB of zeros) and grow fourfold up to the configured size. When no
//! segment can be made ready (the disk is full, or fails) and none is left that would do, the pool refuses and
//! says so in the log: writes are answered "full" until a retry succeeds, or until what is ready suffices
//! again; what is being read is unaffected.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use super::bell::Bell;
use super::format::segment_name;
use crate::base::limits::SLICE;
use crate::rt::Rt;
use crate::rt::file::{File, Mode};

/// Size of the first segment of a boot.
const FIRST_SEGMENT_BYTES: u64 = 4 << 20;
/// Zeros are written in pieces of this size.
const CHUNK_BYTES: u64 = 1 << 20;
/// Segments kept ready: one always, a second one only when it costs no more than a rename.
const READY_MIN: usize = 1;
const READY_MAX: usize = 2;
/// After a failure the next attempt waits this long, twice as long after each further one.
const RETRY_FIRST: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(5);
const TMP_NAME: &str = "segment.tmp";

/// A segment nobody has written to since it got its name.
pub(crate) struct Ready {
    pub(crate) id: u64,
    pub(crate) bytes: u64,
    pub(crate) path: PathBuf,
    pub(crate) file: File,
}

/// A released segment of this boot.
pub(crate) struct Spare {
    pub(crate) path: PathBuf,
    pub(crate) bytes: u64,
}

/// The pool of one log.
pub(crate) struct Pool {
    rt: Rt,
    dir: PathBuf,
    segment_bytes: u64,
    log: Rc<dyn Fn(&str)>,
    state: RefCell<State>,
    /// Rung when there is work for the keeper.
    keeper: Bell,
    /// Rung when whoever waits in `take` should look again.
    taker: Bell,
}

struct State {
    ready: VecDeque<Ready>,
    spare: Vec<Spare>,
    /// Bytes the taker waits for; 0: nobody waits.
    wanted: u64,
    next_id: u64,
    /// Size of the largest ordinary segment made.
    grown: u64,
    /// The last attempt failed, and what is ready did not do.
    refusing: Option<io::ErrorKind>,
    closed: bool,
}

enum Job {
    Make(u64),
    Recycle(Spare),
    Remove(Spare),
    End,
}

impl Pool {
    /// A pool with its first, small segment ready. `next_id`: above every id seen in `dir`. `log` hears when
    /// the pool begins to refuse, and when it takes writes again.
    pub(crate) async fn start(
        rt: &Rt,
        dir: &Path,
        segment_bytes: u64,
        next_id: u64,
        log: Rc<dyn Fn(&str)>,
    ) -> io::Result<Rc<Pool>> {
        let first = FIRST_SEGMENT_BYTES.min(segment_bytes);
        let pool = Rc::new(Pool {
            rt: rt.clone(),
            dir: dir.to_path_buf(),
            segment_bytes,
            log,
            state: RefCell::new(State {
                ready: VecDeque::new(),
                spare: Vec::new(),
                wanted: first,
                next_id,
                grown: first,
                refusing: None,
                closed: false,
            }),
            keeper: Bell::default(),
            taker: Bell::default(),
        });
        pool.make(first).await?;
        pool.state.borrow_mut().wanted = 0;
        rt.spawn(Rc::clone(&pool).keep());
        Ok(pool)
    }

    /// The next segment, of at least `bytes`. Waits for the keeper; an error says that it cannot make one now.
    pub(crate) async fn take(&self, bytes: u64) -> io::Result<Ready> {
        poll_fn(|cx| {
            let mut state = self.state.borrow_mut();
            if state.suffices(bytes)
                && let Some(ready) = state.ready.pop_front()
            {
                state.wanted = 0;
                drop(state);
                self.keeper.ring();
                return Poll::Ready(Ok(ready));
            }
            if let Some(kind) = state.refusing {
                state.wanted = 0;
                return Poll::Ready(Err(kind.into()));
            }
            state.wanted = bytes;
            self.taker.register(cx);
            self.keeper.ring();
            Poll::Pending
        })
        .await
    }

    /// Whether the next group that needs a segment would find none.
    pub(crate) fn is_refusing(&self) -> bool {
        let state = self.state.borrow();
        state.refusing.is_some() && state.ready.is_empty()
    }

    /// Whether `give` has a use for a segment of this size.
    pub(crate) fn wants(&self, bytes: u64) -> bool {
        let state = self.state.borrow();
        let stock = state.ready.len() + state.spare.len();
        bytes == self.segment_bytes && stock < READY_MAX && !state.closed
    }

    /// Hands over a segment that holds nothing needed any more.
    pub(crate) fn give(&self, spare: Spare) {
        self.state.borrow_mut().spare.push(spare);
        self.keeper.ring();
    }

    /// Ends the keeper. Files stay; the next open removes what was not used.
    pub(crate) fn close(&self) {
        self.state.borrow_mut().closed = true;
        self.keeper.ring();
    }

    async fn keep(self: Rc<Self>) {
        let mut retry = RETRY_FIRST;
        loop {
            let done = match self.next_job().await {
                Job::Make(bytes) => self.make(bytes).await,
                Job::Recycle(spare) => self.name(&spare.path, spare.bytes).await,
                Job::Remove(spare) => {
                    // A leftover only costs space until the next open.
                    self.rt.remove(&spare.path).await.ok();
                    Ok(())
                }
                Job::End => return,
            };
            if self.state.borrow().closed {
                // What was cut off by closing is no reason to refuse.
                return;
            }
            let failed = done.is_err();
            self.settle(done);
            if failed {
                self.rt.sleep(retry).await;
                retry = (retry * 2).min(RETRY_MAX);
                // Whoever wanted more has been refused meanwhile; what is ready may do for the others.
                if self.state.borrow().is_content() {
                    self.settle(Ok(()));
                }
            } else {
                retry = RETRY_FIRST;
            }
        }
    }

    /// Refuses or takes writes from now on; the operator hears of a change.
    fn settle(&self, done: io::Result<()>) {
        let mut state = self.state.borrow_mut();
        let failed = done.as_ref().err().map(io::Error::kind);
        let refusing = failed.filter(|_| !state.is_content());
        let before = std::mem::replace(&mut state.refusing, refusing);
        drop(state);
        self.taker.ring();
        let dir = self.dir.display();
        match (done, refusing) {
            (Err(error), Some(_)) if before != refusing => (self.log)(&format!(
                "{dir}: no room can be made for the log, writes are refused: {error}"
            )),
            (_, None) if before.is_some() => {
                (self.log)(&format!("{dir}: there is room for the log, writes go on"));
            }
            _ => {}
        }
    }

    async fn next_job(&self) -> Job {
        poll_fn(|cx| match self.state.borrow_mut().job(self.segment_bytes) {
            Some(job) => Poll::Ready(job),
            None => {
                self.keeper.register(cx);
                Poll::Pending
            }
        })
        .await
    }

    /// Makes a segment of zeros ready.
    async fn make(&self, bytes: u64) -> io::Result<()> {
        let tmp = self.dir.join(TMP_NAME);
        let written = self.write_zeros(&tmp, bytes).await;
        if written.is_err() {
            self.discard(&tmp).await;
        }
        written?;
        self.name(&tmp, bytes).await?;
        let mut state = self.state.borrow_mut();
        state.grown = state.grown.max(bytes.min(self.segment_bytes));
        Ok(())
    }

    /// Gives the space of a file back; that its name is gone already, or cannot go, changes nothing.
    async fn discard(&self, path: &Path) {
        self.rt.remove(path).await.ok();
    }

    async fn write_zeros(&self, tmp: &Path, bytes: u64) -> io::Result<()> {
        let file = self.rt.open(tmp, Mode::Create).await?;
        let mut at = 0;
        while at < bytes {
            if self.state.borrow().closed {
                return Err(io::ErrorKind::Interrupted.into());
            }
            let len = CHUNK_BYTES.min(bytes - at);
            let began = self.rt.now();
            let zeros = file.alloc(usize::try_from(len).expect("a chunk fits memory"));
            file.write_at(zeros, at).await?;
            at += len;
            if self.state.borrow().wanted == 0 {
                // Leaves the disk to others for as long as it was used.
                self.rt.sleep(self.rt.now().since(began).max(SLICE)).await;
            }
        }
        file.sync().await
    }

    /// Gives a prepared or released file the next id and makes it ready, or removes it.
    async fn name(&self, from: &Path, bytes: u64) -> io::Result<()> {
        let id = self.state.borrow_mut().take_id();
        let path = self.dir.join(segment_name(id));
        let opened = async {
            self.rt.rename(from, &path).await?;
            self.rt.sync_dir(&self.dir).await?;
            self.rt.open(&path, Mode::WriteDurable).await
        };
        let opened = opened.await;
        if opened.is_err() {
            for name in [from, path.as_path()] {
                self.discard(name).await;
            }
        }
        let file = opened?;
        let ready = Ready {
            id,
            bytes,
            path,
            file,
        };
        self.state.borrow_mut().admit(ready);
        self.taker.ring();
        Ok(())
    }
}

impl State {
    /// Whether the next segment has at least `bytes`.
    fn suffices(&self, bytes: u64) -> bool {
        self.ready.front().is_some_and(|next| next.bytes >= bytes)
    }

    /// Whether nobody has to wait for the keeper.
    fn is_content(&self) -> bool {
        self.suffices(self.wanted)
    }

    fn job(&mut self, segment_bytes: u64) -> Option<Job> {
        if self.closed {
            return Some(Job::End);
        }
        if !self.is_content() && self.wanted > segment_bytes {
            return Some(Job::Make(self.wanted));
        }
        if let Some(spare) = self.spare.pop() {
            let recycle = spare.bytes == segment_bytes && self.ready.len() < READY_MAX;
            return Some(if recycle {
                Job::Recycle(spare)
            } else {
                Job::Remove(spare)
            });
        }
        if self.ready.len() < READY_MIN || !self.is_content() {
            let grown = (self.grown * 4).max(self.wanted).min(segment_bytes);
            return Some(Job::Make(grown));
        }
        None
    }

    fn take_id(&mut self) -> u64 {
        let id = self.next_id;
        self.next_id += 1;
        id
    }

    /// Adds a segment. Those that are too small for what is waited for may not be used after it (ids must
    /// grow), so they go back to get a new name later.
    fn admit(&mut self, ready: Ready) {
        if ready.bytes >= self.wanted {
            let (small, usable) = std::mem::take(&mut self.ready)
                .into_iter()
                .partition(|old| old.bytes < self.wanted);
            self.ready = usable;
            let small: VecDeque<Ready> = small;
            self.spare.extend(small.into_iter().map(|old| Spare {
                path: old.path,
                bytes: old.bytes,
            }));
        }
        self.ready.push_back(ready);
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;

    use super::*;
    use crate::rt::sim::World;
    use crate::rt::sim::disk::{Disk, Fault};

    const DIR: &str = "/wal";
    const SEGMENT: u64 = 16 * FIRST_SEGMENT_BYTES;
    const LONG: Duration = Duration::from_secs(60);

    fn run<T>(body: impl AsyncFnOnce(&Rt, &Disk) -> T) -> T {
        let world = World::new(1);
        let rt = world.boot(1, 1).remove(0);
        let disk = world.disk(1);
        world.run(&rt, async {
            rt.create_dir(Path::new(DIR)).await.unwrap();
            body(&rt, &disk).await
        })
    }

    fn start(rt: &Rt, segment_bytes: u64) -> impl Future<Output = io::Result<Rc<Pool>>> {
        Pool::start(rt, Path::new(DIR), segment_bytes, 1, Rc::new(|_: &str| {}))
    }

    #[test]
    fn a_segment_that_cannot_be_used_again_is_no_reason_to_refuse() {
        // Rename, sync of the directory, open.
        for op in 0..3 {
            run(async |rt, disk| {
                let pool = start(rt, FIRST_SEGMENT_BYTES).await.unwrap();
                let used = pool.take(0).await.unwrap();
                rt.sleep(LONG).await;
                assert_eq!(disk.files().len(), 2, "the one in use and the one ready");
                disk.fail_at(disk.ops() + op, Fault::Io);
                pool.give(Spare {
                    path: used.path,
                    bytes: used.bytes,
                });
                rt.sleep(LONG).await;
                assert!(!pool.is_refusing(), "operation {op}");
                assert_eq!(disk.files().len(), 1, "operation {op}: a file stays");
                for _ in 0..3 {
                    pool.take(0).await.unwrap();
                }
            });
        }
    }

    #[test]
    fn a_segment_too_large_for_the_disk_is_refused_and_smaller_writes_go_on() {
        run(async |rt, disk| {
            let pool = start(rt, SEGMENT).await.unwrap();
            rt.sleep(LONG).await;
            disk.set_capacity(2 * FIRST_SEGMENT_BYTES);
            let refused = pool.take(SEGMENT).await.map(|_| ());
            assert_eq!(refused.unwrap_err().kind(), io::ErrorKind::StorageFull);
            assert!(!pool.is_refusing(), "one is ready");
            rt.sleep(LONG).await;
            disk.heal();
            assert_eq!(
                pool.take(SEGMENT).await.unwrap().bytes,
                SEGMENT,
                "asked again"
            );
        });
    }

    #[test]
    fn attempts_that_fail_do_not_make_the_next_segment_larger() {
        run(async |rt, disk| {
            disk.set_capacity(2 * FIRST_SEGMENT_BYTES);
            let pool = start(rt, SEGMENT).await.unwrap();
            pool.take(0).await.unwrap();
            rt.sleep(LONG).await;
            assert!(pool.is_refusing());
            disk.heal();
            rt.sleep(LONG).await;
            let next = pool.take(0).await.unwrap();
            assert_eq!(next.bytes, 4 * FIRST_SEGMENT_BYTES);
        });
    }

    #[test]
    fn a_segment_that_gets_no_name_gives_its_space_back() {
        for fault in [Fault::Io, Fault::Full] {
            for op in 0..9 {
                run(async |rt, disk| {
                    disk.fail_at(disk.ops() + op, fault);
                    let started = start(rt, FIRST_SEGMENT_BYTES).await;
                    let files = disk.files().len();
                    assert_eq!(files, usize::from(started.is_ok()), "operation {op}");
                });
            }
        }
    }
}
