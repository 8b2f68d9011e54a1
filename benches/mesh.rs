//! What a hop to another core costs: request and answer over `rt::mesh` between two pinned cores, as the node
//! does it (receive everything, answer everything, ship once, park when there is nothing).
//!
//! `cargo bench --bench mesh`. Prints, for 1 and 64 requests in flight: round trips per second, and CPU time of
//! both cores per hop (half a round trip). On a shared machine read the CPU figure, not the rate.

#![expect(
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a bench prints and reads clocks"
)]

use std::time::{Duration, Instant};

use kvstore::rt::Rt;
use kvstore::rt::mesh::{Port, mesh};
use kvstore::rt::stop::Stop;
use kvstore::rt::uring::{available_cpus, preflight, run};

const RUN: Duration = Duration::from_secs(3);

/// A request on its way out, the same back.
type Message = u64;

fn main() {
    // cargo passes flags of its own harness; there is nothing to choose here.
    if let Err(error) = preflight() {
        println!("skipped: {error}");
        return;
    }
    let cpus = available_cpus().expect("preflight has passed");
    let [asks, answers, ..] = cpus[..] else {
        println!("skipped: two CPUs are needed");
        return;
    };
    println!("in flight   round trips/s   CPU us/hop");
    for in_flight in [1, 64] {
        let before = cpu_time();
        let began = Instant::now();
        let trips = round_trips(&[asks, answers], in_flight);
        let (wall, cpu) = (began.elapsed(), cpu_time() - before);
        println!(
            "{in_flight:>9}   {:>13.0}   {:>10.2}",
            trips as f64 / wall.as_secs_f64(),
            cpu.as_secs_f64() * 1e6 / (2 * trips) as f64
        );
    }
}

/// Round trips finished within [`RUN`].
fn round_trips(cpus: &[usize], in_flight: u64) -> u64 {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory for the probe");
    let (count, counted) = std::sync::mpsc::sync_channel(1);
    let seeds = mesh::<Message>(2)
        .into_iter()
        .map(|port| (port, count.clone()))
        .collect();
    let stop = Stop::default();
    let ended = run(
        cpus,
        dir.path(),
        &stop,
        seeds,
        move |rt, (port, count)| async move {
            match rt.core() {
                0 => {
                    let trips = ask(&rt, port, in_flight).await?;
                    count.send(trips).map_err(std::io::Error::other)?;
                    rt.stop().raise();
                    Ok(())
                }
                _ => answer(&rt, port).await,
            }
        },
    );
    ended.expect("both cores end well");
    counted.recv().expect("core 0 has counted")
}

async fn ask(rt: &Rt, mut port: Port<Message>, in_flight: u64) -> std::io::Result<u64> {
    let mut net = rt.net(&[])?;
    let (mut arrived, mut trips) = (Vec::new(), 0);
    for message in 0..in_flight {
        port.send(1, message);
    }
    port.ship();
    let till = rt.now() + RUN;
    while rt.now() < till {
        port.receive(&mut arrived);
        if arrived.is_empty() {
            net.park(None, &mut |cx| port.poll_arrived(cx).is_ready())
                .await?;
            continue;
        }
        trips += arrived.len() as u64;
        for (core, message) in arrived.drain(..) {
            port.send(core, message);
        }
        port.ship();
        rt.yield_now().await;
    }
    Ok(trips)
}

async fn answer(rt: &Rt, mut port: Port<Message>) -> std::io::Result<()> {
    let mut net = rt.net(&[])?;
    let mut arrived = Vec::new();
    let stop = rt.stop().clone();
    while !stop.is_raised() {
        port.receive(&mut arrived);
        if arrived.is_empty() {
            net.park(None, &mut |cx| {
                port.poll_arrived(cx).is_ready() | stop.poll_raised(cx).is_ready()
            })
            .await?;
            continue;
        }
        for (core, message) in arrived.drain(..) {
            port.send(core, message);
        }
        port.ship();
        rt.yield_now().await;
    }
    Ok(())
}

/// User and system time of this process, all threads.
fn cpu_time() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").expect("proc is mounted");
    // Fields 14 and 15, counted behind the command name, which may hold spaces; in hundredths of a second.
    let fields: Vec<&str> = stat
        .rsplit_once(')')
        .map_or("", |(_, rest)| rest)
        .split_whitespace()
        .collect();
    let ticks: u64 = fields[11..13]
        .iter()
        .map(|field| field.parse::<u64>().expect("a number"))
        .sum();
    Duration::from_millis(ticks * 10)
}
