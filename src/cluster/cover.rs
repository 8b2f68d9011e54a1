//! Pure. Which node reads which slices for one scan.
//!
//! ```text
//!  slice          0        1        2        3           five members, three copies, asked at a
//!  replicas     a b c    b c d    c d e    e a b
//!  needed 1     a          c      c          a           a reads what it holds, c alone the rest
//!  needed 2     a b      b c      c   e    e a           d is Suspect: e reads in its place
//! ```
//!
//! Invariants: every slice is read by exactly `needed` distinct replicas of it, none of them Down; a Suspect
//! reads a slice only where the others are too few. A slice that cannot be read so often fails the whole cover:
//! a scan never leaves a part out silently.
//!
//! Few nodes win over equal load: each node of a cover costs a stream per shard of it, and a scan is as slow as
//! its slowest stream. Finding the fewest is set cover, so this is the greedy answer (never worse than the best
//! by more than a logarithm). Rejected: each slice to the least loaded replica, which makes every scan wait for
//! every node.
//!
//! The result depends on the arguments alone; a driver may keep it until the ring or a state changes. What it
//! does not do: split a node by shards, or mend a cover when a stream dies (cover again, with that node Down).

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use super::PeerState;
use crate::base::member::NodeId;
use crate::base::slices::{SLICES, Slice, Slices};

/// What one node reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stream {
    pub node: NodeId,
    pub slices: Slices,
}

/// A slice has too few replicas that are not Down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoCover {
    pub slice: Slice,
    pub alive: usize,
    pub needed: usize,
}

/// Streams in order of their nodes. `replicas` lists distinct members; `state` is asked about `me` too.
pub fn cover<'a>(
    replicas: impl Fn(Slice) -> &'a [NodeId],
    state: impl Fn(NodeId) -> PeerState,
    me: NodeId,
    needed: usize,
) -> Result<Vec<Stream>, NoCover> {
    let rank = |node| match state(node) {
        PeerState::Down => None,
        _ if node == me => Some(Rank::Here),
        PeerState::Up => Some(Rank::Up),
        PeerState::Suspect => Some(Rank::Suspect),
    };
    for slice in Slice::all() {
        let alive = replicas(slice)
            .iter()
            .filter(|node| rank(**node).is_some())
            .count();
        if alive < needed {
            return Err(NoCover {
                slice,
                alive,
                needed,
            });
        }
    }
    let mut plan = Plan {
        missing: vec![needed; SLICES],
        readers: BTreeMap::new(),
    };
    for wanted in [Rank::Here, Rank::Up, Rank::Suspect] {
        plan.fill(|slice| {
            let nodes = replicas(slice).iter().copied();
            nodes.filter(|node| rank(*node) == Some(wanted))
        });
    }
    let streams = plan.readers.into_iter();
    Ok(streams
        .map(|(node, reader)| Stream {
            node,
            slices: reader.slices,
        })
        .collect())
}

/// In this order nodes are used up, slice by slice.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Rank {
    Here,
    Up,
    Suspect,
}

struct Plan {
    /// Per slice, readers still to be found.
    missing: Vec<usize>,
    readers: BTreeMap<NodeId, Reader>,
}

struct Reader {
    slices: Slices,
    /// Slices in it, which a bitmap would have to count.
    load: usize,
}

impl Plan {
    /// Gives each slice as many of its candidates as it misses, or all there are. Candidates of one call are
    /// of one rank, so no node comes up in two calls.
    fn fill<I: Iterator<Item = NodeId>>(&mut self, candidates: impl Fn(Slice) -> I) {
        let demand: Vec<usize> = Slice::all()
            .map(|slice| self.missing[slice.index()].min(candidates(slice).count()))
            .collect();
        let chosen = choose(&demand, &candidates);
        let options = |slice| candidates(slice).filter(|node| chosen.contains(node));
        let mut order: Vec<Slice> = Slice::all()
            .filter(|slice| demand[slice.index()] > 0)
            .collect();
        // Slices without a choice go first, so that the others see what load is already there.
        order.sort_by_key(|slice| options(*slice).count() - demand[slice.index()]);
        let mut nodes = Vec::new();
        for slice in order {
            nodes.clear();
            nodes.extend(options(slice));
            nodes.sort_by_key(|node| (self.load(*node), *node));
            for node in &nodes[..demand[slice.index()]] {
                self.assign(slice, *node);
            }
        }
    }

    fn load(&self, node: NodeId) -> usize {
        self.readers.get(&node).map_or(0, |reader| reader.load)
    }

    fn assign(&mut self, slice: Slice, node: NodeId) {
        let reader = self.readers.entry(node).or_insert(Reader {
            slices: Slices::NONE,
            load: 0,
        });
        reader.slices.insert(slice);
        reader.load += 1;
        self.missing[slice.index()] -= 1;
    }
}

/// Few nodes among which each slice finds `demand` of its candidates: again and again the one that helps the
/// most slices, the smaller on a tie. Ends because no slice demands more candidates than it has.
fn choose<I: Iterator<Item = NodeId>>(
    demand: &[usize],
    candidates: &impl Fn(Slice) -> I,
) -> BTreeSet<NodeId> {
    let mut unmet = demand.to_vec();
    let mut chosen = BTreeSet::new();
    loop {
        let mut gains: BTreeMap<NodeId, usize> = BTreeMap::new();
        for slice in Slice::all().filter(|slice| unmet[slice.index()] > 0) {
            for node in candidates(slice).filter(|node| !chosen.contains(node)) {
                *gains.entry(node).or_default() += 1;
            }
        }
        let best = gains
            .into_iter()
            .max_by_key(|(node, gain)| (*gain, Reverse(*node)));
        let Some((best, _)) = best else {
            return chosen;
        };
        chosen.insert(best);
        for slice in Slice::all() {
            if candidates(slice).any(|node| node == best) {
                let unmet = &mut unmet[slice.index()];
                *unmet = unmet.saturating_sub(1);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ME: NodeId = NodeId(0);

    /// The cover of a ring that repeats the given replica lists.
    fn cover_of(
        ring: &[&[u16]],
        state: impl Fn(NodeId) -> PeerState,
        needed: usize,
    ) -> Result<Vec<Stream>, NoCover> {
        let ring: Vec<Vec<NodeId>> = ring
            .iter()
            .map(|nodes| nodes.iter().copied().map(NodeId).collect())
            .collect();
        cover(|slice| &ring[slice.index() % ring.len()], state, ME, needed)
    }

    fn all_up(_: NodeId) -> PeerState {
        PeerState::Up
    }

    fn loads(streams: &[Stream]) -> Vec<(u16, usize)> {
        streams
            .iter()
            .map(|stream| (stream.node.0, stream.slices.len()))
            .collect()
    }

    #[test]
    fn a_node_that_holds_everything_reads_alone() {
        let streams = cover_of(&[&[2, 0, 1], &[0, 1, 2]], all_up, 1).expect("all are up");
        let slices = Slices::ALL;
        assert_eq!(streams, [Stream { node: ME, slices }]);
    }

    /// The picture at the top of this file, in which d is Suspect for the second row.
    #[test]
    fn few_nodes_read_and_suspects_only_where_they_must() {
        let ring: [&[u16]; 4] = [&[0, 1, 2], &[1, 2, 3], &[2, 3, 4], &[4, 0, 1]];
        let one = cover_of(&ring, all_up, 1).expect("all are up");
        assert_eq!(loads(&one), [(0, 2048), (2, 2048)]);
        let suspect = |node| match node {
            NodeId(3) => PeerState::Suspect,
            _ => PeerState::Up,
        };
        let two = cover_of(&ring, suspect, 2).expect("no one is down");
        assert_eq!(loads(&two), [(0, 2048), (1, 2048), (2, 2048), (4, 2048)]);
        let three = cover_of(&ring, suspect, 3).expect("no one is down");
        assert_eq!(three.len(), 5, "every replica of every slice");
    }

    /// Half of the slices leave no choice and all lie at node 1: the other half goes to node 2.
    #[test]
    fn load_is_even_among_the_nodes_that_read_anyway() {
        let ring: [&[u16]; 8] = [&[1, 2], &[2, 1], &[1, 2], &[2], &[1], &[1], &[1], &[1]];
        let streams = cover_of(&ring, all_up, 1).expect("all are up");
        assert_eq!(loads(&streams), [(1, 2048), (2, 2048)]);
    }

    #[test]
    fn a_slice_out_of_reach_fails_the_cover_by_name() {
        let down = |node| match node {
            NodeId(1) => PeerState::Down,
            _ => PeerState::Suspect,
        };
        assert_eq!(
            cover_of(&[&[0, 2], &[0, 1]], down, 2),
            Err(NoCover {
                slice: Slice::all().nth(1).expect("the second slice"),
                alive: 1,
                needed: 2
            })
        );
    }

    /// Random rings and states: every slice exactly `needed` times, by its replicas, never by one that is Down,
    /// here first, Suspects last; and no cover only where some slice has too few.
    #[test]
    fn every_slice_is_read_exactly_as_often_as_needed() {
        let (mut covers, mut failures) = (0, 0);
        for seed in 0..150 {
            let mut rng = fastrand::Rng::with_seed(seed);
            let members = rng.u16(1..9);
            let copies = rng.usize(1..=usize::from(members).min(5));
            let needed = rng.usize(1..=copies);
            let mut nodes: Vec<NodeId> = (0..members).map(NodeId).collect();
            let ring: Vec<Vec<NodeId>> = (0..SLICES)
                .map(|_| {
                    rng.shuffle(&mut nodes);
                    nodes[..copies].to_vec()
                })
                .collect();
            let states: Vec<PeerState> = (0..members)
                .map(|_| match rng.u8(0..8) {
                    0 => PeerState::Down,
                    1 | 2 => PeerState::Suspect,
                    _ => PeerState::Up,
                })
                .collect();
            let state = |node: NodeId| states[node.index()];
            let answer = cover(|slice| &ring[slice.index()], state, ME, needed);
            let enough = |slice: &Vec<NodeId>| {
                let alive = slice.iter().filter(|n| state(**n) != PeerState::Down);
                alive.count() >= needed
            };
            assert_eq!(answer.is_ok(), ring.iter().all(enough), "seed {seed}");
            let Ok(streams) = answer else {
                failures += 1;
                continue;
            };
            covers += 1;
            assert!(streams.is_sorted_by_key(|stream| stream.node));
            for slice in Slice::all() {
                let readers: Vec<NodeId> = streams
                    .iter()
                    .filter(|stream| stream.slices.contains(slice))
                    .map(|stream| stream.node)
                    .collect();
                let replicas = &ring[slice.index()];
                let up_in = |nodes: &[NodeId]| {
                    nodes
                        .iter()
                        .filter(|node| state(**node) == PeerState::Up && **node != ME)
                        .count()
                };
                let here = usize::from(replicas.contains(&ME) && state(ME) != PeerState::Down);
                assert_eq!(readers.len(), needed, "seed {seed} {slice:?}");
                assert!(readers.iter().all(|node| replicas.contains(node)));
                assert!(readers.iter().all(|n| state(*n) != PeerState::Down));
                assert_eq!(readers.contains(&ME), here == 1);
                assert_eq!(up_in(&readers), up_in(replicas).min(needed - here));
            }
        }
        assert!(covers > 20 && failures > 20, "{covers} {failures}");
    }
}
