//! Tests of [`super`]: a log on the simulated disk.

use std::collections::BTreeSet;
use std::path::PathBuf;

use super::*;
use crate::base::limits::{KEY_BYTES_MAX, VALUE_BYTES_MAX};
use crate::base::record::{OwnedEntry, OwnedState};
use crate::rt::sim::World;

const NODE: u16 = 1;
const A: NodeId = NodeId(0);
const B: NodeId = NodeId(2);
const ALL: u32 = u32::MAX;

/// Two of them are one when `_` is taken for `:`, as file names made of them once were.
fn names() -> [String; 3] {
    ["a_b:1", "b:1", "a:b_1"].map(str::to_owned)
}

/// As in production, but full of flushes and compactions.
fn small() -> Options {
    Options {
        dir: PathBuf::from("/data/hints"),
        shard: 3,
        node_uuid: 7,
        memtable_bytes: 2 << 10,
        l0_files_max: 2,
        keys_per_block_max: 3,
        bloom_l0: 0,
        bloom_l1: 0,
        wal_segment_bytes: 16 << 10,
        wal_commit_interval: Duration::from_millis(5),
        wal_records_per_group_max: 8,
        gc_grace: Duration::ZERO,
    }
}

async fn open(rt: &Rt) -> (Rc<HintLog>, Vec<Pending>) {
    let opened = HintLog::open_with(rt, small(), &names(), Rc::new(|_: &str| {})).await;
    opened.expect("the log opens")
}

fn hint(hlc: u64, key: &str, value: Option<&[u8]>) -> Hint {
    let state = match value {
        Some(value) => OwnedState::Live {
            value: value.into(),
            text: hlc.is_multiple_of(2),
        },
        None => OwnedState::Deleted,
    };
    let version = Version { hlc, origin: 5 };
    Hint {
        key: key.as_bytes().into(),
        entry: OwnedEntry { version, state },
    }
}

fn add(log: &Rc<HintLog>, target: NodeId, hint: &Hint) -> Result<(), Refused> {
    log.add(target, &hint.key, &hint.entry.as_entry())
}

fn bytes(hints: &[Hint]) -> u64 {
    hints.iter().map(Hint::bytes).sum()
}

/// Every hint of a target; none is forgotten.
async fn everything(log: &Rc<HintLog>, target: NodeId) -> Vec<Hint> {
    log.batch(target, ALL).await.expect("readable")
}

async fn until_settled(rt: &Rt, log: &HintLog) {
    while !log.inner.borrow().in_flight.is_empty() {
        rt.sleep(OUTCOME_POLL).await;
        log.settle();
    }
}

#[test]
fn a_cluster_that_misses_nothing_has_no_folder() {
    let world = World::new(1);
    let rt = world.boot(NODE, 1).remove(0);
    world.run(&rt, async {
        let (log, pending) = open(&rt).await;
        assert!(pending.iter().all(|p| (p.bytes, p.records) == (0, 0)));
        assert!(pending.len() == 3 && pending.iter().all(|p| p.dirty.is_empty()));
        assert_eq!(everything(&log, A).await, []);
        log.close().await;
        assert_eq!(
            add(&log, A, &hint(1, "k", None)),
            Err(Refused::Closed),
            "closed"
        );
    });
    assert_eq!(world.disk(NODE).files(), []);
    let kinds = world.disk(NODE).log();
    assert_eq!(kinds.len(), 1, "only a look whether it is there: {kinds:?}");
}

/// The first hints come before there is a store, in no order; batches are full but for one hint's size.
#[test]
fn batches_are_in_order_of_versions_within_their_bytes_and_of_one_target() {
    let world = World::new(2);
    let rt = world.boot(NODE, 1).remove(0);
    world.run(&rt, async {
        let (log, _) = open(&rt).await;
        let (mut wanted, mut of_b) = (Vec::new(), Vec::new());
        for n in [5, 3, 9, 1, 8, 2, 7, 0, 6, 4u64] {
            let value = vec![n as u8; 100];
            let key = format!("key{}", 9 - n);
            let mine = hint(n << 40 | 1, &key, (n != 7).then_some(&value));
            let theirs = hint(n, &key, Some(b"of b"));
            add(&log, A, &mine).unwrap();
            add(&log, B, &theirs).unwrap();
            wanted.push(mine);
            of_b.push(theirs);
        }
        wanted.sort_by_key(|hint| hint.entry.version);
        of_b.sort_by_key(|hint| hint.entry.version);
        let one = wanted[0].bytes();
        let mut got = Vec::new();
        while let batch = log.batch(A, 3 * one as u32).await.unwrap()
            && !batch.is_empty()
        {
            assert!(bytes(&batch) <= 3 * one);
            assert!(batch.len() >= 3 || got.len() + batch.len() == 10);
            log.forget(A, &batch).await.unwrap();
            got.extend(batch);
        }
        assert_eq!(got, wanted);
        assert_eq!(everything(&log, B).await, of_b);
        assert_eq!(log.batch(B, 0).await.unwrap(), of_b[..1], "one at least");
        assert_eq!(everything(&log, NodeId(1)).await, []);
    });
}

/// A hint older than what was forgotten already, and one that becomes visible behind a batch's back.
#[test]
fn a_late_hint_is_not_passed_over() {
    let world = World::new(3);
    let rt = world.boot(NODE, 1).remove(0);
    world.run(&rt, async {
        let (log, _) = open(&rt).await;
        for n in 10..20 {
            add(&log, A, &hint(n, "k", Some(b"v"))).unwrap();
        }
        let batch = everything(&log, A).await;
        log.forget(A, &batch).await.unwrap();
        add(&log, A, &hint(30, "k", Some(b"v"))).unwrap();
        assert_eq!(everything(&log, A).await.len(), 1);
        let late = hint(3, "late", Some(b"v"));
        add(&log, A, &late).unwrap();
        until_settled(&rt, &log).await;
        assert_eq!(everything(&log, A).await[0], late);

        // The batch begins; a smaller hint becomes visible; the batch ends with what it saw.
        let start = log.inner.borrow_mut().begin_batch(A);
        let seen = log.first_hints(start, A, ALL).await.unwrap();
        let later = hint(1, "later", None);
        add(&log, A, &later).unwrap();
        until_settled(&rt, &log).await;
        let row = hint_row(log.tag(A), &seen[0].key, &seen[0].entry.as_entry());
        log.inner.borrow_mut().targets[A.index()].advance(row);
        assert_eq!(everything(&log, A).await[0], later);
    });
}

/// Graves in front of the first hint are walked over once.
#[test]
fn a_batch_begins_behind_what_was_forgotten() {
    let world = World::new(4);
    let rt = world.boot(NODE, 1).remove(0);
    world.run(&rt, async {
        let (log, _) = open(&rt).await;
        for n in 0..20 {
            add(&log, A, &hint(n, "k", Some(b"v"))).unwrap();
        }
        let all = everything(&log, A).await;
        log.forget(A, &all[..15]).await.unwrap();
        assert_eq!(everything(&log, A).await, all[15..]);
        let from = log.inner.borrow().targets[A.index()].from.clone();
        let first = &all[15];
        assert_eq!(
            from,
            hint_row(log.tag(A), &first.key, &first.entry.as_entry())
        );
    });
}

#[test]
fn a_restart_finds_every_byte_and_the_dirty_slices() {
    let world = World::new(5);
    let mut rng = fastrand::Rng::with_seed(5);
    let mut left: Vec<Hint> = Vec::new();
    let mut dirty = Slices::NONE;
    for life in 0..6u64 {
        let rt = world.boot(NODE, 1).remove(0);
        world.run(&rt, async {
            let (log, pending) = open(&rt).await;
            let found = &pending[A.index()];
            assert_eq!(found.records, left.len() as u64);
            assert_eq!((found.bytes, &found.dirty), (bytes(&left), &dirty));
            assert_eq!(pending[1].records + pending[2].records, life);
            add(&log, B, &hint(life, "b", None)).unwrap();
            for n in 0..rng.u64(1..60) {
                let value = vec![7; rng.usize(0..300)];
                let made = hint(life << 16 | n, "key", rng.bool().then_some(&value));
                add(&log, A, &made).unwrap();
                left.push(made);
            }
            let gone = rng.usize(0..left.len());
            let batch = everything(&log, A).await;
            until_settled(&rt, &log).await;
            log.forget(A, &batch[..gone.min(batch.len())])
                .await
                .unwrap();
            left.drain(..gone.min(batch.len()));
            dirty.insert(Slice::of(rng.u64(..)));
            log.save_dirty(A, &dirty).await.unwrap();
            if rng.bool() {
                log.close().await;
            }
        });
        world.kill(NODE);
    }
}

#[test]
fn the_longest_keys_and_values_fit() {
    let world = World::new(6);
    let rt = world.boot(NODE, 1).remove(0);
    let value = vec![0xfe; VALUE_BYTES_MAX];
    let wanted = [1, 2, 3].map(|n| {
        let mut key = "k".repeat(KEY_BYTES_MAX - 1);
        key.push((b'0' + n) as char);
        hint(u64::from(n), &key, (n != 2).then_some(&value))
    });
    world.run(&rt, async {
        let (log, _) = open(&rt).await;
        for hint in wanted.iter().rev() {
            add(&log, A, hint).unwrap();
        }
        assert_eq!(log.batch(A, 1 << 20).await.unwrap(), wanted[..1]);
        until_settled(&rt, &log).await;
        log.store().expect("it was made").flush().await;
        assert!(everything(&log, A).await == wanted);
        log.close().await;
    });
    world.kill(NODE);
    let rt = world.boot(NODE, 1).remove(0);
    world.run(&rt, async {
        let (log, pending) = open(&rt).await;
        assert_eq!(pending[A.index()].bytes, bytes(&wanted));
        assert!(everything(&log, A).await == wanted);
    });
}

/// Whether there is a store yet or not: what the disk refuses is told, and the log goes on when there is room.
#[test]
fn what_a_full_disk_refuses_is_reported_as_lost() {
    for there in [false, true] {
        let world = World::new(7);
        let rt = world.boot(NODE, 1).remove(0);
        world.run(&rt, async {
            let (log, _) = open(&rt).await;
            if there {
                add(&log, A, &hint(1, "first", None)).unwrap();
                until_settled(&rt, &log).await;
            }
            let disk = world.disk(NODE);
            disk.set_capacity(disk.files().iter().map(|(_, bytes)| bytes).sum());
            let (mut accepted, mut lost) = (0, Vec::new());
            for n in 2..200 {
                let made = hint(n, &format!("{n}"), Some(&[1; 1000]));
                accepted += usize::from(add(&log, B, &made).is_ok());
                rt.sleep(Duration::from_millis(1)).await;
            }
            until_settled(&rt, &log).await;
            log.take_lost(&mut lost);
            let kept = everything(&log, B).await;
            assert!(!lost.is_empty(), "{there}");
            assert_eq!(kept.len() + lost.len(), accepted, "{there}");
            let slice = |n: u64| Slice::of(KeyHash::of(n.to_string().as_bytes()).token());
            let dirty: BTreeSet<Slice> = (2..200).map(slice).collect();
            assert!(
                lost.iter()
                    .all(|l| l.target == B && dirty.contains(&l.slice))
            );
            disk.heal();
            rt.sleep(2 * RETRY_PAUSE).await;
            log.save_dirty(B, &Slices::ALL).await.unwrap();
            add(&log, B, &hint(500, "last", None)).unwrap();
            assert_eq!(everything(&log, B).await.len(), kept.len() + 1, "{there}");
            log.take_lost(&mut lost);
            assert_eq!(kept.len() + lost.len(), accepted, "{there}");
        });
    }
}

#[test]
fn rows_of_others_are_refused() {
    let tag = tag_of("b:1");
    for row in [
        section(tag, HINTS),
        section(tag, DIRTY),
        [section(tag, HINTS), vec![9; 20]].concat(),
    ] {
        let world = World::new(8);
        let rt = world.boot(NODE, 1).remove(0);
        world.run(&rt, async {
            let (log, _) = open(&rt).await;
            add(&log, A, &hint(1, "k", None)).unwrap();
            let (value, text) = (&b"?"[..], false);
            let stranger = unstamped(&row, State::Live { value, text });
            log.put_durably(&[stranger]).await.unwrap();
            log.close().await;
            let quiet = Rc::new(|_: &str| {});
            let opened = HintLog::open_with(&rt, small(), &names(), quiet).await;
            let error = opened.err().expect("it is refused").0;
            assert!(error.contains("/data/hints/shards/0003"), "{error}");
        });
    }
}

/// What may and must be there after a crash.
#[derive(Default)]
struct Model {
    added: Vec<Hint>,
    durable: usize,
    /// Of `added`, from the front: asked to go, and gone.
    asked_to_go: usize,
    gone: usize,
    dirty: Vec<Slices>,
}

/// Adds, forgets and remembers; the crash may come anywhere.
async fn story(rt: &Rt, model: &RefCell<Model>) {
    let (log, _) = open(rt).await;
    for round in 0..4u64 {
        for n in 0..12 {
            let made = hint(
                round << 8 | n,
                "key",
                (n % 5 > 0).then_some(&[n as u8; 150]),
            );
            add(&log, A, &made).unwrap();
            model.borrow_mut().added.push(made);
        }
        if round > 0 {
            until_settled(rt, &log).await;
            let so_far = model.borrow().added.len();
            model.borrow_mut().durable = so_far;
        }
        let batch = log.batch(A, 1200).await.unwrap();
        model.borrow_mut().asked_to_go += batch.len();
        log.forget(A, &batch).await.unwrap();
        model.borrow_mut().gone += batch.len();
        let mut dirty = Slices::NONE;
        dirty.insert(Slice::of(round << 60));
        model.borrow_mut().dirty.push(dirty.clone());
        log.save_dirty(A, &dirty).await.unwrap();
        model.borrow_mut().dirty = vec![dirty];
    }
    log.close().await;
}

fn check(model: &Model, found: &Pending, got: &[Hint], context: &str) {
    assert_eq!(found.bytes, bytes(got), "{context}");
    assert_eq!(found.records, got.len() as u64, "{context}");
    let set = |hints: &[Hint]| -> BTreeSet<Vec<u8>> {
        let row = |hint: &Hint| hint_row(0, &hint.key, &hint.entry.as_entry());
        hints.iter().map(row).collect()
    };
    let must = set(&model.added[model.asked_to_go.min(model.durable)..model.durable]);
    let may = set(&model.added[model.gone..]);
    assert!(set(got).is_superset(&must), "{context}: hints are missing");
    assert!(set(got).is_subset(&may), "{context}: hints came back");
    assert!(
        got.iter().all(|hint| model.added.contains(hint)),
        "{context}"
    );
    let dirty = model.dirty.contains(&found.dirty);
    let none = found.dirty.is_empty() && model.dirty.len() <= 1;
    assert!(dirty || none, "{context}: dirty slices");
}

/// Power loss at each disk operation of a life, the making of the folder included, and of the recovery.
#[test]
fn what_was_durable_survives_a_crash_at_every_disk_operation() {
    let whole = World::new(9);
    let rt = whole.boot(NODE, 1).remove(0);
    whole.run(&rt, story(&rt, &RefCell::default()));
    let ops = whole.disk(NODE).ops();
    assert!(ops > 100, "{ops}");
    let mut kept = 0;
    for op in 0..ops {
        let world = World::new(9);
        let disk = world.disk(NODE);
        let model = RefCell::new(Model::default());
        disk.crash_at(op);
        let rt = world.boot(NODE, 1).remove(0);
        assert!(world.try_run(&rt, story(&rt, &model)).is_err(), "{op}");
        world.crash(NODE);
        disk.crash_at(disk.ops() + op % 20);
        let rt = world.boot(NODE, 1).remove(0);
        let recovered = world.try_run(&rt, async { drop(open(&rt).await) });
        world.crash(NODE);
        disk.heal();
        let rt = world.boot(NODE, 1).remove(0);
        let (found, got) = world.run(&rt, async {
            let (log, mut pending) = open(&rt).await;
            let got = everything(&log, A).await;
            add(&log, A, &hint(u64::MAX, "more", None)).unwrap();
            assert_eq!(everything(&log, A).await.len(), got.len() + 1);
            (pending.remove(A.index()), got)
        });
        let context = format!("crash at {op}, recovery {recovered:?}");
        check(&model.borrow(), &found, &got, &context);
        kept += got.len();
    }
    assert!(kept as u64 > ops, "{kept}");
}
