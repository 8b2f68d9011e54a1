//! One shard on a simulated disk: what every later change must keep. Crashes and faults are in `tests/sim.rs`.

use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use super::format::{newborn, shard_dir};
use super::options::Options;
use super::shared::Shared;
use super::{FROZEN_MAX, Op, Refused, ScanRange, Store};
use crate::base::hash::KeyHash;
use crate::base::limits::L0_FILES_WAIT_MIN;
use crate::base::record::{Entry, OwnedState, State};
use crate::base::version::Version;
use crate::rt::Rt;
use crate::rt::sim::World;

fn options() -> Options {
    Options {
        dir: PathBuf::from("/data"),
        shard: 0,
        node_uuid: 7,
        memtable_bytes: 4 << 10,
        l0_files_max: 2,
        keys_per_block_max: 4,
        bloom_l0: 10,
        bloom_l1: 10,
        wal_segment_bytes: 256 << 10,
        wal_commit_interval: Duration::from_millis(5),
        wal_records_per_group_max: 512,
        gc_grace: Duration::from_secs(3600),
    }
}

/// A world with a shard that was made and not opened yet.
fn world(seed: u64) -> World {
    let world = World::new(seed);
    let (path, bytes) = newborn(options().shard);
    world.disk(1).write(&options().dir.join(path), &bytes);
    world
}

/// A store with its mailbox, and a clock of its own.
struct Shard {
    store: Rc<Store>,
    shared: Rc<Shared>,
    hlc: u64,
    in_flight: usize,
}

impl Shard {
    async fn open(rt: &Rt, options: Options, hlc: u64) -> Shard {
        let shared = Shared::new(rt, 64 << 10, Rc::new(|_: &str| {}));
        Shard::open_on(&shared, rt, options, hlc).await
    }

    /// One of several on a core.
    async fn open_on(shared: &Rc<Shared>, rt: &Rt, options: Options, hlc: u64) -> Shard {
        let (store, _) = Store::open(rt, options, shared)
            .await
            .expect("the shard opens");
        Shard {
            store,
            shared: Rc::clone(shared),
            hlc,
            in_flight: 0,
        }
    }

    /// Hands over a value of so many bytes; answers are awaited only when twenty writes are in flight.
    async fn pour(&mut self, key: &str, bytes: usize) -> Result<(), Refused> {
        self.hlc += 1;
        let version = Version {
            hlc: self.hlc,
            origin: 0,
        };
        let value = &vec![b'x'; bytes][..];
        let state = State::Live { value, text: true };
        let entry = Entry { version, state };
        let key = key.as_bytes();
        self.store.write(&[Op { key, entry }], self.hlc)?;
        self.in_flight += 1;
        self.settle(20).await;
        Ok(())
    }

    /// Waits until at most so many writes are in flight; none may have failed.
    async fn settle(&mut self, left: usize) {
        let mut done = Vec::new();
        while self.in_flight > left {
            std::future::poll_fn(|cx| self.shared.completions().poll_any(cx)).await;
            assert_eq!(self.shared.completions().failure(), None);
            self.shared.completions().take(&mut done);
            self.in_flight -= done.len();
            assert!(done.drain(..).all(|done| done.result.is_ok()));
        }
    }

    /// Writes one record and waits until it is answered.
    async fn write(&mut self, ops: &[(&str, Option<&str>)]) {
        let ops: Vec<Op<'_>> = ops
            .iter()
            .map(|(key, value)| {
                self.hlc += 1;
                let version = Version {
                    hlc: self.hlc,
                    origin: 0,
                };
                let state = match value {
                    Some(value) => State::Live {
                        value: value.as_bytes(),
                        text: true,
                    },
                    None => State::Deleted,
                };
                Op {
                    key: key.as_bytes(),
                    entry: Entry { version, state },
                }
            })
            .collect();
        while self.store.write(&ops, self.hlc).is_err() {
            self.store.flush().await;
        }
        let mut done = Vec::new();
        while done.is_empty() {
            std::future::poll_fn(|cx| self.shared.completions().poll_any(cx)).await;
            self.shared.completions().take(&mut done);
        }
        assert!(
            done.iter()
                .all(|done| done.ticket == self.hlc && done.result.is_ok()),
            "{done:?}"
        );
    }

    async fn get(&self, key: &str) -> Option<String> {
        let entry = self
            .store
            .get_from_disk(key.as_bytes(), KeyHash::of(key.as_bytes()))
            .await;
        match entry.expect("readable")?.state {
            OwnedState::Deleted => None,
            OwnedState::Live { value, .. } => Some(String::from_utf8(value.into()).expect("text")),
        }
    }

    async fn keys(&self, range: ScanRange, rows_max: usize) -> Vec<String> {
        let mut keys = Vec::new();
        let mut range = range;
        loop {
            let page = self
                .store
                .scan(&range, rows_max, 1 << 20)
                .await
                .expect("readable");
            keys.extend(
                page.rows
                    .iter()
                    .map(|row| String::from_utf8(row.key.to_vec()).expect("text")),
            );
            match page.resume {
                Some(after) => range.after = Some(after),
                None => return keys,
            }
        }
    }
}

#[test]
fn writes_survive_flush_compaction_and_reopening() {
    let world = world(1);
    let rt = world.boot(1, 1).remove(0);
    world.run(&rt, async {
        let mut shard = Shard::open(&rt, options(), 0).await;
        for n in 0..400 {
            let key = format!("k{:03}", n % 100);
            shard
                .write(&[(&key, Some(&format!("value {n} {}", "x".repeat(40))))])
                .await;
        }
        shard.write(&[("k000", None), ("new", Some(""))]).await;
        shard.store.flush().await;
        rt.sleep(Duration::from_secs(1)).await;
        let stats = shard.store.stats();
        assert!(stats.flushes > 2 && stats.compactions > 0, "{stats:?}");
        for round in 0..2 {
            assert_eq!(shard.get("k000").await, None);
            assert_eq!(shard.get("new").await.as_deref(), Some(""));
            assert_eq!(shard.get("k999").await, None);
            for n in 1..100 {
                let got = shard.get(&format!("k{n:03}")).await;
                assert_eq!(
                    got,
                    Some(format!("value {} {}", 300 + n, "x".repeat(40))),
                    "round {round}"
                );
            }
            let all = shard.keys(ScanRange::default(), 7).await;
            assert_eq!(all.len(), 100);
            assert!(all.is_sorted());
            let range = ScanRange {
                from: Some(b"k010".as_slice().into()),
                after: None,
                to: Some(b"k019".as_slice().into()),
                ..ScanRange::default()
            };
            assert_eq!(shard.keys(range, 3).await.len(), 10, "both ends are inside");
            shard.store.close().await;
            let hlc = shard.hlc;
            drop(shard);
            shard = Shard::open(&rt, options(), hlc).await;
        }
    });
}

#[test]
fn an_older_version_arriving_late_never_hides_a_newer_one() {
    let world = world(2);
    let rt = world.boot(1, 1).remove(0);
    world.run(&rt, async {
        let mut shard = Shard::open(&rt, options(), 1_000).await;
        shard.write(&[("a", Some("new"))]).await;
        shard.store.flush().await;
        shard.hlc = 10;
        shard
            .write(&[("a", Some("old")), ("b", Some("only"))])
            .await;
        assert_eq!(
            shard.get("a").await.as_deref(),
            Some("new"),
            "late in the memtable"
        );
        shard.store.flush().await;
        assert_eq!(
            shard.get("a").await.as_deref(),
            Some("new"),
            "late in a newer table"
        );
        assert_eq!(shard.get("b").await.as_deref(), Some("only"));
        let page = shard
            .store
            .scan(&ScanRange::default(), 10, 1 << 20)
            .await
            .expect("readable");
        assert_eq!(
            page.rows.get(0).and_then(|row| row.entry.value()),
            Some(b"new".as_slice())
        );
        shard.store.close().await;
    });
}

/// The newest of a key is in the memtable, in a table of level 0 or below, a block of an older table is in the cache,
/// and neither its bytes nor its length are the greatest: gets and scans show it all the same.
#[test]
fn what_was_overwritten_is_seen_by_nobody_at_any_age() {
    async fn shows(shard: &Shard, value: Option<&str>) {
        let page = shard.store.scan(&ScanRange::default(), 10, 1 << 20).await;
        let page = page.expect("readable");
        let live = page.rows.iter().filter_map(|row| row.entry.value());
        let live: Vec<&[u8]> = live.collect();
        let wanted: Vec<&[u8]> = value
            .iter()
            .map(|value| value.as_bytes())
            .chain([&b"n"[..]])
            .collect();
        assert_eq!(live, wanted);
        for _ in 0..2 {
            assert_eq!(shard.get("a").await.as_deref(), value);
            assert_eq!(shard.get("neighbour").await.as_deref(), Some("n"));
        }
    }
    let world = world(13);
    let rt = world.boot(1, 1).remove(0);
    let options = Options {
        l0_files_max: 3,
        ..options()
    };
    world.run(&rt, async {
        let mut shard = Shard::open(&rt, options.clone(), 0).await;
        shard.write(&[("neighbour", Some("n"))]).await;
        let long = "z".repeat(200);
        let mut compactions = 0;
        for round in 0..12 {
            let value = [Some("m"), Some(&*long), Some(""), None, Some("a")][round % 5];
            shard.write(&[("a", value)]).await;
            shows(&shard, value).await;
            shard.store.flush().await;
            shows(&shard, value).await;
            if round % 4 == 3 {
                rt.sleep(LONG).await;
                shows(&shard, value).await;
                compactions += shard.store.stats().compactions;
                shard.store.close().await;
                let hlc = shard.hlc;
                drop(shard);
                shard = Shard::open(&rt, options.clone(), hlc).await;
                shows(&shard, value).await;
            }
        }
        assert!(compactions > 1, "{compactions}");
        shard.store.close().await;
    });
}

#[test]
fn tombstones_outlive_their_grace_only_while_something_lies_below() {
    let world = world(3);
    let rt = world.boot(1, 1).remove(0);
    world.run(&rt, async {
        let mut shard = Shard::open(&rt, options(), 0).await;
        shard.write(&[("a", Some("1")), ("b", Some("1"))]).await;
        shard.store.flush().await;
        shard.write(&[("a", None)]).await;
        shard.store.flush().await;
        rt.sleep(Duration::from_secs(1)).await;
        assert!(shard.store.stats().compactions > 0);
        assert_eq!(shard.get("a").await, None);
        let metas = shard.store.levels();
        let (entries, tombstones) =
            metas
                .with_levels()
                .fold((0, 0), |(entries, tombstones), (_, table)| {
                    (
                        entries + table.meta().entries,
                        tombstones + table.meta().tombstones,
                    )
                });
        // The versions of this test lie before 1970 + 1 h, so the grace is over: the grave goes with its value.
        assert_eq!((entries, tombstones), (1, 0));
        shard.store.close().await;
    });
}

const LONG: Duration = Duration::from_secs(60);

/// Inverts a bit in every table that is on disk now.
fn damage_tables(world: &World, shard: u16) {
    let sst = options().dir.join(shard_dir(shard)).join("sst");
    for (path, _) in world.disk(1).files() {
        if path.starts_with(&sst) {
            assert!(world.disk(1).flip(&path, 40, 1));
        }
    }
}

fn tables_on_disk(world: &World) -> u64 {
    let files = world.disk(1).files();
    let tables = files
        .iter()
        .filter(|(path, _)| path.extension() == Some("sst".as_ref()));
    tables.count() as u64
}

#[test]
fn a_flush_does_not_wait_for_a_compaction() {
    let world = world(4);
    let rt = world.boot(1, 1).remove(0);
    let options = Options {
        memtable_bytes: 64 << 10,
        l0_files_max: 8,
        ..options()
    };
    world.run(&rt, async {
        let mut shard = Shard::open(&rt, options, 0).await;
        for round in 1..=8 {
            for key in 0..50 {
                shard.pour(&format!("{key:02}"), 1000).await.unwrap();
            }
            shard.settle(0).await;
            shard.store.flush().await;
            assert_eq!(shard.store.stats().flushes, round);
        }
        shard.write(&[("a", Some("1"))]).await;
        assert_eq!(shard.store.stats().compactions, 0, "it runs");
        shard.store.flush().await;
        assert_eq!(shard.store.stats().compactions, 0, "it still runs");
        assert_eq!(shard.store.stats().flushes, 9);
        rt.sleep(LONG).await;
        assert!(shard.store.stats().compactions > 0);
        assert_eq!(tables_on_disk(&world), shard.store.stats().tables);
        shard.store.close().await;
    });
}

#[test]
fn writers_wait_for_compaction_before_level_0_grows_without_bound() {
    let world = world(5);
    let rt = world.boot(1, 1).remove(0);
    let options = Options {
        memtable_bytes: 1 << 10,
        ..options()
    };
    world.run(&rt, async {
        let mut shard = Shard::open(&rt, options, 0).await;
        let mut most = 0;
        for n in 0..4000 {
            while shard.pour(&format!("{:03}", n % 500), 300).await.is_err() {
                shard.settle(0).await;
            }
            most = most.max(shard.store.stats().l0_files);
        }
        shard.settle(0).await;
        let bound = (L0_FILES_WAIT_MIN + FROZEN_MAX) as u64;
        assert!(most > 10 && most <= bound, "{most} files of level 0");
        rt.sleep(LONG).await;
        assert!(shard.store.stats().l0_files <= 2);
        shard.store.close().await;
    });
}

#[test]
fn a_damaged_table_stops_the_compactions_of_its_shard_alone_and_refuses_no_write() {
    let world = world(6);
    let (path, bytes) = newborn(1);
    world.disk(1).write(&options().dir.join(path), &bytes);
    let rt = world.boot(1, 1).remove(0);
    world.run(&rt, async {
        let shared = Shared::new(&rt, 0, Rc::new(|_: &str| {}));
        let mut bad = Shard::open_on(&shared, &rt, options(), 0).await;
        bad.write(&[("a", Some(&"1".repeat(100)))]).await;
        bad.store.flush().await;
        damage_tables(&world, 0);
        for n in 0..2000 {
            let poured = bad.pour(&format!("{:02}", n % 20), 200).await;
            assert_ne!(poured, Err(Refused::Full), "write {n}");
        }
        bad.settle(0).await;
        let other = Options {
            shard: 1,
            ..options()
        };
        let mut good = Shard::open_on(&shared, &rt, other, 0).await;
        for n in 0..100 {
            good.pour(&format!("{n:02}"), 200).await.unwrap();
        }
        good.settle(0).await;
        rt.sleep(LONG).await;
        assert!(good.store.stats().compactions > 0, "the other shard waits");
        assert_eq!(bad.store.stats().compactions, 0);
        let failures = shared.job_failures();
        assert!(
            (2..15).contains(&failures),
            "{failures} attempts in a minute"
        );
    });
}

#[test]
fn boots_leave_no_log_segments_behind() {
    for writes in [false, true] {
        let world = world(7);
        let mut hlc = 0;
        let mut most = 0;
        for boot in 0..50 {
            let rt = world.boot(1, 1).remove(0);
            world.run(&rt, async {
                let mut shard = Shard::open(&rt, options(), hlc).await;
                if writes || boot == 0 {
                    shard.write(&[(&format!("k{boot}"), Some("v"))]).await;
                }
                shard.store.close().await;
                hlc = shard.hlc;
                for key in (0..=boot).filter(|key| writes || *key == 0) {
                    assert!(shard.get(&format!("k{key}")).await.is_some(), "{key}");
                }
            });
            most = most.max(world.disk(1).files().len());
        }
        assert!(most < 20, "{most} files");
    }
}

#[test]
fn a_disk_without_room_for_a_new_manifest_refuses_writes_and_recovers() {
    let world = world(8);
    let rt = world.boot(1, 1).remove(0);
    let disk = world.disk(1);
    world.run(&rt, async {
        let mut shard = Shard::open(&rt, options(), 0).await;
        rt.sleep(LONG).await;
        let used: u64 = disk.files().iter().map(|(_, bytes)| bytes).sum();
        // Less than a manifest, more than all of the tables.
        disk.set_capacity(used + (900 << 10));
        let mut n = 0;
        while shard.pour(&format!("{:01}", n % 7), 4 << 10).await != Err(Refused::Full) {
            shard.settle(0).await;
            rt.sleep(Duration::from_millis(20)).await;
            n += 1;
            assert!(n < 1000, "the manifest never filled up");
        }
        assert_eq!(shard.shared.completions().failure(), None);
        disk.heal();
        rt.sleep(LONG).await;
        shard.write(&[("after", Some("1"))]).await;
        shard.store.flush().await;
        assert_eq!(shard.get("after").await.as_deref(), Some("1"));
        shard.store.close().await;
    });
}

#[test]
fn a_node_on_a_full_disk_starts_again() {
    let world = world(11);
    let disk = world.disk(1);
    let options = Options {
        wal_segment_bytes: 4 << 20,
        ..options()
    };
    for boot in 0..2 {
        let rt = world.boot(1, 1).remove(0);
        world.run(&rt, async {
            let mut shard = Shard::open(&rt, options.clone(), boot).await;
            assert_eq!(shard.get("a").await.is_some(), boot > 0);
            shard.write(&[("a", Some("1"))]).await;
            rt.sleep(LONG).await;
            shard.store.close().await;
        });
        // Nothing is free but what an unused segment holds.
        disk.set_capacity(disk.files().iter().map(|(_, bytes)| bytes).sum());
    }
}

#[test]
fn a_job_that_fails_leaves_no_files() {
    let world = world(12);
    let rt = world.boot(1, 1).remove(0);
    let disk = world.disk(1);
    let in_sst = || {
        let files = disk.files();
        let inside = files
            .iter()
            .filter(|(path, _)| path.starts_with("/data/shards/0000/sst"));
        inside.count()
    };
    world.run(&rt, async {
        let mut shard = Shard::open(&rt, options(), 0).await;
        rt.sleep(LONG).await;
        disk.set_capacity(disk.files().iter().map(|(_, bytes)| bytes).sum());
        shard.pour("a", 5 << 10).await.unwrap();
        shard.settle(0).await;
        rt.sleep(LONG).await;
        assert!(shard.shared.job_failures() > 10, "tried again and again");
        assert_eq!((in_sst(), shard.store.stats().flushes), (0, 0));
        disk.heal();
        rt.sleep(LONG).await;
        assert_eq!((in_sst(), shard.store.stats().flushes), (1, 1));
        shard.store.close().await;
    });
}

#[test]
fn replaced_tables_go_when_their_last_reader_does() {
    let world = world(9);
    let rt = world.boot(1, 1).remove(0);
    world.run(&rt, async {
        let mut shard = Shard::open(&rt, options(), 0).await;
        shard.write(&[("a", Some("1"))]).await;
        shard.store.flush().await;
        let reader = shard.store.levels();
        shard.write(&[("a", Some("2"))]).await;
        shard.store.flush().await;
        rt.sleep(LONG).await;
        assert!(shard.store.stats().compactions > 0);
        assert_eq!(tables_on_disk(&world), 2, "one is being read");
        drop(reader);
        rt.sleep(LONG).await;
        assert_eq!(tables_on_disk(&world), 1);
        shard.store.close().await;
    });
}

#[test]
fn a_shard_that_does_not_open_is_left_as_it_was_and_the_error_names_the_file() {
    for damaged in ["sst", "wal"] {
        let world = world(10);
        let rt = world.boot(1, 1).remove(0);
        let disk = world.disk(1);
        world.run(&rt, async {
            let mut shard = Shard::open(&rt, options(), 0).await;
            shard.write(&[("a", Some("1"))]).await;
            shard.store.flush().await;
            shard.write(&[("b", Some("1"))]).await;
            shard.store.close().await;
        });
        let of = |path: &PathBuf| path.extension() == Some(damaged.as_ref());
        for (path, bytes) in disk.files().iter().filter(|(path, _)| of(path)) {
            let at = if damaged == "sst" {
                bytes - 100
            } else {
                2 * 4096 + 60
            };
            assert!(disk.flip(path, at, 1));
        }
        let content = || {
            disk.files()
                .into_iter()
                .map(|(path, _)| (disk.read(&path), path))
        };
        let before: Vec<_> = content().collect();
        let rt = world.boot(1, 1).remove(0);
        let shared = Shared::new(&rt, 0, Rc::new(|_: &str| {}));
        let refused = world.run(&rt, Store::open(&rt, options(), &shared));
        let why = refused.map(|_| ()).unwrap_err().to_string();
        assert!(
            why.starts_with(&format!("shards/0000/{damaged}/00000000000000")),
            "{why}"
        );
        assert!(content().eq(before), "{why}");
    }
}
