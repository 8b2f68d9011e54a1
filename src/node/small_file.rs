//! A small file of the data directory that changes while the node serves: replaced whole, one write at a time.
//!
//! ```text
//!  want(from then on) ─▶ turn: due and none on its way ─▶ task: Rt::replace ─┬─ done
//!                          ▲                                                  └─ failed: told, due again later
//!                          └── every turn of the loop
//! ```
//!
//! Only core 0 has such files written, so that no two writes of one file meet. The bytes are asked for when a write
//! begins: what changes meanwhile is wanted again.

use std::cell::RefCell;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use crate::base::time::Instant;
use crate::rt::Rt;

/// A disk that did not take the file is asked again after this long.
const RETRY: Duration = Duration::from_secs(2);
/// How often an end waits for a write that is on its way: about what a device takes.
const POLL: Duration = Duration::from_millis(1);

/// One file, as core 0 sees it.
pub(crate) struct SmallFile {
    path: PathBuf,
    /// To be written from then on.
    due: Option<Instant>,
    write: Rc<RefCell<Write>>,
}

#[derive(Debug, PartialEq, Eq)]
enum Write {
    Idle,
    OnItsWay,
    Failed(String),
}

impl SmallFile {
    pub(crate) fn new(path: PathBuf) -> SmallFile {
        SmallFile {
            path,
            due: None,
            write: Rc::new(RefCell::new(Write::Idle)),
        }
    }

    /// The file is to say something new, from then on.
    pub(crate) fn want(&mut self, at: Instant) {
        self.due = Some(self.due.map_or(at, |due| due.min(at)));
    }

    /// Begins the write that is due. The error is that of the write before.
    pub(crate) fn turn(&mut self, rt: &Rt, bytes: impl FnOnce() -> Vec<u8>) -> Result<(), String> {
        let now = rt.now();
        let write = &mut *self.write.borrow_mut();
        match write {
            Write::OnItsWay => return Ok(()),
            Write::Failed(_) => {
                self.due = Some(now + RETRY);
                let Write::Failed(why) = std::mem::replace(write, Write::Idle) else {
                    return Ok(());
                };
                return Err(format!("{} cannot be written: {why}", self.path.display()));
            }
            Write::Idle if self.due.is_none_or(|due| due > now) => return Ok(()),
            Write::Idle => {}
        }
        self.due = None;
        *write = Write::OnItsWay;
        let (task_rt, path, bytes) = (rt.clone(), self.path.clone(), bytes());
        let outcome = Rc::clone(&self.write);
        rt.spawn(async move {
            *outcome.borrow_mut() = match task_rt.replace(&path, &bytes).await {
                Ok(()) => Write::Idle,
                Err(error) => Write::Failed(error.to_string()),
            };
        });
        Ok(())
    }

    /// Writes it now, after what is on its way.
    pub(crate) async fn write_now(&mut self, rt: &Rt, bytes: &[u8]) -> Result<(), String> {
        while *self.write.borrow() == Write::OnItsWay {
            rt.sleep(POLL).await;
        }
        self.due = None;
        let written = rt.replace(&self.path, bytes).await;
        written.map_err(|error| format!("{} cannot be written: {error}", self.path.display()))
    }
}
