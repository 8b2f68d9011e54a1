//! Pure. Lines for the log that others can cause at will (strangers who dial, reads of a damaged block): each is told
//! once in a while, not each time.

use std::cell::RefCell;
use std::time::Duration;

use crate::base::time::Instant;

/// The same line is told again only after this long.
const QUIET: Duration = Duration::from_secs(60);
/// Different lines remembered; the oldest is forgotten.
const LINES_MAX: usize = 32;

/// One per core.
#[derive(Debug, Default)]
pub(crate) struct Grumble(RefCell<Vec<(String, Instant)>>);

impl Grumble {
    /// Tells the line, unless one about the same was told a short while ago.
    pub(crate) fn tell(&self, log: &dyn Fn(&str), now: Instant, about: &str, line: &str) {
        let mut told = self.0.borrow_mut();
        if let Some((_, at)) = told.iter_mut().find(|(text, _)| text == about) {
            if now.since(*at) < QUIET {
                return;
            }
            *at = now;
        } else {
            if told.len() >= LINES_MAX {
                told.remove(0);
            }
            told.push((about.to_owned(), now));
        }
        drop(told);
        log(line);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_told_once_a_minute_and_memory_is_bounded() {
        let told = RefCell::new(Vec::new());
        let log = |line: &str| told.borrow_mut().push(line.to_owned());
        let grumble = Grumble::default();
        let at = |second: u64| Instant(second * 1_000_000_000);
        for second in [0, 1, 59, 60, 61] {
            grumble.tell(&log, at(second), "a", "a");
        }
        assert_eq!(told.borrow().len(), 2);
        for n in 0..1000 {
            grumble.tell(&log, at(62), &n.to_string(), "b");
        }
        assert_eq!(grumble.0.borrow().len(), LINES_MAX);
        assert_eq!(told.borrow().len(), 1002);
    }
}
