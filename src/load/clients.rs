//! The clients of `kvstore verify` at work: threads that ask, and afterwards one that reads every copy and clears up.
//!
//! A node that does not answer is left for another one; what was asked of it stays open in the history.

use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use super::answer::Reply;
use super::history::{Act, How, Record};
use super::line::{Line, Trouble};
use super::verify::{Ask, Client, Plan, written};
use crate::base::limits::VERIFY_RECORDS_MAX;
use crate::base::version::Version;
use crate::http::client::request;
use crate::http::request::Method;
use crate::rt::plain::{Clock, threads};
use crate::rt::stop::Stop;

/// For an answer: longer than a node waits for its peers, so that its word is heard.
const PATIENCE: Duration = Duration::from_secs(5);
/// Between two requests of a client: a cluster is to be watched, not to be filled.
const PACE: Duration = Duration::from_millis(3);
/// After a request without an answer.
const REST: Duration = Duration::from_millis(50);
/// Between two looks at copies that differ.
const LOOK: Duration = Duration::from_millis(100);

/// A node of the cluster.
#[derive(Clone, Debug)]
pub struct Node {
    /// As typed.
    pub host: String,
    pub address: SocketAddr,
}

/// What the clients have seen.
#[derive(Debug, Default)]
pub struct Watched {
    pub history: Vec<Record>,
    /// Reads without an answer or with one that tells of a failure, and whatever could not be sent.
    pub unanswered: u64,
    /// Answers that no server may give: the first ones.
    pub wrong: Vec<String>,
    /// It ended early: so many observations are all that is kept.
    pub full: bool,
}

/// How the copies are when nobody writes any more.
#[derive(Debug, Default)]
pub struct Settled {
    /// Keys whose copies still differ.
    pub unequal: usize,
    /// Nodes that did not answer for some key, by their place.
    pub silent: BTreeSet<usize>,
    /// Somebody was tired of waiting: whether the copies become equal is unknown.
    pub interrupted: bool,
    pub took: Duration,
}

enum Told {
    Observed(Vec<Record>),
    Unanswered,
    Wrong(String),
}

/// More than anybody keeps.
const REPLICAS_MAX: u16 = 64;

/// Wrong answers that are kept.
const WRONG_MAX: usize = 5;

/// Lets the clients work until the time is over or `stop` is raised.
#[must_use]
pub fn work(plan: &Plan, nodes: &[Node], clock: Clock, stop: &Stop) -> Watched {
    let mut watched = Watched::default();
    // Not the caller's: reaching the limit ends the work and nothing else.
    let enough = Stop::default();
    let body = |id: usize, tell: &dyn Fn(Told)| {
        let over = || stop.is_raised() || enough.is_raised();
        if let Err(error) = client(plan, nodes, clock, &over, id, tell) {
            tell(Told::Wrong(format!("client {id}: {error}")));
            enough.raise();
        }
    };
    threads::run(usize::from(plan.clients), body, |told| match told {
        Told::Observed(records) => {
            watched.history.extend(records);
            if watched.history.len() >= VERIFY_RECORDS_MAX {
                watched.full = true;
                enough.raise();
            }
        }
        Told::Unanswered => watched.unanswered += 1,
        Told::Wrong(what) => {
            if watched.wrong.len() < WRONG_MAX {
                watched.wrong.push(what);
            }
        }
    });
    watched
}

fn client(
    plan: &Plan,
    nodes: &[Node],
    clock: Clock,
    over: &dyn Fn() -> bool,
    id: usize,
    tell: &dyn Fn(Told),
) -> io::Result<()> {
    let mut line = Line::new(clock)?;
    let mut client = Client::new(plan, u16::try_from(id).unwrap_or(u16::MAX));
    let mut node = id % nodes.len();
    let start = clock.now();
    loop {
        let passed = clock.now() - start;
        if over() || passed >= plan.duration {
            return Ok(());
        }
        // Now and then somewhere else, so that all clients meet all nodes.
        if client.rng().u8(..20) == 0 {
            node = client.rng().usize(..nodes.len());
        }
        let ask = client.next(passed);
        let invoke = clock.now();
        let reply = put(plan, &ask, &nodes[node], &mut line);
        let complete = clock.now();
        let told = match client.note(&ask, invoke, complete, &reply) {
            Ok(records) if records.is_empty() => Told::Unanswered,
            Ok(records) => Told::Observed(records),
            Err(what) => {
                let (host, shown) = (&nodes[node].host, reply.show());
                Told::Wrong(format!("{host}, {ask:?}: {what}: {shown}"))
            }
        };
        tell(told);
        if matches!(reply, Reply::Lost | Reply::Unasked) {
            node = client.rng().usize(..nodes.len());
            line.rest(REST)?;
        }
        line.rest(PACE)?;
    }
}

/// Puts a question to a node.
fn put(plan: &Plan, ask: &Ask, node: &Node, line: &mut Line) -> Reply {
    let (method, request) = plan.request(ask, &node.host);
    match line.ask(node.address, method, &request, PATIENCE) {
        Ok(answered) => Reply::Answer {
            status: answered.status,
            version: answered.version,
            body: answered.body,
        },
        Err(Trouble { error, .. }) if error.kind() == io::ErrorKind::InvalidData => {
            Reply::Nonsense(error.to_string())
        }
        Err(Trouble { sent: true, .. }) => Reply::Lost,
        Err(Trouble { sent: false, .. }) => Reply::Unasked,
    }
}

/// Reads every key that was written off every node alone, until all copies are equal or `patience` is over; what was
/// read last becomes history.
pub fn settle(
    plan: &Plan,
    nodes: &[Node],
    clock: Clock,
    stop: &Stop,
    patience: Duration,
    watched: &mut Watched,
) -> io::Result<Settled> {
    let mut line = Line::new(clock)?;
    let mut settled = Settled::default();
    let start = clock.now();
    let mut asked: Vec<usize> = (0..nodes.len()).collect();
    for key in written(&watched.history) {
        loop {
            let asking = asked.iter().map(|at| (*at, &nodes[*at]));
            let (copies, silent) = copies(plan, asking, clock, &mut line, key, &mut watched.wrong);
            let equal = copies.windows(2).all(|pair| pair[0].act == pair[1].act);
            let over = clock.now() - start >= patience || stop.is_raised();
            if (equal && silent.is_empty()) || over {
                settled.interrupted |= stop.is_raised();
                settled.unequal += usize::from(!equal && !settled.interrupted);
                // Or every further key would wait for them.
                asked.retain(|at| !silent.contains(at));
                settled.silent.extend(silent);
                watched.history.extend(copies);
                break;
            }
            line.rest(LOOK)?;
        }
    }
    settled.took = clock.now() - start;
    Ok(settled)
}

/// What each node alone has of a key, and the nodes that do not tell.
fn copies<'n>(
    plan: &Plan,
    nodes: impl Iterator<Item = (usize, &'n Node)>,
    clock: Clock,
    line: &mut Line,
    key: u16,
    wrong: &mut Vec<String>,
) -> (Vec<Record>, BTreeSet<usize>) {
    let mut copies = Vec::new();
    let mut silent = BTreeSet::new();
    let ask = Ask::Get {
        key,
        after: Version::ZERO,
        how: How::Last,
    };
    for (at, node) in nodes {
        let invoke = clock.now();
        let reply = put(plan, &ask, node, line);
        let complete = clock.now();
        let acts: Vec<(u16, Act)> = plan.understand(&ask, &reply).unwrap_or_else(|what| {
            if wrong.len() < WRONG_MAX {
                wrong.push(format!("{}, {ask:?}: {what}: {}", node.host, reply.show()));
            }
            Vec::new()
        });
        if acts.is_empty() {
            silent.insert(at);
        }
        copies.extend(acts.into_iter().map(|(key, act)| Record {
            client: plan.clients + u16::try_from(at).unwrap_or(u16::MAX),
            key,
            quorum: plan.quorum(&ask),
            invoke,
            complete,
            act,
        }));
    }
    (copies, silent)
}

/// Deletes every key that was written, unless somebody is tired of waiting. How many are there all the same. Every node
/// that is not `silent` is asked: the clock of one that was
/// started again may be ahead of the others' (docs/guarantees.md), whose deletions are older than its writes then.
pub fn clear_up(
    plan: &Plan,
    nodes: &[Node],
    clock: Clock,
    stop: &Stop,
    silent: &BTreeSet<usize>,
    watched: &Watched,
) -> io::Result<usize> {
    let mut line = Line::new(clock)?;
    let mut left = 0;
    let nodes: Vec<&Node> = (0..nodes.len())
        .filter(|at| !silent.contains(at))
        .map(|at| &nodes[at])
        .collect();
    // A signal that came before has ended the watching; one that comes now ends this.
    let was_raised = stop.is_raised();
    for key in written(&watched.history) {
        if stop.is_raised() && !was_raised {
            left += 1;
            continue;
        }
        for node in &nodes {
            // Whether it worked is looked at below.
            put(plan, &Ask::Delete { key }, node, &mut line);
        }
        let get = Ask::Get {
            key,
            after: Version::ZERO,
            how: How::Get,
        };
        let is_gone = nodes.iter().any(|node| {
            let reply = put(plan, &get, node, &mut line);
            matches!(reply, Reply::Answer { status: 404, .. })
        });
        left += usize::from(!is_gone);
    }
    Ok(left)
}

/// How many replicas the node keeps of each key (N): it refuses to read from one more. `None`: it does not say.
pub fn copies_of(node: &Node, clock: Clock) -> io::Result<Option<u16>> {
    let mut line = Line::new(clock)?;
    for r in 1..=REPLICAS_MAX + 1 {
        let target = format!("/get?key=kvstore-verify&r={r}");
        let mut bytes = Vec::new();
        request(&mut bytes, Method::Get, &target, &node.host, &[], None);
        match line.ask(node.address, Method::Get, &bytes, PATIENCE) {
            Ok(answered) if answered.status == 400 && r > 1 => return Ok(Some(r - 1)),
            Ok(answered) if matches!(answered.status, 200 | 404 | 503 | 504) => {}
            _ => return Ok(None),
        }
    }
    Ok(None)
}
