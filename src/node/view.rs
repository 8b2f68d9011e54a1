//! Pure. How one core sees the cluster, and the view of the node: the worst that any of its cores sees.
//!
//! ```text
//!  core 0 ── Saw(view), when it has changed ──▶ every other core        /health on any core: all views together
//! ```
//!
//! Each core has links and a detector of its own, so two may differ for seconds: an operator would read one thing or
//! the other, by the chance of which core took the connection.

use crate::base::member::NodeId;

/// What one core sees, or all of them together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct View {
    /// By [`NodeId`]; my own entry is `Up`. Empty: that core has not looked yet.
    pub peers: Vec<Sight>,
    /// Whether this node may answer is not known yet.
    pub joining: bool,
    /// Clients' writes are refused because of the clock.
    pub skewed: bool,
    /// How far this node's clock is ahead of most members', in tenths of a second.
    pub ahead_tenths: i64,
}

/// A peer, from good to bad.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Sight {
    #[default]
    Up,
    Suspect,
    Down,
    /// It refuses us or we refuse it.
    Mismatch,
}

impl View {
    /// Takes in what another core sees.
    pub(crate) fn worsen(&mut self, other: &View) {
        for (mine, theirs) in self.peers.iter_mut().zip(&other.peers) {
            *mine = (*mine).max(*theirs);
        }
        self.joining |= other.joining;
        self.skewed |= other.skewed;
        if other.ahead_tenths.unsigned_abs() > self.ahead_tenths.unsigned_abs() {
            self.ahead_tenths = other.ahead_tenths;
        }
    }

    /// One word for all of it.
    pub(crate) fn status(&self) -> &'static str {
        let worst = self.peers.iter().max().copied().unwrap_or_default();
        match worst {
            Sight::Mismatch => "mismatch",
            _ if self.joining => "joining",
            _ if self.skewed => "clock_skew",
            Sight::Down => "degraded",
            Sight::Up | Sight::Suspect => "ok",
        }
    }

    pub(crate) fn of(&self, node: NodeId) -> Sight {
        self.peers.get(node.index()).copied().unwrap_or_default()
    }
}

impl Sight {
    pub(crate) fn word(self) -> &'static str {
        match self {
            Sight::Up => "up",
            Sight::Suspect => "suspect",
            Sight::Down => "down",
            Sight::Mismatch => "mismatch",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Sight::{Down, Mismatch, Suspect, Up};

    #[test]
    fn the_worst_of_all_cores_counts() {
        let view = |peers: &[Sight]| View {
            peers: peers.to_vec(),
            ..View::default()
        };
        let mut node = view(&[Up, Up, Suspect]);
        assert_eq!(node.status(), "ok");
        // A core that has not looked yet changes nothing.
        node.worsen(&View::default());
        assert_eq!(node, view(&[Up, Up, Suspect]));
        node.worsen(&view(&[Up, Down, Up]));
        assert_eq!(node, view(&[Up, Down, Suspect]));
        assert_eq!(node.status(), "degraded");
        node.worsen(&View {
            skewed: true,
            ahead_tenths: -7,
            ..view(&[Up, Up, Up])
        });
        node.worsen(&View {
            ahead_tenths: 5,
            ..view(&[Up, Up, Up])
        });
        assert_eq!((node.status(), node.ahead_tenths), ("clock_skew", -7));
        node.worsen(&View {
            joining: true,
            ..view(&[Up, Up, Up])
        });
        assert_eq!(node.status(), "joining");
        node.worsen(&view(&[Up, Up, Mismatch]));
        assert_eq!(node.status(), "mismatch");
    }
}
