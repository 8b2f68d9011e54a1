//! Durable writes beside sockets: they go through a ring that the loop of the sockets looks after.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::io;
use std::path::{Path, PathBuf};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Poll, Waker};
use std::time::Duration;

use kvstore::base::limits::DISK_PAGE_BYTES;
use kvstore::rt::Rt;
use kvstore::rt::file::{File, Mode};

use crate::{data_dir, isolated, on_one_core};

const PAGE: u64 = DISK_PAGE_BYTES as u64;
/// More than the ring takes at a time.
const MANY: usize = 200;

/// A file of zeros, opened for durable writes.
async fn zeroed(rt: &Rt, path: &Path, pages: usize) -> File {
    let file = rt.open(path, Mode::Create).await.expect("create");
    let zeros = file.alloc(pages * DISK_PAGE_BYTES);
    file.write_at(zeros, 0).await.expect("zeros");
    file.sync().await.expect("sync");
    rt.open(path, Mode::WriteDurable).await.expect("open")
}

async fn fill(file: &File, page: usize, with: u8) {
    let mut buf = file.alloc(DISK_PAGE_BYTES);
    buf.fill(with);
    file.write_at(buf, page as u64 * PAGE).await.expect("write");
}

/// Whether another handle finds nothing but this byte.
async fn holds(rt: &Rt, path: &Path, pages: usize, byte: u8) -> bool {
    let file = rt.open(path, Mode::Read).await.expect("open");
    let read = file
        .read_at(0, pages * DISK_PAGE_BYTES)
        .await
        .expect("read");
    read.iter().all(|&found| found == byte)
}

async fn begun(write: &mut Pin<&mut impl Future<Output = ()>>) {
    poll_fn(|cx| Poll::Ready(write.as_mut().poll(cx).is_pending())).await;
}

/// Counts down to the end of what the loop waits for.
#[derive(Default)]
struct Left {
    count: Cell<usize>,
    waiting: RefCell<Option<Waker>>,
}

impl Left {
    fn one_less(&self) {
        self.count.set(self.count.get() - 1);
        if let Some(waker) = self.waiting.take() {
            waker.wake();
        }
    }
}

fn in_a_node(name: &str, body: impl AsyncFn(Rt, PathBuf) + Clone + Send + 'static) {
    isolated(name, || {
        let dir = data_dir();
        on_one_core(dir.path(), move |rt, dir| {
            let body = body.clone();
            async move { body(rt, dir.join("wal")).await }
        });
    });
}

#[test]
fn writes_end_while_the_loop_sleeps() {
    in_a_node(
        "durable::writes_end_while_the_loop_sleeps",
        async |rt, path| {
            let file = Rc::new(zeroed(&rt, &path, MANY).await);
            let mut net = rt.net(&[]).expect("sockets");
            net.poll(&mut Vec::new()).expect("poll");
            // One after the other, then all at once.
            for at_once in [1, MANY] {
                let left = Rc::new(Left::default());
                left.count.set(MANY);
                for first in 0..at_once {
                    let (file, left) = (Rc::clone(&file), Rc::clone(&left));
                    rt.spawn(async move {
                        for page in (first..MANY).step_by(at_once) {
                            fill(&file, page, at_once as u8).await;
                            left.one_less();
                        }
                    });
                }
                while left.count.get() > 0 {
                    let before = left.count.get();
                    net.park(None, &mut |cx| {
                        *left.waiting.borrow_mut() = Some(cx.waker().clone());
                        left.count.get() < before
                    })
                    .await
                    .expect("park");
                    net.poll(&mut Vec::new()).expect("poll");
                }
                assert!(holds(&rt, &path, MANY, at_once as u8).await);
            }
        },
    );
}

#[test]
fn a_write_ends_although_the_loop_waits_for_nothing_else() {
    in_a_node(
        "durable::a_write_ends_although_the_loop_waits_for_nothing_else",
        async |rt, path| {
            let file = zeroed(&rt, &path, 8).await;
            let mut net = rt.net(&[]).expect("sockets");
            // Seen, and never again: nobody submits, and nobody reaps.
            net.poll(&mut Vec::new()).expect("poll");
            for page in 0..8 {
                fill(&file, page, 7).await;
            }
            assert!(holds(&rt, &path, 8, 7).await);
        },
    );
}

#[test]
fn a_write_nobody_waits_for_keeps_its_buffer_and_gives_its_place_back() {
    in_a_node(
        "durable::a_write_nobody_waits_for_keeps_its_buffer_and_gives_its_place_back",
        async |rt, path| {
            let file = zeroed(&rt, &path, MANY).await;
            let mut net = rt.net(&[]).expect("sockets");
            net.poll(&mut Vec::new()).expect("poll");
            for page in 0..MANY {
                {
                    let mut write = pin!(fill(&file, page, 3));
                    begun(&mut write).await;
                }
                // Takes the memory again if it was given back too early.
                let mut other = file.alloc(DISK_PAGE_BYTES);
                other.fill(4);
                if page % 16 == 15 {
                    // Submits, and looks after what has ended.
                    fill(&file, page, 3).await;
                }
            }
            drop(net);
            // Sooner or later; with another byte in it, never.
            while !holds(&rt, &path, MANY, 3).await {}
        },
    );
}

#[test]
fn sockets_may_go_while_writes_are_under_way() {
    in_a_node(
        "durable::sockets_may_go_while_writes_are_under_way",
        async |rt, path| {
            let file = zeroed(&rt, &path, 3).await;
            for round in 1..20 {
                let mut net = rt.net(&[]).expect("sockets");
                net.poll(&mut Vec::new()).expect("poll");
                let mut one = pin!(fill(&file, 0, round));
                let mut two = pin!(fill(&file, 1, round));
                begun(&mut one).await;
                begun(&mut two).await;
                drop(net);
                one.await;
                two.await;
                fill(&file, 2, round).await;
                assert!(holds(&rt, &path, 3, round).await);
            }
        },
    );
}

/// What the disk refuses is an error also on the ring, and no write that was cut short passes for a whole one.
#[test]
fn a_write_beyond_the_limit_of_file_sizes_fails() {
    in_a_node(
        "durable::a_write_beyond_the_limit_of_file_sizes_fails",
        async |rt, path| {
            let file = Rc::new(zeroed(&rt, &path, 2).await);
            limit_file_sizes(2 * PAGE);
            let mut net = rt.net(&[]).expect("sockets");
            net.poll(&mut Vec::new()).expect("poll");
            for (pages, page, wanted) in [
                (1, 1, Ok(())),
                (1, 2, Err(io::ErrorKind::FileTooLarge)),
                (2, 1, Err(io::ErrorKind::StorageFull)),
            ] {
                let ended = Rc::new(Cell::new(None));
                let (file, told) = (Rc::clone(&file), Rc::clone(&ended));
                rt.spawn(async move {
                    let mut buf = file.alloc(pages * DISK_PAGE_BYTES);
                    buf.fill(9);
                    let written = file.write_at(buf, page * PAGE).await;
                    told.set(Some(written.map_err(|error| error.kind())));
                });
                let got = loop {
                    if let Some(got) = ended.get() {
                        break got;
                    }
                    let soon = rt.now() + Duration::from_millis(1);
                    net.park(Some(soon), &mut |_| false).await.expect("park");
                    net.poll(&mut Vec::new()).expect("poll");
                };
                assert_eq!(got, wanted, "{pages} pages at page {page}");
            }
        },
    );
}

#[expect(unsafe_code, reason = "setrlimit has no safe wrapper")]
fn limit_file_sizes(bytes: u64) {
    let limit = libc::rlimit {
        rlim_cur: bytes,
        rlim_max: bytes,
    };
    // SAFETY: only reads the limit, which lives.
    let set = unsafe { libc::setrlimit(libc::RLIMIT_FSIZE, &raw const limit) };
    assert_eq!(set, 0);
}
