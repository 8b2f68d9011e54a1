//! Commits and appends per second of the WAL on the real disk, beside the physical limit.
//!
//! ```text
//! cargo bench --bench wal              about 20 s; files in target/tmp
//! raw        one 4 KiB O_DSYNC overwrite after the other, nothing else
//! waiters    that many clients, each appends again as soon as its record is durable
//! ```
//!
//! With one waiter, commits per second should come near the raw writes; with many, appends per second grow
//! while commits stay, because a group takes whatever gathered during the last write.

#![expect(clippy::print_stdout, reason = "a benchmark prints its result")]

use std::cell::Cell;
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use kvstore::base::limits::DISK_PAGE_BYTES;
use kvstore::base::record::{Entry, State};
use kvstore::base::version::Version;
use kvstore::rt::file::Mode;
use kvstore::rt::stop::Stop;
use kvstore::rt::{Rt, uring};
use kvstore::store::Op;
use kvstore::store::format::Owner;
use kvstore::store::replay::replay;
use kvstore::store::wal::{Wal, WalPolicy};

const ROUND: Duration = Duration::from_secs(4);
const RAW_FILE_BYTES: usize = 16 << 20;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    uring::preflight()?;
    let cpus = uring::available_cpus()?;
    let dir = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("bench-wal");
    let data = dir.clone();
    uring::run(
        &cpus[..1],
        &dir,
        &Stop::default(),
        vec![()],
        move |rt, ()| {
            let dir = data.clone();
            async move { measure(&rt, &dir).await }
        },
    )
    .map_err(|error| error.to_string())?;
    Ok(())
}

async fn measure(rt: &Rt, dir: &Path) -> io::Result<()> {
    println!(
        "{:<14} {:>10} {:>12} {:>12} {:>10}",
        "", "commits/s", "appends/s", "records/group", "late"
    );
    let raw = raw_writes(rt, &dir.join("raw")).await?;
    println!("{:<14} {raw:>10.0}", "raw O_DSYNC");
    for waiters in [1, 64, 1024] {
        round(rt, &dir.join(format!("wal-{waiters}")), waiters).await?;
    }
    Ok(())
}

/// 4 KiB overwrites per second.
async fn raw_writes(rt: &Rt, path: &Path) -> io::Result<f64> {
    let file = rt.open(path, Mode::Create).await?;
    file.write_at(file.alloc(RAW_FILE_BYTES), 0).await?;
    file.sync().await?;
    let file = rt.open(path, Mode::WriteDurable).await?;
    let began = rt.now();
    let mut writes = 0;
    while rt.now().since(began) < ROUND {
        let at = writes * DISK_PAGE_BYTES % RAW_FILE_BYTES;
        file.write_at(file.alloc(DISK_PAGE_BYTES), at as u64)
            .await?;
        writes += 1;
    }
    let rate = writes as f64 / rt.now().since(began).as_secs_f64();
    rt.remove(path).await?;
    Ok(rate)
}

/// One row: so many clients for [`ROUND`].
async fn round(rt: &Rt, dir: &Path, waiters: u64) -> io::Result<()> {
    let owner = Owner { node: 1, shard: 0 };
    let policy = WalPolicy {
        commit_interval: Duration::from_millis(5),
        records_per_group_max: 512,
        segment_bytes: 64 << 20,
    };
    let replayed = replay(rt, dir, owner, 0, &mut |_, _| ()).await;
    let resume = replayed.map_err(io::Error::other)?.resume;
    let wal = Wal::open(
        rt.clone(),
        dir.to_path_buf(),
        owner,
        policy,
        resume,
        Rc::new(|_: &str| ()),
    )
    .await?;
    for ticket in 0..waiters {
        append(&wal, ticket);
    }
    let began = rt.now();
    let released = Rc::new(Cell::new(0));
    {
        let (rt, wal, released) = (rt.clone(), Rc::clone(&wal), Rc::clone(&released));
        rt.clone().spawn(async move {
            while rt.now().since(began) < ROUND {
                rt.sleep(Duration::from_millis(100)).await;
                wal.release(released.get()).await.expect("the disk works");
            }
            wal.close();
        });
    }
    let outcome = Rc::clone(&wal).run(
        |group| {
            released.set(group.seq - 1);
            for ticket in group.tickets {
                append(&wal, *ticket);
            }
        },
        |_, error| println!("{error}"),
    );
    outcome.await?;
    let stats = wal.stats();
    let seconds = rt.now().since(began).as_secs_f64();
    println!(
        "{:<14} {:>10.0} {:>12.0} {:>13.1} {:>10}",
        format!("{waiters} waiters"),
        stats.groups as f64 / seconds,
        stats.records as f64 / seconds,
        stats.records as f64 / stats.groups as f64,
        stats.late_groups,
    );
    for name in rt.list(dir).await? {
        rt.remove(&dir.join(name)).await?;
    }
    Ok(())
}

/// A put of a 16-byte key and 100 bytes. Refused at the end, when the log is closed.
fn append(wal: &Wal, ticket: u64) {
    let version = Version {
        hlc: ticket,
        origin: 0,
    };
    let state = State::Live {
        value: &[7; 100],
        text: false,
    };
    let op = Op {
        key: &[ticket as u8; 16],
        entry: Entry { version, state },
    };
    wal.append([op].into_iter(), ticket).ok();
}
