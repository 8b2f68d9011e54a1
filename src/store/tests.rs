//! One shard on a simulated disk: what every later change must keep. Crashes and faults are in `tests/sim.rs`.

use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use super::format::newborn;
use super::options::Options;
use super::shared::Shared;
use super::{Op, ScanRange, Store};
use crate::base::hash::KeyHash;
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
}

impl Shard {
    async fn open(rt: &Rt, options: Options, hlc: u64) -> Shard {
        let shared = Shared::new(rt, 64 << 10, Rc::new(|_: &str| {}));
        let (store, _) = Store::open(rt, options, &shared)
            .await
            .expect("the shard opens");
        Shard { store, shared, hlc }
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
            page.rows[0].entry.as_entry().value(),
            Some(b"new".as_slice())
        );
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
