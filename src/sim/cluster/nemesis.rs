//! What goes wrong, and when: one fault after the other, of the kinds that the plan allows.
//!
//! ```text
//! cut one way ─ cut both ways ─ cut one node off ─ heal the net ─ reset connections
//! kill ─ power loss now ─ at a disk operation ─ stop in order ─ stand still and go on ─ set a wall clock
//! full disk ─ room again ─ failing disk ─ wrong bits in tables ─ right ones again
//! ```
//!
//! Nodes start again by themselves (`town`). Nothing here is spared: all nodes may be down at once.

use std::time::Duration;

use super::book::Book;
use super::client;
use super::plan::{Faults, Plan};
use super::town::Town;
use crate::base::time::Instant;

/// Draws faults.
pub(super) struct Nemesis {
    rng: fastrand::Rng,
    allowed: Vec<Act>,
    clients: u16,
    /// The only node that ends or has a sick disk.
    victim: Option<u16>,
    pause_ms: u64,
    next_at: Instant,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Act {
    CutOneWay,
    CutBothWays,
    CutOff,
    HealNet,
    Sever,
    Kill,
    LosePower,
    /// In the middle of some operation of the disk.
    LosePowerSoon,
    Stop,
    Pause,
    SetClock,
    FillDisk,
    MakeRoom,
    FailDisk,
    Rot,
    EndRot,
}

fn allowed(faults: Faults) -> Vec<Act> {
    let kinds: [(bool, &[Act]); 10] = [
        (
            faults.cuts,
            &[
                Act::CutOneWay,
                Act::CutBothWays,
                Act::CutOff,
                Act::HealNet,
                Act::HealNet,
            ],
        ),
        (faults.resets, &[Act::Sever]),
        (faults.kills, &[Act::Kill]),
        (faults.crashes, &[Act::LosePower, Act::LosePowerSoon]),
        (faults.stops, &[Act::Stop]),
        (faults.pauses, &[Act::Pause]),
        (faults.skews, &[Act::SetClock]),
        (faults.full_disks, &[Act::FillDisk, Act::MakeRoom]),
        (faults.failing_disks, &[Act::FailDisk]),
        (faults.rot, &[Act::Rot, Act::Rot, Act::EndRot]),
    ];
    let acts = kinds.iter().filter(|kind| kind.0);
    acts.flat_map(|kind| kind.1.iter().copied()).collect()
}

impl Nemesis {
    pub(super) fn new(plan: &Plan) -> Nemesis {
        Nemesis {
            rng: fastrand::Rng::with_seed(plan.seed ^ 0x6e65_6d65),
            allowed: allowed(plan.faults),
            clients: plan.clients,
            victim: plan.victim,
            pause_ms: plan.fault_ms,
            next_at: Instant::default(),
        }
    }

    /// Does the next thing, if its time has come.
    pub(super) fn act(&mut self, town: &mut Town, book: &Book) {
        let now = town.world.now();
        if self.allowed.is_empty() || now < self.next_at {
            return;
        }
        let pause_ms = self.rng.u64(1..=2 * self.pause_ms);
        self.next_at = now + Duration::from_millis(pause_ms);
        let act = self.allowed[self.rng.usize(..self.allowed.len())];
        let node = self.rng.u16(town.names());
        match act {
            Act::CutOneWay | Act::CutBothWays | Act::CutOff | Act::Sever => {
                self.cut(act, node, town, book);
            }
            Act::HealNet => {
                town.step("the net is healed");
                town.world.heal();
            }
            Act::MakeRoom => {
                town.step("disks have room");
                town.make_room();
            }
            Act::EndRot => {
                town.step("tables are read as they are");
                town.end_rot();
            }
            Act::SetClock => {
                let far_ms = [40, 400, 10_000, 3_600_000][self.rng.usize(..4)];
                let skew_ms = self.rng.i64(-far_ms..=far_ms);
                town.step(&format!("the clock of node {node} is {skew_ms} ms off"));
                town.world.set_skew_ms(node, skew_ms);
                book.count(|sums| sums.skews += 1);
            }
            _ => {
                let node = self.victim.unwrap_or(node);
                // The rest is for nodes that run and are not ending already.
                if town.is_running(node) {
                    self.hurt(act, node, town, book);
                }
            }
        }
    }

    fn cut(&mut self, act: Act, node: u16, town: &Town, book: &Book) {
        let others: Vec<u16> = match act {
            Act::CutOff => town.names().filter(|other| *other != node).collect(),
            // Now and then a client loses its way, and not the node.
            _ if self.rng.u8(..8) == 0 => vec![client::machine(self.rng.u16(..self.clients))],
            _ => {
                let others: Vec<u16> = town.names().filter(|other| *other != node).collect();
                self.rng.choice(others).into_iter().collect()
            }
        };
        for other in others {
            let (from, to) = match self.rng.bool() {
                true => (node, other),
                false => (other, node),
            };
            if act == Act::Sever {
                town.world.sever(from, to);
                town.step(&format!("{act:?}: {from} and {to}"));
                book.count(|sums| sums.resets += 1);
                continue;
            }
            town.world.partition(from, to);
            if act != Act::CutOneWay {
                town.world.partition(to, from);
            }
            town.step(&format!("{act:?}: {from} and {to}"));
            book.count(|sums| sums.cuts += 1);
        }
    }

    fn hurt(&mut self, act: Act, node: u16, town: &mut Town, book: &Book) {
        town.step(&format!("{act:?} node {node}"));
        match act {
            Act::Kill => {
                town.end(node, false);
                book.count(|sums| sums.kills += 1);
            }
            Act::LosePower => {
                town.end(node, true);
                book.count(|sums| sums.crashes += 1);
            }
            Act::LosePowerSoon => {
                let disk = town.disk(node);
                disk.crash_at(disk.ops() + self.rng.u64(..40));
            }
            Act::Stop => {
                town.stop(node);
                book.count(|sums| sums.stops += 1);
            }
            Act::Pause => {
                let most_ms = [50, 1_000, 8_000][self.rng.usize(..3)];
                town.pause(node, Duration::from_millis(self.rng.u64(1..=most_ms)));
                book.count(|sums| sums.pauses += 1);
            }
            Act::FillDisk => town.cramp_disk(node, self.rng.u64(..100_000)),
            Act::FailDisk => town.fail_disk(node, self.rng.u64(..30), self.rng.bool()),
            Act::Rot => town.rot_disk(node, [1, 4, 20][self.rng.usize(..3)]),
            Act::CutOneWay
            | Act::CutBothWays
            | Act::CutOff
            | Act::HealNet
            | Act::Sever
            | Act::SetClock
            | Act::MakeRoom
            | Act::EndRot => {}
        }
    }
}
