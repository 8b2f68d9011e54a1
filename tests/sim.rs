//! The simulator's seeds: the real store on a disk that crashes, tears, fills up and fails; and whole clusters of
//! nodes whose network, clocks, disks and processes do the same.
//!
//! A failure prints `SEED=n cargo test --test sim <name>`, and with `SEED` set only that seed is run.
//! `SIM_SEEDS=n` runs so many seeds instead of the usual number (for a night).

#![expect(
    clippy::print_stderr,
    reason = "seeds and sums are told on the terminal, whatever else a panic says"
)]

use std::fmt::Debug;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};

use kvstore::base::planted::{self, BUGS, Bug, CLUSTER_BUGS};
use kvstore::rt::sim::disk::{Fault, Op};
use kvstore::sim::cluster;
use kvstore::sim::cluster::plan::NODES_MAX;
use kvstore::sim::ledger::Violation;
use kvstore::sim::plan::Plan;
use kvstore::sim::story::{self, Report};

/// Reports add up.
trait Sum: Default + Debug {
    fn add_report(&mut self, other: &Self);
}

impl Sum for Report {
    fn add_report(&mut self, other: &Self) {
        self.add(other);
    }
}

impl Sum for cluster::Report {
    fn add_report(&mut self, other: &Self) {
        self.add(other);
    }
}

/// Tells one story per seed and adds the reports up.
fn told<R: Sum>(name: &str, usual: u64, story: impl Fn(u64) -> Result<R, Violation>) -> R {
    let mut sum = R::default();
    for seed in seeds(usual) {
        let outcome = catch_unwind(AssertUnwindSafe(|| story(seed)));
        let report = match outcome {
            Ok(Ok(report)) => report,
            Ok(Err(violation)) => {
                panic!(
                    "SEED={seed} cargo test --test sim {name}\n  {}",
                    violation.0
                )
            }
            Err(panic) => {
                eprintln!("SEED={seed} cargo test --test sim {name}");
                std::panic::resume_unwind(panic);
            }
        };
        sum.add_report(&report);
    }
    eprintln!("{name}: {sum:?}");
    sum
}

fn seeds(usual: u64) -> Range<u64> {
    let number = |name: &str| {
        let text = std::env::var(name).ok()?;
        Some(text.parse::<u64>().expect("a number"))
    };
    match number("SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("SIM_SEEDS").unwrap_or(usual),
    }
}

/// Only a full set of seeds must have shown everything.
fn is_full() -> bool {
    std::env::var_os("SEED").is_none() && std::env::var_os("SIM_SEEDS").is_none()
}

#[test]
fn model() {
    let sum = told("model", 2_000, model_of);
    if is_full() {
        assert!(sum.flushes > 10_000 && sum.compactions > 5_000, "{sum:?}");
        assert!(sum.crashes > 500 && sum.acked > 100_000, "{sum:?}");
    }
}

fn model_of(seed: u64) -> Result<Report, Violation> {
    story::model(&Plan::draw(seed))
}

#[test]
fn same_seed_same_history() {
    for seed in 0..50 {
        let first = model_of(seed).expect("the model test tells more");
        let again = model_of(seed).expect("the model test tells more");
        assert_eq!(first, again, "seed {seed}");
    }
    for seed in 0..20 {
        let first = cluster_of(seed).expect("the cluster test tells more");
        let again = cluster_of(seed).expect("the cluster test tells more");
        assert_eq!(first, again, "seed {seed}");
    }
}

#[test]
fn power_loss_at_every_disk_operation() {
    let sum = told("power_loss_at_every_disk_operation", 2, |seed| {
        let plan = Plan::compact(seed);
        everywhere(
            &plan,
            70,
            |_| true,
            |op| {
                let report = story::crash_at(&plan, 70, op)?;
                assert!(
                    report.crashes > 0,
                    "seed {seed}: no crash at operation {op}"
                );
                Ok(report)
            },
        )
    });
    assert!(sum.flushes > 1_000 && sum.compactions > 500, "{sum:?}");
}

#[test]
fn an_error_at_every_disk_operation() {
    let faults = [
        (Fault::Io, false),
        (Fault::Io, true),
        (Fault::Full, false),
        (Fault::Full, true),
    ];
    let sum = told("an_error_at_every_disk_operation", 4, |seed| {
        let (fault, lasting) = faults[(seed % 4) as usize];
        let plan = Plan::compact(seed);
        everywhere(
            &plan,
            40,
            |_| true,
            |op| story::fail_at(&plan, 40, op, fault, lasting),
        )
    });
    assert!(sum.failures > 100, "{sum:?}");
}

#[test]
fn a_wrong_bit_in_every_table_read() {
    let sum = told("a_wrong_bit_in_every_table_read", 8, wrong_bits);
    assert!(sum.lives > 100, "{sum:?}");
}

fn wrong_bits(seed: u64) -> Result<Report, Violation> {
    let mut plan = Plan::compact(seed);
    plan.cache_bytes = 0;
    plan.read_percent = 40;
    let reads = |op| op == Op::Read;
    everywhere(&plan, 60, reads, |op| {
        story::fail_at(&plan, 60, op, Fault::FlipRead, false)
    })
}

#[test]
fn an_error_at_every_operation_of_a_recovery() {
    let sum = told("an_error_at_every_operation_of_a_recovery", 3, |seed| {
        let plan = Plan::compact(seed);
        let mut sum = Report::default();
        for op in 0..150 {
            let report = story::fail_recovery_at(&plan, 30, op);
            sum.add(&report.map_err(|violation| hurt(op, &violation))?);
        }
        Ok(sum)
    });
    assert!(sum.failures > 20, "{sum:?}");
}

#[test]
fn a_full_disk() {
    let sum = told("a_full_disk", 150, |seed| {
        let capacity_bytes = (1 << 20) + 4096 * (seed * 7 % 200);
        story::cramped(&Plan::draw(seed), 80, capacity_bytes)
    });
    if is_full() {
        assert!(sum.failures > 50 && sum.acked > 2_000, "{sum:?}");
    }
}

#[test]
fn a_rotten_bit() {
    let sum = told("a_rotten_bit", 400, |seed| {
        story::rot(&Plan::draw(seed), 60)
    });
    if is_full() {
        assert!(sum.failures > 40 && sum.failures < 360, "{sum:?}");
    }
}

/// Tells a story once for each disk operation of the plan's life that `here` picks.
fn everywhere(
    plan: &Plan,
    steps: usize,
    here: impl Fn(Op) -> bool,
    story: impl Fn(u64) -> Result<Report, Violation>,
) -> Result<Report, Violation> {
    let mut sum = Report::default();
    let operations = story::operations(plan, steps)?;
    for (index, kind) in operations.into_iter().enumerate() {
        if here(kind) {
            let op = index as u64;
            sum.add(&story(op).map_err(|violation| hurt(op, &violation))?);
        }
    }
    Ok(sum)
}

fn hurt(op: u64, violation: &Violation) -> Violation {
    Violation(format!("hurt at operation {op}: {}", violation.0))
}

#[test]
fn cluster() {
    // The gate tells thousands more, with a release build: .ci/run.
    let sum = told("cluster", 200, cluster_of);
    if is_full() {
        let cluster::Report {
            acked,
            not_applied,
            unknown,
            gets,
            scans,
            unread,
            healed,
            cuts,
            resets,
            kills,
            crashes,
            stops,
            pauses,
            skews,
            full,
            failures,
            rotten,
            ..
        } = sum;
        assert!(acked > 5_000 && gets > 5_000 && scans > 500, "{sum:?}");
        for count in [not_applied, unknown, unread, failures] {
            assert!(count > 20, "{sum:?}");
        }
        for count in [resets, kills, crashes, stops, pauses, skews] {
            assert!(count > 50, "{sum:?}");
        }
        assert!(cuts > 50 && healed > 200 && rotten > 100, "{sum:?}");
        assert!(full > 0, "{sum:?}");
    }
}

fn cluster_of(seed: u64) -> Result<cluster::Report, Violation> {
    cluster::run(&cluster::plan::Plan::draw(seed, NODES_MAX))
}

/// A node that loses or forgets what it has acknowledged is seen from outside too, and so is one that misuses the
/// others.
#[test]
fn planted_bugs_are_caught_by_clients() {
    let mut unseen = Vec::new();
    let of_one = [Bug::AckBeforeSync, Bug::ReplaySkips, Bug::BlockUnchecked];
    for bug in of_one.into_iter().chain(CLUSTER_BUGS) {
        planted::plant(Some(bug));
        let apt = |seed: &u64| may_show(bug, &cluster::plan::Plan::draw(*seed, NODES_MAX));
        let caught = first_to_see((0..).filter(apt), cluster_of);
        planted::plant(None);
        match caught {
            Some(caught) => {
                let line = caught.lines().next().unwrap_or_default();
                eprintln!("{bug:?} is caught {line}");
            }
            None => unseen.push(bug),
        }
    }
    assert!(unseen.is_empty(), "no client sees {unseen:?}");
}

/// Whether such a cluster can show this mistake at all; the others would only take time.
fn may_show(bug: Bug, plan: &cluster::plan::Plan) -> bool {
    match bug {
        // Elsewhere what one replica has lost comes from the others.
        Bug::AckBeforeSync | Bug::ReplaySkips => plan.copies == 1 && plan.faults.crashes,
        Bug::BlockUnchecked => plan.faults.rot,
        Bug::GraveUnrepaired => plan.odds.delete > 0 && plan.copies > 1,
        Bug::GravesStripped => plan.odds.delete > 0 && plan.odds.scan > 0,
        Bug::HintForgotten => plan.victim.is_some() && plan.repair_every.is_none(),
        Bug::OldCopyOverlooked => plan.repair_every.is_some() && plan.faults.end_nodes(),
        _ => true,
    }
}

/// Each deliberate bug must be seen by one of the stories above, soon.
#[test]
fn planted_bugs_are_caught() {
    for bug in BUGS {
        let story = match bug {
            Bug::BlockUnchecked => wrong_bits,
            _ => model_of,
        };
        planted::plant(Some(bug));
        let caught = first_to_see(0.., story);
        planted::plant(None);
        let caught = caught.unwrap_or_else(|| panic!("no story sees {bug:?}"));
        eprintln!("{bug:?} is caught {caught}");
    }
}

/// Every sync the store makes is one it needs: without it something is lost, and the stories see it.
#[test]
fn forgotten_syncs_are_caught() {
    let syncs = [
        (Op::Write, "/wal/"),
        (Op::Sync, "/wal/"),
        (Op::SyncDir, "/wal"),
        (Op::Sync, "/sst/"),
        (Op::SyncDir, "/sst"),
        (Op::Sync, "MANIFEST"),
        (Op::Write, "MANIFEST"),
        (Op::SyncDir, "/0003$"),
    ];
    for lie in syncs {
        let caught = first_to_see(0.., |seed| {
            let mut plan = Plan::draw(seed);
            plan.lie = Some(lie);
            story::model(&plan)
        });
        let caught = caught.unwrap_or_else(|| panic!("no story needs {lie:?}"));
        eprintln!("without {lie:?} a loss is seen {caught}");
    }
}

/// The first of a few hundred of these seeds whose story does not end well, and what it saw.
fn first_to_see<R>(
    seeds: impl Iterator<Item = u64>,
    story: impl Fn(u64) -> Result<R, Violation>,
) -> Option<String> {
    seeds.take(400).find_map(
        |seed| match catch_unwind(AssertUnwindSafe(|| story(seed))) {
            Ok(Ok(_)) => None,
            Ok(Err(violation)) => Some(format!("by seed {seed}: {}", violation.0)),
            Err(_) => Some(format!("by seed {seed}, which panics")),
        },
    )
}
