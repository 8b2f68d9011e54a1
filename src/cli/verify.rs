//! `kvstore verify URL..`: whether a live cluster keeps its promises, as its clients see it.
//!
//! ```text
//! clients ask for -duration ─▶ every copy is read until all are equal ─▶ the history is judged ─▶ the keys are deleted
//! ```
//!
//! It writes below a prefix of its own and nothing else. Kill, stop and cut off nodes meanwhile: that is what it is for.
//!
//! Exit codes: 0 all promises were kept, 1 one was not, 2 usage, 3 no node could be asked, or not all in the end, or
//! none answered enough to judge by.

use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

use clap::Arg;

use super::args::{command_of, mistake, rewrite, valued};
use super::bench::{self, url::url};
use super::units::{parse_duration, show_duration};
use super::{StartError, help, say};
use crate::load::clients::{self, Node, Settled, Watched};
use crate::load::template::Template;
use crate::load::verify::{Plan, is_telling, summary};
use crate::rt::plain::Clock;
use crate::rt::stop::Stop;
use crate::rt::{early, uring};

const USAGE: &str =
    "kvstore verify [-duration 60s] [-c 8] [-keys 24] [-w 2 -r 2] [-seed 1] [-settle 60s] URL..";
const FAREWELL: &str = "error: a further signal ends it at once\nhint: its keys stay behind\n";

/// Clients are threads, each with a connection; keys of a generation.
const CLIENTS_MAX: u64 = 256;
const KEYS_MAX: u64 = 10_000;
const NODES_MAX: u64 = 64;

const UNASKED: u8 = 3;

#[derive(Debug, PartialEq, Eq)]
struct Wanted {
    duration: Duration,
    settle: Duration,
    clients: u16,
    keys: u16,
    write_quorum: Option<u16>,
    read_quorum: Option<u16>,
    seed: Option<u64>,
    authorities: Vec<String>,
}

/// All that follows the word `verify`.
pub fn verify(argv: &[String], out: &mut dyn Write) -> Result<ExitCode, StartError> {
    if let Some(code) = help(argv, USAGE, out) {
        return Ok(code);
    }
    let wanted = parse(argv)?;
    let clock = Clock::start();
    let nodes = reachable(&wanted)?;
    let plan = plan(&wanted, copies(&nodes, clock)?)?;
    let stop = Stop::default();
    uring::raise_on_signals(&stop, FAREWELL).map_err(machine)?;
    say(
        out,
        &format!(
            "{} nodes, N={} W={} R={}, {} clients, {} keys at a time, {}, seed {}, prefix {}\n",
            nodes.len(),
            plan.copies,
            plan.write_quorum,
            plan.read_quorum,
            plan.clients,
            plan.keys,
            show_duration(plan.duration),
            plan.seed,
            plan.prefix
        ),
    );
    let mut watched = clients::work(&plan, &nodes, clock, &stop);
    let settled = clients::settle(&plan, &nodes, clock, &stop, wanted.settle, &mut watched);
    let settled = settled.map_err(machine)?;
    let code = tell(&plan, &nodes, &watched, &settled, out);
    let left = clients::clear_up(&plan, &nodes, clock, &stop, &settled.silent, &watched);
    let left = left.map_err(machine)?;
    if left > 0 {
        let prefix = &plan.prefix;
        say(
            out,
            &format!("warning: {left} keys {prefix}.. could not be deleted\n"),
        );
    }
    Ok(code)
}

fn machine(error: std::io::Error) -> StartError {
    StartError {
        exit: UNASKED,
        ..StartError::new(
            format!("this machine does not let clients run: {error}"),
            "is there a limit of open files or threads (ulimit -n, ulimit -u)?",
        )
    }
}

fn parse(argv: &[String]) -> Result<Wanted, StartError> {
    let refused = |error: String| StartError::usage(error, USAGE);
    let names = ["duration", "settle", "c", "keys", "w", "r", "seed"];
    let urls = Arg::new("urls").num_args(0..);
    let command = command_of(names.map(valued)).arg(urls);
    let matches = command
        .clone()
        .try_get_matches_from(rewrite(&command, argv))
        .map_err(|error| refused(mistake(&error).message))?;
    let given = |name: &str| matches.get_one::<String>(name).map(String::as_str);
    let time = |name: &str, default: Duration| match given(name) {
        None => Ok(default),
        Some(text) => parse_duration(text)
            .filter(|time| !time.is_zero())
            .ok_or_else(|| refused(format!("-{name} {text:?} is not a duration such as 60s"))),
    };
    let number = |name: &str, most: u64| match given(name) {
        None => Ok(None),
        Some(text) => match text.parse::<u64>() {
            Ok(number) if (1..=most).contains(&number) => Ok(u16::try_from(number).ok()),
            _ => Err(refused(format!(
                "-{name} {text:?} is not a number from 1 to {most}"
            ))),
        },
    };
    let seed = match given("seed") {
        None => None,
        Some(text) => match text.parse() {
            Ok(seed) => Some(seed),
            Err(_) => return Err(refused(format!("-seed {text:?} is not a number"))),
        },
    };
    let minute = Duration::from_secs(60);
    let urls = matches.get_many::<String>("urls").unwrap_or_default();
    let wanted = Wanted {
        duration: time("duration", minute)?,
        settle: time("settle", minute)?,
        clients: number("c", CLIENTS_MAX)?.unwrap_or(8),
        keys: number("keys", KEYS_MAX)?.unwrap_or(24),
        write_quorum: number("w", NODES_MAX)?,
        read_quorum: number("r", NODES_MAX)?,
        seed,
        authorities: urls.map(|url| authority(url)).collect::<Result<_, _>>()?,
    };
    if wanted.authorities.is_empty() {
        return Err(refused(
            "verify needs the URL of a node, better of all nodes".to_owned(),
        ));
    }
    Ok(wanted)
}

/// `localhost:8081` of `http://localhost:8081/`.
fn authority(text: &str) -> Result<String, StartError> {
    let url = url(text)?;
    if url.path != Template::parse("/").expect("a constant") {
        let error =
            format!("{text:?}: verify makes its own requests: the URL must not have a path");
        return Err(StartError::usage(error, USAGE));
    }
    Ok(url.authority)
}

/// All nodes, of which at least one answers: the others may be down for a purpose.
fn reachable(wanted: &Wanted) -> Result<Vec<Node>, StartError> {
    let mut nodes = Vec::new();
    let mut why = String::new();
    let mut answering = 0;
    for host in &wanted.authorities {
        let found = match early::resolve(host) {
            Ok(found) => found,
            // As good as a node that is down.
            Err(error) => {
                why = format!("{host}: {error}");
                continue;
            }
        };
        let answers = match bench::reachable(&found) {
            Ok(address) => Some(address),
            Err(error) => {
                why = format!("nobody answers at {host}: {error}");
                None
            }
        };
        answering += usize::from(answers.is_some());
        if let Some(address) = answers.or(found.first().copied()) {
            let host = host.clone();
            nodes.push(Node { host, address });
        }
    }
    if answering == 0 {
        return Err(StartError {
            exit: UNASKED,
            ..StartError::new(why, "are the nodes running, and are these their ports?")
        });
    }
    Ok(nodes)
}

/// Replicas of each key, as the first node that answers has it.
fn copies(nodes: &[Node], clock: Clock) -> Result<u16, StartError> {
    for node in nodes {
        if let Some(copies) = clients::copies_of(node, clock).map_err(machine)? {
            return Ok(copies);
        }
    }
    Err(StartError {
        exit: UNASKED,
        ..StartError::new(
            "no node says how many replicas it keeps",
            "are these nodes of kvstore, and do they need a token?",
        )
    })
}

fn plan(wanted: &Wanted, copies: u16) -> Result<Plan, StartError> {
    let quorum = |flag: &str, given: Option<u16>| match given {
        None => Ok(copies / 2 + 1),
        Some(given) if given <= copies => Ok(given),
        Some(given) => Err(StartError::usage(
            format!("-{flag} {given} is more than the {copies} replicas there are of a key"),
            USAGE,
        )),
    };
    Ok(Plan {
        clients: wanted.clients,
        keys: wanted.keys,
        copies,
        write_quorum: quorum("w", wanted.write_quorum)?,
        read_quorum: quorum("r", wanted.read_quorum)?,
        seed: wanted.seed.unwrap_or_else(|| fastrand::u64(..)),
        duration: wanted.duration,
        prefix: format!("kvstore-verify:{:016x}:", fastrand::u64(..)),
    })
}

fn tell(
    plan: &Plan,
    nodes: &[Node],
    watched: &Watched,
    settled: &Settled,
    out: &mut dyn Write,
) -> ExitCode {
    say(
        out,
        &format!("{}\n", summary(&watched.history, watched.unanswered)),
    );
    if watched.full {
        say(out, "it ended early: more observations are not kept\n");
    }
    if plan.write_quorum + plan.read_quorum <= plan.copies {
        say(
            out,
            "with W + R of at most N a read may miss a write: that is not looked for\n",
        );
    }
    let mut kept = true;
    for what in &watched.wrong {
        kept = false;
        say(
            out,
            &format!("a wrong answer: {}\n", super::log::escape(what)),
        );
    }
    if let Err(unexplained) = plan.judge(&watched.history) {
        kept = false;
        let (key, text) = (unexplained.key, unexplained.text);
        say(
            out,
            &format!(
                "a promise was broken, key {}{key:05}:\n{text}\n",
                plan.prefix
            ),
        );
    }
    tell_copies(nodes, settled, out);
    let told = is_telling(&watched.history);
    if !told {
        say(
            out,
            "no write or no read was answered: nothing is verified\n",
        );
    }
    match (
        kept && settled.unequal == 0,
        told && settled.silent.is_empty() && !settled.interrupted,
    ) {
        (false, _) => ExitCode::FAILURE,
        (true, false) => ExitCode::from(UNASKED),
        (true, true) => {
            say(out, "all promises kept\n");
            ExitCode::SUCCESS
        }
    }
}

fn tell_copies(nodes: &[Node], settled: &Settled, out: &mut dyn Write) {
    let took = show_duration(settled.took);
    match settled.unequal {
        0 if settled.interrupted => say(
            out,
            "interrupted: the copies were not compared to the end\n",
        ),
        0 if !settled.silent.is_empty() => say(out, "all copies that were seen are equal\n"),
        0 => say(out, &format!("all copies were equal after {took}\n")),
        unequal => say(
            out,
            &format!("{unequal} keys had different copies after {took}\n"),
        ),
    }
    for at in &settled.silent {
        let host = &nodes[*at].host;
        say(
            out,
            &format!("{host} did not answer in the end: its copies are unknown\n"),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Wanted, StartError> {
        let argv: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        parse(&argv)
    }

    #[test]
    fn flags_and_defaults() {
        let wanted = parsed("http://localhost:8081/ localhost:8082").unwrap();
        assert_eq!(wanted.authorities, ["localhost:8081", "localhost:8082"]);
        assert_eq!(
            (wanted.duration.as_secs(), wanted.clients, wanted.keys),
            (60, 8, 24)
        );
        assert_eq!(
            (wanted.write_quorum, wanted.read_quorum, wanted.seed),
            (None, None, None)
        );
        let wanted = parsed("-duration 3s --c=2 -w 3 -r=1 -seed 7 [::1]:1").unwrap();
        assert_eq!((wanted.duration.as_secs(), wanted.clients), (3, 2));
        assert_eq!(
            (wanted.write_quorum, wanted.read_quorum),
            (Some(3), Some(1))
        );
        assert_eq!((wanted.seed, &*wanted.authorities[0]), (Some(7), "[::1]:1"));
    }

    #[test]
    fn mistakes_get_one_line_and_a_hint() {
        for (line, error) in [
            ("", "verify needs the URL of a node"),
            (
                "-duration 3 localhost:1",
                "-duration \"3\" is not a duration",
            ),
            ("-c 0 localhost:1", "-c \"0\" is not a number from 1 to 256"),
            ("-seed x localhost:1", "-seed \"x\" is not a number"),
            ("-zzz localhost:1", "unknown flag -zzz"),
            ("http://localhost:1/get", "the URL must not have a path"),
        ] {
            let found = parsed(line).unwrap_err();
            assert!(found.error.contains(error), "{line}: {found:?}");
            assert_eq!((found.exit, &*found.hint), (2, USAGE), "{line}");
        }
        assert_eq!(parsed("https://localhost:1").unwrap_err().exit, 2);
    }

    #[test]
    fn nobody_there_is_exit_3() {
        // Nothing listens on the port of a listener that is gone.
        let port = std::net::TcpListener::bind("127.0.0.1:0")
            .and_then(|listener| listener.local_addr())
            .unwrap()
            .port();
        let argv = [format!("127.0.0.1:{port}")];
        let found = verify(&argv, &mut Vec::new()).unwrap_err();
        assert_eq!(found.exit, 3, "{found:?}");
        assert!(found.error.contains("nobody answers"), "{found:?}");
    }
}
