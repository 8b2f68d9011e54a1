//! Pure. One peer as a core sees it: its links, what was asked on them, and what it says.
//!
//! ```text
//!  Idle(when to dial) ──▶ Greeting ──▶ Open ──▶ Idle ..
//! ```

use crate::base::hash::KeyHash;
use crate::base::member::NodeId;
use crate::base::record::OwnedEntry;
use crate::base::rows::Rows;
use crate::base::time::Instant;
use crate::cluster::read::Digest;
use crate::rt::net::Token;
use crate::wire::compare::Head;
use crate::wire::message::{Message, Why};

/// A link, by the peer and its core.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Spot {
    pub node: NodeId,
    pub core: u16,
}

pub(super) struct Peer {
    /// One per core of the peer; a single one while that is not known.
    pub links: Vec<Link>,
    pub shards: u16,
    /// What last went wrong on the way to it, in words for the log; empty once a link is open.
    pub trouble: String,
    /// It refuses us or we refuse it: settings differ.
    pub mismatch: bool,
    /// It has answered a handshake, whatever it said.
    pub has_spoken: bool,
    /// It knows our name with another data directory, and has not taken this one in.
    pub refuses_us: bool,
}

pub(super) struct Link {
    pub phase: Phase,
    /// Frames and the handshake, `sent` bytes of which have left.
    pub out: Vec<u8>,
    pub sent: usize,
    /// Bytes of an unfinished frame or head.
    pub input: Vec<u8>,
    /// Whether writability is asked for.
    pub blocked: bool,
    pub requests: usize,
    pub failures: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Not dialled before; `None`: nobody wants it.
    Idle(Option<Instant>),
    Greeting {
        token: Token,
        since: Instant,
        nonce: u64,
    },
    Open {
        token: Token,
        heard: Instant,
    },
}

/// What was asked of a peer, as the asker wants to be reminded of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum What {
    Ping,
    Write,
    Full,
    Digest,
    Repair,
    /// A page for this stream of a scan.
    Page(usize),
    /// A batch of hints, or a page of a pass over marked slices, of this shard of ours.
    Handoff(usize),
    /// Of this core's shards with that member's.
    Comparison,
}

/// What a peer has said.
#[derive(Debug)]
pub(crate) enum Heard {
    Written,
    Refused(Why),
    Got(Option<OwnedEntry>),
    Digest(Digest),
    Page {
        rows: Rows,
        resume: Option<Box<[u8]>>,
    },
    Same,
    Heads {
        heads: Vec<Head>,
        resume: Option<Box<[u8]>>,
    },
    /// The link ended first, or the answer made no sense: the outcome is unknown.
    Lost,
}

impl Peer {
    /// The link for a key: the one of its core, else any that is open, while the right one is dialled.
    pub(super) fn core_for(&mut self, hash: Option<KeyHash>) -> Option<usize> {
        let cores = self.links.len();
        if let Some(hash) = hash.filter(|_| self.shards > 0) {
            let shard = usize::from(hash.shard(self.shards));
            let core = shard * cores / usize::from(self.shards);
            let link = &mut self.links[core];
            if link.is_open() {
                return Some(core);
            }
            if link.phase == Phase::Idle(None) {
                link.phase = Phase::Idle(Some(Instant(0)));
            }
        }
        self.links.iter().position(Link::is_open)
    }
}

impl Link {
    pub(super) fn new(dial_at: Option<Instant>) -> Link {
        Link {
            phase: Phase::Idle(dial_at),
            out: Vec::new(),
            sent: 0,
            input: Vec::new(),
            blocked: false,
            requests: 0,
            failures: 0,
        }
    }

    pub(super) fn is_open(&self) -> bool {
        matches!(self.phase, Phase::Open { .. })
    }

    pub(super) fn unsent(&self) -> usize {
        self.out.len() - self.sent
    }
}

impl Phase {
    pub(super) fn token(self) -> Option<Token> {
        match self {
            Phase::Idle(_) => None,
            Phase::Greeting { token, .. } | Phase::Open { token, .. } => Some(token),
        }
    }
}

impl Heard {
    pub(super) fn of(message: Message<'_>) -> Heard {
        match message {
            Message::Written => Heard::Written,
            Message::Refused { why } => Heard::Refused(why),
            Message::Got { entry } => Heard::Got(entry.map(|entry| entry.to_owned())),
            Message::Digest { version, sum } => Heard::Digest(Digest { version, sum }),
            Message::Page { rows, resume } => Heard::Page {
                rows: rows.into_iter().collect(),
                resume: resume.map(Box::from),
            },
            Message::Same => Heard::Same,
            Message::Heads { heads, resume } => Heard::Heads {
                heads,
                resume: resume.map(Box::from),
            },
            _ => Heard::Lost,
        }
    }
}

/// What another end says instead of 101, for one line of the log.
pub(super) fn said_no(status: u16, body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    let line = text.lines().next().unwrap_or_default();
    let line: String = line.chars().filter(|c| !c.is_control()).take(300).collect();
    format!("it refuses us with {status}: {line}")
}
