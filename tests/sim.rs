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
use kvstore::sim::ledger::Violation;
use kvstore::sim::plan::Plan;
use kvstore::sim::story::{self, Report};

/// Most nodes of a simulated cluster.
const NODES_MAX: u16 = 5;

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
    let sum = told("cluster", 300, cluster_of);
    if is_full() {
        let cluster::Report {
            acked,
            not_applied,
            unknown,
            gets,
            scans,
            unread,
            cuts,
            kills,
            crashes,
            stops,
            skews,
            full,
            failures,
            ..
        } = sum;
        assert!(acked > 10_000 && gets > 10_000 && scans > 1_000, "{sum:?}");
        for count in [not_applied, unknown, unread, full, failures] {
            assert!(count > 20, "{sum:?}");
        }
        for count in [kills, crashes, stops, skews] {
            assert!(count > 50, "{sum:?}");
        }
        assert!(cuts > 50 || NODES_MAX == 1, "{sum:?}");
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
    for bug in [Bug::AckBeforeSync, Bug::ReplaySkips]
        .into_iter()
        .chain(CLUSTER_BUGS)
    {
        planted::plant(Some(bug));
        let caught = first_to_see(cluster_of);
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

/// Each deliberate bug must be seen by one of the stories above, soon.
#[test]
fn planted_bugs_are_caught() {
    for bug in BUGS {
        let story = match bug {
            Bug::BlockUnchecked => wrong_bits,
            _ => model_of,
        };
        planted::plant(Some(bug));
        let caught = first_to_see(story);
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
        let caught = first_to_see(|seed| {
            let mut plan = Plan::draw(seed);
            plan.lie = Some(lie);
            story::model(&plan)
        });
        let caught = caught.unwrap_or_else(|| panic!("no story needs {lie:?}"));
        eprintln!("without {lie:?} a loss is seen {caught}");
    }
}

/// The first of a few hundred seeds whose story does not end well, and what it saw.
fn first_to_see<R>(story: impl Fn(u64) -> Result<R, Violation>) -> Option<String> {
    (0..400).find_map(
        |seed| match catch_unwind(AssertUnwindSafe(|| story(seed))) {
            Ok(Ok(_)) => None,
            Ok(Err(violation)) => Some(format!("by seed {seed}: {}", violation.0)),
            Err(_) => Some(format!("by seed {seed}, which panics")),
        },
    )
}
