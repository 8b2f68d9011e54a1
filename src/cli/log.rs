//! The log of the node: one line per event, to `node.log` in the data directory and to the terminal.
//!
//! ```text
//! 2026-11-23T23:02:19.123Z WARN .env:1: unknown setting ...
//! ```
//!
//! Text from outside may be in a line, so control characters are escaped: a client cannot forge a line or
//! steer a terminal.

use std::fmt::Write as _;

use super::StartError;
use crate::rt::log::{Echo, LogSink};

/// How bad an event is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    Info,
    Warn,
    Error,
}

/// Handle on the log; usable from any thread, never blocks.
#[derive(Clone)]
pub struct Log {
    sink: LogSink,
}

impl Log {
    #[must_use]
    pub fn new(sink: LogSink) -> Log {
        Log { sink }
    }

    pub fn info(&self, text: &str) {
        self.event(Level::Info, text);
    }

    pub fn warn(&self, text: &str) {
        self.event(Level::Warn, text);
    }

    /// Why the process ends. `main` tells the terminal.
    pub fn failure(&self, failure: &StartError) {
        for text in [&failure.error, &failure.hint] {
            self.sink
                .send(Echo::FileOnly, line(self.wall_ms(), Level::Error, text));
        }
    }

    /// Wall clock, milliseconds since 1970.
    #[must_use]
    pub fn wall_ms(&self) -> u64 {
        self.sink.wall_ms()
    }

    /// Lines as they are, to stdout and the file: the banner.
    pub fn plain(&self, lines: String) {
        self.sink.send(Echo::Stdout, lines);
    }

    /// Standard output belongs to the banner, so only what an operator must see goes to the terminal.
    fn event(&self, level: Level, text: &str) {
        let echo = match level {
            Level::Info => Echo::FileOnly,
            Level::Warn | Level::Error => Echo::Stderr,
        };
        self.sink.send(echo, line(self.wall_ms(), level, text));
    }
}

fn line(wall_ms: u64, level: Level, text: &str) -> String {
    let level = match level {
        Level::Info => "INFO",
        Level::Warn => "WARN",
        Level::Error => "ERROR",
    };
    let time = i64::try_from(wall_ms)
        .ok()
        .and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok())
        .unwrap_or_default();
    format!("{time:.3} {level} {}\n", escape(text))
}

/// `text` with every control character (line breaks included) spelled out.
#[must_use]
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() {
            // Writing to a String cannot fail.
            write!(out, "{}", c.escape_default()).expect("a String takes everything");
        } else {
            out.push(c);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_time_level_text() {
        assert_eq!(
            line(1_700_000_000_045, Level::Warn, "disk is slow"),
            "2023-11-14T22:13:20.045Z WARN disk is slow\n"
        );
    }

    #[test]
    fn nobody_forges_a_line_or_steers_a_terminal() {
        assert_eq!(
            line(0, Level::Info, "key a\n2023 ERROR x\u{1b}[2J\u{9b}"),
            "1970-01-01T00:00:00.000Z INFO key a\\n2023 ERROR x\\u{1b}[2J\\u{9b}\n"
        );
        assert_eq!(escape("grün \\ ok"), "grün \\ ok");
    }
}
