//! Pure. What the operator reads when a peer goes or comes back, or when clocks part: sentences, and how bad it is.

use crate::base::member::NodeId;
use crate::cluster::PeerState;
use crate::cluster::clock;
use crate::cluster::health::{Cause, Change};

/// One line for the log.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Line {
    Warn(String),
    Info(String),
}

/// A peer has gone or come back; nothing of a short silence. `trouble`: what went wrong when it was last dialled.
pub(super) fn of_peer(change: &Change, name: &str, trouble: &str) -> Option<Line> {
    let seconds = change.lasted.as_secs_f64();
    match (change.from, change.to) {
        (_, PeerState::Down) => Some(Line::Warn(match (change.cause, trouble) {
            (Cause::Silent | Cause::Lost, "") | (Cause::Silent, _) => {
                format!("peer {name} is down: no answer for {seconds:.1} s")
            }
            (_, "") => format!("peer {name} is down: nothing was heard of it since the start"),
            (_, trouble) => format!("peer {name} is down: {trouble}"),
        })),
        (PeerState::Down, _) => Some(Line::Info(format!(
            "peer {name} is back after {seconds:.1} s"
        ))),
        (PeerState::Up | PeerState::Suspect, _) => None,
    }
}

/// Clocks have parted or come together.
pub(super) fn of_clocks<'a>(news: clock::News, name: impl Fn(NodeId) -> &'a str) -> Line {
    match news {
        clock::News::Apart(node, offset_ms) => Line::Warn(format!(
            "the clock of peer {} is {} this node's; of two writes the one with the later clock wins: keep clocks \
             together (NTP, chrony)",
            name(node),
            apart(offset_ms)
        )),
        clock::News::Together(node) => Line::Info(format!(
            "the clock of peer {} and this node's are together again",
            name(node)
        )),
        clock::News::Fenced(offset_ms) => Line::Warn(format!(
            "this node's clock is {} most members': it takes no writes from clients until that is mended (NTP, chrony)",
            apart(-offset_ms)
        )),
        clock::News::Freed => Line::Info(
            "this node's clock and most members' are together again: it takes writes from clients"
                .to_owned(),
        ),
    }
}

/// `1.5 s ahead of`.
pub(super) fn apart(ahead_ms: i64) -> String {
    let seconds = ahead_ms.unsigned_abs() as f64 / 1000.0;
    let side = if ahead_ms > 0 { "ahead of" } else { "behind" };
    format!("{seconds:.1} s {side}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn peers_are_told_of_in_sentences() {
        use PeerState::{Down, Suspect, Up};
        for (from, to, cause, lasted_ms, trouble, wanted) in [
            (Up, Suspect, Cause::Silent, 1500, "", None),
            (Suspect, Up, Cause::Heard, 0, "", None),
            (
                Suspect,
                Down,
                Cause::Silent,
                3049,
                "it has closed the connection",
                Some(Line::Warn("peer b:1 is down: no answer for 3.0 s".into())),
            ),
            (
                Up,
                Down,
                Cause::Lost,
                40,
                "Connection refused (os error 111)",
                Some(Line::Warn(
                    "peer b:1 is down: Connection refused (os error 111)".into(),
                )),
            ),
            (
                Up,
                Down,
                Cause::NeverHeard,
                3000,
                "",
                Some(Line::Warn(
                    "peer b:1 is down: nothing was heard of it since the start".into(),
                )),
            ),
            (
                Down,
                Up,
                Cause::Pongs,
                12_040,
                "",
                Some(Line::Info("peer b:1 is back after 12.0 s".into())),
            ),
        ] {
            let change = Change {
                node: NodeId(1),
                from,
                to,
                cause,
                lasted: Duration::from_millis(lasted_ms),
            };
            assert_eq!(of_peer(&change, "b:1", trouble), wanted, "{change:?}");
        }
    }

    #[test]
    fn clocks_are_told_of_in_sentences() {
        let told = |news| of_clocks(news, |_| "b:1");
        let Line::Warn(apart) = told(clock::News::Apart(NodeId(1), 230)) else {
            panic!("a warning");
        };
        assert!(
            apart.starts_with("the clock of peer b:1 is 0.2 s ahead of this node's;"),
            "{apart}"
        );
        let Line::Warn(fenced) = told(clock::News::Fenced(-3_600_000)) else {
            panic!("a warning");
        };
        assert!(
            fenced.starts_with(
                "this node's clock is 3600.0 s ahead of most members': it takes no writes"
            ),
            "{fenced}"
        );
        assert!(matches!(told(clock::News::Freed), Line::Info(_)));
    }
}
