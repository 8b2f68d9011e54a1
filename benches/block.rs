//! What a lookup costs once its table is in memory: nanoseconds per filter probe, index search, block lookup,
//! and per entry of a scan or a flush. Medians of slices short enough not to be interrupted.
//!
//! `cargo bench --bench block`. Budget (docs: performance): a filter probe is one cache line, some 20 ns; a hot
//! get spends about 100 ns in the index and 250 ns in the block.
#![expect(
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "a benchmark reads the clock and prints"
)]

use std::hint::black_box;
use std::rc::Rc;
use std::time::Instant;

use kvstore::base::hash::KeyHash;
use kvstore::base::record::{Entry, State};
use kvstore::base::version::Version;
use kvstore::store::format::block::{Block, BlockBuilder, BlockCursor};
use kvstore::store::format::bloom::{BloomSize, Filter};
use kvstore::store::format::index::{IndexBuilder, SparseIndex};
use kvstore::store::format::table::BLOCK_TRAILER_BYTES;

const KEYS: usize = 400_000;
const KEYS_PER_BLOCK: usize = 128;
/// Steps timed together.
const SLICE: usize = 1000;

fn main() {
    let mut rng = fastrand::Rng::with_seed(1);
    let keys: Vec<String> = (0..KEYS).map(|i| format!("user:{:012}", i * 2)).collect();
    let absent: Vec<String> = (0..KEYS)
        .map(|i| format!("user:{:012}", i * 2 + 1))
        .collect();
    let mut order: Vec<usize> = (0..KEYS).collect();
    rng.shuffle(&mut order);
    println!("{KEYS} keys of 17 bytes, values of 100, {KEYS_PER_BLOCK} entries per block");
    println!("{:<44}{:>8}", "", "ns");
    filters(&keys, &absent, &order);
    let (blocks, index) = table(&keys);
    // In the order of use: fetching the question must not cost more than the answer.
    let asked = |keys: &[String]| -> Vec<(usize, Box<[u8]>)> {
        let row = |&i: &usize| (i / KEYS_PER_BLOCK, keys[i].as_bytes().into());
        order.iter().map(row).collect()
    };
    lookups(&asked(&keys), &asked(&absent), &blocks, &index);
    streams(&keys, &blocks);
}

fn filters(keys: &[String], absent: &[String], order: &[usize]) {
    let hashes = |keys: &[String]| -> Vec<KeyHash> {
        let hash = |&i: &usize| KeyHash::of(keys[i].as_bytes());
        order.iter().map(hash).collect()
    };
    let (present, missing) = (hashes(keys), hashes(absent));
    let mut filter = Filter::new(BloomSize::new(10), KEYS);
    measure("filter: insert", &present, |&hash| filter.insert(hash));
    measure("filter: key is there", &present, |&hash| {
        assert!(black_box(filter.may_hold(hash)));
    });
    measure("filter: key is absent", &missing, |&hash| {
        black_box(filter.may_hold(hash));
    });
}

/// Which key is, or would be, in which block.
type Asked = (usize, Box<[u8]>);

fn lookups(present: &[Asked], absent: &[Asked], blocks: &[Rc<Block>], index: &SparseIndex) {
    measure("index: find the block", present, |(block, key)| {
        assert_eq!(index.find(key), *block);
    });
    let hot = |asked: &[Asked]| -> Vec<Asked> {
        let in_hot = asked.iter().filter(|(block, _)| *block < 32);
        in_hot.cloned().collect()
    };
    for (what, asked, there) in [
        (
            "block: get, key is there, 0.5 MB of blocks",
            &hot(present),
            true,
        ),
        (
            "block: get, key is absent, 0.5 MB of blocks",
            &hot(absent),
            false,
        ),
        (
            "block: get, key is there, 50 MB of blocks",
            &present.to_vec(),
            true,
        ),
    ] {
        measure(what, asked, |(block, key)| {
            let found = black_box(blocks[*block].get(key));
            assert_eq!(found.expect("a sound block").is_some(), there);
        });
    }
}

fn streams(keys: &[String], blocks: &[Rc<Block>]) {
    let mut cursor = BlockCursor::new(blocks[0].clone());
    let mut rest = blocks.iter().cycle();
    let steps: Vec<()> = vec![(); KEYS];
    measure("cursor: step and look", &steps, |()| {
        while !cursor.step().expect("a sound block") {
            cursor.enter(rest.next().expect("a cycle has no end").clone());
        }
        black_box(cursor.head());
    });
    let mut builder = BlockBuilder::default();
    let mut n = 0;
    measure("builder: add an entry", keys, |key| {
        add(&mut builder, key, n);
        n += 1;
        if builder.entries() == KEYS_PER_BLOCK {
            let built = builder.finish();
            builder.recycle(built.payload);
        }
    });
}

fn add(builder: &mut BlockBuilder, key: &str, n: u64) {
    let version = Version {
        hlc: (1 << 60) + ((n * 7919 % 1000) << 16),
        origin: 1,
    };
    let state = State::Live {
        value: &[b'v'; 100],
        text: true,
    };
    builder.add(key.as_bytes(), Entry { version, state }, false);
}

fn table(keys: &[String]) -> (Vec<Rc<Block>>, SparseIndex) {
    let mut builder = BlockBuilder::default();
    let mut index = IndexBuilder::default();
    let mut blocks = Vec::new();
    let mut bytes = 0;
    for chunk in keys.chunks(KEYS_PER_BLOCK) {
        index.open_block(builder.last_key(), chunk[0].as_bytes());
        for (n, key) in (1..).zip(chunk) {
            add(&mut builder, key, n);
        }
        let built = builder.finish();
        let block_bytes = (built.payload.len() + BLOCK_TRAILER_BYTES) as u64;
        index.close_block(&built, block_bytes);
        bytes += block_bytes;
        blocks.push(Rc::new(
            Block::parse(&built.payload).expect("a sound block"),
        ));
        builder.recycle(built.payload);
    }
    let mut payload = Vec::new();
    index.encode(&mut payload);
    let index = SparseIndex::parse(&payload, bytes).expect("a sound index");
    (blocks, index)
}

/// Prints the median time of a step.
fn measure<T>(what: &str, steps: &[T], mut step: impl FnMut(&T)) {
    let mut slices: Vec<f64> = steps
        .chunks(SLICE)
        .map(|slice| {
            let start = Instant::now();
            slice.iter().for_each(&mut step);
            start.elapsed().as_nanos() as f64 / slice.len() as f64
        })
        .collect();
    slices.sort_by(f64::total_cmp);
    println!("{what:<44}{:>8.1}", slices[slices.len() / 2]);
}
