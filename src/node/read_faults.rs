//! What the operator hears of data that cannot be read: each file once in a while, however often it is asked for.

use std::rc::Rc;

use super::failure::Failure;
use super::grumble::Grumble;
use crate::rt::Rt;
use crate::store::ReadError;

/// One per core; clones share it.
#[derive(Clone)]
pub(super) struct ReadFaults {
    rt: Rt,
    told: Rc<Grumble>,
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
        let (now, line) = (self.rt.now(), error.to_string());
        self.told.tell(&*self.log, now, &error.file, &line);
        Failure::Unreadable
    }
}
