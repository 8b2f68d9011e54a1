//! The way all cores start together: nobody accepts a connection before every shard of every core is open.
//!
//! ```text
//!  core n:  open shards ── Opened ─▶ core 0 ── Listen ─▶ core n: bind, serve ── Listening ─▶ core 0: announce
//! ```
//!
//! A request could otherwise reach a core whose neighbour is still recovering.

use std::future::poll_fn;
use std::task::Poll;

use super::Started;
use super::msg::{Kind, Msg};
use crate::rt::Rt;
use crate::rt::mesh::Port;

/// Every shard of every core is open.
pub(crate) struct Gathered {
    /// The sum over all cores; meaningful on core 0 only.
    pub started: Started,
    /// What other cores, already serving, have sent meanwhile.
    pub early: Vec<(usize, Msg)>,
}

/// Waits: core 0 for all cores, to which it then owes `Kind::Listen`; the others for that. `None`: the node stops before.
pub(crate) async fn all_open(rt: &Rt, port: &mut Port<Msg>, own: Started) -> Option<Gathered> {
    let mut started = own;
    let mut early = Vec::new();
    let mut missing = if rt.core() == 0 { port.cores() - 1 } else { 1 };
    if rt.core() != 0 {
        port.send(0, Msg(Kind::Opened(own)));
        port.ship();
    }
    while missing > 0 {
        let mut arrived = Vec::new();
        port.receive(&mut arrived);
        for (from, message) in arrived {
            match message.0 {
                Kind::Opened(theirs) => {
                    started.merge(&theirs);
                    missing -= 1;
                }
                Kind::Listen => missing -= 1,
                other => early.push((from, Msg(other))),
            }
        }
        if rt.stop().is_raised() {
            return None;
        }
        if missing > 0 {
            poll_fn(|cx| {
                let stopped = rt.stop().poll_raised(cx).is_ready();
                let arrived = port.poll_arrived(cx).is_ready();
                if stopped || arrived {
                    Poll::Ready(())
                } else {
                    Poll::Pending
                }
            })
            .await;
        }
    }
    Some(Gathered { started, early })
}

/// Sends the same message to every other core.
pub(crate) fn tell_others(rt: &Rt, port: &mut Port<Msg>, kind: impl Fn() -> Kind) {
    for core in (0..port.cores()).filter(|&core| core != rt.core()) {
        port.send(core, Msg(kind()));
    }
    port.ship();
}
