//! A whole cluster in one thread under a seed: nodes, clients, faults, and in the end the truth.
//!
//! ```text
//! Plan(seed) ─▶ town: N nodes of C cores        clients ── HTTP over the simulated net ──▶ nodes
//!                 ▲                                │ every answer
//!               nemesis: cut, kill, crash, ..      ▼
//!                                                 book ─▶ history::check
//!
//! clients and nemesis ─▶ heal ─▶ wait ─▶ read every key at every node, once and, after a read of all, again
//! ```
//!
//! The nodes are the production server, `node::run` on each core. A seed replays exactly; a failure tells the seed,
//! the plan, the violation, and the last steps that led there.
//!
//! What it does not do: real time, real sockets, one slow core beside fast ones (a whole process is paused, or none).

mod ask;
mod book;
mod client;
mod line;
mod nemesis;
pub mod plan;
mod town;

use std::rc::Rc;
use std::time::Duration;

use self::ask::{Ask, Asking};
use self::book::Book;
pub use self::book::Report;
use self::client::{Client, machine};
use self::nemesis::Nemesis;
use self::plan::Plan;
use self::town::Town;
use super::ledger::Violation;
use crate::base::version::Version;
use crate::load::answer::Rows;
use crate::load::history::{self, How};
use crate::node::cluster::Level;

/// How often nodes are looked at.
const TICK: Duration = Duration::from_millis(10);
/// All nodes that nothing disturbs serve by then.
const STARTS_WITHIN: Duration = Duration::from_secs(30);
/// Nodes that run know each other by then.
const MEET_WITHIN: Duration = Duration::from_secs(5);
/// All clients have finished by then.
const WORKS_WITHIN: Duration = Duration::from_secs(600);
/// What was kept for others has reached them by then, and replicas have been compared.
const HEALS_WITHIN: Duration = Duration::from_secs(30);
/// A repair that nobody waits for is done by then.
const REPAIRS_WITHIN: Duration = Duration::from_secs(2);

/// Tells the story of one plan.
pub fn run(plan: &Plan) -> Result<Report, Violation> {
    let book = Rc::new(Book::default());
    let plan = Rc::new(plan.clone());
    let mut town = Town::new(&plan, &book);
    let lived = live(&mut town, &plan, &book);
    let mut report = book.sums();
    report.rotten = town.rotten_reads();
    report.trace = town.world.trace();
    let (key, what) = match (lived, history::check(&book.records(), &plan.rules())) {
        (Ok(()), Ok(())) => return Ok(report),
        (Err(violation), _) => (None, violation.0),
        (Ok(()), Err(found)) => (
            Some(found.key),
            format!("key {}: {}", found.key, found.text),
        ),
    };
    let steps = book.steps(key);
    let seed = plan.seed;
    let text = format!("SEED={seed}: {what}\n{plan:?}\n{report:?}\nlast steps:\n{steps}");
    Err(Violation(text))
}

fn live(town: &mut Town, plan: &Rc<Plan>, book: &Rc<Book>) -> Result<(), Violation> {
    until_whole(town)?;
    pass(town, MEET_WITHIN)?;
    for id in 0..plan.clients {
        let rt = town.world.boot(machine(id), 1).remove(0);
        rt.spawn(Client::new(&rt, id, plan, book).work());
    }
    book.busy.set(usize::from(plan.clients));
    let mut nemesis = Nemesis::new(plan);
    until_idle(town, book, |town| nemesis.act(town, book))?;
    town.heal();
    pass(town, HEALS_WITHIN)?;
    until_whole(town)?;
    let rt = town.world.boot(machine(plan.clients), 1).remove(0);
    book.busy.set(1);
    let auditor = Client::new(&rt, plan.clients, plan, book);
    rt.spawn(audit(auditor, Rc::clone(plan), Rc::clone(book)));
    until_idle(town, book, |_| {})
}

fn until_whole(town: &mut Town) -> Result<(), Violation> {
    let until = town.world.now() + STARTS_WITHIN;
    while !town.is_whole() {
        if town.world.now() > until {
            return Err(Violation("not all nodes start".to_owned()));
        }
        town.world.run_for(TICK);
        town.tend()?;
    }
    Ok(())
}

/// Lets time pass.
fn pass(town: &mut Town, span: Duration) -> Result<(), Violation> {
    let until = town.world.now() + span;
    while town.world.now() < until {
        town.world.run_for(TICK);
        town.tend()?;
    }
    Ok(())
}

/// Lets the world turn until every client is done.
fn until_idle(
    town: &mut Town,
    book: &Book,
    mut meanwhile: impl FnMut(&mut Town),
) -> Result<(), Violation> {
    let until = town.world.now() + WORKS_WITHIN;
    while book.busy.get() > 0 {
        if town.world.now() > until {
            return Err(Violation("clients do not finish".to_owned()));
        }
        meanwhile(town);
        town.world.run_for(TICK);
        town.tend()?;
        book.verdict()?;
    }
    Ok(())
}

/// Reads everything everywhere. Whatever is asked for now must be answered.
async fn audit(mut client: Client, plan: Rc<Plan>, book: Rc<Book>) {
    let get = |key, how, level| {
        let after = Version::ZERO;
        let ask = Ask::Get { key, after, how };
        Asking { ask, level }
    };
    let mut asked = Vec::new();
    // What a replica has missed was kept for it, and has arrived. Or it was found when replicas were compared: then
    // they are equal, though nobody has read.
    let unread = match plan.repair_every {
        Some(_) => Some(How::Last),
        None => plan.keeps_all_hints().then_some(How::Healed),
    };
    if let Some(how) = unread {
        for (key, node) in each(&plan) {
            asked.push((node, get(key, how, Level::One)));
        }
    }
    for key in 0..plan.keys {
        asked.push((1, get(key, How::Get, Level::All)));
    }
    let last = asked.len();
    for (key, node) in each(&plan) {
        asked.push((node, get(key, How::Last, Level::One)));
    }
    for node in 1..=plan.nodes {
        let ask = Ask::Scan(Rows {
            from: 0,
            to: plan.keys - 1,
            rows_max: None,
        });
        let level = Level::All;
        asked.push((node, Asking { ask, level }));
        let ask = Ask::Put {
            // No key of the clients.
            key: plan.keys,
            value: book.next_value(),
        };
        asked.push((node, Asking { ask, level }));
    }
    for (at, (node, asking)) in asked.into_iter().enumerate() {
        if at == last {
            client.rest(REPAIRS_WITHIN).await;
        }
        let text = format!("node {node} does not serve although all is healed: {asking:?}");
        if !client.carry_out(node, &[asking]).await {
            book.broken(text);
            break;
        }
    }
    book.busy.set(0);
}

fn each(plan: &Plan) -> impl Iterator<Item = (u16, u16)> + use<> {
    let nodes = plan.nodes;
    (0..plan.keys).flat_map(move |key| (1..=nodes).map(move |node| (key, node)))
}
