//! Who is who: the identity of each member's data directory, kept in `MEMBERS`.
//!
//! ```text
//! {"format":1,"members":{"a:8081":"9f86d081884c7d659a2feaa0c55ad015","b:8081":"18c7.."}}\n
//! crc32:1a2b3c4d\n                                  see base/sealed.rs
//!
//!  handshake ─▶ judge ─┬─ as known ──────▶ welcome
//!                      ├─ never met ─────▶ welcome; core 0 tells the other cores and writes the file
//!                      └─ another one ───▶ refused: it counts as down, /health says mismatch
//! ```
//!
//! A member whose disk was wiped, or that was started on a wrong directory, has everything of a member but its data:
//! counted as a replica it would answer reads as if it had all that was ever written, and what it lacks would be
//! lost by the next ones that fail. So it is somebody else until an operator says that it shall take the place:
//! `-accept-member name` at the start of each node that knows the old one. Such a start first notes, on disk, that
//! the new one lacks everything this node has (`mod`), and the hand-off then sends it.
//!
//! Only what a member has said in answer to a dial of ours is learned: without the proof that comes later, anybody
//! could dial under a member's name and keep the real one out.
//!
//! Invariants: only core 0 writes the file. One identity has one name among the members; names that are no members
//! any more stay in the file and mean nothing.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::NodeError;
use super::barrier::tell_others;
use super::coordinate::Member;
use super::msg::Kind;
use super::peers::Peers;
use super::route::Router;
use crate::base::sealed::{self, Bad};
use crate::cluster::ring::Topology;
use crate::rt::Rt;

/// Name of the file in the data directory.
pub(super) const FILE: &str = "MEMBERS";
/// Newest form of it.
const FORMAT: u32 = 1;

/// The identities this node has met. Each core has its own, all equal but for the moment of a first meeting.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Known(BTreeMap<String, u128>);

#[derive(Serialize, Deserialize)]
struct Line {
    format: u32,
    members: BTreeMap<String, String>,
}

impl Known {
    /// Whether the member of this name may be the one with this identity; the error names the remedy.
    pub(crate) fn judge(
        &self,
        topology: &Topology,
        me: &str,
        name: &str,
        node: u128,
    ) -> Result<(), String> {
        match self.0.get(name) {
            Some(known) if *known == node => return Ok(()),
            Some(known) => {
                return Err(format!(
                    "{name} has a new or another data directory, {node:032x}; {me} knows it with {known:032x}; \
                     mend its -dir, or to take it in with what it has start {me} once with -accept-member {name}"
                ));
            }
            None => {}
        }
        let namesake = self.0.iter().find(|(other, known)| {
            **known == node && *other != name && topology.find(other).is_some()
        });
        match namesake {
            Some((other, _)) => Err(format!(
                "{name} and {other} have one data directory, {node:032x}: it was copied"
            )),
            None => Ok(()),
        }
    }

    /// Whether a member of this name was ever met.
    pub(crate) fn has_met(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// Keeps what was judged; false when it was known.
    pub(crate) fn learn(&mut self, name: &str, node: u128) -> bool {
        self.0.insert(name.to_owned(), node) != Some(node)
    }

    fn encode(&self) -> Vec<u8> {
        let members = self.0.iter();
        let line = Line {
            format: FORMAT,
            members: members
                .map(|(name, node)| (name.clone(), format!("{node:032x}")))
                .collect(),
        };
        sealed::encode(&line)
    }

    fn decode(bytes: &[u8]) -> Result<Known, Bad> {
        let line: Line = sealed::decode(bytes, FORMAT)?;
        let members = line.members.into_iter().map(|(name, node)| {
            let node = u128::from_str_radix(&node, 16).map_err(Bad::damaged)?;
            Ok((name, node))
        });
        members.collect::<Result<_, Bad>>().map(Known)
    }

    /// Reads the file; without one nobody was ever met.
    pub(super) async fn open(rt: &Rt, dir: &Path) -> Result<Known, NodeError> {
        let path = dir.join(FILE);
        let (why, kind) = match rt.read_whole(&path).await {
            Ok(bytes) => match Known::decode(&bytes) {
                Ok(known) => return Ok(known),
                Err(bad) => (bad.to_string(), None),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Known::default()),
            Err(error) => (error.to_string(), Some(error.kind())),
        };
        let why = format!("{}: {why}", path.display());
        Err(NodeError::File { why, kind })
    }

    /// As if these had never been met.
    pub(super) fn forget<'a>(&mut self, names: impl Iterator<Item = &'a str>) {
        for name in names {
            self.0.remove(name);
        }
    }
}

impl Peers {
    /// Whether a member of this name may have this identity.
    pub(super) fn judge(&self, name: &str, node: u128) -> Result<(), String> {
        let me = Member::own_name(&self.facts);
        self.known.judge(&self.facts.topology, me, name, node)
    }

    /// The member that was dialled says who it is.
    pub(super) fn meet(&mut self, name: &str, node: u128) -> Result<(), String> {
        self.judge(name, node)?;
        if self.known.learn(name, node) {
            self.met.push((name.to_owned(), node));
        }
        Ok(())
    }
}

impl Router {
    /// Passes on whom this core has met: from core 0 to the others and to the disk.
    pub(super) fn introduce(&mut self) {
        let (core, now) = (self.rt.core(), self.rt.now());
        let Some(member) = &mut self.member else {
            return;
        };
        let met = std::mem::take(&mut member.peers.met);
        if core != 0 {
            return;
        }
        if !met.is_empty() {
            member.members_file.want(now);
        }
        for (name, node) in met {
            tell_others(&self.rt, &mut self.port, || Kind::Met(name.clone(), node));
        }
        let known = &member.peers.known;
        if let Err(why) = member.members_file.turn(&self.rt, || known.encode()) {
            let line = format!("{why}; members just met may be forgotten");
            self.grumble.tell(&*self.log, now, FILE, &line);
        }
    }

    /// Core 0 has met a member; what it says stands.
    pub(super) fn met(&mut self, name: &str, node: u128) {
        if let Some(member) = &mut self.member {
            member.peers.known.learn(name, node);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::ring;

    fn topology(names: &[&str]) -> Topology {
        let member = |name: &&str| ring::Member {
            name: (*name).to_owned(),
            zone: String::new(),
        };
        Topology::new(names.iter().map(member).collect(), 3, 10).unwrap()
    }

    #[test]
    fn a_name_keeps_its_identity_and_an_identity_its_name() {
        let members = topology(&["a:1", "b:1", "c:1"]);
        let mut known = Known::default();
        let judge = |known: &Known, name: &str, node| known.judge(&members, "a:1", name, node);
        assert_eq!(judge(&known, "b:1", 2), Ok(()));
        assert!(known.learn("b:1", 2) && !known.learn("b:1", 2));
        assert_eq!(judge(&known, "b:1", 2), Ok(()));
        assert_eq!(judge(&known, "c:1", 3), Ok(()));
        let wiped = judge(&known, "b:1", 9).unwrap_err();
        assert!(
            wiped.contains("start a:1 once with -accept-member b:1"),
            "{wiped}"
        );
        let copied = judge(&known, "c:1", 2).unwrap_err();
        assert!(
            copied.contains("c:1 and b:1 have one data directory"),
            "{copied}"
        );
        // A member that was given another name is no copy of itself.
        let renamed = topology(&["a:1", "b2:1", "c:1"]);
        assert_eq!(known.judge(&renamed, "a:1", "b2:1", 2), Ok(()));
        known.forget(["b:1"].into_iter());
        assert_eq!(judge(&known, "b:1", 9), Ok(()));
    }

    #[test]
    fn the_bytes_are_golden_and_read_back() {
        let mut known = Known::default();
        known.learn("b:8081", 0x9f86_d081_884c_7d65_9a2f_eaa0_c55a_d015);
        known.learn("a:8081", 1);
        let bytes = known.encode();
        assert_eq!(
            String::from_utf8_lossy(&bytes),
            "{\"format\":1,\"members\":{\"a:8081\":\"00000000000000000000000000000001\",\
             \"b:8081\":\"9f86d081884c7d659a2feaa0c55ad015\"}}\ncrc32:8485237a\n"
        );
        assert_eq!(Known::decode(&bytes), Ok(known));
        assert!(Known::decode(&bytes[1..]).is_err());
    }
}
