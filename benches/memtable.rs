//! Memtable: nanoseconds per put, get and scanned entry, beside `BTreeMap<Vec<u8>, Vec<u8>>` doing the same.
//!
//! `cargo bench --bench memtable`. The map is the structure one would use without thinking; the ratio is what
//! the arena and the key prefixes are worth.
#![expect(
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "a benchmark reads the clock and prints"
)]

use std::collections::BTreeMap;
use std::hint::black_box;
use std::ops::Bound;
use std::time::Instant;

use kvstore::base::record::{Entry, State};
use kvstore::base::version::Version;
use kvstore::store::memtable::Memtable;

const ENTRIES: u64 = 120_000;
const ROUNDS: usize = 5;

fn main() {
    let mut rng = fastrand::Rng::with_seed(1);
    let keys: Vec<String> = (0..ENTRIES)
        .map(|_| format!("user:{:012}", rng.u64(..1_000_000_000)))
        .collect();
    println!(
        "{ENTRIES} keys of 17 bytes, values of 100; best of {ROUNDS} rounds, ns per operation"
    );
    println!("{:<28}{:>8}{:>8}{:>8}", "", "put", "get", "scan");
    print_row("memtable", best(|| memtable(&keys)));
    print_row("BTreeMap<Vec<u8>, Vec<u8>>", best(|| plain_map(&keys)));
}

fn memtable(keys: &[String]) -> [f64; 3] {
    let value = [b'v'; 100];
    let mut table = Memtable::default();
    let put = timed(|| {
        for (n, key) in (1..).zip(keys) {
            let version = Version { hlc: n, origin: 0 };
            let state = State::Live {
                value: &value,
                text: true,
            };
            table.insert(key.as_bytes(), Entry { version, state }, false, 1);
        }
    });
    let get = timed(|| {
        keys.iter()
            .for_each(|key| assert!(black_box(table.get(key.as_bytes())).is_some()));
    });
    let scan = timed(|| {
        let entries = table.range(Bound::Unbounded, Bound::Unbounded);
        let bytes =
            entries.map(|(key, held)| key.len() + held.entry.value().map_or(0, <[u8]>::len));
        assert!(black_box(bytes.sum::<usize>()) > 0);
    });
    [put, get, scan]
}

fn plain_map(keys: &[String]) -> [f64; 3] {
    let value = [b'v'; 100];
    let mut map: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
    let put = timed(|| {
        for key in keys {
            map.insert(key.as_bytes().to_vec(), value.to_vec());
        }
    });
    let get = timed(|| {
        keys.iter()
            .for_each(|key| assert!(black_box(map.get(key.as_bytes())).is_some()));
    });
    let scan = timed(|| {
        assert!(
            black_box(
                map.iter()
                    .map(|(key, value)| key.len() + value.len())
                    .sum::<usize>()
            ) > 0
        )
    });
    [put, get, scan]
}

fn timed(work: impl FnOnce()) -> f64 {
    let began = Instant::now();
    work();
    began.elapsed().as_nanos() as f64 / ENTRIES as f64
}

fn best(mut round: impl FnMut() -> [f64; 3]) -> [f64; 3] {
    (0..ROUNDS).fold([f64::MAX; 3], |best, _| {
        let this = round();
        std::array::from_fn(|n| best[n].min(this[n]))
    })
}

fn print_row(name: &str, [put, get, scan]: [f64; 3]) {
    println!("{name:<28}{put:>8.0}{get:>8.0}{scan:>8.1}");
}
