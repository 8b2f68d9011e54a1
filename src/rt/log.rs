//! Log lines on their way to a file and the terminal: never waited for by a core.
//!
//! ```text
//!   core 0 ─┐
//!   core 1 ─┼─▶ bounded channel ─▶ one writer thread ─▶ <dir>/node.log, stdout or stderr
//!   main   ─┘        full: the line is dropped and counted; the count is written when there is room again
//! ```

#![expect(
    clippy::disallowed_methods,
    reason = "the writer thread, its file and its clock live here"
)]

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{SystemTime, UNIX_EPOCH};

/// Lines waiting for the writer. More: dropped.
const LINES_WAITING_MAX: usize = 4096;

/// Where a line goes besides the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Echo {
    Stdout,
    Stderr,
    FileOnly,
}

/// A handle for any thread; clones feed one writer.
#[derive(Clone)]
pub struct LogSink {
    lines: SyncSender<Option<(Echo, String)>>,
    dropped: Arc<AtomicU64>,
}

/// The writer. Owned by `main`.
pub struct LogWriter {
    lines: SyncSender<Option<(Echo, String)>>,
    thread: JoinHandle<()>,
}

/// Opens `path` for appending and starts the writer.
pub fn start(path: &Path) -> io::Result<(LogSink, LogWriter)> {
    let file = OpenOptions::new().create(true).append(true).open(path)?;
    let (lines, waiting) = sync_channel(LINES_WAITING_MAX);
    let dropped = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&dropped);
    let thread = std::thread::Builder::new()
        .name("log".to_string())
        .spawn(move || write_all(file, &waiting, &counted))?;
    let writer = LogWriter {
        lines: lines.clone(),
        thread,
    };
    Ok((LogSink { lines, dropped }, writer))
}

impl LogSink {
    /// Hands over whole lines, each ended by `\n`. Never blocks: when the writer is far behind they are
    /// dropped and counted.
    pub fn send(&self, echo: Echo, text: String) {
        if self.lines.try_send(Some((echo, text))).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Wall clock for the time stamp, milliseconds since 1970.
    #[must_use]
    pub fn wall_ms(&self) -> u64 {
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| {
                u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
            })
    }
}

impl LogWriter {
    /// Waits until everything sent so far is written. What other handles send later is lost.
    pub fn finish(self) {
        // An error means that the writer is gone already, which the join reports.
        self.lines.send(None).unwrap_or_default();
        self.thread.join().expect("the log writer does not panic");
    }
}

fn write_all(mut file: File, waiting: &Receiver<Option<(Echo, String)>>, dropped: &AtomicU64) {
    while let Ok(Some((echo, text))) = waiting.recv() {
        write(&mut file, echo, &text);
        let lost = dropped.swap(0, Ordering::Relaxed);
        if lost > 0 {
            write(
                &mut file,
                Echo::Stderr,
                &format!("{lost} log lines dropped\n"),
            );
        }
    }
}

/// A log that cannot be written (full disk, closed terminal) must not stop the node: errors end here.
fn write(file: &mut File, echo: Echo, text: &str) {
    let written = [
        file.write_all(text.as_bytes()),
        match echo {
            Echo::Stdout => {
                let mut stdout = io::stdout().lock();
                stdout
                    .write_all(text.as_bytes())
                    .and_then(|()| stdout.flush())
            }
            Echo::Stderr => io::stderr().write_all(text.as_bytes()),
            Echo::FileOnly => Ok(()),
        },
    ];
    drop(written);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_appended_in_order() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("node.log");
        std::fs::write(&path, "before\n").unwrap();
        let (sink, writer) = start(&path).unwrap();
        let other = sink.clone();
        sink.send(Echo::FileOnly, "one\n".to_string());
        other.send(Echo::FileOnly, "two\n".to_string());
        writer.finish();
        sink.send(Echo::FileOnly, "too late\n".to_string());
        assert_eq!(
            std::fs::read_to_string(&path).unwrap(),
            "before\none\ntwo\n"
        );
    }

    #[test]
    fn a_full_channel_drops_and_counts_instead_of_blocking() {
        let (lines, waiting) = sync_channel(1);
        let dropped = Arc::new(AtomicU64::new(0));
        let sink = LogSink {
            lines,
            dropped: Arc::clone(&dropped),
        };
        for _ in 0..3 {
            sink.send(Echo::FileOnly, "x\n".to_string());
        }
        assert_eq!(dropped.load(Ordering::Relaxed), 2);
        drop(sink);
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("node.log");
        write_all(File::create(&path).unwrap(), &waiting, &dropped);
        assert_eq!(
            std::fs::read_to_string(&path).unwrap(),
            "x\n2 log lines dropped\n"
        );
    }
}
