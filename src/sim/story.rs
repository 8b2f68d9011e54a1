//! What happens to one shard over several incarnations: the stories the tests tell.
//!
//! - [`model`]: live, end somehow (closed, killed, power lost at once or in the middle of an operation), repeat.
//! - [`crash_at`]: power loss at one chosen disk operation, often another one during the recovery, then a life that
//!   must go well, and a last one that must find exactly what the one before left.
//! - [`fail_at`]: an error of the disk at one chosen operation, for once or from then on. The store may give up
//!   as loudly as it likes; after the disk is well again nothing acknowledged is missing.
//!
//! - [`cramped`]: the disk is too small. As with errors, and room makes it well again.
//! - [`rot`]: one stored bit of a closed store is inverted. It may refuse to open or to read; it never answers wrongly.
//!
//! The caller walks the operations: [`operations`] tells which there are.

use std::cell::RefCell;
use std::rc::Rc;

use super::ledger::{Ledger, Violation};
use super::plan::Plan;
use super::session::{End, Session};
use crate::rt::sim::World;
use crate::rt::sim::disk::{Fault, Op};
use crate::store::Stats;
use crate::store::format::newborn;

/// The node everything happens on.
const NODE: u16 = 1;

/// What a story consisted of: tests use it to show that they tested something.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Report {
    pub lives: u64,
    /// Lives ended by a power loss in the middle of an operation.
    pub crashes: u64,
    /// Lives the store itself gave up, under an injected fault.
    pub failures: u64,
    pub acked: u64,
    pub flushes: u64,
    pub compactions: u64,
    /// Hash of the whole history.
    pub trace: u64,
}

/// How one life ended.
enum Ending {
    Well,
    Crashed,
    Failed(String),
}

struct Lives {
    world: World,
    plan: Plan,
    ledger: Rc<RefCell<Ledger>>,
    report: Report,
}

/// Several lives with random ends.
pub fn model(plan: &Plan) -> Result<Report, Violation> {
    let mut lives = Lives::new(plan.clone());
    let mut rng = fastrand::Rng::with_seed(plan.seed ^ 0x656e_6473);
    let disk = lives.world.disk(NODE);
    for _ in 0..rng.usize(2..5) {
        // Once in a while long enough for the manifest to roll.
        let steps = match plan.seed % 64 {
            0 => 1_000,
            _ => rng.usize(5..120),
        };
        if rng.u8(..3) == 0 {
            disk.crash_at(disk.ops() + rng.u64(..300));
        }
        lives.must_live(steps, rng.bool())?;
        disk.heal();
        match rng.bool() {
            true => lives.world.crash(NODE),
            false => lives.world.kill(NODE),
        }
    }
    lives.must_end_well(10)?;
    Ok(lives.finish())
}

/// The kinds of the disk operations of the first life of `plan`, in order: the places to hurt it at.
pub fn operations(plan: &Plan, steps: usize) -> Result<Vec<Op>, Violation> {
    let mut lives = Lives::new(plan.clone());
    lives.must_end_well(steps)?;
    Ok(lives.world.disk(NODE).log())
}

/// A power loss at disk operation `op` of the first life.
pub fn crash_at(plan: &Plan, steps: usize, op: u64) -> Result<Report, Violation> {
    let mut lives = Lives::new(plan.clone());
    let disk = lives.world.disk(NODE);
    disk.crash_at(op);
    lives.must_live(steps, true)?;
    lives.world.crash(NODE);
    let mut rng = fastrand::Rng::with_seed(plan.seed ^ op << 32);
    while rng.bool() {
        disk.crash_at(disk.ops() + rng.u64(..60));
        lives.must_live(2, false)?;
        lives.world.crash(NODE);
    }
    disk.heal();
    lives.must_end_well(20)?;
    lives.must_end_well(0)?;
    Ok(lives.finish())
}

/// The disk fails at operation `op` of the first life, and goes on failing when `lasting`.
pub fn fail_at(
    plan: &Plan,
    steps: usize,
    op: u64,
    fault: Fault,
    lasting: bool,
) -> Result<Report, Violation> {
    let mut lives = Lives::new(plan.clone());
    let disk = lives.world.disk(NODE);
    match lasting {
        true => disk.fail_from(op, fault),
        false => disk.fail_at(op, fault),
    }
    lives.may_fail(steps)?;
    // What a failed sync left in a cache is decided only by a power loss.
    lives.world.crash(NODE);
    disk.heal();
    lives.must_end_well(20)?;
    lives.must_end_well(0)?;
    Ok(lives.finish())
}

/// An error at disk operation `op` of a recovery after a power loss.
pub fn fail_recovery_at(plan: &Plan, steps: usize, op: u64) -> Result<Report, Violation> {
    let mut lives = Lives::new(plan.clone());
    let disk = lives.world.disk(NODE);
    lives.must_live(steps, false)?;
    lives.world.crash(NODE);
    disk.fail_at(disk.ops() + op, Fault::Io);
    lives.may_fail(3)?;
    lives.world.crash(NODE);
    disk.heal();
    lives.must_end_well(20)?;
    lives.must_end_well(0)?;
    Ok(lives.finish())
}

/// A disk of `capacity_bytes`.
pub fn cramped(plan: &Plan, steps: usize, capacity_bytes: u64) -> Result<Report, Violation> {
    let mut lives = Lives::new(plan.clone());
    let disk = lives.world.disk(NODE);
    disk.set_capacity(capacity_bytes);
    lives.may_fail(steps)?;
    lives.world.kill(NODE);
    lives.may_fail(5)?;
    lives.world.crash(NODE);
    disk.heal();
    lives.must_end_well(20)?;
    lives.must_end_well(0)?;
    Ok(lives.finish())
}

/// One bit of one file inverted while the store is closed.
pub fn rot(plan: &Plan, steps: usize) -> Result<Report, Violation> {
    let mut lives = Lives::new(plan.clone());
    lives.must_end_well(steps)?;
    lives.world.crash(NODE);
    let disk = lives.world.disk(NODE);
    let mut rng = fastrand::Rng::with_seed(plan.seed ^ 0x726f_7400);
    let files = disk.files();
    let (path, _) = &files[rng.usize(..files.len())];
    let bytes = disk.read(path).unwrap_or_default();
    // Files are mostly zeroes written ahead: half of the time, hit something else.
    let written: Vec<u64> = (0..)
        .zip(&bytes)
        .filter(|(_, byte)| **byte != 0)
        .map(|(pos, _)| pos)
        .collect();
    let pos = match rng.bool() && !written.is_empty() {
        true => written[rng.usize(..written.len())],
        false => rng.u64(..bytes.len().max(1) as u64),
    };
    disk.flip(path, pos, 1 << rng.u8(..8));
    lives.may_fail(20).map_err(|violation| {
        Violation(format!(
            "{}, byte {pos} hit: {}",
            path.display(),
            violation.0
        ))
    })?;
    Ok(lives.finish())
}

impl Lives {
    fn new(plan: Plan) -> Lives {
        let world = World::new(plan.seed);
        let (path, bytes) = newborn(plan.options.shard);
        let path = plan.options.dir.join(path);
        world.disk(NODE).write(&path, &bytes);
        if let Some((kind, part)) = plan.lie {
            world.disk(NODE).lie(kind, part);
        }
        Lives {
            world,
            plan,
            ledger: Rc::default(),
            report: Report::default(),
        }
    }

    /// One incarnation: open and check, work, perhaps close.
    fn live(&mut self, steps: usize, close: bool) -> Result<Ending, Violation> {
        self.report.lives += 1;
        let rt = self.world.boot(NODE, 1).remove(0);
        let life = self.report.lives;
        let story = async {
            let mut session = Session::open(&rt, &self.plan, &self.ledger, life).await?;
            let worked = session.run(steps).await;
            let ended = match worked {
                Ok(()) if close => session.close().await,
                other => other,
            };
            Ok((session.stats(), ended))
        };
        let outcome = self.world.try_run(&rt, story);
        let ended = outcome.map(|opened| {
            opened.and_then(|(stats, ended)| {
                self.report.count(&stats);
                ended
            })
        });
        match ended {
            Err(_) => {
                self.report.crashes += 1;
                Ok(Ending::Crashed)
            }
            Ok(Ok(())) => Ok(Ending::Well),
            Ok(Err(End::Failed(why))) => Ok(Ending::Failed(why)),
            Ok(Err(End::Broken(violation))) => Err(self.placed(violation)),
        }
    }

    /// A life in which nothing may fail, though the power may.
    fn must_live(&mut self, steps: usize, close: bool) -> Result<bool, Violation> {
        match self.live(steps, close)? {
            Ending::Well => Ok(true),
            Ending::Crashed => Ok(false),
            Ending::Failed(why) => Err(self.placed(Violation(format!("gave up: {why}")))),
        }
    }

    /// A life under a fault: it may give up, but not lie.
    fn may_fail(&mut self, steps: usize) -> Result<(), Violation> {
        if let Ending::Failed(_) = self.live(steps, true)? {
            self.report.failures += 1;
        }
        Ok(())
    }

    fn must_end_well(&mut self, steps: usize) -> Result<(), Violation> {
        match self.must_live(steps, true)? {
            true => Ok(()),
            false => Err(self.placed(Violation("crashed without being told to".to_owned()))),
        }
    }

    fn placed(&self, violation: Violation) -> Violation {
        Violation(format!(
            "life {}, {:?}, disk operation {}: {}",
            self.report.lives,
            self.world.now(),
            self.world.disk(NODE).ops(),
            violation.0
        ))
    }

    fn finish(mut self) -> Report {
        self.report.acked = self.ledger.borrow().acked();
        self.report.trace = self.world.trace();
        self.report
    }
}

impl Report {
    fn count(&mut self, stats: &Stats) {
        self.flushes += stats.flushes;
        self.compactions += stats.compactions;
    }

    /// Sums up; traces are not summed.
    pub fn add(&mut self, other: &Report) {
        self.lives += other.lives;
        self.crashes += other.crashes;
        self.failures += other.failures;
        self.acked += other.acked;
        self.flushes += other.flushes;
        self.compactions += other.compactions;
    }
}
