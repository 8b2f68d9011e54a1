//! What the operator hears of data that cannot be read: each file at most once a minute, however often it is asked for.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use super::failure::Failure;
use crate::base::time::Instant;
use crate::rt::Rt;
use crate::store::ReadError;

/// Silence about a file that has just been told of.
const SILENCE: Duration = Duration::from_secs(60);

/// One per core; clones share it.
#[derive(Clone)]
pub(super) struct ReadFaults {
    rt: Rt,
    told: Rc<RefCell<Told>>,
    log: Rc<dyn Fn(&str)>,
}

impl ReadFaults {
    pub(super) fn new(rt: &Rt, log: &Rc<dyn Fn(&str)>) -> ReadFaults {
        ReadFaults {
            rt: rt.clone(),
            told: Rc::default(),
            log: Rc::clone(log),
        }
    }

    /// What the client is told; the operator hears the reason.
    pub(super) fn tell(&self, error: &ReadError) -> Failure {
        if self.told.borrow_mut().is_news(&error.file, self.rt.now()) {
            (self.log)(&error.to_string());
        }
        Failure::Unreadable
    }
}

/// Files told of within the last minute: few, because damage is rare.
#[derive(Default)]
struct Told(Vec<(String, Instant)>);

impl Told {
    fn is_news(&mut self, file: &str, now: Instant) -> bool {
        self.0.retain(|(_, at)| *at + SILENCE > now);
        let known = self.0.iter().any(|(known, _)| known == file);
        if !known {
            self.0.push((file.to_owned(), now));
        }
        !known
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_news_once_a_minute() {
        let mut told = Told::default();
        let at = |secs| Instant::default() + Duration::from_secs(secs);
        let news = [
            ("a", 0, true),
            ("a", 1, false),
            ("b", 2, true),
            ("a", 59, false),
            ("a", 60, true),
            ("b", 61, false),
            ("a", 61, false),
        ];
        for (file, secs, expected) in news {
            assert_eq!(told.is_news(file, at(secs)), expected, "{file} at {secs} s");
        }
        told.is_news("c", at(1000));
        assert_eq!(told.0.len(), 1, "what is old is forgotten");
    }
}
