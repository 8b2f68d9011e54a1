//! Pure. Who owns what: from the member list alone to the members that keep each slice.
//!
//! ```text
//! token(name, i)  = xxh3_64(name ‖ 0x00 ‖ le32(i))          i < virtual nodes, smaller name first on a tie
//!
//!        slice s          slice s+1                          clockwise: from the slice's smallest token
//!   ...|---b----------a--|-----b----c---|...                 slice s   -> b a c
//!                                                            slice s+1 -> b c a
//! ```
//!
//! A slice is kept by the first `copies` distinct members met clockwise, in two passes: the first takes a
//! member only if its zone has none yet, the second fills up in ring order. Members without a zone count as
//! one zone: nothing says that they lie apart. A zone of one member gets a copy of every slice, whatever that
//! does to its load; see [`Ring::load`].
//!
//! Invariants: a ring depends on nothing but the topology, and a topology not on the order its members were
//! given in, so members that agree on [`Topology::digest`] agree on every slice without a conversation. A
//! member that joins takes slices, each from exactly one member, and moves nothing else.
//!
//! The order inside a list of replicas is a tie-break and no rank: there is no primary. Placing whole slices
//! instead of tokens costs no balance: chance decides where tokens lie, and that is the coarser of the two.
//!
//! What it does not do: change while the process runs, or know who is alive. Liveness never moves ownership.

use std::collections::BTreeSet;

use xxhash_rust::xxh3::xxh3_64;

use crate::base::limits::{MEMBERS_MAX, TOPOLOGY_BYTES_MAX};
use crate::base::member::NodeId;
use crate::base::slices::{SLICES, Slice};

/// Most tokens of one member.
pub const VIRTUAL_NODES_MAX: u32 = 1024;
/// In front of the fields when they are digested. It names the way the ring is computed: whoever changes
/// that changes this, or old and new programs would believe that they agree.
const CANON: &str = "ring=1;slices=4096;hash=xxh3;";

const _: () = assert!(SLICES == 4096, "CANON says so");
// Members are told apart by 16 bits.
const _: () = assert!(MEMBERS_MAX <= u16::MAX as usize);

/// One member as the ring sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Ring name: chosen once, it decides where the tokens lie. The address may change, this may not.
    pub name: String,
    /// What fails together: a rack, a room. Empty when nobody said.
    pub zone: String,
}

/// Everything the ring depends on. All members must hold equal ones. One per process, copied to each core.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topology {
    /// Sorted by name, without duplicates; the place is the [`NodeId`].
    members: Vec<Member>,
    copies: usize,
    virtual_nodes: u32,
}

impl Topology {
    /// Sorts the members and refuses what no ring can be made of; the error is a sentence for people. Copies
    /// are capped at the number of members: a lone node serves with one.
    pub fn new(
        mut members: Vec<Member>,
        copies: usize,
        virtual_nodes: u32,
    ) -> Result<Topology, String> {
        if members.is_empty() || members.len() > MEMBERS_MAX {
            return Err(format!(
                "a cluster has 1 to {MEMBERS_MAX} members, not {}",
                members.len()
            ));
        }
        if copies == 0 {
            return Err("a key needs at least 1 copy".to_string());
        }
        if virtual_nodes == 0 || virtual_nodes > VIRTUAL_NODES_MAX {
            return Err(format!(
                "a member has 1 to {VIRTUAL_NODES_MAX} virtual nodes, not {virtual_nodes}"
            ));
        }
        for member in &members {
            check_word("member name", &member.name)?;
            check_word("zone", &member.zone)?;
            if member.name.is_empty() {
                return Err("a member has an empty name".to_string());
            }
        }
        members.sort_by(|a, b| a.name.cmp(&b.name));
        if let Some(pair) = members.windows(2).find(|pair| pair[0].name == pair[1].name) {
            return Err(format!("member {} is listed twice", pair[0].name));
        }
        let topology = Topology {
            copies: copies.min(members.len()),
            members,
            virtual_nodes,
        };
        let bytes = topology.fields().len();
        if bytes > TOPOLOGY_BYTES_MAX {
            return Err(format!(
                "names and zones of the members come to {bytes} bytes, more than {TOPOLOGY_BYTES_MAX}"
            ));
        }
        Ok(topology)
    }

    /// Sorted by name.
    #[must_use]
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    #[must_use]
    pub fn find(&self, name: &str) -> Option<NodeId> {
        self.members
            .binary_search_by(|member| member.name.as_str().cmp(name))
            .ok()
            .map(node)
    }

    /// Members that keep each slice: N, at most the number of members.
    #[must_use]
    pub fn copies(&self) -> usize {
        self.copies
    }

    /// Tokens of each member.
    #[must_use]
    pub fn virtual_nodes(&self) -> u32 {
        self.virtual_nodes
    }

    /// Equal topologies have equal digests, others differ but for a collision of 64 bits. Peers compare it
    /// before they exchange any data.
    #[must_use]
    pub fn digest(&self) -> u64 {
        xxh3_64(format!("{CANON}{}", self.fields()).as_bytes())
    }

    /// The same for people: `members=a,b;zones=east,;n=2;vnodes=10`, zones in the order of the members.
    #[must_use]
    pub fn fields(&self) -> String {
        let names: Vec<&str> = self.members.iter().map(|m| m.name.as_str()).collect();
        let zones: Vec<&str> = self.members.iter().map(|m| m.zone.as_str()).collect();
        format!(
            "members={};zones={};n={};vnodes={}",
            names.join(","),
            zones.join(","),
            self.copies,
            self.virtual_nodes
        )
    }
}

/// Names and zones go into [`Topology::fields`] and a header field unescaped, so they may not hold what
/// separates there. Host names and addresses, IPv6 in brackets included, never do.
fn check_word(what: &str, word: &str) -> Result<(), String> {
    match word
        .chars()
        .find(|c| !c.is_ascii_graphic() || ",;=".contains(*c))
    {
        None => Ok(()),
        Some(bad) => Err(format!(
            "{what} {word:?} holds {bad:?}; allowed are visible ASCII characters except , ; and ="
        )),
    }
}

fn node(index: usize) -> NodeId {
    NodeId(u16::try_from(index).expect("a topology holds at most MEMBERS_MAX members"))
}

/// The replicas of every slice: 4096 lists of `copies` members, 24 KiB for three copies. Computed once at
/// the start; each core holds its own and only reads it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ring {
    replicas: Vec<NodeId>,
    copies: usize,
    members: usize,
}

/// How evenly the slices are spread.
#[derive(Clone, Debug, PartialEq)]
pub struct Load {
    /// Slices each member keeps a copy of, by [`NodeId`].
    pub slices: Vec<usize>,
    /// The fullest member over the average: 1.0 is even, 1.4 means 40 % more data than planned for.
    pub max_over_mean: f64,
}

impl Ring {
    #[must_use]
    pub fn new(topology: &Topology) -> Ring {
        Ring::place(topology, tokens(topology))
    }

    /// At most members × tokens per slice, and as a rule a few dozen steps.
    fn place(topology: &Topology, mut tokens: Vec<(u64, NodeId)>) -> Ring {
        // On equal tokens the smaller member, that is the smaller name, comes first.
        tokens.sort_unstable();
        let zones: BTreeSet<&str> = topology.members.iter().map(|m| m.zone.as_str()).collect();
        let zone_of: Vec<usize> = topology
            .members
            .iter()
            .map(|member| zones.range(..member.zone.as_str()).count())
            .collect();
        let walk = Walk {
            zone_of,
            zones: zones.len(),
            copies: topology.copies,
        };
        let mut replicas = Vec::with_capacity(SLICES * topology.copies);
        for slice in Slice::all() {
            let first = tokens.partition_point(|(token, _)| *token < slice.first_token());
            let clockwise = tokens[first..].iter().chain(&tokens[..first]);
            replicas.extend(walk.choose(clockwise.map(|(_, node)| *node)));
        }
        assert_eq!(
            replicas.len(),
            SLICES * topology.copies,
            "every slice has all its copies"
        );
        Ring {
            replicas,
            copies: topology.copies,
            members: topology.members.len(),
        }
    }

    /// The members that keep a slice, all different. Their order means nothing but a tie-break.
    #[must_use]
    pub fn replicas(&self, slice: Slice) -> &[NodeId] {
        let from = slice.index() * self.copies;
        &self.replicas[from..from + self.copies]
    }

    #[must_use]
    pub fn is_replica(&self, slice: Slice, node: NodeId) -> bool {
        self.replicas(slice).contains(&node)
    }

    #[must_use]
    pub fn load(&self) -> Load {
        let mut slices = vec![0; self.members];
        for node in &self.replicas {
            slices[node.index()] += 1;
        }
        let fullest = slices.iter().max().copied().unwrap_or(0);
        let mean = self.replicas.len() as f64 / self.members as f64;
        Load {
            slices,
            max_over_mean: fullest as f64 / mean,
        }
    }
}

/// Every member's tokens, unsorted.
fn tokens(topology: &Topology) -> Vec<(u64, NodeId)> {
    let mut tokens = Vec::with_capacity(topology.members.len() * topology.virtual_nodes as usize);
    for (index, member) in topology.members.iter().enumerate() {
        for i in 0..topology.virtual_nodes {
            tokens.push((token(&member.name, i), node(index)));
        }
    }
    tokens
}

/// The zero byte keeps `a` + `11…` and `a1` + `1…` apart; names cannot hold one.
fn token(name: &str, i: u32) -> u64 {
    let mut bytes = Vec::with_capacity(name.len() + 5);
    bytes.extend_from_slice(name.as_bytes());
    bytes.push(0);
    bytes.extend_from_slice(&i.to_le_bytes());
    xxh3_64(&bytes)
}

/// The choice for one slice.
struct Walk {
    /// Zone of each member, counted from 0.
    zone_of: Vec<usize>,
    zones: usize,
    copies: usize,
}

impl Walk {
    /// Both passes in one walk: `spread` is what the first takes, `rest` what the second would find, in its
    /// order. The walk may end once no zone can be added and the rest suffices.
    fn choose(&self, clockwise: impl Iterator<Item = NodeId>) -> Vec<NodeId> {
        let mut met = vec![false; self.zone_of.len()];
        let mut zone_used = vec![false; self.zones];
        let mut spread = Vec::with_capacity(self.copies);
        let mut rest = Vec::new();
        for node in clockwise {
            if spread.len() == self.copies.min(self.zones)
                && spread.len() + rest.len() >= self.copies
            {
                break;
            }
            if std::mem::replace(&mut met[node.index()], true) {
                continue;
            }
            let zone = &mut zone_used[self.zone_of[node.index()]];
            if std::mem::replace(zone, true) {
                rest.push(node);
            } else {
                spread.push(node);
            }
        }
        spread.extend(rest);
        spread.truncate(self.copies);
        spread
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOLDEN: &str = include_str!("../../tests/golden/ring/ring.txt");

    /// `a b/east` are a member without and one with a zone.
    fn members(text: &str) -> Vec<Member> {
        text.split_whitespace()
            .map(|word| {
                let (name, zone) = word.split_once('/').unwrap_or((word, ""));
                Member {
                    name: name.to_string(),
                    zone: zone.to_string(),
                }
            })
            .collect()
    }

    fn topology(text: &str, copies: usize, virtual_nodes: u32) -> Topology {
        Topology::new(members(text), copies, virtual_nodes).expect("a good topology")
    }

    /// `count` members `<stem>0:8081`, … spread over `zones` zones, 0 for none.
    fn many(stem: &str, count: usize, zones: usize) -> String {
        (0..count)
            .map(|i| match zones {
                0 => format!("{stem}{i}:8081 "),
                _ => format!("{stem}{i}:8081/z{} ", i % zones),
            })
            .collect()
    }

    fn names<'a>(topology: &'a Topology, nodes: &[NodeId]) -> Vec<&'a str> {
        nodes
            .iter()
            .map(|node| topology.members()[node.index()].name.as_str())
            .collect()
    }

    /// The value of that name in [`Topology::fields`].
    fn value<'a>(fields: &'a str, name: &str) -> &'a str {
        let mut pairs = fields.split(';').filter_map(|pair| pair.split_once('='));
        pairs
            .find(|(found, _)| *found == name)
            .expect("four fields")
            .1
    }

    /// The topology a line of [`Topology::fields`] describes, its members given in reverse.
    fn of_fields(fields: &str) -> Topology {
        let value = |name| value(fields, name);
        let mut members: Vec<Member> = value("members")
            .split(',')
            .zip(value("zones").split(','))
            .map(|(name, zone)| Member {
                name: name.to_string(),
                zone: zone.to_string(),
            })
            .collect();
        members.reverse();
        Topology::new(
            members,
            value("n").parse().expect("a number"),
            value("vnodes").parse().expect("a number"),
        )
        .expect("a good topology")
    }

    /// Made with python-xxhash and two literal passes, not with this code.
    #[test]
    fn tokens_digests_and_lists_are_the_golden_ones() {
        let mut now = topology("x", 1, 1);
        let mut ring = Ring::new(&now);
        let mut seen = [0; 5];
        for line in GOLDEN.lines().filter(|line| !line.starts_with('#')) {
            let words: Vec<&str> = line.split(' ').collect();
            let hex = |word: &str| u64::from_str_radix(word, 16).expect("hex digits");
            let kind = match words[0] {
                "token" => {
                    let i = words[2].parse().expect("a number");
                    assert_eq!(token(words[1], i), hex(words[3]), "{line}");
                    0
                }
                "topology" => {
                    now = of_fields(words[1]);
                    ring = Ring::new(&now);
                    assert_eq!(now.fields(), words[1]);
                    1
                }
                "digest" => {
                    assert_eq!(now.digest(), hex(words[1]), "{}", now.fields());
                    2
                }
                "slice" => {
                    let index: usize = words[1].parse().expect("a number");
                    let slice = Slice::all().nth(index).expect("a slice");
                    assert_eq!(names(&now, ring.replicas(slice)), words[2..], "{line}");
                    3
                }
                "table" => {
                    let bytes: Vec<u8> = ring
                        .replicas
                        .iter()
                        .flat_map(|node| node.0.to_le_bytes())
                        .collect();
                    assert_eq!(xxh3_64(&bytes), hex(words[1]), "{}", now.fields());
                    4
                }
                _ => panic!("{line}"),
            };
            seen[kind] += 1;
        }
        assert!(
            seen[0] >= 10 && seen[1..].iter().all(|&n| n >= 5),
            "{seen:?}"
        );
    }

    #[test]
    fn equal_tokens_go_to_the_smaller_name_and_the_walk_wraps() {
        let topology = topology("c b a", 2, 1);
        let [a, b, c] = ["a", "b", "c"].map(|name| topology.find(name).expect("a member"));
        let ring = Ring::place(&topology, vec![(7 << 52, c), (7 << 52, a), (1 << 52, b)]);
        let at = |slice: usize| ring.replicas(Slice::all().nth(slice).expect("a slice"));
        assert_eq!(
            (at(0), at(1)),
            (&[b, a][..], &[b, a][..]),
            "up to its token"
        );
        assert_eq!((at(2), at(7)), (&[a, c][..], &[a, c][..]));
        assert_eq!(
            (at(8), at(4095)),
            (&[b, a][..], &[b, a][..]),
            "past the end"
        );
    }

    #[test]
    fn what_no_ring_can_be_made_of_is_refused_by_name() {
        let crowd = many("n", MEMBERS_MAX + 1, 0);
        let wordy = many(&"n".repeat(80), MEMBERS_MAX, 0);
        for (text, copies, virtual_nodes, why) in [
            ("", 3, 10, "1 to 256 members, not 0"),
            (&crowd, 3, 10, "1 to 256 members, not 257"),
            ("a b a", 3, 10, "member a is listed twice"),
            ("a b", 0, 10, "at least 1 copy"),
            ("a b", 3, 0, "1 to 1024 virtual nodes, not 0"),
            ("a b", 3, 1025, "1 to 1024 virtual nodes, not 1025"),
            ("a b;c", 3, 10, "member name \"b;c\" holds ';'"),
            ("a b/x=y", 3, 10, "zone \"x=y\" holds '='"),
            ("a,b", 3, 10, "holds ','"),
            ("a \u{e9}", 3, 10, "holds '\u{e9}'"),
            ("a /east", 3, 10, "empty name"),
            (&wordy, 3, 10, "more than 16384"),
        ] {
            let refused = Topology::new(members(text), copies, virtual_nodes);
            let error = refused.expect_err(why);
            assert!(error.contains(why), "{error}");
        }
        let most = topology(
            &many("node-with-a-long-name.example", MEMBERS_MAX, 3),
            3,
            10,
        );
        assert_eq!(most.members().len(), MEMBERS_MAX);
        assert_eq!(topology("[::1]:8081 a:1/rack-2", 3, 1024).copies(), 2);
    }

    #[test]
    fn members_are_found_by_name_in_sorted_order() {
        let topology = topology("b:2 c:3 a:10 a:1", 3, 10);
        let nodes: Vec<NodeId> = (0..4).map(NodeId).collect();
        assert_eq!(names(&topology, &nodes), ["a:1", "a:10", "b:2", "c:3"]);
        assert_eq!(topology.find("a:10"), Some(NodeId(1)));
        assert_eq!(topology.find("a"), None);
        assert_eq!(topology.virtual_nodes(), 10);
    }

    #[test]
    fn the_order_of_the_input_changes_nothing_and_every_field_changes_the_digest() {
        let plain = topology("a b c/east d e", 3, 16);
        let mut shuffled = members("a b c/east d e");
        fastrand::Rng::with_seed(7).shuffle(&mut shuffled);
        assert_ne!(shuffled, plain.members(), "the shuffle shuffled");
        let other = Topology::new(shuffled, 3, 16).expect("a good topology");
        assert_eq!(other.digest(), plain.digest());
        assert_eq!(Ring::new(&other), Ring::new(&plain));
        for (changed, field) in [
            (topology("a b c/east d f", 3, 16), "members"),
            (topology("a b/east c d e", 3, 16), "zones"),
            (topology("a b c/east d e", 2, 16), "n"),
            (topology("a b c/east d e", 3, 17), "vnodes"),
        ] {
            assert_ne!(changed.digest(), plain.digest(), "{field}");
            let value = |topology: &Topology| value(&topology.fields(), field).to_owned();
            assert_ne!(value(&changed), value(&plain), "{field}");
        }
    }

    #[test]
    fn every_slice_has_its_copies_once_each_and_all_members_when_they_are_few() {
        for (count, zones, copies) in [
            (1, 0, 3),
            (3, 0, 3),
            (3, 2, 3),
            (5, 0, 3),
            (9, 4, 5),
            (6, 3, 1),
        ] {
            let topology = topology(&many("n", count, zones), copies, 10);
            let ring = Ring::new(&topology);
            for slice in Slice::all() {
                let replicas = ring.replicas(slice);
                let distinct: BTreeSet<NodeId> = replicas.iter().copied().collect();
                assert_eq!(distinct.len(), copies.min(count));
                assert_eq!(replicas.len(), distinct.len());
                for node in (0..count).map(node) {
                    let listed = distinct.contains(&node);
                    assert_eq!(ring.is_replica(slice, node), listed || copies >= count);
                }
            }
        }
    }

    #[test]
    fn copies_lie_in_as_many_zones_as_there_are() {
        for (text, copies) in [
            (many("n", 9, 3), 3),
            (many("n", 9, 2), 3),
            (many("n", 12, 5), 3),
            ("a/x b/x c/x d/x e/x f/y".to_string(), 2),
            ("a/x b/x c/x d e".to_string(), 3),
        ] {
            let topology = topology(&text, copies, 10);
            let ring = Ring::new(&topology);
            let zone = |node: &NodeId| topology.members()[node.index()].zone.as_str();
            let all: BTreeSet<&str> = topology.members().iter().map(|m| m.zone.as_str()).collect();
            for slice in Slice::all() {
                let used: BTreeSet<&str> = ring.replicas(slice).iter().map(zone).collect();
                assert_eq!(used.len(), copies.min(all.len()), "{text}");
            }
        }
    }

    /// Also what a member that leaves changes, read backwards.
    #[test]
    fn a_member_that_joins_takes_slices_and_moves_nothing_else() {
        for (count, zones, virtual_nodes) in
            [(3, 0, 10), (5, 0, 128), (8, 3, 10), (6, 2, 16), (9, 4, 64)]
        {
            let before = topology(&many("n", count, zones), 3, virtual_nodes);
            let zone = if zones == 0 { "" } else { "/z1" };
            let joined = format!("{} m:8081{zone}", many("n", count, zones));
            let after = topology(&joined, 3, virtual_nodes);
            let new = after.find("m:8081").expect("it joined");
            let (old_ring, new_ring) = (Ring::new(&before), Ring::new(&after));
            let mut gained = 0;
            for slice in Slice::all() {
                let old = names(&before, old_ring.replicas(slice));
                let now = names(&after, new_ring.replicas(slice));
                if !new_ring.is_replica(slice, new) {
                    assert_eq!(old, now, "not gained, so not touched");
                    continue;
                }
                gained += 1;
                let lost = old.iter().filter(|name| !now.contains(name)).count();
                assert_eq!(lost, 1, "{old:?} -> {now:?}");
            }
            assert!(gained > 0 && gained < SLICES, "{gained}");
            assert_eq!(gained, new_ring.load().slices[new.index()]);
        }
    }

    /// Loose bounds around a simulation with other names: the average over several clusters of the same size.
    #[test]
    fn load_is_as_uneven_as_simulated() {
        for (count, virtual_nodes, simulated) in [
            (3, 10, 1.0),
            (5, 10, 1.23),
            (5, 128, 1.06),
            (10, 10, 1.29),
            (10, 128, 1.08),
            (30, 10, 1.42),
            (30, 128, 1.11),
        ] {
            let clusters = ["node", "10.0.0.", "kv-", "localhost:80", "s", "host"];
            let sum: f64 = clusters
                .iter()
                .map(|stem| {
                    let topology = topology(&many(stem, count, 0), 3, virtual_nodes);
                    let load = Ring::new(&topology).load();
                    assert_eq!(load.slices.iter().sum::<usize>(), SLICES * 3);
                    load.max_over_mean
                })
                .sum();
            let over = sum / clusters.len() as f64 - 1.0;
            let expected = simulated - 1.0;
            assert!(
                (expected * 0.7..=expected * 1.3).contains(&over),
                "{count} members, {virtual_nodes} tokens: {over:.3} over the mean, simulated {expected:.3}"
            );
        }
    }
}
