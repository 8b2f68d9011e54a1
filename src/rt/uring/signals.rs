//! SIGTERM and SIGINT: the first asks politely, a later one does not.
//!
//! What asks a process to stop often signals it twice at once: timeout(1) its child and then its group, a
//! terminal the group of a shell that passes it on. So signals close together are one request.

use std::io::{self, Write};
use std::time::{Duration, Instant};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::rt::stop::Stop;

/// What a shell expects of a program ended by the keyboard.
const INTERRUPTED: i32 = 130;

/// A signal so soon after the first is the same request.
const ONE_REQUEST: Duration = Duration::from_secs(1);

/// From now on the first of the two signals raises `stop`, and a later one ends the process at once, with `farewell`.
#[expect(clippy::disallowed_methods, reason = "rt owns the clock")]
pub fn raise_on_signals(stop: &Stop, farewell: &'static str) -> io::Result<()> {
    let mut signals = Signals::new([SIGTERM, SIGINT])?;
    let stop = stop.clone();
    std::thread::Builder::new()
        .name("signals".into())
        .spawn(move || {
            // Remembered here, not read off `stop`: a core that failed may have raised it before.
            let mut asked: Option<Instant> = None;
            for _ in &mut signals {
                let now = Instant::now();
                if now.duration_since(*asked.get_or_insert(now)) > ONE_REQUEST {
                    insist(farewell);
                }
                stop.raise();
            }
        })?;
    Ok(())
}

fn insist(farewell: &str) -> ! {
    // A terminal that is gone must not keep the process.
    io::stderr()
        .write_all(farewell.as_bytes())
        .unwrap_or_default();
    std::process::exit(INTERRUPTED)
}
