//! SIGTERM and SIGINT: the first asks politely, the second does not.

use std::io;

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::rt::stop::Stop;

/// What a shell expects of a program ended by the keyboard.
const INTERRUPTED: i32 = 130;

/// From now on the first of the two signals raises `stop`, and the second ends the process at once.
pub fn raise_on_signals(stop: &Stop) -> io::Result<()> {
    let mut signals = Signals::new([SIGTERM, SIGINT])?;
    let stop = stop.clone();
    std::thread::Builder::new()
        .name("signals".into())
        .spawn(move || {
            // Counted here, not read off `stop`: a core that failed may have raised it before.
            for (before, _) in signals.forever().enumerate() {
                if before > 0 {
                    std::process::exit(INTERRUPTED);
                }
                stop.raise();
            }
        })?;
    Ok(())
}
