//! Pure. What the operator reads when a peer goes or comes back, or when clocks part: sentences, and how bad it is.

use crate::base::member::NodeId;
use crate::cluster::clock;

/// One line for the log.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Line {
    Warn(String),
    Info(String),
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
