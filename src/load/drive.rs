//! Carries bytes between the workers and their sockets: one thread, one epoll set, one read buffer each.

use std::io;
use std::time::Duration;

use super::plan::Plan;
use super::tally::{Failure, Tally};
use super::worker::{Todo, Worker};
use crate::base::time::Instant;
use crate::rt::plain::net::{self, Sockets};
use crate::rt::plain::{Clock, threads};
use crate::rt::stop::Stop;

/// A read takes at most so many bytes.
const READ_BYTES: usize = 256 << 10;

/// What a thread has to tell while a run lasts.
#[derive(Debug)]
pub enum Told {
    /// One second is over, for this thread.
    Second {
        thread: usize,
        second: u32,
        tally: Tally,
    },
    /// The thread has done its part. `last`: when its last request ended. `unsent`: requests that were due and never sent.
    Done {
        thread: usize,
        second: u32,
        tally: Tally,
        last: Instant,
        unsent: u64,
    },
    /// This machine does not let the thread work.
    Failed(io::Error),
}

/// Runs the plan from `start` on and hands `hear` what the threads tell. Ends when all is answered, or soon after `stop`.
pub fn run(plan: &Plan, clock: Clock, start: Instant, stop: &Stop, hear: impl FnMut(Told)) {
    let work = |thread: usize, tell: &dyn Fn(Told)| {
        let driver = Driver::new(plan, thread, clock, start);
        if let Err(error) = driver.and_then(|driver| driver.run(stop, tell)) {
            tell(Told::Failed(error));
            stop.raise();
        }
    };
    threads::run(plan.threads, work, hear);
}

struct Driver<'a> {
    plan: &'a Plan,
    thread: usize,
    clock: Clock,
    worker: Worker<'a>,
    sockets: Sockets,
    buffer: Vec<u8>,
    /// When processor time was looked at, and how much had been used.
    looked: (Instant, Duration),
}

impl<'a> Driver<'a> {
    fn new(plan: &'a Plan, thread: usize, clock: Clock, start: Instant) -> io::Result<Driver<'a>> {
        Ok(Driver {
            plan,
            thread,
            clock,
            worker: Worker::new(plan, thread, start),
            sockets: Sockets::new()?,
            buffer: vec![0; READ_BYTES],
            looked: (clock.now(), threads::processor_time()),
        })
    }

    fn run(mut self, stop: &Stop, tell: &dyn Fn(Told)) -> io::Result<()> {
        let thread = self.thread;
        let mut ready = Vec::new();
        let mut now = self.clock.now();
        loop {
            if stop.is_raised() {
                self.worker.stop(now);
            }
            self.worker.tick(now);
            self.act()?;
            self.look(now);
            for (second, tally) in self.worker.complete() {
                tell(Told::Second {
                    thread,
                    second,
                    tally,
                });
            }
            if self.worker.is_done(now) {
                break;
            }
            ready.clear();
            self.sockets.wait(self.worker.due(now) - now, &mut ready)?;
            now = self.clock.now();
            for event in &ready {
                if event.writable {
                    self.writable(event.socket, now);
                }
                if event.readable {
                    self.readable(event.socket, event.ended, now);
                    // One reading per readable event: what was answered is timed by it, and what is sent next.
                    now = self.clock.now();
                }
                self.act()?;
            }
        }
        let (second, tally, last, unsent) = self.worker.finish(now);
        tell(Told::Done {
            thread,
            second,
            tally,
            last,
            unsent,
        });
        Ok(())
    }

    /// Does what the worker asks for. Writing may bring more to do.
    fn act(&mut self) -> io::Result<()> {
        while let Some(todo) = self.worker.todo.pop_front() {
            match todo {
                Todo::Open(at, target) => {
                    let address = self.plan.targets[target].address;
                    match self.sockets.open(at, address) {
                        Ok(()) => {}
                        // Too many connections for this machine are no finding about the server.
                        Err(error) if net::is_exhaustion(&error) => return Err(error),
                        Err(error) => {
                            let failure = match error.kind() {
                                io::ErrorKind::AddrNotAvailable => Failure::NoPort,
                                _ => Failure::Connect,
                            };
                            self.worker.broken(at, self.clock.now(), failure);
                        }
                    }
                }
                Todo::Close(at) => self.sockets.close(at),
                Todo::Write(at) => self.write(at),
            }
        }
        Ok(())
    }

    fn writable(&mut self, at: usize, now: Instant) {
        if self.worker.is_opening(at) {
            match self.sockets.error(at) {
                Some(_) => return self.worker.broken(at, now, Failure::Connect),
                None => self.worker.opened(at, now),
            }
        }
        self.write(at);
    }

    fn write(&mut self, at: usize) {
        while !self.worker.output(at).is_empty() {
            match self.sockets.write(at, self.worker.output(at)) {
                Ok(written) => self.worker.wrote(at, written),
                // There will be an event.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => return self.worker.broken(at, self.clock.now(), Failure::Closed),
            }
        }
    }

    fn readable(&mut self, at: usize, ended: bool, now: Instant) {
        loop {
            match self.sockets.read(at, &mut self.buffer) {
                Ok(0) => return self.worker.ended(at, now),
                Ok(read) => {
                    self.worker.received(at, now, &self.buffer[..read]);
                    // It may be to be closed by now, and what is behind the bytes is of no interest.
                    if !self.worker.is_open(at) || read < self.buffer.len() && !ended {
                        return;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => return self.worker.broken(at, now, Failure::Closed),
            }
        }
    }

    /// Notes processor time, now and then.
    fn look(&mut self, now: Instant) {
        const LOOK_INTERVAL: Duration = Duration::from_millis(100);
        let (then, before) = self.looked;
        if now - then >= LOOK_INTERVAL {
            let used = threads::processor_time();
            self.worker.busy(used.saturating_sub(before), now - then);
            self.looked = (now, used);
        }
    }
}
