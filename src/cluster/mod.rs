//! Pure. Decisions of the cluster: who shall hold a key, and when a write is stored or a read is known.
//!
//! Every machine here is synchronous. It is handed events and leaves actions; a driver outside carries the bytes,
//! keeps the timers and frees the request at the end. One machine per request, on the core that coordinates it:
//!
//! ```text
//!            start(plan)                                            on(event), on(event), ..
//!  driver ────────────────▶ machine ─▶ actions ─▶ driver ─▶ replicas ───────────────▶ machine ─▶ actions ..
//!
//!  actions:   Send, Full, Digest, Repair    to one replica; each is followed by one event about that replica
//!             Hint                          to the hint log of this core; nothing follows
//!             Answer                        once: the client hears now, whatever is still on its way
//!             Finished                      once and last: no event matters any more
//! ```
//!
//! Events may come late, twice, or from nodes that were never asked: they are ignored, never believed. Actions are
//! carried out in their order, and before the next event is handed in.
//!
//! Words:
//!
//! ```text
//! ring             the members' tokens in order round the circle of 64-bit hashes
//! slice            one of 4096 equal arcs of the ring: the unit of ownership, movement and repair
//! replica          a member that shall hold the keys of a slice; also its copy of one key
//! preference list  the replicas of a slice, in the order the ring names them (nobody is the primary)
//! coordinator      the core that plans a client's request, stamps its version and speaks to the replicas
//! hint             a write that a replica has missed, kept by the coordinator to be replayed; never counts as a copy
//! tombstone        a deletion as a version of its own: it wins and is repaired like any value
//! digest           version and checksum of what a replica holds for a key, instead of the value
//! ```
//!
//! What it does not do: it knows neither sockets nor frames nor clocks, and liveness ([`PeerState`]) never changes
//! ownership: it only decides whom to ask.

pub mod clock;
pub mod cover;
pub mod health;
pub mod hints;
pub mod merge;
pub mod read;
pub mod repair;
pub mod ring;
pub mod write;

use crate::base::member::NodeId;

/// Most replicas of one key. A larger `CLUSTER_REPLICATION_FACTOR` is refused at start-up, so that a request keeps
/// its replicas inline: no allocation per request.
pub const REPLICAS_MAX: usize = 8;

/// Whether a member answers, as this core sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum PeerState {
    /// It answers.
    #[default]
    Up,
    /// Silent for a while: still asked, but others are asked first.
    Suspect,
    /// Not asked at all; what it misses becomes a hint.
    Down,
}

/// One replica of a key as seen when the request is planned. Later changes of its state reach the request as
/// failures only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target {
    pub node: NodeId,
    pub state: PeerState,
}

#[cfg(test)]
mod read_tests;

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::fmt::{Display, Write};

    /// `n3`.
    pub(crate) fn node(word: &str) -> NodeId {
        let digits = word.strip_prefix('n').expect("a node is n and a number");
        NodeId(digits.parse().expect("a node is n and a number"))
    }

    /// `n1,n2?,n3!`: `?` is suspect, `!` is down.
    pub(crate) fn targets(list: &str) -> Vec<Target> {
        list.split(',')
            .map(|word| Target {
                node: node(word.trim_end_matches(['?', '!'])),
                state: match word.chars().last() {
                    Some('?') => PeerState::Suspect,
                    Some('!') => PeerState::Down,
                    _ => PeerState::Up,
                },
            })
            .collect()
    }

    /// The value of `name=value` among the words.
    pub(crate) fn field<'a>(words: &[&'a str], name: &str) -> Option<&'a str> {
        words
            .iter()
            .find_map(|word| word.strip_prefix(name)?.strip_prefix('='))
    }

    /// One line of an answer: what was handed in, and the actions it led to.
    pub(crate) fn line(cause: &str, actions: impl Iterator<Item = impl Display>) -> String {
        let actions: Vec<String> = actions.map(|action| action.to_string()).collect();
        match actions.is_empty() {
            true => format!("{cause}: -\n"),
            false => format!("{cause}: {}\n", actions.join(", ")),
        }
    }

    /// Stories separated by blank lines: a title, events, `----`, the actions each led to. UPDATE=1 rewrites the
    /// file.
    #[expect(clippy::disallowed_methods, reason = "golden files are read by tests")]
    pub(crate) fn golden_stories(folder: &str, answer: impl Fn(&[&str]) -> String) {
        let root = env!("CARGO_MANIFEST_DIR");
        let path = format!("{root}/tests/golden/{folder}/stories.txt");
        let text = std::fs::read_to_string(&path).expect("golden file");
        let mut rewritten = String::new();
        let mut stories = 0;
        for story in text.trim_end().split("\n\n") {
            let (title_and_input, _) = story.split_once("\n----").expect("a ---- line");
            let (title, input) = title_and_input.split_once('\n').expect("a title line");
            let events: Vec<&str> = input.lines().collect();
            write!(rewritten, "{title}\n{input}\n----\n{}\n", answer(&events))
                .expect("a string takes all");
            stories += 1;
        }
        let rewritten = format!("{}\n", rewritten.trim_end());
        if std::env::var_os("UPDATE").is_some() {
            std::fs::write(path, rewritten).expect("golden file is writable");
        } else {
            assert_eq!(text, rewritten, "run with UPDATE=1 and read the diff");
        }
        assert!(stories >= 20, "{folder}: a story per rule");
    }
}
