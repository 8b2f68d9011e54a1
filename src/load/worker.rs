//! Pure. The connections of one thread: when to open, what to send, what came of it.
//!
//! ```text
//!               closed loop: an answer makes room for the next request
//!  source ──▶ session ═══ driver, socket, server ═══▶ session ──▶ tally ──▶ one per second to the main thread
//!    ▲          ▲
//!    │          └── at a rate: a due request goes to the connection that has had room longest
//!   plan       pace
//! ```
//!
//! Time is an argument. The driver ([`super::drive`]) owns the sockets, asks for [`Worker::tick`] now and then, tells what
//! happened to a connection, and does what the calls leave in `todo`.

use std::collections::VecDeque;
use std::time::Duration;

use super::pace::Pace;
use super::plan::{Plan, Work, share};
use super::session::{Session, State, Waiting};
use super::source::{Source, Thread};
use super::tally::{Failure, Op, Tally, Times};
use crate::base::time::Instant;
use crate::http::client::Answer;
use crate::http::request::Method;

/// A connection that could not be opened is tried again after this; each try costs one request of the run.
const REOPEN_PAUSE: Duration = Duration::from_millis(10);
/// Time limits are looked at no more often than this.
const SWEEP_INTERVAL: Duration = Duration::from_millis(100);
/// Once asked to stop, requests under way get this long.
const STOP_PATIENCE: Duration = Duration::from_secs(1);
/// A tally covers this long.
const INTERVAL: Duration = Duration::from_secs(1);

/// What the driver has to do with a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Todo {
    /// Connect to this target.
    Open(usize, usize),
    Close(usize),
    /// There is output.
    Write(usize),
}

/// One thread's part of a run.
pub struct Worker<'a> {
    plan: &'a Plan,
    source: Source<'a>,
    sessions: Vec<Session>,
    /// Open connections with room for a request, at a rate only.
    room: VecDeque<usize>,
    pace: Option<Pace>,
    /// Measured requests not sent yet.
    left: Option<u64>,
    /// Connections are opened at once, requests are sent from here on; they count from `measure_from` on.
    start: Instant,
    started: bool,
    /// The first measured request has been sent.
    measuring: bool,
    measure_from: Instant,
    /// Nothing is sent from here on.
    until: Option<Instant>,
    main_op: Op,
    seconds: Seconds,
    swept: Instant,
    /// Somebody wants the run to end, since then.
    stopped: Option<Instant>,
    /// In order: a connection is closed before it is opened anew.
    pub todo: VecDeque<Todo>,
}

/// Cuts what happens into intervals.
struct Seconds {
    from: Instant,
    current: u32,
    /// What came before the first measured request is left out.
    begun: bool,
    tally: Tally,
    complete: Vec<(u32, Tally)>,
    last_ended: Instant,
}

impl Seconds {
    fn turn(&mut self, now: Instant) {
        if !self.begun && now >= self.from {
            self.begun = true;
            self.tally = Tally::default();
        }
        let at = now.since(self.from).as_secs() / INTERVAL.as_secs();
        while u64::from(self.current) < at {
            let tally = std::mem::take(&mut self.tally);
            self.complete.push((self.current, tally));
            self.current += 1;
        }
    }
}

impl<'a> Worker<'a> {
    /// The part of thread `index`, which begins at `start`.
    #[must_use]
    pub fn new(plan: &'a Plan, index: usize, start: Instant) -> Worker<'a> {
        let (connections, before) = share(plan.connections as u64, index, plan.threads);
        let requests = plan.requests.map(|all| share(all, index, plan.threads));
        let thread = Thread {
            index,
            count: plan.threads,
            connections: connections as usize,
            first: requests.map(|(_, first)| first),
        };
        let method = match &plan.work {
            Work::Spelt { method, .. } if method == "HEAD" => Method::Head,
            _ => Method::Get,
        };
        let target = |at: u64| ((before + at) % plan.targets.len() as u64) as usize;
        let measure_from = start + plan.warmup;
        // Each thread paces its share; together they are evenly spaced when the shares are equal.
        let pace = plan.rate.map(|rate| {
            let offset = Duration::from_secs_f64(index as f64 / rate);
            let share = connections as f64 / plan.connections as f64;
            Pace::new(start + offset, rate * share)
        });
        Worker {
            plan,
            source: Source::new(plan, thread),
            sessions: (0..connections)
                .map(|at| Session::new(target(at), method))
                .collect(),
            room: VecDeque::new(),
            pace,
            left: requests.map(|(mine, _)| mine),
            start,
            started: false,
            measuring: false,
            measure_from,
            until: plan.duration.map(|duration| measure_from + duration),
            main_op: plan.work.main_op(),
            seconds: Seconds {
                from: measure_from,
                current: 0,
                begun: false,
                tally: Tally::default(),
                complete: Vec::new(),
                last_ended: measure_from,
            },
            swept: Instant(0),
            stopped: None,
            todo: VecDeque::new(),
        }
    }

    /// Does what is due, and leaves in `todo` what the driver must do now.
    pub fn tick(&mut self, now: Instant) {
        self.seconds.turn(now);
        if now.since(self.swept) >= SWEEP_INTERVAL || self.swept == Instant(0) {
            self.swept = now;
            for at in 0..self.sessions.len() {
                self.sweep(at, now);
            }
        }
        if !self.started && now >= self.start {
            self.started = true;
            for at in 0..self.sessions.len() {
                self.fill(at, now);
            }
        }
        self.release(now);
    }

    /// Time limits and reopening of one connection.
    fn sweep(&mut self, at: usize, now: Instant) {
        let session = &self.sessions[at];
        let late = |since: Instant| now.since(since) >= self.plan.timeout;
        match session.state {
            State::Closed(not_before) if not_before <= now && self.may_send(now) => {
                self.sessions[at].state = State::Opening(now);
                self.todo
                    .push_back(Todo::Open(at, self.sessions[at].target));
            }
            State::Opening(since) if late(since) => self.broken(at, now, Failure::Connect),
            State::Open if session.oldest().is_some_and(|oldest| late(oldest.sent)) => {
                self.broken(at, now, Failure::TimedOut);
            }
            _ => {}
        }
    }

    /// When the driver must call [`Worker::tick`] again at the latest.
    #[must_use]
    pub fn due(&self, now: Instant) -> Instant {
        let sweep = self.swept + SWEEP_INTERVAL;
        if !self.started {
            return sweep.min(self.start);
        }
        let busy = self.room.is_empty() || !self.may_send(now);
        match &self.pace {
            Some(pace) if !busy => sweep.min(pace.due()),
            _ => sweep,
        }
    }

    /// Whether all is sent and answered; or somebody has waited long enough for that.
    #[must_use]
    pub fn is_done(&self, now: Instant) -> bool {
        if self
            .stopped
            .is_some_and(|since| now.since(since) > STOP_PATIENCE)
        {
            return true;
        }
        !self.may_send(now) && self.sessions.iter().all(|session| session.depth() == 0)
    }

    /// From now on nothing is sent.
    pub fn stop(&mut self, now: Instant) {
        self.stopped.get_or_insert(now);
    }

    fn may_send(&self, now: Instant) -> bool {
        self.stopped.is_none() && self.left != Some(0) && self.until.is_none_or(|until| now < until)
    }

    /// A connection stands.
    pub fn opened(&mut self, at: usize, now: Instant) {
        self.sessions[at].state = State::Open;
        self.fill(at, now);
    }

    #[must_use]
    pub fn is_open(&self, at: usize) -> bool {
        self.sessions[at].state == State::Open
    }

    /// Whether it is not known yet that the connection stands.
    #[must_use]
    pub fn is_opening(&self, at: usize) -> bool {
        matches!(self.sessions[at].state, State::Opening(_))
    }

    /// Bytes came. The connection is to be kept unless `todo` says otherwise.
    pub fn received(&mut self, at: usize, now: Instant, bytes: &[u8]) {
        let (seconds, source) = (&mut self.seconds, &self.source);
        let mut keep_alive = self.plan.keep_alive && !self.sessions[at].closing;
        seconds.turn(now);
        seconds.tally.bytes_in += bytes.len() as u64;
        let taken = self.sessions[at].received(bytes, |waiting, answer| {
            keep_alive &= answer.keep_alive;
            answered(seconds, source, waiting, answer, now);
        });
        if let Err(failure) = taken {
            self.broken(at, now, failure);
        } else if !keep_alive && self.sessions[at].depth() == 0 {
            self.close(at, now);
        } else if !keep_alive {
            self.sessions[at].closing = true;
        } else {
            self.fill(at, now);
        }
    }

    /// The server has closed the connection.
    pub fn ended(&mut self, at: usize, now: Instant) {
        if self.is_closed(at) {
            return;
        }
        let (seconds, source) = (&mut self.seconds, &self.source);
        self.sessions[at].ended(|waiting, answer| answered(seconds, source, waiting, answer, now));
        if self.sessions[at].depth() > 0 {
            self.broken(at, now, Failure::Closed);
        } else {
            self.close(at, now);
        }
    }

    /// A connection failed, and with it all that was under way on it.
    pub fn broken(&mut self, at: usize, now: Instant, failure: Failure) {
        if self.is_closed(at) {
            return;
        }
        self.seconds.turn(now);
        let opening = self.is_opening(at);
        let pause = if opening {
            REOPEN_PAUSE
        } else {
            Duration::ZERO
        };
        // The one that waited too long, and those behind it, which would have come later still.
        for waiting in self.sessions[at].reset(now + pause) {
            if waiting.measured {
                self.seconds.tally.lost(waiting.asked.op, failure);
                self.seconds.last_ended = now;
            }
        }
        if opening && self.take_one(now).is_some_and(|(_, measured)| measured) {
            self.seconds.tally.lost(self.main_op, failure);
            self.seconds.last_ended = now;
        }
        self.reopen(at, now);
    }

    /// Events may still come for a connection that was given up in this turn.
    fn is_closed(&self, at: usize) -> bool {
        matches!(self.sessions[at].state, State::Closed(_))
    }

    fn close(&mut self, at: usize, now: Instant) {
        // A server that closes what it has just accepted is not to be called without end.
        let pause = if self.sessions[at].used {
            Duration::ZERO
        } else {
            REOPEN_PAUSE
        };
        // Nothing is under way on it.
        self.sessions[at].reset(now + pause).for_each(drop);
        self.reopen(at, now);
    }

    /// Opens it again at once, or when the next sweep finds it time to.
    fn reopen(&mut self, at: usize, now: Instant) {
        self.todo.push_back(Todo::Close(at));
        if self.sessions[at].state == State::Closed(now) {
            self.sweep(at, now);
        }
    }

    #[must_use]
    pub fn output(&self, at: usize) -> &[u8] {
        self.sessions[at].output()
    }

    pub fn wrote(&mut self, at: usize, bytes: usize) {
        self.seconds.tally.bytes_out += bytes as u64;
        self.sessions[at].wrote(bytes);
    }

    /// Whether one more request may be sent: when it was due, and whether it counts.
    fn take_one(&mut self, now: Instant) -> Option<(Option<Instant>, bool)> {
        if !self.started || !self.may_send(now) {
            return None;
        }
        let intended = match &mut self.pace {
            None => None,
            Some(pace) => Some(pace.take(now)?),
        };
        let measured = intended.unwrap_or(now) >= self.measure_from;
        if measured && let Some(left) = &mut self.left {
            *left -= 1;
        }
        if measured && !std::mem::replace(&mut self.measuring, true) {
            self.source.restart();
        }
        Some((intended, measured))
    }

    /// Sends on one connection what may be sent.
    fn fill(&mut self, at: usize, now: Instant) {
        if self.pace.is_some() {
            if !self.sessions[at].listed && self.has_room(at) {
                self.sessions[at].listed = true;
                self.room.push_back(at);
            }
            return self.release(now);
        }
        let before = self.sessions[at].depth();
        while self.has_room(at)
            && let Some((intended, measured)) = self.take_one(now)
        {
            self.send(at, now, intended, measured);
        }
        if self.sessions[at].depth() > before {
            self.todo.push_back(Todo::Write(at));
        }
    }

    /// At a rate: hands what is due to connections with room.
    fn release(&mut self, now: Instant) {
        if self.pace.is_none() {
            return;
        }
        while let Some(&at) = self.room.front() {
            if self.has_room(at) {
                let Some((intended, measured)) = self.take_one(now) else {
                    return;
                };
                self.send(at, now, intended, measured);
                self.todo.push_back(Todo::Write(at));
            }
            self.room.pop_front();
            self.sessions[at].listed = self.has_room(at);
            if self.sessions[at].listed {
                self.room.push_back(at);
            }
        }
    }

    fn has_room(&self, at: usize) -> bool {
        let session = &self.sessions[at];
        // A connection that is closed after its answer takes one request.
        let most = if self.plan.keep_alive {
            self.plan.pipeline
        } else {
            1
        };
        session.state == State::Open && !session.closing && session.depth() < most
    }

    fn send(&mut self, at: usize, now: Instant, intended: Option<Instant>, measured: bool) {
        let session = &mut self.sessions[at];
        let target = session.target;
        let (out, follow) = session.request();
        let asked = self.source.next(target, follow, out);
        session.asked(Waiting {
            asked,
            intended,
            sent: now,
            measured,
        });
    }

    /// The intervals that are over since the last call, oldest first.
    pub fn complete(&mut self) -> impl Iterator<Item = (u32, Tally)> + '_ {
        self.seconds.complete.drain(..)
    }

    /// Adds the processor time this thread has used since the last time, for `watched`.
    pub fn busy(&mut self, busy: Duration, watched: Duration) {
        self.seconds.tally.busy += busy;
        self.seconds.tally.watched += watched;
    }

    /// The end of this thread's part: the interval under way, when the last request ended, and how many were due and
    /// never sent.
    #[must_use]
    pub fn finish(self, now: Instant) -> (u32, Tally, Instant, u64) {
        let mut unsent = 0;
        if let (Some(pace), None) = (&self.pace, self.left) {
            let until = self.until.unwrap_or(now).min(now);
            unsent = pace.due_before(until);
        }
        let seconds = self.seconds;
        (seconds.current, seconds.tally, seconds.last_ended, unsent)
    }
}

fn answered(
    seconds: &mut Seconds,
    source: &Source<'_>,
    waiting: Waiting,
    answer: &Answer<'_>,
    now: Instant,
) {
    if !waiting.measured {
        return;
    }
    let times = Times {
        intended: waiting.intended,
        sent: waiting.sent,
        ended: now,
    };
    let ending = source.judge(waiting.asked, answer);
    seconds.tally.answered(waiting.asked.op, times, ending);
    seconds.last_ended = now;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::keys::{Distribution, Keys};
    use crate::load::plan::{Space, Target};
    use crate::load::template::Template;
    use crate::load::values::{Sizes, Values};

    fn plan() -> Plan {
        Plan {
            targets: vec![Target {
                host: "h:1".to_string(),
                address: ([127, 0, 0, 1], 1).into(),
                path: Template::parse("/{{seq}}").unwrap(),
            }],
            work: Work::Spelt {
                method: "GET".to_string(),
                body: None,
                space: Space {
                    keys: Keys::new(Distribution::Uniform, 10),
                    format: "{seq}".parse().unwrap(),
                    values: Values::new(Sizes::Fixed(10)),
                    batch_items: 1,
                    scan_rows: 1,
                    scan_rows_vary: false,
                },
            },
            requests: Some(7),
            duration: None,
            connections: 2,
            threads: 1,
            pipeline: 1,
            rate: None,
            warmup: Duration::ZERO,
            timeout: Duration::from_secs(1),
            keep_alive: true,
            seed: 1,
            verify: false,
            fields: String::new(),
            query: String::new(),
        }
    }

    const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi";

    fn ms(at: u64) -> Instant {
        Instant(at * 1_000_000)
    }

    /// A server that answers at once, unless told to be silent; knows what it was sent.
    struct World {
        sent: Vec<String>,
        opened: usize,
        silent: bool,
        refuse: bool,
    }

    impl World {
        fn new() -> World {
            World {
                sent: Vec::new(),
                opened: 0,
                silent: false,
                refuse: false,
            }
        }

        /// Does all there is to do at a moment.
        fn turn(&mut self, worker: &mut Worker<'_>, now: Instant) {
            worker.tick(now);
            while let Some(todo) = worker.todo.pop_front() {
                match todo {
                    Todo::Open(at, _) if self.refuse => worker.broken(at, now, Failure::Connect),
                    Todo::Open(at, _) => {
                        self.opened += 1;
                        worker.opened(at, now);
                    }
                    Todo::Close(_) => {}
                    Todo::Write(at) => {
                        let text = String::from_utf8(worker.output(at).to_vec()).unwrap();
                        worker.wrote(at, text.len());
                        let heads: Vec<_> = text.split("\r\n\r\n").map(str::to_string).collect();
                        let count = heads.len() - 1;
                        self.sent.extend(heads.into_iter().take(count));
                        if !self.silent {
                            worker.received(at, now, &OK.repeat(count));
                        }
                    }
                }
            }
        }
    }

    fn numbers(sent: &[String]) -> Vec<u64> {
        let number = |head: &String| {
            let path = head.split(' ').nth(1).unwrap();
            path[1..].parse().unwrap()
        };
        sent.iter().map(number).collect()
    }

    #[test]
    fn exactly_so_many_requests_each_with_its_number() {
        for (connections, pipeline, keep_alive) in [(1, 1, true), (2, 3, true), (7, 1, false)] {
            let plan = Plan {
                connections,
                pipeline,
                keep_alive,
                ..plan()
            };
            let mut worker = Worker::new(&plan, 0, ms(20));
            let mut world = World::new();
            world.turn(&mut worker, ms(1));
            assert_eq!(world.sent.len(), 0, "connections first");
            assert_eq!(world.opened, connections);
            world.turn(&mut worker, ms(20));
            assert!(worker.is_done(ms(20)));
            assert_eq!(numbers(&world.sent), [0, 1, 2, 3, 4, 5, 6]);
            let (_, tally, last, unsent) = worker.finish(ms(21));
            assert_eq!(
                (tally.ended(), tally.failed(), last, unsent),
                (7, 0, ms(20), 0)
            );
            assert_eq!(tally.bytes_in, 7 * OK.len() as u64);
        }
    }

    #[test]
    fn the_parts_of_the_threads_make_up_the_whole() {
        let plan = Plan {
            threads: 2,
            connections: 3,
            ..plan()
        };
        let mut world = World::new();
        for index in 0..2 {
            let mut worker = Worker::new(&plan, index, ms(0));
            world.turn(&mut worker, ms(0));
            assert!(worker.is_done(ms(0)));
        }
        assert_eq!(numbers(&world.sent), [0, 1, 2, 3, 4, 5, 6]);
    }

    #[test]
    fn a_stalled_server_is_charged_for_all_that_was_due() {
        let plan = Plan {
            rate: Some(100.0),
            requests: None,
            duration: Some(Duration::from_millis(500)),
            connections: 1,
            ..plan()
        };
        let mut worker = Worker::new(&plan, 0, ms(0));
        let mut world = World::new();
        world.silent = true;
        world.turn(&mut worker, ms(0));
        world.turn(&mut worker, ms(300));
        assert_eq!(world.sent.len(), 1, "the only connection waits");
        world.silent = false;
        worker.received(0, ms(300), OK);
        world.turn(&mut worker, ms(300));
        assert_eq!(world.sent.len(), 31, "0 to 300 ms were due");
        assert_eq!(worker.due(ms(300)), ms(310));
        let (_, tally, _, unsent) = worker.finish(ms(400));
        let of = tally.op(Op::Request).unwrap();
        let response = of.response.as_ref().unwrap();
        // All but the first were sent and answered at 300 ms: no service time, 0 to 290 ms too late.
        assert!(of.service.value_at_quantile(0.9) < 2_000);
        assert!((145_000_000..155_000_000).contains(&response.value_at_quantile(0.5)));
        assert_eq!(unsent, 9, "due from 310 ms to 390 ms, and nobody sent them");
    }

    #[test]
    fn what_gets_no_answer_is_lost_and_the_connection_opened_anew() {
        let plan = Plan {
            connections: 1,
            pipeline: 3,
            ..plan()
        };
        let mut worker = Worker::new(&plan, 0, ms(0));
        let mut world = World::new();
        world.silent = true;
        world.turn(&mut worker, ms(0));
        world.turn(&mut worker, ms(900));
        assert_eq!((world.sent.len(), world.opened), (3, 1));
        world.turn(&mut worker, ms(1000));
        assert_eq!((world.sent.len(), world.opened), (6, 2));
        worker.ended(0, ms(1001));
        world.silent = false;
        world.turn(&mut worker, ms(1001));
        assert!(worker.is_done(ms(1001)));
        let (second, tally, _, _) = worker.finish(ms(1002));
        assert_eq!(second, 1);
        let failures = [(Failure::Closed, 3), (Failure::TimedOut, 3)];
        assert_eq!(tally.failures, failures.into());
        assert_eq!((tally.ended(), tally.failed()), (7, 6));
    }

    #[test]
    fn a_connection_that_is_to_be_closed_gets_no_request_more() {
        let plan = Plan {
            connections: 1,
            pipeline: 2,
            ..plan()
        };
        let mut worker = Worker::new(&plan, 0, ms(0));
        let mut world = World::new();
        world.silent = true;
        world.turn(&mut worker, ms(0));
        let last = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nhi";
        worker.received(0, ms(1), last);
        assert!(worker.is_open(0));
        world.turn(&mut worker, ms(1));
        assert_eq!((world.sent.len(), world.opened), (2, 1));
        worker.received(0, ms(2), OK);
        assert!(!worker.is_open(0));
        world.turn(&mut worker, ms(2));
        assert_eq!((world.sent.len(), world.opened), (4, 2), "opened once");
        // A server that closes a connection on which nothing was asked is left alone for a moment.
        let plan = Plan {
            rate: Some(1.0),
            ..plan
        };
        let mut worker = Worker::new(&plan, 0, ms(1000));
        let mut world = World::new();
        world.turn(&mut worker, ms(0));
        worker.ended(0, ms(1));
        world.turn(&mut worker, ms(1));
        assert_eq!(world.opened, 1);
        world.turn(&mut worker, ms(200));
        assert_eq!(world.opened, 2);
    }

    #[test]
    fn a_refused_connection_costs_a_request_and_a_pause() {
        let mut plan = plan();
        plan.connections = 1;
        let mut worker = Worker::new(&plan, 0, ms(0));
        let mut world = World::new();
        world.refuse = true;
        for at in 0..20 {
            world.turn(&mut worker, ms(at * 100));
        }
        assert!(worker.is_done(ms(2000)));
        let failures: u64 = worker
            .complete()
            .map(|(_, tally)| tally.failures[&Failure::Connect])
            .sum();
        assert_eq!(failures, 7);
    }

    #[test]
    fn warmup_does_not_count_and_a_stop_is_obeyed() {
        let plan = Plan {
            warmup: Duration::from_millis(100),
            requests: None,
            duration: Some(Duration::from_secs(100)),
            rate: Some(1000.0),
            ..plan()
        };
        let mut worker = Worker::new(&plan, 0, ms(0));
        let mut world = World::new();
        for at in 0..150 {
            world.turn(&mut worker, ms(at));
        }
        assert_eq!(world.sent.len(), 150);
        world.silent = true;
        world.turn(&mut worker, ms(150));
        worker.stop(ms(150));
        assert!(!worker.is_done(ms(1150)) && worker.is_done(ms(1151)));
        // Those before have numbers of their own, and are in no sum.
        assert_eq!(numbers(&world.sent[99..103]), [99, 0, 1, 2]);
        let (_, tally, _, _) = worker.finish(ms(1151));
        assert_eq!(tally.ended(), 50);
        assert_eq!(tally.bytes_in, 50 * OK.len() as u64);
    }
}
