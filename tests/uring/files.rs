//! Files on the real disk.

use std::future::{Future, poll_fn};
use std::io::ErrorKind;
use std::path::Path;
use std::task::Poll;

use kvstore::base::limits::DISK_PAGE_BYTES;
use kvstore::rt::Rt;
use kvstore::rt::file::Mode;

use crate::{data_dir, isolated, on_one_core};

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at * 31 + at / 251) as u8).collect()
}

async fn written(rt: &Rt, path: &Path, bytes: &[u8]) {
    let file = rt.open(path, Mode::Create).await.expect("create");
    let mut buf = file.alloc(bytes.len());
    assert!(
        buf.iter().all(|&byte| byte == 0),
        "old memory must not reach the disk"
    );
    buf.copy_from_slice(bytes);
    file.write_at(buf, 0).await.expect("write");
    file.sync().await.expect("sync");
    assert_eq!(file.len(), bytes.len() as u64);
}

#[test]
fn any_range_reads_exactly_and_never_past_the_end() {
    isolated(
        "files::any_range_reads_exactly_and_never_past_the_end",
        || {
            let dir = data_dir();
            on_one_core(dir.path(), |rt, dir| async move {
                let bytes = pattern(5 * DISK_PAGE_BYTES);
                let path = dir.join("pages");
                written(&rt, &path, &bytes).await;
                let file = rt.open(&path, Mode::Read).await.expect("open");
                let mut random = fastrand::Rng::with_seed(7);
                for round in 0..200 {
                    let pos = random.usize(0..bytes.len());
                    let len = random.usize(0..=bytes.len() - pos);
                    let got = file
                        .read_at(pos as u64, len)
                        .await
                        .expect("within the file");
                    assert!(
                        got == bytes[pos..pos + len],
                        "seed 7 round {round}: {len} at {pos}"
                    );
                }
                for (pos, len) in [
                    (bytes.len() as u64 - 1, 2),
                    (1 << 40, 1),
                    (u64::MAX, 1),
                    (0, bytes.len() + 1),
                ] {
                    let error = file.read_at(pos, len).await.expect_err("past the end");
                    assert_eq!(error.kind(), ErrorKind::UnexpectedEof, "{len} at {pos}");
                }
                // A file that does not end at a page: the bytes behind its end are not its own.
                let odd = dir.join("odd");
                rt.replace(&odd, &bytes[..700]).await.expect("replace");
                let file = rt.open(&odd, Mode::Read).await.expect("open");
                assert_eq!(file.len(), 700);
                assert!(file.read_at(100, 600).await.expect("whole") == bytes[100..700]);
                let error = file.read_at(100, 601).await.expect_err("one too many");
                assert_eq!(error.kind(), ErrorKind::UnexpectedEof);
            });
        },
    );
}

#[test]
fn buffers_are_zeroed_and_large_ones_work() {
    isolated("files::buffers_are_zeroed_and_large_ones_work", || {
        let dir = data_dir();
        on_one_core(dir.path(), |rt, dir| async move {
            // From the registered pool (dirty after the first round), and far beyond it.
            for len in [DISK_PAGE_BYTES, DISK_PAGE_BYTES, 64 << 10, 8 << 20, 8 << 20] {
                let path = dir.join("file");
                let bytes = vec![0xff; len];
                written(&rt, &path, &bytes).await;
                let file = rt.open(&path, Mode::Read).await.expect("open");
                assert!(file.read_at(0, len).await.expect("read") == bytes);
                assert!(rt.read_whole(&path).await.expect("read") == bytes);
            }
        });
    });
}

#[test]
fn a_file_cut_under_its_reader_is_an_error_and_no_signal() {
    isolated(
        "files::a_file_cut_under_its_reader_is_an_error_and_no_signal",
        || {
            let dir = data_dir();
            on_one_core(dir.path(), |rt, dir| async move {
                let path = dir.join("file");
                written(&rt, &path, &vec![7; 4 * DISK_PAGE_BYTES]).await;
                let file = rt.open(&path, Mode::Read).await.expect("open");
                let cut = std::fs::File::options().write(true).open(&path);
                let cut = cut.expect("open").set_len(DISK_PAGE_BYTES as u64);
                cut.expect("cut");
                let read = file.read_at(0, 4 * DISK_PAGE_BYTES).await;
                assert_eq!(read.expect_err("cut").kind(), ErrorKind::UnexpectedEof);
                assert!(file.read_at(0, DISK_PAGE_BYTES).await.is_ok());
            });
        },
    );
}

/// Flags of the descriptor this process has open on `path`, from /proc.
fn open_flags(path: &Path) -> i32 {
    std::fs::read_dir("/proc/self/fd")
        .expect("proc")
        .filter_map(Result::ok)
        .find(|fd| std::fs::read_link(fd.path()).is_ok_and(|to| to == path))
        .map(|fd| format!("/proc/self/fdinfo/{}", fd.file_name().to_string_lossy()))
        .and_then(|info| std::fs::read_to_string(info).ok())
        .and_then(|info| {
            let flags = info.lines().find_map(|line| line.strip_prefix("flags:"))?;
            i32::from_str_radix(flags.trim(), 8).ok()
        })
        .expect("the file is open")
}

#[test]
fn durable_writes_are_direct_and_synchronous() {
    isolated("files::durable_writes_are_direct_and_synchronous", || {
        let dir = data_dir();
        on_one_core(dir.path(), |rt, dir| async move {
            let path = dir.canonicalize().expect("it exists").join("wal");
            written(&rt, &path, &pattern(4 * DISK_PAGE_BYTES)).await;
            let file = rt.open(&path, Mode::WriteDurable).await.expect("open");
            let flags = open_flags(&path);
            assert_eq!(flags & libc::O_DSYNC, libc::O_DSYNC, "{flags:o}");
            assert_eq!(flags & libc::O_DIRECT, libc::O_DIRECT, "{flags:o}");
            let mut buf = file.alloc(DISK_PAGE_BYTES);
            buf.fill(9);
            file.write_at(buf, DISK_PAGE_BYTES as u64)
                .await
                .expect("overwrite");
            assert_eq!(
                file.len(),
                4 * DISK_PAGE_BYTES as u64,
                "nothing was appended or cut"
            );
            let page = file
                .read_at(DISK_PAGE_BYTES as u64, DISK_PAGE_BYTES)
                .await
                .expect("read");
            assert!(page.iter().all(|&byte| byte == 9));
            // Overlapping operations on one file: each gets its own bytes.
            let (a, b) = (
                file.read_at(0, 10),
                file.read_at(3 * DISK_PAGE_BYTES as u64, 10),
            );
            assert_eq!(
                b.await.expect("b"),
                pattern(4 * DISK_PAGE_BYTES)[3 * DISK_PAGE_BYTES..][..10]
            );
            assert_eq!(a.await.expect("a"), pattern(10));
        });
    });
}

#[test]
fn names_come_and_go_as_told() {
    isolated("files::names_come_and_go_as_told", || {
        let dir = data_dir();
        on_one_core(dir.path(), |rt, dir| async move {
            let deep = dir.join("a/b/c");
            rt.create_dir(&deep).await.expect("create");
            rt.create_dir(&deep).await.expect("again");
            for name in ["two", "one", "three"] {
                rt.replace(&deep.join(name), name.as_bytes())
                    .await
                    .expect("replace");
            }
            rt.replace(&deep.join("one"), b"1")
                .await
                .expect("replace again");
            assert_eq!(rt.read_whole(&deep.join("one")).await.expect("read"), b"1");
            assert_eq!(rt.list(&deep).await.expect("list"), ["one", "three", "two"]);

            // An open file survives its name.
            let path = deep.join("file");
            written(&rt, &path, &pattern(DISK_PAGE_BYTES)).await;
            let file = rt.open(&path, Mode::Read).await.expect("open");
            rt.rename(&path, &deep.join("two")).await.expect("rename");
            rt.remove(&deep.join("two")).await.expect("remove");
            rt.sync_dir(&deep).await.expect("sync");
            assert_eq!(file.len(), DISK_PAGE_BYTES as u64);
            assert_eq!(file.read_at(0, 5).await.expect("read"), pattern(5));
            assert_eq!(rt.list(&deep).await.expect("list"), ["one", "three"]);

            for error in [
                rt.open(&path, Mode::Read)
                    .await
                    .map(|_| ())
                    .expect_err("gone"),
                rt.open(&path, Mode::WriteDurable)
                    .await
                    .map(|_| ())
                    .expect_err("gone"),
                rt.read_whole(&path).await.map(|_| ()).expect_err("gone"),
                rt.remove(&path).await.expect_err("gone"),
                rt.rename(&path, &deep.join("x")).await.expect_err("gone"),
                rt.list(&path).await.map(|_| ()).expect_err("gone"),
                rt.sync_dir(&path).await.expect_err("gone"),
            ] {
                assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
                let text = error.to_string();
                assert!(text.contains("No such file or directory"), "{text}");
                assert!(!text.contains("fd"), "words of a library: {text}");
                assert!(
                    error.to_string().contains("a/b/c"),
                    "names the file: {error}"
                );
            }
        });
    });
}

#[test]
fn dropped_files_are_closed() {
    isolated("files::dropped_files_are_closed", || {
        let dir = data_dir();
        on_one_core(dir.path(), |rt, dir| async move {
            let path = dir.join("file");
            written(&rt, &path, &pattern(DISK_PAGE_BYTES)).await;
            let open = || std::fs::read_dir("/proc/self/fd").expect("proc").count();
            rt.yield_now().await;
            let before = open();
            for _ in 0..300 {
                let file = rt.open(&path, Mode::Read).await.expect("open");
                // Also with a read given up half way.
                let mut read = std::pin::pin!(file.read_at(0, 10));
                let begun = poll_fn(|cx| Poll::Ready(read.as_mut().poll(cx).is_pending())).await;
                assert!(begun);
            }
            let mut left = open();
            for _ in 0..1000 {
                if left <= before {
                    break;
                }
                rt.yield_now().await;
                left = open();
            }
            assert!(left <= before, "{left} descriptors open, {before} before");
        });
    });
}
