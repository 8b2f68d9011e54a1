//! `kvstore bench`: from flags to a plan, and from what the threads tell to reports.
//!
//! ```text
//!  argv ─▶ flags ─▶ plan ─▶ (load phase) ─▶ run ─▶ recorder ─▶ text, json, csv, html
//!                                            └─ each second ─▶ live line, hdr log
//! ```

mod flags;
mod machine;
mod run;
pub mod url;
mod wanted;

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use self::url::Url;
use self::wanted::{Bench, Body, Print, Wanted, What};
use super::{StartError, compare, say};
use crate::load::keys::{Distribution, Keys};
use crate::load::once;
use crate::load::outcome::{Described, Outcome, quantile};
use crate::load::plan::{Act, Plan, Space, Target, Work};
use crate::load::report::{csv, html, json, text};
use crate::load::template::Template;
use crate::load::values::Values;
use crate::rt::stop::Stop;
use crate::rt::{early, plain, uring};

/// More requests failed than allowed.
const EXIT_FAILED: u8 = 3;
const EXIT_INTERRUPTED: u8 = 130;

/// How long a target may take to accept a connection before anything else is tried.
const PATIENCE: Duration = Duration::from_secs(5);
/// More processor time than this share of a thread's time, and the client may be what is measured.
const BUSY_HIGH: f64 = 0.9;
/// Later than this for one request in a hundred, and the schedule was not kept.
const LAG_HIGH: Duration = Duration::from_millis(1);
/// More gets of absent keys than this share are hardly meant.
const MISSING_HIGH: f64 = 0.01;
/// Connections of the load phase, which writes batches.
const LOAD_CONNECTIONS_MAX: usize = 16;

const FAREWELL: &str =
    "error: a further signal ends the run at once\nhint: nothing of it is reported\n";

/// All that follows the word `bench`.
pub fn bench(argv: &[String]) -> Result<ExitCode, StartError> {
    if let Some((word, rest)) = argv.split_first()
        && word == "compare"
    {
        return compare::compare(rest, &mut io::stdout());
    }
    match wanted::parse(argv)? {
        Bench::Help => {
            say(&mut io::stdout(), &flags::help());
            Ok(ExitCode::SUCCESS)
        }
        Bench::Run(wanted) => measure(&wanted, argv),
    }
}

fn measure(wanted: &Wanted, argv: &[String]) -> Result<ExitCode, StartError> {
    let cpus = uring::available_cpus()?.len();
    let plan = plan(wanted, cpus)?;
    let stop = Stop::default();
    uring::raise_on_signals(&stop, FAREWELL).map_err(|error| {
        StartError::new(format!("cannot watch for signals: {error}"), "try again")
    })?;
    if wanted.load {
        load(&plan, wanted, &stop)?;
    }
    let mut machine = machine::here(cpus);
    machine.server_before = health(&plan);
    let mut described = described(wanted, &plan, argv);
    described.began_unix_ms = plain::wall_ms() + plan.warmup.as_millis() as u64;
    let ran = run::run(&plan, &described, &stop, run::progress(wanted.quiet, ""))?;
    machine.server_after = health(&plan);
    let mut outcome = Outcome {
        run: described,
        machine,
        elapsed: ran.elapsed,
        total: ran.total,
        seconds: ran.seconds,
        warnings: Vec::new(),
    };
    outcome.warnings = warnings(&outcome, ran.unsent);
    report(wanted, &outcome, &ran.hlog)?;
    Ok(verdict(&outcome, wanted.max_errors, stop.is_raised()))
}

fn verdict(outcome: &Outcome, max_errors: f64, interrupted: bool) -> ExitCode {
    let (ended, failed) = (outcome.total.ended(), outcome.total.failed());
    if interrupted {
        ExitCode::from(EXIT_INTERRUPTED)
    } else if ended == 0 || failed as f64 * 100.0 > ended as f64 * max_errors {
        ExitCode::from(EXIT_FAILED)
    } else {
        ExitCode::SUCCESS
    }
}

/// Looks names up, and makes sure that somebody is there.
fn plan(wanted: &Wanted, cpus: usize) -> Result<Plan, StartError> {
    let targets = wanted.urls.iter().map(|url| target(url, wanted));
    let targets = targets.collect::<Result<Vec<_>, _>>()?;
    let space = Space {
        keys: Keys::new(wanted.distribution, wanted.keys),
        format: wanted.key_format.clone(),
        values: Values::new(wanted.sizes),
        batch_items: wanted.batch_items,
        scan_rows: wanted.scan_rows,
        scan_rows_vary: matches!(wanted.what, What::Workload("ycsb-e", _)),
    };
    let work = match &wanted.what {
        What::Workload(_, acts) => Work::Mix {
            acts: acts.clone(),
            space,
        },
        What::Request { method, body } => Work::Spelt {
            method: method.clone(),
            body: read_body(body)?,
            space,
        },
    };
    Ok(Plan {
        targets,
        work,
        requests: wanted.requests,
        duration: wanted.duration,
        connections: wanted.connections,
        threads: wanted.threads.unwrap_or(cpus).min(wanted.connections),
        pipeline: wanted.pipeline,
        rate: wanted.rate,
        warmup: wanted.warmup,
        timeout: wanted.timeout,
        keep_alive: wanted.keep_alive,
        seed: wanted.seed,
        verify: wanted.verify,
        fields: wanted.fields.clone(),
        query: wanted.query.clone(),
    })
}

fn read_body(body: &Body) -> Result<Option<Template>, StartError> {
    match body {
        Body::None => Ok(None),
        Body::Text(template) => Ok(Some(template.clone())),
        Body::File(file) => {
            let remedy = "-D names a file of UTF-8 text of at most 1 MiB";
            let refused = |why: String| StartError::new(format!("-D {file:?}: {why}"), remedy);
            let bytes =
                early::read_small(Path::new(file)).map_err(|error| refused(error.to_string()))?;
            let bytes = bytes.ok_or_else(|| refused("there is no such file".to_string()))?;
            let text =
                String::from_utf8(bytes).map_err(|_| refused("it is not UTF-8".to_string()))?;
            wanted::template(&format!("-D {file}"), &text).map(Some)
        }
    }
}

fn target(url: &Url, wanted: &Wanted) -> Result<Target, StartError> {
    let addresses = early::resolve(&url.authority).map_err(|error| {
        StartError::new(
            format!("{}: {error}", url.authority),
            "is the name spelt right?",
        )
    })?;
    let address = reachable(&addresses).map_err(|error| {
        let why = format!("nobody answers at {}: {error}", url.authority);
        StartError::new(why, "is the server running, and is this its port?")
    })?;
    let host = wanted.host.clone().unwrap_or_else(|| {
        let bare = url.authority.strip_suffix(":80");
        bare.unwrap_or(&url.authority).to_string()
    });
    Ok(Target {
        host,
        address,
        path: url.path.clone(),
    })
}

/// The first of a name's addresses that accepts connections.
pub(super) fn reachable(addresses: &[SocketAddr]) -> io::Result<SocketAddr> {
    let mut why = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for address in addresses {
        match once::connect(*address, PATIENCE) {
            Ok(()) => return Ok(*address),
            Err(error) => why = error,
        }
    }
    Err(why)
}

/// What the first target says of itself. Asked of this system only: another server gets exactly the requests it was
/// meant to get.
fn health(plan: &Plan) -> String {
    let Work::Mix { .. } = plan.work else {
        return String::new();
    };
    match once::get(&plan.targets[0], "/health", PATIENCE) {
        Ok((_, body)) => String::from_utf8_lossy(&body).trim().to_string(),
        Err(error) => error.to_string(),
    }
}

/// Writes every key once, in batches.
fn load(plan: &Plan, wanted: &Wanted, stop: &Stop) -> Result<(), StartError> {
    let connections = plan.connections.min(LOAD_CONNECTIONS_MAX);
    let batches = wanted.keys.div_ceil(wanted.batch_items as u64);
    let fill = Plan {
        work: Work::Mix {
            acts: vec![(Act::Batch, 1)],
            space: Space {
                keys: Keys::new(Distribution::Sequential, wanted.keys),
                ..plan.work.space().clone()
            },
        },
        requests: Some(batches),
        duration: None,
        connections,
        threads: plan.threads.min(connections),
        pipeline: 1,
        rate: None,
        warmup: Duration::ZERO,
        keep_alive: true,
        ..plan.clone()
    };
    let described = Described::default();
    let ran = run::run(
        &fill,
        &described,
        stop,
        run::progress(wanted.quiet, "load "),
    )?;
    if stop.is_raised() {
        let error = format!(
            "interrupted when {} of {batches} batches were loaded",
            ran.total.ended()
        );
        let hint = "nothing was measured; the keys that were written stay";
        return Err(StartError {
            exit: EXIT_INTERRUPTED,
            ..StartError::new(error, hint)
        });
    }
    if let Some((failure, count)) = ran.total.failures.first_key_value() {
        let error = format!("the load phase failed: {count} of {batches} batches: {failure}");
        let remedy = "-load is for servers with POST /batch; see what the server's log says";
        return Err(StartError::new(error, remedy));
    }
    if !wanted.quiet {
        let seconds = ran.elapsed.as_secs_f64();
        say(
            &mut io::stderr(),
            &format!("loaded {} keys in {seconds:.1} s\n", wanted.keys),
        );
    }
    Ok(())
}

fn described(wanted: &Wanted, plan: &Plan, argv: &[String]) -> Described {
    let words = ["kvstore", "bench"].map(str::to_string);
    let workload = match &wanted.what {
        What::Workload(name, _) => (*name).to_string(),
        What::Request { method, .. } => method.clone(),
    };
    Described {
        command: words.into_iter().chain(argv.iter().cloned()).collect(),
        targets: plan
            .targets
            .iter()
            .map(|target| target.host.clone())
            .collect(),
        workload,
        connections: plan.connections,
        threads: plan.threads,
        pipeline: plan.pipeline,
        rate: plan.rate,
        warmup: plan.warmup,
        requests: plan.requests,
        duration: plan.duration,
        began_unix_ms: 0,
    }
}

/// Why the figures may say less than they seem to.
fn warnings(outcome: &Outcome, unsent: u64) -> Vec<String> {
    let total = &outcome.total;
    let mut warnings = Vec::new();
    if total.ended() == 0 {
        warnings.push("nothing was measured: no request ended".to_string());
    }
    let busy = total.busy.as_secs_f64() / total.watched.as_secs_f64().max(1e-9);
    if busy > BUSY_HIGH {
        warnings.push(format!(
            "this client was busy for {:.0} % of its threads' time: it may be what was measured, and not the server; \
             give it more -cpus, or a machine of its own",
            busy * 100.0
        ));
    }
    if let Some(lag) = &total.lag {
        let late = quantile(lag, 0.99);
        if late > LAG_HIGH && busy <= BUSY_HIGH {
            warnings.push(format!(
                "one request in a hundred was sent {late:.1?} late or more, for want of a free connection: more -c, or \
                 the server does not keep up with the rate"
            ));
        }
    }
    if unsent > 0 {
        warnings.push(format!(
            "{unsent} requests that were due were never sent: the server did not keep up, and latencies beyond the end \
             are missing"
        ));
    }
    let missing: u64 = total.ops().map(|(_, of)| of.missing).sum();
    if missing as f64 > total.ended() as f64 * MISSING_HIGH {
        warnings.push(format!(
            "{missing} of {} requests were for keys that are not there: -load writes them first",
            total.ended()
        ));
    }
    warnings
}

fn report(wanted: &Wanted, outcome: &Outcome, hlog: &[u8]) -> Result<(), StartError> {
    let printed = match wanted.print {
        Print::Text => text::text(outcome),
        Print::Csv => csv::csv(outcome),
        Print::Json => json::json(outcome),
    };
    say(&mut io::stdout(), &printed);
    let files = [
        (&wanted.json, json::json as fn(&Outcome) -> String),
        (&wanted.csv, csv::csv),
        (&wanted.html, html::html),
    ];
    for (path, make) in files {
        if let Some(path) = path {
            keep(path, make(outcome).as_bytes())?;
        }
    }
    match &wanted.hdr {
        Some(path) => keep(path, hlog),
        None => Ok(()),
    }
}

fn keep(path: &str, bytes: &[u8]) -> Result<(), StartError> {
    early::replace_small(Path::new(path), bytes).map_err(|error| {
        let error = format!("cannot write {path}: {error}");
        StartError::new(
            error,
            "the summary above stands; name a file in a folder that exists",
        )
    })
}
